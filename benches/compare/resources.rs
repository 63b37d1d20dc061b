//! What shims take while nothing happens, and while output flows; and how costs grow.

use std::fs;
use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, container_of};
use crate::life::{PHASES, logged};
use crate::measure::{Times, shims, usage};
use crate::reference::Floor;
use crate::runtimes::{self, Runtime};
use crate::support::{block_on, read_fifo, wait_until};

/// KiB of memory a pod, for so many pods of so many containers.
pub fn memory(client: &Client<'_>, runtimes: &[Runtime], shapes: &[(usize, usize)]) -> Value {
    let mut out = json!({});
    read_programs_anew(client, runtimes);
    for (pods, containers) in shapes {
        for runtime in runtimes {
            let names: Vec<String> = (0..*pods).map(|i| format!("m{i}")).collect();
            for pod in &names {
                client.run_pod(pod, *containers, *runtime);
            }
            std::thread::sleep(Duration::from_millis(1500));
            let used = usage(&shims(client.daemon, runtime.shim));
            for pod in &names {
                client.end_pod(pod, *containers);
            }
            let a_pod = |value: f64| value / *pods as f64;
            out[format!("{pods}x{containers}")][runtime.name] = json!({
                "pss_kib": a_pod(used.pss), "private_kib": a_pod(used.private),
                "threads": a_pod(used.threads as f64), "processes": a_pod(used.processes as f64),
            });
        }
    }
    out
}

/// The page cache holds a file that was just written in larger pieces than one that was read, and a fault then maps more of it: a
/// node reads its programs.
fn read_programs_anew(client: &Client<'_>, runtimes: &[Runtime]) {
    wait_until(
        "shims of before have ended",
        Duration::from_secs(20),
        || {
            let mut all = runtimes.iter();
            all.all(|r| shims(client.daemon, r.shim).is_empty())
        },
    );
    let program =
        std::env::var_os("COFFERDAM_SHIM").expect("COFFERDAM_SHIM names the shim's binary");
    let file = fs::File::open(program).unwrap();
    file.sync_all().unwrap();
    nix::fcntl::posix_fadvise(
        &file,
        0,
        0,
        nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    )
    .unwrap();
}

/// Wake-ups and CPU of a shim that is left alone.
pub fn idle(client: &Client<'_>, runtimes: &[Runtime], seconds: u64) -> Value {
    let mut out = json!({});
    for (r, runtime) in runtimes.iter().enumerate() {
        let id = format!("idle{r}");
        client.run(&id, *runtime);
        // What was under way ends.
        std::thread::sleep(Duration::from_secs(3));
        let pids = shims(client.daemon, runtime.shim);
        let before = usage(&pids);
        std::thread::sleep(Duration::from_secs(seconds));
        let after = usage(&pids);
        client.end(&id);
        out[runtime.name] = json!({
            "seconds": seconds, "threads": after.threads,
            "wakeups": after.switches.saturating_sub(before.switches),
            "cpu_us": after.cpu.saturating_sub(before.cpu) / 1000,
        });
    }
    out
}

