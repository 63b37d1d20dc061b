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
        let name = name(handler);
        out[name] = json!({
            "running": Times::of(&times[h][0]).json(),
            "removal": Times::of(&times[h][1]).json(),
        });
    }
    out
}

fn name(handler: &str) -> &str {
    match handler {
        "cofferdam" => "standard",
        other => other.trim_start_matches("cofferdam-"),
    }
}

/// The same with eight pods at a time: until all eight run, and until all are gone.
pub fn at_a_time(daemon: &Daemon, handlers: &[&'static str], rounds: usize) -> Value {
    const AT_A_TIME: usize = 8;
    let mut times = vec![[Vec::new(), Vec::new()]; handlers.len()];
    for i in 0..rounds.max(1) {
        for (h, handler) in handlers.iter().enumerate() {
            let begun = Instant::now();
            let run = |n: usize| {
                let client = Client::connect(daemon);
                let config = cri::pod_config(daemon, &format!("e{h}-{i}-{n}"));
                let pod = client.run_pod(&config, handler).unwrap();
                daemon.remember(&pod);
                let container = cri::container_config("box", BUSYBOX, &["sleep", "1000"]);
                let id = client.create(&pod, &container, &config).unwrap();
                client.start(&id).unwrap();
                pod
            };
            let pods: Vec<String> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..AT_A_TIME)
                    .map(|n| scope.spawn(move || run(n)))
                    .collect();
                threads.into_iter().map(|t| t.join().unwrap()).collect()
            });
            times[h][0].push(begun.elapsed());
            let begun = Instant::now();
            std::thread::scope(|scope| {
                for pod in &pods {
                    scope.spawn(move || {
                        let client = Client::connect(daemon);
                        client.stop_pod(pod).unwrap();
                        client.remove_pod(pod).unwrap();
                    });
                }
            });
            times[h][1].push(begun.elapsed());
        }
    }
    let mut out = json!({});
    for (handler, [running, removal]) in handlers.iter().zip(&times) {
        out[name(handler)] = json!({
            "running": Times::of(running).json(), "removal": Times::of(removal).json(),
        });
    }
    out
}
