//! The processes in a container's groups: listed, signalled, killed, frozen.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::directory::{child_groups, is_gone};
use super::error::io_error;
use super::{Cgroup, Error, Result, stats, v1, v2};
use crate::sys;

impl Cgroup {
    /// Every process in the group and below it; as many as can be read.
    pub fn pids(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        self.collect_pids(&mut pids).ok();
        pids
    }

    fn collect_pids(&self, pids: &mut Vec<i32>) -> Result<()> {
        match self.layout.process_tree() {
            Some(h) => collect_pids(&self.dir(h), pids),
            None => Ok(()),
        }
    }

    /// Sends `signal` to every process in the group.
    pub fn signal_all(&self, signal: i32) {
        if signal == libc::SIGKILL
            && let Some(dir) = self.unified_dir()
            && fs::write(dir.join("cgroup.kill"), "1").is_ok()
        {
            // cgroup.kill (Linux 5.14) is atomic, and reaches frozen processes too, unless the v1 freezer holds them.
            self.thaw_v1();
            return;
        }
        for pid in self.pids() {
            sys::process::kill(pid, signal).ok();
        }
        if signal == libc::SIGKILL {
            self.thaw_v1();
        }
    }

    /// Kills everything in the group and waits until it is empty, for at most `within`.
    pub fn kill_and_wait(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let mut pause = Duration::from_micros(200);
        loop {
            let mut left = Vec::new();
            // A group that cannot be read, because descriptors have run out, is not empty.
            let read = self.collect_pids(&mut left);
            if read.is_ok() && left.is_empty() {
                return Ok(());
            }
            self.signal_all(libc::SIGKILL);
            if Instant::now() >= deadline {
                read?;
                return Err(Error::Busy {
                    path: self.path.clone(),
                    count: left.len(),
                    within,
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn thaw_v1(&self) {
        if let Some(dir) = self
            .layout
            .find("freezer")
            .filter(|h| !h.v2)
            .map(|h| self.dir(h))
        {
            fs::write(dir.join("freezer.state"), "THAWED").ok();
        }
    }

    /// Freezes or thaws the group, and waits until it is so.
    pub fn set_frozen(&self, frozen: bool) -> Result<()> {
        self.must_exist("pause")?;
        if let Some(h) = self.layout.find("freezer").filter(|h| !h.v2) {
            return v1::set_frozen(&self.dir(h), frozen);
        }
        match self.unified_dir() {
            Some(dir) => v2::set_frozen(&dir, frozen),
            None => Err(Error::Unavailable {
                field: "pause".into(),
                reason: "this node has no freezer".into(),
            }),
        }
    }

    /// Whether the group is frozen.
    pub fn is_frozen(&self) -> bool {
        if let Some(h) = self.layout.find("freezer").filter(|h| !h.v2) {
            let state = fs::read_to_string(self.dir(h).join("freezer.state"));
            return state.is_ok_and(|s| s.trim() != "THAWED");
        }
        let dir = self.unified_dir();
        dir.is_some_and(|d| stats::single(&d.join("cgroup.freeze")) == Some(1))
    }
}

/// The processes of a `cgroup.procs`.
pub(super) fn read_pids(file: &Path) -> Result<Vec<i32>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text.lines().filter_map(|l| l.parse().ok()).collect()),
        // A threaded group has no processes of its own: they are at the top of its domain.
        Err(e) if is_gone(&e) || e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        Err(e) => Err(io_error("read", file)(e)),
    }
}

/// Whether a group has processes, or one below it has: whoever ends the group kills them all.
pub(super) fn has_processes(dir: &Path) -> Result<bool> {
    let mut pids = Vec::new();
    collect_pids(dir, &mut pids)?;
    Ok(!pids.is_empty())
}

fn collect_pids(dir: &Path, pids: &mut Vec<i32>) -> Result<()> {
    pids.extend(read_pids(&dir.join("cgroup.procs"))?);
    for child in child_groups(dir)? {
        collect_pids(&child, pids)?;
    }
    Ok(())
}
