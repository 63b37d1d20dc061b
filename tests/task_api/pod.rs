//! Events, the end of a pod, and a pod in trouble.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use super::state::numbers;
use containerd_shim_protos::api::PidsRequest;
use containerd_shim_protos::api::PidsResponse;
use containerd_shim_protos::api::Status;
use serde_json::json;
use ttrpc::Code;

use super::{children, remove};
use crate::resources::is_v2;
use crate::support::Output;
use crate::support::shim::Shim;
use crate::support::shim::Streams;
use crate::support::shim::call;
use crate::support::wait_until;

pub(super) fn connect_and_shutdown(s: &Shim) {
    let pid = s.run("box", &["sleep", "1000"]);
    let answer = s.connect("box").unwrap();
    assert_eq!(
        (answer.shim_pid, answer.task_pid),
        (s.pid().unwrap() as u32, pid)
    );
    assert!(!answer.version.is_empty());
    assert_eq!(
        s.connect("no").unwrap().task_pid,
        0,
        "unknown, and no error"
    );
    // With containers it stays.
    s.shutdown().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(s.connect("box").unwrap().task_pid, pid);
    remove(s, "box");
}

pub(super) fn event_order(s: &Shim) {
    s.run("box", &["sh", "-c", "exit 3"]);
    assert_eq!(s.wait("box", "").unwrap(), 3);
    s.delete("box", "").unwrap();
    assert_eq!(s.topics("box", 4), ["create", "start", "exit", "delete"]);
    s.run("life", &["sleep", "1000"]);
    for id in ["a", "b"] {
        s.exec("life", id, &["true"]).unwrap();
        s.start_process("life", id).unwrap();
        s.wait("life", id).unwrap();
        s.delete("life", id).unwrap();
    }
    remove(s, "life");
    let expected = [
        "create",
        "start",
        "exec-added:a",
        "exec-started:a",
        "exit:a",
        "exec-added:b",
        "exec-started:b",
        "exit:b",
        "exit",
        "delete",
    ];
    assert_eq!(s.topics("life", 10), expected);
    let exits: Vec<_> = s
        .events()
        .into_iter()
        .filter(|e| e.topic == "exit")
        .collect();
    let statuses: Vec<_> = exits.iter().map(|e| (e.id.as_str(), e.status)).collect();
    assert_eq!(statuses, [("box", 3), ("a", 0), ("b", 0), ("life", 137)]);
}

pub(super) fn out_of_memory(s: &Shim) {
    // The event leaves before the exit, and the count is to be had until Delete.
    let mut spec = s.spec("box", &["tail", "/dev/zero"]);
    spec["linux"]["resources"]["memory"] = json!({ "limit": 16_777_216, "swap": 16_777_216 });
    s.create_with("box", &spec, Streams::default()).unwrap();
    s.start_process("box", "").unwrap();
    assert_eq!(s.wait("box", "").unwrap(), 137);
    assert!(numbers(s, "box").3 >= 1, "no OOM kill is counted");
    s.delete("box", "").unwrap();
    assert_eq!(
        s.topics("box", 5),
        ["create", "start", "oom", "exit", "delete"]
    );
    // A child that is killed: the container goes on, and says so.
    let script = "tail /dev/zero; sleep 1000";
    let mut spec = s.spec("child", &["sh", "-c", script]);
    spec["linux"]["resources"]["memory"] = json!({ "limit": 16_777_216, "swap": 16_777_216 });
    s.create_with("child", &spec, Streams::default()).unwrap();
    s.start_process("child", "").unwrap();
    assert_eq!(s.topics("child", 3), ["create", "start", "oom"]);
    assert_eq!(
        s.state("child", "").unwrap().status.unwrap(),
        Status::RUNNING
    );
    remove(s, "child");
}

