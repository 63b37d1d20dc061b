//! The files of containerd's configuration, before they are merged: what one takes from another, and what none reads.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::containerd::{runtimes, text};
use super::daemon::{Source, main_file};
use super::findings::{Findings, State};
use super::handler;
use crate::files::read_settings;
use crate::show::first_of;

/// The section with the runtimes in version 3, and in those before.
const PLUGINS: [&str; 2] = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"];
/// Imports may import.
const DEEPEST: usize = 8;

/// A file that could be read.
struct File {
    path: PathBuf,
    table: Table,
}

impl File {
    /// # Errors
    /// Why it is no TOML. None where it cannot be read: containerd tells that.
    fn read(path: &Path) -> Option<Result<Self, String>> {
        let text = read_settings(path).ok()?;
        Some(match toml::from_str(&text) {
            Ok(table) => Ok(Self {
                path: path.to_owned(),
                table,
            }),
            Err(e) => {
                let before = text
                    .get(..e.span().map_or(0, |s| s.start))
                    .unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                Err(format!("{}, line {line}: {}", path.display(), e.message()))
            }
        })
    }

    /// A file without a version is of the first.
    fn version(&self) -> i64 {
        let version = self.table.get("version").and_then(Value::as_integer);
        version.unwrap_or(1)
    }

    fn section(&self, plugin: &str) -> Option<&Table> {
        let plugins = self.table.get("plugins")?.as_table()?;
        plugins.get(plugin)?.as_table()
    }

    /// The files that it imports, and the names of those that are not there. A pattern may match nothing.
    fn imports(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let list = self.table.get("imports").and_then(Value::as_array);
        let patterns = list.into_iter().flatten().filter_map(Value::as_str);
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let (mut there, mut missing) = (Vec::new(), Vec::new());
        for pattern in patterns {
            let path = directory.join(pattern);
            if pattern.contains(['*', '?', '[']) {
                there.extend(matching(&path));
            } else if path.exists() {
                there.push(path);
            } else {
                missing.push(path);
            }
        }
        there.retain(|path| *path != self.path);
        (there, missing)
    }
}

/// The files that a pattern stands for.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    // In Go's patterns it is no more than one.
    let pattern = pattern.to_string_lossy().replace("**", "*");
    let found = glob::glob(&pattern);
    found.into_iter().flatten().flatten().collect()
}

/// The main file, and those that it imports, in containerd's order.
pub(super) struct Files {
    main: File,
    imports: Vec<File>,
    /// Imports that are not there.
    missing: Vec<PathBuf>,
    /// Those that are no TOML, and why.
    broken: Vec<String>,
}

impl Files {
    /// None where there is no main file: containerd runs without one.
    ///
    /// # Errors
    /// The main file is no TOML.
    pub(super) fn read(source: &Source) -> Option<Result<Self, String>> {
        let main = match File::read(&main_file(source))? {
            Ok(main) => main,
            Err(why) => return Some(Err(why)),
        };
        let mut this = Self {
            main,
            imports: Vec::new(),
            missing: Vec::new(),
            broken: Vec::new(),
        };
        let mut known = BTreeSet::from([this.main.path.clone()]);
        let (mut level, missing) = this.main.imports();
        this.missing.extend(missing);
        for _ in 0..DEEPEST {
            let mut next = Vec::new();
            for path in level {
                let read = known.insert(path.clone()).then(|| File::read(&path));
                match read.flatten() {
                    Some(Ok(file)) => {
                        let (there, missing) = file.imports();
                        next.extend(there);
                        this.missing.extend(missing);
                        this.imports.push(file);
                    }
                    Some(Err(why)) => this.broken.push(why),
                    None => {}
                }
            }
            level = next;
        }
        Some(Ok(this))
    }

    fn all(&self) -> impl Iterator<Item = &File> {
        std::iter::once(&self.main).chain(&self.imports)
    }

    /// The files' paths.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.all().map(|file| file.path.as_path())
    }

    /// The version of the main file, which the others must not be above.
    pub(super) fn version(&self) -> i64 {
        self.main.version()
    }

    /// What containerd 2.x makes of them, without its defaults.
    pub(super) fn merged(&self) -> Table {
        let mut all = Table::new();
        for file in self.all() {
            merge(&mut all, &file.table);
        }
        all.insert("version".into(), Value::Integer(self.version()));
        all
    }
}

