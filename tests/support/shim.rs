//! A shim without a containerd: requests go to its socket, events come to a socket of ours.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cofferdam::control;
use containerd_shim_protos::api::{
    CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
    DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, ForwardRequest, KillRequest, Mount,
    PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
    UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::protobuf::well_known_types::{any::Any, empty};
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim_async::{Events, create_events};
use serde_json::{Value, json};
use ttrpc::Code;
use ttrpc::asynchronous::{Client, Server, TtrpcContext};

use super::events::{Event, decode};
use super::{
    block_on, kill, leftovers, processes, shim_directory, spec, test_directory, wait_until,
};

/// What a refused request answers.
pub type Refusal = (Code, String);

/// Calls a method of the task service behind a socket, under the name of either API version.
pub fn call<T: Message>(
    socket: &Path,
    version: u8,
    method: &str,
    request: &impl Message,
) -> Result<T, Refusal> {
    block_on(async {
        let address = format!("unix://{}", socket.display());
        let client = Client::connect(&address).await.unwrap();
        call_on(&client, version, method, request).await
    })
}

async fn call_on<T: Message>(
    client: &Client,
    version: u8,
    method: &str,
    request: &impl Message,
) -> Result<T, Refusal> {
    let request = ttrpc::proto::Request {
        service: format!("containerd.task.v{version}.Task"),
        method: method.into(),
        payload: request.write_to_bytes().unwrap(),
        ..Default::default()
    };
    match client.request(request).await {
        Ok(r) => Ok(T::parse_from_bytes(&r.payload).unwrap()),
        Err(ttrpc::Error::RpcStatus(s)) => Err((s.code(), s.message)),
        // The shim has ended.
        Err(e) => Err((Code::UNAVAILABLE, e.to_string())),
    }
}

#[derive(Default)]
struct Sink(Mutex<Vec<Event>>);

#[async_trait]
impl Events for Sink {
    async fn forward(
        &self,
        _: &TtrpcContext,
        request: ForwardRequest,
    ) -> ttrpc::Result<empty::Empty> {
        let envelope = request.envelope.unwrap_or_default();
        let event = envelope.event.unwrap_or_default();
        self.0
            .lock()
            .unwrap()
            .push(decode(&envelope.topic, &event.value));
        Ok(empty::Empty::new())
    }
}

/// Addresses of a process's streams; empty ones are none.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

/// One shim, for one pod.
pub struct Shim {
    dir: PathBuf,
    name: String,
    version: u8,
    sink: Arc<Sink>,
    logged: Arc<Mutex<String>>,
    listener: Mutex<Option<Server>>,
    client: Client,
}

impl Shim {
    /// Starts it, and speaks `containerd.task.vVERSION` to it.
    pub fn start(version: u8) -> Self {
        Self::start_as(version, "containerd-shim-cofferdam-v1")
    }

    /// The same under another name, which stands for an isolation profile.
    pub fn start_as(version: u8, program: &str) -> Self {
        Self::start_with(version, program, &[])
    }

    /// The same, with variables in its environment.
    pub fn start_with(version: u8, program: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_in(version, program, environment, |_| {})
    }

    /// The same, in a bundle that `fill` gets to see before: its name is the pod's, "pod".
    pub fn start_in(
        version: u8,
        program: &str,
        environment: &[(&str, &str)],
        fill: impl FnOnce(&Path),
    ) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "cdtest-{}-shim{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir_all(dir.join("pod")).unwrap();
        let sink = Arc::new(Sink::default());
        let listener = Mutex::new(Some(listen(&dir, sink.clone())));
        let logged = Arc::new(Mutex::new(String::new()));
        nix::unistd::mkfifo(&dir.join("pod/log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (fifo, to) = (dir.join("pod/log"), logged.clone());
        std::thread::spawn(move || {
            let Ok(log) = fs::File::open(fifo) else {
                return;
            };
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                *to.lock().unwrap() += &format!("{line}\n");
            }
        });
        fill(&dir.join("pod"));
        // Our roots and layers are there.
        let settings = format!("snapshots = [{:?}, {dir:?}]\n", test_directory());
        fs::write(dir.join("node.conf"), settings).unwrap();
        let started = Command::new(shim_directory().join(program))
            .args(["-namespace", "cdshim", "-id", "pod", "-address"])
            .arg(dir.join("c"))
            .args(["-debug", "start"])
            .env("TTRPC_ADDRESS", dir.join("events"))
            .env("COFFERDAM_NODE_CONF", dir.join("node.conf"))
            .envs(environment.iter().copied())
            .current_dir(dir.join("pod"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let address = String::from_utf8(started.stdout).unwrap();
        assert!(started.stderr.is_empty() && started.status.success());
        let client = block_on(Client::connect(address.trim())).unwrap();
        let shim = Self {
            dir,
            name,
            version,
            sink,
            logged,
            listener,
            client,
        };
        // The kernel lets `start` go on before the new program's arguments can be read in /proc.
        wait_until("the server can be seen", Duration::from_secs(10), || {
            shim.pid().is_some()
        });
        shim
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.logged.lock().unwrap().clone()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Nobody takes events any more, as when containerd is down.
    pub fn stop_listening(&self) {
        let mut server = self.listener.lock().unwrap().take().unwrap();
        block_on(server.shutdown()).unwrap();
        fs::remove_file(self.dir.join("events")).ok();
    }

    /// Events are taken again.
    pub fn listen_again(&self) {
        *self.listener.lock().unwrap() = Some(listen(&self.dir, self.sink.clone()));
    }

    /// The events so far, in their order.
    pub fn events(&self) -> Vec<Event> {
        self.sink.0.lock().unwrap().clone()
    }

    /// Waits until `enough` events of a container have come; these, as `topic` or `topic:id` for an exec's.
    pub fn topics(&self, container: &str, enough: usize) -> Vec<String> {
        let of = || {
            let events = self
                .events()
                .into_iter()
                .filter(|e| e.container == container);
            events
                .map(|e| match e.id.as_str() {
                    "" => e.topic,
                    id if id == container => e.topic,
                    id => format!("{}:{id}", e.topic),
                })
                .collect::<Vec<_>>()
        };
        wait_until(
            &format!("{enough} events of {container}"),
            Duration::from_secs(10),
            || of().len() >= enough,
        );
        of()
    }

    /// Calls a method.
    pub fn call<T: Message>(&self, method: &str, request: &impl Message) -> Result<T, Refusal> {
        block_on(self.request(method, request))
    }

    /// The same, in a caller's own task.
    pub async fn request<T: Message>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<T, Refusal> {
        call_on(&self.client, self.version, method, request).await
    }

    /// The container's group below each hierarchy.
    pub fn group(&self, id: &str) -> String {
        format!("/{}/{id}", self.name)
    }

    /// A spec for [`Shim::create_with`].
    pub fn spec(&self, id: &str, args: &[&str]) -> Value {
        let mut spec = spec::default_spec("rootfs", &self.group(id), args);
        spec["annotations"]["io.kubernetes.cri.sandbox-id"] = json!("pod");
        spec
    }

    /// The request that creates a container from a spec.
    pub fn create_request(&self, id: &str, spec: &Value, streams: Streams) -> CreateTaskRequest {
        let bundle = self.dir.join(id);
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        CreateTaskRequest {
            id: id.into(),
            bundle: bundle.display().to_string(),
            rootfs: vec![Mount {
                type_: "bind".into(),
                source: test_directory().join("rootfs").display().to_string(),
                options: vec!["rbind".into(), "ro".into()],
                ..Mount::default()
            }],
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            terminal: streams.terminal,
            ..CreateTaskRequest::default()
        }
    }

    pub fn create_with(&self, id: &str, spec: &Value, streams: Streams) -> Result<u32, Refusal> {
        let request = self.create_request(id, spec, streams);
        self.call::<CreateTaskResponse>("Create", &request)
            .map(|r| r.pid)
    }

    /// Creates a container without streams.
    pub fn create(&self, id: &str, args: &[&str]) -> Result<u32, Refusal> {
        self.create_with(id, &self.spec(id, args), Streams::default())
    }

    /// Creates and starts one.
    #[track_caller]
    pub fn run(&self, id: &str, args: &[&str]) -> u32 {
        let pid = self.create(id, args).unwrap();
        assert_eq!(self.start_process(id, "").unwrap(), pid);
        pid
    }

    pub fn start_process(&self, id: &str, exec: &str) -> Result<u32, Refusal> {
        let request = StartRequest {
            id: id.into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        self.call::<StartResponse>("Start", &request).map(|r| r.pid)
    }

    /// The request that announces an exec.
    pub fn exec_request(
        id: &str,
        exec: &str,
        args: &[&str],
        streams: Streams,
    ) -> ExecProcessRequest {
        let process = json!({
            "args": args, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
        });
        Self::request_of(id, exec, &process, streams)
    }

    fn request_of(id: &str, exec: &str, process: &Value, streams: Streams) -> ExecProcessRequest {
        ExecProcessRequest {
            id: id.into(),
            exec_id: exec.into(),
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            terminal: streams.terminal,
            spec: MessageField::some(Any {
                value: process.to_string().into_bytes(),
                ..Any::default()
            }),
            ..Default::default()
        }
    }

    pub fn exec(&self, id: &str, exec: &str, args: &[&str]) -> Result<(), Refusal> {
        self.exec_with(id, exec, args, Streams::default())
    }

    pub fn exec_with(
        &self,
        id: &str,
        exec: &str,
        args: &[&str],
        streams: Streams,
    ) -> Result<(), Refusal> {
        let request = Self::exec_request(id, exec, args, streams);
        self.call::<Empty>("Exec", &request).map(drop)
    }

    /// Announces an exec of this process.
    pub fn exec_process(
        &self,
        id: &str,
        exec: &str,
        process: &Value,
        streams: Streams,
    ) -> Result<(), Refusal> {
        let request = Self::request_of(id, exec, process, streams);
        self.call::<Empty>("Exec", &request).map(drop)
    }

    pub fn delete(&self, id: &str, exec: &str) -> Result<DeleteResponse, Refusal> {
        let request = DeleteRequest {
            id: id.into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        self.call("Delete", &request)
    }

    pub fn kill(&self, id: &str, exec: &str, signal: u32, all: bool) -> Result<(), Refusal> {
        let request = KillRequest {
            id: id.into(),
            exec_id: exec.into(),
            signal,
            all,
            ..Default::default()
        };
        self.call::<Empty>("Kill", &request).map(drop)
    }

    pub fn wait(&self, id: &str, exec: &str) -> Result<u32, Refusal> {
        let request = WaitRequest {
            id: id.into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        self.call::<WaitResponse>("Wait", &request)
            .map(|r| r.exit_status)
    }

    pub fn state(&self, id: &str, exec: &str) -> Result<StateResponse, Refusal> {
        let request = StateRequest {
            id: id.into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        self.call("State", &request)
    }

    pub fn resize(&self, id: &str, exec: &str, width: u32, height: u32) -> Result<(), Refusal> {
        let request = ResizePtyRequest {
            id: id.into(),
            exec_id: exec.into(),
            width,
            height,
            ..Default::default()
        };
        self.call::<Empty>("ResizePty", &request).map(drop)
    }

    pub fn close_stdin(&self, id: &str, exec: &str) -> Result<(), Refusal> {
        let request = CloseIORequest {
            id: id.into(),
            exec_id: exec.into(),
            stdin: true,
            ..Default::default()
        };
        self.call::<Empty>("CloseIO", &request).map(drop)
    }

    pub fn pause(&self, id: &str) -> Result<(), Refusal> {
        let request = PauseRequest {
            id: id.into(),
            ..Default::default()
        };
        self.call::<Empty>("Pause", &request).map(drop)
    }

    pub fn resume(&self, id: &str) -> Result<(), Refusal> {
        let request = ResumeRequest {
            id: id.into(),
            ..Default::default()
        };
        self.call::<Empty>("Resume", &request).map(drop)
    }

    pub fn update(&self, id: &str, resources: &Value) -> Result<(), Refusal> {
        let request = UpdateTaskRequest {
            id: id.into(),
            resources: MessageField::some(Any {
                value: resources.to_string().into_bytes(),
                ..Any::default()
            }),
            ..Default::default()
        };
        self.call::<Empty>("Update", &request).map(drop)
    }

    pub fn pids(&self, id: &str) -> Result<PidsResponse, Refusal> {
        let request = PidsRequest {
            id: id.into(),
            ..Default::default()
        };
        self.call("Pids", &request)
    }

    pub fn stats(&self, id: &str) -> Result<StatsResponse, Refusal> {
        let request = StatsRequest {
            id: id.into(),
            ..Default::default()
        };
        self.call("Stats", &request)
    }

    pub fn connect(&self, id: &str) -> Result<ConnectResponse, Refusal> {
        let request = ConnectRequest {
            id: id.into(),
            ..Default::default()
        };
        self.call("Connect", &request)
    }

    pub fn shutdown(&self) -> Result<(), Refusal> {
        self.call::<Empty>("Shutdown", &ShutdownRequest::default())
            .map(drop)
    }

    /// Kills a container that runs, and deletes it.
    #[track_caller]
    pub fn finish(&self, id: &str) {
        self.kill(id, "", 9, true).unwrap();
        assert_eq!(self.wait(id, "").unwrap(), 137);
        self.delete(id, "").unwrap();
    }

    /// What containerd runs when a creation failed, or a shim is gone.
    pub fn clean_up(&self, program: &str, id: &str) {
        let out = Command::new(shim_directory().join(program))
            .args(["-namespace", "cdshim", "-id", id, "-address"])
            .arg(self.dir.join("c"))
            .arg("-bundle")
            .arg(self.dir.join(id))
            .arg("delete")
            .current_dir(self.dir.join(id))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
    }

    /// The shim's own process, if it is there.
    pub fn pid(&self) -> Option<i32> {
        let address = self.dir.join("c").display().to_string();
        processes()
            .into_iter()
            .find(|(_, a)| a.contains(&address) && a.iter().any(|a| a == "serve"))
            .map(|(p, _)| p)
    }

    /// Where it serves.
    pub fn socket(&self) -> PathBuf {
        let address = self.dir.join("c").display().to_string();
        containerd_shim::socket_address(&address, "cdshim", "pod")
            .trim_start_matches("unix://")
            .into()
    }

    /// Ends the shim, whose containers must be deleted, and looks for what is left.
    #[track_caller]
    pub fn end(self) {
        let control = self.pid().map(|pid| control::socket_of(pid as u32));
        self.shutdown().ok();
        wait_until("the shim ends", Duration::from_secs(10), || {
            self.pid().is_none()
        });
        assert!(UnixStream::connect(self.socket()).is_err());
        if let Some(socket) = control {
            assert!(!socket.exists(), "{} is left", socket.display());
        }
        for hierarchy in leftovers::hierarchies() {
            let group = hierarchy.join(&self.name);
            assert!(!group.exists(), "{} is left", group.display());
        }
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            kill(pid);
            fs::remove_file(control::socket_of(pid as u32)).ok();
        }
        // A shim that was killed has left its containers.
        for hierarchy in leftovers::hierarchies() {
            leftovers::remove_group(&hierarchy.join(&self.name));
        }
        fs::remove_file(self.socket()).ok();
        fs::remove_dir_all(&self.dir).ok();
    }
}

fn listen(dir: &Path, sink: Arc<Sink>) -> Server {
    block_on(async {
        let mut server = Server::new()
            .bind(&format!("unix://{}", dir.join("events").display()))
            .unwrap()
            .register_service(create_events(sink));
        server.start().await.unwrap();
        server
    })
}
