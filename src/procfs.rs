//! `/proc`, as bytes: a process may call itself anything, and so may a mount point.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The text of a file; what is not UTF-8 in it is replaced.
///
/// # Errors
/// The system's: the process may be gone.
pub fn read(path: impl AsRef<Path>) -> std::io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Every process that can be seen.
pub fn pids() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.collect()
}

/// Device and inode of a process's namespace, which tell namespaces apart: `/proc/PID/ns/FILE`, `namespaces(7)`.
///
/// # Errors
/// The system's: the process may be gone, or not ours to look at.
pub fn namespace(pid: impl std::fmt::Display, file: &str) -> std::io::Result<(u64, u64)> {
    let metadata = fs::metadata(format!("/proc/{pid}/ns/{file}"))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// One line of `/proc/PID/mountinfo`, `proc_pid_mountinfo(5)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// The mount's id.
    pub id: u64,
    /// The file system's device, `MAJOR:MINOR`.
    pub device: String,
    /// What of the file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Whether the mount is read-only.
    pub is_read_only: bool,
    /// The file system's type.
    pub fstype: String,
}

impl MountInfo {
    /// The mounts of this process.
    ///
    /// # Errors
    /// The system's.
    pub fn of_self() -> std::io::Result<Vec<Self>> {
        let text = fs::read("/proc/self/mountinfo")?;
        Ok(text
            .split(|b| *b == b'\n')
            .filter_map(Self::parse)
            .collect())
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|b| *b == b' ');
        let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
        let id = number(fields.next()?)?;
        fields.next()?; // its parent
        let device = String::from_utf8_lossy(fields.next()?).into_owned();
        let (root, point) = (fields.next()?, fields.next()?);
        let is_read_only = fields.next()?.split(|b| *b == b',').any(|o| o == b"ro");
        let fstype = fields.skip_while(|f| *f != b"-").nth(1)?;
        Some(Self {
            id,
            device,
            root: unescape(root),
            point: unescape(point),
            is_read_only,
            fstype: String::from_utf8_lossy(fstype).into_owned(),
        })
    }
}

/// Spaces, tabs, newlines and backslashes are octal numbers there.
fn unescape(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let octal = |digits: &[u8]| -> Option<u8> {
            u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
        };
        let escaped = tail.get(..3).filter(|_| *first == b'\\').and_then(octal);
        out.push(escaped.unwrap_or(*first));
        let skip = if escaped.is_some() { 3 } else { 0 };
        rest = tail.get(skip..).unwrap_or_default();
    }
    OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo() {
        let line = b"36 35 98:0 /a\\040b /mnt\\134x\xff rw,noatime master:1 - ext3 /dev/root rw";
        let mount = MountInfo::parse(line).unwrap();
        assert_eq!((mount.id, mount.device.as_str()), (36, "98:0"));
        assert_eq!(mount.root, Path::new("/a b"));
        assert_eq!(mount.fstype, "ext3");
        assert_eq!(mount.point.as_os_str().as_encoded_bytes(), b"/mnt\\x\xff");
        assert!(MountInfo::parse(b"nonsense").is_none());
        assert!(!MountInfo::of_self().unwrap().is_empty());
    }
}
