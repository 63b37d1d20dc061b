//! What code inside of a container tries, to get out of it or to reach the kernel's weak sides. This program itself is the
//! attacker: it is static, so it runs in any container.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::OpenOptions;
use std::ptr::null;

/// The variable that makes this program the attacker.
pub const MARK: &str = "COFFERDAM_ATTACK";

/// An attack: whether it got through, or the error that stopped it.
type Attack = fn() -> Result<(), i32>;

/// All attacks, by their names.
pub const ALL: [(&str, Attack); 91] = [
    ("mount", mount),
    ("remount", remount),
    ("umount", umount),
    ("new-mount-api", || {
        call(libc::SYS_fsopen, [c("tmpfs"), 0, 0, 0, 0])
    }),
    ("open-tree", || {
        call(libc::SYS_open_tree, [-100, c("/"), 1, 0, 0])
    }),
    ("pivot-root", || {
        reached(
            libc::SYS_pivot_root,
            [c("/"), c("/"), 0, 0, 0],
            &[libc::EINVAL, libc::EBUSY],
        )
    }),
    ("chroot", || call(libc::SYS_chroot, [c("/"), 0, 0, 0, 0])),
    ("cgroup-mount", cgroup_mount),
    ("unshare-user", || {
        call(
            libc::SYS_unshare,
            [i64::from(libc::CLONE_NEWUSER), 0, 0, 0, 0],
        )
    }),
    ("unshare-mount", || {
        call(
            libc::SYS_unshare,
            [i64::from(libc::CLONE_NEWNS), 0, 0, 0, 0],
        )
    }),
    ("clone-user", clone_user),
    ("clone3-user", clone3_user),
    ("setns", || {
        reached(libc::SYS_setns, [-1, 0, 0, 0, 0], &[libc::EBADF])
    }),
    ("ptrace", ptrace),
    ("read-others-memory", read_others_memory),
    ("add-key", || {
        call(libc::SYS_add_key, [c("user"), c("cd"), c("x"), 1, -3])
    }),
    ("keyctl", || call(libc::SYS_keyctl, [0, -4, 0, 0, 0])),
    ("bpf", || {
        reached(
            libc::SYS_bpf,
            [99, 0, 0, 0, 0],
            &[libc::EINVAL, libc::EFAULT],
        )
    }),
    ("perf", || {
        reached(
            libc::SYS_perf_event_open,
            [0, 0, -1, -1, 0],
            &[libc::EFAULT, libc::EINVAL],
        )
    }),
    ("userfaultfd", || {
        call(libc::SYS_userfaultfd, [0x80000, 0, 0, 0, 0])
    }),
    ("io-uring", || {
        reached(libc::SYS_io_uring_setup, [1, 0, 0, 0, 0], &[libc::EFAULT])
    }),
    ("kexec", || call(libc::SYS_kexec_load, [0, 0, 0, 0, 0])),
    ("module", || {
        reached(
            libc::SYS_init_module,
            [0, 0, c(""), 0, 0],
            &[libc::EFAULT, libc::ENOEXEC],
        )
    }),
    ("open-by-handle", open_by_handle),
    ("raw-socket", || socket(libc::AF_INET, libc::SOCK_RAW, 1)),
    ("packet-socket", || {
        socket(libc::AF_PACKET, libc::SOCK_RAW, 0)
    }),
    ("alg-socket", || {
        socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)
    }),
    ("vsock-socket", || {
        socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)
    }),
    ("block-device", || {
        call(
            libc::SYS_mknod,
            [c("/dev/shm/disk"), 0o060_600, 0x800, 0, 0],
        )
    }),
    ("core-pattern", || write_to("/proc/sys/kernel/core_pattern")),
    ("sysrq", || write_to("/proc/sysrq-trigger")),
    ("sysfs", || write_to("/sys/kernel/profiling")),
    ("kcore", || read_from("/proc/kcore")),
    ("personality", || {
        call(libc::SYS_personality, [0x4_0000, 0, 0, 0, 0])
    }),
    ("terminal-injection", || {
        reached(
            libc::SYS_ioctl,
            [0, 0x5412, c("x"), 0, 0],
            &[libc::ENOTTY, libc::EIO],
        )
    }),
    ("dropped-program", dropped_program),
    ("syslog", || call(libc::SYS_syslog, [10, 0, 0, 0, 0])),
    // Kernel surface that nobody needs, and that the kernel loads a module for.
    ("mptcp-socket", || {
        socket(libc::AF_INET, libc::SOCK_STREAM, 262)
    }),
    ("mptcp6-socket", || {
        socket(libc::AF_INET6, libc::SOCK_STREAM, 262)
    }),
    ("udplite-socket", || {
        socket(libc::AF_INET, libc::SOCK_DGRAM, 136)
    }),
    ("sctp-socket", || {
        asked_for(libc::AF_INET, libc::SOCK_SEQPACKET, 132)
    }),
    ("dccp-socket", || asked_for(libc::AF_INET, 6, 33)),
    ("l2tp-socket", || {
        asked_for(libc::AF_INET, libc::SOCK_DGRAM, 115)
    }),
    ("smc-socket", || {
        asked_for(libc::AF_INET, libc::SOCK_STREAM, 256)
    }),
    // Each unknown family is a start of the node's modprobe.
    ("netlink-generic", || {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, 16)
    }),
    // And so is each unknown type.
    ("seqpacket-socket", || {
        asked_for(libc::AF_INET, libc::SOCK_SEQPACKET, 17)
    }),
    ("type-of-socket", || asked_for(libc::AF_INET6, 7, 6)),
    ("bridge-module", || {
        reached(libc::SYS_ioctl, [0, 0x8940, 0, 0, 0], &[libc::ENOTTY])
    }),
    ("vlan-module", || {
        reached(libc::SYS_ioctl, [0, 0x8982, 0, 0, 0], &[libc::ENOTTY])
    }),
    // At 0 the kernel starts the node's program for core dumps.
    ("core-limit", core_limit),
    // Each makes a block device when it is read; it is only opened here.
    ("zram-device", || opens("/sys/class/zram-control/hot_add")),
    ("debug-messages", || write_to("/proc/dynamic_debug/control")),
    ("pressure", || write_to("/proc/pressure/memory")),
    ("pci-memory", pci_memory),
    ("netlink-diag", || {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, 4)
    }),
    ("netlink-xfrm", || {
        asked_for(libc::AF_NETLINK, libc::SOCK_RAW, 6)
    }),
    ("netlink-audit", || {
        asked_for(libc::AF_NETLINK, libc::SOCK_RAW, 9)
    }),
    ("netlink-connector", || {
        asked_for(libc::AF_NETLINK, libc::SOCK_RAW, 11)
    }),
    ("netlink-netfilter", || {
        asked_for(libc::AF_NETLINK, libc::SOCK_RAW, 12)
    }),
    ("netlink-crypto", || {
        asked_for(libc::AF_NETLINK, libc::SOCK_RAW, 21)
    }),
    ("line-discipline", || {
        let discipline: i32 = 21; // N_GSM
        reached(
            libc::SYS_ioctl,
            [0, 0x5423, &raw const discipline as i64, 0, 0],
            &[libc::ENOTTY, libc::EIO, libc::EINVAL],
        )
    }),
    ("modify-ldt", || {
        reached(libc::SYS_modify_ldt, [99, 0, 0, 0, 0], &[libc::EINVAL])
    }),
    ("remap-file-pages", || {
        reached(
            libc::SYS_remap_file_pages,
            [0x1000, 0, 0, 0, 0],
            &[libc::EINVAL],
        )
    }),
    ("listmount", || {
        reached(458, [0, 0, 0, 0, 0], &[libc::EFAULT, libc::EINVAL])
    }),
    ("statmount", || {
        reached(457, [0, 0, 0, 0, 0], &[libc::EFAULT, libc::EINVAL])
    }),
    ("memfd-secret", || {
        reached(libc::SYS_memfd_secret, [0, 0, 0, 0, 0], &[])
    }),
    ("pidfd-getfd", || {
        reached(libc::SYS_pidfd_getfd, [-1, 0, 0, 0, 0], &[libc::EBADF])
    }),
    ("kcmp", || call(libc::SYS_kcmp, [1, 1, 0, 0, 0])),
    ("process-madvise", || {
        reached(
            libc::SYS_process_madvise,
            [-1, 0, 0, 0, 0],
            &[libc::EBADF, libc::EINVAL],
        )
    }),
    ("migrate-pages", || {
        reached(
            libc::SYS_migrate_pages,
            [1, 0, 0, 0, 0],
            &[libc::EINVAL, libc::EFAULT],
        )
    }),
    ("fanotify", || {
        call(libc::SYS_fanotify_init, [0, 0, 0, 0, 0])
    }),
    ("quotactl", || {
        reached(
            libc::SYS_quotactl,
            [0, 0, 0, 0, 0],
            &[libc::EFAULT, libc::ENODEV, libc::ENOSYS, libc::EINVAL],
        )
    }),
    ("acct", || {
        reached(libc::SYS_acct, [c("/nothing"), 0, 0, 0, 0], &[libc::ENOENT])
    }),
    ("swapon", || {
        reached(
            libc::SYS_swapon,
            [c("/nothing"), 0, 0, 0, 0],
            &[libc::ENOENT],
        )
    }),
    ("set-clock", || {
        reached(
            libc::SYS_clock_settime,
            [99, 0, 0, 0, 0],
            &[libc::EINVAL, libc::EFAULT],
        )
    }),
    ("set-host-name", || {
        call(libc::SYS_sethostname, [c("evil"), 4, 0, 0, 0])
    }),
    ("port-access", || call(libc::SYS_iopl, [3, 0, 0, 0, 0])),
    ("real-time-scheduler", || {
        let priority: i32 = 1;
        call(
            libc::SYS_sched_setscheduler,
            [0, 1, &raw const priority as i64, 0, 0],
        )
    }),
    ("real-time-io", || {
        call(libc::SYS_ioprio_set, [1, 0, 1 << 13, 0, 0])
    }),
    // The node's files that root alone may read: pages, addresses and caches of the kernel's.
    ("page-counts", || read_from("/proc/kpagecount")),
    ("page-flags", || read_from("/proc/kpageflags")),
    ("kernel-addresses", || read_from("/proc/vmallocinfo")),
    ("kernel-caches", || read_from("/proc/slabinfo")),
    ("page-types", || read_from("/proc/pagetypeinfo")),
    ("slab-directory", || {
        read_from("/sys/kernel/slab/kmalloc-64/alloc_calls").or_else(|e| {
            let there = std::fs::read_dir("/sys/kernel/slab").is_ok_and(|mut d| d.next().is_some());
            if there { Ok(()) } else { Err(e) }
        })
    }),
    ("timers", || read_from("/proc/timer_list")),
    ("drop-caches", || write_to("/proc/sys/vm/drop_caches")),
    ("kernel-uevent-helper", || {
        write_to("/sys/kernel/uevent_helper")
    }),
    // A crash whose dump a program of the node's would get: only a limit of 1 stops the kernel from starting it.
    ("piped-core-dump", || {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: `limit` is writable.
        unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) };
        match limit.rlim_cur {
            1 => Err(libc::EPERM),
            _ => Ok(()),
        }
    }),
    ("groups-of-the-node", || {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        if own.lines().all(|l| l.ends_with(":/")) {
            Err(libc::EPERM)
        } else {
            Ok(())
        }
    }),
    ("negative-oom-score", || {
        std::fs::write("/proc/self/oom_score_adj", "-1000")
            .map_err(|e| e.raw_os_error().unwrap_or(0))
    }),
];

