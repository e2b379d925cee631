use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::error::{Error, Result};

/// The changes to the supervisor's environment that make the child's.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment {
    clear: bool,
    changes: BTreeMap<OsString, Option<OsString>>,
}

impl Environment {
    pub(super) fn set(&mut self, key: &OsStr, value: &OsStr) {
        self.changes.insert(key.to_owned(), Some(value.to_owned()));
    }

    pub(super) fn remove(&mut self, key: &OsStr) {
        self.changes.insert(key.to_owned(), None);
    }

    pub(super) fn clear(&mut self) {
        self.clear = true;
        self.changes.clear();
    }

    /// The variables as they are now, with the changes.
    ///
    /// Only the changes are checked: what is odd about the supervisor's own variables is not this command's fault.
    pub(super) fn capture(&self) -> Result<BTreeMap<OsString, OsString>> {
        let mut variables: BTreeMap<_, _> = if self.clear {
            BTreeMap::new()
        } else {
            std::env::vars_os().collect()
        };
        for (key, change) in &self.changes {
            match change {
                Some(_) if key.is_empty() || key.as_bytes().contains(&b'=') => {
                    return Err(Error::InvalidCommand(
                        "an environment variable's name is empty or contains `=`",
                    ));
                }
                Some(value) => variables.insert(key.clone(), value.clone()),
                None => variables.remove(key),
            };
        }
        Ok(variables)
    }
}

/// The variables as `execve(2)` takes them.
pub(super) fn strings(variables: &BTreeMap<OsString, OsString>) -> Result<Vec<CString>> {
    let string = |(key, value): (&OsString, &OsString)| {
        let mut entry = key.clone().into_vec();
        entry.push(b'=');
        entry.extend_from_slice(value.as_bytes());
        CString::new(entry).map_err(|_| Error::InvalidCommand("an environment variable contains a zero byte"))
    };
    variables.iter().map(string).collect()
}

/// The paths to try for a program: itself if it has a slash, otherwise one in each directory of the child's `PATH`.
pub(super) fn candidates(program: &OsStr, variables: &BTreeMap<OsString, OsString>) -> Result<Vec<CString>> {
    let path =
        |bytes| CString::new(bytes).map_err(|_| Error::InvalidCommand("the program contains a zero byte"));
    if program.is_empty() {
        return Err(Error::InvalidCommand("the program is empty"));
    }
    if program.as_bytes().contains(&b'/') {
        return Ok(vec![path(program.as_bytes().to_vec())?]);
    }
    // What execvp(3) uses where there is no PATH.
    let directories = variables
        .get(OsStr::new("PATH"))
        .map_or(&b"/bin:/usr/bin"[..], |path| path.as_bytes());
    directories
        .split(|byte| *byte == b':')
        .map(|directory| {
            let mut candidate = directory.to_vec();
            if !directory.is_empty() {
                candidate.push(b'/');
            }
            candidate.extend_from_slice(program.as_bytes());
            path(candidate)
        })
        .collect()
}
