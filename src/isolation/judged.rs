//! What has passed a profile is another type than what has not.

use std::ops::Deref;

/// Something that a profile was applied to: its floor holds in it. Only this module's parent makes one, and nobody changes it
/// afterwards. The executor, the control groups and the streams take nothing else, so an effect that no profile has seen does
/// not compile.
#[derive(Debug, Clone)]
pub struct Judged<T>(T);

impl<T> Judged<T> {
    pub(super) fn new(value: T) -> Self {
        Self(value)
    }

    /// Under the profile `standard`, which takes things as they are: for the OCI command line, which has no other.
    pub fn standard(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Judged<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
