//! Pods through CRI, as a kubelet asks for them.

use std::time::Instant;

use serde_json::{Value, json};

use crate::measure::Times;
use crate::support::cri::{self, Client};
use crate::support::{BUSYBOX, Daemon};

/// From the request for a pod to its container running, and its removal.
pub fn pods(daemon: &Daemon, handlers: &[&'static str], rounds: usize) -> Value {
    let client = Client::connect(daemon);
    let mut times = vec![[Vec::new(), Vec::new()]; handlers.len()];
    for i in 0..=rounds {
        for (h, handler) in handlers.iter().enumerate() {
            let config = cri::pod_config(daemon, &format!("b{h}-{i}"));
            let begun = Instant::now();
            let pod = client.run_pod(&config, handler).unwrap();
            daemon.remember(&pod);
            let container = cri::container_config("box", BUSYBOX, &["sleep", "1000"]);
            let id = client.create(&pod, &container, &config).unwrap();
            client.start(&id).unwrap();
            let running = begun.elapsed();
            let begun = Instant::now();
            client.stop(&id, 0).unwrap();
            client.remove(&id).unwrap();
            client.stop_pod(&pod).unwrap();
            client.remove_pod(&pod).unwrap();
            // The first warms up.
            if i > 0 {
                times[h][0].push(running);
                times[h][1].push(begun.elapsed());
            }
        }
    }
    let mut out = json!({});
    for (h, handler) in handlers.iter().enumerate() {
        let name = match *handler {
            "cofferdam" => "standard",
            other => other.trim_start_matches("cofferdam-"),
        };
        out[name] = json!({
            "running": Times::of(&times[h][0]).json(),
            "removal": Times::of(&times[h][1]).json(),
        });
    }
    out
}
