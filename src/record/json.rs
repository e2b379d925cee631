//! Traces as JSON lines: one object a line.

use std::io::{self, BufRead, BufReader, Read, Write};

use super::Line;
use super::writer::Sink;

/// How many bytes are gathered for a write.
const CHUNK: usize = 64 * 1024;
/// How many bytes a line can have that is read: far more than one of [`MAX_BUFFERS`](super::builder::MAX_BUFFERS).
const LONGEST: u64 = 64 << 20;

pub(super) struct JsonLines<W> {
    to: W,
    buffer: Vec<u8>,
}

impl<W: Write> JsonLines<W> {
    pub(super) fn new(to: W) -> Self {
        let buffer = Vec::new();
        Self { to, buffer }
    }

    fn pass_on(&mut self) -> io::Result<()> {
        self.to.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl<W: Write + Send + 'static> Sink for JsonLines<W> {
    const BATCH: u64 = 256;

    fn write(&mut self, line: Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.buffer, &line)?;
        self.buffer.push(b'\n');
        match self.buffer.len() >= CHUNK {
            true => self.pass_on(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_on()?;
        self.to.flush()
    }
}

/// Reads a trace of JSON lines back.
///
/// After an error of the reader it ends. A line that is none is an error with the kind
/// [`InvalidData`](io::ErrorKind::InvalidData), or [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if it was cut off, and the
/// next one is read. It reads with a buffer of its own.
///
/// # Examples
///
/// ```
/// use asm_tracer::record::{self, Answer, Line};
///
/// let trace = r#"{"type":"call","time_us":1764322000000000,"held_ns":21000,"child":1,"pid":7,"tid":7,"arch":"x86_64",
///     "nr":257,"name":"openat","args":["0xffffff9c","0x5581","0x0","0x0","0x0","0x0"],
///     "memory":[{"argument":1,"kind":"path","text":"/etc/passwd"}],"answer":{"failed":{"errno":13,"name":"EACCES"}}}"#;
/// let line = record::read(trace.replace('\n', "").as_bytes()).next();
/// let Some(Line::Call(call)) = line.transpose()? else { panic!() };
/// assert_eq!(call.paths().next(), Some("/etc/passwd".as_ref()));
/// assert_eq!(call.answer, Answer::Failed(asm_tracer::Errno::EACCES));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn read(reader: impl Read) -> impl Iterator<Item = io::Result<Line>> {
    let mut reader = BufReader::new(reader);
    let mut text = Vec::new();
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        text.clear();
        match reader.by_ref().take(LONGEST).read_until(b'\n', &mut text) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_slice(&text).map_err(io::Error::from)),
            Err(error) => {
                over = true;
                Some(Err(error))
            }
        }
    })
}
