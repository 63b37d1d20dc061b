//! From an OCI spec to a [`Script`]: the half of the executor that allocates, validates, and needs no root.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use oci_spec::runtime::{Process, Spec};

use super::confinement::Confinement;
use super::mounts::c_string;
use super::namespaces::Namespaces;
use super::script::{Script, Step};
use super::seccomp::Program;
use super::spawn::{BornIn, Launch, Launched, NotifyHandler, SeccompAgent};
use super::undo::Undo;
use super::wire::Question;
use super::{
    Error, PodUsers, Result, Stdio, devices, hooks, mounts, namespaces, netdev, process, rootfs,
    scheduling, userns,
};
use crate::cgroup::Cgroup;
use crate::isolation::Judged;
use crate::oci::{HookKind, Request, RootMount};
use crate::trace;

/// What [`init`] needs to know.
pub struct InitPlan<'a> {
    /// What will be enforced.
    pub request: &'a Judged<Request>,
    /// The container's id; hooks and keyring carry it.
    pub id: &'a str,
    /// Directory of `config.json`.
    pub bundle: &'a Path,
    /// Mounts that make up the root file system; empty if it is there already.
    pub root_mounts: &'a Judged<Vec<RootMount>>,
    /// The container's control groups, already created.
    pub cgroup: Option<&'a Cgroup>,
    /// Standard streams.
    pub stdio: Stdio,
    /// The compiled `linux.seccomp`.
    pub seccomp: Option<Arc<Program>>,
    /// What a profile adds.
    pub confinement: Option<Arc<Confinement>>,
    /// Who sees what the filters deny.
    pub watcher: Option<NotifyHandler>,
    /// The pod's user namespace, where the spec has a new one that its containers are to share.
    pub users: Option<&'a PodUsers>,
    /// Whether to join a session keyring of the container's own.
    pub new_keyring: bool,
    /// Where another process will open the gate; without it, only the caller can.
    pub gate: Option<OwnedFd>,
    /// How many of the caller's descriptors after the standard three the program gets.
    pub preserve_fds: u32,
    /// Whether to pivot to the root. Otherwise it is moved, which a process with `CAP_SYS_CHROOT` can undo.
    pub pivot: bool,
}

/// The namespaces that an exec joins only if the container has its own. It always joins the other five; joining one
/// of these that is the node's would fail, because `setns(2)` does not tell them apart.
#[derive(Debug, Clone, Copy, Default)]
pub struct JoinedNamespaces {
    /// The pid namespace.
    pub pid: bool,
    /// The user namespace.
    pub user: bool,
    /// The time namespace.
    pub time: bool,
}

impl JoinedNamespaces {
    /// As the container has them.
    pub fn of(request: &Request) -> Self {
        let namespaces = &request.namespaces;
        Self {
            pid: !namespaces.pid.is_host(),
            user: !namespaces.user.is_host(),
            time: !namespaces.time.is_host(),
        }
    }
}

/// What [`exec`] needs to know.
pub struct ExecPlan<'a> {
    /// The process to run.
    pub process: &'a Judged<Process>,
    /// Which of the container's namespaces are other than the node's, beside those that always are.
    pub enter: JoinedNamespaces,
    /// Who decides on the calls that the filter asks about: see [`seccomp_agent`].
    pub seccomp_agent: Option<SeccompAgent>,
    /// The container's id.
    pub id: &'a str,
    /// A pidfd of the container's init.
    pub init: OwnedFd,
    /// The container's control groups.
    pub cgroup: Option<&'a Cgroup>,
    /// Standard streams.
    pub stdio: Stdio,
    /// The filter of the container's init.
    pub seccomp: Option<Arc<Program>>,
    /// What a profile adds.
    pub confinement: Option<Arc<Confinement>>,
    /// Who sees what the filters deny.
    pub watcher: Option<NotifyHandler>,
    /// Whether to join the container's session keyring.
    pub new_keyring: bool,
    /// How many of the caller's descriptors after the standard three the program gets.
    pub preserve_fds: u32,
}

