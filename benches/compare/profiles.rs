//! What each isolation profile costs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::measure::Times;
use crate::runtimes::{HARDENED, OURS, UNTRUSTED};
use crate::support::{Daemon, block_on};

/// The filter that containerd gives to containers by default, as it sends it.
pub fn default_filter(daemon: &Daemon) -> Value {
    daemon.run_detached(&["--null-io", "--seccomp"], "filter", &["sleep", "1000"]);
    let text = std::fs::read_to_string(daemon.bundle("filter").join("config.json")).unwrap();
    daemon.remove("filter");
    let spec: Value = serde_json::from_str(&text).unwrap();
    let filter = spec["linux"]["seccomp"].clone();
    assert!(
        filter["syscalls"].as_array().is_some_and(|s| s.len() > 5),
        "{filter}"
    );
    filter
}

/// What each isolation profile costs, against `standard`: a container's life, and a workload that does nothing but system calls,
/// in a pod with the runtime's default filter and in one without any. Medians in milliseconds.
pub fn profiles(client: &Client<'_>, filter: &Value, rounds: usize) -> Vec<Value> {
    let profiles = [OURS, HARDENED, UNTRUSTED];
    let calls = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=300000"];
    let filters = [("filtered", filter.clone()), ("unfiltered", Value::Null)];
    let mut times = profiles.map(|_| [Vec::new(), Vec::new(), Vec::new()]);
    for i in 0..rounds {
        for (p, profile) in profiles.into_iter().enumerate() {
            std::thread::sleep(Duration::from_millis(20));
            let [.., total] = client.whole_life(&format!("p{p}-{i}"), profile);
            times[p][0].push(total);
            for (f, (name, filter)) in filters.iter().enumerate() {
                let id = format!("{name}{p}-{i}");
                let mounts = client.prepare_with(&id, profile, &calls, filter);
                block_on(async {
                    client.start(&id, mounts).await;
                    let begun = Instant::now();
                    assert_eq!(client.wait(&id, "").await, 0);
                    times[p][f + 1].push(begun.elapsed());
                    client.delete(&id).await;
                });
                client.forget(&id);
            }
        }
    }
    let medians = times.map(|t| t.map(|t| Times::of(&t).p50));
    profiles
        .iter()
        .zip(medians)
        .map(|(profile, [life, filtered, unfiltered])| {
            let [standard_life, standard_filtered, standard_unfiltered] = medians[0];
            json!({
                "name": profile.name, "life_ms": life, "life_ratio": life / standard_life,
                "calls_ms": filtered, "calls_ratio": filtered / standard_filtered,
                "unfiltered_ms": unfiltered, "unfiltered_ratio": unfiltered / standard_unfiltered,
            })
        })
        .collect()
}
