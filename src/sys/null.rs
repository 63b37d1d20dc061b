//! A null device of our own. The node's is one file for everybody: a container's root that has the node's ids and gets that very file
//! can change its mode, its owner and its times, and lock and watch it, for the whole node.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use super::Result;
use super::mount::{self as m, CWD};

/// A file system in memory that is mounted nowhere, with the device in it: one for all that this process starts.
fn own() -> Result<OwnedFd> {
    let fs = m::fsopen(c"tmpfs")?;
    m::fsconfig_set(fs.as_fd(), c"mode", Some(c"0755"))?;
    let root = m::fsmount(fs.as_fd(), m::attr::NOSUID | m::attr::NOEXEC)?;
    let mode = libc::S_IFCHR | 0o666;
    m::mknodat(root.as_fd(), c"null", mode, m::makedev(1, 3))?;
    Ok(root)
}

/// Opens it. Where this process may not make devices (it is not the node's root), the node's own is opened.
///
/// # Errors
/// The kernel's.
pub fn open(flags: i32) -> Result<OwnedFd> {
    static OWN: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let made = OWN.get_or_init(|| own().ok()).as_ref();
    if let Some(root) = made
        && let Ok(fd) = m::openat(root.as_fd(), c"null", flags, 0)
    {
        // A container that had it before may have changed its mode.
        super::fchmod(fd.as_fd(), 0o666).ok();
        return Ok(fd);
    }
    m::openat(CWD, c"/dev/null", flags, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_null_device_and_not_the_nodes() {
        let own = open(libc::O_RDWR).unwrap();
        let stat = m::fstat(own.as_fd()).unwrap();
        assert_eq!(stat.st_rdev, m::makedev(1, 3));
        let node = m::openat(CWD, c"/dev/null", libc::O_RDWR, 0).unwrap();
        let node = m::fstat(node.as_fd()).unwrap();
        if nix::unistd::geteuid().is_root() {
            assert_ne!((stat.st_dev, stat.st_ino), (node.st_dev, node.st_ino));
            assert_eq!(stat.st_mode & 0o7777, 0o666);
        }
    }
}
