//! Calls of containerd's task service that `ctr` has no command for.

use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    DeleteProcessRequest, ExecProcessRequest, StartRequest, UpdateTaskRequest, WaitRequest,
};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Request, Status};
use containerd_client::with_namespace;
use serde_json::{Value, json};

use super::{Daemon, block_on};

/// The code's name, and the text.
fn text(status: Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// A connection of one caller.
pub struct Client {
    tasks: TasksClient<Channel>,
    namespace: String,
}

impl Client {
    pub fn connect(d: &Daemon) -> Result<Self, String> {
        let channel = block_on(containerd_client::connect(d.address()));
        Ok(Self {
            tasks: TasksClient::new(channel.map_err(|e| format!("Unavailable: {e}"))?),
            namespace: d.namespace(),
        })
    }

    /// Applies `linux.resources` to a live task.
    pub fn update(&mut self, id: &str, resources: &Value) -> Result<(), String> {
        let any = prost_types::Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
            value: resources.to_string().into_bytes(),
        };
        let request = UpdateTaskRequest {
            container_id: id.into(),
            resources: Some(any),
            ..Default::default()
        };
        let answer = block_on(self.tasks.update(with_namespace!(request, self.namespace)));
        answer.map(drop).map_err(text)
    }

    /// Waits for a process's end (the init's for an empty exec id); its exit status.
    pub fn wait(&mut self, id: &str, exec: &str) -> Result<u32, String> {
        let request = WaitRequest {
            container_id: id.into(),
            exec_id: exec.into(),
        };
        let answer = block_on(self.tasks.wait(with_namespace!(request, self.namespace)));
        answer.map(|r| r.into_inner().exit_status).map_err(text)
    }

    /// Announces an exec without streams.
    pub fn exec(&mut self, id: &str, exec: &str, args: &[&str]) -> Result<(), String> {
        let process = json!({
            "args": args, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
        });
        let request = ExecProcessRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            spec: Some(prost_types::Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
                value: process.to_string().into_bytes(),
            }),
            ..Default::default()
        };
        let answer = block_on(self.tasks.exec(with_namespace!(request, self.namespace)));
        answer.map(drop).map_err(text)
    }

    pub fn start(&mut self, id: &str, exec: &str) -> Result<(), String> {
        let request = StartRequest {
            container_id: id.into(),
            exec_id: exec.into(),
        };
        let answer = block_on(self.tasks.start(with_namespace!(request, self.namespace)));
        answer.map(drop).map_err(text)
    }

    /// Deletes an exec; its exit status.
    pub fn delete(&mut self, id: &str, exec: &str) -> Result<u32, String> {
        let request = DeleteProcessRequest {
            container_id: id.into(),
            exec_id: exec.into(),
        };
        let request = with_namespace!(request, self.namespace);
        let answer = block_on(self.tasks.delete_process(request));
        answer.map(|r| r.into_inner().exit_status).map_err(text)
    }
}

/// Applies `linux.resources` to a live task.
pub fn update(d: &Daemon, id: &str, resources: &Value) -> Result<(), String> {
    Client::connect(d)?.update(id, resources)
}

/// Waits for a task's end; its exit status.
pub fn wait(d: &Daemon, id: &str) -> Result<u32, String> {
    Client::connect(d)?.wait(id, "")
}
