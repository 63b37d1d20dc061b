//! Pods through CRI, as a kubelet asks for them.

use std::process::Command;
use std::time::Duration;

use crate::support::cri::{
    self, Client, ContainerState, LinuxContainerResources, NamespaceMode, PodSandboxConfig,
};
use crate::support::{BUSYBOX, Daemon, NGINX, Output, Release, wait_until};

crate::cases!(cri: [nginx_and_sidecar, shared_pid_namespace, privileged_and_host_namespaces, oom_killed, read_only_and_security_context, classes, exec_that_times_out]);

/// A pod that a test works with, removed at its end.
struct Pod<'a> {
    daemon: &'a Daemon,
    client: Client,
    config: PodSandboxConfig,
    id: String,
}

impl<'a> Pod<'a> {
    fn run(daemon: &'a Daemon, config: PodSandboxConfig, handler: &str) -> Self {
        let client = Client::connect(daemon);
        let id = client.run_pod(&config, handler).unwrap();
        daemon.remember(&id);
        Self {
            daemon,
            client,
            config,
            id,
        }
    }

    fn start(&self, container: &cri::ContainerConfig) -> String {
        let id = self
            .client
            .create(&self.id, container, &self.config)
            .unwrap();
        self.client.start(&id).unwrap();
        id
    }

    fn sleeper(&self, name: &str) -> String {
        self.start(&cri::container_config(name, BUSYBOX, &["sleep", "1000"]))
    }

    #[track_caller]
    fn exec(&self, container: &str, script: &str) -> String {
        let out = self
            .client
            .exec(container, &["sh", "-c", script], 20)
            .unwrap();
        assert_eq!(out.exit_code, 0, "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    fn remove(self) {
        self.client.stop_pod(&self.id).unwrap();
        self.client.remove_pod(&self.id).unwrap();
    }
}

fn nginx_and_sidecar(d: &mut Daemon) {
    d.import("nginx");
    let pod = Pod::run(d, cri::pod_config(d, "web"), "cofferdam");
    let nginx = pod.start(&cri::container_config("nginx", NGINX, &[]));
    let sidecar = pod.sleeper("sidecar");
    let ip = pod.client.pod_ip(&pod.id).unwrap();
    let page =
        || Output::of(Command::new("curl").args(["-s", "-m", "5", &format!("http://{ip}/")]));
    wait_until("nginx serves", Duration::from_secs(20), || {
        page().stdout.contains("Served from a pod in Cofferdam")
    });
    assert!(
        pod.exec(&sidecar, "wget -q -O - http://127.0.0.1/")
            .contains("Cofferdam"),
        "the sidecar shares the network"
    );
    assert_eq!(pod.exec(&sidecar, "hostname"), "web\n");
    let shims = d.shims();
    assert_eq!(shims.len(), 1, "one shim for the whole pod");
    wait_until("the access log", Duration::from_secs(5), || {
        cri::read_log(d, "web", "nginx").contains("GET / HTTP/1.1")
    });
    let stats = pod.client.stats(&nginx).unwrap();
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 100_000);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    pod.client
        .update(
            &nginx,
            LinuxContainerResources {
                memory_limit_in_bytes: 200 << 20,
                cpu_shares: 300,
                ..Default::default()
            },
        )
        .unwrap();
    let limit = if crate::resources::is_v2() {
        "memory.max"
    } else {
        "memory/memory.limit_in_bytes"
    };
    let seen = pod.exec(
        &sidecar,
        &format!("cat /sys/fs/cgroup/{limit} 2>/dev/null || true"),
    );
    assert_ne!(
        seen.trim(),
        (200u64 << 20).to_string(),
        "the update is nginx's alone"
    );
    pod.client.stop(&nginx, 10).unwrap();
    let status = pod.client.status(&nginx).unwrap();
    assert_eq!(
        (status.state, status.exit_code),
        (ContainerState::ContainerExited as i32, 0),
        "SIGQUIT, the image's STOPSIGNAL, ends nginx: {status:?}"
    );
    pod.client.remove(&nginx).unwrap();
    pod.remove();
    assert!(
        d.shims().is_empty() || {
            std::thread::sleep(Duration::from_secs(1));
            d.shims().is_empty()
        }
    );
}

