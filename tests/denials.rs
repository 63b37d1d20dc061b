//! What filters deny is seen: in the log and in the counters, with the call and the rule; and a container that does nothing else
//! disturbs nobody.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use cofferdam::control;
use serde_json::json;

use crate::attacks;
use crate::isolation::{fifo, greedy, parse, read_all, request, run_under, under};
use crate::support::shim::{Shim, Streams};
use crate::support::{is_alive, kill, wait_until};

/// The cases of this file.
pub fn cases() -> Vec<crate::Case> {
    use crate::Case;
    vec![
        Case::plain("denials::every_denied_attack", every_denied_attack),
        Case::plain("denials::arguments", arguments),
        Case::plain("denials::own_filter_and_audit", own_filter_and_audit),
        Case::plain("denials::of_an_exec", of_an_exec),
        Case::plain("denials::not_reported", not_reported),
        Case::plain("denials::flood", flood),
        Case::plain("denials::without_a_shim", without_a_shim),
    ]
}

/// Lines of the log about denied or audited calls.
fn lines(s: &Shim) -> Vec<String> {
    let of_denials = |l: &&str| l.contains("msg=\"denied\"") || l.contains("msg=\"audited\"");
    s.log()
        .lines()
        .filter(of_denials)
        .map(str::to_owned)
        .collect()
}

/// What a container's filters denied so far, as its shim tells.
pub fn counters(s: &Shim, id: &str) -> Vec<control::Denials> {
    let pod: control::Pod = control::ask(s.pid().unwrap() as u32, &control::Ask::State).unwrap();
    let found = pod.containers.into_iter().find(|c| c.id == id);
    found.unwrap().denials
}

/// A profile that says something of each call that attackers try, under a name of its own.
fn every_denied_attack() {
    // One container for each, so that no line is left out of the log.
    let expected: [(&str, &str); 25] = [
        ("mount", "mount"),
        ("umount", "umount2"),
        ("new-mount-api", "fsopen"),
        ("open-tree", "open_tree"),
        ("pivot-root", "pivot_root"),
        ("chroot", "chroot"),
        ("unshare-user", "unshare"),
        ("unshare-mount", "unshare"),
        ("clone-user", "clone"),
        ("setns", "setns"),
        ("ptrace", "ptrace"),
        ("read-others-memory", "process_vm_readv"),
        ("add-key", "add_key"),
        ("keyctl", "keyctl"),
        ("bpf", "bpf"),
        ("perf", "perf_event_open"),
        ("userfaultfd", "userfaultfd"),
        ("io-uring", "io_uring_setup"),
        ("kexec", "kexec_load"),
        ("module", "init_module"),
        ("open-by-handle", "open_by_handle_at"),
        ("packet-socket", "socket"),
        ("personality", "personality"),
        ("terminal-injection", "ioctl"),
        ("syslog", "syslog"),
    ];
    for program in [
        "containerd-shim-cofferdam-hardened-v1",
        "containerd-shim-cofferdam-untrusted-v1",
    ] {
        let name = program.trim_start_matches("containerd-shim-cofferdam-");
        let rule = format!(
            "rule=\"profile {}: seccomp.floor\"",
            name.trim_end_matches("-v1")
        );
        let s = Shim::start_as(3, program);
        for (attack, call) in expected {
            let before = lines(&s).len();
            let mut spec = greedy(&s, attack, &["/dev/attacker"]);
            spec["process"]["env"] = json!([format!("{}=only={attack}", attacks::MARK)]);
            let out = fifo(&s, &format!("{attack}-out"));
            let reader = read_all(&out);
            let streams = Streams {
                stdout: out.clone(),
                stderr: out,
                ..Streams::default()
            };
            s.create_with(attack, &spec, streams).unwrap();
            s.start_process(attack, "").unwrap();
            s.wait(attack, "").unwrap();
            let counted = counters(&s, attack);
            s.delete(attack, "").unwrap();
            let text = reader.join().unwrap();
            assert!(!text.contains(" ok"), "{attack}: {text}");
            // The counter names them as well, and nothing else.
            let calls: Vec<&str> = counted.iter().map(|d| d.call.as_str()).collect();
            assert_eq!(calls, [call], "{attack} under {program}");
            assert!(
                rule.contains(&counted[0].rule) && counted[0].what == "denied",
                "{counted:?}"
            );
            let seen = || lines(&s).split_off(before);
            let found = || {
                let (call, id) = (format!(" call={call} "), format!("id={attack} "));
                seen()
                    .iter()
                    .any(|l| l.contains(&call) && l.contains(&rule) && l.contains(&id))
            };
            // Twenty lines at once, then one a second: wait for it.
            let end = Instant::now() + Duration::from_secs(3);
            while !found() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(found(), "{attack} under {program}: {:?}", seen());
            for other in seen() {
                assert!(
                    other.contains(&format!(" call={call} ")),
                    "{attack}: {other}"
                );
            }
        }
        s.end();
    }
}

