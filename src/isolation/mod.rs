//! Isolation: from a profile and what a spec asks for to what is enforced, a report of what was tightened, and what the executor
//! adds to every process; or a refusal that names the pod's field. [`judge()`] decides on what [`crate::oci::Request::read`] has
//! opened; the result is a [`Judged`], and the executor takes nothing else.

mod devices;
mod floor;
mod host_paths;
mod judge;
mod judged;
mod mounts;
mod notice;
mod place;
pub mod pool;
mod process;
mod profile;
mod programs;
#[cfg(any(test, fuzzing, feature = "sabotage"))]
pub mod property;
mod refusal;
mod resources;
mod roots;
mod users;

pub use judge::{Given, Verdict, judge, judge_exec, judge_update};
pub use judged::Judged;
pub use notice::notice;
pub use place::{LogLevel, Node, NodeError, Place, PodOfKubernetes, SETTINGS};
pub(crate) use profile::read_of_root;
pub use profile::{
    BUILT_IN, CHANGEABLE, DIRECTORY, EgressProtocol, EgressRule, Error, Landlock, LearnPolicy,
    Problem, Profile, Scope, Unmappable, UserNamespace, UserNamespaceMode, changeable_by_others,
    names,
};
pub use programs::judge_streams;
pub use refusal::Refusal;
pub use roots::judge_root_mounts;
