//! What a class bounds, and what goes on working in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use containerd_shim_protos::api::CreateTaskResponse;
use serde_json::Value;
use serde_json::json;
use ttrpc::Code;

use super::{
    HARDENED, UNTRUSTED, attacker, greedy, output, runtime_options, scratch, sleeper, under,
};
use crate::attacks;
use crate::support::Daemon;
use crate::support::shim::Shim;
use crate::support::shim::Streams;
use crate::support::spec::Bundle;
use crate::support::wait_until;

pub(super) fn limits() {
    let s = Shim::start_as(3, UNTRUSTED);
    s.create_with(
        "box",
        &s.spec("box", &["sleep", "1000"]),
        Streams::default(),
    )
    .unwrap();
    let pids = crate::resources::read(&s.group("box"), ("pids", "pids.max"), "pids.max");
    assert_eq!(pids, "1024");
    s.start_process("box", "").unwrap();
    // Of another user's processes nothing is seen.
    let mut spec = s.spec("other", &["sh", "-c", "ulimit -c; ls -d /proc/1"]);
    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let (text, _) = output(&s, "other", &spec);
    assert!(text.starts_with("0\n"), "{text}");
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
    s.end();
}

pub(super) fn work_in_untrusted() {
    // What a shell does all day.
    let s = Shim::start_as(3, UNTRUSTED);
    let script = "set -e; mkdir /tmp/w; cd /tmp/w; for i in 1 2 3; do echo $i > f$i; done; cat f* | sort -r | head -1; \
        cp /bin/busybox echo; ./echo copied; (sleep 0.1; echo late) & wait; chmod 755 f1; chown 1000 f1; stat -c %u f1; \
        tar cf - f1 | tar tf -; su user -c 'id -u'; kill -0 $$; echo end";
    let mut spec = s.spec("box", &["sh", "-c", script]);
    scratch(&mut spec);
    let (text, status) = output(&s, "box", &spec);
    assert_eq!(
        (text.as_str(), status),
        ("3\ncopied\nlate\n1000\nf1\n1000\nend\n", 0)
    );
    s.end();
}

pub(super) fn fork_bomb() {
    let s = Shim::start(3);
    // Fewer than the built-in profile's 1,024, which some machines have not to give.
    let profile = "extends = \"untrusted\"\n[limits]\npids = { default = 200, max = 200 }\n";
    sleeper(&s, profile);
    let mut spec = greedy(&s, "bomb", &["/dev/attacker"]);
    spec["process"]["env"] = json!([format!("{}=bomb", attacks::MARK)]);
    let mut request = s.create_request("bomb", &spec, Streams::default());
    request.options = Some(runtime_options(3, profile)).into();
    let bomb = s
        .call::<CreateTaskResponse>("Create", &request)
        .unwrap()
        .pid;
    s.start_process("bomb", "").unwrap();
    wait_until("the bomb went off", Duration::from_secs(20), || {
        s.pids("bomb").is_ok_and(|p| p.processes.len() > 180)
    });
    // Next to it, nothing is different.
    for i in 0..5 {
        let exec = format!("e{i}");
        s.exec("box", &exec, &["true"]).unwrap();
        s.start_process("box", &exec).unwrap();
        assert_eq!(s.wait("box", &exec).unwrap(), 0);
        s.delete("box", &exec).unwrap();
    }
    assert!(s.pids("bomb").unwrap().processes.len() <= 200);
    // What the lists of processes took is given back.
    let shim = s.pid().unwrap();
    wait_until("the shim is small again", Duration::from_secs(10), || {
        crate::denials::private_dirty(shim) < 6144
    });
    s.kill("bomb", "", 9, false).unwrap();
    assert_eq!(s.wait("bomb", "").unwrap(), 137);
    s.delete("bomb", "").unwrap();
    assert!(!crate::support::is_alive(bomb as i32));
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
    s.end();
}

pub(super) fn memory_hog() {
    let s = Shim::start(3);
    let profile = "extends = \"untrusted\"\n[limits]\nmemory = { default = 33554432 }\n";
    let sibling = sleeper(&s, profile);
    let (_, status) = under(&s, "hog", profile, &["tail", "/dev/zero"]).unwrap();
    assert_eq!(status, 137);
    assert!(crate::support::is_alive(sibling as i32));
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
    s.end();
}

pub(super) fn reduced_proc() {
    let s = Shim::start(3);
    let profile = "[filesystem]\nonly_processes = true\n";
    let script = "cat /proc/1/comm; ls /proc | grep -v '^[0-9]*$' | sort | tr '\\n' ' '";
    let (text, _) = under(&s, "box", profile, &["sh", "-c", script]).unwrap();
    assert_eq!(text, "sh\nself thread-self ");
    s.end();
}

