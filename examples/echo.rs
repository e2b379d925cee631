//! A small Tokio server, to be put under `inject` and `sweep`: it writes each line that it is told to a file, and says so once
//! that is on the disk.
//!
//! ```text
//! cargo run --example echo -- log 1
//! ```
//!
//! It prints its port, and ends when so many clients have come and gone.

use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (log, clients) = (arguments.next(), arguments.next());
    let (Some(log), Some(clients)) = (log, clients.and_then(|clients| clients.parse().ok())) else {
        let _ = writeln!(io::stderr(), "usage: echo FILE CLIENTS");
        return ExitCode::from(2);
    };
    match serve(&log, clients).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "echo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What goes wrong with one client is that client's; what goes wrong with all of them is tried again.
async fn serve(log: &str, clients: usize) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    writeln!(io::stdout(), "{port}")?;
    let log = File::options().create(true).append(true).open(log)?;
    let mut talks = JoinSet::new();
    while talks.len() < clients {
        match listener.accept().await {
            Ok((client, _)) => drop(talks.spawn(talk(client, log.try_clone()?))),
            Err(error) => {
                let _ = writeln!(io::stderr(), "echo: accepting: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    while let Some(ended) = talks.join_next().await {
        if let Ok(Err(error)) = ended {
            let _ = writeln!(io::stderr(), "echo: a client: {error}");
        }
    }
    Ok(())
}

async fn talk(mut client: TcpStream, mut log: File) -> io::Result<()> {
    let (reader, mut writer) = client.split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let stored = writeln!(log, "{line}").and_then(|()| log.sync_data());
        let answer = match stored {
            Ok(()) => format!("{line}\n"),
            Err(error) => format!("error: {error}\n"),
        };
        writer.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}
