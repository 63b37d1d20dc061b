//! Namespaces, `namespaces(7)`: what a spec's list comes down to.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType as Type, Spec};

use super::{Error, Reading, Result};
use crate::procfs;
use crate::sys::mount::{fs_magic, magic};

/// One type of namespace of a container.
#[derive(Debug, Default)]
pub enum Namespace {
    /// The node's: not listed, or joined by a path that leads to the node's.
    #[default]
    Host,
    /// The container's own.
    New,
    /// Another one that is there already.
    Join(Joined),
}

/// A namespace that was opened.
#[derive(Debug)]
pub struct Joined {
    /// As the spec has it.
    pub path: PathBuf,
    /// None only where the spec is read to be shown, and nothing is there.
    file: Option<OwnedFd>,
    /// Device and inode, which tell namespaces apart.
    pub id: Option<(u64, u64)>,
}

impl Joined {
    /// A descriptor of it, to keep.
    pub fn descriptor(&self) -> Result<OwnedFd> {
        let field = || "linux.namespaces";
        let file = self
            .file
            .as_ref()
            .ok_or_else(|| Error::field(field(), format!("{} is not open", self.path.display())))?;
        file.try_clone()
            .map_err(|e| Error::field(field(), format!("duplicate a descriptor: {e}")))
    }
}

/// All eight.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// Mounts.
    pub mount: Namespace,
    /// The root of control groups.
    pub cgroup: Namespace,
    /// The host name.
    pub uts: Namespace,
    /// System V and POSIX messages.
    pub ipc: Namespace,
    /// Process ids.
    pub pid: Namespace,
    /// Network devices, addresses and ports.
    pub network: Namespace,
    /// Users and capabilities.
    pub user: Namespace,
    /// Clocks.
    pub time: Namespace,
}

/// The namespaces of a process, as device and inode.
pub fn of_process(pid: i32) -> impl Iterator<Item = (u64, u64)> {
    let of = move |typ| procfs::namespace(pid, file_name(typ)).ok();
    Namespaces::TYPES.into_iter().filter_map(of)
}

/// The file in `/proc/PID/ns`.
fn file_name(typ: Type) -> &'static str {
    match typ {
        Type::Mount => "mnt",
        Type::Cgroup => "cgroup",
        Type::Uts => "uts",
        Type::Ipc => "ipc",
        Type::User => "user",
        Type::Pid => "pid",
        Type::Network => "net",
        Type::Time => "time",
    }
}

/// Opens a namespace's file. What is something else is not opened at all: that alone can have effects, with a device or a fifo.
fn open(path: &Path) -> std::io::Result<File> {
    let found = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)?;
    if fs_magic(found.as_fd())? != magic::NSFS {
        let reason = "it is no namespace, but another kind of file";
        return Err(std::io::Error::new(ErrorKind::InvalidInput, reason));
    }
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

impl Namespaces {
    /// Reads `linux.namespaces`. A path to a namespace of the node (this process's, or the first process's) is the node's
    /// namespace, as if the type were not listed.
    pub(super) fn read(spec: &Spec, reading: Reading) -> Result<Self> {
        let mut this = Self::default();
        let mut seen = Vec::new();
        let list = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
        for (i, n) in list.into_iter().flatten().enumerate() {
            if seen.contains(&n.typ()) {
                return Err(Error::field(
                    format!("linux.namespaces[{i}]"),
                    format!("a second {} namespace", n.typ()),
                ));
            }
            seen.push(n.typ());
            *this.get_mut(n.typ()) = Self::one(i, n, reading)?;
        }
        Ok(this)
    }

