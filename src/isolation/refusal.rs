//! What a profile does not allow.

use super::profile::Profile;

/// What a profile does not allow, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "profile {profile:?} refuses {what}: {remedy}, or ask who runs this node for a profile that allows it"
)]
pub struct Refusal {
    /// The profile's name.
    pub profile: String,
    /// The pod's field, and its value.
    pub what: String,
    /// What to change in the pod.
    pub remedy: String,
}

impl Refusal {
    /// A refusal of this profile's.
    pub(super) fn new(
        profile: &Profile,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            profile: profile.name.clone(),
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}
