//! Text of a program made safe for a terminal and for a page.
//!
//! What a program writes is hostile: an escape sequence, an override of the direction of writing or a tag would have the reader
//! see something else than what was there.

use std::fmt::{self, Write};

/// Text on one line of a terminal: what is not printable is escaped.
pub(super) struct Plain<'a>(pub(super) &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| plain(f, char))
    }
}

/// Text in HTML, in an element or in a quoted attribute: no markup, and no more lines or invisible characters than it seems.
pub(super) struct Html<'a>(pub(super) &'a str);

impl fmt::Display for Html<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| html(f, char))
    }
}

/// As [`Html`], but with its lines and tabs, for an element that keeps them.
pub(super) struct HtmlLines<'a>(pub(super) &'a str);

impl fmt::Display for HtmlLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '\n' | '\t' => f.write_char(char),
            _ => html(f, char),
        })
    }
}

fn html(f: &mut fmt::Formatter<'_>, char: char) -> fmt::Result {
    match char {
        '&' => f.write_str("&amp;"),
        '<' => f.write_str("&lt;"),
        '>' => f.write_str("&gt;"),
        '"' => f.write_str("&quot;"),
        '\'' => f.write_str("&#39;"),
        _ => plain(f, char),
    }
}

fn plain(f: &mut fmt::Formatter<'_>, char: char) -> fmt::Result {
    match char {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        _ if !misleads(char) => f.write_char(char),
        _ if char.is_ascii() => write!(f, "\\x{:02x}", u32::from(char)),
        _ => write!(f, "\\u{{{:x}}}", u32::from(char)),
    }
}

/// Tells whether a character acts on its surroundings, or is not seen, rather than being one to read.
pub(super) fn misleads(char: char) -> bool {
    let invisible = matches!(char,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}');
    // What a page may not have, and what belongs to no script.
    let noncharacter = matches!(char, '\u{fdd0}'..='\u{fdef}') || u32::from(char) & 0xfffe == 0xfffe;
    char.is_control() || invisible || noncharacter
}

/// A word as a shell takes it, such that it has no character that [`misleads`].
pub(super) fn shell_word(word: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,+@%#".contains(&byte);
    if !word.is_empty() && !word.starts_with('#') && word.bytes().all(bare) {
        return word.to_owned();
    }
    match word.chars().any(misleads) {
        true => format!("$'{}'", word.chars().map(in_dollar_quotes).collect::<String>()),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// Octal, as every shell that knows these quotes takes it whatever its locale.
fn in_dollar_quotes(char: char) -> String {
    match char {
        '\n' => "\\n".into(),
        '\t' => "\\t".into(),
        '\'' | '\\' => format!("\\{char}"),
        _ if !misleads(char) => char.into(),
        _ => {
            let mut buffer = [0; 4];
            let bytes = char.encode_utf8(&mut buffer).bytes();
            bytes.map(|byte| format!("\\{byte:03o}")).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_on_a_terminal() {
        let text = Plain("a\x1b[2J\r\u{9b}1m\u{202e}é\n").to_string();
        assert_eq!(text, r"a\x1b[2J\r\u{9b}1m\u{202e}é\n");
    }

    #[test]
    fn nothing_is_markup() {
        assert_eq!(
            Html("<a b='\"'>&\0").to_string(),
            "&lt;a b=&#39;&quot;&#39;&gt;&amp;\\x00"
        );
        assert_eq!(HtmlLines("a\n\t<\x1b").to_string(), "a\n\t&lt;\\x1b");
    }

    #[test]
    fn a_shell_takes_words_as_they_were() {
        let words = [
            "",
            "#x",
            "it's",
            "a b",
            "\x1b[31m'\\\n1",
            "\u{202e}7",
            "é$(x)`y`",
            "~",
            "a\t*",
        ];
        let line = words.map(shell_word).join(" ");
        assert!(!line.chars().any(misleads), "{line:?}");
        let script = format!("printf '%s\\0' {line}");
        let output = std::process::Command::new("bash")
            .args(["-c", &script])
            .output()
            .unwrap();
        let expected: String = words.map(|word| format!("{word}\0")).concat();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}
