//! What is kept of a container between two commands: a directory for each, with `state.json` and, as long as the container
//! is not started, the socket of its gate.
//!
//! The state is the container's own. It holds the spec that was created, so that no later command reads the bundle's again, and it is
//! written before anything is made, so that `delete` finds what a command that was killed half-way has left.

mod lock;
mod reserved;
mod saved;

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use oci_spec::runtime::Spec;

use super::isolation::Profile;
use super::{Error, Result};
use crate::cgroup::{Cgroup, Layout};
use crate::executor::hooks::HookRunner;
use crate::executor::{AfterGate, userns};
use crate::files::private_directory;
use crate::oci::Hooks;
use crate::procfs;
use crate::sys::process;
pub(crate) use reserved::Reserved;
use reserved::remove_abandoned;
pub(crate) use saved::{Groups, Init, Saved, Status};

const STATE: &str = "state.json";
const GATE: &str = "gate";

/// The directory of all containers.
pub(super) struct Store {
    root: PathBuf,
}

/// One container's directory.
pub(super) struct Entry {
    dir: PathBuf,
    pub saved: Saved,
}

fn check_id(id: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id.len() > 255 || id == "." || id == ".." || !id.chars().all(good) {
        return Err(Error::InvalidId(id.to_owned()));
    }
    Ok(())
}

impl Store {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Makes a directory for a new container.
    pub(crate) fn reserve(&self, id: &str) -> Result<Reserved> {
        check_id(id)?;
        private_directory(&self.root)
            .map_err(Error::io(format!("create {}", self.root.display())))?;
        let dir = self.root.join(id);
        // Not by the same call: that one takes a directory which is there.
        let make = || fs::DirBuilder::new().mode(0o700).create(&dir);
        let mut made = make();
        if made.is_err() && remove_abandoned(&dir) {
            made = make();
        }
        match made {
            Ok(()) => Reserved::new(id, dir),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                Err(Error::Other(format!("container with id exists: {id}")))
            }
            Err(e) => Err(Error::Io(format!("create {}", dir.display()), e)),
        }
    }

    fn state_of(&self, id: &str) -> Result<serde_json::Value> {
        check_id(id)?;
        let file = self.root.join(id).join(STATE);
        let text = fs::read(&file).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::NoContainer(id.to_owned()),
            _ => Error::Io(format!("read the state of {id}"), e),
        })?;
        serde_json::from_slice(&text).map_err(|e| broken(&file, &e))
    }

    /// A container by its id.
    pub(crate) fn load(&self, id: &str) -> Result<Entry> {
        let json = self.state_of(id)?;
        let dir = self.root.join(id);
        let file = dir.join(STATE);
        if json["version"] != Saved::VERSION {
            return Err(Error::Other(format!(
                "{}: another version of cofferdam has written it (its format is {}, this one's {}): use that version for this container, \
                 or remove it by `cofferdam delete --force {id}`",
                file.display(),
                json["version"],
                Saved::VERSION
            )));
        }
        let saved = serde_json::from_value(json).map_err(|e| broken(&file, &e))?;
        Ok(Entry { dir, saved })
    }

    /// What can be known of a container whose state cannot be used, to remove it: its init and its groups, without its spec.
    pub(crate) fn salvage(&self, id: &str) -> Result<Entry> {
        if !self.has_state(id) {
            return Err(Error::NoContainer(id.to_owned()));
        }
        let mut json = self.state_of(id).unwrap_or_default();
        let mut part = |name: &str| json.get_mut(name).map(serde_json::Value::take);
        let saved = Saved {
            version: Saved::VERSION,
            id: id.to_owned(),
            bundle: part_of(part("bundle")).unwrap_or_default(),
            spec: Spec::default(),
            hooks: Vec::new(),
            root: None,
            profile: None,
            init: part_of(part("init")),
            cgroup: part_of(part("cgroup")),
            created: String::new(),
            behind_gate: Some(AfterGate::default()),
            new_keyring: false,
            rootless: part_of(part("rootless")).unwrap_or_default(),
        };
        let dir = self.root.join(id);
        Ok(Entry { dir, saved })
    }

    /// The ids of all containers, sorted.
    pub(crate) fn ids(&self) -> Vec<String> {
        let mut ids: Vec<_> = fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        ids.sort();
        ids
    }

    /// All containers, by their ids.
    pub(crate) fn all(&self) -> Vec<Entry> {
        let ids = self.ids();
        let entries = ids.iter().filter_map(|id| match self.load(id) {
            Ok(entry) => Some(entry),
            Err(e) => {
                if self.root.join(id).join(STATE).exists() {
                    log::warn!("{e}");
                }
                None
            }
        });
        entries.collect()
    }

    /// Whether a container has a state, of whatever kind.
    pub(crate) fn has_state(&self, id: &str) -> bool {
        check_id(id).is_ok() && self.root.join(id).join(STATE).exists()
    }

    /// Removes a directory without a state: of a creation that was killed before it made anything.
    pub(crate) fn remove_empty(&self, id: &str) -> Result<()> {
        check_id(id)?;
        let dir = self.root.join(id);
        let _lock = lock::take_within(&dir, id)?;
        if dir.join(STATE).exists() {
            return self.load(id).map(drop);
        }
        match fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(Error::Io(format!("remove {}", dir.display()), e))
            }
            _ => Ok(()),
        }
    }
}

