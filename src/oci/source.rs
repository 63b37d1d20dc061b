//! What a spec names on the node: opened once, known by what it is.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::sys::mount::{self as m, CWD, RESOLVE_NO_SYMLINKS};

/// The kernel's limit of links on one path, `path_resolution(7)`.
const MAX_LINKS: usize = 40;

/// Which symbolic links on the way to something are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// All, as every other program does.
    Any,
    /// Those that nobody but root can make: root's own, in directories that only root can write or that have the sticky bit.
    OfRoot,
}

/// How a spec is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// To be carried out: everything that it names on the node is opened.
    Run(Links),
    /// To be shown: what cannot be opened stays a path. The executor refuses the result.
    Show,
}

/// Something of the node that is held open, `O_PATH`.
#[derive(Debug)]
pub struct Opened {
    fd: OwnedFd,
    /// Where it really is: links resolved, as this mount namespace has it when it was opened.
    pub real: PathBuf,
    /// Device of the file system.
    pub dev: u64,
    /// Inode there.
    pub ino: u64,
    /// Type and permission bits, as `stat(2)` has them.
    pub mode: u32,
    /// Whether nothing leads to it any more.
    pub deleted: bool,
}

impl Opened {
    /// Opens a path.
    ///
    /// # Errors
    /// The kernel's; `ELOOP` for a link that is not to be followed.
    pub fn open(path: &Path, links: Links) -> Result<Self, Errno> {
        Self::of(match links {
            Links::Any => open_at(CWD, path.as_os_str(), 0)?,
            Links::OfRoot => without_foreign_links(path)?,
        })
    }

    fn of(fd: OwnedFd) -> Result<Self, Errno> {
        let stat = m::fstat(fd.as_fd())?;
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let real = std::fs::read_link(link)
            .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or_default()))?;
        Ok(Self {
            fd,
            real,
            dev: stat.st_dev,
            ino: stat.st_ino,
            mode: stat.st_mode,
            deleted: stat.st_nlink == 0,
        })
    }

    /// The type bits: `S_IFDIR` and the like.
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A path of the node, and what was found there.
#[derive(Debug)]
pub struct Source {
    /// As the spec has it; a relative one is the bundle's.
    pub path: PathBuf,
    /// What is there, or why it could not be opened.
    pub opened: Result<Opened, Errno>,
}

impl Source {
    /// Opens it as `reading` says.
    pub fn read(path: PathBuf, reading: Reading) -> Self {
        let opened = match reading {
            Reading::Run(links) => Opened::open(&path, links),
            Reading::Show => Opened::open(&path, Links::Any),
        };
        Self { path, opened }
    }
}

fn c_string(text: &OsStr) -> Result<CString, Errno> {
    CString::new(text.as_bytes()).map_err(|_| Errno::EINVAL)
}

fn open_at(dir: BorrowedFd<'_>, path: &OsStr, flags: i32) -> Result<OwnedFd, Errno> {
    m::openat(dir, &c_string(path)?, libc::O_PATH | flags, 0)
}

/// Most paths have no link at all, which one call finds out.
fn without_foreign_links(path: &Path) -> Result<OwnedFd, Errno> {
    let at_once = c_string(path.as_os_str())?;
    match m::openat2(CWD, &at_once, libc::O_PATH, 0, RESOLVE_NO_SYMLINKS) {
        Err(Errno::ELOOP) => step_by_step(path),
        opened => opened,
    }
}

fn step_by_step(path: &Path) -> Result<OwnedFd, Errno> {
    let parts = |path: &Path| -> VecDeque<OsString> {
        path.components()
            .map(|c| c.as_os_str().to_owned())
            .collect()
    };
    let mut dir = open_at(CWD, OsStr::new("."), libc::O_DIRECTORY)?;
    let mut left = parts(path);
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        // A part is "/", "..", "." or a name; the first one of an absolute path is "/".
        let next = open_at(dir.as_fd(), &part, libc::O_NOFOLLOW)?;
        let stat = m::fstat(next.as_fd())?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFLNK {
            dir = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS || !is_roots(&stat, &m::fstat(dir.as_fd())?) {
            return Err(Errno::ELOOP);
        }
        let mut buffer = vec![0; libc::PATH_MAX as usize];
        let n = m::readlinkat(next.as_fd(), c"", &mut buffer)?;
        buffer.truncate(n);
        let mut target = parts(Path::new(&OsString::from_vec(buffer)));
        target.extend(left);
        left = target;
    }
    Ok(dir)
}

/// Whether only root can have made a link in a directory, and nobody else can replace it.
fn is_roots(link: &libc::stat, directory: &libc::stat) -> bool {
    let others_write = directory.st_mode & 0o022 != 0;
    let sticky = directory.st_mode & libc::S_ISVTX != 0;
    link.st_uid == 0 && directory.st_uid == 0 && (!others_write || sticky)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn links_of_others_are_not_followed() {
        let dir = std::env::temp_dir().join(format!("cdtest-links-{}", std::process::id()));
        fs::create_dir_all(dir.join("open")).unwrap();
        fs::create_dir_all(dir.join("target/deep")).unwrap();
        symlink("../target", dir.join("open/link")).unwrap();
        symlink(dir.join("target"), dir.join("absolute")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        let open = |path: &str, links| Opened::open(&dir.join(path), links);
        if nix::unistd::geteuid().is_root() {
            let found = open("open/link/deep", Links::OfRoot).unwrap();
            assert_eq!(found.real, dir.join("target/deep"));
            assert_eq!(
                open("absolute", Links::OfRoot).unwrap().real,
                dir.join("target")
            );
        }
        fs::set_permissions(dir.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = open("open/link/deep", Links::OfRoot).unwrap_err();
        assert_eq!(refused, Errno::ELOOP, "anybody could make that link");
        assert_eq!(open("loop", Links::OfRoot).unwrap_err(), Errno::ELOOP);
        let found = open("open/link/deep", Links::Any).unwrap();
        assert_eq!(found.real, dir.join("target/deep"));
        assert_eq!(open("nothing", Links::Any).unwrap_err(), Errno::ENOENT);
        fs::remove_dir_all(dir).unwrap();
    }
}
