//! A profile's floor on a spec, and on a process of an exec.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capabilities, Capability, Linux, LinuxDeviceCgroup, LinuxDeviceType, LinuxIdMappingBuilder,
    LinuxNamespace, LinuxNamespaceType, LinuxPids, LinuxResources, Mount, PosixRlimitBuilder,
    PosixRlimitType, Process, Spec,
};

use super::pool::RANGE;
use super::profile::{
    ExecPolicy, HostNamespace, Limit, NetworkMode, Profile, UserNamespaceMode, capability,
};

/// What a profile does not allow, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("profile {profile:?} refuses {what}: {remedy}, or use RuntimeClass \"cofferdam\"")]
pub struct Refusal {
    /// The profile's name.
    pub profile: String,
    /// The pod's field, and its value.
    pub what: String,
    /// What to change in the pod.
    pub remedy: String,
}

/// A spec under a profile.
#[derive(Debug, Clone)]
pub struct Applied {
    /// What is enforced.
    pub spec: Spec,
    /// Each change, for people.
    pub report: Vec<String>,
}

/// The process of an exec under a profile.
#[derive(Debug, Clone)]
pub struct AppliedExec {
    /// What is enforced.
    pub process: Process,
    /// Each change, for people.
    pub report: Vec<String>,
}

/// What the runtime has to give. A hard limit beyond its own would need `CAP_SYS_RESOURCE`.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    /// Hard `RLIMIT_NOFILE`.
    pub open_files: u64,
    /// Hard `RLIMIT_CORE`.
    pub core_size: u64,
    /// The first of the 65,536 ids that the pod was given, where the profile gives it some.
    pub users: Option<u32>,
    /// Whether the node's control groups are v2 only.
    pub cgroup_v2: bool,
}

/// Puts the profile's floor under a container's spec.
pub fn apply(profile: &Profile, own: Given, mut spec: Spec) -> Result<Applied, Refusal> {
    let mut report = Vec::new();
    let mut linux = spec.linux().clone().unwrap_or_default();
    host_namespaces(profile, &linux)?;
    own_users(profile, &linux)?;
    devices(profile, &linux)?;
    for (i, mount) in spec.mounts().iter().flatten().enumerate() {
        host_path(profile, i, mount)?;
    }
    if let Some(p) = spec.process().clone() {
        let mut p = p;
        process(profile, own, &mut p, &mut report);
        spec.set_process(Some(p));
    }
    let mounts = spec.mounts().clone().map(|mounts| {
        let one = |(i, mount)| harden_mount(profile, i, mount, &mut report);
        mounts.into_iter().enumerate().map(one).collect()
    });
    spec.set_mounts(mounts);
    if profile.filesystem.read_only_root
        && let Some(root) = spec.root().clone().filter(|r| r.readonly() != Some(true))
    {
        let mut root = root;
        root.set_readonly(Some(true));
        spec.set_root(Some(root));
        report.push("root.readonly: true".into());
    }
    let masked = paths(
        linux.masked_paths().as_ref(),
        &profile.filesystem.masked_paths,
    );
    if let Some((all, added)) = masked {
        linux.set_masked_paths(Some(all));
        report.push(format!("linux.maskedPaths: added {}", added.join(" ")));
    }
    let read_only = paths(
        linux.readonly_paths().as_ref(),
        &profile.filesystem.read_only_paths,
    );
    if let Some((all, added)) = read_only {
        linux.set_readonly_paths(Some(all));
        report.push(format!("linux.readonlyPaths: added {}", added.join(" ")));
    }
    network(profile, &mut linux, &mut report);
    users(profile, own.users, &mut spec, &mut linux, &mut report)?;
    resources(profile, &mut linux, &mut report);
    if profile.limits.memory_oom_group && own.cgroup_v2 {
        oom_group(&mut linux);
    }
    spec.set_linux(Some(linux));
    Ok(Applied { spec, report })
}

