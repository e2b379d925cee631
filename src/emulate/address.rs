use std::ffi::OsStr;
use std::mem::offset_of;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Where `sun_path` begins.
const PATH: usize = offset_of!(libc::sockaddr_un, sun_path);
/// The longest address of a Unix socket.
const UNIX: usize = size_of::<libc::sockaddr_un>();
const V4: usize = size_of::<libc::sockaddr_in>();
/// The shortest that the kernel takes has no scope.
const V6: usize = 24;

/// The address of a `connect(2)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A Unix socket in the file system: bytes, which need not be UTF-8. A relative path begins in the target's working
    /// directory.
    UnixPath(PathBuf),
    /// A Unix socket in the abstract namespace of the target's network namespace: the name without its leading zero.
    UnixAbstract(Vec<u8>),
    /// IPv4.
    V4(SocketAddrV4),
    /// IPv6.
    V6(SocketAddrV6),
    /// `AF_UNSPEC`: the socket is to be connected to nobody.
    Unspecified,
    /// Anything else, as it is, with its family in the first two bytes if there are so many; also what is too short for its
    /// family.
    Other(Vec<u8>),
}

impl Address {
    /// What the kernel would make of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let other = || Self::Other(bytes.to_vec());
        let Some((family, _)) = bytes.split_first_chunk::<2>() else {
            return other();
        };
        let port = || u16::from_be_bytes(field(bytes, 2));
        match i32::from(u16::from_ne_bytes(*family)) {
            libc::AF_UNSPEC => Self::Unspecified,
            libc::AF_UNIX if (PATH + 1..=UNIX).contains(&bytes.len()) => match &bytes[PATH..] {
                [0, name @ ..] => Self::UnixAbstract(name.to_vec()),
                path => {
                    let end = path.iter().position(|byte| *byte == 0);
                    Self::UnixPath(OsStr::from_bytes(&path[..end.unwrap_or(path.len())]).into())
                }
            },
            libc::AF_INET if bytes.len() >= V4 => {
                Self::V4(SocketAddrV4::new(Ipv4Addr::from(field::<4>(bytes, 4)), port()))
            }
            libc::AF_INET6 if bytes.len() >= V6 => {
                let scope = bytes.len() >= size_of::<libc::sockaddr_in6>();
                let scope = if scope {
                    u32::from_ne_bytes(field(bytes, 24))
                } else {
                    0
                };
                let flow = u32::from_be_bytes(field(bytes, 4));
                Self::V6(SocketAddrV6::new(
                    Ipv6Addr::from(field::<16>(bytes, 8)),
                    port(),
                    flow,
                    scope,
                ))
            }
            _ => other(),
        }
    }

    /// The bytes for the kernel; those of a path are only its own.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let family = |family: i32| (family as u16).to_ne_bytes().to_vec();
        match self {
            Self::UnixPath(path) => [family(libc::AF_UNIX), path.as_os_str().as_bytes().to_vec()].concat(),
            Self::UnixAbstract(name) => [family(libc::AF_UNIX), vec![0], name.clone()].concat(),
            Self::V4(address) => {
                let mut bytes = family(libc::AF_INET);
                bytes.extend(address.port().to_be_bytes());
                bytes.extend(address.ip().octets());
                bytes.resize(V4, 0);
                bytes
            }
            Self::V6(address) => {
                let mut bytes = family(libc::AF_INET6);
                bytes.extend(address.port().to_be_bytes());
                bytes.extend(address.flowinfo().to_be_bytes());
                bytes.extend(address.ip().octets());
                bytes.extend(address.scope_id().to_ne_bytes());
                bytes
            }
            Self::Unspecified => {
                let mut bytes = family(libc::AF_UNSPEC);
                bytes.resize(V4, 0);
                bytes
            }
            Self::Other(bytes) => bytes.clone(),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::V4(address),
            SocketAddr::V6(address) => Self::V6(address),
        }
    }
}

/// Bytes of an address; zeros beyond its end.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(bytes.iter().skip(at)) {
        *to = *from;
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_meaning() {
        let v6 = "[fe80::1%3]:80".parse::<SocketAddrV6>().unwrap();
        for address in [
            Address::V4("127.0.0.1:8080".parse().unwrap()),
            Address::V6(v6),
            Address::UnixPath("relative/\u{fffd}".into()),
            Address::UnixAbstract(b"a\0b\0".to_vec()),
            Address::Unspecified,
            Address::Other(vec![2]),
            Address::Other(vec![]),
            Address::Other(vec![38, 0, 1, 2, 3]),
        ] {
            assert_eq!(Address::of(&address.to_bytes()), address);
        }
    }

    #[test]
    fn a_path_ends_at_its_zero_or_with_the_address() {
        let unix = |rest: &[u8]| Address::of(&[&[1, 0], rest].concat());
        assert_eq!(unix(b"abc\0def"), Address::UnixPath("abc".into()));
        assert_eq!(unix(&[b'x'; 108]), Address::UnixPath("x".repeat(108).into()));
        // Too long, and too short to be one.
        assert!(matches!(unix(&[b'x'; 109]), Address::Other(_)));
        assert!(matches!(unix(b""), Address::Other(_)));
    }

    #[test]
    fn what_is_too_short_for_its_family_is_left_as_it_is() {
        let v4 = Address::V4("10.0.0.1:1".parse().unwrap()).to_bytes();
        assert!(matches!(Address::of(&v4[..15]), Address::Other(_)));
        let v6 = Address::V6("[::1]:1".parse().unwrap()).to_bytes();
        assert!(matches!(Address::of(&v6[..24]), Address::V6(_)));
        assert!(matches!(Address::of(&v6[..23]), Address::Other(_)));
    }
}
