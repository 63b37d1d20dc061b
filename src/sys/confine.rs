//! What a process takes from itself for good: Landlock, securebits, W^X, speculation, core scheduling, seccomp.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::bpf::Insn;
use super::{Result, check};

/// Rights of Landlock, `linux/landlock.h`.
pub mod landlock {
    /// Execute a file.
    pub const EXECUTE: u64 = 1;
    /// Write into a file: ABI 1.
    pub const WRITE_FILE: u64 = 1 << 1;
    /// Write, remove, make and truncate files of every kind, link and rename: ABI 1.
    pub const WRITE_V1: u64 = 0x1ff2;
    /// Make block devices: ABI 1.
    pub const MAKE_BLOCK: u64 = 1 << 11;
    /// Link and rename across directories: ABI 2.
    pub const REFER: u64 = 1 << 13;
    /// Truncate: ABI 3.
    pub const TRUNCATE: u64 = 1 << 14;
    /// Listen on a TCP port: ABI 4.
    pub const BIND_TCP: u64 = 1;
    /// Connect to a TCP port: ABI 4.
    pub const CONNECT_TCP: u64 = 2;
    /// Abstract unix sockets stay inside: ABI 6.
    pub const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
    /// Signals stay inside: ABI 6.
    pub const SCOPE_SIGNAL: u64 = 2;
}

/// Memory of this process is writable or executable, never one after the other; what it starts is free: `PR_SET_MDWE` with
/// `PR_MDWE_NO_INHERIT`, Linux 6.6.
pub fn deny_own_write_execute() -> Result<()> {
    const PR_SET_MDWE: libc::c_int = 65;
    const REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    const NO_INHERIT: libc::c_ulong = 2;
    // SAFETY: plain numbers.
    check(libc::c_long::from(unsafe {
        libc::prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN | NO_INHERIT, 0, 0, 0)
    }))?;
    Ok(())
}

#[repr(C)]
struct RulesetAttr {
    access_fs: u64,
    access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

#[repr(C)]
struct NetPortAttr {
    allowed_access: u64,
    port: u64,
}

/// An empty ruleset that denies these rights, `landlock_create_ruleset(2)`. What an older kernel does not know must be 0.
pub fn landlock_ruleset(access_fs: u64, access_net: u64, scoped: u64) -> Result<OwnedFd> {
    let attr = RulesetAttr {
        access_fs,
        access_net,
        scoped,
    };
    // An older kernel takes a longer structure whose rest is zero.
    // SAFETY: `attr` is readable for its size.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attr,
            size_of::<RulesetAttr>(),
            0,
        )
    })?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Allows rights below a directory, or on a file.
pub fn landlock_allow_path(
    ruleset: BorrowedFd<'_>,
    path: BorrowedFd<'_>,
    access: u64,
) -> Result<()> {
    let attr = PathBeneathAttr {
        allowed_access: access,
        parent_fd: path.as_raw_fd(),
    };
    // SAFETY: `attr` is a landlock_path_beneath_attr.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            1, // LANDLOCK_RULE_PATH_BENEATH
            &raw const attr,
            0,
        )
    })?;
    Ok(())
}

/// Allows rights on a TCP port.
pub fn landlock_allow_port(ruleset: BorrowedFd<'_>, port: u16, access: u64) -> Result<()> {
    let attr = NetPortAttr {
        allowed_access: access,
        port: u64::from(port),
    };
    // SAFETY: `attr` is a landlock_net_port_attr.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            2, // LANDLOCK_RULE_NET_PORT
            &raw const attr,
            0,
        )
    })?;
    Ok(())
}

/// Enforces a ruleset on the calling process, `landlock_restrict_self(2)`. Needs `no_new_privs` or `CAP_SYS_ADMIN`. With `audit` (ABI 7) what is
/// denied to the programs that it executes is recorded, too.
pub fn landlock_restrict(ruleset: BorrowedFd<'_>, audit: bool) -> Result<()> {
    const LOG_NEW_EXEC_ON: u32 = 2;
    let flags = if audit { LOG_NEW_EXEC_ON } else { 0 };
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), flags) })?;
    Ok(())
}

fn prctl(option: i32, a: u64, b: u64, c: u64, d: u64) -> Result<()> {
    // SAFETY: the options used here take numbers.
    check(libc::c_long::from(unsafe {
        libc::prctl(option, a, b, c, d)
    }))?;
    Ok(())
}

/// Sets securebits, `capabilities(7)`. Needs `CAP_SETPCAP`.
pub fn set_securebits(bits: u64) -> Result<()> {
    prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0)
}

/// The caller's securebits.
pub fn securebits() -> Result<u64> {
    // SAFETY: plain numbers.
    let bits = check(libc::c_long::from(unsafe {
        libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0)
    }))?;
    Ok(bits as u64)
}

/// Memory that was writable never becomes executable: `PR_SET_MDWE`, Linux 6.3.
pub fn deny_write_execute() -> Result<()> {
    const SET_MDWE: i32 = 65;
    const REFUSE_EXEC_GAIN: u64 = 1;
    prctl(SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0)
}

/// Turns a speculation feature off for good: `PR_SET_SPECULATION_CTRL`. 0 is store bypass, 1 indirect branches.
pub fn disable_speculation(feature: u64) -> Result<()> {
    const SET_SPECULATION_CTRL: i32 = 53;
    const FORCE_DISABLE: u64 = 8;
    prctl(SET_SPECULATION_CTRL, feature, FORCE_DISABLE, 0, 0)
}

/// Whether a kind of speculation goes on, and no process can turn it off for itself: `PR_GET_SPECULATION_CTRL`.
pub fn speculates_for_good(feature: u64) -> bool {
    const GET_SPECULATION_CTRL: i32 = 52;
    const BY_PRCTL: i32 = 1;
    const ENABLED: i32 = 2;
    // SAFETY: plain numbers.
    let state = unsafe { libc::prctl(GET_SPECULATION_CTRL, feature, 0u64, 0u64, 0u64) };
    state >= 0 && state & ENABLED != 0 && state & BY_PRCTL == 0
}

/// A new core-scheduling cookie for the calling process, or with `from` another process's: `PR_SCHED_CORE`, Linux 5.14.
pub fn core_scheduling(from: Option<i32>) -> Result<()> {
    const SCHED_CORE: i32 = 62;
    const CREATE: u64 = 1;
    const SHARE_FROM: u64 = 3;
    const THREAD_GROUP: u64 = 1;
    match from {
        None => prctl(SCHED_CORE, CREATE, 0, THREAD_GROUP, 0),
        Some(pid) => prctl(SCHED_CORE, SHARE_FROM, pid as u64, 0, 0),
    }
}

/// The core-scheduling cookie of a process; 0 is none. `PR_SCHED_CORE_GET`
pub fn core_scheduling_cookie(pid: i32) -> Result<u64> {
    const SCHED_CORE: i32 = 62;
    const GET: u64 = 0;
    const THREAD: u64 = 0;
    let mut cookie = 0u64;
    prctl(
        SCHED_CORE,
        GET,
        pid as u64,
        THREAD,
        (&raw mut cookie) as u64,
    )?;
    Ok(cookie)
}

/// Installs a seccomp filter on the calling thread: `seccomp(SECCOMP_SET_MODE_FILTER)`.
/// Returns the descriptor of the notifications where `flags` ask for one, else 0.
pub fn seccomp_set_filter(program: &[Insn], flags: u64) -> Result<RawFd> {
    let prog = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `prog` describes `program`, which the kernel only reads.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const prog,
        )
    })?;
    Ok(fd as RawFd)
}
