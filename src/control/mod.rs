//! What people ask shims: a private socket for each pod below `/run/cofferdam/pods`, root's alone. One line of JSON asks, one
//! document of JSON answers. No containerd is needed.

mod client;
pub(crate) mod docker;
mod notes;
pub mod peer;
mod server;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroup::OwnGroups;
use crate::isolation::{self, Profile};
use crate::names::{self, Names};

pub use client::{Found, Target, ask, ask_all, find, pods};
pub use notes::{hand_note_over, note_socket, remove_dead, remove_note, sweep};
pub use server::Server;

/// Why a shim has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody else can open the sockets.
    #[error("the shims answer root only: run this as root")]
    NotRoot,
    /// It hangs, or has too many who ask.
    #[error("does not answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// It cannot be reached.
    #[error(transparent)]
    Io(io::Error),
    /// It is of another version.
    #[error("answers what is not known here: {0}")]
    Unknown(serde_json::Error),
    /// What it said instead.
    #[error("{0}")]
    Refused(String),
    /// The name is not one pod's.
    #[error("{name:?} could be {}: give more of the name or of the id", .could_be.join(", "))]
    Ambiguous {
        /// As it was given.
        name: String,
        /// What it could stand for: names with ids.
        could_be: Vec<String>,
    },
    /// The name is no pod's.
    #[error("no pod or container {name:?} managed by Cofferdam on this node{}: `cofferdam top` lists them", meant(.like.as_deref()))]
    NotFound {
        /// As it was given.
        name: String,
        /// A name that is like it.
        like: Option<String>,
    },
    /// The same, while some shims did not answer.
    #[error("no pod or container {name:?} among the shims that answer ({silent})")]
    NotAmongAnswers {
        /// As it was given.
        name: String,
        /// Who did not answer, and why.
        silent: String,
    },
}

fn meant(like: Option<&str>) -> String {
    like.map(|like| format!(" (did you mean {like:?}?)"))
        .unwrap_or_default()
}

/// What the sandbox container of a pod is called: it has no name.
pub const SANDBOX: &str = "(pause)";

/// Where the sockets are, named by the shims' pids.
pub const DIRECTORY: &str = "/run/cofferdam/pods";

/// The socket of a shim.
pub fn socket_of(pid: u32) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{pid}.sock"))
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Ask {
    /// What is in the pod: [`Pod`].
    State,
    /// Record from now on what its containers use.
    LearnStart {
        /// One container; left out, all, and those to come.
        container: Option<String>,
    },
    /// What was recorded so far: a list of [`crate::learn::Recorded`].
    LearnShow {
        /// One container; left out, all.
        container: Option<String>,
    },
    /// The same, and no more is recorded.
    LearnStop {
        /// One container; left out, all.
        container: Option<String>,
    },
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// What was asked for.
    Ok(serde_json::Value),
    /// Why not, for people.
    Error(String),
}

/// A pod, as its shim tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// The id that containerd gave it: its first container's.
    pub id: String,
    /// containerd's namespace.
    pub namespace: String,
    /// The shim's pid.
    pub pid: u32,
    /// The shim's version.
    pub version: String,
    /// The profile that the shim's name stands for.
    pub class: String,
    /// Why no container can be created, where the profile is broken.
    pub broken: Option<String>,
    /// When the shim started, in seconds since 1970.
    pub started: u64,
    /// Its containers, by their ids.
    pub containers: Vec<Container>,
}

impl Pod {
    /// The profile that its containers have: the class, unless the handler's options give another one.
    pub fn profile(&self) -> &str {
        let first = self.containers.first();
        first.map_or(&self.class, |container| &container.profile)
    }

    /// What people call it: `NAMESPACE/POD`, or the name of its first container where its engine knows no pods.
    pub fn name(&self) -> Option<String> {
        let mut names = self.containers.iter().map(|c| &c.names);
        let first = names.clone().next();
        names
            .find_map(Names::of_pod)
            .or_else(|| first?.container.clone())
    }

    /// The same for people: the id, as short as crictl's, where it has no name.
    pub fn title(&self) -> String {
        let id = || names::short(&self.id).to_owned();
        self.name().unwrap_or_else(id)
    }
}

/// A container, as its shim tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// What people call it.
    #[serde(default)]
    pub names: Names,
    /// Directory of `config.json`.
    pub bundle: PathBuf,
    /// The init's pid on the node.
    pub pid: i32,
    /// `created`, `running`, `paused` or `stopped`.
    pub status: String,
    /// When it was created, in seconds since 1970.
    pub created: u64,
    /// Its control groups, as a `linux.cgroupsPath`.
    pub cgroup: PathBuf,
    /// The groups that they are below in each hierarchy.
    #[serde(default)]
    pub below: OwnGroups,
    /// The profile's name.
    pub profile: String,
    /// The profile with all that it inherits, as TOML.
    pub profile_toml: String,
    /// What this machine cannot do of the profile.
    pub unavailable: Vec<Unavailable>,
    /// The first of the ids that the pod was given.
    pub users: Option<u32>,
    /// The shim's own hard `RLIMIT_NOFILE`.
    pub open_files: u64,
    /// The shim's own hard `RLIMIT_CORE`.
    pub core_size: u64,
    /// Filters that were loaded into its processes.
    pub filters: u32,
    /// Whether the denials of these are seen.
    pub watched: bool,
    /// Whether resources were changed after Create.
    pub updated: bool,
    /// Whether what it uses is being recorded.
    pub learning: bool,
    /// What it uses of the node.
    pub usage: Usage,
    /// What its filters denied so far.
    pub denials: Vec<Denials>,
}

impl Container {
    /// For people: its name in its pod; the id, as short as crictl's, where it has none.
    pub fn title(&self) -> &str {
        match (&self.names.container, &self.names.pod) {
            (Some(name), _) => name,
            (None, Some(_)) => SANDBOX,
            (None, None) => names::short(&self.id),
        }
    }

    /// Whether it is the sandbox (pause) container of a pod of Kubernetes.
    pub fn is_sandbox(&self) -> bool {
        self.names.is_sandbox()
    }

    /// The profile, as the shim has it.
    pub fn profile(&self) -> Result<Profile, isolation::Error> {
        let (name, text) = (&self.profile, &self.profile_toml);
        Profile::parse(Path::new(isolation::DIRECTORY), name, "the shim's", text)
    }
}

/// What a machine cannot do of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailable {
    /// The profile's key, or its table.
    pub key: String,
    /// What it is.
    pub what: String,
    /// Why it cannot be had, and what would help.
    pub why: String,
    /// Whether it is best effort in the profile, so that nothing is missing.
    pub accepted: bool,
}

/// Counters of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of memory.
    pub memory: u64,
    /// Its limit; none where there is none.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// Their limit.
    pub pids_limit: Option<u64>,
    /// Nanoseconds of CPU so far.
    pub cpu: u64,
}

/// A rule, and how often it denied a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denials {
    /// The system call's name.
    pub call: String,
    /// Whose rule.
    pub rule: String,
    /// `denied` or `audited`.
    pub what: String,
    /// How often.
    pub count: u64,
}
