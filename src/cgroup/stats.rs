//! What the control groups count, as plain numbers: `Documentation/admin-guide/cgroup-v1/`, `cgroup-v2.rst`, `accounting/psi.rst`.

use std::fs;
use std::path::Path;

use super::{Cgroup, read_pids};

/// Lines of `KEY NUMBER`, as the kernel has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keyed(pub Vec<(String, u64)>);

impl Keyed {
    fn read(file: &Path) -> Self {
        Self(flat_keyed(file))
    }

    /// The number of a key; 0 if there is none.
    pub fn get(&self, key: &str) -> u64 {
        let found = self.0.iter().find(|(k, _)| k == key);
        found.map_or(0, |(_, value)| *value)
    }
}

/// Processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pids {
    /// How many there are.
    pub current: u64,
    /// How many there may be; `u64::MAX` without a limit.
    pub limit: u64,
}

/// Processor time, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cpu {
    /// All of it.
    pub total: u64,
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub kernel: u64,
    /// On each processor; cgroup v1 only.
    pub per_cpu: Vec<u64>,
    /// `cpu.stat`.
    pub stat: Keyed,
    /// Time that was lost to shortage; cgroup v2 only.
    pub pressure: Option<Pressure>,
}

/// One kind of memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Now.
    pub now: u64,
    /// The most that there was.
    pub max: u64,
    /// The limit; `u64::MAX`, or on cgroup v1 a number near it, without one.
    pub limit: u64,
    /// How often the limit was reached; cgroup v1 only.
    pub failures: u64,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// Of the processes, with their files' pages.
    pub usage: Usage,
    /// Swap: on cgroup v1 the sum of memory and swap, on v2 swap alone.
    pub swap: Usage,
    /// The kernel's; cgroup v1 only.
    pub kernel: Usage,
    /// TCP buffers; cgroup v1 only.
    pub kernel_tcp: Usage,
    /// `memory.stat`.
    pub stat: Keyed,
    /// `memory.oom_control`, on cgroup v2 `memory.events`.
    pub events: Keyed,
    /// Time that was lost to shortage; cgroup v2 only.
    pub pressure: Option<Pressure>,
}

/// A counter of a block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// The device.
    pub major: u64,
    /// The device.
    pub minor: u64,
    /// What is counted: on cgroup v1 `Read`, `Write`, `Total` and others, on v2 `rbytes`, `wios` and others.
    pub operation: String,
    /// How many of it.
    pub value: u64,
}

/// Input and output of block devices.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlockIo {
    /// Bytes on cgroup v1; everything on v2.
    pub bytes: Vec<Block>,
    /// Operations; cgroup v1 only.
    pub operations: Vec<Block>,
    /// Time that was lost to shortage; cgroup v2 only.
    pub pressure: Option<Pressure>,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hugetlb {
    /// As the control files have it, for example `2MB`.
    pub page_size: String,
    /// Now.
    pub usage: u64,
    /// The most that there was; on cgroup v2 the limit.
    pub max: u64,
    /// How often the limit was reached.
    pub failures: u64,
}

/// Shortage of something, `Documentation/accounting/psi.rst`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Some processes waited.
    pub some: Option<Stall>,
    /// All processes waited.
    pub full: Option<Stall>,
}

/// Time that processes waited.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    /// Percent, over 10, 60 and 300 seconds.
    pub averages: [f64; 3],
    /// In microseconds.
    pub total: u64,
}

/// All counters. What has no controller on this node is missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Whether they are those of pure cgroup v2.
    pub v2: bool,
    /// Processes.
    pub pids: Option<Pids>,
    /// Processors.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Option<Memory>,
    /// Block devices.
    pub block_io: Option<BlockIo>,
    /// Huge pages.
    pub hugetlb: Vec<Hugetlb>,
}

impl Cgroup {
    /// Reads all counters. `None` if the group is gone.
    pub fn stats(&self) -> Option<Stats> {
        self.exists().then(|| self.counters())
    }

