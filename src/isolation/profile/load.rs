//! Loading a profile: the file, what it extends, and whether what they say together makes sense.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxSeccomp;
use toml::{Table, Value};

use super::check::Wrong;
use super::file::{File, Problem, merge};
use super::schema::Profile;
use crate::files::{open_settings, read_opened};

/// Where an operator's profiles are.
pub const DIRECTORY: &str = "/etc/cofferdam";

/// The profiles that are always there, and their texts. A file of the same name takes a built-in one's place.
pub const BUILT_IN: [(&str, &str); 3] = [
    (
        "standard",
        include_str!("../../../shim-config/profiles/standard.toml"),
    ),
    (
        "hardened",
        include_str!("../../../shim-config/profiles/hardened.toml"),
    ),
    (
        "untrusted",
        include_str!("../../../shim-config/profiles/untrusted.toml"),
    ),
];

/// Where these are from, for messages.
const BUILT_IN_ORIGIN: &str = "built in";

/// How many profiles may extend one another.
const MAX_DEPTH: usize = 8;

/// What is wrong with a profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error(
        "profile {name:?}: there is no {} and no built-in profile of this name (built in: standard, hardened, untrusted)",
        file.display()
    )]
    Unknown {
        /// Its name.
        name: String,
        /// Where it would be.
        file: PathBuf,
    },
    /// It cannot be read.
    #[error("profile {name:?}: read {}: {source}", file.display())]
    Read {
        /// Its name.
        name: String,
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is no TOML, or has keys or values that are not known or cannot be.
    #[error("profile {name:?} ({origin}): {}", one_line(problems))]
    Wrong {
        /// Its name.
        name: String,
        /// The file, or "built in".
        origin: String,
        /// All that is wrong.
        problems: Vec<Problem>,
    },
}

fn one_line(problems: &[Problem]) -> String {
    let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
    all.join("; ")
}

impl Profile {
    /// Loads a profile by its name, with all that it extends.
    pub fn load(name: &str) -> Result<Self, Error> {
        Self::load_from(Path::new(DIRECTORY), name)
    }

    /// The same, from another directory than `/etc/cofferdam`.
    pub fn load_from(directory: &Path, name: &str) -> Result<Self, Error> {
        let (origin, text) = text_of(directory, name)?;
        Self::parse(directory, name, &origin, &text)
    }

    /// From a text; what it extends comes from `directory`. `origin` is for messages.
    pub fn parse(directory: &Path, name: &str, origin: &str, text: &str) -> Result<Self, Error> {
        let file = File::read(text, origin == BUILT_IN_ORIGIN);
        let wrong = |key: Option<String>, text: String| Problem {
            place: key.as_ref().and_then(|key| file.place(key)),
            key,
            text,
        };
        let mut problems = file.problems.clone();
        let mut table = file.table.clone();
        let mut seen = vec![name.to_owned()];
        let own = parent(&table);
        let mut extends = own.clone();
        let mut above = Vec::new();
        let mut at_built_in = origin == BUILT_IN_ORIGIN;
        while let Some(base) = extends {
            // A file may extend the built-in profile whose name it has.
            let itself = seen.last() == Some(&base) && !at_built_in;
            if (seen.contains(&base) && !itself) || seen.len() > MAX_DEPTH {
                let chain = format!("{} -> {base}", seen.join(" -> "));
                let text = format!("{chain}: the profiles extend one another");
                problems.push(wrong(Some("extends".into()), text));
                break;
            }
            let found = if itself {
                extended_itself(&base)
            } else {
                extended(directory, &base)
            };
            let (origin, text) = match found {
                Ok(found) => found,
                Err(text) => {
                    problems.push(wrong(Some("extends".into()), text));
                    break;
                }
            };
            at_built_in = origin == BUILT_IN_ORIGIN;
            let below = File::read(&text, at_built_in);
            if !below.problems.is_empty() {
                let name = base;
                let problems = below.problems;
                return Err(Error::Wrong {
                    name,
                    origin,
                    problems,
                });
            }
            extends = parent(&below.table);
            seen.push(base);
            above.push(table);
            table = below.table;
        }
        // From the one that extends nothing to the file itself.
        table = merge(Table::new(), table);
        while let Some(next) = above.pop() {
            table = merge(table, next);
        }
        let mut profile: Self = match Value::Table(table).try_into() {
            Ok(profile) => profile,
            Err(e) => {
                let e: toml::de::Error = e;
                problems.push(wrong(None, e.message().to_owned()));
                Self::default()
            }
        };
        name.clone_into(&mut profile.name);
        profile.extends = own;
        for Wrong { key, text } in profile.check() {
            problems.push(wrong(Some(key), text));
        }
        if problems.is_empty() {
            return Ok(profile);
        }
        problems.sort_by_key(|p| p.place.map_or((usize::MAX, 0), |at| (at.line, at.column)));
        Err(Error::Wrong {
            name: name.to_owned(),
            origin: origin.to_owned(),
            problems,
        })
    }

