//! The kernel's own cost of a container: a bare program that makes the groups, namespaces, mounts and devices of the benchmark's
//! spec, drops what is to be dropped, loads the filter and executes the program; and nothing else. Prints the microseconds from the
//! first system call to the execution. `floor ROOTFS DIRECTORY GROUP FILTER`, single-threaded; FILTER is a file with a
//! `linux.seccomp`, which is compiled before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use cofferdam::cgroup::{Hierarchy, Layout};
use cofferdam::oci::capabilities;
use cofferdam::seccomp::{self, Program};
use cofferdam::sys::process::CStrVec;
use cofferdam::sys::{confine, creds, mount as m, process};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// The benchmark's spec, `tests/support/spec.rs`.
const KEPT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
const MASKED: [&str; 6] = [
    "proc/acpi",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/timer_list",
    "sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
const RULES: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, rootfs, directory, group, filter] = args.as_slice() else {
        panic!("usage: floor ROOTFS DIRECTORY GROUP FILTER");
    };
    let layout = Layout::detect().unwrap();
    let filter = serde_json::from_slice(&fs::read(filter).unwrap()).unwrap();
    let filter = seccomp::compile(&filter).unwrap();
    let layers = Path::new(directory);
    for name in ["upper", "work", "root"] {
        fs::create_dir_all(layers.join(name)).unwrap();
    }
    println!("{}", round(&layout, rootfs, layers, group, &filter));
    fs::remove_dir_all(layers).unwrap();
}

fn make_group(h: &Hierarchy, group: &str) -> PathBuf {
    let dir = h.mount.join(group);
    fs::create_dir(&dir).unwrap();
    if h.has("cpuset") && !h.v2 {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            fs::write(dir.join(file), fs::read(h.mount.join(file)).unwrap()).unwrap();
        }
    }
    if h.has("devices") {
        fs::write(dir.join("devices.deny"), "a").unwrap();
        for rule in RULES {
            fs::write(dir.join("devices.allow"), rule).unwrap();
        }
    }
    dir
}

fn round(layout: &Layout, rootfs: &str, layers: &Path, group: &str, filter: &Program) -> u128 {
    let begun = Instant::now();
    let groups: Vec<(bool, PathBuf)> = layout
        .hierarchies
        .iter()
        .map(|h| (h.v2, make_group(h, group)))
        .collect();
    let tasks: Vec<File> = groups
        .iter()
        .filter(|(v2, _)| !v2)
        .map(|(_, dir)| File::options().write(true).open(dir.join("tasks")).unwrap())
        .collect();
    let unified = groups
        .iter()
        .find(|(v2, _)| *v2)
        .map(|(_, dir)| File::open(dir).unwrap());
    let (mut executed, gone) = std::io::pipe().unwrap();
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    let unified = unified.as_ref().map(AsFd::as_fd);
    let in_child = || -> std::convert::Infallible { child(rootfs, layers, &tasks, filter) };
    // SAFETY: this program has one thread.
    let child = unsafe { process::clone3(namespaces as u64, unified, in_child) }.unwrap();
    drop(gone);
    executed.read_to_end(&mut Vec::new()).unwrap();
    let took = begun.elapsed().as_micros();
    assert!(child.wait().unwrap().unwrap().success());
    for (_, dir) in groups {
        while fs::remove_dir(&dir).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    took
}

fn child(rootfs: &str, layers: &Path, tasks: &[File], filter: &Program) -> ! {
    for file in tasks {
        process::write_all(file.as_fd(), b"0").unwrap();
    }
    let none: Option<&str> = None;
    let plain = |source: &str, target: &Path, typ: &str, flags: MsFlags, data: &str| {
        mount(Some(source), target, Some(typ), flags, Some(data)).unwrap();
    };
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).unwrap();
    let root = layers.join("root");
    let options = format!(
        "lowerdir={rootfs},upperdir={},workdir={}",
        layers.join("upper").display(),
        layers.join("work").display()
    );
    plain("overlay", &root, "overlay", MsFlags::empty(), &options);
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    plain("proc", &root.join("proc"), "proc", safe, "");
    plain(
        "tmpfs",
        &root.join("dev"),
        "tmpfs",
        MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME,
        "mode=755,size=65536k",
    );
    for dir in ["dev/pts", "dev/shm", "dev/mqueue"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    let terminals = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    plain(
        "devpts",
        &root.join("dev/pts"),
        "devpts",
        terminals,
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    );
    plain(
        "shm",
        &root.join("dev/shm"),
        "tmpfs",
        safe,
        "mode=1777,size=65536k",
    );
    plain("mqueue", &root.join("dev/mqueue"), "mqueue", safe, "");
    plain(
        "sysfs",
        &root.join("sys"),
        "sysfs",
        safe | MsFlags::MS_RDONLY,
        "",
    );
    for (name, major, minor) in DEVICES {
        mknod(
            &root.join("dev").join(name),
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o666),
            makedev(major, minor),
        )
        .unwrap();
    }
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(target, root.join("dev").join(name)).unwrap();
    }
    for path in READ_ONLY.map(|p| root.join(p)) {
        if path.exists() {
            mount(
                Some(&path),
                &path,
                none,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                none,
            )
            .unwrap();
            let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | safe;
            mount(none, &path, none, again, none).unwrap();
        }
    }
    for path in MASKED.map(|p| root.join(p)) {
        if path.is_dir() {
            plain("tmpfs", &path, "tmpfs", MsFlags::MS_RDONLY, "size=0k");
        } else if path.exists() {
            mount(
                Some(&root.join("dev/null")),
                &path,
                none,
                MsFlags::MS_BIND,
                none,
            )
            .unwrap();
        }
    }
    nix::unistd::chdir(&root).unwrap();
    nix::unistd::pivot_root(".", ".").unwrap();
    umount2(".", MntFlags::MNT_DETACH).unwrap();
    let fd = File::open("/").unwrap();
    let attr = m::MountAttr {
        attr_set: m::attr::RDONLY,
        ..m::MountAttr::default()
    };
    m::mount_setattr(fd.as_fd(), false, &attr).ok();
    process::setsid().ok();
    creds::join_session_keyring(c"_ses.floor").ok();
    process::setrlimit(libc::RLIMIT_NOFILE, 1024, 1024).unwrap();
    let mut mask = 0u64;
    for (number, name) in capabilities::NAMES.iter().enumerate() {
        if KEPT.contains(name) {
            mask |= 1 << number;
        } else if creds::in_bounding(number as u32) {
            creds::drop_bounding(number as u32).unwrap();
        }
    }
    creds::setgroups(&[]).unwrap();
    creds::setresgid(0).unwrap();
    creds::setresuid(0).unwrap();
    creds::clear_ambient().unwrap();
    creds::capset(mask, mask, 0).unwrap();
    creds::set_no_new_privs().unwrap();
    confine::seccomp_set_filter(&filter.insns, filter.flags).unwrap();
    process::cloexec_from(3).unwrap();
    let _ = fd.as_raw_fd();
    let strings =
        |words: &[&str]| CStrVec::new(words.iter().map(|w| CString::new(*w).unwrap()).collect());
    process::execve(
        c"/bin/true",
        &strings(&["/bin/true"]),
        &strings(&["PATH=/bin"]),
    );
    process::exit_now(1)
}
