//! What a container can do to its shim, to its neighbours and to what people read.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use containerd_shim_protos::api::CreateTaskResponse;
use serde_json::Value;
use serde_json::json;

use super::{HARDENED, STOPPED, UNTRUSTED, explain, refused};
use crate::attacks;
use crate::isolation::greedy;
use crate::isolation::output;
use crate::isolation::read_all;
use crate::support::Output;
use crate::support::place::Place;
use crate::support::place::program;
use crate::support::shim::Shim;
use crate::support::shim::Streams;
use crate::support::wait_until;

/// A process may call itself anything.
pub(super) fn names_that_are_no_text() {
    let s = Shim::start_as(3, HARDENED);
    let id = format!("names-{}", std::process::id());
    let mut spec = greedy(&s, &id, &["/dev/attacker"]);
    spec["process"]["env"] = json!([format!("{}=odd-name", attacks::MARK)]);
    s.create_with(&id, &spec, Streams::default()).unwrap();
    s.start_process(&id, "").unwrap();
    let pid = s.state(&id, "").unwrap().pid;
    wait_until("it has its name", Duration::from_secs(5), || {
        fs::read(format!("/proc/{pid}/comm")).is_ok_and(|c| c.starts_with(b"\xff\xfe"))
    });
    let out = explain(&id);
    let mut missing = out.stdout.lines().filter(|l| l.contains("MISSING"));
    assert!(
        out.stdout.contains(&id) && missing.all(|l| l.contains("this kernel lacks it")),
        "{out:?}"
    );
    let all = s.log();
    assert!(all.contains("call=unshare"), "its denials are seen: {all}");
    s.kill(&id, "", 9, false).unwrap();
    s.wait(&id, "").unwrap();
    s.delete(&id, "").unwrap();
    s.end();
    // The command line sees and ends it as well.
    let mut p = Place::new(&["/bin/attacker"]);
    fs::copy(
        std::env::current_exe().unwrap(),
        p.rootfs().join("bin/attacker"),
    )
    .unwrap();
    p.set(
        "/process/env",
        json!([format!("{}=odd-name", attacks::MARK)]),
    );
    p.start();
    let state = |p: &Place| -> Value {
        serde_json::from_str(&p.call(&["state", &p.id]).ok().stdout).unwrap()
    };
    wait_until("it has its name", Duration::from_secs(5), || {
        let pid = state(&p)["pid"].clone();
        fs::read(format!("/proc/{pid}/comm")).is_ok_and(|c| c.starts_with(b"\xff\xfe"))
    });
    assert_eq!(state(&p)["status"], "running");
    p.call(&["kill", &p.id, "KILL"]).ok();
    wait_until("it is stopped", Duration::from_secs(5), || {
        state(&p)["status"] == "stopped"
    });
    p.call(&["delete", &p.id]).ok();
}

/// What others chose reaches nobody's terminal, and makes no line of its own in a log.
pub(super) fn escape_sequences() {
    let s = Shim::start_as(3, HARDENED);
    let id = format!("escapes-{}", std::process::id());
    let odd = "/dev/v\u{1b}]0;title\u{7}\u{1b}[2J\nlevel=error msg=FORGED\u{9b}1m\u{202e}";
    let mut spec = s.spec(&id, &["sleep", "1000"]);
    spec["mounts"].as_array_mut().unwrap().push(
        json!({ "type": "tmpfs", "source": "tmpfs", "destination": odd, "options": ["nosuid"] }),
    );
    spec["annotations"]["io.kubernetes.cri.sandbox-name"] = json!(odd);
    s.create_with(&id, &spec, Streams::default()).unwrap();
    s.start_process(&id, "").unwrap();
    for args in [
        &["explain", &id, "--verbose"][..],
        &["explain", &id, "--json"],
        &["top"],
        &["top", "--json"],
    ] {
        let out = Output::of(Command::new(program()).args(args));
        let odd = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(
            !out.stdout.contains(odd) && !out.stderr.contains(odd),
            "{args:?}: {out:?}"
        );
        assert!(
            !out.stdout.lines().any(|l| l.starts_with("level=error")),
            "{out:?}"
        );
    }
    let log = s.log();
    assert!(
        !log.lines()
            .any(|l| l.contains("msg=FORGED") && !l.starts_with("time=")),
        "{log}"
    );
    assert!(!log.contains('\u{1b}'), "{log}");
    s.kill(&id, "", 9, false).unwrap();
    s.wait(&id, "").unwrap();
    s.delete(&id, "").unwrap();
    // An id is part of all of these.
    let spec = s.spec("odd", &["true"]);
    let mut bad = s.create_request("odd", &spec, Streams::default());
    bad.id = "x\nlevel=error msg=FORGED".into();
    let (_, why) = s.call::<CreateTaskResponse>("Create", &bad).unwrap_err();
    assert!(why.contains("is not an id"), "{why}");
    s.end();
}

