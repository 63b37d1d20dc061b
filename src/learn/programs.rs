//! The programs in the kernel that count what a pid namespace uses. They decide nothing, and cost nothing to others but the
//! question whether the caller is in the namespace.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "fields of eBPF instructions"
)]

use super::btf::Btf;
use crate::sys::bpf::EbpfInsn;
use crate::sys::ebpf::{FP, Label, Program, Size};

// enum bpf_func_id, linux/bpf.h
const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const GET_COMM: i32 = 16;
const READ_USER: i32 = 112;
const READ_KERNEL: i32 = 113;
const READ_USER_STRING: i32 = 114;
const READ_KERNEL_STRING: i32 = 115;
const NAMESPACE_PID: i32 = 120;

/// Bytes of a path that are kept.
const PATH: usize = 256;
/// A call, or a capability with [`REFUSED`].
pub(super) const NUMBER_KEY: usize = 8;
/// The call, the directory and the process that a relative path begins at, how it was opened, and the path.
pub(super) const PATH_KEY: usize = 16 + PATH;
/// A capability that was asked for and not there.
pub(super) const REFUSED: u64 = 64;

/// Who is watched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watched {
    /// The pid namespace's device and inode.
    pub dev: u64,
    pub ino: u64,
    /// The name of our own processes, which set containers up.
    pub comm: [u8; 16],
}

/// A program that ends unless the caller is watched. The context is in r6.
fn begin(watched: Watched) -> (Program, Label) {
    let mut p = Program::default();
    let end = p.label();
    p.copy(6, 1);
    p.set_wide(1, watched.dev);
    p.set_wide(2, watched.ino);
    p.copy(3, FP);
    p.add(3, -8);
    p.set(4, 8);
    p.call(NAMESPACE_PID);
    p.if_not(0, 0, end);
    // A process that has not executed the container's program yet is ours. Older kernels do not fill what is behind a name.
    p.store_value(Size::Double, FP, -24, 0);
    p.store_value(Size::Double, FP, -16, 0);
    p.copy(1, FP);
    p.add(1, -24);
    p.set(2, 16);
    p.call(GET_COMM);
    let (words, go) = (watched.comm.as_chunks::<8>().0, p.label());
    for (word, off) in words.iter().zip([-24, -16]) {
        p.load(Size::Double, 1, FP, off);
        p.set_wide(2, u64::from_ne_bytes(*word));
        p.if_differ(1, 2, go);
    }
    p.go(end);
    p.here(go);
    (p, end)
}

/// Adds one to the map's entry for the key at `FP + key`. `room` is where eight bytes may be written.
fn count(p: &mut Program, map: i32, key: i16, room: i16) {
    let (new, done) = (p.label(), p.label());
    p.set_map(1, map);
    p.copy(2, FP);
    p.add(2, i32::from(key));
    p.call(MAP_LOOKUP);
    p.if_equal(0, 0, new);
    p.set(1, 1);
    p.atomic_add(0, 0, 1);
    p.go(done);
    p.here(new);
    p.store_value(Size::Double, FP, room, 1);
    p.set_map(1, map);
    p.copy(2, FP);
    p.add(2, i32::from(key));
    p.copy(3, FP);
    p.add(3, i32::from(room));
    p.set(4, 0);
    p.call(MAP_UPDATE);
    p.here(done);
}

fn finish(mut p: Program, end: Label) -> Vec<EbpfInsn> {
    p.here(end);
    p.answer(0);
    p.finish()
}

/// System calls, at the raw tracepoint `sys_enter`, which comes after filters.
pub(super) fn calls(watched: Watched, map: i32) -> Vec<EbpfInsn> {
    let (mut p, end) = begin(watched);
    p.load(Size::Double, 7, 6, 8);
    p.store(Size::Double, FP, -32, 7);
    count(&mut p, map, -32, -40);
    finish(p, end)
}

/// Capabilities that decided something: at the tracepoint `cap_capable` (Linux 6.14), or at the end of the function of this name.
pub(super) fn capabilities(watched: Watched, map: i32, at_tracepoint: bool) -> Vec<EbpfInsn> {
    const NOAUDIT: i32 = 2;
    let (mut p, end) = begin(watched);
    if at_tracepoint {
        // cred, namespace, its ancestor, capability, and the answer
        p.load(Size::Double, 7, 6, 24);
    } else {
        // cred, namespace, capability, options, and the answer
        p.load(Size::Double, 7, 6, 24);
        p.and(7, NOAUDIT);
        p.if_not(7, 0, end);
        p.load(Size::Double, 7, 6, 16);
    }
    p.and(7, 63);
    p.load(Size::Double, 8, 6, 32);
    let granted = p.label();
    // The answer is an int: its upper half is anything.
    p.and(8, 0xffff);
    p.if_equal(8, 0, granted);
    p.or(7, REFUSED as i32);
    p.here(granted);
    p.store(Size::Double, FP, -32, 7);
    count(&mut p, map, -32, -40);
    finish(p, end)
}

