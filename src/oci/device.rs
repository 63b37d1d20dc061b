//! Device nodes, OCI config-linux.md "Devices" and "Default Devices".

use std::path::PathBuf;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};

use super::{Error, Result};

/// A kind of node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// A block device.
    Block,
    /// A character device.
    Char,
    /// A named pipe.
    Fifo,
}

impl DeviceKind {
    /// The letter that `mknod(1)`, the spec and profiles have for it.
    pub fn letter(self) -> char {
        match self {
            Self::Block => 'b',
            Self::Char => 'c',
            Self::Fifo => 'p',
        }
    }
}

/// A node that the spec asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its place in `linux.devices`.
    pub index: usize,
    /// Where it goes, an absolute path in the container.
    pub path: PathBuf,
    /// What it is.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner, as the container numbers users.
    pub uid: u32,
    /// Group, likewise.
    pub gid: u32,
}

impl Device {
    /// The JSON path.
    pub fn field(&self) -> String {
        format!("linux.devices[{}]", self.index)
    }

    fn read(index: usize, d: &LinuxDevice) -> Result<Self> {
        let field = format!("linux.devices[{index}]");
        let kind = match d.typ() {
            LinuxDeviceType::B => DeviceKind::Block,
            LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Char,
            LinuxDeviceType::P => DeviceKind::Fifo,
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
                    format!("{n} is not a device number (0 to 4294967295)"),
                )
            })
        };
        Ok(Self {
            index,
            path: d.path().clone(),
            kind,
            major: number(d.major(), "major")?,
            minor: number(d.minor(), "minor")?,
            mode: d.file_mode().unwrap_or(0o666) & 0o7777,
            uid: d.uid().unwrap_or(0),
            gid: d.gid().unwrap_or(0),
        })
    }

    /// The nodes of `linux.devices`.
    pub(super) fn read_all(spec: &Spec) -> Result<Vec<Self>> {
        let list = spec
            .linux()
            .iter()
            .flat_map(|l| l.devices().iter().flatten());
        list.enumerate().map(|(i, d)| Self::read(i, d)).collect()
    }
}

/// A character device that every container may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Where it is made, below the root; `None` for those that come with a file system of terminals, or with somebody's wish.
    pub path: Option<&'static str>,
    /// Major number.
    pub major: u32,
    /// Minor number; `None` is all of them.
    pub minor: Option<u32>,
}

const fn made(path: &'static str, major: u32, minor: u32) -> Node {
    Node {
        path: Some(path),
        major,
        minor: Some(minor),
    }
}

/// The character devices of every container: the six of the specification's list, then terminals. The specification's
/// `/dev/console` is a terminal of the container, bound there; the *node's* console, 5:1, is not among them.
pub const NODES: [Node; 8] = [
    made("dev/null", 1, 3),
    made("dev/zero", 1, 5),
    made("dev/full", 1, 7),
    made("dev/random", 1, 8),
    made("dev/urandom", 1, 9),
    made("dev/tty", 5, 0),
    Node {
        path: None,
        major: 5,
        minor: Some(2), // ptmx
    },
    Node {
        path: None,
        major: 136, // pts/*
        minor: None,
    },
];

/// Whether every container may use this device.
pub fn is_usable(kind: DeviceKind, major: u32, minor: u32) -> bool {
    let is = |n: &Node| n.major == major && n.minor.is_none_or(|m| m == minor);
    kind == DeviceKind::Char && NODES.iter().any(is)
}

/// Whether every container gets this device's node.
pub fn is_default(kind: DeviceKind, major: u32, minor: u32) -> bool {
    let is = |n: &Node| n.path.is_some() && n.major == major && n.minor == Some(minor);
    kind == DeviceKind::Char && NODES.iter().any(is)
}

/// Links below `/dev`, OCI config-linux.md "Dev symbolic links": target and path.
pub const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
];
