//! Namespaces: which are new, which are joined by path, `namespaces(7)`.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::script::Step;
use super::{Error, Result};

/// What the spec's `linux.namespaces` comes down to.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// `CLONE_NEW*` flags for `clone3`.
    pub new: u64,
    /// A cgroup namespace is made by the child itself, once it is in its cgroup.
    pub new_cgroup: bool,
    /// Opened namespaces to be joined by the child.
    pub join: Vec<(OwnedFd, i32, String)>,
    /// A pid namespace takes effect for children only, so the parent's thread joins it around `clone3`.
    pub join_pid: Option<OwnedFd>,
}

impl Namespaces {
    pub fn plan(spec: &Spec) -> Result<Self> {
        let mut this = Self {
            new: 0,
            new_cgroup: false,
            join: Vec::new(),
            join_pid: None,
        };
        let mut seen = Vec::new();
        let list = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
        for (i, n) in list.into_iter().flatten().enumerate() {
            let field = format!("linux.namespaces[{i}]");
            if seen.contains(&n.typ()) {
                return Err(Error::field(
                    field,
                    format!("a second {} namespace", n.typ()),
                ));
            }
            seen.push(n.typ());
            let flag = match n.typ() {
                LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
                LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
                LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
                LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
                LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
                LinuxNamespaceType::Network => libc::CLONE_NEWNET,
                LinuxNamespaceType::User | LinuxNamespaceType::Time => {
                    return Err(Error::field(
                        field,
                        format!("{} namespaces are not supported yet", n.typ()),
                    ));
                }
            };
            match n.path().as_ref().filter(|p| !p.as_os_str().is_empty()) {
                None if n.typ() == LinuxNamespaceType::Cgroup => this.new_cgroup = true,
                None => this.new |= flag as u64,
                Some(path) => {
                    let fd = open(path, &field)?;
                    match n.typ() {
                        LinuxNamespaceType::Pid => this.join_pid = Some(fd),
                        typ => {
                            this.join.push((
                                fd,
                                flag,
                                format!("the {typ} namespace {}", path.display()),
                            ));
                        }
                    }
                }
            }
        }
        Ok(this)
    }

    /// Whether the mounts are the container's alone.
    pub fn has_new_mounts(&self) -> bool {
        self.new & libc::CLONE_NEWNS as u64 != 0
    }

    pub fn has_uts(&self) -> bool {
        self.has(libc::CLONE_NEWUTS)
    }

    pub fn has_ipc(&self) -> bool {
        self.has(libc::CLONE_NEWIPC)
    }

    pub fn has_net(&self) -> bool {
        self.has(libc::CLONE_NEWNET)
    }

    fn has(&self, flag: i32) -> bool {
        self.new & flag as u64 != 0 || self.join.iter().any(|(_, f, _)| *f == flag)
    }

    /// The child's steps. The mount namespace, if joined, comes last: the others are open already.
    pub fn steps(self, steps: &mut Vec<Step>) -> Option<OwnedFd> {
        let mut join = self.join;
        join.sort_by_key(|(_, flags, _)| *flags == libc::CLONE_NEWNS);
        steps.extend(
            join.into_iter()
                .map(|(ns, flags, what)| Step::JoinNamespace { ns, flags, what }),
        );
        if self.new_cgroup {
            steps.push(Step::NewCgroupNamespace);
        }
        self.join_pid
    }
}

fn open(path: &PathBuf, field: &str) -> Result<OwnedFd> {
    let file = File::open(path)
        .map_err(|e| Error::field(format!("{field}.path"), format!("{}: {e}", path.display())))?;
    Ok(file.into())
}
