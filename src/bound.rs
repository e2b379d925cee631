//! Work on threads of the library's own, so much at a time for each child.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, oneshot};

use crate::workers;

/// How many threads one child and its descendants can stall with work that is not meant to wait, behind FUSE for example,
/// whose server may be of the same tree and have work to be done as well.
const SHORT: usize = 32;
/// How many can wait for other processes, as at a FIFO. The one that is waited for may be of the same tree, so that this
/// is as many as a tree could be expected to have.
const WAITING: usize = 256;

/// What work does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// Waits for nobody, as far as the kernel can tell.
    Short,
    /// Waits for another process.
    Waiting,
}

/// The threads of one listener's targets.
#[derive(Debug)]
pub(crate) struct Bound {
    short: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    one: Mutex<()>,
}

impl Default for Bound {
    fn default() -> Self {
        Self {
            short: Arc::new(Semaphore::new(SHORT)),
            waiting: Arc::new(Semaphore::new(WAITING)),
            one: Mutex::default(),
        }
    }
}

impl Bound {
    /// Keeps other work of this kind waiting, on its threads.
    pub(crate) fn one_at_a_time(&self) -> MutexGuard<'_, ()> {
        self.one.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does work on another thread as soon as there may be one more.
    ///
    /// Dropping the future drops work that has not begun. Otherwise what it gives is dropped on its thread.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        length: Length,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let semaphore = match length {
            Length::Short => &self.short,
            Length::Waiting => &self.waiting,
        };
        let ended = |_| io::Error::from(io::ErrorKind::Interrupted);
        let permit = Arc::clone(semaphore).acquire_owned().await;
        let permit = permit.map_err(|_| io::Error::from(io::ErrorKind::Interrupted))?;
        let (sender, receiver) = oneshot::channel();
        workers::run(Box::new(move |_| {
            let _permit = permit;
            if !sender.is_closed() {
                // Which tells the one who waits.
                let _ = sender.send(work());
            }
        }))?;
        receiver.await.map_err(ended)
    }
}
