//! The node's binaries stay out of reach of what runs inside (CVE-2019-5736). Who makes or enters containers is executed from a detached,
//! read-only clone of its binary's own mount, so `/proc/PID/exe` can never be opened for writing, and the page cache stays shared.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::sys::mount::{CWD, MountAttr, attr, mount_setattr, open_tree_clone};

/// A descriptor to execute this program from. Where there is no `mount_setattr(2)` (before Linux 5.12), or no right to it, it is a
/// sealed copy in memory.
///
/// # Errors
/// The system's.
pub fn program() -> io::Result<OwnedFd> {
    let clone = || -> nix::Result<OwnedFd> {
        let tree = open_tree_clone(CWD, c"/proc/self/exe", false)?;
        let read_only = MountAttr {
            attr_set: attr::RDONLY,
            ..MountAttr::default()
        };
        mount_setattr(tree.as_fd(), false, &read_only)?;
        Ok(tree)
    };
    clone().or_else(|_| copy())
}

fn copy() -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // MFD_EXEC, Linux 6.3: a node may say that no other file in memory can be executed.
    let executable = flags | MFdFlags::from_bits_retain(0x10);
    let fd =
        memfd_create(c"cofferdam", executable).or_else(|_| memfd_create(c"cofferdam", flags))?;
    let mut copy = File::from(fd);
    io::copy(&mut File::open("/proc/self/exe")?, &mut copy)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_SEAL;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    // Written through this descriptor, executed through another: a file open for writing is busy.
    File::open(format!("/proc/self/fd/{}", copy.as_raw_fd())).map(OwnedFd::from)
}

/// Whether this process runs from a file that nobody can write through `/proc/PID/exe`.
fn is_sealed() -> bool {
    let Ok(own) = File::open("/proc/self/exe") else {
        return false;
    };
    let is_read_only = fstatvfs(&own).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_RDONLY));
    let seals = || fcntl(&own, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain);
    is_read_only || seals().is_ok_and(|seals| seals.contains(SealFlag::F_SEAL_WRITE))
}

/// Executes this program again with the same arguments, sealed; returns if it is already.
///
/// # Errors
/// It cannot be done.
pub fn execute_again(args: &[OsString]) -> io::Result<()> {
    if is_sealed() {
        return Ok(());
    }
    let program = program()?;
    let strings = |all: Vec<OsString>| -> io::Result<Vec<CString>> {
        let all = all.into_iter().map(|s| CString::new(s.into_vec()));
        Ok(all.collect::<Result<_, _>>()?)
    };
    let environment = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let environment = strings(environment.collect())?;
    let never: nix::Result<Infallible> =
        nix::unistd::fexecve(&program, &strings(args.to_vec())?, &environment);
    match never {
        Ok(never) => match never {},
        Err(e) => Err(e.into()),
    }
}
