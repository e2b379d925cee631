//! The memory behind the arguments of a call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::deadline::within;
use super::line::{Memory, MemoryKind, Missing};
use crate::error::{Error, Result};
use crate::memory::read_up_to;
use crate::notify::{ChildKey, Notification, Target};
use crate::syscall::RemoteSlice;
use crate::syscall::arguments::{self, Input};

/// The kernel's `struct sockaddr_storage`, in bytes.
const LONGEST_ADDRESS: u64 = 128;

/// What is to be looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) paths: bool,
    pub(super) addresses: bool,
    /// How many bytes of a buffer; none if zero.
    pub(super) buffers: usize,
    /// On this very thread.
    pub(super) in_place: bool,
}

/// A part of a call to be looked at.
struct Part {
    argument: usize,
    address: u64,
    kind: MemoryKind,
    extent: Extent,
}

/// How its end is found.
#[derive(Clone, Copy)]
enum Extent {
    Zero,
    Bytes(u64),
    /// It is an array of so many `struct iovec`.
    Vector(u64),
    /// It is what a `struct msghdr` leads to.
    Message,
}

impl Choice {
    fn parts(self, call: &Notification) -> Vec<Part> {
        let Some(sysno) = call.sysno() else {
            return Vec::new();
        };
        let args = call.args();
        let part = |argument: usize, kind, extent| Part {
            argument,
            address: args[argument] as u64,
            kind,
            extent,
        };
        let mut parts = Vec::new();
        if self.paths {
            let paths = arguments::paths(sysno).iter();
            parts.extend(paths.map(|path| part(path.path, MemoryKind::Path, Extent::Zero)));
        }
        for input in arguments::inputs(sysno) {
            match *input {
                Input::Buffer { argument, length } => {
                    parts.push(part(
                        argument,
                        MemoryKind::Buffer,
                        Extent::Bytes(args[length] as u64),
                    ));
                }
                // A C `int`, which a negative one makes no length.
                Input::Address { argument, length } => {
                    let length = u64::from((args[length] as i32).max(0).unsigned_abs());
                    parts.push(part(argument, MemoryKind::Address, Extent::Bytes(length)));
                }
                Input::Vector { argument, count } => {
                    parts.push(part(
                        argument,
                        MemoryKind::Buffer,
                        Extent::Vector(args[count] as u64),
                    ));
                }
                Input::Message { argument } => {
                    parts.push(part(argument, MemoryKind::Address, Extent::Message));
                    parts.push(part(argument, MemoryKind::Buffer, Extent::Message));
                }
            }
        }
        parts.retain(|part| {
            part.address != 0
                && match part.kind {
                    MemoryKind::Path => self.paths,
                    MemoryKind::Address => self.addresses,
                    MemoryKind::Buffer => self.buffers > 0,
                }
        });
        parts
    }

    fn limit(self, kind: MemoryKind) -> u64 {
        match kind {
            MemoryKind::Buffer => self.buffers as u64,
            _ => LONGEST_ADDRESS,
        }
    }
}

/// What a look has found so far.
type Found = Mutex<Vec<Memory>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The looks that a recorder has taken, of which those are known that took too long and still do.
#[derive(Default)]
pub(super) struct Looks {
    stalled: Mutex<HashMap<ChildKey, Weak<Found>>>,
}

impl Looks {
    /// Looks at a call for no longer than this.
    pub(super) async fn look(&self, call: &Notification, choice: Choice, limit: Duration) -> Vec<Memory> {
        let parts = choice.parts(call);
        if parts.is_empty() {
            return Vec::new();
        }
        if choice.in_place {
            let target = call.as_target();
            return parts.iter().map(|part| part.read(&target, choice)).collect();
        }
        let parts: Arc<[Part]> = parts.into();
        let found = Arc::<Found>::default();
        // Who stalls is not waited for again and again.
        let looked = match self.stalls(call.child()) {
            true => Err(Missing::Stalled),
            false => self.try_look(call, choice, limit, &parts, &found).await,
        };
        let found = std::mem::take(&mut *lock(&found));
        match looked {
            Ok(()) => found,
            Err(missing) => filled(found, &parts, missing),
        }
    }

