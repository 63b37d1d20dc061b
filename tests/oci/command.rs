//! The commands, their arguments and their errors.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::{exec_refused, refused};
use crate::support::Output;
use crate::support::is_alive;
use crate::support::place::Place;
use crate::support::place::program;
use crate::support::test_directory;
use crate::support::wait_until;

pub(super) fn operations() {
    let mut p = Place::new(&["sh", "-c", "echo hello; sleep 1000"]);
    p.set("/annotations", json!({ "a.b": "c" }));
    let bundle = p.dir.join("bundle");
    let out = p.dir.join("out");
    let created = p
        .command(&["create", "--bundle", bundle.to_str().unwrap(), &p.id])
        .stdout(fs::File::create(&out).unwrap())
        .status()
        .unwrap();
    assert!(created.success());
    let state = p.state();
    assert_eq!(state["status"], "created");
    assert_eq!(
        (state["id"].as_str(), state["bundle"].as_str()),
        (Some(p.id.as_str()), bundle.to_str())
    );
    assert_eq!(state["annotations"], json!({ "a.b": "c" }));
    let pid = state["pid"].as_i64().unwrap() as i32;
    assert!(is_alive(pid));
    assert_eq!(
        fs::read_to_string(&out).unwrap(),
        "",
        "the program does not run yet"
    );
    // Later changes of config.json have no effect, OCI runtime.md "Start".
    p.set("/process/args", json!(["false"]));
    p.call(&["start", &p.id]).ok();
    assert_eq!(p.status(), "running");
    wait_until("its output", Duration::from_secs(5), || {
        fs::read_to_string(&out).unwrap() == "hello\n"
    });
    let list: Value =
        serde_json::from_str(&p.call(&["list", "--format", "json"]).ok().stdout).unwrap();
    assert_eq!(
        (list.as_array().unwrap().len(), list[0]["pid"].as_i64()),
        (1, Some(i64::from(pid)))
    );
    assert!(p.call(&["ps", &p.id]).ok().stdout.contains("sleep 1000"));
    p.call(&["kill", &p.id, "KILL"]).ok();
    wait_until("it stops", Duration::from_secs(5), || {
        p.status() == "stopped"
    });
    p.call(&["delete", &p.id]).ok();
    assert_eq!(p.call(&["list", "--quiet"]).ok().stdout, "");
}

pub(super) fn states_and_their_errors() {
    let p = Place::new(&["sleep", "1000"]);
    let bundle = p.dir.join("bundle").display().to_string();
    for command in ["state", "start", "kill", "delete", "pause", "resume", "ps"] {
        refused(&p.call(&[command, &p.id]), "does not exist");
    }
    p.call(&["delete", "--force", &p.id]).ok();
    p.command(&["create", "--bundle", &bundle, &p.id])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    refused(
        &p.call(&["create", "--bundle", &bundle, &p.id]),
        "container with id exists",
    );
    p.call(&["start", &p.id]).ok();
    refused(
        &p.call(&["start", &p.id]),
        "cannot start an already running container",
    );
    refused(&p.call(&["delete", &p.id]), "that is not stopped: running");
    assert_eq!(p.status(), "running", "a refused deletion changes nothing");
    refused(
        &p.call(&["resume", &p.id]),
        "cannot resume a running container",
    );
    p.call(&["kill", &p.id, "9"]).ok();
    wait_until("it stops", Duration::from_secs(5), || {
        p.status() == "stopped"
    });
    assert_eq!(p.state()["pid"], 0);
    refused(&p.call(&["kill", &p.id]), "container not running");
    refused(
        &p.call(&["start", &p.id]),
        "cannot start a container that has stopped",
    );
    exec_refused(
        &p.call(&["exec", &p.id, "true"]),
        "cannot exec in a stopped container",
    );
}

pub(super) fn run_and_its_status() {
    for (script, status) in [
        ("exit 0", 0),
        ("exit 42", 42),
        ("sh -c 'kill -9 $$'; exit $?", 137),
    ] {
        assert_eq!(
            Place::new(&["sh", "-c", script]).run().status,
            status,
            "{script}"
        );
    }
    let p = Place::new(&["nosuch"]);
    refused(
        &p.run(),
        "exec: \"nosuch\": executable file not found in $PATH",
    );
    refused(&p.call(&["state", &p.id]), "does not exist");
    // Signals to the command reach the container.
    let p = Place::new(&[
        "sh",
        "-c",
        "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done",
    ]);
    let bundle = p.dir.join("bundle");
    let mut child = p
        .command(&["run", "--bundle", bundle.to_str().unwrap(), &p.id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 6])
        .unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id() as i32),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

