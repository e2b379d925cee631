//! Where the lines go. A reader that has gone or a full disk must not keep the target from being served.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Stderr, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Lines on their way to the standard error or to a file.
pub(crate) struct Output {
    writer: BufWriter<Box<dyn Write>>,
    /// Why nothing is written any more.
    failure: Option<io::Error>,
}

impl Output {
    pub(crate) fn new(path: Option<&Path>) -> io::Result<Self> {
        let writer: Box<dyn Write> = match path {
            Some(path) => Box::new(File::create(path)?),
            None => Box::new(Patient(io::stderr())),
        };
        Ok(Self {
            writer: BufWriter::new(writer),
            failure: None,
        })
    }

    pub(crate) fn line(&mut self, line: &str) {
        self.attempt(|writer| writeln!(writer, "{line}"));
    }

    /// Tells whether there are lines that nobody can see yet.
    pub(crate) fn holds_back(&self) -> bool {
        self.failure.is_none() && !self.writer.buffer().is_empty()
    }

    pub(crate) fn flush(&mut self) {
        self.attempt(Write::flush);
    }

    /// Writes what is left; tells whether anything was lost.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush();
        self.failure.map_or(Ok(()), Err)
    }

    fn attempt(&mut self, write: impl FnOnce(&mut BufWriter<Box<dyn Write>>) -> io::Result<()>) {
        if self.failure.is_none() {
            self.failure = write(&mut self.writer).err();
        }
    }
}

/// A standard error that waits where the target, which shares it, has made it non-blocking.
struct Patient(Stderr);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll(
                        &mut [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)],
                        PollTimeout::NONE,
                    )?;
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
