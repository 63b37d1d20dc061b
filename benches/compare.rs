//! Our shim against containerd's own with runc: on the same containerd, interleaved in one run. Ratios are the result;
//! absolute times are this machine's. `cargo bench --bench compare -- [--rounds N] [--containerd 1.6|2]`.

#![allow(clippy::unchecked_time_subtraction)] // of later and earlier times

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use containerd_client::services::v1::container::Runtime;
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
use support::{Daemon, Release, Setup, block_on};

const OURS: &str = support::RUNTIME;
const RUNC: &str = "io.containerd.runc.v2";
const RUNTIMES: [&str; 2] = [OURS, RUNC];
const PROFILES: [&str; 3] = ["standard", "hardened", "untrusted"];
/// What a profile may cost, in `standard`'s time: a life, and system calls.
const PROFILE_LIMITS: [(&str, f64, f64); 2] = [("hardened", 1.3, 1.05), ("untrusted", 1.6, 1.05)];

/// A client of the services that a container needs.
struct Client<'a> {
    daemon: &'a Daemon,
    namespace: String,
    channel: Channel,
    /// The image's only layer.
    layer: String,
}

impl<'a> Client<'a> {
    fn connect(daemon: &'a Daemon) -> Self {
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
    fn prepare(
        &self,
        id: &str,
        runtime: &str,
        args: &[&str],
    ) -> Vec<containerd_client::types::Mount> {
        self.prepare_with(id, runtime, args, &Value::Null)
    }

    /// The same with a `linux.seccomp`.
    fn prepare_with(
        &self,
        id: &str,
        runtime: &str,
        args: &[&str],
        filter: &Value,
    ) -> Vec<containerd_client::types::Mount> {
        self.daemon.remember(id);
        let mut spec =
            support::spec::default_spec("rootfs", &format!("/{}/{id}", self.namespace), args);
        spec["root"]["readonly"] = json!(true);
        if !filter.is_null() {
            spec["linux"]["seccomp"] = filter.clone();
        }
        block_on(async {
            // The container first: a snapshot that nothing refers to may be collected at any time.
            let container = Container {
                id: id.into(),
                runtime: Some(Runtime {
                    name: runtime.into(),
                    options: None,
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

    fn forget(&self, id: &str) {
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
    async fn start(&self, id: &str, rootfs: Vec<containerd_client::types::Mount>) -> [Duration; 2] {
        let begun = Instant::now();
        let request = CreateTaskRequest {
            container_id: id.into(),
            rootfs,
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

    async fn wait(&self, id: &str, exec_id: &str) -> u32 {
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

    async fn delete(&self, id: &str) {
        let request = DeleteTaskRequest {
            container_id: id.into(),
        };
        self.tasks()
            .delete(with_namespace!(request, self.namespace))
            .await
            .unwrap();
    }

    /// Create, Start, Wait and Delete of `/bin/true`: a time for each, and the total.
    fn whole_life(&self, id: &str, runtime: &str) -> [Duration; 5] {
        let mounts = self.prepare(id, runtime, &["/bin/true"]);
        let times = block_on(async {
            let begun = Instant::now();
            let [create, start] = self.start(id, mounts).await;
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
    fn exec(&self, id: &str, exec_id: &str) -> Duration {
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

    fn run(&self, id: &str, runtime: &str) {
        let mounts = self.prepare(id, runtime, &["sleep", "100000"]);
        block_on(self.start(id, mounts));
    }

    fn end(&self, id: &str) {
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

fn any(name: &str, value: &Value) -> Any {
    Any {
        type_url: format!("types.containerd.io/opencontainers/runtime-spec/1/{name}"),
        value: value.to_string().into_bytes(),
    }
}

/// PSS and private memory of the daemon's shims of one kind, in KiB.
fn memory(daemon: &Daemon, runtime: &str) -> (u64, u64) {
    let kind = if runtime == OURS {
        "containerd-shim-cofferdam"
    } else {
        "containerd-shim-runc"
    };
    let address = daemon.address().display().to_string();
    let shims = support::processes()
        .into_iter()
        .filter(|(_, a)| a.contains(&address) && a[0].contains(kind));
    shims.fold((0, 0), |(pss, private), (pid, _)| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let field = |name: &str| {
            text.lines()
                .filter(|l| l.starts_with(name))
                .filter_map(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok())
                .sum::<u64>()
        };
        (
            pss + field("Pss:"),
            private + field("Private_Clean:") + field("Private_Dirty:"),
        )
    })
}

/// The filter that containerd gives to containers by default, as it sends it.
fn default_filter(daemon: &Daemon) -> Value {
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
fn profiles(client: &Client<'_>, rounds: usize) -> Vec<Value> {
    let runtime = |profile: &str| match profile {
        "standard" => OURS.to_owned(),
        other => format!("io.containerd.cofferdam-{other}.v1"),
    };
    let calls = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=300000"];
    let filters = [
        ("filtered", default_filter(client.daemon)),
        ("unfiltered", Value::Null),
    ];
    let mut times = PROFILES.map(|_| [Vec::new(), Vec::new(), Vec::new()]);
    for i in 0..rounds {
        for (p, profile) in PROFILES.into_iter().enumerate() {
            std::thread::sleep(Duration::from_millis(20));
            let [.., total] = client.whole_life(&format!("p{p}-{i}"), &runtime(profile));
            times[p][0].push(total);
            for (f, (name, filter)) in filters.iter().enumerate() {
                let id = format!("{name}{p}-{i}");
                let mounts = client.prepare_with(&id, &runtime(profile), &calls, filter);
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
    let medians = times.map(|t| t.map(|mut t| summary(&mut t).0));
    PROFILES
        .iter()
        .zip(medians)
        .map(|(name, [life, filtered, unfiltered])| {
            let [standard_life, standard_filtered, standard_unfiltered] = medians[0];
            json!({
                "name": name, "life_ms": life, "life_ratio": life / standard_life,
                "calls_ms": filtered, "calls_ratio": filtered / standard_filtered,
                "unfiltered_ms": unfiltered, "unfiltered_ratio": unfiltered / standard_unfiltered,
            })
        })
        .collect()
}

/// Median and 95th percentile, in milliseconds.
fn summary(times: &mut [Duration]) -> (f64, f64) {
    times.sort();
    let at = |q: usize| times[(times.len() - 1) * q / 100].as_secs_f64() * 1000.0;
    (at(50), at(95))
}

fn option(name: &str) -> Option<String> {
    let args: Vec<String> = std::env::args().collect();
    args.iter()
        .position(|a| a == name)
        .and_then(|i| args.get(i + 1))
        .cloned()
}

fn main() {
    let rounds: usize =
        option("--rounds").map_or(40, |n| n.parse().expect("--rounds takes a number"));
    let release = match option("--containerd").as_deref() {
        None | Some("2") => Release::V2,
        Some("1.6") => Release::V1_6,
        Some(other) => panic!("--containerd {other}: expected 1.6 or 2"),
    };
    if let Some(reason) = release.missing() {
        panic!("{reason}");
    }
    let daemon = Daemon::start(release, Setup { cri: false });
    let client = Client::connect(&daemon);
    let mut rows: Vec<(String, [(f64, f64); 2])> = Vec::new();

    for (pause, label) in [
        (Duration::from_millis(50), "50 ms apart"),
        (Duration::ZERO, "tight loop"),
    ] {
        let mut times = RUNTIMES.map(|_| vec![Vec::new(); 5]);
        let mut execs = RUNTIMES.map(|_| Vec::new());
        for (r, runtime) in RUNTIMES.into_iter().enumerate() {
            client.whole_life(&format!("warm{r}"), runtime);
            client.run(&format!("box{r}"), runtime);
        }
        for i in 0..rounds {
            for (r, runtime) in RUNTIMES.into_iter().enumerate() {
                std::thread::sleep(pause);
                for (phase, time) in client
                    .whole_life(&format!("c{r}-{i}"), runtime)
                    .into_iter()
                    .enumerate()
                {
                    times[r][phase].push(time);
                }
                std::thread::sleep(pause);
                execs[r].push(client.exec(&format!("box{r}"), &format!("e{i}")));
            }
        }
        for (phase, name) in [
            "Create",
            "Start",
            "Wait",
            "Delete",
            "Create+Start+Wait+Delete",
        ]
        .into_iter()
        .enumerate()
        {
            let pair = [0, 1].map(|r| summary(&mut times[r][phase]));
            rows.push((format!("{name}, {label}"), pair));
        }
        rows.push((
            format!("exec of /bin/true, {label}"),
            [0, 1].map(|r| summary(&mut execs[r])),
        ));
        for r in 0..RUNTIMES.len() {
            client.end(&format!("box{r}"));
        }
    }

    println!(
        "/bin/true, {rounds} rounds each, interleaved, containerd {}",
        release.name()
    );
    println!(
        "{:<42} {:>16} {:>16} {:>7}",
        "milliseconds: median (p95)", "cofferdam", "runc", "ratio"
    );
    for (name, [ours, runc]) in &rows {
        let cell = |(p50, p95): &(f64, f64)| format!("{p50:.1} ({p95:.1})");
        println!(
            "{name:<42} {:>16} {:>16} {:>7.2}",
            cell(ours),
            cell(runc),
            ours.0 / runc.0
        );
    }

    println!(
        "\n{:<42} {:>16} {:>16} {:>7}",
        "shim memory, KiB a pod: PSS (private)", "cofferdam", "runc", "ratio"
    );
    let mut memory_rows = Vec::new();
    for pods in [1, 20] {
        let pair = RUNTIMES.map(|runtime| {
            let ids: Vec<String> = (0..pods).map(|i| format!("m{i}")).collect();
            for id in &ids {
                client.run(id, runtime);
            }
            std::thread::sleep(Duration::from_secs(1));
            let (pss, private) = memory(&daemon, runtime);
            for id in &ids {
                client.end(id);
            }
            (pss as f64 / pods as f64, private as f64 / pods as f64)
        });
        let name = format!(
            "{pods} pod{} of one container",
            if pods == 1 { "" } else { "s" }
        );
        let cell = |(pss, private): &(f64, f64)| format!("{pss:.0} ({private:.0})");
        println!(
            "{name:<42} {:>16} {:>16} {:>7.2}",
            cell(&pair[0]),
            cell(&pair[1]),
            pair[0].0 / pair[1].0
        );
        memory_rows.push(json!({ "name": name, "cofferdam_pss_kib": pair[0].0, "runc_pss_kib": pair[1].0, "ratio": pair[0].0 / pair[1].0 }));
    }

    println!(
        "\n{:<42} {:>14} {:>6} {:>14} {:>6} {:>14} {:>6}",
        "profiles: milliseconds, and against standard",
        "a whole life",
        "",
        "system calls",
        "",
        "no pod filter",
        ""
    );
    let profile_rows = profiles(&client, rounds);
    for row in &profile_rows {
        print!("{:<42}", row["name"].as_str().unwrap());
        for what in ["life", "calls", "unfiltered"] {
            let number = |unit: &str| row[format!("{what}_{unit}")].as_f64().unwrap();
            print!(" {:>14.1} {:>6.2}", number("ms"), number("ratio"));
        }
        println!();
    }

    let results = json!({
        "containerd": release.name(),
        "rounds": rounds,
        "times_ms": rows.iter().map(|(name, [ours, runc])| json!({
            "name": name, "cofferdam": ours.0, "cofferdam_p95": ours.1, "runc": runc.0, "runc_p95": runc.1, "ratio": ours.0 / runc.0
        })).collect::<Vec<_>>(),
        "memory": memory_rows,
        "profiles": profile_rows,
    });
    if let Some(path) = option("--json") {
        std::fs::write(path, serde_json::to_vec_pretty(&results).unwrap()).unwrap();
    }
    drop(daemon);
    support::clean_up();
    if let Some(limit) = option("--check") {
        check(&results, &limit);
    }
}

/// `--check TIME,MEMORY`: fails where a ratio of the medians is above the limit.
fn check(results: &Value, limit: &str) {
    let (time, memory) = limit.split_once(',').expect("--check takes TIME,MEMORY");
    let (time, memory): (f64, f64) = (time.parse().unwrap(), memory.parse().unwrap());
    let mut failed = false;
    let rows = [("times_ms", time), ("memory", memory)];
    for (row, limit) in rows.iter().flat_map(|(key, limit)| {
        results[key]
            .as_array()
            .unwrap()
            .iter()
            .map(move |r| (r, *limit))
    }) {
        let name = row["name"].as_str().unwrap();
        let judged = name.starts_with("Create+")
            || name.starts_with("exec")
            || row.get("runc_pss_kib").is_some();
        let ratio = row["ratio"].as_f64().unwrap();
        if judged && ratio > limit {
            println!("too much: {name}: {ratio:.2} of runc's, at most {limit} allowed");
            failed = true;
        }
    }
    for row in results["profiles"].as_array().unwrap() {
        let Some((name, life, calls)) = PROFILE_LIMITS.iter().find(|(n, ..)| row["name"] == *n)
        else {
            continue;
        };
        for (key, limit) in [("life_ratio", life), ("calls_ratio", calls)] {
            let ratio = row[key].as_f64().unwrap();
            // A median of few is no more than a hint.
            let few = results["rounds"].as_u64().unwrap() < 40;
            if ratio > *limit * if few { 1.2 } else { 1.0 } {
                println!("too much: {name}: {key} {ratio:.2}, at most {limit} allowed");
                failed = true;
            }
        }
    }
    std::process::exit(i32::from(failed));
}
