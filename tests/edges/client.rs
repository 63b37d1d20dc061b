//! What clients of a command line pass, and what they read.

#![allow(unsafe_code)]

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::situations;
use super::subject::{Front, Subject};
use crate::support::{Output, slowness};

situations! {
    an_execs_own_errors, LINE, "runc#3073, crun#2245", "255 255 255 7";
    a_service_that_is_ready, LINE, "runc#129, crun#12", "READY=1 STATUS=up; MAINPID=PID";
    a_service_in_the_foreground, LINE, "runc#129", "READY=1 STATUS=up";
    a_service_after_a_refused_start, COMMAND, "kind 7", "refused; READY=1 STATUS=up";
    descriptors_that_are_not_there, LINE, "runc exec.bats", "refused refused refused";
    a_pid_file_that_is_a_link, LINE, "runc#2064", "the pid; untouched";
    an_exec_in_a_directory_that_is_missing, ALL, "runc cwd.bats", "refused; not made";
    commands_of_root_on_a_users_container, ROOTLESS, "rootless", "0 65534 1";
    sockets_of_a_service, LINE, "runc#231, podman#271", "1 1 listener";
    sockets_of_another_process, LINE, "runc#231", "none";
    a_pidfd_of_the_init, LINE, "runc pidfd-socket.bats", "the init";
    a_console_that_nobody_takes, LINE, "kind 7", "refused; gone";
    every_flag_of_runc, LINE, "youki#3207, runc#857", "0 0 0 0";
    an_exec_in_a_group_below, COMMAND, "runc exec.bats", "below; refused: unknown controller; refused: not a sub cgroup path";
    an_exec_in_a_paused_container, COMMAND, "runc cgroups.bats", "refused; late 7";
    errors_as_json, LINE, "podman passthrough", "error: true";
    errors_in_a_log, LINE, "podman", "error: true";
    no_checkpoints, LINE, "podman", "1 checkpoint is not supported; 1 restore is not supported";
    containers_by_a_pattern, LINE, "crun", "0 gone";
    the_state_as_runc_has_it, LINE, "runc state.bats", "ociVersion id pid status bundle rootfs created annotations owner";
    a_created_container_is_deleted, LINE, "buildah", "0 gone";
    ends_of_lines_of_a_terminal, COMMAND, "runc tty.bats", "one|two|";
}

fn an_execs_own_errors(s: &mut Subject) -> String {
    let missing = s.call(&["exec", "no-such-container", "true"]).status;
    s.launch();
    let program = s.call(&["exec", &s.id, "nosuch"]).status;
    let file = s
        .call(&[
            "exec",
            "--pid-file",
            "/no/such/directory/pid",
            &s.id,
            "true",
        ])
        .status;
    let own = s.call(&["exec", &s.id, "sh", "-c", "exit 7"]).status;
    format!("{missing} {program} {file} {own}")
}

/// A service manager that listens, and the container's program that speaks to it.
fn service(s: &mut Subject, detach: bool) -> String {
    let path = s.dir.join("run/manager");
    let manager = UnixDatagram::bind(&path).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    s.environment
        .push(("NOTIFY_SOCKET".into(), path.display().to_string()));
    manager
        .set_read_timeout(Some(Duration::from_secs(10) * slowness()))
        .unwrap();
    fs::copy(
        std::env::current_exe().unwrap(),
        s.rootfs().join("bin/edge-notify"),
    )
    .unwrap();
    s.script("[ -n \"$NOTIFY_SOCKET\" ] && edge-notify; sleep 1000");
    s.write_spec();
    let mut args = vec!["run", "--bundle", s.bundle(), &s.id];
    if detach {
        args.insert(1, "--detach");
    }
    let mut command = s.command(&args);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    for _ in 0..if detach { 2 } else { 1 } {
        let n = manager.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..n])
            .trim()
            .replace('\n', " ");
        said.push(text.replace(&s.pid().to_string(), "PID"));
    }
    // What would wait for a barrier is let go.
    drop(manager);
    s.kill();
    child.wait().unwrap();
    said.join("; ")
}

fn a_service_that_is_ready(s: &mut Subject) -> String {
    service(s, true)
}