/// What ordinary programs do, and must not be stopped from.
pub const ORDINARY: [(&str, Attack); 6] = [
    ("unix-socket", || {
        socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)
    }),
    ("tcp-socket", || socket(libc::AF_INET, libc::SOCK_STREAM, 0)),
    ("udp6-socket", || {
        // Where the kernel has IPv6.
        match socket(libc::AF_INET6, libc::SOCK_DGRAM, 0) {
            Err(libc::EAFNOSUPPORT) if !std::path::Path::new("/proc/net/if_inet6").exists() => {
                Ok(())
            }
            answer => answer,
        }
    }),
    ("netlink-socket", || {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)
    }),
    ("fork", || {
        call(libc::SYS_clone, [i64::from(libc::SIGCHLD), 0, 0, 0, 0])
    }),
    ("personality", || {
        call(libc::SYS_personality, [0, 0, 0, 0, 0])
    }),
];

/// Tries everything, each in a process of its own, and prints a line for each: `NAME ok`, or `NAME` and the error's number.
pub fn run() {
    let mark = std::env::var(MARK).unwrap_or_default();
    if mark == "none" {
        return; // the dropped program: it runs
    }
    if let Some(to) = mark.strip_prefix("send=") {
        // One datagram, by a socket that is not connected.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        match socket.send_to(b"x", to) {
            Ok(_) => println!("{to} sent"),
            Err(e) => println!("{to} {}", e.raw_os_error().unwrap_or(0)),
        }
        return;
    }
    if mark == "ways-to-connect" {
        ways_to_connect();
        return;
    }
    if let Some(name) = mark.strip_prefix("abstract=") {
        println!("{}", answer(abstract_socket(name)));
        return;
    }
    if mark == "odd-name" {
        odd_name();
    }
    if mark == "inotify" {
        hold_inotify();
    }
    if mark == "stopper" {
        stop_others();
    }
    if let Some(path) = mark.strip_prefix("socket=") {
        println!("{}", ask_a_shim(path));
        return;
    }
    if mark == "user" {
        println!("{}", nix::unistd::geteuid());
        return;
    }
    if mark == "flood" {
        // As fast as it goes, from several processes.
        for _ in 0..3 {
            // SAFETY: this program has one thread.
            unsafe { libc::fork() };
        }
        loop {
            call(
                libc::SYS_unshare,
                [i64::from(libc::CLONE_NEWUSER), 0, 0, 0, 0],
            )
            .ok();
        }
    }
    if mark == "bomb" {
        loop {
            // SAFETY: this program has one thread.
            unsafe { libc::fork() };
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    if mark == "later" {
        std::thread::sleep(std::time::Duration::from_secs(2));
        for _ in 0..3 {
            println!(
                "unshare {}",
                answer(call(
                    libc::SYS_unshare,
                    [i64::from(libc::CLONE_NEWUSER), 0, 0, 0, 0]
                ))
            );
        }
        return;
    }
    if mark == "neighbour" {
        for (name, attack) in NEIGHBOUR {
            println!("{name} {}", answer(attack()));
        }
        return;
    }
    let ordinary = ORDINARY.map(|(name, f)| (format!("ordinary-{name}"), f));
    let only = mark.strip_prefix("only=");
    for (name, attack) in ALL
        .map(|(name, f)| (name.to_owned(), f))
        .into_iter()
        .chain(ordinary)
        .filter(|(name, _)| only.is_none_or(|only| only == name))
    {
        // SAFETY: this program has one thread here.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let answer = match attack() {
                Ok(()) => 0,
                Err(errno) => errno.clamp(1, 254),
            };
            // SAFETY: ends this process.
            unsafe { libc::_exit(answer) };
        }
        let mut status = 0;
        // SAFETY: waits for our own child.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
            (true, 0) => println!("{name} ok"),
            (true, errno) => println!("{name} {errno}"),
            _ => println!("{name} killed"),
        }
    }
}

