//! Counters as containerd wants them: `io.containerd.cgroups.v1.Metrics` and `io.containerd.cgroups.v2.Metrics` (containerd/cgroups,
//! `cgroup1/stats/metrics.proto`, `cgroup2/stats/metrics.proto`).

use containerd_shim_protos::cgroups::metrics as m1;
use containerd_shim_protos::cgroups_v2::metrics as m2;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};

use crate::cgroup::stats::{Block, Keyed, Memory, Pressure, Stall, Stats, Usage};

/// Gives each field the number of its key. Keys without a field are left out.
macro_rules! assign {
    ($keyed:expr, { $($key:literal => $place:expr),* $(,)? }) => {
        for (key, value) in &$keyed.0 {
            match key.as_str() {
                $($key => $place = *value,)*
                _ => {}
            }
        }
    };
}

/// The message of the node's kind of control groups, with its type.
pub(super) fn encode(stats: &Stats) -> Any {
    let (type_url, value) = if stats.v2 {
        (
            "io.containerd.cgroups.v2.Metrics",
            v2(stats).write_to_bytes(),
        )
    } else {
        (
            "io.containerd.cgroups.v1.Metrics",
            v1(stats).write_to_bytes(),
        )
    };
    Any {
        type_url: type_url.to_owned(),
        value: value.unwrap_or_default(),
        ..Any::default()
    }
}

fn v1(stats: &Stats) -> m1::Metrics {
    let cpu = &stats.cpu;
    let mut usage = m1::CPUUsage::new();
    (usage.total, usage.user, usage.kernel) = (cpu.total, cpu.user, cpu.kernel);
    usage.per_cpu.clone_from(&cpu.per_cpu);
    let mut throttling = m1::Throttle::new();
    assign!(cpu.stat, {
        "nr_periods" => throttling.periods, "nr_throttled" => throttling.throttled_periods,
        "throttled_time" => throttling.throttled_time,
    });
    let mut out = m1::Metrics::new();
    out.cpu = MessageField::some(m1::CPUStat {
        usage: MessageField::some(usage),
        throttling: MessageField::some(throttling),
        ..m1::CPUStat::default()
    });
    out.pids = stats
        .pids
        .map(|p| m1::PidsStat {
            current: p.current,
            // In this message no limit is 0.
            limit: if p.limit == u64::MAX { 0 } else { p.limit },
            ..m1::PidsStat::default()
        })
        .into();
    if let Some(memory) = &stats.memory {
        out.memory = MessageField::some(memory_v1(memory));
        let mut oom = m1::MemoryOomControl::new();
        assign!(memory.events, {
            "oom_kill_disable" => oom.oom_kill_disable, "under_oom" => oom.under_oom, "oom_kill" => oom.oom_kill,
        });
        out.memory_oom_control = MessageField::some(oom);
    }
    let entries = |all: &[Block]| {
        let one = |b: &Block| m1::BlkIOEntry {
            major: b.major,
            minor: b.minor,
            op: b.operation.clone(),
            value: b.value,
            ..m1::BlkIOEntry::default()
        };
        all.iter().map(one).collect()
    };
    out.blkio = stats
        .block_io
        .as_ref()
        .map(|io| m1::BlkIOStat {
            io_service_bytes_recursive: entries(&io.bytes),
            io_serviced_recursive: entries(&io.operations),
            ..m1::BlkIOStat::default()
        })
        .into();
    let pages = stats.hugetlb.iter().map(|h| m1::HugetlbStat {
        usage: h.usage,
        max: h.max,
        failcnt: h.failures,
        pagesize: h.page_size.clone(),
        ..m1::HugetlbStat::default()
    });
    out.hugetlb = pages.collect();
    out
}

