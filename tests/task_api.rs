//! The task API, row by row of what containerd's own shim answers, as `containerd.task.v2.Task` and
//! `containerd.task.v3.Task`: requests to the shim itself, without a containerd.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use containerd_shim_protos::api::{
    Empty, ExecProcessRequest, PidsRequest, PidsResponse, Status, WaitRequest, WaitResponse,
};
use containerd_shim_protos::cgroups::metrics::Metrics as V1;
use containerd_shim_protos::cgroups_v2::metrics::Metrics as V2;
use containerd_shim_protos::protobuf::Message;
use serde_json::json;
use ttrpc::Code;

use crate::Case;
use crate::resources::{is_v2, read};
use crate::support::shim::{Refusal, Shim, Streams, call};
use crate::support::{Output, read_fifo, wait_until};

/// The cases of this file, each for both versions.
pub fn cases() -> Vec<Case> {
    macro_rules! both {
        ($($name:ident),* $(,)?) => {
            vec![$(
                Case::plain(concat!("task_api::", stringify!($name), "::v2"), || on(2, $name)),
                Case::plain(concat!("task_api::", stringify!($name), "::v3"), || on(3, $name)),
            )*]
        };
    }
    both!(
        unknown_ids,
        create,
        start,
        delete,
        exec,
        exec_that_cannot_start,
        kill,
        kill_all,
        wait,
        state,
        pause_and_resume,
        resize,
        close_stdin,
        pids,
        stats,
        update,
        connect_and_shutdown,
        event_order,
        out_of_memory,
        shared_pid_namespace,
        execs_of_a_dying_container,
        few_descriptors,
        exec_in_a_divided_group,
        no_descriptor_for_a_connection,
    )
}

fn on(version: u8, case: fn(&Shim)) {
    let shim = Shim::start(version);
    case(&shim);
    shim.end();
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Refusal>, code: Code, text: &str) {
    let (found, message) = answer.unwrap_err();
    assert_eq!(found, code, "{message}");
    assert!(message.contains(text), "{text:?} is not in {message:?}");
}

/// Kills a container and deletes it.
#[track_caller]
fn remove(s: &Shim, id: &str) {
    s.kill(id, "", 9, true).ok();
    s.wait(id, "").unwrap();
    s.delete(id, "").unwrap();
}

fn unknown_ids(s: &Shim) {
    let gone = |answer: Result<(), Refusal>| refused(answer, Code::NOT_FOUND, "no");
    gone(s.start_process("no", "").map(drop));
    gone(s.delete("no", "").map(drop));
    gone(s.state("no", "").map(drop));
    gone(s.pids("no").map(drop));
    gone(s.pause("no"));
    gone(s.resume("no"));
    gone(s.kill("no", "", 9, false));
    gone(s.exec("no", "e", &["true"]));
    gone(s.resize("no", "", 80, 25));
    gone(s.close_stdin("no", ""));
    gone(s.update("no", &json!({})));
    gone(s.wait("no", "").map(drop));
    gone(s.stats("no").map(drop));
    s.run("box", &["sleep", "1000"]);
    let gone = |answer: Result<(), Refusal>| {
        refused(answer, Code::NOT_FOUND, "process does not exist no");
    };
    gone(s.start_process("box", "no").map(drop));
    gone(s.delete("box", "no").map(drop));
    gone(s.state("box", "no").map(drop));
    gone(s.kill("box", "no", 9, false));
    gone(s.resize("box", "no", 80, 25));
    gone(s.close_stdin("box", "no"));
    gone(s.wait("box", "no").map(drop));
    remove(s, "box");
}