fn shared_pid_namespace(d: &mut Daemon) {
    let mut config = cri::pod_config(d, "shared");
    let options = cri::NamespaceOption {
        pid: NamespaceMode::Pod.into(),
        ..Default::default()
    };
    config
        .linux
        .as_mut()
        .unwrap()
        .security_context
        .as_mut()
        .unwrap()
        .namespace_options = Some(options.clone());
    let pod = Pod::run(d, config, "cofferdam");
    let container = |name: &str, script: &str| {
        let mut c = cri::container_config(name, BUSYBOX, &["sh", "-c", script]);
        c.linux
            .as_mut()
            .unwrap()
            .security_context
            .as_mut()
            .unwrap()
            .namespace_options = Some(options.clone());
        c
    };
    let first = pod.start(&container(
        "first",
        "echo started; sleep 1001 & sleep 1002 & exec sleep 1003",
    ));
    let second = pod.start(&container("second", "sleep 1004"));
    wait_until("they see each other", Duration::from_secs(5), || {
        let ps = pod.exec(&second, "ps");
        ["1001", "1002", "1003", "1004"]
            .iter()
            .all(|p| ps.contains(p))
    });
    // Its init's end takes the first container's other processes with it, and nobody else's.
    pod.exec(
        &second,
        "kill $(ps | awk '/sleep 1003/ && !/awk/ { print $1 }')",
    );
    wait_until("the first one ends", Duration::from_secs(5), || {
        pod.client.status(&first).unwrap().state == ContainerState::ContainerExited as i32
    });
    assert_eq!(pod.client.status(&first).unwrap().exit_code, 143);
    let ps = pod.exec(&second, "ps");
    assert!(
        !ps.contains("1001") && !ps.contains("1002") && ps.contains("1004"),
        "{ps}"
    );
    assert_eq!(
        cri::log_text(&cri::read_log(d, "shared", "first"), "stdout"),
        "started\n"
    );
    pod.remove();
}

fn privileged_and_host_namespaces(d: &mut Daemon) {
    let options = cri::NamespaceOption {
        pid: NamespaceMode::Node.into(),
        network: NamespaceMode::Node.into(),
        ipc: NamespaceMode::Node.into(),
        ..Default::default()
    };
    let mut config = cri::pod_config(d, "host");
    let security = config
        .linux
        .as_mut()
        .unwrap()
        .security_context
        .as_mut()
        .unwrap();
    security.namespace_options = Some(options.clone());
    security.privileged = true;
    config.hostname = String::new();
    let pod = Pod::run(d, config, "cofferdam");
    let mut c = cri::container_config("c", BUSYBOX, &["sleep", "1000"]);
    let security = c.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options = Some(options);
    security.privileged = true;
    security.seccomp = None;
    let c = pod.start(&c);
    for ns in ["pid", "net", "ipc"] {
        let own = std::fs::read_link(format!("/proc/self/ns/{ns}")).unwrap();
        assert_eq!(
            pod.exec(&c, &format!("readlink /proc/self/ns/{ns}")).trim(),
            own.to_str().unwrap()
        );
    }
    let caps = pod.exec(&c, "grep CapEff /proc/self/status");
    assert!(
        u64::from_str_radix(caps.split_whitespace().last().unwrap(), 16).unwrap() & (1 << 21) != 0,
        "CAP_SYS_ADMIN: {caps}"
    );
    pod.exec(&c, "mkdir /m && mount -t tmpfs tmpfs /m && echo mounted");
    pod.remove();
}

fn oom_killed(d: &mut Daemon) {
    let pod = Pod::run(d, cri::pod_config(d, "oom"), "cofferdam");
    let mut c = cri::container_config("c", BUSYBOX, &["tail", "/dev/zero"]);
    c.linux.as_mut().unwrap().resources = Some(LinuxContainerResources {
        memory_limit_in_bytes: 16 << 20,
        memory_swap_limit_in_bytes: 16 << 20,
        ..Default::default()
    });
    let c = pod.start(&c);
    wait_until("it is killed", Duration::from_secs(20), || {
        pod.client.status(&c).unwrap().state == ContainerState::ContainerExited as i32
    });
    wait_until("CRI says why", Duration::from_secs(5), || {
        pod.client.status(&c).unwrap().reason == "OOMKilled"
    });
    assert_eq!(pod.client.status(&c).unwrap().exit_code, 137);
    pod.remove();
}

fn read_only_and_security_context(d: &mut Daemon) {
    let pod = Pod::run(d, cri::pod_config(d, "strict"), "cofferdam");
    let mut c = cri::container_config("c", BUSYBOX, &["sleep", "1000"]);
    let volume = d.dir().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    c.mounts.push(cri::Mount {
        container_path: "/volume".into(),
        host_path: volume.display().to_string(),
        ..Default::default()
    });
    let security = c.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.run_as_user = Some(k8s_cri::v1::Int64Value { value: 1000 });
    security.readonly_rootfs = true;
    security.no_new_privs = true;
    security.masked_paths = ["/proc/kcore", "/proc/keys", "/sys/firmware"]
        .map(String::from)
        .to_vec();
    security.readonly_paths = ["/proc/sys", "/proc/sysrq-trigger"]
        .map(String::from)
        .to_vec();
    security.capabilities = Some(k8s_cri::v1::Capability {
        drop_capabilities: vec!["ALL".into()],
        ..Default::default()
    });
    let c = pod.start(&c);
    assert_eq!(
        pod.exec(
            &c,
            "id -u; touch /x 2>&1 || true; touch /volume/x && echo volume"
        ),
        "1000\ntouch: /x: Read-only file system\nvolume\n"
    );
    let status = pod.exec(
        &c,
        "grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status",
    );
    assert_eq!(
        status.split_whitespace().collect::<Vec<_>>(),
        [
            "CapBnd:",
            "0000000000000000",
            "NoNewPrivs:",
            "1",
            "Seccomp:",
            "2"
        ]
    );
    assert_eq!(
        pod.exec(&c, "unshare -U true 2>&1 || true"),
        "unshare: unshare(0x10000000): Operation not permitted\n",
        "the default seccomp profile"
    );
    pod.remove();
}