fn merge(into: &mut Table, from: &Table) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// What in the files keeps containerd from starting, as far as we know more than it says. `why` is its own word, if it was asked. Whether anything was
/// found.
pub(super) fn faults(
    files: Option<&Result<Files, String>>,
    why: Option<&str>,
    out: &mut Findings,
) -> bool {
    let files = match files {
        None => return false,
        Some(Ok(files)) if files.broken.is_empty() => files,
        Some(broken) => {
            let all = match broken {
                Ok(files) => files.broken.join("; "),
                Err(why) => why.clone(),
            };
            let found = format!("containerd does not start with it: {all}");
            let remedy = "correct the file until `containerd config dump` prints everything";
            out.say("configuration", State::Failing, found, remedy);
            return true;
        }
    };
    // Releases before 2.3 take a newer import.
    if why.is_some_and(|why| !why.contains("higher than root config version")) {
        return false;
    }
    let (main, version) = (files.main.path.display(), files.version());
    let Some(newer) = files.imports.iter().find(|f| f.version() > version) else {
        return false;
    };
    let found = format!(
        "{} is of version {}, {main} of version {version}: containerd does not start with an import that is newer",
        newer.path.display(),
        newer.version()
    );
    let other = if handlers_of(newer).is_empty() {
        "write the import in the older version".to_owned()
    } else {
        let path = newer.path.display();
        format!("put shim-config/containerd-1.x.toml in the place of {path}")
    };
    let remedy = format!("{other}, or migrate the main file: containerd config migrate");
    out.say("configuration", State::Failing, found, &remedy);
    true
}

/// Files that are to be merged, and are not there. Whether later ones are read all the same.
pub(super) fn missing(files: &Files, major: u32, out: &mut Findings) -> bool {
    if files.missing.is_empty() {
        return true;
    }
    let paths = files.missing.iter().map(|p| p.display().to_string());
    let paths = paths.collect::<Vec<_>>().join(" ");
    let reads_on = major < 2;
    let (state, found) = if reads_on {
        (State::Degraded, format!("not there: {paths}"))
    } else {
        let text =
            format!("not there: {paths}. containerd 2.x then reads none of the later imports");
        (State::Failing, text)
    };
    let remedy = "make the files, or take them out of imports";
    out.say("imports", state, found, remedy);
    reads_on
}

/// Settings that a file has and containerd does not: containerd 1.x replaces the section of a plugin as a whole.
pub(super) fn replaced(files: &Files, out: &mut Findings) {
    for import in &files.imports {
        for plugin in PLUGINS {
            let (Some(own), Some(new)) = (files.main.section(plugin), import.section(plugin))
            else {
                continue;
            };
            let kept = leaves(new);
            let lost: Vec<String> = leaves(own).difference(&kept).cloned().collect();
            if lost.is_empty() {
                continue;
            }
            let found = format!(
                "{} takes the place of the section {plugin:?} of {}, as containerd 1.x has it: not in effect: {}",
                import.path.display(),
                files.main.path.display(),
                first_of(&lost, 4),
            );
            let remedy = format!(
                "copy the tables of {} into {}, and take it out of imports",
                import.path.display(),
                files.main.path.display()
            );
            out.say("imports", State::Degraded, found, &remedy);
        }
    }
}

/// The settings of a table, by their dotted names.
fn leaves(table: &Table) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (key, value) in table {
        match value {
            Value::Table(below) => {
                all.extend(
                    leaves(below)
                        .into_iter()
                        .map(|name| format!("{key}.{name}")),
                );
            }
            _ => {
                all.insert(key.clone());
            }
        }
    }
    all
}

/// A handler of ours in a file: its name, and the path of its table.
struct Handler {
    name: String,
    path: Vec<String>,
}

fn handlers_of(file: &File) -> Vec<Handler> {
    let mut all = Vec::new();
    search(&file.table, &mut Vec::new(), &mut all);
    all
}

fn search(table: &Table, path: &mut Vec<String>, all: &mut Vec<Handler>) {
    for (key, value) in table {
        let Value::Table(below) = value else {
            continue;
        };
        path.push(key.clone());
        if handler::is_ours(below) {
            let (name, path) = (key.clone(), path.clone());
            all.push(Handler { name, path });
        } else {
            search(below, path, all);
        }
        path.pop();
    }
}

