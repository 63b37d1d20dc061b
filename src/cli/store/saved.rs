//! What `state.json` holds.

use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::cgroup::{OwnGroups, Resctrl};
use crate::executor::AfterGate;
use crate::oci::Hook;
use crate::sys::process;

/// A container as a command finds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub version: u32,
    pub id: String,
    pub bundle: PathBuf,
    /// What was asked for, whatever has become of the bundle's.
    pub spec: Spec,
    /// Its hooks, as they were judged.
    pub hooks: Vec<Hook>,
    /// Its root, if that is among the node's mounts.
    pub root: Option<PathBuf>,
    /// Its profile's name.
    pub profile: Option<String>,
    /// None as long as there is no process.
    pub init: Option<Init>,
    /// None for a container that stays in its caller's groups.
    pub cgroup: Option<Groups>,
    /// RFC 3339.
    pub created: String,
    /// None as long as the init is not at its gate.
    pub behind_gate: Option<AfterGate>,
    pub new_keyring: bool,
    /// An ordinary user's: `exec` enters its user namespace before anything else.
    pub rootless: bool,
}

impl Saved {
    /// Of `state.json`. Another version is another command's, and is refused.
    pub(crate) const VERSION: u32 = 2;
}

/// Who the init is: a pid alone may be somebody else's by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Init {
    pub pid: i32,
    /// In clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub start_time: u64,
}

impl Init {
    pub(crate) fn of(pid: i32) -> Self {
        Self {
            pid,
            start_time: process::start_time(pid).unwrap_or(0),
        }
    }
}

/// The container's control groups.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Groups {
    /// As a `linux.cgroupsPath` that gives them again.
    pub path: PathBuf,
    /// And the groups that they are below.
    pub below: OwnGroups,
    /// Those of `linux.intelRdt`.
    pub resctrl: Option<Resctrl>,
}

/// OCI runtime.md "State".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// A command makes it, or was killed while it did.
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}
