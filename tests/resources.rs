//! `linux.resources`: what the kernel's control files say for each field, on whichever cgroup version this node has.

use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

use crate::support::spec::Bundle;
use crate::support::{Daemon, wait_until};

crate::cases!(ctr: [memory, cpu, pids, cpuset, hugepages, block_io, unified, device_rules, a_taken_path, default_path, refused_limit, update, out_of_memory]);

/// Whether this node is on cgroup v2.
pub fn is_v2() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A control file: its v1 controller and name, and its v2 name.
pub fn read(group: &str, v1: (&str, &str), v2: &str) -> String {
    let group = group.trim_start_matches('/');
    let path = if is_v2() {
        PathBuf::from(format!("/sys/fs/cgroup/{group}/{v2}"))
    } else {
        PathBuf::from(format!("/sys/fs/cgroup/{}/{group}/{}", v1.0, v1.1))
    };
    std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .trim()
        .to_owned()
}

fn with(d: &Daemon, id: &str, resources: Value, look: impl FnOnce(&str)) {
    let mut b = Bundle::new(d, id, &["sleep", "1000"]);
    for (key, value) in resources.as_object().unwrap() {
        b.set(&format!("/linux/resources/{key}"), value.clone());
    }
    b.run_detached();
    look(b.spec["linux"]["cgroupsPath"].as_str().unwrap());
    d.remove(id);
}

fn memory(d: &mut Daemon) {
    with(
        d,
        "memory",
        json!({ "memory": { "limit": 67_108_864, "swap": 67_108_864, "reservation": 33_554_432 } }),
        |group| {
            assert_eq!(
                read(group, ("memory", "memory.limit_in_bytes"), "memory.max"),
                "67108864"
            );
            assert_eq!(
                read(
                    group,
                    ("memory", "memory.soft_limit_in_bytes"),
                    "memory.low"
                ),
                "33554432"
            );
            assert_eq!(
                read(
                    group,
                    ("memory", "memory.memsw.limit_in_bytes"),
                    "memory.swap.max"
                ),
                if is_v2() { "0" } else { "67108864" }
            );
        },
    );
}

fn cpu(d: &mut Daemon) {
    with(
        d,
        "cpu",
        json!({ "cpu": { "shares": 512, "quota": 50_000, "period": 100_000 } }),
        |group| {
            if is_v2() {
                assert_eq!(read(group, ("", ""), "cpu.max"), "50000 100000");
                assert_eq!(read(group, ("", ""), "cpu.weight"), "59");
            } else {
                assert_eq!(read(group, ("cpu", "cpu.cfs_quota_us"), ""), "50000");
                assert_eq!(read(group, ("cpu", "cpu.cfs_period_us"), ""), "100000");
                assert_eq!(read(group, ("cpu", "cpu.shares"), ""), "512");
            }
        },
    );
}

fn pids(d: &mut Daemon) {
    with(d, "pids", json!({ "pids": { "limit": 5 } }), |group| {
        assert_eq!(read(group, ("pids", "pids.max"), "pids.max"), "5");
        let out = d.exec(
            &[],
            "pids",
            "bomb",
            &["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done"],
        );
        assert!(out.stderr.contains("fork"), "{out:?}");
    });
}

fn cpuset(d: &mut Daemon) {
    with(
        d,
        "cpuset",
        json!({ "cpu": { "cpus": "0", "mems": "0" } }),
        |group| {
            assert_eq!(read(group, ("cpuset", "cpuset.cpus"), "cpuset.cpus"), "0");
            let out = d
                .exec(
                    &[],
                    "cpuset",
                    "look",
                    &["grep", "Cpus_allowed_list", "/proc/self/status"],
                )
                .ok();
            assert_eq!(out.stdout.trim(), "Cpus_allowed_list:\t0");
        },
    );
}

