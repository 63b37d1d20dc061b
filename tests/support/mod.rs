//! What the tests, the demo and the benchmark share: private containerd daemons, clients, images, and the search for
//! what was left behind.
#![allow(dead_code)] // each of them uses a part

pub mod cri;
pub mod daemon;
pub mod events;
pub mod leftovers;
mod output;
pub mod place;
pub mod shim;
pub mod spec;
pub mod task;
pub mod terminal;

pub use daemon::{Daemon, Release, Setup};
pub use output::Output;

use std::fs;
use std::future::Future;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// containerd's name for our runtime.
pub const RUNTIME: &str = "io.containerd.cofferdam.v1";
pub const BUSYBOX: &str = "localhost/busybox:1";
pub const NGINX: &str = "localhost/nginx:1";
pub const PAUSE: &str = "localhost/pause:1";

/// Where `tests/prepare.sh` puts things.
pub fn test_directory() -> PathBuf {
    match std::env::var_os("COFFERDAM_TEST_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test"),
    }
}

/// A directory with the shim under all of its names, as an installation has it.
pub fn shim_directory() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let shim = std::env::var_os("COFFERDAM_SHIM")
            .map(PathBuf::from)
            .or_else(|| {
                option_env!("CARGO_BIN_EXE_containerd-shim-cofferdam-v1").map(PathBuf::from)
            })
            .expect("COFFERDAM_SHIM names the shim's binary");
        let dir = std::env::temp_dir().join(format!("cofferdam-bin-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for class in ["", "-hardened", "-untrusted"] {
            let link = dir.join(format!("containerd-shim-cofferdam{class}-v1"));
            fs::remove_file(&link).ok();
            symlink(&shim, link).unwrap();
        }
        dir
    })
}

/// The uid of a pod of these tests, as Kubernetes would give it one.
pub fn pod_uid() -> String {
    format!("cdtest-{}", std::process::id())
}

/// kubelet's directory of that pod.
fn pod_directory() -> PathBuf {
    Path::new("/var/lib/kubelet/pods").join(pod_uid())
}

/// The directory where its volumes are, as kubelet makes it; profiles know it by its place.
pub fn volumes() -> PathBuf {
    let dir = pod_directory().join("volumes/kubernetes.io~empty-dir");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// To be called before the process ends.
pub fn clean_up() {
    fs::remove_dir_all(pod_directory()).ok();
    fs::remove_dir_all(std::env::temp_dir().join(format!("cofferdam-bin-{}", std::process::id())))
        .ok();
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    })
}

/// Runs asynchronous client code to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}

/// Runs it in the background.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    runtime().spawn(future);
}

/// How many times slower than usual this machine may be: software emulation is.
pub fn slowness() -> u32 {
    std::env::var("COFFERDAM_SLOW")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1)
}

/// A thread that reads a fifo, which is opened at once: a program may end before a thread comes to its open(2), and then nobody is
/// there to meet. The thread gets the file when there is something to read, or when all who wrote are gone.
pub fn read_fifo<T: Send + 'static>(
    path: impl AsRef<Path>,
    read: impl FnOnce(fs::File) -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .unwrap();
    std::thread::spawn(move || {
        let ready = PollFd::new(file.as_fd(), PollFlags::POLLIN);
        poll(&mut [ready], PollTimeout::NONE).unwrap();
        fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        read(file)
    })
}

/// Waits until `done` says so. Panics after `within`, with `what`.
#[track_caller]
pub fn wait_until(what: &str, within: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + within * slowness();
    while !done() {
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The source tree, or in a virtual machine a copy of its parts.
pub fn repository() -> PathBuf {
    std::env::var_os("COFFERDAM_REPOSITORY")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

pub fn kill(pid: i32) {
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .ok();
}

/// Whether a process exists, and still has a thread that is not a zombie: until the last one ends, its files are open.
pub fn is_alive(pid: i32) -> bool {
    let is_zombie = |stat: String| {
        let state = stat.rsplit(')').next().unwrap_or("");
        state.trim_start().starts_with('Z')
    };
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    let mut stats = threads
        .flatten()
        .filter_map(|t| fs::read_to_string(t.path().join("stat")).ok());
    stats.any(|stat| !is_zombie(stat))
}

/// All processes with their arguments.
pub fn processes() -> Vec<(i32, Vec<String>)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| {
            let pid = e.file_name().to_str()?.parse().ok()?;
            let line = fs::read(e.path().join("cmdline")).ok()?;
            Some((pid, line.split(|b| *b == 0).map(text).collect()))
        })
        .collect()
}