/// Handlers that somebody wrote, and that containerd does not have.
pub(super) fn vanished(files: &Files, config: &Table, out: &mut Findings) {
    let known = runtimes(config);
    let directory = files.main.path.parent().unwrap_or(Path::new("/"));
    // Where people put such files, whether they are imported or not.
    let beside = ["*cofferdam*.toml", "conf.d/*.toml"]
        .into_iter()
        .flat_map(|pattern| matching(&directory.join(pattern)));
    let is_read = |path: &Path| files.paths().any(|read| read == path);
    let others: Vec<File> = beside
        .filter(|path| !is_read(path))
        .filter_map(|path| File::read(&path)?.ok())
        .collect();
    let [new, old] = PLUGINS;
    let plugin = match config.get("version").and_then(Value::as_integer) {
        Some(3..) => new,
        _ => old,
    };
    if !others.is_empty() {
        not_imported(files, &others, &known, out);
    }
    for file in files.all() {
        let gone = gone(file, &known);
        let Some(first) = gone.first() else {
            continue;
        };
        let path = file.path.display();
        let in_place = first.path.get(1).is_some_and(|name| name == plugin)
            && first
                .path
                .get(2..4)
                .is_some_and(|p| p == ["containerd", "runtimes"]);
        let (why, remedy) = if in_place && first.path.len() == 5 {
            (
                "another import takes the place of this section".to_owned(),
                "write all handlers into one file, and import only that".to_owned(),
            )
        } else {
            (
                format!(
                    "containerd does not look for handlers in {}",
                    first.path.join(".")
                ),
                format!(
                    "write them as [plugins.{plugin:?}.containerd.runtimes.{}]",
                    first.name
                ),
            )
        };
        let found = format!("{} of {path} are not in effect: {why}", names_of(&gone));
        out.say("handlers", State::Failing, found, &remedy);
    }
}

/// Handlers of ours in a file that containerd does not have.
fn gone(file: &File, known: &Table) -> Vec<Handler> {
    let all = handlers_of(file).into_iter();
    all.filter(|h| !known.contains_key(&h.name)).collect()
}

fn names_of(handlers: &[Handler]) -> String {
    let names: Vec<&str> = handlers.iter().map(|h| h.name.as_str()).collect();
    names.join(" ")
}

/// Files with handlers that nothing imports. `imports` is one list, above the first table: what stands in a table means nothing.
fn not_imported(files: &Files, others: &[File], known: &Table, out: &mut Findings) {
    let with_handlers: Vec<(&File, Vec<Handler>)> = others
        .iter()
        .map(|file| (file, gone(file, known)))
        .filter(|(_, gone)| !gone.is_empty())
        .collect();
    let Some((first, _)) = with_handlers.first() else {
        return;
    };
    let main = files.main.path.display();
    let one = |(file, gone): &(&File, Vec<Handler>)| {
        format!("{} of {}", names_of(gone), file.path.display())
    };
    let all: Vec<String> = with_handlers.iter().map(one).collect();
    let misplaced = table_with(&files.main.table, "imports");
    let why = match &misplaced {
        Some(table) => {
            format!("imports stands inside the table [{table}] of {main}, where it means nothing")
        }
        None => format!("{main} does not import it"),
    };
    let in_conf_d = first.path.parent().is_some_and(|p| p.ends_with("conf.d"));
    let entry = if in_conf_d {
        first.path.with_file_name("*.toml")
    } else {
        first.path.clone()
    };
    let remedy = match misplaced {
        Some(_) => {
            format!("move imports above the first [table] of {main}, and restart containerd")
        }
        None => format!(
            "put imports = [{entry:?}] above the first [table] of {main}, or add the entry to the imports that are there, and restart containerd"
        ),
    };
    let found = format!("{} are not in effect: {why}", all.join(", "));
    out.say("handlers", State::Failing, found, &remedy);
}

/// The name of a table below this one that has this key.
fn table_with(table: &Table, key: &str) -> Option<String> {
    table.iter().find_map(|(name, value)| {
        let below = value.as_table()?;
        if below.contains_key(key) {
            return Some(name.clone());
        }
        Some(format!("{name}.{}", table_with(below, key)?))
    })
}

/// A default handler that does not exist: pods without a class do not start.
pub(super) fn default_handler(config: &Table, out: &mut Findings) {
    let known = runtimes(config);
    let of_plugin = PLUGINS.into_iter().find_map(|plugin| {
        let plugins = config.get("plugins")?.as_table()?;
        plugins.get(plugin)?.get("containerd")?.as_table()
    });
    let name = of_plugin.map_or("", |t| text(t, "default_runtime_name"));
    if name.is_empty() || known.contains_key(name) {
        return;
    }
    let found = format!(
        "default_runtime_name is {name:?}, which is not configured: pods without a RuntimeClass do not start"
    );
    let remedy = match name {
        "runc" => "add runc beside the others: its table is in shim-config/containerd-1.x.toml",
        _ => "name one of the configured handlers",
    };
    out.say("handlers", State::Failing, found, remedy);
}
