//! What is enforced, read back from the kernel: on a container ([`explain`]).

mod explain;
mod limits;
mod mounts;
mod process;

pub use explain::{Explanation, Line, Mark, explain};
