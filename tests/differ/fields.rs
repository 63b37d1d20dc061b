//! The fields of a spec, each with odd but valid values.

use serde_json::{Value, json};

use super::spec::Random;

type Field = fn(&mut Random, &mut Value);

pub const FIELDS: &[Field] = &[
    user,
    groups,
    umask,
    environment,
    home,
    directory,
    capabilities,
    ambient,
    rlimits,
    privileges,
    score,
    scheduler,
    io_priority,
    read_only_root,
    hostname,
    domainname,
    annotations,
    tmpfs,
    bind_directory,
    bind_file,
    nested,
    over_links,
    kernel_mounts,
    dev_mount,
    cgroup_mount,
    copy_up,
    fewer_mounts,
    propagation,
    fewer_namespaces,
    cgroup_namespace,
    time_namespace,
    user_namespace,
    sysctl,
    devices,
    masked,
    read_only_paths,
    memory,
    cpu,
    pids,
    cpuset,
    block_io,
    device_rules,
    zeros,
    cgroups_path,
    filter,
    personality,
    hooks,
    labels,
    version,
    arguments,
    console,
];

fn push(list: &mut Value, value: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(value),
        None => *list = json!([value]),
    }
}

fn user(r: &mut Random, s: &mut Value) {
    s["process"]["user"]["uid"] = json!(r.pick(&[0, 1, 1000, 65534, 65535, 70000]));
    s["process"]["user"]["gid"] = json!(r.pick(&[0, 1, 1000, 65534, 70000]));
}

fn groups(r: &mut Random, s: &mut Value) {
    s["process"]["user"]["additionalGids"] = json!(r.some(&[0, 5, 5, 7, 1000, 65534]));
}

fn umask(r: &mut Random, s: &mut Value) {
    s["process"]["user"]["umask"] = json!(r.pick(&[0, 0o22, 0o27, 0o77, 0o777]));
}

fn environment(r: &mut Random, s: &mut Value) {
    let all = [
        "A=1",
        "A=2",
        "B=",
        "C=x=y",
        "D=with space",
        "E=\n",
        "LONG=",
        "_=x",
        "1=2",
        "F=ü",
    ];
    let mut env = vec!["PATH=/bin"];
    env.extend(r.some(&all));
    s["process"]["env"] = json!(env);
}

fn home(r: &mut Random, s: &mut Value) {
    let home = *r.pick(&["HOME=", "HOME=/x", "HOME=/x/y"]);
    push(&mut s["process"]["env"], json!(home));
    if r.one_in(3) {
        push(&mut s["process"]["env"], json!("HOME="));
    }
}

fn directory(r: &mut Random, s: &mut Value) {
    let all = [
        "/",
        "/tmp",
        "/tmp/",
        "/no/such/directory",
        "/tmp/../etc",
        "/root",
        "//etc//",
        "/dev",
        "/proc",
    ];
    s["process"]["cwd"] = json!(r.pick(&all));
}

const CAPS: [&str; 8] = [
    "CAP_CHOWN",
    "CAP_KILL",
    "CAP_SETUID",
    "CAP_NET_RAW",
    "CAP_SYS_ADMIN",
    "CAP_MKNOD",
    "CAP_SYS_CHROOT",
    "CAP_SETFCAP",
];

fn capabilities(r: &mut Random, s: &mut Value) {
    let bounding = r.some(&CAPS);
    let permitted = r.some(&bounding);
    let effective = r.some(&permitted);
    s["process"]["capabilities"] =
        json!({ "bounding": bounding, "permitted": permitted, "effective": effective });
    if r.one_in(4) {
        s["process"].as_object_mut().unwrap().remove("capabilities");
    }
}

fn ambient(r: &mut Random, s: &mut Value) {
    let all = r.some(&CAPS);
    let some = r.some(&all);
    s["process"]["capabilities"] = json!({ "bounding": all, "permitted": all, "effective": all, "inheritable": some, "ambient": some });
}

