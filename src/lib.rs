//! Cofferdam: a containerd shim v2 with an embedded executor.
//!
//! From the top; each knows only those below it:
//!
//! 1. [`bootstrap`]: containerd's start protocol; becoming the pod's server.
//! 2. [`service`]: the ttrpc services. Translation only.
//! 3. [`pod`]: the state of one pod and the order of its events.
//! 4. [`stdio`]: the streams of a process.
//! 5. [`executor`]: creates, starts, enters and ends containers, from what was judged.
//! 6. [`cgroup`]: a container's control groups.
//! 7. [`isolation`]: profiles, and what they make of a request. Their result is another type, [`isolation::Judged`].
//! 8. [`seccomp`]: the compiler of filters.
//! 9. [`oci`]: reads a request, once, and opens what it names on the node.
//! 10. [`procfs`], [`files`] and [`sys`]: the kernel's files, ours, and system calls with all of the `unsafe`.
//!
//! All of them know [`names`], [`show`] and [`trace`]. Beside them, [`cli`] is the command line: OCI's operations over the executor, and what people ask shims through
//! [`control`]; [`inspect`] is what they see of the kernel.

#![warn(missing_docs, unreachable_pub)]

pub mod bootstrap;
pub mod cgroup;
pub mod cli;
pub mod control;
#[cfg(test)]
mod documents;
pub mod executor;
pub mod files;
pub mod id;
pub mod inspect;
pub mod isolation;
pub mod learn;
pub mod names;
pub mod oci;
pub mod pod;
pub mod procfs;
pub mod sealed;
pub mod seccomp;
pub mod service;
pub mod show;
pub mod stdio;
pub mod sys;
pub mod trace;

/// The commit that this was built from; none where the source was no checkout, and in builds for tests.
pub const COMMIT: Option<&str> = option_env!("COFFERDAM_COMMIT");
