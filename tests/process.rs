//! What the spec says of a process: who it is, what it may do, what it sees. For init and exec alike.

use serde_json::json;

use crate::support::spec::Bundle;
use crate::support::{Daemon, Output};

crate::cases!(ctr: [
    users_and_groups,
    capability_sets,
    no_new_privileges,
    exec_is_confined_like_init,
    limits,
    seccomp_by_calling,
    hostname_and_sysctl,
    masked_and_readonly_paths,
    devices,
    namespaces_by_path,
    out_of_memory_score,
    umask_and_environment,
    propagation_and_mount_options,
    only_three_descriptors,
    standard_streams_can_be_reopened,
    lifecycle_hooks,
    cwd_through_a_descriptor_is_refused,
]);

/// A line of /proc/self/status, without its key.
fn status_line(out: &Output, key: &str) -> String {
    let line = out
        .stdout
        .lines()
        .find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("no {key} in {out:?}"));
    line.trim().to_owned()
}

fn users_and_groups(d: &mut Daemon) {
    let mut b = Bundle::new(d, "user", &["sh", "-c", "id; echo $HOME"]);
    b.set(
        "/process/user",
        json!({ "uid": 1000, "gid": 1000, "additionalGids": [2000, 3000] }),
    );
    assert_eq!(
        b.run().ok().stdout,
        "uid=1000(user) gid=1000(user) groups=2000(extra),3000\n/home/user\n"
    );
    let mut b = Bundle::new(d, "nobody", &["sh", "-c", "id -u; echo $HOME"]);
    b.set(
        "/process/user",
        json!({ "uid": 4_294_967_294u32, "gid": 7 }),
    );
    assert_eq!(b.run().ok().stdout, "4294967294\n/\n");
}

fn capability_sets(d: &mut Daemon) {
    let run = |id: &str, uid: u32, caps: serde_json::Value| {
        let mut b = Bundle::new(d, id, &["cat", "/proc/self/status"]);
        b.set("/process/user/uid", json!(uid))
            .set("/process/capabilities", caps);
        b.run().ok()
    };
    let sets = |out: &Output| {
        ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
            .map(|k| u64::from_str_radix(&status_line(out, k), 16).unwrap())
    };
    // Root's permitted set after exec is its bounding set, capabilities(7).
    let some = json!(["CAP_KILL", "CAP_CHOWN"]);
    let root = run(
        "root",
        0,
        json!({ "bounding": some, "effective": some, "permitted": some }),
    );
    assert_eq!(sets(&root), [0, 0x21, 0x21, 0x21, 0]);
    let none = run("none", 0, json!({}));
    assert_eq!(sets(&none), [0; 5]);
    let user = run(
        "user",
        1000,
        json!({ "bounding": some, "effective": some, "permitted": some }),
    );
    assert_eq!(sets(&user), [0, 0, 0, 0x21, 0]);
    let ambient = run(
        "ambient",
        1000,
        json!({ "bounding": some, "effective": some, "permitted": some, "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] }),
    );
    assert_eq!(sets(&ambient), [0x20, 0x20, 0x20, 0x21, 0x20]);
}

fn no_new_privileges(d: &mut Daemon) {
    for (id, wanted) in [("yes", true), ("no", false)] {
        let mut b = Bundle::new(d, id, &["cat", "/proc/self/status"]);
        b.set("/process/noNewPrivileges", json!(wanted));
        assert_eq!(
            status_line(&b.run().ok(), "NoNewPrivs"),
            if wanted { "1" } else { "0" }
        );
    }
}

fn exec_is_confined_like_init(d: &mut Daemon) {
    let mut b = Bundle::new(d, "box", &["sleep", "1000"]);
    b.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }] }));
    b.set("/process/user/additionalGids", json!([2000]));
    b.run_detached();
    let script = "cat /proc/$P/status /proc/$P/cgroup /proc/$P/limits; for n in cgroup ipc mnt net pid uts user; do readlink /proc/$P/ns/$n; done";
    let of = |pid: &str| {
        d.exec(
            &[],
            "box",
            "look",
            &["sh", "-c", &format!("P={pid}; {script}")],
        )
        .ok()
    };
    let (init, exec) = (of("1"), of("self"));
    for key in [
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
    ] {
        assert_eq!(status_line(&init, key), status_line(&exec, key), "{key}");
    }
    let rest = |o: &Output| {
        o.stdout
            .lines()
            .skip_while(|l| !l.starts_with("nonvoluntary"))
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(rest(&init), rest(&exec));
    assert!(rest(&exec).len() > 20);
    let denied = d.exec(&[], "box", "mkdir", &["mkdir", "/x"]);
    assert!(denied.stderr.contains("not supported"), "{denied:?}");
    d.remove("box");
}

