//! Deleting a container or an exec, and changing a live container.

use std::sync::Arc;

use super::blocking::{REMOVE_WITHIN, blocking};
use super::process::{Exit, Status};
use super::{Container, Error, Event, Pod, Result};
use crate::executor::Remains;
use crate::oci;
use crate::trace;

impl Pod {
    /// Deletes an ended (or never started) container or exec. Returns its pid and exit.
    pub async fn delete(self: &Arc<Self>, id: &str, exec_id: &str) -> Result<(i32, Option<Exit>)> {
        let _trace = trace::span("Delete");
        let container = self.container(id)?;
        if exec_id.is_empty() {
            self.delete_container(&container).await
        } else {
            delete_exec(&container, exec_id).await
        }
    }

    async fn delete_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<(i32, Option<Exit>)> {
        let init = &container.init;
        match init.report().status {
            Status::Running => {
                return Err(Error::Unknown("cannot delete a running process".into()));
            }
            Status::Created => {
                init.signal(libc::SIGKILL).ok();
                tokio::time::timeout(REMOVE_WITHIN, init.wait())
                    .await
                    .map_err(|_| {
                        Error::Unknown(
                            "the container's init does not end although it was killed".into(),
                        )
                    })?;
            }
            Status::Stopped => {}
        }
        let closing = init.streams().close();
        closing.await;
        let c = container.clone();
        blocking(move || {
            c.keep_recording();
            let remains = Remains {
                id: &c.id,
                cgroup: Some(&c.cgroup),
                root: None,
                hooks: c.hooks.as_deref(),
            };
            let killed = remains.kill(REMOVE_WITHIN)?;
            killed.remove_or_warn(REMOVE_WITHIN).run_poststop();
            Ok(())
        })
        .await?;
        log::debug!(id:% = container.id; "deleted");
        self.count_out(container);
        self.forget(&container.id);
        let (pid, exit) = (init.pid(), init.exit());
        self.events.publish(Event::Deleted {
            id: container.id.clone(),
            pid,
            exit,
        });
        Ok((pid, exit))
    }

    /// Freezes or thaws a container.
    pub async fn set_paused(self: &Arc<Self>, id: &str, pause: bool) -> Result<()> {
        let container = self.container(id)?;
        let c = container.clone();
        blocking(move || c.set_paused(pause)).await?;
        let id = container.id.clone();
        self.events.publish(if pause {
            Event::Paused { id }
        } else {
            Event::Resumed { id }
        });
        Ok(())
    }

    /// Applies resources (JSON, `linux.resources`) to a live container.
    pub async fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let container = self.container(id)?;
        let resources = oci::parse_resources(resources)
            .and_then(|r| oci::check_resources(&r).map(|()| r))
            .map_err(|e| Error::InvalidArgument(e.to_string()))?;
        blocking(move || container.update(resources)).await
    }
}

async fn delete_exec(container: &Arc<Container>, exec_id: &str) -> Result<(i32, Option<Exit>)> {
    let exec = container.process(exec_id)?;
    exec.end_of_use()?;
    let closing = exec.streams().close();
    closing.await;
    container.remove_exec(exec_id);
    let exit = exec.exit();
    if exit.is_none() {
        // Wakes the clients that wait for a process that was never started.
        exec.finish(Exit::now(0));
    }
    Ok((exec.pid(), exit))
}
