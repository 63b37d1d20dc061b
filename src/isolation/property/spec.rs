//! Specs that ask for anything, in any spelling.

use serde_json::{Value, json};

use super::{Choices, world};
use crate::oci::capabilities;

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
pub(super) fn spec(choices: &mut Choices<'_>) -> Value {
    let text = include_str!("../../../fuzz/seeds/spec/containerd.json");
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
pub(super) fn is_odd(choices: &mut Choices<'_>) -> bool {
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
