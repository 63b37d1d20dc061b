//! What a container leaves in its bundle for `delete`, which must clean up when the shim is gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cgroup::Resctrl;
use crate::oci::Hook;
use crate::sys::process;

const FILE: &str = "cofferdam.json";

/// The record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The init's pid.
    pub pid: i32,
    /// Its start time in clock ticks since boot, field 22 of `/proc/PID/stat`: a pid alone may be somebody else's by now.
    pub start_time: u64,
    /// The shim's pid.
    #[serde(default)]
    pub shim: u32,
    /// The control groups, as a `linux.cgroupsPath` that gives them again.
    pub cgroup: PathBuf,
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
        let temporary = bundle.join(".cofferdam.json");
        let written = fs::write(&temporary, serde_json::to_vec(self)?)
            .and_then(|()| fs::rename(&temporary, bundle.join(FILE)));
        if written.is_err() {
            fs::remove_file(&temporary).ok();
        }
        written
    }

    /// Removes it, where a creation failed.
    pub fn remove(bundle: &Path) {
        fs::remove_file(bundle.join(FILE)).ok();
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
