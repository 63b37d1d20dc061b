//! One container.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oci_spec::runtime::LinuxResources;

use super::denials::Denials;
use super::isolation::{Isolation, host_limits};
use super::process::{Exit, Process, Status};
use super::{Error, Result, lock};
use crate::cgroup::{Cgroup, DeniedEgress, stats::Stats};
use crate::control;
use crate::executor::userns::Maps;
use crate::executor::{JoinedNamespaces, SeccompAgent, hooks};
use crate::learn::Recorder;
use crate::names::Names;
use crate::oci::Inherited;
use crate::seccomp;

/// How long a kill waits for processes to go.
const KILL_WITHIN: Duration = Duration::from_secs(10);

/// One container of the pod.
pub struct Container {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) cgroup: Arc<Cgroup>,
    /// Its init's end ends all its processes.
    pub(super) own_pids: bool,
    /// What an exec joins.
    pub(super) enter: JoinedNamespaces,
    /// Whether processes of it may trace others that have more rights: its own, or an exec's.
    pub(super) has_tracers: AtomicBool,
    pub(super) personality: Option<u64>,
    /// What its ids are on the node.
    pub(super) maps: Maps,
    /// What an exec has of the init's process.
    pub(super) inherited: Inherited,
    /// Who decides on the calls that the filter of an exec asks about.
    pub(super) seccomp_agent: Option<SeccompAgent>,
    pub(super) seccomp: Option<Arc<seccomp::Program>>,
    /// What its filters deny, where that is seen.
    pub(super) denials: Option<Arc<Denials>>,
    /// The destinations that it was kept from, where its profile lists those that it may reach.
    pub(super) denied_egress: Option<DeniedEgress>,
    /// What it, and every exec in it, is isolated by.
    pub(super) isolation: Arc<Isolation>,
    pub(super) hooks: Option<Arc<hooks::HookRunner>>,
    pub(super) new_keyring: bool,
    /// The capabilities that its processes can have.
    pub(super) capabilities: u64,
    /// Calls that the pod's own filter allows.
    pub(super) allowed: Option<usize>,
    /// What it uses, while that is recorded.
    pub(super) recorder: Mutex<Option<Recorder>>,
    pub(super) init: Arc<Process>,
    pub(super) execs: Mutex<HashMap<String, Arc<Process>>>,
    pub(super) paused: AtomicBool,
    /// Whether its resources were changed after Create.
    pub(super) updated: AtomicBool,
    /// In seconds since 1970.
    pub(super) created: u64,
    /// What people call it.
    pub(super) names: Names,
    /// The first of the ids that the pod was given.
    pub(super) users: Option<u32>,
    /// OOM kills that were announced.
    pub(super) oom_announced: AtomicU64,
    /// The counters as they were when the init ended: a client may ask until Delete, when the group may be gone.
    pub(super) last_usage: Mutex<Option<Stats>>,
}

/// One process in the container's cgroup, and the exec that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The pid in the node's namespace.
    pub pid: i32,
    /// The exec id, for the process that an exec started.
    pub exec_id: Option<String>,
}

impl Container {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Directory of `config.json`.
    pub fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// Everything about it that people ask for.
    pub(super) fn describe(&self) -> control::Container {
        let report = self.init.report();
        let given = host_limits(self.cgroup.layout());
        let counters = self.cgroup.counters();
        let memory = counters.memory.map(|m| m.usage).unwrap_or_default();
        let pids = counters.pids.unwrap_or_default();
        // A limit beyond what any machine has is none.
        let limit = |limit: u64| (limit > 0 && limit < i64::MAX as u64 / 2).then_some(limit);
        let filters = match (&self.denials, self.isolation.floor(), &self.seccomp) {
            (Some(_), ..) => 1,
            (None, floor, own) => u32::from(floor.is_some()) + u32::from(own.is_some()),
        };
        control::Container {
            id: self.id.clone(),
            names: self.names.clone(),
            bundle: self.bundle.clone(),
            pid: report.pid,
            status: if self.is_paused() {
                "paused"
            } else {
                name(report.status)
            }
            .into(),
            created: self.created,
            cgroup: self.cgroup.cgroups_path(),
            below: self.cgroup.below().clone(),
            profile: self.isolation.name().to_owned(),
            profile_toml: self.isolation.to_toml(),
            unavailable: self.isolation.missing(),
            users: self.users,
            open_files: given.open_files,
            core_size: given.core_size,
            filters,
            watched: self.denials.is_some(),
            updated: self.updated.load(Ordering::Relaxed),
            learning: lock(&self.recorder).is_some(),
            usage: control::Usage {
                memory: memory.now,
                memory_limit: limit(memory.limit),
                pids: pids.current,
                pids_limit: limit(pids.limit),
                cpu: counters.cpu.total,
            },
            denials: self.denied(),
        }
    }

    /// What its profile and its filters have denied so far.
    fn denied(&self) -> Vec<control::Denials> {
        let calls = self.denials.as_ref().map(|d| d.counts());
        let mut all = calls.unwrap_or_default();
        let rule = format!("profile {}: network.egress", self.isolation.name());
        all.extend(
            self.denied_egress()
                .into_iter()
                .map(|(to, count)| control::Denials {
                    call: to,
                    rule: rule.clone(),
                    what: "denied".into(),
                    count,
                }),
        );
        all
    }

    /// Destinations that it was kept from, for people, and how often.
    pub(super) fn denied_egress(&self) -> Vec<(String, u64)> {
        self.denied_egress
            .as_ref()
            .map(DeniedEgress::counts)
            .unwrap_or_default()
    }

