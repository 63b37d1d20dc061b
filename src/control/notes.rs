//! What dead shims leave: their sockets. A shim that is killed removes none, and containerd does not call `delete` for one that
//! died before it answered.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;

use super::{DIRECTORY, socket_of};
use crate::files::private_directory;
use crate::sys::process::{pidfd_open, wait_readable};
use crate::sys::socket::connect_at_once;

/// A socket that is younger may be about to be listened at.
const YOUNG: Duration = Duration::from_secs(2);

/// Where a process notes its task socket.
fn note_of(pid: u32) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{pid}.task"))
}

/// Notes that the socket at `path` is this process's, before it is made. Best effort.
pub fn note_socket(path: &Path) {
    let note = note_of(std::process::id());
    private_directory(Path::new(DIRECTORY)).ok();
    sweep_note(&note); // of an earlier process of this pid
    symlink(path, note).ok();
}

/// Hands this process's note over to its child that serves the socket.
pub fn hand_note_over(pid: u32) {
    fs::rename(note_of(std::process::id()), note_of(pid)).ok();
}

/// Removes this process's note: its socket is gone, or another process's.
pub fn remove_note() {
    fs::remove_file(note_of(std::process::id())).ok();
}

/// Removes the sockets of dead shims.
pub fn sweep() {
    let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let parts = name.to_str().and_then(|name| name.split_once('.'));
        let Some((Ok(pid), kind)) = parts.map(|(pid, kind)| (pid.parse::<u32>(), kind)) else {
            continue;
        };
        if !is_gone(pid) {
            continue;
        }
        match kind {
            "sock" => remove_dead(&socket_of(pid)),
            "task" => sweep_note(&note_of(pid)),
            _ => {}
        }
    }
}

/// Whether no process with this pid runs. One that is no shim is taken for one until it ends: beside a thousand pods more would take long.
fn is_gone(pid: u32) -> bool {
    match pidfd_open(pid.cast_signed()) {
        Err(e) => e == Errno::ESRCH,
        // One that has ended, and that nobody has reaped.
        Ok(pidfd) => wait_readable(pidfd.as_fd(), Some(Duration::ZERO)).unwrap_or(false),
    }
}

fn sweep_note(note: &Path) {
    let Ok(socket) = fs::read_link(note) else {
        return;
    };
    let made = fs::symlink_metadata(&socket).and_then(|meta| meta.modified());
    if let Ok(made) = made {
        let age = SystemTime::now().duration_since(made).unwrap_or_default();
        if age < YOUNG {
            return; // by the next sweep it is known whose it is
        }
        remove_dead(&socket);
    }
    fs::remove_file(note).ok();
}

/// Removes a socket that nobody listens at. One whose queue is full is somebody's. (A pid that is not seen may be of another pid
/// namespace.)
pub fn remove_dead(socket: &Path) {
    let inode = || fs::symlink_metadata(socket).map(|meta| (meta.dev(), meta.ino()));
    let before = inode().ok();
    let refused = connect_at_once(socket).is_err_and(|e| e == Errno::ECONNREFUSED);
    if refused && before.is_some() && inode().ok() == before {
        fs::remove_file(socket).ok();
    }
}
