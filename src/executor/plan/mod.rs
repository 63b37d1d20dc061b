//! From a request to a [`Script`](super::script::Script): the half of the executor that allocates, validates, and needs no root.

mod exec;
mod init;
mod sysctl;

use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use oci_spec::runtime::Spec;

use super::confinement::Confinement;
use super::error::c_string;
use super::remains::Undo;
use super::script::Step;
use super::spawn::{BornIn, Launched};
use super::talk::{NotifyHandler, SeccompAgent};
use super::{Error, PodUsers, Result, Stdio, hooks};
use crate::cgroup::{Cgroup, DeniedEgress, Entry};
use crate::isolation::Judged;
use crate::oci::{Request, RootMount};
use crate::seccomp::Program;
use crate::trace;
pub use exec::{ExecPlan, exec};
pub(super) use init::init;

/// What a container's init is planned from.
pub struct InitPlan<'a> {
    /// What will be enforced.
    pub request: &'a Judged<Request>,
    /// The container's id; hooks and keyring carry it.
    pub id: &'a str,
    /// Directory of `config.json`.
    pub bundle: &'a Path,
    /// Mounts that make up the root file system; empty if it is there already.
    pub root_mounts: &'a Judged<Vec<RootMount>>,
    /// The container's control groups, already created.
    pub cgroup: Option<&'a Cgroup>,
    /// Standard streams.
    pub stdio: Stdio,
    /// The compiled `linux.seccomp`.
    pub seccomp: Option<Arc<Program>>,
    /// What a profile adds.
    pub confinement: Option<Arc<Confinement>>,
    /// Who sees what the filters deny.
    pub watcher: Option<NotifyHandler>,
    /// Who counts the destinations that the profile denies.
    pub denied_egress: Option<&'a DeniedEgress>,
    /// What the container is told of its isolation, in `/dev/cofferdam`.
    pub notice: Option<&'a str>,
    /// The pod's user namespace, where the spec has a new one that its containers are to share.
    pub users: Option<&'a PodUsers>,
    /// Whether to join a session keyring of the container's own.
    pub new_keyring: bool,
    /// Where another process will open the gate; without it, only the caller can.
    pub gate: Option<OwnedFd>,
    /// How many of the caller's descriptors after the standard three the program gets.
    pub preserve_fds: u32,
    /// Whether to pivot to the root. Otherwise it is moved, which a process with `CAP_SYS_CHROOT` can undo.
    pub pivot: bool,
}

fn keyring(id: &str, wanted: bool) -> Result<Option<CString>> {
    wanted
        .then(|| c_string(format!("_ses.{id}"), "id"))
        .transpose()
}

/// Makes the container's groups and its init, which sets itself up while this returns: the caller has time for something.
///
/// # Errors
/// Nothing of the groups and the init is left then, nor where what is returned is dropped.
pub fn launch<'a>(
    plan: InitPlan<'a>,
    hooks: Option<&'a hooks::HookRunner>,
) -> Result<Launched<'a>> {
    let (cgroup, request) = (plan.cgroup, plan.request);
    let groups = trace::span("make control groups");
    let placeholder = cgroup.map(|c| c.create(request)).transpose()?.flatten();
    drop(groups);
    let undo = Undo::new(plan.id, request, cgroup, hooks, placeholder);
    match (
        plan.confinement.as_ref().and_then(|c| c.egress.as_ref()),
        cgroup,
    ) {
        (Some(allowed), Some(cgroup)) => cgroup.restrict_egress(allowed, plan.denied_egress)?,
        (Some(_), None) => return Err(Error::field("network.egress", "needs cgroups")),
        (None, _) => {}
    }
    let planning = trace::span("plan");
    let job = init(plan, hooks)?;
    drop(planning);
    job.launch(undo)
}

/// The seccomp agent that the spec names, and the OCI state that it gets with the filter's descriptor.
pub fn seccomp_agent(
    filter: Option<&Arc<Program>>,
    spec: &Spec,
    id: &str,
    bundle: &Path,
    status: &str,
) -> Option<SeccompAgent> {
    let listener = filter?.listener.clone()?;
    let state = serde_json::json!({
        "ociVersion": spec.version(),
        "id": id,
        "status": status,
        "bundle": bundle,
        "annotations": spec.annotations()
    });
    Some(SeccompAgent { listener, state })
}

fn enter_cgroup(entry: Option<Entry>, birth: &mut BornIn, steps: &mut Vec<Step>) {
    let Some(entry) = entry else { return };
    birth.cgroup = entry.v2;
    steps.extend(
        entry
            .tasks
            .into_iter()
            .map(|(path, tasks)| Step::EnterCgroup {
                tasks,
                path: path.display().to_string(),
            }),
    );
}

/// Makes the directory that the root will be mounted on.
pub fn prepare_root_directory(request: &Judged<Request>) -> Result<()> {
    let path = &request.root.source.path;
    match fs::create_dir(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::field(
            "root.path",
            format!("create {}: {e}", path.display()),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