fn rlimits(r: &mut Random, s: &mut Value) {
    let mut list = Vec::new();
    for name in r.some(&[
        "CORE", "NOFILE", "STACK", "CPU", "FSIZE", "AS", "MSGQUEUE", "NICE", "RTPRIO", "MEMLOCK",
    ]) {
        let value = match name {
            "AS" => 1_u64 << 34,
            "STACK" => 8 << 20,
            "FSIZE" => 1 << 30,
            "NICE" | "RTPRIO" | "MSGQUEUE" | "CORE" | "MEMLOCK" => 0,
            _ => 500,
        };
        list.push(json!({ "type": format!("RLIMIT_{name}"), "soft": value, "hard": value }));
    }
    s["process"]["rlimits"] = json!(list);
}

fn privileges(r: &mut Random, s: &mut Value) {
    s["process"]["noNewPrivileges"] = json!(r.one_in(2));
}

fn score(r: &mut Random, s: &mut Value) {
    s["process"]["oomScoreAdj"] = json!(r.pick(&[0, 1, 500, 1000]));
}

fn scheduler(r: &mut Random, s: &mut Value) {
    let policy = *r.pick(&["SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE"]);
    s["process"]["scheduler"] = json!({ "policy": policy, "nice": r.pick(&[0, 5, 19]) });
}

fn io_priority(r: &mut Random, s: &mut Value) {
    let class = *r.pick(&["IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"]);
    s["process"]["ioPriority"] = json!({ "class": class, "priority": r.below(8) });
}

fn read_only_root(_: &mut Random, s: &mut Value) {
    s["root"]["readonly"] = json!(true);
}

fn hostname(r: &mut Random, s: &mut Value) {
    s["hostname"] = json!(r.pick(&["", "a", "with.dots.and-dashes", "UPPER"]));
}

fn domainname(r: &mut Random, s: &mut Value) {
    s["domainname"] = json!(r.pick(&["", "example.org"]));
}

fn annotations(r: &mut Random, s: &mut Value) {
    s["annotations"] = json!({ "a": "b", "org.example/x": if r.one_in(2) { "" } else { "ü\n" } });
}

const OPTIONS: [&str; 12] = [
    "ro",
    "rw",
    "nosuid",
    "nodev",
    "noexec",
    "noatime",
    "relatime",
    "nodiratime",
    "strictatime",
    "suid",
    "exec",
    "dev",
];

fn tmpfs(r: &mut Random, s: &mut Value) {
    let mut options = r.some(&OPTIONS);
    options.extend(r.some(&["mode=0700", "size=1m", "nr_inodes=100"]));
    let at = *r.pick(&[
        "/tmp",
        "/new",
        "/new/deep/er",
        "/etc",
        "/mnt/../other",
        "/run/",
    ]);
    push(
        &mut s["mounts"],
        json!({ "destination": at, "type": "tmpfs", "source": "tmpfs", "options": options }),
    );
}

fn bind(r: &mut Random, s: &mut Value, source: &str, at: &str) {
    let mut options = vec![*r.pick(&["bind", "rbind"])];
    options.extend(r.some(&OPTIONS));
    if r.one_in(2) {
        options.push(*r.pick(&[
            "private",
            "rprivate",
            "slave",
            "rslave",
            "shared",
            "rshared",
            "unbindable",
        ]));
    }
    let typ = *r.pick(&["bind", "none", ""]);
    push(
        &mut s["mounts"],
        json!({ "destination": at, "type": typ, "source": source, "options": options }),
    );
}

fn bind_directory(r: &mut Random, s: &mut Value) {
    let at = *r.pick(&["/data", "/data/x/y", "/tmp", "/home", "/dev/data"]);
    bind(r, s, "source/directory", at);
}

fn bind_file(r: &mut Random, s: &mut Value) {
    let at = *r.pick(&["/etc/passwd", "/etc/new", "/x/y/file", "/file"]);
    bind(r, s, "source/file", at);
}

