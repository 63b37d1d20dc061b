//! What there is, read from the kernel: what is enforced on a container ([`explain()`]), and what this node can enforce
//! ([`check`]).

pub mod containerd;
mod daemon;
mod explain;
mod findings;
mod handler;
mod limits;
mod mounts;
mod node;
mod process;

pub use explain::{Explanation, Line, Mark, explain};
pub use findings::{Finding, State};
pub use node::check;
