//! How a process gets into a container's groups.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use super::error::io_error;
use super::path::Unit;
use super::systemd::{self, Manager};
use super::{Cgroup, Error, Hierarchy, Layout, Result};

impl Cgroup {
    /// What a process needs to be born here or to move here: a directory for `CLONE_INTO_CGROUP`, and the open `tasks`
    /// files of the v1 hierarchies. A single-threaded process that writes `0` to `tasks` moves itself without the
    /// wait for an RCU grace period (about 10 ms) that a write to `cgroup.procs` pays.
    pub fn entry(&self) -> Result<Entry> {
        self.entry_below(&Below::default())
    }

    /// The same for groups below the container's, which exist already.
    pub fn entry_below(&self, below: &Below) -> Result<Entry> {
        self.bring_caller_near()?;
        let mut entry = Entry {
            v2: None,
            tasks: Vec::new(),
        };
        for h in &self.layout.hierarchies {
            let below = below.of(h);
            let dir = match below {
                Some(below) => self.dir(h).join(below),
                None => self.dir(h),
            };
            if h.v2 {
                entry.v2 = Some(V2Group {
                    fd: fs::File::open(&dir).map_err(io_error("open", &dir))?.into(),
                    path: Path::new("/")
                        .join(self.path_in(h))
                        .join(below.unwrap_or(Path::new(""))),
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

impl Cgroup {
    /// A user may move processes among groups of theirs only, and a login session's is none: cgroup-v2.rst, "Delegation
    /// Containment". So a caller that would start a process in a unit of its user's systemd must itself be below that systemd's group.
    fn bring_caller_near(&self) -> Result<()> {
        let of_user = |u: &&Unit| u.manager == Manager::User;
        let Some(unit) = self.unit.as_ref().filter(of_user) else {
            return Ok(());
        };
        let is_near = |h: &Hierarchy| {
            let now = Layout::own_groups_now().unwrap_or_default();
            let groups = [&now, &self.below].map(|all| h.group_of(all));
            matches!(groups, [Some(own), Some(top)] if own.starts_with(top))
        };
        match self.layout.unified() {
            Some(h) if !is_near(h) => systemd::adopt_caller(unit),
            _ => Ok(()),
        }
    }
}

/// Groups below a container's, one for each hierarchy.
#[derive(Debug, Clone, Default)]
pub struct Below {
    /// Controllers with the group of their hierarchy; without controllers, of all others.
    groups: Vec<(Vec<String>, PathBuf)>,
}

impl Below {
    /// From `PATH`, or on cgroup v1 `CONTROLLER[,CONTROLLER]:PATH`, as runc's `exec --cgroup` has them. `/` is the container's own.
    ///
    /// # Errors
    /// A path that leads out, or a controller that this node does not have.
    pub fn parse(texts: &[String], layout: &Layout) -> Result<Self> {
        let one = |text: &String| {
            let wrong = |reason: String| Error::Unavailable {
                field: format!("--cgroup {text}"),
                reason,
            };
            let (controllers, path) = match text.split_once(':') {
                Some((controllers, path)) => {
                    (controllers.split(',').map(str::to_owned).collect(), path)
                }
                None => (Vec::new(), text.as_str()),
            };
            for c in &controllers {
                if layout.is_v2() {
                    return Err(wrong(
                        "on cgroup v2 a group has no controller in its name".into(),
                    ));
                }
                if layout.find(c).is_none() && layout.find(&format!("name={c}")).is_none() {
                    return Err(wrong(format!("unknown controller {c}")));
                }
            }
            let parts = Path::new(path).components();
            let mut relative = PathBuf::new();
            for part in parts {
                match part {
                    Component::Normal(name) => relative.push(name),
                    Component::RootDir | Component::CurDir => {}
                    Component::ParentDir | Component::Prefix(_) => {
                        return Err(wrong(format!("{path} is not a sub cgroup path")));
                    }
                }
            }
            Ok((controllers, relative))
        };
        let groups = texts.iter().map(one).collect::<Result<_>>()?;
        Ok(Self { groups })
    }

    fn of(&self, h: &Hierarchy) -> Option<&Path> {
        let has = |c: &String| h.has(c) || h.has(&format!("name={c}"));
        let named = self.groups.iter().find(|(c, _)| c.iter().any(has));
        let any = || self.groups.iter().find(|(c, _)| c.is_empty());
        named.or_else(any).map(|(_, path)| path.as_path())
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