fn create(s: &Shim) {
    let pid = s.create("box", &["sleep", "1000"]).unwrap();
    assert!(pid > 1);
    refused(s.create("box", &["true"]), Code::ALREADY_EXISTS, "box");
    // What is refused leaves its id free, and nothing else.
    let mut wrong = s.spec("other", &["true"]);
    wrong["linux"]["resources"]["memory"] = json!({ "limit": -5 });
    let answer = s.create_with("other", &wrong, Streams::default());
    refused(
        answer,
        Code::UNKNOWN,
        "linux.resources.memory.limit: -5 is below -1",
    );
    s.create("other", &["true"]).unwrap();
    s.delete("other", "").unwrap();
    let mut request = s.create_request("other", &s.spec("other", &["true"]), Streams::default());
    request.checkpoint = "/checkpoint".into();
    refused(
        s.call::<Empty>("Create", &request),
        Code::UNIMPLEMENTED,
        "checkpoint",
    );
    remove(s, "box");
}

fn start(s: &Shim) {
    let pid = s.create("box", &["sleep", "1000"]).unwrap();
    assert_eq!(s.start_process("box", "").unwrap(), pid);
    refused(
        s.start_process("box", ""),
        Code::UNKNOWN,
        "cannot start a running process",
    );
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    refused(
        s.start_process("box", ""),
        Code::UNKNOWN,
        "cannot start a stopped process",
    );
    s.delete("box", "").unwrap();
    // A program that is not there is found at Create, and nothing is left.
    let none = s.create("none", &["/none"]);
    refused(none, Code::UNKNOWN, "stat /none: no such file or directory");
    refused(s.state("none", ""), Code::NOT_FOUND, "none");
    // One that cannot be executed is found at Start; what is left can be deleted.
    s.create("text", &["/etc/passwd"]).unwrap_err();
}

fn delete(s: &Shim) {
    let pid = s.run("box", &["sleep", "1000"]);
    refused(
        s.delete("box", ""),
        Code::UNKNOWN,
        "cannot delete a running process",
    );
    s.exec("box", "e", &["sleep", "1000"]).unwrap();
    s.start_process("box", "e").unwrap();
    refused(
        s.delete("box", "e"),
        Code::UNKNOWN,
        "cannot delete a running process",
    );
    s.kill("box", "e", 15, false).unwrap();
    assert_eq!(s.wait("box", "e").unwrap(), 143);
    let exec = s.delete("box", "e").unwrap();
    assert_eq!(exec.exit_status, 143);
    assert!(exec.pid > 0 && exec.exited_at.seconds > 1_700_000_000);
    refused(
        s.delete("box", "e"),
        Code::NOT_FOUND,
        "process does not exist e",
    );
    // One that never ran.
    s.exec("box", "never", &["true"]).unwrap();
    assert_eq!(s.delete("box", "never").unwrap().pid, 0);
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    let deleted = s.delete("box", "").unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
    assert!(deleted.exited_at.seconds > 1_700_000_000);
    refused(s.delete("box", ""), Code::NOT_FOUND, "box");
    // A container that was never started.
    s.create("created", &["true"]).unwrap();
    s.delete("created", "").unwrap();
    assert_eq!(
        s.topics("created", 2).first().map(String::as_str),
        Some("create")
    );
}

