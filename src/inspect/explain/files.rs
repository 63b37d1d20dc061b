//! `explain`: mounts, hidden paths and limits.

use std::path::Path;

use oci_spec::runtime::{Mount, Spec};

use super::{Case, Error, Lines, Mark};
use crate::inspect::limits;
use crate::inspect::mounts::{At, Mounts};
use crate::isolation::EgressRule;

impl Case<'_> {
    pub(super) fn files(&self, lines: &mut Lines) -> Result<(), Error> {
        lines.section = "files";
        let mounts =
            Mounts::of(self.pid()).ok_or_else(|| Error::Ended(self.container.id.clone()))?;
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
    pub(super) fn covered(&self, mounts: &Mounts, lines: &mut Lines) {
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

    pub(super) fn limits(&self, lines: &mut Lines) -> Result<(), Error> {
        lines.section = "limits";
        let resources = |spec: &Spec| {
            let linux = spec.linux().clone().unwrap_or_default();
            linux.resources().clone().unwrap_or_default()
        };
        let compare = |spec: &Spec| self.cgroup.compare(&resources(spec));
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
            let one = |rule: &EgressRule| {
                let port = rule.port.map(|p| format!(" port {p}"));
                let protocol = rule.protocol.map(|p| format!(" {p:?}").to_lowercase());
                format!(
                    "{}{}{}",
                    rule.to,
                    port.unwrap_or_default(),
                    protocol.unwrap_or_default()
                )
            };
            let to: Vec<String> = egress.iter().map(one).collect();
            let wanted = format!("loopback, {}", to.join(", "));
            let shown = format!("{wanted}; {shown}");
            lines.promise("egress", "everywhere", wanted, shown, connect > 0);
        }
        Ok(())
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
