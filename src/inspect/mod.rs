//! What there is, read from the kernel: what is enforced on a container ([`explain()`]), and what this node can enforce
//! ([`check`]).

pub mod containerd;
mod daemon;
mod elsewhere;
mod explain;
mod files;
mod findings;
mod handler;
mod kubelet;
mod landlock;
mod limits;
mod mounts;
mod node;
mod plugins;
mod process;

pub use explain::{Explanation, Line, Mark, explain};
pub use findings::{Finding, State};
pub use node::check;