    /// The profile that this one extends, without the keys that are set here. `directory` is that of [`Self::parse`].
    ///
    /// # Errors
    /// It cannot be read any more, or is wrong by itself.
    pub fn parent(&self, directory: &Path) -> Result<Option<Self>, Error> {
        let Some(base) = &self.extends else {
            return Ok(None);
        };
        let (origin, text) = if *base == self.name {
            built_in(base).unwrap_or_default()
        } else {
            text_of(directory, base)?
        };
        Self::parse(directory, base, &origin, &text).map(Some)
    }

    pub(super) fn floor_file(path: &str) -> Result<LinuxSeccomp, Wrong> {
        let wrong = |text: String| Wrong::new("seccomp.floor", text);
        let text = read_of_root(Path::new(path)).map_err(|e| wrong(format!("read {path}: {e}")))?;
        let filter: LinuxSeccomp =
            serde_json::from_str(&text).map_err(|e| wrong(format!("{path}: {e}")))?;
        crate::seccomp::compile(&filter).map_err(|e| wrong(format!("{path}: {e}")))?;
        Ok(filter)
    }
}

/// What a file is refused with that not only root can change.
pub const CHANGEABLE: &str = "can be changed by others than root";

/// Says so of a file or directory that others than root can change: its owner, or whoever its mode lets.
pub fn changeable_by_others(metadata: &fs::Metadata) -> Option<String> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    (owner != 0 || mode & 0o022 != 0)
        .then(|| format!("{CHANGEABLE} (owner {owner}, mode {mode:o})"))
}

/// The text of a file that nobody but root can have written: what it says decides over pods.
///
/// # Errors
/// The system's, and `PermissionDenied` where the file, or the directory that it is in, is another user's or can be written by
/// group or others.
pub(crate) fn read_of_root(path: &Path) -> std::io::Result<String> {
    let file = open_settings(path)?;
    let directory = path.parent().map(fs::metadata).transpose()?;
    for (what, metadata) in [("it", Some(file.metadata()?)), ("its directory", directory)] {
        let Some(metadata) = metadata else { continue };
        // Somebody who has no more rights than the file's owner reads a file of their own: tests, and `profile validate`.
        let owner = metadata.uid() == 0 || metadata.uid() == nix::unistd::geteuid().as_raw();
        let ours = owner && metadata.mode() & 0o022 == 0;
        if let Some(how) = changeable_by_others(&metadata).filter(|_| !ours) {
            let text = format!("{what} {how}: chown root and chmod go-w it");
            return Err(std::io::Error::new(
                std::io::ErrorKind::PermissionDenied,
                text,
            ));
        }
    }
    read_opened(file)
}

/// The names of all profiles: the built-in ones and the files'.
pub fn names(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let files = files.filter_map(|e| {
        let path = e.path();
        (path.extension()? == "toml").then(|| path.file_stem()?.to_str().map(str::to_owned))?
    });
    let built_in = BUILT_IN.iter().map(|(name, _)| (*name).to_owned());
    let all: BTreeSet<String> = built_in.chain(files).collect();
    all.into_iter().collect()
}

fn built_in(name: &str) -> Option<(String, String)> {
    let found = BUILT_IN.iter().find(|(n, _)| *n == name)?;
    Some((BUILT_IN_ORIGIN.into(), found.1.to_owned()))
}

fn text_of(directory: &Path, name: &str) -> Result<(String, String), Error> {
    let file = directory.join(format!("{name}.toml"));
    if name.contains('/') || name.is_empty() || name.starts_with('.') {
        return Err(Error::Unknown {
            name: name.to_owned(),
            file,
        });
    }
    match read_of_root(&file) {
        Ok(text) => Ok((file.display().to_string(), text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            built_in(name).ok_or_else(|| Error::Unknown {
                name: name.to_owned(),
                file,
            })
        }
        Err(source) => Err(Error::Read {
            name: name.to_owned(),
            file,
            source,
        }),
    }
}

/// What `name` extends if it names itself: the built-in profile, whose place it takes.
fn extended_itself(name: &str) -> Result<(String, String), String> {
    built_in(name).ok_or_else(|| format!("{name:?} extends itself, and is not built in"))
}

/// What a profile extends, another one.
fn extended(directory: &Path, base: &str) -> Result<(String, String), String> {
    text_of(directory, base).map_err(|e| match e {
        Error::Unknown { file, .. } => format!(
            "there is no {} and no built-in profile {base:?} (built in: standard, hardened, untrusted)",
            file.display()
        ),
        e => e.to_string(),
    })
}

fn parent(table: &Table) -> Option<String> {
    table
        .get("extends")
        .and_then(Value::as_str)
        .map(str::to_owned)
}