fn classes(d: &mut Daemon) {
    d.import("nginx");
    for class in ["cofferdam-hardened", "cofferdam-untrusted"] {
        let pod = Pod::run(d, cri::pod_config(d, class), class);
        // An image as its makers left it, and what the profile promises of its processes.
        pod.start(&cri::container_config("nginx", NGINX, &[]));
        let c = pod.sleeper("c");
        wait_until("nginx serves", Duration::from_secs(20), || {
            pod.exec(&c, "wget -q -O - http://127.0.0.1/ || true")
                .contains("Cofferdam")
        });
        let status = pod.exec(&c, "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status");
        assert_eq!(status, "NoNewPrivs:\t1\nSeccomp:\t2\n");
        pod.remove();
        let mut config = cri::pod_config(d, "host");
        let security = config.linux.as_mut().unwrap().security_context.as_mut();
        security.unwrap().namespace_options = Some(cri::NamespaceOption {
            network: NamespaceMode::Node.into(),
            ..cri::namespaces()
        });
        let refused = Client::connect(d).run_pod(&config, class).unwrap_err();
        let name = class.trim_start_matches("cofferdam-");
        let text = format!("profile \"{name}\" refuses hostNetwork");
        assert!(refused.message().contains(&text), "{refused:?}");
    }
}

fn exec_that_times_out(d: &mut Daemon) {
    let pod = Pod::run(d, cri::pod_config(d, "slow"), "cofferdam");
    let c = pod.sleeper("c");
    let error = pod
        .client
        .exec(&c, &["sh", "-c", "sleep 1000 & sleep 1000"], 1)
        .unwrap_err();
    assert!(error.message().contains("timeout"), "{error:?}");
    assert_eq!(pod.exec(&c, "echo works"), "works\n");
    assert_eq!(pod.daemon.shims().len(), 1);
    pod.remove();
}

/// What only newer releases of containerd can ask for.
pub fn newer_cases() -> Vec<crate::Case> {
    vec![crate::Case::cri("pod::user_namespace", user_namespace).only(Release::V2)]
}

/// `hostUsers: false`, with the handler that containerd before 2.4 wants for it.
fn user_namespace(d: &mut Daemon) {
    let maps = vec![k8s_cri::v1::IdMapping {
        host_id: 10 * 65536,
        container_id: 0,
        length: 65536,
    }];
    let users = k8s_cri::v1::UserNamespace {
        mode: NamespaceMode::Pod.into(),
        uids: maps.clone(),
        gids: maps,
    };
    let options = cri::NamespaceOption {
        pid: NamespaceMode::Container.into(),
        userns_options: Some(users),
        ..Default::default()
    };
    let mut config = cri::pod_config(d, "mapped");
    config
        .linux
        .as_mut()
        .unwrap()
        .security_context
        .as_mut()
        .unwrap()
        .namespace_options = Some(options.clone());
    let pod = Pod::run(d, config, "cofferdam-userns");
    let volume = d.dir().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let mut c = cri::container_config(
        "c",
        BUSYBOX,
        &[
            "sh",
            "-c",
            "echo started > /dev/stdout; touch /root/mine; sleep 1000",
        ],
    );
    c.linux
        .as_mut()
        .unwrap()
        .security_context
        .as_mut()
        .unwrap()
        .namespace_options = Some(options);
    c.mounts.push(cri::Mount {
        container_path: "/volume".into(),
        host_path: volume.display().to_string(),
        ..Default::default()
    });
    let c = pod.start(&c);
    assert_eq!(
        pod.exec(
            &c,
            "id -u; cat /proc/self/uid_map; stat -c %u / /bin/busybox /root/mine"
        ),
        "0\n         0     655360      65536\n0\n0\n0\n"
    );
    assert_eq!(
        pod.exec(&c, "hostname; ip addr show dev eth0 | grep -c inet"),
        "mapped\n2\n"
    );
    pod.exec(
        &c,
        "echo x > /tmp/y && chown 1000 /tmp/y && wget -T 1 http://127.0.0.1:1/ 2>/dev/null || true",
    );
    assert_eq!(
        cri::log_text(&cri::read_log(d, "mapped", "c"), "stdout"),
        "started\n"
    );
    pod.remove();
}
