//! `cofferdam profile`: which isolation profiles there are, what is in them, and whether one is right.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Error, Result, json, print};
use crate::cgroup::Layout;
use crate::control;
use crate::isolation::{
    self, BUILT_IN, DIRECTORY, Node, Place, PodOfKubernetes, Problem, Profile, names,
};
use crate::oci::{self, Reading, Request};
use crate::pod::host_limits;

/// The file that an argument names; none if it is a profile's name.
fn file(what: &str) -> Option<&Path> {
    let path = Path::new(what);
    let is_file = what.contains('/') || path.extension().is_some_and(|e| e == "toml");
    is_file.then_some(path)
}

/// Where the profiles are that this one may extend, beside the built-in ones.
fn directory(what: &str) -> &Path {
    match file(what) {
        None => Path::new(DIRECTORY),
        Some(path) => {
            let directory = path.parent().filter(|p| !p.as_os_str().is_empty());
            directory.unwrap_or(Path::new("."))
        }
    }
}

/// A profile by its name, or from a file. Others that it extends are looked for beside the file, then among the built-in.
fn load(what: &str) -> Result<Profile> {
    let Some(path) = file(what) else {
        return Ok(Profile::load(what)?);
    };
    let text = std::fs::read_to_string(path).map_err(Error::io(format!("read {what}")))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    Ok(Profile::parse(directory(what), &name, what, &text)?)
}

/// Lists of protections. A profile that sets one has its own in place of the inherited one.
const PROTECTIONS: [&str; 3] = [
    "filesystem.masked_paths",
    "filesystem.read_only_paths",
    "landlock.scopes",
];

/// What is right in a profile, and perhaps not meant.
fn notes(what: &str, profile: &Profile) -> Result<Vec<String>> {
    let Some(parent) = profile.parent(directory(what))? else {
        let is_standard = profile.name == "standard";
        let text = "it extends nothing: only its own keys are enforced";
        return Ok(Vec::from_iter((!is_standard).then(|| text.to_owned())));
    };
    let changes = changes(&table(&parent)?, &table(profile)?);
    let parent = parent.name;
    let mut notes = Vec::new();
    let beside = directory(what);
    if beside != Path::new(DIRECTORY) && beside.join(format!("{parent}.toml")).exists() {
        notes.push(format!(
            "extends: {parent:?} is the file in {}; the shim reads {DIRECTORY} only, so install both there",
            beside.display()
        ));
    }
    let lost = PROTECTIONS.into_iter().filter_map(|key| {
        let (Value::Array(gone), _) = changes.get(key)? else {
            return None;
        };
        let count = gone.len();
        Some(format!(
            "{key}: {count} entries of {parent:?} are not in it: a list replaces the inherited one, {{ add = […] }} adds to it"
        ))
    });
    notes.extend(lost);
    let may = |name: &str| {
        profile
            .process
            .capabilities
            .iter()
            .flatten()
            .any(|c| c == name)
    };
    if may("CAP_SYS_ADMIN") {
        notes.push("process.capabilities: CAP_SYS_ADMIN is nearly root on the node".into());
    }
    if profile.landlock.execute.as_ref().is_some_and(Vec::is_empty) {
        notes.push(
            "landlock.execute: it is empty, so no container starts: leave it out, or list programs"
                .into(),
        );
    }
    let floor = profile.seccomp.filter.as_ref().filter(|_| {
        let own = profile.seccomp.floor.as_deref();
        own.is_some_and(|floor| floor.starts_with('/'))
    });
    if let Some(floor) = floor {
        let program = crate::seccomp::compile(floor);
        let denied = program.is_ok_and(|p| !p.allows("pause"));
        if denied {
            notes.push("seccomp.floor: it denies pause(2), in which the pause container of a Kubernetes pod waits: it would use a whole processor".into());
        }
    }
    Ok(notes)
}

pub(super) fn list(as_json: bool) {
    let directory = Path::new(DIRECTORY);
    let mut all = Vec::new();
    for name in names(directory) {
        let file = directory.join(format!("{name}.toml"));
        let built_in = BUILT_IN.iter().any(|(n, _)| *n == name);
        let exists = file.exists();
        let error = load(&name).err().map(|e| e.to_string());
        if as_json {
            let file = exists.then_some(file);
            all.push(json!({ "name": name, "file": file, "builtIn": built_in, "error": error }));
            continue;
        }
        let origin = match (exists, built_in) {
            (true, true) => format!("{} (takes the built-in one's place)", file.display()),
            (true, false) => file.display().to_string(),
            (false, _) => "built in".into(),
        };
        let state = error.map_or_else(String::new, |e| format!("  BROKEN: {e}"));
        print(&format!("{name:<16} {origin}{state}\n"));
    }
    if as_json {
        json::print("ProfileList", json!({ "items": all }));
    }
}

