//! The directory of a container that is being made.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use super::{Entry, STATE, Saved, lock, short_path};
use crate::cli::{Error, Result};
use crate::files::replace;

/// A directory without a state is nobody's by then, if nobody has locked it.
const ABANDONED_AFTER: Duration = Duration::from_secs(5);

/// Removes a directory of a creation that was killed before it made anything. Its maker locks it at once.
pub(super) fn remove_abandoned(dir: &Path) -> bool {
    let made = fs::symlink_metadata(dir).and_then(|meta| meta.modified());
    let is_old = made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > ABANDONED_AFTER));
    if !is_old || dir.join(STATE).exists() {
        return false;
    }
    let Ok(_lock) = lock::take(dir, FlockArg::LockExclusiveNonblock) else {
        return false;
    };
    !dir.join(STATE).exists() && fs::remove_dir_all(dir).is_ok()
}

/// A directory that goes again unless the container is made.
pub(crate) struct Reserved {
    dir: PathBuf,
    kept: bool,
    /// Until then nobody else removes it, and that it is free says that its maker is gone.
    _lock: Flock<fs::File>,
}

impl Reserved {
    /// Locks a directory that was made for the container.
    pub(super) fn new(id: &str, dir: PathBuf) -> Result<Self> {
        lock::make(&dir)?;
        match lock::take(&dir, FlockArg::LockExclusiveNonblock)? {
            Some(lock) => Ok(Self {
                dir,
                kept: false,
                _lock: lock,
            }),
            None => Err(Error::Other(format!(
                "container {id} was removed by another command while it was made"
            ))),
        }
    }

    /// The container's directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.dir
    }

    /// A listener for the gate.
    pub(crate) fn gate(&self) -> Result<OwnedFd> {
        let (_dir, path) = short_path(&self.dir)?;
        Ok(crate::executor::listen_at_gate(&path)?)
    }

    /// Writes the state, atomically.
    pub(crate) fn write(&self, saved: &Saved) -> Result<()> {
        let failed = |e| Error::Io(format!("write {}", self.dir.join(STATE).display()), e);
        let text = serde_json::to_vec(saved).map_err(|e| failed(e.into()))?;
        replace(&self.dir.join(STATE), &text, 0o600).map_err(failed)
    }

    /// The container is made.
    pub(crate) fn keep(mut self, saved: Saved) -> Result<Entry> {
        self.write(&saved)?;
        self.kept = true;
        Ok(Entry {
            dir: self.dir.clone(),
            saved,
        })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.kept {
            fs::remove_dir_all(&self.dir).ok();
        }
    }
}