/// Puts the profile's floor under an exec.
pub fn apply_to_exec(profile: &Profile, own: Given, exec: Process) -> Result<AppliedExec, Refusal> {
    let (mut exec, mut report) = (exec, Vec::new());
    match profile.exec.policy {
        ExecPolicy::Allow => {}
        ExecPolicy::Deny => {
            return Err(Refusal {
                profile: profile.name.clone(),
                what: "execs (exec.policy = \"deny\")".into(),
                remedy: "use no exec probes and no kubectl exec".into(),
            });
        }
        ExecPolicy::WithoutCapabilities => {
            if ceiling(&mut exec, &BTreeSet::new()) > 0 {
                report.push("process.capabilities: none, in execs".into());
            }
        }
    }
    process(profile, own, &mut exec, &mut report);
    Ok(AppliedExec {
        process: exec,
        report,
    })
}

fn host_namespaces(profile: &Profile, linux: &Linux) -> Result<(), Refusal> {
    let Some(allowed) = &profile.pod.host_namespaces else {
        return Ok(());
    };
    for (typ, host, field) in [
        (
            LinuxNamespaceType::Network,
            HostNamespace::Network,
            "hostNetwork",
        ),
        (LinuxNamespaceType::Pid, HostNamespace::Pid, "hostPID"),
        (LinuxNamespaceType::Ipc, HostNamespace::Ipc, "hostIPC"),
        (
            LinuxNamespaceType::Uts,
            HostNamespace::Uts,
            "the node's host name",
        ),
    ] {
        let own = linux.namespaces().iter().flatten().any(|n| n.typ() == typ);
        // A pod on the node's network has the node's name with it; the network is what it is refused for.
        if !own && !allowed.contains(&host) {
            return Err(Refusal {
                profile: profile.name.clone(),
                what: format!("{field} (linux.namespaces has no {typ} namespace)"),
                remedy: format!("remove {field} from the pod"),
            });
        }
    }
    Ok(())
}

/// A pod that asked for users of its own must have some: not the node's under another number.
fn own_users(profile: &Profile, linux: &Linux) -> Result<(), Refusal> {
    let refuse = |what: String| {
        Err(Refusal {
            profile: profile.name.clone(),
            what,
            remedy: "set hostUsers: false in the pod".into(),
        })
    };
    let mode = profile.user_namespace.mode;
    let mut namespaces = linux.namespaces().iter().flatten();
    let has_own = namespaces.any(|n| n.typ() == LinuxNamespaceType::User);
    if mode == UserNamespaceMode::Pod || (!has_own && mode == UserNamespaceMode::Auto) {
        return Ok(());
    }
    if !has_own {
        return refuse("the node's users (linux.namespaces has no user namespace)".into());
    }
    for (maps, field) in [
        (linux.uid_mappings(), "linux.uidMappings"),
        (linux.gid_mappings(), "linux.gidMappings"),
    ] {
        if let Some(m) = maps.iter().flatten().find(|m| m.host_id() < RANGE) {
            return refuse(format!(
                "the node's own ids ({field} maps {} to {})",
                m.container_id(),
                m.host_id()
            ));
        }
    }
    Ok(())
}