pub(super) fn kill_by_name_and_number() {
    for signal in ["TERM", "SIGUSR1", "12"] {
        let p = Place::new(&[
            "sh",
            "-c",
            "trap 'exit 3' TERM USR1 USR2; touch /ready; while :; do sleep 0.05; done",
        ]);
        p.start();
        wait_until("the trap is set", Duration::from_secs(5), || {
            p.rootfs().join("ready").exists()
        });
        p.call(&["kill", &p.id, signal]).ok();
        wait_until("it stops", Duration::from_secs(5), || {
            p.status() == "stopped"
        });
    }
    let p = Place::new(&["sleep", "1000"]);
    p.start();
    refused(
        &p.call(&["kill", &p.id, "NOSUCH"]),
        "unknown signal \"NOSUCH\"",
    );
    p.call(&["kill", "--all", &p.id, "KILL"]).ok();
    wait_until("it stops", Duration::from_secs(5), || {
        p.status() == "stopped"
    });
}

pub(super) fn exec_with_flags_and_files() {
    let p = Place::new(&["sleep", "1000"]);
    p.start();
    assert_eq!(p.exec("echo $0; exit 5").status, 5);
    let out = p.call(&[
        "exec",
        "--user",
        "1000:1000",
        "--cwd",
        "/tmp",
        "--env",
        "A=b",
        "--additional-gids",
        "2000",
        &p.id,
        "sh",
        "-c",
        "id; pwd; echo $A",
    ]);
    assert_eq!(
        out.ok().stdout,
        "uid=1000(user) gid=1000(user) groups=2000(extra)\n/tmp\nb\n"
    );
    let file = p.dir.join("process.json");
    fs::write(&file, json!({ "args": ["sh", "-c", "echo $B"], "cwd": "/", "env": ["PATH=/bin", "B=c"], "user": { "uid": 0, "gid": 0 } }).to_string()).unwrap();
    assert_eq!(
        p.call(&["exec", "--process", file.to_str().unwrap(), &p.id])
            .ok()
            .stdout,
        "c\n"
    );
    let pid_file = p.dir.join("pid");
    let status = p
        .command(&[
            "exec",
            "--detach",
            "--pid-file",
            pid_file.to_str().unwrap(),
            &p.id,
            "sleep",
            "2000",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    // The kernel lets the shim know of the exec before it has put the arguments in place.
    wait_until("the new program", Duration::from_secs(5), || {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains("2000"))
    });
    exec_refused(
        &p.call(&["exec", &p.id, "nosuch"]),
        "executable file not found in $PATH",
    );
    exec_refused(
        &p.call(&["exec", "--user", "root", &p.id, "true"]),
        "expected UID[:GID]",
    );
}

pub(super) fn pause_resume_update_events() {
    let p = Place::new(&["sleep", "1000"]);
    p.start();
    p.call(&["pause", &p.id]).ok();
    assert_eq!(p.status(), "paused");
    exec_refused(&p.exec("true"), "cannot exec in a paused container");
    p.call(&["resume", &p.id]).ok();
    assert_eq!(p.status(), "running");
    p.call(&[
        "update",
        "--pids-limit",
        "33",
        "--memory",
        "67108864",
        &p.id,
    ])
    .ok();
    let events: Value =
        serde_json::from_str(&p.call(&["events", "--stats", &p.id]).ok().stdout).unwrap();
    assert_eq!(
        (
            events["type"].as_str(),
            events["data"]["pids"]["limit"].as_u64()
        ),
        (Some("stats"), Some(33))
    );
    assert_eq!(events["data"]["memory"]["usage"]["limit"], 67_108_864);
    let file = p.dir.join("resources.json");
    fs::write(&file, json!({ "pids": { "limit": 44 } }).to_string()).unwrap();
    p.call(&["update", "--resources", file.to_str().unwrap(), &p.id])
        .ok();
    let events: Value =
        serde_json::from_str(&p.call(&["events", "--stats", &p.id]).ok().stdout).unwrap();
    assert_eq!(events["data"]["pids"]["limit"], 44);
    refused(
        &p.call(&["update", "--cpuset-cpus", "900", &p.id]),
        "linux.resources.cpu.cpus: writing \"900\"",
    );
}

pub(super) fn pid_file_and_console_socket() {
    let mut p = Place::new(&["sh", "-c", "tty; read line; echo got $line"]);
    p.set("/process/terminal", json!(true));
    let bundle = p.dir.join("bundle").display().to_string();
    refused(
        &p.call(&["create", "--bundle", &bundle, &p.id]),
        "--console-socket is needed",
    );
    let path = p.dir.join("console");
    let listener = UnixListener::bind(&path).unwrap();
    let pid_file = p.dir.join("pid");
    let (socket, pids) = (path.to_str().unwrap(), pid_file.to_str().unwrap());
    p.call(&[
        "create",
        "--bundle",
        &bundle,
        "--console-socket",
        socket,
        "--pid-file",
        pids,
        &p.id,
    ])
    .ok();
    assert_eq!(
        fs::read_to_string(&pid_file).unwrap(),
        p.state()["pid"].to_string()
    );
    let (stream, _) = listener.accept().unwrap();
    let mut master = receive_descriptor(&stream);
    p.call(&["start", &p.id]).ok();
    std::io::Write::write_all(&mut master, b"typed\n").unwrap();
    let mut all = Vec::new();
    master.read_to_end(&mut all).ok(); // EIO at the end
    let text = String::from_utf8_lossy(&all);
    assert!(
        text.contains("/dev/pts/0") && text.contains("got typed"),
        "{text}"
    );
}

pub(super) fn receive_descriptor(stream: &std::os::unix::net::UnixStream) -> fs::File {
    receive(stream).1
}

/// One message, and the descriptor that comes with it.
pub(super) fn receive(stream: &std::os::unix::net::UnixStream) -> (Vec<u8>, fs::File) {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut data = vec![0; 1 << 16];
    let mut space = nix::cmsg_space!(std::os::fd::RawFd);
    let mut iov = [std::io::IoSliceMut::new(&mut data)];
    let message = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut iov,
        Some(&mut space),
        MsgFlags::empty(),
    )
    .unwrap();
    let (length, fds) = (
        message.bytes,
        message.cmsgs().unwrap().find_map(|c| match c {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        }),
    );
    #[allow(unsafe_code)]
    // SAFETY: the descriptor was just received, and nobody else owns it.
    let file = unsafe { fs::File::from_raw_fd(fds.unwrap()[0]) };
    data.truncate(length);
    (data, file)
}

