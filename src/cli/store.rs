//! What is kept of a container between two commands: a directory for each, with `state.json` and, as long as the container
//! is not started, the socket of its gate.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Error, Result};
use crate::cgroup::{Cgroup, Layout};
use crate::executor::AfterGate;
use crate::sys::process;

const STATE: &str = "state.json";
const GATE: &str = "gate";

/// A container as a command finds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Saved {
    pub id: String,
    pub oci_version: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub pid: i32,
    /// With the pid, who the init is.
    pub start_time: u64,
    /// Relative to every hierarchy.
    pub cgroup: PathBuf,
    /// RFC 3339.
    pub created: String,
    pub annotations: HashMap<String, String>,
    pub behind_gate: AfterGate,
    pub new_keyring: bool,
}

/// OCI runtime.md "State".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

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
        return Err(Error::Other(format!(
            "invalid container ID format: {id:?}: use letters, digits and _ + - ."
        )));
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
        let private =
            |dir: &Path, all: bool| fs::DirBuilder::new().recursive(all).mode(0o700).create(dir);
        private(&self.root, true).map_err(Error::io(format!("create {}", self.root.display())))?;
        let dir = self.root.join(id);
        match private(&dir, false) {
            Ok(()) => Ok(Reserved { dir, kept: false }),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                Err(Error::Other(format!("container with id exists: {id}")))
            }
            Err(e) => Err(Error::Io(format!("create {}", dir.display()), e)),
        }
    }

    /// A container by its id.
    pub(crate) fn load(&self, id: &str) -> Result<Entry> {
        check_id(id)?;
        let dir = self.root.join(id);
        let text = fs::read(dir.join(STATE)).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::Other(format!("container {id:?} does not exist")),
            _ => Error::Io(format!("read the state of {id}"), e),
        })?;
        let saved = serde_json::from_slice(&text)
            .map_err(|e| Error::Other(format!("{}: {e}", dir.join(STATE).display())))?;
        Ok(Entry { dir, saved })
    }

    /// All containers, by their ids.
    pub(crate) fn all(&self) -> Vec<Entry> {
        let mut ids: Vec<_> = fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        ids.sort();
        ids.iter().filter_map(|id| self.load(id).ok()).collect()
    }

    /// Removes a directory that has no readable state: a creation that was killed half-way.
    pub(crate) fn remove_broken(&self, id: &str) {
        if check_id(id).is_ok() {
            fs::remove_dir_all(self.root.join(id)).ok();
        }
    }
}

/// A directory that goes again unless the container is made.
pub(super) struct Reserved {
    dir: PathBuf,
    kept: bool,
}

impl Reserved {
    /// A listener for the gate.
    pub(crate) fn gate(&self) -> Result<OwnedFd> {
        let (_dir, path) = short_path(&self.dir)?;
        Ok(crate::executor::listen_at_gate(&path)?)
    }

    pub(crate) fn keep(mut self, saved: Saved) -> Result<Entry> {
        let entry = Entry {
            dir: self.dir.clone(),
            saved,
        };
        let text = serde_json::to_vec(&entry.saved).map_err(|e| Error::Other(e.to_string()))?;
        let file = entry.dir.join(STATE);
        fs::write(&file, text).map_err(Error::io(format!("write {}", file.display())))?;
        self.kept = true;
        Ok(entry)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.kept {
            fs::remove_dir_all(&self.dir).ok();
        }
    }
}

/// The gate's socket under a name that is short whatever the directory's is: a socket's path has 107 bytes.
fn short_path(dir: &Path) -> Result<(fs::File, PathBuf)> {
    let file = fs::File::open(dir).map_err(Error::io(format!("open {}", dir.display())))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{GATE}", file.as_fd().as_raw_fd()));
    Ok((file, path))
}

impl Entry {
    pub(crate) fn status(&self) -> Status {
        let s = &self.saved;
        if process::start_time(s.pid) != Some(s.start_time) || process::is_zombie(s.pid) {
            Status::Stopped
        } else if self.dir.join(GATE).exists() {
            Status::Created
        } else if self.cgroup().is_ok_and(|c| c.is_frozen()) {
            Status::Paused
        } else {
            Status::Running
        }
    }

    pub(crate) fn cgroup(&self) -> Result<Cgroup> {
        let layout = Layout::detect().map_err(Error::io("find the node's cgroups"))?;
        Ok(Cgroup::new(
            Arc::new(layout),
            Some(&self.saved.cgroup),
            &self.saved.id,
        )?)
    }

    /// The init's pidfd, if it is still there.
    pub(crate) fn pidfd(&self) -> Option<OwnedFd> {
        let pidfd = process::pidfd_open(self.saved.pid).ok()?;
        // Looked at after the descriptor is open, so that it cannot be somebody else's.
        (process::start_time(self.saved.pid) == Some(self.saved.start_time)).then_some(pidfd)
    }

    pub(crate) fn gate(&self) -> Result<crate::executor::Gate> {
        let (_dir, path) = short_path(&self.dir)?;
        Ok(crate::executor::Gate::connect(
            &path,
            self.saved.behind_gate.clone(),
        )?)
    }

    /// The gate is behind the container.
    pub(crate) fn gate_opened(&self) {
        fs::remove_file(self.dir.join(GATE)).ok();
    }

    pub(crate) fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.dir).map_err(Error::io(format!("remove {}", self.dir.display())))
    }
}
