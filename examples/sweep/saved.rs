//! Files for the report.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use crate::common::Failure;

/// One that is opened before the sweep, so that a name that can't be written to is told then, and not hours later. What it
/// had in it stays there until there is something else.
pub(crate) struct Saved {
    path: PathBuf,
    file: File,
}

impl Saved {
    pub(crate) fn open(path: PathBuf) -> Result<Self, String> {
        let mut options = OpenOptions::new();
        match options.write(true).create(true).truncate(false).open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    pub(crate) fn write(mut self, text: &str) -> Result<(), Failure> {
        let written = self.try_write(text);
        written.map_err(|error| Failure::new(format!("{}: {error}", self.path.display())))
    }

    fn try_write(&mut self, text: &str) -> io::Result<()> {
        // A pipe has nothing in it that would have to go.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write_all(text.as_bytes())
    }
}
