//! `explain`: what the kernel forces on a process, and its namespaces.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::{Case, Lines, Mark, namespace};
use crate::executor::SPECULATION;
use crate::inspect::process::{self};
use crate::sys::confine;

impl Case<'_> {
    /// What only the profile speaks of.
    pub(super) fn kernel(&self, lines: &mut Lines) {
        lines.section = "kernel";
        self.speculation(lines);
        self.core_scheduling(lines);
        self.not_shown(lines);
    }

    /// What this machine cannot do of a key, or of the table that it is.
    fn unavailable(&self, key: &str) -> impl Iterator<Item = &crate::control::Unavailable> {
        let all = self.container.unavailable.iter();
        all.filter(move |lack| lack.key == key)
    }

    fn speculation(&self, lines: &mut Lines) {
        let key = "process.mitigate_speculation";
        if !self.profile.process.mitigate_speculation.is_wanted() {
            return;
        }
        let fields = ["Speculation_Store_Bypass", "SpeculationIndirectBranch"];
        for ((_, what), field) in SPECULATION.into_iter().zip(fields) {
            let found = self.status.get(field).to_owned();
            // arch/x86/kernel/cpu/bugs.c, fs/proc/array.c
            let good = ["mitigated", "not vulnerable", "disabled", "not affected"];
            let kept = good.iter().any(|g| found.contains(g));
            if let Some(lack) = self.unavailable(key).find(|l| l.what == what && !kept) {
                lines.unavailable(lack);
            } else if ["", "unknown", "unsupported"].contains(&found.as_str()) {
                lines.push(what, "no", "yes", "not told by this kernel", Mark::NotShown);
            } else {
                lines.added(what, true, found, kept);
            }
        }
    }

    fn core_scheduling(&self, lines: &mut Lines) {
        if let Some(lack) = self.unavailable("process.core_scheduling").next() {
            lines.unavailable(lack);
            return;
        }
        let wanted = self.profile.process.core_scheduling.is_wanted();
        let cookie = confine::core_scheduling_cookie(self.pid());
        let shown = match cookie {
            Ok(0) => "shared with others".to_owned(),
            Ok(_) => "the container's own".to_owned(),
            Err(e) => format!("cannot be told: {}", e.desc()),
        };
        lines.added(
            "processor cores",
            wanted,
            shown,
            cookie.is_ok_and(|c| c != 0),
        );
    }

    /// What the kernel shows nothing of from outside.
    fn not_shown(&self, lines: &mut Lines) {
        let process = &self.profile.process;
        let (landlock, wxe) = ("landlock", "process.write_xor_execute");
        for lack in self.unavailable(landlock).chain(self.unavailable(wxe)) {
            lines.unavailable(lack);
        }
        let has_wxe =
            process.write_xor_execute.is_wanted() && self.unavailable(wxe).next().is_none();
        let landlock = &self.profile.landlock;
        let mut parts: Vec<String> = Vec::new();
        if !landlock.scopes.is_empty() {
            parts.push(format!("scopes {:?}", landlock.scopes));
        }
        let paths = |list: &Option<Vec<PathBuf>>| {
            let list = list.as_ref()?.iter().map(|p| p.display().to_string());
            Some(list.collect::<Vec<_>>())
        };
        let ports = |list: &Option<Vec<u16>>| {
            let list = list.as_ref()?.iter().map(ToString::to_string);
            Some(list.collect::<Vec<_>>())
        };
        for (name, list) in [
            ("execute", paths(&landlock.execute)),
            ("write", paths(&landlock.write)),
            ("tcp_bind", ports(&landlock.tcp_bind)),
            ("tcp_connect", ports(&landlock.tcp_connect)),
        ] {
            parts.extend(list.map(|list| match list.as_slice() {
                [] => format!("{name}: nothing"),
                list => format!("{name}: {}", list.join(" ")),
            }));
        }
        for (what, wanted, detail) in [
            ("landlock", !parts.is_empty(), parts.join(", ")),
            ("securebits", process.lock_securebits, "locked".to_owned()),
            (
                "memory writable or executable",
                has_wxe,
                "never one after the other".to_owned(),
            ),
        ] {
            if wanted {
                lines.push(what, "no", &detail, &detail, Mark::NotShown);
            }
        }
    }

    pub(super) fn namespaces(&self, lines: &mut Lines) {
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
    pub(super) fn sharers(&self, file: &str, namespace: Option<u64>) -> Vec<String> {
        let others = self.pod.containers.iter();
        others
            .filter(|c| c.id != self.container.id && c.status == "running")
            .filter(|c| process::namespace(c.pid, file) == namespace)
            .map(|c| c.id.chars().take(12).collect())
            .collect()
    }
}
