//! A process under a profile: a container's init, or an exec.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    Capabilities, IOPriorityClass, LinuxSchedulerPolicy, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process,
};

use super::Given;
use super::profile::{Limit, Profile, capability};
use super::refusal::Refusal;

/// Puts the profile's floor under a process.
pub(super) fn judge(
    profile: &Profile,
    given: &Given,
    p: &mut Process,
    report: &mut Vec<String>,
) -> Result<(), Refusal> {
    scheduling(profile, p)?;
    if profile.process.no_new_privileges && p.no_new_privileges() != Some(true) {
        p.set_no_new_privileges(Some(true));
        report.push("process.noNewPrivileges: true".into());
    }
    if let Some(allowed) = &profile.process.capabilities {
        let taken = ceiling(p, &allowed.iter().cloned().collect());
        if taken > 0 {
            report.push(format!(
                "process.capabilities: {taken} above the ceiling taken away"
            ));
        }
    }
    of_scheduler(p, report);
    // kubelet gives this much to what it cannot do without; below it nothing is ever killed.
    if p.oom_score_adj().is_some_and(|score| score < -998) {
        p.set_oom_score_adj(Some(-998));
        report.push("process.oomScoreAdj: -998".into());
    }
    for (typ, limit, own, name) in [
        (
            PosixRlimitType::RlimitNofile,
            profile.limits.open_files,
            given.open_files,
            "RLIMIT_NOFILE",
        ),
        (
            PosixRlimitType::RlimitCore,
            profile.limits.core_size,
            given.core_size,
            "RLIMIT_CORE",
        ),
    ] {
        let mut all = p.rlimits().clone().unwrap_or_default();
        let present = all.iter().position(|r| r.typ() == typ);
        let asked = present
            .and_then(|i| all.get(i))
            .map(|r| (r.soft(), r.hard()));
        // Of two limits of one kind the later one would hold.
        let more = all.iter().filter(|r| r.typ() == typ).count() > 1;
        // Exactly 1 is what keeps the kernel from starting a dump's program, `core(5)`; 0 does not.
        let no_dumps = typ == PosixRlimitType::RlimitCore && limit.max == Some(1) && own > 0;
        let wanted = if no_dumps {
            Some((1, 1)).filter(|w| asked != Some(*w))
        } else {
            rlimit(asked, limit, own)
        };
        let Some((soft, hard)) = wanted.or(asked.filter(|_| more)) else {
            continue;
        };
        let built = PosixRlimitBuilder::default()
            .typ(typ)
            .soft(soft)
            .hard(hard)
            .build();
        let Ok(new) = built else { continue };
        all.retain(|r| r.typ() != typ);
        all.push(new);
        report.push(format!("process.rlimits: {name} {soft} {hard}"));
        p.set_rlimits(Some(all));
    }
    Ok(())
}

/// What a process may take from the scheduler by itself: nothing before others.
fn of_scheduler(p: &mut Process, report: &mut Vec<String>) {
    let Some(mut all) = p.rlimits().clone() else {
        return;
    };
    let before = all.len();
    let gives = |r: &PosixRlimit| match r.typ() {
        PosixRlimitType::RlimitRtprio => r.hard() > 0,
        // 20 is a nice value of 0: getrlimit(2).
        PosixRlimitType::RlimitNice => r.hard() > 20,
        _ => false,
    };
    all.retain(|r| !gives(r));
    if all.len() < before {
        report.push("process.rlimits: without real-time and better nice values".into());
        p.set_rlimits(Some(all));
    }
}

/// A process that the node's scheduler serves before all others is a node's, not a container's.
fn scheduling(profile: &Profile, p: &Process) -> Result<(), Refusal> {
    use LinuxSchedulerPolicy as Policy;
    if p.io_priority()
        .is_some_and(|io| io.class() == IOPriorityClass::IoprioClassRt)
    {
        return Err(Refusal::new(
            profile,
            "real-time input and output (process.ioPriority)",
            "use IOPRIO_CLASS_BE",
        ));
    }
    if p.scheduler()
        .as_ref()
        .is_some_and(|s| s.nice().is_some_and(|n| n < 0))
    {
        return Err(Refusal::new(
            profile,
            "a better place than others (process.scheduler.nice below 0)",
            "leave it out",
        ));
    }
    let policy = p.scheduler().as_ref().map(|s| *s.policy());
    if let Some(Policy::SchedFifo | Policy::SchedRr | Policy::SchedDeadline) = policy {
        return Err(Refusal::new(
            profile,
            "a real-time scheduler (process.scheduler)",
            "use SCHED_OTHER",
        ));
    }
    Ok(())
}

/// Takes away what is above the ceiling; how many it was.
pub(super) fn ceiling(process: &mut Process, allowed: &BTreeSet<String>) -> usize {
    let Some(mut caps) = process.capabilities().clone() else {
        return 0;
    };
    let allowed: Capabilities = allowed.iter().filter_map(|n| capability(n)).collect();
    let mut taken: Capabilities = Capabilities::default();
    let mut cut = |set: &Option<Capabilities>| {
        set.as_ref().map(|set| {
            taken.extend(set.difference(&allowed).copied());
            set.intersection(&allowed)
                .copied()
                .collect::<Capabilities>()
        })
    };
    let (bounding, effective) = (cut(caps.bounding()), cut(caps.effective()));
    let (permitted, inheritable) = (cut(caps.permitted()), cut(caps.inheritable()));
    let ambient = cut(caps.ambient());
    caps.set_bounding(bounding);
    caps.set_effective(effective);
    caps.set_permitted(permitted);
    caps.set_inheritable(inheritable);
    caps.set_ambient(ambient);
    process.set_capabilities(Some(caps));
    taken.len()
}

/// Soft and hard limit, where they differ from what is asked for.
fn rlimit(asked: Option<(u64, u64)>, limit: Limit, own: u64) -> Option<(u64, u64)> {
    if limit == Limit::default() {
        return None;
    }
    let max = limit.max.unwrap_or(u64::MAX);
    let wanted = if let Some((soft, hard)) = asked {
        (soft.min(max), hard.min(max))
    } else {
        // Nobody asked: never more than the runtime has.
        let hard = max.min(own);
        (limit.default.unwrap_or(hard).min(hard), hard)
    };
    (asked != Some(wanted)).then_some(wanted)
}
