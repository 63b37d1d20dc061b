//! Profiles: `/etc/cofferdam/NAME.toml`, or one of the built-in ones.

mod check;
mod file;
mod load;
mod quantity;
mod schema;

pub use file::Problem;
pub(crate) use load::read_of_root;
pub use load::{BUILT_IN, CHANGEABLE, DIRECTORY, Error, changeable_by_others, names};
#[cfg(test)]
pub(super) use schema::Limits;
pub(super) use schema::{
    CallAction, ExecPolicy, HostNamespace, Limit, NetworkMode, capability, device,
};
pub use schema::{
    EgressProtocol, EgressRule, Landlock, LearnPolicy, Profile, Scope, Unmappable, UserNamespace,
    UserNamespaceMode,
};

#[cfg(test)]
mod tests;
