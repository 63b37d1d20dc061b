//! The scripts of usual containers, as a page that is read: docs/script.md. A change of the order of steps is a change of that page.
//! `COFFERDAM_WRITE=1 cargo test --lib script` writes it anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::isolation::OfPod;
use super::{Isolation, Result};
use crate::cgroup::{Below, Layout};
use crate::executor::fuzz::{steps_of_exec, steps_of_init};
use crate::executor::{ExecPlan, InitPlan, JoinedNamespaces, NotifyHandler, Stdio};
use crate::isolation::Judged;
use crate::oci::{Request, RootMount};
use crate::seccomp;

const PAGE: &str = "docs/script.md";

/// What an exec joins of a pod's container, with a pid namespace of its own.
const JOINED: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWPID;

/// As containerd makes it for an image that says nothing, but for the filter: one of three rules stands for it.
fn spec() -> Value {
    let caps = json!([
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
        "CAP_AUDIT_WRITE"
    ]);
    let mount = |at: &str, typ: &str, options: &[&str]| json!({ "destination": at, "type": typ, "source": typ, "options": options });
    let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|t| json!({ "type": t }));
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs" },
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/run", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])
        ],
        "linux": {
            "namespaces": namespaces,
            "seccomp": { "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{ "names": ["read", "write", "exit_group"], "action": "SCMP_ACT_ALLOW" }] },
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

fn null() -> OwnedFd {
    File::open("/dev/null").expect("/dev/null").into()
}

fn stdio() -> Stdio {
    Stdio::Files([null(), null(), null()])
}

/// The filter with a floor, as the shim loads it where it sees what is denied.
fn watcher(isolation: &Isolation, request: &Request) -> Option<NotifyHandler> {
    let own = request.rest.linux().as_ref()?.seccomp().as_ref();
    let watched = seccomp::watch(isolation.floor(), own).expect("the filter compiles")?;
    Some(NotifyHandler {
        program: watched.program,
        adopt: Arc::new(|_| {}),
    })
}

/// The steps of an init, and of an exec in it.
fn scripts(class: &str) -> Result<(Vec<String>, Vec<String>)> {
    let top = std::env::temp_dir().join(format!("cdtest-script-{}", std::process::id()));
    let bundle = top.join("state/io.containerd.runtime.v2.task/k8s.io/box");
    std::fs::create_dir_all(bundle.join("rootfs")).expect("a temporary directory");
    let isolation = Isolation::load(class).expect("a built-in profile");
    let layout = Layout::detect().expect("control groups");
    let spec = serde_json::from_value(spec()).expect("a spec");
    let asked = Request::read(spec, &bundle, isolation.reading())?;
    let of_pod = OfPod {
        layout: &layout,
        users: None,
        place: isolation.place("box", &bundle, None),
        namespaces: BTreeSet::new(),
    };
    let (request, _) = isolation.judge("box", of_pod, asked)?;
    let root_mounts = Judged::standard(vec![RootMount {
        fstype: "overlay".into(),
        source: "overlay".into(),
        target: String::new(),
        options: vec!["lowerdir=/image".into()],
    }]);
    let watched = isolation.reports_denials() && isolation.floor().is_some();
    let filter = || {
        let own = request.rest.linux().as_ref()?.seccomp().as_ref()?;
        let compiled = seccomp::compile(own).expect("the filter compiles");
        (!watched).then(|| Arc::new(compiled))
    };
    let watcher = || watched.then(|| watcher(&isolation, &request)).flatten();
    let init = steps_of_init(InitPlan {
        request: &request,
        id: "box",
        bundle: &bundle,
        root_mounts: &root_mounts,
        cgroup: None,
        stdio: stdio(),
        seccomp: filter(),
        confinement: isolation.confinement(),
        watcher: watcher(),
        denied_egress: None,
        notice: isolation.restricts().then_some("text"),
        users: None,
        new_keyring: true,
        gate: None,
        preserve_fds: 0,
        pivot: true,
    })?;
    let process = request.rest.process().clone().expect("a process");
    let process = isolation.judge_exec(&layout, process)?;
    let exec = steps_of_exec(ExecPlan {
        process: &process,
        enter: JoinedNamespaces::new(JOINED),
        may_be_traced: false,
        personality: None,
        seccomp_agent: None,
        id: "box",
        init: null(),
        cgroup: None,
        below: &Below::default(),
        patient: false,
        stdio: stdio(),
        seccomp: filter(),
        confinement: isolation.confinement(),
        watcher: watcher(),
        new_keyring: true,
        preserve_fds: 0,
    })?;
    let plain = |steps: Vec<String>| {
        let bundle = bundle.display().to_string();
        steps
            .into_iter()
            .map(|s| s.replace(&bundle, "BUNDLE"))
            .collect()
    };
    std::fs::remove_dir_all(&top).ok();
    Ok((plain(init), plain(exec)))
}

#[test]
fn usual_scripts_are_as_the_page_has_them() {
    let mut page = String::from(
        "# What a container's process does before its program\n\n\
         A creation compiles a spec into a *script*: a list of steps. A clone of the shim walks it with system calls only, and executes the \
         program at its end. A step that fails is named in the error as it is here. This page is a test's output \
         (`src/pod/script_tests.rs`): entering the control groups comes first, and is left out, since nodes differ in it; \
         so are the user namespace of `untrusted`, which needs root, and the hiding of the node's PCI devices.\n",
    );
    for class in ["standard", "hardened", "untrusted"] {
        let (init, exec) = scripts(class).expect("a usual container");
        for (what, steps) in [("init", init), ("exec", exec)] {
            writeln!(page, "\n## {class}, {what}\n").ok();
            let of_node = |s: &&String| s.contains("/sys/devices/pci");
            for (i, step) in steps.iter().filter(|s| !of_node(s)).enumerate() {
                writeln!(page, "{}. {step}", i + 1).ok();
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if std::env::var_os("COFFERDAM_WRITE").is_some() {
        std::fs::write(&path, &page).expect("the page is written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = page
        .lines()
        .zip(written.lines())
        .find(|(now, then)| now != then);
    assert!(
        page == written,
        "{PAGE} is not what is done: {differs:?}. If that is right: COFFERDAM_WRITE=1 cargo test --lib script"
    );
}
