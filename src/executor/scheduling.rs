//! How a process is scheduled and where its memory comes from: OCI config.md "process.ioPriority", "scheduler",
//! "execCPUAffinity"; config-linux.md "personality", "memoryPolicy".

use oci_spec::runtime::{
    IOPriorityClass, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process,
    Spec,
};

use super::script::Step;
use super::{Error, Result};
use crate::sys::process::SchedAttr;

/// The steps for `process.ioPriority` and `process.scheduler`.
pub(super) fn steps(process: &Process, steps: &mut Vec<Step>) -> Result<()> {
    if let Some(io) = process.io_priority() {
        let level = i32::try_from(io.priority()).ok();
        let level = level.filter(|p| (0..=7).contains(p)).ok_or_else(|| {
            Error::field(
                "process.ioPriority.priority",
                format!("{} is not between 0 and 7", io.priority()),
            )
        })?;
        let class = match io.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        // linux/ioprio.h
        steps.push(Step::IoPriority(class << 13 | level));
    }
    let Some(s) = process.scheduler() else {
        return Ok(());
    };
    let policy = match s.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(Error::field(
                "process.scheduler.policy",
                "SCHED_ISO is reserved: no kernel has it",
            ));
        }
    };
    let mut flags = 0;
    for flag in s.flags().iter().flatten() {
        // linux/sched.h
        flags |= match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
            LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
        };
    }
    let priority = s.priority().unwrap_or(0);
    let priority = u32::try_from(priority).map_err(|_| {
        Error::field(
            "process.scheduler.priority",
            format!("{priority} is negative"),
        )
    })?;
    steps.push(Step::Scheduler(SchedAttr {
        policy,
        flags,
        nice: s.nice().unwrap_or(0),
        priority,
        runtime: s.runtime().unwrap_or(0),
        deadline: s.deadline().unwrap_or(0),
        period: s.period().unwrap_or(0),
        ..SchedAttr::default()
    }));
    Ok(())
}

/// A list like `0-3,7` as a bit mask for the kernel.
fn mask(list: &str, field: &str) -> Result<Vec<u64>> {
    let bad = || Error::field(field, format!("{list:?} is not a list like 0-3,7"));
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.trim()
                .parse::<usize>()
                .ok()
                .filter(|n| *n < 8192)
                .ok_or_else(bad)
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(bad());
        }
        for bit in first..=last {
            if mask.len() <= bit / 64 {
                mask.resize(bit / 64 + 1, 0);
            }
            if let Some(word) = mask.get_mut(bit / 64) {
                *word |= 1 << (bit % 64);
            }
        }
    }
    if mask.is_empty() {
        Err(bad())
    } else {
        Ok(mask)
    }
}

/// As many as any kernel is built for.
const PROCESSORS: usize = 8192;

/// All processors of the container's cpuset, whatever the runtime's own affinity is: a process would inherit that.
pub(super) fn whole_affinity() -> Step {
    Step::Affinity(vec![u64::MAX; PROCESSORS / 64])
}

/// The affinity of an exec before and after it enters the container's cgroup.
pub(super) fn exec_affinity(process: &Process) -> Result<(Option<Step>, Step)> {
    let Some(affinity) = process.exec_cpu_affinity() else {
        return Ok((None, whole_affinity()));
    };
    let step = |list: Option<&String>, name: &str| -> Result<Option<Step>> {
        let Some(list) = list.filter(|l| !l.is_empty()) else {
            return Ok(None);
        };
        Ok(Some(Step::Affinity(mask(
            list,
            &format!("process.execCPUAffinity.{name}"),
        )?)))
    };
    Ok((
        step(affinity.initial().as_ref(), "initial")?,
        step(affinity.cpu_affinity_final().as_ref(), "final")?.unwrap_or_else(whole_affinity),
    ))
}

/// The step for `linux.personality`.
pub(super) fn personality_step(p: &LinuxPersonality) -> Result<Step> {
    if p.flags().as_ref().is_some_and(|f| !f.is_empty()) {
        return Err(Error::field(
            "linux.personality.flags",
            "no flag is defined by the specification",
        ));
    }
    Ok(Step::Personality(domain(p)))
}

/// The execution domain that a spec asks for.
pub fn personality(spec: &Spec) -> Option<u64> {
    let linux = spec.linux().as_ref();
    linux.and_then(|l| l.personality().as_ref()).map(domain)
}

/// linux/personality.h
fn domain(p: &LinuxPersonality) -> u64 {
    match p.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }
}

/// The step for `linux.memoryPolicy`, `set_mempolicy(2)`.
pub(super) fn memory_policy(p: &LinuxMemoryPolicy) -> Result<Step> {
    let mode = match p.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let mut flags = 0;
    for flag in p.flags().iter().flatten() {
        flags |= match flag {
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
        };
    }
    let nodes = p.nodes().as_ref().filter(|n| !n.is_empty());
    let nodes = nodes
        .map(|n| mask(n, "linux.memoryPolicy.nodes"))
        .transpose()?
        .unwrap_or_default();
    Ok(Step::MemoryPolicy {
        mode: mode | flags,
        nodes,
    })
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn lists_become_masks() {
        assert_eq!(mask("0-2,5", "f").unwrap(), [0b10_0111]);
        assert_eq!(mask("64", "f").unwrap(), [0, 1]);
        for bad in ["", "x", "3-1", "9999999", "-1"] {
            assert!(
                mask(bad, "f").unwrap_err().to_string().starts_with("f: "),
                "{bad}"
            );
        }
    }
}
