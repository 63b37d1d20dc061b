//! Reading `config.json`.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Process, Spec};

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
    // Once more, slowly, to say what is wrong and where.
    if let Ok(mut json) = serde_json::from_slice(text)
        && capabilities::remove_unknown(&mut json, process)
        && let Ok(parsed) = serde_json::from_value(json)
    {
        return Ok(parsed);
    }
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(text))
}

type Wrong = serde_path_to_error::Error<serde_json::Error>;

/// Parses the process of an exec request.
pub fn parse_process(json: &[u8]) -> Result<Process> {
    parse(json, "").map_err(|source| Error::Parse {
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
