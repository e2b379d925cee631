//! Makes chosen system calls of a program fail, to see how it copes.
//!
//! ```text
//! cargo run --example deny -- mkdir=EROFS,unlinkat=EACCES mkdir /tmp/new
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;

use asm_tracer::{Command, Errno, Filter, Supervisor, Sysno};

const USAGE: &str = "usage: deny CALL=ERRNO[,CALL=ERRNO]... [--] PROGRAM [ARGUMENT]...";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => code.into(),
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}"));
            eprintln!("deny: {error}{}", cause.unwrap_or_default());
            ExitCode::from(125)
        }
    }
}

async fn run() -> Result<u8, Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let rules = arguments.next().ok_or(USAGE)?;
    let rules = parse(rules.to_str().ok_or(USAGE)?)?;
    let mut arguments = arguments.skip_while(|argument| argument == "--");

    // Only the calls that a rule speaks of are trapped; all others run at full speed.
    let trapped: Vec<Sysno> = rules.keys().copied().collect();
    let mut command = Command::new(arguments.next().ok_or(USAGE)?);
    command.args(arguments).filter(Filter::new().trap(trapped));

    let mut supervisor = Supervisor::new();
    let mut child = supervisor.spawn(&mut command).await?;
    while let Some(call) = supervisor.next().await {
        let rule = call.sysno().and_then(|sysno| rules.get_key_value(&sysno));
        if let Some((sysno, errno)) = rule {
            // Before the answer: the program's own complaint comes after it.
            eprintln!("deny: {sysno} fails with {errno}");
            call.error(*errno)?;
        }
    }
    let status = child.wait().await?;
    // As a shell has it: a program that died of a signal gives 128 and the signal's number.
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    Ok(u8::try_from(code.unwrap_or(1))?)
}

/// Reads `mkdir=EROFS,unlinkat=EACCES`.
fn parse(rules: &str) -> Result<HashMap<Sysno, Errno>, String> {
    let rule = |rule: &str| {
        let (call, errno) = rule.split_once('=').ok_or(USAGE)?;
        let sysno = call
            .parse()
            .map_err(|()| format!("no system call is called `{call}`"))?;
        let known = (1..=133)
            .map(Errno::from_raw)
            .find(|known| format!("{known:?}") == errno);
        Ok((
            sysno,
            known.ok_or_else(|| format!("no errno is called `{errno}`"))?,
        ))
    };
    rules.split(',').map(rule).collect()
}