/// Where the key of a path is in the frame.
const KEY: i16 = -312;

fn clear_key(p: &mut Program) {
    for i in 0..PATH_KEY / 8 {
        p.store_value(Size::Double, FP, KEY + 8 * i as i16, 0);
    }
}

/// Reads the path at r8 and counts it.
fn count_path(p: &mut Program, map: i32, helper: i32, end: Label) {
    // The process, by its number in the container.
    p.load(Size::Word, 1, FP, -4);
    p.store(Size::Word, FP, KEY + 8, 1);
    p.copy(1, FP);
    p.add(1, i32::from(KEY) + 16);
    p.set(2, PATH as i32);
    p.copy(3, 8);
    p.call(helper);
    p.if_negative(0, end);
    // An absolute path is the same wherever it is from, but whose directory changed is of interest.
    let relative = p.label();
    p.load(Size::Word, 1, FP, KEY);
    p.if_equal(1, libc::SYS_chdir as i32, relative);
    p.load(Size::Byte, 1, FP, KEY + 16);
    p.if_not(1, i32::from(b'/'), relative);
    p.store_value(Size::Word, FP, KEY + 4, 0);
    p.store_value(Size::Word, FP, KEY + 8, 0);
    p.here(relative);
    count(p, map, KEY, -32);
}

/// Programs that are executed, and the interpreters of scripts, at the raw tracepoint `sched_process_exec`.
pub(super) fn programs(watched: Watched, map: i32, btf: &Btf) -> Option<Vec<EbpfInsn>> {
    let (mut p, end) = begin(watched);
    p.load(Size::Double, 6, 6, 16); // struct linux_binprm
    for member in ["filename", "interp"] {
        clear_key(&mut p);
        p.store_value(Size::Word, FP, KEY, libc::SYS_execve as i32);
        p.store_value(Size::Word, FP, KEY + 4, libc::AT_FDCWD);
        p.copy(1, FP);
        p.add(1, -32);
        p.set(2, 8);
        p.copy(3, 6);
        p.add(3, i32::from(btf.offset("linux_binprm", member)?));
        p.call(READ_KERNEL);
        p.load(Size::Double, 8, FP, -32);
        count_path(&mut p, map, READ_KERNEL_STRING, end);
    }
    Some(finish(p, end))
}

/// Where `struct pt_regs` has what, on `x86_64`.
mod regs {
    pub(crate) const R10: i16 = 56;
    pub(crate) const DX: i16 = 96;
    pub(crate) const SI: i16 = 104;
    pub(crate) const DI: i16 = 112;
    pub(crate) const ORIG_AX: i16 = 120;
}

/// Where a call says how it opens.
#[derive(Clone, Copy)]
enum Flags {
    /// It does not open.
    None,
    /// In a register.
    In(i16),
    /// At the beginning of what a register points to.
    At(i16),
    /// Always these.
    Are(i32),
}

/// Where a call has a path, and the directory that this begins at, if it has one. `bind(2)` has an address.
const PATHS: [(i64, i16, Option<i16>, Flags); 24] = [
    (libc::SYS_chdir, regs::DI, None, Flags::None),
    (libc::SYS_open, regs::DI, None, Flags::In(regs::SI)),
    (
        libc::SYS_openat,
        regs::SI,
        Some(regs::DI),
        Flags::In(regs::DX),
    ),
    (
        libc::SYS_openat2,
        regs::SI,
        Some(regs::DI),
        Flags::At(regs::DX),
    ),
    (
        libc::SYS_creat,
        regs::DI,
        None,
        Flags::Are(libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC),
    ),
    (libc::SYS_mkdir, regs::DI, None, Flags::None),
    (libc::SYS_rmdir, regs::DI, None, Flags::None),
    (libc::SYS_unlink, regs::DI, None, Flags::None),
    (libc::SYS_rename, regs::DI, None, Flags::None),
    (libc::SYS_rename, regs::SI, None, Flags::None),
    (libc::SYS_link, regs::SI, None, Flags::None),
    (libc::SYS_symlink, regs::SI, None, Flags::None),
    (libc::SYS_mknod, regs::DI, None, Flags::None),
    (libc::SYS_truncate, regs::DI, None, Flags::None),
    (libc::SYS_mkdirat, regs::SI, Some(regs::DI), Flags::None),
    (libc::SYS_unlinkat, regs::SI, Some(regs::DI), Flags::None),
    (libc::SYS_renameat, regs::SI, Some(regs::DI), Flags::None),
    (libc::SYS_renameat, regs::R10, Some(regs::DX), Flags::None),
    (libc::SYS_renameat2, regs::SI, Some(regs::DI), Flags::None),
    (libc::SYS_renameat2, regs::R10, Some(regs::DX), Flags::None),
    (libc::SYS_linkat, regs::R10, Some(regs::DX), Flags::None),
    (libc::SYS_symlinkat, regs::DX, Some(regs::SI), Flags::None),
    (libc::SYS_mknodat, regs::SI, Some(regs::DI), Flags::None),
    (libc::SYS_bind, regs::SI, None, Flags::None),
];

