//! Standard streams at their edges: readers that are slow, late, absent or come back; terminals; loggers. Requests go to the
//! shim itself, without a containerd.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use containerd_shim_protos::api::Empty;
use serde_json::json;

use crate::Case;
use crate::support::shim::{Shim, Streams};
use crate::support::{is_alive, processes, read_fifo, text, wait_until};

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    macro_rules! list {
        ($($name:ident),* $(,)?) => {
            vec![$(Case::plain(concat!("streams::", stringify!($name)), || {
                let shim = Shim::start(3);
                $name(&shim);
                shim.end();
            })),*]
        };
    }
    list!(
        slow_reader,
        absent_reader,
        reader_that_comes_back,
        exec_reader_that_comes_back,
        both_streams_at_once,
        grandchild_that_keeps_the_stream,
        terminal_attach_and_detach,
        resize_storm,
        reopened_by_a_user,
        logger_that_fails,
        logger_that_hangs,
        logger_that_is_slow_to_stop,
        deletion_of_an_exec_that_starts,
        logger_of_a_failed_creation,
        orphans_of_loggers_and_hooks,
        log_file_of_an_exec,
        dump_on_request,
    )
}

fn fifo(s: &Shim, name: &str) -> PathBuf {
    let path = s.dir().join(name);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    path
}

fn streams(stdout: &Path, stderr: Option<&Path>) -> Streams {
    Streams {
        stdout: stdout.display().to_string(),
        stderr: stderr.map(|p| p.display().to_string()).unwrap_or_default(),
        ..Streams::default()
    }
}

/// A reader that does not wait for a writer.
fn reader(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    options.open(path).unwrap()
}

/// What is there now.
fn available(file: &mut File) -> Vec<u8> {
    let mut all = Vec::new();
    file.read_to_end(&mut all).ok(); // ends with EAGAIN where a writer is there
    all
}

#[track_caller]
fn run(s: &Shim, id: &str, args: &[&str], streams: Streams) {
    s.create_with(id, &s.spec(id, args), streams).unwrap();
    s.start_process(id, "").unwrap();
}

fn slow_reader(s: &Shim) {
    let out = fifo(s, "out");
    let mut file = reader(&out);
    run(
        s,
        "box",
        &["sh", "-c", "yes 12345678 | head -c 900000"],
        streams(&out, None),
    );
    let mut total = 0;
    let mut buffer = vec![0; 30_000];
    while total < 900_000 {
        std::thread::sleep(Duration::from_millis(10));
        total += file.read(&mut buffer).unwrap_or(0);
    }
    assert_eq!(s.wait("box", "").unwrap(), 0);
    s.delete("box", "").unwrap();
    assert_eq!((total, available(&mut file).len()), (900_000, 0));
}

fn absent_reader(s: &Shim) {
    // Nobody reads, and nobody ever did: the exit is told all the same, and what was written waits until Delete.
    let out = fifo(s, "out");
    run(s, "box", &["echo", "for later"], streams(&out, None));
    let begun = Instant::now();
    assert_eq!(s.wait("box", "").unwrap(), 0);
    assert!(begun.elapsed() < Duration::from_secs(3));
    let mut file = reader(&out);
    assert_eq!(text(&available(&mut file)), "for later\n");
    s.delete("box", "").unwrap();
}

const TWO_LINES: &str =
    "echo one; while [ ! -e /dev/shm/go ]; do sleep 0.01; done; echo two; exit 7";

/// Reads the first line of a process that runs [`TWO_LINES`], goes, and is back for the second.
fn leave_and_come_back(s: &Shim, out: &Path, mut first: File, exec: &str) {
    let mut seen = Vec::new();
    wait_until("the first line", Duration::from_secs(5), || {
        seen.extend(available(&mut first));
        !seen.is_empty()
    });
    drop(first);
    s.exec("box", "go", &["touch", "/dev/shm/go"]).unwrap();
    s.start_process("box", "go").unwrap();
    assert_eq!(s.wait("box", exec).unwrap(), 7);
    let mut second = reader(out);
    assert_eq!(
        (text(&seen), text(&available(&mut second))),
        ("one\n".into(), "two\n".into())
    );
    s.delete("box", exec).unwrap();
}

fn reader_that_comes_back(s: &Shim) {
    // containerd ends and is back: the writer gets no SIGPIPE, and the next reader goes on where the last one was.
    let out = fifo(s, "out");
    let first = reader(&out);
    run(s, "box", &["sh", "-c", TWO_LINES], streams(&out, None));
    leave_and_come_back(s, &out, first, "");
}

