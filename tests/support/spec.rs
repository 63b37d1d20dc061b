//! Containers from an OCI spec of the test's own, for what `ctr` and CRI have no flags for.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::{Daemon, Output, pod_uid, test_directory};

/// A bundle: a root file system and a spec like containerd's default one.
pub struct Bundle<'a> {
    daemon: &'a Daemon,
    pub id: String,
    pub dir: PathBuf,
    /// `config.json`, to be changed before it is run.
    pub spec: Value,
}

impl<'a> Bundle<'a> {
    /// With its own copy of the busybox root.
    pub fn new(daemon: &'a Daemon, id: &str, args: &[&str]) -> Self {
        let dir = daemon.dir().join("bundles").join(id);
        fs::create_dir_all(&dir).unwrap();
        Output::of(
            Command::new("cp")
                .arg("-a")
                .arg(test_directory().join("rootfs"))
                .arg(dir.join("rootfs")),
        )
        .ok();
        let mut spec = default_spec(
            &dir.join("rootfs").display().to_string(),
            &format!("/{}/{id}", daemon.namespace()),
            args,
        );
        // The container is the whole pod.
        spec["annotations"]["io.kubernetes.cri.sandbox-id"] = json!(id);
        Self {
            daemon,
            id: id.into(),
            dir,
            spec,
        }
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Sets a field by its JSON pointer, making objects on the way.
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        set(&mut self.spec, pointer, value);
        self
    }

    fn command(&self, flags: &[&str]) -> Command {
        let config = self.dir.join("config.json");
        fs::write(&config, serde_json::to_vec_pretty(&self.spec).unwrap()).unwrap();
        self.daemon.remember(&self.id);
        let fifos = self.daemon.dir().join("fifos");
        let mut args = vec![
            "run",
            "--runtime",
            &self.daemon.runtime,
            "--fifo-dir",
            fifos.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
        ];
        let profile = self.profile();
        if let Some(file) = &profile {
            args.extend(["--runtime-config-path", file.to_str().unwrap()]);
        }
        args.extend(flags);
        args.push(&self.id);
        self.daemon.ctr_command(args)
    }

    /// A class takes no root of the node's but one that its profile lists; and a file may extend the profile whose name it has.
    fn profile(&self) -> Option<PathBuf> {
        let name = self
            .daemon
            .runtime
            .strip_prefix("io.containerd.cofferdam-")?;
        let class = name.strip_suffix(".v1")?;
        let file = self.dir.join(format!("{class}.toml"));
        let text = format!(
            "extends = {class:?}\n[pod]\nhost_paths = [{:?}]\n",
            self.dir
        );
        fs::write(&file, text).unwrap();
        Some(file)
    }

    /// Runs it to its end and removes it.
    pub fn run(&self) -> Output {
        Output::of(&mut self.command(&["--rm"]))
    }

    /// Starts it in the background.
    #[track_caller]
    pub fn run_detached(&self) {
        Output::of(&mut self.command(&["--detach"])).ok();
    }
}

/// Sets a field by its JSON pointer, making objects on the way.
pub fn set(spec: &mut Value, pointer: &str, value: Value) {
    let mut at = spec;
    for key in pointer.trim_start_matches('/').split('/') {
        let key = key.replace("~1", "/");
        at = match key.parse::<usize>() {
            Ok(index) if at.is_array() => &mut at[index],
            _ => &mut at[key],
        };
    }
    *at = value;
}

/// Capabilities that containerd gives by default.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A spec like the one that `ctr run` makes.
pub fn default_spec(rootfs: &str, cgroup: &str, args: &[&str]) -> Value {
    json!({
        "ociVersion": "1.1.0",
        "annotations": { "io.kubernetes.cri.sandbox-uid": pod_uid() },
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": rootfs },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] }
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "cgroupsPath": cgroup,
            "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "network" }],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
