//! cgroup v2: OCI resources to control files, `Documentation/admin-guide/cgroup-v2.rst`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxHugepageLimit, LinuxResources};

use super::error::io_error;
use super::settings::{Setting, check_kernel_memory, limit_or_max};
use super::{Cgroup, Error, Result, stats};

pub(super) fn settings(cgroup: &Cgroup, r: &LinuxResources, out: &mut Vec<Setting>) -> Result<()> {
    memory(cgroup, r, out)?;
    cpu(cgroup, r, out)?;
    super::settings::pids(r, out);
    block_io(cgroup, r, out)?;
    for (i, h) in r.hugepage_limits().iter().flatten().enumerate() {
        hugetlb(h, &format!("hugepageLimits[{i}].limit"), out);
    }
    if let Some(n) = r.network()
        && (n.class_id().is_some_and(|id| id != 0)
            || n.priorities().as_ref().is_some_and(|p| !p.is_empty()))
    {
        return Err(Error::Unavailable {
            field: "linux.resources.network".into(),
            reason: "net_cls and net_prio exist on cgroup v1 only, and this node runs cgroup v2"
                .into(),
        });
    }
    rdma(r, out);
    // Last, so that it has the last word, and sorted, so that a refusal is the same every time.
    let mut unified: Vec<_> = r.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        let field = format!("unified[{file:?}]");
        if file.contains('/') || file.starts_with("cgroup.") || !file.contains('.') {
            return Err(Error::Unavailable {
                field: format!("linux.resources.{field}"),
                reason: "is not the name of a controller's file".into(),
            });
        }
        let Some(controller) = controller_name(file) else {
            return Err(Error::Unavailable {
                field: format!("linux.resources.{field}"),
                reason: "belongs to no controller that Cofferdam knows".into(),
            });
        };
        // One line each: the kernel takes a single entry per write for keyed files.
        for line in value.lines() {
            out.push(Setting::new(controller, file.as_str(), line, &field));
        }
    }
    Ok(())
}

fn controller_name(file: &str) -> Option<&'static str> {
    let name = file.split('.').next()?;
    [
        "cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc", "dmem",
    ]
    .into_iter()
    .find(|c| *c == name)
}

/// A limit and the one on reservations; hybrid nodes have these files, too.
pub(super) fn hugetlb(h: &LinuxHugepageLimit, field: &str, out: &mut Vec<Setting>) {
    let (size, limit) = (h.page_size(), limit_or_max(h.limit()));
    let max = format!("hugetlb.{size}.max");
    let reserved = format!("hugetlb.{size}.rsvd.max");
    out.push(Setting::new("hugetlb", max, &limit, field));
    out.push(Setting::new("hugetlb", reserved, &limit, field).optional());
}

pub(super) fn rdma(r: &LinuxResources, out: &mut Vec<Setting>) {
    let mut devices: Vec<_> = r.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| *name);
    for (device, limits) in devices {
        let mut value = device.clone();
        for (key, limit) in [
            ("hca_handle", limits.hca_handles()),
            ("hca_object", limits.hca_objects()),
        ] {
            if let Some(limit) = limit {
                value.push_str(&format!(" {key}={limit}"));
            }
        }
        out.push(Setting::new(
            "rdma",
            "rdma.max",
            value,
            &format!("rdma[{device:?}]"),
        ));
    }
}

