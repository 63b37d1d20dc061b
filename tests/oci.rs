//! The OCI runtime command line: its operations, and the spec's fields one by one. No daemon is involved. The fields that
//! containerd sends as well are in `process`, `resources` and `pod`; docs/conformance.md has the whole list.

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Case;
use crate::support::place::{Place, program};
use crate::support::{Output, is_alive, kill, test_directory, wait_until};

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    macro_rules! plain {
        ($($function:ident),* $(,)?) => {
            vec![$(Case::plain(concat!("oci::", stringify!($function)), $function)),*]
        };
    }
    plain![
        operations,
        states_and_their_errors,
        run_and_its_status,
        kill_by_name_and_number,
        exec_with_flags_and_files,
        pause_resume_update_events,
        pid_file_and_console_socket,
        preserved_descriptors,
        hooks_in_order,
        poststop_after_a_crash,
        user_namespace,
        user_namespace_by_path,
        time_namespace,
        cgroup_namespace,
        mount_namespace_of_the_node,
        without_pivot,
        copy_up,
        net_devices,
        io_priority,
        personality,
        memory_policy,
        domainname,
        console_size,
        capabilities_that_nobody_has,
        wrong_specs_name_the_path,
        additional_groups_and_umask,
        seccomp_notification,
        seccomp_operators_and_actions,
        bad_ids_and_bundles,
        log_file,
    ]
    .into_iter()
    .chain([
        Case::plain("oci::podman", podman).unless(missing_podman()),
        Case::plain("oci::cpu_affinity_of_exec", cpu_affinity_of_exec).unless(one_processor()),
        Case::plain("oci::id_mapped_mounts", id_mapped_mounts).unless(before(5, 12)),
        Case::plain("oci::recursive_read_only", recursive_read_only).unless(before(5, 12)),
        Case::plain("oci::apparmor", apparmor).unless(missing_apparmor()),
    ])
    .collect()
}

/// Whether this kernel is older.
pub fn before(major: u32, minor: u32) -> Option<String> {
    let older = cofferdam::sys::kernel::version() < (major, minor);
    older.then(|| format!("needs Linux {major}.{minor}"))
}

fn one_processor() -> Option<String> {
    let more = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
    (!more).then(|| "needs two processors".into())
}

fn missing_podman() -> Option<String> {
    let here = Command::new("podman").arg("--version").output().is_ok();
    (!here).then(|| "podman is not installed".into())
}

fn operations() {
    let mut p = Place::new(&["sh", "-c", "echo hello; sleep 1000"]);
    p.set("/annotations", json!({ "a.b": "c" }));
    let bundle = p.dir.join("bundle");
    let out = p.dir.join("out");
    let created = p
        .command(&["create", "--bundle", bundle.to_str().unwrap(), &p.id])
        .stdout(fs::File::create(&out).unwrap())
        .status()
        .unwrap();
    assert!(created.success());
    let state = p.state();
    assert_eq!(state["status"], "created");
    assert_eq!(
        (state["id"].as_str(), state["bundle"].as_str()),
        (Some(p.id.as_str()), bundle.to_str())
    );
    assert_eq!(state["annotations"], json!({ "a.b": "c" }));
    let pid = state["pid"].as_i64().unwrap() as i32;
    assert!(is_alive(pid));
    assert_eq!(
        fs::read_to_string(&out).unwrap(),
        "",
        "the program does not run yet"
    );
    // Later changes of config.json have no effect, OCI runtime.md "Start".
    p.set("/process/args", json!(["false"]));
    p.call(&["start", &p.id]).ok();
    assert_eq!(p.status(), "running");
    wait_until("its output", Duration::from_secs(5), || {
        fs::read_to_string(&out).unwrap() == "hello\n"
    });
    let list: Value =
        serde_json::from_str(&p.call(&["list", "--format", "json"]).ok().stdout).unwrap();
    assert_eq!(
        (list.as_array().unwrap().len(), list[0]["pid"].as_i64()),
        (1, Some(i64::from(pid)))
    );
    assert!(p.call(&["ps", &p.id]).ok().stdout.contains("sleep 1000"));
    p.call(&["kill", &p.id, "KILL"]).ok();
    wait_until("it stops", Duration::from_secs(5), || {
        p.status() == "stopped"
    });
    p.call(&["delete", &p.id]).ok();
    assert_eq!(p.call(&["list", "--quiet"]).ok().stdout, "");
}

#[track_caller]
fn refused(out: &Output, text: &str) {
    assert!(
        out.status == 1 && out.stderr.contains(text),
        "{text:?} is not in {out:?}"
    );
}

fn states_and_their_errors() {
    let p = Place::new(&["sleep", "1000"]);
    let bundle = p.dir.join("bundle").display().to_string();
    for command in ["state", "start", "kill", "delete", "pause", "resume", "ps"] {
        refused(&p.call(&[command, &p.id]), "does not exist");
    }
    p.call(&["delete", "--force", &p.id]).ok();
    p.command(&["create", "--bundle", &bundle, &p.id])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    refused(
        &p.call(&["create", "--bundle", &bundle, &p.id]),
        "container with id exists",
    );
    refused(&p.call(&["delete", &p.id]), "that is not stopped: created");
    p.call(&["start", &p.id]).ok();
    refused(
        &p.call(&["start", &p.id]),
        "cannot start an already running container",
    );
    refused(&p.call(&["delete", &p.id]), "that is not stopped: running");
    assert_eq!(p.status(), "running", "a refused deletion changes nothing");
    refused(
        &p.call(&["resume", &p.id]),
        "cannot resume a running container",
    );
    p.call(&["kill", &p.id, "9"]).ok();
    wait_until("it stops", Duration::from_secs(5), || {
        p.status() == "stopped"
    });
    assert_eq!(p.state()["pid"], 0);
    refused(&p.call(&["kill", &p.id]), "container not running");
    refused(
        &p.call(&["start", &p.id]),
        "cannot start a container that has stopped",
    );
    refused(
        &p.call(&["exec", &p.id, "true"]),
        "cannot exec in a stopped container",
    );
}