fn exec_reader_that_comes_back(s: &Shim) {
    let out = fifo(s, "out");
    s.run("box", &["sleep", "1000"]);
    let first = reader(&out);
    let request = Shim::exec_request("box", "e", &["sh", "-c", TWO_LINES], streams(&out, None));
    s.call::<Empty>("Exec", &request).unwrap();
    s.start_process("box", "e").unwrap();
    leave_and_come_back(s, &out, first, "e");
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
}

fn both_streams_at_once(s: &Shim) {
    // 1 GiB each with `make stress`.
    let size: u64 = if std::env::var_os("COFFERDAM_STRESS").is_some() {
        1 << 30
    } else {
        1 << 25
    };
    let script = format!("head -c {size} /dev/zero & head -c {size} /dev/zero >&2; wait");
    for exec in [false, true] {
        let (out, err) = (
            fifo(s, &format!("out{exec}")),
            fifo(s, &format!("err{exec}")),
        );
        let count = |path: PathBuf| {
            read_fifo(path, |mut file| {
                let (mut buffer, mut total) = (vec![0; 1 << 16], 0u64);
                loop {
                    match file.read(&mut buffer).unwrap() {
                        0 => return total,
                        n => total += n as u64,
                    }
                }
            })
        };
        let (outs, errs) = (count(out.clone()), count(err.clone()));
        let both = streams(&out, Some(&err));
        if exec {
            s.run("box", &["sleep", "1000"]);
            let request = Shim::exec_request("box", "e", &["sh", "-c", &script], both);
            s.call::<Empty>("Exec", &request).unwrap();
            s.start_process("box", "e").unwrap();
            assert_eq!(s.wait("box", "e").unwrap(), 0);
            s.delete("box", "e").unwrap();
            s.kill("box", "", 9, false).unwrap();
        } else {
            run(s, "box", &["sh", "-c", &script], both);
        }
        s.wait("box", "").unwrap();
        s.delete("box", "").unwrap();
        assert_eq!((outs.join().unwrap(), errs.join().unwrap()), (size, size));
    }
}

fn grandchild_that_keeps_the_stream(s: &Shim) {
    let out = fifo(s, "out");
    s.run("box", &["sleep", "1000"]);
    let mut file = reader(&out);
    let request = Shim::exec_request(
        "box",
        "e",
        &["sh", "-c", "sleep 1000 & echo done"],
        streams(&out, None),
    );
    s.call::<Empty>("Exec", &request).unwrap();
    s.start_process("box", "e").unwrap();
    let begun = Instant::now();
    assert_eq!(s.wait("box", "e").unwrap(), 0);
    s.delete("box", "e").unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(text(&available(&mut file)), "done\n");
    // The client sees the end although the grandchild lives.
    assert_eq!(file.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(s.pids("box").unwrap().processes.len(), 2);
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
}

fn with_terminal(s: &Shim, args: &[&str]) -> (PathBuf, PathBuf) {
    let (input, out) = (fifo(s, "in"), fifo(s, "tty"));
    let mut spec = s.spec("box", args);
    spec["process"]["terminal"] = json!(true);
    let streams = Streams {
        stdin: input.display().to_string(),
        stdout: out.display().to_string(),
        terminal: true,
        ..Streams::default()
    };
    s.create_with("box", &spec, streams).unwrap();
    (input, out)
}

fn terminal_attach_and_detach(s: &Shim) {
    let (input, out) = with_terminal(s, &["sh"]);
    s.start_process("box", "").unwrap();
    for round in 0..3 {
        // A client attaches, speaks, hears, and goes.
        let mut ears = reader(&out);
        let mut mouth = OpenOptions::new().write(true).open(&input).unwrap();
        writeln!(mouth, "echo $((40 + {round}))").unwrap();
        let mut heard = String::new();
        wait_until("an answer", Duration::from_secs(5), || {
            heard += &text(&available(&mut ears));
            heard.contains(&format!("\n{}\r\n", 40 + round))
        });
    }
    let mut mouth = OpenOptions::new().write(true).open(&input).unwrap();
    writeln!(mouth, "exit 9").unwrap();
    assert_eq!(s.wait("box", "").unwrap(), 9);
    s.delete("box", "").unwrap();
}

fn resize_storm(s: &Shim) {
    let script =
        "trap 'n=$((n+1))' WINCH; while [ ! -e /dev/shm/go ]; do echo busy; done; stty size";
    let (_, out) = with_terminal(s, &["sh", "-c", script]);
    s.start_process("box", "").unwrap();
    let mut ears = reader(&out);
    let heard = std::sync::Mutex::new(String::new());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                *heard.lock().unwrap() += &text(&available(&mut ears));
                std::thread::sleep(Duration::from_millis(1));
            }
            *heard.lock().unwrap() += &text(&available(&mut ears));
        });
        std::thread::scope(|scope| {
            for worker in 0..8u32 {
                scope.spawn(move || {
                    for i in 0..200 {
                        s.resize("box", "", 20 + worker + i, 10 + i).unwrap();
                    }
                });
            }
        });
        s.resize("box", "", 123, 45).unwrap();
        s.exec("box", "go", &["touch", "/dev/shm/go"]).unwrap();
        s.start_process("box", "go").unwrap();
        s.wait("box", "").unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    s.delete("box", "").unwrap();
    let heard = heard.into_inner().unwrap();
    assert!(
        heard.trim_end().ends_with("45 123"),
        "{:?}",
        &heard[heard.len().saturating_sub(80)..]
    );
}

