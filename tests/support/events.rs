//! containerd's events, as a client sees them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use containerd_client::events::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOom, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::tonic::Request;
use containerd_client::with_namespace;
use prost::Message;

use super::{Daemon, block_on, wait_until};

/// One event: its topic without `/tasks/`, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub topic: String,
    pub container: String,
    /// Of exec events; of exits, the process: the container's id for its init.
    pub id: String,
    pub pid: u32,
    pub status: u32,
}

/// A subscription, running in the background.
pub struct Events {
    seen: Arc<Mutex<Vec<Event>>>,
}

impl Events {
    /// Subscribes to all task events of the daemon's namespace.
    pub fn subscribe(daemon: &Daemon) -> Self {
        let seen: Arc<Mutex<Vec<Event>>> = Arc::default();
        let (sink, namespace) = (seen.clone(), daemon.namespace());
        let mut client =
            EventsClient::new(block_on(containerd_client::connect(daemon.address())).unwrap());
        let mut subscriber = client.clone();
        super::spawn(async move {
            let request = SubscribeRequest {
                filters: vec!["topic~=^/tasks/".into()],
            };
            // Answers with the first event, so a probe has to be published.
            let Ok(stream) = subscriber.subscribe(request).await else {
                return;
            };
            let mut stream = stream.into_inner();
            while let Ok(Some(envelope)) = stream.message().await {
                if envelope.namespace == namespace
                    && let Some(any) = envelope.event
                {
                    sink.lock()
                        .unwrap()
                        .push(decode(&envelope.topic, &any.value));
                }
            }
        });
        let this = Self { seen };
        wait_until("the subscription works", Duration::from_secs(10), || {
            let event = prost_types::Any {
                type_url: "containerd.events.TaskPaused".into(),
                value: Vec::new(),
            };
            let probe = PublishRequest {
                topic: "/tasks/probe".into(),
                event: Some(event),
            };
            block_on(client.publish(with_namespace!(probe, daemon.namespace()))).unwrap();
            !this.seen().is_empty()
        });
        this
    }

    /// What has come so far.
    pub fn seen(&self) -> Vec<Event> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until `enough` events have come for a container; returns them.
    pub fn of(&self, container: &str, enough: usize) -> Vec<Event> {
        let of = || {
            self.seen()
                .into_iter()
                .filter(|e| e.container == container)
                .collect::<Vec<_>>()
        };
        wait_until(
            &format!("{enough} events of {container}"),
            Duration::from_secs(10),
            || of().len() >= enough,
        );
        of()
    }

    /// The topics of [`Events::of`].
    pub fn topics(&self, container: &str, enough: usize) -> Vec<String> {
        self.of(container, enough)
            .into_iter()
            .map(|e| e.topic)
            .collect()
    }
}

/// From a topic and the message's bytes.
pub fn decode(topic: &str, value: &[u8]) -> Event {
    let topic = topic.trim_start_matches("/tasks/").to_owned();
    let new = |container: String, id: String, pid: u32, status: u32| Event {
        topic: topic.clone(),
        container,
        id,
        pid,
        status,
    };
    match topic.as_str() {
        "create" => TaskCreate::decode(value).map(|e| new(e.container_id, String::new(), e.pid, 0)),
        "start" => TaskStart::decode(value).map(|e| new(e.container_id, String::new(), e.pid, 0)),
        "exit" => TaskExit::decode(value).map(|e| new(e.container_id, e.id, e.pid, e.exit_status)),
        "delete" => {
            TaskDelete::decode(value).map(|e| new(e.container_id, e.id, e.pid, e.exit_status))
        }
        "oom" => TaskOom::decode(value).map(|e| new(e.container_id, String::new(), 0, 0)),
        "exec-added" => TaskExecAdded::decode(value).map(|e| new(e.container_id, e.exec_id, 0, 0)),
        "exec-started" => {
            TaskExecStarted::decode(value).map(|e| new(e.container_id, e.exec_id, e.pid, 0))
        }
        "paused" => TaskPaused::decode(value).map(|e| new(e.container_id, String::new(), 0, 0)),
        "resumed" => TaskResumed::decode(value).map(|e| new(e.container_id, String::new(), 0, 0)),
        _ => Ok(new(String::new(), String::new(), 0, 0)),
    }
    .unwrap()
}
