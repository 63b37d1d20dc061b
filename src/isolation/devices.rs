//! Device nodes and the rules for their use.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use super::profile::{Profile, device};
use super::refusal::Refusal;
use crate::oci::{Device, DeviceKind, is_default, is_usable};

/// What a profile allows beyond what every container has; none where it restricts nothing.
fn allowed(profile: &Profile) -> Option<Vec<(DeviceKind, u32, u32)>> {
    let list = profile.pod.devices.as_ref()?;
    Some(list.iter().filter_map(|d| device(d)).collect())
}

/// Judges the nodes. Terminals are no nodes, though rules may open them: those of `/dev/pts` are the container's, and those of a number
/// the node's.
pub(super) fn judge(profile: &Profile, devices: &[Device]) -> Result<(), Refusal> {
    let Some(allowed) = allowed(profile) else {
        return Ok(());
    };
    let beyond = |d: &&Device| {
        d.kind != DeviceKind::Fifo
            && !is_default(d.kind, d.major, d.minor)
            && !allowed.contains(&(d.kind, d.major, d.minor))
    };
    match devices.iter().find(beyond) {
        None => Ok(()),
        Some(d) => Err(Refusal::new(
            profile,
            format!(
                "the device {} ({} {}:{})",
                d.path.display(),
                d.kind.letter(),
                d.major,
                d.minor
            ),
            "remove privileged: true or the device from the pod",
        )
        .by("pod.devices")),
    }
}

/// What a rule opens.
enum Opens {
    /// Nothing that the profile does not allow.
    Nothing,
    /// The node's console, which containerd lists for every container. No profile wants it, and nothing needs it.
    Console,
    /// More.
    More,
}

fn opens(rule: &LinuxDeviceCgroup, allowed: &[(DeviceKind, u32, u32)]) -> Opens {
    let access = rule.access().as_deref().filter(|a| !a.is_empty());
    // Making nodes alone opens nothing.
    if !rule.allow() || !access.unwrap_or("rwm").contains(['r', 'w']) {
        return Opens::Nothing;
    }
    let number = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
    let kind = match rule.typ() {
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => DeviceKind::Char,
        Some(LinuxDeviceType::B) => DeviceKind::Block,
        _ => return Opens::More,
    };
    match (kind, number(rule.major()), number(rule.minor())) {
        (DeviceKind::Char, Some(5), Some(1)) => Opens::Console,
        // Pseudo-terminals are the container's own.
        (DeviceKind::Char, Some(136), _) => Opens::Nothing,
        (kind, Some(major), Some(minor))
            if is_usable(kind, major, minor) || allowed.contains(&(kind, major, minor)) =>
        {
            Opens::Nothing
        }
        _ => Opens::More,
    }
}

/// Judges the rules, at Create and in an update.
pub(super) fn judge_rules(
    profile: &Profile,
    resources: &mut LinuxResources,
    report: &mut Vec<String>,
) -> Result<(), Refusal> {
    let (Some(allowed), Some(rules)) = (allowed(profile), resources.devices().clone()) else {
        return Ok(());
    };
    let mut kept = Vec::with_capacity(rules.len());
    let all = rules.len();
    for rule in rules {
        match opens(&rule, &allowed) {
            Opens::Nothing => kept.push(rule),
            Opens::Console => {}
            Opens::More => {
                let number = |n: Option<i64>| n.map_or("*".into(), |n| n.to_string());
                return Err(Refusal::new(
                    profile,
                    format!(
                        "access to devices ({} {}:{})",
                        rule.typ().unwrap_or(LinuxDeviceType::A).as_str(),
                        number(rule.major()),
                        number(rule.minor())
                    ),
                    "remove privileged: true from the pod",
                )
                .by("pod.devices"));
            }
        }
    }
    if kept.len() < all {
        report.push("linux.resources.devices: without the node's console".into());
        resources.set_devices(Some(kept));
    }
    Ok(())
}
