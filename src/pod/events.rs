//! The events of a pod: one order for all of them, kept until containerd has taken each, across its restarts.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc};

use super::process::Exit;
use crate::oci::RootMount;
use crate::oci::StdioUris;

/// What has happened to a container or an exec.
#[derive(Debug, Clone)]
pub enum Event {
    /// A container was created.
    Created {
        /// Its id.
        id: String,
        /// Directory of `config.json`.
        bundle: PathBuf,
        /// What its root is made of, as it was asked for.
        root_mounts: Vec<RootMount>,
        /// Its init's streams, as they were asked for.
        stdio: StdioUris,
        /// Its init.
        pid: i32,
    },
    /// A container was started.
    Started {
        /// Its id.
        id: String,
        /// Its init.
        pid: i32,
    },
    /// An init or an exec has ended.
    Exited {
        /// The container's id.
        container: String,
        /// The exec's id; an init has none.
        exec: Option<String>,
        /// The process.
        pid: i32,
        /// How it ended.
        exit: Exit,
    },
    /// A container was deleted.
    Deleted {
        /// Its id.
        id: String,
        /// Its init.
        pid: i32,
        /// How it ended, if it was ever there.
        exit: Option<Exit>,
    },
    /// The kernel killed a process of the container, because memory ran out.
    OutOfMemory {
        /// The container's id.
        id: String,
    },
    /// An exec was announced.
    ExecAdded {
        /// The container's id.
        container: String,
        /// The exec's id.
        exec: String,
    },
    /// An exec was started.
    ExecStarted {
        /// The container's id.
        container: String,
        /// The exec's id.
        exec: String,
        /// Its process.
        pid: i32,
    },
    /// A container was frozen.
    Paused {
        /// Its id.
        id: String,
    },
    /// A container was thawed.
    Resumed {
        /// Its id.
        id: String,
    },
}

/// An event, and when it happened.
#[derive(Debug, Clone)]
pub struct Happened {
    /// When.
    pub at: SystemTime,
    /// What.
    pub event: Event,
}

#[derive(Default)]
struct Pending {
    count: AtomicUsize,
    empty: Notify,
}

/// The end of the queue that events are put in.
pub struct Publisher {
    queue: mpsc::UnboundedSender<Happened>,
    pending: Arc<Pending>,
}

/// The end of the queue that they are taken from.
pub struct Events {
    queue: mpsc::UnboundedReceiver<Happened>,
    pending: Arc<Pending>,
}

/// A queue of events.
pub fn queue() -> (Publisher, Events) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let pending = Arc::new(Pending::default());
    let publisher = Publisher {
        queue: sender,
        pending: pending.clone(),
    };
    let events = Events {
        queue: receiver,
        pending,
    };
    (publisher, events)
}

impl Publisher {
    pub(super) fn publish(&self, event: Event) {
        self.pending.count.fetch_add(1, Ordering::Relaxed);
        let at = SystemTime::now();
        self.queue.send(Happened { at, event }).ok();
    }

    /// How many events were not delivered yet.
    pub fn pending(&self) -> usize {
        self.pending.count.load(Ordering::Relaxed)
    }

    /// Waits until there are none, for at most `within`.
    pub async fn flush(&self, within: Duration) {
        let all = async {
            while self.pending() > 0 {
                self.pending.empty.notified().await;
            }
        };
        if tokio::time::timeout(within, all).await.is_err() {
            log::warn!(events:% = self.pending(); "containerd did not take these events before the end of the pod");
        }
    }
}

impl Events {
    /// The next one. Each is to be [`Events::delivered`] before the one after it is taken.
    pub async fn next(&mut self) -> Option<Happened> {
        self.queue.recv().await
    }

    /// The one that was taken last is delivered, or given up.
    pub fn delivered(&self) {
        if self.pending.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.pending.empty.notify_one();
        }
    }
}