/// Calls itself something that is no text, and does what is denied, for ever.
fn odd_name() -> ! {
    loop {
        // SAFETY: a name of at most 15 bytes.
        unsafe { libc::prctl(libc::PR_SET_NAME, c"\xff\xfe) \n\x1b[2J".as_ptr()) };
        call(
            libc::SYS_unshare,
            [i64::from(libc::CLONE_NEWUSER), 0, 0, 0, 0],
        )
        .ok();
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}

/// Takes all inotify instances that there are for its user, and keeps them.
fn hold_inotify() -> ! {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is writable, and read again.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        while libc::inotify_init() >= 0 {}
    }
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1000));
    }
}

/// Stops every process that it sees but itself.
fn stop_others() -> ! {
    loop {
        // SAFETY: plain numbers: all processes of the container but this one.
        unsafe { libc::kill(-1, libc::SIGSTOP) };
    }
}

fn ask_a_shim(path: &str) -> &'static str {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::os::unix::net::UnixStream::connect(path) else {
        return "not connected";
    };
    stream.write_all(b"{\"ask\":\"state\"}\n").ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    if answer.is_empty() {
        "connected, no answer"
    } else {
        "answered"
    }
}

fn answer(result: Result<(), i32>) -> String {
    result.map_or_else(|e| e.to_string(), |()| "ok".into())
}