fn run_and_its_status() {
    for (script, status) in [
        ("exit 0", 0),
        ("exit 42", 42),
        ("sh -c 'kill -9 $$'; exit $?", 137),
    ] {
        assert_eq!(
            Place::new(&["sh", "-c", script]).run().status,
            status,
            "{script}"
        );
    }
    let p = Place::new(&["nosuch"]);
    refused(
        &p.run(),
        "exec: \"nosuch\": executable file not found in $PATH",
    );
    refused(&p.call(&["state", &p.id]), "does not exist");
    // Signals to the command reach the container.
    let p = Place::new(&[
        "sh",
        "-c",
        "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done",
    ]);
    let bundle = p.dir.join("bundle");
    let mut child = p
        .command(&["run", "--bundle", bundle.to_str().unwrap(), &p.id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 6])
        .unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id() as i32),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

fn kill_by_name_and_number() {
    for signal in ["TERM", "SIGUSR1", "12"] {
        let p = Place::new(&[
            "sh",
            "-c",
            "trap 'exit 3' TERM USR1 USR2; touch /ready; while :; do sleep 0.05; done",
        ]);
        p.start();
        wait_until("the trap is set", Duration::from_secs(5), || {
            p.rootfs().join("ready").exists()
        });
        p.call(&["kill", &p.id, signal]).ok();
        wait_until("it stops", Duration::from_secs(5), || {
            p.status() == "stopped"
        });
    }
    let p = Place::new(&["sleep", "1000"]);
    p.start();
    refused(
        &p.call(&["kill", &p.id, "NOSUCH"]),
        "unknown signal \"NOSUCH\"",
    );
    p.call(&["kill", "--all", &p.id, "KILL"]).ok();
    wait_until("it stops", Duration::from_secs(5), || {
        p.status() == "stopped"
    });
}

fn exec_with_flags_and_files() {
    let p = Place::new(&["sleep", "1000"]);
    p.start();
    assert_eq!(p.exec("echo $0; exit 5").status, 5);
    let out = p.call(&[
        "exec",
        "--user",
        "1000:1000",
        "--cwd",
        "/tmp",
        "--env",
        "A=b",
        "--additional-gids",
        "2000",
        &p.id,
        "sh",
        "-c",
        "id; pwd; echo $A",
    ]);
    assert_eq!(
        out.ok().stdout,
        "uid=1000(user) gid=1000(user) groups=2000(extra)\n/tmp\nb\n"
    );
    let file = p.dir.join("process.json");
    fs::write(&file, json!({ "args": ["sh", "-c", "echo $B"], "cwd": "/", "env": ["PATH=/bin", "B=c"], "user": { "uid": 0, "gid": 0 } }).to_string()).unwrap();
    assert_eq!(
        p.call(&["exec", "--process", file.to_str().unwrap(), &p.id])
            .ok()
            .stdout,
        "c\n"
    );
    let pid_file = p.dir.join("pid");
    let status = p
        .command(&[
            "exec",
            "--detach",
            "--pid-file",
            pid_file.to_str().unwrap(),
            &p.id,
            "sleep",
            "2000",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    // The kernel lets the shim know of the exec before it has put the arguments in place.
    wait_until("the new program", Duration::from_secs(5), || {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains("2000"))
    });
    refused(
        &p.call(&["exec", &p.id, "nosuch"]),
        "executable file not found in $PATH",
    );
    refused(
        &p.call(&["exec", "--user", "root", &p.id, "true"]),
        "expected UID[:GID]",
    );
}

fn pause_resume_update_events() {
    let p = Place::new(&["sleep", "1000"]);
    p.start();
    p.call(&["pause", &p.id]).ok();
    assert_eq!(p.status(), "paused");
    refused(&p.exec("true"), "cannot exec in a paused container");
    p.call(&["resume", &p.id]).ok();
    assert_eq!(p.status(), "running");
    p.call(&[
        "update",
        "--pids-limit",
        "33",
        "--memory",
        "67108864",
        &p.id,
    ])
    .ok();
    let events: Value =
        serde_json::from_str(&p.call(&["events", "--stats", &p.id]).ok().stdout).unwrap();
    assert_eq!(
        (
            events["type"].as_str(),
            events["data"]["pids"]["limit"].as_u64()
        ),
        (Some("stats"), Some(33))
    );
    assert_eq!(events["data"]["memory"]["usage"]["limit"], 67_108_864);
    let file = p.dir.join("resources.json");
    fs::write(&file, json!({ "pids": { "limit": 44 } }).to_string()).unwrap();
    p.call(&["update", "--resources", file.to_str().unwrap(), &p.id])
        .ok();
    let events: Value =
        serde_json::from_str(&p.call(&["events", "--stats", &p.id]).ok().stdout).unwrap();
    assert_eq!(events["data"]["pids"]["limit"], 44);
    refused(
        &p.call(&["update", "--cpuset-cpus", "900", &p.id]),
        "linux.resources.cpu.cpus: writing \"900\"",
    );
}

fn pid_file_and_console_socket() {
    let mut p = Place::new(&["sh", "-c", "tty; read line; echo got $line"]);
    p.set("/process/terminal", json!(true));
    let bundle = p.dir.join("bundle").display().to_string();
    refused(
        &p.call(&["create", "--bundle", &bundle, &p.id]),
        "--console-socket is needed",
    );
    let path = p.dir.join("console");
    let listener = UnixListener::bind(&path).unwrap();
    let pid_file = p.dir.join("pid");
    let (socket, pids) = (path.to_str().unwrap(), pid_file.to_str().unwrap());
    p.call(&[
        "create",
        "--bundle",
        &bundle,
        "--console-socket",
        socket,
        "--pid-file",
        pids,
        &p.id,
    ])
    .ok();
    assert_eq!(
        fs::read_to_string(&pid_file).unwrap(),
        p.state()["pid"].to_string()
    );
    let (stream, _) = listener.accept().unwrap();
    let mut master = receive_descriptor(&stream);
    p.call(&["start", &p.id]).ok();
    std::io::Write::write_all(&mut master, b"typed\n").unwrap();
    let mut all = Vec::new();
    master.read_to_end(&mut all).ok(); // EIO at the end
    let text = String::from_utf8_lossy(&all);
    assert!(
        text.contains("/dev/pts/0") && text.contains("got typed"),
        "{text}"
    );
}

fn receive_descriptor(stream: &std::os::unix::net::UnixStream) -> fs::File {
    receive(stream).1
}

/// One message, and the descriptor that comes with it.
fn receive(stream: &std::os::unix::net::UnixStream) -> (Vec<u8>, fs::File) {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut data = vec![0; 1 << 16];
    let mut space = nix::cmsg_space!(std::os::fd::RawFd);
    let mut iov = [std::io::IoSliceMut::new(&mut data)];
    let message = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut iov,
        Some(&mut space),
        MsgFlags::empty(),
    )
    .unwrap();
    let (length, fds) = (
        message.bytes,
        message.cmsgs().unwrap().find_map(|c| match c {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        }),
    );
    #[allow(unsafe_code)]
    // SAFETY: the descriptor was just received, and nobody else owns it.
    let file = unsafe { fs::File::from_raw_fd(fds.unwrap()[0]) };
    data.truncate(length);
    (data, file)
}

