//! A program, run as it is and with every call trapped and continued.

use std::io::Write;
use std::path::Path;
use std::process::Output;

use asm_tracer::{Command, Filter, Stdio, Supervisor, Sysno};
use tokio::io::AsyncWriteExt;

use crate::support::within;

/// A program with all that its output may depend on.
pub(crate) struct Program<'a> {
    program: &'a str,
    arguments: Vec<&'a str>,
    pub(crate) variables: Vec<(&'a str, &'a str)>,
    pub(crate) directory: &'a Path,
    /// What it reads. A shell reads it once it waits for what it has started.
    pub(crate) input: &'a str,
}

impl<'a> Program<'a> {
    pub(crate) fn new(program: &'a str, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            program,
            arguments: arguments.into_iter().collect(),
            variables: Vec::new(),
            directory: Path::new("/"),
            input: "",
        }
    }

    fn variables(&self) -> impl Iterator<Item = (&str, String)> {
        let path = std::env::var("PATH").unwrap();
        let always = [
            ("PATH", path),
            ("HOME", "/nonexistent".into()),
            ("LC_ALL", "C.UTF-8".into()),
        ];
        let own = self
            .variables
            .iter()
            .map(|(name, value)| (*name, (*value).into()));
        always.into_iter().chain(own)
    }

    /// Runs it as it is.
    fn alone(&self) -> Output {
        let mut child = std::process::Command::new(self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(self.variables())
            .current_dir(self.directory)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(self.input.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    /// Runs it with every call of every process trapped and continued.
    async fn supervised(&self) -> Output {
        let mut supervisor = Supervisor::new();
        let mut command = Command::new(self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.variables())
            .current_dir(self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .filter(Filter::trap_all());
        let mut child = within("a spawn", supervisor.spawn(&mut command)).await.unwrap();
        let pid = child.id().map(|pid| pid as i32);
        let mut stdin = child.stdin.take();
        if self.input.is_empty() {
            stdin = None;
        }
        let output = tokio::spawn(child.wait_with_output());
        let mut calls = 0_u64;
        let serving = async {
            while let Some(call) = supervisor.next().await {
                if call.sysno() == Some(Sysno::wait4)
                    && call.tid() == pid
                    && let Some(mut stdin) = stdin.take()
                {
                    stdin.write_all(self.input.as_bytes()).await.unwrap();
                }
                call.continue_syscall().unwrap();
                calls += 1;
            }
        };
        within(&format!("the end of {}", self.program), serving).await;
        assert!(calls > 0);
        within("the output", output).await.unwrap().unwrap()
    }

    /// Runs it both ways, from the same start, and compares; gives what it wrote and how it ended.
    pub(crate) async fn same(&self, prepare: impl Fn(), normalised: impl Fn(&str) -> String) -> Output {
        prepare();
        let alone = self.alone();
        prepare();
        let supervised = self.supervised().await;
        let text = |bytes: &[u8]| normalised(&String::from_utf8_lossy(bytes));
        assert_eq!(text(&supervised.stdout), text(&alone.stdout));
        assert_eq!(text(&supervised.stderr), text(&alone.stderr));
        assert_eq!(supervised.status, alone.status);
        supervised
    }

    pub(crate) async fn same_as_it_is(&self) -> Output {
        self.same(|| (), str::to_owned).await
    }
}

pub(crate) fn assert_success(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
}