/// Refuses what is not honoured, by name: a field that is silently dropped is a hole.
fn refuse(spec: &Spec) -> Result<()> {
    if spec.linux().is_none() {
        return Err(Error::field("linux", "is missing"));
    }
    if spec.vm().is_some() {
        return Err(Error::field(
            "vm",
            "is for runtimes that start virtual machines; Cofferdam does not",
        ));
    }
    Ok(())
}

fn keyring(id: &str, wanted: bool) -> Result<Option<CString>> {
    wanted
        .then(|| c_string(format!("_ses.{id}"), "id"))
        .transpose()
}

/// Makes the container's groups and its init, which sets itself up while this returns: the caller has time for something.
///
/// # Errors
/// Nothing of the groups and the init is left then, nor where what is returned is dropped.
pub fn launch<'a>(
    plan: InitPlan<'a>,
    hooks: Option<&'a hooks::HookRunner>,
) -> Result<Launched<'a>> {
    let (cgroup, request) = (plan.cgroup, plan.request);
    let groups = trace::span("make control groups");
    let placeholder = cgroup.map(|c| c.create(request)).transpose()?.flatten();
    drop(groups);
    let undo = Undo::new(request, cgroup, hooks, placeholder);
    match (
        plan.confinement.as_ref().and_then(|c| c.egress.as_ref()),
        cgroup,
    ) {
        (Some(allowed), Some(cgroup)) => cgroup.restrict_egress(allowed)?,
        (Some(_), None) => return Err(Error::field("network.egress", "needs cgroups")),
        (None, _) => {}
    }
    let planning = trace::span("plan");
    let job = init(plan, hooks)?;
    drop(planning);
    job.launch(undo)
}

/// The seccomp agent that the spec names, and the OCI state that it gets with the filter's descriptor.
pub fn seccomp_agent(
    filter: Option<&Arc<Program>>,
    request: &Judged<Request>,
    id: &str,
    bundle: &Path,
    status: &str,
) -> Option<SeccompAgent> {
    let spec = &request.rest;
    let listener = filter?.listener.clone()?;
    let state = serde_json::json!({
        "ociVersion": spec.version(),
        "id": id,
        "status": status,
        "bundle": bundle,
        "annotations": spec.annotations()
    });
    Some(SeccompAgent { listener, state })
}

