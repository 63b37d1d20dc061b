//! Which parts of the node a container may see: judged by what was opened, not by how it is spelled.

use std::cell::OnceCell;
use std::fs;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use super::place::{Place, parts, resolved};
use super::profile::{HostNamespace, Profile};
use super::refusal::Refusal;
use crate::oci::path::lexical;
use crate::oci::{Kind, Links, Mount, Opened, Request, Source};
use crate::procfs::MountInfo;
use crate::sys::mount::{self, magic};

/// File systems of the kernel's own, which show the node whatever their path is.
const KERNEL: [i64; 12] = [
    magic::PROC,
    magic::SYSFS,
    magic::CGROUP,
    magic::CGROUP2,
    magic::DEBUGFS,
    magic::TRACEFS,
    magic::SECURITYFS,
    magic::BPF,
    magic::BINFMT_MISC,
    magic::CONFIGFS,
    magic::EFIVARFS,
    magic::SELINUXFS,
];

/// Judges every bind source, and the root.
pub(super) fn judge(
    profile: &Profile,
    place: &Place,
    request: &mut Request,
) -> Result<(), Refusal> {
    let judge = Judge {
        profile,
        place,
        pod: place.pod(),
        host_ipc: request.namespaces.ipc.is_host(),
        hidden: OnceCell::new(),
        forbidden: OnceCell::new(),
        mounts: OnceCell::new(),
    };
    for m in &request.mounts {
        if let Kind::Bind { source, .. } = &m.kind {
            judge.volume(m, source)?;
        }
    }
    let listed = profile.pod.host_paths.as_deref().unwrap_or_default();
    if !place.has_own_bundle(listed) {
        return Err(Refusal::new(
            profile,
            "a bundle where containers can write, or of an engine and not named after the container (bundle)",
            "make it in a directory of its own",
        ));
    }
    judge.root(&request.root.source)?;
    // What makes the root up is mounted there by its path: as it was judged, without links.
    if let Ok(opened) = &request.root.source.opened {
        request.root.source.path.clone_from(&opened.real);
    }
    Ok(())
}

struct Judge<'a> {
    profile: &'a Profile,
    place: &'a Place,
    /// kubelet's directory of this pod.
    pod: Option<PathBuf>,
    host_ipc: bool,
    /// What no pod of a class may see.
    hidden: OnceCell<Vec<PathBuf>>,
    /// What the profile forbids beside that.
    forbidden: OnceCell<Vec<PathBuf>>,
    /// The node's mounts; none where they cannot be read.
    mounts: OnceCell<Option<Vec<MountInfo>>>,
}

