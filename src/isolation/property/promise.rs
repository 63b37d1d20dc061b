//! What a class promises, and what was judged, compared with the effects of a script.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::World;
use crate::executor::effects::Effect;
use crate::isolation::profile::Profile;
use crate::oci::{DeviceKind, Kind, Request, capabilities, is_default};
use crate::sys::mount::attr;

/// Every effect is one of the request's.
pub(super) fn judged_all(request: &Request, effects: &[Effect], told: &dyn Fn() -> String) {
    let mut mounts: Vec<_> = request.mounts.iter().collect();
    for effect in effects {
        match effect {
            Effect::Mount {
                at,
                what,
                attributes,
                ..
            } => {
                let is = |m: &&&crate::oci::Mount| {
                    let same = match (&m.kind, what) {
                        (Kind::Bind { source, .. }, Ok(id)) => {
                            source.opened.as_ref().is_ok_and(|o| (o.dev, o.ino) == *id)
                        }
                        (Kind::New { fstype, .. }, Err(typ)) => fstype == typ,
                        _ => false,
                    };
                    same && m.destination == *at && m.flags.effective() == *attributes
                };
                let found = mounts.iter().position(|m| is(&m));
                let device = at.starts_with("/dev") && *what == Err("device".to_owned());
                assert!(
                    found.is_some() || device,
                    "not judged: {effect:?} of {}",
                    told()
                );
                if let Some(i) = found {
                    mounts.remove(i);
                }
            }
            Effect::Root(dev, ino) => {
                let opened = request.root.source.opened.as_ref();
                let same = opened.is_ok_and(|o| (o.dev, o.ino) == (*dev, *ino));
                assert!(same, "another root: {effect:?} of {}", told());
            }
            Effect::Device(path, ..) => {
                let asked = request
                    .devices
                    .iter()
                    .any(|d| crate::oci::path::lexical(&d.path) == crate::oci::path::lexical(path));
                let default = crate::oci::NODES
                    .iter()
                    .any(|n| n.path.is_some_and(|p| path == &Path::new("/").join(p)));
                assert!(asked || default, "not judged: {effect:?} of {}", told());
            }
            _ => {}
        }
    }
    assert!(
        mounts.iter().all(|m| matches!(m.kind, Kind::Cgroup)),
        "lost: {mounts:?} of {}",
        told()
    );
}

/// Whether a path is one that the class may see: computed from inodes, by walking what it may.
pub(super) fn allowed_sources(
    profile: &Profile,
    world: &World,
    request: &Request,
) -> BTreeSet<(u64, u64)> {
    let at = |p: &str| world.dir.join(p);
    let mut roots = match request.annotation("io.kubernetes.cri.sandbox-uid") {
        Some("u1") => vec![
            at("kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v"),
            at("kubelet/pods/u1/etc-hosts"),
        ],
        Some("u2") => vec![at("kubelet/pods/u2/volumes/kubernetes.io~secret/s")],
        _ => Vec::new(),
    };
    if request.annotation("io.kubernetes.cri.sandbox-id") == Some("s1") {
        roots.push(at("root/io.containerd.grpc.v1.cri/sandboxes/s1/hosts"));
    }
    if profile.name == "listing" {
        roots.push(world.dir.join("srv"));
        roots.push(world.dir.join("srv/secret"));
        roots.push("/etc".into());
    }
    let id = |p: &PathBuf| fs::symlink_metadata(p).ok().map(|m| (m.dev(), m.ino()));
    roots.iter().filter_map(id).collect()
}

