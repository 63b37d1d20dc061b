//! A live container: what its pod asked for, what the profile makes of it, and what the kernel shows.

mod files;
mod kernel;
mod process;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use oci_spec::runtime::{
    Capabilities, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, Process, Spec,
};
use serde::Serialize;

use crate::cgroup::{Cgroup, Layout};
use crate::control;
use crate::inspect::landlock;
use crate::inspect::process::Status;
use crate::isolation::{self, Given, Node, Place, PodOfKubernetes, Profile};
use crate::oci::{self, Reading, Request, capabilities};
use crate::pod::host_limits;

/// What is to be said of a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// As the pod asked, and the profile adds nothing.
    Kept,
    /// The profile adds to what the pod asked, and it is there.
    Tightened,
    /// Promised, and not there.
    Missing,
    /// Best effort in the profile, and not to be had on this machine.
    NotHere,
    /// Applied when the process started, or it would not have; the kernel does not show it.
    NotShown,
    /// Promised by nobody.
    Note,
}

/// One thing that is enforced, or is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What it belongs to, for people.
    pub section: &'static str,
    /// What it is.
    pub what: String,
    /// What the pod asked for.
    pub asked: String,
    /// What the profile makes of it.
    pub promised: String,
    /// What the kernel shows.
    pub found: String,
    /// What is to be said of it.
    pub mark: Mark,
}

/// Everything about one container.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The container, as its shim tells.
    pub container: control::Container,
    /// Line by line.
    pub lines: Vec<Line>,
}

impl Explanation {
    /// How many promises are broken.
    pub fn missing(&self) -> usize {
        let missing = |l: &&Line| l.mark == Mark::Missing;
        self.lines.iter().filter(missing).count()
    }
}

/// The lines so far.
struct Lines {
    section: &'static str,
    all: Vec<Line>,
}

impl Lines {
    fn push(
        &mut self,
        what: impl Into<String>,
        asked: impl Display,
        promised: impl Display,
        found: impl Display,
        mark: Mark,
    ) {
        self.all.push(Line {
            section: self.section,
            what: what.into(),
            asked: asked.to_string(),
            promised: promised.to_string(),
            found: found.to_string(),
            mark,
        });
    }

    /// A promise, and whether it is kept.
    fn promise(
        &mut self,
        what: impl Into<String>,
        asked: impl Display,
        promised: impl Display,
        found: impl Display,
        kept: bool,
    ) {
        let (asked, promised) = (asked.to_string(), promised.to_string());
        let mark = match (kept, asked == promised) {
            (false, _) => Mark::Missing,
            (true, true) => Mark::Kept,
            (true, false) => Mark::Tightened,
        };
        self.push(what, asked, promised, found, mark);
    }

    /// What this machine cannot do.
    fn unavailable(&mut self, lack: &control::Unavailable) {
        let mark = if lack.accepted {
            Mark::NotHere
        } else {
            Mark::Missing
        };
        self.push(lack.what.as_str(), "no", "yes", &lack.why, mark);
    }

    /// What a profile promises beyond OCI's fields.
    fn added(&mut self, what: &str, wanted: bool, found: impl Display, kept: bool) {
        if wanted {
            self.promise(what, "no", "yes", found, kept);
        }
    }
}

/// Everything that the rest needs to know.
struct Case<'a> {
    pod: &'a control::Pod,
    container: &'a control::Container,
    profile: Profile,
    asked: Spec,
    promised: Spec,
    status: Status,
    cgroup: Cgroup,
}

