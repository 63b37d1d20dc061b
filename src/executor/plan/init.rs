//! Plans a container's init, in the order in which it happens: groups and namespaces, the root, what is below it, leaving the
//! node, the process.

use std::ffi::CString;
use std::path::Path;

use oci_spec::runtime::{Linux, Process, Spec};

use super::super::error::c_string;
use super::super::namespaces::Namespaces;
use super::super::netdev::NetDevice;
use super::super::script::{Script, Step};
use super::super::spawn::{BornIn, Launch};
use super::super::wire::Question;
use super::super::{
    Error, PodUsers, Result, Stdio, devices, hooks, mounts, netdev, process, rootfs, scheduling,
    userns,
};
use super::sysctl::{Owned, sysctls};
use super::{InitPlan, enter_cgroup, keyring, seccomp_agent};
use crate::cgroup::Cgroup;
use crate::oci::{self, HookKind, Request, RootMount};
use crate::procfs::MountInfo;

/// Plans a container's init.
pub(in super::super) fn init(
    plan: InitPlan<'_>,
    hooks: Option<&hooks::HookRunner>,
) -> Result<Launch> {
    let request: &Request = plan.request;
    let spec = &request.rest;
    let (process, linux) = parts(spec)?;
    let program = process::program(process)?;
    let terminal = matches!(plan.stdio, Stdio::Terminal { .. });
    let agent = seccomp_agent(plan.seccomp.as_ref(), spec, plan.id, plan.bundle, "created");
    let user = match plan.users {
        Some(users) => Some(users.namespace()?),
        None => userns::open(request)?,
    };
    let mapped = user.is_some();
    let own = process::Plan {
        process,
        stdio: plan.stdio,
        seccomp: plan.seccomp,
        watched: plan.watcher.as_ref().map(|w| w.program.clone()),
        keyring: keyring(plan.id, plan.new_keyring)?,
        preserve_fds: plan.preserve_fds,
        mapped,
        confinement: plan.confinement,
        init: None,
        exec: false,
    };
    let namespaces = Namespaces::plan(request)?;
    if mapped && !namespaces.has_new_mounts() {
        return Err(Error::field(
            "linux.namespaces",
            "a user namespace needs a mount namespace beside it",
        ));
    }
    let foreign_network = user.as_ref().is_some_and(|u| !namespaces.network_is_of(u));
    let users = mounts::Users {
        namespace: user.as_ref(),
        pod: plan.users,
        foreign_network,
    };
    let mut this = Init {
        request,
        linux,
        namespaces: &namespaces,
        users,
        own,
        birth: BornIn::default(),
        steps: Vec::new(),
    };
    let late = this.enter_namespaces(plan.cgroup)?;
    this.mount_root(plan.root_mounts, plan.users)?;
    let net_devices = this.fill_root(plan.cgroup, plan.notice)?;
    this.name_and_protect(late)?;
    this.enter_root(plan.pivot)?;
    let gate = Step::Gate {
        listener: plan.gate,
        keep: Vec::new(),
    };
    let Init {
        own,
        birth,
        mut steps,
        ..
    } = this;
    own.late_steps(Some(gate), &mut steps)?;
    hooks::start_steps(hooks, &mut steps)?;
    let script = Script {
        times: None,
        steps,
        program,
        preserve_fds: plan.preserve_fds,
    };
    Ok(Launch::new(script, birth, terminal, agent)
        .with_net_devices(net_devices)
        .with_watcher(plan.watcher)
        .mapped(mapped))
}

/// What every container needs. Refuses what is not honoured, by name: a field that is silently dropped is a hole.
fn parts(spec: &Spec) -> Result<(&Process, &Linux)> {
    let missing = |field: &str| Error::field(field, "is missing");
    let linux = spec.linux().as_ref().ok_or_else(|| missing("linux"))?;
    if spec.vm().is_some() {
        return Err(Error::field(
            "vm",
            "is for runtimes that start virtual machines; Cofferdam does not",
        ));
    }
    let process = spec.process().as_ref();
    Ok((process.ok_or_else(|| missing("process"))?, linux))
}

