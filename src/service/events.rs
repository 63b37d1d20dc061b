//! Sends the pod's events to containerd: `api/services/ttrpc/events/v1/events.proto`, `api/events/task.proto`.

use std::time::Duration;

use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{self, Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::{api, topics};
use ttrpc::context;

use super::time::timestamp;
use crate::oci::RootMount;
use crate::oci::StdioUris;
use crate::pod::{Event, Events, Happened};

const FORWARD_WITHIN: Duration = Duration::from_secs(5);
const RETRY_AT_MOST: Duration = Duration::from_secs(2);
/// An answer that is no transport failure will not change: give the event up after as many tries as containerd's shim.
const REFUSALS: u32 = 5;

/// Sends each event to containerd's ttrpc socket, in order. Without an address (another client than containerd), they go nowhere.
pub async fn send_all(mut events: Events, namespace: String, address: Option<String>) {
    let mut client = None;
    while let Some(happened) = events.next().await {
        if let Some(address) = &address
            && let Ok(envelope) = envelope(happened, &namespace)
        {
            send(&mut client, address, envelope).await;
        }
        events.delivered();
    }
}

fn envelope(happened: Happened, namespace: &str) -> protobuf::Result<Envelope> {
    let (topic, name, value) = encode(happened.event)?;
    log::debug!(topic:%; "publish event");
    Ok(Envelope {
        timestamp: MessageField::some(timestamp(happened.at)),
        namespace: namespace.to_owned(),
        topic: topic.to_owned(),
        event: MessageField::some(Any {
            type_url: format!("containerd.events.{name}"),
            value,
            ..Any::default()
        }),
        ..Envelope::default()
    })
}

/// Topic, type and bytes of an event.
type Encoded = (&'static str, &'static str, Vec<u8>);

fn encoded(
    topic: &'static str,
    name: &'static str,
    message: &impl Message,
) -> protobuf::Result<Encoded> {
    Ok((topic, name, message.write_to_bytes()?))
}

#[expect(clippy::too_many_lines, reason = "an arm for each event")]
fn encode(event: Event) -> protobuf::Result<Encoded> {
    match event {
        Event::Created {
            id,
            bundle,
            root_mounts,
            stdio,
            pid,
        } => {
            let message = TaskCreate {
                container_id: id,
                bundle: bundle.display().to_string(),
                rootfs: root_mounts.into_iter().map(mount).collect(),
                io: MessageField::some(io(stdio)),
                pid: pid.cast_unsigned(),
                ..TaskCreate::default()
            };
            encoded(topics::TASK_CREATE_EVENT_TOPIC, "TaskCreate", &message)
        }
        Event::Started { id, pid } => {
            let mut message = TaskStart::new();
            (message.container_id, message.pid) = (id, pid.cast_unsigned());
            encoded(topics::TASK_START_EVENT_TOPIC, "TaskStart", &message)
        }
        Event::Exited {
            container,
            exec,
            pid,
            exit,
        } => {
            let message = TaskExit {
                id: exec.unwrap_or_else(|| container.clone()),
                container_id: container,
                pid: pid.cast_unsigned(),
                exit_status: exit.status,
                exited_at: MessageField::some(timestamp(exit.at)),
                ..TaskExit::default()
            };
            encoded(topics::TASK_EXIT_EVENT_TOPIC, "TaskExit", &message)
        }
        Event::Deleted { id, pid, exit } => {
            let message = TaskDelete {
                container_id: id,
                pid: pid.cast_unsigned(),
                exit_status: exit.map_or(0, |e| e.status),
                exited_at: exit.map(|e| timestamp(e.at)).into(),
                ..TaskDelete::default()
            };
            encoded(topics::TASK_DELETE_EVENT_TOPIC, "TaskDelete", &message)
        }
        Event::OutOfMemory { id } => {
            let mut message = TaskOOM::new();
            message.container_id = id;
            encoded(topics::TASK_OOM_EVENT_TOPIC, "TaskOOM", &message)
        }
        Event::ExecAdded { container, exec } => {
            let mut message = TaskExecAdded::new();
            (message.container_id, message.exec_id) = (container, exec);
            encoded(
                topics::TASK_EXEC_ADDED_EVENT_TOPIC,
                "TaskExecAdded",
                &message,
            )
        }
        Event::ExecStarted {
            container,
            exec,
            pid,
        } => {
            let mut message = TaskExecStarted::new();
            (message.container_id, message.exec_id) = (container, exec);
            message.pid = pid.cast_unsigned();
            let topic = topics::TASK_EXEC_STARTED_EVENT_TOPIC;
            encoded(topic, "TaskExecStarted", &message)
        }
        Event::Paused { id } => {
            let mut message = TaskPaused::new();
            message.container_id = id;
            encoded(topics::TASK_PAUSED_EVENT_TOPIC, "TaskPaused", &message)
        }
        Event::Resumed { id } => {
            let mut message = TaskResumed::new();
            message.container_id = id;
            encoded(topics::TASK_RESUMED_EVENT_TOPIC, "TaskResumed", &message)
        }
    }
}

fn io(uris: StdioUris) -> TaskIO {
    TaskIO {
        stdin: uris.stdin,
        stdout: uris.stdout,
        stderr: uris.stderr,
        terminal: uris.terminal,
        ..TaskIO::default()
    }
}

fn mount(m: RootMount) -> api::Mount {
    api::Mount {
        type_: m.fstype,
        source: m.source,
        target: m.target,
        options: m.options,
        ..api::Mount::default()
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
                        log::error!(topic:%, error:% = s.message; "containerd refuses this event; giving it up");
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
        log::debug!(topic:%, error:% = failure; "event not taken; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_AT_MOST);
    }
}