/// Gives the container the pod's users.
fn users(
    profile: &Profile,
    first: Option<u32>,
    spec: &mut Spec,
    linux: &mut Linux,
    report: &mut Vec<String>,
) -> Result<(), Refusal> {
    let Some(first) = first else { return Ok(()) };
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    let find = |typ| namespaces.iter().find(|n| n.typ() == typ);
    for (typ, field) in [
        (LinuxNamespaceType::Pid, "hostPID"),
        (LinuxNamespaceType::Ipc, "hostIPC"),
    ] {
        if find(typ).is_none() {
            return Err(Refusal {
                profile: profile.name.clone(),
                what: format!("{field} (user_namespace.mode = \"auto\")"),
                remedy: format!("remove {field} from the pod"),
            });
        }
    }
    let network = find(LinuxNamespaceType::Network).and_then(|n| n.path().clone());
    let mut own = LinuxNamespace::default();
    own.set_typ(LinuxNamespaceType::User);
    namespaces.push(own);
    linux.set_namespaces(Some(namespaces));
    let map = LinuxIdMappingBuilder::default()
        .container_id(0u32)
        .host_id(first)
        .size(RANGE)
        .build()
        .map_err(|e| Refusal {
            profile: profile.name.clone(),
            what: format!("the ids from {first} on ({e})"),
            remedy: "mend user_namespace.pool".into(),
        })?;
    linux.set_uid_mappings(Some(vec![map]));
    linux.set_gid_mappings(Some(vec![map]));
    report.push(format!(
        "linux.uidMappings, gidMappings: 0 is {first} on the node"
    ));
    let mut parameters = linux.sysctl().clone().unwrap_or_default();
    let mut add = |name: &str, value: &str| {
        if !parameters.contains_key(name) {
            parameters.insert(name.into(), value.into());
            report.push(format!("linux.sysctl: {name} = {value}"));
        }
    };
    add("user.max_user_namespaces", "0");
    // The pod's network is the node's to give: CAP_NET_BIND_SERVICE of the container's root does not count in it.
    let binds = spec
        .process()
        .as_ref()
        .and_then(|p| p.capabilities().as_ref());
    let binds = binds.and_then(|c| c.bounding().as_ref());
    if network.is_some() && binds.is_some_and(|b| b.contains(&Capability::NetBindService)) {
        add("net.ipv4.ip_unprivileged_port_start", "0");
    }
    linux.set_sysctl(Some(parameters));
    Ok(())
}

fn network(profile: &Profile, linux: &mut Linux, report: &mut Vec<String>) {
    if profile.network.mode != NetworkMode::None {
        return;
    }
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    let joined = namespaces
        .iter_mut()
        .find(|n| n.typ() == LinuxNamespaceType::Network && n.path().is_some());
    if let Some(network) = joined {
        network.set_path(None);
        linux.set_namespaces(Some(namespaces));
        report.push("linux.namespaces: an empty network".into());
    }
}

/// `c MAJOR:MINOR` or `b MAJOR:MINOR`.
pub(super) fn device(text: &str) -> Option<(LinuxDeviceType, i64, i64)> {
    let (kind, numbers) = text.split_once(' ')?;
    let (major, minor) = numbers.split_once(':')?;
    let kind = match kind {
        "c" => LinuxDeviceType::C,
        "b" => LinuxDeviceType::B,
        _ => return None,
    };
    let number = |s: &str| s.parse::<u32>().ok().map(i64::from);
    Some((kind, number(major)?, number(minor)?))
}

/// What every container may use: OCI config-linux.md "Default Devices", and terminals.
const DEFAULT_DEVICES: [(i64, i64); 8] = [
    (1, 3),
    (1, 5),
    (1, 7),
    (1, 8),
    (1, 9),
    (5, 0),
    (5, 1),
    (5, 2),
];

fn devices(profile: &Profile, linux: &Linux) -> Result<(), Refusal> {
    let Some(allowed) = &profile.pod.devices else {
        return Ok(());
    };
    let allowed: Vec<_> = allowed.iter().filter_map(|d| device(d)).collect();
    let refuse = |what: String, remedy: &str| {
        Err(Refusal {
            profile: profile.name.clone(),
            what,
            remedy: remedy.into(),
        })
    };
    for d in linux.devices().iter().flatten() {
        let default =
            d.typ() == LinuxDeviceType::C && DEFAULT_DEVICES.contains(&(d.major(), d.minor()));
        let is_fifo = d.typ() == LinuxDeviceType::P;
        if !default && !is_fifo && !allowed.contains(&(d.typ(), d.major(), d.minor())) {
            let node = format!("{} {}:{}", d.typ().as_str(), d.major(), d.minor());
            return refuse(
                format!("the device {} ({node})", d.path().display()),
                "remove privileged: true or the device from the pod, or add it to pod.devices of the profile",
            );
        }
    }
    let rules = linux
        .resources()
        .as_ref()
        .and_then(|r| r.devices().as_ref());
    if let Some(rule) = rules.into_iter().flatten().find(|r| opens_all(r, &allowed)) {
        return refuse(
            format!(
                "access to devices ({} {}:{})",
                rule.typ().unwrap_or(LinuxDeviceType::A).as_str(),
                rule.major().map_or("*".into(), |m| m.to_string()),
                rule.minor().map_or("*".into(), |m| m.to_string())
            ),
            "remove privileged: true from the pod",
        );
    }
    Ok(())
}