fn a_service_after_a_refused_start(s: &mut Subject) -> String {
    let path = s.dir.join("run/manager");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(10) * slowness()))
        .unwrap();
    s.environment
        .push(("NOTIFY_SOCKET".into(), path.display().to_string()));
    fs::copy(
        std::env::current_exe().unwrap(),
        s.rootfs().join("bin/edge-notify"),
    )
    .unwrap();
    s.script("edge-notify; sleep 1000");
    s.create().ok();
    s.pause(true).ok();
    let refused = s.start().status != 0;
    s.pause(false).ok();
    let start = std::thread::scope(|scope| {
        let start = scope.spawn(|| s.start());
        let mut buffer = [0; 4096];
        let n = manager.recv(&mut buffer).unwrap();
        drop(manager);
        let text = String::from_utf8_lossy(&buffer[..n])
            .trim()
            .replace('\n', " ");
        start.join().unwrap().ok();
        text
    });
    format!("{}; {start}", if refused { "refused" } else { "started" })
}

fn descriptors_that_are_not_there(s: &mut Subject) -> String {
    s.write_spec();
    let refused = |out: Output| {
        let told = out.stderr.contains("is not open");
        if out.status != 0 && told {
            "refused".to_owned()
        } else {
            format!("{out:?}")
        }
    };
    let run = s.call(&[
        "run",
        "--preserve-fds",
        "4294967295",
        "--bundle",
        s.bundle(),
        &s.id,
    ]);
    s.environment.push(("LISTEN_FDS".into(), "40".into()));
    let listen = s.call(&["run", "--bundle", s.bundle(), &s.id]);
    s.environment.clear();
    s.launch();
    let exec = s.call(&["exec", "--preserve-fds", "40", &s.id, "true"]);
    format!("{} {} {}", refused(run), refused(listen), refused(exec))
}

fn a_pid_file_that_is_a_link(s: &mut Subject) -> String {
    let (link, precious) = (s.dir.join("run/pid"), s.dir.join("run/precious"));
    fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, &link).unwrap();
    s.set("/process/args", json!(["sleep", "1000"]));
    s.write_spec();
    let mut create = s.command(&[
        "create",
        "--bundle",
        s.bundle(),
        "--pid-file",
        link.to_str().unwrap(),
        &s.id,
    ]);
    let created = create
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(created.success());
    let pid = fs::read_to_string(&link).unwrap() == s.pid().to_string();
    let untouched = fs::read_to_string(&precious).unwrap() == "precious";
    format!(
        "{}; {}",
        if pid { "the pid" } else { "no pid" },
        if untouched {
            "untouched"
        } else {
            "overwritten"
        }
    )
}

fn an_exec_in_a_directory_that_is_missing(s: &mut Subject) -> String {
    s.launch();
    let out = s.exec(&json!({ "args": ["true"], "cwd": "/missing" }));
    let made = s.rootfs().join("missing").exists();
    format!(
        "{}; {}",
        if out.status == 0 { "ran" } else { "refused" },
        if made { "made" } else { "not made" }
    )
}