fn preserved_descriptors() {
    // No pipe: the shell might have its ends open still.
    let p = Place::new(&["sh", "-c", "cat <&3; ls /proc/1/fd; true"]);
    let bundle = p.dir.join("bundle").display().to_string();
    fs::write(p.dir.join("data"), "passed on\n").unwrap();
    let script = format!(
        "exec 3< {} 4< /dev/null; exec {} --root {} run --preserve-fds 1 --bundle {bundle} {}",
        p.dir.join("data").display(),
        program().display(),
        p.dir.join("state").display(),
        p.id
    );
    p.command(&["list"]); // writes config.json
    let out = Output::of(Command::new("bash").args(["-c", &script])).ok();
    assert_eq!(out.stdout, "passed on\n0\n1\n2\n3\n");
}

fn hooks_in_order() {
    let mut p = Place::new(&["sh", "-c", "cat /order"]);
    let log = p.dir.join("log");
    let host = |kind: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("cat > /dev/null; echo {kind} >> {}", log.display())] }]);
    let inside = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "echo startContainer > /order"], "env": ["PATH=/bin"] }]);
    p.set("/hooks", json!({
        "prestart": host("prestart"), "createRuntime": host("createRuntime"), "createContainer": host("createContainer"),
        "startContainer": inside, "poststart": host("poststart"), "poststop": host("poststop")
    }));
    assert_eq!(p.run().ok().stdout, "startContainer\n");
    assert_eq!(
        fs::read_to_string(&log).unwrap(),
        "prestart\ncreateRuntime\ncreateContainer\npoststart\npoststop\n"
    );
    // One that takes too long ends the creation.
    let mut p = Place::new(&["true"]);
    p.set("/hooks", json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1 }] }));
    refused(
        &p.run(),
        "createRuntime hook /bin/sleep: did not finish within 1 s",
    );
}

fn poststop_after_a_crash() {
    let mut p = Place::new(&["sleep", "1000"]);
    let log = p.dir.join("log");
    p.set("/hooks", json!({ "poststop": [{ "path": "/bin/sh", "args": ["sh", "-c", format!("cat > {}", log.display())] }] }));
    p.start();
    kill(p.state()["pid"].as_i64().unwrap() as i32);
    wait_until("it stops", Duration::from_secs(5), || {
        p.status() == "stopped"
    });
    p.call(&["delete", &p.id]).ok();
    let state: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(state["status"], "stopped");
}

