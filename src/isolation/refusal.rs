//! What a profile does not allow.

use super::profile::Profile;

/// What a profile does not allow, and what to do about it: for who wrote the pod, and reads this in its events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("profile {profile:?} refuses {what}: {remedy}{}", self.way_out())]
pub struct Refusal {
    /// The profile's name.
    pub profile: String,
    /// The pod's field, and its value.
    pub what: String,
    /// What to change in the pod.
    pub remedy: String,
    /// The profile's key that could allow it; none where no key does.
    pub key: Option<&'static str>,
    /// Whom to ask: the node's setting.
    pub contact: Option<String>,
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
            key: None,
            contact: None,
        }
    }

    /// The key of the profile that decides.
    #[must_use]
    pub(super) fn by(self, key: &'static str) -> Self {
        Self {
            key: Some(key),
            ..self
        }
    }

    /// With the node's setting, for its users.
    #[must_use]
    pub fn with_contact(self, contact: Option<&str>) -> Self {
        let contact = contact.map(str::to_owned);
        Self { contact, ..self }
    }

    fn way_out(&self) -> String {
        let contact = self.contact.as_deref().unwrap_or("who runs this node");
        match self.key {
            Some(key) => {
                format!(", or ask {contact} for a profile that allows it ({key} decides)")
            }
            None => String::new(),
        }
    }
}
