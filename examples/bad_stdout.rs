//! Makes descriptor 1 of a program a bad one: `/bin/echo hello` fails, and can say so on its standard error.
//!
//! ```text
//! cargo run --example bad_stdout
//! ```

use std::error::Error;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use asm_tracer::blocking::spawn_traced;
use asm_tracer::{Errno, Sysno, TrappedSyscall};

/// A hook may be a plain function.
fn refuse_stdout(call: &TrappedSyscall) -> Option<i64> {
    (call.args[0] == 1).then_some(-(Errno::EBADF as i64))
}

fn main() -> Result<(), Box<dyn Error>> {
    let write = Sysno::write.id().into();
    let child = spawn_traced("/bin/echo", &["echo", "hello"], &[write], Some(refuse_stdout))?;
    eprintln!("{}", ExitStatus::from_raw(child.wait()?));
    Ok(())
}