fn hugepages(d: &mut Daemon) {
    with(
        d,
        "huge",
        json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }] }),
        |group| {
            // hugetlb is on the v2 tree of this hybrid machine, too.
            let tree = if is_v2() { "" } else { "unified/" };
            let v1 = PathBuf::from(format!(
                "/sys/fs/cgroup/hugetlb{group}/hugetlb.2MB.limit_in_bytes"
            ));
            let v2 = PathBuf::from(format!(
                "/sys/fs/cgroup/{tree}{}/hugetlb.2MB.max",
                group.trim_start_matches('/')
            ));
            let file = if v1.exists() { v1 } else { v2 };
            assert_eq!(
                std::fs::read_to_string(&file)
                    .unwrap_or_else(|e| panic!("{}: {e}", file.display()))
                    .trim(),
                "4194304"
            );
        },
    );
}

/// A disk of this machine, as `MAJOR:MINOR`.
fn disk() -> (u64, u64) {
    let name = std::fs::read_dir("/sys/block")
        .unwrap()
        .flatten()
        .map(|e| e.file_name().into_string().unwrap())
        .find(|n| n.starts_with("vd") || n.starts_with("sd"))
        .expect("a disk");
    let text = std::fs::read_to_string(format!("/sys/block/{name}/dev")).unwrap();
    let (major, minor) = text.trim().split_once(':').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap())
}

fn block_io(d: &mut Daemon) {
    let (major, minor) = disk();
    let throttle = json!([{ "major": major, "minor": minor, "rate": 1_048_576 }]);
    with(
        d,
        "io",
        json!({ "blockIO": { "throttleReadBpsDevice": throttle } }),
        |group| {
            let text = read(group, ("blkio", "blkio.throttle.read_bps_device"), "io.max");
            let expected = if is_v2() {
                format!("{major}:{minor} rbps=1048576")
            } else {
                format!("{major}:{minor} 1048576")
            };
            assert!(text.starts_with(&expected), "{text}");
        },
    );
}

fn unified(d: &mut Daemon) {
    if is_v2() {
        with(
            d,
            "unified",
            json!({ "unified": { "memory.high": "50000000", "pids.max": "9" } }),
            |group| {
                assert_eq!(read(group, ("", ""), "pids.max"), "9");
                assert_eq!(
                    read(group, ("", ""), "memory.high"),
                    (50_000_000 / 4096 * 4096).to_string()
                );
            },
        );
    } else {
        let mut b = Bundle::new(d, "unified", &["true"]);
        b.set("/linux/resources/unified", json!({ "memory.high": "1" }));
        let out = b.run();
        assert!(
            out.stderr
                .contains("linux.resources.unified[\"memory.high\"]: invalid configuration: this node runs cgroup v1"),
            "{out:?}"
        );
    }
}

fn device_rules(d: &mut Daemon) {
    let script = "mknod /fuse c 10 229; (exec 3< /fuse) && echo opens || echo denied; head -c 1 /dev/zero | wc -c";
    let run = |id: &str, rules: Value| {
        let mut b = Bundle::new(d, id, &["sh", "-c", script]);
        b.set("/linux/resources/devices", rules);
        b.run().ok().stdout
    };
    assert_eq!(
        run("denied", json!([{ "allow": false, "access": "rwm" }])),
        "denied\n1\n"
    );
    assert_eq!(
        run(
            "allowed",
            json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "r" }])
        ),
        "opens\n1\n"
    );
    assert_eq!(
        run("all", json!([{ "allow": true, "access": "rwm" }])),
        "opens\n1\n"
    );
}

fn a_taken_path(d: &mut Daemon) {
    let first = Bundle::new(d, "first", &["sleep", "1000"]);
    first.run_detached();
    let mut second = Bundle::new(d, "second", &["true"]);
    second.set(
        "/linux/cgroupsPath",
        first.spec["linux"]["cgroupsPath"].clone(),
    );
    let out = second.run();
    assert_ne!(out.status, 0);
    assert!(out.stderr.contains("is not empty"), "{out:?}");
    assert_eq!(
        d.task_status("first").as_deref(),
        Some("RUNNING"),
        "the first is left alone"
    );
    d.remove("first");
}

