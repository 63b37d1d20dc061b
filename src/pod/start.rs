//! Starting an init or an exec.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::io::unix::AsyncFd;

use super::blocking::{REMOVE_WITHIN, blocking, console_size, duplicate, no_streams, watchable};
use super::create::may_trace;
use super::process::{Exit, Process, State};
use super::{Container, Error, Event, Pod, Result};
use crate::cgroup::Below;
use crate::executor::{self, ExecPlan, Spawned};
use crate::isolation::Judged;
use crate::oci::HookKind;
use crate::oci::StdioUris;
use crate::stdio::{Owner, Streams};
use crate::sys::process::Child;
use crate::trace;

impl Pod {
    /// Announces an exec; Start runs it.
    pub fn exec(&self, id: &str, exec_id: &str, addresses: StdioUris, spec: &[u8]) -> Result<()> {
        let container = self.container(id)?;
        if exec_id.is_empty() {
            return Err(Error::InvalidArgument("an exec needs an id".into()));
        }
        crate::id::check(exec_id)?;
        let process = container.inherited.complete(spec);
        let mut process = process.map_err(|e| Error::InvalidArgument(e.to_string()))?;
        process.set_terminal(Some(addresses.terminal));
        let process = container.isolation.judge_exec(&self.layout, process)?;
        let addresses = container.isolation.judge_streams(addresses)?;
        let exec = Process::new(
            exec_id.to_owned(),
            addresses,
            State::Added(Box::new(process)),
            Streams::default(),
        );
        container.check_exec()?;
        container.add_exec(&exec)?;
        self.events.publish(Event::ExecAdded {
            container: container.id.clone(),
            exec: exec_id.to_owned(),
        });
        Ok(())
    }

    /// Starts the init or an exec. Returns its pid.
    pub async fn start(self: &Arc<Self>, id: &str, exec_id: &str) -> Result<i32> {
        let container = self.container(id)?;
        if exec_id.is_empty() {
            self.start_init(&container).await
        } else {
            self.start_exec(&container, exec_id).await
        }
    }

    async fn start_init(self: &Arc<Self>, container: &Arc<Container>) -> Result<i32> {
        let began = Instant::now();
        let _trace = trace::span("Start");
        let init = &container.init;
        let turn = init.turn.lock().await;
        let (gate, pid, pidfd) = init.transition(|state| match state {
            State::Created { gate, pid, pidfd } => Ok((
                State::Opening {
                    pid,
                    pidfd: pidfd.clone(),
                },
                (gate, pid, pidfd),
            )),
            state => Err(state.cannot_start()),
        })?;
        let fd = pidfd.clone();
        let opened = blocking(move || Ok(gate.open(pid, &fd)?)).await;
        init.set(State::Running { pid, pidfd });
        if let Err(e) = opened {
            log::error!(id:% = container.id, error:% = e; "start failed");
            // The init is ending. Its client deletes it next, which a running one would refuse.
            drop(turn);
            tokio::time::timeout(REMOVE_WITHIN, init.wait()).await.ok();
            return Err(e);
        }
        self.events.publish(Event::Started {
            id: container.id.clone(),
            pid,
        });
        log::debug!(id:% = container.id, pid:%, took_us:% = began.elapsed().as_micros(); "started");
        drop(turn);
        self.run_poststart(container, pid).await?;
        Ok(pid)
    }

    /// If a hook fails the container is stopped: OCI runtime.md 1.3, "Lifecycle", step 9.
    async fn run_poststart(&self, container: &Arc<Container>, pid: i32) -> Result<()> {
        let Some(hooks) = container.hooks.clone() else {
            return Ok(());
        };
        let run = blocking(move || Ok(hooks.run(HookKind::Poststart, pid)?)).await;
        if let Err(e) = &run {
            log::error!(id:% = container.id, error:% = e; "a hook failed: the container is stopped");
            container.init.signal(libc::SIGKILL).ok();
            tokio::time::timeout(REMOVE_WITHIN, container.init.wait())
                .await
                .ok();
        }
        run
    }

    async fn start_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        exec_id: &str,
    ) -> Result<i32> {
        let exec = container.process(exec_id)?;
        let _turn = exec.turn.lock().await;
        container.check_exec()?;
        let process = exec.take_exec()?;
        let (c, e) = (container.clone(), exec.clone());
        let namespace = self.namespace.clone();
        let spawned = blocking(move || spawn_exec(&c, &e, &process, &namespace)).await;
        let (child, pidfd, streams) = match spawned {
            Ok(spawned) => spawned,
            Err(e) => {
                // Wakes the clients that wait for it: it will never run.
                exec.finish(Exit::now(128));
                log::error!(id:% = container.id, exec:% = exec_id, error:% = e; "exec failed");
                return Err(e);
            }
        };
        exec.streams().adopt(streams);
        let pid = child.get_ref().pid();
        exec.set(State::Running {
            pid,
            pidfd: Arc::new(pidfd),
        });
        self.events.publish(Event::ExecStarted {
            container: container.id.clone(),
            exec: exec_id.to_owned(),
            pid,
        });
        self.watch_exec(container, &exec, child);
        log::debug!(id:% = container.id, exec:% = exec_id, pid:%; "exec started");
        self.tally.execs.fetch_add(1, Ordering::Relaxed);
        Ok(pid)
    }
}

/// Starts an exec. Blocks. On failure nothing of it is left.
fn spawn_exec(
    container: &Container,
    exec: &Process,
    process: &Judged<oci_spec::runtime::Process>,
    namespace: &str,
) -> Result<(AsyncFd<Child>, OwnedFd, Streams)> {
    let user = (process.user().uid(), process.user().gid());
    let owner = Owner {
        id: &container.id,
        namespace,
        user: container.maps.to_host(user),
    };
    let size = console_size(Some(process));
    let (stdio, mut streams) = Streams::open(exec.addresses(), &owner, false, size)?;
    let init = container.init.pidfd().ok_or_else(|| {
        Error::FailedPrecondition(format!(
            "container {} init process is not running",
            container.id
        ))
    })?;
    let has_tracers = &container.has_tracers;
    if may_trace(Some(process)) {
        has_tracers.store(true, Ordering::Relaxed);
    }
    let denials = container.denials.as_ref();
    let plan = ExecPlan {
        process,
        id: &container.id,
        init: duplicate(&init)?,
        enter: container.enter,
        // Who shares it has processes of others there.
        may_be_traced: !container.own_pids || has_tracers.load(Ordering::Relaxed),
        personality: container.personality,
        seccomp_agent: container.seccomp_agent.clone(),
        cgroup: Some(&container.cgroup),
        below: &Below::default(),
        patient: false,
        stdio,
        seccomp: container.seccomp.clone(),
        confinement: container.isolation.confinement(),
        watcher: denials.map(|d| d.watcher(exec.exec_id())),
        new_keyring: container.new_keyring,
        preserve_fds: 0,
    };
    let Spawned {
        child, terminal, ..
    } = executor::exec(plan)?.spawn()?;
    let pidfd = duplicate(&child)?;
    let child = watchable(child)?;
    streams.run(terminal).map_err(no_streams)?;
    Ok((child, pidfd, streams))
}