fn limits(d: &mut Daemon) {
    let mut b = Bundle::new(
        d,
        "limits",
        &["sh", "-c", "ulimit -n; ulimit -H -n; ulimit -c; ulimit -u"],
    );
    b.set(
        "/process/rlimits",
        json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            { "type": "RLIMIT_NPROC", "soft": 77, "hard": 77 }
        ]),
    );
    assert_eq!(b.run().ok().stdout, "100\n200\n0\n77\n");
    b = Bundle::new(d, "bad", &["true"]);
    b.set(
        "/process/rlimits",
        json!([{ "type": "RLIMIT_NOFILE", "soft": 300, "hard": 200 }]),
    );
    let out = b.run();
    assert!(
        out.status != 0
            && out.stderr.contains(
                "process.rlimits[0]: RLIMIT_NOFILE: soft limit 300 is above the hard limit 200"
            ),
        "{out:?}"
    );
}

fn seccomp_by_calling(d: &mut Daemon) {
    let with = |id: &str, args: &[&str], seccomp: serde_json::Value, nnp: bool| {
        let mut b = Bundle::new(d, id, args);
        b.set("/linux/seccomp", seccomp)
            .set("/process/noNewPrivileges", json!(nnp));
        b.run()
    };
    let rule = |action: &str| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["mkdir"], "action": action, "errnoRet": 38 }] });
    for nnp in [true, false] {
        let out = with("errno", &["mkdir", "/x"], rule("SCMP_ACT_ERRNO"), nnp);
        assert!(out.stderr.contains("Function not implemented"), "{out:?}");
    }
    let status = |action| {
        with(
            "killed",
            &["sh", "-c", "mkdir /x; echo $?"],
            rule(action),
            true,
        )
        .stdout
    };
    assert_eq!(status("SCMP_ACT_KILL_PROCESS"), "159\n", "128 + SIGSYS");
    assert_eq!(status("SCMP_ACT_TRAP"), "159\n");
    assert_eq!(status("SCMP_ACT_LOG"), "0\n");
    // As an allow-list, with a condition on an argument: the signal.
    let list = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 1, "value": 10, "op": "SCMP_CMP_EQ" }] }]
    });
    let out = with(
        "args",
        &[
            "sh",
            "-c",
            "sleep 1000 & kill -USR1 $! || echo denied; kill -TERM $! && echo allowed",
        ],
        list,
        true,
    );
    assert_eq!(out.stdout, "denied\nallowed\n", "{out:?}");
}

fn hostname_and_sysctl(d: &mut Daemon) {
    let mut b = Bundle::new(
        d,
        "names",
        &[
            "sh",
            "-c",
            "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmni",
        ],
    );
    b.set("/hostname", json!("inside"))
        .set("/domainname", json!("example.org"));
    b.set(
        "/linux/sysctl",
        json!({ "net.ipv4.ip_default_ttl": "77", "kernel.shmmni": "123" }),
    );
    assert_eq!(b.run().ok().stdout, "inside\nexample.org\n77\n123\n");
    let mut b = Bundle::new(d, "host", &["true"]);
    b.set("/linux/sysctl", json!({ "vm.swappiness": "1" }));
    let out = b.run();
    assert!(
        out.status != 0
            && out
                .stderr
                .contains("linux.sysctl[\"vm.swappiness\"]: is not owned by any namespace"),
        "{out:?}"
    );
}

fn masked_and_readonly_paths(d: &mut Daemon) {
    let script = "wc -c < /secret; ls /secrets | wc -l; echo x > /proc/sys/net/ipv4/ip_forward || echo read-only; echo x > /secrets/new || echo read-only";
    let mut b = Bundle::new(d, "masked", &["sh", "-c", script]);
    std::fs::write(b.rootfs().join("secret"), "1234").unwrap();
    std::fs::create_dir(b.rootfs().join("secrets")).unwrap();
    std::fs::write(b.rootfs().join("secrets/one"), "1").unwrap();
    b.set(
        "/linux/maskedPaths",
        json!(["/secret", "/secrets", "/not/there"]),
    );
    assert_eq!(b.run().ok().stdout, "0\n0\nread-only\nread-only\n");
}

