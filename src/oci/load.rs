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

/// Parses a spec or a process. Unknown capabilities are ignored with a warning, OCI config.md. They are rare, so they
/// are looked for only after parsing has failed.
fn parse<T: serde::de::DeserializeOwned>(text: &[u8], process: &str) -> Result<T, Wrong> {
    if let Ok(parsed) = serde_json::from_slice(text) {
        return Ok(parsed);
    }
    // As Go's encoding/json reads it, which every other runtime uses.
    if let Err(e) = std::str::from_utf8(text) {
        log::warn!(
            "{} bytes are UTF-8, and then come others: they are replaced",
            e.valid_up_to()
        );
        return parse(String::from_utf8_lossy(text).as_bytes(), process);
    }
    // Once more, slowly, to say what is wrong and where.
    if let Ok(mut json) = serde_json::from_slice(text) {
        let with_unknown = capabilities::remove_unknown(&mut json, process);
        let with_flags = rename_scheduler_flags(&mut json, process);
        if (with_unknown || with_flags)
            && let Ok(parsed) = serde_json::from_value(json)
        {
            return Ok(parsed);
        }
    }
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(text))
}

/// The names of config.md and of its Go types, as `oci_spec` has them.
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

fn rename_scheduler_flags(json: &mut Value, process: &str) -> bool {
    let flags = json.pointer_mut(&format!("{process}/scheduler/flags"));
    let mut renamed = false;
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        let known = SCHEDULER_FLAGS.iter().find(|(name, _)| flag == name);
        if let Some((_, name)) = known {
            *flag = json!(name);
            renamed = true;
        }
    }
    renamed
}

type Wrong = serde_path_to_error::Error<serde_json::Error>;

/// Parses the process of an exec request. Without a user it is root's.
pub(super) fn parse_process(json: &[u8]) -> Result<Process> {
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
