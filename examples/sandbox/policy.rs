//! What may be done where.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use asm_tracer::Errno;
use asm_tracer::emulate::Place;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    None,
    Read,
    Write,
}

/// What a call is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// To look at its name and attributes, as is also needed on the way to what a rule permits.
    Look,
    Read,
    Write,
    Execute,
}

#[derive(Default)]
pub(crate) struct Policy {
    rules: Vec<(PathBuf, Access)>,
    redirections: Vec<(PathBuf, PathBuf)>,
    pub(crate) network: bool,
}

const SYSTEM: [&str; 9] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/proc",
    "/sys/devices/system/cpu",
];
const SYSTEM_SECRETS: [&str; 10] = [
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/ssh",
    "/etc/ssl/private",
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/sysrq-trigger",
    "/proc/vmcore",
];
const SYSTEM_DEVICES: [&str; 5] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];

impl Policy {
    /// Adds a rule for a path without symlinks.
    pub(crate) fn add(&mut self, path: &Path, access: Access) {
        self.rules.push((path.to_owned(), access));
    }

    pub(crate) fn add_system(&mut self) {
        let groups = [
            (&SYSTEM[..], Access::Read),
            (&SYSTEM_SECRETS, Access::None),
            (&SYSTEM_DEVICES, Access::Write),
        ];
        for (paths, access) in groups {
            let present = paths.iter().filter_map(|path| std::fs::canonicalize(path).ok());
            // First, so that what the user says of the same path counts.
            self.rules
                .splice(..0, present.map(|path| (path, access)).collect::<Vec<_>>());
        }
    }

    pub(crate) fn redirect(&mut self, from: PathBuf, to: PathBuf) {
        self.redirections.push((from, to));
    }

    /// Where a path leads to instead, if it does. That is decided upon like any other.
    pub(crate) fn redirected(&self, path: &Path) -> Option<PathBuf> {
        let found = self.redirections.iter().find_map(|(from, to)| {
            let below = path.strip_prefix(from).ok()?;
            Some(if below.as_os_str().is_empty() {
                to.clone()
            } else {
                to.join(below)
            })
        });
        found.filter(|to| to != path)
    }

    /// What the rule with the longest path says; of several, the last.
    fn access(&self, path: &Path) -> Access {
        let fits = self.rules.iter().filter(|(root, _)| path.starts_with(root));
        let longest = fits.max_by_key(|(root, _)| root.as_os_str().len());
        longest.map_or(Access::None, |(_, access)| *access)
    }

    /// Decides on a path without symlinks, for a process.
    pub(crate) fn decide(&self, path: &Path, wanted: Use, pid: i32) -> Result<(), Errno> {
        let access = match is_of_another(path, pid) {
            true => Access::None,
            false => self.access(path),
        };
        match (wanted, access) {
            (Use::Look, Access::None) if self.leads_to_permitted(path) => Ok(()),
            (_, Access::None) => Err(Errno::EACCES),
            (Use::Write, Access::Read) => Err(Errno::EROFS),
            // What it wrote itself could name an interpreter that it must not read.
            (Use::Execute, Access::Write) => Err(Errno::EACCES),
            _ => Ok(()),
        }
    }

    fn leads_to_permitted(&self, path: &Path) -> bool {
        let mut permitted = self.rules.iter().filter(|(_, access)| *access > Access::None);
        permitted.any(|(root, _)| root.starts_with(path))
    }

    /// Refuses to have moved or removed what a rule speaks of, or what leads there: the rule would be about another place.
    pub(crate) fn check_movable(&self, path: &Path) -> Result<(), Errno> {
        match self.rules.iter().any(|(root, _)| root.starts_with(path)) {
            true => Err(Errno::EBUSY),
            false => Ok(()),
        }
    }

    /// Decides on what was found, by where it is.
    pub(crate) fn decide_place(&self, place: &Place, wanted: Use, pid: i32) -> Result<(), Errno> {
        self.decide(&place.path()?, wanted, pid)
    }
}

/// Of `/proc`, a process has its own directory and what is nobody's.
fn is_of_another(path: &Path, pid: i32) -> bool {
    let Ok(below) = path.strip_prefix("/proc") else {
        return false;
    };
    let Some(first) = below.components().next() else {
        return false;
    };
    let name = first.as_os_str().as_bytes();
    name.iter().all(u8::is_ascii_digit) && name != pid.to_string().as_bytes()
}
