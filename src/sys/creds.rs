//! Credentials. Raw system calls: glibc's `setuid` family signals every thread that it believes to exist, which in a
//! freshly cloned child are the parent's.

use std::sync::atomic::{AtomicU8, Ordering};

use nix::errno::Errno;
use rustix::thread::{Gid, Uid};

use super::{Result, check, from_rustix};

/// `setgroups(2)`.
///
/// Where nobody may change them (`user_namespaces(7)`, "The /proc/PID/setgroups file") there are none that could be taken away.
pub fn setgroups(gids: &[u32]) -> Result<()> {
    // Known since before this child was made: it must not allocate.
    if gids.is_empty() && USERS.load(Ordering::Relaxed) & GROUPS_DENIED != 0 {
        return Ok(());
    }
    // SAFETY: `gids` is readable for its length.
    match check(unsafe { libc::syscall(libc::SYS_setgroups, gids.len(), gids.as_ptr()) }) {
        Err(Errno::EPERM) if gids.is_empty() && has_no_groups() => Ok(()),
        set => set.map(drop),
    }
}

fn has_no_groups() -> bool {
    // SAFETY: a size of 0 asks for the number only.
    unsafe { libc::syscall(libc::SYS_getgroups, 0, std::ptr::null_mut::<u32>()) == 0 }
}

/// Real, effective and saved group.
pub fn setresgid(gid: u32) -> Result<()> {
    let gid = Gid::from_raw(gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(from_rustix)
}

/// Real, effective and saved user.
pub fn setresuid(uid: u32) -> Result<()> {
    let uid = Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(from_rustix)
}

/// Runs `f` with another owner for the files that it makes, and with every capability: `setfsuid(2)`, `setfsgid(2)`.
pub fn with_file_owner<T>(uid: u32, gid: u32, f: impl FnOnce() -> T) -> Result<T> {
    // SECBIT_NO_SETUID_FIXUP: otherwise the capabilities over files go with the id.
    const KEEP: u64 = 1 << 2;
    let set = |uid: u32, gid: u32, bits: u64| {
        super::confine::set_securebits(bits)?;
        // SAFETY: plain numbers. Both calls answer with the former id, and never fail for a process that may set it.
        unsafe {
            libc::syscall(libc::SYS_setfsgid, gid);
            libc::syscall(libc::SYS_setfsuid, uid);
        }
        Ok::<_, nix::errno::Errno>(())
    };
    let before = super::confine::securebits()?;
    set(uid, gid, before | KEEP)?;
    let result = f();
    set(0, 0, before | KEEP)?;
    super::confine::set_securebits(before)?;
    Ok(result)
}

/// Keeps permitted capabilities across `setresuid`: `PR_SET_KEEPCAPS`.
pub fn keep_capabilities(keep: bool) -> Result<()> {
    nix::sys::prctl::set_keepcaps(keep)
}

/// Removes `cap` from the bounding set.
pub fn drop_bounding(cap: u32) -> Result<()> {
    // SAFETY: plain numbers.
    check(libc::c_long::from(unsafe {
        libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(cap), 0, 0, 0)
    }))?;
    Ok(())
}

/// Whether the bounding set holds `cap`; false for numbers that this kernel does not know.
pub fn in_bounding(cap: u32) -> bool {
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(cap), 0, 0, 0) == 1 }
}

/// Empties the ambient set.
pub fn clear_ambient() -> Result<()> {
    rustix::thread::clear_ambient_capability_set().map_err(from_rustix)
}

/// Adds `cap` to the ambient set; it must be permitted and inheritable.
pub fn raise_ambient(cap: u32) -> Result<()> {
    // SAFETY: plain numbers.
    check(libc::c_long::from(unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE,
            libc::c_ulong::from(cap),
            0,
            0,
        )
    }))?;
    Ok(())
}

/// `capset(2)`, version 3, on the caller.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let half = |shift: u32| Data {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 takes exactly two data records.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    Ok(())
}

/// Our own permitted capabilities, `capget(2)`; all where the kernel does not say.
pub fn permitted() -> u64 {
    let header: [u32; 2] = [0x2008_0522, 0];
    let mut data = [[0u32; 3]; 2];
    // SAFETY: version 3 fills in exactly two records of three numbers.
    match check(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) }) {
        Ok(_) => u64::from(data[0][1]) | u64::from(data[1][1]) << 32,
        Err(_) => u64::MAX,
    }
}

/// `PR_SET_NO_NEW_PRIVS`.
pub fn set_no_new_privs() -> Result<()> {
    nix::sys::prctl::set_no_new_privs()
}

/// Joins a new anonymous session keyring named `name`: `KEYCTL_JOIN_SESSION_KEYRING`, `keyctl(2)`.
pub fn join_session_keyring(name: &std::ffi::CStr) -> Result<i64> {
    // SAFETY: `name` is NUL-terminated.
    check(unsafe { libc::syscall(libc::SYS_keyctl, 1, name.as_ptr()) })
}

/// What the user namespace of this process allows. It is looked at once, and again where the process has entered another one.
static USERS: AtomicU8 = AtomicU8::new(0);
const KNOWN: u8 = 1;
const OF_NODE: u8 = 2;
const GROUPS_DENIED: u8 = 4;

fn users() -> u8 {
    match USERS.load(Ordering::Relaxed) {
        0 => look_at_users(),
        known => known,
    }
}

/// To be called after another user namespace was entered.
pub fn look_at_users() -> u8 {
    let map = crate::procfs::read("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    let setgroups = crate::procfs::read("/proc/self/setgroups").unwrap_or_default();
    let mut users = KNOWN;
    // A kernel without user namespaces has no such file.
    if whole || map.is_empty() {
        users |= OF_NODE;
    }
    if setgroups.trim() == "deny" {
        users |= GROUPS_DENIED;
    }
    USERS.store(users, Ordering::Relaxed);
    users
}

/// Whether this process's user namespace lets nobody change supplementary groups.
pub fn are_groups_denied() -> bool {
    users() & GROUPS_DENIED != 0
}

/// Whether this process is in a user namespace other than the node's: what root is there has no rights over the node.
pub fn is_in_user_namespace() -> bool {
    users() & OF_NODE == 0
}

/// Whether this process has rights over the node: it is root, in the node's user namespace.
pub fn is_nodes_root() -> bool {
    rustix::process::geteuid().is_root() && !is_in_user_namespace()
}

/// Whether this process is root of the machine that it sees: of the node, or of a system container whose first process is in the same
/// user namespace. Root of a user namespace that an ordinary user has made is neither.
pub fn is_root_of_machine() -> bool {
    let users_of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/user")).ok();
    is_nodes_root() || (rustix::process::geteuid().is_root() && users_of("1") == users_of("self"))
}

/// What the processes of a container may do with its session keyring, keyctl(2): its possessors everything, its user view, read,
/// search and link.
pub const KEYS_OF_CONTAINER: u32 = 0x3f1b_0000;

/// `keyctl(KEYCTL_SETPERM)`.
pub fn set_key_permissions(key: i64, permissions: u32) -> Result<()> {
    // SAFETY: plain numbers; 5 is KEYCTL_SETPERM.
    check(unsafe { libc::syscall(libc::SYS_keyctl, 5, key, permissions) })?;
    Ok(())
}
