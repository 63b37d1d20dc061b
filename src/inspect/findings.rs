//! What a check finds, and what to do about it.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Best effort in a profile, and not to be had on this machine: nothing is to be done.
    NotHere,
    /// Pods run, with less than a profile promises, or than there could be.
    Degraded,
    /// Pods do not run, or not where they should.
    Failing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it belongs to, for people.
    pub area: String,
    /// What it is.
    pub what: String,
    /// How bad it is.
    pub state: State,
    /// What there is.
    pub found: String,
    /// What to do about it; empty where nothing is to be done.
    pub remedy: String,
}

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub area: String,
    pub all: Vec<Finding>,
}

impl Findings {
    pub(crate) fn say(&mut self, what: &str, state: State, found: impl Into<String>, remedy: &str) {
        self.all.push(Finding {
            area: self.area.clone(),
            what: what.to_owned(),
            state,
            found: found.into(),
            remedy: if state == State::Ok { "" } else { remedy }.to_owned(),
        });
    }

    pub(super) fn test(
        &mut self,
        what: &str,
        good: bool,
        bad: State,
        found: impl Into<String>,
        remedy: &str,
    ) {
        let state = if good { State::Ok } else { bad };
        self.say(what, state, found, remedy);
    }
}
