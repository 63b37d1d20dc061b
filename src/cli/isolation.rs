//! The isolation profile of a container of the command line: by `--profile`, or by the name of the link that the command was called
//! by, for callers like podman that pass a runtime's path and nothing else.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use oci_spec::runtime::{LinuxResources, Process, Spec};

use super::systemd::notify_directory;
use super::{Error, Result};
use crate::cgroup::Layout;
use crate::executor::Confinement;
use crate::isolation::Judged;
use crate::oci::{Links, Reading, Request};
use crate::pod::{Isolation, OfPod};
use crate::sys::creds;

/// The profile that a command's name stands for: `cofferdam-hardened` for `hardened`.
pub(super) fn of_command(program: &OsStr) -> Option<String> {
    // A name that is not UTF-8 is no profile's, and is refused as one.
    let name = Path::new(program).file_name()?.to_string_lossy();
    name.strip_prefix("cofferdam-").map(str::to_owned)
}

/// A container's profile; none is `standard`.
pub(super) struct Profile(Option<Isolation>);

impl Profile {
    /// Loads it.
    pub(crate) fn of(name: Option<&str>) -> Result<Self> {
        let name = name.filter(|name| *name != "standard");
        if let Some(name) = name.filter(|name| name.contains('/')) {
            return Err(Error::Other(format!(
                "--profile {name}: is a path: give the name of a profile (`cofferdam profile list`)"
            )));
        }
        // What they may have of the node is the kernel's to say; whom would the profile protect from them?
        if let Some(name) = name.filter(|_| !creds::is_root_of_machine()) {
            return Err(Error::Other(format!(
                "profile {name:?}: profiles are for containers that root makes: run this without a profile"
            )));
        }
        let loaded = name.map(Isolation::load).transpose();
        let loaded = loaded.map_err(|e| Error::Other(e.to_string()))?;
        Ok(Self(loaded))
    }

    pub(crate) fn name(&self) -> Option<String> {
        self.0.as_ref().map(|i| i.name().to_owned())
    }

    /// Whether it takes anything away.
    pub(crate) fn restricts(&self) -> bool {
        self.0.as_ref().is_some_and(Isolation::restricts)
    }

    pub(crate) fn confinement(&self) -> Option<Arc<Confinement>> {
        self.0.as_ref()?.confinement()
    }

    /// Reads a spec to be carried out, and puts the profile's floor under it. Returns what the container is told of that as well. `own` is the container's directory of ours.
    pub(crate) fn judge(
        &self,
        spec: Spec,
        id: &str,
        bundle: &Path,
        own: &Path,
    ) -> Result<(Judged<Request>, Option<String>)> {
        let Some(isolation) = &self.0 else {
            let reading = Reading::Run(Links::Any);
            return Ok((
                Judged::standard(Request::read(spec, bundle, reading)?),
                None,
            ));
        };
        let asked = Request::read(spec, bundle, isolation.reading())?;
        if asked.namespaces.mount.is_host() {
            return Err(Error::Other(
                "linux.namespaces: a profile needs a mount namespace".into(),
            ));
        }
        // A pod is given users by its shim, which lives as long as they are its own. Here nobody does.
        if isolation.gives_users() && asked.namespaces.user.is_host() {
            return Err(Error::Other(format!(
                "profile {:?} refuses a container without users of its own (linux.namespaces has no user namespace): with podman add --userns=auto, or --uidmap and --gidmap",
                isolation.name()
            )));
        }
        let layout = layout()?;
        let of_pod = OfPod {
            layout: &layout,
            users: None,
            place: isolation
                .place(id, bundle, None)
                .by_hand(&notify_directory(own)),
            namespaces: BTreeSet::new(),
        };
        let judged = isolation.judge(id, of_pod, asked);
        judged.map_err(|e| Error::Other(e.to_string()))
    }

    /// The same for the process of an exec.
    pub(crate) fn judge_exec(&self, process: Process) -> Result<Judged<Process>> {
        match &self.0 {
            None => Ok(Judged::standard(process)),
            Some(isolation) => {
                let judged = isolation.judge_exec(&layout()?, process);
                judged.map_err(|e| Error::Other(e.to_string()))
            }
        }
    }

    /// The same for changed resources.
    pub(crate) fn judge_update(&self, resources: LinuxResources) -> Result<Judged<LinuxResources>> {
        match &self.0 {
            None => Ok(Judged::standard(resources)),
            Some(isolation) => {
                let judged = isolation.judge_update(resources);
                judged.map_err(|e| Error::Other(e.to_string()))
            }
        }
    }
}

fn layout() -> Result<Layout> {
    Layout::detect().map_err(Error::io("find the node's cgroups"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_profiles() {
        let profile = |program: &str| of_command(OsStr::new(program));
        assert_eq!(
            profile("/usr/bin/cofferdam-hardened").as_deref(),
            Some("hardened")
        );
        assert_eq!(profile("cofferdam-my-own").as_deref(), Some("my-own"));
        assert_eq!(profile("/usr/bin/cofferdam"), None);
        assert_eq!(profile(""), None);
    }
}
