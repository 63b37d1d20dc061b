//! The built-in seccomp floors: deny-lists that are loaded before a pod's own filter, so that nothing in a pod's spec lifts
//! them. What ordinary programs do is not on them; a pod's own filter is the place for an allow-list.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

use super::profile::{CallAction, Profile};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const EPROTONOSUPPORT: u32 = 93;
const EOPNOTSUPP: u32 = 95;
const EAFNOSUPPORT: u32 = 97;

/// Kernel surface that no service needs, and that exploits do.
const REFUSED: &[&str] = &[
    // Mounts, the old calls and the new.
    "mount",
    "umount",
    "umount2",
    "pivot_root",
    "open_tree",
    "open_tree_attr",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "chroot",
    // Namespaces of others, and new ones by unshare; clone's are below.
    "setns",
    "unshare",
    // Code in the kernel.
    "bpf",
    "init_module",
    "finit_module",
    "delete_module",
    "create_module",
    "kexec_load",
    "kexec_file_load",
    // Other processes.
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "kcmp",
    "process_madvise",
    "move_pages",
    "migrate_pages",
    // Observation, and pages that user space answers for: the exploits' favourites.
    "perf_event_open",
    "userfaultfd",
    "lookup_dcookie",
    "syslog",
    "fanotify_init",
    // Keys are not namespaced.
    "add_key",
    "request_key",
    "keyctl",
    // Files by handle lead around every mount.
    "open_by_handle_at",
    // The machine.
    "reboot",
    "swapon",
    "swapoff",
    "acct",
    "quotactl",
    "quotactl_fd",
    "settimeofday",
    "clock_settime",
    "clock_settime64",
    "adjtimex",
    "clock_adjtime",
    "clock_adjtime64",
    "stime",
    "sethostname",
    "setdomainname",
    "iopl",
    "ioperm",
    "vhangup",
    "nfsservctl",
    "uselib",
    "_sysctl",
    "sysfs",
    "ustat",
    "vm86",
    "vm86old",
    // Memory that not even the kernel can look into, and that keeps it from sleeping.
    "memfd_secret",
];

/// Calls that programs try and do without: as if the kernel had none.
const ABSENT: &[&str] = &[
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    // Its flags are in memory, where no filter can look: glibc goes on with clone.
    "clone3",
    // Every mount of the namespace, masked ones among them, where /proc/self/mountinfo has the same.
    "listmount",
    "statmount",
    // For programs of the last century; exploits of this one use both.
    "modify_ldt",
    "remap_file_pages",
];

/// The namespace flags of clone, `linux/sched.h`.
const NAMESPACES: [u64; 8] = [
    0x0002_0000, // CLONE_NEWNS
    0x0200_0000, // CLONE_NEWCGROUP
    0x0400_0000, // CLONE_NEWUTS
    0x0800_0000, // CLONE_NEWIPC
    0x1000_0000, // CLONE_NEWUSER
    0x2000_0000, // CLONE_NEWPID
    0x4000_0000, // CLONE_NEWNET
    0x0000_0080, // CLONE_NEWTIME
];

/// Address families that stay: unix, IPv4, IPv6, and netlink, which `getaddrinfo(3)` uses.
const FAMILIES: [u64; 4] = [1, 2, 10, 16];

/// Types of sockets of IPv4 and IPv6 that stay: stream, datagram, raw. The kernel loads a module for each other type.
const TYPES: [u64; 3] = [1, 2, 3];
/// The bits of a type beside its flags: `SOCK_TYPE_MASK`.
const TYPE: u64 = 0xf;

/// Protocols of IPv4 and IPv6 that stay: the type's own, ICMP, TCP, UDP, ICMP of IPv6. The kernel loads modules for others (DCCP, SCTP,
/// L2TP, …).
const PROTOCOLS: [u64; 5] = [0, 1, 6, 17, 58];

/// Protocols of netlink that stay: routes (`getaddrinfo(3)`), and events of devices. Generic netlink loads a module for each
/// family that it does not know.
const NETLINK: [u64; 2] = [0, 15];

/// Bits of a personality that change nothing but what `uname(2)` says: `PER_LINUX32`, `UNAME26`. To ask for the present one
/// (all bits) is refused, too.
const HARMLESS_PERSONALITY: u64 = 0x8 | 0x2_0000;

/// Requests of `ioctl(2)` that are refused.
const REQUESTS: [u64; 9] = [
    // Writing to a terminal as if its user typed: TIOCSTI, TIOCLINUX.
    0x5412, 0x541c,
    // The kernel loads a module for each of these: TIOCSETD, SIOCGIFBR, SIOCSIFBR, SIOCADDDLCI, SIOCDELDLCI, SIOCGIFVLAN,
    // SIOCSIFVLAN.
    0x5423, 0x8940, 0x8941, 0x8980, 0x8981, 0x8982, 0x8983,
];