pub(super) fn shared_pid_namespace(s: &Shim) {
    // A pod with one pid namespace: the container joins it, so its init's end does not end its processes by itself.
    let pause = s.run("pause", &["sleep", "1000"]);
    let shared = |id: &str, script: &str| {
        let mut spec = s.spec(id, &["sh", "-c", script]);
        for n in spec["linux"]["namespaces"].as_array_mut().unwrap() {
            if n["type"] == "pid" {
                n["path"] = json!(format!("/proc/{pause}/ns/pid"));
            }
        }
        s.create_with(id, &spec, Streams::default()).unwrap();
        s.start_process(id, "").unwrap();
    };
    shared("box", "(setsid sleep 1000 &); sleep 1000 & wait");
    // A debugger sees the others' processes: an ephemeral container with a target.
    shared("debug", "sleep 1000 & wait");
    wait_until("all run", Duration::from_secs(5), || {
        s.pids("box").unwrap().processes.len() == 3 && s.pids("debug").unwrap().processes.len() == 2
    });
    s.exec(
        "debug",
        "look",
        &["sh", "-c", "[ $(ps | grep -c '[s]leep 1000') -ge 4 ]"],
    )
    .unwrap();
    s.start_process("debug", "look").unwrap();
    assert_eq!(
        s.wait("debug", "look").unwrap(),
        0,
        "it sees its neighbours"
    );
    s.delete("debug", "look").unwrap();
    s.kill("box", "", 9, false).unwrap();
    assert_eq!(s.wait("box", "").unwrap(), 137);
    assert_eq!(
        s.pids("box").unwrap().processes.len(),
        1,
        "what its init leaves is killed"
    );
    assert_eq!(
        s.state("debug", "").unwrap().status.unwrap(),
        Status::RUNNING
    );
    s.delete("box", "").unwrap();
    // With the namespace's first process go all that are in it.
    s.kill("pause", "", 9, false).unwrap();
    assert_eq!(
        (s.wait("pause", "").unwrap(), s.wait("debug", "").unwrap()),
        (137, 137)
    );
    s.delete("debug", "").unwrap();
    s.delete("pause", "").unwrap();
    // Nobody is left as a zombie below the shim.
    let shim = s.pid().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    assert_eq!(children.trim(), "", "children of the shim are left");
}

pub(super) fn execs_of_a_dying_container(s: &Shim) {
    s.run("box", &["sleep", "1000"]);
    for i in 0..8 {
        let id = format!("e{i}");
        s.exec("box", &id, &["sleep", "1000"]).unwrap();
        s.start_process("box", &id).unwrap();
    }
    s.kill("box", "", 9, false).unwrap();
    assert_eq!(s.wait("box", "").unwrap(), 137);
    for i in 0..8 {
        assert_eq!(s.wait("box", &format!("e{i}")).unwrap(), 137);
    }
    let topics = s.topics("box", 2 + 16 + 8 + 1);
    assert_eq!(
        topics.last().map(String::as_str),
        Some("exit"),
        "the init's is the last: {topics:?}"
    );
    s.delete("box", "").unwrap();
}

/// Whatever step of a creation or of an exec finds no descriptor any more: it fails as a whole, its id is free again, and nothing
/// of it is left.
/// A container that has made groups of its own below its v2 group has no processes at the top. Its execs are where its init is,
/// and nowhere else.
pub(super) fn exec_in_a_divided_group(s: &Shim) {
    let init = s.run("box", &["sleep", "1000"]);
    let mount = if is_v2() {
        "/sys/fs/cgroup"
    } else {
        "/sys/fs/cgroup/unified"
    };
    let top = format!("{mount}{}", s.group("box"));
    let move_init = |group: &str| {
        fs::create_dir_all(group).unwrap();
        fs::write(format!("{group}/cgroup.procs"), init.to_string()).unwrap();
    };
    let run = |id: &str| {
        s.exec("box", id, &["sleep", "1000"]).unwrap();
        s.start_process("box", id)
    };
    move_init(&format!("{top}/sub"));
    let controllers = fs::read_to_string(format!("{top}/cgroup.controllers")).unwrap();
    let first = controllers.split_whitespace().next().expect("a controller");
    fs::write(format!("{top}/cgroup.subtree_control"), format!("+{first}")).unwrap();
    let pid = run("e").unwrap();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let expected = format!("0::{}/sub", s.group("box"));
    assert!(groups.lines().any(|l| l == expected), "{groups}");
    // An init that has left the container's groups takes no exec along.
    move_init(&format!(
        "{mount}/{}-elsewhere",
        s.group("").trim_matches('/')
    ));
    let (_, why) = run("late").unwrap_err();
    assert!(why.contains("EBUSY"), "{why}");
    s.kill("box", "", 9, false).unwrap();
    remove(s, "box");
    fs::remove_dir(format!(
        "{mount}/{}-elsewhere",
        s.group("").trim_matches('/')
    ))
    .unwrap();
}

