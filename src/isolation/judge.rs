//! A profile's floor under what a spec asks for. Everything that reaches the executor comes through here.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Process};

use super::judged::Judged;
use super::place::Place;
use super::profile::{ExecPolicy, HostNamespace, NetworkMode, Profile};
use super::refusal::Refusal;
use super::{devices, host_paths, mounts, process, programs, resources, users};
use crate::oci::{Joined, Namespace, Namespaces, Request};

/// What the profile is applied with: what the runtime has to give, and where the container is from.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// The runtime's hard `RLIMIT_NOFILE`. A limit beyond it would need `CAP_SYS_RESOURCE`.
    pub open_files: u64,
    /// Its hard `RLIMIT_CORE`.
    pub core_size: u64,
    /// The first of the 65,536 ids that the pod was given, where the profile gives it some.
    pub users: Option<u32>,
    /// Whether the node's control groups are v2 only.
    pub cgroup_v2: bool,
    /// Whether the kernel changes whole trees of mounts (Linux 5.12).
    pub recursive_attributes: bool,
    /// Which parts of the node were made for this container.
    pub place: Place,
    /// The namespaces of the pod's other containers, as device and inode; nothing where a spec is only shown.
    pub namespaces: Option<BTreeSet<(u64, u64)>>,
}

/// A container under a profile.
#[derive(Debug)]
pub struct Verdict<T> {
    /// What is enforced.
    pub judged: Judged<T>,
    /// Each change, for people.
    pub report: Vec<String>,
}

impl<T> Verdict<T> {
    fn as_it_is(value: T) -> Self {
        Self {
            judged: Judged::new(value),
            report: Vec::new(),
        }
    }
}

/// Puts the profile's floor under a container.
///
/// # Errors
/// What the profile does not allow at all. The rest is tightened, and in the report.
pub fn judge(
    profile: &Profile,
    given: &Given,
    mut request: Request,
) -> Result<Verdict<Request>, Refusal> {
    if profile.is_standard() {
        return Ok(Verdict::as_it_is(request));
    }
    let mut report = Vec::new();
    host_namespaces(profile, &request)?;
    joined_namespaces(profile, given, &request)?;
    users::judge(profile, &request)?;
    devices::judge(profile, &request.devices)?;
    host_paths::judge(profile, &given.place, &mut request)?;
    programs::judge(profile, &mut request, &mut report)?;
    node_resources(profile, &request)?;
    if let Some(mut p) = request.rest.process().clone() {
        process::judge(profile, given, &mut p, &mut report)?;
        request.rest.set_process(Some(p));
    }
    mounts::judge(profile, given, &mut request.mounts, &mut report)?;
    if profile.filesystem.read_only_root && !request.root.read_only {
        request.root.read_only = true;
        report.push("root.readonly: true".into());
    }
    own_groups(&mut request, &mut report);
    network(profile, &mut request, &mut report);
    if let Some(first) = given.users {
        users::give(profile, first, &mut request, &mut report)?;
    }
    linux(profile, given, &mut request, &mut report)?;
    Ok(Verdict {
        judged: Judged::new(request),
        report,
    })
}

/// Puts the profile's floor under an exec.
///
/// # Errors
/// Where the profile has none.
pub fn judge_exec(
    profile: &Profile,
    given: &Given,
    mut exec: Process,
) -> Result<Verdict<Process>, Refusal> {
    if profile.is_standard() {
        return Ok(Verdict::as_it_is(exec));
    }
    let mut report = Vec::new();
    match profile.exec.policy {
        ExecPolicy::Allow => {}
        ExecPolicy::Deny => {
            return Err(Refusal::new(
                profile,
                "execs (exec.policy = \"deny\")",
                "use no exec probes and no kubectl exec",
            )
            .by("exec.policy"));
        }
        ExecPolicy::WithoutCapabilities => {
            if process::ceiling(&mut exec, &BTreeSet::new()) > 0 {
                report.push("process.capabilities: none, in execs".into());
            }
        }
    }
    process::judge(profile, given, &mut exec, &mut report)?;
    Ok(Verdict {
        judged: Judged::new(exec),
        report,
    })
}

/// Puts the profile's ceilings over resources that a live container is to get. What they say nothing of stays as it is.
///
/// # Errors
/// Devices that the profile does not allow, and values that cannot be compared with its limits.
pub fn judge_update(
    profile: &Profile,
    mut resources: LinuxResources,
) -> Result<Judged<LinuxResources>, Refusal> {
    if !profile.is_standard() {
        devices::judge_rules(profile, &mut resources, &mut Vec::new())?;
        resources::judge_update(profile, &mut resources)?;
    }
    Ok(Judged::new(resources))
}

fn host_namespaces(profile: &Profile, request: &Request) -> Result<(), Refusal> {
    let namespaces = &request.namespaces;
    match &namespaces.mount {
        Namespace::New => {}
        Namespace::Host => {
            return Err(Refusal::new(
                profile,
                "the node's mounts (linux.namespaces has no mount namespace of the container's)",
                "add one",
            ));
        }
        Namespace::Join(joined) => {
            return Err(Refusal::new(
                profile,
                format!(
                    "mounts of others (linux.namespaces: {})",
                    joined.path.display()
                ),
                "give the container a mount namespace of its own",
            ));
        }
    }
    let Some(allowed) = &profile.pod.host_namespaces else {
        return Ok(());
    };
    // hostNetwork comes with the node's host name. The network is first in the table, so that the refusal names the
    // field that the pod's author has set.
    for (namespace, name, typ, field) in [
        (
            &namespaces.network,
            HostNamespace::Network,
            "network",
            "hostNetwork",
        ),
        (&namespaces.pid, HostNamespace::Pid, "pid", "hostPID"),
        (&namespaces.ipc, HostNamespace::Ipc, "ipc", "hostIPC"),
        (
            &namespaces.uts,
            HostNamespace::Uts,
            "uts",
            "the node's host name",
        ),
    ] {
        if namespace.is_host() && !allowed.contains(&name) {
            return Err(Refusal::new(
                profile,
                format!("{field} (linux.namespaces has no {typ} namespace, or the node's)"),
                format!("remove {field} from the pod"),
            )
            .by("pod.host_namespaces"));
        }
    }
    Ok(())
}