fn nested(r: &mut Random, s: &mut Value) {
    let options = r.some(&["nosuid", "noexec", "ro"]);
    push(
        &mut s["mounts"],
        json!({ "destination": "/outer", "type": "tmpfs", "source": "tmpfs", "options": options }),
    );
    bind(r, s, "source/directory", "/outer/inner");
}

fn over_links(r: &mut Random, s: &mut Value) {
    // The root has these links: see `run`.
    let at = *r.pick(&[
        "/link-to-directory",
        "/link-to-nothing",
        "/link-to-file",
        "/link-up",
    ]);
    let source = if at == "/link-to-file" {
        "source/file"
    } else {
        *r.pick(&["source/file", "source/directory"])
    };
    if at == "/link-to-directory" || at == "/link-up" {
        bind(r, s, "source/directory", at);
    } else {
        bind(r, s, source, at);
    }
}

fn kernel_mounts(r: &mut Random, s: &mut Value) {
    let options = r.some(&["nosuid", "noexec", "nodev", "ro"]);
    let index = *r.pick(&[0, 5]);
    // Another field may have taken one away.
    if let Some(mount) = s["mounts"].get_mut(index) {
        mount["options"] = json!(options);
    }
}

fn dev_mount(r: &mut Random, s: &mut Value) {
    let mut options = r.some(&["nosuid", "noexec", "ro", "noatime"]);
    options.push("mode=755");
    s["mounts"][1]["options"] = json!(options);
}

fn cgroup_mount(r: &mut Random, s: &mut Value) {
    let mut options = r.some(&["nosuid", "noexec", "nodev", "relatime"]);
    options.push(*r.pick(&["ro", "rw"]));
    push(
        &mut s["mounts"],
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options }),
    );
}