/// inotify instances are counted to the pod's own root, not to the node's.
pub(super) fn quotas_of_a_pod() {
    let s = Shim::start_as(3, UNTRUSTED);
    let mut spec = greedy(&s, "hog", &["/dev/attacker"]);
    spec["process"]["env"] = json!([format!("{}=inotify", attacks::MARK)]);
    let out = crate::isolation::fifo(&s, "hog-out");
    let reader = read_all(&out);
    let streams = Streams {
        stdout: out,
        ..Streams::default()
    };
    s.create_with("hog", &spec, streams).unwrap();
    s.start_process("hog", "").unwrap();
    let pid = s.state("hog", "").unwrap().pid;
    let held = || {
        let fds = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        fds.flatten()
            .filter(|f| {
                fs::read_link(f.path()).is_ok_and(|l| l.to_string_lossy().contains("inotify"))
            })
            .count()
    };
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    wait_until("it has all that it can", Duration::from_secs(10), || {
        let now = held();
        std::thread::sleep(Duration::from_millis(100));
        now >= most.min(900) - 2 && now == held()
    });
    // SAFETY: plain numbers.
    #[allow(unsafe_code)]
    let own = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
    assert!(
        own >= 0,
        "the node's root has none left beside {} of the pod",
        held()
    );
    // SAFETY: it is ours.
    #[allow(unsafe_code)]
    unsafe {
        libc::close(own);
    }
    s.kill("hog", "", 9, false).unwrap();
    s.wait("hog", "").unwrap();
    s.delete("hog", "").unwrap();
    reader.join().unwrap();
    s.end();
}

/// Execs that leave processes behind whose calls are denied again and again.
pub(super) fn threads_are_not_held() {
    let s = Shim::start_as(3, UNTRUSTED);
    let id = format!("held-{}", std::process::id());
    s.run(&id, &["sleep", "1000"]);
    for i in 0..80 {
        let exec = format!("e{i}");
        let script = "while :; do unshare -U true; sleep 0.04; done > /dev/null 2>&1 &";
        s.exec(&id, &exec, &["sh", "-c", script]).unwrap();
        s.start_process(&id, &exec).unwrap();
        s.wait(&id, &exec).unwrap();
        s.delete(&id, &exec).unwrap();
    }
    let shim = s.pid().unwrap();
    let threads = || fs::read_dir(format!("/proc/{shim}/task")).unwrap().count();
    for _ in 0..10 {
        let now = threads();
        assert!(now < 16, "{now} threads");
        std::thread::sleep(Duration::from_millis(50));
    }
    let begun = std::time::Instant::now();
    s.exec(&id, "last", &["true"]).unwrap();
    s.start_process(&id, "last").unwrap();
    assert_eq!(s.wait(&id, "last").unwrap(), 0);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let out = explain(&id);
    assert!(!out.stderr.contains("does not answer"), "{out:?}");
    s.kill(&id, "", 9, true).unwrap();
    s.wait(&id, "").unwrap();
    s.delete(&id, "").unwrap();
    s.end();
}

/// A container that stops every new process of its own, execs among them.
pub(super) fn stopped_execs() {
    let s = Shim::start_as(3, HARDENED);
    let id = format!("stopper-{}", std::process::id());
    let mut spec = greedy(&s, &id, &["/dev/attacker"]);
    spec["process"]["env"] = json!([format!("{}=stopper", attacks::MARK)]);
    s.create_with(&id, &spec, Streams::default()).unwrap();
    s.start_process(&id, "").unwrap();
    std::thread::scope(|scope| {
        // More than there are threads for blocking work.
        for i in 0..STOPPED {
            let (s, id) = (&s, &id);
            scope.spawn(move || {
                let exec = format!("e{i}");
                s.exec(id, &exec, &["true"]).unwrap();
                s.start_process(id, &exec).ok();
            });
        }
        std::thread::sleep(Duration::from_secs(3));
        // Meanwhile people are answered, and the container can be ended.
        let out = explain(&id);
        assert!(!out.stderr.contains("does not answer"), "{out:?}");
        s.kill(&id, "", 9, true).unwrap();
    });
    s.wait(&id, "").unwrap();
    for i in 0..STOPPED {
        s.delete(&id, &format!("e{i}")).ok();
    }
    s.delete(&id, "").unwrap();
    s.end();
}

