//! From a container's mounts to steps. What is the node's is cloned here, from the very descriptor that was judged; the child only
//! attaches it.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::error::c_string;
use super::script::{CopyUp, Mount, Source, Step};
use super::{Error, PodUsers, Result, lsm, userns};
use crate::cgroup::Cgroup;
use crate::oci::{self, Flags, Kind, Request};
use crate::sys::creds;
use crate::sys::mount::{self as m, CWD, MountAttr, attr};

/// An absolute path of the container, as one relative to its root.
pub(super) fn below_root(path: &Path, field: &str) -> Result<CString> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    c_string(relative.as_os_str().as_encoded_bytes(), field)
}

/// The users of a container's files.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Users<'a> {
    /// Its user namespace, if it has one.
    pub namespace: Option<&'a OwnedFd>,
    /// The pod's, where all volumes are to be mapped.
    pub pod: Option<&'a PodUsers>,
    /// Its network belongs to another user namespace, whose root alone may mount a sysfs.
    pub foreign_network: bool,
}

/// What every mount of a spec needs to know.
struct Planner<'a> {
    request: &'a Request,
    cgroup: Option<&'a Cgroup>,
    users: Users<'a>,
    label: Option<&'a str>,
}

/// Appends a step for each mount of the spec. What is returned comes when everything below the mounts is made: what makes them
/// read-only.
pub(super) fn plan(
    request: &Request,
    cgroup: Option<&Cgroup>,
    users: Users<'_>,
    steps: &mut Vec<Step>,
) -> Result<Vec<Step>> {
    let planner = Planner {
        request,
        cgroup,
        users,
        label: mount_label(request)?,
    };
    let mut last: Vec<Last> = Vec::new();
    for mount in &request.mounts {
        // What another mount is about to cover is finished.
        let place = oci::path::lexical(&mount.destination);
        let covered = last.extract_if(.., |l| l.place.starts_with(&place));
        steps.extend(covered.map(Last::step));
        match mount.kind {
            Kind::Cgroup => planner.cgroup_view(mount, steps, &mut last)?,
            Kind::Bind { .. } => steps.push(Step::Mount(planner.one(mount)?)),
            Kind::New { .. } => {
                let mut planned = planner.one(mount)?;
                if mount.flags.effective() & planned.attr.attr_set & attr::RDONLY != 0 {
                    planned.attr.attr_set &= !attr::RDONLY;
                    last.push(Last {
                        place,
                        dest: planned.dest.clone(),
                    });
                }
                steps.push(Step::Mount(planned));
            }
        }
    }
    Ok(last.into_iter().map(Last::step).collect())
}

/// A mount that is made read-only when all below it is made.
struct Last {
    place: PathBuf,
    dest: CString,
}

impl Last {
    fn step(self) -> Step {
        Step::MakeReadOnly(self.dest)
    }
}

/// Whether one of the mounts is a sysfs that has to be made before the container's users are entered.
pub(super) fn needs_sysfs(request: &Request, users: Users<'_>) -> bool {
    users.foreign_network && request.mounts.iter().any(|m| m.fstype() == Some("sysfs"))
}

fn plain(flags: Flags) -> MountAttr {
    MountAttr {
        attr_set: flags.set,
        attr_clr: flags.clear,
        ..MountAttr::default()
    }
}

fn recursive(flags: Flags) -> MountAttr {
    MountAttr {
        attr_set: flags.recursive_set,
        attr_clr: flags.recursive_clear,
        ..MountAttr::default()
    }
}

/// A mount without attributes, of one of the devices that were made before: see [`Step::MakeDevices`].
pub(super) fn of_own(label: String, dest: CString, number: usize) -> Mount {
    Mount {
        source: Source::Device(number),
        ..of_empty(label, dest)
    }
}

/// A mount of something of the node's, cloned already.
pub(super) fn of_tree(label: String, dest: CString, tree: OwnedFd) -> Mount {
    Mount {
        source: Source::Tree {
            tree: Some(tree),
            recursive: false,
            procfs: false,
        },
        // It is not to appear on the node when something is mounted there.
        propagation: vec![(libc::MS_SLAVE, false)],
        ..of_empty(label, dest)
    }
}

