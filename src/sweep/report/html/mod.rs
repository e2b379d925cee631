//! A report as one page for a browser, without outside assets.
//!
//! Everything works without the script, which only adds what is comfortable: copying, and a search. The policy of the page
//! allows no other style and script than those here, by their hashes, so that text of a program could do nothing if it
//! came to be markup.

mod head;
mod matrix;
mod trials;

use std::fmt;

use super::Report;
use super::escape::Html;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The only style and script that the page may have, and nothing from elsewhere. A test knows the hashes of the files.
const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; \
    style-src 'sha256-59xe7HVG6zBfDi2iu7uolkLyDtC8VEC7w2YcMDtQVjo='; \
    script-src 'sha256-HIMn32jJI4Bzy1ILTNXgjkRa2Qs37WBfYzI9dWdzS58='";

impl Report {
    /// As a page that needs nothing but itself: it can be opened offline, and sent to someone.
    ///
    /// It has the matrix, whose cells lead to their trials, and all trials with their messages and the commands that repeat
    /// them. It is of use without a script, as it is in the light and in the dark. What the program wrote is text in it, never
    /// markup.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use asm_tracer::sweep::Report;
    ///
    /// let report: Report = serde_json::from_str(&std::fs::read_to_string("sweep.json")?)?;
    /// println!("{report}");
    /// std::fs::write("sweep.html", report.to_html())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_html(&self) -> String {
        Page(self).to_string()
    }
}

struct Page<'a>(&'a Report);

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = self.0.command_line();
        write!(
            f,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>Fault sweep of {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
            Html(&command)
        )?;
        head::write(f, self.0, &command)?;
        f.write_str("<main>\n")?;
        matrix::write(f, self.0)?;
        trials::findings(f, self.0)?;
        trials::by_call(f, self.0)?;
        write!(f, "</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n")
    }
}
