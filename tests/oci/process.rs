//! The process of a spec, its hooks and its filter.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::command::receive;
use serde_json::Value;
use serde_json::json;

use super::refused;
use crate::support::Output;
use crate::support::kill;
use crate::support::place::Place;
use crate::support::wait_until;

pub(super) fn hooks_in_order() {
    let mut p = Place::new(&["sh", "-c", "cat /order"]);
    let log = p.dir.join("log");
    let host = |kind: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("cat > /dev/null; echo {kind} >> {}", log.display())] }]);
    let inside = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "echo startContainer > /order"], "env": ["PATH=/bin"] }]);
    p.set("/hooks", json!({
        "prestart": host("prestart"), "createRuntime": host("createRuntime"), "createContainer": host("createContainer"),
        "startContainer": inside, "poststart": host("poststart"), "poststop": host("poststop")
    }));
    assert_eq!(p.run().ok().stdout, "startContainer\n");
    assert_eq!(
        fs::read_to_string(&log).unwrap(),
        "prestart\ncreateRuntime\ncreateContainer\npoststart\npoststop\n"
    );
    // One that takes too long ends the creation.
    let mut p = Place::new(&["true"]);
    p.set("/hooks", json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1 }] }));
    refused(
        &p.run(),
        "createRuntime hook #0: /bin/sleep: did not finish within 1 s",
    );
}

pub(super) fn poststop_after_a_crash() {
    let mut p = Place::new(&["sleep", "1000"]);
    let log = p.dir.join("log");
    p.set("/hooks", json!({ "poststop": [{ "path": "/bin/sh", "args": ["sh", "-c", format!("cat > {}", log.display())] }] }));
    p.start();
    kill(p.state()["pid"].as_i64().unwrap() as i32);
    wait_until("it stops", Duration::from_secs(5), || {
        p.status() == "stopped"
    });
    p.call(&["delete", &p.id]).ok();
    let state: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(state["status"], "stopped");
}

pub(super) fn io_priority() {
    let mut p = Place::new(&["ionice"]);
    p.set(
        "/process/ioPriority",
        json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 }),
    );
    assert_eq!(p.run().ok().stdout, "best-effort: prio 6\n");
    p.set(
        "/process/ioPriority",
        json!({ "class": "IOPRIO_CLASS_BE", "priority": 9 }),
    );
    refused(
        &p.run(),
        "process.ioPriority.priority: 9 is not between 0 and 7",
    );
    let mut p = Place::new(&["sh", "-c", "cut -d' ' -f19,41 /proc/self/stat"]);
    p.set(
        "/process/scheduler",
        json!({ "policy": "SCHED_BATCH", "nice": 7 }),
    );
    assert_eq!(p.run().ok().stdout, "7 3\n", "nice, and SCHED_BATCH");
}

pub(super) fn cpu_affinity_of_exec() {
    let p = Place::new(&["sleep", "1000"]);
    p.start();
    let run = |affinity: Value| {
        let file = p.dir.join("process.json");
        let process = json!({ "args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"],
            "user": { "uid": 0, "gid": 0 }, "execCPUAffinity": affinity });
        fs::write(&file, process.to_string()).unwrap();
        p.call(&["exec", "--process", file.to_str().unwrap(), &p.id])
    };
    assert_eq!(
        run(json!({ "initial": "0-1", "final": "1" }))
            .ok()
            .stdout
            .trim(),
        "Cpus_allowed_list:\t1"
    );
    assert_ne!(run(json!({ "final": "x" })).status, 0);
}

pub(super) fn personality() {
    let mut p = Place::new(&["uname", "-m"]);
    p.set("/linux/personality", json!({ "domain": "LINUX32" }));
    assert_eq!(p.run().ok().stdout, "i686\n");
}

pub(super) fn memory_policy() {
    let mut p = Place::new(&["sh", "-c", "head -n 1 /proc/self/numa_maps | cut -d' ' -f2"]);
    p.set(
        "/linux/memoryPolicy",
        json!({ "mode": "MPOL_BIND", "nodes": "0" }),
    );
    if Path::new("/proc/self/numa_maps").exists() {
        assert_eq!(p.run().ok().stdout, "bind:0\n");
    } else {
        refused(&p.run(), "linux.memoryPolicy: set: set_mempolicy"); // a kernel without NUMA
    }
}