/// What a container tries on another one's init, which is process 1 for both.
const NEIGHBOUR: [(&str, Attack); 4] = [
    ("ptrace", || call(libc::SYS_ptrace, [0x4206, 1, 0, 0, 0])), // PTRACE_SEIZE
    ("memory", || write_to("/proc/1/mem")),
    ("root", || read_from("/proc/1/root/etc/passwd")),
    ("signal", || {
        call(libc::SYS_kill, [1, i64::from(libc::SIGCONT), 0, 0, 0])
    }),
];

/// Connects to an abstract socket of the node, in the node's network.
fn abstract_socket(name: &str) -> Result<(), i32> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    let address = SocketAddr::from_abstract_name(name).unwrap();
    UnixStream::connect_addr(&address)
        .map(drop)
        .map_err(|e| e.raw_os_error().unwrap_or(-1))
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A C string for a call, which is never given back.
fn c(text: &str) -> i64 {
    CString::new(text).unwrap().into_raw() as i64
}

fn call(number: i64, args: [i64; 5]) -> Result<(), i32> {
    // SAFETY: the arguments are what each call takes; strings are leaked C strings.
    let answer = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4]) };
    if answer < 0 { Err(errno()) } else { Ok(()) }
}

/// A call with arguments that cannot do anything: these errors say that nothing else stopped it.
fn reached(number: i64, args: [i64; 5], errors: &[i32]) -> Result<(), i32> {
    match call(number, args) {
        Err(e) if errors.contains(&e) => Ok(()),
        answer => answer,
    }
}

