//! What a spec asks for: mounts, namespaces, devices, hooks, loggers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use containerd_shim_protos::api::Empty;
use containerd_shim_protos::api::UpdateTaskRequest;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use serde_json::Value;
use serde_json::json;

use super::{HARDENED, OfNode, UNTRUSTED, refused};
use crate::isolation::output;
use crate::isolation::request;
use crate::isolation::run_under;
use crate::support::shim::Shim;
use crate::support::shim::Streams;

pub(super) fn mounts_of_a_spec() {
    let node = OfNode::new("spec");
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let push = |spec: &mut Value, mount: Value| {
            spec["mounts"].as_array_mut().unwrap().push(mount);
        };
        for (typ, options) in [
            ("rbind", json!(["rw"])),
            ("bind", json!(["rw"])),
            ("none", json!(["rbind"])),
            ("tmpfs", json!(["bind"])),
            ("proc", json!(["rbind"])),
        ] {
            let why = refused(&s, |spec| {
                push(
                    spec,
                    json!({ "type": typ, "source": node.0, "destination": "/host", "options": options }),
                );
            });
            assert!(why.contains("refuses the hostPath volume"), "{typ}: {why}");
        }
        for (typ, at) in [
            ("proc", "/p2"),
            ("sysfs", "/s2"),
            ("cgroup2", "/c2"),
            ("debugfs", "/d"),
            ("tracefs", "/d"),
            ("securityfs", "/d"),
            ("bpf", "/d"),
            ("devtmpfs", "/d"),
            ("binfmt_misc", "/d"),
            ("overlay", "/d"),
            ("ext4", "/d"),
            ("tmpfs", "/sys/kernel"),
        ] {
            let why = refused(&s, |spec| {
                push(
                    spec,
                    json!({ "type": typ, "source": "x", "destination": at,
                    "options": if typ == "overlay" { json!(["lowerdir=/etc:/usr"]) } else { json!([]) } }),
                );
            });
            assert!(why.contains(&format!("the {typ} mount at {at}")), "{why}");
        }
        // Words that come later, and words for whole trees.
        for (i, words) in [
            json!(["ro", "rw"]),
            json!(["rrw"]),
            json!(["rw", "rexec", "rsuid", "rdev"]),
        ]
        .iter()
        .enumerate()
        {
            let script = "touch /sys/kernel/profiling 2>&1; echo 0 > /sys/kernel/profiling; grep ' /sys ' /proc/mounts; \
                grep ' /dev/cache ' /proc/mounts";
            let mut spec = s.spec(&format!("w{i}"), &["sh", "-c", script]);
            for m in spec["mounts"].as_array_mut().unwrap() {
                if m["type"] == "sysfs" {
                    m["options"] = words.clone();
                }
            }
            push(
                &mut spec,
                json!({ "type": "tmpfs", "source": "tmpfs", "destination": "/dev/cache", "options": words }),
            );
            let (text, _) = output(&s, &format!("w{i}"), &spec);
            let flags = |at: &str| {
                let line = text.lines().find(|l| l.contains(&format!(" {at} ")));
                line.unwrap_or_else(|| panic!("{text}")).to_owned()
            };
            for (at, wanted) in [
                ("/sys", &["ro,", "nosuid", "nodev", "noexec"][..]),
                ("/dev/cache", &["nosuid", "nodev"][..]),
            ] {
                for flag in wanted {
                    assert!(flags(at).contains(flag), "{words} at {at}: {text}");
                }
            }
            assert!(text.contains("Read-only file system"), "{text}");
        }
        s.end();
    }
}

