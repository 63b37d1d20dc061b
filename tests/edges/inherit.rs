//! What an exec has of its container, and what no process has of its runtime.

#![allow(unsafe_code)]

use std::fs;

use serde_json::json;

use super::situations;
use super::subject::{Front, Subject};

situations! {
    an_exec_without_a_user_is_roots, ROOT, "runc env.bats", "0 0 none";
    an_exec_has_the_containers_rest, ALL, "runc env.bats, runc#3661", "0027 A=1 CapBnd 0000000000000020 77 1";
    an_exec_by_flags_keeps_groups, COMMAND, "runc#3661, #1306, crun#1516", "1000 5 7 8 | 7 8 9";
    an_exec_by_flags_replaces_variables, LINE, "runc#4325, apple/container#1212", "A=x 1";
    an_exec_has_the_containers_personality, ALL, "runc personality.bats", "i686";
    one_session_keyring, ROOT, "runc#488", "found";
    a_callers_affinity, COMMAND, "runc#4858, crun#1315", "run all exec all";
    a_callers_signals, LINE, "youki contest, moby#2060", "SigBlk 0000000000000000 SigIgn 0000000000000000";
    a_callers_descriptors, LINE, "CVE-2024-21626", "0 1 2";
    an_init_at_its_gate_has_no_descriptors_of_the_node, ALL, "runc create.bats", "none";
    namespaces_of_another_container, ROOT, "runc run.bats", "all joined";
    a_filter_of_the_container_binds_its_execs, ALL, "runtime-spec#384", "denied";
}

/// Every set of the namespaces that another container has, with users and a clock of its own: whatever is joined, the container is the one
/// that was asked for, by its pid on the node, and it can be ended.
fn namespaces_of_another_container(s: &mut Subject) -> String {
    let mut other = Subject::new(s.front);
    other.set("/process/args", json!(["sleep", "1000"]));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
    other.set("/linux/uidMappings", map.clone());
    other.set("/linux/gidMappings", map);
    let namespaces = other.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({ "type": "user" }));
    namespaces.push(json!({ "type": "time" }));
    other.launch();
    let pid = other.pid();
    let joins = [
        &["pid"][..],
        &["user"],
        &["time"],
        &["user", "pid"],
        &["user", "time"],
        &["pid", "time"],
        &["user", "pid", "time", "network", "ipc", "uts"],
    ];
    for types in joins {
        let file = |typ: &str| if typ == "network" { "net" } else { typ }.to_owned();
        let namespace =
            |pid: i32, typ: &str| fs::read_link(format!("/proc/{pid}/ns/{}", file(typ))).unwrap();
        let mut joiner = Subject::new(s.front);
        joiner.set("/process/args", json!(["sleep", "1000"]));
        let all = joiner.spec["linux"]["namespaces"].as_array_mut().unwrap();
        all.retain(|n| !types.contains(&n["type"].as_str().unwrap()));
        for typ in types {
            let path = format!("/proc/{pid}/ns/{}", file(typ));
            all.push(json!({ "type": typ, "path": path }));
        }
        joiner.launch();
        let own = joiner.pid();
        let command = fs::read_to_string(format!("/proc/{own}/cmdline")).unwrap();
        if command != "sleep\x001000\x00" || joiner.status() != "running" {
            return format!("{types:?}: {own} is {command:?}, {}", joiner.status());
        }
        for typ in types {
            assert_eq!(namespace(own, typ), namespace(pid, typ), "{types:?}: {typ}");
        }
        let inside = joiner.exec_script("echo inside").stdout;
        assert_eq!(inside.trim(), "inside", "{types:?}");
        let deleted = joiner.delete();
        if deleted.status != 0 || crate::support::is_alive(own) {
            return format!("{types:?}: {deleted:?}");
        }
    }
    "all joined".into()
}

fn an_exec_without_a_user_is_roots(s: &mut Subject) -> String {
    s.set(
        "/process/user",
        json!({ "uid": 1000, "gid": 1000, "additionalGids": [7] }),
    );
    s.launch();
    let out = s.exec(&json!({ "args": ["sh", "-c", "echo $(id -u) $(id -g) $(sed -n 's/^Groups:[ \\t]*$/none/p' /proc/self/status)"] }));
    out.stdout
}

fn an_exec_has_the_containers_rest(s: &mut Subject) -> String {
    s.set("/process/user/umask", json!(0o27));
    s.set("/process/env", json!(["PATH=/bin", "A=1"]));
    let sets = json!(["CAP_KILL"]);
    s.set(
        "/process/capabilities",
        json!({ "bounding": sets, "effective": sets, "permitted": sets }),
    );
    s.set(
        "/process/rlimits",
        json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 77 }]),
    );
    s.launch();
    let script = "echo $(umask) A=$A CapBnd $(sed -n 's/CapBnd:[ \\t]*//p' /proc/self/status) $(ulimit -n) $(sed -n 's/NoNewPrivs:[ \\t]*//p' /proc/self/status)";
    s.exec(&json!({ "args": ["sh", "-c", script], "user": { "uid": 0, "gid": 0 } }))
        .stdout
}