fn mount() -> Result<(), i32> {
    call(
        libc::SYS_mount,
        [c("tmpfs"), c("/dev/shm"), c("tmpfs"), 0, 0],
    )
}

fn remount() -> Result<(), i32> {
    call(
        libc::SYS_mount,
        [0, c("/"), 0, (libc::MS_REMOUNT | libc::MS_BIND) as i64, 0],
    )
}

fn umount() -> Result<(), i32> {
    call(libc::SYS_umount2, [c("/dev/shm"), 2, 0, 0, 0])
}

fn cgroup_mount() -> Result<(), i32> {
    let v2 = call(
        libc::SYS_mount,
        [c("cg"), c("/dev/shm"), c("cgroup2"), 0, 0],
    );
    v2.or_else(|_| {
        call(
            libc::SYS_mount,
            [c("cg"), c("/dev/shm"), c("cgroup"), 0, c("memory")],
        )
    })
}

fn clone_user() -> Result<(), i32> {
    let flags = i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    // SAFETY: a fork with flags: the child gets a copy of everything.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid == 0 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    if pid < 0 { Err(errno()) } else { Ok(()) }
}

fn clone3_user() -> Result<(), i32> {
    let args: [u64; 11] = [
        libc::CLONE_NEWUSER as u64,
        0,
        0,
        0,
        libc::SIGCHLD as u64,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    // SAFETY: `args` is a clone_args; without CLONE_VM the child gets a copy of everything.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    if pid == 0 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    if pid < 0 { Err(errno()) } else { Ok(()) }
}

fn ptrace() -> Result<(), i32> {
    // The parent, which is another process of the container.
    // SAFETY: plain numbers.
    let answer = unsafe { libc::ptrace(libc::PTRACE_SEIZE, libc::getppid(), 0, 0) };
    if answer < 0 { Err(errno()) } else { Ok(()) }
}

fn read_others_memory() -> Result<(), i32> {
    let mut buffer = [0u8; 1];
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // The same program is there, at the same place.
    let remote = libc::iovec {
        iov_base: MARK.as_ptr().cast_mut().cast(),
        iov_len: 1,
    };
    // SAFETY: both vectors are valid for the call.
    let n = unsafe {
        libc::process_vm_readv(
            libc::getppid(),
            &raw const local,
            1,
            &raw const remote,
            1,
            0,
        )
    };
    if n < 0 { Err(errno()) } else { Ok(()) }
}

fn open_by_handle() -> Result<(), i32> {
    let handle: [u32; 4] = [8, 1, 0, 0];
    reached(
        libc::SYS_open_by_handle_at,
        [-100, handle.as_ptr() as i64, 0, 0, 0],
        &[libc::ESTALE, libc::EINVAL, libc::EBADF],
    )
}

fn socket(family: i32, kind: i32, protocol: i32) -> Result<(), i32> {
    call(
        libc::SYS_socket,
        [family.into(), kind.into(), protocol.into(), 0, 0],
    )
}

/// A protocol that this kernel may not have: only a filter answers before it is asked, and perhaps loads a module.
fn asked_for(family: i32, kind: i32, protocol: i32) -> Result<(), i32> {
    match socket(family, kind, protocol) {
        Err(libc::ESOCKTNOSUPPORT | libc::EINVAL) => Ok(()),
        answer => answer,
    }
}

fn write_to(path: &str) -> Result<(), i32> {
    let opened = OpenOptions::new().write(true).open(path);
    opened.map(drop).map_err(|e| e.raw_os_error().unwrap_or(0))
}

/// Every way to a TCP port of this machine, and the sockets that say something to a machine without one.
fn ways_to_connect() {
    let listener = std::net::TcpListener::bind("127.0.0.1:8080").unwrap();
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 8080_u16.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes([127, 0, 0, 1]),
        },
        sin_zero: [0; 8],
    };
    let size = std::mem::size_of_val(&to) as libc::socklen_t;
    let address = (&raw const to).cast::<libc::sockaddr>();
    let tell = |way: &str, result: i64| {
        let error = std::io::Error::last_os_error().raw_os_error();
        println!("{way} {}", if result < 0 { error.unwrap_or(0) } else { 0 });
    };
    // SAFETY: the address and the byte are live, and their sizes are passed.
    unsafe {
        for (way, protocol) in [("connect", 0), ("mptcp", 262), ("smc", 256)] {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, protocol);
            if fd < 0 {
                tell(way, -1);
            } else {
                tell(way, i64::from(libc::connect(fd, address, size)));
            }
        }
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        let flags = libc::MSG_FASTOPEN;
        let sent = libc::sendto(fd, c"x".as_ptr().cast(), 1, flags, address, size);
        tell("fast-open", sent as i64);
        for (way, typ, protocol) in [
            ("icmp", libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
            ("raw", libc::SOCK_RAW, libc::IPPROTO_UDP),
            ("udp", libc::SOCK_DGRAM, 0),
        ] {
            tell(way, i64::from(libc::socket(libc::AF_INET, typ, protocol)));
        }
    }
    drop(listener);
}