pub(super) fn namespaces_by_path() {
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let shim = s.pid().unwrap();
        for (typ, file, text) in [
            ("network", "net", "refuses hostNetwork"),
            ("pid", "pid", "refuses hostPID"),
            ("ipc", "ipc", "refuses hostIPC"),
            ("uts", "uts", "refuses the node's host name"),
            ("mount", "mnt", "refuses the node's mounts"),
        ] {
            for path in [
                format!("/proc/self/ns/{file}"),
                format!("/proc/{shim}/ns/{file}"),
                format!("/proc/thread-self/ns/{file}"),
            ] {
                let why = refused(&s, |spec| {
                    let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
                    list.retain(|n| n["type"] != typ);
                    list.push(json!({ "type": typ, "path": path }));
                });
                assert!(why.contains(text), "{path}: {why}");
            }
        }
        // A mount namespace of somebody else's is not joined either.
        let neighbour = s.run("neighbour", &["sleep", "1000"]);
        let why = refused(&s, |spec| {
            let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
            list.retain(|n| n["type"] != "mount");
            list.push(json!({ "type": "mount", "path": format!("/proc/{neighbour}/ns/mnt") }));
        });
        assert!(why.contains("refuses mounts of others"), "{why}");
        s.kill("neighbour", "", 9, false).unwrap();
        s.wait("neighbour", "").unwrap();
        s.delete("neighbour", "").unwrap();
        s.end();
    }
}

pub(super) fn hooks_and_loggers() {
    let node = OfNode::new("programs");
    let mark = node.0.join("ran");
    let script = node.0.join("hook.sh");
    fs::write(
        &script,
        format!(
            "#!/bin/sh\ncat > /dev/null\necho $0 >> {}\n",
            mark.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        for kind in [
            "prestart",
            "createRuntime",
            "createContainer",
            "poststart",
            "poststop",
        ] {
            let why = refused(&s, |spec| {
                spec["hooks"] = json!({ kind: [{ "path": script }] })
            });
            assert!(
                why.contains(&format!("refuses the hook {}", script.display())),
                "{why}"
            );
        }
        let why = refused(&s, |spec| {
            spec["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock",
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]
            });
        });
        assert!(
            why.contains("refuses the seccomp agent /run/agent.sock"),
            "{why}"
        );
        let logger = format!("binary://{}", script.display());
        let streams = Streams {
            stdout: logger.clone(),
            ..Streams::default()
        };
        let spec = s.spec("logged", &["true"]);
        let (_, why) = s.create_with("logged", &spec, streams.clone()).unwrap_err();
        assert!(why.contains("refuses the logger"), "{why}");
        s.run("box", &["sleep", "1000"]);
        let exec = Shim::exec_request("box", "e", &["true"], streams);
        let (_, why) = s.call::<Empty>("Exec", &exec).unwrap_err();
        assert!(why.contains("refuses the logger"), "{why}");
        s.kill("box", "", 9, false).unwrap();
        s.wait("box", "").unwrap();
        s.delete("box", "").unwrap();
        s.end();
    }
    assert!(!mark.exists(), "nothing ran");
    // Listed by exact path, they run.
    let s = Shim::start(3);
    let profile = format!(
        "extends = \"hardened\"\n[pod]\nhooks = [{0:?}]\nloggers = [{0:?}]\n",
        script.display().to_string()
    );
    let mut spec = s.spec("box", &["true"]);
    spec["hooks"] =
        json!({ "createRuntime": [{ "path": script }], "poststop": [{ "path": script }] });
    run_under(&s, &request(&s, "box", &spec, &profile)).unwrap();
    let ran = fs::read_to_string(&mark).unwrap();
    assert_eq!(ran.lines().count(), 2, "{ran}");
    s.end();
}

