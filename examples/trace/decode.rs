//! From six registers and the frozen target's memory to text.
//!
//! The target may lie about everything. What can't be read, be it a bad pointer or a target that is gone, is shown as
//! the number that it is; how much is read is bounded.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use asm_tracer::{Notification, Plain, Signal};

use crate::quote::quote;
use crate::table::{self, Kind};

/// How many strings or buffers of an array are shown.
const SHOWN: usize = 32;
/// How many environment variables are counted.
const COUNTED: usize = 4096;

/// The call's arguments: by their kinds if it is a common one, all six registers otherwise.
///
/// At most `limit` bytes of a string are shown.
pub(crate) fn arguments(call: &Notification, limit: usize) -> Vec<String> {
    let registers = call.args();
    let decoder = Decoder { call, limit };
    match call.sysno().and_then(table::arguments) {
        Some(kinds) => {
            let arguments = kinds.iter().zip(registers);
            arguments
                .filter_map(|(kind, value)| decoder.argument(kind, value))
                .collect()
        }
        None => registers.iter().map(|value| format!("{value:#x}")).collect(),
    }
}

struct Decoder<'a> {
    call: &'a Notification,
    limit: usize,
}

impl Decoder<'_> {
    /// C's `int`s are the lower halves of their registers; what the upper ones hold is of no meaning.
    fn argument(&self, kind: &Kind, value: i64) -> Option<String> {
        let address = value as u64;
        let other = |index: usize| self.call.args()[index];
        let read = match kind {
            Kind::Fd | Kind::Int => Some((value as i32).to_string()),
            Kind::DirFd if value as i32 == libc::AT_FDCWD => Some("AT_FDCWD".into()),
            Kind::DirFd => Some((value as i32).to_string()),
            Kind::Uint => Some((value as u32).to_string()),
            Kind::Size => Some((value as u64).to_string()),
            Kind::Offset => Some(value.to_string()),
            Kind::Hex => Some(format!("{value:#x}")),
            Kind::Mode => Some(mode(value)),
            Kind::ModeIfCreated(flags) => return creates(other(*flags)).then(|| mode(value)),
            Kind::Flags(flags) => Some(flags.describe(value as u32)),
            Kind::Signal => Some(signal(value as i32)),
            Kind::Pointer => None,
            Kind::Text => self.text(address),
            Kind::Data(size) => self.data(address, other(*size) as u64),
            Kind::Strings => self.strings(address),
            Kind::Environment => self.environment(address),
            Kind::Vector(count) => self.vector(address, other(*count), true),
            Kind::EmptyVector(count) => self.vector(address, other(*count), false),
            Kind::Address(size) => self.socket_address(address, other(*size) as i32),
            Kind::Timespec => self.timespec(address),
        };
        Some(read.unwrap_or_else(|| pointer(address)))
    }

    fn value<T: Plain>(&self, address: u64) -> Option<T> {
        self.call.read_value(address).ok()
    }

    /// Up to `size` bytes.
    fn bytes(&self, address: u64, size: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; size];
        if size > 0 {
            let n = self.call.read_memory(address, &mut bytes).ok()?;
            bytes.truncate(n);
        }
        Some(bytes)
    }

    /// A string up to its zero. One that runs into unreadable memory is none to the kernel either.
    fn text(&self, address: u64) -> Option<String> {
        let bytes = self.bytes(address, self.limit + 1)?;
        match bytes.iter().position(|byte| *byte == 0) {
            Some(end) => Some(quote(&bytes[..end], false)),
            None if bytes.len() > self.limit => Some(quote(&bytes[..self.limit], true)),
            None => None,
        }
    }

    fn data(&self, address: u64, size: u64) -> Option<String> {
        let bytes = self.bytes(address, size.min(self.limit as u64) as usize)?;
        Some(quote(&bytes, (bytes.len() as u64) < size))
    }

    fn strings(&self, address: u64) -> Option<String> {
        let mut shown = Vec::new();
        for index in 0..=SHOWN as u64 {
            let Some(string) = self.value(address.wrapping_add(index * 8)) else {
                // The array has no end.
                return None;
            };
            match string {
                0 => break,
                _ if index == SHOWN as u64 => shown.push("…".into()),
                string => shown.push(self.text(string).unwrap_or_else(|| pointer(string))),
            }
        }
        Some(format!("[{}]", shown.join(", ")))
    }

    fn environment(&self, address: u64) -> Option<String> {
        let bytes = self.bytes(address, COUNTED * 8)?;
        let (words, _) = bytes.as_chunks::<8>();
        let count = words.iter().take_while(|word| **word != [0; 8]).count();
        let more = if count == COUNTED { "+" } else { "" };
        (count < words.len() || count == COUNTED)
            .then(|| format!("{address:#x} /* {count}{more} variables */"))
    }

    fn vector(&self, address: u64, count: i64, full: bool) -> Option<String> {
        let count = usize::try_from(count).ok()?;
        let slices = self.call.read_iovec(address, count.min(SHOWN)).ok()?;
        let mut shown: Vec<_> = slices
            .iter()
            .map(|slice| {
                let data = if full {
                    self.data(slice.address, slice.len)
                } else {
                    None
                };
                format!(
                    "{{{}, {}}}",
                    data.unwrap_or_else(|| pointer(slice.address)),
                    slice.len
                )
            })
            .collect();
        if count > SHOWN {
            shown.push("…".into());
        }
        Some(format!("[{}]", shown.join(", ")))
    }

    fn socket_address(&self, address: u64, size: i32) -> Option<String> {
        let size = usize::try_from(size)
            .ok()?
            .min(size_of::<libc::sockaddr_storage>());
        let bytes = self.bytes(address, size)?;
        let (family, rest) = bytes.split_first_chunk()?;
        Some(match i32::from(u16::from_ne_bytes(*family)) {
            libc::AF_UNIX => format!("{{AF_UNIX, {}}}", unix(rest)),
            libc::AF_INET => format!("{{AF_INET, {}}}", inet(rest)?),
            libc::AF_INET6 => format!("{{AF_INET6, {}}}", inet6(rest)?),
            family => format!("{{family {family}, {}}}", quote(rest, false)),
        })
    }

    fn timespec(&self, address: u64) -> Option<String> {
        let [seconds, nanoseconds]: [i64; 2] = self.value(address)?;
        Some(format!("{{tv_sec={seconds}, tv_nsec={nanoseconds}}}"))
    }
}

