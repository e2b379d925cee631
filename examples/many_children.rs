//! A hundred programs, all of their system calls, one loop.
//!
//! ```text
//! cargo run --release --example many_children
//! ```

use std::collections::HashMap;
use std::time::Instant;

use asm_tracer::{ChildKey, Command, Filter, Result, Stdio, Supervisor};

const CHILDREN: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut supervisor = Supervisor::new();
    let mut command = Command::new("ls");
    command
        .args(["-l", "/"])
        .stdout(Stdio::null())
        .filter(Filter::trap_all());

    let start = Instant::now();
    let mut children = Vec::new();
    for _ in 0..CHILDREN {
        children.push(supervisor.spawn(&mut command).await?);
    }

    let mut calls: HashMap<ChildKey, u32> = HashMap::new();
    while let Some(call) = supervisor.next().await {
        *calls.entry(call.child()).or_default() += 1;
        call.continue_syscall()?;
    }
    let elapsed = start.elapsed();

    let mut succeeded = 0;
    for child in &mut children {
        succeeded += usize::from(child.wait().await?.success());
    }
    let (fewest, most) = (calls.values().min(), calls.values().max());
    let total: u32 = calls.values().sum();
    let rate = f64::from(total) / elapsed.as_secs_f64();

    println!("children started      {:>8}", children.len());
    println!("children seen calling {:>8}", calls.len());
    println!("children succeeded    {succeeded:>8}");
    println!("system calls served   {total:>8}");
    println!(
        "  by each child       {:>8} to {}",
        fewest.unwrap_or(&0),
        most.unwrap_or(&0)
    );
    println!("  per second          {rate:>8.0}");
    assert_eq!(succeeded, CHILDREN, "not all children ended well");
    Ok(())
}