/// What keeps a container from being looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not run.
    #[error("container {id} is {status}: what is enforced can be seen while it runs")]
    NotRunning {
        /// Its id.
        id: String,
        /// As its shim says.
        status: String,
    },
    /// It has just ended.
    #[error("container {0} ended while it was looked at")]
    Ended(String),
    /// The profile that its shim says it has.
    #[error(transparent)]
    Profile(#[from] isolation::Error),
    /// Its spec.
    #[error(transparent)]
    Spec(#[from] oci::Error),
    /// The node's settings.
    #[error(transparent)]
    Node(#[from] isolation::NodeError),
    /// The node's control groups.
    #[error("find the node's cgroups: {0}")]
    Layout(#[source] std::io::Error),
    /// The container's control groups.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::Error),
    /// Its profile is another by now, or it was made by another version.
    #[error("the shim runs what its profile refuses: {0}")]
    Refused(#[from] isolation::Refusal),
}

/// Looks at a container. With `read_filters` its init is stopped for a moment: see [`crate::sys::tracer::seccomp_filters`].
pub fn explain(
    pod: &control::Pod,
    container: &control::Container,
    read_filters: bool,
) -> Result<Explanation, Error> {
    let id = &container.id;
    if !matches!(container.status.as_str(), "running" | "paused") {
        return Err(Error::NotRunning {
            id: id.clone(),
            status: container.status.clone(),
        });
    }
    let profile = container.profile()?;
    let layout = Arc::new(Layout::detect().map_err(Error::Layout)?);
    let asked = oci::load(&container.bundle)?;
    let request = Request::read(asked.clone(), &container.bundle, Reading::Show)?;
    let given = Given {
        open_files: container.open_files,
        core_size: container.core_size,
        users: container.users,
        place: Place::of(&Node::load()?, &container.bundle, id)
            .of_pod(PodOfKubernetes::claimed(&request)),
        ..host_limits(&layout)
    };
    let promised = isolation::judge(&profile, &given, request)?
        .judged
        .to_spec(&asked);
    let status = Status::of(container.pid).ok_or_else(|| Error::Ended(id.clone()))?;
    let cgroup = Cgroup::at(layout, &container.cgroup, container.below.clone(), id)?;
    let case = Case {
        pod,
        container,
        profile,
        asked,
        promised,
        status,
        cgroup,
    };
    let mut lines = Lines {
        section: "",
        all: Vec::new(),
    };
    case.users(&mut lines);
    case.process(&mut lines);
    case.system_calls(&mut lines);
    if read_filters {
        case.filters(&mut lines);
    }
    case.kernel(&mut lines);
    case.namespaces(&mut lines);
    case.files(&mut lines)?;
    case.limits(&mut lines)?;
    case.other_processes(&mut lines);
    if Status::of(container.pid).is_none() {
        return Err(Error::Ended(id.clone()));
    }
    let mut container = container.clone();
    if case.profile.landlock.audit {
        let mut pids: BTreeSet<i32> = case.cgroup.pids().into_iter().collect();
        pids.insert(container.pid);
        let rule = format!("profile {}: landlock", case.profile.name);
        let denied = landlock::denied(&pids).into_iter();
        container
            .denials
            .extend(denied.map(|(call, count)| control::Denials {
                call,
                rule: rule.clone(),
                what: "denied".into(),
                count,
            }));
    }
    Ok(Explanation {
        container,
        lines: lines.all,
    })
}

/// A spec's namespace of a type, for those who show it.
fn namespace(spec: &Spec, typ: LinuxNamespaceType) -> Option<&LinuxNamespace> {
    let list = spec.linux().as_ref()?.namespaces().as_ref()?;
    list.iter().find(|n| n.typ() == typ)
}

fn on(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn mask(set: Option<&Capabilities>) -> u64 {
    let bit = |c| {
        let name = format!("CAP_{c}");
        capabilities::NAMES.iter().position(|n| *n == name)
    };
    let bits = set.into_iter().flatten().filter_map(bit);
    bits.fold(0, |mask, bit| mask | 1 << bit)
}

fn maps(mappings: Option<&Vec<LinuxIdMapping>>) -> Vec<(u32, u32, u32)> {
    let one = |m: &LinuxIdMapping| (m.container_id(), m.host_id(), m.size());
    mappings.into_iter().flatten().map(one).collect()
}

fn show_maps(maps: &[(u32, u32, u32)]) -> String {
    let one = |(inside, outside, size): &(u32, u32, u32)| match size {
        &u32::MAX => "the node's".to_owned(),
        _ => format!("{inside} is {outside} on the node, {size} ids"),
    };
    let all: Vec<String> = maps.iter().map(one).collect();
    if all.is_empty() {
        "the node's".into()
    } else {
        all.join("; ")
    }
}

impl Case<'_> {
    fn pid(&self) -> i32 {
        self.container.pid
    }

    fn process_of(spec: &Spec) -> Process {
        spec.process().clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_for_each_case() {
        let mut lines = Lines {
            section: "x",
            all: Vec::new(),
        };
        lines.promise("a", "no", "yes", "yes", true);
        lines.promise("b", "yes", "yes", "yes", true);
        lines.promise("c", "no", "yes", "no", false);
        lines.promise("d", "yes", "yes", "no", false);
        lines.added("e", false, "no", false);
        let marks: Vec<Mark> = lines.all.iter().map(|l| l.mark).collect();
        assert_eq!(
            marks,
            [Mark::Tightened, Mark::Kept, Mark::Missing, Mark::Missing]
        );
    }
}
