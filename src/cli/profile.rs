//! `cofferdam profile`: which isolation profiles there are, what is in them, and whether one is right.

use std::path::Path;

use super::{Error, Result, print};
use crate::isolation::{BUILT_IN, DIRECTORY, Profile, names};

/// A profile by its name, or from a file. Others that it extends are looked for beside the file, then among the built-in.
fn load(what: &str) -> Result<Profile> {
    let path = Path::new(what);
    let is_file = what.contains('/') || path.extension().is_some_and(|e| e == "toml");
    if !is_file {
        return Profile::load(what).map_err(|e| Error::Other(e.to_string()));
    }
    let text = std::fs::read_to_string(path).map_err(Error::io(format!("read {what}")))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty());
    Profile::parse(directory.unwrap_or(Path::new(".")), &name, what, &text)
        .map_err(|e| Error::Other(e.to_string()))
}

pub(super) fn list() {
    let directory = Path::new(DIRECTORY);
    for name in names(directory) {
        let file = directory.join(format!("{name}.toml"));
        let built_in = BUILT_IN.iter().any(|(n, _)| *n == name);
        let origin = match (file.exists(), built_in) {
            (true, true) => format!("{} (takes the built-in one's place)", file.display()),
            (true, false) => file.display().to_string(),
            (false, _) => "built in".into(),
        };
        let state = match load(&name) {
            Ok(_) => String::new(),
            Err(e) => format!("  BROKEN: {e}"),
        };
        print(&format!("{name:<16} {origin}{state}\n"));
    }
}

pub(super) fn show(what: &str) -> Result<()> {
    print(&load(what)?.to_toml());
    Ok(())
}

pub(super) fn validate(what: &[String]) -> Result<()> {
    let mut broken = Vec::new();
    for one in what {
        match load(one) {
            Ok(_) => print(&format!("{one}: valid\n")),
            Err(e) => broken.push(e.to_string()),
        }
    }
    if broken.is_empty() {
        Ok(())
    } else {
        Err(Error::Other(broken.join("\n")))
    }
}
