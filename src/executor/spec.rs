//! Reading `config.json`.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Process, Spec};

use super::{Error, capabilities};

type Result<T, E = Error> = std::result::Result<T, E>;

/// Reads and parses the bundle's `config.json`.
pub fn load(bundle: &Path) -> Result<Spec> {
    parse_of(&read(bundle)?, bundle)
}

/// Reads the bundle's `config.json`.
pub fn read(bundle: &Path) -> Result<Vec<u8>> {
    let path = bundle.join("config.json");
    fs::read(&path).map_err(|source| Error::ReadSpec { path, source })
}

/// Parses the `config.json` of a bundle.
pub fn parse_of(text: &[u8], bundle: &Path) -> Result<Spec> {
    parse(text, "/process").map_err(|source| Error::ParseSpec {
        path: bundle.join("config.json"),
        source,
    })
}

/// Parses a `config.json`.
#[cfg(any(test, fuzzing, feature = "sabotage"))]
pub(super) fn parse_spec(text: &[u8]) -> Result<Spec> {
    parse_of(text, Path::new(""))
}

/// Parses a spec or a process. Capabilities that are not known are no error, and unusual: they are looked for only when
/// something is wrong.
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
    parse(json, "").map_err(|source| Error::ParseSpec {
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

/// The namespaces that the spec lists.
fn namespaces(spec: &Spec) -> impl Iterator<Item = &oci_spec::runtime::LinuxNamespace> {
    spec.linux()
        .iter()
        .flat_map(|l| l.namespaces().iter().flatten())
}

/// The spec's namespace of a type.
pub fn namespace(
    spec: &Spec,
    typ: LinuxNamespaceType,
) -> Option<&oci_spec::runtime::LinuxNamespace> {
    namespaces(spec).find(|n| n.typ() == typ)
}

/// Whether the container gets a pid namespace of its own, so that its init's end is the end of all its processes.
pub fn has_own_pid_namespace(spec: &Spec) -> bool {
    namespaces(spec).any(|n| {
        n.typ() == LinuxNamespaceType::Pid
            && n.path().as_ref().is_none_or(|p| p.as_os_str().is_empty())
    })
}

/// Whether the container's mounts are made in the mount namespace of the node, because its spec lists none.
pub fn shares_host_mounts(spec: &Spec) -> bool {
    !namespaces(spec).any(|n| n.typ() == LinuxNamespaceType::Mount)
}

/// The absolute path of the root file system.
pub fn rootfs(spec: &Spec, bundle: &Path) -> Result<PathBuf> {
    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| Error::field("root", "is missing"))?;
    if root.path().as_os_str().is_empty() {
        return Err(Error::field("root.path", "is empty"));
    }
    Ok(bundle.join(root.path()))
}
