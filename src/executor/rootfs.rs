//! The root file system: the mounts that containerd passes (overlay, bind, native), made in the container's own mount
//! namespace, so that the node never sees them and nothing is left to unmount.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};

use super::error::c_string;
use super::script::{MountRoot, Step};
use super::{Error, PodUsers, Result, userns};
use crate::isolation::Judged;
use crate::oci::{Links, Opened, Options, Root, RootMount};
use crate::sys::kernel;
use crate::sys::mount::{attr, open_tree_clone};

/// The kernel copies one page of options; the terminating NUL counts. `mount(2)`.
const PAGE: usize = 4096;

/// Whether a root can have its ids mapped on this node. What is not there is another matter: its mount says so, in its turn.
pub fn check_mappable(
    rootfs: &Path,
    mounts: &Judged<Vec<RootMount>>,
    users: &PodUsers,
) -> Result<()> {
    let try_map = |path: &Path, what: &str| {
        let Ok(opened) = Opened::open(path, Links::Any) else {
            return Ok(());
        };
        let what = format!("{what} {}", path.display());
        match users.map(&opened, true) {
            Ok(_) => Ok(()),
            // It has no maps, or has them already.
            Err(e @ (Errno::EINVAL | Errno::EPERM | Errno::ENOSYS | Errno::EOPNOTSUPP)) => {
                let reason = e.desc().to_owned();
                Err(Error::Unmappable { what, reason })
            }
            Err(e) => Err(Error::system(format!("map the ids of {what}"))(e)),
        }
    };
    if mounts.is_empty() {
        return try_map(rootfs, "the root");
    }
    for m in mounts.iter() {
        if m.is_bind() {
            try_map(Path::new(&m.source), "the root")?;
        } else if m.fstype == "overlay" {
            if kernel::version() < (5, 19) {
                return Err(Error::Unmappable {
                    what: "the root's overlay".into(),
                    reason: "its layers can have their ids mapped from Linux 5.19 on".into(),
                });
            }
            let lower = m.option("lowerdir").unwrap_or_default();
            if let Some(layer) = lower.split(':').next() {
                try_map(Path::new(layer), "the image's layer")?;
            }
        }
    }
    Ok(())
}

/// The steps that mount the root at `rootfs`, with its ids mapped for `users`.
pub(super) fn plan(
    root: &Root,
    mounts: &[RootMount],
    users: Option<&PodUsers>,
    steps: &mut Vec<Step>,
) -> Result<()> {
    let rootfs = root.source.path.as_path();
    if mounts.is_empty() {
        let failed = |reason: &str| {
            let reason = format!("{}: {}", rootfs.display(), reason.to_lowercase());
            Error::field("root.path", reason)
        };
        let opened = root.source.opened.as_ref().map_err(|e| failed(e.desc()))?;
        if opened.kind() != libc::S_IFDIR {
            return Err(failed("is not a directory"));
        }
        let tree = open_tree_clone(opened.fd().as_fd(), c"", true);
        steps.push(Step::PlaceRoot {
            tree: tree.map_err(|e| failed(e.desc()))?,
            target: c_path(rootfs)?,
            label: format!("root.path: bind {}", rootfs.display()),
        });
    }
    for (i, m) in mounts.iter().enumerate() {
        one(rootfs, m, users, &format!("rootfs mount {i}"), steps)?;
    }
    let by_layers = mounts
        .iter()
        .any(|m| m.fstype == "overlay" && m.target.is_empty());
    if let (Some(users), false) = (users, by_layers) {
        steps.push(Step::MapRoot {
            maps: users.namespace()?,
            target: c_path(rootfs)?,
        });
    }
    Ok(())
}

fn c_path(path: &Path) -> Result<CString> {
    c_string(path.as_os_str().as_encoded_bytes(), "root.path")
}

