//! How the kernel schedules a process: `sched_setattr(2)`, `ioprio_set(2)`, `set_mempolicy(2)`.

use std::ptr;

use crate::sys::{Result, check};

/// `struct sched_attr`, `sched_setattr(2)`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct SchedAttr {
    /// Filled in by [`sched_setattr`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`: -20 to 19.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`: 1 to 99.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub period: u64,
}

/// `sched_setattr(2)` on the caller.
pub fn sched_setattr(attr: &SchedAttr) -> Result<()> {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        ..*attr
    };
    // SAFETY: `attr` is readable for the size that it names.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) })?;
    Ok(())
}

/// `sched_setaffinity(2)` on the caller.
pub fn sched_setaffinity(mask: &[u64]) -> Result<()> {
    // SAFETY: `mask` is readable for the size that is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            0,
            size_of_val(mask),
            mask.as_ptr(),
        )
    })?;
    Ok(())
}

/// `ioprio_set(2)` on the caller: class and priority as `linux/ioprio.h` packs them.
pub fn ioprio_set(value: i32) -> Result<()> {
    // SAFETY: plain numbers; 1 is IOPRIO_WHO_PROCESS.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, value) })?;
    Ok(())
}

/// `personality(2)`.
pub fn personality(domain: u64) -> Result<()> {
    // SAFETY: plain number.
    check(unsafe { libc::syscall(libc::SYS_personality, domain) })?;
    Ok(())
}

/// `set_mempolicy(2)`.
pub fn set_mempolicy(mode: i32, nodes: &[u64]) -> Result<()> {
    let (ptr, bits) = if nodes.is_empty() {
        (ptr::null(), 0)
    } else {
        (nodes.as_ptr(), nodes.len() * 64 + 1)
    };
    // SAFETY: `ptr` is null, or readable for `bits` bits but the last, which the kernel does not look at.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, ptr, bits) })?;
    Ok(())
}
