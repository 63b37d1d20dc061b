//! The root file system: the mounts that containerd passes (overlay, bind, native), made in the container's own mount
//! namespace, so that the node never sees them and nothing is left to unmount.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};

use super::mounts::{Options, c_string};
use super::script::Step;
use super::{Error, Result, userns};
use crate::sys::mount::attr;

/// The kernel copies one page of options; the terminating NUL counts. `mount(2)`.
const PAGE: usize = 4096;

/// One mount that makes up the root file system, as in containerd's `types.Mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootMount {
    /// File system type, or `bind`.
    pub fstype: String,
    /// Device, directory, or any word.
    pub source: String,
    /// Directory below the root, usually empty.
    pub target: String,
    /// Mount options.
    pub options: Vec<String>,
}

/// The steps that mount the root at `rootfs`.
pub(super) fn plan(rootfs: &Path, mounts: &[RootMount], steps: &mut Vec<Step>) -> Result<()> {
    if mounts.is_empty() {
        if !rootfs.is_dir() {
            let reason = if rootfs.exists() {
                "is not a directory"
            } else {
                "no such file or directory"
            };
            return Err(Error::field(
                "root.path",
                format!("{}: {reason}", rootfs.display()),
            ));
        }
        // A root must be a mount point of its own for pivot_root(2).
        let path = c_path(rootfs)?;
        steps.push(Step::MountRoot {
            source: path.clone(),
            target: path,
            fstype: c"bind".to_owned(),
            flags: libc::MS_BIND | libc::MS_REC,
            data: None,
            workdir: None,
            label: format!("root.path: bind {}", rootfs.display()),
        });
        return Ok(());
    }
    for (i, m) in mounts.iter().enumerate() {
        one(rootfs, m, &format!("rootfs mount {i}"), steps)?;
    }
    Ok(())
}

fn c_path(path: &Path) -> Result<CString> {
    c_string(path.as_os_str().as_encoded_bytes(), "root.path")
}

fn one(rootfs: &Path, m: &RootMount, field: &str, steps: &mut Vec<Step>) -> Result<()> {
    if m.fstype.is_empty() {
        return Err(Error::field(field, "has no file system type"));
    }
    let options = Options::parse(m.options.iter().map(String::as_str));
    let bind = options.bind || m.fstype == "bind" || m.fstype == "rbind";
    let mut flags = 0;
    for (bit, flag) in [
        (attr::RDONLY, libc::MS_RDONLY),
        (attr::NOSUID, libc::MS_NOSUID),
        (attr::NODEV, libc::MS_NODEV),
        (attr::NOEXEC, libc::MS_NOEXEC),
        (attr::NOATIME, libc::MS_NOATIME),
        (attr::STRICTATIME, libc::MS_STRICTATIME),
        (attr::NODIRATIME, libc::MS_NODIRATIME),
    ] {
        if (options.set | options.recursive_set) & bit != 0 {
            flags |= flag;
        }
    }
    if bind {
        flags |= libc::MS_BIND
            | if options.recursive_bind || m.fstype == "rbind" {
                libc::MS_REC
            } else {
                0
            };
    }
    let maps = id_maps(&options, field)?;
    let words: Vec<String> = options
        .data
        .iter()
        .filter(|(k, _)| k != "uidmap" && k != "gidmap")
        .map(|(k, v)| v.as_ref().map_or_else(|| k.clone(), |v| format!("{k}={v}")))
        .collect();
    let (workdir, words) = match maps {
        None => fit(words)?,
        Some(maps) if m.fstype == "overlay" => mapped_layers(rootfs, maps, words, field, steps)?,
        Some(_) => return Err(Error::field(field, "only an overlay's layers can map ids")),
    };
    let data = words.join(",");
    let target = if m.target.is_empty() {
        rootfs.to_owned()
    } else {
        rootfs.join(m.target.trim_start_matches('/'))
    };
    steps.push(Step::MountRoot {
        source: c_string(m.source.as_str(), field)?,
        target: c_path(&target)?,
        fstype: c_string(m.fstype.as_str(), field)?,
        flags,
        data: if data.is_empty() || bind {
            None
        } else {
            Some(c_string(data, field)?)
        },
        workdir,
        label: format!("{field}: mount {} on {}", m.fstype, target.display()),
    });
    Ok(())
}

/// containerd's `uidmap=CONTAINER:HOST:SIZE,…` and `gidmap=…` of an overlay whose layers are to be id-mapped
/// (containerd `core/mount/mount_idmapped_linux.go`), as a user namespace.
fn id_maps(options: &Options, field: &str) -> Result<Option<OwnedFd>> {
    let find = |key: &str| {
        let value = options.data.iter().find(|(k, _)| k == key);
        value
            .map(|(_, v)| parse_maps(v.as_deref().unwrap_or_default(), &format!("{field}: {key}")))
            .transpose()
    };
    match (find("uidmap")?, find("gidmap")?) {
        (None, None) => Ok(None),
        (Some(uids), Some(gids)) => Ok(Some(userns::make(&uids, &gids, field)?)),
        _ => Err(Error::field(field, "uidmap and gidmap come together")),
    }
}

