//! The ttrpc services on the pod's socket. Translation only: requests to the pod's methods, its results to replies.

mod errors;
mod events;
mod listener;
mod metrics;
mod options;
mod task;
mod time;

use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use containerd_shim_protos::shim_async::create_task;
use ttrpc::asynchronous::{Server, Service};

use crate::pod::Pod;
pub use events::send_all as send_events;
pub use options::profile_in;
pub(crate) use time::timestamp;

/// containerd 1.x knows the task service under the first name, 2.x under the second; the messages are the same.
const TASK_SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// Serves the pod on `listener`.
pub async fn serve(pod: &Arc<Pod>, listener: UnixListener) -> ttrpc::Result<Server> {
    let mut services: HashMap<String, Service> = HashMap::new();
    for name in TASK_SERVICES {
        let generated = create_task(Arc::new(task::TaskService::new(pod.clone())));
        services.extend(
            generated
                .into_values()
                .map(|service| (name.to_owned(), service)),
        );
    }
    let listener = listener::of_node(listener).map_err(|e| ttrpc::Error::Others(e.to_string()))?;
    let mut server = Server::new()
        .add_listener(listener)
        .register_service(services);
    server.start().await?;
    Ok(server)
}
