//! Questions, signals and changes of a container that lives.

use std::fs;
use std::time::Duration;

use containerd_shim_protos::api::Status;
use containerd_shim_protos::api::WaitRequest;
use containerd_shim_protos::api::WaitResponse;
use containerd_shim_protos::cgroups::metrics::Metrics as V1;
use containerd_shim_protos::cgroups_v2::metrics::Metrics as V2;
use containerd_shim_protos::protobuf::Message;
use serde_json::json;
use ttrpc::Code;

use super::{refused, remove};
use crate::resources::is_v2;
use crate::resources::read;
use crate::support::read_fifo;
use crate::support::shim::Shim;
use crate::support::shim::Streams;
use crate::support::wait_until;

pub(super) fn kill(s: &Shim) {
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

pub(super) fn kill_all(s: &Shim) {
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

pub(super) fn wait(s: &Shim) {
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

pub(super) fn state(s: &Shim) {
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

pub(super) fn pause_and_resume(s: &Shim) {
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

pub(super) fn resize(s: &Shim) {
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

pub(super) fn close_stdin(s: &Shim) {
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

pub(super) fn pids(s: &Shim) {
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
pub(super) fn numbers(s: &Shim, id: &str) -> (u64, u64, u64, u64) {
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

pub(super) fn stats(s: &Shim) {
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

pub(super) fn update(s: &Shim) {
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
