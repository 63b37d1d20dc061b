//! The event queue: one order for all events of the pod, kept until containerd has taken each, across its restarts.
//! containerd `api/services/ttrpc/events/v1/events.proto`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use tokio::sync::{Notify, mpsc};
use ttrpc::context;

use super::process::timestamp;

const FORWARD_WITHIN: Duration = Duration::from_secs(5);
const RETRY_AT_MOST: Duration = Duration::from_secs(2);
/// An answer that is no transport failure will not change: give the event up after as many tries as containerd's shim.
const REFUSALS: u32 = 5;

/// An event's topic and type url.
pub(super) trait Event: Message {
    const TOPIC: &'static str;
    const TYPE: &'static str;
}

macro_rules! events {
    ($($message:ident => $topic:ident),* $(,)?) => {
        $(impl Event for containerd_shim_protos::events::task::$message {
            const TOPIC: &'static str = containerd_shim_protos::topics::$topic;
            const TYPE: &'static str = concat!("containerd.events.", stringify!($message));
        })*
    };
}

events! {
    TaskCreate => TASK_CREATE_EVENT_TOPIC,
    TaskStart => TASK_START_EVENT_TOPIC,
    TaskExit => TASK_EXIT_EVENT_TOPIC,
    TaskDelete => TASK_DELETE_EVENT_TOPIC,
    TaskOOM => TASK_OOM_EVENT_TOPIC,
    TaskExecAdded => TASK_EXEC_ADDED_EVENT_TOPIC,
    TaskExecStarted => TASK_EXEC_STARTED_EVENT_TOPIC,
    TaskPaused => TASK_PAUSED_EVENT_TOPIC,
    TaskResumed => TASK_RESUMED_EVENT_TOPIC,
}

#[derive(Default)]
struct Pending {
    count: AtomicUsize,
    empty: Notify,
}

/// Takes events in order and sends them in the background.
pub struct Publisher {
    namespace: String,
    queue: mpsc::UnboundedSender<Envelope>,
    pending: Arc<Pending>,
}

impl Publisher {
    /// Sends to containerd's ttrpc socket; without an address (another client than containerd), events go nowhere.
    pub fn start(namespace: &str, address: Option<String>) -> Self {
        let (queue, events) = mpsc::unbounded_channel();
        let pending = Arc::new(Pending::default());
        tokio::spawn(send_all(events, address, pending.clone()));
        Self {
            namespace: namespace.to_owned(),
            queue,
            pending,
        }
    }

    pub(super) fn publish<E: Event>(&self, event: &E) {
        let Ok(value) = event.write_to_bytes() else {
            return;
        };
        log::debug!(topic:% = E::TOPIC; "publish event");
        self.pending.count.fetch_add(1, Ordering::Relaxed);
        let envelope = Envelope {
            timestamp: MessageField::some(timestamp(SystemTime::now())),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.to_owned(),
            event: MessageField::some(Any {
                type_url: E::TYPE.to_owned(),
                value,
                ..Any::default()
            }),
            ..Envelope::default()
        };
        self.queue.send(envelope).ok();
    }

    /// How many events containerd has not taken yet.
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

async fn send_all(
    mut events: mpsc::UnboundedReceiver<Envelope>,
    address: Option<String>,
    pending: Arc<Pending>,
) {
    let mut client = None;
    while let Some(event) = events.recv().await {
        if let Some(address) = &address {
            send(&mut client, address, event).await;
        }
        if pending.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            pending.empty.notify_one();
        }
    }
}

async fn send(client: &mut Option<EventsClient>, address: &str, event: Envelope) {
    let topic = event.topic.clone();
    let request = ForwardRequest {
        envelope: MessageField::some(event),
        ..ForwardRequest::default()
    };
    let (mut refusals, mut pause) = (0, Duration::from_millis(10));
    loop {
        let connected = match client {
            Some(c) => Some(c),
            None => Client::connect(address)
                .await
                .ok()
                .map(|c| client.insert(EventsClient::new(c))),
        };
        let failure = match connected {
            None => "cannot connect".to_owned(),
            Some(c) => match c
                .forward(context::with_duration(FORWARD_WITHIN), &request)
                .await
            {
                Ok(_) => return,
                Err(ttrpc::Error::RpcStatus(s)) if s.code() != ttrpc::Code::DEADLINE_EXCEEDED => {
                    refusals += 1;
                    if refusals >= REFUSALS {
                        log::error!(
                            "topic={topic} error={:?} msg=\"containerd refuses this event; giving it up\"",
                            s.message
                        );
                        return;
                    }
                    s.message
                }
                Err(e) => {
                    *client = None;
                    e.to_string()
                }
            },
        };
        log::debug!("topic={topic} error={failure:?} msg=\"event not taken; trying again\"");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_AT_MOST);
    }
}