pub(super) fn domainname() {
    let mut p = Place::new(&["cat", "/proc/sys/kernel/domainname"]);
    p.set("/domainname", json!("example.org"));
    assert_eq!(p.run().ok().stdout, "example.org\n");
}

pub(super) fn console_size() {
    let mut p = Place::new(&["stty", "size"]);
    p.set("/process/terminal", json!(true)).set(
        "/process/consoleSize",
        json!({ "height": 33, "width": 111 }),
    );
    let out = p.run().ok().stdout;
    assert_eq!(out.trim(), "33 111");
}

/// OCI config.md "capabilities": what cannot be given is a warning.
pub(super) fn capabilities_that_nobody_has() {
    let mut p = Place::new(&["grep", "CapBnd", "/proc/self/status"]);
    let caps = json!(["CAP_KILL", "CAP_NOSUCH"]);
    p.set(
        "/process/capabilities",
        json!({ "bounding": caps, "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] }),
    );
    let out = p.run().ok();
    assert_eq!(out.stdout, "CapBnd:\t0000000000000020\n");
    assert!(
        out.stderr
            .contains("warning: process.capabilities: \"CAP_NOSUCH\" is not known"),
        "{out:?}"
    );
}

pub(super) fn additional_groups_and_umask() {
    let mut p = Place::new(&["sh", "-c", "id -G; umask"]);
    p.set(
        "/process/user",
        json!({ "uid": 5, "gid": 6, "additionalGids": [7, 8], "umask": 0o027 }),
    );
    assert_eq!(p.run().ok().stdout, "6 7 8\n0027\n");
    p.set("/process/user/additionalGids", json!([4_294_967_295u32]));
    refused(
        &p.run(),
        "process.user.additionalGids: 4294967295 is not a group",
    );
}

/// A listener gets the filter's descriptor and the state, and decides: OCI config-linux.md "The Container Process State".
pub(super) fn seccomp_notification() {
    let mut p = Place::new(&["sh", "-c", "mkdir /denied 2>&1; echo still here"]);
    let path = p.dir.join("listener");
    let listener = UnixListener::bind(&path).unwrap();
    p.set("/linux/seccomp", json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "some words",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]
    }));
    let supervisor = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let (message, notifications) = receive(&stream);
        deny_one(&notifications);
        serde_json::from_slice::<Value>(&message).unwrap()
    });
    let out = p.run().ok();
    assert_eq!(
        out.stdout,
        "mkdir: can't create directory '/denied': Operation not supported\nstill here\n"
    );
    let message = supervisor.join().unwrap();
    assert_eq!(
        (message["fds"][0].as_str(), message["metadata"].as_str()),
        (Some("seccompFd"), Some("some words"))
    );
    assert_eq!(
        (
            message["state"]["id"].as_str(),
            message["state"]["pid"] == message["pid"]
        ),
        (Some(p.id.as_str()), true)
    );
    // Nobody to ask is an error, not a way through.
    refused(
        &p.run(),
        "linux.seccomp.listenerPath: failed to connect with seccomp agent",
    );
    p.set("/linux/seccomp/listenerPath", json!(""));
    refused(&p.run(), "linux.seccomp.listenerPath: is missing");
    p.set("/linux/seccomp/defaultAction", json!("SCMP_ACT_NOTIFY"));
    refused(
        &p.run(),
        "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY for every call",
    );
}

/// Answers one notification with EOPNOTSUPP, `seccomp_unotify(2)`.
#[allow(unsafe_code)]
pub(super) fn deny_one(notifications: &fs::File) {
    const RECV: libc::c_ulong = 0xc050_2100; // SECCOMP_IOCTL_NOTIF_RECV
    const SEND: libc::c_ulong = 0xc018_2101; // SECCOMP_IOCTL_NOTIF_SEND
    // SAFETY: both structures are plain numbers, and of the kernel's own sizes.
    unsafe {
        let mut request: libc::seccomp_notif = std::mem::zeroed();
        assert_eq!(
            libc::ioctl(notifications.as_raw_fd(), RECV, &raw mut request),
            0
        );
        let mut response: libc::seccomp_notif_resp = std::mem::zeroed();
        response.id = request.id;
        response.error = -libc::EOPNOTSUPP;
        assert_eq!(
            libc::ioctl(notifications.as_raw_fd(), SEND, &raw mut response),
            0
        );
    }
}