fn opens(path: &str) -> Result<(), i32> {
    let opened = std::fs::File::open(path);
    opened.map(drop).map_err(|e| e.raw_os_error().unwrap_or(0))
}

fn core_limit() -> Result<(), i32> {
    let zero = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    for old in [true, false] {
        let mut now = zero;
        // SAFETY: both structures are live.
        unsafe {
            if old {
                libc::syscall(libc::SYS_setrlimit, libc::RLIMIT_CORE, &raw const zero);
            } else {
                libc::syscall(
                    libc::SYS_prlimit64,
                    0,
                    libc::RLIMIT_CORE,
                    &raw const zero,
                    0,
                );
            }
            libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_CORE, 0, &raw mut now);
        }
        if now.rlim_cur == 0 {
            return Ok(());
        }
    }
    Err(libc::EPERM)
}

/// Whether the registers of devices are below `/sys`.
fn pci_memory() -> Result<(), i32> {
    let devices = std::fs::read_dir("/sys/devices").map_err(|e| e.raw_os_error().unwrap_or(0))?;
    for root in devices.flatten() {
        let is_pci = root.file_name().as_encoded_bytes().starts_with(b"pci");
        if is_pci && std::fs::read_dir(root.path()).is_ok_and(|mut all| all.next().is_some()) {
            return Ok(());
        }
    }
    Err(libc::ENOENT)
}

fn read_from(path: &str) -> Result<(), i32> {
    use std::io::Read;
    let mut byte = [0];
    let read = std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut byte));
    read.map_err(|e| e.raw_os_error().unwrap_or(libc::EIO))
}

fn dropped_program() -> Result<(), i32> {
    let path = "/tmp/dropped";
    let copied = std::fs::copy("/proc/self/exe", path);
    copied.map_err(|e| e.raw_os_error().unwrap_or(0))?;
    // SAFETY: valid strings; on success this process is another program, which ends with 0.
    unsafe {
        let path = CString::new(path).unwrap();
        let argv = [path.as_ptr(), null()];
        let env = [c"COFFERDAM_ATTACK=none".as_ptr(), null()];
        libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr());
    }
    Err(errno())
}