fn exec(s: &Shim) {
    s.run("box", &["sleep", "1000"]);
    s.exec("box", "e", &["sh", "-c", "exit 7"]).unwrap();
    refused(s.exec("box", "e", &["true"]), Code::ALREADY_EXISTS, "id e");
    refused(
        s.exec("box", "", &["true"]),
        Code::INVALID_ARGUMENT,
        "an exec needs an id",
    );
    assert_eq!(s.state("box", "e").unwrap().pid, 0);
    let pid = s.start_process("box", "e").unwrap();
    assert!(pid > 1);
    assert_eq!(s.wait("box", "e").unwrap(), 7);
    refused(
        s.start_process("box", "e"),
        Code::UNKNOWN,
        "cannot start a stopped process",
    );
    s.delete("box", "e").unwrap();
    // Its id is free again.
    s.exec("box", "e", &["true"]).unwrap();
    s.exec("box", "late", &["true"]).unwrap();
    // The spec must be one.
    let empty = ExecProcessRequest {
        id: "box".into(),
        exec_id: "x".into(),
        ..Default::default()
    };
    refused(
        s.call::<Empty>("Exec", &empty),
        Code::INVALID_ARGUMENT,
        "an exec needs a process spec",
    );
    let mut wrong = Shim::exec_request("box", "x", &["true"], Streams::default());
    wrong.spec.as_mut().unwrap().value = br#"{ "args": 5, "cwd": "/" }"#.to_vec();
    refused(
        s.call::<Empty>("Exec", &wrong),
        Code::INVALID_ARGUMENT,
        "args",
    );
    refused(
        s.state("box", "x"),
        Code::NOT_FOUND,
        "process does not exist x",
    );
    // In a container that is paused, and in one that has ended.
    s.pause("box").unwrap();
    refused(
        s.exec("box", "p", &["true"]),
        Code::UNKNOWN,
        "cannot exec in a paused state",
    );
    refused(
        s.start_process("box", "late"),
        Code::UNKNOWN,
        "cannot exec in a paused state",
    );
    s.resume("box").unwrap();
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    let text = "container box init process is not running";
    refused(
        s.exec("box", "p", &["true"]),
        Code::FAILED_PRECONDITION,
        text,
    );
    refused(
        s.start_process("box", "late"),
        Code::FAILED_PRECONDITION,
        text,
    );
    s.delete("box", "").unwrap();
}

fn exec_that_cannot_start(s: &Shim) {
    s.run("box", &["sleep", "1000"]);
    s.exec("box", "e", &["/none"]).unwrap();
    refused(
        s.start_process("box", "e"),
        Code::UNKNOWN,
        "stat /none: no such file or directory",
    );
    // Who waits is told, and it can be deleted.
    s.wait("box", "e").unwrap();
    s.delete("box", "e").unwrap();
    s.exec("box", "e", &["true"]).unwrap();
    s.start_process("box", "e").unwrap();
    s.wait("box", "e").unwrap();
    remove(s, "box");
    let topics = s.topics("box", 8);
    let expected = [
        "create",
        "start",
        "exec-added:e", // the first: neither started nor exited
        "exec-added:e",
        "exec-started:e",
        "exit:e",
        "exit",
        "delete",
    ];
    assert_eq!(topics, expected);
}

fn kill(s: &Shim) {
    // One that was never started.
    s.create("created", &["sleep", "1000"]).unwrap();
    s.kill("created", "", 9, false).unwrap();
    assert_eq!(s.wait("created", "").unwrap(), 137);
    s.delete("created", "").unwrap();
    let script = "trap 'exit 3' USR1; touch /dev/shm/ready; while :; do sleep 0.01; done";
    let init = s.run("box", &["sh", "-c", script]);
    s.exec("box", "e", &["sleep", "1000"]).unwrap();
    refused(
        s.kill("box", "e", 9, false),
        Code::FAILED_PRECONDITION,
        "process not created",
    );
    s.start_process("box", "e").unwrap();
    s.kill("box", "e", 0, false).unwrap();
    refused(
        s.kill("box", "e", 65, false),
        Code::INVALID_ARGUMENT,
        "65 is not a signal",
    );
    s.kill("box", "e", 9, false).unwrap();
    assert_eq!(s.wait("box", "e").unwrap(), 137);
    refused(
        s.kill("box", "e", 9, false),
        Code::NOT_FOUND,
        "process already finished",
    );
    let ready = format!("/proc/{init}/root/dev/shm/ready");
    wait_until("the shell has its trap", Duration::from_secs(5), || {
        std::path::Path::new(&ready).exists()
    });
    s.kill("box", "", 10, false).unwrap();
    assert_eq!(s.wait("box", "").unwrap(), 3);
    refused(
        s.kill("box", "", 9, false),
        Code::NOT_FOUND,
        "process already finished",
    );
    refused(
        s.kill("box", "", 9, true),
        Code::NOT_FOUND,
        "process already finished",
    );
    s.delete("box", "").unwrap();
}

