//! The spec's `mounts`: options to flags, attributes and parameters, `mount(8)` and OCI config.md "Mounts".

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::script::{CopyUp, Mount, Source, Step};
use super::{Error, PodUsers, Result, userns};
use crate::cgroup::Cgroup;
use crate::sys::mount::{MountAttr, attr};

/// Mount options, sorted by what they act on.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub bind: bool,
    pub recursive_bind: bool,
    /// Map ids; with `true`, also of what is mounted below.
    pub idmap: Option<bool>,
    /// A new file system starts with what the image has at the destination.
    pub copy_up: bool,
    pub set: u64,
    pub clear: u64,
    pub recursive_set: u64,
    pub recursive_clear: u64,
    /// `(MS_PRIVATE and kin, recursive)`.
    pub propagation: Vec<(u64, bool)>,
    /// Parameters of the file system: `(key, value)`.
    pub data: Vec<(String, Option<String>)>,
}

/// What one option word does to a mount attribute.
enum Effect {
    Set(u64),
    Clear(u64),
    /// One of the access-time settings, which exclude each other.
    Atime(u64),
}

fn attribute(word: &str) -> Option<Effect> {
    Some(match word {
        "ro" => Effect::Set(attr::RDONLY),
        "rw" => Effect::Clear(attr::RDONLY),
        "nosuid" => Effect::Set(attr::NOSUID),
        "suid" => Effect::Clear(attr::NOSUID),
        "nodev" => Effect::Set(attr::NODEV),
        "dev" => Effect::Clear(attr::NODEV),
        "noexec" => Effect::Set(attr::NOEXEC),
        "exec" => Effect::Clear(attr::NOEXEC),
        "nodiratime" => Effect::Set(attr::NODIRATIME),
        "diratime" => Effect::Clear(attr::NODIRATIME),
        "nosymfollow" => Effect::Set(attr::NOSYMFOLLOW),
        "symfollow" => Effect::Clear(attr::NOSYMFOLLOW),
        "relatime" | "atime" | "nostrictatime" => Effect::Atime(attr::RELATIME),
        "noatime" => Effect::Atime(attr::NOATIME),
        "strictatime" | "norelatime" => Effect::Atime(attr::STRICTATIME),
        _ => return None,
    })
}

fn apply(effect: Effect, set: &mut u64, clear: &mut u64) {
    match effect {
        Effect::Set(bit) => {
            *set |= bit;
            *clear &= !bit;
        }
        Effect::Clear(bit) => {
            *clear |= bit;
            *set &= !bit;
        }
        Effect::Atime(value) => {
            *set = *set & !attr::ATIME | value;
            *clear |= attr::ATIME; // the kernel wants the whole field cleared when it is set
        }
    }
}

impl Options {
    /// Parses the words. Unknown ones are the file system's own parameters.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut o = Self::default();
        for word in words {
            match word {
                "bind" => o.bind = true,
                "rbind" => {
                    o.bind = true;
                    o.recursive_bind = true;
                }
                "private" => o.propagation.push((libc::MS_PRIVATE, false)),
                "rprivate" => o.propagation.push((libc::MS_PRIVATE, true)),
                "slave" => o.propagation.push((libc::MS_SLAVE, false)),
                "rslave" => o.propagation.push((libc::MS_SLAVE, true)),
                "shared" => o.propagation.push((libc::MS_SHARED, false)),
                "rshared" => o.propagation.push((libc::MS_SHARED, true)),
                "unbindable" => o.propagation.push((libc::MS_UNBINDABLE, false)),
                "runbindable" => o.propagation.push((libc::MS_UNBINDABLE, true)),
                "defaults" | "" | "async" | "loud" | "nomand" | "nolazytime" | "noiversion"
                | "silent" | "remount" => {}
                "idmap" => o.idmap = Some(false),
                "ridmap" => o.idmap = Some(true),
                "tmpcopyup" => o.copy_up = true,
                _ => {
                    if let Some(effect) = attribute(word) {
                        apply(effect, &mut o.set, &mut o.clear);
                    } else if let Some(effect) = word.strip_prefix('r').and_then(attribute) {
                        apply(effect, &mut o.recursive_set, &mut o.recursive_clear);
                    } else {
                        let (key, value) = word
                            .split_once('=')
                            .map_or((word, None), |(k, v)| (k, Some(v)));
                        o.data.push((key.to_owned(), value.map(str::to_owned)));
                    }
                }
            }
        }
        o
    }

    fn attr(&self) -> MountAttr {
        MountAttr {
            attr_set: self.set,
            attr_clr: self.clear,
            ..MountAttr::default()
        }
    }

    fn recursive_attr(&self) -> MountAttr {
        MountAttr {
            attr_set: self.recursive_set,
            attr_clr: self.recursive_clear,
            ..MountAttr::default()
        }
    }
}

