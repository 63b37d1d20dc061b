//! Cofferdam: a containerd shim v2 with an embedded executor.
//!
//! In the order in which a request meets them:
//!
//! 1. [`bootstrap`]: containerd's start protocol; becoming the pod's server.
//! 2. [`service`]: the ttrpc services. Translation only.
//! 3. [`pod`]: the state of one pod and the order of its events.
//! 4. [`oci`]: reads a spec, once, and opens what it names on the node.
//! 5. [`isolation`]: profiles, and what they make of what was read. What comes out is another type, [`isolation::Judged`].
//! 6. [`executor`]: creates, starts and enters containers from what was judged.
//! 7. [`cgroup`] and [`stdio`]: used by both.
//!
//! 8. [`procfs`] and [`sys`]: the kernel's files, and system calls with all of the `unsafe`.
//!
//! Beside them, [`cli`] is the command line: OCI's operations over the executor, and what people ask shims through
//! [`control`]; [`inspect`] is what they see of the kernel.

#![warn(missing_docs)]

pub mod bootstrap;
pub mod cgroup;
pub mod cli;
pub mod control;
pub mod executor;
pub mod id;
pub mod inspect;
pub mod isolation;
pub mod learn;
pub mod oci;
pub mod pod;
pub mod procfs;
pub mod service;
pub mod show;
pub mod stdio;
pub mod sys;
pub mod trace;