fn user_namespace() {
    let script = "id -u; cat /proc/self/uid_map; touch /new; echo x > /dev/null && echo null; cat /proc/sys/net/ipv4/ip_default_ttl; hostname; ls -n /dev/pts/ptmx | cut -c1-10";
    let mut p = Place::new(&["sh", "-c", script]);
    p.mapped(200_000)
        .set("/hostname", json!("inside"))
        .set("/linux/sysctl", json!({ "net.ipv4.ip_default_ttl": "99" }));
    let out = p.run().ok().stdout;
    assert_eq!(
        out,
        "0\n         0     200000      65536\nnull\n99\ninside\ncrw-rw-rw-\n"
    );
    let owner = fs::metadata(p.rootfs().join("new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 200_000);
    // An exec is in it, too, and has no more rights.
    let mut p = Place::new(&["sleep", "1000"]);
    p.mapped(200_000);
    p.start();
    let out = p.exec("id -u; cat /proc/self/uid_map; grep CapEff /proc/self/status; mkdir /m; mount -t tmpfs t /m 2>/dev/null || echo denied").ok().stdout;
    let init = fs::read_to_string(format!("/proc/{}/status", p.state()["pid"])).unwrap();
    let caps = init.lines().find(|l| l.starts_with("CapEff")).unwrap();
    assert_eq!(
        out,
        format!("0\n         0     200000      65536\n{caps}\ndenied\n")
    );
    // Wrong maps are named.
    let mut p = Place::new(&["true"]);
    p.mapped(200_000).set(
        "/linux/uidMappings",
        json!([{ "containerID": 0, "hostID": 4_294_967_295u32, "size": 2 }]),
    );
    refused(
        &p.run(),
        "linux.uidMappings[0]: containerID 0, hostID 4294967295, size 2: not a range of ids",
    );
    p.set("/linux/uidMappings", json!([]));
    refused(&p.run(), "linux.uidMappings: is empty");
}

fn user_namespace_by_path() {
    let mut first = Place::new(&["sleep", "1000"]);
    first.mapped(300_000);
    first.start();
    let pid = first.state()["pid"].clone();
    let mut second = Place::new(&[
        "sh",
        "-c",
        "readlink /proc/self/ns/user; readlink /proc/self/ns/net; id -u",
    ]);
    second.mapped(300_000);
    let namespaces: Vec<Value> = ["user", "net", "ipc", "uts"]
        .iter()
        .map(|n| json!({ "type": if *n == "net" { "network" } else { n }, "path": format!("/proc/{pid}/ns/{n}") }))
        .chain([json!({ "type": "mount" }), json!({ "type": "pid" })])
        .collect();
    second.set("/linux/namespaces", json!(namespaces));
    let link = |n: &str| {
        fs::read_link(format!("/proc/{pid}/ns/{n}"))
            .unwrap()
            .display()
            .to_string()
    };
    assert_eq!(
        second.run().ok().stdout,
        format!("{}\n{}\n0\n", link("user"), link("net"))
    );
}

fn id_mapped_mounts() {
    let mut p = Place::new(&[
        "sh",
        "-c",
        "stat -c %u /volume/file; touch /volume/new; stat -c %u /own/file",
    ]);
    let volume = p.on_disk("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("file"), "").unwrap();
    p.mapped(400_000);
    p.mount(json!({ "destination": "/volume", "type": "bind", "source": volume, "options": ["rbind", "idmap"] }));
    let own = json!([{ "containerID": 0, "hostID": 400_005, "size": 10 }]);
    p.mount(json!({ "destination": "/own", "type": "bind", "source": volume, "options": ["bind", "ro"], "uidMappings": own, "gidMappings": own }));
    assert_eq!(p.run().ok().stdout, "0\n5\n");
    // On the node the files stay root's.
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&fs::metadata(volume.join("new")).unwrap()),
        0
    );
    // Without a user namespace, by maps of its own.
    let mut p = Place::new(&["stat", "-c", "%u", "/own/file"]);
    let map = json!([{ "containerID": 0, "hostID": 77, "size": 1 }]);
    let volume = p.on_disk("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("file"), "").unwrap();
    p.mount(json!({ "destination": "/own", "type": "bind", "source": volume, "options": ["bind"], "uidMappings": map, "gidMappings": map }));
    assert_eq!(p.run().ok().stdout, "77\n");
    let mut p = Place::new(&["true"]);
    p.mount(json!({ "destination": "/own", "type": "bind", "source": "/tmp", "options": ["bind", "idmap"] }));
    refused(
        &p.run(),
        "mounts[6]: to map ids, it needs uidMappings and gidMappings, or a user namespace",
    );
}

fn time_namespace() {
    let mut p = Place::new(&["sh", "-c", "cut -d. -f1 /proc/uptime; sleep 1000"]);
    p.namespace(json!({ "type": "time" })).set(
        "/linux/timeOffsets",
        json!({ "boottime": { "secs": 5_000_000 } }),
    );
    p.start();
    let uptime = |text: &str| {
        text.split('.')
            .next()
            .unwrap()
            .trim()
            .parse::<u64>()
            .unwrap()
    };
    let node = uptime(&fs::read_to_string("/proc/uptime").unwrap());
    let inside = uptime(&p.exec("cat /proc/uptime").ok().stdout);
    assert!(
        (5_000_000..5_000_100).contains(&(inside - node)),
        "{inside} {node}"
    );
    let mut p = Place::new(&["true"]);
    p.namespace(json!({ "type": "time" }))
        .set("/linux/timeOffsets", json!({ "realtime": { "secs": 1 } }));
    refused(
        &p.run(),
        "linux.timeOffsets[\"realtime\"]: is not a clock that can be offset",
    );
}

fn cgroup_namespace() {
    let mut p = Place::new(&["cat", "/proc/self/cgroup"]);
    assert!(p.run().ok().stdout.contains("/container"));
    p.namespace(json!({ "type": "cgroup" }));
    let out = p.run().ok().stdout;
    assert!(
        out.lines().all(|l| l.ends_with(":/") || !l.contains(&p.id)),
        "{out}"
    );
}

fn mount_namespace_of_the_node() {
    let mut p = Place::new(&[
        "sh",
        "-c",
        "readlink /proc/self/ns/mnt; ls / | grep -c rootfs-marker",
    ]);
    fs::write(p.rootfs().join("rootfs-marker"), "").unwrap();
    p.spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|n| n["type"] != "mount");
    let node = fs::read_link("/proc/self/ns/mnt").unwrap();
    assert_eq!(p.run().ok().stdout, format!("{}\n1\n", node.display()));
}

fn without_pivot() {
    let p = Place::new(&[
        "sh",
        "-c",
        "ls / | grep -c rootfs-marker; ls /proc/1/root | wc -l",
    ]);
    fs::write(p.rootfs().join("rootfs-marker"), "").unwrap();
    let bundle = p.dir.join("bundle").display().to_string();
    assert!(
        p.call(&["run", "--no-pivot", "--bundle", &bundle, &p.id])
            .ok()
            .stdout
            .starts_with("1\n")
    );
}

fn recursive_read_only() {
    let mut p = Place::new(&[
        "sh",
        "-c",
        "touch /v/sub/x 2>&1; touch /w/sub/x && echo written",
    ]);
    let volume = p.dir.join("volume");
    fs::create_dir_all(volume.join("sub")).unwrap();
    nix::mount::mount(
        Some("tmpfs"),
        &volume.join("sub"),
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    p.mount(json!({ "destination": "/v", "type": "bind", "source": volume, "options": ["rbind", "rro"] }));
    p.mount(json!({ "destination": "/w", "type": "bind", "source": volume, "options": ["rbind", "ro"] }));
    let out = p.run();
    nix::mount::umount(&volume.join("sub")).unwrap();
    assert_eq!(
        out.stdout,
        "touch: /v/sub/x: Read-only file system\nwritten\n"
    );
}

fn copy_up() {
    let script = "cat /data/file /data/sub/deep; readlink /data/link; stat -c '%a %u' /data /data/sub /data/file; \
                  test -p /data/fifo && echo fifo; echo new > /data/new && ls /data | wc -l; touch /ro/x; cat /ro/file";
    let mut p = Place::new(&["sh", "-c", script]);
    for dir in ["data", "ro"] {
        let dir = p.rootfs().join(dir);
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("file"), "first\n").unwrap();
        fs::write(dir.join("sub/deep"), "second\n").unwrap();
        std::os::unix::fs::symlink("/else/where", dir.join("link")).unwrap();
        nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        std::os::unix::fs::chown(dir.join("sub"), Some(77), Some(77)).unwrap();
        fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o4640)).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o1751)).unwrap();
    }
    p.mount(json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "tmpcopyup"] }));
    p.mount(json!({ "destination": "/ro", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "tmpcopyup", "mode=700"] }));
    let out = p.run();
    assert_eq!(
        out.stdout, "first\nsecond\n/else/where\n1751 0\n755 77\n4640 0\nfifo\n5\nfirst\n",
        "{out:?}"
    );
    assert!(
        out.stderr.contains("/ro/x: Read-only file system"),
        "{out:?}"
    );
    assert!(
        !p.rootfs().join("data/new").exists(),
        "the image is untouched"
    );
    let last = p.spec["mounts"].as_array().unwrap().len() - 1;
    p.set(&format!("/mounts/{last}/type"), json!("ramfs"));
    assert!(p.run().stderr.contains("\"tmpcopyup\" is for a tmpfs only"));
}

