//! The host's binary stays out of reach of what runs inside (CVE-2019-5736): the server is executed from a detached,
//! read-only clone of its own mount, so `/proc/PID/exe` can never be opened for writing, and the page cache stays shared.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use super::{Error, Result};
use crate::oci::capabilities::NAMES;
use crate::pod::Isolation;
use crate::sys::mount::{CWD, MountAttr, attr, mount_setattr, open_tree_clone};
use crate::sys::{confine, creds};

/// A descriptor to execute ourselves from. On kernels without `mount_setattr(2)` (before 5.12) it is a sealed copy in memory.
pub(super) fn sealed_program() -> Result<OwnedFd> {
    let clone = || -> nix::Result<OwnedFd> {
        let tree = open_tree_clone(CWD, c"/proc/self/exe", false)?;
        mount_setattr(
            tree.as_fd(),
            false,
            &MountAttr {
                attr_set: attr::RDONLY,
                ..MountAttr::default()
            },
        )?;
        Ok(tree)
    };
    clone().or_else(|_| sealed_copy())
}

fn sealed_copy() -> Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let what = "make a sealed copy of the shim";
    let fd = memfd_create(
        c"containerd-shim-cofferdam",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )
    .map_err(|e| Error::Io(what.into(), e.into()))?;
    let mut copy = File::from(fd);
    let mut exe = File::open("/proc/self/exe").map_err(Error::io(what))?;
    std::io::copy(&mut exe, &mut copy).map_err(Error::io(what))?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_SEAL;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals)).map_err(|e| Error::Io(what.into(), e.into()))?;
    // Written through this descriptor, executed through another: a file open for writing is busy.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&copy));
    File::open(path).map(OwnedFd::from).map_err(Error::io(what))
}

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
