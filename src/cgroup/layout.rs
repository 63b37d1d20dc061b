//! Which hierarchies this node has, read once from `/proc/self/mountinfo`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A process's own groups, as `/proc/PID/cgroup` has them: controllers, and path.
pub type OwnGroups = Vec<(String, PathBuf)>;

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Whether it is the v2 tree.
    pub v2: bool,
    /// Its controllers; a named v1 hierarchy has `name=NAME`.
    pub controllers: Vec<String>,
}

impl Hierarchy {
    /// Which of some groups is in this hierarchy.
    pub(super) fn group_of<'a>(&self, groups: &'a OwnGroups) -> Option<&'a Path> {
        let is_here = |controllers: &str| match controllers {
            "" => self.v2,
            some => !self.v2 && some.split(',').any(|c| self.has(c)),
        };
        let here = groups.iter().find(|(controllers, _)| is_here(controllers));
        here.map(|(_, path)| path.as_path())
    }

    /// Whether the hierarchy has this controller.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// The hierarchies of a node.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// All of them, v1 first.
    pub hierarchies: Vec<Hierarchy>,
    /// Our own group in each hierarchy, for specs without a `cgroupsPath`: `(controllers, path)`.
    own: OwnGroups,
    /// Why containers have no groups, where they have none.
    without: Option<Without>,
}

/// Why containers have no groups of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Without {
    /// Nobody asked for them, or this user may not make any: containers stay in their caller's.
    Accepted,
    /// There is nothing to make them in, and no container can be made. With the reason.
    Impossible(String),
}

impl Layout {
    /// No groups at all: containers stay in their caller's, without limits.
    pub fn none() -> Self {
        Self {
            without: Some(Without::Accepted),
            ..Self::default()
        }
    }

    /// As [`Layout::detect`]; where that fails, a layout that says why to whoever wants to make groups.
    pub fn detect_or_explain() -> Self {
        Self::detect().unwrap_or_else(|e| Self {
            without: Some(Without::Impossible(e.to_string())),
            ..Self::default()
        })
    }

    /// Why there are no groups.
    pub fn without(&self) -> Option<&Without> {
        self.without.as_ref()
    }

    /// Reads the layout of this node.
    pub fn detect() -> io::Result<Self> {
        let mut layout = Self::parse(
            &crate::procfs::read("/proc/self/mountinfo")?,
            &crate::procfs::read("/proc/self/cgroup")?,
        );
        for h in layout.hierarchies.iter_mut().filter(|h| h.v2) {
            let controllers =
                fs::read_to_string(h.mount.join("cgroup.controllers")).unwrap_or_default();
            h.controllers = controllers.split_whitespace().map(str::to_owned).collect();
        }
        if layout.hierarchies.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "no cgroup hierarchy is mounted; mount cgroup2 on /sys/fs/cgroup",
            ));
        }
        Ok(layout)
    }

    /// This process's groups, which others may have changed since the layout was read.
    pub(super) fn own_groups_now() -> io::Result<OwnGroups> {
        Ok(parse_own(&crate::procfs::read("/proc/self/cgroup")?))
    }

    fn parse(mountinfo: &str, own: &str) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let mut right = right.split(' ');
            let (fstype, _source, options) = (
                right.next().unwrap_or(""),
                right.next(),
                right.next().unwrap_or(""),
            );
            let v2 = fstype == "cgroup2";
            if !v2 && fstype != "cgroup" {
                continue;
            }
            let Some(mount) = left.split(' ').nth(4).map(PathBuf::from) else {
                continue;
            };
            let controllers: Vec<String> = if v2 {
                Vec::new()
            } else {
                options
                    .split(',')
                    .filter(|o| is_controller(o))
                    .map(str::to_owned)
                    .collect()
            };
            if hierarchies
                .iter()
                .any(|h| h.v2 == v2 && h.controllers == controllers)
            {
                continue; // mounted twice
            }
            hierarchies.push(Hierarchy {
                mount,
                v2,
                controllers,
            });
        }
        hierarchies.sort_by_key(|h| h.v2);
        Self {
            hierarchies,
            own: parse_own(own),
            without: None,
        }
    }

    /// Whether the node is on pure v2: a v2 tree and no v1 controller.
    pub fn is_v2(&self) -> bool {
        self.hierarchies.iter().all(|h| h.v2)
    }

    /// The v2 tree, also of a hybrid node.
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.v2)
    }

    /// The hierarchy that has `controller`.
    pub fn find(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.has(controller))
    }

    /// The hierarchy to list processes in.
    pub(super) fn process_tree(&self) -> Option<&Hierarchy> {
        self.unified()
            .or_else(|| self.find("pids"))
            .or_else(|| self.find("memory"))
            .or_else(|| self.hierarchies.first())
    }

    /// Our own group in each hierarchy, to put a container below when its spec names no path.
    pub(super) fn own_groups(&self) -> &OwnGroups {
        &self.own
    }
}

/// `/proc/PID/cgroup`, cgroups(7).
fn parse_own(text: &str) -> OwnGroups {
    let groups = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?.to_owned(), PathBuf::from(parts.next()?)))
    });
    groups.collect()
}

fn is_controller(option: &str) -> bool {
    option.starts_with("name=")
        || !matches!(
            option,
            "rw" | "ro"
                | "xattr"
                | "noprefix"
                | "clone_children"
                | "none"
                | "all"
                | "seclabel"
                | ""
        ) && !option.starts_with("release_agent=")
            && !option.starts_with("cpuset_v2_mode")
            && option != "favordynmods"
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn hybrid_layout_keeps_v1_first_and_knows_named_hierarchies() {
        let l = Layout::parse(HYBRID, "1:name=systemd:/x\n0::/y\n");
        assert!(!l.is_v2());
        assert_eq!(l.hierarchies.len(), 3);
        assert_eq!(
            l.find("cpuacct").unwrap().mount,
            Path::new("/sys/fs/cgroup/cpu,cpuacct")
        );
        assert_eq!(l.hierarchies[1].controllers, ["name=systemd"]);
        assert_eq!(
            l.unified().unwrap().mount,
            Path::new("/sys/fs/cgroup/unified")
        );
        let own = |h: &Hierarchy| h.group_of(l.own_groups()).map(Path::to_owned);
        assert_eq!(own(&l.hierarchies[0]), None);
        assert_eq!(own(&l.hierarchies[1]), Some("/x".into()));
        assert_eq!(own(&l.hierarchies[2]), Some("/y".into()));
    }

    #[test]
    fn pure_v2_layout() {
        let l = Layout::parse(
            "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
            "0::/\n",
        );
        assert!(l.is_v2());
        assert_eq!(l.hierarchies.len(), 1);
    }
}
