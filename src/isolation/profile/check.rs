//! Whether the values of a profile can be, and the floor's filter that they make.

use std::path::PathBuf;

use super::Profile;
use super::schema::{capability, device};
use crate::isolation::floor;
use crate::isolation::pool::RANGE;

/// A value that is well-formed and wrong.
pub(super) struct Wrong {
    /// The key, as in `limits.pids.max`.
    pub key: String,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl Wrong {
    pub(super) fn new(key: &str, text: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            text: text.into(),
        }
    }
}

impl Profile {
    /// Checks every value, and builds the floor's filter from those that decide on it. Returns keys, and what is wrong with their values.
    pub(super) fn check(&mut self) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        self.check_limits(&mut wrong);
        self.check_names(&mut wrong);
        self.check_pool(&mut wrong);
        self.check_paths(&mut wrong);
        if let Err(e) = self.build_floor() {
            wrong.push(e);
        }
        wrong
    }

    fn check_limits(&self, wrong: &mut Vec<Wrong>) {
        for (key, limit) in [
            ("limits.pids", self.limits.pids),
            ("limits.memory", self.limits.memory),
            ("limits.swap", self.limits.swap),
            ("limits.cpu", self.limits.cpu),
            ("limits.open_files", self.limits.open_files),
            ("limits.core_size", self.limits.core_size),
        ] {
            if let (Some(default), Some(max)) = (limit.default, limit.max)
                && default > max
            {
                let text = format!(
                    "the default {default} is above the max {max}: set both, an inherited default stays"
                );
                wrong.push(Wrong::new(key, text));
            }
            for (value, part) in [(limit.default, "default"), (limit.max, "max")] {
                if value.is_some_and(|v| v > i64::MAX as u64) {
                    wrong.push(Wrong::new(&format!("{key}.{part}"), "is too large"));
                }
                if value == Some(0) && !matches!(key, "limits.core_size" | "limits.swap") {
                    wrong.push(Wrong::new(
                        &format!("{key}.{part}"),
                        "0 would start nothing",
                    ));
                }
            }
        }
    }

    /// What has a form of its own: capabilities, devices, destinations.
    fn check_names(&self, wrong: &mut Vec<Wrong>) {
        for name in self.process.capabilities.iter().flatten() {
            if capability(name).is_none() {
                let text = format!("{name:?} is not a capability (like \"CAP_CHOWN\")");
                wrong.push(Wrong::new("process.capabilities", text));
            }
        }
        for device in self.pod.devices.iter().flatten() {
            if self::device(device).is_none() {
                let text = format!("{device:?}: expected \"c MAJOR:MINOR\" or \"b MAJOR:MINOR\"");
                wrong.push(Wrong::new("pod.devices", text));
            }
        }
        for rule in self.network.egress.iter().flatten() {
            if rule.network().is_none() {
                let text = format!(
                    "{:?} is neither an address nor a network (like \"10.0.0.0/8\")",
                    rule.to
                );
                wrong.push(Wrong::new("network.egress", text));
            }
        }
    }

    fn check_pool(&self, wrong: &mut Vec<Wrong>) {
        let pool = self.user_namespace.pool;
        if !pool.first.is_multiple_of(RANGE) || pool.first == 0 {
            let text = format!("{} is not a multiple of 65536 above 0", pool.first);
            wrong.push(Wrong::new("user_namespace.pool.first", text));
        }
        // The last id of all, 4294967295, is none: chown(2).
        let most = (u32::MAX - pool.first) / RANGE;
        if !(1..=most).contains(&pool.ranges) {
            let text = format!(
                "{}: expected 1 to {most} ranges of 65536 ids from {} on",
                pool.ranges, pool.first
            );
            wrong.push(Wrong::new("user_namespace.pool.ranges", text));
        }
    }

    fn check_paths(&self, wrong: &mut Vec<Wrong>) {
        let landlock = &self.landlock;
        // These stand for themselves and what is below them. A wildcard would stand for nothing, and `..` hides the place that is meant.
        let plain = |p: &&PathBuf| {
            let words = p.to_string_lossy();
            !words.contains('*') && !words.split('/').any(|w| w == ".." || w == ".")
        };
        let places = [
            ("landlock.execute", landlock.execute.as_ref()),
            ("landlock.write", landlock.write.as_ref()),
            ("pod.host_paths", self.pod.host_paths.as_ref()),
            (
                "pod.forbidden_host_paths",
                Some(&self.pod.forbidden_host_paths),
            ),
        ];
        for (key, paths) in places {
            for path in paths.into_iter().flatten().filter(|p| !plain(p)) {
                let text = format!("{path:?}: expected a path without wildcards, \"..\" and \".\"");
                wrong.push(Wrong::new(key, text));
            }
        }
        for (key, paths) in places.into_iter().chain([
            ("pod.hooks", self.pod.hooks.as_ref()),
            ("pod.loggers", self.pod.loggers.as_ref()),
            ("pod.seccomp_agents", self.pod.seccomp_agents.as_ref()),
            ("landlock.execute", landlock.execute.as_ref()),
            ("landlock.write", landlock.write.as_ref()),
        ]) {
            for path in paths.into_iter().flatten().filter(|p| !p.is_absolute()) {
                wrong.push(Wrong::new(key, format!("{path:?} is not an absolute path")));
            }
        }
        for (key, paths) in [
            ("filesystem.masked_paths", &self.filesystem.masked_paths),
            (
                "filesystem.read_only_paths",
                &self.filesystem.read_only_paths,
            ),
        ] {
            for path in paths.iter().filter(|p| !p.starts_with('/')) {
                wrong.push(Wrong::new(key, format!("{path:?} is not an absolute path")));
            }
        }
    }

    fn build_floor(&mut self) -> Result<(), Wrong> {
        let floor = match self.seccomp.floor.as_deref() {
            None | Some("none") if self.seccomp.actions.is_empty() => None,
            None | Some("none") => Some(floor::empty()),
            Some("hardened") => Some(floor::hardened()),
            Some("untrusted") => Some(floor::untrusted()),
            Some(path) if path.starts_with('/') => Some(Self::floor_file(path)?),
            Some(other) => {
                let text = format!(
                    "{other:?} is none of \"none\", \"hardened\", \"untrusted\" and no absolute path"
                );
                return Err(Wrong::new("seccomp.floor", text));
            }
        };
        if let Some(name) = self
            .seccomp
            .actions
            .keys()
            .find(|n| !crate::seccomp::is_known(n))
        {
            let text = format!("{name:?} is not a system call");
            return Err(Wrong::new("seccomp.actions", text));
        }
        let floor = floor.map(|f| floor::with_actions(f, &self.seccomp.actions));
        self.seccomp.filter = floor::with_needs_of(floor, self);
        Ok(())
    }
}