fn net_devices() {
    let ip = |args: &str| Output::of(Command::new("ip").args(args.split(' ')));
    let (ours, theirs) = (
        format!("cda{}", std::process::id()),
        format!("cdb{}", std::process::id()),
    );
    ip(&format!(
        "link add {ours} type veth peer name {theirs} address 02:00:00:00:00:77 mtu 1400"
    ))
    .ok();
    ip(&format!("addr add 10.99.7.2/24 dev {theirs}")).ok();
    ip(&format!("addr add fd00:99::2/64 dev {theirs} nodad")).ok();
    let mut p = Place::new(&["sh", "-c", "ip addr show dev eth7; ip link show dev lo"]);
    p.set(
        "/linux/netDevices",
        json!({ theirs.as_str(): { "name": "eth7" } }),
    );
    let out = p.run().ok().stdout;
    for part in [
        "mtu 1400",
        "02:00:00:00:00:77",
        "inet 10.99.7.2/24",
        "inet6 fd00:99::2/64",
        ",UP",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let gone = |name: &str| !Path::new("/sys/class/net").join(name).exists();
    crate::support::wait_until("the pair is gone", Duration::from_secs(20), || gone(&ours));
    // A name that is taken, and one that cannot be: the first device comes back with its address.
    ip(&format!("link add {ours} type veth peer name {theirs}")).ok();
    ip(&format!("addr add 10.99.7.2/24 dev {ours}")).ok();
    p.set(
        "/linux/netDevices",
        json!({ ours.as_str(): { "name": "eth7" }, theirs.as_str(): { "name": "lo" } }),
    );
    let out = p.run();
    assert!(
        out.stderr
            .contains("there is a device \"lo\" in the container's network namespace already"),
        "{out:?}"
    );
    assert!(
        ip(&format!("addr show dev {ours}"))
            .ok()
            .stdout
            .contains("10.99.7.2/24")
    );
    p.set(
        "/linux/netDevices",
        json!({ ours.as_str(): { "name": "a/b" } }),
    );
    assert!(p.run().stderr.contains("\"a/b\" is not a device's name"));
    p.set("/linux/netDevices", json!({ ours.as_str(): {} }));
    let namespaces = p.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|n| n["type"] != "network");
    assert!(p.run().stderr.contains("needs a network namespace"));
    ip(&format!("link del {ours}")).ok();
}

