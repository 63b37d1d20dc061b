//! containerd goes away and comes back: nothing is lost.

use std::time::Duration;

use crate::support::cri::{self, Client};
use crate::support::{BUSYBOX, Daemon, is_alive, task, wait_until};

crate::cases!(ctr: [exit_while_containerd_is_down, running_over_a_restart], cri: [output_while_containerd_is_down]);

fn exit_while_containerd_is_down(d: &mut Daemon) {
    let stop = d.dir().join("stop");
    std::fs::create_dir(&stop).unwrap();
    let mount = format!(
        "type=bind,src={},dst=/stop,options=rbind:ro",
        stop.display()
    );
    d.run_detached(
        &["--mount", &mount],
        "box",
        &[
            "sh",
            "-c",
            "while ! test -e /stop/now; do sleep 0.05; done; exit 33",
        ],
    );
    let pid = d.pid("box");
    d.stop();
    std::fs::write(stop.join("now"), "").unwrap();
    wait_until("the container ends", Duration::from_secs(5), || {
        !is_alive(pid)
    });
    std::thread::sleep(Duration::from_millis(300));
    d.run();
    assert_eq!(d.task_status("box").as_deref(), Some("STOPPED"));
    assert_eq!(task::wait(d, "box"), Ok(33));
    assert!(
        d.ctr(["tasks", "delete", "box"])
            .ok()
            .stderr
            .contains("exit code 33")
    );
    d.ctr(["containers", "delete", "box"]).ok();
}

fn running_over_a_restart(d: &mut Daemon) {
    d.run_detached(
        &[],
        "box",
        &["sh", "-c", "while :; do echo line; sleep 0.01; done"],
    );
    let pid = d.pid("box");
    for _ in 0..3 {
        d.stop();
        d.run();
        assert_eq!(d.task_status("box").as_deref(), Some("RUNNING"));
        assert_eq!(d.pid("box"), pid);
        assert_eq!(
            d.exec(&[], "box", "e", &["echo", "still"]).ok().stdout,
            "still\n"
        );
    }
    assert!(is_alive(pid), "no SIGPIPE");
    d.remove("box");
}

fn output_while_containerd_is_down(d: &mut Daemon) {
    let client = Client::connect(d);
    let config = cri::pod_config(d, "pod");
    let pod = client.run_pod(&config, "cofferdam").unwrap();
    d.remember(&pod);
    let run = |name: &str, end: &str| {
        let lines = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.01; done";
        let script = format!("{lines}; {end}; exit 7");
        let config_of = cri::container_config(name, BUSYBOX, &["sh", "-c", &script]);
        let container = client.create(&pod, &config_of, &config).unwrap();
        client.start(&container).unwrap();
        container
    };
    // One ends while containerd is down. How much of its output CRI still reads before it deletes the task is a race within
    // containerd; that it knows the exit status is not.
    let ended = run("ended", "true");
    let container = run("c", "until [ -e /tmp/go ]; do sleep 0.01; done");
    std::thread::sleep(Duration::from_millis(300));
    d.stop();
    std::thread::sleep(Duration::from_millis(4000));
    d.run();
    let client = Client::connect(d);
    let exits = |container: &str| {
        wait_until("CRI knows the exit", Duration::from_secs(10), || {
            client
                .status(container)
                .is_ok_and(|s| s.state == cri::ContainerState::ContainerExited as i32)
        });
        assert_eq!(client.status(container).unwrap().exit_code, 7);
    };
    exits(&ended);
    let touched = client.exec(&container, &["touch", "/tmp/go"], 10).unwrap();
    assert_eq!(touched.exit_code, 0);
    exits(&container);
    let expected = (0..300).fold(String::new(), |all, i| all + &format!("line {i}\n"));
    wait_until("the whole log", Duration::from_secs(10), || {
        cri::log_text(&cri::read_log(d, "pod", "c"), "stdout") == expected
    });
    client.remove(&ended).unwrap();
    client.remove(&container).unwrap();
    client.stop_pod(&pod).unwrap();
    client.remove_pod(&pod).unwrap();
}