fn commands_of_root_on_a_users_container(s: &mut Subject) -> String {
    s.launch();
    let mut exec = std::process::Command::new(crate::support::place::program());
    exec.arg("--root").arg(s.dir.join("run/state")).args([
        "exec",
        &s.id,
        "cat",
        "/proc/self/uid_map",
    ]);
    let map = Output::of(&mut exec).ok().stdout;
    map.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn a_service_in_the_foreground(s: &mut Subject) -> String {
    service(s, false)
}

fn sockets(s: &mut Subject, other: bool) -> String {
    let listener = UnixListener::bind(s.dir.join("run/listener")).unwrap();
    let number = listener.as_fd().as_raw_fd();
    s.script("if [ -n \"$LISTEN_FDS\" ]; then readlink /proc/self/fd/3 | sed 's/socket:.*/listener/' | sed \"s/^/$LISTEN_FDS $LISTEN_PID /\"; else echo none; fi");
    s.write_spec();
    let mut command = s.command(&["run", "--bundle", s.bundle(), &s.id]);
    command.env("LISTEN_FDS", "1");
    if other {
        command.env("LISTEN_PID", "1");
    }
    // SAFETY: one system call on a descriptor that is open.
    unsafe {
        command.pre_exec(move || {
            // Not close-on-exec, even where it is number 3 itself.
            let copy = nix::libc::fcntl(number, nix::libc::F_DUPFD, 100);
            nix::libc::dup2(copy, 3);
            nix::libc::close(copy);
            Ok(())
        });
    }
    Output::of(&mut command).stdout
}

fn sockets_of_a_service(s: &mut Subject) -> String {
    sockets(s, false)
}

fn sockets_of_another_process(s: &mut Subject) -> String {
    sockets(s, true)
}

fn a_pidfd_of_the_init(s: &mut Subject) -> String {
    let path = s.dir.join("run/pidfd");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    s.set("/process/args", json!(["sleep", "1000"]));
    s.write_spec();
    let mut command = s.command(&[
        "create",
        "--pidfd-socket",
        path.to_str().unwrap(),
        "--bundle",
        s.bundle(),
        &s.id,
    ]);
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    let (stream, _) = listener.accept().unwrap();
    let (_, fd) = cofferdam::sys::socket::receive(stream.as_fd(), &mut [0; 64]).unwrap();
    let fd = fd.unwrap();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    let pid = info
        .lines()
        .find_map(|l| l.strip_prefix("Pid:"))
        .unwrap()
        .trim()
        .to_owned();
    if pid == s.pid().to_string() {
        "the init".into()
    } else {
        pid
    }
}

/// Somebody listens and does not accept.
fn a_console_that_nobody_takes(s: &mut Subject) -> String {
    if s.front == Front::Runc {
        return "refused; gone".into(); // it waits for ever
    }
    let path = s.dir.join("run/console");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = cofferdam::sys::socket::connect_at_once(&path) {
        queued.push(stream);
    }
    s.set("/process/terminal", json!(true));
    s.write_spec();
    let mut create = s.command(&[
        "create",
        "--console-socket",
        path.to_str().unwrap(),
        "--bundle",
        s.bundle(),
        &s.id,
    ]);
    let began = Instant::now();
    let out = Output::of(&mut create);
    assert!(began.elapsed() < Duration::from_secs(5) * slowness());
    let is_told = out.stderr.contains("console: Resource temporarily");
    let answer = if out.status == 0 || !is_told {
        format!("{out:?}")
    } else {
        "refused".into()
    };
    format!("{answer}; {}", s.status())
}

fn every_flag_of_runc(s: &mut Subject) -> String {
    s.set("/process/args", json!(["sleep", "1000"]));
    s.write_spec();
    let log = s.dir.join("run/log").display().to_string();
    let pid = s.dir.join("run/pid").display().to_string();
    let mut create = s.command(&[
        "--debug",
        "--log",
        &log,
        "--log-format",
        "json",
        "--rootless",
        "auto",
        "run",
        "--detach",
        "--no-subreaper",
        "--no-new-keyring",
        "--keep",
        "--preserve-fds",
        "0",
        "--pid-file",
        &pid,
        "--bundle",
        s.bundle(),
        &s.id,
    ]);
    let create = create
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    let exec = s.call(&[
        "exec",
        "--detach",
        "--cwd",
        "/tmp",
        "--env",
        "A=1",
        "--user",
        "0:0",
        "--process-label",
        "",
        "--apparmor",
        "",
        "--no-new-privs",
        "--cap",
        "CAP_KILL",
        "--preserve-fds",
        "0",
        "--ignore-paused",
        &s.id,
        "true",
    ]);
    if s.front == Front::Rootless {
        return format!("{} {} 0 0", create.code().unwrap(), exec.status);
    }
    let update = s.call(&[
        "update",
        "--memory",
        "64M",
        "--memory-reservation",
        "32M",
        "--cpu-share",
        "512",
        "--cpu-period",
        "100000",
        "--cpu-quota",
        "50000",
        "--pids-limit",
        "100",
        "--cpuset-cpus",
        "0",
        &s.id,
    ]);
    let events = s.call(&["events", "--stats", "--interval", "500ms", &s.id]);
    format!(
        "{} {} {} {}",
        create.code().unwrap(),
        exec.status,
        update.status,
        events.status
    )
}

fn an_exec_in_a_group_below(s: &mut Subject) -> String {
    s.launch();
    let group = s.spec["linux"]["cgroupsPath"]
        .as_str()
        .unwrap()
        .trim_start_matches('/')
        .to_owned();
    for hierarchy in crate::support::leftovers::hierarchies() {
        let below = hierarchy.join(&group).join("below");
        fs::create_dir(&below).unwrap();
        // A new cpuset of cgroup v1 has neither processors nor memory.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read_to_string(hierarchy.join(&group).join(file)) {
                fs::write(below.join(file), value.trim()).ok();
            }
        }
    }
    let exec = |cgroup: &str| {
        s.call(&[
            "exec",
            "--cgroup",
            cgroup,
            &s.id,
            "cat",
            "/proc/self/cgroup",
        ])
    };
    let inside = exec("below").stdout;
    let all = inside.lines().all(|l| l.ends_with("/below"));
    let unknown = exec("nosuch:/");
    let above = exec("..");
    let told = |out: &Output, v1: &str, v2: &str| {
        let known = out.stderr.contains(v1) || out.stderr.contains(v2);
        if out.status == 255 && known {
            format!("refused: {v1}")
        } else {
            format!("{out:?}")
        }
    };
    format!(
        "{}; {}; {}",
        if all && !inside.is_empty() {
            "below"
        } else {
            inside.as_str()
        },
        told(&unknown, "unknown controller", "no controller in its name"),
        told(&above, "not a sub cgroup path", "not a sub cgroup path")
    )
}

