//! The rights that a pod's server keeps.

use crate::oci::capabilities::NAMES;
use crate::pod::Isolation;
use crate::sys::{confine, creds};

/// What making, entering and watching containers takes, whatever they may have themselves.
const NEEDED: [&str; 20] = [
    "CAP_BPF",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SYS_NICE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RESOURCE",
];

/// The shim is worth less to whoever takes it: it gives up the rights that it neither needs nor can grant under its profile, and so
/// do the hooks and loggers that it starts; memory that can be executed cannot be written. To be called before there are other
/// threads, whose rights are their own.
pub(super) fn give_up_rights(isolation: &Isolation) {
    // From Linux 6.6 on.
    confine::deny_own_write_execute().ok();
    let no_new_privs = |()| {
        if isolation.forces_no_new_privileges() {
            creds::set_no_new_privs()
        } else {
            Ok(())
        }
    };
    let dropped = isolation.ceiling().map_or(Ok(()), drop_capabilities);
    if let Err(e) = dropped.and_then(no_new_privs) {
        log::warn!(error:% = e.desc(); "the shim keeps rights that it does not need");
    }
}

fn drop_capabilities(ceiling: u64) -> nix::Result<()> {
    let bit = |name: &&str| NAMES.iter().position(|n| n == name);
    let needed = NEEDED
        .iter()
        .filter_map(bit)
        .fold(0, |mask, bit| mask | 1u64 << bit);
    let kept = needed | ceiling;
    for cap in (0..64).filter(|cap| kept & 1 << cap == 0) {
        if creds::in_bounding(cap) {
            creds::drop_bounding(cap)?;
        }
    }
    let kept = creds::permitted() & kept;
    creds::capset(kept, kept, 0)
}