fn memory(cgroup: &Cgroup, r: &LinuxResources, out: &mut Vec<Setting>) -> Result<()> {
    let Some(m) = r.memory() else { return Ok(()) };
    check_kernel_memory(m)?;
    for (set, field) in [
        (m.kernel_tcp().is_some_and(|v| v > 0), "kernelTCP"),
        (m.swappiness().is_some(), "swappiness"),
        (m.disable_oom_killer() == Some(true), "disableOOMKiller"),
    ] {
        if set {
            return Err(Error::Unavailable {
                field: format!("linux.resources.memory.{field}"),
                reason: "exists on cgroup v1 only, and this node runs cgroup v2".into(),
            });
        }
    }
    let limit = m.limit().filter(|l| *l != 0);
    let swap = m.swap().filter(|s| *s != 0);
    if m.check_before_update() == Some(true)
        && let Some(limit) = limit.filter(|l| *l > 0)
        && let Some(usage) = cgroup
            .controller_dir("memory")
            .and_then(|d| stats::single(&d.join("memory.current")))
        && limit.cast_unsigned() < usage
    {
        return Err(Error::Unavailable {
            field: format!("linux.resources.memory.limit: {limit}"),
            reason: format!(
                "the container uses {usage} bytes already, and checkBeforeUpdate is set"
            ),
        });
    }
    // v1's `swap` is memory plus swap; v2 limits swap alone. OCI config-linux.md, "memory".
    match (swap, limit) {
        (Some(-1), _) => {
            out.push(Setting::new("memory", "memory.swap.max", "max", "memory.swap").optional())
        }
        (Some(swap), Some(limit)) if limit >= 0 => {
            if swap < limit {
                return Err(Error::Unavailable {
                    field: format!("linux.resources.memory.swap: {swap}"),
                    reason: format!(
                        "is memory plus swap, so it cannot be below memory.limit ({limit})"
                    ),
                });
            }
            let s = Setting::new("memory", "memory.swap.max", swap - limit, "memory.swap");
            // Without swap accounting there is no swap to be had, which is what "no swap" asks for.
            out.push(if swap == limit { s.optional() } else { s });
        }
        (Some(_), _) => {
            return Err(Error::Unavailable {
                field: "linux.resources.memory.swap".into(),
                reason: "on cgroup v2 a swap limit needs memory.limit beside it".into(),
            });
        }
        (None, Some(-1)) => {
            out.push(Setting::new("memory", "memory.swap.max", "max", "memory.swap").optional())
        }
        (None, _) => {}
    }
    if let Some(l) = limit {
        out.push(Setting::new(
            "memory",
            "memory.max",
            limit_or_max(l),
            "memory.limit",
        ));
    }
    if let Some(v) = m.reservation().filter(|v| *v != 0) {
        out.push(Setting::new(
            "memory",
            "memory.low",
            limit_or_max(v),
            "memory.reservation",
        ));
    }
    Ok(())
}

fn cpu(cgroup: &Cgroup, r: &LinuxResources, out: &mut Vec<Setting>) -> Result<()> {
    let Some(c) = r.cpu() else { return Ok(()) };
    for (value, field) in [
        (c.realtime_period().map(u64::cast_signed), "realtimePeriod"),
        (c.realtime_runtime(), "realtimeRuntime"),
    ] {
        if value.is_some_and(|v| v != 0) {
            return Err(Error::Unavailable {
                field: format!("linux.resources.cpu.{field}"),
                reason: "real-time group scheduling exists on cgroup v1 only, and this node runs cgroup v2".into(),
            });
        }
    }
    let shares = c.shares().filter(|v| *v != 0).map(weight_from_shares);
    let shares = shares.map(|v| Setting::new("cpu", "cpu.weight", v, "cpu.shares"));
    super::settings::shares_and_idle(shares, c.idle(), out);
    // 0 says nothing, as on v1.
    let (quota, period) = (
        c.quota().filter(|q| *q != 0),
        c.period().filter(|p| *p != 0),
    );
    if quota.is_some() || period.is_some() {
        let value = match quota {
            Some(q) if q > 0 => q.to_string(),
            Some(_) => "max".to_owned(),
            // Only the period changes: keep the quota that is there.
            None => cgroup
                .controller_dir("cpu")
                .and_then(|d| fs::read_to_string(d.join("cpu.max")).ok())
                .and_then(|s| s.split_whitespace().next().map(str::to_owned))
                .unwrap_or_else(|| "max".to_owned()),
        };
        let value = period.map_or(value.clone(), |period| format!("{value} {period}"));
        let field = if quota.is_some() {
            "cpu.quota"
        } else {
            "cpu.period"
        };
        out.push(Setting::new("cpu", "cpu.max", value, field));
    }
    if let Some(v) = c.burst() {
        out.push(Setting::new("cpu", "cpu.max.burst", v, "cpu.burst").optional_if(v == 0));
    }
    if let Some(v) = c.cpus().as_deref().filter(|v| !v.is_empty()) {
        out.push(Setting::new("cpuset", "cpuset.cpus", v, "cpu.cpus"));
    }
    if let Some(v) = c.mems().as_deref().filter(|v| !v.is_empty()) {
        out.push(Setting::new("cpuset", "cpuset.mems", v, "cpu.mems"));
    }
    Ok(())
}

/// Shares (2 to 262144, default 1024) to weight (1 to 10000, default 100): the curve through these three points of runc 1.3.2 and crun 1.23
/// (`ConvertCPUSharesToCgroupV2Value` of opencontainers/cgroups). The line that was used before made 39 of the default.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is from 1 to 10000"
)]
fn weight_from_shares(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // A rounding error must not lift a whole number.
    let weight = (10f64.powf(exponent) - 1e-9).ceil();
    (weight as u64).clamp(1, 10_000)
}

