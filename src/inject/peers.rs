//! Whom a call wants to reach through a socket.

use std::net::Ipv6Addr;

use syscalls::Sysno;

use crate::emulate::Address;
use crate::error::{Error, Result};
use crate::memory::read_up_to;
use crate::notify::Target;

/// The kernel's `struct sockaddr_storage`: the longest address that it takes.
const LONGEST: u64 = 128;
/// `UIO_MAXIOV`: how many messages `sendmmsg(2)` takes.
const MESSAGES: u64 = 1024;
/// The size of the kernel's `struct mmsghdr`.
const MESSAGE: u64 = 64;

/// Tells whether a call can say whom it wants to reach.
pub(super) fn can_name(sysno: Sysno) -> bool {
    matches!(
        sysno,
        Sysno::connect | Sysno::sendto | Sysno::sendmsg | Sysno::sendmmsg
    )
}

/// Tells whether a call with these arguments may do so.
pub(super) fn may_name(sysno: Sysno, args: [i64; 6]) -> bool {
    let pointer = if sysno == Sysno::sendto { args[4] } else { args[1] };
    can_name(sysno) && pointer != 0
}

/// The addresses that the call of a frozen thread names.
pub(super) fn named(target: &Target, sysno: Sysno, args: [i64; 6]) -> Result<Vec<Address>> {
    let [_, first, second, _, address, length] = args.map(i64::cast_unsigned);
    Ok(match sysno {
        Sysno::connect => {
            let bytes = read(target, first, second)?;
            bytes.iter().map(|bytes| Address::of(bytes)).collect()
        }
        Sysno::sendto => read(target, address, length)?.map(sent_to).into_iter().collect(),
        Sysno::sendmsg => of_message(target, first)?.into_iter().collect(),
        Sysno::sendmmsg => of_messages(target, first, second)?,
        _ => Vec::new(),
    })
}

/// The addresses in an array of `struct mmsghdr`.
fn of_messages(target: &Target, messages: u64, count: u64) -> Result<Vec<Address>> {
    let mut found = Vec::new();
    // A C `unsigned int`.
    for message in 0..(count & u64::from(u32::MAX)).min(MESSAGES) {
        match of_message(target, messages.wrapping_add(message * MESSAGE)) {
            Ok(address) => found.extend(address),
            // The kernel has sent the others by then.
            Err(Error::Fault { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The address in a `struct msghdr`.
fn of_message(target: &Target, message: u64) -> Result<Option<Address>> {
    let [name, length]: [u64; 2] = target.read_value(message)?;
    Ok(read(target, name, length)?.map(sent_to))
}

fn read(target: &Target, address: u64, length: u64) -> Result<Option<Vec<u8>>> {
    // A C `int`, which a negative one makes no length.
    let length = u64::from((length as i32).max(0).unsigned_abs()).min(LONGEST);
    if address == 0 || length == 0 {
        return Ok(None);
    }
    let bytes = read_up_to(address, length as usize, |at, buffer| {
        target.read_memory(at, buffer)
    })?;
    match bytes.len() as u64 == length {
        true => Ok(Some(bytes)),
        false => Err(Error::Fault { address }),
    }
}

/// Without a family, which is nobody to connect to, an address to send to is one of IPv4 (`udp_sendmsg` in the kernel).
fn sent_to(mut bytes: Vec<u8>) -> Address {
    if let Some(family) = bytes.first_chunk_mut::<2>()
        && i32::from(u16::from_ne_bytes(*family)) == libc::AF_UNSPEC
    {
        *family = (libc::AF_INET as u16).to_ne_bytes();
    }
    Address::of(&bytes)
}

/// Tells whether it is, or may be, somewhere else than on this machine.
pub(super) fn is_remote(address: &Address) -> bool {
    // The kernel takes an unspecified address for its own.
    let is_here = |ip: Ipv6Addr| match ip.to_ipv4_mapped() {
        Some(ip) => ip.is_loopback() || ip.is_unspecified(),
        None => ip.is_loopback() || ip.is_unspecified(),
    };
    match address {
        Address::V4(address) => !is_here(address.ip().to_ipv6_mapped()),
        Address::V6(address) => !is_here(*address.ip()),
        Address::UnixPath(_) | Address::UnixAbstract(_) | Address::Unspecified => false,
        Address::Other(bytes) => bytes.first_chunk().is_some_and(|family| {
            // The first three are too short, which the kernel refuses.
            ![
                libc::AF_UNIX,
                libc::AF_INET,
                libc::AF_INET6,
                libc::AF_NETLINK,
                libc::AF_ALG,
            ]
            .contains(&i32::from(u16::from_ne_bytes(*family)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_be_here_is_elsewhere() {
        let ip = |text: &str| Address::from(text.parse::<std::net::SocketAddr>().unwrap());
        let family = |family: i32| Address::Other((family as u16).to_ne_bytes().into());
        let here = [
            ip("127.0.0.1:1"),
            ip("127.9.9.9:1"),
            ip("0.0.0.0:1"),
            ip("[::1]:1"),
            ip("[::]:1"),
            ip("[::ffff:127.0.0.1]:1"),
            Address::UnixPath("/run/socket".into()),
            Address::UnixAbstract(b"name".into()),
            Address::Unspecified,
            Address::Other(vec![2]),
            family(libc::AF_INET),
            family(libc::AF_NETLINK),
        ];
        let elsewhere = [
            ip("192.0.2.1:1"),
            ip("255.255.255.255:1"),
            ip("[2001:db8::1]:1"),
            ip("[fe80::1%3]:1"),
            ip("[::ffff:192.0.2.1]:1"),
            family(libc::AF_PACKET),
            family(libc::AF_VSOCK),
        ];
        assert_eq!(here.iter().find(|address| is_remote(address)), None);
        assert_eq!(elsewhere.iter().find(|address| !is_remote(address)), None);
    }
}
