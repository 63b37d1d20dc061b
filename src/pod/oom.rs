//! Announcing OOM kills while a container runs. Its end does a last check of its own, so that the announcement always
//! comes before the exit.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::Interest;
use tokio::task::JoinHandle;

use super::{Container, Event, Pod};
use crate::cgroup::OomWatch;

impl Pod {
    /// Announces what a container's watch tells.
    pub(super) fn watch_oom(
        self: &Arc<Self>,
        container: &Arc<Container>,
        watch: OomWatch,
    ) -> Option<JoinHandle<()>> {
        let priority = watch.is_priority();
        let interest = if priority {
            Interest::PRIORITY
        } else {
            Interest::READABLE
        };
        let watch = crate::sys::reactor::register(watch, interest).ok()?;
        let (pod, container) = (self.clone(), container.clone());
        Some(tokio::spawn(async move {
            while let Ok(mut ready) = watch.ready(interest).await {
                watch.get_ref().clear();
                ready.clear_ready();
                drop(ready);
                if priority {
                    // memory.events changes for other reasons too: only a kill counts.
                    if container.take_oom_kills() > 0 {
                        pod.announce_oom(&container);
                    }
                } else if container.cgroup.exists() {
                    // v1 tells of the shortage itself, before the victim is counted. (And once more when the group goes.)
                    container.oom_announced.fetch_add(1, Ordering::Relaxed);
                    pod.announce_oom(&container);
                }
            }
        }))
    }

    pub(super) fn announce_oom(&self, container: &Container) {
        log::warn!(id:% = container.id(); "out of memory: the kernel killed a process of this container");
        self.events.publish(Event::OutOfMemory {
            id: container.id().to_owned(),
        });
    }
}
