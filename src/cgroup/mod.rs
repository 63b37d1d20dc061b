//! Control groups: where a container's groups are, and what is done with them. One interface over cgroup v1, the hybrid
//! layout (v1 controllers with a cgroup v2 tree beside them) and v2.
//!
//! Sources: `Documentation/admin-guide/cgroup-v1/`, `Documentation/admin-guide/cgroup-v2.rst`, OCI `config-linux.md`.

mod apply;
mod devices;
mod directory;
mod egress;
mod entry;
mod error;
mod layout;
mod oom;
mod path;
mod processes;
mod resctrl;
mod settings;
pub mod stats;
mod systemd;
mod v1;
mod v2;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxResources, Spec};

use crate::isolation::Judged;
use crate::oci::Request;
use crate::sys;
pub use apply::Comparison;
use directory::{Mark, make_group, remove_tree};
pub use egress::{DeniedEgress, Destination, Protocol};
pub use entry::{Below, Entry, V2Group};
pub use error::Error;
use error::Result;
pub use layout::{Hierarchy, Layout, OwnGroups, Without};
pub use oom::OomWatch;
use path::Unit;
pub use path::is_systemd_form;
use processes::{has_processes, read_pids};
pub use resctrl::Groups as Resctrl;
use systemd::Manager;

/// The control groups of one container: the same relative path in every hierarchy.
#[derive(Debug, Clone)]
pub struct Cgroup {
    layout: Arc<Layout>,
    /// The container's id.
    id: String,
    /// Relative to each hierarchy's mount, without a leading slash; or to the groups that it is below there.
    path: PathBuf,
    /// Its creator's own groups, if it is below them.
    below: OwnGroups,
    /// Whose groups these are, where systemd makes them.
    unit: Option<Unit>,
    resctrl: Option<resctrl::Groups>,
    /// Whether groups that others have made are none of its.
    own_only: bool,
}

impl Cgroup {
    /// Places a container by the spec's `linux.cgroupsPath`: in cgroupfs form (`/a/b`) we make the groups ourselves, in
    /// systemd's (`slice:prefix:name`) a transient unit of systemd does.
    pub fn new(layout: Arc<Layout>, cgroups_path: Option<&Path>, id: &str) -> Result<Self> {
        let relative = path::relative(cgroups_path, id, Manager::of_caller())?;
        let below = match &relative.unit {
            Some(unit) if unit.manager == Manager::User => own_of_user(&layout, unit)?,
            _ if relative.below_own => layout.own_groups().clone(),
            _ => Vec::new(),
        };
        Ok(Self::placed(layout, id, relative, below))
    }

    fn placed(layout: Arc<Layout>, id: &str, relative: path::Relative, below: OwnGroups) -> Self {
        Self {
            layout,
            id: id.to_owned(),
            path: relative.path,
            below,
            unit: relative.unit,
            resctrl: None,
            own_only: false,
        }
    }