/// Paths below `/proc` that lxcfs and the like may cover; anything else there would let an image lie to our own writes.
const ALLOWED_IN_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
    "/proc/net/dev",
];

/// A C string, or an error that names the field.
pub(super) fn c_string(text: impl Into<Vec<u8>>, field: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::field(field, "contains a NUL byte"))
}

/// The destination without leading slash and dots, as a path relative to the root.
fn relative(dest: &Path, field: &str) -> Result<PathBuf> {
    let mut out = PathBuf::new();
    for part in dest.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if out.as_os_str().is_empty() {
        return Err(Error::field(
            field,
            "mounting over the root itself is not possible; set root.path instead",
        ));
    }
    Ok(out)
}

/// The maps of an id-mapped mount: its own, or the container's.
fn id_maps(
    m: &oci_spec::runtime::Mount,
    options: &Options,
    bind: bool,
    user: Option<&OwnedFd>,
    field: &str,
) -> Result<Option<(OwnedFd, bool)>> {
    let own = |l: &Option<Vec<_>>| {
        l.clone()
            .filter(|l: &Vec<oci_spec::runtime::LinuxIdMapping>| !l.is_empty())
    };
    let (uids, gids) = (own(m.uid_mappings()), own(m.gid_mappings()));
    let maps = match (uids, gids, options.idmap, user) {
        (None, None, None, _) => return Ok(None),
        (Some(uids), Some(gids), _, _) => userns::make(&uids, &gids, field)?,
        (None, None, Some(_), Some(user)) => {
            let copy = user.try_clone();
            copy.map_err(|e| Error::field(field, format!("duplicate a descriptor: {e}")))?
        }
        (None, None, Some(_), None) => {
            return Err(Error::field(
                field,
                "to map ids, it needs uidMappings and gidMappings, or a user namespace",
            ));
        }
        _ => {
            return Err(Error::field(
                field,
                "uidMappings and gidMappings come together",
            ));
        }
    };
    if !bind {
        return Err(Error::field(field, "only bind mounts can map ids"));
    }
    Ok(Some((maps, options.idmap == Some(true))))
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

/// Appends a step for each mount of the spec. Returns the indices of the steps whose source must be opened before
/// propagation is cut, because it is to stay shared with the node; before the container's user namespace is entered, because
/// its root may not reach or make the source; or to have its ids mapped.
pub(super) fn plan(
    spec: &Spec,
    cgroup: Option<&Cgroup>,
    users: Users<'_>,
    steps: &mut Vec<Step>,
) -> Result<Vec<usize>> {
    let user = users.namespace;
    let mut taken = Vec::new();
    let mount_label = mount_label(spec)?;
    for (i, m) in spec.mounts().iter().flatten().enumerate() {
        let field = format!("mounts[{i}]");
        let options = Options::parse(m.options().iter().flatten().map(String::as_str));
        let dest = relative(m.destination(), &format!("{field}.destination"))?;
        let absolute = Path::new("/").join(&dest);
        let fstype = m.typ().as_deref().unwrap_or("");
        let bind = options.bind || fstype == "bind" || fstype == "rbind";
        if fstype.is_empty() && !bind {
            return Err(Error::field(
                format!("{field}.type"),
                "is missing; a bind mount needs the option \"bind\" or \"rbind\"",
            ));
        }
        let in_proc = absolute.starts_with("/proc") && absolute != Path::new("/proc");
        if in_proc && !ALLOWED_IN_PROC.iter().any(|a| absolute == Path::new(a)) {
            return Err(Error::field(
                format!("{field}.destination"),
                format!(
                    "{}: nothing may be mounted inside /proc",
                    absolute.display()
                ),
            ));
        }
        if fstype == "cgroup" && !bind {
            let first = steps.len();
            cgroup_mount(spec, cgroup, &options, &dest, &field, steps)?;
            if user.is_some() {
                let is_bind = |s: &Step| {
                    matches!(
                        s,
                        Step::Mount(Mount {
                            source: Source::Bind { .. },
                            ..
                        })
                    )
                };
                let binds = steps
                    .iter()
                    .enumerate()
                    .skip(first)
                    .filter(|(_, s)| is_bind(s));
                taken.extend(binds.map(|(i, _)| i));
            }
            continue;
        }
        let is_proc = absolute == Path::new("/proc");
        let source_text = m
            .source()
            .as_ref()
            .map(|s| s.to_string_lossy().into_owned())
            .unwrap_or_default();
        let (source, label) = if bind {
            if source_text.is_empty() {
                return Err(Error::field(
                    format!("{field}.source"),
                    "a bind mount needs a source",
                ));
            }
            let recursive = options.recursive_bind || fstype == "rbind";
            let source = Source::Bind {
                path: c_string(source_text.as_str(), &field)?,
                recursive,
                procfs: is_proc,
            };
            (
                source,
                format!("{field}: bind {source_text} on {}", absolute.display()),
            )
        } else {
            if is_proc && fstype != "proc" {
                return Err(Error::field(
                    format!("{field}.type"),
                    format!("only a procfs may be mounted on /proc, not {fstype}"),
                ));
            }
            (
                new_file_system(fstype, &source_text, &options, mount_label, &field)?,
                format!("{field}: mount {fstype} on {}", absolute.display()),
            )
        };
        let copy_up = match (options.copy_up, fstype) {
            (false, _) => None,
            (true, "tmpfs") if options.data.iter().any(|(k, _)| k == "mode") => {
                Some(CopyUp::Contents)
            }
            (true, "tmpfs") => Some(CopyUp::All),
            (true, _) => {
                return Err(Error::field(
                    format!("{field}.options"),
                    "\"tmpcopyup\" is for a tmpfs only",
                ));
            }
        };
        let idmap = id_maps(m, &options, bind, user, &field)?;
        let is_shared = options
            .propagation
            .iter()
            .any(|(p, _)| *p == libc::MS_SHARED);
        let mut tree = None;
        if let (
            Source::Bind {
                path, recursive, ..
            },
            Some(pod),
            None,
        ) = (&source, users.pod, &idmap)
        {
            tree = pod.map_volume(path, *recursive, &format!("{field}.source"))?;
        }
        let by_child = if bind {
            tree.is_none() && (is_shared || user.is_some() || idmap.is_some())
        } else {
            fstype == "sysfs" && users.foreign_network
        };
        if by_child {
            taken.push(steps.len());
        }
        steps.push(Step::Mount(Mount {
            label,
            dest: c_string(dest.into_os_string().into_encoded_bytes(), &field)?,
            no_symlinks: matches!(fstype, "proc" | "sysfs"),
            source,
            attr: options.attr(),
            recursive_attr: options.recursive_attr(),
            propagation: options.propagation.clone(),
            tree,
            idmap,
            copy_up,
        }));
    }
    Ok(taken)
}

/// File systems whose `SELinux` labels the policy alone gives.
const WITHOUT_CONTEXT: [&str; 4] = ["proc", "sysfs", "mqueue", "cgroup2"];

/// The spec's `linux.mountLabel`: the `SELinux` context of what is in the container's file systems.
fn mount_label(spec: &Spec) -> Result<Option<&str>> {
    let label = spec
        .linux()
        .as_ref()
        .and_then(|l| l.mount_label().as_deref());
    let label = label.filter(|l| !l.is_empty());
    if label.is_some() && !Path::new("/sys/fs/selinux/enforce").exists() {
        return Err(Error::field(
            "linux.mountLabel",
            "SELinux is not enabled on this node",
        ));
    }
    Ok(label)
}

fn new_file_system(
    fstype: &str,
    source: &str,
    options: &Options,
    mount_label: Option<&str>,
    field: &str,
) -> Result<Source> {
    let mut params = Vec::new();
    if let Some(label) = mount_label.filter(|_| !WITHOUT_CONTEXT.contains(&fstype)) {
        let label = c_string(label, "linux.mountLabel")?;
        params.push((c"context".to_owned(), Some(label)));
    }
    if !source.is_empty() {
        params.push((c"source".to_owned(), Some(c_string(source, field)?)));
    }
    for (key, value) in &options.data {
        params.push((
            c_string(key.as_str(), field)?,
            value.as_deref().map(|v| c_string(v, field)).transpose()?,
        ));
    }
    Ok(Source::New {
        fstype: c_string(fstype, field)?,
        params,
    })
}

/// A `cgroup` mount: on v2 the one tree, on v1 a tmpfs with one mount per hierarchy. Without a cgroup namespace the
/// container's own groups are bound there, so that it does not see the node's.
fn cgroup_mount(
    spec: &Spec,
    cgroup: Option<&Cgroup>,
    options: &Options,
    dest: &Path,
    field: &str,
    steps: &mut Vec<Step>,
) -> Result<()> {
    let Some(cgroup) = cgroup else {
        return Err(Error::field(
            field,
            "a cgroup mount needs the container to have cgroups",
        ));
    };
    let namespaced = spec
        .linux()
        .iter()
        .flat_map(|l| l.namespaces().iter().flatten())
        .any(|n| {
            n.typ() == LinuxNamespaceType::Cgroup
                && n.path().as_ref().is_none_or(|p| p.as_os_str().is_empty())
        });
    let one = |h: &crate::cgroup::Hierarchy, dest: PathBuf, label: String| -> Result<Step> {
        let source = if namespaced {
            let params = if h.v2 {
                // nsdelegate and memory_recursiveprot belong to the node's own mount; a namespaced one may not change them.
                Vec::new()
            } else {
                h.controllers
                    .iter()
                    .map(|c| match c.split_once('=') {
                        Some((k, v)) => Ok((c_string(k, field)?, Some(c_string(v, field)?))),
                        None => Ok((c_string(c.as_str(), field)?, None)),
                    })
                    .collect::<Result<Vec<_>>>()?
            };
            // A named hierarchy has no controllers, and must say so.
            let named = h.controllers.iter().all(|c| c.starts_with("name=")) && !h.v2;
            let params = if named {
                std::iter::once((c"none".to_owned(), None))
                    .chain(params)
                    .collect()
            } else {
                params
            };
            Source::New {
                fstype: if h.v2 {
                    c"cgroup2".to_owned()
                } else {
                    c"cgroup".to_owned()
                },
                params,
            }
        } else {
            Source::Bind {
                path: c_string(
                    h.mount
                        .join(cgroup.path())
                        .into_os_string()
                        .into_encoded_bytes(),
                    field,
                )?,
                recursive: false,
                procfs: false,
            }
        };
        Ok(Step::Mount(Mount {
            label,
            dest: c_string(dest.into_os_string().into_encoded_bytes(), field)?,
            no_symlinks: true,
            source,
            attr: options.attr(),
            recursive_attr: options.recursive_attr(),
            propagation: options.propagation.clone(),
            tree: None,
            idmap: None,
            copy_up: None,
        }))
    };
    let layout = cgroup.layout();
    if let (true, Some(h)) = (layout.is_v2(), layout.unified()) {
        steps.push(one(
            h,
            dest.to_owned(),
            format!("{field}: mount cgroup2 on /{}", dest.display()),
        )?);
        return Ok(());
    }
    let dest_c = c_string(dest.as_os_str().as_encoded_bytes(), field)?;
    steps.push(Step::Mount(Mount {
        label: format!("{field}: mount tmpfs on /{}", dest.display()),
        dest: dest_c.clone(),
        no_symlinks: true,
        source: Source::New {
            fstype: c"tmpfs".to_owned(),
            params: vec![(c"mode".to_owned(), Some(c"755".to_owned()))],
        },
        // Read-only only when everything below is in place.
        attr: MountAttr {
            attr_set: options.set & !attr::RDONLY,
            attr_clr: options.clear,
            ..MountAttr::default()
        },
        recursive_attr: MountAttr::default(),
        propagation: options.propagation.clone(),
        tree: None,
        idmap: None,
        copy_up: None,
    }));
    for h in &layout.hierarchies {
        let Some(name) = h.mount.file_name() else {
            continue;
        };
        steps.push(one(
            h,
            dest.join(name),
            format!(
                "{field}: mount cgroup {} on /{}",
                name.display(),
                dest.join(name).display()
            ),
        )?);
        // cpu,cpuacct and the like are also known by each single name.
        if h.controllers.len() > 1 {
            for c in h.controllers.iter().filter(|c| !c.contains('=')) {
                steps.push(Step::Symlink {
                    target: c_string(name.as_encoded_bytes(), field)?,
                    path: c_string(dest.join(c).into_os_string().into_encoded_bytes(), field)?,
                    replace: false,
                });
            }
        }
    }
    if options.set & attr::RDONLY != 0 {
        steps.push(Step::ReadOnly(dest_c));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Options {
        Options::parse(words.iter().copied())
    }

    #[test]
    fn what_cri_generates() {
        let o = parse(&["nosuid", "strictatime", "mode=755", "size=65536k"]);
        assert_eq!(o.set, attr::NOSUID | attr::STRICTATIME);
        assert_eq!(o.clear, attr::ATIME);
        assert_eq!(
            o.data,
            [
                ("mode".into(), Some("755".into())),
                ("size".into(), Some("65536k".into()))
            ]
        );
        let o = parse(&["nosuid", "noexec", "newinstance", "ptmxmode=0666", "gid=5"]);
        assert_eq!(o.data.first().unwrap(), &("newinstance".into(), None));
        let o = parse(&["rbind", "rslave", "rro"]);
        assert!(o.bind && o.recursive_bind);
        assert_eq!(o.propagation, [(libc::MS_SLAVE, true)]);
        assert_eq!((o.set, o.recursive_set), (0, attr::RDONLY));
    }

    #[test]
    fn later_words_win() {
        let o = parse(&["ro", "rw", "noatime", "relatime"]);
        assert_eq!((o.set, o.clear), (0, attr::RDONLY | attr::ATIME));
        assert_eq!(parse(&["rw", "ro"]).set, attr::RDONLY);
    }

    #[test]
    fn destinations_stay_below_the_root() {
        assert_eq!(
            relative(Path::new("/a/../../b/./c"), "x").unwrap(),
            Path::new("b/c")
        );
        assert!(
            relative(Path::new("/.."), "mounts[3].destination")
                .unwrap_err()
                .to_string()
                .starts_with("mounts[3].destination")
        );
    }
}