/// Whether a rule lets devices be used that the profile does not list. Making nodes alone opens nothing.
fn opens_all(rule: &LinuxDeviceCgroup, allowed: &[(LinuxDeviceType, i64, i64)]) -> bool {
    let access = rule.access().as_deref().unwrap_or("rwm");
    if !rule.allow() || !access.contains(['r', 'w']) {
        return false;
    }
    let (Some(typ), Some(major)) = (rule.typ(), rule.major().filter(|m| *m >= 0)) else {
        return true;
    };
    let minor = rule.minor().filter(|m| *m >= 0);
    // Pseudo-terminals are the container's own.
    if typ == LinuxDeviceType::C && major == 136 {
        return false;
    }
    let Some(minor) = minor else { return true };
    !(typ == LinuxDeviceType::C && DEFAULT_DEVICES.contains(&(major, minor))
        || allowed.contains(&(typ, major, minor)))
}

fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind")
        || mount
            .options()
            .iter()
            .flatten()
            .any(|o| o == "bind" || o == "rbind")
}

/// The path without `.`, `..` and doubled slashes, as text: whoever asks minds no links.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => out.push(name),
            std::path::Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

/// What CRI gives to every container from its own directory of the pod.
const OF_CRI: [&str; 4] = [
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/dev/shm",
];

fn is_of_cri(source: &Path, mount: &Mount) -> bool {
    let destination = clean(mount.destination());
    let name = |path: &Path| path.file_name().map(ToOwned::to_owned);
    OF_CRI.iter().any(|d| destination == Path::new(d))
        && name(source) == name(&destination)
        && source
            .components()
            .any(|c| c.as_os_str() == "io.containerd.grpc.v1.cri")
}

fn host_path(profile: &Profile, i: usize, mount: &Mount) -> Result<(), Refusal> {
    let Some(source) = mount.source().as_deref().filter(|_| is_bind(mount)) else {
        return Ok(());
    };
    let source = clean(source);
    let refuse = |shows: String, remedy: &str| {
        Err(Refusal {
            profile: profile.name.clone(),
            what: format!(
                "the hostPath volume {} at {} (mounts[{i}]; {shows})",
                source.display(),
                mount.destination().display(),
            ),
            remedy: remedy.into(),
        })
    };
    let forbidden = &profile.pod.forbidden_host_paths;
    if let Some(path) = forbidden
        .iter()
        .find(|f| source.starts_with(f) || f.starts_with(&source))
    {
        return refuse(
            format!("it shows {}", path.display()),
            "remove the volume from the pod",
        );
    }
    if let Some(allowed) = &profile.pod.host_paths
        && !allowed.iter().any(|a| source.starts_with(a))
        && !is_of_cri(&source, mount)
    {
        return refuse(
            "it is not below one of pod.host_paths".into(),
            "remove the volume from the pod, add its path to pod.host_paths of the profile",
        );
    }
    Ok(())
}

