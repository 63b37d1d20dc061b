//! `linux.sysctl`.

use std::collections::HashMap;

use super::super::error::c_string;
use super::super::script::Step;
use super::super::{Error, Result};

/// Which namespaces the container has of its own.
pub(super) struct Owned {
    pub ipc: bool,
    pub net: bool,
    pub uts: bool,
    pub user: bool,
}

/// Kernel parameters, the network's and the others: only those that a namespace of the container owns, or they would change the
/// node.
pub(super) fn sysctls(
    sysctl: Option<&HashMap<String, String>>,
    owned: &Owned,
) -> Result<(Vec<Step>, Vec<Step>)> {
    const IPC: [&str; 10] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.msg_next_id",
        "kernel.shm_next_id",
    ];
    let (mut network, mut others) = (Vec::new(), Vec::new());
    let mut list: Vec<_> = sysctl.into_iter().flatten().collect();
    list.sort();
    for (key, value) in list {
        let field = format!("linux.sysctl[{key:?}]");
        // Both spellings are in use: net.ipv4.ip_forward and net/ipv4/conf/eth0.100/forwarding.
        let (dotted, slashed) = if key
            .find('/')
            .is_some_and(|s| key.find('.').is_none_or(|d| s < d))
        {
            (key.replace('/', "."), key.clone())
        } else {
            (key.clone(), key.replace('.', "/"))
        };
        let needs = if dotted.starts_with("net.") {
            ("network", owned.net)
        } else if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            ("ipc", owned.ipc)
        } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
            ("uts", owned.uts)
        } else if dotted.starts_with("user.") {
            ("user", owned.user)
        } else {
            return Err(Error::field(
                field,
                "is not owned by any namespace: setting it would change the whole node",
            ));
        };
        if !needs.1 {
            return Err(Error::field(
                field,
                format!("needs a {} namespace in linux.namespaces", needs.0),
            ));
        }
        if slashed
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
        {
            return Err(Error::field(field, "is not a kernel parameter"));
        }
        let steps = if needs.0 == "network" {
            &mut network
        } else {
            &mut others
        };
        steps.push(Step::WriteProc {
            path: c_string(format!("/proc/sys/{slashed}"), &field)?,
            value: value.clone().into_bytes(),
            what: format!("{field}: set to {value:?}"),
        });
    }
    Ok((network, others))
}