/// `RLIMIT_CORE`.
const CORE: u64 = 4;
/// The bits of an argument that the kernel takes as an `int`.
const INT: u64 = 0xffff_ffff;

const MSG_FASTOPEN: u64 = 0x2000_0000;
/// SMC and MPTCP connect by TCP without Landlock's check: their protocols, and the family of SMC.
const OVER_TCP: [u64; 2] = [256, 262];
const AF_SMC: u64 = 43;

fn rule(names: &[&str], action: LinuxSeccompAction) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.iter().map(|n| (*n).to_owned()).collect());
    rule.set_action(action);
    rule
}

fn refuse(names: &[&str], errno: u32) -> LinuxSyscall {
    let mut rule = rule(names, LinuxSeccompAction::ScmpActErrno);
    rule.set_errno_ret(Some(errno));
    rule
}

fn refuse_if(names: &[&str], errno: u32, args: &[LinuxSeccompArg]) -> LinuxSyscall {
    let mut rule = refuse(names, errno);
    rule.set_args(Some(args.to_vec()));
    rule
}

/// Compares an argument. Every field of the builder has a default, so it does not fail.
fn compare(
    index: usize,
    op: LinuxSeccompOperator,
    value: u64,
    value_two: Option<u64>,
) -> LinuxSeccompArg {
    let mut arg = LinuxSeccompArgBuilder::default()
        .index(index)
        .op(op)
        .value(value);
    if let Some(two) = value_two {
        arg = arg.value_two(two);
    }
    arg.build().unwrap_or_default()
}

fn equals(index: usize, value: u64) -> LinuxSeccompArg {
    compare(index, LinuxSeccompOperator::ScmpCmpEq, value, None)
}

fn exceeds(index: usize, value: u64) -> LinuxSeccompArg {
    compare(index, LinuxSeccompOperator::ScmpCmpGt, value, None)
}

/// Whether the argument has `value` in the bits of `mask`.
fn masked(index: usize, mask: u64, value: u64) -> LinuxSeccompArg {
    let op = LinuxSeccompOperator::ScmpCmpMaskedEq;
    compare(index, op, mask, Some(value))
}

/// Conditions of which one holds for every value of an argument's bits in `mask` but for the `allowed` ones. A rule for each:
/// conditions on the same argument are alternatives, as runc has them (moby#52494).
fn others_of(index: usize, mask: u64, allowed: &[u64]) -> Vec<LinuxSeccompArg> {
    // Blocks of numbers whose upper bits agree, halved until no allowed number is in them.
    let mut blocks = vec![(0, mask + 1)];
    let mut conditions = Vec::new();
    while let Some((start, size)) = blocks.pop() {
        let block = start..start + size;
        if !allowed.iter().any(|a| block.contains(a)) {
            conditions.push(masked(index, mask & !(size - 1), start));
        } else if size > 1 {
            blocks.extend([(start, size / 2), (start + size / 2, size / 2)]);
        }
    }
    conditions
}

/// As [`others_of`], for the whole argument, whose allowed values are below `2^bits`.
fn others(index: usize, bits: u32, allowed: &[u64]) -> Vec<LinuxSeccompArg> {
    let mask = (1 << bits) - 1;
    let mut conditions = others_of(index, mask, allowed);
    conditions.push(exceeds(index, mask));
    conditions
}

fn rules() -> Vec<LinuxSyscall> {
    let mut rules = vec![refuse(REFUSED, EPERM), refuse(ABSENT, ENOSYS)];
    for family in others(0, 5, &FAMILIES) {
        rules.push(refuse_if(
            &["socket", "socketpair"],
            EAFNOSUPPORT,
            &[family],
        ));
    }
    // Of the families that stay, IPv4 and IPv6 alone have this bit.
    let is_ip = masked(0, 2, 2);
    let types = others_of(1, TYPE, &TYPES);
    for refused in types.into_iter().chain(others(2, 6, &PROTOCOLS)) {
        rules.push(refuse_if(&["socket"], EPROTONOSUPPORT, &[is_ip, refused]));
    }
    for protocol in others(2, 4, &NETLINK) {
        let args = [equals(0, 16), protocol];
        rules.push(refuse_if(&["socket"], EPROTONOSUPPORT, &args));
    }
    for bit in (0..32).map(|b| 1_u64 << b) {
        if bit & HARMLESS_PERSONALITY == 0 {
            rules.push(refuse_if(&["personality"], EPERM, &[masked(0, bit, bit)]));
        }
    }
    for flag in NAMESPACES {
        rules.push(refuse_if(&["clone"], EPERM, &[masked(0, flag, flag)]));
    }
    for request in REQUESTS {
        let is = masked(1, INT, request);
        rules.push(refuse_if(&["ioctl"], EPERM, &[is]));
    }
    rules
}