/// A shim under a profile has no rights that it neither needs nor can grant.
pub(super) fn what_the_shim_keeps() {
    let s = Shim::start_as(3, HARDENED);
    // It serves: what it gives up is given up.
    assert!(s.state("nothing", "").is_err());
    let status = fs::read_to_string(format!("/proc/{}/status", s.pid().unwrap())).unwrap();
    let number = |key: &str| {
        let line = status.lines().find(|l| l.starts_with(key)).unwrap();
        u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap()
    };
    for (name, bit) in [
        ("SYS_MODULE", 16),
        ("SYS_RAWIO", 17),
        ("SYS_BOOT", 22),
        ("SYS_TIME", 25),
        ("MAC_ADMIN", 33),
        ("MAC_OVERRIDE", 32),
        ("SYSLOG", 34),
        ("AUDIT_CONTROL", 30),
        ("NET_RAW", 13),
    ] {
        for set in ["CapBnd", "CapPrm", "CapEff"] {
            assert_eq!(number(set) >> bit & 1, 0, "{name} in {set}: {status}");
        }
    }
    assert_eq!(number("NoNewPrivs"), 1);
    s.end();
}

/// The node's root, but from within a container: a path to a shim's socket is not enough.
pub(super) fn foreign_peers() {
    let s = Shim::start_as(3, HARDENED);
    let socket = PathBuf::from("/run/cofferdam/pods").join(format!("{}.sock", s.pid().unwrap()));
    wait_until("people can ask", Duration::from_secs(5), || socket.exists());
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    // A container of the class that restricts nothing may be given the directory by an administrator.
    let mut p = Place::new(&[
        "nc",
        "-w",
        "2",
        &format!("local:/s/{}", socket.file_name().unwrap().to_str().unwrap()),
    ]);
    p.set("/process/args", json!(["/bin/attacker"]));
    p.set(
        "/process/env",
        json!([format!(
            "{}=socket=/s/{}",
            attacks::MARK,
            socket.file_name().unwrap().to_str().unwrap()
        )]),
    );
    fs::copy(
        std::env::current_exe().unwrap(),
        p.rootfs().join("bin/attacker"),
    )
    .unwrap();
    p.mount(json!({ "type": "bind", "source": "/run/cofferdam/pods", "destination": "/s", "options": ["rbind"] }));
    assert_eq!(p.run().ok().stdout, "connected, no answer\n");
    assert!(s.log().contains("refused a connection"), "{}", s.log());
    // The node's own process is answered.
    let stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    assert!(stream.as_fd().try_clone_to_owned().is_ok());
    s.end();
}

/// The one file that every container once had in common with the node.
pub(super) fn the_nodes_null_device() {
    let stat = || {
        let m = fs::metadata("/dev/null").unwrap();
        (m.mode(), m.uid(), m.gid(), m.ino())
    };
    let before = stat();
    for program in ["containerd-shim-cofferdam-v1", HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let script = "for f in /dev/null /proc/keys /proc/self/fd/0; do \
            chmod 0600 $f; chown 7:7 $f; stat -L -c %t:%T $f; done 2>&1";
        let mut spec = s.spec("box", &["sh", "-c", script]);
        let caps = json!(["CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE"]);
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = caps.clone();
        }
        let (said, _) = output(&s, "box", &spec);
        assert_eq!(said.matches("1:3").count(), 3, "{program}: {said}");
        assert_eq!(stat(), before, "{program}: {said}");
        s.end();
    }
}

/// What annotations say of the pod holds for one pod, and this shim's.
pub(super) fn one_shim_one_pod() {
    let victim = format!("{}-victim", crate::support::pod_uid());
    let volume = Path::new("/var/lib/kubelet/pods")
        .join(&victim)
        .join("volumes/kubernetes.io~secret/s");
    fs::create_dir_all(&volume).unwrap();
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let with = |sandbox: &str, uid: &str| {
            let (sandbox, uid) = (sandbox.to_owned(), uid.to_owned());
            let volume = volume.clone();
            move |spec: &mut Value| {
                spec["annotations"] = json!({
                    "io.kubernetes.cri.sandbox-id": sandbox, "io.kubernetes.cri.sandbox-uid": uid
                });
                spec["mounts"].as_array_mut().unwrap().push(json!({
                    "type": "bind", "source": volume, "destination": "/s", "options": ["bind"]
                }));
            }
        };
        // Not this shim's pod.
        let why = refused(&s, with("victim", &victim));
        assert!(why.contains("it shows /var/lib/kubelet"), "{why}");
        // This one's, and then another one's.
        s.run("first", &["sleep", "1000"]);
        let why = refused(&s, with("pod", &victim));
        assert!(why.contains("the container is of the pod"), "{why}");
        s.finish("first");
        s.end();
    }
    fs::remove_dir_all(Path::new("/var/lib/kubelet/pods").join(&victim)).unwrap();
}

