//! Processes that end at once, 16 at a time: every event in its place, once, with the right status; also while nobody takes
//! events, and across a restart of containerd. `make stress` does it with thousands.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::Case;
use crate::support::events::Event;
use crate::support::shim::Shim;
use crate::support::{Daemon, task, wait_until};

const WORKERS: usize = 16;

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::plain("stress::containers", containers),
        Case::plain("stress::execs", execs),
        Case::ctr("stress::execs_across_a_restart", execs_across_a_restart),
    ]
}

/// How many processes: `COFFERDAM_STRESS`, or few enough for every run.
fn count() -> usize {
    std::env::var("COFFERDAM_STRESS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(200)
}

/// Does `work` for each number below `count`, by 16 threads.
fn in_parallel(count: usize, work: impl Fn(usize, usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (next, work) = (&next, &work);
            scope.spawn(move || {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= count {
                        break;
                    }
                    work(worker, i);
                }
            });
        }
    });
}

/// Runs `work` while the socket for events comes and goes.
fn while_events_are_not_taken(shim: &Shim, work: impl FnOnce() + Send) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(300));
                shim.stop_listening();
                std::thread::sleep(Duration::from_millis(150));
                shim.listen_again();
            }
        });
        work();
        done.store(true, Ordering::Relaxed);
    });
}

fn containers() {
    let shim = Shim::start(3);
    let count = count();
    while_events_are_not_taken(&shim, || {
        in_parallel(count, |_, i| {
            let (id, code) = (format!("c{i}"), (i % 200) as u32);
            shim.run(&id, &["sh", "-c", &format!("exit {code}")]);
            assert_eq!(shim.wait(&id, "").unwrap(), code, "{id}");
            assert_eq!(shim.delete(&id, "").unwrap().exit_status, code, "{id}");
        });
    });
    wait_until("every event has come", Duration::from_secs(30), || {
        shim.events().len() >= 4 * count
    });
    std::thread::sleep(Duration::from_millis(300)); // for those that should not come
    let mut of: HashMap<String, Vec<Event>> = HashMap::new();
    for event in shim.events() {
        of.entry(event.container.clone()).or_default().push(event);
    }
    assert_eq!(of.len(), count);
    for (id, events) in of {
        let topics: Vec<_> = events.iter().map(|e| e.topic.as_str()).collect();
        assert_eq!(topics, ["create", "start", "exit", "delete"], "{id}");
        let code = id[1..].parse::<u32>().unwrap() % 200;
        assert_eq!((events[2].status, events[3].status), (code, code), "{id}");
        assert!(events.iter().all(|e| e.pid == events[0].pid), "{events:?}");
    }
    shim.end();
}

fn execs() {
    let shim = Shim::start(2);
    let count = count();
    for worker in 0..WORKERS {
        shim.run(&format!("c{worker}"), &["sleep", "100000"]);
    }
    while_events_are_not_taken(&shim, || {
        in_parallel(count, |worker, i| {
            let (container, id, code) = (format!("c{worker}"), format!("e{i}"), (i % 200) as u32);
            shim.exec(&container, &id, &["sh", "-c", &format!("exit {code}")])
                .unwrap();
            shim.start_process(&container, &id).unwrap();
            assert_eq!(shim.wait(&container, &id).unwrap(), code, "{id}");
            // Some are still there when their container goes.
            if i % 3 > 0 {
                shim.delete(&container, &id).unwrap();
            }
        });
        in_parallel(WORKERS, |_, i| {
            let container = format!("c{i}");
            shim.exec(&container, "last", &["sleep", "100000"]).unwrap();
            shim.start_process(&container, "last").unwrap();
            shim.kill(&container, "", 9, false).unwrap();
            shim.wait(&container, "").unwrap();
            shim.delete(&container, "").unwrap();
        });
    });
    let enough = 3 * (count + WORKERS) + 4 * WORKERS;
    wait_until("every event has come", Duration::from_secs(30), || {
        shim.events().len() >= enough
    });
    std::thread::sleep(Duration::from_millis(300));
    let events = shim.events();
    assert_eq!(events.len(), enough, "each once");
    let place = |topic: &str, container: &str, id: &str| {
        let is = |e: &&Event| e.topic == topic && e.container == container && e.id == id;
        let found: Vec<usize> = (0..events.len()).filter(|i| is(&&events[*i])).collect();
        assert_eq!(found.len(), 1, "{topic} {container} {id}");
        found[0]
    };
    for e in events.iter().filter(|e| e.topic == "exec-added") {
        let (container, id) = (e.container.as_str(), e.id.as_str());
        let order = [
            place("exec-added", container, id),
            place("exec-started", container, id),
            place("exit", container, id),
            place("exit", container, container),
            place("delete", container, ""),
        ];
        assert!(order.is_sorted(), "{container} {id}: {order:?}");
        let expected = id
            .strip_prefix('e')
            .map_or(137, |n| n.parse::<u32>().unwrap() % 200);
        assert_eq!(events[order[2]].status, expected, "{container} {id}");
    }
    shim.end();
}

/// A client of containerd does not know of what became of a request that containerd's end interrupted: it asks again.
fn persistently<T>(
    what: &str,
    mut ask: impl FnMut() -> Result<T, String>,
    done: &str,
) -> Option<T> {
    // A connection that is gone, a shim that containerd has not found again yet.
    let interrupted = [
        "Unavailable",
        "transport",
        "ttrpc: closed",
        "canceled",
        "NotFound",
    ];
    for _ in 0..600 {
        match ask() {
            Ok(answer) => return Some(answer),
            Err(e) if !done.is_empty() && e.contains(done) => return None,
            Err(e) if interrupted.iter().any(|i| e.contains(i)) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(e) => panic!("{what}: {e}"),
        }
    }
    panic!("{what}: not within 30 s");
}

fn execs_across_a_restart(d: &mut Daemon) {
    d.run_detached(&["--null-io"], "box", &["sleep", "100000"]);
    let count = count() / 2;
    let done = AtomicUsize::new(0);
    let daemon = std::sync::RwLock::new(d);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("half are done", Duration::from_secs(120), || {
                done.load(Ordering::Relaxed) >= count / 2
            });
            // Requests are on their way when it ends.
            let mut d = daemon.write().unwrap();
            d.stop();
            d.run();
        });
        in_parallel(count, |_, i| {
            let (id, code) = (format!("e{i}"), (i % 200) as u32);
            let script = format!("exit {code}");
            let client = || task::Client::connect(&daemon.read().unwrap());
            persistently(
                "exec",
                || client()?.exec("box", &id, &["sh", "-c", &script]),
                "AlreadyExists",
            );
            persistently("start", || client()?.start("box", &id), "cannot start a");
            let status = persistently("wait", || client()?.wait("box", &id), "").unwrap();
            assert_eq!(status, code, "{id}");
            let deleted = persistently("delete", || client()?.delete("box", &id), "NotFound");
            assert!(deleted.is_none_or(|status| status == code), "{id}");
            done.fetch_add(1, Ordering::Relaxed);
        });
    });
    let d = daemon.into_inner().unwrap();
    assert_eq!(d.task_status("box").as_deref(), Some("RUNNING"));
    d.remove("box");
}
