//! Bytes of a target as text that is safe to print.

/// Quotes and escapes as C and strace do: what is not printable ASCII never reaches a terminal as it is.
///
/// A string that was cut short is followed by `…`.
pub(crate) fn quote(bytes: &[u8], cut: bool) -> String {
    let mut text = String::with_capacity(bytes.len() + 3);
    text.push('"');
    for (position, &byte) in bytes.iter().enumerate() {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'\r' => text.push_str("\\r"),
            0x0b => text.push_str("\\v"),
            0x0c => text.push_str("\\f"),
            b' '..=b'~' => text.push(byte.into()),
            // A digit that follows must not be taken for one of the number's.
            _ if bytes.get(position + 1).is_some_and(u8::is_ascii_digit) => {
                text.push_str(&format!("\\{byte:03o}"));
            }
            _ => text.push_str(&format!("\\{byte:o}")),
        }
    }
    text.push('"');
    if cut {
        text.push('…');
    }
    text
}
