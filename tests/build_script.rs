//! `build.rs` on machines with, without, and with a broken or an old NASM.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The compiled build script.
fn script() -> &'static Path {
    static SCRIPT: OnceLock<PathBuf> = OnceLock::new();
    SCRIPT.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // In a place of its own first, so that nobody ever sees half a program.
        let own = tempfile::tempdir_in(directory).unwrap();
        let script = own.path().join("build-script");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
        let mut rustc = Command::new(rustc);
        rustc.args(["--edition=2024", "-o"]).arg(&script).arg(source);
        assert!(rustc.status().unwrap().success());
        let built = directory.join("build-script");
        std::fs::rename(script, &built).unwrap();
        built
    })
}

/// A machine on which `nasm` is this shell script, or where there is none.
fn run(mode: &str, nasm: Option<&str>, variables: &[(&str, &str)]) -> Output {
    let machine = tempfile::tempdir().unwrap();
    let tools = machine.path().join("tools");
    let out = machine.path().join("out");
    fs::create_dir(&tools).unwrap();
    fs::create_dir(&out).unwrap();
    if let Some(nasm) = nasm {
        let path = tools.join("nasm");
        fs::write(&path, format!("#!/bin/sh\n{nasm}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut script = Command::new(script());
    script
        .env_clear()
        .env("PATH", &tools)
        .env("OUT_DIR", &out)
        .env("AR", "/bin/true")
        .env("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_CFG_TARGET_ARCH", "x86_64")
        .env("CARGO_CFG_TARGET_OS", "linux")
        .env("CARGO_CFG_TARGET_POINTER_WIDTH", "64")
        .env("ASM_TRACER_NASM", mode)
        .envs(variables.iter().copied());
    script.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// It succeeded, and links what NASM made or leaves it to the generated text; without a word to the user.
fn assert_builds(output: &Output, assembled: bool) {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr, "");
    assert_eq!(
        stdout.contains("cargo::rustc-link-lib=static=asm_tracer_stubs"),
        assembled,
        "{stdout}"
    );
    assert_eq!(
        stdout.contains("cargo::rustc-cfg=asm_tracer_nasm"),
        assembled,
        "{stdout}"
    );
    for watched in ["changed=asm", "changed=build.rs", "env-changed=ASM_TRACER_NASM"] {
        assert!(stdout.contains(&format!("cargo::rerun-if-{watched}")), "{stdout}");
    }
    assert!(!stdout.contains("warning"), "{stdout}");
}

fn assert_fails(output: &Output, because: &str) {
    assert!(!output.status.success());
    let stderr = text(&output.stderr);
    assert!(
        stderr.starts_with("asm_tracer: ") && stderr.contains(because),
        "{stderr}"
    );
}

/// Understands everything and makes empty objects.
const WORKING: &str = r#"[ "$1" = -v ] && echo 'NASM version 2.16.01 compiled on Oct  1 2022'; exit 0"#;
const OLD: &str = r#"[ "$1" = -v ] && echo 'NASM version 2.14.02 compiled on Dec 26 2018'; exit 0"#;
const BROKEN: &str = r#"[ "$1" = -v ] && { echo 'NASM version 2.16.01'; exit 0; }; echo 'syscall.asm:1: error: no' >&2; exit 1"#;

#[test]
fn a_working_nasm_is_used_unless_told_otherwise() {
    assert_builds(&run("auto", Some(WORKING), &[]), true);
    assert_builds(&run("require", Some(WORKING), &[]), true);
    assert_builds(&run("never", Some(WORKING), &[]), false);
}

#[test]
fn without_nasm_the_generated_text_serves_unless_nasm_is_required() {
    assert_builds(&run("auto", None, &[]), false);
    assert_builds(&run("never", None, &[]), false);
    assert_fails(&run("require", None, &[]), "nasm can't be run");
}

#[test]
fn an_old_nasm_is_as_good_as_none() {
    assert_builds(&run("auto", Some(OLD), &[]), false);
    assert_fails(
        &run("require", Some(OLD), &[]),
        "\"2.14.02\", and 2.15 is the oldest",
    );
}

#[test]
fn a_nasm_that_fails_on_the_source_is_an_error_with_its_message() {
    for mode in ["auto", "require"] {
        assert_fails(&run(mode, Some(BROKEN), &[]), "syscall.asm:1: error: no");
    }
}

#[test]
fn a_mode_that_is_none_is_an_error() {
    assert_fails(
        &run("sometimes", Some(WORKING), &[]),
        "is none of auto, require, never",
    );
}

#[test]
fn another_target_is_one_clear_error() {
    for (name, value) in [
        ("CARGO_CFG_TARGET_ARCH", "aarch64"),
        ("CARGO_CFG_TARGET_OS", "macos"),
    ] {
        assert_fails(
            &run("auto", None, &[(name, value)]),
            "only 64-bit x86-64 Linux is supported",
        );
    }
}
