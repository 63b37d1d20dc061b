//! A live container: what its pod asked for, what the profile makes of it, and what the kernel shows.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use oci_spec::runtime::{
    Capabilities, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, Mount, PosixRlimitType,
    Process, Spec,
};
use serde::Serialize;

use super::limits;
use super::mounts::{At, Mounts};
use super::process::{self, Status};
use crate::cgroup::{Cgroup, Layout};
use crate::control;
use crate::isolation::{self, Given, Node, Place, PodOfKubernetes, Profile, UserNamespaceMode};
use crate::oci::{self, Reading, Request, capabilities};
use crate::pod::host_limits;
use crate::sys::confine;

/// What is to be said of a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// As the pod asked, and the profile adds nothing.
    Kept,
    /// The profile adds to what the pod asked, and it is there.
    Tightened,
    /// Promised, and not there.
    Missing,
    /// Applied when the process started, or it would not have; the kernel does not show it.
    NotShown,
    /// Promised by nobody.
    Note,
}

/// One thing that is enforced, or is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What it belongs to, for people.
    pub section: &'static str,
    /// What it is.
    pub what: String,
    /// What the pod asked for.
    pub asked: String,
    /// What the profile makes of it.
    pub promised: String,
    /// What the kernel shows.
    pub found: String,
    /// What is to be said of it.
    pub mark: Mark,
}

/// Everything about one container.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The container, as its shim tells.
    pub container: control::Container,
    /// Line by line.
    pub lines: Vec<Line>,
}

impl Explanation {
    /// How many promises are broken.
    pub fn missing(&self) -> usize {
        let missing = |l: &&Line| l.mark == Mark::Missing;
        self.lines.iter().filter(missing).count()
    }
}

/// The lines so far.
struct Lines {
    section: &'static str,
    all: Vec<Line>,
}

impl Lines {
    fn push(
        &mut self,
        what: impl Into<String>,
        asked: impl Display,
        promised: impl Display,
        found: impl Display,
        mark: Mark,
    ) {
        self.all.push(Line {
            section: self.section,
            what: what.into(),
            asked: asked.to_string(),
            promised: promised.to_string(),
            found: found.to_string(),
            mark,
        });
    }

    /// A promise, and whether it is kept.
    fn promise(
        &mut self,
        what: impl Into<String>,
        asked: impl Display,
        promised: impl Display,
        found: impl Display,
        kept: bool,
    ) {
        let (asked, promised) = (asked.to_string(), promised.to_string());
        let mark = match (kept, asked == promised) {
            (false, _) => Mark::Missing,
            (true, true) => Mark::Kept,
            (true, false) => Mark::Tightened,
        };
        self.push(what, asked, promised, found, mark);
    }

    /// What a profile promises beyond OCI's fields.
    fn added(&mut self, what: &str, wanted: bool, found: impl Display, kept: bool) {
        if wanted {
            self.promise(what, "no", "yes", found, kept);
        }
    }
}

/// Everything that the rest needs to know.
struct Case<'a> {
    pod: &'a control::Pod,
    container: &'a control::Container,
    profile: Profile,
    asked: Spec,
    promised: Spec,
    status: Status,
    cgroup: Cgroup,
}