/// Plans a container's init.
#[expect(
    clippy::too_many_lines,
    reason = "the order of the steps is what it says"
)]
pub(super) fn init(plan: InitPlan<'_>, hooks: Option<&hooks::HookRunner>) -> Result<Launch> {
    let request: &Request = plan.request;
    let spec = &request.rest;
    refuse(spec)?;
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::field("process", "is missing"))?;
    let program = process::program(process)?;
    let user = match plan.users {
        Some(users) => Some(users.namespace()?),
        None => userns::open(request)?,
    };
    let mapped = user.is_some();
    let terminal = matches!(plan.stdio, Stdio::Terminal { .. });
    let seccomp_agent = seccomp_agent(
        plan.seccomp.as_ref(),
        plan.request,
        plan.id,
        plan.bundle,
        "created",
    );
    let mut own = process::Plan {
        process,
        stdio: plan.stdio,
        seccomp: plan.seccomp,
        watched: plan.watcher.as_ref().map(|w| w.program.clone()),
        keyring: keyring(plan.id, plan.new_keyring)?,
        preserve_fds: plan.preserve_fds,
        mapped,
        confinement: plan.confinement,
        init: None,
    };
    let namespaces = Namespaces::plan(request)?;
    let all = &request.namespaces;
    let (has_uts, has_net) = (!all.uts.is_host(), !all.network.is_host());
    let new_mounts = namespaces.has_new_mounts();
    if mapped && !new_mounts {
        return Err(Error::field(
            "linux.namespaces",
            "a user namespace needs a mount namespace beside it",
        ));
    }
    let mut birth = BornIn::default();
    let mut steps = Vec::new();
    enter_cgroup(plan.cgroup, &mut birth, &mut steps)?;
    own.early_steps(&mut steps)?;
    namespaces.join(&mut birth, &mut steps)?;
    let linux = spec
        .linux()
        .as_ref()
        .ok_or_else(|| Error::field("linux", "is missing"))?;
    let scope = Owned {
        ipc: !all.ipc.is_host(),
        net: has_net,
        uts: has_uts,
        user: mapped,
    };
    let (of_network, others) = sysctls(linux.sysctl().as_ref(), &scope)?;
    let foreign_network = user.as_ref().is_some_and(|u| !namespaces.network_is_of(u));
    // What the container's root must not do by itself is done before its user namespace is entered.
    let (early, late) = if foreign_network {
        (of_network, others)
    } else {
        (Vec::new(), of_network.into_iter().chain(others).collect())
    };
    steps.extend(early);
    let enter =
        |steps: &mut Vec<Step>, birth: &mut BornIn| namespaces.enter(user.as_ref(), birth, steps);
    if mapped {
        steps.push(Step::UnshareMounts);
    } else {
        enter(&mut steps, &mut birth)?;
        own.label_steps(&mut steps);
    }
    if new_mounts {
        steps.push(Step::Propagation {
            flags: libc::MS_SLAVE | libc::MS_REC,
            what: "the node's mounts",
        });
    }
    rootfs::plan(&request.root, plan.root_mounts, plan.users, &mut steps)?;
    let rootfs = request.root.source.path.as_os_str();
    let path = c_string(rootfs.as_encoded_bytes(), "root.path")?;
    let users = mounts::Users {
        namespace: user.as_ref(),
        pod: plan.users,
        foreign_network,
    };
    if mounts::needs_sysfs(request, users) {
        steps.push(Step::TakeSysfs);
    }
    if mapped {
        steps.push(devices::make()?);
        steps.push(Step::TakeRoot { path });
        enter(&mut steps, &mut birth)?;
        own.label_steps(&mut steps);
        steps.push(Step::AttachRoot);
    } else {
        steps.push(Step::OpenRoot { path });
    }
    if !new_mounts {
        steps.push(Step::PrivateRoot);
    }
    mounts::plan(request, plan.cgroup, users, &mut steps)?;
    devices::plan(request, mapped, &mut steps)?;
    let net_devices = netdev::plan(spec, has_net)?;
    if !net_devices.is_empty() {
        steps.push(Step::Ask(Question::NetDevices));
    }
    let at_create = [
        HookKind::Prestart,
        HookKind::CreateRuntime,
        HookKind::CreateContainer,
    ];
    if request.hooks.has(&at_create) {
        steps.push(Step::Ask(Question::CreateHooks));
    }
    own.stdio_step(true, &mut steps);
    names(spec, has_uts, &mut steps)?;
    steps.extend::<Vec<Step>>(late);
    for (list, make, field) in [
        (
            linux.readonly_paths(),
            Step::ReadOnly as fn(CString) -> Step,
            "linux.readonlyPaths",
        ),
        (
            linux.masked_paths(),
            Step::Mask as fn(CString) -> Step,
            "linux.maskedPaths",
        ),
    ] {
        for (i, path) in list.iter().flatten().enumerate() {
            let field = format!("{field}[{i}]");
            let Some(relative) = path.strip_prefix('/').filter(|p| !p.is_empty()) else {
                return Err(Error::field(
                    field,
                    format!("{path:?} is not an absolute path below the root"),
                ));
            };
            steps.push(make(c_string(relative, &field)?));
        }
    }
    steps.push(match (new_mounts, plan.pivot) {
        (true, true) => Step::PivotRoot,
        (true, false) => Step::MoveRoot,
        // The root of others must stay what it is.
        (false, _) => Step::ChangeRoot,
    });
    if let Some(flags) = root_propagation(linux.rootfs_propagation().as_deref())? {
        steps.push(Step::Propagation {
            flags,
            what: "linux.rootfsPropagation",
        });
    }
    if let Some(p) = linux.personality() {
        steps.push(scheduling::personality(p)?);
    }
    if let Some(p) = linux.memory_policy() {
        steps.push(scheduling::memory_policy(p)?);
    }
    if request.root.read_only {
        steps.push(Step::RootReadOnly);
    }
    let gate = Step::Gate {
        listener: plan.gate,
    };
    own.late_steps(Some(gate), &mut steps)?;
    hooks::start_steps(hooks, &mut steps)?;
    let script = Script {
        times: None,
        steps,
        program,
        preserve_fds: plan.preserve_fds,
    };
    Ok(Launch::new(script, birth, terminal, seccomp_agent)
        .with_net_devices(net_devices)
        .with_watcher(plan.watcher)
        .mapped(mapped))
}

