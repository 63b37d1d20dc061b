//! What a person types: `ctr run`, `ctr tasks …`.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Daemon, Output, text, wait_until};

crate::cases!(ctr: [
    echo,
    exit_codes,
    death_by_signal,
    standard_error_is_separate,
    stdin_until_its_end,
    a_terminal,
    exec,
    exec_with_a_terminal,
    kill,
    kill_all,
    pause_and_resume,
    metrics,
    ps,
    delete_needs_an_end,
    read_only_root,
    bind_mount,
    environment_and_directory,
]);

fn echo(d: &mut Daemon) {
    let out = d
        .run_container(&[], "echo", &["echo", "hello", "world"])
        .ok();
    assert_eq!(
        (out.stdout.as_str(), out.stderr.as_str()),
        ("hello world\n", "")
    );
}

fn exit_codes(d: &mut Daemon) {
    for code in [0, 1, 42, 255] {
        let out = d.run_container(
            &[],
            &format!("exit{code}"),
            &["sh", "-c", &format!("exit {code}")],
        );
        assert_eq!(out.status, code, "{out:?}");
    }
}

fn death_by_signal(d: &mut Daemon) {
    let out = d.run_container(&[], "killed", &["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]);
    assert_eq!(
        out.status, 137,
        "a child's death, as the shell tells it: {out:?}"
    );
    d.run_detached(&[], "init", &["sleep", "1000"]);
    d.ctr(["tasks", "kill", "--signal", "SIGKILL", "init"]).ok();
    wait_until("the task stops", Duration::from_secs(5), || {
        d.task_status("init").as_deref() == Some("STOPPED")
    });
    let out = d.ctr(["tasks", "delete", "init"]).ok();
    assert!(out.stderr.contains("exit code 137"), "{out:?}");
    d.remove("init");
}

fn standard_error_is_separate(d: &mut Daemon) {
    let out = d
        .run_container(&[], "both", &["sh", "-c", "echo out; echo err >&2"])
        .ok();
    assert_eq!(
        (out.stdout.as_str(), out.stderr.as_str()),
        ("out\n", "err\n")
    );
}

fn stdin_until_its_end(d: &mut Daemon) {
    let mut child = d
        .run_command(&["--rm"], "cat", &["sh", "-c", "wc -c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![b'x'; 300_000]).unwrap();
    drop(stdin);
    assert_eq!(Output::wait(child, "cat").ok().stdout.trim(), "300000");
}

/// Runs a command on a pseudo-terminal; returns what came out and the exit status.
fn on_terminal(mut command: std::process::Command, input: &[u8]) -> (String, i32) {
    let pty = nix::pty::openpty(
        Some(&nix::pty::Winsize {
            ws_row: 31,
            ws_col: 97,
            ws_xpixel: 0,
            ws_ypixel: 0,
        }),
        None,
    )
    .unwrap();
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut child = command
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .unwrap();
    drop(command);
    drop(pty.slave);
    let mut writer = std::fs::File::from(pty.master.try_clone().unwrap());
    let input = input.to_vec();
    let reader = std::thread::spawn(move || read_all(pty.master));
    std::thread::sleep(Duration::from_millis(500)); // a person's, so that what is typed is not the terminal's start-up
    writer.write_all(&input).unwrap();
    let status = child.wait().unwrap().code().unwrap_or(-1);
    drop(writer);
    (reader.join().unwrap(), status)
}

fn read_all(master: OwnedFd) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    // EIO: the other side is closed.
    while let Ok(n) = nix::unistd::read(master.as_fd(), &mut buffer) {
        if n == 0 {
            break;
        }
        all.extend(&buffer[..n]);
    }
    text(&all)
}

fn a_terminal(d: &mut Daemon) {
    let script = "test -t 0 && test -t 1 && test -t 2 && echo three ttys; tty; ls -l /dev/console; read line; echo got $line; sleep 0.3; stty size; exit 7";
    let (out, status) = on_terminal(
        d.run_command(&["--rm", "--tty"], "tty", &["sh", "-c", script]),
        b"typed\n",
    );
    assert_eq!(status, 7, "{out}");
    for expected in [
        "three ttys",
        "/dev/pts/0",
        "/dev/console",
        "got typed",
        "31 97",
    ] {
        assert!(out.contains(expected), "{expected:?} is missing in {out}");
    }
}

fn exec(d: &mut Daemon) {
    d.run_detached(&[], "box", &["sleep", "1000"]);
    let out = d.exec(
        &[],
        "box",
        "e1",
        &["sh", "-c", "echo in; echo err >&2; exit 5"],
    );
    assert_eq!(
        (out.status, out.stdout.as_str(), out.stderr.trim()),
        (5, "in\n", "err"),
        "{out:?}"
    );
    let mut child = d
        .exec_command(&[], "box", "e2", &["cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    assert_eq!(Output::wait(child, "exec cat").ok().stdout, "through\n");
    let out = d.exec(&[], "box", "e3", &["nonexistent"]);
    assert!(
        out.status != 0
            && out
                .stderr
                .contains("\"nonexistent\": executable file not found in $PATH"),
        "{out:?}"
    );
    assert_eq!(
        d.exec(&[], "box", "e1", &["true"]).status,
        0,
        "an id is free again after its exec"
    );
    d.remove("box");
}

fn exec_with_a_terminal(d: &mut Daemon) {
    d.run_detached(&[], "box", &["sleep", "1000"]);
    let (out, status) = on_terminal(
        d.exec_command(
            &["--tty"],
            "box",
            "t",
            &[
                "sh",
                "-c",
                "tty; read l; echo got $l; sleep 0.3; stty size; exit 3",
            ],
        ),
        b"typed\n",
    );
    assert_eq!(status, 3, "{out}");
    for expected in ["/dev/pts/0", "got typed", "31 97"] {
        assert!(out.contains(expected), "{expected:?} is missing in {out}");
    }
    d.remove("box");
}

fn kill(d: &mut Daemon) {
    d.run_detached(
        &[],
        "box",
        &[
            "sh",
            "-c",
            "trap 'exit 9' TERM; while :; do sleep 0.1; done",
        ],
    );
    d.ctr(["tasks", "kill", "box"]).ok();
    wait_until("the task stops", Duration::from_secs(5), || {
        d.task_status("box").as_deref() == Some("STOPPED")
    });
    let again = d.ctr(["tasks", "kill", "box"]);
    assert!(
        again.status != 0 && again.stderr.contains("process already finished"),
        "{again:?}"
    );
    assert!(
        d.ctr(["tasks", "delete", "box"])
            .ok()
            .stderr
            .contains("exit code 9")
    );
    d.remove("box");
}

fn kill_all(d: &mut Daemon) {
    d.run_detached(&[], "box", &["sh", "-c", "sleep 1000 & sleep 1000 & wait"]);
    d.ctr(["tasks", "kill", "--all", "--signal", "SIGKILL", "box"])
        .ok();
    wait_until("the task stops", Duration::from_secs(5), || {
        d.task_status("box").as_deref() == Some("STOPPED")
    });
    d.remove("box");
}

fn pause_and_resume(d: &mut Daemon) {
    d.run_detached(
        &[],
        "box",
        &["sh", "-c", "while :; do date +%s%N > /now; done"],
    );
    let now = || d.exec(&[], "box", "now", &["cat", "/now"]).ok().stdout;
    wait_until("it runs", Duration::from_secs(5), || {
        d.exec(&[], "box", "now", &["test", "-s", "/now"]).status == 0
    });
    d.ctr(["tasks", "pause", "box"]).ok();
    assert_eq!(d.task_status("box").as_deref(), Some("PAUSED"));
    let exec = d.exec(&[], "box", "paused", &["true"]);
    assert!(
        exec.status != 0 && exec.stderr.contains("cannot exec in a paused state"),
        "{exec:?}"
    );
    d.ctr(["tasks", "resume", "box"]).ok();
    assert_eq!(d.task_status("box").as_deref(), Some("RUNNING"));
    let before = now();
    wait_until("it goes on", Duration::from_secs(5), || now() != before);
    // A paused container can be killed.
    d.ctr(["tasks", "pause", "box"]).ok();
    d.ctr(["tasks", "kill", "--signal", "SIGKILL", "box"]).ok();
    wait_until("the task stops", Duration::from_secs(5), || {
        d.task_status("box").as_deref() == Some("STOPPED")
    });
    d.remove("box");
}

fn metrics(d: &mut Daemon) {
    d.run_detached(
        &["--memory-limit", "67108864"],
        "box",
        &[
            "sh",
            "-c",
            "head -c 1000000 /dev/zero | tail >/dev/null; sleep 1000",
        ],
    );
    let out = d.ctr(["tasks", "metrics", "box"]).ok().stdout;
    let value = |key: &str| {
        let line = out
            .lines()
            .find(|l| l.split_whitespace().next() == Some(key))
            .unwrap_or_else(|| panic!("no {key} in {out}"));
        line.split_whitespace()
            .last()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    if out.contains("memory.usage_in_bytes") {
        assert!(
            value("memory.usage_in_bytes") > 4096 && value("cpuacct.usage") > 0,
            "{out}"
        );
        assert_eq!(value("memory.limit_in_bytes"), 67_108_864);
    } else {
        assert!(
            value("memory.usage") > 4096 && value("cpu.usage_usec") > 0,
            "{out}"
        );
        assert_eq!(value("memory.usage_limit"), 67_108_864);
    }
    d.remove("box");
}

fn ps(d: &mut Daemon) {
    d.run_detached(&[], "box", &["sh", "-c", "sleep 1000 & wait"]);
    let mut exec = d
        .exec_command(&[], "box", "the-exec", &["sleep", "2000"])
        .spawn()
        .unwrap();
    let list = || d.ctr(["tasks", "ps", "box"]).ok().stdout;
    wait_until("three processes", Duration::from_secs(5), || {
        list().lines().count() == 4 && list().contains("the-exec")
    });
    assert!(list().contains(&d.pid("box").to_string()));
    d.ctr(["tasks", "kill", "--exec-id", "the-exec", "box"])
        .ok();
    assert_eq!(exec.wait().unwrap().code(), Some(143));
    d.remove("box");
}

fn delete_needs_an_end(d: &mut Daemon) {
    d.run_detached(&[], "box", &["sleep", "1000"]);
    let out = d.ctr(["tasks", "delete", "box"]);
    assert!(out.status != 0, "{out:?}");
    assert_eq!(d.task_status("box").as_deref(), Some("RUNNING"));
    d.remove("box");
}

fn read_only_root(d: &mut Daemon) {
    let out = d.run_container(&["--read-only"], "ro", &["touch", "/file"]);
    assert!(
        out.status == 1 && out.stderr.contains("Read-only file system"),
        "{out:?}"
    );
}

fn bind_mount(d: &mut Daemon) {
    let source = d.dir().join("volume");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "from the host").unwrap();
    let mount = |options: &str| {
        format!(
            "type=bind,src={},dst=/a/new/place,options={options}",
            source.display()
        )
    };
    let out = d.run_container(
        &["--mount", &mount("rbind:ro")],
        "ro",
        &["sh", "-c", "cat /a/new/place/file; touch /a/new/place/x"],
    );
    assert_eq!(
        (out.status, out.stdout.as_str()),
        (1, "from the host"),
        "{out:?}"
    );
    d.run_container(
        &["--mount", &mount("rbind:rw")],
        "rw",
        &["touch", "/a/new/place/x"],
    )
    .ok();
    assert!(source.join("x").exists());
}

fn environment_and_directory(d: &mut Daemon) {
    let out = d
        .run_container(
            &["--env", "A=1=2", "--cwd", "/new/dir"],
            "env",
            &["sh", "-c", "echo $A $HOME $PWD"],
        )
        .ok();
    assert_eq!(out.stdout, "1=2 /root /new/dir\n");
}