/// Looks at a container. The error is for people.
pub fn explain(pod: &control::Pod, container: &control::Container) -> Result<Explanation, String> {
    let id = &container.id;
    if !matches!(container.status.as_str(), "running" | "paused") {
        return Err(format!(
            "container {id} is {}: what is enforced can be seen while it runs",
            container.status
        ));
    }
    let profile = container.profile().map_err(|e| e.to_string())?;
    let layout = Arc::new(Layout::detect().map_err(|e| format!("find the node's cgroups: {e}"))?);
    let asked = oci::load(&container.bundle).map_err(|e| e.to_string())?;
    let request = Request::read(asked.clone(), &container.bundle, Reading::Show)
        .map_err(|e| e.to_string())?;
    let given = Given {
        open_files: container.open_files,
        core_size: container.core_size,
        users: container.users,
        place: Place::of(&Node::load()?, &container.bundle, id)
            .of_pod(PodOfKubernetes::claimed(&request)),
        ..host_limits(&layout)
    };
    let promised = isolation::judge(&profile, &given, request)
        .map_err(|e| format!("the shim runs what its profile refuses: {e}"))?
        .judged
        .to_spec(&asked);
    let status = Status::of(container.pid)
        .ok_or_else(|| format!("container {id}: process {} is gone", container.pid))?;
    let cgroup = Cgroup::new(layout, Some(&container.cgroup), id).map_err(|e| e.to_string())?;
    let case = Case {
        pod,
        container,
        profile,
        asked,
        promised,
        status,
        cgroup,
    };
    let mut lines = Lines {
        section: "",
        all: Vec::new(),
    };
    case.users(&mut lines);
    case.process(&mut lines);
    case.system_calls(&mut lines);
    case.kernel(&mut lines);
    case.namespaces(&mut lines);
    case.files(&mut lines)?;
    case.limits(&mut lines)?;
    case.other_processes(&mut lines);
    if Status::of(container.pid).is_none() {
        return Err(format!("container {id} ended while it was looked at"));
    }
    Ok(Explanation {
        container: container.clone(),
        lines: lines.all,
    })
}

/// A spec's namespace of a type, for those who show it.
fn namespace(spec: &Spec, typ: LinuxNamespaceType) -> Option<&LinuxNamespace> {
    let list = spec.linux().as_ref()?.namespaces().as_ref()?;
    list.iter().find(|n| n.typ() == typ)
}

