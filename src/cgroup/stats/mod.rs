//! What the control groups count, as plain numbers: `Documentation/admin-guide/cgroup-v1/`, `cgroup-v2.rst`, `accounting/psi.rst`.

mod v1;
mod v2;

use std::fs;
use std::path::Path;

use super::Cgroup;
use v1::v1;
use v2::v2;

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
        let blocks = v1::block_v1(&file("8:0 Read 512\n8:0 Write 0\nTotal 512\n"));
        assert_eq!(blocks.len(), 2);
        assert_eq!(
            (
                blocks[0].major,
                blocks[0].operation.as_str(),
                blocks[0].value
            ),
            (8, "Read", 512)
        );
        let blocks = v2::block_v2(&file("254:0 rbytes=4096 wbytes=8192 rios=1\n"));
        let found: Vec<_> = blocks
            .iter()
            .map(|b| (b.operation.as_str(), b.value))
            .collect();
        assert_eq!(found, [("rbytes", 4096), ("wbytes", 8192), ("rios", 1)]);
        let lost =
            v2::pressure(&file("some avg10=1.50 avg60=0.00 avg300=0.25 total=42\n")).unwrap();
        let some = lost.some.unwrap();
        assert_eq!((some.averages, some.total), ([1.5, 0.0, 0.25], 42));
        assert!(lost.full.is_none());
        fs::remove_dir_all(&dir).unwrap();
    }
}