    /// Its init.
    pub fn init(&self) -> &Arc<Process> {
        &self.init
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// The init (empty id), or an exec.
    pub fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() {
            return Ok(self.init.clone());
        }
        lock(&self.execs)
            .get(exec_id)
            .cloned()
            .ok_or_else(|| Error::NotFound(format!("process does not exist {exec_id}")))
    }

    /// Announces an exec.
    pub(super) fn add_exec(&self, exec: &Arc<Process>) -> Result<()> {
        let mut execs = lock(&self.execs);
        if execs.contains_key(exec.exec_id()) {
            return Err(Error::AlreadyExists(format!("id {}", exec.exec_id())));
        }
        execs.insert(exec.exec_id().to_owned(), exec.clone());
        Ok(())
    }

    pub(super) fn remove_exec(&self, exec_id: &str) {
        lock(&self.execs).remove(exec_id);
    }

    pub(super) fn all_execs(&self) -> Vec<Arc<Process>> {
        lock(&self.execs).values().cloned().collect()
    }

    /// Sends `signal` to a process, or with `all` to everything in the container.
    pub fn kill(&self, exec_id: &str, signal: i32, all: bool) -> Result<()> {
        if !(0..=64).contains(&signal) {
            return Err(Error::InvalidArgument(format!("{signal} is not a signal")));
        }
        let process = self.process(exec_id)?;
        if exec_id.is_empty() && all {
            if process.report().status == Status::Stopped {
                return Err(Error::NotFound("process already finished".into()));
            }
            self.cgroup.signal_all(signal);
            return Ok(());
        }
        process.signal(signal)?;
        if signal == libc::SIGKILL && self.is_paused() {
            // A frozen process dies when it thaws.
            self.cgroup.set_frozen(false).ok();
            self.paused.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) async fn kill_everything(self: &Arc<Self>) -> Result<()> {
        let this = self.clone();
        super::blocking::blocking(move || {
            this.cgroup.signal_all(libc::SIGKILL);
            this.cgroup.kill_and_wait(KILL_WITHIN).map_err(Error::from)
        })
        .await
    }

    /// Every process in the container. The init is among them as long as it is not deleted, also when it has ended:
    /// containerd takes a shim whose list is empty for a leaked one when it restarts.
    pub fn pids(&self) -> Vec<Usage> {
        let execs: HashMap<i32, String> = self
            .all_execs()
            .iter()
            .map(|e| (e.pid(), e.exec_id().to_owned()))
            .collect();
        let mut pids = self.cgroup.pids();
        if !pids.contains(&self.init.pid()) {
            pids.insert(0, self.init.pid());
        }
        pids.into_iter()
            .map(|pid| Usage {
                pid,
                exec_id: execs.get(&pid).cloned(),
            })
            .collect()
    }

    /// Its counters, also after its end.
    pub fn stats(&self) -> Result<Stats> {
        if let Some(m) = lock(&self.last_usage).clone() {
            return Ok(m);
        }
        self.cgroup
            .stats()
            .ok_or_else(|| Error::NotFound("cgroup does not exist".into()))
    }

    /// Freezes or thaws it. Blocks.
    pub fn set_paused(&self, pause: bool) -> Result<()> {
        if self.init.report().status != Status::Running {
            let (what, status) = (
                if pause { "pause" } else { "resume" },
                self.init.report().status,
            );
            return Err(Error::Unknown(format!(
                "cannot {what} a {} container",
                name(status)
            )));
        }
        if self.is_paused() == pause {
            return Err(Error::Unknown(
                if pause {
                    "cannot pause a paused container"
                } else {
                    "cannot resume a running container"
                }
                .into(),
            ));
        }
        self.cgroup.set_frozen(pause)?;
        self.paused.store(pause, Ordering::Relaxed);
        Ok(())
    }

    /// Applies resources to the live container. Blocks.
    pub fn update(&self, resources: LinuxResources) -> Result<()> {
        if self.init.report().status == Status::Stopped {
            return Err(Error::Unknown("cannot update a stopped container".into()));
        }
        let resources = self.isolation.judge_update(resources)?;
        self.updated.store(true, Ordering::Relaxed);
        Ok(self.cgroup.update(&resources)?)
    }

    /// OOM kills that were not announced yet; they count as announced from now on.
    pub(super) fn take_oom_kills(&self) -> u64 {
        let now = self.cgroup.oom_kills().unwrap_or(0);
        now.saturating_sub(self.oom_announced.fetch_max(now, Ordering::Relaxed))
    }

    /// For when it has ended: its groups may go before it is deleted.
    pub(super) fn remember_usage(&self) {
        if self.cgroup.is_managed_by_systemd() {
            *lock(&self.last_usage) = self.cgroup.stats();
        }
    }

    pub(super) fn dump(&self) -> Vec<String> {
        let one = |p: &Process| {
            let r = p.report();
            format!(
                "id={} exec={:?} pid={} status={} exit={:?}",
                self.id,
                p.exec_id(),
                r.pid,
                name(r.status),
                r.exit.map(|e: Exit| e.status)
            )
        };
        std::iter::once(one(&self.init))
            .chain(self.all_execs().iter().map(|e| one(e)))
            .collect()
    }
}

pub(super) fn name(status: Status) -> &'static str {
    match status {
        Status::Created => "created",
        Status::Running => "running",
        Status::Stopped => "stopped",
    }
}

impl Container {
    /// Whether an exec may start now.
    pub(super) fn check_exec(&self) -> Result<()> {
        match self.init.report().status {
            Status::Running if self.is_paused() => {
                Err(Error::Unknown("cannot exec in a paused state".into()))
            }
            Status::Running | Status::Created => Ok(()),
            Status::Stopped => Err(Error::FailedPrecondition(format!(
                "container {} init process is not running",
                self.id
            ))),
        }
    }
}
