//! Loading seccomp filters and eBPF programs.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{Result, check};

/// One instruction of a classic BPF program, as `struct sock_filter`.
pub type Insn = libc::sock_filter;

/// One eBPF instruction, as `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EbpfInsn {
    /// Operation.
    pub code: u8,
    /// Destination register in the low nibble, source in the high.
    pub regs: u8,
    /// Jump or memory offset.
    pub off: i16,
    /// Immediate.
    pub imm: i32,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
    attach_prog_fd: u32,
    pad: u32,
}

/// Where a program of a cgroup's is asked about sockets; the values are `enum bpf_attach_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum SocketHook {
    /// `socket(2)` of IPv4 and IPv6: `BPF_PROG_TYPE_CGROUP_SOCK`. All others are `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
    Create = 2,
    /// `connect(2)` to IPv4.
    Connect4 = 10,
    /// `connect(2)` to IPv6.
    Connect6 = 11,
    /// `sendto(2)` and `sendmsg(2)` with an IPv4 address, on UDP.
    Send4 = 14,
    /// The same with an IPv6 address.
    Send6 = 15,
}

impl SocketHook {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Create,
        Self::Connect4,
        Self::Connect6,
        Self::Send4,
        Self::Send6,
    ];
}

/// Loads a program for a hook.
pub fn load_socket_program(hook: SocketHook, insns: &[EbpfInsn]) -> Result<OwnedFd> {
    let prog_type = match hook {
        SocketHook::Create => 9,
        _ => 18,
    };
    load_program(prog_type, hook as u32, insns)
}

/// Attaches it to a cgroup, beside those of its ancestors.
pub fn attach_socket_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    hook: SocketHook,
) -> Result<()> {
    attach_program(cgroup, program, hook as u32)
}

/// Loads a `BPF_PROG_TYPE_CGROUP_DEVICE` program.
pub fn load_device_program(insns: &[EbpfInsn]) -> Result<OwnedFd> {
    load_program(15, 0, insns)
}

/// Where a program is asked that watches and decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// A raw tracepoint, `BPF_PROG_TYPE_RAW_TRACEPOINT`.
    Tracepoint(&'static std::ffi::CStr),
    /// The end of a kernel function, by its BTF id: Linux 5.5.
    Exit(u32),
}

/// Loads a program and attaches it for as long as the two descriptors live.
pub fn probe(at: Probe, insns: &[EbpfInsn]) -> Result<(OwnedFd, OwnedFd)> {
    const RAW_TRACEPOINT: u32 = 17;
    const TRACING: u32 = 26;
    let (prog_type, expected_attach_type, attach_btf_id, name) = match at {
        Probe::Tracepoint(name) => (RAW_TRACEPOINT, 0, 0, name.as_ptr() as u64),
        Probe::Exit(id) => (TRACING, 25, id, 0),
    };
    let program = load(ProgLoad {
        prog_type,
        expected_attach_type,
        attach_btf_id,
        insn_cnt: insns.len() as u32,
        insns: insns.as_ptr() as u64,
        // Helpers that read memory are for programs that may be used under the GPL, as ours may: it is generated.
        license: c"Dual MIT/GPL".as_ptr() as u64,
        ..ProgLoad::default()
    })?;
    let open = [name, program.as_raw_fd() as u64];
    // SAFETY: the name and the program live as long as this call.
    let link = unsafe {
        bpf(17 /* BPF_RAW_TRACEPOINT_OPEN */, &open)
    }?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok((program, unsafe { OwnedFd::from_raw_fd(link as RawFd) }))
}

/// `bpf(2)`.
///
/// # Safety
/// `attr` is the beginning of `union bpf_attr` for the command, and the addresses in it are of buffers that live and are as long as
/// the kernel takes them for.
unsafe fn bpf<T>(command: i32, attr: &T) -> Result<libc::c_long> {
    // SAFETY: what the caller promises; the size that is passed is that of what `attr` refers to.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    })
}

/// A map from keys to values of fixed sizes, `BPF_MAP_TYPE_HASH`.
#[derive(Debug)]
pub struct HashMap {
    fd: OwnedFd,
    key: usize,
    value: usize,
}

impl HashMap {
    /// Makes it. Memory is taken as entries come.
    pub fn new(key: usize, value: usize, entries: u32) -> Result<Self> {
        const HASH: u32 = 1;
        const NO_PREALLOC: u32 = 1;
        let attr = [HASH, key as u32, value as u32, entries, NO_PREALLOC];
        // SAFETY: there are no addresses in it.
        let fd = unsafe {
            bpf(0 /* BPF_MAP_CREATE */, &attr)
        }?;
        // SAFETY: the kernel has just returned this descriptor to us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        Ok(Self { fd, key, value })
    }