fn an_exec_by_flags_keeps_groups(s: &mut Subject) -> String {
    s.set(
        "/process/user",
        json!({ "uid": 0, "gid": 5, "additionalGids": [7, 8] }),
    );
    s.launch();
    let groups = "echo $(sed -n 's/^Groups:[ \\t]*//p' /proc/self/status)";
    let user = s.call(&[
        "exec",
        "--user",
        "1000",
        &s.id,
        "sh",
        "-c",
        &format!("echo $(id -u) $(id -g) $({groups})"),
    ]);
    let more = s.call(&["exec", "--additional-gids", "9", &s.id, "sh", "-c", groups]);
    format!("{} | {}", user.stdout.trim(), more.stdout.trim())
}

fn an_exec_by_flags_replaces_variables(s: &mut Subject) -> String {
    s.set("/process/env", json!(["PATH=/bin", "A=1"]));
    s.launch();
    s.call(&[
        "exec",
        "--env",
        "A=x",
        &s.id,
        "sh",
        "-c",
        "echo A=$A $(xargs -0 -n1 < /proc/$$/environ | grep -c ^A=)",
    ])
    .stdout
}

fn an_exec_has_the_containers_personality(s: &mut Subject) -> String {
    s.set("/linux/personality", json!({ "domain": "LINUX32" }));
    s.launch();
    s.exec_script("uname -m").stdout
}

fn one_session_keyring(s: &mut Subject) -> String {
    fs::copy(
        std::env::current_exe().unwrap(),
        s.rootfs().join("bin/edge-keys"),
    )
    .unwrap();
    s.set("/process/args", json!(["edge-keys", "add"]));
    s.launch();
    // The init adds its key right after its start.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        let out = s.exec(&json!({ "args": ["edge-keys", "find"] })).stdout;
        if out.trim() == "found" || std::time::Instant::now() > end {
            return out;
        }
    }
}

fn a_callers_affinity(s: &mut Subject) -> String {
    let all = fs::read_to_string("/proc/self/status").unwrap();
    let all = all
        .lines()
        .find(|l| l.starts_with("Cpus_allowed_list"))
        .unwrap()
        .to_owned();
    let limited = |mut command: std::process::Command| {
        use std::os::unix::process::CommandExt;
        // SAFETY: one system call.
        unsafe {
            command.pre_exec(|| {
                let mut set = nix::sched::CpuSet::new();
                set.set(0)?;
                Ok(nix::sched::sched_setaffinity(
                    nix::unistd::Pid::from_raw(0),
                    &set,
                )?)
            });
        }
        let out = crate::support::Output::of(&mut command).stdout;
        if out.trim() == all {
            "all".to_owned()
        } else {
            out.trim().to_owned()
        }
    };
    let grep = ["grep", "Cpus_allowed_list", "/proc/self/status"];
    s.set("/process/args", json!(grep));
    s.write_spec();
    let run = limited(s.command(&["run", "--bundle", s.bundle(), &s.id]));
    s.set("/process/args", json!(["sleep", "1000"]));
    s.launch();
    let exec = limited(s.command(&["exec", &s.id, grep[0], grep[1], grep[2]]));
    format!("run {run} exec {exec}")
}

fn a_callers_signals(s: &mut Subject) -> String {
    use std::os::unix::process::CommandExt;
    s.script("echo SigBlk $(sed -n 's/SigBlk:[ \\t]*//p' /proc/self/status) SigIgn $(sed -n 's/SigIgn:[ \\t]*//p' /proc/self/status)");
    s.write_spec();
    let mut command = s.command(&["run", "--bundle", s.bundle(), &s.id]);
    // SAFETY: two system calls.
    unsafe {
        command.pre_exec(|| {
            use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
            signal(Signal::SIGHUP, SigHandler::SigIgn)?;
            signal(Signal::SIGUSR1, SigHandler::SigIgn)?;
            let mut set = SigSet::empty();
            set.add(Signal::SIGUSR2);
            Ok(set.thread_block()?)
        });
    }
    crate::support::Output::of(&mut command).stdout
}

fn a_callers_descriptors(s: &mut Subject) -> String {
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    s.script("cd /proc/self/fd; for f in [0-9]*; do [ -e $f ] && echo $f; done");
    s.write_spec();
    let secret = fs::File::open("/").unwrap();
    let number = secret.as_raw_fd();
    let mut command = s.command(&["run", "--bundle", s.bundle(), &s.id]);
    // SAFETY: system calls on a descriptor that is open.
    unsafe {
        command.pre_exec(move || {
            nix::libc::dup2(number, 77);
            Ok(())
        });
    }
    let out = crate::support::Output::of(&mut command).stdout;
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn an_init_at_its_gate_has_no_descriptors_of_the_node(s: &mut Subject) -> String {
    s.create().ok();
    let directory = format!("/proc/{}/fd", s.pid());
    let found: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) > Some(2))
        .filter_map(|e| fs::read_link(e.path()).ok())
        .map(|target| target.display().to_string())
        .filter(|target| {
            !["socket:", "pipe:", "anon_inode:"]
                .iter()
                .any(|ours| target.starts_with(ours))
        })
        .collect();
    if found.is_empty() {
        "none".into()
    } else {
        found.join(" ")
    }
}

fn a_filter_of_the_container_binds_its_execs(s: &mut Subject) -> String {
    s.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]
        }),
    );
    s.launch();
    // What becomes of the bundle afterwards is nobody's concern.
    s.set("/linux/seccomp", json!(null));
    if s.front != Front::Shim {
        s.write_spec();
    }
    let out = s.exec_script("mkdir /tmp/made && echo made");
    if out.stdout.contains("made") {
        out.stdout
    } else {
        "denied".into()
    }
}
