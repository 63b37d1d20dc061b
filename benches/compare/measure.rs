//! Figures: of many times, and of processes.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{self, Daemon};

/// Percentiles, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

impl Times {
    pub fn of(times: &[Duration]) -> Self {
        let mut times = times.to_vec();
        times.sort();
        let at = |q: usize| {
            let index = (times.len().max(1) - 1) * q / 100;
            times.get(index).map_or(0.0, |t| t.as_secs_f64() * 1000.0)
        };
        Self {
            p50: at(50),
            p95: at(95),
            p99: at(99),
        }
    }

    pub fn json(self) -> Value {
        json!({ "p50_ms": self.p50, "p95_ms": self.p95, "p99_ms": self.p99 })
    }
}

/// What all shims of a kind have together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub processes: usize,
    /// KiB
    pub pss: f64,
    /// KiB
    pub private: f64,
    pub threads: u64,
    /// Voluntary switches: each is a wake-up.
    pub switches: u64,
    /// Nanoseconds of CPU.
    pub cpu: u64,
}

/// The daemon's shims whose names have this in them.
pub fn shims(daemon: &Daemon, kind: &str) -> Vec<i32> {
    let address = daemon.address().display().to_string();
    support::processes()
        .into_iter()
        .filter(|(_, a)| a.contains(&address) && a[0].contains(kind))
        .map(|(pid, _)| pid)
        .collect()
}

pub fn usage(pids: &[i32]) -> Usage {
    let mut sum = Usage {
        processes: pids.len(),
        ..Usage::default()
    };
    for pid in pids {
        let read =
            |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let (memory, status) = (read("smaps_rollup"), read("status"));
        let field = |text: &str, name: &str| {
            text.lines()
                .filter(|l| l.starts_with(name))
                .filter_map(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok())
                .sum::<u64>()
        };
        sum.pss += field(&memory, "Pss:") as f64;
        sum.private += (field(&memory, "Private_Clean:") + field(&memory, "Private_Dirty:")) as f64;
        sum.threads += field(&status, "Threads:");
        for task in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            sum.switches += field(&read("status"), "voluntary_ctxt_switches:");
            let run = read("schedstat");
            sum.cpu += run
                .split_whitespace()
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(0);
        }
    }
    sum
}