/// A namespace that is there already is the pod's: one of its containers is in it. Only the network is there before all containers.
fn joined_namespaces(profile: &Profile, given: &Given, request: &Request) -> Result<(), Refusal> {
    let Some(of_pod) = &given.namespaces else {
        return Ok(());
    };
    for typ in Namespaces::TYPES {
        let Namespace::Join(joined) = request.namespaces.get(typ) else {
            continue;
        };
        let is_of_pod = joined.id.is_some_and(|id| of_pod.contains(&id));
        let is_network = typ == LinuxNamespaceType::Network;
        if is_of_pod || is_kept(given, joined, is_network) {
            continue;
        }
        return Err(Refusal::new(
            profile,
            format!(
                "the {} namespace of others (linux.namespaces: {})",
                if is_network {
                    "network".into()
                } else {
                    typ.to_string()
                },
                joined.path.display()
            ),
            if is_network {
                "keep it below /run/netns, or join a container of the same pod"
            } else {
                "join a container of the same pod"
            },
        ));
    }
    Ok(())
}

/// Whether who made the pod has kept it for the pod.
fn is_kept(given: &Given, joined: &Joined, is_network: bool) -> bool {
    let Ok(real) = std::fs::canonicalize(&joined.path) else {
        return false;
    };
    let same = std::fs::metadata(&real).is_ok_and(|m| joined.id == Some((m.dev(), m.ino())));
    let networks = given.place.networks();
    let among_networks = is_network && networks.iter().any(|dir| real.starts_with(dir));
    same && (among_networks || given.place.is_kept_for_pod(&real))
}

/// What a spec can take from the node for itself, and no pod asks for.
fn node_resources(profile: &Profile, request: &Request) -> Result<(), Refusal> {
    let linux = request.rest.linux().as_ref();
    let devices = linux.and_then(|l| l.net_devices().as_ref());
    if let Some(name) = devices.and_then(|d| d.keys().min()) {
        return Err(Refusal::new(
            profile,
            format!("the node's network device {name:?} (linux.netDevices)"),
            "remove it",
        ));
    }
    if linux.is_some_and(|l| l.intel_rdt().is_some()) {
        return Err(Refusal::new(
            profile,
            "a share of the processor's caches (linux.intelRdt)",
            "remove it",
        ));
    }
    Ok(())
}

/// The root of its control groups is the container's own, so that no path of the node's is seen: CVE-2023-25809.
fn own_groups(request: &mut Request, report: &mut Vec<String>) {
    if !request.namespaces.cgroup.is_new() {
        request.namespaces.cgroup = Namespace::New;
        report.push("linux.namespaces: a cgroup namespace".into());
    }
}

fn network(profile: &Profile, request: &mut Request, report: &mut Vec<String>) {
    if profile.network.mode == NetworkMode::None && !request.namespaces.network.is_new() {
        request.namespaces.network = Namespace::New;
        report.push("linux.namespaces: an empty network".into());
    }
}

/// Paths and resources.
fn linux(
    profile: &Profile,
    given: &Given,
    request: &mut Request,
    report: &mut Vec<String>,
) -> Result<(), Refusal> {
    let mut linux = request.rest.linux().clone().unwrap_or_default();
    let files = &profile.filesystem;
    if let Some((all, added)) = paths(
        linux.masked_paths().as_ref(),
        &expanded(&files.masked_paths),
    ) {
        linux.set_masked_paths(Some(all));
        report.push(format!("linux.maskedPaths: added {}", added.join(" ")));
    }
    let read_only = expanded(&files.read_only_paths);
    if let Some((all, added)) = paths(linux.readonly_paths().as_ref(), &read_only) {
        linux.set_readonly_paths(Some(all));
        report.push(format!("linux.readonlyPaths: added {}", added.join(" ")));
    }
    let mut r = linux.resources().clone().unwrap_or_default();
    devices::judge_rules(profile, &mut r, report)?;
    resources::judge(profile, given.cgroup_v2, &mut r, report)?;
    if linux.resources().is_some() || r != LinuxResources::default() {
        linux.set_resources(Some(r));
    }
    request.rest.set_linux(Some(linux));
    Ok(())
}

/// The paths of a profile. A path that ends in `*` becomes all paths of the node that begin so: `/sys` shows a container the node's
/// devices.
fn expanded(paths: &[String]) -> Vec<String> {
    let mut all = Vec::with_capacity(paths.len());
    for path in paths {
        let Some(start) = path.strip_suffix('*') else {
            all.push(path.clone());
            continue;
        };
        let directory = start.rfind('/').map_or("/", |slash| &start[..=slash]);
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let full = entries.filter_map(|e| Some(format!("{directory}{}", e.file_name().to_str()?)));
        let mut found: Vec<String> = full.filter(|p| p.starts_with(start)).collect();
        found.sort();
        all.extend(found);
    }
    all
}

/// All paths, and those that are new among them.
fn paths(present: Option<&Vec<String>>, more: &[String]) -> Option<(Vec<String>, Vec<String>)> {
    let mut all = present.cloned().unwrap_or_default();
    let added: Vec<String> = more.iter().filter(|p| !all.contains(p)).cloned().collect();
    all.extend(added.iter().cloned());
    (!added.is_empty()).then_some((all, added))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
