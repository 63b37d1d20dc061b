//! `containerd.task.v2.Task` and `containerd.task.v3.Task`: containerd `api/runtime/task/v3/shim.proto`.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest,
    ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, Status as TaskStatus, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{EnumOrUnknown, Message, MessageField};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::Task;
use ttrpc::r#async::TtrpcContext;

use super::errors::status;
use super::metrics;
use super::options::options;
use super::time::timestamp;
use crate::oci::RootMount;
use crate::oci::StdioUris;
use crate::pod::{CreateRequest, Error, Pod, Result, Status};

/// The service; a thin face of the [`Pod`].
pub(super) struct TaskService {
    pod: Arc<Pod>,
}

impl TaskService {
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        Self { pod }
    }

    /// Runs `work` to its end even if the connection or the request goes away half-way.
    async fn complete<T, F>(&self, work: impl FnOnce(Arc<Pod>) -> F) -> ttrpc::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let done = tokio::spawn(work(self.pod.clone())).await;
        self.pod.note_activity();
        done.unwrap_or_else(|e| Err(Error::Unknown(format!("internal error: {e}"))))
            .map_err(status)
    }
}

#[async_trait]
impl Task for TaskService {
    async fn create(
        &self,
        _: &TtrpcContext,
        r: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        if !r.checkpoint.is_empty() {
            return Err(status(Error::Unimplemented(
                "restoring from a checkpoint is not supported".into(),
            )));
        }
        let request = CreateRequest {
            options: options(r.options.as_ref()).map_err(status)?,
            root_mounts: r
                .rootfs
                .into_iter()
                .map(|m| RootMount {
                    fstype: m.type_,
                    source: m.source,
                    target: m.target,
                    options: m.options,
                })
                .collect(),
            stdio: StdioUris {
                stdin: r.stdin,
                stdout: r.stdout,
                stderr: r.stderr,
                terminal: r.terminal,
                no_files: false,
            },
            id: r.id,
            bundle: PathBuf::from(r.bundle),
        };
        let pid = self
            .complete(|pod| async move { pod.create(request).await })
            .await?;
        Ok(CreateTaskResponse {
            pid: pid.cast_unsigned(),
            ..CreateTaskResponse::default()
        })
    }

    async fn start(&self, _: &TtrpcContext, r: StartRequest) -> ttrpc::Result<StartResponse> {
        let pid = self
            .complete(|pod| async move { pod.start(&r.id, &r.exec_id).await })
            .await?;
        Ok(StartResponse {
            pid: pid.cast_unsigned(),
            ..StartResponse::default()
        })
    }

    async fn delete(&self, _: &TtrpcContext, r: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        let (pid, exit) = self
            .complete(|pod| async move { pod.delete(&r.id, &r.exec_id).await })
            .await?;
        Ok(DeleteResponse {
            pid: pid.cast_unsigned(),
            exit_status: exit.map_or(0, |e| e.status),
            exited_at: exit.map(|e| timestamp(e.at)).into(),
            ..DeleteResponse::default()
        })
    }