fn kill_all(s: &Shim) {
    // Children that left their parents are reached, too.
    let script = "trap : TERM; sleep 1000 & (setsid sleep 1000 &) ; while :; do sleep 0.01; done";
    s.run("box", &["sh", "-c", script]);
    let sleepers = || {
        let pids = s.pids("box").unwrap().processes.into_iter();
        let cmdline = |pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        pids.filter(|p| cmdline(p.pid).starts_with("sleep\x001000"))
            .count()
    };
    wait_until("all run", Duration::from_secs(5), || sleepers() == 2);
    s.kill("box", "", 15, true).unwrap();
    wait_until(
        "those that do not catch it end",
        Duration::from_secs(5),
        || sleepers() == 0,
    );
    assert_eq!(s.state("box", "").unwrap().status.unwrap(), Status::RUNNING);
    s.kill("box", "", 9, true).unwrap();
    assert_eq!(s.wait("box", "").unwrap(), 137);
    s.delete("box", "").unwrap();
}

fn wait(s: &Shim) {
    s.run("box", &["sh", "-c", "sleep 0.3; exit 5"]);
    let request = WaitRequest {
        id: "box".into(),
        ..Default::default()
    };
    let answers: Vec<WaitResponse> = std::thread::scope(|scope| {
        let call = || s.call::<WaitResponse>("Wait", &request).unwrap();
        let callers: Vec<_> = (0..20).map(|_| scope.spawn(call)).collect();
        callers.into_iter().map(|c| c.join().unwrap()).collect()
    });
    assert_eq!(answers.len(), 20);
    assert!(answers.iter().all(|a| a.exit_status == 5));
    // Once more after the end: at once, and the same.
    let late: WaitResponse = s.call("Wait", &request).unwrap();
    assert_eq!(
        (late.exit_status, &late.exited_at),
        (5, &answers[0].exited_at)
    );
    s.delete("box", "").unwrap();
    refused(s.wait("box", ""), Code::NOT_FOUND, "box");
}

fn state(s: &Shim) {
    let status = |exec: &str| s.state("box", exec).unwrap().status.unwrap();
    let pid = s.create("box", &["sleep", "1000"]).unwrap();
    assert_eq!(status(""), Status::CREATED);
    s.start_process("box", "").unwrap();
    s.exec("box", "e", &["sleep", "1000"]).unwrap();
    assert_eq!(
        (status(""), status("e")),
        (Status::RUNNING, Status::CREATED)
    );
    let exec = s.start_process("box", "e").unwrap();
    let answer = s.state("box", "e").unwrap();
    assert_eq!(
        (answer.id.as_str(), answer.exec_id.as_str(), answer.pid),
        ("box", "e", exec)
    );
    s.pause("box").unwrap();
    assert_eq!((status(""), status("e")), (Status::PAUSED, Status::PAUSED));
    s.resume("box").unwrap();
    s.kill("box", "e", 9, false).unwrap();
    s.wait("box", "e").unwrap();
    assert_eq!(
        (status(""), status("e")),
        (Status::RUNNING, Status::STOPPED)
    );
    assert_eq!(s.state("box", "e").unwrap().exit_status, 137);
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    let answer = s.state("box", "").unwrap();
    assert_eq!(answer.status.unwrap(), Status::STOPPED);
    assert_eq!((answer.pid, answer.exit_status), (pid, 137));
    assert!(answer.exited_at.seconds > 1_700_000_000 && answer.bundle.ends_with("/box"));
    s.delete("box", "").unwrap();
}