pub(super) fn show(what: &str, as_json: bool) -> Result<()> {
    let profile = load(what)?;
    if as_json {
        let body = json!({ "name": profile.name, "profile": table(&profile)? });
        json::print("Profile", body);
    } else {
        print(&profile.to_toml());
    }
    Ok(())
}

/// Whether a profile in a file can be used, and takes this spec.
///
/// # Errors
/// What is wrong with it, or why it refuses the spec.
pub(super) fn trial(file: &str, spec: Option<&Path>) -> Result<()> {
    let profile = load(file)?;
    if let Some(filter) = &profile.seccomp.filter {
        crate::seccomp::compile(filter).map_err(|e| Error::Other(e.to_string()))?;
    }
    spec.map_or(Ok(()), |spec| under(&profile, spec).map(drop))
}

/// What is to be said of one profile.
struct Validated {
    name: String,
    problems: Vec<Problem>,
    notes: Vec<String>,
}

impl Validated {
    fn of(what: &str) -> Result<Self> {
        let mut this = Self {
            name: what.to_owned(),
            problems: Vec::new(),
            notes: Vec::new(),
        };
        let problem = |text: String| Problem {
            place: None,
            key: None,
            text,
        };
        match load(what) {
            Ok(profile) => this.notes = notes(what, &profile)?,
            Err(Error::Profile(isolation::Error::Wrong { problems, .. })) => {
                this.problems = problems;
            }
            Err(e) => this.problems.push(problem(e.to_string())),
        }
        let read = |path| std::path::absolute(path).and_then(|p| isolation::read_of_root(&p));
        if let Some(Err(e)) = file(what).map(read) {
            if directory(what) == Path::new(DIRECTORY) {
                this.problems
                    .push(problem(format!("no shim reads it: {e}")));
            } else if e.kind() == std::io::ErrorKind::PermissionDenied {
                this.notes
                    .push(format!("no shim would read it as it is: {e}"));
            }
        }
        Ok(this)
    }

    fn to_json(&self) -> Value {
        let problem = |p: &Problem| {
            json!({
                "line": p.place.map(|at| at.line), "column": p.place.map(|at| at.column), "key": p.key, "message": p.text
            })
        };
        let problems: Vec<Value> = self.problems.iter().map(problem).collect();
        json!({ "profile": self.name, "valid": problems.is_empty(), "problems": problems, "notes": self.notes })
    }

    fn text(&self) -> String {
        let mut out = match self.problems.len() {
            0 => format!("{}: valid\n", self.name),
            1 => format!("{}: 1 mistake\n", self.name),
            n => format!("{}: {n} mistakes\n", self.name),
        };
        let installed = Path::new(DIRECTORY).join(format!("{}.toml", self.name));
        let path = file(&self.name).unwrap_or(&installed);
        let text = std::fs::read_to_string(path).ok();
        let text = text.unwrap_or_default();
        for p in &self.problems {
            out.push_str(&format!("  {p}\n"));
            let line = p
                .place
                .and_then(|at| Some((at, text.lines().nth(at.line - 1)?)));
            if let Some((at, line)) = line {
                let number = at.line;
                let before: String = line
                    .chars()
                    .take(at.column - 1)
                    .map(|c| if c == '\t' { c } else { ' ' })
                    .collect();
                out.push_str(&format!(
                    "    {number:>4} | {line}\n         | {before}{}\n",
                    "^".repeat(at.length)
                ));
            }
        }
        for note in &self.notes {
            out.push_str(&format!("  note: {note}\n"));
        }
        out
    }
}

/// Status 1 where a profile is wrong.
pub(super) fn validate(what: &[String], as_json: bool) -> Result<i32> {
    let all: Result<Vec<Validated>> = what.iter().map(|one| Validated::of(one)).collect();
    let all = all?;
    if as_json {
        let items: Vec<Value> = all.iter().map(Validated::to_json).collect();
        json::print("ProfileValidation", json!({ "items": items }));
    } else {
        for one in &all {
            print(&one.text());
        }
    }
    Ok(i32::from(all.iter().any(|one| !one.problems.is_empty())))
}

