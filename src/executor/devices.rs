//! Device nodes and links below `/dev`, OCI config-linux.md "Default Devices" and "Dev symbolic links".

use std::path::Path;

use oci_spec::runtime::{LinuxDeviceType, Spec};

use super::mounts::c_string;
use super::script::Step;
use super::{Error, Result};

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

/// Appends the steps. Where the spec binds a whole `/dev` of its own, that one is left as it is.
pub(super) fn plan(spec: &Spec, steps: &mut Vec<Step>) -> Result<()> {
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
        return Ok(());
    }
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
            steps.push(Step::Device {
                path: c_string(path, "dev")?,
                mode: libc::S_IFCHR | 0o666,
                major,
                minor,
                uid: 0,
                gid: 0,
            });
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
        steps.push(Step::Device {
            path: c_string(path.as_os_str().as_encoded_bytes(), &field)?,
            mode: kind | d.file_mode().unwrap_or(0o666) & 0o7777,
            major: number(d.major(), "major")?,
            minor: number(d.minor(), "minor")?,
            uid: d.uid().unwrap_or(0),
            gid: d.gid().unwrap_or(0),
        });
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
    Ok(())
}
