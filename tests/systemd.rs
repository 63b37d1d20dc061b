//! `linux.cgroupsPath` in systemd's form: the container's groups are a transient scope of systemd's, or it is an error.

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Case;
use crate::edges::subject::{Front, Subject, USER};
use crate::resources::{is_v2, read};
use crate::support::cri::{self, Client};
use crate::support::place::Place;
use crate::support::spec::Bundle;
use crate::support::{BUSYBOX, Daemon, Output, is_alive, kill, task, wait_until};

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    let reachable = Path::new("/run/dbus/system_bus_socket").exists()
        && Path::new("/run/systemd/system").exists();
    let absent = (!reachable).then(|| "systemd does not run here".to_owned());
    let has_user_bus = is_v2() && Path::new("/usr/lib/systemd/user/dbus.socket").exists();
    let no_user_bus = (!has_user_bus).then(|| "users have no systemd of their own here".to_owned());
    let present = reachable.then(|| "systemd runs here".to_owned());
    vec![
        Case::ctr("systemd::scope", scope).unless(absent.clone()),
        Case::ctr(
            "systemd::a_reload_changes_nothing",
            a_reload_changes_nothing,
        )
        .unless(absent.clone()),
        Case::ctr("systemd::update", update).unless(absent.clone()),
        Case::ctr("systemd::a_taken_name", a_taken_name).unless(absent.clone()),
        Case::ctr("systemd::kill_nine", kill_nine).unless(absent.clone()),
        Case::ctr("systemd::out_of_memory", out_of_memory).unless(absent.clone()),
        Case::cri("systemd::pod", pod).unless(absent.clone()),
        Case::plain("systemd::a_users_own", a_users_own).unless(absent.clone().or(no_user_bus)),
        Case::plain("systemd::command_line", command_line).unless(absent),
        Case::ctr("systemd::unreachable", unreachable).unless(present),
    ]
}

fn systemctl(args: &[&str]) -> String {
    let mut command = Command::new("systemctl");
    Output::of(command.args(args)).stdout.trim().to_owned()
}

/// Properties of a unit, in the order asked for.
fn show(unit: &str, properties: &[&str]) -> Vec<String> {
    let all = systemctl(&["show", unit]);
    properties
        .iter()
        .map(|p| {
            let line = all.lines().find_map(|l| l.strip_prefix(&format!("{p}=")));
            line.unwrap_or("(none)").to_owned()
        })
        .collect()
}

fn is_loaded(unit: &str) -> bool {
    show(unit, &["ActiveState"]) != ["inactive"]
}

/// A name for a slice of this test alone.
fn slice(d: &Daemon) -> String {
    let name = d.cgroup_parent();
    format!("{}.slice", name.trim_matches('/').replace('-', "x"))
}

fn file(slice: &str, unit: &str, v1: (&str, &str), v2: &str) -> String {
    read(&format!("{slice}/{unit}"), v1, v2)
}

/// A container in a scope of its own; its slice and its unit.
fn placed<'a>(
    d: &'a Daemon,
    id: &str,
    args: &[&str],
    resources: &[(&str, Value)],
) -> (Bundle<'a>, String, String) {
    let slice = slice(d);
    let mut b = Bundle::new(d, id, args);
    b.set(
        "/linux/cgroupsPath",
        json!(format!("{slice}:cri-containerd:{id}")),
    );
    for (key, value) in resources {
        b.set(&format!("/linux/resources/{key}"), value.clone());
    }
    (b, slice, format!("cri-containerd-{id}.scope"))
}

fn limits() -> [(&'static str, Value); 3] {
    [
        ("memory", json!({ "limit": 67_108_864 })),
        ("pids", json!({ "limit": 77 })),
        (
            "cpu",
            json!({ "quota": 25_000, "period": 50_000, "shares": 512, "cpus": "0" }),
        ),
    ]
}

const MEMORY: ((&str, &str), &str) = (("memory", "memory.limit_in_bytes"), "memory.max");
const QUOTA: ((&str, &str), &str) = (("cpu", "cpu.cfs_quota_us"), "cpu.max");

fn memory_property() -> &'static str {
    if is_v2() { "MemoryMax" } else { "MemoryLimit" }
}

