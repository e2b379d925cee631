//! Words as a shell takes them.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

/// A word of a command line that is printed, to be copied from there: what a terminal would not show is escaped, as `bash`,
/// `zsh` and others undo it.
pub(crate) fn quoted(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref();
    let bare = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(byte);
    let shown = |char: char| matches!(char, ' '..='~') || char.is_alphanumeric();
    match word.to_str() {
        Some(text) if !text.is_empty() && text.as_bytes().iter().all(bare) => text.to_owned(),
        Some(text) if text.chars().all(shown) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let mut quoted = String::from("$'");
            for byte in word.as_bytes() {
                match byte {
                    b'\'' | b'\\' => quoted.extend(['\\', char::from(*byte)]),
                    b' '..=b'~' => quoted.push(char::from(*byte)),
                    // Three digits, so that one that follows is not taken for another.
                    _ => _ = write!(quoted, "\\{byte:03o}"),
                }
            }
            quoted + "'"
        }
    }
}