/// What a class promises, of the effects alone.
pub(super) fn within(
    profile: &Profile,
    request: &Request,
    sources: &BTreeSet<(u64, u64)>,
    effects: &[Effect],
    hooks: &[PathBuf],
    told: &dyn Fn() -> String,
) {
    let ceiling = profile.process.capabilities.iter().flatten();
    let bit = |n: &String| capabilities::NAMES.iter().position(|k| k == n);
    let ceiling = ceiling
        .filter_map(bit)
        .fold(0u64, |mask, bit| mask | 1 << bit);
    let node = |flag: i32| {
        let name = match flag {
            libc::CLONE_NEWNS => "mnt",
            libc::CLONE_NEWNET => "net",
            libc::CLONE_NEWIPC => "ipc",
            libc::CLONE_NEWUTS => "uts",
            libc::CLONE_NEWPID => "pid",
            libc::CLONE_NEWCGROUP => "cgroup",
            libc::CLONE_NEWUSER => "user",
            _ => "time",
        };
        crate::procfs::namespace("self", name).unwrap_or_default()
    };
    let mut new = 0u64;
    let mut joined = 0u64;
    let (mut no_new_privileges, mut core) = (false, None);
    let mut hidden: Vec<&PathBuf> = Vec::new();
    let mut read_only_root = false;
    for effect in effects {
        let fail = |why: &str| panic!("{why}: {effect:?} under {}", told());
        match effect {
            Effect::Mount {
                at,
                what,
                attributes,
                tree,
                recursive,
                shared,
                data,
            } => {
                let has = |bits: u64| attributes & bits == bits;
                if *shared {
                    fail("shared with the node");
                }
                match what {
                    // One of the default devices, made for the container where its own root cannot make it: in its place, or where
                    // the spec wants another name for it.
                    Err(typ) if typ == "device" => {
                        let default = |n: &crate::oci::Node| {
                            n.path.is_some_and(|p| *at == Path::new("/").join(p))
                        };
                        let asked = request.devices.iter().any(|d| {
                            crate::oci::path::lexical(&d.path) == crate::oci::path::lexical(at)
                                && is_default(d.kind, d.major, d.minor)
                        });
                        if !asked && !crate::oci::NODES.iter().any(default) {
                            fail("a device that is none of the default ones");
                        }
                    }
                    Ok(id) => {
                        if !sources.contains(id) {
                            fail("not the pod's");
                        }
                        let all = attr::NOSUID | attr::NODEV;
                        if !has(all) || (*recursive && tree & all != all) {
                            fail("set-user-ID programs or devices");
                        }
                        let below = attr::NOEXEC | attr::RDONLY;
                        if profile.filesystem.no_exec_mounts && *recursive && tree & below == 0 {
                            fail("programs in what is mounted below");
                        }
                        if profile.filesystem.no_exec_mounts
                            && !has(attr::NOEXEC)
                            && !has(attr::RDONLY)
                        {
                            fail("programs in a volume");
                        }
                    }
                    Err(typ) => {
                        let place = match typ.as_str() {
                            "proc" => "/proc",
                            "sysfs" => "/sys",
                            "devpts" => "/dev/pts",
                            "mqueue" => "/dev/mqueue",
                            "cgroup" | "cgroup2" => "/sys/fs/cgroup",
                            "tmpfs" => "",
                            _ => "?",
                        };
                        if !place.is_empty() && at != Path::new(place) {
                            fail("a file system where none is");
                        }
                        if matches!(typ.as_str(), "sysfs" | "cgroup" | "cgroup2")
                            && !has(attr::RDONLY)
                        {
                            fail("writable");
                        }
                        if !has(attr::NOSUID) {
                            fail("set-user-ID programs");
                        }
                        if typ == "proc" && profile.filesystem.hide_processes {
                            let hides: Vec<_> =
                                data.iter().filter(|(k, _)| k == "hidepid").collect();
                            let right = ("hidepid".to_owned(), Some("invisible".to_owned()));
                            if hides != [&right] {
                                fail("processes of others");
                            }
                        }
                    }
                }
                let covers = ["/proc", "/sys"].iter().any(|k| at.starts_with(k));
                let known = matches!(what, Err(t) if t != "tmpfs");
                if covers && !known && at != Path::new("/proc/meminfo") {
                    fail("covers the kernel's");
                }
            }
            Effect::Join(flag, dev, ino) => {
                if *flag != libc::CLONE_NEWUSER && (*dev, *ino) == node(*flag) {
                    fail("the node's namespace");
                }
                if *flag == libc::CLONE_NEWNS {
                    fail("mounts of others");
                }
                joined |= u64::from(flag.cast_unsigned());
            }
            Effect::New(flags) => new |= flags,
            Effect::Device(_, kind, major, minor) => {
                let harmless = match *kind {
                    libc::S_IFCHR => is_default(DeviceKind::Char, *major, *minor),
                    libc::S_IFIFO => true,
                    _ => false,
                };
                if !harmless {
                    fail("a device of the node's");
                }
            }
            Effect::Capabilities { all } if all & !ceiling != 0 => fail("above the ceiling"),
            Effect::Proc(path, _) => {
                let owned = [
                    "net",
                    "fs/mqueue",
                    "user",
                    "kernel/shm",
                    "kernel/msg",
                    "kernel/sem",
                ];
                let text = path.to_string_lossy();
                let below = text.strip_prefix("/proc/sys/");
                let is_owned = |rest: &str| owned.iter().any(|o| rest.starts_with(o));
                if below.is_some_and(|rest| !is_owned(rest)) || text.contains("/.") {
                    fail("a kernel parameter of the node's");
                }
            }
            Effect::NoNewPrivileges => no_new_privileges = true,
            Effect::Rlimit(libc::RLIMIT_CORE, soft, hard) => core = Some((*soft, *hard)),
            Effect::IoPriority(value) if value >> 13 == 1 => fail("real-time"),
            Effect::Scheduler(1 | 2 | 6) => fail("real-time"),
            Effect::Mask(path) => hidden.push(path),
            Effect::ReadOnlyRoot => read_only_root = true,
            _ => {}
        }
    }
    for flag in [
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWPID,
    ] {
        assert!(
            (new | joined) & u64::from(flag.cast_unsigned()) != 0,
            "the node's namespace {flag:#x}: {}",
            told()
        );
    }
    for flag in [libc::CLONE_NEWNS, libc::CLONE_NEWCGROUP] {
        assert!(
            new & u64::from(flag.cast_unsigned()) != 0,
            "no namespace of its own {flag:#x}: {}",
            told()
        );
    }
    assert!(no_new_privileges, "may gain privileges: {}", told());
    assert_eq!(core, Some((1, 1)), "core dumps: {}", told());
    for path in &profile.filesystem.masked_paths {
        let is_hidden = |path: &str| hidden.iter().any(|h| *h == Path::new(path));
        let all_hidden = match path.strip_suffix("/pci*") {
            None => is_hidden(path),
            Some(directory) => std::fs::read_dir(directory).unwrap().flatten().all(|e| {
                let name = e.file_name().into_string().unwrap();
                !name.starts_with("pci") || is_hidden(&format!("{directory}/{name}"))
            }),
        };
        assert!(all_hidden, "{path} is open: {}", told());
    }
    assert!(
        read_only_root || !profile.filesystem.read_only_root,
        "{}",
        told()
    );
    let listed = profile.pod.hooks.as_ref().expect("classes list hooks");
    for hook in hooks {
        assert!(
            listed.contains(hook),
            "the node runs {}: {}",
            hook.display(),
            told()
        );
    }
}