pub(super) fn updates() {
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        s.run("box", &["sleep", "1000"]);
        let update = |resources: Value| {
            let request = UpdateTaskRequest {
                id: "box".into(),
                resources: Some(Any {
                    type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
                        .into(),
                    value: resources.to_string().into_bytes(),
                    ..Any::default()
                })
                .into(),
                ..UpdateTaskRequest::default()
            };
            s.call::<Empty>("Update", &request)
        };
        for rule in [
            json!({ "allow": true, "access": "rwm" }),
            json!({ "allow": true, "type": "a", "major": -1, "minor": -1, "access": "rwm" }),
            json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }),
            json!({ "allow": true, "type": "b", "major": 254, "access": "rw" }),
        ] {
            let (_, why) = update(json!({ "devices": [rule] })).unwrap_err();
            assert!(why.contains("refuses access to devices"), "{rule}: {why}");
        }
        for (resources, text) in [
            (
                json!({ "memory": { "disableOOMKiller": true } }),
                "without the OOM killer",
            ),
            (
                json!({ "unified": { "cpuset.cpus.partition": "root" } }),
                "the control file",
            ),
            (
                json!({ "unified": { "cgroup.freeze": "1" } }),
                "the control file",
            ),
            (json!({ "cpu": { "realtimeRuntime": 1000 } }), "real-time"),
        ] {
            let (_, why) = update(resources.clone()).unwrap_err();
            assert!(why.contains(text), "{resources}: {why}");
        }
        if program == UNTRUSTED {
            let (_, why) = update(json!({ "memory": { "swap": 1_u64 << 40 } })).unwrap_err();
            assert!(
                why.contains("a limit of swap without one of memory"),
                "{why}"
            );
            // Zero asks for nothing.
            update(json!({ "pids": { "limit": 77 } })).unwrap();
            update(json!({ "pids": { "limit": 0 } })).unwrap();
            let file = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
                .map(|m| PathBuf::from(format!("{m}{}/pids.max", s.group("box"))));
            let max = file
                .iter()
                .find_map(|f| fs::read_to_string(f).ok())
                .unwrap();
            assert_eq!(max.trim(), "77");
        }
        update(json!({ "pids": { "limit": 100 } })).unwrap();
        s.kill("box", "", 9, false).unwrap();
        s.wait("box", "").unwrap();
        s.delete("box", "").unwrap();
        s.end();
    }
}

/// Namespaces of another pod, and what is none.
pub(super) fn namespaces_of_others() {
    let other = Shim::start(3);
    let victim = other.run("victim", &["sleep", "1000"]);
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let join = |typ: &'static str, path: String| {
            move |spec: &mut Value| {
                let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
                list.retain(|n| n["type"] != typ);
                list.push(json!({ "type": typ, "path": path }));
            }
        };
        for (typ, file) in [
            ("pid", "pid"),
            ("ipc", "ipc"),
            ("uts", "uts"),
            ("network", "net"),
        ] {
            let why = refused(&s, join(typ, format!("/proc/{victim}/ns/{file}")));
            assert!(
                why.contains(&format!("refuses the {typ} namespace of others")),
                "{why}"
            );
        }
        let fifo = s.dir().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).ok();
        for path in [
            fifo.display().to_string(),
            "/dev/null".into(),
            "/etc/passwd".into(),
        ] {
            let why = refused(&s, join("network", path));
            assert!(why.contains("it is no namespace"), "{why}");
        }
        s.end();
    }
    other.finish("victim");
    other.end();
}

/// Devices that a spec lists are the container's own, or refused.
pub(super) fn devices_of_a_spec() {
    let before = fs::metadata("/dev/null").unwrap();
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        for (path, major, minor) in [
            ("/dev/term", 136, 0),
            ("/dev/mux", 5, 2),
            ("/dev/console", 5, 1),
            ("/dev/kmsg", 1, 11),
        ] {
            let why = refused(&s, |spec| {
                spec["linux"]["devices"] =
                    json!([{ "path": path, "type": "c", "major": major, "minor": minor }]);
            });
            assert!(why.contains("refuses the device"), "{path}: {why}");
        }
        let mut spec = s.spec(
            "box",
            &[
                "sh",
                "-c",
                "chmod 0600 /dev/null /dev/other; stat -c %t:%T:%a /dev/null /dev/other",
            ],
        );
        spec["linux"]["devices"] = json!([
            { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0 },
            { "path": "/dev/other", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666, "uid": 0, "gid": 0 },
        ]);
        let (said, _) = output(&s, "box", &spec);
        assert!(
            said.contains("1:3:") && said.contains("1:5:"),
            "{program}: {said}"
        );
        let after = fs::metadata("/dev/null").unwrap();
        assert_eq!(
            (after.mode(), after.uid(), after.ino()),
            (before.mode(), before.uid(), before.ino())
        );
        assert_eq!(fs::metadata("/dev/zero").unwrap().mode() & 0o777, 0o666);
        s.end();
    }
}
