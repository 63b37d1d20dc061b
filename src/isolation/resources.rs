//! Limits, at Create and in an update of a live container.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxMemory, LinuxPids, LinuxResources};

use super::profile::{Limit, Profile};
use super::refusal::Refusal;

/// A quota's period in microseconds, where nobody says otherwise.
const PERIOD: u64 = 100_000;

/// The value to enforce, or `None` if what is asked for is within the limit. -1 and 0 ask for no limit.
fn limited(asked: Option<i64>, limit: Limit) -> Option<i64> {
    let asked = asked.filter(|a| *a > 0);
    let wanted = match asked {
        Some(a) => limit.max.map_or(a, |max| a.min(max.cast_signed())),
        None => limit.default.or(limit.max)?.cast_signed(),
    };
    (asked != Some(wanted)).then_some(wanted)
}

/// Puts the profile's limits on a new container's resources.
pub(super) fn judge(
    profile: &Profile,
    cgroup_v2: bool,
    r: &mut LinuxResources,
    report: &mut Vec<String>,
) -> Result<(), Refusal> {
    let limits = &profile.limits;
    unshared_resources(profile, r)?;
    if let Some(pids) = limited(r.pids().as_ref().map(LinuxPids::limit), limits.pids) {
        let mut new = LinuxPids::default();
        new.set_limit(pids);
        r.set_pids(Some(new));
        report.push(format!("linux.resources.pids.limit: {pids}"));
    }
    let asked = r.memory().as_ref().and_then(LinuxMemory::limit);
    if let Some(bytes) = limited(asked, limits.memory) {
        let mut memory = r.memory().unwrap_or_default();
        memory.set_limit(Some(bytes));
        // Memory and swap together: no swap.
        memory.set_swap(Some(bytes));
        r.set_memory(Some(memory));
        report.push(format!("linux.resources.memory.limit: {bytes}"));
    }
    swap(limits.swap, r, report);
    cpu(limits.cpu, r, report);
    unified(profile, r, report)?;
    if limits.memory_oom_group && cgroup_v2 {
        let mut all = r.unified().clone().unwrap_or_default();
        all.insert("memory.oom.group".into(), "1".into());
        r.set_unified(Some(all));
    }
    Ok(())
}

/// Puts the profile's ceilings over resources that a live container is to get. What they say nothing of stays as it is.
pub(super) fn judge_update(profile: &Profile, r: &mut LinuxResources) -> Result<(), Refusal> {
    let limits = &profile.limits;
    let over = |limit: Limit| Limit {
        default: None,
        max: limit.max,
    };
    unshared_resources(profile, r)?;
    swap_alone(profile, r)?;
    // Left out, and 0, change nothing; below that is no limit.
    let asked = |value: Option<i64>| value.filter(|v| *v != 0);
    if let Some(value) = asked(r.pids().as_ref().map(LinuxPids::limit))
        && let Some(pids) = limited(Some(value), over(limits.pids))
    {
        let mut new = LinuxPids::default();
        new.set_limit(pids);
        r.set_pids(Some(new));
    }
    let memory = *r.memory();
    if let Some(mut memory) = memory
        && let Some(value) = asked(memory.limit())
        && let Some(bytes) = limited(Some(value), over(limits.memory))
    {
        memory.set_limit(Some(bytes));
        memory.set_swap(Some(bytes));
        r.set_memory(Some(memory));
    }
    let mut ignored = Vec::new();
    swap(over(limits.swap), r, &mut ignored);
    if let Some(c) = r.cpu() {
        if asked(c.quota()).is_some() {
            let mut both = c.clone();
            if limits.cpu.max.is_some() && both.period().is_none_or(|p| p == 0) {
                // The live group's period may be another than the one that the quota is judged with.
                both.set_period(Some(PERIOD));
            }
            r.set_cpu(Some(both));
            cpu(over(limits.cpu), r, &mut ignored);
        } else if limits.cpu.max.is_some() && c.period().is_some() {
            return Err(Refusal::new(
                profile,
                "a period without a quota (linux.resources.cpu.period)",
                "give both",
            )
            .by("limits.cpu"));
        }
    }
    if limits.memory_oom_group
        && let Some(all) = r.unified()
        && all.contains_key("memory.oom.group")
    {
        let mut all = all.clone();
        all.insert("memory.oom.group".into(), "1".into());
        r.set_unified(Some(all));
    }
    unified(profile, r, &mut ignored)
}