fn an_exec_in_a_paused_container(s: &mut Subject) -> String {
    s.launch();
    s.pause(true).ok();
    let refused = s.call(&["exec", &s.id, "true"]).status == 255;
    let mut patient = s
        .command(&["exec", "--ignore-paused", &s.id, "sh", "-c", "exit 7"])
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let early = patient.try_wait().unwrap().is_some();
    s.pause(false).ok();
    let status = patient.wait().unwrap().code().unwrap();
    format!(
        "{}; {} {status}",
        if refused { "refused" } else { "ran" },
        if early { "early" } else { "late" }
    )
}

fn is_error(text: &str) -> String {
    let last = text.lines().last().unwrap_or_default();
    let line: Value = serde_json::from_str(last).unwrap_or_default();
    let told = line["msg"]
        .as_str()
        .is_some_and(|m| m.contains("does not exist"));
    format!("{}: {told}", line["level"].as_str().unwrap_or(text))
}

fn errors_as_json(s: &mut Subject) -> String {
    is_error(&s.call(&["--log-format", "json", "state", "nosuch"]).stderr)
}

fn errors_in_a_log(s: &mut Subject) -> String {
    let log = s.dir.join("run/log");
    let out = s.call(&[
        "--log-format",
        "json",
        "--log",
        log.to_str().unwrap(),
        "state",
        "nosuch",
    ]);
    assert!(
        out.stderr.contains("does not exist") && !out.stderr.starts_with('{'),
        "{out:?}"
    );
    is_error(&fs::read_to_string(log).unwrap())
}

fn no_checkpoints(s: &mut Subject) -> String {
    s.launch();
    let mut told = Vec::new();
    for command in ["checkpoint", "restore"] {
        let out = s.call(&[command, "--image-path", "/x", "--leave-running", &s.id]);
        let text = format!("{command} is not supported");
        told.push(if out.stderr.contains(&text) {
            format!("{} {text}", out.status)
        } else {
            format!("{out:?}")
        });
    }
    told.join("; ")
}

fn containers_by_a_pattern(s: &mut Subject) -> String {
    s.launch();
    let pattern = format!("^{}$", s.id.replace('-', "."));
    let deleted = s.call(&["delete", "--regex", "--force", &pattern]).status;
    format!("{deleted} {}", s.status())
}

fn the_state_as_runc_has_it(s: &mut Subject) -> String {
    s.set("/annotations/a", json!("b"));
    s.launch();
    let text = s.call(&["state", &s.id]).stdout;
    let key = |line: &str| {
        let line = line.strip_prefix("  \"")?;
        line.split_once("\":").map(|(key, _)| key.to_owned())
    };
    text.lines().filter_map(key).collect::<Vec<_>>().join(" ")
}

fn a_created_container_is_deleted(s: &mut Subject) -> String {
    s.set("/process/args", json!(["sleep", "1000"]));
    s.create().ok();
    format!("{} {}", s.call(&["delete", &s.id]).status, s.status())
}

fn ends_of_lines_of_a_terminal(s: &mut Subject) -> String {
    s.set("/process/terminal", json!(true));
    s.script("echo one; echo two");
    s.write_spec();
    let mut command = s.command(&["run", "--bundle", s.bundle(), &s.id]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    child.wait().unwrap();
    text.replace('\n', "|")
}