fn harden_mount(profile: &Profile, i: usize, mut mount: Mount, report: &mut Vec<String>) -> Mount {
    let mut options = mount.options().clone().unwrap_or_default();
    let before = options.len();
    let kind = mount.typ().clone().unwrap_or_default();
    let bind = is_bind(&mount);
    let has = |options: &[String], word: &str| options.iter().any(|o| o == word);
    // The container's /dev has nodes.
    let is_dev = clean(mount.destination()) == Path::new("/dev");
    if profile.filesystem.no_exec_mounts
        && (bind || matches!(kind.as_str(), "tmpfs" | "ramfs"))
        && !has(&options, "ro")
    {
        for (word, opposite) in [("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")] {
            if word == "nodev" && is_dev && !bind {
                continue;
            }
            options.retain(|o| o != opposite);
            if !has(&options, word) {
                options.push(word.into());
            }
        }
    }
    if profile.filesystem.hide_processes && kind == "proc" && !bind {
        options.retain(|o| !o.starts_with("hidepid"));
        options.push("hidepid=invisible".into());
    }
    if profile.filesystem.only_processes && kind == "proc" && !bind {
        options.retain(|o| !o.starts_with("subset"));
        options.push("subset=pid".into());
    }
    // A control group or a sysfs that can be written is a way out: CVE-2022-0492.
    if profile.pod.host_namespaces.is_some()
        && matches!(kind.as_str(), "cgroup" | "cgroup2" | "sysfs")
        && !has(&options, "ro")
    {
        options.retain(|o| o != "rw");
        options.push("ro".into());
    }
    if options.len() != before || Some(&options) != mount.options().as_ref() {
        report.push(format!(
            "mounts[{i}] ({}): {}",
            mount.destination().display(),
            options.join(",")
        ));
        mount.set_options(Some(options));
    }
    mount
}

