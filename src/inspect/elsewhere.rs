//! The files of another node: an image, a mounted disk, or the node's root in a container.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// What a kernel shows, which is this one's.
const OF_KERNEL: [&str; 3] = ["proc", "sys", "dev"];

/// From now on this process sees the files below `root`, with this kernel's own. The mounts that this needs are in a namespace of
/// its own and end with it.
///
/// # Errors
/// With what failed. The caller is not root, or there is no root directory.
pub fn enter(root: &Path) -> Result<(), (String, io::Error)> {
    let failed = |what: String| move |e: io::Error| (what, e);
    let name = root.display().to_string();
    let root = fs::canonicalize(root).map_err(failed(format!("find {name}")))?;
    if !root.join("etc").is_dir() {
        let why = io::Error::new(
            io::ErrorKind::NotFound,
            "it has no etc, as the root of a node has",
        );
        return Err((name, why));
    }
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|e| failed("make a mount namespace".into())(e.into()))?;
    let bind =
        |from: Option<&Path>, to: &Path, flags| mount(from, to, None::<&str>, flags, None::<&str>);
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    bind(None, Path::new("/"), private)
        .map_err(|e| failed("keep mounts private".into())(e.into()))?;
    for name in OF_KERNEL {
        let (from, to) = (Path::new("/").join(name), root.join(name));
        // The root of a node that is seen from a container has them.
        let is_there =
            to.join("self").exists() || to.join("kernel").exists() || to.join("null").exists();
        if to.is_dir() && !is_there {
            let what = format!("mount {}", to.display());
            bind(Some(&from), &to, MsFlags::MS_BIND | MsFlags::MS_REC)
                .map_err(|e| failed(what)(e.into()))?;
        }
    }
    nix::unistd::chroot(&root).map_err(|e| failed(format!("enter {name}"))(e.into()))?;
    std::env::set_current_dir("/").map_err(failed(format!("enter {name}")))
}
