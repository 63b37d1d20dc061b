//! The names of Docker's containers, which are neither in their specs nor in containerd: dockerd has them in a file beside the ones that
//! it mounts into each container.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// containerd's namespace of dockerd's containers.
pub(crate) const NAMESPACE: &str = "moby";

/// Files in a container that come from dockerd's directory of it.
const FILES: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    mounts: Vec<Mount>,
}

#[derive(Deserialize)]
struct Mount {
    destination: PathBuf,
    #[serde(default)]
    source: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(rename = "ID")]
    id: String,
    name: String,
}

/// The name of the container with this id and bundle. None where dockerd has removed it, or keeps it otherwise.
pub(super) fn name(id: &str, bundle: &Path) -> Option<String> {
    let spec: Spec = serde_json::from_slice(&fs::read(bundle.join("config.json")).ok()?).ok()?;
    let mut mounts = spec.mounts.iter();
    let own = mounts.find(|m| FILES.iter().any(|file| m.destination == Path::new(file)))?;
    let file = own.source.parent()?.join("config.v2.json");
    let config: Config = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let name = config.name.trim_start_matches('/');
    (config.id == id && !name.is_empty()).then(|| name.to_owned())
}
