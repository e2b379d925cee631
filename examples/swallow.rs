//! `/bin/echo hello` prints nothing, and never knows: each `write` is answered with its own length.
//!
//! ```text
//! cargo run --example swallow
//! ```

use std::error::Error;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use asm_tracer::blocking::spawn_traced;
use asm_tracer::{Sysno, TrappedSyscall};

fn main() -> Result<(), Box<dyn Error>> {
    // `write(descriptor, address, length)` returns how much it wrote.
    let all_of_it = |call: &TrappedSyscall| Some(call.args[2]);
    let write = Sysno::write.id().into();
    let child = spawn_traced("/bin/echo", &["echo", "hello"], &[write], Some(all_of_it))?;

    let status = ExitStatus::from_raw(child.wait()?);
    let calls = child.drain_syscalls();
    eprintln!("{status}, {} call: {:?}", calls.len(), calls[0]);
    Ok(())
}