/// What no container needs, and takes from others: a processor before all others, and memory that the kernel cannot take back.
fn unshared_resources(profile: &Profile, r: &LinuxResources) -> Result<(), Refusal> {
    let cpu = r.cpu().as_ref();
    // Below 0 is without a limit.
    let is_asked = |v: i64| v != 0;
    if cpu.is_some_and(|c| c.realtime_runtime().is_some_and(is_asked)) {
        return Err(Refusal::new(
            profile,
            "real-time processor time (linux.resources.cpu.realtimeRuntime)",
            "remove it",
        ));
    }
    let memory = r.memory().as_ref();
    if memory.is_some_and(|m| m.disable_oom_killer() == Some(true)) {
        return Err(Refusal::new(
            profile,
            "memory without the OOM killer (linux.resources.memory.disableOOMKiller)",
            "remove it",
        ));
    }
    Ok(())
}

/// A sum of memory and swap says nothing of swap where the memory is not said.
fn swap_alone(profile: &Profile, r: &LinuxResources) -> Result<(), Refusal> {
    let memory = r.memory().as_ref();
    let limits = &profile.limits;
    let has_swap = memory.is_some_and(|m| m.swap().is_some_and(|s| s != 0));
    // Where the profile says how much swap, an update cannot lift the limit that it is counted from.
    let lifted = memory.is_some_and(|m| m.limit().is_some_and(|l| l < 0));
    if lifted && limits.swap.max.is_some() && limits.memory.max.is_none() {
        return Err(Refusal::new(
            profile,
            "memory without a limit, and so swap without one (linux.resources.memory.limit)",
            "give a limit",
        )
        .by("limits.swap"));
    }
    let has_limit = memory.is_some_and(|m| m.limit().is_some_and(|l| l != 0));
    if has_swap && !has_limit && (limits.swap.max.is_some() || limits.memory.max.is_some()) {
        return Err(Refusal::new(
            profile,
            "a limit of swap without one of memory (linux.resources.memory.swap)",
            "give both",
        )
        .by("limits.swap"));
    }
    Ok(())
}

/// Swap, of which OCI has the sum with memory.
fn swap(limit: Limit, r: &mut LinuxResources, report: &mut Vec<String>) {
    let Some(mut memory) = *r.memory() else {
        return;
    };
    let Some(bytes) = memory.limit().filter(|l| *l > 0) else {
        return;
    };
    let asked = memory
        .swap()
        // 0 is not asked for: nothing is written for it.
        .filter(|s| *s != 0)
        .map(|s| if s < 0 { i64::MAX } else { (s - bytes).max(0) });
    let max = limit.max.map_or(i64::MAX, u64::cast_signed);
    let wanted = match (asked, limit.default.or(limit.max)) {
        (Some(asked), _) => asked.min(max),
        (None, Some(default)) => default.cast_signed(),
        (None, None) => return,
    };
    if asked != Some(wanted) {
        memory.set_swap(Some(bytes.saturating_add(wanted)));
        r.set_memory(Some(memory));
        report.push(format!(
            "linux.resources.memory.swap: {wanted} beyond the memory"
        ));
    }
}

/// Thousandths of a processor, as a quota of the period.
fn cpu(limit: Limit, r: &mut LinuxResources, report: &mut Vec<String>) {
    let mut cpu = r.cpu().clone().unwrap_or_default();
    let period = cpu.period().filter(|p| *p > 0).unwrap_or(PERIOD);
    let asked = cpu
        .quota()
        .filter(|q| *q > 0)
        .map(|quota| (i128::from(quota) * 1000 + i128::from(period) - 1) / i128::from(period))
        .map(|millis| i64::try_from(millis).unwrap_or(i64::MAX));
    if let Some(millis) = limited(asked, limit) {
        cpu.set_period(Some(PERIOD));
        cpu.set_quota(Some((millis * PERIOD.cast_signed() / 1000).max(1000)));
        r.set_cpu(Some(cpu));
        report.push(format!(
            "linux.resources.cpu.quota: {millis} thousandths of a processor"
        ));
    }
}