fn pause_and_resume(s: &Shim) {
    s.create("box", &["sleep", "1000"]).unwrap();
    refused(
        s.pause("box"),
        Code::UNKNOWN,
        "cannot pause a created container",
    );
    s.start_process("box", "").unwrap();
    refused(
        s.resume("box"),
        Code::UNKNOWN,
        "cannot resume a running container",
    );
    s.pause("box").unwrap();
    refused(
        s.pause("box"),
        Code::UNKNOWN,
        "cannot pause a paused container",
    );
    s.resume("box").unwrap();
    s.pause("box").unwrap();
    // Death reaches what is frozen.
    s.kill("box", "", 9, false).unwrap();
    assert_eq!(s.wait("box", "").unwrap(), 137);
    refused(
        s.pause("box"),
        Code::UNKNOWN,
        "cannot pause a stopped container",
    );
    s.delete("box", "").unwrap();
    let expected = [
        "create", "start", "paused", "resumed", "paused", "exit", "delete",
    ];
    assert_eq!(s.topics("box", 7), expected);
}

fn resize(s: &Shim) {
    // Without a terminal there is nothing to do, and that is fine.
    s.run("box", &["sleep", "1000"]);
    s.resize("box", "", 80, 25).unwrap();
    s.exec("box", "e", &["true"]).unwrap();
    s.resize("box", "e", 80, 25).unwrap();
    s.start_process("box", "e").unwrap();
    s.wait("box", "e").unwrap();
    refused(
        s.resize("box", "e", 80, 25),
        Code::UNKNOWN,
        "cannot resize a stopped container",
    );
    remove(s, "box");
}

fn close_stdin(s: &Shim) {
    use std::io::{Read, Write};
    let fifo = |name: &str| {
        let path = s.dir().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path
    };
    // Without input it is fine, as often as one likes.
    s.run("plain", &["sleep", "1000"]);
    s.close_stdin("plain", "").unwrap();
    s.close_stdin("plain", "").unwrap();
    remove(s, "plain");
    // After data, which is not lost; before any; and before the client closes its own end.
    for (id, text, early) in [
        ("after", "x".repeat(50_000), false),
        ("before", String::new(), false),
        ("early", "abc".into(), true),
    ] {
        let (input, output) = (fifo(&format!("{id}-in")), fifo(&format!("{id}-out")));
        let streams = Streams {
            stdin: input.display().to_string(),
            stdout: output.display().to_string(),
            ..Streams::default()
        };
        let reader = read_fifo(output, |mut file| {
            let mut all = String::new();
            file.read_to_string(&mut all).unwrap();
            all
        });
        let spec = s.spec(id, &["cat"]);
        s.create_with(id, &spec, streams).unwrap();
        let mut writer = std::fs::OpenOptions::new()
            .write(true)
            .open(&input)
            .unwrap();
        if early {
            s.close_stdin(id, "").unwrap();
        }
        s.start_process(id, "").unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        if !early {
            s.close_stdin(id, "").unwrap();
        }
        drop(writer);
        assert_eq!(s.wait(id, "").unwrap(), 0);
        s.delete(id, "").unwrap();
        assert_eq!(reader.join().unwrap(), text, "{id}");
    }
}

fn pids(s: &Shim) {
    let init = s.run("box", &["sh", "-c", "sleep 1000 & wait"]);
    s.exec("box", "my-exec", &["sleep", "1000"]).unwrap();
    let exec = s.start_process("box", "my-exec").unwrap();
    wait_until("three run", Duration::from_secs(5), || {
        s.pids("box").unwrap().processes.len() == 3
    });
    for p in s.pids("box").unwrap().processes {
        if p.pid == exec {
            let info = p.info.unwrap();
            assert!(
                info.type_url.ends_with("containerd.runc.v1.ProcessDetails"),
                "{}",
                info.type_url
            );
            // A string in field 1.
            assert_eq!(info.value, b"\x0a\x07my-exec");
        } else {
            assert!(p.info.is_none());
        }
    }
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    // containerd takes a shim without processes for a leaked one.
    let left = s.pids("box").unwrap().processes;
    assert!(left.iter().any(|p| p.pid == init), "{left:?}");
    s.delete("box", "").unwrap();
}

