//! A shim that answers every request and does nothing: `containerd-shim-nothing-v1`, the floor of containerd itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim::parse;
use containerd_shim_protos::api::{
    ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest,
    DeleteResponse, Empty, ExecProcessRequest, KillRequest, ShutdownRequest, StartRequest,
    StartResponse, StateRequest, StateResponse, WaitRequest, WaitResponse,
};
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim_async::{Task, create_task};
use ttrpc::asynchronous::{Server, Service, TtrpcContext};

struct Nothing;

fn exited() -> MessageField<Timestamp> {
    MessageField::some(Timestamp {
        seconds: 1,
        ..Timestamp::default()
    })
}

fn pid() -> u32 {
    std::process::id()
}

type Answer<T> = ttrpc::Result<T>;

#[async_trait]
impl Task for Nothing {
    async fn create(&self, _: &TtrpcContext, _: CreateTaskRequest) -> Answer<CreateTaskResponse> {
        Ok(CreateTaskResponse {
            pid: pid(),
            ..Default::default()
        })
    }

    async fn start(&self, _: &TtrpcContext, _: StartRequest) -> Answer<StartResponse> {
        Ok(StartResponse {
            pid: pid(),
            ..Default::default()
        })
    }

    async fn wait(&self, _: &TtrpcContext, _: WaitRequest) -> Answer<WaitResponse> {
        Ok(WaitResponse {
            exited_at: exited(),
            ..Default::default()
        })
    }

    async fn delete(&self, _: &TtrpcContext, _: DeleteRequest) -> Answer<DeleteResponse> {
        Ok(DeleteResponse {
            pid: pid(),
            exited_at: exited(),
            ..Default::default()
        })
    }

    async fn exec(&self, _: &TtrpcContext, _: ExecProcessRequest) -> Answer<Empty> {
        Ok(Empty::default())
    }

    async fn kill(&self, _: &TtrpcContext, _: KillRequest) -> Answer<Empty> {
        Ok(Empty::default())
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> Answer<StateResponse> {
        Ok(StateResponse {
            id: request.id,
            pid: pid(),
            ..Default::default()
        })
    }

    async fn connect(&self, _: &TtrpcContext, _: ConnectRequest) -> Answer<ConnectResponse> {
        Ok(ConnectResponse {
            shim_pid: pid(),
            task_pid: pid(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> Answer<Empty> {
        // After the answer is on its way.
        tokio::spawn(async {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            std::process::exit(0);
        });
        Ok(Empty::default())
    }
}

#[allow(clippy::zombie_processes)] // the server outlives this process
fn main() {
    let args: Vec<_> = std::env::args_os().collect();
    let flags = parse(args.get(1..).unwrap_or_default()).unwrap();
    let address = containerd_shim::socket_address(&flags.address, &flags.namespace, &flags.id);
    let path = Path::new(address.trim_start_matches("unix://"));
    match flags.action.as_str() {
        "start" => {
            std::io::stdin().read_to_end(&mut Vec::new()).ok();
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut server = Command::new(std::env::current_exe().unwrap())
                .args(
                    args.get(1..)
                        .unwrap_or_default()
                        .iter()
                        .filter(|a| *a != "start"),
                )
                .arg("serve")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // It listens when it says so.
            server.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
            std::fs::write("address", &address).unwrap();
            print!("{address}");
        }
        "delete" => {
            std::fs::remove_file(path).ok();
            let answer = DeleteResponse {
                exited_at: exited(),
                ..Default::default()
            };
            std::io::stdout()
                .write_all(&answer.write_to_bytes().unwrap())
                .unwrap();
        }
        _ => {
            std::fs::remove_file(path).ok();
            let listener = UnixListener::bind(path).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(serve(listener));
        }
    }
}

async fn serve(listener: UnixListener) {
    listener.set_nonblocking(true).unwrap();
    let mut services: HashMap<String, Service> = HashMap::new();
    for name in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
        let generated = create_task(Arc::new(Nothing));
        services.extend(generated.into_values().map(|s| (name.to_owned(), s)));
    }
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    let mut server = Server::new()
        .add_listener(ttrpc::asynchronous::transport::Listener::from(listener))
        .register_service(services);
    server.start().await.unwrap();
    println!("x");
    std::io::stdout().flush().unwrap();
    std::future::pending::<()>().await;
}