fn part_of<T: serde::de::DeserializeOwned>(part: Option<serde_json::Value>) -> Option<T> {
    serde_json::from_value(part?).ok()
}

fn broken(file: &Path, why: &serde_json::Error) -> Error {
    Error::Other(format!(
        "{}: {why}: the state is broken: `cofferdam delete --force` removes what it still tells",
        file.display()
    ))
}

/// The gate's socket under a name that is short whatever the directory's is: a socket's path has 107 bytes.
fn short_path(dir: &Path) -> Result<(fs::File, PathBuf)> {
    let file = fs::File::open(dir).map_err(Error::io(format!("open {}", dir.display())))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{GATE}", file.as_fd().as_raw_fd()));
    Ok((file, path))
}

impl Entry {
    pub(crate) fn status(&self) -> Status {
        let gone = |init: Init| {
            process::start_time(init.pid) != Some(init.start_time) || process::is_zombie(init.pid)
        };
        if self.saved.behind_gate.is_none() {
            // Its maker has the lock for as long as it lives.
            match lock::take(&self.dir, FlockArg::LockSharedNonblock) {
                Err(_) => Status::Creating,
                Ok(_) => Status::Stopped,
            }
        } else if self.saved.init.is_none_or(gone) {
            Status::Stopped
        } else if self.is_frozen() {
            Status::Paused
        } else if self.is_at_gate() {
            Status::Created
        } else {
            Status::Running
        }
    }

    /// Whether the container was not started yet, frozen or not. A `start` that was killed may have left the gate's socket.
    pub(crate) fn is_at_gate(&self) -> bool {
        let name = |init: Init| procfs::read(format!("/proc/{}/comm", init.pid)).ok();
        let name = self.saved.init.and_then(name);
        let is_ours =
            name.is_some_and(|n| n.trim_end().as_bytes() == process::CHILD_NAME.to_bytes());
        is_ours && self.dir.join(GATE).exists()
    }

    fn is_frozen(&self) -> bool {
        self.cgroup().is_ok_and(|c| c.is_frozen())
    }

    /// Its groups.
    pub(crate) fn cgroup(&self) -> Result<Cgroup> {
        let id = &self.saved.id;
        let Some(groups) = &self.saved.cgroup else {
            return Ok(Cgroup::new(Arc::new(Layout::none()), None, id)?);
        };
        let layout = Layout::detect().map_err(Error::io("find the node's cgroups"))?;
        let below = groups.below.clone();
        let cgroup = Cgroup::at(Arc::new(layout), &groups.path, below, id)?;
        Ok(cgroup.resume(groups.resctrl.clone()))
    }

