//! `state`, `list`, `ps`, `events`, `spec`: what is there.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::store::{Entry, Status, Store};
use super::{Error, Format, Result, print, print_json};
use crate::show::shown;

/// OCI runtime.md "State", with what runc adds.
fn describe(entry: &Entry) -> Value {
    let s = &entry.saved;
    let status = entry.status();
    json!({
        "ociVersion": s.oci_version,
        "id": s.id,
        "pid": if status == Status::Stopped { 0 } else { s.pid },
        "status": status.name(),
        "bundle": s.bundle,
        "rootfs": s.rootfs,
        "created": s.created,
        "annotations": s.annotations,
        "owner": ""
    })
}

pub(super) fn state(store: &Store, id: &str) -> Result<()> {
    print_json(&format!("{:#}\n", describe(&store.load(id)?)));
    Ok(())
}

pub(super) fn list(store: &Store, format: Format, quiet: bool) {
    let all = store.all();
    if quiet {
        for e in &all {
            print(&format!("{}\n", e.saved.id));
        }
        return;
    }
    if format == Format::Json {
        print_json(&format!(
            "{}\n",
            Value::Array(all.iter().map(describe).collect())
        ));
        return;
    }
    print(&format!(
        "{:<24} {:>10}  {:<10} {:<28} {}\n",
        "ID", "PID", "STATUS", "CREATED", "BUNDLE"
    ));
    for e in &all {
        let (s, status) = (&e.saved, e.status());
        let pid = if status == Status::Stopped { 0 } else { s.pid };
        print(&format!(
            "{:<24} {pid:>10}  {:<10} {:<28} {}\n",
            s.id,
            status.name(),
            s.created,
            shown(&s.bundle.to_string_lossy())
        ));
    }
}

pub(super) fn ps(store: &Store, id: &str, format: Format, options: &[String]) -> Result<()> {
    let pids = store.load(id)?.cgroup()?.pids();
    if format == Format::Json {
        print_json(&format!("{}\n", json!(pids)));
        return Ok(());
    }
    let options: Vec<&str> = if options.is_empty() {
        vec!["-ef"]
    } else {
        options.iter().map(String::as_str).collect()
    };
    let out = Command::new("ps")
        .args(&options)
        .output()
        .map_err(Error::io("run ps"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|c| c == "PID");
    let column = column
        .ok_or_else(|| Error::Other(format!("ps {} shows no PID column", options.join(" "))))?;
    print(&format!("{header}\n"));
    for line in lines {
        if line
            .split_whitespace()
            .nth(column)
            .and_then(|p| p.parse().ok())
            .is_some_and(|p: i32| pids.contains(&p))
        {
            print(&format!("{line}\n"));
        }
    }
    Ok(())
}

pub(super) fn events(store: &Store, id: &str, once: bool, interval: u64) -> Result<()> {
    let entry = store.load(id)?;
    let cgroup = entry.cgroup()?;
    let mut kills = cgroup.oom_kills();
    loop {
        if entry.status() == Status::Stopped {
            return if once {
                Err(Error::Other("container not running".into()))
            } else {
                Ok(())
            };
        }
        print_json(&format!(
            "{}\n",
            json!({ "type": "stats", "id": id, "data": cgroup.counters().to_json() })
        ));
        if once {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(interval));
        let now = cgroup.oom_kills();
        if now > kills {
            print_json(&format!("{}\n", json!({ "type": "oom", "id": id })));
            kills = now;
        }
    }
}

pub(super) fn spec(bundle: Option<&Path>) -> Result<()> {
    let path = bundle.unwrap_or(Path::new(".")).join("config.json");
    match fs::File::create_new(&path) {
        Ok(file) => serde_json::to_writer_pretty(file, &default_spec())
            .map_err(|e| Error::Other(format!("write {}: {e}", path.display()))),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(Error::Other(format!(
            "{} exists; remove it first",
            path.display()
        ))),
        Err(e) => Err(Error::Io(format!("create {}", path.display()), e)),
    }
}

/// A spec to start from: a shell on a read-only root, with few capabilities.
fn default_spec() -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "cofferdam",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [{ "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" }],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