    /// Puts what there is into `found`.
    async fn try_look(
        &self,
        call: &Notification,
        choice: Choice,
        limit: Duration,
        parts: &Arc<[Part]>,
        found: &Arc<Found>,
    ) -> Result<(), Missing> {
        let (theirs, parts) = (Arc::clone(found), Arc::clone(parts));
        let look = call.look(move |target| {
            for part in &*parts {
                let memory = part.read(target, choice);
                lock(&theirs).push(memory);
            }
            Ok(())
        });
        match within(limit, look).await {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(None) => {
                let mut stalled = lock(&self.stalled);
                stalled.retain(|_, look| look.strong_count() > 0);
                stalled.insert(call.child(), Arc::downgrade(found));
                Err(Missing::Stalled)
            }
            Ok(Some(Err(error))) | Err(error) => Err(reason(&error)),
        }
    }

    /// Whether a look at this child is under way that was given up.
    fn stalls(&self, child: ChildKey) -> bool {
        let stalled = lock(&self.stalled);
        stalled.get(&child).is_some_and(|look| look.strong_count() > 0)
    }
}

/// One item for each part: those that are missing, for this reason.
fn filled(mut found: Vec<Memory>, parts: &[Part], missing: Missing) -> Vec<Memory> {
    let rest = parts.get(found.len()..).unwrap_or_default();
    found.extend(
        rest.iter()
            .map(|part| part.memory(Vec::new(), false, Some(missing))),
    );
    found
}

fn reason(error: &Error) -> Missing {
    match error {
        Error::Fault { .. } => Missing::Fault,
        Error::NoAccess | Error::Unsupported { .. } | Error::UnknownPid => Missing::NoAccess,
        Error::Gone => Missing::Gone,
        Error::TooLong { .. } => Missing::TooLong,
        _ => Missing::Failed,
    }
}

impl Part {
    fn memory(&self, bytes: Vec<u8>, truncated: bool, missing: Option<Missing>) -> Memory {
        Memory {
            argument: self.argument,
            kind: self.kind,
            bytes,
            truncated,
            missing,
        }
    }

    fn read(&self, target: &Target, choice: Choice) -> Memory {
        let limit = choice.limit(self.kind);
        let bytes = match self.extent {
            Extent::Zero => {
                let path = target.read_path(self.address);
                return match path {
                    Ok(path) => self.memory(path.into_os_string().into_encoded_bytes(), false, None),
                    Err(error) => self.memory(Vec::new(), false, Some(reason(&error))),
                };
            }
            Extent::Bytes(length) => Ok(vec![RemoteSlice {
                address: self.address,
                len: length,
            }]),
            Extent::Vector(count) => vector(target, self.address, count),
            Extent::Message => self.message(target),
        };
        match bytes {
            Ok(slices) => self.gather(target, &slices, limit),
            Err(error) => self.memory(Vec::new(), false, Some(reason(&error))),
        }
    }

    /// The buffers or the address of a `struct msghdr`.
    fn message(&self, target: &Target) -> Result<Vec<RemoteSlice>> {
        let [name, name_length, buffers, count]: [u64; 4] = target.read_value(self.address)?;
        match self.kind {
            MemoryKind::Address if name == 0 => Ok(Vec::new()),
            MemoryKind::Address => {
                let len = u64::from((name_length as i32).max(0).unsigned_abs());
                Ok(vec![RemoteSlice { address: name, len }])
            }
            _ => vector(target, buffers, count),
        }
    }

    /// One after the other, up to the limit.
    fn gather(&self, target: &Target, slices: &[RemoteSlice], limit: u64) -> Memory {
        let mut bytes = Vec::new();
        for slice in slices.iter().filter(|slice| slice.len > 0) {
            let room = limit - bytes.len() as u64;
            if room == 0 {
                return self.memory(bytes, true, None);
            }
            let wanted = slice.len.min(room) as usize;
            let read = read_up_to(slice.address, wanted, |address, buffer| {
                target.read_memory(address, buffer)
            });
            let missing = match read {
                Ok(read) => {
                    bytes.extend_from_slice(&read);
                    (read.len() < wanted).then_some(Missing::Fault)
                }
                Err(error) => Some(reason(&error)),
            };
            if missing.is_some() || (wanted as u64) < slice.len {
                return self.memory(bytes, missing.is_none(), missing);
            }
        }
        self.memory(bytes, false, None)
    }
}

fn vector(target: &Target, address: u64, count: u64) -> Result<Vec<RemoteSlice>> {
    target.read_iovec(address, usize::try_from(count).unwrap_or(usize::MAX))
}