/// Plans a process in a running container.
pub fn exec(plan: ExecPlan<'_>) -> Result<Launch> {
    let (enter, seccomp_agent) = (plan.enter, plan.seccomp_agent);
    let program = process::program(plan.process)?;
    let terminal = matches!(plan.stdio, Stdio::Terminal { .. });
    let mut own = process::Plan {
        process: plan.process,
        stdio: plan.stdio,
        seccomp: plan.seccomp,
        watched: plan.watcher.as_ref().map(|w| w.program.clone()),
        keyring: keyring(plan.id, plan.new_keyring)?,
        preserve_fds: plan.preserve_fds,
        mapped: enter.user,
        confinement: plan.confinement,
        init: userns::pid_of(&plan.init).ok(),
    };
    let mut birth = BornIn {
        init: own.init,
        ..BornIn::default()
    };
    let mut steps = Vec::new();
    let (before, after) = scheduling::exec_affinity(plan.process)?;
    steps.extend(before);
    enter_cgroup(plan.cgroup, &mut birth, &mut steps)?;
    steps.extend(after);
    own.early_steps(&mut steps)?;
    own.label_steps(&mut steps);
    let mut flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    if enter.user {
        flags |= libc::CLONE_NEWUSER;
    }
    if enter.time {
        flags |= namespaces::CLONE_NEWTIME;
    }
    if enter.pid {
        birth.pid_namespace = Some(
            plan.init
                .try_clone()
                .map_err(|e| Error::field("exec", format!("duplicate the init's pidfd: {e}")))?,
        );
        flags |= libc::CLONE_NEWPID;
    }
    steps.push(Step::JoinNamespace {
        ns: plan.init,
        flags,
        what: "the container's namespaces".into(),
    });
    if enter.user {
        steps.push(Step::BecomeRoot);
    }
    steps.push(Step::OpenOwnRoot);
    own.stdio_step(false, &mut steps);
    own.late_steps(None, &mut steps)?;
    let script = Script {
        times: None,
        steps,
        program,
        preserve_fds: plan.preserve_fds,
    };
    Ok(Launch::new(script, birth, terminal, seccomp_agent).with_watcher(plan.watcher))
}

fn enter_cgroup(cgroup: Option<&Cgroup>, birth: &mut BornIn, steps: &mut Vec<Step>) -> Result<()> {
    let Some(cgroup) = cgroup else { return Ok(()) };
    let entry = cgroup.entry()?;
    birth.cgroup = entry.v2;
    steps.extend(
        entry
            .tasks
            .into_iter()
            .map(|(path, tasks)| Step::EnterCgroup {
                tasks,
                path: path.display().to_string(),
            }),
    );
    Ok(())
}