fn on(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn mask(set: Option<&Capabilities>) -> u64 {
    let bit = |c| {
        let name = format!("CAP_{c}");
        capabilities::NAMES.iter().position(|n| *n == name)
    };
    let bits = set.into_iter().flatten().filter_map(bit);
    bits.fold(0, |mask, bit| mask | 1 << bit)
}

fn maps(mappings: Option<&Vec<LinuxIdMapping>>) -> Vec<(u32, u32, u32)> {
    let one = |m: &LinuxIdMapping| (m.container_id(), m.host_id(), m.size());
    mappings.into_iter().flatten().map(one).collect()
}

fn show_maps(maps: &[(u32, u32, u32)]) -> String {
    let one = |(inside, outside, size): &(u32, u32, u32)| match size {
        &u32::MAX => "the node's".to_owned(),
        _ => format!("{inside} is {outside} on the node, {size} ids"),
    };
    let all: Vec<String> = maps.iter().map(one).collect();
    if all.is_empty() {
        "the node's".into()
    } else {
        all.join("; ")
    }
}

impl Case<'_> {
    fn pid(&self) -> i32 {
        self.container.pid
    }

    fn process_of(spec: &Spec) -> Process {
        spec.process().clone().unwrap_or_default()
    }

    fn users(&self, lines: &mut Lines) {
        lines.section = "users";
        let of = |spec: &Spec| {
            let linux = spec.linux().clone().unwrap_or_default();
            let has = namespace(spec, LinuxNamespaceType::User).is_some();
            let maps = (
                maps(linux.uid_mappings().as_ref()),
                maps(linux.gid_mappings().as_ref()),
            );
            (has, maps)
        };
        let ((asked, asked_maps), (own, own_maps)) = (of(&self.asked), of(&self.promised));
        let found = (
            process::id_map(self.pid(), "uid_map"),
            process::id_map(self.pid(), "gid_map"),
        );
        let shown = |(uids, gids): &(Vec<_>, Vec<_>)| {
            if uids == gids {
                show_maps(uids)
            } else {
                format!("users: {}; groups: {}", show_maps(uids), show_maps(gids))
            }
        };
        // A namespace that is joined has maps that the spec need not repeat.
        let (uids, gids) = &own_maps;
        let kept = !own
            || ((uids.is_empty() || *uids == found.0) && (gids.is_empty() || *gids == found.1));
        lines.promise(
            "ids",
            shown(&asked_maps),
            shown(&own_maps),
            shown(&found),
            kept,
        );
        let auto = self.profile.user_namespace.mode == UserNamespaceMode::Auto;
        let node = process::namespace(self.pod.pid, "user");
        let private = process::namespace(self.pid(), "user") != node;
        if own || asked || auto {
            let found = if private {
                "the pod's own"
            } else {
                "the node's: the pod's root could not be mapped"
            };
            lines.promise("user namespace", on(asked), on(own || auto), found, private);
        }
        let p = Self::process_of(&self.promised);
        let asked = p.user().uid();
        let inside = |id: u32| {
            let find = |(inside, outside, size): &(u32, u32, u32)| {
                let offset = id.checked_sub(*outside)?;
                (offset < *size).then(|| inside + offset)
            };
            found.0.iter().find_map(find).unwrap_or(id)
        };
        let uid = inside(self.status.effective("Uid"));
        // Programs may become less; more only by what the pod did not forbid.
        let raised = uid == 0 && asked != 0 && p.no_new_privileges() == Some(true);
        lines.promise("user", asked, asked, uid, !raised);
    }

    fn process(&self, lines: &mut Lines) {
        lines.section = "process";
        let (asked, promised) = (
            Self::process_of(&self.asked),
            Self::process_of(&self.promised),
        );
        let sets = |p: &Process| {
            let caps = p.capabilities().clone().unwrap_or_default();
            [
                mask(caps.bounding().as_ref()),
                mask(caps.permitted().as_ref()),
                mask(caps.effective().as_ref()),
                mask(caps.inheritable().as_ref()),
                mask(caps.ambient().as_ref()),
            ]
        };
        let found = ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"]
            .map(|key| self.status.capabilities(key));
        let (asked_sets, promised_sets) = (sets(&asked), sets(&promised));
        // Executing as root gives a process its bounding and inheritable sets.
        let ceiling = promised_sets.iter().fold(0, |all, set| all | set);
        let names = [
            "bounding",
            "permitted",
            "effective",
            "inheritable",
            "ambient",
        ];
        for (i, name) in names.iter().enumerate() {
            let of = |sets: &[u64; 5]| sets.get(i).copied().unwrap_or(0);
            let limit = if matches!(*name, "permitted" | "effective") {
                ceiling
            } else {
                of(&promised_sets)
            };
            let kept = of(&found) & !limit == 0;
            lines.promise(
                format!("capabilities, {name}"),
                process::names(of(&asked_sets)),
                process::names(of(&promised_sets)),
                process::names(of(&found)),
                kept,
            );
        }
        let (a, p) = (
            asked.no_new_privileges() == Some(true),
            promised.no_new_privileges() == Some(true),
        );
        let found = self.status.get("NoNewPrivs") == "1";
        lines.promise("no_new_privs", on(a), on(p), on(found), found || !p);
        for (typ, name) in [
            (PosixRlimitType::RlimitNofile, "Max open files"),
            (PosixRlimitType::RlimitCore, "Max core file size"),
        ] {
            let of = |p: &Process| {
                let all = p.rlimits().clone().unwrap_or_default();
                let found = all.iter().find(|r| r.typ() == typ);
                found.map(|r| (r.soft(), r.hard()))
            };
            let Some(promised) = of(&promised) else {
                continue;
            };
            let show = |limit: Option<(u64, u64)>| {
                limit.map_or("none".to_owned(), |(soft, hard)| {
                    format!("{soft} to {hard}")
                })
            };
            let found = process::limit(self.pid(), name);
            let kept = found.is_some_and(|(_, hard)| hard <= promised.1);
            lines.promise(
                typ.to_string(),
                show(of(&asked)),
                show(Some(promised)),
                show(found),
                kept,
            );
        }
        let wanted = promised
            .apparmor_profile()
            .clone()
            .filter(|p| !p.is_empty());
        for (module, wanted) in [
            ("apparmor", wanted),
            (
                "selinux",
                promised.selinux_label().clone().filter(|l| !l.is_empty()),
            ),
        ] {
            if let Some(wanted) = wanted {
                let found = process::label(self.pid(), module);
                let kept = found.as_ref() == Some(&wanted);
                let found = found.unwrap_or_else(|| "none".into());
                lines.promise(module, &wanted, &wanted, found, kept);
            }
        }
    }

    fn system_calls(&self, lines: &mut Lines) {
        lines.section = "system calls";
        let own = self
            .asked
            .linux()
            .as_ref()
            .and_then(|l| l.seccomp().as_ref());
        let floor = self.profile.seccomp.filter.is_some();
        let promised = u64::from(self.container.filters);
        let mode = self.status.get("Seccomp");
        let found = self.status.number("Seccomp_filters");
        let kept = promised == 0 || (mode == "2" && found.is_none_or(|n| n >= promised));
        let asked = match own {
            Some(_) => "the pod's filter",
            None => "no filter",
        };
        let name = self
            .profile
            .seccomp
            .floor
            .as_deref()
            .unwrap_or("of actions");
        let wanted = match own {
            _ if !floor => asked.to_owned(),
            Some(_) => format!("the floor {name:?} and the pod's filter"),
            None => format!("the floor {name:?}"),
        };
        let found = match (mode, found) {
            ("2", Some(n)) => format!("filters: {n}, of which {promised} from here"),
            ("2", None) => "filters".into(),
            ("1", _) => "strict mode".into(),
            _ => "no filter".into(),
        };
        lines.promise("seccomp", asked, wanted, found, kept);
        if promised > 0 {
            let reported = if self.container.watched {
                "logged and counted"
            } else {
                "not seen"
            };
            lines.push("denied calls", "", "", reported, Mark::Note);
        }
    }

    /// What only the profile speaks of.
    fn kernel(&self, lines: &mut Lines) {
        lines.section = "kernel";
        let process = &self.profile.process;
        let speculation = |key: &str| self.status.get(key).to_owned();
        for (feature, what, key) in [
            (0, "no store bypass", "Speculation_Store_Bypass"),
            (
                1,
                "no indirect branch speculation",
                "SpeculationIndirectBranch",
            ),
        ] {
            let found = speculation(key);
            if !process.mitigate_speculation {
                continue;
            }
            if ["", "unknown", "unsupported"].contains(&found.as_str()) {
                lines.push(what, "no", "yes", "not told by this kernel", Mark::NotShown);
                continue;
            }
            // arch/x86/kernel/cpu/bugs.c, fs/proc/array.c
            let good = ["mitigated", "not vulnerable", "disabled", "not affected"];
            let kept = good.iter().any(|g| found.contains(g));
            let shown = if !kept && confine::speculates_for_good(feature) {
                format!("{found}: this kernel has no switch for this processor")
            } else {
                found
            };
            lines.added(what, true, shown, kept);
        }
        let cookie = confine::core_scheduling_cookie(self.pid());
        let shown = match cookie {
            Ok(0) => "shared with others".to_owned(),
            Ok(_) => "the container's own".to_owned(),
            Err(e) => format!("this kernel has none ({})", e.desc()),
        };
        lines.added(
            "processor cores",
            process.core_scheduling,
            shown,
            cookie.is_ok_and(|c| c != 0),
        );
        let unavailable = |key: &str| {
            let all = &self.container.unavailable;
            all.iter()
                .filter(|u| u.starts_with(key))
                .cloned()
                .collect::<Vec<_>>()
        };
        for lacking in unavailable("landlock") {
            lines.promise(
                "landlock",
                "no",
                "yes",
                format!("this kernel lacks it: {lacking}"),
                false,
            );
        }
        let landlock = &self.profile.landlock;
        let mut parts: Vec<String> = Vec::new();
        if !landlock.scopes.is_empty() {
            parts.push(format!("scopes {:?}", landlock.scopes));
        }
        for (name, count) in [
            ("execute", landlock.execute.as_ref().map(Vec::len)),
            ("write", landlock.write.as_ref().map(Vec::len)),
            ("tcp_bind", landlock.tcp_bind.as_ref().map(Vec::len)),
            ("tcp_connect", landlock.tcp_connect.as_ref().map(Vec::len)),
        ] {
            parts.extend(count.map(|n| format!("{name}: {n} entries")));
        }
        for (what, wanted, detail) in [
            ("landlock", !parts.is_empty(), parts.join(", ")),
            ("securebits", process.lock_securebits, "locked".to_owned()),
            (
                "memory writable or executable",
                process.write_xor_execute && unavailable("process.write_xor").is_empty(),
                "never one after the other".to_owned(),
            ),
        ] {
            if wanted {
                lines.push(what, "no", &detail, &detail, Mark::NotShown);
            }
        }
        for lacking in unavailable("process.write_xor") {
            lines.promise("memory writable or executable", "no", "yes", lacking, false);
        }
    }

    fn namespaces(&self, lines: &mut Lines) {
        use LinuxNamespaceType as T;
        lines.section = "namespaces";
        for (typ, name, file) in [
            (T::Mount, "mount", "mnt"),
            (T::Pid, "pid", "pid"),
            (T::Network, "network", "net"),
            (T::Ipc, "ipc", "ipc"),
            (T::Uts, "uts", "uts"),
            (T::Cgroup, "cgroup", "cgroup"),
            (T::Time, "time", "time"),
        ] {
            let of = |spec: &Spec| namespace(spec, typ).map(|n| n.path().clone());
            let show = |namespace: &Option<Option<std::path::PathBuf>>| match namespace {
                None => "the node's".to_owned(),
                Some(None) => "its own".to_owned(),
                Some(Some(path)) => format!("shared: {}", path.display()),
            };
            let (asked, promised) = (of(&self.asked), of(&self.promised));
            let found = process::namespace(self.pid(), file);
            let node = found == process::namespace(self.pod.pid, file);
            let joined = promised
                .as_ref()
                .and_then(|p| p.as_ref())
                .and_then(|p| process::inode(p));
            let others = self.sharers(file, found);
            let (text, kept) = match (&promised, joined) {
                (None, _) => (
                    if node {
                        "the node's".into()
                    } else {
                        "its own".into()
                    },
                    true,
                ),
                (Some(_), _) if node => ("the node's".to_owned(), false),
                (Some(Some(_)), Some(inode)) if Some(inode) != found => {
                    ("another one".to_owned(), false)
                }
                _ if others.is_empty() => ("private".to_owned(), true),
                _ => (format!("shared with {}", others.join(" ")), true),
            };
            if typ == T::Time && promised.is_none() {
                continue;
            }
            lines.promise(name, show(&asked), show(&promised), text, kept);
        }
    }

    /// The other containers of the pod in a namespace.
    fn sharers(&self, file: &str, namespace: Option<u64>) -> Vec<String> {
        let others = self.pod.containers.iter();
        others
            .filter(|c| c.id != self.container.id && c.status == "running")
            .filter(|c| process::namespace(c.pid, file) == namespace)
            .map(|c| c.id.chars().take(12).collect())
            .collect()
    }

    fn files(&self, lines: &mut Lines) -> Result<(), String> {
        lines.section = "files";
        let mounts =
            Mounts::of(self.pid()).ok_or_else(|| format!("process {} is gone", self.pid()))?;
        let read_only = |spec: &Spec| {
            let root = spec.root().clone();
            root.is_some_and(|r| r.readonly() == Some(true))
        };
        let wanted = read_only(&self.promised);
        if let At::Mount { mount, .. } = mounts.at(Path::new("/")) {
            let found = mount.has("ro");
            let show = |ro| if ro { "read-only" } else { "writable" };
            lines.promise(
                "root",
                show(read_only(&self.asked)),
                show(wanted),
                show(found),
                found || !wanted,
            );
        }
        let empty = Vec::new();
        let asked = self.asked.mounts().as_ref().unwrap_or(&empty);
        let promised = self.promised.mounts().as_ref().unwrap_or(&empty);
        for (i, mount) in promised.iter().enumerate() {
            // Of two on one place the later one is seen.
            let later = promised.get(i + 1..).unwrap_or_default();
            if !later.iter().any(|m| m.destination() == mount.destination()) {
                one_mount(&mounts, asked.get(i), mount, lines);
            }
        }
        let profile = &self.profile.filesystem;
        if let At::Mount { mount, .. } = mounts.at(Path::new("/proc")) {
            let shown = mount.super_options.join(",");
            let hidden = mount.has("hidepid=invisible") || mount.has("hidepid=2");
            lines.added("/proc hides others", profile.hide_processes, &shown, hidden);
            let subset = mount.has("subset=pid");
            lines.added(
                "/proc has processes only",
                profile.only_processes,
                &shown,
                subset,
            );
        }
        self.covered(&mounts, lines);
        Ok(())
    }

    /// Masked and read-only paths.
    fn covered(&self, mounts: &Mounts, lines: &mut Lines) {
        let of = |spec: &Spec, read_only: bool| {
            let linux = spec.linux().clone().unwrap_or_default();
            let paths = if read_only {
                linux.readonly_paths().clone()
            } else {
                linux.masked_paths().clone()
            };
            paths.unwrap_or_default()
        };
        for (what, read_only) in [("masked", false), ("read-only", true)] {
            let asked = of(&self.asked, read_only);
            for path in of(&self.promised, read_only) {
                let (found, kept) = match mounts.at(Path::new(&path)) {
                    At::Nothing => ("nothing is there".to_owned(), true),
                    At::Unknown(e) => (format!("cannot be told: {}", e.desc()), false),
                    At::Mount { mount, .. } if read_only => {
                        let ro = mount.has("ro");
                        ((if ro { "read-only" } else { "writable" }).to_owned(), ro)
                    }
                    At::Mount {
                        mount,
                        root,
                        is_null,
                        is_dir,
                    } => {
                        let empty = is_dir && mount.fstype == "tmpfs" && mount.has("ro");
                        let covered = root && (is_null || empty);
                        (
                            (if covered { "covered" } else { "open" }).to_owned(),
                            covered,
                        )
                    }
                };
                let before = if asked.contains(&path) { what } else { "no" };
                lines.promise(path, before, what, found, kept);
            }
        }
    }

    fn limits(&self, lines: &mut Lines) -> Result<(), String> {
        lines.section = "limits";
        let resources = |spec: &Spec| {
            let linux = spec.linux().clone().unwrap_or_default();
            linux.resources().clone().unwrap_or_default()
        };
        let compare = |spec: &Spec| {
            let compared = self.cgroup.compare(&resources(spec));
            compared.map_err(|e| e.to_string())
        };
        let promised = compare(&self.promised)?;
        let asked = compare(&self.asked).unwrap_or_default();
        for limit in promised.into_iter().filter(|l| !l.optional) {
            let before = asked.iter().find(|a| a.file == limit.file);
            let before = before.map_or("no limit", |a| &a.wanted);
            let Some(found) = &limit.found else {
                lines.promise(&limit.file, before, &limit.wanted, "no such file", false);
                continue;
            };
            let kept = limits::same(&limit.wanted, found);
            if !kept && self.container.updated {
                let what = format!("{found} (changed by an update)");
                lines.push(&limit.file, before, &limit.wanted, what, Mark::Kept);
            } else {
                lines.promise(&limit.file, before, &limit.wanted, found, kept);
            }
        }
        let programs = self.cgroup.programs();
        if self.cgroup.is_v2() {
            let (devices, _) = programs.unwrap_or((0, 0));
            let shown = format!("eBPF programs: {devices}");
            lines.promise("devices", "filtered", "filtered", shown, devices > 0);
        } else if let Some(dir) = self.cgroup.controller_dir("devices") {
            let list = std::fs::read_to_string(dir.join("devices.list")).unwrap_or_default();
            let all = list.lines().any(|l| l.trim() == "a *:* rwm");
            let open = resources(&self.promised)
                .devices()
                .iter()
                .flatten()
                .any(|r| r.allow() && r.major().is_none() && r.access().as_deref() != Some("m"));
            let wanted = if open { "all" } else { "filtered" };
            let shown = if all {
                "all".to_owned()
            } else {
                format!("rules: {}", list.lines().count())
            };
            lines.promise("devices", wanted, wanted, shown, open || !all);
        }
        if let Some(egress) = &self.profile.network.egress {
            let (_, connect) = programs.unwrap_or((0, 0));
            let shown = format!("eBPF programs for connect: {connect}");
            let wanted = format!("loopback and {} destinations", egress.len());
            lines.promise("egress", "everywhere", wanted, shown, connect > 0);
        }
        Ok(())
    }

    /// Execs, and what they and the init started: each has what the profile gives to all.
    fn other_processes(&self, lines: &mut Lines) {
        lines.section = "other processes";
        let pids: Vec<i32> = self.cgroup.pids();
        let ceiling = self.profile.process.capabilities.as_ref().map(|names| {
            let bit = |n: &String| capabilities::NAMES.iter().position(|k| k == n);
            let bits = names.iter().filter_map(bit);
            bits.fold(0u64, |mask, bit| mask | 1 << bit)
        });
        let node = process::namespace(self.pod.pid, "user");
        let private = process::namespace(self.pid(), "user") != node;
        let mut looked_at = 0;
        for pid in pids.into_iter().filter(|p| *p != self.pid()) {
            let Some(status) = Status::of(pid) else {
                continue;
            };
            // A kernel task's, or a dead process's.
            if status.get("State").starts_with('Z') {
                continue;
            }
            looked_at += 1;
            let beyond = ceiling.map_or(0, |c| status.capabilities("CapBnd") & !c);
            let bare = self.container.filters > 0 && status.get("Seccomp") != "2";
            let may = self.profile.process.no_new_privileges && status.get("NoNewPrivs") != "1";
            let node = private && process::namespace(pid, "user") == node;
            for (broken, what, found) in [
                (
                    beyond != 0,
                    "capabilities, bounding",
                    process::names(beyond),
                ),
                (bare, "seccomp", "no filter".to_owned()),
                (may, "no_new_privs", "no".to_owned()),
                (node, "user namespace", "the node's".to_owned()),
            ] {
                if broken {
                    let name = format!("{pid} ({}): {what}", status.get("Name"));
                    lines.promise(name, "", "as the profile says", found, false);
                }
            }
        }
        lines.push(
            "checked",
            "",
            "",
            format!("{looked_at} beside the init"),
            Mark::Note,
        );
    }
}

