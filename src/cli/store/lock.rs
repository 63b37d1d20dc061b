//! The lock of a container's directory: one command at a time makes, starts or removes it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::STATE;
use crate::cli::{Error, Result};

/// How long a command waits for another one that holds the lock.
const LOCKED_WITHIN: Duration = Duration::from_secs(10);
/// Who holds it makes or removes the container.
const LOCK: &str = "lock";

/// Makes the file of a new container.
pub(super) fn make(dir: &Path) -> Result<()> {
    let file = dir.join(LOCK);
    let made = fs::File::create_new(&file);
    made.map(drop)
        .map_err(Error::io(format!("create {}", file.display())))
}

/// `None` where the directory is gone, or went while this waited. A deletion that was killed may have removed the file only.
pub(super) fn take(dir: &Path, how: FlockArg) -> Result<Option<Flock<fs::File>>> {
    let path = dir.join(LOCK);
    let open = |make: bool| {
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(make)
            .truncate(false)
            .mode(0o600)
            .open(&path)
    };
    let opened = open(false).or_else(|e| match e.kind() {
        ErrorKind::NotFound if dir.join(STATE).exists() => open(true),
        _ => Err(e),
    });
    let file = match opened {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(Error::io(format!("open {}", path.display())))?,
    };
    let same = |file: &fs::File| {
        let inode = |m: fs::Metadata| (m.dev(), m.ino());
        let ours = file.metadata().map(inode).ok();
        ours.is_some() && ours == fs::metadata(&path).map(inode).ok()
    };
    let locked = Flock::lock(file, how)
        .map_err(|(_, e)| Error::Io(format!("lock {}", path.display()), e.into()))?;
    Ok(same(&locked).then_some(locked))
}

/// The same, but for no longer than anybody waits.
pub(super) fn take_within(dir: &Path, id: &str) -> Result<Option<Flock<fs::File>>> {
    let end = Instant::now() + LOCKED_WITHIN;
    let busy = |e: &Error| matches!(e, Error::Io(_, e) if e.kind() == ErrorKind::WouldBlock);
    loop {
        match take(dir, FlockArg::LockExclusiveNonblock) {
            Err(e) if busy(&e) && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) if busy(&e) => {
                return Err(Error::Other(format!(
                    "container {id}: another command makes or removes it, and has not finished within {} s: `fuser {}` finds it",
                    LOCKED_WITHIN.as_secs(),
                    dir.join(LOCK).display()
                )));
            }
            other => return other,
        }
    }
}