/// What a profile is compared with.
pub(super) enum With<'a> {
    /// Another one.
    Profile(&'a str),
    /// A spec before it.
    Spec(PathBuf),
    /// The spec of a live container before it.
    Container(&'a str),
}

pub(super) fn diff(what: &str, with: &With<'_>, as_json: bool) -> Result<i32> {
    let profile = load(what)?;
    let (before, after) = match with {
        With::Profile(other) => (table(&profile)?, table(&load(other)?)?),
        With::Spec(path) => under(&profile, path)?,
        With::Container(id) => {
            let target = control::find(id)?;
            let container = target.one(id)?;
            under(&profile, &container.bundle.join("config.json"))?
        }
    };
    let changes = changes(&before, &after);
    if as_json {
        let one = |(key, (before, after)): (&String, &(Value, Value))| json!({ "key": key, "before": before, "after": after });
        let all: Vec<Value> = changes.iter().map(one).collect();
        json::print("ProfileDiff", json!({ "changes": all }));
    } else {
        for (key, (before, after)) in &changes {
            print(&format!("{key}\n"));
            for (mark, value) in [('-', before), ('+', after)] {
                if !value.is_null() {
                    print(&format!("  {mark} {value}\n"));
                }
            }
        }
    }
    Ok(i32::from(!changes.is_empty()))
}

/// A profile's keys, with all that it inherits.
fn table(profile: &Profile) -> Result<Value> {
    let mut table = serde_json::to_value(profile).map_err(|e| Error::Other(e.to_string()))?;
    if let Some(table) = table.as_object_mut() {
        table.remove("extends");
    }
    Ok(table)
}

/// A spec, and what the profile makes of it.
fn under(profile: &Profile, path: &Path) -> Result<(Value, Value)> {
    let path = std::path::absolute(path).map_err(Error::io(format!("find {}", path.display())))?;
    let bundle = path.parent().unwrap_or(Path::new("/"));
    if path.file_name().is_none_or(|n| n != "config.json") {
        return Err(Error::Other(format!(
            "{}: expected the config.json of a bundle",
            path.display()
        )));
    }
    let asked = oci::load(bundle)?;
    let layout = Layout::detect().map_err(Error::io("find the node's cgroups"))?;
    let node = Node::load().map_err(|e| Error::Other(e.to_string()))?;
    let id = bundle.file_name().unwrap_or_default().to_string_lossy();
    let request = Request::read(asked.clone(), bundle, Reading::Show)?;
    let given = isolation::Given {
        place: Place::of(&node, bundle, &id).of_pod(PodOfKubernetes::claimed(&request)),
        ..host_limits(&layout)
    };
    let to_value = |spec: &oci_spec::runtime::Spec| {
        serde_json::to_value(spec).map_err(|e| Error::Other(e.to_string()))
    };
    let judged = isolation::judge(profile, &given, request)
        .map_err(|e| Error::Other(e.to_string()))?
        .judged;
    Ok((to_value(&asked)?, to_value(&judged.to_spec(&asked))?))
}

/// Keys whose values differ. Lists of words are taken apart: what was taken away, and what was added.
fn changes(before: &Value, after: &Value) -> BTreeMap<String, (Value, Value)> {
    let mut out = BTreeMap::new();
    compare("", before, after, &mut out);
    out
}

fn compare(key: &str, before: &Value, after: &Value, out: &mut BTreeMap<String, (Value, Value)>) {
    let below = |name: &str| {
        if key.is_empty() {
            name.to_owned()
        } else {
            format!("{key}.{name}")
        }
    };
    match (before, after) {
        _ if before == after => {}
        // What is left out and what is empty are the same.
        (Value::Null, Value::Array(a)) | (Value::Array(a), Value::Null) if a.is_empty() => {}
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let of = |t: &serde_json::Map<String, Value>| t.get(name).cloned();
                let (a, b) = (of(a).unwrap_or_default(), of(b).unwrap_or_default());
                compare(&below(name), &a, &b, out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.iter().chain(b).all(Value::is_string) => {
            let only = |of: &[Value], other: &[Value]| -> Value {
                let left: Vec<Value> = of.iter().filter(|v| !other.contains(v)).cloned().collect();
                if left.is_empty() {
                    Value::Null
                } else {
                    left.into()
                }
            };
            let (gone, new) = (only(a, b), only(b, a));
            if gone.is_null() && new.is_null() {
                // In another order.
                out.insert(key.to_owned(), (before.clone(), after.clone()));
            } else {
                out.insert(key.to_owned(), (gone, new));
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{key}[{i}]"), a, b, out);
            }
        }
        _ => {
            out.insert(key.to_owned(), (before.clone(), after.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        let before = json!({ "a": { "b": 1, "c": ["x", "y"] }, "d": [{ "e": 1 }], "same": true });
        let after =
            json!({ "a": { "b": 2, "c": ["y", "z"] }, "d": [{ "e": 2 }], "same": true, "new": 1 });
        let told = changes(&before, &after);
        let expected = [
            ("a.b", json!(1), json!(2)),
            ("a.c", json!(["x"]), json!(["z"])),
            ("d[0].e", json!(1), json!(2)),
            ("new", Value::Null, json!(1)),
        ];
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (key, before, after) in expected {
            assert_eq!(told[key], (before, after), "{key}");
        }
        assert!(changes(&before, &before).is_empty());
    }
}
