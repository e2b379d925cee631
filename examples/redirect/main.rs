//! Gives a program other files and other servers than it asks for.
//!
//! ```text
//! cargo run --example redirect -- --file /etc/passwd=Cargo.toml -- cat /etc/passwd
//! cargo run --example redirect -- --connect 192.0.2.1:80=127.0.0.1:8000 -- curl http://192.0.2.1/
//! ```
//!
//! `redirect --help` tells the rest.

#[path = "../common/mod.rs"]
mod common;

mod options;

use std::process::ExitCode;
use std::sync::Arc;

use asm_tracer::emulate::{Connect, Open};
use asm_tracer::filter::Action;
use asm_tracer::{Command, Delivery, Errno, Filter, Notification, Result, Supervisor, Sysno};

use common::{Failure, describe, exit_code, finish, print, say};
use options::{HELP, Options, Redirections};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => redirect(options).await,
        Ok(None) => print(HELP),
        Err(error) => Err(Failure::usage("redirect", error)),
    };
    finish("redirect", outcome)
}

async fn redirect(options: Options) -> Result<u8, Failure> {
    let filter = Filter::new()
        .trap([
            Sysno::open,
            Sysno::openat,
            Sysno::openat2,
            Sysno::creat,
            Sysno::connect,
        ])
        // Which would open and connect without a call that could be trapped.
        .errno(Sysno::io_uring_setup, Errno::ENOSYS)
        .foreign_abi(Action::Allow);
    let mut command = Command::new(&options.program);
    command.args(&options.arguments).filter(filter);

    let mut supervisor = Supervisor::new();
    let child = supervisor.spawn(&mut command).await;
    let mut child = child.map_err(|error| Failure::not_started(&options.program, &error))?;
    let redirections = Arc::new(options.redirections);
    while let Some(call) = supervisor.next().await {
        let redirections = Arc::clone(&redirections);
        // A task for each, since one may wait for another: whoever connects, for whoever accepts.
        tokio::spawn(async move {
            if let Err(error) = redirections.serve(call).await {
                // The call has failed with ENOSYS.
                say(&format!("redirect: {}", describe(&error)));
            }
        });
    }
    Ok(exit_code(child.wait().await?))
}

impl Redirections {
    async fn serve(&self, call: Notification) -> Result<Delivery> {
        match call.sysno() {
            Some(Sysno::connect) => self.connect(call).await,
            _ => self.open(call).await,
        }
    }

    async fn connect(&self, call: Notification) -> Result<Delivery> {
        // What is wrong with a call that can't be read, the kernel says best.
        let Ok(Some(connect)) = Connect::read(&call).await else {
            return Ok(call.continue_syscall()?);
        };
        let Some(to) = self.address(connect.address()) else {
            return Ok(call.continue_syscall()?);
        };
        self.tell(&format!("connecting to {to:?} for {:?}", connect.address()));
        Ok(connect.with_address(to.clone()).answer(call).await?)
    }

    async fn open(&self, call: Notification) -> Result<Delivery> {
        let Ok(Some(open)) = Open::read(&call).await else {
            return Ok(call.continue_syscall()?);
        };
        // By the name that the program knows, which need not exist, or by what that means.
        let mut to = self.file(open.path());
        if to.is_none()
            && let Ok(place) = open.resolve().await
            && let Ok(path) = place.path()
        {
            to = self.file(&path);
        }
        let Some(to) = to else {
            return Ok(call.continue_syscall()?);
        };
        self.tell(&format!("opening {} for {}", to.display(), open.path().display()));
        Ok(open.with_path(to).answer(call).await?)
    }

    fn tell(&self, what: &str) {
        if self.verbose {
            say(&format!("redirect: {what}"));
        }
    }
}
