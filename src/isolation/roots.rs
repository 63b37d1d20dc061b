//! The mounts that make up a root, which a client passes beside the spec: only what a snapshotter keeps.

use std::path::{Component, Path, PathBuf};

use super::judged::Judged;
use super::place::{Place, resolved};
use super::profile::Profile;
use super::refusal::Refusal;
use crate::oci::RootMount;

/// File systems on block devices, of the snapshotters that have a device for each snapshot.
const ON_DISK: [&str; 4] = ["btrfs", "erofs", "ext4", "xfs"];

/// Judges them. What they name is replaced by where it is, so that nobody can change what it leads to.
///
/// # Errors
/// A mount that shows something else than a snapshot.
pub fn judge_root_mounts(
    profile: &Profile,
    place: &Place,
    mut mounts: Vec<RootMount>,
) -> Result<Judged<Vec<RootMount>>, Refusal> {
    if profile.is_standard() {
        return Ok(Judged::new(mounts));
    }
    for (i, m) in mounts.iter_mut().enumerate() {
        one(place, m).map_err(|why| {
            Refusal::new(
                profile,
                format!("the root's mount {i} of type {:?} ({why})", m.fstype),
                "use an image; where a snapshotter keeps its snapshots outside of containerd's root, name that directory in \
                 snapshots of /etc/cofferdam/node.conf",
            )
        })?;
    }
    Ok(Judged::new(mounts))
}

/// Why a mount of the root is not an image's.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("its target {0:?} is not the root")]
    Target(String),
    #[error("no snapshotter keeps snapshots in one")]
    FileSystem,
    #[error("its source {0:?} is no path")]
    Source(String),
    #[error("its option {0:?} is two")]
    TwoOptions(String),
    #[error("its option {0:?} has an unusual character")]
    Character(String),
    #[error("its option {0} is a path")]
    PathOption(String),
    #[error("{} is no snapshot", .0.display())]
    NoSnapshot(PathBuf),
}

fn one(place: &Place, m: &mut RootMount) -> Result<(), Unfit> {
    // On the way to it are the image's links.
    if !m.target.is_empty() {
        return Err(Unfit::Target(m.target.clone()));
    }
    let is_bind = m.is_bind();
    // The kernel's own file systems take no notice of their source.
    if !is_bind && m.fstype != "overlay" && !ON_DISK.contains(&m.fstype.as_str()) {
        return Err(Unfit::FileSystem);
    }
    if is_bind || m.fstype != "overlay" {
        if !Path::new(&m.source).is_absolute() {
            return Err(Unfit::Source(m.source.clone()));
        }
        m.source = snapshot(place, &m.source)?;
    }
    for option in &mut m.options {
        let Some((key, value)) = option.split_once('=') else {
            if option.contains(',') {
                return Err(Unfit::TwoOptions(option.clone()));
            }
            continue;
        };
        let is_map = matches!(key, "uidmap" | "gidmap");
        if option.contains('\\') || (option.contains(',') && !is_map) {
            return Err(Unfit::Character(option.clone()));
        }
        let is_layers = matches!(
            key,
            "lowerdir" | "upperdir" | "workdir" | "lowerdir+" | "datadir+"
        );
        if !is_layers {
            if value.contains('/') {
                return Err(Unfit::PathOption(key.to_owned()));
            }
            continue;
        }
        let layers: Vec<String> = value
            .split(':')
            .map(|layer| snapshot(place, layer))
            .collect::<Result<_, _>>()?;
        *option = format!("{key}={}", layers.join(":"));
    }
    Ok(())
}

fn snapshot(place: &Place, path: &str) -> Result<String, Unfit> {
    let path = Path::new(path);
    let inside = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::RootDir);
    if !path.is_absolute() || !path.components().all(inside) {
        return Err(Unfit::NoSnapshot(path.to_owned()));
    }
    // The names of block devices are links of the node's, to numbers that say nothing.
    let real = if path.starts_with("/dev") {
        PathBuf::from(path)
    } else {
        resolved(path)
    };
    match real.to_str() {
        Some(text) if place.is_snapshot(&real) && !text.contains([',', ':', '\\']) => {
            Ok(text.to_owned())
        }
        _ => Err(Unfit::NoSnapshot(real)),
    }
}
