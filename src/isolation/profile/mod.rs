//! Profiles: `/etc/cofferdam/NAME.toml`, or one of the built-in ones.

mod load;
mod schema;

pub(crate) use load::read_of_root;
pub use load::{BUILT_IN, DIRECTORY, Error, names};
#[cfg(test)]
pub(super) use schema::Limits;
pub use schema::{
    CallAction, EgressRule, ExecPolicy, HostNamespace, Landlock, LearnPolicy, Limit, NetworkMode,
    Profile, Scope, Unmappable, UserNamespace, UserNamespaceMode,
};
pub(super) use schema::{capability, device};
