//! Reading a group's counters into the messages that containerd's clients expect: `io.containerd.cgroups.v1.Metrics` and
//! `io.containerd.cgroups.v2.Metrics` (containerd/cgroups, `cgroup1/stats/metrics.proto`, `cgroup2/stats/metrics.proto`).

use std::fs;
use std::path::Path;

use containerd_shim_protos::cgroups::metrics as m1;
use containerd_shim_protos::cgroups_v2::metrics as m2;
use containerd_shim_protos::protobuf::{Message, MessageField};

use super::{Cgroup, read_pids};

/// A message and its type url.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// `io.containerd.cgroups.v1.Metrics` or v2.
    pub type_url: &'static str,
    /// The encoded message.
    pub value: Vec<u8>,
}

impl Cgroup {
    /// Reads all counters. `None` where the group is gone.
    pub fn metrics(&self) -> Option<Metrics> {
        if !self.exists() {
            return None;
        }
        Some(if self.is_v2() {
            Metrics {
                type_url: "io.containerd.cgroups.v2.Metrics",
                value: v2(self).write_to_bytes().unwrap_or_default(),
            }
        } else {
            Metrics {
                type_url: "io.containerd.cgroups.v1.Metrics",
                value: v1(self).write_to_bytes().unwrap_or_default(),
            }
        })
    }
}

