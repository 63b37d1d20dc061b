//! Reading one file of a profile: every mistake in it with its place, and its keys and values for merging.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::schema::Profile;

/// Something that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, if it is in the file itself and not in what that extends.
    pub place: Option<Place>,
    /// The key, as in `limits.pids.max`, if it is about one.
    pub key: Option<String>,
    /// What is wrong, and what would be right.
    pub text: String,
}

/// A place in a text, from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
    /// How many characters are meant, on that line.
    pub length: usize,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { line, column, .. }) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.text)
    }
}

/// A file that was read.
pub(super) struct File {
    /// Its keys and values, as they are to be merged.
    pub table: Table,
    /// What is wrong with it by itself.
    pub problems: Vec<Problem>,
    /// Where its keys are.
    places: BTreeMap<String, Place>,
}

/// Mistakes that are looked for in one file.
const MOST: usize = 50;

impl File {
    /// Reads a text. One that is known to be right is not looked at twice.
    pub(super) fn read(text: &str, is_right: bool) -> Self {
        if is_right && let Ok(table) = toml::from_str(text) {
            return Self {
                table,
                problems: Vec::new(),
                places: BTreeMap::new(),
            };
        }
        let (document, errors) = DeTable::parse_recoverable(text);
        let problem = |e: &toml::de::Error| Problem {
            place: e.span().map(|span| place(text, span)),
            key: None,
            text: e.message().trim_end().replace('\n', " "),
        };
        let mut problems: Vec<Problem> = errors.iter().map(problem).collect();
        let mut places = BTreeMap::new();
        find_places(text, "", document.get_ref(), &mut places);
        let whole = document.span();
        let mut document = document.into_inner();
        let mut typed = document.clone();
        lists(&mut typed);
        // What is wrong is taken out, until the rest is right.
        while problems.len() < MOST {
            let value = Spanned::new(whole.clone(), DeValue::Table(typed.clone()));
            let Err(e) = Profile::deserialize(value.into_deserializer()) else {
                break;
            };
            let span = e.span();
            problems.push(problem(&e));
            let removed = span.is_some_and(|span| {
                remove(&mut document, &span);
                remove(&mut typed, &span)
            });
            if !removed {
                break;
            }
        }
        let value = Spanned::new(whole, DeValue::Table(document));
        let table = Table::deserialize(value.into_deserializer()).unwrap_or_default();
        problems.sort_by_key(|p| p.place.map(|place| (place.line, place.column)));
        Self {
            table,
            problems,
            places,
        }
    }

    /// Where a key is set, or the nearest table that has it.
    pub(super) fn place(&self, key: &str) -> Option<Place> {
        let mut key = key;
        loop {
            if let Some(place) = self.places.get(key) {
                return Some(*place);
            }
            key = key.rsplit_once('.')?.0;
            // A table is no place for what one of its keys inherits.
            if !key.contains('.') {
                return None;
            }
        }
    }
}

fn place(text: &str, span: Range<usize>) -> Place {
    let start = span.start.min(text.len());
    let before = text.get(..start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let of = |range: Range<usize>| text.get(range).unwrap_or_default();
    let meant = of(start..span.end.min(text.len()).max(start));
    let meant = meant.lines().next().unwrap_or_default();
    Place {
        line: before.matches('\n').count() + 1,
        column: of(line_start..start).chars().count() + 1,
        length: meant.chars().count().max(1),
    }
}

fn find_places(text: &str, above: &str, table: &DeTable<'_>, places: &mut BTreeMap<String, Place>) {
    for (key, value) in table {
        let path = match above {
            "" => key.get_ref().to_string(),
            above => format!("{above}.{}", key.get_ref()),
        };
        places.insert(path.clone(), place(text, key.span()));
        if let DeValue::Table(table) = value.get_ref() {
            find_places(text, &path, table, places);
        }
    }
}

/// Takes out the innermost key whose name or value is at this place.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    let is_in = |outer: &Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let names: Vec<_> = table.keys().cloned().collect();
    for key in names {
        let Some(value) = table.get_mut(key.get_ref().as_ref()) else {
            continue;
        };
        let (of_key, of_value) = (key.span(), value.span());
        if let DeValue::Table(inner) = value.get_mut()
            && remove(inner, span)
        {
            return true;
        }
        if is_in(&of_key) || is_in(&of_value) {
            table.remove(key.get_ref().as_ref());
            return true;
        }
    }
    false
}

/// How a list changes what it inherits: `{ add = […], remove = […] }`.
const CHANGES: [&str; 2] = ["add", "remove"];

fn is_change<'a>(mut keys: impl Iterator<Item = &'a str>) -> bool {
    let mut count = 0;
    keys.all(|key| {
        count += 1;
        CHANGES.contains(&key)
    }) && count > 0
}

/// Where a list is changed, its entries take the place of the change: so they are checked as a list's.
fn lists(table: &mut DeTable<'_>) {
    for (_, value) in table.iter_mut() {
        let DeValue::Table(inner) = value.get_mut() else {
            continue;
        };
        let is_change = is_change(inner.keys().map(|k| k.get_ref().as_ref()));
        if !is_change {
            lists(inner);
            continue;
        }
        let mut entries = toml::de::DeArray::new();
        for (_, value) in inner.iter() {
            match value.get_ref() {
                DeValue::Array(some) => some.iter().for_each(|e| entries.push(e.clone())),
                // Not a list, which the check then says.
                _ => entries.push(value.clone()),
            }
        }
        *value.get_mut() = DeValue::Array(entries);
    }
}

/// Tables are merged, lists changed where that is asked for, and everything else is replaced.
pub(super) fn merge(mut below: Table, above: Table) -> Table {
    for (key, value) in above {
        let merged = match (below.remove(&key), value) {
            (old, Value::Table(new)) if is_change(new.keys().map(String::as_str)) => {
                Value::Array(changed(old, &new))
            }
            (Some(Value::Table(old)), Value::Table(new)) => Value::Table(merge(old, new)),
            // Changes of lists may be in it.
            (_, Value::Table(new)) => Value::Table(merge(Table::new(), new)),
            (_, value) => value,
        };
        below.insert(key, merged);
    }
    below
}

fn changed(old: Option<Value>, change: &Table) -> Vec<Value> {
    let list = |key: &str| match change.get(key) {
        Some(Value::Array(list)) => list.clone(),
        _ => Vec::new(),
    };
    let mut entries = match old {
        Some(Value::Array(entries)) => entries,
        _ => Vec::new(),
    };
    let gone = list("remove");
    entries.retain(|entry| !gone.contains(entry));
    for entry in list("add") {
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    entries
}
