//! Events and their order; many containers and execs at once; idle pods.

use std::time::Duration;

use crate::support::events::Events;
use crate::support::{BUSYBOX, Daemon, RUNTIME, task, wait_until};

crate::cases!(ctr: [every_event_in_order, processes_that_end_at_once, many_at_a_time, wait_by_many_callers, profiles_by_name, an_idle_shim_sleeps]);

fn every_event_in_order(d: &mut Daemon) {
    let events = Events::subscribe(d);
    d.run_detached(&[], "box", &["sleep", "1000"]);
    d.exec(&[], "box", "e", &["sh", "-c", "exit 3"]);
    d.ctr(["tasks", "pause", "box"]).ok();
    d.ctr(["tasks", "resume", "box"]).ok();
    d.remove("box");
    let seen = events.of("box", 9);
    let topics: Vec<&str> = seen.iter().map(|e| e.topic.as_str()).collect();
    assert_eq!(
        topics,
        [
            "create",
            "start",
            "exec-added",
            "exec-started",
            "exit",
            "paused",
            "resumed",
            "exit",
            "delete"
        ]
    );
    let exec_exit = &seen[4];
    assert_eq!(
        (exec_exit.id.as_str(), exec_exit.status, exec_exit.pid),
        ("e", 3, seen[3].pid)
    );
    let exit = &seen[7];
    assert_eq!((exit.id.as_str(), exit.status), ("box", 137));
    assert!(
        exit.pid > 0
            && [seen[0].pid, seen[1].pid, seen[8].pid]
                .iter()
                .all(|p| *p == exit.pid)
    );
}

fn processes_that_end_at_once(d: &mut Daemon) {
    let events = Events::subscribe(d);
    for i in 0..20 {
        let id = format!("c{i}");
        d.run_container(&["--null-io"], &id, &["true"]).ok();
        assert_eq!(events.topics(&id, 4), ["create", "start", "exit", "delete"]);
    }
    d.run_detached(&[], "box", &["sleep", "1000"]);
    for i in 0..20 {
        assert_eq!(
            d.exec(&[], "box", &format!("e{i}"), &["sh", "-c", "exit 4"])
                .status,
            4
        );
    }
    for i in 0..20 {
        let of = || {
            events
                .of("box", 2 + 3 * 20)
                .into_iter()
                .filter(|e| e.id == format!("e{i}"))
                .map(|e| e.topic)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(), ["exec-added", "exec-started", "exit"]);
    }
    d.remove("box");
}

fn many_at_a_time(d: &mut Daemon) {
    let events = Events::subscribe(d);
    std::thread::scope(|s| {
        for worker in 0..8 {
            let d = &*d;
            s.spawn(move || {
                for i in 0..4 {
                    let out = d.run_container(
                        &[],
                        &format!("w{worker}-{i}"),
                        &["sh", "-c", &format!("echo {worker}; exit {i}")],
                    );
                    assert_eq!((out.status, out.stdout), (i, format!("{worker}\n")));
                }
            });
        }
    });
    for worker in 0..8 {
        for i in 0..4 {
            let seen = events.of(&format!("w{worker}-{i}"), 4);
            assert_eq!(
                seen.iter().map(|e| e.topic.as_str()).collect::<Vec<_>>(),
                ["create", "start", "exit", "delete"]
            );
            assert_eq!(seen[2].status, i);
        }
    }
    d.run_detached(&[], "box", &["sleep", "1000"]);
    std::thread::scope(|s| {
        for worker in 0..16 {
            let d = &*d;
            s.spawn(move || {
                assert_eq!(
                    d.exec(&[], "box", &format!("e{worker}"), &["sh", "-c", "echo x"])
                        .ok()
                        .stdout,
                    "x\n"
                )
            });
        }
    });
    d.remove("box");
}

fn wait_by_many_callers(d: &mut Daemon) {
    d.run_detached(
        &[],
        "box",
        &[
            "sh",
            "-c",
            "trap 'exit 23' TERM; while :; do sleep 0.05; done",
        ],
    );
    std::thread::sleep(Duration::from_millis(200));
    std::thread::scope(|s| {
        let waiters: Vec<_> = (0..10).map(|_| s.spawn(|| task::wait(d, "box"))).collect();
        std::thread::sleep(Duration::from_millis(100));
        d.ctr(["tasks", "kill", "box"]).ok();
        for w in waiters {
            assert_eq!(w.join().unwrap(), Ok(23));
        }
    });
    assert_eq!(task::wait(d, "box"), Ok(23), "also after the end");
    d.remove("box");
    assert!(task::wait(d, "box").is_err());
}

fn profiles_by_name(d: &mut Daemon) {
    for class in ["hardened", "untrusted"] {
        let runtime = RUNTIME.replace("cofferdam", &format!("cofferdam-{class}"));
        d.remember(class);
        let out = d
            .ctr([
                "run",
                "--rm",
                "--runtime",
                &runtime,
                BUSYBOX,
                class,
                "echo",
                class,
            ])
            .ok();
        assert_eq!(out.stdout.trim(), class);
        wait_until(
            "the log says how it is isolated",
            Duration::from_secs(5),
            || {
                d.log().lines().any(|l| {
                    l.contains(&format!("profile={class}")) && l.contains("msg=\"pod started\"")
                })
            },
        );
    }
    let out = d.ctr([
        "run",
        "--rm",
        "--runtime",
        "io.containerd.cofferdam-nosuch.v1",
        BUSYBOX,
        "x",
        "true",
    ]);
    assert!(
        out.status != 0 && out.stderr.contains("cofferdam-nosuch"),
        "{out:?}"
    );
    d.remove("x");
}

fn an_idle_shim_sleeps(d: &mut Daemon) {
    d.run_detached(&[], "box", &["sleep", "1000"]);
    let shim = d.shims()[0];
    let switches = || {
        let mut total = 0;
        for task in std::fs::read_dir(format!("/proc/{shim}/task"))
            .unwrap()
            .flatten()
        {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            total += status
                .lines()
                .filter_map(|l| l.split_once("ctxt_switches:"))
                .map(|(_, n)| n.trim().parse::<u64>().unwrap())
                .sum::<u64>();
        }
        total
    };
    // First the pool of threads shrinks to nothing, and memory is given back.
    std::thread::sleep(Duration::from_millis(1500));
    let before = switches();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(switches(), before, "it woke up");
    d.remove("box");
}
