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

/// Characters that are not to reach a terminal as they are.
fn is_odd(c: char) -> bool {
    !matches!(c, '"' | '\'' | '\\') && c.escape_debug().len() > 1
}

/// JSON or another text of escapes, so that every character in it can be seen: what JSON leaves as it is, and a terminal would
/// obey, becomes an escape of JSON's.
pub fn shown_json(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c != '\n' && is_odd(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || !is_odd(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            write!(out, "\\u{unit:04x}").ok();
        }
    }
    Cow::Owned(out)
}

/// The first of many, and how many more there are.
pub fn first_of(all: &[String], most: usize) -> String {
    let mut first: Vec<String> = all.iter().take(most).cloned().collect();
    if all.len() > most {
        first.push(format!("and {} more", all.len() - most));
    }
    first.join(", ")
}

/// A string of TOML, in quotes and on one line.
pub fn toml_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if is_odd(c) => {
                write!(out, "\\U{:08X}", u32::from(c)).ok();
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
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
    fn json_and_toml_say_the_same_in_escapes() {
        for text in [
            "plain",
            "\u{1b}[2J",
            "a\u{9b}b\u{202e}\u{7f}",
            "q\"\\'\n\t",
            "\u{10ffff}ü",
        ] {
            let json = serde_json::to_string(text).unwrap();
            let safe = shown_json(&json);
            assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
            let toml = toml_string(text);
            let parsed: toml::Table = toml::from_str(&format!("a = {toml}")).unwrap();
            assert_eq!(parsed["a"].as_str(), Some(text), "{toml}");
            assert!(
                !safe.chars().chain(toml.chars()).any(is_odd),
                "{safe} {toml}"
            );
        }
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