    fn one(index: usize, n: &LinuxNamespace, reading: Reading) -> Result<Namespace> {
        let Some(path) = n.path().as_ref().filter(|p| !p.as_os_str().is_empty()) else {
            return Ok(Namespace::New);
        };
        let (file, id) = match (open(path), reading) {
            (Ok(file), _) => {
                let metadata = file.metadata().ok();
                let id = metadata.map(|m| (m.dev(), m.ino()));
                (Some(OwnedFd::from(file)), id)
            }
            (Err(_), Reading::Show) => (None, None),
            (Err(e), Reading::Run(_)) => {
                let field = format!("linux.namespaces[{index}].path");
                return Err(Error::field(field, format!("{}: {e}", path.display())));
            }
        };
        let name = file_name(n.typ());
        let node = ["self", "1"].map(|pid| procfs::namespace(pid, name).ok());
        if id.is_some() && node.contains(&id) {
            return Ok(Namespace::Host);
        }
        Ok(Namespace::Join(Joined {
            path: path.clone(),
            file,
            id,
        }))
    }

    /// The one of a type.
    pub fn get(&self, typ: Type) -> &Namespace {
        match typ {
            Type::Mount => &self.mount,
            Type::Cgroup => &self.cgroup,
            Type::Uts => &self.uts,
            Type::Ipc => &self.ipc,
            Type::User => &self.user,
            Type::Pid => &self.pid,
            Type::Network => &self.network,
            Type::Time => &self.time,
        }
    }

    fn get_mut(&mut self, typ: Type) -> &mut Namespace {
        match typ {
            Type::Mount => &mut self.mount,
            Type::Cgroup => &mut self.cgroup,
            Type::Uts => &mut self.uts,
            Type::Ipc => &mut self.ipc,
            Type::User => &mut self.user,
            Type::Pid => &mut self.pid,
            Type::Network => &mut self.network,
            Type::Time => &mut self.time,
        }
    }

    /// Every type, in the order in which they are shown.
    pub const TYPES: [Type; 8] = [
        Type::Pid,
        Type::Network,
        Type::Ipc,
        Type::Uts,
        Type::Mount,
        Type::Cgroup,
        Type::User,
        Type::Time,
    ];

    /// As a spec has them: what was asked for, and what has changed since.
    pub(super) fn to_spec(&self, asked: &[LinuxNamespace]) -> Vec<LinuxNamespace> {
        let mut out = asked.to_vec();
        for n in &mut out {
            if self.get(n.typ()).is_new() && n.path().is_some() {
                n.set_path(None);
            }
        }
        for typ in Self::TYPES {
            if self.get(typ).is_new() && !asked.iter().any(|n| n.typ() == typ) {
                let mut new = LinuxNamespace::default();
                new.set_typ(typ);
                new.set_path(None);
                out.push(new);
            }
        }
        out
    }
}

impl Namespace {
    /// Whether it is the node's.
    pub fn is_host(&self) -> bool {
        matches!(self, Self::Host)
    }

    /// Whether it is the container's own.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::New)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Links;
    use super::*;

    fn read(list: serde_json::Value) -> Result<Namespaces> {
        let spec = json!({ "ociVersion": "1.0.0", "linux": { "namespaces": list } });
        Namespaces::read(
            &serde_json::from_value(spec).unwrap(),
            Reading::Run(Links::Any),
        )
    }

    #[test]
    fn the_nodes_namespace_by_any_path_is_the_nodes() {
        let me = std::process::id();
        for (typ, file) in [
            ("network", "net"),
            ("pid", "pid"),
            ("mount", "mnt"),
            ("user", "user"),
        ] {
            for path in [
                format!("/proc/self/ns/{file}"),
                format!("/proc/{me}/ns/{file}"),
                format!("/proc/{me}/task/{me}/../../ns/{file}"),
            ] {
                let found = read(json!([{ "type": typ, "path": path }])).unwrap();
                let typ = serde_json::from_value(json!(typ)).unwrap();
                assert!(found.get(typ).is_host(), "{path}");
            }
        }
        let found = read(json!([{ "type": "pid" }, { "type": "ipc", "path": "" }])).unwrap();
        assert!(found.pid.is_new() && found.ipc.is_new() && found.network.is_host());
        let e = read(json!([{ "type": "pid" }, { "type": "pid" }])).unwrap_err();
        assert_eq!(e.to_string(), "linux.namespaces[1]: a second pid namespace");
    }
}