/// Control files of cgroup v2 are written last, over what the typed limits say. Where the profile has a ceiling for what a file
/// limits, the file has it, too; two values for the same are one too many.
fn unified(
    profile: &Profile,
    r: &mut LinuxResources,
    report: &mut Vec<String>,
) -> Result<(), Refusal> {
    let Some(mut all) = r.unified().clone() else {
        return Ok(());
    };
    if let Some(file) = all.keys().filter(|file| !is_limit(file)).min() {
        return Err(Refusal::new(
            profile,
            format!("the control file {file} (linux.resources.unified)"),
            "remove it",
        ));
    }
    let limits = &profile.limits;
    let before = all.clone();
    for (file, limit) in [
        ("pids.max", limits.pids),
        ("memory.max", limits.memory),
        ("memory.swap.max", limits.swap),
    ] {
        let Some(text) = all.get(file) else { continue };
        let asked = match text.trim() {
            "max" => u64::MAX,
            number => number.parse().map_err(|_| unclear(profile, file, text))?,
        };
        if let Some(max) = limit.max.filter(|max| asked > *max) {
            all.insert(file.to_owned(), max.to_string());
        }
    }
    // A typed sum with swap was judged where it has a limit of memory to be counted from.
    let has_swap = all.contains_key("memory.swap.max")
        || r.memory()
            .is_some_and(|m| m.swap().is_some_and(|s| s != 0) && m.limit().is_some_and(|l| l > 0));
    let has_limit = all.get("memory.max").is_some_and(|m| m.trim() != "max");
    // As for a limit of memory that is not in `unified`.
    if let (Some(bytes), true, false) =
        (limits.swap.default.or(limits.swap.max), has_limit, has_swap)
    {
        all.insert("memory.swap.max".into(), bytes.to_string());
    }
    if let (Some(text), Some(max)) = (all.get("cpu.max"), limits.cpu.max) {
        let capped = cpu_max(text, max).ok_or_else(|| unclear(profile, "cpu.max", text))?;
        all.insert("cpu.max".into(), capped);
    }
    if all != before {
        report.push(format!(
            "linux.resources.unified: {}",
            changed(&before, &all)
        ));
        r.set_unified(Some(all));
    }
    Ok(())
}

/// Control files that limit, and do nothing else: others move processors to a group, freeze it, or order its input and output.
fn is_limit(file: &str) -> bool {
    const FILES: [&str; 16] = [
        "cpu.idle",
        "cpu.max",
        "cpu.weight",
        "cpu.weight.nice",
        "cpuset.cpus",
        "cpuset.mems",
        "io.bfq.weight",
        "io.max",
        "io.weight",
        "memory.high",
        "memory.low",
        "memory.max",
        "memory.min",
        "memory.oom.group",
        "memory.swap.high",
        "memory.swap.max",
    ];
    FILES.contains(&file) || file == "pids.max" || file.starts_with("hugetlb.")
}

/// `QUOTA [PERIOD]`, below a ceiling in thousandths of a processor.
fn cpu_max(text: &str, millis: u64) -> Option<String> {
    let mut words = text.split_whitespace();
    let quota = match words.next()? {
        "max" => u64::MAX,
        number => number.parse().ok()?,
    };
    let period: u64 = words.next().map_or(Some(PERIOD), |p| p.parse().ok())?;
    if words.next().is_some() || period == 0 {
        return None;
    }
    let most = period.saturating_mul(millis) / 1000;
    Some(format!("{} {period}", quota.min(most.max(1000))))
}

fn unclear(profile: &Profile, file: &str, text: &str) -> Refusal {
    Refusal::new(
        profile,
        format!(
            "linux.resources.unified[{file:?}] = {text:?} (not a value to compare with the profile's limit)"
        ),
        "write a number",
    )
}

fn changed(before: &HashMap<String, String>, after: &HashMap<String, String>) -> String {
    let mut words: Vec<String> = after
        .iter()
        .filter(|(k, v)| before.get(*k) != Some(v))
        .map(|(k, v)| format!("{k} = {v}"))
        .collect();
    words.sort();
    words.join(", ")
}