fn names(spec: &Spec, has_uts: bool, steps: &mut Vec<Step>) -> Result<()> {
    for (name, make, field) in [
        (
            spec.hostname(),
            Step::Hostname as fn(Vec<u8>) -> Step,
            "hostname",
        ),
        (
            spec.domainname(),
            Step::Domainname as fn(Vec<u8>) -> Step,
            "domainname",
        ),
    ] {
        if let Some(name) = name.as_ref().filter(|n| !n.is_empty()) {
            if !has_uts {
                return Err(Error::field(
                    field,
                    "needs a uts namespace in linux.namespaces, or it would rename the node",
                ));
            }
            steps.push(make(name.clone().into_bytes()));
        }
    }
    Ok(())
}

/// Which namespaces the container has of its own.
struct Owned {
    ipc: bool,
    net: bool,
    uts: bool,
    user: bool,
}

/// Kernel parameters, the network's and the others: only those that a namespace of the container owns, or they would change the
/// node.
fn sysctls(
    sysctl: Option<&HashMap<String, String>>,
    owned: &Owned,
) -> Result<(Vec<Step>, Vec<Step>)> {
    const IPC: [&str; 10] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.msg_next_id",
        "kernel.shm_next_id",
    ];
    let (mut network, mut others) = (Vec::new(), Vec::new());
    let mut list: Vec<_> = sysctl.into_iter().flatten().collect();
    list.sort();
    for (key, value) in list {
        let field = format!("linux.sysctl[{key:?}]");
        // Both spellings are in use: net.ipv4.ip_forward and net/ipv4/conf/eth0.100/forwarding.
        let (dotted, slashed) = if key
            .find('/')
            .is_some_and(|s| key.find('.').is_none_or(|d| s < d))
        {
            (key.replace('/', "."), key.clone())
        } else {
            (key.clone(), key.replace('.', "/"))
        };
        let needs = if dotted.starts_with("net.") {
            ("network", owned.net)
        } else if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            ("ipc", owned.ipc)
        } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
            ("uts", owned.uts)
        } else if dotted.starts_with("user.") {
            ("user", owned.user)
        } else {
            return Err(Error::field(
                field,
                "is not owned by any namespace: setting it would change the whole node",
            ));
        };
        if !needs.1 {
            return Err(Error::field(
                field,
                format!("needs a {} namespace in linux.namespaces", needs.0),
            ));
        }
        if slashed
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
        {
            return Err(Error::field(field, "is not a kernel parameter"));
        }
        let steps = if needs.0 == "network" {
            &mut network
        } else {
            &mut others
        };
        steps.push(Step::WriteProc {
            path: c_string(format!("/proc/sys/{slashed}"), &field)?,
            value: value.clone().into_bytes(),
            what: format!("{field}: set to {value:?}"),
        });
    }
    Ok((network, others))
}

fn root_propagation(name: Option<&str>) -> Result<Option<u64>> {
    Ok(Some(match name {
        None | Some("") => return Ok(None),
        Some("private") => libc::MS_PRIVATE,
        Some("rprivate") => libc::MS_PRIVATE | libc::MS_REC,
        Some("slave") => libc::MS_SLAVE,
        Some("rslave") => libc::MS_SLAVE | libc::MS_REC,
        Some("shared") => libc::MS_SHARED,
        // Not recursive: binds have the propagation that their own options ask for.
        Some("rshared") => libc::MS_SHARED,
        Some("unbindable") => libc::MS_UNBINDABLE,
        Some("runbindable") => libc::MS_UNBINDABLE | libc::MS_REC,
        Some(other) => {
            return Err(Error::field(
                "linux.rootfsPropagation",
                format!("{other:?} is not a propagation mode"),
            ));
        }
    }))
}

