//! Runs a plugin that is denied the network from a point on, in a thread of this very process.
//!
//! ```text
//! cargo run --example block_self
//! ```

use std::error::Error;
use std::net::{TcpListener, TcpStream};

use asm_tracer::sigsys::{Decision, Event, Tracer};
use asm_tracer::{Errno, Sysno, TrappedSyscall};

/// In signal context: it only looks at numbers.
fn deny(_: &mut TrappedSyscall) -> Option<i64> {
    Some(-(Errno::EACCES as i64))
}

/// Stands for code that somebody else wrote.
fn plugin(address: std::net::SocketAddr) -> String {
    let file = std::fs::read_to_string("/proc/version").map(|text| text.len() > 10);
    let connection = TcpStream::connect(address)
        .map(drop)
        .map_err(|error| error.kind());
    format!("reads files: {file:?}, connects: {connection:?}")
}

fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let plugin_thread = std::thread::spawn(move || {
        println!("plugin before: {}", plugin(address));
        // This thread and what it starts, and for good: a filter can't be taken off.
        let network = [
            Sysno::socket,
            Sysno::connect,
            Sysno::bind,
            Sysno::sendto,
            Sysno::socketpair,
        ];
        let tracer = Tracer::builder().trap(network).hook(deny).install()?;
        println!("plugin after:  {}", plugin(address));
        let denied = tracer.drain()?;
        Ok::<_, asm_tracer::Error>(denied)
    });
    let denied = plugin_thread.join().map_err(|_| "the plugin panicked")??;
    for event in denied {
        if let Event::Call(call) = event
            && let Decision::Returned(value) = call.decision
        {
            println!("denied: {:?}, which returned {value}", call.syscall.sysno());
        }
    }
    println!("main:          {}", plugin(address));
    Ok(())
}