fn io_priority() {
    let mut p = Place::new(&["ionice"]);
    p.set(
        "/process/ioPriority",
        json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 }),
    );
    assert_eq!(p.run().ok().stdout, "best-effort: prio 6\n");
    p.set(
        "/process/ioPriority",
        json!({ "class": "IOPRIO_CLASS_BE", "priority": 9 }),
    );
    refused(
        &p.run(),
        "process.ioPriority.priority: 9 is not between 0 and 7",
    );
    let mut p = Place::new(&["sh", "-c", "cut -d' ' -f19,41 /proc/self/stat"]);
    p.set(
        "/process/scheduler",
        json!({ "policy": "SCHED_BATCH", "nice": 7 }),
    );
    assert_eq!(p.run().ok().stdout, "7 3\n", "nice, and SCHED_BATCH");
}

fn cpu_affinity_of_exec() {
    let p = Place::new(&["sleep", "1000"]);
    p.start();
    let run = |affinity: Value| {
        let file = p.dir.join("process.json");
        let process = json!({ "args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"],
            "user": { "uid": 0, "gid": 0 }, "execCPUAffinity": affinity });
        fs::write(&file, process.to_string()).unwrap();
        p.call(&["exec", "--process", file.to_str().unwrap(), &p.id])
    };
    assert_eq!(
        run(json!({ "initial": "0-1", "final": "1" }))
            .ok()
            .stdout
            .trim(),
        "Cpus_allowed_list:\t1"
    );
    assert_ne!(run(json!({ "final": "x" })).status, 0);
}

fn personality() {
    let mut p = Place::new(&["uname", "-m"]);
    p.set("/linux/personality", json!({ "domain": "LINUX32" }));
    assert_eq!(p.run().ok().stdout, "i686\n");
}

fn memory_policy() {
    let mut p = Place::new(&["sh", "-c", "head -n 1 /proc/self/numa_maps | cut -d' ' -f2"]);
    p.set(
        "/linux/memoryPolicy",
        json!({ "mode": "MPOL_BIND", "nodes": "0" }),
    );
    if Path::new("/proc/self/numa_maps").exists() {
        assert_eq!(p.run().ok().stdout, "bind:0\n");
    } else {
        refused(&p.run(), "linux.memoryPolicy: set: set_mempolicy"); // a kernel without NUMA
    }
}

fn domainname() {
    let mut p = Place::new(&["cat", "/proc/sys/kernel/domainname"]);
    p.set("/domainname", json!("example.org"));
    assert_eq!(p.run().ok().stdout, "example.org\n");
}

fn console_size() {
    let mut p = Place::new(&["stty", "size"]);
    p.set("/process/terminal", json!(true)).set(
        "/process/consoleSize",
        json!({ "height": 33, "width": 111 }),
    );
    let out = p.run().ok().stdout;
    assert_eq!(out.trim(), "33 111");
}

