//! Ranges of ids for pods whose user namespace the profile makes: a file for each range in use, locked by the pod's shim.
//!
//! The kernel says what is in use, not the files: a lock ends with its shim, however that ends, and a range whose lock is
//! free is given out again only when no process's maps have it any more.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::private_directory;
use crate::sys::process;

/// Where the files are. Gone after a reboot, as the pods are.
pub const DIRECTORY: &str = "/run/cofferdam/ids";
/// Ids in a range, as Kubernetes' pods have them (KEP-127).
pub const RANGE: u32 = 65536;

/// The ids that ranges are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// The first id; a multiple of 65,536.
    pub first: u32,
    /// How many ranges of 65,536 ids there are.
    pub ranges: u32,
}

impl Default for Pool {
    /// What systemd's "Users, Groups, UIDs and GIDs" leaves free, away from what kubelet (65,536 and up), Docker and Podman
    /// (100,000 and up, `subuid(5)`) and nspawn (524,288 and up) take.
    fn default() -> Self {
        Self {
            first: 0x7000_0000,
            ranges: 4094,
        }
    }
}

/// Why there is no range.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// All are taken.
    #[error(
        "user_namespace.pool: all {ranges} ranges from id {first} on are in use (see {}): remove pods, or make the pool larger",
        directory.display()
    )]
    Exhausted {
        /// The pool's first id.
        first: u32,
        /// How many ranges it has.
        ranges: u32,
        /// Where the files are.
        directory: PathBuf,
    },
    /// A file cannot be made or locked.
    #[error("user_namespace.pool: {}: {source}", path.display())]
    Io {
        /// The file, or the directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// A range that is ours until this is dropped.
#[derive(Debug)]
pub struct Lease {
    first: u32,
    path: PathBuf,
    /// Its lock is what makes the range ours.
    _file: File,
}

impl Lease {
    /// Takes a free range. `directory` is made where it is missing.
    pub fn take(directory: &Path, pool: Pool) -> Result<Self, PoolError> {
        private_directory(directory).map_err(|source| PoolError::Io {
            path: directory.to_owned(),
            source,
        })?;
        // Not from the beginning each time: pods would look at every range in use, and one given back a moment ago would be
        // the next to be given out.
        let start = RandomState::new().hash_one(std::process::id()) % u64::from(pool.ranges.max(1));
        for i in 0..pool.ranges {
            let slot = (start + u64::from(i)) % u64::from(pool.ranges);
            let first = pool.first + u32::try_from(slot).unwrap_or(0) * RANGE;
            if let Some(lease) = Self::try_take(directory, first)? {
                return Ok(lease);
            }
        }
        Err(PoolError::Exhausted {
            first: pool.first,
            ranges: pool.ranges,
            directory: directory.to_owned(),
        })
    }

    fn try_take(directory: &Path, first: u32) -> Result<Option<Self>, PoolError> {
        let path = directory.join(first.to_string());
        let failed = |source| PoolError::Io {
            path: path.clone(),
            source,
        };
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let mut file = opened.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(e)) => return Err(failed(e)),
        }
        // Whoever had it may have removed it between our opening and our locking.
        let ours = file.metadata().map_err(failed)?;
        if !fs::metadata(&path).is_ok_and(|m| m.ino() == ours.ino() && m.dev() == ours.dev()) {
            return Ok(None);
        }
        // A shim that was killed leaves its file with its pid in it, and its pod's processes until containerd cleans up.
        if ours.len() > 0 && process::any_maps_to(first, RANGE) {
            return Ok(None);
        }
        file.write_all(format!("{}\n", std::process::id()).as_bytes())
            .map_err(failed)?;
        Ok(Some(Self {
            first,
            path,
            _file: file,
        }))
    }

    /// The first id of the range, on the node.
    pub fn first(&self) -> u32 {
        self.first
    }
}

impl Drop for Lease {
    /// The file goes while its lock is held: who waits for neither sees that it is gone.
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

/// Gives a range back whose shim is gone. Nothing happens where a shim, or a process, still has it.
pub fn give_back(directory: &Path, first: u32) {
    if directory.join(first.to_string()).exists() {
        drop(Lease::try_take(directory, first));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("cdtest-ids-{name}-{}", std::process::id()));
        fs::remove_dir_all(&dir).ok();
        dir
    }

    #[test]
    fn every_range_is_given_out_once() {
        let dir = directory("once");
        let pool = Pool {
            first: 0x7000_0000,
            ranges: 40,
        };
        let takers: Vec<_> = (0..8)
            .map(|_| {
                let dir = dir.clone();
                std::thread::spawn(move || {
                    (0..5)
                        .map(|_| Lease::take(&dir, pool).unwrap())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let leases: Vec<Lease> = takers.into_iter().flat_map(|t| t.join().unwrap()).collect();
        let mut firsts: Vec<u32> = leases.iter().map(Lease::first).collect();
        firsts.sort_unstable();
        let all: Vec<u32> = (0..40).map(|i| 0x7000_0000 + i * RANGE).collect();
        assert_eq!(firsts, all);
        let full = Lease::take(&dir, pool).unwrap_err().to_string();
        assert!(full.contains("all 40 ranges from id 1879048192"), "{full}");
        drop(leases);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "nothing is left");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_a_killed_shim_left_is_given_out_again() {
        let dir = directory("left");
        fs::create_dir_all(&dir).unwrap();
        let pool = Pool {
            first: 0x7000_0000,
            ranges: 1,
        };
        fs::write(dir.join("1879048192"), "1\n").unwrap();
        let lease = Lease::take(&dir, pool).unwrap();
        assert_eq!(lease.first(), 0x7000_0000);
        give_back(&dir, lease.first());
        assert!(dir.join("1879048192").exists(), "it is in use");
        drop(lease);
        fs::write(dir.join("1879048192"), "1\n").unwrap();
        give_back(&dir, 0x7000_0000);
        assert!(!dir.join("1879048192").exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