fn scope(d: &mut Daemon) {
    let (b, slice, unit) = placed(d, "scope", &["sleep", "1000"], &limits());
    b.run_detached();
    assert_eq!(
        show(
            &unit,
            &[
                "ActiveState",
                "Slice",
                "Delegate",
                "TasksMax",
                "CPUQuotaPerSecUSec",
                memory_property()
            ]
        ),
        ["active", slice.as_str(), "yes", "77", "500ms", "67108864"]
    );
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", d.pid("scope"))).unwrap();
    let expected = format!("/{slice}/{unit}");
    let elsewhere: Vec<_> = groups
        .lines()
        // A hybrid node may have hierarchies that are not mounted.
        .filter(|l| !l.ends_with(&expected) && !l.contains("misc") && !l.contains("rdma"))
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert_eq!(file(&slice, &unit, MEMORY.0, MEMORY.1), "67108864");
    let quota = if is_v2() { "25000 50000" } else { "25000" };
    assert_eq!(file(&slice, &unit, QUOTA.0, QUOTA.1), quota);
    let procs = file(&slice, &unit, ("memory", "cgroup.procs"), "cgroup.procs");
    assert_eq!(
        procs,
        d.pid("scope").to_string(),
        "only the container's process is there"
    );
    d.remove("scope");
    assert!(!is_loaded(&unit), "systemd still has {unit}");
    // It can be made again.
    b.run_detached();
    assert!(is_loaded(&unit));
    d.remove("scope");
    // A container that ends by itself takes its scope along.
    let (b, _, unit) = placed(d, "short", &["true"], &limits());
    b.run().ok();
    assert!(!is_loaded(&unit), "systemd still has {unit}");
    systemctl(&["stop", &slice]);
}

fn a_reload_changes_nothing(d: &mut Daemon) {
    let (mut b, slice, unit) = placed(d, "reload", &["sleep", "1000"], &limits());
    // /dev/kmsg is on no list.
    b.set(
        "/linux/devices",
        json!([{ "path": "/dev/test", "type": "c", "major": 1, "minor": 11, "fileMode": 438 }]),
    );
    b.set(
        "/linux/resources/devices",
        json!([{ "allow": false, "access": "rwm" }]),
    );
    b.run_detached();
    let opens = |n: &str| {
        d.exec(
            &[],
            "reload",
            n,
            &["sh", "-c", ": 3</dev/null && : 3</dev/test"],
        )
    };
    let before = opens("before");
    assert!(
        before.stderr.contains("/dev/test: Operation not permitted"),
        "{before:?}"
    );
    systemctl(&["daemon-reload"]);
    systemctl(&["set-property", "--runtime", &unit, "CPUWeight=77"]);
    assert_eq!(file(&slice, &unit, MEMORY.0, MEMORY.1), "67108864");
    assert_eq!(opens("after").stderr, before.stderr);
    d.remove("reload");
    systemctl(&["stop", &slice]);
}

fn update(d: &mut Daemon) {
    let (b, slice, unit) = placed(d, "update", &["sleep", "1000"], &limits());
    b.run_detached();
    let new = json!({ "memory": { "limit": 134_217_728 }, "cpu": { "quota": 33_333, "period": 100_000 }, "pids": { "limit": 99 } });
    task::update(d, "update", &new).unwrap();
    assert_eq!(
        show(
            &unit,
            &["TasksMax", "CPUQuotaPerSecUSec", memory_property()]
        ),
        ["99", "340ms", "134217728"]
    );
    assert_eq!(file(&slice, &unit, MEMORY.0, MEMORY.1), "134217728");
    let quota = if is_v2() { "33333 100000" } else { "33333" };
    assert_eq!(
        file(&slice, &unit, QUOTA.0, QUOTA.1),
        quota,
        "exact, although systemd keeps whole percents"
    );
    // What the kernel refuses reaches systemd neither.
    let bad = json!({ "memory": { "limit": 268_435_456 }, "cpu": { "cpus": "4000" } });
    let error = task::update(d, "update", &bad).unwrap_err();
    assert!(error.contains("linux.resources.cpu.cpus"), "{error}");
    assert_eq!(file(&slice, &unit, MEMORY.0, MEMORY.1), "134217728");
    assert_eq!(show(&unit, &[memory_property()]), ["134217728"]);
    d.remove("update");
    systemctl(&["stop", &slice]);
}