fn devices(d: &mut Daemon) {
    let script = "for f in null zero full random urandom tty fuse; do stat -c '%n %F %t:%T %a %u' /dev/$f; done; for l in fd stdin ptmx; do readlink /dev/$l; done; \
                  head -c 3 /dev/zero | wc -c; mknod /disk b 8 0 && head -c 1 /disk || echo denied";
    let mut b = Bundle::new(d, "devices", &["sh", "-c", script]);
    b.set("/linux/devices", json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 1000, "gid": 1000 }]));
    let out = b.run();
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(
        lines[0], "/dev/null character special file 1:3 666 0",
        "{out:?}"
    );
    assert_eq!(lines[5], "/dev/tty character special file 5:0 666 0");
    assert_eq!(lines[6], "/dev/fuse character special file a:e5 640 1000");
    assert_eq!(
        lines[7..],
        [
            "/proc/self/fd",
            "/proc/self/fd/0",
            "pts/ptmx",
            "3",
            "denied"
        ]
    );
}

fn namespaces_by_path(d: &mut Daemon) {
    let mut first = Bundle::new(d, "first", &["sleep", "1000"]);
    first.set("/hostname", json!("shared"));
    first.run_detached();
    let pid = d.pid("first");
    let mut second = Bundle::new(
        d,
        "second",
        &[
            "sh",
            "-c",
            "hostname; ls /proc | grep -c '^[0-9]'; for n in ipc net pid uts mnt; do readlink /proc/self/ns/$n; done",
        ],
    );
    let of = |name: &str| format!("/proc/{pid}/ns/{name}");
    second.set(
        "/linux/namespaces",
        json!([{ "type": "mount" }, { "type": "ipc", "path": of("ipc") }, { "type": "network", "path": of("net") },
               { "type": "uts", "path": of("uts") }, { "type": "pid", "path": of("pid") }]),
    );
    let out = second.run().ok();
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert!(lines.len() == 7 && lines[0] == "shared", "{out:?}");
    assert!(
        lines[1].parse::<u32>().unwrap() >= 3,
        "it sees the first one's processes: {out:?}"
    );
    for (name, line) in ["ipc", "net", "pid", "uts"].iter().zip(&lines[2..]) {
        assert_eq!(
            std::fs::read_link(of(name)).unwrap().to_str().unwrap(),
            *line
        );
    }
    assert_ne!(
        std::fs::read_link(of("mnt")).unwrap().to_str().unwrap(),
        lines[6]
    );
    d.remove("first");
}

fn out_of_memory_score(d: &mut Daemon) {
    let mut b = Bundle::new(d, "score", &["cat", "/proc/self/oom_score_adj"]);
    b.set("/process/oomScoreAdj", json!(321));
    assert_eq!(b.run().ok().stdout, "321\n");
}

fn umask_and_environment(d: &mut Daemon) {
    let mut b = Bundle::new(d, "umask", &["sh", "-c", "umask; echo $LONG | wc -c"]);
    b.set("/process/user/umask", json!(0o077)).set(
        "/process/env",
        json!(["PATH=/bin", format!("LONG={}", "x".repeat(100_000))]),
    );
    assert_eq!(b.run().ok().stdout, "0077\n100001\n");
    assert_eq!(
        Bundle::new(d, "default", &["sh", "-c", "umask"])
            .run()
            .ok()
            .stdout,
        "0022\n"
    );
}

fn propagation_and_mount_options(d: &mut Daemon) {
    let volume = d.dir().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let mut b = Bundle::new(d, "options", &["cat", "/proc/self/mountinfo"]);
    let mounts = b.spec["mounts"].as_array_mut().unwrap();
    let bind = |to: &str, options: &[&str]| json!({ "destination": to, "type": "bind", "source": volume, "options": options });
    mounts.push(bind("/slave", &["rbind", "rslave", "ro"]));
    mounts.push(bind("/noexec", &["bind", "nosuid", "nodev", "noexec"]));
    mounts.push(bind("/rro", &["rbind", "rprivate", "rro"]));
    mounts.push(json!({ "destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=1777", "noatime"] }));
    let out = b.run().ok().stdout;
    let options = |at: &str| {
        let line = out
            .lines()
            .find(|l| l.split(' ').nth(4) == Some(at))
            .unwrap_or_else(|| panic!("no {at} in {out}"));
        line.split(' ').nth(5).unwrap().to_owned() + " " + line.rsplit(' ').next().unwrap()
    };
    assert!(options("/slave").starts_with("ro,"));
    assert!(options("/noexec").starts_with("rw,nosuid,nodev,noexec"));
    assert!(options("/rro").starts_with("ro,"));
    assert!(
        options("/scratch").contains("noatime") && options("/scratch").contains("size=1024k"),
        "{}",
        options("/scratch")
    );
    assert!(options("/sys").starts_with("ro,nosuid,nodev,noexec"));
}

