//! How the parts of a line are written in JSON.
//!
//! Times are whole microseconds, durations whole nanoseconds, registers strings in hexadecimal, since JSON's numbers are not
//! exact everywhere. Bytes are `text` up to where they stop being UTF-8, and `hex` from there.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::line::{self, MemoryKind, Missing};

fn is_false(value: &bool) -> bool {
    !value
}

/// A [`line::Memory`].
#[derive(Serialize, Deserialize)]
pub(super) struct Memory {
    argument: usize,
    kind: MemoryKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    truncated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    missing: Option<Missing>,
}

impl From<line::Memory> for Memory {
    fn from(memory: line::Memory) -> Self {
        let line::Memory {
            argument,
            kind,
            bytes,
            truncated,
            missing,
        } = memory;
        let (text, rest) = match String::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let mut text = error.into_bytes();
                let rest = text.split_off(valid);
                let text = String::from_utf8_lossy(&text).into_owned();
                (text, Some(to_hex(&rest)))
            }
        };
        let silent = text.is_empty() && (rest.is_some() || missing.is_some());
        Self {
            argument,
            kind,
            text: (!silent).then_some(text),
            hex: rest,
            truncated,
            missing,
        }
    }
}

impl TryFrom<Memory> for line::Memory {
    type Error = &'static str;

    fn try_from(memory: Memory) -> Result<Self, Self::Error> {
        let Memory {
            argument,
            kind,
            text,
            hex,
            truncated,
            missing,
        } = memory;
        let mut bytes = text.unwrap_or_default().into_bytes();
        if let Some(hex) = hex {
            bytes.extend(from_hex(&hex).ok_or("bytes that are not hexadecimal")?);
        }
        Ok(Self {
            argument,
            kind,
            bytes,
            truncated,
            missing,
        })
    }
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| DIGITS[usize::from(digit)]).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(16 * digit(*high)? + digit(*low)?).ok();
    odd.is_empty().then(|| pairs.iter().map(byte).collect()).flatten()
}

pub(super) mod time {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let since = Duration::from_micros(u64::deserialize(from)?);
        UNIX_EPOCH
            .checked_add(since)
            .ok_or_else(|| D::Error::custom("a time beyond all clocks"))
    }
}

pub(super) mod duration {
    use std::time::Duration;

    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_nanos)
    }
}

pub(super) mod optional_duration {
    use std::time::Duration;

    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => duration::serialize(time, to),
            None => to.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_nanos))
    }
}

pub(super) mod registers {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(registers: &[i64; 6], to: S) -> Result<S::Ok, S::Error> {
        registers.map(|register| format!("{register:#x}")).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[i64; 6], D::Error> {
        let texts = <[Cow<'de, str>; 6]>::deserialize(from)?;
        let mut registers = [0; 6];
        for (register, text) in registers.iter_mut().zip(texts) {
            let digits = text
                .strip_prefix("0x")
                .and_then(|text| u64::from_str_radix(text, 16).ok());
            *register = digits
                .ok_or_else(|| D::Error::custom("a register that is not hexadecimal"))?
                .cast_signed();
        }
        Ok(registers)
    }
}

pub(super) mod arch {
    use super::*;
    use crate::notify::Arch;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Name {
        #[serde(rename = "x86_64")]
        X86_64,
        I386,
        X32,
        Other(u32),
    }

    pub(in super::super) fn serialize<S: Serializer>(arch: &Arch, to: S) -> Result<S::Ok, S::Error> {
        let name = match *arch {
            Arch::X86_64 => Name::X86_64,
            Arch::I386 => Name::I386,
            Arch::X32 => Name::X32,
            Arch::Other(number) => Name::Other(number),
        };
        name.serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arch, D::Error> {
        Ok(match Name::deserialize(from)? {
            Name::X86_64 => Arch::X86_64,
            Name::I386 => Arch::I386,
            Name::X32 => Arch::X32,
            Name::Other(number) => Arch::Other(number),
        })
    }
}

/// The number, and for the reader its name.
pub(super) mod errno {
    use nix::errno::Errno;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Named<'a> {
        errno: i32,
        #[serde(default)]
        name: Option<Cow<'a, str>>,
    }

    pub(in super::super) fn serialize<S: Serializer>(errno: &Errno, to: S) -> Result<S::Ok, S::Error> {
        let name = Some(format!("{errno:?}").into());
        let errno = *errno as i32;
        Named { errno, name }.serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Errno, D::Error> {
        Ok(Errno::from_raw(Named::deserialize(from)?.errno))
    }
}

pub(super) mod observed {
    use super::*;
    use crate::notify::Observed;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Name {
        Returned(i64),
        Interrupted,
        Gone,
    }

    pub(in super::super) fn serialize<S: Serializer>(
        observed: &Option<Observed>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let name = observed.map(|observed| match observed {
            Observed::Returned(value) => Name::Returned(value),
            Observed::Interrupted => Name::Interrupted,
            Observed::Gone => Name::Gone,
        });
        name.serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Observed>, D::Error> {
        let name = Option::<Name>::deserialize(from)?;
        Ok(name.map(|name| match name {
            Name::Returned(value) => Observed::Returned(value),
            Name::Interrupted => Observed::Interrupted,
            Name::Gone => Observed::Gone,
        }))
    }
}