/// The flags of a mount that keep something from happening.
fn one_mount(mounts: &Mounts, asked: Option<&Mount>, promised: &Mount, lines: &mut Lines) {
    const FLAGS: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];
    let of = |mount: Option<&Mount>| -> Vec<&str> {
        let options = mount.and_then(|m| m.options().as_ref());
        let has = |flag: &&str| options.into_iter().flatten().any(|o| o == *flag);
        FLAGS.into_iter().filter(has).collect()
    };
    let show = |flags: &[&str]| {
        if flags.is_empty() {
            "-".to_owned()
        } else {
            flags.join(",")
        }
    };
    let (before, wanted) = (of(asked), of(Some(promised)));
    let (found, kept) = match mounts.at(promised.destination()) {
        At::Nothing => ("nothing is there".to_owned(), false),
        At::Unknown(e) => (format!("cannot be told: {}", e.desc()), false),
        At::Mount { mount, .. } => {
            let found: Vec<&str> = FLAGS.into_iter().filter(|f| mount.has(f)).collect();
            let kept = wanted.iter().all(|w| found.contains(w));
            (show(&found), kept)
        }
    };
    lines.promise(
        promised.destination().display().to_string(),
        show(&before),
        show(&wanted),
        found,
        kept,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_for_each_case() {
        let mut lines = Lines {
            section: "x",
            all: Vec::new(),
        };
        lines.promise("a", "no", "yes", "yes", true);
        lines.promise("b", "yes", "yes", "yes", true);
        lines.promise("c", "no", "yes", "no", false);
        lines.promise("d", "yes", "yes", "no", false);
        lines.added("e", false, "no", false);
        let marks: Vec<Mark> = lines.all.iter().map(|l| l.mark).collect();
        assert_eq!(
            marks,
            [Mark::Tightened, Mark::Kept, Mark::Missing, Mark::Missing]
        );
    }
}
