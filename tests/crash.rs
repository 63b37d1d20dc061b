//! The shim is killed: containerd's `delete` cleans up, siblings included.

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::cri::{self, Client};
use crate::support::{BUSYBOX, Daemon, PAUSE, is_alive, kill, leftovers, slowness, wait_until};

crate::cases!(ctr: [kill_nine, killed_at_any_moment, delete_is_idempotent], cri: [kill_nine_of_a_pod]);

fn kill_nine(d: &mut Daemon) {
    // Without streams: fifos would be the client's to remove.
    d.run_detached(
        &["--null-io"],
        "box",
        &["sh", "-c", "sleep 1000 & sleep 1000 & wait"],
    );
    let (pid, shim) = (d.pid("box"), d.shims()[0]);
    kill(shim);
    wait_until("the container is gone", Duration::from_secs(5), || {
        !is_alive(pid)
    });
    wait_until("containerd knows", Duration::from_secs(5), || {
        d.task_status("box").is_none_or(|s| s == "STOPPED")
    });
    d.remove("box");
    leftovers::assert_none(d);
    assert_eq!(
        d.run_container(&[], "box", &["echo", "again"]).ok().stdout,
        "again\n",
        "the id can be used again"
    );
}

/// From the first moment of its life to the last, whether containerd calls `delete` or not.
fn killed_at_any_moment(d: &mut Daemon) {
    // It keeps the group above. Between the making of that one and its mark nothing says whose it is, and it would stay, empty.
    d.run_detached(&["--null-io"], "keeper", &["sleep", "1000"]);
    let keeper = d.shims()[0];
    let mut killed = vec![keeper];
    for i in 0..24u64 {
        let id = format!("box{i}");
        let flags = ["--detach", "--null-io"];
        let mut run = d.run_command(&flags, &id, &["sleep", "1000"]);
        let mut run = run
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let is_running = |run: &mut Child| run.try_wait().unwrap().is_none();
        let shim = loop {
            let new = d.shims().into_iter().find(|shim| !killed.contains(shim));
            if new.is_some() || !is_running(&mut run) {
                break new;
            }
            std::thread::sleep(Duration::from_micros(300));
        };
        std::thread::sleep(Duration::from_micros(i * 500 * u64::from(slowness())));
        if let Some(shim) = shim {
            kill(shim);
            killed.push(shim);
        }
        run.wait().unwrap();
        d.remove(&id);
    }
    killed.retain(|shim| *shim != keeper);
    assert!(killed.len() > 12, "{killed:?}");
    // What is young may be somebody's who is about to listen.
    std::thread::sleep(Duration::from_secs(3));
    d.run_container(&[], "last", &["true"]).ok();
    // A pid that is somebody else's by now says nothing.
    for pid in killed.into_iter().filter(|pid| !is_alive(*pid)) {
        for kind in ["sock", "task"] {
            let left = format!("/run/cofferdam/pods/{pid}.{kind}");
            assert!(std::fs::symlink_metadata(&left).is_err(), "{left}");
        }
    }
    d.remove("keeper");
    // Between the making of a group and its mark nothing says whose it is: it stays, empty. That is rare.
    let mut empty = 0;
    for group in leftovers::groups(d) {
        let procs = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        assert_eq!(procs, "", "{}", group.display());
        empty += usize::from(
            group
                .file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("box")),
        );
        leftovers::remove_group(&group);
    }
    assert!(empty <= 2, "{empty} groups");
    leftovers::assert_none(d);
}

fn delete_is_idempotent(d: &mut Daemon) {
    d.run_detached(&["--null-io"], "box", &["sleep", "1000"]);
    let (bundle, pid) = (d.bundle("box"), d.pid("box"));
    let address = d.address();
    let delete = || {
        let mut command = std::process::Command::new(
            crate::support::shim_directory().join("containerd-shim-cofferdam-v1"),
        );
        command.args([
            "-namespace",
            &d.namespace(),
            "-address",
            address.to_str().unwrap(),
            "-id",
            "box",
            "-bundle",
            bundle.to_str().unwrap(),
            "delete",
        ]);
        crate::support::Output::of(command.current_dir(&bundle)).ok()
    };
    let first = delete();
    assert_eq!(first.stderr, "");
    assert!(!is_alive(pid));
    let second = delete();
    assert_eq!(second.stderr, "");
    wait_until("the task stops", Duration::from_secs(5), || {
        d.task_status("box").as_deref() == Some("STOPPED")
    });
    d.remove("box");
}

fn kill_nine_of_a_pod(d: &mut Daemon) {
    let client = Client::connect(d);
    let config = cri::pod_config(d, "pod");
    let pod = client.run_pod(&config, "cofferdam").unwrap();
    d.remember(&pod);
    let containers: Vec<String> = (0..3)
        .map(|i| {
            let c = client
                .create(
                    &pod,
                    &cri::container_config(&format!("c{i}"), BUSYBOX, &["sleep", "1000"]),
                    &config,
                )
                .unwrap();
            client.start(&c).unwrap();
            c
        })
        .collect();
    let shims = d.shims();
    assert_eq!(
        shims.len(),
        1,
        "all containers of {PAUSE} and the pod live in one shim"
    );
    let inside = || {
        leftovers::groups(d)
            .iter()
            .filter_map(|g| std::fs::read_to_string(g.join("cgroup.procs")).ok())
            .any(|p| !p.is_empty())
    };
    assert!(inside());
    kill(shims[0]);
    wait_until(
        "every container of the pod is gone",
        Duration::from_secs(10),
        || !inside(),
    );
    for c in &containers {
        wait_until("CRI knows", Duration::from_secs(10), || {
            client
                .status(c)
                .is_ok_and(|s| s.state == cri::ContainerState::ContainerExited as i32)
        });
        client.remove(c).unwrap();
    }
    client.stop_pod(&pod).unwrap();
    client.remove_pod(&pod).unwrap();
}