    /// Its groups, for what cannot be done without.
    pub(crate) fn own_cgroup(&self) -> Result<Cgroup> {
        let cgroup = self.cgroup()?;
        if cgroup.is_none() {
            return Err(Error::Other(format!(
                "container {} has no control groups of its own: it was created where none could be made",
                self.saved.id
            )));
        }
        Ok(cgroup)
    }

    /// The processes of the container: those of its groups; where it has none, those of its init's pid namespace, if that is its own.
    pub(crate) fn pids(&self) -> Result<Vec<i32>> {
        let cgroup = self.cgroup()?;
        if !cgroup.is_none() || !self.has_own_pids() {
            return Ok(self.own_cgroup()?.pids());
        }
        let namespace = |pid: i32| procfs::namespace(pid, "pid").ok();
        let Some(own) = namespace(self.pid()) else {
            return Ok(Vec::new());
        };
        let mut pids = procfs::pids();
        pids.retain(|pid| namespace(*pid) == Some(own));
        Ok(pids)
    }

    /// The profile that it was created with. A changed file counts from now on, as for a pod that is created anew.
    pub(crate) fn profile(&self) -> Result<Profile> {
        Profile::of(self.saved.profile.as_deref())
    }

    /// For an ordinary user: goes where the container's users are known.
    pub(crate) fn enter_users(&self, init: &OwnedFd) -> Result<()> {
        if self.saved.rootless && !nix::unistd::geteuid().is_root() {
            userns::enter(init)?;
        }
        Ok(())
    }

    /// Its hooks, if it has any.
    pub(crate) fn hooks(&self) -> Option<HookRunner> {
        let s = &self.saved;
        let judged = || Hooks(s.hooks.clone());
        (!s.hooks.is_empty()).then(|| HookRunner::recorded(&s.spec, judged(), &s.id, &s.bundle))
    }

    /// Whether its processes end with its init.
    pub(crate) fn has_own_pids(&self) -> bool {
        let linux = self.saved.spec.linux().as_ref();
        let all = linux.and_then(|l| l.namespaces().as_deref());
        let pid = oci_spec::runtime::LinuxNamespaceType::Pid;
        let mut all = all.into_iter().flatten();
        all.any(|n| n.typ() == pid && n.path().is_none())
    }

    /// The init's pid; 0 where it is gone.
    pub(crate) fn pid(&self) -> i32 {
        match (self.status(), self.saved.init) {
            (Status::Stopped, _) | (_, None) => 0,
            (_, Some(init)) => init.pid,
        }
    }

    /// The init's pidfd, if it is still there.
    pub(crate) fn pidfd(&self) -> Option<OwnedFd> {
        let init = self.saved.init?;
        let pidfd = process::pidfd_open(init.pid).ok()?;
        // Looked at after the descriptor is open, so that it cannot be somebody else's.
        (process::start_time(init.pid) == Some(init.start_time)).then_some(pidfd)
    }

    pub(crate) fn gate(&self) -> Result<crate::executor::Gate> {
        let (_dir, path) = short_path(&self.dir)?;
        let behind = self.saved.behind_gate.clone().unwrap_or_default();
        Ok(crate::executor::Gate::connect(&path, behind)?)
    }

    /// The gate is behind the container.
    pub(crate) fn gate_opened(&self) {
        fs::remove_file(self.dir.join(GATE)).ok();
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.dir
    }

    /// Who made it.
    pub(crate) fn owner(&self) -> Option<u32> {
        fs::metadata(&self.dir).ok().map(|m| m.uid())
    }

    /// Waits until no other command makes, starts or removes the container. `None`: there is no such container any more.
    pub(crate) fn lock(&self) -> Result<Option<Flock<fs::File>>> {
        lock::take_within(&self.dir, &self.saved.id)
    }

    /// The state goes first: whoever is killed half-way leaves a directory of nobody's.
    pub(crate) fn remove_directory(&self) -> Result<()> {
        fs::remove_file(self.dir.join(STATE)).ok();
        fs::remove_dir_all(&self.dir).map_err(Error::io(format!("remove {}", self.dir.display())))
    }
}