fn arguments() {
    let s = Shim::start_as(3, "containerd-shim-cofferdam-hardened-v1");
    let script = "unshare -n true; chroot /tmp true; mount -t tmpfs none /tmp; true";
    let (text, _) = crate::isolation::output(&s, "box", &greedy(&s, "box", &["sh", "-c", script]));
    assert_eq!(text.matches("ermi").count(), 3, "{text}");
    wait_until("three lines", Duration::from_secs(5), || {
        lines(&s).len() >= 3
    });
    let all = lines(&s).join("\n");
    for part in [
        "call=unshare errno=EPERM comm=unshare flags=CLONE_NEWNET rule=\"profile hardened: seccomp.floor\"",
        "call=chroot errno=EPERM comm=chroot path=/tmp",
        "call=mount errno=EPERM comm=mount source=none target=/tmp type=tmpfs",
    ] {
        assert!(all.contains(part), "{part} is not in\n{all}");
    }
    s.end();
}

fn own_filter_and_audit() {
    let s = Shim::start(3);
    let mut spec = s.spec(
        "box",
        &[
            "sh",
            "-c",
            "mkdir /dev/shm/x; rmdir /dev/shm/y; sync; echo done",
        ],
    );
    spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 },
        { "names": ["sync"], "action": "SCMP_ACT_LOG" },
    ]});
    let profile = "[seccomp.actions]\nrmdir = \"audit\"\n";
    let (text, _) = run_under(&s, &request(&s, "box", &spec, profile)).unwrap();
    assert!(
        text.contains("mkdir: can't create directory '/dev/shm/x': ")
            && text.contains("rmdir: '/dev/shm/y': No such file")
            && text.ends_with("done\n"),
        "{text}"
    );
    wait_until("three lines", Duration::from_secs(5), || {
        lines(&s).len() >= 3
    });
    let all = lines(&s).join("\n");
    for part in [
        "call=mkdir errno=EOPNOTSUPP comm=mkdir path=/dev/shm/x rule=\"pod: linux.seccomp\" count=1 unlogged=0 msg=\"denied\"",
        "call=rmdir comm=rmdir path=/dev/shm/y rule=\"profile options: seccomp.actions\" count=1 unlogged=0 msg=\"audited\"",
        "rule=\"pod: linux.seccomp\" count=1 unlogged=0 msg=\"audited\"",
    ] {
        assert!(all.contains(part), "{part} is not in\n{all}");
    }
    s.end();
}

fn of_an_exec() {
    let s = Shim::start_as(3, "containerd-shim-cofferdam-untrusted-v1");
    s.run("box", &["sleep", "1000"]);
    for i in 0..3 {
        let exec = format!("e{i}");
        s.exec("box", &exec, &["unshare", "-U", "true"]).unwrap();
        s.start_process("box", &exec).unwrap();
        assert_eq!(s.wait("box", &exec).unwrap(), 1);
        s.delete("box", &exec).unwrap();
        wait_until("a line", Duration::from_secs(5), || {
            let wanted = format!("exec={exec} ");
            lines(&s)
                .iter()
                .any(|l| l.contains(&wanted) && l.contains("flags=CLONE_NEWUSER"))
        });
    }
    // One listener for each process that is there: those of the execs are closed.
    let listeners = || {
        let fds = fs::read_dir(format!("/proc/{}/fd", s.pid().unwrap())).unwrap();
        fds.flatten()
            .filter(|e| {
                fs::read_link(e.path())
                    .is_ok_and(|l| l.to_string_lossy().contains("seccomp notify"))
            })
            .count()
    };
    wait_until(
        "the listeners of the execs are closed",
        Duration::from_secs(5),
        || listeners() == 1,
    );
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
    wait_until("the init's, too", Duration::from_secs(5), || {
        listeners() == 0
    });
    s.end();
}