    /// Its descriptor, for programs.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Sets one entry.
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() != self.key || value.len() != self.value {
            return Err(nix::errno::Errno::EINVAL);
        }
        let attr = [
            self.fd() as u64,
            key.as_ptr() as u64,
            value.as_ptr() as u64,
            0,
        ];
        // SAFETY: the buffers are of the map's key and value sizes.
        unsafe {
            bpf(2 /* BPF_MAP_UPDATE_ELEM */, &attr)
        }
        .map(drop)
    }

    /// Everything in it. What is added meanwhile may be missing.
    pub fn entries(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = Vec::new();
        let mut key: Option<Vec<u8>> = None;
        loop {
            let mut next = vec![0u8; self.key];
            let before = key.as_ref().map_or(0, |k| k.as_ptr() as u64);
            let attr = [self.fd() as u64, before, next.as_mut_ptr() as u64];
            // SAFETY: both buffers are of the map's key size, or the first address is none.
            if unsafe {
                bpf(4 /* BPF_MAP_GET_NEXT_KEY */, &attr)
            }
            .is_err()
            {
                return all;
            }
            let mut value = vec![0u8; self.value];
            let attr = [
                self.fd() as u64,
                next.as_ptr() as u64,
                value.as_mut_ptr() as u64,
                0,
            ];
            // SAFETY: the buffers are of the map's key and value sizes.
            if unsafe {
                bpf(1 /* BPF_MAP_LOOKUP_ELEM */, &attr)
            }
            .is_ok()
            {
                all.push((next.clone(), value));
            }
            key = Some(next);
        }
    }
}

fn load_program(prog_type: u32, attach_type: u32, insns: &[EbpfInsn]) -> Result<OwnedFd> {
    load(ProgLoad {
        prog_type,
        expected_attach_type: attach_type,
        insn_cnt: insns.len() as u32,
        insns: insns.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
        ..ProgLoad::default()
    })
}

/// The verifier gives up with `EAGAIN` when a signal comes, such as a child's end; libbpf tries again, too.
fn load(attr: ProgLoad) -> Result<OwnedFd> {
    let mut tries = 0;
    loop {
        tries += 1;
        match try_load(&attr) {
            Err(nix::errno::Errno::EAGAIN) if tries < 100 => {}
            answer => return answer,
        }
    }
}

fn try_load(attr: &ProgLoad) -> Result<OwnedFd> {
    // SAFETY: `attr` points at live buffers and its size is passed.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            5, /* BPF_PROG_LOAD */
            std::ptr::from_ref(attr),
            size_of::<ProgLoad>(),
        )
    })?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

#[repr(C)]
#[derive(Default)]
struct ProgAttach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// The hook of device programs in a cgroup, `enum bpf_attach_type`.
pub const CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// Attaches a device program to a cgroup, beside those of its ancestors.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    attach_program(cgroup, program, CGROUP_DEVICE)
}

fn attach_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, attach_type: u32) -> Result<()> {
    let attr = ProgAttach {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type,
        attach_flags: BPF_F_ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    // SAFETY: `attr` is live and its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            8, /* BPF_PROG_ATTACH */
            &raw const attr,
            size_of::<ProgAttach>(),
        )
    })?;
    Ok(())
}

#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
}

/// How many programs are attached to this very cgroup at a hook.
pub fn attached(cgroup: BorrowedFd<'_>, hook: u32) -> Result<usize> {
    Ok(programs_at(cgroup, hook)?.len())
}

/// The ids of the programs that are attached to this very cgroup at a hook.
fn programs_at(cgroup: BorrowedFd<'_>, hook: u32) -> Result<Vec<u32>> {
    let mut ids = vec![0u32; 64];
    let mut query = ProgQuery {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: hook,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        ..ProgQuery::default()
    };
    // SAFETY: `query` points at a live buffer of `prog_cnt` entries.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            16, /* BPF_PROG_QUERY */
            &raw mut query,
            size_of::<ProgQuery>(),
        )
    })?;
    ids.truncate(query.prog_cnt as usize);
    Ok(ids)
}

/// Detaches every device program that is attached to this very cgroup, except `keep`.
pub fn detach_device_programs(cgroup: BorrowedFd<'_>, keep: Option<BorrowedFd<'_>>) -> Result<()> {
    let ids = programs_at(cgroup, CGROUP_DEVICE)?;
    let keep = keep.map(program_id).transpose()?;
    for id in ids.into_iter().filter(|id| Some(*id) != keep) {
        let get = [id, 0, 0];
        // SAFETY: `get` is the start of union bpf_attr for BPF_PROG_GET_FD_BY_ID.
        let fd = check(unsafe {
            libc::syscall(
                libc::SYS_bpf,
                13, /* BPF_PROG_GET_FD_BY_ID */
                get.as_ptr(),
                size_of_val(&get),
            )
        })?;
        // SAFETY: the kernel has just returned this descriptor to us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        let attr = ProgAttach {
            target_fd: cgroup.as_raw_fd() as u32,
            attach_bpf_fd: fd.as_raw_fd() as u32,
            attach_type: CGROUP_DEVICE,
            ..ProgAttach::default()
        };
        // SAFETY: `attr` is live and its size is passed.
        check(unsafe {
            libc::syscall(
                libc::SYS_bpf,
                9, /* BPF_PROG_DETACH */
                &raw const attr,
                size_of::<ProgAttach>(),
            )
        })?;
    }
    Ok(())
}

fn program_id(program: BorrowedFd<'_>) -> Result<u32> {
    #[repr(C)]
    struct InfoByFd {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut info = [0u32; 2]; // struct bpf_prog_info starts with type and id
    let attr = InfoByFd {
        bpf_fd: program.as_raw_fd() as u32,
        info_len: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: `attr` points at a live buffer of `info_len` bytes.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            15, /* BPF_OBJ_GET_INFO_BY_FD */
            &raw const attr,
            size_of::<InfoByFd>(),
        )
    })?;
    Ok(info[1])
}
