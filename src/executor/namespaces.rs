//! Namespaces: which are new, which are joined by path, `namespaces(7)`.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::script::Step;
use super::spawn::Birth;
use super::{Error, Result, userns};

/// Linux 5.6.
pub(super) const CLONE_NEWTIME: i32 = 0x80;

/// `linux.timeOffsets` as `/proc/self/timens_offsets` takes them, `time_namespaces(7)`.
fn offsets(spec: &Spec) -> Result<Vec<u8>> {
    let mut text = String::new();
    let offsets = spec
        .linux()
        .as_ref()
        .and_then(|l| l.time_offsets().as_ref());
    let mut offsets: Vec<_> = offsets.into_iter().flatten().collect();
    offsets.sort_by_key(|(clock, _)| clock.as_str());
    for (clock, offset) in offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Error::field(
                format!("linux.timeOffsets[{clock:?}]"),
                "is not a clock that can be offset: use monotonic or boottime",
            ));
        }
        let (secs, nanos) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        text.push_str(&format!("{clock} {secs} {nanos}\n"));
    }
    Ok(text.into_bytes())
}

/// What the spec's `linux.namespaces` comes down to.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// `CLONE_NEW*` flags for `clone3`.
    pub new: u64,
    /// A cgroup namespace is made by the child itself, once it is in its cgroup.
    pub new_cgroup: bool,
    /// A time namespace is made by the child as well, for a child of its own: the clocks' offsets as the kernel reads them.
    pub new_time: Option<Vec<u8>>,
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
            new_time: None,
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
                // See `userns`: it owns all the others, so it comes before them.
                LinuxNamespaceType::User => continue,
                LinuxNamespaceType::Time => CLONE_NEWTIME,
            };
            match n.path().as_ref().filter(|p| !p.as_os_str().is_empty()) {
                None if n.typ() == LinuxNamespaceType::Cgroup => this.new_cgroup = true,
                None if n.typ() == LinuxNamespaceType::Time => this.new_time = Some(offsets(spec)?),
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

    /// Joins the namespaces that others made. Before a user namespace is entered: whoever owns them, the node's root may
    /// join them.
    pub fn join(&self, birth: &mut Birth, steps: &mut Vec<Step>) -> Result<()> {
        birth.pid_namespace = self.join_pid.as_ref().map(duplicate).transpose()?;
        // The mount namespace comes last: the others are open already.
        let mut join: Vec<_> = self.join.iter().collect();
        join.sort_by_key(|(_, flags, _)| *flags == libc::CLONE_NEWNS);
        for (ns, flags, what) in join {
            steps.push(Step::JoinNamespace {
                ns: duplicate(ns)?,
                flags: *flags,
                what: what.clone(),
            });
        }
        Ok(())
    }

    /// Enters the new ones. Where one clone makes them all, the process is born in them. A user namespace comes first, because
    /// it is to own the others, and a time namespace takes effect for children only: there the process goes on as another
    /// one, which is born in them.
    pub fn enter(
        &self,
        user: Option<&OwnedFd>,
        birth: &mut Birth,
        steps: &mut Vec<Step>,
    ) -> Result<()> {
        if let Some(offsets) = &self.new_time {
            steps.push(Step::NewTimeNamespace(offsets.clone()));
        }
        if let Some(user) = user {
            steps.push(Step::JoinNamespace {
                ns: duplicate(user)?,
                flags: libc::CLONE_NEWUSER,
                what: "the user namespace".into(),
            });
        }
        if user.is_some() || self.new_time.is_some() {
            steps.push(Step::Rebirth {
                namespaces: self.new,
            });
        } else {
            birth.namespaces = self.new;
        }
        if user.is_some() {
            steps.push(Step::BecomeRoot);
        }
        if self.new_cgroup {
            steps.push(Step::NewCgroupNamespace);
        }
        Ok(())
    }

    /// Whether `user` owns the container's network: what belongs to it, a sysfs and kernel parameters among it, is its
    /// owner's.
    pub fn network_is_of(&self, user: &OwnedFd) -> bool {
        if self.new & libc::CLONE_NEWNET as u64 != 0 {
            return true;
        }
        let joined = self.join.iter().find(|(_, f, _)| *f == libc::CLONE_NEWNET);
        joined.is_some_and(|(ns, _, _)| userns::owns(user, ns))
    }
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone()
        .map_err(|e| Error::field("linux.namespaces", format!("duplicate a descriptor: {e}")))
}

fn open(path: &PathBuf, field: &str) -> Result<OwnedFd> {
    let file = File::open(path)
        .map_err(|e| Error::field(format!("{field}.path"), format!("{}: {e}", path.display())))?;
    Ok(file.into())
}
