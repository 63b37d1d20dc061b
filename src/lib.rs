//! Cofferdam: a containerd shim v2 with an embedded executor.
//!
//! In the order in which a request meets them:
//!
//! 1. [`bootstrap`]: containerd's start protocol; becoming the pod's server.
//! 2. [`service`]: the ttrpc services. Translation only.
//! 3. [`pod`]: the state of one pod and the order of its events.
//! 4. [`executor`]: creates, starts and enters containers from an OCI spec.
//! 5. [`cgroup`] and [`stdio`]: used by both.
//!
//! Beside them, [`cli`] is the OCI runtime command line over the executor.
//!
//! 6. [`sys`]: system calls, and all of the `unsafe`.

#![warn(missing_docs)]

pub mod bootstrap;
pub mod cgroup;
pub mod cli;
pub mod executor;
pub mod isolation;
pub mod pod;
pub mod service;
pub mod stdio;
pub mod sys;