fn a_taken_name(d: &mut Daemon) {
    let (b, slice, unit) = placed(d, "first", &["sleep", "1000"], &[]);
    b.run_detached();
    let mut second = Bundle::new(d, "second", &["true"]);
    second.set(
        "/linux/cgroupsPath",
        json!(format!("{slice}:cri-containerd:first")),
    );
    let out = second.run();
    assert_ne!(out.status, 0);
    assert!(
        out.stderr.contains("linux.cgroupsPath") && out.stderr.contains(&unit),
        "{}",
        out.stderr
    );
    assert_eq!(
        d.task_status("first").as_deref(),
        Some("RUNNING"),
        "the first is left alone"
    );
    d.remove("first");
    systemctl(&["stop", &slice]);
}

fn kill_nine(d: &mut Daemon) {
    let slice = slice(d);
    let (path, unit) = (
        format!("{slice}:cri-containerd:crash"),
        "cri-containerd-crash.scope",
    );
    // Without streams: fifos would be the client's to remove.
    d.run_detached(
        &["--null-io", "--cgroup", &path],
        "crash",
        &["sleep", "1000"],
    );
    assert!(is_loaded(unit));
    let pid = d.pid("crash");
    kill(d.shims()[0]);
    wait_until("the container is gone", Duration::from_secs(20), || {
        !is_alive(pid)
    });
    wait_until("systemd's unit is gone", Duration::from_secs(20), || {
        !is_loaded(unit)
    });
    d.remove("crash");
    systemctl(&["stop", &slice]);
}

fn out_of_memory(d: &mut Daemon) {
    // systemd removes an empty scope at once: what killed its last process must be known all the same.
    let events = crate::support::events::Events::subscribe(d);
    let (b, slice, _) = placed(
        d,
        "oom",
        &["tail", "/dev/zero"],
        &[("memory", json!({ "limit": 16_777_216, "swap": 16_777_216 }))],
    );
    assert_eq!(b.run().status, 137);
    let topics = events.topics("oom", 5);
    assert!(topics.contains(&"oom".to_owned()), "{topics:?}");
    systemctl(&["stop", &slice]);
}

fn pod(d: &mut Daemon) {
    d.import("pause");
    d.import("busybox");
    let client = Client::connect(d);
    let slice = slice(d);
    let mut config = cri::pod_config(d, "pod");
    config.linux.as_mut().unwrap().cgroup_parent = format!("/{slice}");
    let pod = client.run_pod(&config, "cofferdam").unwrap();
    let container = cri::container_config("box", BUSYBOX, &["sleep", "1000"]);
    let container = client.create(&pod, &container, &config).unwrap();
    client.start(&container).unwrap();
    for id in [&pod, &container] {
        assert_eq!(
            show(
                &format!("cri-containerd-{id}.scope"),
                &["ActiveState", "Slice"]
            ),
            ["active", slice.as_str()]
        );
    }
    client.stop(&container, 0).unwrap();
    client.remove(&container).unwrap();
    client.stop_pod(&pod).unwrap();
    client.remove_pod(&pod).unwrap();
    for id in [&pod, &container] {
        let unit = format!("cri-containerd-{id}.scope");
        assert!(!is_loaded(&unit), "systemd still has {unit}");
    }
    systemctl(&["stop", &slice]);
}

