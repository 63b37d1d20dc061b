//! containerd's own API, in the few calls that a container takes: no client's start is counted.

use std::time::{Duration, Instant};

use containerd_client::services::v1::container;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    Kind, ListSnapshotsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
};
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest,
    DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest, KillRequest, StartRequest,
    WaitRequest,
};
use containerd_client::tonic::Request;
use containerd_client::tonic::transport::Channel;
use containerd_client::with_namespace;
use prost_types::Any;
use serde_json::{Value, json};

use crate::runtimes::Runtime;
use crate::support::{self, Daemon, block_on};

/// A client of the services that a container needs.
pub struct Client<'a> {
    pub daemon: &'a Daemon,
    namespace: String,
    channel: Channel,
    /// The image's only layer.
    layer: String,
}

impl<'a> Client<'a> {
    pub fn connect(daemon: &'a Daemon) -> Self {
        let channel = block_on(containerd_client::connect(daemon.address())).unwrap();
        let mut this = Self {
            daemon,
            namespace: daemon.namespace(),
            channel,
            layer: String::new(),
        };
        this.layer = block_on(async {
            let request = ListSnapshotsRequest {
                snapshotter: "overlayfs".into(),
                filters: Vec::new(),
            };
            let mut list = this
                .snapshots()
                .list(with_namespace!(request, this.namespace))
                .await
                .unwrap()
                .into_inner();
            while let Some(part) = list.message().await.unwrap() {
                if let Some(s) = part
                    .info
                    .into_iter()
                    .find(|s| s.kind == Kind::Committed as i32)
                {
                    return s.name;
                }
            }
            panic!("the image is not unpacked")
        });
        this
    }

    fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone())
    }

    fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone())
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    /// Everything that comes before a task, and is not timed.
    pub fn prepare(
        &self,
        id: &str,
        runtime: Runtime,
        args: &[&str],
    ) -> Vec<containerd_client::types::Mount> {
        self.prepare_with(id, runtime, args, &Value::Null)
    }

    /// The same with a `linux.seccomp`.
    pub fn prepare_with(
        &self,
        id: &str,
        runtime: Runtime,
        args: &[&str],
        filter: &Value,
    ) -> Vec<containerd_client::types::Mount> {
        self.prepare_spec(id, runtime, args, |spec| {
            if !filter.is_null() {
                spec["linux"]["seccomp"] = filter.clone();
            }
        })
    }

    /// One more container of a pod, as CRI would ask for it.
    pub fn prepare_in(
        &self,
        pod: &str,
        id: &str,
        runtime: Runtime,
        args: &[&str],
    ) -> Vec<containerd_client::types::Mount> {
        self.prepare_spec(id, runtime, args, |spec| {
            spec["annotations"] = json!({
                "io.kubernetes.cri.container-type": if pod == id { "sandbox" } else { "container" },
                "io.kubernetes.cri.sandbox-id": pod,
            });
        })
    }

    fn prepare_spec(
        &self,
        id: &str,
        runtime: Runtime,
        args: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> Vec<containerd_client::types::Mount> {
        self.daemon.remember(id);
        let mut spec =
            support::spec::default_spec("rootfs", &format!("/{}/{id}", self.namespace), args);
        spec["root"]["readonly"] = json!(true);
        change(&mut spec);
        block_on(async {
            // The container first: a snapshot that nothing refers to may be collected at any time.
            let container = Container {
                id: id.into(),
                runtime: Some(container::Runtime {
                    name: runtime.id.into(),
                    options: runtime.binary.map(runc_options),
                }),
                snapshotter: "overlayfs".into(),
                snapshot_key: id.into(),
                spec: Some(any("Spec", &spec)),
                ..Default::default()
            };
            let request = CreateContainerRequest {
                container: Some(container),
            };
            self.containers()
                .create(with_namespace!(request, self.namespace))
                .await
                .unwrap();
            let request = PrepareSnapshotRequest {
                snapshotter: "overlayfs".into(),
                key: id.into(),
                parent: self.layer.clone(),
                ..Default::default()
            };
            self.snapshots()
                .prepare(with_namespace!(request, self.namespace))
                .await
                .unwrap()
                .into_inner()
                .mounts
        })
    }

    pub fn forget(&self, id: &str) {
        block_on(async {
            let request = RemoveSnapshotRequest {
                snapshotter: "overlayfs".into(),
                key: id.into(),
            };
            self.snapshots()
                .remove(with_namespace!(request, self.namespace))
                .await
                .unwrap();
            let request = DeleteContainerRequest { id: id.into() };
            self.containers()
                .delete(with_namespace!(request, self.namespace))
                .await
                .unwrap();
        });
    }

    /// Starts a task. Returns the times of Create and Start.
    pub async fn start(
        &self,
        id: &str,
        rootfs: Vec<containerd_client::types::Mount>,
    ) -> [Duration; 2] {
        self.start_with_output(id, rootfs, "").await
    }

    /// The same, with output to a fifo.
    pub async fn start_with_output(
        &self,
        id: &str,
        rootfs: Vec<containerd_client::types::Mount>,
        stdout: &str,
    ) -> [Duration; 2] {
        let begun = Instant::now();
        let request = CreateTaskRequest {
            container_id: id.into(),
            rootfs,
            stdout: stdout.into(),
            // runc's shim wants both.
            stderr: stdout.into(),
            ..Default::default()
        };
        self.tasks()
            .create(with_namespace!(request, self.namespace))
            .await
            .unwrap();
        let created = begun.elapsed();
        let request = StartRequest {
            container_id: id.into(),
            ..Default::default()
        };
        self.tasks()
            .start(with_namespace!(request, self.namespace))
            .await
            .unwrap();
        [created, begun.elapsed() - created]
    }

    pub async fn wait(&self, id: &str, exec_id: &str) -> u32 {
        let request = WaitRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
        };
        self.tasks()
            .wait(with_namespace!(request, self.namespace))
            .await
            .unwrap()
            .into_inner()
            .exit_status
    }

    pub async fn delete(&self, id: &str) {
        let request = DeleteTaskRequest {
            container_id: id.into(),
        };
        self.tasks()
            .delete(with_namespace!(request, self.namespace))
            .await
            .unwrap();
    }

    /// Create, Start, Wait and Delete of `/bin/true`: a time for each, and the total.
    pub fn whole_life(&self, id: &str, runtime: Runtime) -> [Duration; 5] {
        self.filtered_life(id, runtime, &Value::Null)
    }

    /// The same with a `linux.seccomp`.
    pub fn filtered_life(&self, id: &str, runtime: Runtime, filter: &Value) -> [Duration; 5] {
        let mounts = self.prepare_with(id, runtime, &["/bin/true"], filter);
        self.timed_life(id, mounts)
    }

    /// The same, of a container of a pod.
    pub fn life_in(&self, pod: &str, id: &str, runtime: Runtime) -> [Duration; 5] {
        let mounts = self.prepare_in(pod, id, runtime, &["/bin/true"]);
        self.timed_life(id, mounts)
    }

    fn timed_life(&self, id: &str, rootfs: Vec<containerd_client::types::Mount>) -> [Duration; 5] {
        let times = block_on(async {
            let begun = Instant::now();
            let [create, start] = self.start(id, rootfs).await;
            let at = begun.elapsed();
            assert_eq!(self.wait(id, "").await, 0);
            let wait = begun.elapsed() - at;
            let at = begun.elapsed();
            self.delete(id).await;
            [create, start, wait, begun.elapsed() - at, begun.elapsed()]
        });
        self.forget(id);
        times
    }

    /// An exec of `/bin/true`, from its announcement to its deletion.
    pub fn exec(&self, id: &str, exec_id: &str) -> Duration {
        let process = json!({ "args": ["/bin/true"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 }, "noNewPrivileges": true });
        block_on(async {
            let begun = Instant::now();
            let request = ExecProcessRequest {
                container_id: id.into(),
                exec_id: exec_id.into(),
                spec: Some(any("Process", &process)),
                ..Default::default()
            };
            self.tasks()
                .exec(with_namespace!(request, self.namespace))
                .await
                .unwrap();
            let request = StartRequest {
                container_id: id.into(),
                exec_id: exec_id.into(),
            };
            self.tasks()
                .start(with_namespace!(request, self.namespace))
                .await
                .unwrap();
            assert_eq!(self.wait(id, exec_id).await, 0);
            let request = DeleteProcessRequest {
                container_id: id.into(),
                exec_id: exec_id.into(),
            };
            self.tasks()
                .delete_process(with_namespace!(request, self.namespace))
                .await
                .unwrap();
            begun.elapsed()
        })
    }

    pub fn run(&self, id: &str, runtime: Runtime) {
        let mounts = self.prepare(id, runtime, &["sleep", "100000"]);
        block_on(self.start(id, mounts));
    }

    /// A pod of so many sleeping containers: POD, POD-1, POD-2, ….
    pub fn run_pod(&self, pod: &str, containers: usize, runtime: Runtime) {
        for i in 0..containers {
            let id = container_of(pod, i);
            let mounts = self.prepare_in(pod, &id, runtime, &["sleep", "100000"]);
            block_on(self.start(&id, mounts));
        }
    }

    pub fn end_pod(&self, pod: &str, containers: usize) {
        for i in (0..containers).rev() {
            self.end(&container_of(pod, i));
        }
    }

    /// One whole life, whose snapshot and container stay: see [`Client::forget`].
    pub async fn live(&self, id: &str, mounts: Vec<containerd_client::types::Mount>) {
        self.start(id, mounts).await;
        assert_eq!(self.wait(id, "").await, 0);
        self.delete(id).await;
    }

    pub fn end(&self, id: &str) {
        block_on(async {
            let request = KillRequest {
                container_id: id.into(),
                signal: 9,
                ..Default::default()
            };
            self.tasks()
                .kill(with_namespace!(request, self.namespace))
                .await
                .unwrap();
            self.wait(id, "").await;
            self.delete(id).await;
        });
        self.forget(id);
    }
}

/// The name of a pod's container.
pub fn container_of(pod: &str, i: usize) -> String {
    if i == 0 {
        pod.to_owned()
    } else {
        format!("{pod}-{i}")
    }
}

/// What tells runc's shim to run another program: `containerd.runc.v1.Options` with a `binary_name` (field 6) alone.
fn runc_options(binary: &str) -> Any {
    let mut value = vec![6 << 3 | 2, binary.len() as u8];
    value.extend_from_slice(binary.as_bytes());
    Any {
        type_url: "containerd.runc.v1.Options".into(),
        value,
    }
}

fn any(name: &str, value: &Value) -> Any {
    Any {
        type_url: format!("types.containerd.io/opencontainers/runtime-spec/1/{name}"),
        value: value.to_string().into_bytes(),
    }
}
