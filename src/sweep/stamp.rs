//! Whether what a sweep runs is still what it was.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::process::Command;

/// What is different once a file has other contents, most likely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    length: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

/// The stamps of the program and of the files among its arguments, such as scripts, but for those that runs may write to.
/// `files` is where relative paths lead.
pub(super) fn stamps(
    command: &Command,
    files: Option<&Path>,
    writable: &[PathBuf],
) -> Result<BTreeMap<String, Stamp>> {
    let program = command.candidates()?.into_iter().find(|path| path.is_file());
    let arguments = command.get_args().filter_map(|argument| match files {
        Some(files) => Some(files.join(argument)),
        None => Some(PathBuf::from(argument)).filter(|path| path.is_absolute()),
    });
    let kept = arguments.filter(|path| !writable.iter().any(|place| path.starts_with(place)));
    let stamped = program.into_iter().chain(kept).filter_map(|path| {
        // A directory changes for all sorts of reasons.
        let status = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
        let stamp = Stamp {
            length: status.len(),
            modified: (status.mtime(), status.mtime_nsec()),
        };
        Some((path.to_string_lossy().into_owned(), stamp))
    });
    Ok(stamped.collect())
}
