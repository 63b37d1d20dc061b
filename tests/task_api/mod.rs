//! The task API, row by row of what containerd's own shim answers, as `containerd.task.v2.Task` and
//! `containerd.task.v3.Task`: requests to the shim itself, without a containerd.

mod pod;
mod state;

use std::fs;

use containerd_shim_protos::api::{Empty, ExecProcessRequest};
use serde_json::json;
use ttrpc::Code;

use crate::Case;
use crate::support::shim::{Refusal, Shim, Streams};

use pod::{
    connect_and_shutdown, event_order, exec_in_a_divided_group, execs_of_a_dying_container,
    few_descriptors, no_descriptor_for_a_connection, out_of_memory, shared_pid_namespace,
};
use state::{
    close_stdin, kill, kill_all, pause_and_resume, pids, resize, state, stats, update, wait,
};

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

/// Children of a process, zombies among them.
pub fn children(pid: i32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = threads.map(|t| fs::read_to_string(t.path().join("children")).unwrap_or_default());
    let all = of.collect::<Vec<_>>().join(" ");
    all.split_whitespace().map(str::to_owned).collect()
}