fn block_io(cgroup: &Cgroup, r: &LinuxResources, out: &mut Vec<Setting>) -> Result<()> {
    let Some(b) = r.block_io() else { return Ok(()) };
    if b.leaf_weight().is_some_and(|w| w != 0) {
        return Err(Error::Unavailable {
            field: "linux.resources.blockIO.leafWeight".into(),
            reason: "exists on cgroup v1 only".into(),
        });
    }
    let bfq = cgroup
        .controller_dir("io")
        .is_some_and(|d| d.join("io.bfq.weight").exists());
    // BFQ takes OCI's own range (10 to 1000); io.weight has 1 to 10000 with the same default of 100 at OCI's 500.
    let file = if bfq { "io.bfq.weight" } else { "io.weight" };
    let scale = |w: u16| {
        if bfq {
            u64::from(w)
        } else {
            1 + (u64::from(w.max(10)) - 10) * 9999 / 990
        }
    };
    if let Some(w) = b.weight().filter(|w| *w != 0) {
        out.push(Setting::new("io", file, scale(w), "blockIO.weight"));
    }
    for (i, d) in b.weight_device().iter().flatten().enumerate() {
        if let Some(w) = d.weight() {
            out.push(Setting::new(
                "io",
                file,
                format!("{}:{} {}", d.major(), d.minor(), scale(w)),
                &format!("blockIO.weightDevice[{i}].weight"),
            ));
        }
    }
    for (list, key, field) in [
        (
            b.throttle_read_bps_device(),
            "rbps",
            "throttleReadBpsDevice",
        ),
        (
            b.throttle_write_bps_device(),
            "wbps",
            "throttleWriteBpsDevice",
        ),
        (
            b.throttle_read_iops_device(),
            "riops",
            "throttleReadIOPSDevice",
        ),
        (
            b.throttle_write_iops_device(),
            "wiops",
            "throttleWriteIOPSDevice",
        ),
    ] {
        for (i, d) in list.iter().flatten().enumerate() {
            let rate = if d.rate() == 0 {
                "max".to_owned()
            } else {
                d.rate().to_string()
            };
            out.push(Setting::new(
                "io",
                "io.max",
                format!("{}:{} {key}={rate}", d.major(), d.minor()),
                &format!("blockIO.{field}[{i}]"),
            ));
        }
    }
    Ok(())
}

/// Hands every controller down to the container's group, level by level.
pub(super) fn enable_controllers(mount: &Path, path: &Path) {
    let mut dir = mount.to_owned();
    for part in path {
        let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
        let control = dir.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&control).unwrap_or_default();
        let missing: Vec<&str> = available
            .split_whitespace()
            .filter(|c| !enabled.split_whitespace().any(|e| e == *c))
            .collect();
        if !missing.is_empty() {
            let all = missing
                .iter()
                .map(|c| format!("+{c}"))
                .collect::<Vec<_>>()
                .join(" ");
            if fs::write(&control, &all).is_err() {
                // One that cannot be handed down (cpu beside real-time tasks, say) must not hold back the others. What a
                // spec then needs and lacks is reported when its file is written.
                for c in missing {
                    fs::write(&control, format!("+{c}")).ok();
                }
            }
        }
        dir.push(part);
    }
}

/// `cgroup.freeze`, waiting for `frozen` in `cgroup.events`.
pub(super) fn set_frozen(dir: &Path, frozen: bool) -> Result<()> {
    let file = dir.join("cgroup.freeze");
    fs::write(&file, if frozen { "1" } else { "0" }).map_err(io_error("write", &file))?;
    let events = dir.join("cgroup.events");
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut pause = Duration::from_micros(200);
    loop {
        let is = stats::flat_keyed(&events)
            .into_iter()
            .any(|(k, v)| k == "frozen" && v == 1);
        if is == frozen {
            return Ok(());
        }
        if Instant::now() >= deadline {
            fs::write(&file, "0").ok();
            return Err(io_error("freeze", &events)(
                std::io::ErrorKind::TimedOut.into(),
            ));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_map_to_the_whole_weight_range() {
        assert_eq!(weight_from_shares(2), 1);
        assert_eq!(weight_from_shares(1024), 100);
        // Kubernetes' requests of 10, 100 and 500 thousandths of a processor, and of 2.
        assert_eq!(
            [10, 102, 512, 2048].map(weight_from_shares),
            [4, 17, 59, 174]
        );
        assert_eq!(weight_from_shares(262_144), 10_000);
        assert_eq!(weight_from_shares(u64::MAX), 10_000);
    }
}
