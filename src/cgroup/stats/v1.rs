//! Counters of cgroup v1.

use std::fs;
use std::path::Path;

use super::super::Cgroup;
use super::{Block, BlockIo, Cpu, Hugetlb, Keyed, Memory, Pids, Stats, Usage, page_sizes, single};

pub(super) fn v1(cgroup: &Cgroup) -> Stats {
    let dir = |controller: &str| cgroup.controller_dir(controller);
    let pids = dir("pids").map(|d| Pids {
        current: single(&d.join("pids.current")).unwrap_or(0),
        limit: single(&d.join("pids.max")).unwrap_or(u64::MAX),
    });
    let mut cpu = Cpu::default();
    if let Some(d) = dir("cpuacct") {
        // User and kernel time come in clock ticks of 10 ms.
        let ticks = Keyed::read(&d.join("cpuacct.stat"));
        cpu.total = single(&d.join("cpuacct.usage")).unwrap_or(0);
        cpu.user = ticks.get("user") * 10_000_000;
        cpu.kernel = ticks.get("system") * 10_000_000;
        cpu.per_cpu = fs::read_to_string(d.join("cpuacct.usage_percpu"))
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
    }
    if let Some(d) = dir("cpu") {
        cpu.stat = Keyed::read(&d.join("cpu.stat"));
    }
    let memory = dir("memory").map(|d| {
        let usage = |prefix: &str| {
            let read = |name: &str| single(&d.join(format!("{prefix}{name}"))).unwrap_or(0);
            Usage {
                now: read("usage_in_bytes"),
                max: read("max_usage_in_bytes"),
                limit: read("limit_in_bytes"),
                failures: read("failcnt"),
            }
        };
        Memory {
            usage: usage("memory."),
            swap: usage("memory.memsw."),
            kernel: usage("memory.kmem."),
            kernel_tcp: usage("memory.kmem.tcp."),
            stat: Keyed::read(&d.join("memory.stat")),
            events: Keyed::read(&d.join("memory.oom_control")),
            pressure: None,
        }
    });
    let block_io = dir("blkio").map(|d| {
        let pick = |what: &str| {
            let of_bfq = block_v1(&d.join(format!("blkio.bfq.{what}")));
            if of_bfq.is_empty() {
                block_v1(&d.join(format!("blkio.throttle.{what}")))
            } else {
                of_bfq
            }
        };
        BlockIo {
            bytes: pick("io_service_bytes_recursive"),
            operations: pick("io_serviced_recursive"),
            pressure: None,
        }
    });
    Stats {
        v2: false,
        pids,
        cpu,
        memory,
        block_io,
        hugetlb: hugetlb_beside_v1(cgroup),
    }
}

/// On a hybrid node the controller may be in the v2 tree.
fn hugetlb_beside_v1(cgroup: &Cgroup) -> Vec<Hugetlb> {
    let Some(h) = cgroup.layout().find("hugetlb") else {
        return Vec::new();
    };
    let d = cgroup.dir(h);
    let one = |page_size: String| {
        let read = |name: &str| single(&d.join(format!("hugetlb.{page_size}.{name}")));
        let (usage, max, failures) = if h.v2 {
            let usage = read("current")?;
            (usage, usage, 0)
        } else {
            let usage = read("usage_in_bytes")?;
            let max = read("max_usage_in_bytes").unwrap_or(0);
            (usage, max, read("failcnt").unwrap_or(0))
        };
        Some(Hugetlb {
            page_size,
            usage,
            max,
            failures,
        })
    };
    page_sizes().into_iter().filter_map(one).collect()
}

/// Lines of `MAJOR:MINOR OPERATION NUMBER`.
pub(super) fn block_v1(file: &Path) -> Vec<Block> {
    let one = |line: &str| {
        let mut parts = line.split_whitespace();
        let (major, minor) = parts.next()?.split_once(':')?;
        Some(Block {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            operation: parts.next()?.to_owned(),
            value: parts.next()?.parse().ok()?,
        })
    };
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(one).collect()
}