/// Bytes a second from containers that write as fast as they can, and the CPU time of their shims. Medians.
pub fn output(
    client: &Client<'_>,
    runtimes: &[Runtime],
    containers: usize,
    megabytes: u64,
    samples: usize,
) -> Value {
    let mut figures = vec![(Vec::new(), Vec::new()); runtimes.len()];
    for sample in 0..samples {
        for (r, runtime) in runtimes.iter().enumerate() {
            let name = format!("o{containers}-{r}-{sample}");
            let (rate, cpu) = one_output(client, runtime, &name, containers, megabytes);
            figures[r].0.push(rate);
            figures[r].1.push(cpu);
        }
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut out = json!({});
    for (runtime, (rates, cpus)) in runtimes.iter().zip(&mut figures) {
        out[runtime.name] = json!({
            "mb_per_second": median(rates), "shim_cpu_ms_per_gb": median(cpus), "samples": samples,
        });
    }
    out
}

/// Megabytes a second, and milliseconds of the shims' CPU for a gigabyte.
fn one_output(
    client: &Client<'_>,
    runtime: &Runtime,
    name: &str,
    containers: usize,
    megabytes: u64,
) -> (f64, f64) {
    let ids: Vec<String> = (0..containers).map(|i| format!("{name}-{i}")).collect();
    // All begin when all are there.
    let pause = if containers > 1 { 3 } else { 0 };
    let script = format!("sleep {pause}; exec dd if=/dev/zero bs=1M count={megabytes}");
    let args = ["sh", "-c", script.as_str()];
    let mut readers = Vec::new();
    let mut prepared = Vec::new();
    for id in &ids {
        let fifo = client.daemon.dir().join(format!("{id}-out"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        prepared.push((
            client.prepare(id, *runtime, &args),
            fifo.display().to_string(),
        ));
        readers.push(read_fifo(fifo.clone(), move |mut file| {
            let (mut buffer, mut bytes) = (vec![0u8; 1 << 16], 0u64);
            let mut begun = None;
            while let Ok(n) = file.read(&mut buffer) {
                if n == 0 {
                    break;
                }
                begun.get_or_insert_with(Instant::now);
                bytes += n as u64;
            }
            fs::remove_file(fifo).ok();
            (bytes, begun.unwrap(), Instant::now())
        }));
    }
    block_on(async {
        for (id, (mounts, stdout)) in ids.iter().zip(prepared) {
            client.start_with_output(id, mounts, &stdout).await;
        }
    });
    let cpu = || usage(&shims(client.daemon, runtime.shim)).cpu;
    let before = cpu();
    block_on(async {
        for id in &ids {
            client.wait(id, "").await;
        }
    });
    // They are there until Delete.
    let cpu = cpu().saturating_sub(before);
    block_on(async {
        for id in &ids {
            client.delete(id).await;
        }
    });
    let read: Vec<(u64, Instant, Instant)> =
        readers.into_iter().map(|r| r.join().unwrap()).collect();
    let bytes: u64 = read.iter().map(|r| r.0).sum();
    let first = read.iter().map(|r| r.1).min().unwrap();
    let longest = read.iter().map(|r| r.2).max().unwrap() - first;
    for id in &ids {
        client.forget(id);
    }
    // What dd says of itself is in it, too.
    assert!(
        bytes >= megabytes * (1 << 20) * containers as u64,
        "{}",
        runtime.name
    );
    (
        bytes as f64 / 1e6 / longest.as_secs_f64(),
        cpu as f64 / 1e6 / (bytes as f64 / 1e9),
    )
}

/// Milliseconds of a life (and of each of its phases) with more and more sleeping containers beside it: on the node, each in a pod of
/// its own, or in one pod. On the node also of what has no part of ours: the bare program, and the shim that does nothing.
pub fn growth(
    client: &Client<'_>,
    runtime: &Runtime,
    steps: &[usize],
    in_one_pod: bool,
    floor: Option<&Floor<'_>>,
) -> Value {
    const SAMPLES: usize = 15;
    let (mut running, mut rows) = (0, Vec::new());
    let name = |i: usize| {
        if in_one_pod {
            container_of("g", i)
        } else {
            format!("g{i}")
        }
    };
    let nothing = runtimes::nothing().filter(|_| floor.is_some());
    for target in steps {
        while running < *target {
            let id = name(running);
            let pod = if in_one_pod { "g" } else { id.as_str() };
            let mounts = client.prepare_in(pod, &id, *runtime, &["sleep", "100000"]);
            block_on(client.start(&id, mounts));
            running += 1;
        }
        let mut lives = vec![Vec::new(); PHASES.len()];
        let (mut bare, mut empty) = (Vec::new(), Vec::new());
        let ids: Vec<String> = (0..SAMPLES).map(|i| format!("gl{target}-{i}")).collect();
        for id in &ids {
            let pod = if in_one_pod { "g" } else { id.as_str() };
            let times = client.life_in(pod, id, *runtime);
            for (phase, time) in times.into_iter().enumerate() {
                lives[phase].push(time);
            }
            bare.extend(floor.map(Floor::round));
            if let Some(nothing) = nothing {
                let [.., total] = client.whole_life(&format!("{id}n"), nothing);
                empty.push(total);
            }
        }
        let mut row = json!({ "containers": target });
        for (phase, times) in PHASES.iter().zip(&lives) {
            row[format!("{}_ms", phase.to_lowercase())] = Times::of(times).p50.into();
        }
        if floor.is_some() {
            row["inside_ms"] = Times::of(&logged(client.daemon, &ids)).p50.into();
            row["floor_ms"] = Times::of(&bare).p50.into();
            row["nothing_ms"] = Times::of(&empty).p50.into();
        }
        rows.push(row);
    }
    for i in (0..running).rev() {
        client.end(&name(i));
    }
    Value::Array(rows)
}