impl Judge<'_> {
    fn refuse(&self, what: String, shows: &str, remedy: &str) -> Refusal {
        Refusal::new(self.profile, format!("{what}{shows})"), remedy)
    }

    /// Read after everything that is judged was opened, so that all of it is there.
    fn mounts(&self) -> Option<&[MountInfo]> {
        let mounts = self.mounts.get_or_init(|| MountInfo::of_self().ok());
        mounts.as_deref()
    }

    fn volume(&self, m: &Mount, source: &Source) -> Result<(), Refusal> {
        let what = format!(
            "the hostPath volume {} at {} ({}; ",
            source.path.display(),
            m.destination.display(),
            m.field()
        );
        let refuse = |shows: &str, remedy: &str| Err(self.refuse(what.clone(), shows, remedy));
        let opened = match &source.opened {
            Ok(opened) => Some(opened),
            Err(Errno::ELOOP) => {
                return refuse(
                    "on the way to it is a symbolic link that others than root can make",
                    "name the path that the link leads to",
                );
            }
            // The mount itself says what is wrong, in its turn.
            Err(_) => None,
        };
        let real = opened.map_or_else(|| resolved(&lexical(&source.path)), |o| o.real.clone());
        if opened.is_some_and(|o| o.deleted) {
            return refuse("it was removed", "remove the volume from the pod");
        }
        if self.is_of_pod(&real, opened) || self.place.is_of_engine(&real) {
            return Ok(());
        }
        // CRI gives this one to pods with hostIPC, which are judged as such.
        let shm = Path::new("/dev/shm");
        if real == shm && m.destination == shm && self.host_ipc && self.allows(HostNamespace::Ipc) {
            return Ok(());
        }
        let remedy = "remove the volume from the pod";
        if let Some(shown) = self.shows_hidden(&real, opened) {
            return refuse(&format!("it shows {}", shown.display()), remedy);
        }
        if self.is_listed(&real) {
            let recursive = matches!(
                m.kind,
                Kind::Bind {
                    recursive: true,
                    ..
                }
            );
            let below = recursive.then(|| self.shows_below(&real)).flatten();
            return match below {
                Some(shown) => refuse(
                    &format!("below it is mounted what shows {}", shown.display()),
                    "name a directory without it",
                ),
                None => Ok(()),
            };
        }
        let shows = format!("{} is not below one of pod.host_paths", real.display());
        let remedy = format!("remove the volume from the pod{}", Self::hint(&real));
        let refusal = self.refuse(what, &shows, &remedy);
        Err(refusal.by("pod.host_paths"))
    }

    fn allows(&self, namespace: HostNamespace) -> bool {
        let list = self.profile.pod.host_namespaces.as_ref();
        list.is_none_or(|l| l.contains(&namespace))
    }

    /// A kubelet whose directory is elsewhere makes volumes that look like anybody's.
    fn hint(real: &Path) -> &'static str {
        let text = real.to_string_lossy();
        if text.contains("/pods/") && text.contains("/volumes/") || text.ends_with("/etc-hosts") {
            ", or tell where kubelet's --root-dir is in /etc/cofferdam/node.conf (kubelet_root; `cofferdam check` compares)"
        } else {
            ""
        }
    }

    /// Whether kubelet made it for this pod.
    fn is_of_pod(&self, real: &Path, opened: Option<&Opened>) -> bool {
        let Some(pod) = &self.pod else { return false };
        match parts(real, pod).as_deref() {
            Some(["etc-hosts"] | ["volumes", _, _, ..] | ["containers", _, _]) => true,
            // A bind mount of kubelet's, of a part of any volume: of a hostPath, too.
            Some(["volume-subpaths", _, _, _, ..]) => {
                opened.is_some_and(|o| self.is_part_of_volume(o, &pod.join("volumes")))
            }
            _ => false,
        }
    }

    fn is_listed(&self, real: &Path) -> bool {
        let Some(list) = &self.profile.pod.host_paths else {
            return true;
        };
        let below = |allowed: &PathBuf| {
            // A link on the way that others than root can make lists what they like.
            let opened = Opened::open(allowed, Links::OfRoot);
            opened.is_ok_and(|o| real.starts_with(o.real))
        };
        list.iter().any(below)
    }

    /// The paths that no pod of a class may see.
    fn hidden(&self) -> &[PathBuf] {
        self.hidden.get_or_init(|| self.place.hidden())
    }

    /// The profile's `pod.forbidden_host_paths`, with their links resolved.
    fn forbidden(&self) -> &[PathBuf] {
        self.forbidden.get_or_init(|| {
            let list = self.profile.pod.forbidden_host_paths.iter();
            let real = list.map(|p| fs::canonicalize(p).unwrap_or_else(|_| lexical(p)));
            real.collect()
        })
    }

    /// The hidden or forbidden path that a path shows, by itself or as another name of it.
    fn shows_hidden(&self, real: &Path, opened: Option<&Opened>) -> Option<PathBuf> {
        if real == Path::new("/") {
            return Some("/".into());
        }
        let typ = opened.and_then(|o| mount::fs_magic(o.fd()).ok());
        if typ.is_some_and(|m| KERNEL.contains(&m)) {
            return Some("a file system of the kernel's".into());
        }
        let volumes = self.place.named_volumes();
        let names = match opened.map(|o| self.names(o, real)) {
            Some(None) => return Some(real.to_owned()),
            Some(Some(names)) => names,
            None => vec![real.to_owned()],
        };
        for name in names {
            if name == Path::new("/") {
                return Some(name);
            }
            // Volumes are in their engine's directory, which is hidden.
            let is_volume = volumes.iter().any(|v| name.starts_with(v) && name != *v);
            let hidden = if is_volume { &[] } else { self.hidden() };
            let shown = |h: &&PathBuf| name.starts_with(h) || h.starts_with(&name);
            if let Some(found) = hidden.iter().chain(self.forbidden()).find(shown) {
                return Some(found.clone());
            }
        }
        None
    }

    /// Every path under which this may be seen on the node: its own, and those of other mounts of the same file system. None where
    /// that cannot be told.
    fn names(&self, opened: &Opened, real: &Path) -> Option<Vec<PathBuf>> {
        let mounts = self.mounts()?;
        let (device, at) = origin(opened, mounts)?;
        let same = mounts.iter().filter(|m| m.device == device);
        // A part of a volume is bound there by kubelet: what it is a part of has another name, by which it is judged.
        let whole = same.filter(|m| !self.place.is_subpath(&m.point));
        let others = whole.filter_map(|m| Some(m.point.join(at.strip_prefix(&m.root).ok()?)));
        Some(std::iter::once(real.to_owned()).chain(others).collect())
    }

    /// Whether what was opened is in a volume that kubelet made, by where it is on its file system.
    fn is_part_of_volume(&self, opened: &Opened, volumes: &Path) -> bool {
        let Some(mounts) = self.mounts() else {
            return false;
        };
        let Some((device, at)) = origin(opened, mounts) else {
            return false;
        };
        let below = |dir: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|e| e.path()).collect()
        };
        let all = below(volumes).into_iter().flat_map(|plugin| below(&plugin));
        // CSI's volumes are mounted one directory further down.
        all.flat_map(|volume| [volume.join("mount"), volume])
            .filter_map(|volume| Opened::open(&volume, Links::OfRoot).ok())
            .filter(|volume| volume.real.starts_with(volumes))
            .any(|volume| {
                origin(&volume, mounts).is_some_and(|(d, root)| d == device && at.starts_with(root))
            })
    }

    /// What of the node's own is mounted somewhere below a path, and comes along with it.
    fn shows_below(&self, real: &Path) -> Option<PathBuf> {
        let Some(mounts) = self.mounts() else {
            return Some(real.to_owned());
        };
        let below = |m: &&MountInfo| m.point.starts_with(real) && m.point != real;
        let mut points = mounts.iter().filter(below).map(|m| &m.point);
        points.find_map(|point| match Opened::open(point, Links::OfRoot) {
            Ok(opened) => self.shows_hidden(&opened.real, Some(&opened)),
            Err(_) => Some(point.clone()),
        })
    }

    /// The root is the bundle's, or an image that an engine has unpacked; else it is a path of the node's like another.
    fn root(&self, source: &Source) -> Result<(), Refusal> {
        let opened = source.opened.as_ref().ok();
        let real = opened.map_or_else(|| resolved(&lexical(&source.path)), |o| o.real.clone());
        let what = format!("the root {} (root.path; ", source.path.display());
        // It would be made by its text.
        if opened.is_none() && source.path.components().any(|c| c == Component::ParentDir) {
            return Err(self.refuse(what, "it leads through ..", "name it without"));
        }
        if self.place.is_own_root(&real) {
            return Ok(());
        }
        if let Some(shown) = self.shows_hidden(&real, opened) {
            let shows = format!("it shows {}", shown.display());
            return Err(self.refuse(what, &shows, "use an image"));
        }
        if self.is_listed(&real) {
            return Ok(());
        }
        let shows = "it is not below one of pod.host_paths";
        Err(self
            .refuse(what, shows, "use an image")
            .by("pod.host_paths"))
    }
}

/// Where on its file system something is: the device, and the path from the file system's root.
fn origin<'a>(opened: &Opened, mounts: &'a [MountInfo]) -> Option<(&'a str, PathBuf)> {
    let (id, _) = mount::mount_of(opened.fd()).ok()?;
    let on = mounts.iter().find(|m| m.id == id)?;
    let rest = opened.real.strip_prefix(&on.point).ok()?;
    Some((&on.device, on.root.join(rest)))
}
