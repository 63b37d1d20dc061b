//! cgroup v1: OCI resources to control files, `Documentation/admin-guide/cgroup-v1/`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;

use super::error::io_error;
use super::settings::{Setting, check_kernel_memory};
use super::{Cgroup, Error, Result};

pub(super) fn settings(cgroup: &Cgroup, r: &LinuxResources, out: &mut Vec<Setting>) -> Result<()> {
    if let Some(unified) = r.unified().as_ref().filter(|u| !u.is_empty()) {
        let key = unified.keys().min().map_or("", String::as_str);
        return Err(Error::Unavailable {
            field: format!("linux.resources.unified[{key:?}]"),
            reason:
                "invalid configuration: this node runs cgroup v1; unified resources need cgroup v2"
                    .into(),
        });
    }
    memory(cgroup, r, out)?;
    cpu(r, out);
    super::settings::pids(r, out);
    block_io(cgroup, r, out);
    for (i, h) in r.hugepage_limits().iter().flatten().enumerate() {
        let v2 = cgroup.layout().find("hugetlb").is_some_and(|h| h.v2);
        let (size, field) = (h.page_size(), format!("hugepageLimits[{i}].limit"));
        if v2 {
            super::v2::hugetlb(h, &field, out);
        } else {
            out.push(Setting::new(
                "hugetlb",
                format!("hugetlb.{size}.limit_in_bytes"),
                h.limit(),
                &field,
            ));
            out.push(
                Setting::new(
                    "hugetlb",
                    format!("hugetlb.{size}.rsvd.limit_in_bytes"),
                    h.limit(),
                    &field,
                )
                .optional(),
            );
        }
    }
    if let Some(n) = r.network() {
        if let Some(id) = n.class_id().filter(|id| *id != 0) {
            out.push(Setting::new(
                "net_cls",
                "net_cls.classid",
                id,
                "network.classID",
            ));
        }
        for (i, p) in n.priorities().iter().flatten().enumerate() {
            let value = format!("{} {}", p.name(), p.priority());
            out.push(Setting::new(
                "net_prio",
                "net_prio.ifpriomap",
                value,
                &format!("network.priorities[{i}]"),
            ));
        }
    }
    super::v2::rdma(r, out);
    Ok(())
}

