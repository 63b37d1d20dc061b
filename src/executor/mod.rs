//! The executor: creates, starts, enters and ends containers from an OCI spec. It knows nothing of containerd, ttrpc or tokio:
//! plain blocking functions.
//!
//! A spec is first compiled into a [`script`]: a flat list of steps with every path, option and descriptor ready. Then one
//! `clone3`, and the child walks the steps with raw system calls ([`child`]); between clone and exec nothing allocates,
//! locks, logs or unwinds, because the parent has threads. A failing step comes back over a close-on-exec socket. Before
//! it executes the user's program, an init waits at a gate: that is OCI's `created` state.

mod child;
mod confinement;
mod devices;
#[cfg(any(test, fuzzing, feature = "sabotage"))]
pub mod effects;
mod error;
#[cfg(any(test, fuzzing, feature = "sabotage"))]
pub mod fuzz;
mod gate;
pub mod hooks;
mod lsm;
mod mounts;
mod namespaces;
mod netdev;
mod plan;
mod process;
mod remains;
mod rootfs;
#[cfg(feature = "sabotage")]
mod sabotage;
mod scheduling;
mod script;
mod spawn;
mod talk;
mod times;
pub mod userns;
mod wire;

pub use confinement::{Confinement, Landlock, Missing, SINK_DIRECTORIES, SINKS, SPECULATION};
pub use error::Error;
pub use gate::{AfterGate, Gate, listen_at_gate};
pub use namespaces::JoinedNamespaces;
pub use plan::{ExecPlan, InitPlan, exec, launch, prepare_root_directory, seccomp_agent};
pub use remains::{Remains, Undo};
pub use rootfs::check_mappable;
pub use scheduling::personality;
pub use spawn::{Launched, Spawned};
pub use talk::{NotifyHandler, SeccompAgent};
pub use userns::PodUsers;

/// Where a process's three standard streams come from.
#[derive(Debug)]
pub enum Stdio {
    /// These descriptors become 0, 1 and 2.
    Files([std::os::fd::OwnedFd; 3]),
    /// A new pseudo-terminal inside the container; its master comes back with [`Spawned`]. Initial size in characters.
    Terminal {
        /// Width and height, if known.
        size: Option<(u16, u16)>,
        /// Whether the ends of lines come out as the container writes them, without a carriage return.
        plain: bool,
    },
}

/// Result of the executor's functions.
pub type Result<T> = std::result::Result<T, Error>;
