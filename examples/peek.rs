//! Reads what `/bin/echo hello` is about to write out of its memory, while it is frozen in the call.
//!
//! ```text
//! cargo run --example peek
//! ```

use std::error::Error;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc::channel;

use asm_tracer::blocking::spawn_traced;
use asm_tracer::{Sysno, TrappedSyscall};

fn main() -> Result<(), Box<dyn Error>> {
    let (calls, call) = channel();
    let (go_on, told) = channel::<()>();
    // The hook says where the data is and waits. Its child is frozen for as long as that takes, and nobody else.
    let hook = move |call: &TrappedSyscall| {
        calls.send((call.args[1] as u64, call.args[2] as usize)).ok()?;
        told.recv().ok()?;
        None
    };
    let write = Sysno::write.id().into();
    let child = spawn_traced("/bin/echo", &["echo", "hello"], &[write], Some(hook))?;

    for (address, length) in call {
        // The length is the program's word.
        let data = child.read_memory(address, length.min(4096))?;
        eprintln!("about to write {:?}", String::from_utf8_lossy(&data));
        go_on.send(())?;
    }
    eprintln!("{}", ExitStatus::from_raw(child.wait()?));
    Ok(())
}
