//! The files of another node: an image, a mounted disk, or the node's root in a container.

use std::fs;
use std::io;
use std::path::Path;

/// From now on this process sees the files below `root` and nothing else: no link leads out, and there is no `/proc`. So what the
/// kernel shows is read before.
///
/// # Errors
/// The caller is not root, or there is no root directory.
pub(super) fn enter(root: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(root.join("etc"))?.is_dir() {
        let why = "it has no directory etc, as the root of a node has";
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    nix::unistd::chroot(root)?;
    std::env::set_current_dir("/")
}