    /// The same, as the spec has it, with the groups of `linux.intelRdt`.
    pub fn of(layout: Arc<Layout>, spec: &Spec, id: &str) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let path = linux.and_then(|l| l.cgroups_path().as_deref());
        Self::new(layout, path, id)?.with_resctrl(spec, id)
    }

    /// Adds the groups of the spec's `linux.intelRdt`.
    pub fn with_resctrl(self, spec: &Spec, id: &str) -> Result<Self> {
        let resctrl = resctrl::Groups::of(spec, id)?;
        Ok(Self { resctrl, ..self })
    }

    /// The groups of `linux.intelRdt`, for [`Self::resume`] in another process.
    pub fn resctrl(&self) -> Option<&Resctrl> {
        self.resctrl.as_ref()
    }

    /// Changes the schemata of the groups of `linux.intelRdt`.
    ///
    /// # Errors
    /// There are none of the container's own, or the kernel refuses a line.
    pub fn update_resctrl(&self, schemata: &[&str]) -> Result<()> {
        match &self.resctrl {
            Some(groups) => groups.update(schemata),
            None => Err(Error::Unavailable {
                field: "linux.intelRdt".into(),
                reason: "the container was created without it".into(),
            }),
        }
    }

    /// Adds groups of `linux.intelRdt` that were made already.
    #[must_use]
    pub fn resume(self, resctrl: Option<Resctrl>) -> Self {
        Self { resctrl, ..self }
    }

    /// Refuses groups that exist already, except those that an earlier Cofferdam container left; and none below another
    /// container's. Without it a spec may name any group of the node's that has no processes: its limits would be the spec's.
    #[must_use]
    pub fn own_only(self, own_only: bool) -> Self {
        Self { own_only, ..self }
    }

    /// No groups, where this process has not the rights to make these. For containers of ordinary users: on cgroup v1, and on v2
    /// without delegation, they have none.
    #[must_use]
    pub fn or_none(self) -> Self {
        let may_write = |dir: &Path| {
            let path = std::ffi::CString::new(dir.as_os_str().as_encoded_bytes());
            path.is_ok_and(|p| sys::process::access(&p, libc::W_OK | libc::X_OK).is_ok())
        };
        let mut all = self.layout.hierarchies.iter();
        let blocked = all.any(|h| {
            let dir = self.dir(h);
            let mut existing = dir.ancestors().filter(|d| d.exists());
            !existing.next().is_some_and(may_write)
        });
        if !blocked || self.unit.is_some() {
            return self;
        }
        Self {
            layout: Arc::new(Layout::none()),
            resctrl: None,
            ..self
        }
    }

    /// Whether the container stays in its caller's groups.
    pub fn is_none(&self) -> bool {
        self.layout.without().is_some()
    }

    /// Refuses what is done with a container's groups where it has none.
    fn must_exist(&self, field: &str) -> Result<()> {
        if !self.is_none() {
            return Ok(());
        }
        Err(Error::Unavailable {
            field: field.into(),
            reason: "the container has no control groups of its own".into(),
        })
    }

    /// With [`Self::below`] a place that gives the same groups again, in another process too: a `linux.cgroupsPath`.
    pub fn cgroups_path(&self) -> PathBuf {
        match &self.unit {
            Some(unit) => PathBuf::from(&unit.text),
            None => Path::new("/").join(&self.path),
        }
    }

    /// The groups that it is below in each hierarchy; none where it has a path of its own.
    pub fn below(&self) -> &OwnGroups {
        &self.below
    }

    /// The groups of a container that another process has made.
    pub fn at(
        layout: Arc<Layout>,
        cgroups_path: &Path,
        below: OwnGroups,
        id: &str,
    ) -> Result<Self> {
        let relative = path::relative(Some(cgroups_path), id, Manager::of_caller())?;
        Ok(Self::placed(layout, id, relative, below))
    }

    /// The group, relative to a hierarchy's mount.
    fn path_in(&self, h: &Hierarchy) -> PathBuf {
        let below = h.group_of(&self.below).unwrap_or(Path::new(""));
        below.strip_prefix("/").unwrap_or(below).join(&self.path)
    }

    /// Whether this node is on pure cgroup v2.
    pub fn is_v2(&self) -> bool {
        self.layout.is_v2()
    }

    /// The layout of this node.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The container's directory in a hierarchy.
    pub fn dir(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.mount.join(self.path_in(hierarchy))
    }

    /// The container's directory in the hierarchy that has `controller`.
    pub fn controller_dir(&self, controller: &str) -> Option<PathBuf> {
        self.layout.find(controller).map(|h| self.dir(h))
    }

    /// The container's directory in the v2 tree, also on a hybrid node.
    fn unified_dir(&self) -> Option<PathBuf> {
        self.layout.unified().map(|h| self.dir(h))
    }

    /// Creates the groups in every hierarchy and applies the request's resources. Leaves nothing behind on failure. What is
    /// returned must be kept until a process of the container is in the groups.
    pub fn create(&self, request: &Judged<Request>) -> Result<Option<Placeholder>> {
        let linux = request.rest.linux().as_ref();
        let resources = linux.and_then(|l| l.resources().as_ref());
        match self.layout.without() {
            None => {}
            Some(Without::Accepted) => {
                warn_of_limits(resources);
                return Ok(None);
            }
            Some(Without::Impossible(reason)) => {
                return Err(Error::Unavailable {
                    field: "linux.cgroupsPath".into(),
                    reason: reason.clone(),
                });
            }
        }
        let placeholder = match &self.unit {
            Some(unit) => self.start_unit(unit, resources)?,
            None => None,
        };
        let mut new = Vec::new();
        let made = self
            .make_directories(&mut new)
            .and_then(|()| self.apply(resources, true))
            .and_then(|()| {
                self.resctrl
                    .as_ref()
                    .map_or(Ok(()), resctrl::Groups::create)
            });
        if let Err(e) = made {
            drop(placeholder);
            // What was there before is somebody else's.
            let is_new = |dir: &Path| self.unit.is_some() || new.iter().any(|n| n == dir);
            self.remove_those(Duration::ZERO, is_new).ok();
            return Err(e);
        }
        // Not sooner: those that were there before, and are refused, stay others'.
        let all = self.layout.hierarchies.iter().map(|h| self.dir(h));
        for dir in all.filter(|dir| !new.contains(dir)) {
            Mark::Container(&self.id).set(&dir);
        }
        Ok(placeholder)
    }

    /// systemd's scopes need a process from the first moment: one that sleeps holds the place until the container's is there.
    fn start_unit(
        &self,
        unit: &Unit,
        resources: Option<&LinuxResources>,
    ) -> Result<Option<Placeholder>> {
        let placeholder = if unit.is_slice() {
            None
        } else {
            let process = sys::process::Sleeper::new().map_err(|errno| Error::Systemd {
                unit: unit.name.clone(),
                reason: format!("no process to hold the scope: {}", errno.desc()),
            })?;
            Some(Placeholder { process })
        };
        let properties = systemd::properties(&self.settings(resources)?);
        let rules = match resources {
            Some(r) if !self.is_v2() => Some(devices::normalise(
                r.devices().as_deref().unwrap_or_default(),
            )?),
            _ => None,
        };
        let pid = placeholder.as_ref().map(|p| p.process.pid());
        systemd::start(unit, pid, properties, rules.as_ref())?;
        Ok(placeholder)
    }

    /// How many eBPF programs filter devices, and how many connections, in the v2 tree. None where there is no such tree.
    pub fn programs(&self) -> Option<(usize, usize)> {
        let group = fs::File::open(self.unified_dir()?).ok()?;
        let count = |hook| sys::bpf::attached(std::os::fd::AsFd::as_fd(&group), hook).unwrap_or(0);
        Some((
            count(sys::bpf::CGROUP_DEVICE),
            count(sys::bpf::SocketHook::Connect4 as u32),
        ))
    }

    fn make_directories(&self, new: &mut Vec<PathBuf>) -> Result<()> {
        for h in &self.layout.hierarchies {
            let dir = self.dir(h);
            let mut above = self.above(h);
            if let Some(path) = above.find(|dir| self.own_only && Mark::container(dir).is_some()) {
                return Err(Error::Foreign {
                    path,
                    reason: "it is another container's",
                });
            }
            // systemd refuses a unit that is there already, and its placeholder is in the groups that it made.
            if make_group(h, &dir, Mark::Container(&self.id))? {
                new.push(dir.clone());
            } else if self.unit.is_none() {
                if self.own_only && Mark::container(&dir).is_none() {
                    return Err(Error::Foreign {
                        path: dir,
                        reason: "it exists already, and no Cofferdam container has left it",
                    });
                }
                if has_processes(&dir)? {
                    return Err(Error::Foreign {
                        path: dir,
                        reason: "container's cgroup is not empty: it has processes of another container",
                    });
                }
            }
            if is_frozen(h, &dir) {
                return Err(Error::Foreign {
                    path: dir,
                    reason: "container's cgroup unexpectedly frozen, itself or by a group above it: nothing could run in it",
                });
            }
            if h.v2 {
                v2::enable_controllers(&h.mount, &self.path_in(h));
            } else if h.has("cpuset") {
                v1::inherit_cpuset(&h.mount, &self.path_in(h))?;
            }
        }
        Ok(())
    }

    /// How many times the OOM killer has struck here. `None` where there is no memory controller.
    pub fn oom_kills(&self) -> Option<u64> {
        let h = self.layout.find("memory")?;
        let file = self.dir(h).join(if h.v2 {
            "memory.events"
        } else {
            "memory.oom_control"
        });
        stats::flat_keyed(&file)
            .into_iter()
            .find(|(k, _)| k == "oom_kill")
            .map(|(_, v)| v)
    }

    /// A descriptor that becomes readable when memory runs out here.
    pub fn watch_oom(&self) -> Option<OomWatch> {
        let h = self.layout.find("memory")?;
        OomWatch::new(&self.dir(h), h.v2).ok()
    }

    /// Removes the groups, and the directories above them that we made and nobody uses, waiting at most `within`
    /// for the kernel to let go of exiting processes.
    pub fn remove(&self, within: Duration) -> Result<()> {
        self.remove_those(within, |_| true)
    }

    fn remove_those(&self, within: Duration, is_ours: impl Fn(&Path) -> bool) -> Result<()> {
        let deadline = Instant::now() + within;
        if let Some(groups) = &self.resctrl {
            groups.remove();
        }
        let mut result = match &self.unit {
            // What systemd leaves, or all where it cannot be reached any more, goes as ever.
            Some(unit) => systemd::stop(unit),
            None => Ok(()),
        };
        for h in &self.layout.hierarchies {
            let dir = self.dir(h);
            if !is_ours(&dir) {
                continue;
            }
            if let Err(e) = remove_tree(&dir, deadline) {
                result = Err(e);
                continue;
            }
            // An earlier removal may have been killed half-way.
            for dir in self.above(h).filter(|dir| dir.exists()) {
                if !Mark::is_above(&dir) || fs::remove_dir(&dir).is_err() {
                    break;
                }
            }
        }
        result
    }

    /// The directories above, the nearest first, without the hierarchy's root.
    fn above<'a>(&'a self, h: &'a Hierarchy) -> impl Iterator<Item = PathBuf> + 'a {
        let top = h.group_of(&self.below).unwrap_or(Path::new(""));
        let top = h.mount.join(top.strip_prefix("/").unwrap_or(top));
        let parents = self.path.ancestors().skip(1);
        parents
            .filter(|p| !p.as_os_str().is_empty())
            .map(move |p| top.join(p))
    }

    /// Whether the existing groups were made for this very container, as their marks say. A creation that was killed half-way may not
    /// have marked the last one, which is empty.
    pub fn is_marked(&self) -> bool {
        let all = self.layout.hierarchies.iter().map(|h| self.dir(h));
        let mut marked = false;
        for dir in all.filter(|dir| dir.exists()) {
            match Mark::container(&dir) {
                Some(id) if id == self.id => marked = true,
                None if has_processes(&dir).is_ok_and(|has| !has) => {}
                _ => return false,
            }
        }
        marked
    }

    /// Whether somebody else removes the groups when their last process ends: systemd does.
    pub fn is_managed_by_systemd(&self) -> bool {
        self.unit.is_some()
    }

    /// Whether any hierarchy still has the group.
    pub fn exists(&self) -> bool {
        self.layout.hierarchies.iter().any(|h| self.dir(h).exists())
    }
}

