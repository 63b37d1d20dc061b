//! What the running kernel offers.

use std::fs;
use std::path::Path;

use nix::errno::Errno;

/// A feature that only some supported kernels have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Name, for people and programs.
    pub name: &'static str,
    /// Major and minor number of the first Linux that has it.
    pub since: (u32, u32),
    /// Whether this kernel does.
    pub available: bool,
}

/// Major and minor number of the running kernel, `uname(2)`; zeros where they cannot be told.
pub fn version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether the kernel knows a `SECCOMP_FILTER_FLAG_*`, `seccomp(2)`.
pub fn has_seccomp_flag(flag: libc::c_ulong) -> bool {
    // SAFETY: a null program is refused with EFAULT, after the flags were looked at.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flag,
            std::ptr::null::<u8>(),
        )
    };
    answer < 0 && Errno::last() == Errno::EFAULT
}

fn has_mount_setattr() -> bool {
    // SAFETY: the descriptor is none, so nothing is changed.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            -1,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::null::<u8>(),
            0,
        )
    };
    answer < 0 && Errno::last() != Errno::ENOSYS
}

/// The version of Landlock's interface, `landlock_create_ruleset(2)`; 0 where there is none.
pub fn landlock_abi() -> u32 {
    const VERSION: u32 = 1; // LANDLOCK_CREATE_RULESET_VERSION
    // SAFETY: with this flag the call only tells a number.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0,
            VERSION,
        )
    };
    u32::try_from(abi).unwrap_or(0)
}

/// Whether processor cores can be kept from others, or why not: `PR_SCHED_CORE`, `kernel/sched/core_sched.c`.
pub fn core_scheduling() -> Result<(), &'static str> {
    const SCHED_CORE: i32 = 62;
    const GET: u64 = 0;
    let mut cookie = 0u64;
    // SAFETY: the kernel writes one number to `cookie`; 0 is the calling thread.
    let got = unsafe { libc::prctl(SCHED_CORE, GET, 0u64, 0u64, &raw mut cookie) };
    match nix::errno::Errno::result(got) {
        Ok(_) => Ok(()),
        Err(nix::errno::Errno::ENODEV) => Err(
            "this machine shows no sibling threads (SMT), so no core is shared here; a hypervisor may hide them",
        ),
        Err(_) if version() < (5, 14) => Err("it needs Linux 5.14"),
        Err(_) => Err(
            "this kernel was built without CONFIG_SCHED_CORE: nothing can be done without another kernel",
        ),
    }
}

/// The names of the active security modules. Without securityfs those are found that show themselves elsewhere.
pub fn security_modules() -> Vec<String> {
    if let Ok(list) = fs::read_to_string("/sys/kernel/security/lsm") {
        return list.trim().split(',').map(str::to_owned).collect();
    }
    let mut found = Vec::new();
    for (name, file) in [
        ("apparmor", "/sys/module/apparmor/parameters/enabled"),
        ("selinux", "/sys/fs/selinux/enforce"),
    ] {
        if fs::read_to_string(file).is_ok_and(|s| s.trim() != "N") {
            found.push(name.to_owned());
        }
    }
    if landlock_abi() > 0 {
        found.push("landlock".into());
    }
    found
}

/// What this kernel offers of what we use, beyond our floor of Linux 5.10. Asked of the kernel where it can be asked.
pub fn offers() -> Vec<Offer> {
    let version = version();
    let by_version = |name, since| Offer {
        name,
        since,
        available: version >= since,
    };
    let probed = |name, since, available| Offer {
        name,
        since,
        available,
    };
    vec![
        probed(
            "time-namespaces",
            (5, 6),
            Path::new("/proc/self/ns/time").exists(),
        ),
        probed("idmapped-mounts", (5, 12), has_mount_setattr()),
        probed("recursive-mount-attributes", (5, 12), has_mount_setattr()),
        probed("landlock", (5, 13), landlock_abi() > 0),
        by_version("cgroup-kill", (5, 14)),
        by_version("idmapped-overlay", (5, 19)),
        probed(
            "seccomp-wait-killable",
            (5, 19),
            // The flag is for listeners only.
            has_seccomp_flag(
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | 1 << 5, // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
            ),
        ),
        by_version("idmapped-tmpfs", (6, 3)),
    ]
}