/// Lets the shim have no descriptor of this number or a higher one.
pub(super) fn limit_descriptors(shim: i32, files: usize) {
    let files = format!("--nofile={files}:");
    Output::of(Command::new("prlimit").args(["--pid", &shim.to_string(), &files])).ok();
}

pub(super) fn no_descriptor_for_a_connection(s: &Shim) {
    let shim = s.pid().unwrap();
    s.pids("box").unwrap_err();
    limit_descriptors(shim, 3);
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{shim}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split(' ').collect();
        fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
    };
    let before = ticks();
    let waiting = UnixStream::connect(s.socket()).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    // In hundredths of a second, of the 200 that have passed.
    assert!(ticks() - before < 40, "busy for {}", ticks() - before);
    drop(waiting);
    limit_descriptors(shim, 20_000);
    let answer = call::<PidsResponse>(&s.socket(), 3, "Pids", &PidsRequest::default());
    assert_eq!(answer.unwrap_err().0, Code::NOT_FOUND);
}

pub(super) fn few_descriptors(s: &Shim) {
    let shim = s.pid().unwrap();
    // The connection is accepted before descriptors are few.
    s.pids("box").unwrap_err();
    let limit = |files| limit_descriptors(shim, files);
    let nothing_is_left = |what: &str| {
        wait_until(
            &format!("nothing is left: {what}"),
            Duration::from_secs(5),
            || children(shim).is_empty(),
        );
    };
    let out = s.dir().join("out");
    nix::unistd::mkfifo(&out, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let streams = || Streams {
        stdout: out.display().to_string(),
        ..Streams::default()
    };
    let open = || fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
    let spec = s.spec("box", &["sleep", "1000"]);
    let (mut refused, mut made) = (0, 0);
    let before = open();
    for files in before..before + 120 {
        limit(files);
        let created = s.create_with("box", &spec, streams());
        limit(20_000);
        if created.is_ok() {
            made += 1;
            remove(s, "box");
        } else {
            refused += 1;
        }
        nothing_is_left(&format!("a creation with {files} files"));
        if made > 3 {
            break;
        }
    }
    assert!(refused > 3 && made > 3, "{refused} refused, {made} made");
    s.run("box", &["sleep", "1000"]);
    let init = children(shim);
    let (mut refused, mut made) = (0, 0);
    let before = open();
    for files in before..before + 120 {
        let id = format!("e{files}");
        s.exec_with("box", &id, &["true"], streams()).unwrap();
        limit(files);
        let started = s.start_process("box", &id);
        limit(20_000);
        s.wait("box", &id).unwrap();
        s.delete("box", &id).unwrap();
        wait_until("the exec is gone", Duration::from_secs(5), || {
            children(shim) == init
        });
        if started.is_ok() {
            made += 1;
        } else {
            refused += 1;
        }
        if made > 3 {
            break;
        }
    }
    assert!(refused > 3 && made > 3, "{refused} refused, {made} started");
    remove(s, "box");
}
