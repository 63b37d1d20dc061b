//! Plans a process in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use oci_spec::runtime::Process;

use super::super::confinement::Confinement;
use super::super::namespaces::JoinedNamespaces;
use super::super::script::{Script, Step};
use super::super::spawn::{BornIn, Launch};
use super::super::talk::{NotifyHandler, SeccompAgent};
use super::super::{Error, Result, Stdio, process, scheduling};
use super::{enter_cgroup, keyring};
use crate::cgroup::{Below, Cgroup};
use crate::isolation::Judged;
use crate::seccomp::Program;
use crate::sys::creds;
use crate::sys::process::pid_of;

/// What a process in a running container is planned from.
pub struct ExecPlan<'a> {
    /// The process to run.
    pub process: &'a Judged<Process>,
    /// The container's namespaces that are not the caller's.
    pub enter: JoinedNamespaces,
    /// Whether somebody in its pid namespace may trace processes that have more rights.
    pub may_be_traced: bool,
    /// The execution domain of the container's programs, `personality(2)`.
    pub personality: Option<u64>,
    /// Who decides on the calls that the filter asks about: see [`super::seccomp_agent`].
    pub seccomp_agent: Option<SeccompAgent>,
    /// The container's id.
    pub id: &'a str,
    /// A pidfd of the container's init.
    pub init: OwnedFd,
    /// The container's control groups.
    pub cgroup: Option<&'a Cgroup>,
    /// Groups below them, to run in instead.
    pub below: &'a Below,
    /// Whether to wait for as long as it takes: in a frozen group, until that is thawed.
    pub patient: bool,
    /// Standard streams.
    pub stdio: Stdio,
    /// The filter of the container's init.
    pub seccomp: Option<Arc<Program>>,
    /// What a profile adds.
    pub confinement: Option<Arc<Confinement>>,
    /// Who sees what the filters deny.
    pub watcher: Option<NotifyHandler>,
    /// Whether to join the container's session keyring.
    pub new_keyring: bool,
    /// How many of the caller's descriptors after the standard three the program gets.
    pub preserve_fds: u32,
}

/// Plans a process in a running container.
pub fn exec(plan: ExecPlan<'_>) -> Result<Launch> {
    let (enter, seccomp_agent) = (plan.enter, plan.seccomp_agent);
    let program = process::program(plan.process)?;
    let terminal = matches!(plan.stdio, Stdio::Terminal { .. });
    let mut own = process::Plan {
        process: plan.process,
        stdio: plan.stdio,
        seccomp: plan.seccomp,
        watched: plan.watcher.as_ref().map(|w| w.program.clone()),
        keyring: keyring(plan.id, plan.new_keyring)?,
        preserve_fds: plan.preserve_fds,
        mapped: enter.has(libc::CLONE_NEWUSER),
        confinement: plan.confinement,
        init: pid_of(plan.init.as_fd()).ok(),
        exec: true,
    };
    let mut birth = BornIn {
        init: own.init,
        ..BornIn::default()
    };
    let mut steps = Vec::new();
    let (before, after) = scheduling::exec_affinity(plan.process)?;
    steps.extend(before);
    let entry = plan.cgroup.map(|c| c.entry_below(plan.below));
    enter_cgroup(entry.transpose()?, &mut birth, &mut steps);
    steps.push(after);
    own.early_steps(&mut steps)?;
    if own.has_labels() {
        steps.push(Step::KeepProc);
    }
    if own.mapped {
        steps.push(Step::DropGroups);
    }
    // Whoever may be traced is born in the container's pid namespace when it has joined all others: by then nothing of the node is in its
    // reach. So is who has no rights over its own pid namespace, and could not come back from another one. It takes a clone more.
    let has_pids = enter.has(libc::CLONE_NEWPID);
    let late = has_pids && (plan.may_be_traced && !own.mapped || creds::is_in_user_namespace());
    if has_pids && !late {
        let init = plan.init.try_clone();
        birth.pid_namespace = Some(
            init.map_err(|e| Error::field("exec", format!("duplicate the init's pidfd: {e}")))?,
        );
    }
    if enter.flags != 0 {
        steps.push(Step::JoinNamespace {
            ns: plan.init,
            flags: enter.flags,
            what: "the container's namespaces".into(),
        });
    }
    if late {
        steps.push(Step::CloneSibling { namespaces: 0 });
    }
    own.label_steps(&mut steps)?;
    if own.mapped {
        steps.push(Step::BecomeRoot);
    }
    steps.push(Step::OpenOwnRoot);
    own.stdio_step(false, &mut steps);
    steps.extend(plan.personality.map(Step::Personality));
    own.late_steps(None, &mut steps)?;
    let script = Script {
        times: None,
        steps,
        program,
        preserve_fds: plan.preserve_fds,
    };
    let launch = Launch::new(script, birth, terminal, seccomp_agent);
    Ok(launch.with_watcher(plan.watcher).patient(plan.patient))
}