/// A plan in the making.
struct Init<'a> {
    request: &'a Request,
    linux: &'a Linux,
    namespaces: &'a Namespaces,
    users: mounts::Users<'a>,
    own: process::Plan<'a>,
    birth: BornIn,
    steps: Vec<Step>,
}

impl Init<'_> {
    fn mapped(&self) -> bool {
        self.users.namespace.is_some()
    }

    /// Groups and namespaces, as far as they are entered before there is a root. What is returned is for later: kernel
    /// parameters that the container's own root may set.
    fn enter_namespaces(&mut self, cgroup: Option<&Cgroup>) -> Result<Vec<Step>> {
        let entry = cgroup.map(Cgroup::entry).transpose()?;
        enter_cgroup(entry, &mut self.birth, &mut self.steps);
        self.steps.push(scheduling::whole_affinity());
        self.own.early_steps(&mut self.steps)?;
        self.namespaces.join(&mut self.birth, &mut self.steps)?;
        let all = &self.request.namespaces;
        let owned = Owned {
            ipc: !all.ipc.is_host(),
            net: !all.network.is_host(),
            uts: !all.uts.is_host(),
            user: self.mapped(),
        };
        let (of_network, mut late) = sysctls(self.linux.sysctl().as_ref(), &owned)?;
        if self.users.foreign_network {
            // What the container's root must not do by itself is done before its user namespace is entered.
            self.steps.extend(of_network);
        } else {
            late.splice(0..0, of_network);
        }
        if self.mapped() {
            self.steps.push(Step::UnshareMounts);
        } else {
            self.enter_new()?;
        }
        Ok(late)
    }

    fn enter_new(&mut self) -> Result<()> {
        let users = self.users.namespace;
        self.namespaces
            .enter(users, &mut self.birth, &mut self.steps)?;
        self.own.label_steps(&mut self.steps)
    }

    /// The root, mounted and kept. With users of its own the container mounts it as the node's root, and takes it along.
    fn mount_root(&mut self, root_mounts: &[RootMount], users: Option<&PodUsers>) -> Result<()> {
        let new_mounts = self.namespaces.has_new_mounts();
        if new_mounts {
            self.steps.push(Step::Propagation {
                flags: libc::MS_SLAVE | libc::MS_REC,
                what: "the node's mounts",
            });
        }
        let root = &self.request.root;
        rootfs::plan(root, root_mounts, users, &mut self.steps)?;
        let path = c_string(root.source.path.as_os_str().as_encoded_bytes(), "root.path")?;
        if mounts::needs_sysfs(self.request, self.users) {
            self.steps.push(Step::TakeSysfs);
        }
        if self.mapped() {
            self.steps.extend(devices::make()?);
            self.steps.push(Step::TakeRoot { path });
            self.enter_new()?;
            self.steps.push(Step::AttachRoot);
        } else {
            self.steps.push(Step::OpenRoot { path });
        }
        self.steps.push(Step::PrivateRoot);
        Ok(())
    }

    /// Mounts, devices, hooks of the creation, and the standard streams. Returns the node's network devices that move in.
    fn fill_root(
        &mut self,
        cgroup: Option<&Cgroup>,
        notice: Option<&str>,
    ) -> Result<Vec<NetDevice>> {
        let mapped = self.mapped();
        let last = mounts::plan(self.request, cgroup, self.users, &mut self.steps)?;
        devices::plan(self.request, mapped, &mut self.steps)?;
        let at_dev = |m: &&oci::Mount| m.destination == Path::new("/dev");
        if let Some(text) = notice
            && self
                .request
                .mounts
                .iter()
                .rev()
                .find(at_dev)
                .is_some_and(|m| m.fstype() == Some("tmpfs"))
        {
            self.steps.push(Step::Notice(text.as_bytes().to_vec()));
        }
        let has_net = !self.request.namespaces.network.is_host();
        let net_devices = netdev::plan(&self.request.rest, has_net)?;
        if !net_devices.is_empty() {
            self.steps.push(Step::Ask(Question::NetDevices));
        }
        let at_create = [
            HookKind::Prestart,
            HookKind::CreateRuntime,
            HookKind::CreateContainer,
        ];
        if self.request.hooks.has(&at_create) {
            self.steps.push(Step::Ask(Question::CreateHooks));
        }
        self.own.stdio_step(true, &mut self.steps);
        let cwd = self.own.process.cwd().as_os_str();
        if cwd != "/" {
            let cwd = c_string(cwd.as_encoded_bytes(), "process.cwd")?;
            self.steps.push(Step::MakeWorkingDirectory(cwd));
        }
        // Read-only comes last.
        self.steps.extend(last);
        Ok(net_devices)
    }

    /// Host names, kernel parameters, and what of `/proc` and `/sys` is hidden or read-only.
    fn name_and_protect(&mut self, sysctls: Vec<Step>) -> Result<()> {
        let has_uts = !self.request.namespaces.uts.is_host();
        names(&self.request.rest, has_uts, &mut self.steps)?;
        self.steps.extend(sysctls);
        let read_only = Step::ReadOnly as fn(CString) -> Step;
        for (list, make, field) in [
            (
                self.linux.readonly_paths(),
                read_only,
                "linux.readonlyPaths",
            ),
            (self.linux.masked_paths(), Step::Mask, "linux.maskedPaths"),
        ] {
            for (i, path) in list.iter().flatten().enumerate() {
                let field = format!("{field}[{i}]");
                let Some(relative) = path.strip_prefix('/').filter(|p| !p.is_empty()) else {
                    return Err(Error::field(
                        field,
                        format!("{path:?} is not an absolute path below the root"),
                    ));
                };
                self.steps.push(make(c_string(relative, &field)?));
            }
        }
        Ok(())
    }

    /// The root becomes `/`; what must come after it.
    fn enter_root(&mut self, pivot: bool) -> Result<()> {
        let linux = self.linux;
        self.steps
            .push(match (self.namespaces.has_new_mounts(), pivot) {
                (true, true) => Step::PivotRoot,
                (true, false) => Step::MoveRoot {
                    hide: node_kernel_mounts()?,
                },
                // The root of others must stay what it is.
                (false, _) => Step::ChangeRoot,
            });
        if let Some(flags) = root_propagation(linux.rootfs_propagation().as_deref())? {
            self.steps.push(Step::Propagation {
                flags,
                what: "linux.rootfsPropagation",
            });
        }
        if let Some(p) = linux.personality() {
            self.steps.push(scheduling::personality_step(p)?);
        }
        if let Some(p) = linux.memory_policy() {
            self.steps.push(scheduling::memory_policy(p)?);
        }
        if self.request.root.read_only {
            self.steps.push(Step::RootReadOnly);
        }
        Ok(())
    }
}

/// Where the node has procfs and sysfs.
fn node_kernel_mounts() -> Result<Vec<CString>> {
    let all =
        MountInfo::of_self().map_err(|e| Error::field("/proc/self/mountinfo", e.to_string()))?;
    let of_kernel = all
        .iter()
        .filter(|m| matches!(m.fstype.as_str(), "proc" | "sysfs"));
    of_kernel
        .map(|m| {
            c_string(
                m.point.as_os_str().as_encoded_bytes(),
                "/proc/self/mountinfo",
            )
        })
        .collect()
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

fn root_propagation(name: Option<&str>) -> Result<Option<u64>> {
    // Never recursive: it is the root's (config-linux.md, "Rootfs Mount Propagation"), and binds have what their own options ask for.
    Ok(Some(match name {
        None | Some("") => return Ok(None),
        Some("private" | "rprivate") => libc::MS_PRIVATE,
        Some("slave" | "rslave") => libc::MS_SLAVE,
        Some("shared" | "rshared") => libc::MS_SHARED,
        Some("unbindable" | "runbindable") => libc::MS_UNBINDABLE,
        Some(other) => {
            return Err(Error::field(
                "linux.rootfsPropagation",
                format!("{other:?} is not a propagation mode"),
            ));
        }
    }))
}