fn memory(cgroup: &Cgroup, r: &LinuxResources, out: &mut Vec<Setting>) -> Result<()> {
    let Some(m) = r.memory() else { return Ok(()) };
    check_kernel_memory(m)?;
    let limit = m.limit().filter(|l| *l != 0);
    // Unlimited memory with a limited sum of memory and swap makes no sense: lift both, as the kernel would demand.
    let swap = m
        .swap()
        .filter(|s| *s != 0)
        .or_else(|| limit.filter(|l| *l == -1));
    let current = |file: &str| -> Option<i64> {
        fs::read_to_string(cgroup.controller_dir("memory")?.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    if m.check_before_update() == Some(true)
        && let (Some(limit), Some(usage)) = (limit, current("memory.usage_in_bytes"))
        && limit > 0
        && limit < usage
    {
        return Err(Error::Unavailable {
            field: format!("linux.resources.memory.limit: {limit}"),
            reason: format!(
                "the container uses {usage} bytes already, and checkBeforeUpdate is set"
            ),
        });
    }
    let set_limit =
        limit.map(|l| Setting::new("memory", "memory.limit_in_bytes", l, "memory.limit"));
    let set_swap = swap.map(|s| {
        let s = Setting::new("memory", "memory.memsw.limit_in_bytes", s, "memory.swap");
        // Implied by an unlimited memory only, not asked for.
        if m.swap().is_none() { s.optional() } else { s }
    });
    // The kernel wants limit <= memsw at every moment: widen the outer one first, narrow the inner one first.
    let widen = match (swap, current("memory.memsw.limit_in_bytes")) {
        (Some(-1), _) => true,
        (Some(new), Some(old)) => new > old,
        _ => false,
    };
    if widen {
        out.extend(set_swap.into_iter().chain(set_limit));
    } else {
        out.extend(set_limit.into_iter().chain(set_swap));
    }
    if let Some(v) = m.reservation().filter(|v| *v != 0) {
        out.push(Setting::new(
            "memory",
            "memory.soft_limit_in_bytes",
            v,
            "memory.reservation",
        ));
    }
    if let Some(v) = m.kernel_tcp().filter(|v| *v != 0) {
        out.push(Setting::new(
            "memory",
            "memory.kmem.tcp.limit_in_bytes",
            v,
            "memory.kernelTCP",
        ));
    }
    if let Some(v) = m.swappiness() {
        out.push(Setting::new(
            "memory",
            "memory.swappiness",
            v,
            "memory.swappiness",
        ));
    }
    if m.disable_oom_killer() == Some(true) {
        out.push(Setting::new(
            "memory",
            "memory.oom_control",
            1,
            "memory.disableOOMKiller",
        ));
    }
    Ok(())
}

fn cpu(r: &LinuxResources, out: &mut Vec<Setting>) {
    let Some(c) = r.cpu() else { return };
    let shares = c.shares().filter(|v| *v != 0);
    let shares = shares.map(|v| Setting::new("cpu", "cpu.shares", v, "cpu.shares"));
    super::settings::shares_and_idle(shares, c.idle(), out);
    if let Some(v) = c.realtime_period().filter(|v| *v != 0) {
        let setting = Setting::new("cpu", "cpu.rt_period_us", v, "cpu.realtimePeriod");
        out.push(setting.retried_after_next());
    }
    if let Some(v) = c.realtime_runtime().filter(|v| *v != 0) {
        out.push(Setting::new(
            "cpu",
            "cpu.rt_runtime_us",
            v,
            "cpu.realtimeRuntime",
        ));
    }
    if let Some(v) = c.period().filter(|v| *v != 0) {
        // A shorter period makes more of the quota that is there, which the group above may not allow.
        let setting = Setting::new("cpu", "cpu.cfs_period_us", v, "cpu.period");
        out.push(setting.retried_after_next());
    }
    if let Some(v) = c.quota().filter(|v| *v != 0) {
        out.push(Setting::new("cpu", "cpu.cfs_quota_us", v, "cpu.quota"));
    }
    if let Some(v) = c.burst() {
        out.push(Setting::new("cpu", "cpu.cfs_burst_us", v, "cpu.burst").optional_if(v == 0));
    }
    if let Some(v) = c.cpus().as_deref().filter(|v| !v.is_empty()) {
        out.push(Setting::new("cpuset", "cpuset.cpus", v, "cpu.cpus"));
    }
    if let Some(v) = c.mems().as_deref().filter(|v| !v.is_empty()) {
        out.push(Setting::new("cpuset", "cpuset.mems", v, "cpu.mems"));
    }
}

fn block_io(cgroup: &Cgroup, r: &LinuxResources, out: &mut Vec<Setting>) {
    let Some(b) = r.block_io() else { return };
    let dir = cgroup.controller_dir("blkio");
    let has = |file: &str| dir.as_ref().is_some_and(|d| d.join(file).exists());
    let weight_file = if has("blkio.weight") || !has("blkio.bfq.weight") {
        "blkio.weight"
    } else {
        "blkio.bfq.weight"
    };
    if let Some(w) = b.weight().filter(|w| *w != 0) {
        out.push(Setting::new("blkio", weight_file, w, "blockIO.weight"));
    }
    if let Some(w) = b.leaf_weight().filter(|w| *w != 0) {
        out.push(Setting::new(
            "blkio",
            "blkio.leaf_weight",
            w,
            "blockIO.leafWeight",
        ));
    }
    for (i, d) in b.weight_device().iter().flatten().enumerate() {
        let dev = format!("{}:{}", d.major(), d.minor());
        if let Some(w) = d.weight() {
            out.push(Setting::new(
                "blkio",
                format!("{weight_file}_device"),
                format!("{dev} {w}"),
                &format!("blockIO.weightDevice[{i}].weight"),
            ));
        }
        if let Some(w) = d.leaf_weight() {
            out.push(Setting::new(
                "blkio",
                "blkio.leaf_weight_device",
                format!("{dev} {w}"),
                &format!("blockIO.weightDevice[{i}].leafWeight"),
            ));
        }
    }
    for (list, file, field) in [
        (
            b.throttle_read_bps_device(),
            "blkio.throttle.read_bps_device",
            "throttleReadBpsDevice",
        ),
        (
            b.throttle_write_bps_device(),
            "blkio.throttle.write_bps_device",
            "throttleWriteBpsDevice",
        ),
        (
            b.throttle_read_iops_device(),
            "blkio.throttle.read_iops_device",
            "throttleReadIOPSDevice",
        ),
        (
            b.throttle_write_iops_device(),
            "blkio.throttle.write_iops_device",
            "throttleWriteIOPSDevice",
        ),
    ] {
        for (i, d) in list.iter().flatten().enumerate() {
            let value = format!("{}:{} {}", d.major(), d.minor(), d.rate());
            out.push(Setting::new(
                "blkio",
                file,
                value,
                &format!("blockIO.{field}[{i}]"),
            ));
        }
    }
}

/// A new v1 cpuset is empty and accepts no task: give each level its parent's processors and memory nodes.
pub(super) fn inherit_cpuset(mount: &Path, path: &Path) -> Result<()> {
    let mut dir = mount.to_owned();
    let mut above: Option<std::path::PathBuf> = None;
    for part in std::iter::once(Path::new("")).chain(path.iter().map(Path::new)) {
        if !part.as_os_str().is_empty() {
            dir.push(part);
        }
        if let Some(above) = &above {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let here = dir.join(file);
                if fs::read_to_string(&here)
                    .map_err(io_error("read", &here))?
                    .trim()
                    .is_empty()
                {
                    let value =
                        fs::read_to_string(above.join(file)).map_err(io_error("read", above))?;
                    fs::write(&here, value.trim()).map_err(io_error("write", &here))?;
                }
            }
        }
        above = Some(dir.clone());
    }
    Ok(())
}

/// `freezer.state`; freezing is retried, because a group that forks while it is being frozen may stay FREEZING.
pub(super) fn set_frozen(dir: &Path, frozen: bool) -> Result<()> {
    let file = dir.join("freezer.state");
    let want = if frozen { "FROZEN" } else { "THAWED" };
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut pause = Duration::from_micros(200);
    loop {
        fs::write(&file, want).map_err(io_error("write", &file))?;
        if fs::read_to_string(&file)
            .map_err(io_error("read", &file))?
            .trim()
            == want
        {
            return Ok(());
        }
        if Instant::now() >= deadline {
            fs::write(&file, "THAWED").ok();
            return Err(io_error("freeze", &file)(
                std::io::ErrorKind::TimedOut.into(),
            ));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}