fn one(
    rootfs: &Path,
    m: &RootMount,
    users: Option<&PodUsers>,
    field: &str,
    steps: &mut Vec<Step>,
) -> Result<()> {
    if m.fstype.is_empty() {
        return Err(Error::field(field, "has no file system type"));
    }
    let options = Options::parse(m.options.iter().map(String::as_str));
    let bind = m.is_bind();
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
        if (options.flags.set | options.flags.recursive_set) & bit != 0 {
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
    let is_overlay = m.fstype == "overlay";
    let owner = users.filter(|_| is_overlay).map(PodUsers::first);
    let (workdir, words) = match (maps, users) {
        (None, Some(users)) if is_overlay => {
            mapped_layers(rootfs, users.namespace()?, words, true, field, steps)?
        }
        (None, _) => fit(words)?,
        (Some(maps), _) if is_overlay => mapped_layers(rootfs, maps, words, false, field, steps)?,
        (Some(_), _) => return Err(Error::field(field, "only an overlay's layers can map ids")),
    };
    let data = words.join(",");
    let target = if m.target.is_empty() {
        rootfs.to_owned()
    } else {
        rootfs.join(m.target.trim_start_matches('/'))
    };
    steps.push(Step::MountRoot(Box::new(MountRoot {
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
        owner,
        label: format!("{field}: mount {} on {}", m.fstype, target.display()),
    })));
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

/// Id-mapped copies of an overlay's layers, on a small tmpfs where the root is going to be; the overlay then names them by their
/// numbers. The upper layer is among them only with `all`: then what a container writes is kept with the ids that it sees.
fn mapped_layers(
    rootfs: &Path,
    maps: OwnedFd,
    words: Vec<String>,
    all: bool,
    field: &str,
    steps: &mut Vec<Step>,
) -> Result<(Option<CString>, Vec<String>)> {
    let find = |key: &str| words.iter().find_map(|w| w.strip_prefix(key));
    let lower = find("lowerdir=");
    let lower = lower.ok_or_else(|| Error::field(field, "has no lowerdir to map the ids of"))?;
    let mut layers: Vec<&str> = lower.split(':').collect();
    let mut named = vec![(
        "lowerdir=",
        (0..layers.len())
            .map(|i| i.to_string())
            .collect::<Vec<_>>()
            .join(":"),
    )];
    // The kernel wants the upper layer and its working directory on one mount: that of what they have in common.
    let common;
    if let (true, Some(upper), Some(work)) = (all, find("upperdir="), find("workdir=")) {
        common = common_directory(&[upper, work]);
        if common.is_empty() {
            return Err(Error::field(
                field,
                format!("{upper} and {work} have no directory in common to map the ids of"),
            ));
        }
        let number = layers.len();
        for (key, path) in [("upperdir=", upper), ("workdir=", work)] {
            let rest = path.get(common.len()..).unwrap_or_default();
            named.push((key, format!("{number}{rest}")));
        }
        layers.push(&common);
    }
    let names = (0..layers.len())
        .map(|i| c_string(i.to_string(), field))
        .collect::<Result<_>>()?;
    let layers = layers
        .into_iter()
        .map(|l| c_string(l, field))
        .collect::<Result<_>>()?;
    steps.push(Step::MapLayers {
        maps,
        layers,
        names,
        at: c_path(rootfs)?,
    });
    let numbered = |w: &String| match named.iter().find(|(key, _)| w.starts_with(key)) {
        Some((key, value)) => format!("{key}{value}"),
        None => w.clone(),
    };
    let words = words.iter().map(numbered).collect();
    Ok((Some(c_path(rootfs)?), words))
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
    use crate::oci::{Reading, Request};

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
        let spec = serde_json::json!({
            "ociVersion": "1.0.0", "root": { "path": "/nonexistent/rootfs" }, "linux": {}
        });
        let spec = serde_json::from_value(spec).unwrap();
        let reading = Reading::Run(Links::Any);
        let request = Request::read(spec, Path::new("/"), reading).unwrap();
        let e = plan(&request.root, &[], None, &mut Vec::new())
            .unwrap_err()
            .to_string();
        assert_eq!(
            e,
            "root.path: /nonexistent/rootfs: no such file or directory"
        );
    }
}