/// Each operator and action, by calling: `kill` with signals 10, 12 and 14, which its target ignores.
pub(super) fn seccomp_operators_and_actions() {
    let script = "trap '' USR1 USR2 ALRM; for s in 10 12 14; do kill -$s $$ 2>/dev/null && echo -n y || echo -n n; done";
    for (op, value_two, expected) in [
        ("SCMP_CMP_EQ", 0, "yny"),
        ("SCMP_CMP_NE", 0, "nyn"),
        ("SCMP_CMP_GT", 0, "yyn"),
        ("SCMP_CMP_GE", 0, "ynn"),
        ("SCMP_CMP_LT", 0, "nyy"),
        ("SCMP_CMP_LE", 0, "nny"),
        ("SCMP_CMP_MASKED_EQ", 8, "nyy"), // 10 & 12 is 8, 12 & 12 and 14 & 12 are 12
    ] {
        let mut p = Place::new(&["sh", "-c", script]);
        let arg = json!({ "index": 1, "value": 12, "valueTwo": value_two, "op": op });
        p.set("/linux/seccomp", json!({
            "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [arg] }]
        }));
        assert_eq!(p.run().ok().stdout, expected, "{op}");
    }
    for (action, expected) in [
        ("SCMP_ACT_ALLOW", "0"),
        ("SCMP_ACT_LOG", "0"),
        ("SCMP_ACT_ERRNO", "1"),
        ("SCMP_ACT_TRACE", "1"), // nobody traces: ENOSYS
        ("SCMP_ACT_TRAP", "159"),
        ("SCMP_ACT_KILL", "159"),
        ("SCMP_ACT_KILL_THREAD", "159"),
        ("SCMP_ACT_KILL_PROCESS", "159"),
    ] {
        let mut p = Place::new(&["sh", "-c", "mkdir /x 2>/dev/null; echo -n $?"]);
        p.set("/linux/seccomp", json!({
            "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": action }]
        }));
        assert_eq!(p.run().ok().stdout, expected, "{action}");
        // The same as an allow-list: everything but that call.
        let mut p = Place::new(&["sh", "-c", "mkdir /x 2>/dev/null; echo -n $?"]);
        p.set(
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_LOG",
                "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": action }]
            }),
        );
        assert_eq!(p.run().ok().stdout, expected, "{action} as an exception");
    }
}

pub(super) fn missing_apparmor() -> Option<String> {
    let on = Path::new("/sys/kernel/security/apparmor/profiles").exists();
    let parser = Command::new("apparmor_parser")
        .arg("--version")
        .output()
        .is_ok();
    (!(on && parser)).then(|| "this kernel has no AppArmor".into())
}

/// An `AppArmor` profile confines init and exec.
pub(super) fn apparmor() {
    let mut p = Place::new(&[
        "sh",
        "-c",
        "cat /proc/self/attr/current; touch /denied 2>&1; touch /allowed && sleep 1000",
    ]);
    let name = format!("cd-{}", p.id);
    let profile = p.dir.join("profile");
    let text = format!(
        "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n  file,\n  capability,\n  network,\n  signal,\n  deny /denied w,\n}}\n"
    );
    fs::write(&profile, text).unwrap();
    Output::of(
        Command::new("apparmor_parser")
            .arg("--replace")
            .arg(&profile),
    )
    .ok();
    p.set("/process/apparmorProfile", json!(name));
    let bundle = p.dir.join("bundle");
    let out = p.dir.join("out");
    let created = p
        .command(&[
            "run",
            "--detach",
            "--bundle",
            bundle.to_str().unwrap(),
            &p.id,
        ])
        .stdout(fs::File::create(&out).unwrap())
        .status()
        .unwrap();
    assert!(created.success());
    wait_until("it has tried", Duration::from_secs(5), || {
        p.rootfs().join("allowed").exists()
    });
    assert_eq!(
        fs::read_to_string(&out).unwrap(),
        format!("{name} (enforce)\ntouch: /denied: Permission denied\n")
    );
    let exec = p
        .exec("cat /proc/self/attr/current; touch /denied 2>/dev/null || echo denied")
        .ok()
        .stdout;
    assert_eq!(exec, format!("{name} (enforce)\ndenied\n"));
    p.set("/process/apparmorProfile", json!("no-such-profile"));
    p.delete();
    refused(
        &p.run(),
        "process.apparmorProfile: apply the label: write: No such file or directory (ENOENT)",
    );
    Output::of(
        Command::new("apparmor_parser")
            .arg("--remove")
            .arg(&profile),
    )
    .ok();
}
