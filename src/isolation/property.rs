//! For tests: any spec, under any class. What the executor would do is compared with what was judged, effect by effect, and with
//! what the class promises, computed here a second time and from the effects alone.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::profile::Profile;
use super::{Given, Node, Place, PodOfKubernetes, judge};
use crate::executor::effects::{Effect, effects};
use crate::oci::{DeviceKind, Kind, Links, Reading, Request, capabilities, is_default};
use crate::sys::mount::attr;

/// Choices: from a fuzzer's bytes, or from a generator of numbers when they are used up.
pub struct Choices<'a> {
    bytes: &'a [u8],
    state: u64,
}

impl<'a> Choices<'a> {
    /// The same bytes make the same choices.
    pub fn new(bytes: &'a [u8]) -> Self {
        let fold = |n: u64, b: &u8| n.wrapping_mul(0x100_0000_01b3) ^ u64::from(*b);
        Self {
            bytes,
            state: bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold),
        }
    }

    fn below(&mut self, n: usize) -> usize {
        if let Some((first, rest)) = self.bytes.split_first() {
            self.bytes = rest;
            return usize::from(*first) % n;
        }
        // splitmix64
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn one<'v, T>(&mut self, of: &'v [T]) -> &'v T {
        let i = self.below(of.len());
        &of[i]
    }

    fn some<T: Clone>(&mut self, of: &[T], most: usize) -> Vec<T> {
        let n = self.below(most + 1);
        (0..n).map(|_| self.one(of).clone()).collect()
    }
}

/// A small node below a temporary directory, made once: a kubelet with two pods, a containerd, and links.
struct World {
    dir: PathBuf,
    given: Given,
    classes: Vec<Profile>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("cdtest-world-{}", std::process::id()));
        let at = |p: &str| dir.join(p);
        for path in [
            "kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v",
            "kubelet/pods/u2/volumes/kubernetes.io~secret/s",
            "root/io.containerd.grpc.v1.cri/sandboxes/s1",
            "root/io.containerd.runtime.v2.task/k8s.io/c1",
            "state/io.containerd.runtime.v2.task/k8s.io/c1/rootfs",
            "srv",
        ] {
            fs::create_dir_all(at(path)).expect("a temporary directory");
        }
        for file in [
            "root/io.containerd.grpc.v1.cri/sandboxes/s1/hosts",
            "kubelet/pods/u1/etc-hosts",
            "srv/secret",
        ] {
            fs::write(at(file), "").expect("a temporary file");
        }
        let bundle = at("state/io.containerd.runtime.v2.task/k8s.io/c1");
        let link = |to: PathBuf, link: PathBuf| std::os::unix::fs::symlink(to, link).ok();
        link(
            at("root/io.containerd.runtime.v2.task/k8s.io/c1"),
            bundle.join("work"),
        );
        let volume = at("kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v");
        link("/".into(), volume.join("link"));
        link(at("kubelet/pods/u2"), volume.join("other"));
        let node = Node {
            kubelet_root: at("kubelet"),
            ..Node::default()
        };
        let given = Given {
            open_files: 20_000,
            core_size: u64::MAX,
            users: None,
            cgroup_v2: true,
            recursive_attributes: true,
            place: Place::of(&node, &bundle, "c1"),
            namespaces: Some(BTreeSet::new()),
        };
        let class = |name| Profile::load_from(Path::new("/nonexistent"), name).expect("built in");
        let mut classes = vec![class("hardened"), class("untrusted")];
        let mut listing = class("hardened");
        listing.name = "listing".into();
        listing.pod.host_paths = Some(vec![at("srv"), "/".into(), "/proc".into()]);
        listing.pod.hooks = Some(vec!["/bin/true".into()]);
        listing.filesystem.read_only_root = true;
        classes.push(listing);
        World {
            dir,
            given,
            classes,
        }
    })
}

