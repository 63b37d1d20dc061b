//! The mounts of a process, and what is at a path of its root.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;

use crate::sys::mount;

/// One line of `/proc/PID/mountinfo`, `proc_pid_mountinfo(5)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub point: String,
    /// `ro`, `nosuid` and so on.
    pub options: Vec<String>,
    pub fstype: String,
    /// The file system's own.
    pub super_options: Vec<String>,
}

impl Mount {
    pub(crate) fn has(&self, option: &str) -> bool {
        let all = || self.options.iter().chain(&self.super_options);
        all().any(|o| o == option)
    }
}

/// What is at a path.
pub(super) enum At<'a> {
    /// Nothing.
    Nothing,
    /// Something of this mount; `root` where the mount begins just there.
    Mount {
        mount: &'a Mount,
        root: bool,
        is_null: bool,
        is_dir: bool,
    },
    /// It cannot be told.
    Unknown(Errno),
}

/// A process's mounts.
pub(super) struct Mounts {
    root: File,
    by_id: HashMap<u64, Mount>,
}

impl Mounts {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let text = crate::procfs::read(format!("/proc/{pid}/mountinfo")).ok()?;
        let root = File::open(format!("/proc/{pid}/root")).ok()?;
        let by_id = text.lines().filter_map(parse).collect();
        Some(Self { root, by_id })
    }

    /// Follows the links of the container's root, and none out of it.
    pub(crate) fn at(&self, path: &Path) -> At<'_> {
        let Ok(relative) = CString::new(path.as_os_str().as_encoded_bytes()) else {
            return At::Unknown(Errno::EINVAL);
        };
        let opened = mount::openat2(
            self.root.as_fd(),
            &relative,
            libc::O_PATH,
            0,
            mount::RESOLVE_IN_ROOT | mount::RESOLVE_NO_MAGICLINKS,
        );
        let file = match opened {
            Ok(file) => file,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return At::Nothing,
            Err(e) => return At::Unknown(e),
        };
        let (id, root) = match mount::mount_of(file.as_fd()) {
            Ok(found) => found,
            Err(e) => return At::Unknown(e),
        };
        let stat = mount::fstat(file.as_fd()).ok();
        let kind = stat.map_or(0, |s| s.st_mode & libc::S_IFMT);
        match self.by_id.get(&id) {
            Some(mount) => At::Mount {
                mount,
                root,
                is_null: kind == libc::S_IFCHR
                    && stat.is_some_and(|s| s.st_rdev == mount::makedev(1, 3)),
                is_dir: kind == libc::S_IFDIR,
            },
            None => At::Unknown(Errno::ESTALE),
        }
    }
}

fn parse(line: &str) -> Option<(u64, Mount)> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let id = left.next()?.parse().ok()?;
    let point = left.nth(3)?;
    let list = |words: &str| words.split(',').map(str::to_owned).collect();
    let options = list(left.next()?);
    let mut right = right.split(' ');
    let fstype = right.next()?.to_owned();
    let super_options = list(right.nth(1).unwrap_or_default());
    Some((
        id,
        Mount {
            point: point.to_owned(),
            options,
            fstype,
            super_options,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo() {
        let line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let (id, mount) = parse(line).unwrap();
        assert_eq!((id, mount.point.as_str()), (36, "/mnt2"));
        assert!(mount.has("noatime") && mount.has("errors=continue") && !mount.has("ro"));
        assert!(parse("nonsense").is_none());
    }

    #[test]
    fn our_own_root() {
        let mounts = Mounts::of(std::process::id().cast_signed()).unwrap();
        let At::Mount {
            mount,
            root,
            is_dir,
            ..
        } = mounts.at(Path::new("/proc"))
        else {
            panic!("no /proc");
        };
        assert!(root && is_dir && mount.fstype == "proc");
        assert!(matches!(
            mounts.at(Path::new("/no/such/thing")),
            At::Nothing
        ));
        let At::Mount { is_null, .. } = mounts.at(Path::new("/dev/null")) else {
            panic!("no /dev/null");
        };
        assert!(is_null);
    }
}
