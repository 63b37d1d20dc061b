//! Colours and pages for terminals. Without a terminal, or with `NO_COLOR` (no-color.org), text stays as it is.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use super::print_raw;
use crate::sys::tty;

/// How a text is to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    has_colours: bool,
    /// Columns that there are.
    pub width: usize,
}

impl Style {
    /// Without colours.
    pub(super) fn plain(width: usize) -> Self {
        Self {
            has_colours: false,
            width,
        }
    }

    /// For standard output; `width` where that has none.
    pub(super) fn of_stdout(width: usize) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let columns = size().map(|(columns, _)| columns);
        Self {
            has_colours: std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb,
            width: columns.unwrap_or(width),
        }
    }

    fn sgr(self, code: &str, text: &str) -> String {
        if self.has_colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Something is wrong.
    pub(super) fn bad(self, text: &str) -> String {
        self.sgr("31", text)
    }

    /// All is well.
    pub(super) fn good(self, text: &str) -> String {
        self.sgr("32", text)
    }

    /// To be looked at.
    pub(super) fn warn(self, text: &str) -> String {
        self.sgr("33", text)
    }

    /// A title.
    pub(super) fn bold(self, text: &str) -> String {
        self.sgr("1", text)
    }

    /// Of less interest.
    pub(super) fn dim(self, text: &str) -> String {
        self.sgr("2", text)
    }
}

/// A bar: with colours or without, since it says which line is selected.
pub(super) fn reverse(text: &str) -> String {
    format!("\x1b[7m{text}\x1b[0m")
}

/// Columns and lines of standard output; none where it is no terminal, or one that does not know.
fn size() -> Option<(usize, usize)> {
    let out = std::io::stdout();
    let (columns, lines) = tty::size(out.as_fd()).ok().filter(|_| out.is_terminal())?;
    (columns > 0 && lines > 0).then_some((columns.into(), lines.into()))
}

/// Shows a text, page by page where it is longer than the terminal: by `$PAGER`, or less(1). The text is ready for a terminal.
pub(super) fn page(text: &str) {
    let is_long = size().is_some_and(|(_, lines)| text.lines().count() >= lines);
    if !is_long || !by_pager(text) {
        print_raw(text);
    }
}

/// A text in lines of at most `width` characters, broken at spaces; a longer word is a line by itself.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Whether a pager has shown it.
fn by_pager(text: &str) -> bool {
    let pager = std::env::var("PAGER").unwrap_or_else(|_| "less".into());
    let mut words = pager.split_whitespace();
    let Some(program) = words.next().filter(|program| *program != "cat") else {
        return false;
    };
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", "FRX"); // quit if it fits, show colours, leave the text there: as git does
    }
    let Ok(mut child) = command.spawn() else {
        return false;
    };
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes()).ok();
    }
    child.wait().is_ok()
}
