//! Plans a process in a running container.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use oci_spec::runtime::Process;

use super::super::confinement::Confinement;
use super::super::script::{Script, Step};
use super::super::spawn::{BornIn, Launch};
use super::super::talk::{NotifyHandler, SeccompAgent};
use super::super::{Error, Result, Stdio, namespaces, process, scheduling, userns};
use super::{enter_cgroup, keyring};
use crate::cgroup::{Below, Cgroup};
use crate::isolation::Judged;
use crate::oci::Request;
use crate::seccomp::Program;
use crate::sys::creds;

/// What an exec has of its container beside its process's own fields. First, the namespaces that it joins only if the container has its
/// own. It always joins the other five; joining one
/// of these that is the node's would fail, because `setns(2)` does not tell them apart.
#[derive(Debug, Clone, Copy, Default)]
pub struct JoinedNamespaces {
    /// The pid namespace.
    pub pid: bool,
    /// The user namespace.
    pub user: bool,
    /// The time namespace.
    pub time: bool,
    /// The execution domain of its programs, `personality(2)`.
    personality: Option<u64>,
}

impl JoinedNamespaces {
    /// As the container has them.
    pub fn of(request: &Request) -> Self {
        let namespaces = &request.namespaces;
        Self {
            pid: !namespaces.pid.is_host(),
            user: !namespaces.user.is_host(),
            time: !namespaces.time.is_host(),
            personality: request
                .rest
                .linux()
                .as_ref()
                .and_then(|l| l.personality().as_ref())
                .map(scheduling::domain),
        }
    }
}

/// What a process in a running container is planned from.
pub struct ExecPlan<'a> {
    /// The process to run.
    pub process: &'a Judged<Process>,
    /// Which of the container's namespaces are other than the node's, beside those that always are.
    pub enter: JoinedNamespaces,
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

fn duplicate(pidfd: &OwnedFd) -> Result<OwnedFd> {
    pidfd
        .try_clone()
        .map_err(|e| Error::field("exec", format!("duplicate the init's pidfd: {e}")))
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
        mapped: enter.user,
        confinement: plan.confinement,
        init: userns::pid_of(&plan.init).ok(),
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
    if enter.pid && creds::is_in_user_namespace() {
        // Who has no rights over the own pid namespace cannot come back from another one. The process itself need not.
        steps.push(Step::JoinNamespace {
            ns: duplicate(&plan.init)?,
            flags: libc::CLONE_NEWPID,
            what: "the container's pid namespace".into(),
        });
        steps.push(Step::CloneSibling { namespaces: 0 });
    } else if enter.pid {
        birth.pid_namespace = Some(duplicate(&plan.init)?);
    }
    own.label_steps(&mut steps);
    let mut flags = namespaces::to_join(own.init);
    if enter.user {
        flags |= libc::CLONE_NEWUSER;
    }
    if enter.time {
        flags |= namespaces::CLONE_NEWTIME;
    }
    if birth.pid_namespace.is_some() {
        flags |= libc::CLONE_NEWPID;
    }
    steps.push(Step::JoinNamespace {
        ns: plan.init,
        flags,
        what: "the container's namespaces".into(),
    });
    if enter.user {
        steps.push(Step::BecomeRoot);
    }
    steps.push(Step::OpenOwnRoot);
    own.stdio_step(false, &mut steps);
    steps.extend(enter.personality.map(Step::Personality));
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