fn not_reported() {
    let s = Shim::start(3);
    let profile = "extends = \"hardened\"\n[seccomp]\nreport_denials = false\n";
    let (text, _) = under(&s, "box", profile, &["/dev/attacker"]).unwrap();
    assert_eq!(parse(&text)["bpf"], "1");
    assert_eq!(lines(&s), Vec::<String>::new());
    s.end();
}

/// Processor time of a process, in clock ticks: fields 14 and 15 of `/proc/PID/stat`.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = stat.rsplit_once(')').unwrap().1.to_owned();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Memory that a process has written to and shares with nobody, in KiB.
pub fn private_dirty(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    rollup
        .lines()
        .filter(|l| l.starts_with("Private_Dirty"))
        .filter_map(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

fn flood() {
    let s = Shim::start_as(3, "containerd-shim-cofferdam-hardened-v1");
    s.run("sibling", &["sleep", "1000"]);
    let mut spec = greedy(&s, "flood", &["/dev/attacker"]);
    spec["process"]["env"] = json!([format!("{}=flood", attacks::MARK)]);
    s.create_with("flood", &spec, Streams::default()).unwrap();
    let shim = s.pid().unwrap();
    let before = private_dirty(shim);
    s.start_process("flood", "").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let (begun, used) = (Instant::now(), ticks(shim));
    let mut slowest = Duration::ZERO;
    for i in 0..10 {
        let exec = format!("e{i}");
        let at = Instant::now();
        s.exec("sibling", &exec, &["true"]).unwrap();
        s.start_process("sibling", &exec).unwrap();
        assert_eq!(s.wait("sibling", &exec).unwrap(), 0);
        s.delete("sibling", &exec).unwrap();
        slowest = slowest.max(at.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    let seconds = begun.elapsed().as_secs_f64();
    // 100 ticks are a second. Ten execs are among it.
    let share = (ticks(shim) - used) as f64 / 100.0 / seconds;
    assert!(
        share < 0.25 * f64::from(crate::support::slowness()),
        "{share} of a processor"
    );
    assert!(
        slowest < Duration::from_secs(1) * crate::support::slowness(),
        "{slowest:?}"
    );
    let grown = private_dirty(shim).saturating_sub(before);
    assert!(grown < 1024, "the shim grew by {grown} KiB");
    // A loop falls silent, and is summed up at the end.
    assert!(lines(&s).len() < 10, "{} lines", lines(&s).len());
    // It can be ended while it waits for its answers.
    let at = Instant::now();
    s.kill("flood", "", 9, false).unwrap();
    assert_eq!(s.wait("flood", "").unwrap(), 137);
    assert!(at.elapsed() < Duration::from_secs(2) * crate::support::slowness());
    s.delete("flood", "").unwrap();
    wait_until("the sum", Duration::from_secs(5), || {
        s.log().contains("msg=\"denied in all\"")
    });
    s.kill("sibling", "", 9, false).unwrap();
    s.wait("sibling", "").unwrap();
    s.delete("sibling", "").unwrap();
    s.end();
}

fn without_a_shim() {
    // A process whose shim is gone: what was denied is denied, with ENOSYS.
    let s = Shim::start_as(3, "containerd-shim-cofferdam-hardened-v1");
    let mut spec = greedy(&s, "box", &["/dev/attacker"]);
    spec["process"]["env"] = json!([format!("{}=later", attacks::MARK)]);
    let out = fifo(&s, "later-out");
    let streams = Streams {
        stdout: out.clone(),
        ..Streams::default()
    };
    let reader = read_all(&out);
    s.create_with("box", &spec, streams).unwrap();
    s.start_process("box", "").unwrap();
    let shim = s.pid().unwrap();
    kill(shim);
    wait_until("the shim is gone", Duration::from_secs(5), || {
        !is_alive(shim)
    });
    let text = reader.join().unwrap();
    let answers: BTreeSet<&str> = text.lines().collect();
    assert_eq!(answers, BTreeSet::from(["unshare 38"]), "{text}");
}