    /// Reads all counters that there are. Those of a group that is gone are 0.
    pub fn counters(&self) -> Stats {
        if self.is_v2() { v2(self) } else { v1(self) }
    }
}

impl Stats {
    /// As `runc events` has them, for people: nanoseconds and bytes.
    pub fn to_json(&self) -> serde_json::Value {
        let memory = self.memory.as_ref().map(|m| m.usage).unwrap_or_default();
        let mut pids = self.pids.unwrap_or_default();
        if !self.v2 && pids.limit == u64::MAX {
            // As runc says on cgroup v1 that there is none.
            pids.limit = 0;
        }
        serde_json::json!({
            "cpu": { "usage": { "total": self.cpu.total, "kernel": self.cpu.kernel, "user": self.cpu.user } },
            "memory": { "usage": { "usage": memory.now, "limit": memory.limit, "max": memory.max } },
            "pids": { "current": pids.current, "limit": pids.limit }
        })
    }
}

/// One number; `max` is `u64::MAX`.
pub(super) fn single(file: &Path) -> Option<u64> {
    number(fs::read_to_string(file).ok()?.trim())
}

fn number(text: &str) -> Option<u64> {
    if text == "max" {
        Some(u64::MAX)
    } else {
        text.parse().ok()
    }
}

/// Lines of `key value`.
pub(super) fn flat_keyed(file: &Path) -> Vec<(String, u64)> {
    fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .filter_map(|l| {
            let (k, v) = l.split_once(' ')?;
            Some((k.to_owned(), number(v.trim())?))
        })
        .collect()
}

fn page_sizes() -> Vec<String> {
    let Ok(dir) = fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    dir.flatten()
        .filter_map(|e| {
            let kb: u64 = e
                .file_name()
                .to_str()?
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()?;
            Some(match kb {
                k if k >= 1 << 20 => format!("{}GB", k >> 20),
                k if k >= 1 << 10 => format!("{}MB", k >> 10),
                k => format!("{k}KB"),
            })
        })
        .collect()
}

fn v1(cgroup: &Cgroup) -> Stats {
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
    let d = h.mount.join(cgroup.path());
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
fn block_v1(file: &Path) -> Vec<Block> {
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

/// Lines of `MAJOR:MINOR KEY=NUMBER …`.
fn block_v2(file: &Path) -> Vec<Block> {
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

fn v2(cgroup: &Cgroup) -> Stats {
    let Some(h) = cgroup.layout().unified() else {
        return Stats::default();
    };
    let d = h.mount.join(cgroup.path());
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

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`
fn pressure(file: &Path) -> Option<Pressure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_numbers() {
        let dir = std::env::temp_dir().join(format!("cdtest-stats-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = |text: &str| {
            let path = dir.join("file");
            fs::write(&path, text).unwrap();
            path
        };
        let keyed = Keyed::read(&file("usage_usec 17\nlimit max\nodd\n"));
        assert_eq!(
            (keyed.get("usage_usec"), keyed.get("limit"), keyed.get("x")),
            (17, u64::MAX, 0)
        );
        let blocks = block_v1(&file("8:0 Read 512\n8:0 Write 0\nTotal 512\n"));
        assert_eq!(blocks.len(), 2);
        assert_eq!(
            (
                blocks[0].major,
                blocks[0].operation.as_str(),
                blocks[0].value
            ),
            (8, "Read", 512)
        );
        let blocks = block_v2(&file("254:0 rbytes=4096 wbytes=8192 rios=1\n"));
        let found: Vec<_> = blocks
            .iter()
            .map(|b| (b.operation.as_str(), b.value))
            .collect();
        assert_eq!(found, [("rbytes", 4096), ("wbytes", 8192), ("rios", 1)]);
        let lost = pressure(&file("some avg10=1.50 avg60=0.00 avg300=0.25 total=42\n")).unwrap();
        let some = lost.some.unwrap();
        assert_eq!((some.averages, some.total), ([1.5, 0.0, 0.25], 42));
        assert!(lost.full.is_none());
        fs::remove_dir_all(&dir).unwrap();
    }
}
