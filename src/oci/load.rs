//! Reading `config.json`.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde_json::{Value, json};

use super::{Error, Result, capabilities};

/// Reads and parses the bundle's `config.json`.
pub fn load(bundle: &Path) -> Result<Spec> {
    parse_of(&read(bundle)?, bundle)
}

/// Reads the bundle's `config.json`.
pub fn read(bundle: &Path) -> Result<Vec<u8>> {
    let path = bundle.join("config.json");
    fs::read(&path).map_err(|source| Error::Read { path, source })
}

/// Reads and parses a spec under any name.
pub fn load_file(path: &Path) -> Result<Spec> {
    let text = fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text, "/process").map_err(|source| Error::Parse {
        path: path.to_owned(),
        source,
    })
}

/// Parses the `config.json` of a bundle.
pub fn parse_of(text: &[u8], bundle: &Path) -> Result<Spec> {
    parse(text, "/process").map_err(|source| Error::Parse {
        path: bundle.join("config.json"),
        source,
    })
}

/// Parses a `config.json`.
#[cfg(any(test, fuzzing, feature = "sabotage"))]
pub fn parse_spec(text: &[u8]) -> Result<Spec> {
    parse_of(text, Path::new(""))
}

/// Parses a spec or a process.
fn parse<T: serde::de::DeserializeOwned>(text: &[u8], process: &str) -> Result<T, Wrong> {
    match serde_json::from_slice(text) {
        Ok(parsed) => Ok(parsed),
        Err(_) => parse_unusual(text, process),
    }
}

/// What has to be changed before it can be parsed, and what cannot be parsed at all. A function of its own: a spec is large, and so is
/// the stack of whoever has several of them.
#[inline(never)]
fn parse_unusual<T: serde::de::DeserializeOwned>(text: &[u8], process: &str) -> Result<T, Wrong> {
    // As Go's encoding/json reads it, which every other runtime uses.
    if let Err(e) = std::str::from_utf8(text) {
        log::warn!(
            "{} bytes are UTF-8, and then come others: they are replaced",
            e.valid_up_to()
        );
    }
    let text = String::from_utf8_lossy(text);
    let Ok(mut json) = serde_json::from_str(&text) else {
        return explain(&text);
    };
    // Unknown capabilities are ignored with a warning, OCI config.md.
    capabilities::remove_unknown(&mut json, process);
    rename_scheduler_flags(&mut json, process);
    match serde_json::from_value(json) {
        Ok(parsed) => Ok(parsed),
        Err(_) => explain(&text),
    }
}

/// Parses once more, slowly, to say what is wrong and where.
#[inline(never)]
fn explain<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Wrong> {
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text))
}

/// The names of config.md and of its Go types, as `oci_spec` has them.
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

fn rename_scheduler_flags(json: &mut Value, process: &str) {
    let flags = json.pointer_mut(&format!("{process}/scheduler/flags"));
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        let known = SCHEDULER_FLAGS.iter().find(|(name, _)| flag == name);
        if let Some((_, name)) = known {
            *flag = json!(name);
        }
    }
}

type Wrong = serde_path_to_error::Error<serde_json::Error>;

/// Parses the process of an exec request. Without a user it is root's.
pub fn parse_process(json: &[u8]) -> Result<Process> {
    let parsed = parse(json, "").or_else(|wrong| {
        let with_user = serde_json::from_slice(json)
            .ok()
            .and_then(|mut value: Value| {
                let missing = value.as_object()?.get("user").is_none_or(Value::is_null);
                missing.then(|| value["user"] = json!({ "uid": 0, "gid": 0 }))?;
                Some(value.to_string())
            });
        match with_user {
            Some(json) => parse(json.as_bytes(), ""),
            None => Err(wrong),
        }
    });
    parsed.map_err(|source| Error::Parse {
        path: PathBuf::from("the exec's process"),
        source,
    })
}

/// Parses the `linux.resources` of an update; the error names the field.
pub fn parse_resources(json: &[u8]) -> Result<LinuxResources> {
    let parsed: Result<_, Wrong> =
        serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(json));
    parsed.map_err(|e| {
        let path = e.path().to_string();
        let field = match path.as_str() {
            "." => "linux.resources".to_owned(),
            path => format!("linux.resources.{path}"),
        };
        Error::field(field, e.into_inner().to_string())
    })
}
