//! Which calls a fault concerns, beyond their numbers and argument values: whose they are, and which file they are about.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::names::{self, Unseen, Wanted, descriptors, opened, opened_file};
use super::peers;
use crate::emulate::Address;
use crate::notify::Notification;
use crate::syscall::arguments;

/// What the kernel keeps of a thread's name.
const NAME_LENGTH: usize = 15;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Selection {
    pub(super) path: Option<Wanted>,
    /// Places that the file must not be in, if there are any.
    pub(super) outside: Vec<Wanted>,
    /// Whether it has to name an address on another machine.
    pub(super) remote: bool,
    pub(super) descriptor: Option<i32>,
    pub(super) thread: Option<ThreadTest>,
    pub(super) program: Option<ProgramTest>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ThreadTest {
    Id(i32),
    Leader,
    Named(OsString),
    /// In the [lineage](crate::Lineage).
    Descended(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProgramTest {
    Named(OsString),
    At(Wanted),
}

impl ProgramTest {
    pub(super) fn new(program: OsString) -> Self {
        match program.as_bytes().contains(&b'/') {
            true => Self::At(Wanted::exactly(Path::new(&program))),
            false => Self::Named(program),
        }
    }
}

impl Selection {
    /// Tells whether the call is concerned.
    pub(super) async fn concerns(&self, call: &Notification, lineage: Option<&str>) -> bool {
        self.is_thread(call, lineage)
            && self.is_program(call)
            && self.is_descriptor(call)
            && self.is_file(call).await
            && self.is_outside(call).await
            && self.is_remote(call).await
    }

    /// Tells whether it matters who made the thread.
    pub(super) fn needs_lineage(&self) -> bool {
        matches!(self.thread, Some(ThreadTest::Descended(_)))
    }

    fn is_thread(&self, call: &Notification, lineage: Option<&str>) -> bool {
        let Some(test) = &self.thread else { return true };
        let tid = call.tid();
        match test {
            ThreadTest::Id(wanted) => tid == Some(*wanted),
            ThreadTest::Leader => tid.is_some() && call.pid().ok() == tid,
            ThreadTest::Named(name) => tid.is_some_and(|tid| has_name(tid, name)),
            ThreadTest::Descended(name) => lineage == Some(name),
        }
    }

    fn is_program(&self, call: &Notification) -> bool {
        let Some(program) = &self.program else {
            return true;
        };
        let Ok(pid) = call.pid() else { return false };
        let executable = std::fs::read_link(format!("/proc/{pid}/exe"));
        match program {
            ProgramTest::At(wanted) => executable.is_ok_and(|path| wanted.is(&path)),
            ProgramTest::Named(name) => {
                executable.is_ok_and(|path| path.file_name() == Some(name)) || has_name(pid, name)
            }
        }
    }

    fn is_descriptor(&self, call: &Notification) -> bool {
        self.descriptor
            .is_none_or(|wanted| descriptors(call).contains(&wanted))
    }

    async fn is_file(&self, call: &Notification) -> bool {
        let Some(wanted) = &self.path else { return true };
        if descriptors(call)
            .iter()
            .filter_map(|number| opened(call.tid()?, *number).ok())
            .any(|path| wanted.is(&path))
        {
            return true;
        }
        for argument in call.sysno().map_or(&[][..], arguments::paths) {
            let names = names::named(call, *argument).await;
            if names.iter().any(|name| wanted.is(name)) {
                return true;
            }
        }
        let sockets = names::look_at_sockets(call, names::spellings).await;
        let mut names = sockets.iter().flatten().flatten();
        names.any(|name| wanted.is(name))
    }

    /// What nobody can tell is taken to be outside, unless there is no readable memory.
    async fn is_outside(&self, call: &Notification) -> bool {
        if self.outside.is_empty() {
            return true;
        }
        let elsewhere = |path: &PathBuf| !self.outside.iter().any(|place| place.is(path));
        let mut named = false;
        for argument in call.sysno().map_or(&[][..], arguments::paths) {
            match names::destination(call, *argument).await {
                Ok(Some(path)) if elsewhere(&path) => return true,
                Err(Unseen::Unknown) => return true,
                Ok(_) => named = true,
                Err(Unseen::Harmless) => {}
            }
        }
        if call.sysno().is_some_and(peers::can_name) {
            return match names::sockets(call).await {
                Ok(sockets) => sockets.iter().any(elsewhere),
                Err(unseen) => unseen == Unseen::Unknown,
            };
        }
        // Some calls do without a path. What is no file, such as a pipe, is nowhere.
        let outside = |number: i32| match call.tid().map(|tid| opened_file(tid, number)) {
            Some(Ok(path)) => path.is_some_and(|path| elsewhere(&path)),
            Some(Err(error)) => Unseen::from(error) == Unseen::Unknown,
            None => true,
        };
        !named && descriptors(call).into_iter().any(outside)
    }

    async fn is_remote(&self, call: &Notification) -> bool {
        let remote = |addresses: Vec<Address>| addresses.iter().any(peers::is_remote);
        !self.remote
            || names::look_at_peers(call, remote)
                .await
                .unwrap_or_else(|unseen| unseen == Unseen::Unknown)
    }
}

fn has_name(tid: i32, wanted: &OsStr) -> bool {
    let wanted = wanted.as_bytes();
    let kept = &wanted[..wanted.len().min(NAME_LENGTH)];
    std::fs::read(format!("/proc/{tid}/comm")).is_ok_and(|name| name.strip_suffix(b"\n") == Some(kept))
}
