//! What a container leaves in its bundle for `delete`, which must clean up when the shim is gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, Result};
use crate::cgroup::{OwnGroups, Resctrl};
use crate::files::replace;
use crate::oci::Hook;
use crate::sys::process;
use crate::trace;

const FILE: &str = "cofferdam.json";
/// As containerd's own shim leaves it.
const PID_FILE: &str = "init.pid";

/// The record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The init's pid.
    pub pid: i32,
    /// Its start time in clock ticks since boot, field 22 of `/proc/PID/stat`: a pid alone may be somebody else's by now.
    pub start_time: u64,
    /// The control groups, as a `linux.cgroupsPath` that gives them again.
    pub cgroup: PathBuf,
    /// The groups that they are below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub below: OwnGroups,
    /// Groups of `linux.intelRdt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<Resctrl>,
    /// The first of the ids that the pod was given.
    #[serde(default)]
    pub users: Option<u32>,
    /// The hooks that run after the container is deleted, as the profile has judged them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
    /// The exit status and the time in nanoseconds since 1970, once it has ended.
    pub exit: Option<(u32, u64)>,
}

impl Record {
    /// Writes the record into `bundle`, atomically.
    pub fn store(&self, bundle: &Path) -> io::Result<()> {
        replace(&bundle.join(FILE), &serde_json::to_vec(self)?, 0o644)
    }

    /// Reads it.
    pub fn load(bundle: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(bundle.join(FILE))?)?)
    }

    /// Whether the process that the record names is still there.
    pub fn is_alive(&self) -> bool {
        process::start_time(self.pid) == Some(self.start_time)
    }
}

/// The record of a container that is being created. Dropped before it is kept, it is removed.
pub(super) struct Recorded<'a> {
    bundle: &'a Path,
    record: Record,
    kept: bool,
}

impl<'a> Recorded<'a> {
    pub(crate) fn new(bundle: &'a Path, record: Record) -> Self {
        Self {
            bundle,
            record,
            kept: false,
        }
    }

    /// Writes it, and `init.pid`, which tools read as containerd's own shim leaves it. Does nothing where it says this already.
    pub(crate) fn write(&mut self, pid: i32) -> Result<()> {
        if self.record.pid == pid {
            return Ok(());
        }
        let _writing = trace::span("write the record");
        self.record.pid = pid;
        self.record.start_time = process::start_time(pid).unwrap_or(0);
        let stored = self.record.store(self.bundle);
        stored
            .and_then(|()| fs::write(self.bundle.join(PID_FILE), pid.to_string()))
            .map_err(|e| {
                Error::Unknown(format!(
                    "write the container's record into {}: {e}",
                    self.bundle.display()
                ))
            })
    }

    /// The container is made.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Recorded<'_> {
    fn drop(&mut self) {
        if !self.kept {
            fs::remove_file(self.bundle.join(FILE)).ok();
            fs::remove_file(self.bundle.join(PID_FILE)).ok();
        }
    }
}