/// Makes the directory that the root will be mounted on.
pub fn prepare_root_directory(request: &Judged<Request>) -> Result<()> {
    let path = &request.root.source.path;
    match fs::create_dir(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::field(
            "root.path",
            format!("create {}: {e}", path.display()),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    /// What containerd's CRI plugin sends for an ordinary container.
    fn config() -> Value {
        json!({
            "ociVersion": "1.1.0",
            "process": {
                "user": { "uid": 1000, "gid": 1000, "additionalGids": [2000] },
                "args": ["sh", "-c", "true"],
                "env": ["PATH=/usr/bin:/bin", "A=b"],
                "cwd": "/",
                "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
                "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 20 }],
                "noNewPrivileges": true,
                "oomScoreAdj": 900,
                "scheduler": { "policy": "SCHED_OTHER", "nice": 1 },
                "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 4 }
            },
            "root": { "path": "/" },
            "hostname": "name",
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"] },
                { "destination": "/volume", "type": "bind", "source": "/tmp", "options": ["rbind", "rshared", "ro"] }
            ],
            "hooks": { "createRuntime": [{ "path": "/bin/true", "args": ["true"], "timeout": 3 }] },
            "annotations": { "a": "b" },
            "linux": {
                "resources": { "memory": { "limit": 1_000_000, "swap": 1_000_000 }, "cpu": { "shares": 10, "cpus": "0" }, "pids": { "limit": 5 } },
                "cgroupsPath": "/a/b",
                "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "network" }, { "type": "cgroup" }],
                "devices": [{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438 }],
                "sysctl": { "net.ipv4.ip_forward": "1" },
                "seccomp": {
                    "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
                    "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }] }]
                },
                "maskedPaths": ["/proc/kcore"],
                "readonlyPaths": ["/proc/sys"],
                "rootfsPropagation": "rslave"
            }
        })
    }

    fn plan(json: &Value) -> std::result::Result<(), String> {
        let text = serde_json::to_vec(json).unwrap();
        super::super::fuzz::plan(&text).map_err(|e| e.to_string())
    }

    /// A small generator of numbers: the same ones every time.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % n as u64) as usize
        }
    }

    fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
        out.push(at.to_owned());
        match value {
            Value::Object(map) => map
                .iter()
                .for_each(|(k, v)| pointers(v, &format!("{at}/{}", k.replace('/', "~1")), out)),
            Value::Array(list) => list
                .iter()
                .enumerate()
                .for_each(|(i, v)| pointers(v, &format!("{at}/{i}"), out)),
            _ => {}
        }
    }

    #[test]
    fn a_mutated_spec_gives_a_plan_or_an_error_that_names_a_field() {
        assert_eq!(plan(&config()), Ok(()));
        let values = [
            json!(null),
            json!(true),
            json!(-1),
            json!(0),
            json!(-9_000_000_000_i64),
            json!(u64::MAX),
            json!(1.5),
            json!(""),
            json!("a\u{0}b"),
            json!("../../.."),
            json!("/"),
            json!("x".repeat(5000)),
            json!([]),
            json!({}),
            json!([null]),
            json!(["a", "a"]),
            json!("rbind"),
            json!("user"),
            json!({ "a": {} }),
        ];
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        let (mut plans, mut errors) = (0, 0);
        for _ in 0..6000 {
            let mut json = config();
            for _ in 0..=numbers.below(2) {
                let mut all = Vec::new();
                pointers(&json, "", &mut all);
                let at = &all[1 + numbers.below(all.len() - 1)];
                let value = values[numbers.below(values.len())].clone();
                if let Some(place) = json.pointer_mut(at) {
                    *place = value;
                }
            }
            match plan(&json) {
                Ok(()) => plans += 1,
                Err(text) => {
                    errors += 1;
                    let named = text.contains(": ") && !text.starts_with(": ");
                    assert!(named && text.len() < 20_000, "{text:?} from {json}");
                }
            }
        }
        assert!(
            plans > 300 && errors > 300,
            "{plans} plans, {errors} errors: the mutations say nothing"
        );
    }
}
