//! What a sweep needs of its command.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::Command;
use super::environment::candidates;
use crate::error::Result;

impl Command {
    /// Has the program looked up from here, whatever working directory it gets.
    pub(crate) fn anchor_program(&mut self) -> io::Result<()> {
        if self.program.as_encoded_bytes().contains(&b'/') {
            // Its own name to itself stays what it was.
            self.arg0.get_or_insert_with(|| self.program.clone());
            self.program = std::path::absolute(&self.program)?.into();
        }
        Ok(())
    }

    /// The files that may be the program: the first that can be executed is.
    pub(crate) fn candidates(&self) -> Result<Vec<PathBuf>> {
        let candidates = candidates(&self.program, &self.environment.capture()?)?;
        let paths = candidates.into_iter();
        Ok(paths
            .map(|path| OsString::from_vec(path.into_bytes()).into())
            .collect())
    }

    /// Which of the three standard streams are not inherited.
    pub(crate) fn redirected(&self) -> [bool; 3] {
        [0, 1, 2].map(|number| {
            self.stdio
                .get(number)
                .is_some_and(|stream| !stream.is_inherited())
        })
    }

    pub(crate) fn has_directory(&self) -> bool {
        self.directory.is_some()
    }

    pub(crate) fn has_ruleset(&self) -> bool {
        self.landlock.is_some()
    }
}
