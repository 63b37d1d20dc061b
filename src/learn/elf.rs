//! The loader that a program's file names: `PT_INTERP`, `elf(5)`.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};

use crate::sys::mount;

/// How much of a file is looked at.
const HEAD: u64 = 8192;

/// Of a program in a container's root.
pub(super) fn loader(root: &File, path: &str) -> Option<String> {
    let path = CString::new(path).ok()?;
    let resolve = mount::RESOLVE_IN_ROOT | mount::RESOLVE_NO_MAGICLINKS;
    let found = mount::openat2(root.as_fd(), &path, libc::O_PATH, 0, resolve).ok()?;
    // By now it may be a device, which must not be opened.
    let mode = mount::fstat(found.as_fd()).ok()?.st_mode;
    if mode & libc::S_IFMT != libc::S_IFREG {
        return None;
    }
    let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()?;
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head).ok()?;
    parse(&head)
}

fn parse(head: &[u8]) -> Option<String> {
    const INTERP: u64 = 3;
    // 64 bits, the least significant byte first.
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |at: usize, bytes: usize| {
        let slice = head.get(at..at.checked_add(bytes)?)?;
        Some(slice.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b)))
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for i in 0..count {
        let entry = usize::try_from(table.checked_add(i * size)?).ok()?;
        if number(entry, 4)? == INTERP {
            let (at, len) = (
                usize::try_from(number(entry.checked_add(8)?, 8)?).ok()?,
                usize::try_from(number(entry.checked_add(32)?, 8)?).ok()?,
            );
            let text = head.get(at..at.checked_add(len)?)?;
            return Some(
                String::from_utf8_lossy(text)
                    .trim_end_matches('\0')
                    .to_owned(),
            );
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaders() {
        let me = File::open("/").unwrap();
        assert!(loader(&me, "/bin/bash").unwrap().contains("/ld-linux"));
        assert!(loader(&me, "/etc/passwd").is_none() && loader(&me, "/nowhere").is_none());
        assert!(loader(&me, "/dev/null").is_none());
        assert!(parse(b"\x7fELF\x02\x01").is_none());
        assert!(parse(&[&b"\x7fELF\x02\x01"[..], &[0xff; 200]].concat()).is_none());
    }
}
