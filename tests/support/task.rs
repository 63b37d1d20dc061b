//! Calls of containerd's task service that `ctr` has no command for.

use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{UpdateTaskRequest, WaitRequest};
use containerd_client::tonic::Request;
use containerd_client::tonic::transport::Channel;
use containerd_client::with_namespace;
use serde_json::Value;

use super::{Daemon, block_on};

fn client(d: &Daemon) -> TasksClient<Channel> {
    TasksClient::new(block_on(containerd_client::connect(d.address())).unwrap())
}

/// Applies `linux.resources` to a live task.
pub fn update(d: &Daemon, id: &str, resources: &Value) -> Result<(), String> {
    let any = prost_types::Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
        value: resources.to_string().into_bytes(),
    };
    let request = UpdateTaskRequest {
        container_id: id.into(),
        resources: Some(any),
        ..Default::default()
    };
    block_on(client(d).update(with_namespace!(request, d.namespace())))
        .map(drop)
        .map_err(|s| s.message().to_owned())
}

/// Waits for a task's end; its exit status.
pub fn wait(d: &Daemon, id: &str) -> Result<u32, String> {
    let request = WaitRequest {
        container_id: id.into(),
        ..Default::default()
    };
    block_on(client(d).wait(with_namespace!(request, d.namespace())))
        .map(|r| r.into_inner().exit_status)
        .map_err(|s| s.message().to_owned())
}