/// OCI config.md "capabilities": what cannot be given is a warning.
fn capabilities_that_nobody_has() {
    let mut p = Place::new(&["grep", "CapBnd", "/proc/self/status"]);
    let caps = json!(["CAP_KILL", "CAP_NOSUCH"]);
    p.set(
        "/process/capabilities",
        json!({ "bounding": caps, "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] }),
    );
    let out = p.run().ok();
    assert_eq!(out.stdout, "CapBnd:\t0000000000000020\n");
    assert!(
        out.stderr
            .contains("warning: process.capabilities.bounding: \"CAP_NOSUCH\" is not known"),
        "{out:?}"
    );
}

/// Wrong specs are refused before anything is made, and the JSON path says where.
fn wrong_specs_name_the_path() {
    for (pointer, value, text) in [
        (
            "/linux/resources/memory",
            json!({ "limit": -5 }),
            "linux.resources.memory.limit: -5 is below -1",
        ),
        (
            "/linux/resources/memory",
            json!({ "limit": "x" }),
            "linux.resources.memory.limit: invalid type: string \"x\", expected i64",
        ),
        (
            "/linux/devices",
            json!([{ "path": "x", "type": "c", "major": 1, "minor": 3 }]),
            "linux.devices[0].path: \"x\" is not an absolute path",
        ),
        (
            "/ociVersion",
            json!("0.5.0"),
            "ociVersion: \"0.5.0\" is not supported",
        ),
    ] {
        let mut p = Place::new(&["true"]);
        p.set(pointer, value);
        refused(&p.run(), text);
    }
}

fn additional_groups_and_umask() {
    let mut p = Place::new(&["sh", "-c", "id -G; umask"]);
    p.set(
        "/process/user",
        json!({ "uid": 5, "gid": 6, "additionalGids": [7, 8], "umask": 0o027 }),
    );
    assert_eq!(p.run().ok().stdout, "6 7 8\n0027\n");
    p.set("/process/user/additionalGids", json!([4_294_967_295u32]));
    refused(
        &p.run(),
        "process.user.additionalGids: 4294967295 is not a group",
    );
}

fn bad_ids_and_bundles() {
    let p = Place::new(&["true"]);
    let bundle = p.dir.join("bundle").display().to_string();
    for id in ["", ".", "..", "a/b", "a b", "../x"] {
        refused(
            &p.call(&["run", "--bundle", &bundle, id]),
            "invalid container ID format",
        );
    }
    refused(
        &p.call(&["run", "--bundle", "/no/such/bundle", &p.id]),
        "find the bundle /no/such/bundle: No such file or directory",
    );
    fs::write(p.dir.join("bundle/config.json"), "{").unwrap();
    let mut c = Command::new(program());
    c.arg("--root")
        .arg(p.dir.join("state"))
        .args(["run", "--bundle", &bundle, &p.id]);
    refused(
        &Output::of(&mut c),
        "config.json is not a valid OCI spec: EOF while parsing",
    );
    assert_eq!(p.call(&["nonsense"]).status, 2);
    assert_eq!(
        fs::read_dir(p.dir.join("state")).map_or(0, Iterator::count),
        0
    );
}

fn log_file() {
    let p = Place::new(&["nosuch"]);
    let (log, bundle) = (p.dir.join("log"), p.dir.join("bundle"));
    let (log_arg, bundle) = (log.to_str().unwrap(), bundle.to_str().unwrap());
    assert_eq!(
        p.call(&[
            "--log",
            log_arg,
            "--log-format",
            "json",
            "run",
            "--bundle",
            bundle,
            &p.id
        ])
        .status,
        1
    );
    let line: Value = serde_json::from_str(fs::read_to_string(&log).unwrap().trim()).unwrap();
    assert_eq!(
        (line["level"].as_str(), line["msg"].as_str()),
        (
            Some("error"),
            Some("exec: \"nosuch\": executable file not found in $PATH")
        )
    );
}

/// podman, with this command as its runtime.
fn podman() {
    let p = Place::new(&["true"]);
    let podman = |args: &[&str]| {
        let mut c = Command::new("podman");
        c.arg("--root")
            .arg(p.dir.join("podman"))
            .arg("--runroot")
            .arg(p.dir.join("podman-run"));
        c.args([
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "file",
            "--runtime",
        ])
        .arg(program());
        Output::of(c.args(args).stdin(Stdio::null()))
    };
    let image = test_directory().join("images/busybox.tar");
    podman(&["load", "--quiet", "--input", image.to_str().unwrap()]).ok();
    // Raising hard limits needs CAP_SYS_RESOURCE, which not every root has.
    let run = [
        "run",
        "--network",
        "none",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=4096:4096",
    ];
    let with = |more: &[&'static str]| {
        run.iter()
            .copied()
            .chain(more.iter().copied())
            .collect::<Vec<&str>>()
    };
    assert_eq!(
        podman(&with(&["--rm", "localhost/busybox:1", "echo", "hello"]))
            .ok()
            .stdout,
        "hello\n"
    );
    assert_eq!(
        podman(&with(&[
            "--rm",
            "localhost/busybox:1",
            "sh",
            "-c",
            "exit 7"
        ]))
        .status,
        7
    );
    let id = podman(&with(&["--detach", "localhost/busybox:1", "sleep", "1000"]))
        .ok()
        .stdout
        .trim()
        .to_owned();
    assert_eq!(
        podman(&["exec", &id, "sh", "-c", "echo in; exit 3"]).status,
        3
    );
    assert_eq!(
        podman(&["exec", "--user", "1000", &id, "id", "-u"])
            .ok()
            .stdout,
        "1000\n"
    );
    assert!(podman(&["top", &id]).ok().stdout.contains("sleep 1000"));
    podman(&["stop", "--time", "1", &id]).ok();
    podman(&["rm", &id]).ok();
    assert_eq!(podman(&["ps", "--all", "--quiet"]).ok().stdout, "");
    podman(&["rmi", "--all", "--force"]).ok();
}

/// A listener gets the filter's descriptor and the state, and decides: OCI config-linux.md "The Container Process State".
fn seccomp_notification() {
    let mut p = Place::new(&["sh", "-c", "mkdir /denied 2>&1; echo still here"]);
    let path = p.dir.join("listener");
    let listener = UnixListener::bind(&path).unwrap();
    p.set("/linux/seccomp", json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "some words",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]
    }));
    let supervisor = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let (message, notifications) = receive(&stream);
        deny_one(&notifications);
        serde_json::from_slice::<Value>(&message).unwrap()
    });
    let out = p.run().ok();
    assert_eq!(
        out.stdout,
        "mkdir: can't create directory '/denied': Operation not supported\nstill here\n"
    );
    let message = supervisor.join().unwrap();
    assert_eq!(
        (message["fds"][0].as_str(), message["metadata"].as_str()),
        (Some("seccompFd"), Some("some words"))
    );
    assert_eq!(
        (
            message["state"]["id"].as_str(),
            message["state"]["pid"] == message["pid"]
        ),
        (Some(p.id.as_str()), true)
    );
    // Nobody to ask is an error, not a way through.
    refused(&p.run(), "linux.seccomp.listenerPath: connect to");
    p.set("/linux/seccomp/listenerPath", json!(""));
    refused(&p.run(), "linux.seccomp.listenerPath: is missing");
    p.set("/linux/seccomp/defaultAction", json!("SCMP_ACT_NOTIFY"));
    refused(
        &p.run(),
        "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY for every call",
    );
}

