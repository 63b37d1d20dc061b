//! Counters of cgroup v2.

use std::fs;
use std::path::Path;

use super::super::{Cgroup, read_pids};
use super::{
    Block, BlockIo, Cpu, Hugetlb, Keyed, Memory, Pids, Pressure, Stall, Stats, Usage, page_sizes,
    single,
};

pub(super) fn v2(cgroup: &Cgroup) -> Stats {
    let Some(h) = cgroup.layout().unified() else {
        return Stats::default();
    };
    let d = cgroup.dir(h);
    let read = |name: &str| single(&d.join(name)).unwrap_or(0);
    let count = || read_pids(&d.join("cgroup.procs")).map_or(0, |pids| pids.len()) as u64;
    let stat = Keyed::read(&d.join("cpu.stat"));
    let one = |page_size: String| {
        let name = |rest: &str| format!("hugetlb.{page_size}.{rest}");
        let usage = single(&d.join(name("current")))?;
        Some(Hugetlb {
            usage,
            max: read(&name("max")),
            failures: Keyed::read(&d.join(name("events"))).get("max"),
            page_size,
        })
    };
    Stats {
        v2: true,
        pids: Some(Pids {
            current: single(&d.join("pids.current")).unwrap_or_else(count),
            limit: read("pids.max"),
        }),
        cpu: Cpu {
            total: stat.get("usage_usec") * 1000,
            user: stat.get("user_usec") * 1000,
            kernel: stat.get("system_usec") * 1000,
            per_cpu: Vec::new(),
            pressure: pressure(&d.join("cpu.pressure")),
            stat,
        },
        memory: Some(Memory {
            usage: Usage {
                now: read("memory.current"),
                max: read("memory.peak"),
                limit: read("memory.max"),
                failures: 0,
            },
            swap: Usage {
                now: read("memory.swap.current"),
                max: read("memory.swap.peak"),
                limit: read("memory.swap.max"),
                failures: 0,
            },
            stat: Keyed::read(&d.join("memory.stat")),
            events: Keyed::read(&d.join("memory.events")),
            pressure: pressure(&d.join("memory.pressure")),
            ..Memory::default()
        }),
        block_io: Some(BlockIo {
            bytes: block_v2(&d.join("io.stat")),
            operations: Vec::new(),
            pressure: pressure(&d.join("io.pressure")),
        }),
        hugetlb: page_sizes().into_iter().filter_map(one).collect(),
    }
}

/// Lines of `MAJOR:MINOR KEY=NUMBER …`.
pub(super) fn block_v2(file: &Path) -> Vec<Block> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut all = Vec::new();
    for line in text.lines() {
        let mut parts = line.split_whitespace();
        let Some((major, minor)) = parts.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        for (key, value) in parts.filter_map(|p| p.split_once('=')) {
            all.push(Block {
                major: major.parse().unwrap_or(0),
                minor: minor.parse().unwrap_or(0),
                operation: key.to_owned(),
                value: value.parse().unwrap_or(0),
            });
        }
    }
    all
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`
pub(super) fn pressure(file: &Path) -> Option<Pressure> {
    let text = fs::read_to_string(file).ok()?;
    let mut found = Pressure::default();
    for line in text.lines() {
        let mut stall = Stall::default();
        let mut parts = line.split_whitespace();
        let kind = parts.next();
        for (key, value) in parts.filter_map(|p| p.split_once('=')) {
            let average = || value.parse().unwrap_or(0.0);
            match key {
                "avg10" => stall.averages[0] = average(),
                "avg60" => stall.averages[1] = average(),
                "avg300" => stall.averages[2] = average(),
                "total" => stall.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        match kind {
            Some("some") => found.some = Some(stall),
            Some("full") => found.full = Some(stall),
            _ => {}
        }
    }
    Some(found)
}