/// A mount without attributes; what it is of is to be filled in.
fn of_empty(label: String, dest: CString) -> Mount {
    Mount {
        label,
        dest,
        no_symlinks: false,
        source: Source::Sysfs,
        attr: MountAttr::default(),
        recursive_attr: MountAttr::default(),
        propagation: Vec::new(),
        copy_up: None,
        keeps_mode: false,
    }
}

impl Planner<'_> {
    fn one(&self, mount: &oci::Mount) -> Result<Mount> {
        let field = mount.field();
        let dest = mount.destination.display();
        let is_proc = mount.destination == Path::new("/proc");
        let mut propagation = mount.propagation.clone();
        let (source, label) = match &mount.kind {
            Kind::Bind { source, recursive } => {
                let label = format!("{field}: bind {} on {dest}", source.path.display());
                // As after cutting the node's propagation: what the node mounts is seen, unless the root is to see nothing of it. What the
                // container mounts is seen by the node only if both the mount and the root are to be shared.
                if !(mount.is_shared() && self.is_root_shared()) {
                    propagation.insert(0, (self.cut(), *recursive));
                }
                let source = Source::Tree {
                    tree: Some(self.tree(mount, source, *recursive, &label)?),
                    recursive: *recursive,
                    procfs: is_proc,
                };
                (source, label)
            }
            Kind::New { fstype, source } => {
                let label = format!("{field}: mount {fstype} on {dest}");
                let source = if fstype == "sysfs" && self.users.foreign_network {
                    Source::Sysfs
                } else {
                    self.new_file_system(mount, fstype, source)?
                };
                (source, label)
            }
            Kind::Cgroup => return Err(Error::field(field, "is not one mount")),
        };
        if !mount.is_bind() && (mount.idmap.is_some() || !mount.uid_mappings.is_empty()) {
            return Err(Error::field(field, "only bind mounts can map ids"));
        }
        let has_mode = mount.data.iter().any(|(k, _)| k == "mode");
        let copy_up = match (mount.copy_up, has_mode) {
            (true, true) => Some(CopyUp::Contents),
            (true, false) => Some(CopyUp::All),
            (false, _) => None,
        };
        Ok(Mount {
            label,
            dest: below_root(&mount.destination, &field)?,
            no_symlinks: matches!(mount.fstype(), Some("proc" | "sysfs")),
            source,
            attr: plain(mount.flags),
            recursive_attr: recursive(mount.flags),
            propagation,
            copy_up,
            // As with runc.
            keeps_mode: !mount.copy_up && !has_mode && mount.fstype() == Some("tmpfs"),
        })
    }

    fn root_propagation(&self) -> Option<&str> {
        let linux = self.request.rest.linux().as_ref();
        linux.and_then(|l| l.rootfs_propagation().as_deref())
    }

    fn is_root_shared(&self) -> bool {
        matches!(self.root_propagation(), Some("shared" | "rshared"))
    }

    /// How a bind is cut off from the node unless its options say otherwise.
    fn cut(&self) -> u64 {
        match self.root_propagation() {
            Some("private" | "rprivate") => libc::MS_PRIVATE,
            _ => libc::MS_SLAVE,
        }
    }

    /// A clone of what was opened, with its ids mapped where they are to be.
    fn tree(
        &self,
        mount: &oci::Mount,
        source: &oci::Source,
        recursive: bool,
        label: &str,
    ) -> Result<OwnedFd> {
        let step = |op: &str, errno| Error::Step {
            what: label.to_owned(),
            op: op.to_owned(),
            errno,
        };
        let opened = source.opened.as_ref().map_err(|e| step("open_tree", *e))?;
        let field = mount.field();
        let maps = self.id_maps(mount, &field)?;
        if let (Some(pod), None) = (self.users.pod, &maps)
            && let Some(tree) =
                pod.map_volume(source, opened, recursive, &format!("{field}.source"))?
        {
            return Ok(tree);
        }
        let tree = m::open_tree_clone(opened.fd().as_fd(), c"", recursive)
            .map_err(|e| step("open_tree", e))?;
        if let Some((maps, recursive)) = maps {
            m::map_ids(tree.as_fd(), maps.as_fd(), recursive).map_err(|e| {
                step(
                    "map ids (can its file system, on this kernel?): mount_setattr",
                    e,
                )
            })?;
        }
        Ok(tree)
    }

    /// The maps of an id-mapped mount, its own or the container's; and whether what is mounted below gets them too.
    fn id_maps(&self, mount: &oci::Mount, field: &str) -> Result<Option<(OwnedFd, bool)>> {
        let (uids, gids) = (&mount.uid_mappings, &mount.gid_mappings);
        let tree = mount.idmap == Some(true);
        match (uids.is_empty(), gids.is_empty(), mount.idmap) {
            (true, true, None) => Ok(None),
            (false, false, _) => Ok(Some((userns::make(uids, gids, field)?, tree))),
            (true, true, Some(_)) => {
                let user = self.users.namespace.ok_or_else(|| {
                    Error::field(
                        field,
                        "to map ids, it needs uidMappings and gidMappings, or a user namespace",
                    )
                })?;
                let copy = user
                    .try_clone()
                    .map_err(|e| Error::field(field, format!("duplicate a descriptor: {e}")))?;
                Ok(Some((copy, tree)))
            }
            _ => Err(Error::field(
                field,
                "uidMappings and gidMappings come together",
            )),
        }
    }

    /// Whether the container's users are not the node's.
    fn is_of_user(&self) -> bool {
        self.users.namespace.is_some() || creds::is_in_user_namespace()
    }

    fn new_file_system(&self, mount: &oci::Mount, fstype: &str, source: &str) -> Result<Source> {
        let field = mount.field();
        let mut params = Vec::new();
        if let Some(label) = self.label.filter(|_| !WITHOUT_CONTEXT.contains(&fstype)) {
            let label = c_string(label, "linux.mountLabel")?;
            params.push((c"context".to_owned(), Some(label)));
        }
        if !source.is_empty() {
            params.push((c"source".to_owned(), Some(c_string(source, &field)?)));
        }
        for (key, value) in &mount.data {
            params.push((
                c_string(key.as_str(), &field)?,
                value.as_deref().map(|v| c_string(v, &field)).transpose()?,
            ));
        }
        Ok(Source::New {
            fstype: c_string(fstype, &field)?,
            params,
        })
    }

    /// A `cgroup` mount: on v2 the one tree, on v1 a tmpfs with one mount per hierarchy.
    fn cgroup_view(
        &self,
        mount: &oci::Mount,
        steps: &mut Vec<Step>,
        last: &mut Vec<Last>,
    ) -> Result<()> {
        let field = mount.field();
        let Some(cgroup) = self.cgroup else {
            return Err(Error::field(
                field,
                "a cgroup mount needs the container to have cgroups",
            ));
        };
        let dest = &mount.destination;
        let layout = cgroup.layout();
        if cgroup.is_none() {
            steps.push(Step::Mount(Self::node_groups(mount)?));
            return Ok(());
        }
        if let (true, Some(h)) = (layout.is_v2(), layout.unified()) {
            let label = format!("{field}: mount cgroup2 on {}", dest.display());
            steps.push(self.hierarchy(mount, cgroup, h, dest, label)?);
            return Ok(());
        }
        let dest_c = below_root(dest, &field)?;
        steps.push(Step::Mount(Mount {
            label: format!("{field}: mount tmpfs on {}", dest.display()),
            dest: dest_c.clone(),
            no_symlinks: true,
            source: Source::New {
                fstype: c"tmpfs".to_owned(),
                params: vec![(c"mode".to_owned(), Some(c"755".to_owned()))],
            },
            // Read-only only when everything below is in place.
            attr: MountAttr {
                attr_set: mount.flags.set & !attr::RDONLY,
                attr_clr: mount.flags.clear,
                ..MountAttr::default()
            },
            recursive_attr: MountAttr::default(),
            propagation: mount.propagation.clone(),
            copy_up: None,
            keeps_mode: false,
        }));
        for h in &layout.hierarchies {
            let Some(name) = h.mount.file_name() else {
                continue;
            };
            let at = dest.join(name);
            let label = format!(
                "{field}: mount cgroup {} on {}",
                name.display(),
                at.display()
            );
            steps.push(self.hierarchy(mount, cgroup, h, &at, label)?);
            // cpu,cpuacct and the like are also known by each single name.
            if h.controllers.len() > 1 {
                for c in h.controllers.iter().filter(|c| !c.contains('=')) {
                    steps.push(Step::Symlink {
                        target: c_string(name.as_encoded_bytes(), &field)?,
                        path: below_root(&dest.join(c), &field)?,
                        replace: false,
                    });
                }
            }
        }
        if mount.flags.effective() & attr::RDONLY != 0 {
            last.push(Last {
                place: oci::path::lexical(dest),
                dest: dest_c,
            });
        }
        Ok(())
    }

    /// For a container without groups of its own: those of its caller, as the node shows them, read-only.
    fn node_groups(mount: &oci::Mount) -> Result<Mount> {
        let field = mount.field();
        let source = "/sys/fs/cgroup";
        let label = format!("{field}: bind {source} on {}", mount.destination.display());
        let tree = m::open_tree_clone(CWD, c"/sys/fs/cgroup", true);
        let tree = tree.map_err(|errno| Error::Step {
            what: label.clone(),
            op: "open_tree".into(),
            errno,
        })?;
        let read_only = MountAttr {
            attr_set: attr::RDONLY,
            ..MountAttr::default()
        };
        Ok(Mount {
            recursive_attr: read_only,
            source: Source::Tree {
                tree: Some(tree),
                recursive: true,
                procfs: false,
            },
            propagation: vec![(libc::MS_SLAVE, true)],
            ..of_empty(label, below_root(&mount.destination, &field)?)
        })
    }

    /// One hierarchy. Without a cgroup namespace the container's own group is bound there, so that it does not see the node's; but on v2, as
    /// with every runtime, it sees the whole tree: its processes read paths of the node's in `/proc/self/cgroup`.
    fn hierarchy(
        &self,
        mount: &oci::Mount,
        cgroup: &Cgroup,
        h: &crate::cgroup::Hierarchy,
        dest: &Path,
        label: String,
    ) -> Result<Step> {
        let field = mount.field();
        let mut propagation = mount.propagation.clone();
        let namespace = &self.request.namespaces.cgroup;
        let whole = cgroup.is_v2() && namespace.is_host();
        let source = if namespace.is_new() || whole && !self.is_of_user() {
            new_hierarchy(h, &field)?
        } else {
            propagation.insert(0, (libc::MS_SLAVE, false));
            // In a user namespace the tree cannot be mounted, and is bound.
            let group: PathBuf = if whole {
                h.mount.clone()
            } else {
                cgroup.dir(h)
            };
            let group = c_string(group.into_os_string().into_encoded_bytes(), &field)?;
            let tree = m::open_tree_clone(CWD, &group, false).map_err(|errno| Error::Step {
                what: label.clone(),
                op: "open_tree".into(),
                errno,
            })?;
            Source::Tree {
                tree: Some(tree),
                recursive: false,
                procfs: false,
            }
        };
        Ok(Step::Mount(Mount {
            label,
            dest: below_root(dest, &field)?,
            no_symlinks: true,
            source,
            attr: plain(mount.flags),
            recursive_attr: recursive(mount.flags),
            propagation,
            copy_up: None,
            keeps_mode: false,
        }))
    }
}