impl Cgroup {
    /// The counters that people look at, as `runc events` names them: nanoseconds and bytes.
    pub fn counters(&self) -> serde_json::Value {
        if self.is_v2() {
            let m = v2(self);
            return serde_json::json!({
                "cpu": { "usage": { "total": m.cpu.usage_usec * 1000, "kernel": m.cpu.system_usec * 1000, "user": m.cpu.user_usec * 1000 } },
                "memory": { "usage": { "usage": m.memory.usage, "limit": m.memory.usage_limit, "max": m.memory.max_usage } },
                "pids": { "current": m.pids.current, "limit": m.pids.limit }
            });
        }
        let m = v1(self);
        let (usage, memory) = (&m.cpu.usage, &m.memory.usage);
        serde_json::json!({
            "cpu": { "usage": { "total": usage.total, "kernel": usage.kernel, "user": usage.user } },
            "memory": { "usage": { "usage": memory.usage, "limit": memory.limit, "max": memory.max } },
            "pids": { "current": m.pids.current, "limit": m.pids.limit }
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

/// Runs the body once for each `key value` line, with the assignments given as `"key" => place`.
macro_rules! assign {
    ($file:expr, { $($key:literal => $place:expr),* $(,)? }) => {
        for (key, value) in flat_keyed(&$file) {
            match key.as_str() {
                $($key => $place = value,)*
                _ => {}
            }
        }
    };
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

fn v1(cgroup: &Cgroup) -> m1::Metrics {
    let mut out = m1::Metrics::new();
    let dir = |controller: &str| cgroup.controller_dir(controller);
    if let Some(d) = dir("pids") {
        let mut p = m1::PidsStat::new();
        p.current = single(&d.join("pids.current")).unwrap_or(0);
        p.limit = single(&d.join("pids.max"))
            .filter(|l| *l != u64::MAX)
            .unwrap_or(0);
        out.pids = MessageField::some(p);
    }
    let mut cpu = m1::CPUStat::new();
    if let Some(d) = dir("cpuacct") {
        let mut u = m1::CPUUsage::new();
        u.total = single(&d.join("cpuacct.usage")).unwrap_or(0);
        // User and kernel time come in clock ticks of 10 ms.
        assign!(d.join("cpuacct.stat"), { "user" => u.user, "system" => u.kernel });
        u.user *= 10_000_000;
        u.kernel *= 10_000_000;
        u.per_cpu = fs::read_to_string(d.join("cpuacct.usage_percpu"))
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        cpu.usage = MessageField::some(u);
    }
    if let Some(d) = dir("cpu") {
        let mut t = m1::Throttle::new();
        assign!(d.join("cpu.stat"), {
            "nr_periods" => t.periods, "nr_throttled" => t.throttled_periods, "throttled_time" => t.throttled_time,
        });
        cpu.throttling = MessageField::some(t);
    }
    out.cpu = MessageField::some(cpu);
    if let Some(d) = dir("memory") {
        out.memory = MessageField::some(memory_v1(&d));
        let mut o = m1::MemoryOomControl::new();
        assign!(d.join("memory.oom_control"), {
            "oom_kill_disable" => o.oom_kill_disable, "under_oom" => o.under_oom, "oom_kill" => o.oom_kill,
        });
        out.memory_oom_control = MessageField::some(o);
    }
    if let Some(d) = dir("blkio") {
        let mut b = m1::BlkIOStat::new();
        let pick = |bfq: &str, throttle: &str| {
            let entries = blkio_entries(&d.join(bfq));
            if entries.is_empty() {
                blkio_entries(&d.join(throttle))
            } else {
                entries
            }
        };
        b.io_service_bytes_recursive = pick(
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
        );
        b.io_serviced_recursive = pick(
            "blkio.bfq.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
        );
        out.blkio = MessageField::some(b);
    }
    if let Some(h) = cgroup.layout().find("hugetlb") {
        let d = h.mount.join(cgroup.path());
        for size in page_sizes() {
            let read = |v2: &str, v1: &str| {
                single(&d.join(format!("hugetlb.{size}.{}", if h.v2 { v2 } else { v1 })))
            };
            let Some(usage) = read("current", "usage_in_bytes") else {
                continue;
            };
            let mut s = m1::HugetlbStat::new();
            s.usage = usage;
            s.max = read("current", "max_usage_in_bytes").unwrap_or(0);
            s.failcnt = if h.v2 {
                0
            } else {
                read("", "failcnt").unwrap_or(0)
            };
            s.pagesize = size;
            out.hugetlb.push(s);
        }
    }
    out
}

fn memory_v1(d: &Path) -> m1::MemoryStat {
    let mut m = m1::MemoryStat::new();
    assign!(d.join("memory.stat"), {
        "cache" => m.cache, "rss" => m.rss, "rss_huge" => m.rss_huge, "mapped_file" => m.mapped_file, "dirty" => m.dirty,
        "writeback" => m.writeback, "pgpgin" => m.pg_pg_in, "pgpgout" => m.pg_pg_out, "pgfault" => m.pg_fault,
        "pgmajfault" => m.pg_maj_fault, "inactive_anon" => m.inactive_anon, "active_anon" => m.active_anon,
        "inactive_file" => m.inactive_file, "active_file" => m.active_file, "unevictable" => m.unevictable,
        "hierarchical_memory_limit" => m.hierarchical_memory_limit, "hierarchical_memsw_limit" => m.hierarchical_swap_limit,
        "total_cache" => m.total_cache, "total_rss" => m.total_rss, "total_rss_huge" => m.total_rss_huge,
        "total_mapped_file" => m.total_mapped_file, "total_dirty" => m.total_dirty, "total_writeback" => m.total_writeback,
        "total_pgpgin" => m.total_pg_pg_in, "total_pgpgout" => m.total_pg_pg_out, "total_pgfault" => m.total_pg_fault,
        "total_pgmajfault" => m.total_pg_maj_fault, "total_inactive_anon" => m.total_inactive_anon,
        "total_active_anon" => m.total_active_anon, "total_inactive_file" => m.total_inactive_file,
        "total_active_file" => m.total_active_file, "total_unevictable" => m.total_unevictable,
    });
    let entry = |prefix: &str| {
        let read = |name: &str| single(&d.join(format!("{prefix}{name}"))).unwrap_or(0);
        let mut e = m1::MemoryEntry::new();
        e.limit = read("limit_in_bytes");
        e.usage = read("usage_in_bytes");
        e.max = read("max_usage_in_bytes");
        e.failcnt = read("failcnt");
        MessageField::some(e)
    };
    m.usage = entry("memory.");
    m.swap = entry("memory.memsw.");
    m.kernel = entry("memory.kmem.");
    m.kernel_tcp = entry("memory.kmem.tcp.");
    m
}

/// Lines of `MAJOR:MINOR OPERATION NUMBER`.
fn blkio_entries(file: &Path) -> Vec<m1::BlkIOEntry> {
    fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .filter_map(|l| {
            let mut parts = l.split_whitespace();
            let (major, minor) = parts.next()?.split_once(':')?;
            let mut e = m1::BlkIOEntry::new();
            e.major = major.parse().ok()?;
            e.minor = minor.parse().ok()?;
            e.op = parts.next()?.to_owned();
            e.value = parts.next()?.parse().ok()?;
            Some(e)
        })
        .collect()
}

fn v2(cgroup: &Cgroup) -> m2::Metrics {
    let mut out = m2::Metrics::new();
    let Some(d) = cgroup
        .layout()
        .unified()
        .map(|h| h.mount.join(cgroup.path()))
    else {
        return out;
    };
    let mut p = m2::PidsStat::new();
    p.current = single(&d.join("pids.current"))
        .unwrap_or_else(|| read_pids(&d.join("cgroup.procs")).len() as u64);
    p.limit = single(&d.join("pids.max")).unwrap_or(0);
    out.pids = MessageField::some(p);
    let mut c = m2::CPUStat::new();
    assign!(d.join("cpu.stat"), {
        "usage_usec" => c.usage_usec, "user_usec" => c.user_usec, "system_usec" => c.system_usec, "nr_periods" => c.nr_periods,
        "nr_throttled" => c.nr_throttled, "throttled_usec" => c.throttled_usec, "nr_bursts" => c.nr_bursts, "burst_usec" => c.burst_usec,
    });
    c.psi = pressure(&d.join("cpu.pressure"));
    out.cpu = MessageField::some(c);
    let mut m = m2::MemoryStat::new();
    assign!(d.join("memory.stat"), {
        "anon" => m.anon, "file" => m.file, "kernel_stack" => m.kernel_stack, "slab" => m.slab, "sock" => m.sock, "shmem" => m.shmem,
        "file_mapped" => m.file_mapped, "file_dirty" => m.file_dirty, "file_writeback" => m.file_writeback, "anon_thp" => m.anon_thp,
        "inactive_anon" => m.inactive_anon, "active_anon" => m.active_anon, "inactive_file" => m.inactive_file,
        "active_file" => m.active_file, "unevictable" => m.unevictable, "slab_reclaimable" => m.slab_reclaimable,
        "slab_unreclaimable" => m.slab_unreclaimable, "pgfault" => m.pgfault, "pgmajfault" => m.pgmajfault,
        "workingset_refault" => m.workingset_refault, "workingset_activate" => m.workingset_activate,
        "workingset_nodereclaim" => m.workingset_nodereclaim, "pgrefill" => m.pgrefill, "pgscan" => m.pgscan, "pgsteal" => m.pgsteal,
        "pgactivate" => m.pgactivate, "pgdeactivate" => m.pgdeactivate, "pglazyfree" => m.pglazyfree, "pglazyfreed" => m.pglazyfreed,
        "thp_fault_alloc" => m.thp_fault_alloc, "thp_collapse_alloc" => m.thp_collapse_alloc,
    });
    m.usage = single(&d.join("memory.current")).unwrap_or(0);
    m.usage_limit = single(&d.join("memory.max")).unwrap_or(0);
    m.max_usage = single(&d.join("memory.peak")).unwrap_or(0);
    m.swap_usage = single(&d.join("memory.swap.current")).unwrap_or(0);
    m.swap_limit = single(&d.join("memory.swap.max")).unwrap_or(0);
    m.swap_max_usage = single(&d.join("memory.swap.peak")).unwrap_or(0);
    m.psi = pressure(&d.join("memory.pressure"));
    out.memory = MessageField::some(m);
    let mut e = m2::MemoryEvents::new();
    assign!(d.join("memory.events"), {
        "low" => e.low, "high" => e.high, "max" => e.max, "oom" => e.oom, "oom_kill" => e.oom_kill, "oom_group_kill" => e.oom_group_kill,
    });
    out.memory_events = MessageField::some(e);
    let mut io = m2::IOStat::new();
    for line in fs::read_to_string(d.join("io.stat"))
        .unwrap_or_default()
        .lines()
    {
        let mut parts = line.split_whitespace();
        let Some((major, minor)) = parts.next().and_then(|dev| dev.split_once(':')) else {
            continue;
        };
        let mut entry = m2::IOEntry::new();
        entry.major = major.parse().unwrap_or(0);
        entry.minor = minor.parse().unwrap_or(0);
        for (key, value) in parts.filter_map(|p| p.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => entry.rbytes = value,
                "wbytes" => entry.wbytes = value,
                "rios" => entry.rios = value,
                "wios" => entry.wios = value,
                _ => {}
            }
        }
        io.usage.push(entry);
    }
    io.psi = pressure(&d.join("io.pressure"));
    out.io = MessageField::some(io);
    for size in page_sizes() {
        let Some(current) = single(&d.join(format!("hugetlb.{size}.current"))) else {
            continue;
        };
        let mut h = m2::HugeTlbStat::new();
        h.current = current;
        h.max = single(&d.join(format!("hugetlb.{size}.max"))).unwrap_or(0);
        h.failcnt = flat_keyed(&d.join(format!("hugetlb.{size}.events")))
            .into_iter()
            .find(|(k, _)| k == "max")
            .map_or(0, |(_, v)| v);
        h.pagesize = size;
        out.hugetlb.push(h);
    }
    out
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, `Documentation/accounting/psi.rst`.
fn pressure(file: &Path) -> MessageField<m2::PSIStats> {
    let Ok(text) = fs::read_to_string(file) else {
        return MessageField::none();
    };
    let mut stats = m2::PSIStats::new();
    for line in text.lines() {
        let mut data = m2::PSIData::new();
        let mut parts = line.split_whitespace();
        let kind = parts.next();
        for (key, value) in parts.filter_map(|p| p.split_once('=')) {
            match key {
                "avg10" => data.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => data.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => data.avg300 = value.parse().unwrap_or(0.0),
                "total" => data.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        match kind {
            Some("some") => stats.some = MessageField::some(data),
            Some("full") => stats.full = MessageField::some(data),
            _ => {}
        }
    }
    MessageField::some(stats)
}
