//! The files of containerd's configuration, before they are merged: what one takes from another, and what none reads.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::containerd::{runtimes, text};
use super::daemon::{Source, main_file};
use super::findings::{Findings, State};
use super::handler;

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
        let text = fs::read_to_string(path).ok()?;
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

    /// The files that it imports.
    fn imports(&self) -> Vec<PathBuf> {
        let list = self.table.get("imports").and_then(Value::as_array);
        let patterns = list.into_iter().flatten().filter_map(Value::as_str);
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let files = patterns.flat_map(|pattern| {
            let pattern = directory.join(pattern);
            let found = glob::glob(&pattern.to_string_lossy());
            found.into_iter().flatten().flatten()
        });
        files.filter(|f| *f != self.path).collect()
    }
}

/// The main file, and those that it imports, in containerd's order.
struct Files {
    main: File,
    imports: Vec<File>,
    /// Those that are no TOML, and why.
    broken: Vec<String>,
}

impl Files {
    /// # Errors
    /// The main file is no TOML.
    fn read(source: &Source) -> Option<Result<Self, String>> {
        let main = match File::read(&main_file(source))? {
            Ok(main) => main,
            Err(why) => return Some(Err(why)),
        };
        let (mut imports, mut broken) = (Vec::new(), Vec::new());
        let mut known = BTreeSet::from([main.path.clone()]);
        let mut level: Vec<PathBuf> = main.imports();
        for _ in 0..DEEPEST {
            let mut next = Vec::new();
            for path in level {
                match known
                    .insert(path.clone())
                    .then(|| File::read(&path))
                    .flatten()
                {
                    Some(Ok(file)) => {
                        next.extend(file.imports());
                        imports.push(file);
                    }
                    Some(Err(why)) => broken.push(why),
                    None => {}
                }
            }
            level = next;
        }
        Some(Ok(Self {
            main,
            imports,
            broken,
        }))
    }

    fn of(source: &Source) -> Option<Self> {
        Self::read(source)?.ok()
    }
}

/// What in the files keeps containerd from starting, as far as we know more than it says. Whether anything was found.
pub(super) fn faults(source: &Source, out: &mut Findings) -> bool {
    let files = match Files::read(source) {
        None => return false,
        Some(Ok(files)) if files.broken.is_empty() => files,
        Some(broken) => {
            let all = broken.map_or_else(|why| vec![why], |files| files.broken);
            let found = format!("containerd does not start with it: {}", all.join("; "));
            let remedy = "correct the file until `containerd config dump` prints everything";
            out.say("configuration", State::Failing, found, remedy);
            return true;
        }
    };
    let (main, version) = (files.main.path.display(), files.main.version());
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

/// Settings that a file has and containerd does not: containerd 1.x replaces the section of a plugin as a whole.
pub(super) fn replaced(source: &Source, major: u32, out: &mut Findings) {
    let Some(files) = Files::of(source).filter(|_| major < 2) else {
        return;
    };
    for import in &files.imports {
        for plugin in PLUGINS {
            let (Some(own), Some(new)) = (files.main.section(plugin), import.section(plugin))
            else {
                continue;
            };
            let kept = leaves(new);
            let lost: Vec<String> = leaves(own).difference(&kept).cloned().collect();
            let Some(first) = lost
                .get(..lost.len().min(4))
                .filter(|first| !first.is_empty())
            else {
                continue;
            };
            let more = match lost.len() - first.len() {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            let found = format!(
                "{} takes the place of the section {plugin:?} of {}, as containerd 1.x has it: not in effect: {}{more}",
                import.path.display(),
                files.main.path.display(),
                first.join(", "),
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
pub(super) fn vanished(source: &Source, config: &Table, out: &mut Findings) {
    let Some(files) = Files::of(source) else {
        return;
    };
    let known = runtimes(config);
    let directory = files.main.path.parent().unwrap_or(Path::new("/"));
    // Where people put such files, whether they are imported or not.
    let beside = ["*cofferdam*.toml", "conf.d/*.toml"]
        .into_iter()
        .flat_map(|pattern| {
            let found = glob::glob(&directory.join(pattern).to_string_lossy());
            found.into_iter().flatten().flatten()
        });
    let is_read = |path: &Path| {
        let mut all = std::iter::once(&files.main).chain(&files.imports);
        all.any(|f| f.path == path)
    };
    let others: Vec<File> = beside
        .filter(|path| !is_read(path))
        .filter_map(|path| File::read(&path)?.ok())
        .collect();
    // Version 3 takes the older name as well.
    let plugins = match config.get("version").and_then(Value::as_integer) {
        Some(3..) => &PLUGINS[..],
        _ => &PLUGINS[1..],
    };
    let plugin = plugins.first().copied().unwrap_or_default();
    let of_files = std::iter::once(&files.main).chain(&files.imports);
    let of_files = of_files.map(|f| (f, true));
    for (file, read) in of_files.chain(others.iter().map(|f| (f, false))) {
        let gone: Vec<Handler> = handlers_of(file)
            .into_iter()
            .filter(|h| !known.contains_key(&h.name))
            .collect();
        let Some(first) = gone.first() else {
            continue;
        };
        let names: Vec<&str> = gone.iter().map(|h| h.name.as_str()).collect();
        let (names, path) = (names.join(" "), file.path.display());
        let in_section = |plugin: &&&str| first.path.get(1).is_some_and(|name| name == **plugin);
        let right = first.path.len() == 5
            && plugins.iter().any(|plugin| in_section(&plugin))
            && first
                .path
                .get(2..4)
                .is_some_and(|p| p == ["containerd", "runtimes"]);
        let (why, remedy) = if !read {
            let main = files.main.path.display();
            (
                format!("{main} does not import it"),
                format!(
                    "write imports = [{:?}] into {main}, and restart containerd",
                    file.path
                ),
            )
        } else if right {
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
        let found = format!("{names} of {path} are not in effect: {why}");
        out.say("handlers", State::Failing, found, &remedy);
    }
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
