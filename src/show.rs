//! What others chose, on its way to a terminal or a log: names of processes, files, containers and mounts can be anything.

use std::borrow::Cow;
use std::fmt::Write;

/// A text for people, on one line: control characters, and those that change how others are shown (directions, joiners), are
/// escaped. Everything that is shown to people goes through here.
pub fn shown(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    Cow::Owned(out)
}

/// A text of several lines: each is shown by itself.
pub fn shown_lines(text: &str) -> String {
    let lines: Vec<Cow<'_, str>> = text.split('\n').map(shown).collect();
    lines.join("\n")
}

/// A value of logfmt: quoted unless it is one plain word.
pub fn log_value(text: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/@:+,|#".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("{text:?}"))
    }
}

/// Writes ` KEY=VALUE` pairs, as [`log::kv::Source::visit`] meets them.
pub struct Pairs<'a>(pub &'a mut String);

impl<'kvs> log::kv::VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(
        &mut self,
        key: log::kv::Key<'kvs>,
        value: log::kv::Value<'kvs>,
    ) -> Result<(), log::kv::Error> {
        write!(self.0, " {key}={}", log_value(&value.to_string()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_as_it_is() {
        assert_eq!(shown("a \"b\" c\\d"), "a \"b\" c\\d");
        assert_eq!(shown("\x1b]0;x\x07\x1b[2J"), "\\u{1b}]0;x\\u{7}\\u{1b}[2J");
        assert_eq!(shown("a\nb\u{202e}c\u{9b}"), "a\\nb\\u{202e}c\\u{9b}");
        assert_eq!(shown("größe"), "größe");
        assert_eq!(shown_lines("a\x1b\nb"), "a\\u{1b}\nb");
    }

    #[test]
    fn a_value_is_one_value() {
        for (text, written) in [
            ("EPERM", "EPERM"),
            ("/usr/bin/x", "/usr/bin/x"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            (
                "x\nlevel=error msg=forged",
                "\"x\\nlevel=error msg=forged\"",
            ),
            ("a=b", "\"a=b\""),
            ("\"", "\"\\\"\""),
        ] {
            assert_eq!(log_value(text), written);
        }
    }
}
