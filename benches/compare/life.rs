//! A container's whole life and execs, one after the other and eight at a time; and what a shim takes of it inside.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::measure::Times;
use crate::reference::Floor;
use crate::runtimes::{HARDENED, NOTHING, OURS, Runtime};
use crate::support::{Daemon, block_on};

/// Between lives that are not in a tight loop: as pods come on a node, with caches that cooled down.
pub const APART: Duration = Duration::from_millis(50);

pub const PHASES: [&str; 5] = ["Create", "Start", "Wait", "Delete", "total"];

/// Each phase of a life of `/bin/true`, and an exec of it, for each runtime in turn; `pause` before each.
pub fn phases(client: &Client<'_>, runtimes: &[Runtime], rounds: usize, pause: Duration) -> Value {
    let mut lives = vec![vec![Vec::new(); PHASES.len()]; runtimes.len()];
    let mut execs = vec![Vec::new(); runtimes.len()];
    let label = if pause.is_zero() { "l" } else { "p" };
    for (r, runtime) in runtimes.iter().enumerate() {
        client.whole_life(&format!("{label}warm{r}"), *runtime);
        if *runtime != NOTHING {
            client.run(&format!("{label}box{r}"), *runtime);
        }
    }
    for i in 0..rounds {
        for (r, runtime) in runtimes.iter().enumerate() {
            std::thread::sleep(pause);
            let times = client.whole_life(&format!("{label}{r}-{i}"), *runtime);
            for (phase, time) in times.into_iter().enumerate() {
                lives[r][phase].push(time);
            }
            if *runtime != NOTHING {
                std::thread::sleep(pause);
                execs[r].push(client.exec(&format!("{label}box{r}"), &format!("e{i}")));
            }
        }
    }
    let mut out = json!({});
    for (r, runtime) in runtimes.iter().enumerate() {
        for (phase, name) in PHASES.iter().enumerate() {
            out[runtime.name][*name] = Times::of(&lives[r][phase]).json();
        }
        if *runtime != NOTHING {
            out[runtime.name]["exec"] = Times::of(&execs[r]).json();
            client.end(&format!("{label}box{r}"));
        }
    }
    out
}

/// Containers per second, eight lives at a time.
pub fn at_a_time(client: &Client<'_>, runtimes: &[Runtime], rounds: usize) -> Value {
    const AT_A_TIME: usize = 8;
    let mut out = json!({});
    let mut spent = vec![Vec::new(); runtimes.len()];
    for i in 0..rounds {
        for (r, runtime) in runtimes.iter().enumerate() {
            let ids: Vec<String> = (0..AT_A_TIME).map(|n| format!("a{r}-{i}-{n}")).collect();
            let prepared: Vec<_> = ids
                .iter()
                .map(|id| client.prepare(id, *runtime, &["/bin/true"]))
                .collect();
            let begun = Instant::now();
            block_on(async {
                let lives = ids.iter().zip(prepared);
                futures_all(lives.map(|(id, mounts)| client.live(id, mounts))).await;
            });
            spent[r].push(begun.elapsed());
            for id in &ids {
                client.forget(id);
            }
        }
    }
    for (r, runtime) in runtimes.iter().enumerate() {
        let time = Times::of(&spent[r]);
        out[runtime.name] = json!({
            "eight_ms": time.p50,
            "per_second": AT_A_TIME as f64 / (time.p50 / 1000.0),
        });
    }
    out
}

/// Waits for all, in turns on one thread: it is the daemon that works.
pub async fn futures_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<_> = futures.map(|f| Some(Box::pin(f))).collect();
    let mut done: Vec<T> = Vec::new();
    std::future::poll_fn(|cx| {
        for slot in &mut pending {
            if let Some(future) = slot
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                done.push(value);
                *slot = None;
            }
        }
        if pending.iter().all(Option::is_none) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done
}

/// Milliseconds that our shim itself took from the request to the gate and from the gate to the program, as it logs them; beside
/// them the bare program's. All with the default filter, in turns.
pub fn inside(
    client: &Client<'_>,
    floor: Option<&Floor<'_>>,
    filter: &Value,
    rounds: usize,
) -> Value {
    let profiles = [OURS, HARDENED];
    let id = |runtime: Runtime, i: usize| format!("in-{}-{i}", runtime.name);
    let mut bare = Vec::new();
    // It keeps the group above all of them, as a kubelet does.
    client.run("in-beside", OURS);
    for i in 0..rounds {
        for runtime in profiles {
            std::thread::sleep(APART);
            client.filtered_life(&id(runtime, i), runtime, filter);
        }
        std::thread::sleep(APART);
        bare.extend(floor.map(Floor::round));
    }
    client.end("in-beside");
    let mut out = json!({});
    for runtime in profiles {
        let ids: Vec<_> = (0..rounds).map(|i| id(runtime, i)).collect();
        out[runtime.name] = Times::of(&logged(client.daemon, &ids)).json();
    }
    if floor.is_some() {
        out["floor"] = Times::of(&bare).json();
    }
    out
}

/// What our shims took inside for these containers, as they logged it.
pub fn logged(daemon: &Daemon, ids: &[String]) -> Vec<Duration> {
    let log = daemon.log();
    let took = |id: &String| {
        let mine = format!(" id={id} ");
        let of = |l: &str| {
            let (_, rest) = l.split_once("took_us=")?;
            rest.split(' ').next()?.parse::<u64>().ok()
        };
        let lines = log.lines().filter(|l| l.contains(&mine));
        Duration::from_micros(lines.filter_map(of).sum())
    };
    let all: Vec<Duration> = ids.iter().map(took).collect();
    let seen = all.iter().all(|took| !took.is_zero());
    assert!(
        seen,
        "the shims' log has no took_us: does the daemon log at level debug?"
    );
    all
}