pub(super) fn setuid_programs(d: &mut Daemon) {
    for (runtime, expected) in [
        ("io.containerd.cofferdam.v1", "0\n"),
        ("io.containerd.cofferdam-hardened.v1", "1000\n"),
        ("io.containerd.cofferdam-untrusted.v1", "1000\n"),
    ] {
        runtime.clone_into(&mut d.runtime);
        let mut b = Bundle::new(d, "box", &["/bin/other"]);
        let program = b.rootfs().join("bin/other");
        fs::copy(attacker(), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
        b.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
        b.set("/process/noNewPrivileges", json!(false));
        b.set("/process/env", json!([format!("{}=user", attacks::MARK)]));
        assert_eq!(b.run().ok().stdout, expected, "{runtime}");
        fs::remove_dir_all(&b.dir).unwrap();
    }
}

/// A list of places to execute from leaves the moving of files alone.
pub(super) fn landlock_paths() {
    let s = Shim::start(3);
    let profile = "[landlock]\nexecute = [\"/bin\"]\n";
    let script = "cd /tmp && mkdir a b && echo x > a/f && ln a/f b/g && mv a/f b/f && cat b/f; cp /bin/busybox echo; ./echo no || echo denied";
    let (text, _) = under(&s, "box", profile, &["sh", "-c", script]).unwrap();
    assert!(
        text.starts_with("x\n") && text.ends_with("denied\n"),
        "{text}"
    );
    assert!(!text.contains("cross-device"), "{text}");
    s.end();
}

/// What a container can read of its own isolation; and nobody else's files are touched for it.
pub(super) fn notices() {
    let s = Shim::start_as(3, HARDENED);
    let spec = greedy(
        &s,
        "box",
        &["sh", "-c", "ls -l /dev/cofferdam; cat /dev/cofferdam"],
    );
    let (text, status) = output(&s, "box", &spec);
    assert!(status == 0 && text.starts_with("-r--r--r--"), "{text}");
    for part in [
        "isolated by Cofferdam's profile \"hardened\"",
        "operation not permitted",
        "\n  process.noNewPrivileges: true\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // A pause container has none, and neither has a /dev that is not the container's own, or one that is taken.
    let mut pause = s.spec("pause", &["cat", "/dev/cofferdam"]);
    pause["annotations"] = json!({ "io.kubernetes.cri.sandbox-name": "web", "io.kubernetes.cri.container-type": "sandbox" });
    let mut taken = spec.clone();
    let mount = json!({ "destination": "/dev/cofferdam", "type": "tmpfs", "source": "x" });
    taken["mounts"].as_array_mut().unwrap().push(mount);
    for (id, spec) in [("pause", pause), ("taken", taken)] {
        let (text, _) = output(&s, id, &spec);
        assert!(!text.contains("isolated by"), "{id}: {text}");
    }
    s.end();
    let s = Shim::start_as(3, UNTRUSTED);
    let spec = greedy(&s, "box", &["cat", "/dev/cofferdam"]);
    let (text, status) = output(&s, "box", &spec);
    assert!(status == 0 && text.contains("\"untrusted\""), "{text}");
    s.end();
    let s = Shim::start(3);
    let spec = greedy(&s, "plain", &["ls", "/dev/cofferdam"]);
    let (text, status) = output(&s, "plain", &spec);
    assert!(status != 0, "{text}");
    s.end();
}

/// A program that may not be executed: the error says by which rule.
pub(super) fn denied_execs() {
    let s = Shim::start(3);
    let script = "cp /bin/busybox /tmp/tool; cp /bin/busybox /tmp/no-mode; chmod 644 /tmp/no-mode; sleep 1000";
    // A volume's mount, a list of what may be executed, and the pod's own filter.
    let mut spec = greedy(&s, "box", &["/bin/sh", "-c", script]);
    let tmp = json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" });
    spec["mounts"].as_array_mut().unwrap().push(tmp);
    let profile = "extends = \"hardened\"\n[landlock]\nexecute = [\"/bin/sh\", \"/bin/sleep\", \"/bin/cp\", \"/bin/chmod\", \"/bin/busybox\"]\n";
    let request = super::request(&s, "box", &spec, profile);
    let reader = super::read_all(&request.stdout);
    s.call::<CreateTaskResponse>("Create", &request).unwrap();
    s.start_process("box", "").unwrap();
    let denied = |id: &str, exec: &str, program: &str| {
        s.exec(id, exec, &[program]).unwrap();
        s.start_process(id, exec).unwrap_err().1
    };
    let mut tries = 0;
    wait_until("the programs are there", Duration::from_secs(5), || {
        tries += 1;
        denied("box", &format!("try{tries}"), "/tmp/no-mode").contains("permission denied")
    });
    for (exec, program, rule) in [
        (
            "a",
            "/tmp/tool",
            "permission denied (it is on a file system that is mounted noexec",
        ),
        (
            "b",
            "/tmp/no-mode",
            "exec: \"/tmp/no-mode\": permission denied",
        ),
        (
            "c",
            "/dev/attacker",
            "permission denied (probably by its profile's landlock.execute",
        ),
    ] {
        let message = denied("box", exec, program);
        assert!(message.contains(rule), "{program}: {message}");
        assert_eq!(message.contains('('), rule.contains('('), "{message}");
    }
    s.finish("box");
    reader.join().unwrap();
    // Execs of a container whose filter denies execve fail by it; its init's own came before.
    let mut spec = s.spec("filtered", &["/bin/sleep", "1000"]);
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["execve"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13 }]
    });
    let (_, message) = match s.create_with("filtered", &spec, Streams::default()) {
        Ok(_) => s.start_process("filtered", "").unwrap_err(),
        Err(refused) => refused,
    };
    assert!(
        message.contains("permission denied (a seccomp filter denies execve"),
        "{message}"
    );
    s.delete("filtered", "").unwrap();
    s.end();
}