fn filter(rules: Vec<LinuxSyscall>) -> LinuxSeccomp {
    let mut filter = LinuxSeccomp::default();
    filter.set_default_action(LinuxSeccompAction::ScmpActAllow);
    filter.set_syscalls(Some(rules));
    filter
}

/// For ordinary services.
pub(super) fn hardened() -> LinuxSeccomp {
    filter(rules())
}

/// For code that nobody reviewed: no programs on sockets, no urgent data, and no message queues that outlive their users.
pub(super) fn untrusted() -> LinuxSeccomp {
    let mut rules = rules();
    // Urgent data, on unix sockets too (CVE-2025-38236): MSG_OOB.
    for (names, index) in [
        (&["sendmsg", "recvmsg"][..], 2),
        (&["sendto", "recvfrom", "sendmmsg", "recvmmsg"][..], 3),
    ] {
        rules.push(refuse_if(names, EOPNOTSUPP, &[masked(index, 1, 1)]));
    }
    // Programs for the kernel to run on packets: SO_ATTACH_FILTER, SO_ATTACH_BPF and those of SO_REUSEPORT.
    for option in [26, 50, 51, 52] {
        let args = [equals(1, 1), equals(2, option)];
        rules.push(refuse_if(&["setsockopt"], EPERM, &args));
    }
    rules.push(refuse(
        &["name_to_handle_at", "mq_open", "set_mempolicy_home_node"],
        EPERM,
    ));
    filter(rules)
}

/// One that lets everything through.
pub(super) fn empty() -> LinuxSeccomp {
    filter(Vec::new())
}

/// Adds to the floor the rules without which `limits.core_size` and `landlock` could be walked around. `None` if nothing is refused.
pub(super) fn with_needs_of(
    floor: Option<LinuxSeccomp>,
    profile: &Profile,
) -> Option<LinuxSeccomp> {
    let mut needed = Vec::new();
    // The kernel starts the node's program for core dumps at every limit but 1, and everybody may lower the limit to 0. So the call
    // that sets it reports success and changes nothing.
    if profile.limits.core_size.max == Some(1) {
        let [old, new] = [masked(0, INT, CORE), masked(1, INT, CORE)];
        let is_set = compare(2, LinuxSeccompOperator::ScmpCmpNe, 0, None);
        needed.push(refuse_if(&["setrlimit"], 0, &[old]));
        needed.push(refuse_if(&["prlimit64"], 0, &[new, is_set]));
    }
    // Connections that are not made by connect(2) of a TCP socket.
    if profile.landlock.tcp_connect.is_some() {
        for (names, index) in [(&["sendmsg"][..], 2), (&["sendto", "sendmmsg"][..], 3)] {
            let fast_open = masked(index, MSG_FASTOPEN, MSG_FASTOPEN);
            needed.push(refuse_if(names, EOPNOTSUPP, &[fast_open]));
        }
        needed.push(refuse(&["io_uring_setup"], ENOSYS));
    }
    if profile.landlock.tcp_connect.is_some() || profile.landlock.tcp_bind.is_some() {
        let smc = masked(0, INT, AF_SMC);
        needed.push(refuse_if(&["socket"], EAFNOSUPPORT, &[smc]));
        for protocol in OVER_TCP {
            let is = masked(2, INT, protocol);
            needed.push(refuse_if(&["socket"], EPROTONOSUPPORT, &[is]));
        }
    }
    if needed.is_empty() {
        return floor;
    }
    let mut floor = floor.unwrap_or_else(empty);
    needed.extend(floor.syscalls().iter().flatten().cloned());
    floor.set_syscalls(Some(needed));
    Some(floor)
}

/// The floor with other actions for single calls.
pub(super) fn with_actions(
    mut floor: LinuxSeccomp,
    actions: &BTreeMap<String, CallAction>,
) -> LinuxSeccomp {
    if actions.is_empty() {
        return floor;
    }
    let mut rules = floor.syscalls().clone().unwrap_or_default();
    for rule in &mut rules {
        let kept = rule.names().iter().filter(|n| !actions.contains_key(*n));
        rule.set_names(kept.cloned().collect());
    }
    rules.retain(|r| !r.names().is_empty());
    for (name, action) in actions {
        rules.push(match action {
            CallAction::Allow => continue,
            CallAction::Audit => rule(&[name], LinuxSeccompAction::ScmpActLog),
            CallAction::Deny => refuse(&[name], EPERM),
            CallAction::Kill => rule(&[name], LinuxSeccompAction::ScmpActKillProcess),
        });
    }
    floor.set_syscalls(Some(rules));
    floor
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_floors_compile() {
        for floor in [super::hardened(), super::untrusted()] {
            assert!(floor.syscalls().as_ref().unwrap().len() > 10);
            crate::seccomp::compile(&floor).unwrap();
        }
    }
}