fn reopened_by_a_user(s: &Shim) {
    // nginx, and everything whose log is /dev/stdout: as a user that is not root.
    let (out, err) = (fifo(s, "out"), fifo(s, "err"));
    let (mut outs, mut errs) = (reader(&out), reader(&err));
    let mut spec = s.spec(
        "box",
        &[
            "sh",
            "-c",
            "echo o > /dev/stdout; echo e > /dev/stderr; echo p >> /proc/self/fd/1",
        ],
    );
    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    s.create_with("box", &spec, streams(&out, Some(&err)))
        .unwrap();
    s.start_process("box", "").unwrap();
    assert_eq!(s.wait("box", "").unwrap(), 0);
    s.delete("box", "").unwrap();
    assert_eq!(
        (text(&available(&mut outs)), text(&available(&mut errs))),
        ("o\np\n".into(), "e\n".into())
    );
}

fn logger(s: &Shim, name: &str, script: &str) -> PathBuf {
    let path = s.dir().join(name);
    fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn to_logger(scheme: &str, path: &Path) -> Streams {
    let uri = format!("{scheme}://{}", path.display());
    Streams {
        stdout: uri.clone(),
        stderr: uri,
        ..Streams::default()
    }
}

fn logger_that_fails(s: &Shim) {
    let spec = s.spec("box", &["echo", "x"]);
    // `binary` cannot tell an end from readiness; `binary-v2` can.
    let fails = logger(s, "fails", "exit 1");
    let (_, text) = s
        .create_with("box", &spec, to_logger("binary-v2", &fails))
        .unwrap_err();
    assert!(
        text.contains("the logger ended before it was ready"),
        "{text}"
    );
    let (_, text) = s
        .create_with("box", &spec, to_logger("binary", &s.dir().join("none")))
        .unwrap_err();
    assert!(
        text.contains("none") && text.contains("No such file or directory"),
        "{text}"
    );
    // One that is ready, and then gone: the container ends as it would anyway.
    let gone = logger(s, "gone", "printf x >&5; exec 5>&-; exit 0");
    s.create_with("box", &spec, to_logger("binary-v2", &gone))
        .unwrap();
    s.start_process("box", "").unwrap();
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
}

fn logger_that_hangs(s: &Shim) {
    let hangs = logger(s, "hangs", "exec sleep 1000");
    let spec = s.spec("box", &["true"]);
    let begun = Instant::now();
    let (_, text) = s
        .create_with("box", &spec, to_logger("binary", &hangs))
        .unwrap_err();
    assert!(
        text.contains("the logger was not ready within 10s"),
        "{text}"
    );
    assert!(begun.elapsed() >= Duration::from_secs(9));
    let marker = hangs.display().to_string();
    assert!(
        !processes().iter().any(|(_, a)| a.contains(&marker)),
        "the logger is left"
    );
}

fn logger_that_is_slow_to_stop(s: &Shim) {
    // It takes no notice of its input's end. It is asked to stop, also when the shim itself ends.
    let (pid, mark) = (s.dir().join("pid"), s.dir().join("asked"));
    let script = format!(
        "trap 'touch {}; exit' TERM; echo $$ > {}; exec 5>&-; while :; do sleep 0.05; done",
        mark.display(),
        pid.display()
    );
    let slow = logger(s, "slow", &script);
    s.create_with("box", &s.spec("box", &["true"]), to_logger("binary", &slow))
        .unwrap();
    s.start_process("box", "").unwrap();
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
    s.shutdown().unwrap();
    let pid: i32 = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    wait_until("the logger ends", Duration::from_secs(10), || {
        !is_alive(pid)
    });
    assert!(mark.exists(), "it was not asked");
}

fn logger_of_a_failed_creation(s: &Shim) {
    let shim = s.pid().unwrap();
    for (i, script) in [
        "exec 5>&-; cat <&3 > /dev/null",
        "exec 5>&-; exec sleep 1000",
    ]
    .into_iter()
    .enumerate()
    {
        let program = logger(s, &format!("logger{i}"), script);
        let mut spec = s.spec("box", &["true"]);
        let missing = serde_json::json!({ "type": "bind", "source": "/nothing", "destination": "/x", "options": ["bind"] });
        spec["mounts"].as_array_mut().unwrap().push(missing);
        s.create_with("box", &spec, to_logger("binary", &program))
            .unwrap_err();
        wait_until("the logger is gone", Duration::from_secs(5), || {
            crate::task_api::children(shim).is_empty()
        });
    }
}

fn orphans_of_loggers_and_hooks(s: &Shim) {
    // Each leaves a process behind that ends later. It becomes the shim's child, and must not stay as a zombie.
    let leave = "(sleep 0.3 > /dev/null 2>&1 3>&- 4>&- &)";
    let script = format!("exec 5>&-; {leave}; exec cat <&3 > /dev/null");
    let program = logger(s, "logger", &script);
    let mut spec = s.spec("box", &["sleep", "1000"]);
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", leave] }]);
    spec["hooks"] = json!({ "createRuntime": hook, "poststart": hook });
    s.create_with("box", &spec, to_logger("binary", &program))
        .unwrap();
    s.start_process("box", "").unwrap();
    let all = || crate::task_api::children(s.pid().unwrap());
    assert!(all().len() > 2, "no orphans: {:?}", all());
    wait_until("the orphans are reaped", Duration::from_secs(20), || {
        all().len() == 2 // the container and its logger
    });
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
}

fn deletion_of_an_exec_that_starts(s: &Shim) {
    s.run("box", &["sleep", "1000"]);
    let (begun, go) = (s.dir().join("begun"), s.dir().join("go"));
    let script = format!(
        "touch {}; while [ ! -e {} ]; do sleep 0.01; done; exec 5>&-; cat <&3 > /dev/null",
        begun.display(),
        go.display()
    );
    let slow = logger(s, "slow", &script);
    s.exec_with("box", "e", &["sleep", "1000"], to_logger("binary", &slow))
        .unwrap();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| s.start_process("box", "e"));
        wait_until("the exec starts", Duration::from_secs(5), || begun.exists());
        let refusal = s.delete("box", "e").unwrap_err().1;
        assert!(refusal.contains("that is being started"), "{refusal}");
        fs::write(&go, "").unwrap();
        starting.join().unwrap().unwrap();
    });
    s.kill("box", "e", 9, false).unwrap();
    assert_eq!(s.wait("box", "e").unwrap(), 137);
    s.delete("box", "e").unwrap();
    // One that was never started is deleted, and cannot be started any more.
    s.exec("box", "f", &["true"]).unwrap();
    s.delete("box", "f").unwrap();
    assert!(s.start_process("box", "f").is_err());
    s.finish("box");
}