pub(super) fn preserved_descriptors() {
    // No pipe: the shell might have its ends open still.
    let p = Place::new(&["sh", "-c", "cat <&3; ls /proc/1/fd; true"]);
    let bundle = p.dir.join("bundle").display().to_string();
    fs::write(p.dir.join("data"), "passed on\n").unwrap();
    let script = format!(
        "exec 3< {} 4< /dev/null; exec {} --root {} run --preserve-fds 1 --bundle {bundle} {}",
        p.dir.join("data").display(),
        program().display(),
        p.dir.join("state").display(),
        p.id
    );
    p.command(&["list"]); // writes config.json
    let out = Output::of(Command::new("bash").args(["-c", &script])).ok();
    assert_eq!(out.stdout, "passed on\n0\n1\n2\n3\n");
}

pub(super) fn log_file() {
    let p = Place::new(&["nosuch"]);
    let (log, bundle) = (p.dir.join("log"), p.dir.join("bundle"));
    let (log_arg, bundle) = (log.to_str().unwrap(), bundle.to_str().unwrap());
    assert_eq!(
        p.call(&[
            "--log",
            log_arg,
            "--log-format",
            "json",
            "run",
            "--bundle",
            bundle,
            &p.id
        ])
        .status,
        1
    );
    let line: Value = serde_json::from_str(fs::read_to_string(&log).unwrap().trim()).unwrap();
    assert_eq!(
        (line["level"].as_str(), line["msg"].as_str()),
        (
            Some("error"),
            Some("exec: \"nosuch\": executable file not found in $PATH")
        )
    );
}

pub(super) fn missing_podman() -> Option<String> {
    let here = Command::new("podman").arg("--version").output().is_ok();
    (!here).then(|| "podman is not installed".into())
}

/// podman, with this command as its runtime.
pub(super) fn podman() {
    let p = Place::new(&["true"]);
    let podman = |args: &[&str]| {
        let mut c = Command::new("podman");
        c.arg("--root")
            .arg(p.dir.join("podman"))
            .arg("--runroot")
            .arg(p.dir.join("podman-run"));
        c.args([
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "file",
            "--runtime",
        ])
        .arg(program());
        Output::of(c.args(args).stdin(Stdio::null()))
    };
    let image = test_directory().join("images/busybox.tar");
    podman(&["load", "--quiet", "--input", image.to_str().unwrap()]).ok();
    // Raising hard limits needs CAP_SYS_RESOURCE, which not every root has.
    let run = [
        "run",
        "--network",
        "none",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=4096:4096",
    ];
    let with = |more: &[&'static str]| {
        run.iter()
            .copied()
            .chain(more.iter().copied())
            .collect::<Vec<&str>>()
    };
    assert_eq!(
        podman(&with(&["--rm", "localhost/busybox:1", "echo", "hello"]))
            .ok()
            .stdout,
        "hello\n"
    );
    assert_eq!(
        podman(&with(&[
            "--rm",
            "localhost/busybox:1",
            "sh",
            "-c",
            "exit 7"
        ]))
        .status,
        7
    );
    let id = podman(&with(&["--detach", "localhost/busybox:1", "sleep", "1000"]))
        .ok()
        .stdout
        .trim()
        .to_owned();
    assert_eq!(
        podman(&["exec", &id, "sh", "-c", "echo in; exit 3"]).status,
        3
    );
    assert_eq!(
        podman(&["exec", "--user", "1000", &id, "id", "-u"])
            .ok()
            .stdout,
        "1000\n"
    );
    assert!(podman(&["top", &id]).ok().stdout.contains("sleep 1000"));
    podman(&["stop", "--time", "1", &id]).ok();
    podman(&["rm", &id]).ok();
    assert_eq!(podman(&["ps", "--all", "--quiet"]).ok().stdout, "");
    podman(&["rmi", "--all", "--force"]).ok();
}