fn copy_up(_: &mut Random, s: &mut Value) {
    push(
        &mut s["mounts"],
        json!({ "destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "nodev"] }),
    );
}

fn fewer_mounts(r: &mut Random, s: &mut Value) {
    let without = *r.pick(&["/dev/mqueue", "/dev/shm", "/sys", "/dev/pts"]);
    s["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|m| m["destination"] != without);
}

fn propagation(r: &mut Random, s: &mut Value) {
    let all = [
        "private", "rprivate", "slave", "rslave", "shared", "rshared", "",
    ];
    s["linux"]["rootfsPropagation"] = json!(r.pick(&all));
}

fn fewer_namespaces(r: &mut Random, s: &mut Value) {
    let without = *r.pick(&["network", "ipc", "uts", "pid"]);
    s["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|n| n["type"] != without);
    if without == "uts" {
        let spec = s.as_object_mut().unwrap();
        spec.remove("hostname");
        spec.remove("domainname");
    }
}

fn cgroup_namespace(_: &mut Random, s: &mut Value) {
    let list = s["linux"]["namespaces"].as_array().unwrap();
    if !list.iter().any(|n| n["type"] == "cgroup") {
        push(&mut s["linux"]["namespaces"], json!({ "type": "cgroup" }));
    }
}

fn time_namespace(r: &mut Random, s: &mut Value) {
    let list = s["linux"]["namespaces"].as_array().unwrap();
    if !list.iter().any(|n| n["type"] == "time") {
        push(&mut s["linux"]["namespaces"], json!({ "type": "time" }));
    }
    if r.one_in(2) {
        s["linux"]["timeOffsets"] =
            json!({ "monotonic": { "secs": 5, "nanosecs": 7 }, "boottime": { "secs": 100 } });
    }
}

fn user_namespace(r: &mut Random, s: &mut Value) {
    let list = s["linux"]["namespaces"].as_array().unwrap();
    if list.iter().any(|n| n["type"] == "user") {
        return;
    }
    push(&mut s["linux"]["namespaces"], json!({ "type": "user" }));
    // The root's owner is the node's root.
    let map = if r.one_in(2) {
        json!([{ "containerID": 0, "hostID": 0, "size": 80000 }])
    } else {
        json!([{ "containerID": 0, "hostID": 0, "size": 1 }, { "containerID": 1, "hostID": 200_001, "size": 79_999 }])
    };
    s["linux"]["uidMappings"] = map.clone();
    s["linux"]["gidMappings"] = map;
}

fn sysctl(r: &mut Random, s: &mut Value) {
    let all = [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ip_unprivileged_port_start", "0"),
        ("net/core/somaxconn", "100"),
        ("kernel.msgmax", "4096"),
        ("kernel.shm_rmid_forced", "1"),
    ];
    let some = r
        .some(&all)
        .into_iter()
        .map(|(k, v)| (k.to_owned(), json!(v)));
    s["linux"]["sysctl"] = Value::Object(some.collect());
}

fn devices(r: &mut Random, s: &mut Value) {
    let all = [
        json!({ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0, "gid": 0 }),
        json!({ "path": "/dev/x/y/kmsg", "type": "c", "major": 1, "minor": 11 }),
        json!({ "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 1000, "gid": 1000 }),
        json!({ "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 }),
        json!({ "path": "/dev/block", "type": "b", "major": 7, "minor": 0, "fileMode": 0o640, "gid": 6 }),
        json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o622 }),
        json!({ "path": "/elsewhere/zero", "type": "u", "major": 1, "minor": 5 }),
    ];
    s["linux"]["devices"] = json!(r.some(&all));
}

fn masked(r: &mut Random, s: &mut Value) {
    let all = [
        "/proc/acpi",
        "/proc/keys",
        "/etc",
        "/etc/passwd",
        "/no/such",
        "/sys/kernel",
        "/proc/sys",
        "/link-to-file",
        "/dev/zero",
    ];
    s["linux"]["maskedPaths"] = json!(r.some(&all));
}

fn read_only_paths(r: &mut Random, s: &mut Value) {
    let all = [
        "/proc/sys",
        "/etc",
        "/etc/passwd",
        "/no/such",
        "/tmp",
        "/dev/shm",
        "/link-to-directory",
    ];
    s["linux"]["readonlyPaths"] = json!(r.some(&all));
}

fn memory(r: &mut Random, s: &mut Value) {
    let mut m = json!({ "limit": r.pick(&[-1_i64, 64 << 20, 100_000_001]) });
    if r.one_in(2) {
        m["reservation"] = json!(32 << 20);
    }
    if r.one_in(2) {
        m["swap"] = json!(r.pick(&[-1_i64, 128 << 20]));
    }
    if r.one_in(4) {
        m["disableOOMKiller"] = json!(true);
    }
    if r.one_in(4) {
        m["swappiness"] = json!(10);
    }
    s["linux"]["resources"]["memory"] = m;
}

fn cpu(r: &mut Random, s: &mut Value) {
    let all = [
        ("shares", json!(2)),
        ("shares", json!(1024)),
        ("shares", json!(262_144)),
        ("quota", json!(5000)),
        ("quota", json!(-1)),
        ("period", json!(50_000)),
        ("idle", json!(1)),
        ("burst", json!(0)),
    ];
    let some = r.some(&all).into_iter().map(|(k, v)| (k.to_owned(), v));
    s["linux"]["resources"]["cpu"] = Value::Object(some.collect());
}

fn pids(r: &mut Random, s: &mut Value) {
    s["linux"]["resources"]["pids"] = json!({ "limit": r.pick(&[-1, 0, 50, 4_000_000]) });
}

fn cpuset(r: &mut Random, s: &mut Value) {
    s["linux"]["resources"]["cpu"]["cpus"] = json!(r.pick(&["0", "0-1", "1", ""]));
    s["linux"]["resources"]["cpu"]["mems"] = json!(r.pick(&["0", ""]));
}

fn block_io(r: &mut Random, s: &mut Value) {
    let device = json!([{ "major": 7, "minor": 0, "rate": r.pick(&[1_048_576, 100]) }]);
    let field = *r.pick(&[
        "throttleReadBpsDevice",
        "throttleWriteBpsDevice",
        "throttleReadIOPSDevice",
    ]);
    s["linux"]["resources"]["blockIO"] = json!({ field: device });
}

fn device_rules(r: &mut Random, s: &mut Value) {
    let all = [
        json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm" }),
        json!({ "allow": true, "type": "b", "access": "r" }),
        json!({ "allow": true, "type": "c", "major": 1, "access": "rw" }),
        json!({ "allow": false, "type": "c", "major": 1, "minor": 11, "access": "w" }),
        json!({ "allow": true, "type": "a", "access": "rwm" }),
        json!({ "allow": false, "access": "rwm" }),
    ];
    s["linux"]["resources"]["devices"] = json!(r.some(&all));
}

fn zeros(r: &mut Random, s: &mut Value) {
    let all = [
        ("memory", json!({ "limit": 0 })),
        (
            "cpu",
            json!({ "shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": "" }),
        ),
        ("blockIO", json!({ "weight": 0 })),
        ("hugepageLimits", json!([])),
        ("network", json!({})),
        ("unified", json!({})),
    ];
    for (key, value) in r.some(&all) {
        s["linux"]["resources"][key] = value;
    }
}

fn cgroups_path(r: &mut Random, s: &mut Value) {
    // `ID` is replaced by the container's.
    let all = [
        "/differ/ID",
        "/differ/a/b/c/ID",
        "differ/ID",
        "/differ//ID/",
        "",
    ];
    s["linux"]["cgroupsPath"] = json!(r.pick(&all));
}

fn filter(r: &mut Random, s: &mut Value) {
    let errno = if r.one_in(2) { json!(1) } else { json!(null) };
    let mut filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "no_such_call", "swapon"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno }]
    });
    if r.one_in(2) {
        filter["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
    }
    s["linux"]["seccomp"] = filter;
}

fn personality(r: &mut Random, s: &mut Value) {
    s["linux"]["personality"] = json!({ "domain": r.pick(&["LINUX", "LINUX32"]) });
}

fn hooks(r: &mut Random, s: &mut Value) {
    let hook = |kind: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("cat > /dev/null; echo {kind} >> LOG")], "env": ["PATH=/bin:/usr/bin"] }]);
    let kinds = r.some(&[
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ]);
    let all = kinds.into_iter().map(|k| (k.to_owned(), hook(k)));
    s["hooks"] = Value::Object(all.collect());
}

fn labels(_: &mut Random, s: &mut Value) {
    s["process"]["apparmorProfile"] = json!("");
    s["process"]["selinuxLabel"] = json!("");
    s["linux"]["mountLabel"] = json!("");
}

fn version(r: &mut Random, s: &mut Value) {
    s["ociVersion"] = json!(r.pick(&["1.0.0", "1.0.2-dev", "1.1.0", "1.2.1"]));
}

fn arguments(r: &mut Random, s: &mut Value) {
    let all = [
        json!(["/bin/sh", "-c", "exit 7"]),
        json!(["sh", "-c", "kill -9 $$"]),
        json!(["nosuch"]),
        json!(["/etc"]),
        json!(["/etc/passwd"]),
        json!(["/not-executable"]),
        json!(["/script"]),
        json!(["/no-interpreter"]),
        json!(["true", ""]),
        json!(["sh", "-c", "echo \u{fc}; exit 255"]),
        json!(["link-to-shell", "-c", "exit 3"]),
    ];
    s["process"]["args"] = r.pick(&all).clone();
}

fn console(_: &mut Random, s: &mut Value) {
    s["process"]["consoleSize"] = json!({ "width": 0, "height": 0 });
}
