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
//! 6. [`isolation`]: profiles, and what they make of a spec.
//! 7. [`sys`]: system calls, and all of the `unsafe`.
//!
//! Beside them, [`cli`] is the command line: OCI's operations over the executor, and what people ask shims through
//! [`control`]; [`inspect`] is what they see of the kernel.

#![warn(missing_docs)]

pub mod bootstrap;
pub mod cgroup;
pub mod cli;
pub mod control;
pub mod executor;
pub mod inspect;
pub mod isolation;
pub mod learn;
pub mod pod;
pub mod service;
pub mod stdio;
pub mod sys;
pub mod trace;
