//! What systemd's services expect of a program that runs them: sockets that are passed on (`sd_listen_fds(3)`), and word that the
//! service is ready (`sd_notify(3)`).

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::{MountBuilder, Spec};

use super::{Error, Result};
use crate::sys::{process, socket};

/// Below the container's directory.
const DIRECTORY: &str = "notify";
const SOCKET: &str = "notify.sock";
/// As the container sees it.
const INSIDE: &str = "/run/notify";
/// How long systemd may take to have read what it was told.
const BARRIER_WITHIN: Duration = Duration::from_secs(30);
/// What a container may tell the node's service manager. All else (another main process, descriptors to keep) is the node's.
const PASSED_ON: [&str; 7] = [
    "READY=",
    "STATUS=",
    "RELOADING=",
    "MONOTONIC_USEC=",
    "STOPPING=",
    "WATCHDOG=",
    "EXTEND_TIMEOUT_USEC=",
];

fn add_variables(spec: &mut Spec, variables: impl IntoIterator<Item = String>) {
    if let Some(mut process) = spec.process().clone() {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(variables);
        process.set_env(Some(env));
        spec.set_process(Some(process));
    }
}

/// The sockets that the caller was given to pass on: descriptors from 3 on.
pub(super) struct Listeners(u32);

impl Listeners {
    /// Those of `LISTEN_FDS`, unless `LISTEN_PID` says that they are another process's.
    pub(crate) fn of_caller() -> Self {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let is_other = std::env::var_os("LISTEN_PID").is_some()
            && number("LISTEN_PID") != Some(std::process::id());
        Self(number("LISTEN_FDS").filter(|_| !is_other).unwrap_or(0))
    }

    pub(crate) fn count(&self) -> u32 {
        self.0
    }

    /// Tells the container's program, which is process 1 there.
    pub(crate) fn announce(&self, spec: &mut Spec) {
        if self.0 == 0 {
            return;
        }
        let names = std::env::var("LISTEN_FDNAMES");
        let names = names.ok().map(|names| format!("LISTEN_FDNAMES={names}"));
        let own = [format!("LISTEN_FDS={}", self.0), "LISTEN_PID=1".to_owned()];
        add_variables(spec, own.into_iter().chain(names));
    }
}

/// Refuses to pass on what the caller has not passed: descriptors of the command's own would take their numbers. To be called before it
/// opens any.
pub(super) fn check_preserved(count: u32) -> Result<()> {
    for fd in (3..).take(count as usize) {
        let path = format!("/proc/self/fd/{fd}");
        fs::symlink_metadata(&path).map_err(|_| {
            Error::Other(format!(
                "--preserve-fds, LISTEN_FDS: of {count} descriptors from 3 on, {fd} is not open"
            ))
        })?;
    }
    Ok(())
}

/// Where a container's socket is, in its own directory.
pub(super) fn notify_directory(of_container: &Path) -> PathBuf {
    of_container.join(DIRECTORY)
}

/// Passes on what a container says to its service manager.
pub(super) struct Notify {
    container: UnixDatagram,
    manager: UnixDatagram,
}

impl Notify {
    /// Where the caller has a service manager, gives the container a socket to speak to it.
    pub(crate) fn prepare(directory: &Path, spec: &mut Spec) -> Result<()> {
        if manager().is_none() {
            return Ok(());
        }
        let directory = notify_directory(directory);
        let made = fs::create_dir(&directory)
            .and_then(|()| fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)));
        made.map_err(Error::io(format!("create {}", directory.display())))?;
        let options = ["bind", "nosuid", "noexec", "nodev", "ro"];
        let mount = MountBuilder::default()
            .destination(INSIDE)
            .typ("bind")
            .source(&directory)
            .options(options.map(str::to_owned))
            .build()
            .map_err(|e| Error::Other(format!("NOTIFY_SOCKET: {e}")))?;
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        mounts.push(mount);
        spec.set_mounts(Some(mounts));
        add_variables(spec, [format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}")]);
        Ok(())
    }

    /// Listens to a container that was given a socket, if the caller has a service manager to pass on to.
    pub(crate) fn listen(directory: &Path) -> Result<Option<Self>> {
        let Some(manager) = manager() else {
            return Ok(None);
        };
        let failed = |e| Error::Io("NOTIFY_SOCKET".into(), e);
        let directory = match fs::File::open(directory.join(DIRECTORY)) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            directory => directory.map_err(failed)?,
        };
        // A socket's path has 107 bytes; the directory's may have more.
        let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        // Of a command that could not start it.
        fs::remove_file(&path).ok();
        let container = UnixDatagram::bind(&path).map_err(failed)?;
        // Whoever the container's program is: its directory is the container's alone.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).map_err(failed)?;
        let unbound = UnixDatagram::unbound().map_err(failed)?;
        let connected = match manager.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)
                .and_then(|address| unbound.connect_addr(&address)),
            None => unbound.connect(&manager),
        };
        connected.map_err(failed)?;
        Ok(Some(Self {
            container,
            manager: unbound,
        }))
    }

    /// Passes on until the container is ready, or gone. The service's main process is the container's init then.
    pub(crate) fn until_ready(self, init: &OwnedFd, pid: i32) -> Result<()> {
        loop {
            let mut fds = [
                PollFd::new(self.container.as_fd(), PollFlags::POLLIN),
                PollFd::new(init.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(Error::Other(format!("NOTIFY_SOCKET: {}", e.desc()))),
            }
            let [said, ended] = fds.map(|fd| fd.any().unwrap_or(false));
            if said && self.pass_on() {
                self.manager
                    .send(format!("MAINPID={pid}\n").as_bytes())
                    .ok();
                self.wait_for_manager();
                return Ok(());
            }
            if ended && !said {
                return Ok(());
            }
        }
    }

    /// Passes on for as long as this command runs; it stays the service's main process.
    pub(crate) fn in_background(self) {
        std::thread::spawn(move || {
            while process::wait_readable(self.container.as_fd(), None).is_ok() {
                self.pass_on();
            }
        });
    }

    /// Passes on one message. Returns whether it says that the container is ready.
    fn pass_on(&self) -> bool {
        let mut buffer = [0; 4096];
        let Ok(length) = self.container.recv(&mut buffer) else {
            return false;
        };
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        let known = |line: &&str| PASSED_ON.iter().any(|key| line.starts_with(key));
        let lines: Vec<&str> = text.lines().filter(known).collect();
        if !lines.is_empty() {
            self.manager.send(lines.join("\n").as_bytes()).ok();
        }
        lines.contains(&"READY=1")
    }

    /// `sd_notify_barrier(3)`: systemd closes its copy of the descriptor when it has read everything.
    fn wait_for_manager(&self) {
        let Ok((ours, theirs)) = socket::pair() else {
            return;
        };
        if socket::send_fd(self.manager.as_fd(), b"BARRIER=1", theirs.as_fd()).is_ok() {
            drop(theirs);
            process::wait_readable(ours.as_fd(), Some(BARRIER_WITHIN)).ok();
        }
    }
}

fn manager() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())
}
