//! Makes descriptor 1 a bad one for a shell and for all that it forks and executes.
//!
//! ```text
//! cargo run --example bad_stdout_tree
//! ```

use std::error::Error;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use asm_tracer::blocking::spawn_traced;
use asm_tracer::{Errno, Sysno, TrappedSyscall};

fn main() -> Result<(), Box<dyn Error>> {
    let script =
        "/bin/echo forked and executed; (exec /bin/echo once more); echo built in; cat /no/such/file";
    let refuse_stdout = |call: &TrappedSyscall| (call.args[0] == 1).then_some(-(Errno::EBADF as i64));
    // One filter and one hook for the whole tree: it is inherited, and can't be taken off.
    let calls = [Sysno::write.id().into(), Sysno::execve.id().into()];
    let child = spawn_traced("/bin/sh", &["sh", "-c", script], &calls, Some(refuse_stdout))?;
    let status = ExitStatus::from_raw(child.wait()?);

    let calls = child.drain_syscalls();
    let executions = calls
        .iter()
        .filter(|call| call.sysno() == Some(Sysno::execve))
        .count();
    let refused = calls.iter().filter(|call| refuse_stdout(call).is_some()).count();
    eprintln!("{status}: {executions} programs executed, {refused} writes refused");
    Ok(())
}
