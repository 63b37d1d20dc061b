//! `explain`: users, processes and system calls.

use std::collections::BTreeSet;

use oci_spec::runtime::{LinuxNamespaceType, PosixRlimitType, Process, Spec};

use super::{Case, Lines, Mark, maps, mask, namespace, on, show_maps};
use crate::inspect::process::{self, Status};
use crate::isolation::UserNamespaceMode;
use crate::oci::capabilities;
use crate::seccomp::{self, Program};
use crate::show::first_of;
use crate::sys::tracer;

impl Case<'_> {
    pub(super) fn users(&self, lines: &mut Lines) {
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

    pub(super) fn process(&self, lines: &mut Lines) {
        lines.section = "process";
        let (asked, promised) = (
            Self::process_of(&self.asked),
            Self::process_of(&self.promised),
        );
        self.capabilities(&asked, &promised, lines);
        let (a, p) = (
            asked.no_new_privileges() == Some(true),
            promised.no_new_privileges() == Some(true),
        );
        let found = self.status.get("NoNewPrivs") == "1";
        lines.promise("no_new_privs", on(a), on(p), on(found), found || !p);
        self.rlimits(&asked, &promised, lines);
        self.labels(&promised, lines);
    }

    fn capabilities(&self, asked: &Process, promised: &Process, lines: &mut Lines) {
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
        let (asked_sets, promised_sets) = (sets(asked), sets(promised));
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
    }

    fn rlimits(&self, asked: &Process, promised: &Process, lines: &mut Lines) {
        for (typ, name) in [
            (PosixRlimitType::RlimitNofile, "Max open files"),
            (PosixRlimitType::RlimitCore, "Max core file size"),
        ] {
            let of = |p: &Process| {
                let all = p.rlimits().clone().unwrap_or_default();
                let found = all.iter().find(|r| r.typ() == typ);
                found.map(|r| (r.soft(), r.hard()))
            };
            let Some(promised) = of(promised) else {
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
                show(of(asked)),
                show(Some(promised)),
                show(found),
                kept,
            );
        }
    }

    /// Labels of security modules.
    fn labels(&self, promised: &Process, lines: &mut Lines) {
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

    pub(super) fn system_calls(&self, lines: &mut Lines) {
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

    /// What is in the filters of the init, and whether they deny all that the profile and the pod deny.
    pub(super) fn filters(&self, lines: &mut Lines) {
        let own = self.asked.linux().as_ref();
        let own = own.and_then(|l| l.seccomp().as_ref());
        let wanted = [self.profile.seccomp.filter.as_ref(), own];
        let wanted = wanted.into_iter().flatten().map(seccomp::compile);
        let wanted = match wanted.collect::<Result<Vec<Program>, _>>() {
            Ok(wanted) => wanted,
            Err(e) => {
                let why = format!("what is to be in them cannot be compiled: {e}");
                return lines.push("filters read back", "", "", why, Mark::NotShown);
            }
        };
        let read = match tracer::seccomp_filters(self.pid()) {
            Ok(read) => read,
            Err(e) => {
                let why = format!("cannot be read: {}", e.desc());
                return lines.push("filters read back", "", "", why, Mark::NotShown);
            }
        };
        let read: Vec<Program> = read.into_iter().map(Program::of_kernel).collect();
        let denied = |filters: &[Program]| {
            let is_denied = |name: &String| filters.iter().any(|f| f.denies(name));
            seccomp::own_calls()
                .filter(is_denied)
                .collect::<BTreeSet<String>>()
        };
        let (promised, found) = (denied(&wanted), denied(&read));
        let lost: Vec<&str> = promised.difference(&found).map(String::as_str).collect();
        let lengths = read.iter().map(|f| f.insns.len().to_string());
        let lengths: Vec<String> = lengths.collect();
        let text = match (lost.is_empty(), lengths.is_empty()) {
            (true, true) => "no filter".to_owned(),
            (true, false) => format!(
                "{} calls denied, by filters of {} instructions",
                found.len(),
                first_of(&lengths, 8)
            ),
            (false, _) => format!("allowed, against the profile: {}", lost.join(" ")),
        };
        let promised = format!("{} calls denied", promised.len());
        lines.promise("filters read back", "", promised, text, lost.is_empty());
    }

    /// Execs, and what they and the init started: each has what the profile gives to all.
    pub(super) fn other_processes(&self, lines: &mut Lines) {
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
