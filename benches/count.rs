//! Work that is counted in instructions, by `benches/count.sh`: `count PART TIMES`. Unlike time, that is the same on a busy machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

use std::os::unix::net::UnixListener;
use std::path::Path;

use cofferdam::cgroup::Layout;
use cofferdam::executor::fuzz;
use cofferdam::isolation::{Given, Node, Place, Profile, judge};
use cofferdam::oci::{Links, Reading, Request};
use cofferdam::pod::{Isolation, Pod, event_queue};
use cofferdam::seccomp;
use containerd_shim_protos::api::StateRequest;
use containerd_shim_protos::shim_async::TaskClient;
use ttrpc::asynchronous::Client;

const CONFIG: &str = include_str!("../fuzz/seeds/spec/containerd.json");
const FILTER: &str = include_str!("../fuzz/seeds/seccomp/containerd.json");

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, part, times] = args.as_slice() else {
        panic!("usage: count PART TIMES");
    };
    let times: usize = times.parse().unwrap();
    match part.as_str() {
        "plan" => {
            let config = without_binds().to_string();
            (0..times).for_each(|_| fuzz::plan(config.as_bytes()).unwrap());
        }
        "profile" => (0..times).for_each(|_| profile()),
        "filter" => filter(times),
        "request" => requests(times),
        other => panic!("{other:?}: expected plan, profile, filter or request"),
    }
}

/// What containerd sends; valgrind does not know the system call that a bind takes.
fn without_binds() -> serde_json::Value {
    let mut spec: serde_json::Value = serde_json::from_str(CONFIG).unwrap();
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|m| m["type"] != "bind");
    spec
}

/// Loads a profile and puts it under a spec, as each Create does.
fn profile() {
    let mut spec = without_binds();
    spec["linux"]["devices"] = serde_json::json!([]);
    spec["hooks"] = serde_json::json!({});
    spec["root"]["path"] = serde_json::json!("rootfs");
    let profile = Profile::load_from(Path::new("/nonexistent"), "hardened").unwrap();
    let given = Given {
        open_files: 1024,
        place: Place::of(&Node::default(), Path::new("/tmp/c"), "c"),
        ..Given::default()
    };
    let spec = serde_json::from_value(spec).unwrap();
    let reading = Reading::Run(Links::OfRoot);
    let request = Request::read(spec, Path::new("/tmp/c"), reading).unwrap();
    judge(&profile, &given, request).unwrap();
}

/// Compiles the filter that containerd gives to containers by default, into one whose denials are seen.
fn filter(times: usize) {
    let spec = serde_json::from_str(FILTER).unwrap();
    for _ in 0..times {
        assert!(seccomp::watch(None, Some(&spec)).unwrap().is_some());
    }
}

/// Requests to the pod's service over its socket, one after the other; the client is counted, too.
fn requests(times: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let path = std::env::temp_dir().join(format!("cofferdam-count-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let pod = Pod::new(
            "pod".into(),
            "count".into(),
            "standard".into(),
            Layout::detect().unwrap(),
            Isolation::load("standard"),
            event_queue().0,
        );
        let _server = cofferdam::service::serve(&pod, listener).await.unwrap();
        let address = format!("unix://{}", path.display());
        let client = TaskClient::new(Client::connect(&address).await.unwrap());
        for _ in 0..times {
            let request = StateRequest {
                id: "nothing".into(),
                ..StateRequest::default()
            };
            let answer = client
                .state(ttrpc::context::with_timeout(0), &request)
                .await;
            assert!(answer.is_err(), "there is no such container");
        }
        std::fs::remove_file(path).unwrap();
    });
}