const TYPES: [&str; 20] = [
    "bind",
    "rbind",
    "none",
    "",
    "proc",
    "sysfs",
    "tmpfs",
    "devpts",
    "mqueue",
    "cgroup",
    "cgroup2",
    "ramfs",
    "overlay",
    "ext4",
    "debugfs",
    "bpf",
    "devtmpfs",
    "binfmt_misc",
    "BIND",
    "tracefs",
];
const WORDS: [&str; 38] = [
    "ro",
    "rw",
    "rro",
    "rrw",
    "nosuid",
    "suid",
    "rsuid",
    "rnosuid",
    "nodev",
    "dev",
    "rdev",
    "noexec",
    "exec",
    "rexec",
    "bind",
    "rbind",
    "private",
    "rprivate",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "defaults",
    "remount",
    "noatime",
    "relatime",
    "strictatime",
    "nosymfollow",
    "rsymfollow",
    "tmpcopyup",
    "mode=755",
    "size=1k",
    "hidepid=0",
    "hidepid=off",
    "subset=",
    "uid=0",
    "lowerdir=/etc:/usr",
    "",
];
const PLACES: [&str; 18] = [
    "/proc",
    "/proc/",
    "//proc/.",
    "/sys",
    "/sys/fs/cgroup",
    "/sys/kernel",
    "/dev",
    "/dev/pts",
    "/dev/shm",
    "/dev/mqueue",
    "/data",
    "/proc/meminfo",
    "/proc/sys",
    "/x/../proc",
    "/p2",
    "relative",
    "/sys/../sys",
    "/etc/hosts",
];

/// A spec that asks for anything, in any spelling.
fn spec(choices: &mut Choices<'_>) -> Value {
    let text = include_str!("../../fuzz/seeds/spec/containerd.json");
    let mut json: Value = serde_json::from_str(text).expect("the seed is JSON");
    let dir = world().dir.display().to_string();
    let sources: Vec<String> = [
        "/kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v",
        "/kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v/link/etc",
        "/kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v/other",
        "/kubelet/pods/u1/etc-hosts",
        "/kubelet/pods/u1/../u2/volumes",
        "/kubelet/pods/u2/volumes/kubernetes.io~secret/s",
        "/kubelet",
        "/root/io.containerd.grpc.v1.cri/sandboxes/s1/hosts",
        "/root",
        "/state",
        "/srv",
        "/srv/secret",
        "/nothing",
    ]
    .iter()
    .map(|p| format!("{dir}{p}"))
    .chain(
        [
            "/",
            "/etc",
            "/proc",
            "/proc/self/root",
            "/sys",
            "/dev",
            "/dev/null",
            "/run",
            "tmpfs",
            "",
        ]
        .map(str::to_owned),
    )
    .collect();
    json["root"] = json!({ "path": "rootfs" });
    if is_odd(choices) {
        json["root"]["path"] = json!(choices.one(&["rootfs", "/", "/etc", "../c1/rootfs"]));
    }
    json["annotations"] = json!({
        "io.kubernetes.cri.sandbox-id": choices.one(&["s1", "s2", "..", ""]),
        "io.kubernetes.cri.sandbox-uid": choices.one(&["u1", "u1", "u2", "..", ".", ""]),
    });
    if choices.below(3) == 0 {
        json["mounts"] = json!([]);
    } else {
        let mounts = json["mounts"].as_array_mut().expect("the seed has mounts");
        mounts.retain(|m| m["type"] != "bind");
    }
    for _ in 0..choices.below(4) {
        let mut mount = json!({
            "type": choices.one(&TYPES),
            "source": choices.one(&sources),
            "destination": choices.one(&PLACES),
            "options": choices.some(&WORDS, 5),
        });
        if !is_odd(choices) {
            // In its place, or something of the pod's.
            let (typ, at) = choices.one(&[
                ("proc", "/proc"),
                ("sysfs", "/sys"),
                ("tmpfs", "/data"),
                ("devpts", "/dev/pts"),
                ("mqueue", "/dev/mqueue"),
                ("tmpfs", "/dev"),
                ("bind", "/data"),
                ("rbind", "/etc/hosts"),
            ]);
            mount["type"] = json!(typ);
            mount["destination"] = json!(at);
            mount["source"] = json!(choices.one(sources.get(..4).unwrap_or(&sources)));
        }
        if choices.below(8) == 0 {
            let map =
                json!([{ "containerID": 0, "hostID": choices.one(&[0, 655_360]), "size": 1 }]);
            mount["uidMappings"] = map.clone();
            mount["gidMappings"] = map;
        }
        json["mounts"].as_array_mut().expect("a list").push(mount);
    }
    namespaces(choices, &mut json);
    devices_and_hooks(choices, &mut json);
    process(choices, &mut json);
    json
}

/// Most specs have one or two odd parts: with more, nearly all are refused, and nothing is learnt of what is done.
fn is_odd(choices: &mut Choices<'_>) -> bool {
    choices.below(4) == 0
}