    async fn state(&self, _: &TtrpcContext, r: StateRequest) -> ttrpc::Result<StateResponse> {
        let container = self.pod.container(&r.id).map_err(status)?;
        let report = container.process(&r.exec_id).map_err(status)?.report();
        let state = match report.status {
            Status::Created => TaskStatus::CREATED,
            Status::Running if container.is_paused() => TaskStatus::PAUSED,
            Status::Running => TaskStatus::RUNNING,
            Status::Stopped => TaskStatus::STOPPED,
        };
        Ok(StateResponse {
            id: r.id,
            bundle: container.bundle().display().to_string(),
            pid: report.pid.cast_unsigned(),
            status: EnumOrUnknown::new(state),
            stdin: report.addresses.stdin.clone(),
            stdout: report.addresses.stdout.clone(),
            stderr: report.addresses.stderr.clone(),
            terminal: report.addresses.terminal,
            exit_status: report.exit.map_or(0, |e| e.status),
            exited_at: report.exit.map(|e| timestamp(e.at)).into(),
            exec_id: r.exec_id,
            ..StateResponse::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, r: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let container = self.pod.container(&r.id).map_err(status)?;
        let processes = container
            .pids()
            .into_iter()
            .map(|u| {
                let info = u.exec_id.map(|exec_id| {
                    let details = ProcessDetails {
                        exec_id,
                        ..ProcessDetails::default()
                    };
                    let value = details.write_to_bytes().unwrap_or_default();
                    Any {
                        type_url: "containerd.runc.v1.ProcessDetails".into(),
                        value,
                        ..Any::default()
                    }
                });
                ProcessInfo {
                    pid: u.pid.cast_unsigned(),
                    info: info.into(),
                    ..ProcessInfo::default()
                }
            })
            .collect();
        Ok(PidsResponse {
            processes,
            ..PidsResponse::default()
        })
    }

    async fn pause(&self, _: &TtrpcContext, r: PauseRequest) -> ttrpc::Result<Empty> {
        self.complete(|pod| async move { pod.set_paused(&r.id, true).await })
            .await?;
        Ok(Empty::default())
    }

    async fn resume(&self, _: &TtrpcContext, r: ResumeRequest) -> ttrpc::Result<Empty> {
        self.complete(|pod| async move { pod.set_paused(&r.id, false).await })
            .await?;
        Ok(Empty::default())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        Err(status(Error::Unimplemented(
            "checkpoints are not supported".into(),
        )))
    }

    async fn kill(&self, _: &TtrpcContext, r: KillRequest) -> ttrpc::Result<Empty> {
        let container = self.pod.container(&r.id).map_err(status)?;
        container
            .kill(&r.exec_id, r.signal.cast_signed(), r.all)
            .map_err(status)?;
        Ok(Empty::default())
    }

    async fn exec(&self, _: &TtrpcContext, r: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let addresses = StdioUris {
            stdin: r.stdin,
            stdout: r.stdout,
            stderr: r.stderr,
            terminal: r.terminal,
            no_files: false,
        };
        let spec = r.spec.into_option().ok_or_else(|| {
            status(Error::InvalidArgument(
                "an exec needs a process spec".into(),
            ))
        })?;
        self.pod
            .exec(&r.id, &r.exec_id, addresses, &spec.value)
            .map_err(status)?;
        Ok(Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, r: ResizePtyRequest) -> ttrpc::Result<Empty> {
        let process = self
            .pod
            .container(&r.id)
            .and_then(|c| c.process(&r.exec_id))
            .map_err(status)?;
        process
            .resize(
                u16::try_from(r.width).unwrap_or(u16::MAX),
                u16::try_from(r.height).unwrap_or(u16::MAX),
            )
            .map_err(status)?;
        Ok(Empty::default())
    }

    async fn close_io(&self, _: &TtrpcContext, r: CloseIORequest) -> ttrpc::Result<Empty> {
        let process = self
            .pod
            .container(&r.id)
            .and_then(|c| c.process(&r.exec_id))
            .map_err(status)?;
        process.close_stdin();
        Ok(Empty::default())
    }

    async fn update(&self, _: &TtrpcContext, r: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let resources = r
            .resources
            .into_option()
            .ok_or_else(|| status(Error::InvalidArgument("an update needs resources".into())))?;
        self.complete(|pod| async move { pod.update(&r.id, &resources.value).await })
            .await?;
        Ok(Empty::default())
    }

    async fn wait(&self, _: &TtrpcContext, r: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let process = self
            .pod
            .container(&r.id)
            .and_then(|c| c.process(&r.exec_id))
            .map_err(status)?;
        let exit = process.wait().await;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..WaitResponse::default()
        })
    }

    async fn stats(&self, _: &TtrpcContext, r: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let container = self.pod.container(&r.id).map_err(status)?;
        let stats = container.stats().map_err(status)?;
        Ok(StatsResponse {
            stats: MessageField::some(metrics::encode(&stats)),
            ..StatsResponse::default()
        })
    }

    async fn connect(&self, _: &TtrpcContext, r: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        let task_pid = self.pod.container(&r.id).map_or(0, |c| c.init().pid());
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: task_pid.cast_unsigned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ConnectResponse::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        self.pod.request_shutdown();
        Ok(Empty::default())
    }
}
