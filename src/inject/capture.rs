//! What a program writes, read while it runs.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;

/// How much is kept of a stream.
const KEPT: usize = 16 << 20;

/// The reading of one pipe, which may be given up at any time.
#[derive(Debug)]
pub(super) struct Capture {
    data: Arc<Mutex<Vec<u8>>>,
    task: Option<JoinHandle<()>>,
}

impl Capture {
    pub(super) fn start(pipe: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let data = Arc::<Mutex<Vec<u8>>>::default();
        let task = pipe.map(|pipe| tokio::spawn(read(pipe, Arc::clone(&data))));
        Self { data, task }
    }

    /// Waits until nobody has the other end any more.
    pub(super) async fn end(&mut self) {
        if let Some(task) = &mut self.task {
            let _ = task.await;
            self.task = None;
        }
    }

    /// What has been read.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.data.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Reads to the end; a pipe that can't be read has ended.
async fn read(mut pipe: impl AsyncRead + Unpin, data: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        let mut data = data.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = n.min(KEPT.saturating_sub(data.len()));
        data.extend_from_slice(&buffer[..kept]);
    }
}
