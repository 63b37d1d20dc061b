//! Device nodes and links below `/dev`, OCI config-linux.md "Default Devices" and "Dev symbolic links".

use std::ffi::CString;
use std::path::Path;

use oci_spec::runtime::{LinuxDeviceType, Spec};

use super::mounts::c_string;
use super::script::{Mount, Source, Step};
use super::{Error, Result};
use crate::sys::mount::MountAttr;

const DEFAULTS: [(&str, u32, u32); 6] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
];

/// A device node: made, or in a user namespace, whose root may make none, the node's own bound in its place.
fn node(
    path: CString,
    numbers: (u32, u32, u32),
    owner: (u32, u32),
    mapped: bool,
    field: &str,
) -> Result<Step> {
    let (mode, major, minor) = numbers;
    if !mapped || mode & libc::S_IFMT == libc::S_IFIFO {
        let (uid, gid) = owner;
        return Ok(Step::Device {
            path,
            mode,
            major,
            minor,
            uid,
            gid,
        });
    }
    let name = path.to_string_lossy();
    let source = format!("/{name}");
    let same = std::fs::symlink_metadata(&source).is_ok_and(|m| {
        use std::os::unix::fs::MetadataExt;
        m.rdev() == libc::makedev(major, minor) && m.mode() & libc::S_IFMT == mode & libc::S_IFMT
    });
    if !same {
        return Err(Error::field(
            field,
            format!(
                "a user namespace cannot make device nodes, and {source} of the node is not {major}:{minor}"
            ),
        ));
    }
    Ok(Step::Mount(Mount {
        label: format!("{field}: bind {source}"),
        source: Source::Bind {
            path: c_string(source.as_str(), field)?,
            recursive: false,
            procfs: false,
        },
        dest: path,
        no_symlinks: false,
        attr: MountAttr::default(),
        recursive_attr: MountAttr::default(),
        propagation: Vec::new(),
        tree: None,
        idmap: None,
        copy_up: None,
    }))
}

/// Appends the steps, and returns the indices of those whose source must be opened before the user namespace is entered.
/// Where the spec binds a whole `/dev` of its own, that one is left as it is.
pub(super) fn plan(spec: &Spec, mapped: bool, steps: &mut Vec<Step>) -> Result<Vec<usize>> {
    let bound = spec.mounts().iter().flatten().any(|m| {
        let bind = m.typ().as_deref() == Some("bind")
            || m.options()
                .iter()
                .flatten()
                .any(|o| o == "bind" || o == "rbind");
        bind && m
            .destination()
            .components()
            .eq(Path::new("/dev").components())
    });
    if bound {
        return Ok(Vec::new());
    }
    let first = steps.len();
    let devices = || {
        spec.linux()
            .iter()
            .flat_map(|l| l.devices().iter().flatten())
    };
    for (path, major, minor) in DEFAULTS {
        if !devices().any(|d| {
            d.path()
                .components()
                .eq(Path::new("/").join(path).components())
        }) {
            steps.push(node(
                c_string(path, "dev")?,
                (libc::S_IFCHR | 0o666, major, minor),
                (0, 0),
                mapped,
                "dev",
            )?);
        }
    }
    for (i, d) in devices().enumerate() {
        let field = format!("linux.devices[{i}]");
        let kind = match d.typ() {
            LinuxDeviceType::B => libc::S_IFBLK,
            LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
            LinuxDeviceType::P => libc::S_IFIFO,
            LinuxDeviceType::A => {
                return Err(Error::field(
                    format!("{field}.type"),
                    "\"a\" is for rules, not for nodes; use b, c, u or p",
                ));
            }
        };
        let number = |n: i64, name: &str| {
            u32::try_from(n).map_err(|_| {
                Error::field(
                    format!("{field}.{name}"),
                    format!("{n} is not a device number"),
                )
            })
        };
        let path = d.path().strip_prefix("/").unwrap_or(d.path());
        if path.as_os_str().is_empty() {
            return Err(Error::field(format!("{field}.path"), "is empty"));
        }
        let mode = kind | d.file_mode().unwrap_or(0o666) & 0o7777;
        steps.push(node(
            c_string(path.as_os_str().as_encoded_bytes(), &field)?,
            (
                mode,
                number(d.major(), "major")?,
                number(d.minor(), "minor")?,
            ),
            (d.uid().unwrap_or(0), d.gid().unwrap_or(0)),
            mapped,
            &field,
        )?);
    }
    for (target, path) in LINKS {
        steps.push(Step::Symlink {
            target: c_string(target, "dev")?,
            path: c_string(path, "dev")?,
            replace: false,
        });
    }
    let has_pts = spec.mounts().iter().flatten().any(|m| {
        m.destination()
            .components()
            .eq(Path::new("/dev/pts").components())
    });
    if has_pts {
        steps.push(Step::Symlink {
            target: c"pts/ptmx".to_owned(),
            path: c"dev/ptmx".to_owned(),
            replace: true,
        });
    }
    let mounts = steps.iter().enumerate().skip(first);
    Ok(mounts
        .filter(|(_, s)| matches!(s, Step::Mount(_)))
        .map(|(i, _)| i)
        .collect())
}