fn new_hierarchy(h: &crate::cgroup::Hierarchy, field: &str) -> Result<Source> {
    if h.v2 {
        // nsdelegate and memory_recursiveprot belong to the node's own mount; a namespaced one may not change them.
        return Ok(Source::New {
            fstype: c"cgroup2".to_owned(),
            params: Vec::new(),
        });
    }
    let mut params = Vec::new();
    // A named hierarchy has no controllers, and must say so.
    if h.controllers.iter().all(|c| c.starts_with("name=")) {
        params.push((c"none".to_owned(), None));
    }
    for c in &h.controllers {
        params.push(match c.split_once('=') {
            Some((k, v)) => (c_string(k, field)?, Some(c_string(v, field)?)),
            None => (c_string(c.as_str(), field)?, None),
        });
    }
    Ok(Source::New {
        fstype: c"cgroup".to_owned(),
        params,
    })
}

/// File systems whose `SELinux` labels the policy alone gives.
const WITHOUT_CONTEXT: [&str; 4] = ["proc", "sysfs", "mqueue", "cgroup2"];

/// The spec's `linux.mountLabel`: the `SELinux` context of what is in the container's file systems.
fn mount_label(request: &Request) -> Result<Option<&str>> {
    let linux = request.rest.linux().as_ref();
    let label = linux.and_then(|l| l.mount_label().as_deref());
    let label = label.filter(|l| !l.is_empty());
    if label.is_some() {
        lsm::check_selinux("linux.mountLabel")?;
    }
    Ok(label)
}