fn memory_v1(memory: &Memory) -> m1::MemoryStat {
    let entry = |u: Usage| {
        MessageField::some(m1::MemoryEntry {
            limit: u.limit,
            usage: u.now,
            max: u.max,
            failcnt: u.failures,
            ..m1::MemoryEntry::default()
        })
    };
    let mut m = m1::MemoryStat::new();
    assign!(memory.stat, {
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
    m.usage = entry(memory.usage);
    m.swap = entry(memory.swap);
    m.kernel = entry(memory.kernel);
    m.kernel_tcp = entry(memory.kernel_tcp);
    m
}

fn v2(stats: &Stats) -> m2::Metrics {
    let mut out = m2::Metrics::new();
    out.pids = stats
        .pids
        .map(|p| m2::PidsStat {
            current: p.current,
            limit: p.limit,
            ..m2::PidsStat::default()
        })
        .into();
    let mut c = m2::CPUStat::new();
    assign!(stats.cpu.stat, {
        "usage_usec" => c.usage_usec, "user_usec" => c.user_usec, "system_usec" => c.system_usec, "nr_periods" => c.nr_periods,
        "nr_throttled" => c.nr_throttled, "throttled_usec" => c.throttled_usec, "nr_bursts" => c.nr_bursts, "burst_usec" => c.burst_usec,
    });
    c.psi = pressure(stats.cpu.pressure);
    out.cpu = MessageField::some(c);
    if let Some(memory) = &stats.memory {
        out.memory = MessageField::some(memory_v2(memory));
        let mut e = m2::MemoryEvents::new();
        assign!(memory.events, {
            "low" => e.low, "high" => e.high, "max" => e.max, "oom" => e.oom, "oom_kill" => e.oom_kill,
            "oom_group_kill" => e.oom_group_kill,
        });
        out.memory_events = MessageField::some(e);
    }
    out.io = stats
        .block_io
        .as_ref()
        .map(|io| m2::IOStat {
            usage: by_device(&io.bytes),
            psi: pressure(io.pressure),
            ..m2::IOStat::default()
        })
        .into();
    let pages = stats.hugetlb.iter().map(|h| m2::HugeTlbStat {
        current: h.usage,
        max: h.max,
        failcnt: h.failures,
        pagesize: h.page_size.clone(),
        ..m2::HugeTlbStat::default()
    });
    out.hugetlb = pages.collect();
    out
}

fn memory_v2(memory: &Memory) -> m2::MemoryStat {
    let mut m = m2::MemoryStat::new();
    assign!(memory.stat, {
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
    m.usage = memory.usage.now;
    m.usage_limit = memory.usage.limit;
    m.max_usage = memory.usage.max;
    m.swap_usage = memory.swap.now;
    m.swap_limit = memory.swap.limit;
    m.swap_max_usage = memory.swap.max;
    m.psi = pressure(memory.pressure);
    m
}

/// One entry for each device, in the kernel's order.
fn by_device(blocks: &[Block]) -> Vec<m2::IOEntry> {
    let mut all: Vec<m2::IOEntry> = Vec::new();
    for b in blocks {
        let is_same = |e: &m2::IOEntry| (e.major, e.minor) == (b.major, b.minor);
        if !all.last().is_some_and(is_same) {
            all.push(m2::IOEntry {
                major: b.major,
                minor: b.minor,
                ..m2::IOEntry::default()
            });
        }
        let Some(entry) = all.last_mut() else {
            continue;
        };
        assign!(Keyed(vec![(b.operation.clone(), b.value)]), {
            "rbytes" => entry.rbytes, "wbytes" => entry.wbytes, "rios" => entry.rios, "wios" => entry.wios,
        });
    }
    all
}

fn pressure(found: Option<Pressure>) -> MessageField<m2::PSIStats> {
    let data = |stall: Stall| m2::PSIData {
        avg10: stall.averages[0],
        avg60: stall.averages[1],
        avg300: stall.averages[2],
        total: stall.total,
        ..m2::PSIData::default()
    };
    let stats = |p: Pressure| m2::PSIStats {
        some: p.some.map(data).into(),
        full: p.full.map(data).into(),
        ..m2::PSIStats::default()
    };
    found.map(stats).into()
}
