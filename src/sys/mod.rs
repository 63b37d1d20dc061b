//! System calls, and the home of `unsafe`: nix and rustix where they have the call, the kernel itself where they do not. What runs
//! between `clone3` and `execve` needs them in this form: with C strings, descriptors and plain numbers.
//!
//! Everything here that takes `&CStr` and descriptors is async-signal-safe: it allocates nothing and takes no lock. For nix 0.31 and
//! rustix 1.1 that was read in their sources.
#![allow(unsafe_code)]
#![deny(clippy::indexing_slicing)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the kernel's numbers, as its interfaces have them"
)]

pub mod at;
pub mod bpf;
pub mod confine;
pub mod copy;
pub mod creds;
pub mod ebpf;
pub mod kernel;
pub mod memory;
pub mod mount;
pub mod notify;
pub mod null;
pub mod process;
pub mod reactor;
pub mod socket;
pub mod time;
pub mod tracer;
pub mod tty;

use nix::errno::Errno;

/// Result of one system call.
pub type Result<T> = std::result::Result<T, Errno>;

/// Turns the return value of `libc::syscall` and of libc wrappers into a result.
fn check(ret: libc::c_long) -> Result<libc::c_long> {
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}

/// rustix's error number as nix's, which the rest of the code has.
fn from_rustix(e: rustix::io::Errno) -> Errno {
    Errno::from_raw(e.raw_os_error())
}

/// Sets an extended attribute on `path`: `setxattr(2)`.
pub fn setxattr(path: &std::ffi::CStr, name: &std::ffi::CStr, value: &[u8]) -> Result<()> {
    // SAFETY: strings are NUL-terminated and `value` is readable for its length.
    check(libc::c_long::from(unsafe {
        libc::setxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    }))?;
    Ok(())
}

/// The extended attribute `name` of `path`, `getxattr(2)`; none where it has none that is this short.
pub fn xattr(path: &std::ffi::CStr, name: &std::ffi::CStr) -> Option<Vec<u8>> {
    let mut value = vec![0u8; 256];
    // SAFETY: strings are NUL-terminated and `value` is writable for its length.
    let n = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    value.truncate(usize::try_from(n).ok()?);
    Some(value)
}

/// Changes the permission bits of an open file: `fchmod(2)`.
pub fn fchmod(fd: std::os::fd::BorrowedFd<'_>, mode: u32) -> Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: plain numbers.
    check(libc::c_long::from(unsafe {
        libc::fchmod(fd.as_raw_fd(), mode)
    }))?;
    Ok(())
}

/// Changes owner and group of an open file: `fchown(2)`.
pub fn fchown(fd: std::os::fd::BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: plain numbers.
    check(libc::c_long::from(unsafe {
        libc::fchown(fd.as_raw_fd(), uid, gid)
    }))?;
    Ok(())
}
