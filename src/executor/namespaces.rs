//! Namespaces: how those of a container are made and joined, `namespaces(7)`.

use std::os::fd::OwnedFd;

use oci_spec::runtime::{LinuxNamespaceType as Type, Spec};

use super::script::Step;
use super::spawn::BornIn;
use super::{Error, Result, userns};
use crate::oci::{Namespace, Request};
use crate::procfs;
use crate::sys::creds;

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

/// A namespace that the child joins.
#[derive(Debug)]
struct Join {
    ns: OwnedFd,
    flag: i32,
    what: String,
}

/// What a container's namespaces come down to.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// `CLONE_NEW*` flags for `clone3`.
    new: u64,
    /// A cgroup namespace is made by the child itself, once it is in its cgroup.
    new_cgroup: bool,
    /// A time namespace is made by the child as well, for a child of its own: the clocks' offsets as the kernel reads them.
    new_time: Option<Vec<u8>>,
    join: Vec<Join>,
    /// A pid namespace takes effect for children only, so the parent's thread joins it around `clone3`.
    join_pid: Option<OwnedFd>,
}

/// The namespaces of a container that whoever comes into it joins: those of its init's that are not the caller's already. `setns(2)` refuses
/// to join a pid, user or time namespace twice.
#[derive(Debug, Clone, Copy, Default)]
pub struct JoinedNamespaces {
    /// `CLONE_NEW*`.
    pub(super) flags: i32,
}

impl JoinedNamespaces {
    /// As the kernel has them now. Specs name namespaces by paths, which may mean others by then.
    ///
    /// # Errors
    /// The init has ended.
    pub fn of(init: i32) -> Result<Self> {
        let all = [
            (libc::CLONE_NEWNS, "mnt"),
            (libc::CLONE_NEWNET, "net"),
            (libc::CLONE_NEWIPC, "ipc"),
            (libc::CLONE_NEWUTS, "uts"),
            (libc::CLONE_NEWCGROUP, "cgroup"),
            (libc::CLONE_NEWPID, "pid"),
            (libc::CLONE_NEWUSER, "user"),
            (CLONE_NEWTIME, "time"),
        ];
        let mut flags = 0;
        for (flag, file) in all {
            let Ok(ours) = procfs::namespace("self", file) else {
                continue; // a kernel without this kind
            };
            let theirs = procfs::namespace(init, file)
                .map_err(|e| Error::field("exec", format!("the container's init: {e}")))?;
            if theirs != ours {
                flags |= flag;
            }
        }
        Ok(Self { flags })
    }

    /// For tests.
    #[cfg(any(test, fuzzing, feature = "sabotage"))]
    pub fn new(flags: i32) -> Self {
        Self { flags }
    }

    pub(super) fn has(self, flag: i32) -> bool {
        self.flags & flag != 0
    }
}

fn flag(typ: Type) -> i32 {
    match typ {
        Type::Mount => libc::CLONE_NEWNS,
        Type::Cgroup => libc::CLONE_NEWCGROUP,
        Type::Uts => libc::CLONE_NEWUTS,
        Type::Ipc => libc::CLONE_NEWIPC,
        Type::Pid => libc::CLONE_NEWPID,
        Type::Network => libc::CLONE_NEWNET,
        Type::User => libc::CLONE_NEWUSER,
        Type::Time => CLONE_NEWTIME,
    }
}

impl Namespaces {
    pub(crate) fn plan(request: &Request) -> Result<Self> {
        let mut this = Self::default();
        // The mount namespace is joined last: the others are open already. See `userns` for users: they own all the others.
        for typ in [
            Type::Cgroup,
            Type::Uts,
            Type::Ipc,
            Type::Pid,
            Type::Network,
            Type::Time,
            Type::Mount,
        ] {
            match (request.namespaces.get(typ), typ) {
                (Namespace::Host, _) => {}
                (Namespace::New, Type::Cgroup) => this.new_cgroup = true,
                (Namespace::New, Type::Time) => this.new_time = Some(offsets(&request.rest)?),
                (Namespace::New, typ) => this.new |= u64::from(flag(typ).cast_unsigned()),
                (Namespace::Join(joined), Type::Pid) => this.join_pid = Some(joined.descriptor()?),
                (Namespace::Join(joined), typ) => this.join.push(Join {
                    ns: joined.descriptor()?,
                    flag: flag(typ),
                    what: format!("the {typ} namespace {}", joined.path.display()),
                }),
            }
        }
        Ok(this)
    }

    /// Whether the mounts are the container's alone.
    pub(crate) fn has_new_mounts(&self) -> bool {
        self.new & libc::CLONE_NEWNS as u64 != 0
    }

    /// Joins the namespaces that others made. Before a user namespace is entered: whoever owns them, the node's root may
    /// join them.
    pub(crate) fn join(&self, birth: &mut BornIn, steps: &mut Vec<Step>) -> Result<()> {
        if !self.joins_pid_itself() {
            birth.pid_namespace = self.join_pid.as_ref().map(duplicate).transpose()?;
        }
        for join in &self.join {
            steps.push(Step::JoinNamespace {
                ns: duplicate(&join.ns)?,
                flags: join.flag,
                what: join.what.clone(),
            });
        }
        Ok(())
    }

    /// Enters the new ones. Where one clone makes them all, the process is born in them. A user namespace comes first, because
    /// it is to own the others, and a time namespace takes effect for children only: there the process goes on as another
    /// one, which is born in them.
    pub(crate) fn enter(
        &self,
        user: Option<&OwnedFd>,
        birth: &mut BornIn,
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
            // Before the others are made: what the kernel makes in them is their maker's, the message queues' directory among it.
            steps.push(Step::BecomeRoot);
        }
        if let (Some(pid), true) = (&self.join_pid, self.joins_pid_itself()) {
            steps.push(Step::JoinNamespace {
                ns: duplicate(pid)?,
                flags: libc::CLONE_NEWPID,
                what: "the pid namespace".into(),
            });
        }
        if user.is_some() || self.new_time.is_some() || self.joins_pid_itself() {
            steps.push(Step::CloneSibling {
                namespaces: self.new,
            });
        } else {
            birth.namespaces = self.new;
        }
        if self.new_cgroup {
            steps.push(Step::NewCgroupNamespace);
        }
        Ok(())
    }

    /// Whether the process joins the pid namespace by itself, and goes on as another one that is born in it: who has no rights over the
    /// own pid namespace cannot come back from another one.
    fn joins_pid_itself(&self) -> bool {
        self.join_pid.is_some() && creds::is_in_user_namespace()
    }

    /// Whether `user` owns the container's network: what belongs to it, a sysfs and kernel parameters among it, is its
    /// owner's.
    pub(crate) fn network_is_of(&self, user: &OwnedFd) -> bool {
        if self.new & libc::CLONE_NEWNET as u64 != 0 {
            return true;
        }
        let joined = self.join.iter().find(|j| j.flag == libc::CLONE_NEWNET);
        joined.is_some_and(|j| userns::owns(user, &j.ns))
    }
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone()
        .map_err(|e| Error::field("linux.namespaces", format!("duplicate a descriptor: {e}")))
}