fn namespaces(choices: &mut Choices<'_>, json: &mut Value) {
    let mut list = Vec::new();
    for (typ, file) in [
        ("pid", "pid"),
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("mount", "mnt"),
        ("cgroup", "cgroup"),
        ("user", "user"),
        ("time", "time"),
    ] {
        // Mostly as containerd has them.
        let usual = !matches!(typ, "user" | "time" | "cgroup");
        let odd = usize::from(!is_odd(choices)) * 4;
        match odd.max(choices.below(14)) {
            0 => {}
            1 => list.push(json!({ "type": typ, "path": format!("/proc/self/ns/{file}") })),
            2 => list.push(json!({ "type": typ, "path": format!("/proc/thread-self/ns/{file}") })),
            3 => list.push(json!({ "type": typ, "path": "/proc/self/ns/net" })),
            4 => list.push(json!({ "type": typ, "path": "" })),
            _ if usual => list.push(json!({ "type": typ })),
            _ => {}
        }
    }
    if choices.below(12) == 0 {
        let (host, size) = (
            *choices.one(&[0u32, 65_536, 655_360, 0x7000_0000]),
            *choices.one(&[1u32, 65_536]),
        );
        let map = json!([{ "containerID": 0, "hostID": host, "size": size }]);
        json["linux"]["uidMappings"] = map.clone();
        json["linux"]["gidMappings"] = map;
    }
    json["linux"]["namespaces"] = list.into();
}

fn devices_and_hooks(choices: &mut Choices<'_>, json: &mut Value) {
    json["linux"]["devices"] = json!([]);
    for _ in 0..usize::from(is_odd(choices)) * choices.below(3) {
        let device = json!({
            "path": choices.one(&["/dev/x", "/dev/null", "/dev/../dev/y"]),
            "type": choices.one(&["c", "b", "u", "p", "a"]),
            "major": choices.one(&[1i64, 5, 8, 136, 254, -1, 4_294_967_297]),
            "minor": choices.one(&[0i64, 1, 3, 11, -1]),
        });
        json["linux"]["devices"]
            .as_array_mut()
            .expect("a list")
            .push(device);
    }
    json["hooks"] = json!({});
    if choices.below(4) == 0 {
        let kind = choices.one(&[
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ]);
        let path = choices.one(&["/bin/true", "/bin/../bin/true", "/bin/sh", "true"]);
        json["hooks"][*kind] = json!([{ "path": path }]);
    }
    let rules = |choices: &mut Choices<'_>| {
        json!({
            "allow": choices.below(2) == 0,
            "type": choices.one(&["a", "b", "c", "u"]),
            "major": choices.one(&[json!(null), json!(-1), json!(1), json!(5), json!(136)]),
            "minor": choices.one(&[json!(null), json!(-1), json!(1), json!(3), json!(11)]),
            "access": choices.one(&[json!("rwm"), json!("r"), json!("m"), json!(""), json!(null)]),
        })
    };
    let n = usize::from(is_odd(choices)) * choices.below(3);
    let rules: Vec<Value> = (0..n).map(|_| rules(choices)).collect();
    json["linux"]["resources"]["devices"] = rules.into();
    let value =
        |choices: &mut Choices<'_>| *choices.one(&["max", "1", "99999999999", "x", "max 1000", ""]);
    if choices.below(4) == 0 {
        let file = *choices.one(&[
            "pids.max",
            "memory.max",
            "memory.swap.max",
            "cpu.max",
            "memory.high",
        ]);
        json["linux"]["resources"]["unified"] = json!({ file: value(choices) });
    }
    json["linux"]["resources"]["pids"] = json!({ "limit": choices.one(&[-1i64, 0, 1, 1 << 40]) });
    if choices.below(10) == 0 {
        json["linux"]["netDevices"] = json!({ "eth0": {} });
    }
}

