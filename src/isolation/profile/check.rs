//! Whether the values of a profile can be, and the floor's filter that they make.

use std::path::PathBuf;

use super::schema::{capability, device};
use super::{Error, Profile};
use crate::isolation::floor;
use crate::isolation::pool::RANGE;

impl Profile {
    /// Checks every value, and builds the floor's filter from those that decide on it.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        self.check_limits()?;
        self.check_names()?;
        self.check_pool()?;
        self.check_paths()?;
        self.build_floor()
    }

    fn check_limits(&self) -> Result<(), Error> {
        for (key, limit) in [
            ("limits.pids", self.limits.pids),
            ("limits.memory", self.limits.memory),
            ("limits.swap", self.limits.swap),
            ("limits.millicpus", self.limits.millicpus),
            ("limits.open_files", self.limits.open_files),
            ("limits.core_size", self.limits.core_size),
        ] {
            if let (Some(default), Some(max)) = (limit.default, limit.max)
                && default > max
            {
                let text = format!(
                    "the default {default} is above the max {max}: set both, an inherited default stays"
                );
                return Err(self.wrong(key, text));
            }
            for (value, part) in [(limit.default, "default"), (limit.max, "max")] {
                if value.is_some_and(|v| v > i64::MAX as u64) {
                    return Err(self.wrong(&format!("{key}.{part}"), "is too large"));
                }
                if value == Some(0) && !matches!(key, "limits.core_size" | "limits.swap") {
                    return Err(self.wrong(&format!("{key}.{part}"), "0 would start nothing"));
                }
            }
        }
        Ok(())
    }

    /// What has a form of its own: capabilities, devices, destinations.
    fn check_names(&self) -> Result<(), Error> {
        for name in self.process.capabilities.iter().flatten() {
            if capability(name).is_none() {
                let text = format!("{name:?} is not a capability (like \"CAP_CHOWN\")");
                return Err(self.wrong("process.capabilities", text));
            }
        }
        for device in self.pod.devices.iter().flatten() {
            if self::device(device).is_none() {
                let text = format!("{device:?}: expected \"c MAJOR:MINOR\" or \"b MAJOR:MINOR\"");
                return Err(self.wrong("pod.devices", text));
            }
        }
        for rule in self.network.egress.iter().flatten() {
            if rule.network().is_none() {
                let text = format!(
                    "{:?} is neither an address nor a network (like \"10.0.0.0/8\")",
                    rule.to
                );
                return Err(self.wrong("network.egress", text));
            }
        }
        Ok(())
    }

    fn check_pool(&self) -> Result<(), Error> {
        let pool = self.user_namespace.pool;
        if !pool.first.is_multiple_of(RANGE) || pool.first == 0 {
            let text = format!("{} is not a multiple of 65536 above 0", pool.first);
            return Err(self.wrong("user_namespace.pool.first", text));
        }
        // The last id of all, 4294967295, is none: chown(2).
        let most = (u32::MAX - pool.first) / RANGE;
        if !(1..=most).contains(&pool.ranges) {
            let text = format!(
                "{}: expected 1 to {most} ranges of 65536 ids from {} on",
                pool.ranges, pool.first
            );
            return Err(self.wrong("user_namespace.pool.ranges", text));
        }
        Ok(())
    }

    fn check_paths(&self) -> Result<(), Error> {
        let absolute = |paths: &[PathBuf]| paths.iter().find(|p| !p.is_absolute()).cloned();
        let landlock = &self.landlock;
        // These stand for themselves and what is below them. A wildcard would stand for nothing, and `..` hides the place that is meant.
        let plain = |p: &&PathBuf| {
            let words = p.to_string_lossy();
            !words.contains('*') && !words.split('/').any(|w| w == ".." || w == ".")
        };
        let places = [
            ("pod.host_paths", self.pod.host_paths.as_ref()),
            (
                "pod.forbidden_host_paths",
                Some(&self.pod.forbidden_host_paths),
            ),
        ];
        for (key, paths) in places {
            if let Some(path) = paths.into_iter().flatten().find(|p| !plain(p)) {
                let text = format!("{path:?}: expected a path without wildcards, \"..\" and \".\"");
                return Err(self.wrong(key, text));
            }
        }
        for (key, paths) in places.into_iter().chain([
            ("pod.hooks", self.pod.hooks.as_ref()),
            ("pod.loggers", self.pod.loggers.as_ref()),
            ("pod.seccomp_agents", self.pod.seccomp_agents.as_ref()),
            ("landlock.execute", landlock.execute.as_ref()),
            ("landlock.write", landlock.write.as_ref()),
        ]) {
            if let Some(path) = paths.and_then(|p| absolute(p)) {
                return Err(self.wrong(key, format!("{path:?} is not an absolute path")));
            }
        }
        for (key, paths) in [
            ("filesystem.masked_paths", &self.filesystem.masked_paths),
            (
                "filesystem.read_only_paths",
                &self.filesystem.read_only_paths,
            ),
        ] {
            if let Some(path) = paths.iter().find(|p| !p.starts_with('/')) {
                return Err(self.wrong(key, format!("{path:?} is not an absolute path")));
            }
        }
        Ok(())
    }

    fn build_floor(&mut self) -> Result<(), Error> {
        let floor = match self.seccomp.floor.as_deref() {
            None | Some("none") if self.seccomp.actions.is_empty() => None,
            None | Some("none") => Some(floor::empty()),
            Some("hardened") => Some(floor::hardened()),
            Some("untrusted") => Some(floor::untrusted()),
            Some(path) if path.starts_with('/') => Some(self.floor_file(path)?),
            Some(other) => {
                let text = format!(
                    "{other:?} is none of \"none\", \"hardened\", \"untrusted\" and no absolute path"
                );
                return Err(self.wrong("seccomp.floor", text));
            }
        };
        if let Some(name) = self
            .seccomp
            .actions
            .keys()
            .find(|n| !crate::seccomp::is_known(n))
        {
            let text = format!("{name:?} is not a system call");
            return Err(self.wrong("seccomp.actions", text));
        }
        let floor = floor.map(|f| floor::with_actions(f, &self.seccomp.actions));
        self.seccomp.filter = floor::with_needs_of(floor, self);
        Ok(())
    }
}