fn log_file_of_an_exec(s: &Shim) {
    s.run("box", &["sleep", "1000"]);
    let log = s.dir().join("new/dir/exec.log");
    fs::create_dir_all(log.parent().unwrap().parent().unwrap()).unwrap();
    let uri = format!("file://{}", log.display());
    for (i, word) in ["one", "two"].into_iter().enumerate() {
        let both = Streams {
            stdout: uri.clone(),
            stderr: uri.clone(),
            ..Streams::default()
        };
        let script = format!("echo {word}; echo {word} >&2");
        let id = format!("e{i}");
        let request = Shim::exec_request("box", &id, &["sh", "-c", &script], both);
        s.call::<Empty>("Exec", &request).unwrap();
        s.start_process("box", &id).unwrap();
        s.wait("box", &id).unwrap();
        s.delete("box", &id).unwrap();
    }
    assert_eq!(fs::read_to_string(log).unwrap(), "one\none\ntwo\ntwo\n");
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
}

fn dump_on_request(s: &Shim) {
    s.run("box", &["sleep", "1000"]);
    s.exec("box", "waiting", &["true"]).unwrap();
    let shim = s.pid().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(shim),
        nix::sys::signal::Signal::SIGUSR1,
    )
    .unwrap();
    wait_until("the dump", Duration::from_secs(5), || {
        s.log().contains("exec=\\\"waiting\\\"")
    });
    let seen = s.log();
    for part in [
        "containers=1",
        "pending_events=",
        "id=box exec=\\\"\\\" pid=",
        "status=running",
        "status=created",
    ] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
}
