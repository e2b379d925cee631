use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::ready::Ready;
use crate::error::Result;
use crate::notify::{Channel, ChildKey};
use crate::process::{Child, Command};

/// A handle that starts and attaches children from other tasks while a [`Supervisor`](crate::Supervisor) runs.
///
/// The supervisor's stream does not end while there is one. It is cheap to clone.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> asm_tracer::Result<()> {
/// use asm_tracer::{Command, Supervisor};
///
/// let mut supervisor = Supervisor::new();
/// let spawner = supervisor.spawner();
/// let waiting = tokio::spawn(async move {
///     let mut child = spawner.spawn(&mut Command::new("true")).await?;
///     child.wait().await
/// });
/// while let Some(call) = supervisor.next().await {
///     call.continue_syscall()?;
/// }
/// assert!(waiting.await.unwrap()?.success());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Spawner {
    ready: Arc<Ready>,
}

impl Spawner {
    pub(super) fn new(ready: Arc<Ready>) -> Self {
        ready.add_spawner();
        Self { ready }
    }

    /// Starts a program; see [`Supervisor::spawn`](crate::Supervisor::spawn).
    ///
    /// # Errors
    ///
    /// Those of [`Command::spawn`], and [`Error::SupervisorGone`](crate::Error::SupervisorGone).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills and reaps what it had started.
    pub async fn spawn(&self, command: &mut Command) -> Result<Child> {
        spawn(&self.ready, command).await
    }

    /// Supervises the users of a foreign listener; see [`Supervisor::attach`](crate::Supervisor::attach).
    ///
    /// # Errors
    ///
    /// Those of [`Listener::attach`](crate::Listener::attach), and
    /// [`Error::SupervisorGone`](crate::Error::SupervisorGone).
    pub fn attach(&self, listener: OwnedFd) -> Result<ChildKey> {
        attach(&self.ready, listener)
    }
}

impl Clone for Spawner {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.ready))
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.ready.remove_spawner();
    }
}

pub(super) async fn spawn(ready: &Ready, command: &mut Command) -> Result<Child> {
    let (mut child, listener) = command.spawn().await?;
    if let Err(gone) = ready.arrive(listener.into_channel()) {
        // Whatever is to happen to it later: a start that fails leaves nothing behind.
        child.start_kill()?;
        return Err(gone);
    }
    Ok(child)
}

pub(super) fn attach(ready: &Ready, listener: OwnedFd) -> Result<ChildKey> {
    let channel = Channel::attach(listener)?;
    let key = channel.key();
    ready.arrive(channel)?;
    Ok(key)
}