pub(super) fn refused_pods() {
    let s = Shim::start_as(3, HARDENED);
    let refused = |change: &dyn Fn(&mut Value), text: &str| {
        let mut spec = s.spec("box", &["true"]);
        change(&mut spec);
        let (code, message) = s.create_with("box", &spec, Streams::default()).unwrap_err();
        assert_eq!(code, Code::FAILED_PRECONDITION, "{message}");
        assert!(message.contains(text), "{text:?} is not in {message:?}");
        assert!(
            message.starts_with("profile \"hardened\" refuses "),
            "{message}"
        );
    };
    for (name, text) in [
        ("network", "hostNetwork"),
        ("pid", "hostPID"),
        ("ipc", "hostIPC"),
    ] {
        let without = |spec: &mut Value| {
            spec["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .retain(|n| n["type"] != name);
        };
        refused(&without, text);
        // What the author of the pod can do, and which key decides.
        refused(
            &without,
            "from the pod, or ask who runs this node for a profile that allows it (pod.host_namespaces decides)",
        );
    }
    for path in [
        "/",
        "/etc",
        "/etc/../etc/ssh",
        "/proc/1/root",
        "/var",
        "/run/containerd/containerd.sock",
    ] {
        let volume = |spec: &mut Value| {
            let mount = json!({ "destination": "/host", "type": "bind", "source": path, "options": ["rbind"] });
            spec["mounts"].as_array_mut().unwrap().push(mount);
        };
        refused(&volume, "the hostPath volume");
    }
    refused(
        &|spec| {
            spec["linux"]["devices"] =
                json!([{ "path": "/dev/sda", "type": "b", "major": 8, "minor": 0 }])
        },
        "the device /dev/sda (b 8:0)",
    );
    refused(
        &|spec| spec["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]),
        "access to devices",
    );
    s.end();
}

pub(super) fn process_status() {
    let s = Shim::start_as(3, HARDENED);
    let spec = greedy(
        &s,
        "box",
        &[
            "grep",
            "-E",
            "^(NoNewPrivs|Seccomp|Seccomp_filters|CapBnd|CapEff|CapAmb):",
            "/proc/self/status",
        ],
    );
    let (text, _) = output(&s, "box", &spec);
    for line in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapBnd:\t00000000000005fb",
        "CapEff:\t00000000000005fb",
        "CapAmb:\t00000000000005fb",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // The floor and the pod's own filter are one, and both still work.
    let mut spec = s.spec("own", &["sh", "-c", "grep Seccomp_filters /proc/self/status; mkdir /dev/shm/x; ls / > /dev/null && echo fine"]);
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13 }]
    });
    let (text, status) = output(&s, "own", &spec);
    assert_eq!(status, 0, "{text}");
    assert!(
        text.contains("Seccomp_filters:\t1")
            && text.contains("Permission denied")
            && text.contains("fine"),
        "{text}"
    );
    let log = s.log();
    assert!(
        log.contains("profile=hardened") && log.contains("tightened"),
        "{log}"
    );
    s.end();
}