fn only_three_descriptors(d: &mut Daemon) {
    let b = Bundle::new(
        d,
        "fds",
        &["sh", "-c", "ls /proc/self/fd; ls /proc/1/fd; true"],
    );
    // `ls` itself holds the directory open.
    assert_eq!(b.run().ok().stdout, "0\n1\n2\n3\n0\n1\n2\n");
}

fn standard_streams_can_be_reopened(d: &mut Daemon) {
    let mut b = Bundle::new(
        d,
        "reopen",
        &["sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr"],
    );
    b.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let out = b.run().ok();
    assert_eq!(
        (out.stdout.as_str(), out.stderr.as_str()),
        ("out\n", "err\n")
    );
}

fn lifecycle_hooks(d: &mut Daemon) {
    let log = d.dir().join("hooks.log");
    let script = d.dir().join("hook.sh");
    std::fs::write(
        &script,
        format!(
            "#!/bin/sh\nexec >> {}\necho \"$1 $(cat) root=$(ls / | grep -c '^only-inside$')\"\n",
            log.display()
        ),
    )
    .unwrap();
    Output::of(std::process::Command::new("chmod").arg("755").arg(&script)).ok();
    let hook = |kind: &str| json!([{ "path": script, "args": ["hook", kind], "env": ["PATH=/usr/bin:/bin"] }]);
    let mut b = Bundle::new(d, "hooked", &["true"]);
    std::fs::write(b.rootfs().join("only-inside"), "").unwrap();
    let inside = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "cat > /dev/shm/state; test -e /only-inside && echo startContainer > /started"], "env": ["PATH=/bin"] }]);
    b.set(
        "/hooks",
        json!({ "prestart": hook("prestart"), "createRuntime": hook("createRuntime"), "createContainer": hook("createContainer"),
                "startContainer": inside, "poststart": hook("poststart"), "poststop": hook("poststop") }),
    );
    b.run().ok();
    let text = std::fs::read_to_string(&log).unwrap();
    let kinds: Vec<&str> = text.lines().map(|l| l.split(' ').next().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "prestart",
            "createRuntime",
            "createContainer",
            "poststart",
            "poststop"
        ],
        "{text}"
    );
    for (line, status) in text
        .lines()
        .zip(["creating", "creating", "creating", "running", "stopped"])
    {
        let json = &line[line.find('{').unwrap()..=line.rfind('}').unwrap()];
        let state: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(
            (state["id"].as_str(), state["status"].as_str()),
            (Some("hooked"), Some(status)),
            "{line}"
        );
        assert!(state["bundle"].as_str().unwrap().ends_with("/hooked"));
    }
    assert_eq!(
        std::fs::read_to_string(b.rootfs().join("started")).unwrap(),
        "startContainer\n"
    );
    // A hook that fails ends the creation.
    let mut b = Bundle::new(d, "failing", &["true"]);
    b.set("/hooks", json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", "echo no network >&2; exit 3"] }] }));
    let out = b.run();
    assert!(
        out.status != 0
            && out
                .stderr
                .contains("createRuntime hook #0: /bin/sh: exit status: 3: no network"),
        "{out:?}"
    );
}

fn cwd_through_a_descriptor_is_refused(d: &mut Daemon) {
    for n in 3..20 {
        let mut b = Bundle::new(d, &format!("cwd{n}"), &["sh", "-c", "echo got in"]);
        b.set("/process/cwd", json!(format!("/proc/self/fd/{n}")));
        let out = b.run();
        assert!(
            out.status != 0 && !out.stdout.contains("got in"),
            "{n}: {out:?}"
        );
    }
}
