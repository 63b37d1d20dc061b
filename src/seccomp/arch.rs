//! Processor architectures, and the numbers that they have for system calls.

use std::str::FromStr;

use oci_spec::runtime::Arch;

/// x32's calls carry this bit.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// An architecture that this kernel can run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Abi {
    /// `AUDIT_ARCH_*`, linux/audit.h.
    pub audit: u32,
    pub bits: u32,
    pub number: fn(&str) -> Option<u32>,
}

fn lookup<S: FromStr>(id: impl Fn(S) -> u32) -> impl Fn(&str) -> Option<u32> {
    move |name| S::from_str(name).ok().map(&id)
}

pub(super) fn x86_64(name: &str) -> Option<u32> {
    lookup(|s: syscalls::x86_64::Sysno| s.id().cast_unsigned())(name)
}

fn x86(name: &str) -> Option<u32> {
    lookup(|s: syscalls::x86::Sysno| s.id().cast_unsigned())(name)
}

fn aarch64(name: &str) -> Option<u32> {
    lookup(|s: syscalls::aarch64::Sysno| s.id().cast_unsigned())(name)
}

fn arm(name: &str) -> Option<u32> {
    lookup(|s: syscalls::arm::Sysno| s.id().cast_unsigned())(name)
}

fn riscv64(name: &str) -> Option<u32> {
    lookup(|s: syscalls::riscv64::Sysno| s.id().cast_unsigned())(name)
}

/// x32 shares the 64-bit numbers but for the calls whose structures differ, `arch/x86/entry/syscalls/syscall_64.tbl`.
fn x32(name: &str) -> Option<u32> {
    let number = match name {
        "rt_sigaction" => 512,
        "rt_sigreturn" => 513,
        "ioctl" => 514,
        "readv" => 515,
        "writev" => 516,
        "recvfrom" => 517,
        "sendmsg" => 518,
        "recvmsg" => 519,
        "execve" => 520,
        "ptrace" => 521,
        "rt_sigpending" => 522,
        "rt_sigtimedwait" => 523,
        "rt_sigqueueinfo" => 524,
        "sigaltstack" => 525,
        "timer_create" => 526,
        "mq_notify" => 527,
        "kexec_load" => 528,
        "waitid" => 529,
        "set_robust_list" => 530,
        "get_robust_list" => 531,
        "vmsplice" => 532,
        "move_pages" => 533,
        "preadv" => 534,
        "pwritev" => 535,
        "rt_tgsigqueueinfo" => 536,
        "recvmmsg" => 537,
        "sendmmsg" => 538,
        "process_vm_readv" => 539,
        "process_vm_writev" => 540,
        "setsockopt" => 541,
        "getsockopt" => 542,
        "io_setup" => 543,
        "io_submit" => 544,
        "execveat" => 545,
        "preadv2" => 546,
        "pwritev2" => 547,
        _ => x86_64(name)?,
    };
    Some(number | X32_BIT)
}

pub(super) const X86_64: Abi = Abi {
    audit: 0xc000_003e,
    bits: 64,
    number: x86_64,
};
pub(super) const X86: Abi = Abi {
    audit: 0x4000_0003,
    bits: 32,
    number: x86,
};
const X32: Abi = Abi {
    audit: 0xc000_003e,
    bits: 64,
    number: x32,
};
const AARCH64: Abi = Abi {
    audit: 0xc000_00b7,
    bits: 64,
    number: aarch64,
};
pub(super) const ARM: Abi = Abi {
    audit: 0x4000_0028,
    bits: 32,
    number: arm,
};
const RISCV64: Abi = Abi {
    audit: 0xc000_00f3,
    bits: 64,
    number: riscv64,
};

pub(super) const NATIVE: Abi = if cfg!(target_arch = "aarch64") {
    AARCH64
} else if cfg!(target_arch = "riscv64") {
    RISCV64
} else {
    X86_64
};

/// The ABI behind an OCI name; `None` for processors that are not ours, whose calls can never arrive here.
pub(super) fn abi(arch: Arch) -> Option<(Abi, bool)> {
    let (abi, x32) = match arch {
        Arch::ScmpArchNative => (NATIVE, false),
        Arch::ScmpArchX86_64 => (X86_64, false),
        Arch::ScmpArchX86 => (X86, false),
        Arch::ScmpArchX32 => (X32, true),
        Arch::ScmpArchAarch64 => (AARCH64, false),
        Arch::ScmpArchArm => (ARM, false),
        Arch::ScmpArchRiscv64 => (RISCV64, false),
        _ => return None,
    };
    let ours: &[u32] = match NATIVE.audit {
        0xc000_00b7 => &[AARCH64.audit, ARM.audit],
        0xc000_00f3 => &[RISCV64.audit],
        _ => &[X86_64.audit, X86.audit],
    };
    ours.contains(&abi.audit).then_some((abi, x32))
}

/// Whether a system call of this name exists on any architecture that filters can name.
pub fn is_known(name: &str) -> bool {
    let numbers = [x86_64, x86, aarch64, arm, riscv64];
    numbers.iter().any(|number| number(name).is_some())
}

/// The name of one of this machine's own system calls.
pub fn own_name(number: u32) -> String {
    name_of(NATIVE.audit, number)
}

/// This machine's own system calls.
pub fn own_calls() -> impl Iterator<Item = String> {
    const NUMBERS: std::ops::Range<u32> = 0..1024;
    let names = NUMBERS.map(own_name);
    names.filter(|name| !name.starts_with(UNNAMED))
}

/// What a call without a name begins with.
const UNNAMED: &str = "syscall ";

/// The name of a call that came from a process, with its number and `AUDIT_ARCH_*`.
pub fn name_of(arch: u32, number: u32) -> String {
    let name = |found: Option<&'static str>| found.map(str::to_owned);
    let id = number as usize;
    let found = match arch {
        a if a == X86_64.audit => {
            name(syscalls::x86_64::Sysno::new(id & !(X32_BIT as usize)).map(|s| s.name()))
        }
        a if a == X86.audit => name(syscalls::x86::Sysno::new(id).map(|s| s.name())),
        a if a == AARCH64.audit => name(syscalls::aarch64::Sysno::new(id).map(|s| s.name())),
        a if a == ARM.audit => name(syscalls::arm::Sysno::new(id).map(|s| s.name())),
        a if a == RISCV64.audit => name(syscalls::riscv64::Sysno::new(id).map(|s| s.name())),
        _ => None,
    };
    found.unwrap_or_else(|| format!("{UNNAMED}{number}"))
}