/// A spec names control groups: only those of its container.
pub(super) fn groups_of_others() {
    let mounts = || {
        let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let of = |l: &str| {
            l.contains(" - cgroup")
                .then(|| l.split(' ').nth(4).map(PathBuf::from))?
        };
        all.lines().filter_map(of).collect::<Vec<_>>()
    };
    let name = format!("cdtest-foreign-{}", std::process::id());
    let foreign: Vec<PathBuf> = mounts()
        .into_iter()
        .map(|m| m.join(&name))
        .filter(|d| fs::create_dir_all(d.join("child")).is_ok())
        .collect();
    assert!(!foreign.is_empty());
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        s.run("victim", &["sleep", "1000"]);
        for (path, text) in [
            (format!("/{name}"), "it exists already"),
            (format!("/{name}/child"), "it exists already"),
            (
                format!("{}/x", s.group("victim")),
                "it is another container's",
            ),
        ] {
            let why = refused(&s, |spec| spec["linux"]["cgroupsPath"] = json!(path));
            assert!(why.contains(text), "{path}: {why}");
            // What containerd calls after a failure.
            s.clean_up(program, "box");
            assert!(
                foreign.iter().all(|d| d.join("child").is_dir()),
                "{path}: removed"
            );
        }
        s.finish("victim");
        s.end();
    }
    for dir in foreign {
        fs::remove_dir(dir.join("child")).unwrap();
        fs::remove_dir(dir).unwrap();
    }
}

/// A refused creation decides nothing for the pod's users.
pub(super) fn users_after_a_refusal() {
    let s = Shim::start_as(3, UNTRUSTED);
    let mut request = s.create_request("box", &s.spec("box", &["true"]), Streams::default());
    request.rootfs[0].type_ = "overlay".into();
    request.rootfs[0].options = vec![format!("lowerdir={}", s.dir().join("nothing").display())];
    s.call::<CreateTaskResponse>("Create", &request)
        .unwrap_err();
    let (map, _) = output(&s, "box", &s.spec("box", &["cat", "/proc/self/uid_map"]));
    let first: Vec<&str> = map.split_whitespace().collect();
    assert!(first.len() == 3 && first[1] != "0", "{map}");
    let why = refused(&s, |spec| {
        spec["linux"]["sysctl"] = json!({ "user/./max_user_namespaces": "1000" })
    });
    assert!(why.contains("is not a kernel parameter"), "{why}");
    s.end();
}

/// Neither does one that is refused while others are being created.
pub(super) fn users_beside_a_refusal() {
    let s = Shim::start_as(3, UNTRUSTED);
    let held = s.create_request("held", &s.spec("held", &["true"]), Streams::default());
    let config = Path::new(&held.bundle).join("config.json");
    let whole = fs::read(&config).unwrap();
    fs::remove_file(&config).unwrap();
    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| s.call::<CreateTaskResponse>("Create", &held).map(drop));
        wait_until("its id is taken", Duration::from_secs(5), || {
            s.pids("held")
                .is_err_and(|(_, text)| text.contains("still being created"))
        });
        let mut spec = s.spec("refused", &["true"]);
        spec["root"]["path"] = json!("/proc");
        let mut request = s.create_request("refused", &spec, Streams::default());
        request.rootfs.clear();
        s.call::<CreateTaskResponse>("Create", &request)
            .unwrap_err();
        let (map, _) = output(&s, "box", &s.spec("box", &["cat", "/proc/self/uid_map"]));
        let words: Vec<&str> = map.split_whitespace().collect();
        assert!(words.len() == 3 && words[1] != "0", "{map}");
        fs::write(&config, whole).unwrap();
        waiting.join().unwrap().unwrap();
    });
    s.kill("held", "", 9, true).unwrap();
    s.wait("held", "").unwrap();
    s.delete("held", "").unwrap();
    s.end();
}