/// Takes away what is above the ceiling; how many it was.
fn ceiling(process: &mut Process, allowed: &BTreeSet<String>) -> usize {
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

fn process(profile: &Profile, own: Given, p: &mut Process, report: &mut Vec<String>) {
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
    for (typ, limit, own, name) in [
        (
            PosixRlimitType::RlimitNofile,
            profile.limits.open_files,
            own.open_files,
            "RLIMIT_NOFILE",
        ),
        (
            PosixRlimitType::RlimitCore,
            profile.limits.core_size,
            own.core_size,
            "RLIMIT_CORE",
        ),
    ] {
        let mut all = p.rlimits().clone().unwrap_or_default();
        let present = all.iter().position(|r| r.typ() == typ);
        let asked = present
            .and_then(|i| all.get(i))
            .map(|r| (r.soft(), r.hard()));
        let Some((soft, hard)) = rlimit(asked, limit, own) else {
            continue;
        };
        let built = PosixRlimitBuilder::default()
            .typ(typ)
            .soft(soft)
            .hard(hard)
            .build();
        let Ok(new) = built else { continue };
        match present.and_then(|i| all.get_mut(i)) {
            Some(old) => *old = new,
            None => all.push(new),
        }
        report.push(format!("process.rlimits: {name} {soft} {hard}"));
        p.set_rlimits(Some(all));
    }
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

/// The value under a limit, and whether it differs from what is asked for. -1 and 0 ask for no limit.
fn limited(asked: Option<i64>, limit: Limit) -> Option<i64> {
    let asked = asked.filter(|a| *a > 0);
    let wanted = match asked {
        Some(a) => limit.max.map_or(a, |max| a.min(max as i64)),
        None => limit.default.or(limit.max)? as i64,
    };
    (asked != Some(wanted)).then_some(wanted)
}

fn resources(profile: &Profile, linux: &mut Linux, report: &mut Vec<String>) {
    let limits = &profile.limits;
    let mut r: LinuxResources = linux.resources().clone().unwrap_or_default();
    let before = report.len();
    if let Some(pids) = limited(r.pids().as_ref().map(LinuxPids::limit), limits.pids) {
        let mut new = LinuxPids::default();
        new.set_limit(pids);
        r.set_pids(Some(new));
        report.push(format!("linux.resources.pids.limit: {pids}"));
    }
    let asked = r
        .memory()
        .as_ref()
        .and_then(oci_spec::runtime::LinuxMemory::limit);
    if let Some(bytes) = limited(asked, limits.memory) {
        let mut memory = r.memory().unwrap_or_default();
        memory.set_limit(Some(bytes));
        // Memory and swap together: no swap.
        memory.set_swap(Some(bytes));
        r.set_memory(Some(memory));
        report.push(format!("linux.resources.memory.limit: {bytes}"));
    }
    swap(limits.swap, &mut r, report);
    cpu(limits.millicpus, &mut r, report);
    if report.len() > before {
        linux.set_resources(Some(r));
    }
}

/// Puts the profile's ceilings over resources that a live container is to get. What they say nothing of stays as it is.
pub fn apply_to_update(profile: &Profile, resources: LinuxResources) -> LinuxResources {
    let limits = &profile.limits;
    let over = |limit: Limit| Limit {
        default: None,
        max: limit.max,
    };
    let mut r = resources;
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
    swap(over(limits.swap), &mut r, &mut ignored);
    if r.cpu().as_ref().is_some_and(|c| asked(c.quota()).is_some()) {
        cpu(over(limits.millicpus), &mut r, &mut ignored);
    }
    r
}

/// `memory.oom.group`, unless the spec says something of it.
fn oom_group(linux: &mut Linux) {
    let mut resources = linux.resources().clone().unwrap_or_default();
    let mut unified = resources.unified().clone().unwrap_or_default();
    unified
        .entry("memory.oom.group".into())
        .or_insert_with(|| "1".into());
    resources.set_unified(Some(unified));
    linux.set_resources(Some(resources));
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
        .map(|s| if s < 0 { i64::MAX } else { (s - bytes).max(0) });
    let max = limit.max.map_or(i64::MAX, |max| max as i64);
    let wanted = match (asked, limit.default.or(limit.max)) {
        (Some(asked), _) => asked.min(max),
        (None, Some(default)) => default as i64,
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
    const PERIOD: u64 = 100_000;
    let mut cpu = r.cpu().clone().unwrap_or_default();
    let period = cpu.period().filter(|p| *p > 0).unwrap_or(PERIOD);
    let asked = cpu
        .quota()
        .filter(|q| *q > 0)
        .map(|quota| quota.saturating_mul(1000) / period as i64);
    if let Some(millis) = limited(asked, limit) {
        cpu.set_period(Some(PERIOD));
        cpu.set_quota(Some((millis * PERIOD as i64 / 1000).max(1000)));
        r.set_cpu(Some(cpu));
        report.push(format!(
            "linux.resources.cpu.quota: {millis} thousandths of a processor"
        ));
    }
}

/// All paths, and those that are new among them.
fn paths(present: Option<&Vec<String>>, more: &[String]) -> Option<(Vec<String>, Vec<String>)> {
    let mut all = present.cloned().unwrap_or_default();
    let added: Vec<String> = more.iter().filter(|p| !all.contains(p)).cloned().collect();
    all.extend(added.iter().cloned());
    (!added.is_empty()).then_some((all, added))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::profile::Limits;
    use super::*;

    const OWN: Given = Given {
        open_files: 20_000,
        core_size: 0,
        users: None,
        cgroup_v2: false,
    };

    fn profile(name: &str) -> Profile {
        Profile::load_from(Path::new("/nonexistent"), name).unwrap()
    }

    /// What containerd sends, changed.
    fn spec(change: impl FnOnce(&mut Value)) -> Spec {
        let text = include_str!("../../fuzz/seeds/spec/containerd.json");
        let mut json: Value = serde_json::from_str(text).unwrap();
        json["linux"]["devices"] = json!([]);
        change(&mut json);
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn standard_changes_nothing() {
        let asked = spec(|_| {});
        let applied = apply(&profile("standard"), OWN, asked.clone()).unwrap();
        assert_eq!((applied.spec, applied.report.len()), (asked, 0));
    }

    #[test]
    fn a_floor_under_a_floor_is_the_same_floor() {
        for name in ["hardened", "untrusted"] {
            let profile = profile(name);
            let volume = |json: &mut Value| {
                json["mounts"][2]["source"] = json!("/var/lib/kubelet/pods/u/volumes/v");
            };
            let once = apply(&profile, OWN, spec(volume)).unwrap();
            assert!(once.report.len() > 3, "{:?}", once.report);
            let twice = apply(&profile, OWN, once.spec.clone()).unwrap();
            assert_eq!(
                (&twice.spec, twice.report.len()),
                (&once.spec, 0),
                "{:?}",
                twice.report
            );
        }
    }

    #[test]
    fn whatever_a_pod_asks_for_the_floor_holds() {
        let greedy = |json: &mut Value| {
            let all = ["CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_CHOWN", "CAP_BPF"];
            let p = &mut json["process"];
            p["noNewPrivileges"] = json!(false);
            p["capabilities"] = json!({ "bounding": all, "effective": all, "permitted": all, "inheritable": all, "ambient": all });
            p["rlimits"] = json!([{ "type": "RLIMIT_CORE", "soft": 1, "hard": 1_000_000 }]);
            json["linux"]["maskedPaths"] = json!([]);
            json["linux"]["resources"]["pids"] = json!({ "limit": 10_000_000 });
            json["mounts"][2]["options"] = json!(["rbind", "rw", "exec", "suid", "dev"]);
            json["mounts"][2]["source"] = json!("/var/lib/kubelet/pods/x/volumes/y");
        };
        let applied = apply(&profile("hardened"), OWN, spec(greedy)).unwrap().spec;
        let p = applied.process().as_ref().unwrap();
        assert_eq!(p.no_new_privileges(), Some(true));
        let caps = p.capabilities().as_ref().unwrap();
        for set in [
            caps.bounding(),
            caps.effective(),
            caps.permitted(),
            caps.inheritable(),
            caps.ambient(),
        ] {
            let names: Vec<String> = set
                .as_ref()
                .unwrap()
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(names, ["CHOWN"], "of all that was asked for");
        }
        let core = p.rlimits().as_ref().unwrap()[0];
        assert_eq!((core.soft(), core.hard()), (0, 0));
        let linux = applied.linux().as_ref().unwrap();
        assert!(
            linux
                .masked_paths()
                .as_ref()
                .unwrap()
                .contains(&"/proc/kcore".to_owned())
        );
        let pids = linux.resources().as_ref().unwrap().pids();
        assert_eq!(pids.unwrap().limit(), 32_768);
        let options = applied.mounts().as_ref().unwrap()[2]
            .options()
            .clone()
            .unwrap();
        for word in ["noexec", "nosuid", "nodev"] {
            assert!(options.iter().any(|o| o == word), "{options:?}");
        }
        assert!(
            !options
                .iter()
                .any(|o| o == "exec" || o == "suid" || o == "dev"),
            "{options:?}"
        );
    }

    #[test]
    fn host_paths_are_seen_through_their_spelling() {
        for (source, ok) in [
            ("/etc", false),
            ("//etc/./ssh", false),
            ("/var/../etc", false),
            ("/", false),
            ("/etcetera", true),
            ("/srv/data", true),
        ] {
            let volume = |json: &mut Value| json["mounts"][2]["source"] = json!(source);
            let answer = apply(&profile("hardened"), OWN, spec(volume));
            assert_eq!(answer.is_ok(), ok, "{source}: {answer:?}");
        }
    }

    #[test]
    fn volumes_come_from_where_they_may() {
        let sandbox = "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/x";
        for (source, destination, ok) in [
            (
                "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/v",
                "/v",
                true,
            ),
            ("/srv/data", "/v", false),
            ("/var/lib/kubelet/pods/../pki", "/v", false),
            (&format!("{sandbox}/hosts"), "/etc/hosts", true),
            (&format!("{sandbox}/resolv.conf"), "/etc/resolv.conf", true),
            (&format!("{sandbox}/shm"), "/dev/shm", true),
            (&format!("{sandbox}/hosts"), "/v", false),
            ("/srv/hosts", "/etc/hosts", false),
        ] {
            let volume = |json: &mut Value| {
                json["mounts"] = json!([{
                    "source": source, "destination": destination, "type": "bind", "options": ["rbind"]
                }]);
            };
            let answer = apply(&profile("untrusted"), OWN, spec(volume));
            assert_eq!(answer.is_ok(), ok, "{source} at {destination}: {answer:?}");
        }
    }

    #[test]
    fn swap_is_counted_beyond_the_memory() {
        let limit = |default: Option<u64>, max: Option<u64>| Limit { default, max };
        for (limit, memory, expected) in [
            (limit(Some(0), None), json!({ "limit": 100 }), Some(100)),
            (
                limit(None, Some(50)),
                json!({ "limit": 100, "swap": 400 }),
                Some(150),
            ),
            (
                limit(None, Some(50)),
                json!({ "limit": 100, "swap": -1 }),
                Some(150),
            ),
            (
                limit(None, Some(50)),
                json!({ "limit": 100, "swap": 120 }),
                Some(120),
            ),
            (limit(Some(0), Some(50)), json!({ "swap": 120 }), Some(120)),
            (Limit::default(), json!({ "limit": 100 }), None),
        ] {
            let profile = Profile {
                limits: Limits {
                    swap: limit,
                    ..Limits::default()
                },
                ..Profile::default()
            };
            let asked = spec(|json| json["linux"]["resources"]["memory"] = memory.clone());
            let applied = apply(&profile, OWN, asked).unwrap().spec;
            let r = applied
                .linux()
                .as_ref()
                .unwrap()
                .resources()
                .clone()
                .unwrap();
            assert_eq!(r.memory().unwrap().swap(), expected, "{memory}");
        }
    }

    #[test]
    fn an_update_stays_below_the_ceilings() {
        let mut p = profile("untrusted");
        p.limits.memory = Limit {
            default: Some(1),
            max: Some(1000),
        };
        p.limits.millicpus = Limit {
            default: Some(1),
            max: Some(500),
        };
        let update = |json: Value| {
            let asked: LinuxResources = serde_json::from_value(json).unwrap();
            serde_json::to_value(apply_to_update(&p, asked)).unwrap()
        };
        for (asked, expected) in [
            (
                json!({ "pids": { "limit": 10 } }),
                json!({ "pids": { "limit": 10 } }),
            ),
            (
                json!({ "pids": { "limit": -1 } }),
                json!({ "pids": { "limit": 4096 } }),
            ),
            (
                json!({ "memory": { "limit": 500, "swap": 900 } }),
                json!({ "memory": { "limit": 500, "swap": 500 } }),
            ),
            (
                json!({ "memory": { "limit": -1, "swap": -1 } }),
                json!({ "memory": { "limit": 1000, "swap": 1000 } }),
            ),
            (
                json!({ "cpu": { "quota": 90_000, "period": 100_000 } }),
                json!({ "cpu": { "quota": 50_000, "period": 100_000 } }),
            ),
            (
                json!({ "cpu": { "shares": 2 } }),
                json!({ "cpu": { "shares": 2 } }),
            ),
            (json!({}), json!({})),
        ] {
            assert_eq!(update(asked.clone()), expected, "{asked}");
        }
    }

    #[test]
    fn execs_are_as_the_policy_says() {
        let exec = || spec(|_| {}).process().clone().unwrap();
        let mut p = profile("hardened");
        assert!(apply_to_exec(&p, OWN, exec()).is_ok());
        p.exec.policy = ExecPolicy::WithoutCapabilities;
        let bare = apply_to_exec(&p, OWN, exec()).unwrap().process;
        let caps = bare.capabilities().as_ref().unwrap();
        assert!(caps.effective().as_ref().unwrap().is_empty());
        p.exec.policy = ExecPolicy::Deny;
        let refused = apply_to_exec(&p, OWN, exec()).unwrap_err().to_string();
        assert!(
            refused.contains("profile \"hardened\" refuses execs"),
            "{refused}"
        );
    }
}