/// Answers one notification with EOPNOTSUPP, `seccomp_unotify(2)`.
#[allow(unsafe_code)]
fn deny_one(notifications: &fs::File) {
    const RECV: libc::c_ulong = 0xc050_2100; // SECCOMP_IOCTL_NOTIF_RECV
    const SEND: libc::c_ulong = 0xc018_2101; // SECCOMP_IOCTL_NOTIF_SEND
    // SAFETY: both structures are plain numbers, and of the kernel's own sizes.
    unsafe {
        let mut request: libc::seccomp_notif = std::mem::zeroed();
        assert_eq!(
            libc::ioctl(notifications.as_raw_fd(), RECV, &raw mut request),
            0
        );
        let mut response: libc::seccomp_notif_resp = std::mem::zeroed();
        response.id = request.id;
        response.error = -libc::EOPNOTSUPP;
        assert_eq!(
            libc::ioctl(notifications.as_raw_fd(), SEND, &raw mut response),
            0
        );
    }
}

/// Each operator and action, by calling: `kill` with signals 10, 12 and 14, which its target ignores.
fn seccomp_operators_and_actions() {
    let script = "trap '' USR1 USR2 ALRM; for s in 10 12 14; do kill -$s $$ 2>/dev/null && echo -n y || echo -n n; done";
    for (op, value_two, expected) in [
        ("SCMP_CMP_EQ", 0, "yny"),
        ("SCMP_CMP_NE", 0, "nyn"),
        ("SCMP_CMP_GT", 0, "yyn"),
        ("SCMP_CMP_GE", 0, "ynn"),
        ("SCMP_CMP_LT", 0, "nyy"),
        ("SCMP_CMP_LE", 0, "nny"),
        ("SCMP_CMP_MASKED_EQ", 8, "nyy"), // 10 & 12 is 8, 12 & 12 and 14 & 12 are 12
    ] {
        let mut p = Place::new(&["sh", "-c", script]);
        let arg = json!({ "index": 1, "value": 12, "valueTwo": value_two, "op": op });
        p.set("/linux/seccomp", json!({
            "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [arg] }]
        }));
        assert_eq!(p.run().ok().stdout, expected, "{op}");
    }
    for (action, expected) in [
        ("SCMP_ACT_ALLOW", "0"),
        ("SCMP_ACT_LOG", "0"),
        ("SCMP_ACT_ERRNO", "1"),
        ("SCMP_ACT_TRACE", "1"), // nobody traces: ENOSYS
        ("SCMP_ACT_TRAP", "159"),
        ("SCMP_ACT_KILL", "159"),
        ("SCMP_ACT_KILL_THREAD", "159"),
        ("SCMP_ACT_KILL_PROCESS", "159"),
    ] {
        let mut p = Place::new(&["sh", "-c", "mkdir /x 2>/dev/null; echo -n $?"]);
        p.set("/linux/seccomp", json!({
            "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": action }]
        }));
        assert_eq!(p.run().ok().stdout, expected, "{action}");
        // The same as an allow-list: everything but that call.
        let mut p = Place::new(&["sh", "-c", "mkdir /x 2>/dev/null; echo -n $?"]);
        p.set(
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_LOG",
                "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": action }]
            }),
        );
        assert_eq!(p.run().ok().stdout, expected, "{action} as an exception");
    }
}

fn missing_apparmor() -> Option<String> {
    let on = Path::new("/sys/kernel/security/apparmor/profiles").exists();
    let parser = Command::new("apparmor_parser")
        .arg("--version")
        .output()
        .is_ok();
    (!(on && parser)).then(|| "this kernel has no AppArmor".into())
}

/// An `AppArmor` profile confines init and exec.
fn apparmor() {
    let mut p = Place::new(&[
        "sh",
        "-c",
        "cat /proc/self/attr/current; touch /denied 2>&1; touch /allowed && sleep 1000",
    ]);
    let name = format!("cd-{}", p.id);
    let profile = p.dir.join("profile");
    let text = format!(
        "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n  file,\n  capability,\n  network,\n  signal,\n  deny /denied w,\n}}\n"
    );
    fs::write(&profile, text).unwrap();
    Output::of(
        Command::new("apparmor_parser")
            .arg("--replace")
            .arg(&profile),
    )
    .ok();
    p.set("/process/apparmorProfile", json!(name));
    let bundle = p.dir.join("bundle");
    let out = p.dir.join("out");
    let created = p
        .command(&[
            "run",
            "--detach",
            "--bundle",
            bundle.to_str().unwrap(),
            &p.id,
        ])
        .stdout(fs::File::create(&out).unwrap())
        .status()
        .unwrap();
    assert!(created.success());
    wait_until("it has tried", Duration::from_secs(5), || {
        p.rootfs().join("allowed").exists()
    });
    assert_eq!(
        fs::read_to_string(&out).unwrap(),
        format!("{name} (enforce)\ntouch: /denied: Permission denied\n")
    );
    let exec = p
        .exec("cat /proc/self/attr/current; touch /denied 2>/dev/null || echo denied")
        .ok()
        .stdout;
    assert_eq!(exec, format!("{name} (enforce)\ndenied\n"));
    p.set("/process/apparmorProfile", json!("no-such-profile"));
    p.delete();
    refused(
        &p.run(),
        "process.apparmorProfile: apply the label: write: No such file or directory (ENOENT)",
    );
    Output::of(
        Command::new("apparmor_parser")
            .arg("--remove")
            .arg(&profile),
    )
    .ok();
}
