//! What files there are after a run, to be compared with what there should be.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::stat::FileStat;

use super::similar::take_out;
use super::walk::Found;
use crate::sweep::trial::{Change, FileChange};

/// The files of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sweep) struct Snapshot {
    entries: BTreeMap<String, Entry>,
    /// How much there is more than, if it is not all.
    beyond: Option<String>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The type and the permissions; `None` if the directory that it is in does not let them be seen.
    mode: Option<libc::mode_t>,
    data: Data,
}

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    /// Nothing of its own: a directory, a FIFO, a socket, a device.
    None,
    /// A regular file's, or where a link leads.
    Known { length: u64, hash: u64 },
    /// Its permissions don't let it be read.
    Unreadable,
    /// A directory inside of too many others to be looked into.
    TooDeep,
}

impl Entry {
    pub(super) const UNREACHABLE: Self = Self {
        mode: None,
        data: Data::Unreadable,
    };

    pub(super) fn new(status: &FileStat, data: Data) -> Self {
        Self {
            mode: Some(status.st_mode),
            data,
        }
    }

    fn kind(&self) -> Option<libc::mode_t> {
        self.mode.map(|mode| mode & libc::S_IFMT)
    }

    /// What is different from the one that was expected; nothing else is if it is of another kind.
    fn changes(&self, expected: &Self) -> impl Iterator<Item = Change> + use<> {
        let kind = self.kind() != expected.kind();
        let contents = !kind && self.data != expected.data;
        let permissions = !kind && self.mode != expected.mode;
        let changes = [
            (kind, Change::Kind),
            (contents, Change::Contents),
            (permissions, Change::Permissions),
        ];
        changes
            .into_iter()
            .filter_map(|(is_so, change)| is_so.then_some(change))
    }
}

impl Snapshot {
    pub(super) fn new((entries, beyond): Found) -> Self {
        Self { entries, beyond }
    }

    /// Tells why it is not all that there is, if so.
    pub(in crate::sweep) fn beyond(&self) -> Option<&str> {
        self.beyond.as_deref()
    }

    /// How it differs from what was expected, but for what is different each time.
    ///
    /// A file whose name is drawn anew each time is no change as long as there are as many as expected. Of one that is not all,
    /// nothing is missing.
    pub(in crate::sweep) fn changes(
        &self,
        expected: &Snapshot,
        volatile: &BTreeSet<String>,
    ) -> Vec<FileChange> {
        let new = self.new_names(expected, volatile, |path| !expected.entries.contains_key(path));
        let paths: BTreeSet<_> = self.entries.keys().chain(expected.entries.keys()).collect();
        let mut changes = Vec::new();
        for path in paths.into_iter().filter(|path| !volatile.contains(*path)) {
            let found = match (self.entries.get(path), expected.entries.get(path)) {
                (Some(now), Some(then)) => now.changes(then).collect(),
                (Some(_), None) if new.contains(path) => vec![Change::Extra],
                (Some(_), None) => Vec::new(),
                (None, _) if self.beyond.is_some() => Vec::new(),
                (None, _) => vec![Change::Missing],
            };
            changes.extend(found.into_iter().map(|change| FileChange {
                path: path.clone(),
                change,
            }));
        }
        changes
    }

    /// What is there that was neither before the run nor is after an undisturbed one.
    pub(in crate::sweep) fn extra(
        &self,
        before: &Snapshot,
        expected: &Snapshot,
        volatile: &BTreeSet<String>,
    ) -> Vec<FileChange> {
        let is_new =
            |path: &String| !before.entries.contains_key(path) && !expected.entries.contains_key(path);
        let extra = self.new_names(expected, volatile, is_new);
        let changes = extra.into_iter().map(|path| FileChange {
            path: path.clone(),
            change: Change::Extra,
        });
        changes.collect()
    }

    /// The names that are new, but for those in the place of ones that an undisturbed run has drawn.
    fn new_names(
        &self,
        expected: &Snapshot,
        volatile: &BTreeSet<String>,
        is_new: impl Fn(&String) -> bool,
    ) -> BTreeSet<&String> {
        let names = self.entries.keys();
        let mut new = names
            .filter(|path| is_new(path) && !volatile.contains(*path))
            .collect();
        let drawn = volatile
            .iter()
            .filter(|path| expected.entries.contains_key(*path) && !self.entries.contains_key(*path));
        take_out(&mut new, drawn);
        new
    }

    /// The regular files that have something in them.
    pub(in crate::sweep) fn filled(&self) -> impl Iterator<Item = &String> {
        let filled = |entry: &Entry| matches!(entry.data, Data::Known { length: 1.., .. });
        let files = self
            .entries
            .iter()
            .filter(move |(_, entry)| entry.kind() == Some(libc::S_IFREG) && filled(entry));
        files.map(|(path, _)| path)
    }

    /// Which of these files are gone or empty, whatever should be in them.
    pub(in crate::sweep) fn lost(&self, filled: &BTreeSet<String>) -> Vec<FileChange> {
        let lost = filled.iter().filter_map(|path| {
            let change = match self.entries.get(path) {
                None if self.beyond.is_none() => Change::Missing,
                Some(entry) if matches!(entry.data, Data::Known { length: 0, .. }) => Change::Contents,
                _ => return None,
            };
            let path = path.clone();
            Some(FileChange { path, change })
        });
        lost.collect()
    }

    /// What differs between two undisturbed runs.
    pub(in crate::sweep) fn volatile(&self, other: &Snapshot) -> BTreeSet<String> {
        let changes = self.changes(other, &BTreeSet::new());
        changes.into_iter().map(|change| change.path).collect()
    }
}
