//! Isolation: from a profile and an OCI spec to the spec that is enforced, a report of what was tightened, and what the
//! executor adds to every process; or a refusal that names the pod's field. A pure function: it needs no root and asks
//! no kernel.

mod apply;
mod floor;
pub mod pool;
mod profile;

pub(crate) use apply::clean;
pub use apply::{Applied, AppliedExec, Given, Refusal, apply, apply_to_exec, apply_to_update};
pub use profile::{
    BUILT_IN, DIRECTORY, EgressRule, Error, Landlock, LearnPolicy, Profile, Scope, Unmappable,
    UserNamespace, UserNamespaceMode, names,
};
