//! Users of a container: those that its pod asked for, and those that the profile gives it.

use oci_spec::runtime::{Capability, LinuxIdMapping, LinuxIdMappingBuilder};

use super::pool::RANGE;
use super::profile::{Profile, UserNamespaceMode};
use super::refusal::Refusal;
use crate::oci::{Namespace, Request};

/// A pod that asked for users of its own must have some: not the node's under another number, and nobody else's.
pub(super) fn judge(profile: &Profile, request: &Request) -> Result<(), Refusal> {
    let refuse = |what: String| {
        let refusal = |remedy| Refusal::new(profile, what, remedy);
        Err(if request.namespaces.user.is_host() {
            refusal("set hostUsers: false in the pod").by("user_namespace.mode")
        } else {
            refusal(
                "map to ids that nobody else has: kubelet's userNamespaces.idsPerPod and the node's subuid(5) say which",
            )
        })
    };
    let mode = profile.user_namespace.mode;
    let own = !request.namespaces.user.is_host();
    if !own {
        return if mode == UserNamespaceMode::Required {
            refuse("the node's users (linux.namespaces has no user namespace)".into())
        } else {
            Ok(())
        };
    }
    let linux = request.rest.linux().clone().unwrap_or_default();
    let pool = profile.user_namespace.pool;
    let first = u64::from(pool.first);
    let end = first + u64::from(pool.ranges) * u64::from(RANGE);
    for (maps, field) in [
        (linux.uid_mappings(), "linux.uidMappings"),
        (linux.gid_mappings(), "linux.gidMappings"),
    ] {
        for m in maps.iter().flatten() {
            let maps = |to: &str| {
                refuse(format!(
                    "{to} ({field} maps {} to {}, {} ids)",
                    m.container_id(),
                    m.host_id(),
                    m.size()
                ))
            };
            if mode != UserNamespaceMode::Pod && m.host_id() < RANGE {
                return maps("the node's own ids");
            }
            let (from, to) = range(m);
            if from < end && first < to {
                return maps("ids of other pods, from user_namespace.pool");
            }
        }
    }
    Ok(())
}

fn range(m: &LinuxIdMapping) -> (u64, u64) {
    let first = u64::from(m.host_id());
    (first, first + u64::from(m.size()))
}

/// Gives the container the pod's users.
pub(super) fn give(
    profile: &Profile,
    first: u32,
    request: &mut Request,
    report: &mut Vec<String>,
) -> Result<(), Refusal> {
    let namespaces = &mut request.namespaces;
    for (namespace, field) in [(&namespaces.pid, "hostPID"), (&namespaces.ipc, "hostIPC")] {
        if namespace.is_host() {
            return Err(Refusal::new(
                profile,
                format!("{field} (user_namespace.mode = \"auto\")"),
                format!("remove {field} from the pod"),
            )
            .by("user_namespace.mode"));
        }
    }
    namespaces.user = Namespace::New;
    let joined_network = matches!(namespaces.network, Namespace::Join(_));
    let map = LinuxIdMappingBuilder::default()
        .container_id(0u32)
        .host_id(first)
        .size(RANGE)
        .build()
        .map_err(|e| {
            let what = format!("the ids from {first} on ({e})");
            Refusal::new(profile, what, "mend user_namespace.pool")
        })?;
    let mut linux = request.rest.linux().clone().unwrap_or_default();
    linux.set_uid_mappings(Some(vec![map]));
    linux.set_gid_mappings(Some(vec![map]));
    report.push(format!(
        "linux.uidMappings, gidMappings: 0 is {first} on the node"
    ));
    let mut parameters = linux.sysctl().clone().unwrap_or_default();
    // Whatever the pod says of them: namespaces inside are the floor's to forbid.
    parameters.retain(|name, _| name.replace('/', ".") != "user.max_user_namespaces");
    let mut add = |name: &str, value: &str| {
        if !parameters.contains_key(name) {
            parameters.insert(name.into(), value.into());
            report.push(format!("linux.sysctl: {name} = {value}"));
        }
    };
    add("user.max_user_namespaces", "0");
    // The pod's network is the node's to give: CAP_NET_BIND_SERVICE of the container's root does not count in it.
    let process = request.rest.process().as_ref();
    let bounding = process
        .and_then(|p| p.capabilities().as_ref())
        .and_then(|c| c.bounding().as_ref());
    if joined_network && bounding.is_some_and(|b| b.contains(&Capability::NetBindService)) {
        add("net.ipv4.ip_unprivileged_port_start", "0");
    }
    linux.set_sysctl(Some(parameters));
    request.rest.set_linux(Some(linux));
    Ok(())
}