fn pointer(address: u64) -> String {
    match address {
        0 => "NULL".into(),
        address => format!("{address:#x}"),
    }
}

fn mode(value: i64) -> String {
    format!("0{:02o}", value as u32)
}

fn creates(flags: i64) -> bool {
    let flags = flags as i32;
    flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE
}

fn signal(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.to_string(),
        Err(_) if (32..=64).contains(&number) => format!("SIGRT_{}", number - 32),
        Err(_) => number.to_string(),
    }
}

/// The path of a socket, or its abstract name, which begins with a zero.
fn unix(path: &[u8]) -> String {
    match path {
        [] => "unnamed".into(),
        [0, name @ ..] => format!("@{}", quote(name, false)),
        path => quote(path.split(|byte| *byte == 0).next().unwrap_or_default(), false),
    }
}

fn inet(rest: &[u8]) -> Option<SocketAddr> {
    let (port, rest) = rest.split_first_chunk()?;
    let address: [u8; 4] = *rest.first_chunk()?;
    Some((Ipv4Addr::from(address), u16::from_be_bytes(*port)).into())
}

fn inet6(rest: &[u8]) -> Option<SocketAddr> {
    let (port, rest) = rest.split_first_chunk()?;
    let address: [u8; 16] = *rest.get(4..)?.first_chunk()?;
    Some((Ipv6Addr::from(address), u16::from_be_bytes(*port)).into())
}