/// The group of a user's own systemd, which its units are below.
fn own_of_user(layout: &Layout, unit: &Unit) -> Result<OwnGroups> {
    if !layout.is_v2() {
        return Err(Error::Systemd {
            unit: unit.text.clone(),
            reason: "systemd gives groups to users other than root on cgroup v2 only; use --cgroup-manager cgroupfs".into(),
        });
    }
    let group = systemd::group_of_user(unit)?;
    Ok(vec![(String::new(), group)])
}

/// A container without groups has no limits, whatever its spec says.
fn warn_of_limits(resources: Option<&LinuxResources>) {
    let Some(r) = resources else { return };
    let asked = [
        ("memory", r.memory().is_some()),
        ("cpu", r.cpu().is_some()),
        ("pids", r.pids().as_ref().is_some_and(|p| p.limit() > 0)),
        ("blockIO", r.block_io().is_some()),
        (
            "hugepageLimits",
            r.hugepage_limits().as_ref().is_some_and(|l| !l.is_empty()),
        ),
        (
            "unified",
            r.unified().as_ref().is_some_and(|u| !u.is_empty()),
        ),
    ];
    let asked: Vec<&str> = asked
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
        .collect();
    if !asked.is_empty() {
        log::warn!(
            "linux.resources: {} not enforced: this user may make no control groups (on cgroup v2 systemd can delegate some)",
            asked.join(", ")
        );
    }
}

/// Whether what is in a group stands still, by its own state or by that of a group above it.
fn is_frozen(h: &Hierarchy, dir: &Path) -> bool {
    if h.v2 {
        let events = stats::flat_keyed(&dir.join("cgroup.events"));
        return events
            .iter()
            .any(|(key, value)| key == "frozen" && *value == 1);
    }
    let state = h
        .has("freezer")
        .then(|| fs::read_to_string(dir.join("freezer.state")));
    state.is_some_and(|state| state.is_ok_and(|s| s.trim() != "THAWED"))
}

/// Holds the groups of a systemd scope until the container's first process is there; ends when it is dropped.
#[derive(Debug)]
pub struct Placeholder {
    process: sys::process::Sleeper,
}
