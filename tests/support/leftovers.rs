//! Finds what a daemon's containers left behind: processes, mounts, cgroups, fifos, sockets, bundles.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Daemon, kill};

/// Everything that is left, a line each.
pub fn find(daemon: &Daemon) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(
        daemon
            .shims()
            .into_iter()
            .map(|p| format!("shim process {p}")),
    );
    found.extend(groups(daemon).into_iter().map(|g| {
        format!(
            "cgroup {} with processes {:?}",
            g.display(),
            processes_in(&g)
        )
    }));
    found.extend(mounts(daemon).into_iter().map(|m| format!("mount {m}")));
    found.extend(
        tasks(daemon)
            .into_iter()
            .map(|b| format!("bundle {}", b.display())),
    );
    let mut fifos = Vec::new();
    collect_fifos(daemon.dir(), &mut fifos);
    found.extend(fifos.into_iter().map(|f| format!("fifo {}", f.display())));
    found.extend(
        sockets(daemon)
            .into_iter()
            .map(|s| format!("socket {}", s.display())),
    );
    found
}

/// Waits for everything to go; panics with what stays.
#[track_caller]
pub fn assert_none(daemon: &Daemon) {
    let end = Instant::now() + Duration::from_secs(10) * super::slowness();
    loop {
        let found = find(daemon);
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "left behind:\n{}", found.join("\n"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Bundles of containers.
pub fn tasks(daemon: &Daemon) -> Vec<PathBuf> {
    let dir = daemon
        .dir()
        .join("state/io.containerd.runtime.v2.task")
        .join(daemon.namespace());
    fs::read_dir(dir)
        .map(|d| d.flatten().map(|e| e.path()).collect())
        .unwrap_or_default()
}

/// Cgroups of the daemon's containers in every hierarchy.
pub fn groups(daemon: &Daemon) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        for parent in [
            daemon.cgroup_parent().trim_start_matches('/').to_owned(),
            daemon.namespace(),
        ] {
            let top = hierarchy.join(&parent);
            if parent == "k8s.io" || !top.exists() || found.contains(&top) {
                continue;
            }
            collect_groups(&top, &mut found);
        }
    }
    found
}

/// Where the cgroup hierarchies are mounted.
pub fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts
        .lines()
        .filter(|l| l.contains(" - cgroup"))
        .filter_map(|l| l.split(' ').nth(4))
        .map(PathBuf::from)
        .collect()
}

fn collect_groups(dir: &Path, out: &mut Vec<PathBuf>) {
    for e in fs::read_dir(dir).into_iter().flatten().flatten() {
        if e.file_type().is_ok_and(|t| t.is_dir()) {
            collect_groups(&e.path(), out);
        }
    }
    out.push(dir.to_owned());
}

fn processes_in(group: &Path) -> Vec<i32> {
    fs::read_to_string(group.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|l| l.parse().ok())
        .collect()
}

/// Mounts below the daemon's bundles, as the node sees them.
fn mounts(daemon: &Daemon) -> Vec<String> {
    let bundles = daemon
        .dir()
        .join("state/io.containerd.runtime.v2.task")
        .display()
        .to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts
        .lines()
        .filter(|l| l.contains(&bundles))
        .map(str::to_owned)
        .collect()
}

fn collect_fifos(dir: &Path, out: &mut Vec<PathBuf>) {
    for e in fs::read_dir(dir).into_iter().flatten().flatten() {
        match e.file_type() {
            // The images' own files are of no interest.
            Ok(t) if t.is_dir() && e.file_name() != "root" => collect_fifos(&e.path(), out),
            Ok(t) if t.is_fifo() => out.push(e.path()),
            _ => {}
        }
    }
}

fn sockets(daemon: &Daemon) -> Vec<PathBuf> {
    daemon
        .sockets()
        .into_iter()
        .filter(|p| p.exists())
        .collect()
}

/// Kills what is in a group and below it, and removes it.
pub fn remove_group(top: &Path) {
    remove_groups(|| {
        let mut groups = Vec::new();
        if top.exists() {
            collect_groups(top, &mut groups);
        }
        groups
    });
}

/// Kills and removes until `find` finds no more, for a bounded time.
fn remove_groups(find: impl Fn() -> Vec<PathBuf>) {
    for round in 0..50 {
        let groups = find();
        for group in &groups {
            processes_in(group).into_iter().for_each(kill);
            fs::write(group.join("freezer.state"), "THAWED").ok();
            fs::remove_dir(group).ok();
        }
        if groups.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(if round < 10 { 5 } else { 50 }));
    }
}

/// Removes by force what a failed test left, so that it does not disturb the next.
pub fn remove(daemon: &Daemon) {
    for pid in daemon.shims() {
        kill(pid);
    }
    remove_groups(|| groups(daemon));
    for path in sockets(daemon) {
        fs::remove_file(path).ok();
    }
    for _ in 0..64 {
        let dir = daemon.dir().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let ours: Vec<String> = mounts
            .lines()
            .filter_map(|l| l.split(' ').nth(4))
            .filter(|m| m.starts_with(&dir))
            .map(str::to_owned)
            .collect();
        if ours.is_empty() {
            break;
        }
        for mount in ours {
            nix::mount::umount2(mount.as_str(), nix::mount::MntFlags::MNT_DETACH).ok();
        }
    }
}
