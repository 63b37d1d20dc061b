//! How a process gets into a container's groups.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::error::io_error;
use super::{Cgroup, Result};

impl Cgroup {
    /// What a process needs to be born here or to move here: a directory for `CLONE_INTO_CGROUP`, and the open `tasks`
    /// files of the v1 hierarchies. A single-threaded process that writes `0` to `tasks` moves itself without the
    /// wait for an RCU grace period (about 10 ms) that a write to `cgroup.procs` pays.
    pub fn entry(&self) -> Result<Entry> {
        let mut entry = Entry {
            v2: None,
            tasks: Vec::new(),
        };
        for h in &self.layout.hierarchies {
            let dir = self.dir(h);
            if h.v2 {
                entry.v2 = Some(V2Group {
                    fd: fs::File::open(&dir).map_err(io_error("open", &dir))?.into(),
                    path: Path::new("/").join(&self.path),
                    dir,
                });
            } else {
                let tasks = dir.join("tasks");
                let fd = fs::OpenOptions::new()
                    .write(true)
                    .open(&tasks)
                    .map_err(io_error("open", &tasks))?
                    .into();
                entry.tasks.push((tasks, fd));
            }
        }
        if let Some(groups) = &self.resctrl {
            let tasks = groups.entry()?;
            entry
                .tasks
                .extend(tasks.into_iter().map(|(path, file)| (path, file.into())));
        }
        Ok(entry)
    }
}

/// A group that a process can be born in, by `CLONE_INTO_CGROUP`.
#[derive(Debug)]
pub struct V2Group {
    fd: OwnedFd,
    dir: PathBuf,
    /// As `/proc/PID/cgroup` has it.
    path: PathBuf,
}

impl V2Group {
    /// Its directory.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The group at or below this one that a process is in. A container that has divided its group among groups of its own has no
    /// process at the top: `cgroups(7)`, "no internal processes".
    ///
    /// # Errors
    /// The process is in another group; the system's.
    pub fn of(&self, pid: i32) -> io::Result<OwnedFd> {
        let all = crate::procfs::read(format!("/proc/{pid}/cgroup"))?;
        let own = all.lines().find_map(|l| l.strip_prefix("0::"));
        let below = own.and_then(|own| Path::new(own).strip_prefix(&self.path).ok());
        let below = below.ok_or(ErrorKind::NotFound)?;
        fs::File::open(self.dir.join(below)).map(Into::into)
    }
}

/// See [`Cgroup::entry`].
#[derive(Debug)]
pub struct Entry {
    /// The group in the v2 tree.
    pub v2: Option<V2Group>,
    /// The `tasks` files of v1 and of resctrl, with their paths.
    pub tasks: Vec<(PathBuf, OwnedFd)>,
}
