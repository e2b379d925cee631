//! A small echo service that prints its own system calls as they happen, and a summary at the end.
//!
//! ```text
//! cargo run --example trace_self
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;

use asm_tracer::filter::int_arg;
use asm_tracer::sigsys::{Call, Decision, Event, Events, Tracer};
use asm_tracer::{Action, Filter, Sysno};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CLIENTS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    // Before there are threads: those that the runtime starts are traced as well. What is printed here is left out,
    // since telling of it would be to be told of.
    let filter = Filter::new()
        .trap_if(Sysno::write, [int_arg(0).ne(1)])
        .trap([
            Sysno::read,
            Sysno::sendto,
            Sysno::recvfrom,
            Sysno::accept4,
            Sysno::socket,
        ])
        .trap([Sysno::connect, Sysno::close, Sysno::futex, Sysno::epoll_wait])
        .foreign_abi(Action::Allow);
    let tracer = Tracer::builder().filter(filter).results(true).install()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let printing = tokio::spawn(print(tracer.events()?));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let service = tokio::spawn(serve(listener));
        for client in 0..CLIENTS {
            let mut connection = TcpStream::connect(address).await?;
            let mut echo = [0; 1];
            connection.write_all(&[client as u8]).await?;
            connection.read_exact(&mut echo).await?;
            assert_eq!(echo, [client as u8]);
        }
        service.await??;
        // The events end with it, and nobody else.
        drop(tracer);
        Ok(printing.await??)
    })
}

/// Sends back what each client sends.
async fn serve(listener: TcpListener) -> std::io::Result<()> {
    for _ in 0..CLIENTS {
        let (mut connection, _) = listener.accept().await?;
        let (mut reading, mut writing) = connection.split();
        tokio::io::copy(&mut reading, &mut writing).await?;
    }
    Ok(())
}

/// Prints events until they end, or nobody reads them.
async fn print(mut events: Events) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    let mut counts = BTreeMap::new();
    let (mut open, mut lost) = (BTreeMap::new(), 0);
    while let Some(event) = events.next().await {
        match event {
            Event::Call(call) => {
                *counts.entry(name(&call)).or_insert(0) += 1;
                line(&mut out, &call)?;
                open.insert((call.thread, call.instruction_pointer), call);
            }
            Event::Returned(result) => {
                if let Some(call) = open.remove(&(result.thread, result.instruction_pointer)) {
                    let (time, name) = (result.time.as_secs_f64() * 1e3, name(&call));
                    let (thread, value) = (result.thread, result.value);
                    writeln!(out, "{time:9.3} ms  thread {thread}  {name} = {value}")?;
                }
            }
            Event::Lost(calls) => lost += calls,
            _ => {}
        }
    }
    writeln!(out, "\n    calls  name")?;
    for (name, count) in counts {
        writeln!(out, "{count:9}  {name}")?;
    }
    writeln!(out, "{lost:9}  lost")
}

fn line(out: &mut impl Write, call: &Call) -> std::io::Result<()> {
    let (time, [a, b, c, ..]) = (call.time.as_secs_f64() * 1e3, call.syscall.args);
    let decision = match call.decision {
        Decision::Run => String::new(),
        other => format!(" {other:?}"),
    };
    let (thread, name) = (call.thread, name(call));
    writeln!(
        out,
        "{time:9.3} ms  thread {thread}  {name}({a}, {b:#x}, {c}){decision}"
    )
}

fn name(call: &Call) -> &'static str {
    call.syscall.sysno().map_or("?", |sysno| sysno.name())
}
