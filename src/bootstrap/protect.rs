//! The host's binary stays out of reach of what runs inside (CVE-2019-5736): the server is executed from a detached,
//! read-only clone of its own mount, so `/proc/PID/exe` can never be opened for writing, and the page cache stays shared.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use super::{Error, Result};
use crate::sys::mount::{CWD, MountAttr, attr, mount_setattr, open_tree_clone};

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