fn parse_maps(text: &str, field: &str) -> Result<Vec<LinuxIdMapping>> {
    let bad = || Error::field(field, format!("{text:?} is not CONTAINER:HOST:SIZE"));
    text.split(',')
        .map(|range| {
            let mut numbers = range
                .split(':')
                .map(|n| n.parse::<u32>().map_err(|_| bad()));
            let mut next = || numbers.next().unwrap_or_else(|| Err(bad()));
            let (container, host, size) = (next()?, next()?, next()?);
            let mapping = LinuxIdMappingBuilder::default()
                .container_id(container)
                .host_id(host)
                .size(size)
                .build();
            mapping.map_err(|_| bad())
        })
        .collect()
}

/// Id-mapped copies of an overlay's lower layers, on a small tmpfs where the root is going to be; the overlay then names them
/// by their numbers.
fn mapped_layers(
    rootfs: &Path,
    maps: OwnedFd,
    words: Vec<String>,
    field: &str,
    steps: &mut Vec<Step>,
) -> Result<(Option<CString>, Vec<String>)> {
    let lower = words.iter().find_map(|w| w.strip_prefix("lowerdir="));
    let lower = lower.ok_or_else(|| Error::field(field, "has no lowerdir to map the ids of"))?;
    let layers: Vec<CString> = lower
        .split(':')
        .map(|l| c_string(l, field))
        .collect::<Result<_>>()?;
    let numbers = (0..layers.len())
        .map(|i| i.to_string())
        .collect::<Vec<_>>()
        .join(":");
    let names = (0..layers.len())
        .map(|i| c_string(i.to_string(), field))
        .collect::<Result<_>>()?;
    steps.push(Step::MapLayers {
        maps,
        layers,
        names,
        at: c_path(rootfs)?,
    });
    let numbered = |w: String| {
        if w.starts_with("lowerdir=") {
            format!("lowerdir={numbers}")
        } else {
            w
        }
    };
    Ok((
        Some(c_path(rootfs)?),
        words.into_iter().map(numbered).collect(),
    ))
}

/// Overlay options of many layers outgrow the page: then the layers' common directory becomes the working directory, and
/// the layers are named relative to it.
fn fit(words: Vec<String>) -> Result<(Option<CString>, Vec<String>)> {
    let total = |w: &[String]| w.iter().map(|s| s.len() + 1).sum::<usize>();
    if total(&words) <= PAGE {
        return Ok((None, words));
    }
    let Some(layers) = words.iter().find_map(|w| w.strip_prefix("lowerdir=")) else {
        return Err(Error::field(
            "rootfs mount",
            "its options are longer than one page",
        ));
    };
    let layers: Vec<&str> = layers.split(':').collect();
    let common = common_directory(&layers);
    let short = layers
        .iter()
        .map(|l| l.get(common.len() + 1..).unwrap_or(l))
        .collect::<Vec<_>>()
        .join(":");
    let short: Vec<String> = words
        .iter()
        .map(|w| {
            if w.starts_with("lowerdir=") {
                format!("lowerdir={short}")
            } else {
                w.clone()
            }
        })
        .collect();
    if common.is_empty() || total(&short) > PAGE {
        return Err(Error::field(
            "rootfs mount",
            format!(
                "its {} layers do not fit into one page of options",
                layers.len()
            ),
        ));
    }
    Ok((Some(c_string(common, "rootfs mount")?), short))
}

fn common_directory(paths: &[&str]) -> String {
    let Some((first, rest)) = paths.split_first() else {
        return String::new();
    };
    let mut common = Path::new(first).parent().unwrap_or(Path::new(""));
    while !rest
        .iter()
        .all(|p| Path::new(p).starts_with(common) && Path::new(p) != common)
    {
        match common.parent() {
            Some(up) => common = up,
            None => return String::new(),
        }
    }
    match common.to_str() {
        Some("/") | None => String::new(),
        Some(s) => s.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_layers_become_relative_to_their_common_directory() {
        let layers: Vec<String> = (0..100)
            .map(|i| {
                format!(
                    "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/{i}/fs"
                )
            })
            .collect();
        let (dir, words) = fit(vec![
            "index=off".into(),
            format!("lowerdir={}", layers.join(":")),
            "upperdir=/u".into(),
        ])
        .unwrap();
        assert_eq!(
            dir.unwrap().to_str().unwrap(),
            "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"
        );
        assert!(words[1].starts_with("lowerdir=0/fs:1/fs:"));
        assert!(words.iter().map(String::len).sum::<usize>() < PAGE);
    }

    #[test]
    fn too_many_layers_are_refused() {
        let layers: Vec<String> = (0..2000).map(|i| format!("/a/{i}/fs")).collect();
        assert!(
            fit(vec![format!("lowerdir={}", layers.join(":"))])
                .unwrap_err()
                .to_string()
                .contains("2000 layers")
        );
    }

    #[test]
    fn a_missing_root_is_named() {
        let e = plan(Path::new("/nonexistent/rootfs"), &[], &mut Vec::new())
            .unwrap_err()
            .to_string();
        assert_eq!(
            e,
            "root.path: /nonexistent/rootfs: no such file or directory"
        );
    }
}
