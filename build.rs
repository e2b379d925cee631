//! Assembles the stubs in `asm/` where NASM is installed. Elsewhere the library compiles the generated text in
//! `asm/generated/`, which has the same bytes.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, exit};

/// Older ones lack `--reproducible`.
const OLDEST_NASM: (u32, u32) = (2, 15);

fn main() {
    for watched in ["asm", "build.rs"] {
        println!("cargo::rerun-if-changed={watched}");
    }
    for watched in ["ASM_TRACER_NASM", "AR"] {
        println!("cargo::rerun-if-env-changed={watched}");
    }
    println!("cargo::rustc-check-cfg=cfg(asm_tracer_nasm)");
    if let Err(message) = build() {
        eprintln!("asm_tracer: {message}");
        exit(1);
    }
}

fn build() -> Result<(), String> {
    // The library's own `compile_error!` says it too, amid the errors of what it uses.
    let target = ["ARCH", "OS", "POINTER_WIDTH"].map(|name| variable(&format!("CARGO_CFG_TARGET_{name}")));
    if target != ["x86_64", "linux", "64"].map(|value| Ok(value.into())) {
        return Err("only 64-bit x86-64 Linux is supported".into());
    }
    let mode = env::var("ASM_TRACER_NASM").unwrap_or_else(|_| "auto".into());
    let nasm = match mode.as_str() {
        "never" => return Ok(()),
        "auto" | "require" => find_nasm(),
        other => {
            return Err(format!(
                "ASM_TRACER_NASM={other:?} is none of auto, require, never"
            ));
        }
    };
    match nasm {
        Ok(()) => assemble(),
        Err(why) if mode == "require" => Err(format!("ASM_TRACER_NASM=require, but {why}")),
        Err(_) => Ok(()),
    }
}

/// Whether there is a NASM that is new enough.
fn find_nasm() -> Result<(), String> {
    let (major, minor) = OLDEST_NASM;
    let output = Command::new("nasm")
        .arg("-v")
        .output()
        .map_err(|error| format!("nasm can't be run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().nth(2).unwrap_or_default();
    let mut numbers = version
        .split(['.', 'r'])
        .map(|number| number.parse::<u32>().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST_NASM {
        return Err(format!(
            "nasm is {version:?}, and {major}.{minor} is the oldest that will do"
        ));
    }
    Ok(())
}

fn assemble() -> Result<(), String> {
    let sources = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("asm");
    let out = PathBuf::from(variable("OUT_DIR")?);
    let archive = out.join("libasm_tracer_stubs.a");
    let mut objects = Vec::new();
    for source in nasm_files(&sources)? {
        let object = out
            .join(source.file_name().unwrap_or_default())
            .with_extension("o");
        let mut nasm = Command::new("nasm");
        // From inside of the directory, so that no path of this machine gets into the object.
        nasm.current_dir(&sources)
            .args(["-f", "elf64", "--reproducible", "-o"])
            .arg(&object);
        run(nasm.arg(source.file_name().unwrap_or_default()))?;
        objects.push(object);
    }
    // `ar` would add to an archive of an earlier build.
    let _ = std::fs::remove_file(&archive);
    run(
        Command::new(env::var_os("AR").unwrap_or_else(|| OsString::from("ar")))
            .arg("crs")
            .arg(&archive)
            .args(&objects),
    )?;
    println!("cargo::rustc-link-search=native={}", out.display());
    println!("cargo::rustc-link-lib=static=asm_tracer_stubs");
    println!("cargo::rustc-cfg=asm_tracer_nasm");
    Ok(())
}

/// The sources, in an order that doesn't depend on the file system.
fn nasm_files(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error| format!("{}: {error}", directory.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "asm") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn run(command: &mut Command) -> Result<(), String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .map_err(|error| format!("{command:?} can't be run: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let said = [stdout, stderr].concat();
    Err(format!(
        "{command:?} failed ({status}):\n{}",
        String::from_utf8_lossy(&said).trim_end()
    ))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