/// Whether a call opens a file; the others make, move or remove what is at their paths.
pub(super) fn opens(call: i64) -> bool {
    let flags = PATHS.iter().find(|p| p.0 == call).map(|p| p.3);
    flags.is_some_and(|f| !matches!(f, Flags::None))
}

/// Processes that are made, and by whom, at the raw tracepoint `sys_exit`: the key is the child's number and the parent's.
pub(super) fn forks(watched: Watched, map: i32) -> Vec<EbpfInsn> {
    let (mut p, end) = begin(watched);
    p.load(Size::Double, 8, 6, 8);
    p.if_negative(8, end);
    p.if_equal(8, 0, end); // the child
    p.load(Size::Double, 6, 6, 0); // pt_regs
    p.copy(1, FP);
    p.add(1, -32);
    p.set(2, 8);
    p.copy(3, 6);
    p.add(3, i32::from(regs::ORIG_AX));
    p.call(READ_KERNEL);
    p.load(Size::Double, 7, FP, -32);
    let made = p.label();
    for call in [
        libc::SYS_clone,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_clone3,
    ] {
        p.if_equal(7, call as i32, made);
    }
    p.go(end);
    p.here(made);
    p.load(Size::Word, 1, FP, -4);
    p.store(Size::Word, FP, -32, 1);
    p.store(Size::Word, FP, -28, 8);
    count(&mut p, map, -32, -40);
    finish(p, end)
}

/// Files that are opened, and paths that are made, moved or removed, at the raw tracepoint `sys_exit`: one program for the first
/// path of a call and, with `second`, one for the other.
pub(super) fn paths(watched: Watched, map: i32, second: bool) -> Vec<EbpfInsn> {
    let (mut p, end) = begin(watched);
    // Only what was done.
    p.load(Size::Double, 7, 6, 8);
    p.if_negative(7, end);
    p.load(Size::Double, 6, 6, 0); // pt_regs
    clear_key(&mut p);
    // To r8.
    let register = |p: &mut Program, off: i16| {
        p.copy(1, FP);
        p.add(1, -32);
        p.set(2, 8);
        p.copy(3, 6);
        p.add(3, i32::from(off));
        p.call(READ_KERNEL);
        p.load(Size::Double, 8, FP, -32);
    };
    // To the frame at -40.
    let memory = |p: &mut Program, bytes: i32| {
        p.store_value(Size::Double, FP, -40, 0);
        p.copy(1, FP);
        p.add(1, -40);
        p.set(2, bytes);
        p.copy(3, 8);
        p.call(READ_USER);
    };
    register(&mut p, regs::ORIG_AX);
    p.copy(7, 8);
    let read = p.label();
    let mut seen: Vec<i64> = Vec::new();
    for (call, path, directory, flags) in PATHS {
        let is_second = seen.contains(&call);
        seen.push(call);
        if is_second != second {
            continue;
        }
        let next = p.label();
        p.if_not(7, call as i32, next);
        match flags {
            Flags::None => {}
            Flags::In(place) => {
                register(&mut p, place);
                p.store(Size::Word, FP, KEY + 12, 8);
            }
            Flags::At(place) => {
                register(&mut p, place);
                memory(&mut p, 8);
                p.load(Size::Word, 1, FP, -40);
                p.store(Size::Word, FP, KEY + 12, 1);
            }
            Flags::Are(value) => p.store_value(Size::Word, FP, KEY + 12, value),
        }
        p.store_value(Size::Word, FP, KEY + 4, libc::AT_FDCWD);
        if let Some(directory) = directory {
            register(&mut p, directory);
            p.store(Size::Word, FP, KEY + 4, 8);
        }
        register(&mut p, path);
        if call == libc::SYS_bind {
            // The family, and after it the path.
            memory(&mut p, 2);
            p.load(Size::Half, 1, FP, -40);
            p.if_not(1, libc::AF_UNIX, end);
            p.add(8, 2);
        }
        p.go(read);
        p.here(next);
    }
    p.go(end);
    p.here(read);
    p.store(Size::Word, FP, KEY, 7);
    count_path(&mut p, map, READ_USER_STRING, end);
    finish(p, end)
}
