//! The end of an init or an exec.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use tokio::io::unix::AsyncFd;

use super::process::{Exit, Process, Status};
use super::record::Record;
use super::{Container, Event, Pod};
use crate::sys::process::Child;
use crate::trace;

/// How long an init's exit waits for those of its execs, which it must not overtake.
const EXECS_WITHIN: Duration = Duration::from_secs(10);

impl Pod {
    /// Sees an init to its end.
    pub(super) fn watch_init(
        self: &Arc<Self>,
        container: &Arc<Container>,
        child: AsyncFd<Child>,
        oom: Option<tokio::task::JoinHandle<()>>,
    ) {
        let (pod, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            let mut exit = reap(child).await;
            let ending = trace::span("exit");
            if let Some(oom) = oom {
                oom.abort();
            }
            let _turn = container.init.turn.lock().await;
            container.init.output_taken().await;
            if !container.own_pids
                && let Err(e) = container.kill_everything().await
            {
                log::error!(id:% = container.id, error:% = e; "processes of a container outlive its init");
            }
            let execs = async {
                for exec in container.all_execs() {
                    if exec.report().status == Status::Running {
                        exec.wait().await;
                    }
                }
            };
            if tokio::time::timeout(EXECS_WITHIN, execs).await.is_err() {
                log::error!(id:% = container.id; "an exec outlives its container's init");
            }
            if container.take_oom_kills() > 0 {
                pod.announce_oom(&container);
            }
            container.remember_usage();
            container.paused.store(false, Ordering::Relaxed);
            exit.at = std::time::SystemTime::now();
            record_exit(&container, exit);
            pod.publish_exit(&container, &container.init, exit);
            container.init.finish(exit);
            drop(ending);
            log::debug!(id:% = container.id, status:% = exit.status; "exited");
        });
    }

    /// Sees an exec to its end.
    pub(super) fn watch_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        exec: &Arc<Process>,
        child: AsyncFd<Child>,
    ) {
        let (pod, container, exec) = (self.clone(), container.clone(), exec.clone());
        tokio::spawn(async move {
            let exit = reap(child).await;
            let _turn = exec.turn.lock().await;
            exec.output_taken().await;
            pod.publish_exit(&container, &exec, exit);
            exec.finish(exit);
            log::debug!(id:% = container.id, exec:% = exec.exec_id(), status:% = exit.status; "exec exited");
        });
    }

    fn publish_exit(&self, container: &Container, process: &Process, exit: Exit) {
        self.events.publish(Event::Exited {
            container: container.id.clone(),
            exec: (!process.exec_id().is_empty()).then(|| process.exec_id().to_owned()),
            pid: process.pid(),
            exit,
        });
    }
}

fn record_exit(container: &Container, exit: Exit) {
    let nanos = exit
        .at
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
    let stored = Record::load(&container.bundle).and_then(|r| {
        Record {
            exit: Some((exit.status, nanos)),
            ..r
        }
        .store(&container.bundle)
    });
    if let Err(e) = stored {
        // A full disk must not stop an exit from being reported.
        log::warn!(id:% = container.id, error:% = e; "cannot record the exit");
    }
}

/// Waits for the process's end and reaps it.
async fn reap(child: AsyncFd<Child>) -> Exit {
    loop {
        let ready = child.readable().await;
        match child.get_ref().try_wait() {
            Ok(Some(status)) => return Exit::now(status.code()),
            Ok(None) => {
                if let Ok(mut ready) = ready {
                    ready.clear_ready();
                }
            }
            // Somebody else reaped it: its status is lost.
            Err(_) => return Exit::now(255),
        }
    }
}