fn default_path(d: &mut Daemon) {
    // Below our own group, where other tests' containers are, too.
    let id = format!("nowhere-{}", d.namespace());
    let mut b = Bundle::new(d, &id, &["cat", "/proc/self/cgroup"]);
    b.spec["linux"]
        .as_object_mut()
        .unwrap()
        .remove("cgroupsPath");
    assert!(b.run().ok().stdout.contains(&format!("/{id}")));
}

fn refused_limit(d: &mut Daemon) {
    let refused = |id: &str, pointer: &str, value: Value| {
        let mut b = Bundle::new(d, id, &["true"]);
        b.set(pointer, value);
        let out = b.run();
        assert_ne!(out.status, 0);
        out.stderr
    };
    let text = refused("cpus", "/linux/resources/cpu", json!({ "cpus": "900-901" }));
    assert!(
        text.contains("linux.resources.cpu.cpus: writing \"900-901\" to /sys/fs/cgroup/"),
        "{text}"
    );
    let text = refused(
        "quota",
        "/linux/resources/cpu",
        json!({ "quota": 5, "period": 100_000 }),
    );
    assert!(
        text.contains("linux.resources.cpu.quota: writing"),
        "{text}"
    );
    let text = refused("path", "/linux/cgroupsPath", json!("/a/../../b"));
    assert!(text.contains("linux.cgroupsPath"), "{text}");
}

fn update(d: &mut Daemon) {
    if d.release == crate::support::Release::V1_6
        && d.ctr(["tasks", "--help"]).stdout.contains("update")
    {
        // `ctr` of either release has no update command; CRI's is tested in `pod`.
        unreachable!("ctr has learnt to update: use it");
    }
    with(
        d,
        "box",
        json!({ "memory": { "limit": 67_108_864 } }),
        |group| {
            crate::support::task::update(d, "box", &json!({ "memory": { "limit": 134_217_728, "swap": 134_217_728 }, "pids": { "limit": 33 } })).unwrap();
            assert_eq!(
                read(group, ("memory", "memory.limit_in_bytes"), "memory.max"),
                "134217728"
            );
            assert_eq!(read(group, ("pids", "pids.max"), "pids.max"), "33");
            // A refused value changes nothing.
            let error = crate::support::task::update(
                d,
                "box",
                &json!({ "pids": { "limit": 44 }, "cpu": { "cpus": "900" } }),
            )
            .unwrap_err();
            assert!(error.contains("linux.resources.cpu.cpus"), "{error}");
            assert_eq!(read(group, ("pids", "pids.max"), "pids.max"), "33");
        },
    );
}

fn out_of_memory(d: &mut Daemon) {
    let events = crate::support::events::Events::subscribe(d);
    let mut b = Bundle::new(
        d,
        "oom",
        &[
            "sh",
            "-c",
            "sleep 0.2; head -c 100000000 /dev/zero | tail > /dev/null; echo $?; sleep 1000",
        ],
    );
    b.set(
        "/linux/resources/memory",
        json!({ "limit": 16_777_216, "swap": 16_777_216 }),
    );
    b.run_detached();
    wait_until("the OOM event", Duration::from_secs(20), || {
        events
            .seen()
            .iter()
            .any(|e| e.topic == "oom" && e.container == "oom")
    });
    d.remove("oom");
    let seen: Vec<String> = events.topics("oom", 5);
    assert_eq!(
        seen.iter()
            .filter(|t| *t != "oom")
            .cloned()
            .collect::<Vec<_>>(),
        ["create", "start", "exit", "delete"]
    );
    // An init that is killed itself: the announcement comes first.
    let mut b = Bundle::new(d, "init", &["tail", "/dev/zero"]);
    b.set(
        "/linux/resources/memory",
        json!({ "limit": 16_777_216, "swap": 16_777_216 }),
    );
    let out = b.run();
    assert_eq!(out.status, 137, "{out:?}");
    assert_eq!(
        events.topics("init", 5),
        ["create", "start", "oom", "exit", "delete"]
    );
}