/// Pids, memory in bytes, CPU in nanoseconds, OOM kills, and the type's name.
fn numbers(s: &Shim, id: &str) -> (u64, u64, u64, u64) {
    let any = s.stats(id).unwrap().stats.unwrap();
    if is_v2() {
        assert!(
            any.type_url.ends_with("io.containerd.cgroups.v2.Metrics"),
            "{}",
            any.type_url
        );
        let m = V2::parse_from_bytes(&any.value).unwrap();
        let oom = m.memory_events.as_ref().map_or(0, |e| e.oom_kill);
        (m.pids.current, m.memory.usage, m.cpu.usage_usec * 1000, oom)
    } else {
        assert!(
            any.type_url.ends_with("io.containerd.cgroups.v1.Metrics"),
            "{}",
            any.type_url
        );
        let m = V1::parse_from_bytes(&any.value).unwrap();
        let oom = m.memory_oom_control.as_ref().map_or(0, |o| o.oom_kill);
        (m.pids.current, m.memory.usage.usage, m.cpu.usage.total, oom)
    }
}

fn stats(s: &Shim) {
    s.run(
        "box",
        &[
            "sh",
            "-c",
            "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000",
        ],
    );
    wait_until("it has used some CPU", Duration::from_secs(10), || {
        numbers(s, "box").2 > 5_000_000
    });
    let (pids, memory, _, _) = numbers(s, "box");
    assert!((1..=2).contains(&pids) && memory > 4096, "{pids} {memory}");
    s.kill("box", "", 9, true).unwrap();
    s.wait("box", "").unwrap();
    // Until it is deleted.
    assert!(numbers(s, "box").2 > 5_000_000);
    s.delete("box", "").unwrap();
    refused(s.stats("box"), Code::NOT_FOUND, "box");
}

fn update(s: &Shim) {
    s.run("box", &["sleep", "1000"]);
    s.update(
        "box",
        &json!({ "pids": { "limit": 50 }, "memory": { "limit": 67_108_864 } }),
    )
    .unwrap();
    let limit = |v1: (&str, &str), v2: &str| read(&s.group("box"), v1, v2);
    let pids = || limit(("pids", "pids.max"), "pids.max");
    let memory = || limit(("memory", "memory.limit_in_bytes"), "memory.max");
    assert_eq!((pids().as_str(), memory().as_str()), ("50", "67108864"));
    // One wrong value: none is changed.
    let wrong = json!({ "pids": { "limit": 60 }, "memory": { "limit": 134_217_728 }, "cpu": { "cpus": "4000" } });
    refused(
        s.update("box", &wrong),
        Code::UNKNOWN,
        "linux.resources.cpu.cpus",
    );
    assert_eq!((pids().as_str(), memory().as_str()), ("50", "67108864"));
    let wrong = json!({ "pids": { "limit": -7 } });
    refused(
        s.update("box", &wrong),
        Code::INVALID_ARGUMENT,
        "linux.resources.pids.limit: -7 is below -1",
    );
    refused(
        s.update("box", &json!({ "pids": 5 })),
        Code::INVALID_ARGUMENT,
        "linux.resources.pids: ",
    );
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    refused(
        s.update("box", &json!({})),
        Code::UNKNOWN,
        "cannot update a stopped container",
    );
    s.delete("box", "").unwrap();
}

fn connect_and_shutdown(s: &Shim) {
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

fn event_order(s: &Shim) {
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

fn out_of_memory(s: &Shim) {
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

fn shared_pid_namespace(s: &Shim) {
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

fn execs_of_a_dying_container(s: &Shim) {
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
fn exec_in_a_divided_group(s: &Shim) {
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
fn limit_descriptors(shim: i32, files: usize) {
    let files = format!("--nofile={files}:");
    Output::of(Command::new("prlimit").args(["--pid", &shim.to_string(), &files])).ok();
}

fn no_descriptor_for_a_connection(s: &Shim) {
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

fn few_descriptors(s: &Shim) {
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

/// Children of a process, zombies among them.
pub fn children(pid: i32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = threads.map(|t| fs::read_to_string(t.path().join("children")).unwrap_or_default());
    let all = of.collect::<Vec<_>>().join(" ");
    all.split_whitespace().map(str::to_owned).collect()
}