fn process(choices: &mut Choices<'_>, json: &mut Value) {
    let names = capabilities::NAMES;
    let p = &mut json["process"];
    let all = choices.some(&names, 8);
    for set in [
        "bounding",
        "effective",
        "permitted",
        "inheritable",
        "ambient",
    ] {
        p["capabilities"][set] = match choices.below(9) {
            0 => json!(choices.some(&names, 6)),
            _ => json!(all),
        };
    }
    p["noNewPrivileges"] = json!(choices.below(2) == 0);
    let mut limits = Vec::new();
    for _ in 0..choices.below(4) {
        let hard = *choices.one(&[0u64, 1, 1024, u64::MAX]);
        limits.push(json!({ "type": choices.one(&["RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_CPU"]), "soft": hard.min(1024), "hard": hard }));
    }
    p["rlimits"] = limits.into();
    if choices.below(20) == 0 {
        p["ioPriority"] =
            json!({ "class": choices.one(&["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE"]), "priority": 1 });
    }
    if choices.below(20) == 0 {
        p["scheduler"] = json!({ "policy": choices.one(&["SCHED_FIFO", "SCHED_OTHER", "SCHED_RR", "SCHED_DEADLINE"]) });
    }
    json["linux"]["maskedPaths"] =
        json!(choices.some(&["/proc/kcore", "/proc", "/proc/../proc/keys"], 2));
    json["linux"]["sysctl"] = json!({});
    if choices.below(8) == 0 {
        let name: &&str = choices.one(&[
            "net.ipv4.ip_unprivileged_port_start",
            "net/ipv4/./ip_forward",
            "kernel.shmmax",
            "kernel.core_pattern",
            "kernel/./core_pattern",
            "net/../kernel/core_pattern",
            "net.../kernel.core_pattern",
            "user.max_user_namespaces",
            "user/./max_user_namespaces",
            "fs.mqueue.msg_max",
            "vm.swappiness",
        ]);
        json["linux"]["sysctl"][*name] = json!("1");
    }
}

/// Makes a spec from bytes, and checks what becomes of it in each class. How many classes took it.
///
/// # Panics
/// Where an effect was not judged, or is beyond the class.
pub fn check(bytes: &[u8]) -> usize {
    let mut choices = Choices::new(bytes);
    let spec = spec(&mut choices);
    let world = world();
    let bundle = world
        .dir
        .join("state/io.containerd.runtime.v2.task/k8s.io/c1");
    let mut taken = 0;
    for profile in &world.classes {
        let Ok(parsed) = serde_json::from_value(spec.clone()) else {
            return taken;
        };
        let reading = Reading::Run(Links::OfRoot);
        let Ok(request) = Request::read(parsed, &bundle, reading) else {
            return taken;
        };
        let mut given = world.given.clone();
        given.place = given.place.of_pod(PodOfKubernetes::claimed(&request));
        let Ok(verdict) = judge(profile, &given, request) else {
            continue;
        };
        let Ok((effects, hooks)) = effects(&verdict.judged) else {
            continue;
        };
        taken += 1;
        let told = || format!("{}: {spec:#}", profile.name);
        judged_all(&verdict.judged, &effects, &told);
        let sources = allowed_sources(profile, world, &verdict.judged);
        within(profile, &sources, &effects, &hooks, &told);
    }
    taken
}

/// Every effect is one of the request's.
fn judged_all(request: &Request, effects: &[Effect], told: &dyn Fn() -> String) {
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
fn allowed_sources(profile: &Profile, world: &World, request: &Request) -> BTreeSet<(u64, u64)> {
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
fn within(
    profile: &Profile,
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
                    // Made for the container, where its own root cannot make it.
                    Err(typ) if typ == "device" => {
                        let default = |n: &crate::oci::Node| {
                            n.path.is_some_and(|p| *at == Path::new("/").join(p))
                        };
                        if !crate::oci::NODES.iter().any(default) {
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
                joined |= *flag as u64;
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
            (new | joined) & flag as u64 != 0,
            "the node's namespace {flag:#x}: {}",
            told()
        );
    }
    for flag in [libc::CLONE_NEWNS, libc::CLONE_NEWCGROUP] {
        assert!(
            new & flag as u64 != 0,
            "no namespace of its own {flag:#x}: {}",
            told()
        );
    }
    assert!(no_new_privileges, "may gain privileges: {}", told());
    assert_eq!(core, Some((1, 1)), "core dumps: {}", told());
    for path in &profile.filesystem.masked_paths {
        assert!(
            hidden.iter().any(|h| *h == Path::new(path)),
            "{path} is open: {}",
            told()
        );
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

#[cfg(test)]
mod tests {
    #[test]
    fn no_effect_is_beyond_a_class() {
        let cases: u64 = std::env::var("COFFERDAM_CASES")
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(20_000);
        let taken: usize = (0..cases)
            .map(|n| super::check(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()))
            .sum();
        assert!(
            taken as u64 > cases / 100,
            "{taken} of {cases}: the specs say nothing"
        );
        eprintln!("{cases} specs, {taken} times taken by a class");
        std::fs::remove_dir_all(&super::world().dir).ok();
    }
}