fn command_line() {
    let mut p = Place::new(&["sleep", "1000"]);
    let bundle = p.dir.join("bundle").display().to_string();
    let unit = format!("cofferdam-{}.scope", p.id);
    let create = |p: &Place| {
        let args = [
            "--systemd-cgroup",
            "run",
            "--detach",
            "--bundle",
            &bundle,
            &p.id,
        ];
        let mut command = p.command(&args);
        command.stdout(Stdio::null());
        command
    };
    let refused = Output::of(&mut create(&p));
    assert!(refused.stderr.contains("slice:prefix:name"), "{refused:?}");
    p.spec["linux"]
        .as_object_mut()
        .unwrap()
        .remove("cgroupsPath");
    // The container keeps its streams.
    assert!(create(&p).stderr(Stdio::null()).status().unwrap().success());
    assert_eq!(
        show(&unit, &["ActiveState", "Slice"]),
        ["active", "system.slice"]
    );
    p.call(&["update", "--pids-limit", "55", &p.id]).ok();
    assert_eq!(show(&unit, &["TasksMax"]), ["55"]);
    p.delete();
    assert!(!is_loaded(&unit));
}

/// An ordinary user's container in a scope of their own systemd. The command is called from a group that is not theirs.
fn a_users_own() {
    let service = format!("user@{USER}.service");
    systemctl(&["start", &service]);
    let bus = format!("/run/user/{USER}/bus");
    wait_until("the user's bus", Duration::from_secs(30), || {
        Path::new(&bus).exists()
    });
    let mut s = Subject::new(Front::Rootless);
    s.environment.push((
        "DBUS_SESSION_BUS_ADDRESS".into(),
        format!("unix:path={bus}"),
    ));
    let linux = s.spec["linux"].as_object_mut().unwrap();
    linux.remove("cgroupsPath");
    s.set("/linux/resources/memory", json!({ "limit": 67_108_864 }));
    s.set("/linux/resources/pids", json!({ "limit": 77 }));
    s.set("/process/args", json!(["sleep", "1000"]));
    s.write_spec();
    let err = s.dir.join("create.err");
    let mut create = s.command(&["--systemd-cgroup", "create", "--bundle", s.bundle(), &s.id]);
    create
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&err).unwrap());
    let status = create.status().unwrap();
    assert!(
        status.success(),
        "{}",
        std::fs::read_to_string(err).unwrap()
    );
    s.start().ok();
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", s.pid())).unwrap();
    let group = format!(
        "/user.slice/user-{USER}.slice/{service}/user.slice/cofferdam-{}.scope",
        s.id
    );
    assert_eq!(own.trim(), format!("0::{group}"));
    let dir = format!("/sys/fs/cgroup{group}");
    let value = |file: &str| {
        let text = std::fs::read_to_string(format!("{dir}/{file}")).unwrap();
        text.trim().to_owned()
    };
    assert_eq!([value("memory.max"), value("pids.max")], ["67108864", "77"]);
    let groups = "cat /proc/1/cgroup /proc/self/cgroup | sort -u | wc -l";
    assert_eq!(s.exec_script(groups).stdout.trim(), "1");
    s.call(&["update", "--pids-limit", "55", &s.id]).ok();
    assert_eq!(value("pids.max"), "55");
    s.pause(true).ok();
    assert_eq!(s.status(), "paused");
    s.pause(false).ok();
    s.delete().ok();
    assert!(!Path::new(&dir).exists());
    systemctl(&["stop", &service]);
}

fn unreachable(d: &mut Daemon) {
    let (b, _, _) = placed(d, "none", &["true"], &[]);
    let out = b.run();
    assert_ne!(out.status, 0);
    for part in [
        "linux.cgroupsPath",
        "systemd cannot be reached",
        "cgroupfs driver",
    ] {
        assert!(out.stderr.contains(part), "{}", out.stderr);
    }
}
