//! What is added to every process of a pod, init or exec, whatever its spec says: the second half of an isolation profile,
//! the one that OCI's fields cannot express.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::c_string;
use super::script::{Ruleset, Step};
use super::{Error, Result};
use crate::cgroup::Destination;
use crate::oci::capabilities::Sets;
use crate::seccomp::Program;
use crate::sys::confine::{self, landlock as ll};
use crate::sys::kernel;

// linux/securebits.h
const NOROOT_LOCKED: u64 = 0x3;
const NO_AMBIENT_RAISE_LOCKED: u64 = 0xc0;

/// Landlock, as a profile has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Landlock {
    /// Abstract unix sockets stay inside.
    pub scope_abstract: bool,
    /// Signals stay inside.
    pub scope_signal: bool,
    /// Where programs may be executed from.
    pub execute: Option<Vec<PathBuf>>,
    /// Where files may be changed.
    pub write: Option<Vec<PathBuf>>,
    /// Ports to listen on.
    pub tcp_bind: Option<Vec<u16>>,
    /// Ports to connect to.
    pub tcp_connect: Option<Vec<u16>>,
}

/// The additions.
#[derive(Debug, Default)]
pub struct Confinement {
    /// Loaded before the spec's own filter.
    pub floor: Option<Arc<Program>>,
    /// Landlock.
    pub landlock: Landlock,
    /// No ambient capabilities, and no capabilities by being root.
    pub lock_securebits: bool,
    /// Memory is writable or executable.
    pub write_xor_execute: bool,
    /// Speculation is off.
    pub mitigate_speculation: bool,
    /// Processor cores are not shared with other pods.
    pub core_scheduling: bool,
    /// Where processes may connect to, beside loopback; everywhere without.
    pub egress: Option<Vec<Destination>>,
}

impl Landlock {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What of this a kernel with this version of Landlock cannot do.
    fn missing(&self, abi: u32) -> Vec<String> {
        let ports = self.tcp_bind.is_some() || self.tcp_connect.is_some();
        let paths = self.execute.is_some() || self.write.is_some();
        [
            (
                self.scope_abstract || self.scope_signal,
                6,
                "scopes (Linux 6.12)",
            ),
            (ports, 4, "TCP ports (Linux 6.7)"),
            (self.write.is_some(), 3, "truncation of files (Linux 6.2)"),
            (paths, 1, "paths (Linux 5.13)"),
        ]
        .into_iter()
        .filter(|(wanted, since, _)| *wanted && abi < *since)
        .map(|(_, _, what)| format!("landlock: {what}"))
        .collect()
    }

    fn ruleset(&self, abi: u32) -> Result<Option<Ruleset>> {
        if self.is_empty() || abi == 0 {
            return Ok(None);
        }
        let mut rules = Ruleset::default();
        let mut write = ll::WRITE_V1;
        if abi >= 2 {
            write |= ll::REFER;
        }
        if abi >= 3 {
            write |= ll::TRUNCATE;
        }
        for (paths, access, key) in [
            (&self.execute, ll::EXECUTE, "landlock.execute"),
            (&self.write, write, "landlock.write"),
        ] {
            if let Some(paths) = paths {
                rules.fs |= access;
                for path in paths {
                    let path = c_string(path.as_os_str().as_encoded_bytes(), key)?;
                    rules.paths.push((path, access));
                }
            }
        }
        if abi >= 4 {
            for (ports, access) in [
                (&self.tcp_bind, ll::BIND_TCP),
                (&self.tcp_connect, ll::CONNECT_TCP),
            ] {
                if let Some(ports) = ports {
                    rules.net |= access;
                    rules.ports.extend(ports.iter().map(|p| (*p, access)));
                }
            }
        }
        if abi >= 6 {
            for (wanted, scope) in [
                (self.scope_abstract, ll::SCOPE_ABSTRACT_UNIX_SOCKET),
                (self.scope_signal, ll::SCOPE_SIGNAL),
            ] {
                if wanted {
                    rules.scoped |= scope;
                }
            }
        }
        // Any Landlock domain keeps other processes from tracing this one, whatever it denies. If nothing above makes
        // a domain, deny the making of block devices, which these processes cannot do anyway.
        if rules == Ruleset::default() && abi >= 2 {
            rules.fs = ll::MAKE_BLOCK;
        }
        // Moving files between directories is denied by every ruleset for paths that does not say otherwise.
        if rules.fs != 0 && rules.fs & ll::REFER == 0 && abi >= 2 {
            rules.fs |= ll::REFER;
            rules.paths.push((c"/".to_owned(), ll::REFER));
        }
        Ok((rules != Ruleset::default()).then_some(rules))
    }
}

impl Confinement {
    /// What of this the running kernel cannot do, for people.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = self.landlock.missing(kernel::landlock_abi());
        if self.write_xor_execute && kernel::version() < (6, 3) {
            missing.push("process.write_xor_execute (Linux 6.3)".into());
        }
        if self.core_scheduling && !kernel::has_core_scheduling() {
            missing.push("process.core_scheduling (Linux 5.14, CONFIG_SCHED_CORE)".into());
        }
        for (feature, what) in [(0, "store bypass"), (1, "indirect branches")] {
            if self.mitigate_speculation && confine::speculates_for_good(feature) {
                missing.push(format!(
                    "process.mitigate_speculation: {what} (Linux 4.17, and a switch for this processor)"
                ));
            }
        }
        missing
    }

    /// Before capabilities are dropped. `init` is the container's init for an exec.
    pub(super) fn privileged_steps(&self, caps: &Sets, init: Option<i32>, steps: &mut Vec<Step>) {
        if self.core_scheduling && kernel::has_core_scheduling() {
            steps.push(Step::CoreScheduling { from: init });
        }
        if self.lock_securebits {
            let mut bits = 0;
            if caps.ambient == 0 {
                bits |= NO_AMBIENT_RAISE_LOCKED;
            }
            // Root that is to have capabilities gets them from executing as root.
            if caps.permitted == 0 {
                bits |= NOROOT_LOCKED;
            }
            if bits != 0 {
                steps.push(Step::Securebits(bits));
            }
        }
    }

    /// The steps that come last, before the seccomp filters.
    pub(super) fn last_steps(&self, steps: &mut Vec<Step>) -> Result<()> {
        if self.mitigate_speculation {
            steps.push(Step::MitigateSpeculation);
        }
        if self.write_xor_execute && kernel::version() >= (6, 3) {
            steps.push(Step::WriteXorExecute);
        }
        if let Some(rules) = self.landlock.ruleset(kernel::landlock_abi())? {
            steps.push(Step::Landlock(Box::new(rules)));
        }
        Ok(())
    }

    /// An error where Landlock is required and not whole.
    pub fn require_landlock(&self) -> Result<()> {
        let missing = self.landlock.missing(kernel::landlock_abi());
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Error::field(
                "landlock.required",
                format!("this kernel lacks {}", missing.join(", ")),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_landlock_does_what_it_can_and_says_the_rest() {
        let all = Landlock {
            scope_abstract: true,
            scope_signal: true,
            execute: Some(vec!["/bin".into()]),
            write: Some(vec!["/tmp".into()]),
            tcp_bind: Some(vec![80]),
            tcp_connect: None,
        };
        let new = all.ruleset(7).unwrap().unwrap();
        assert_eq!((new.scoped, new.net, new.ports.len()), (3, 1, 1));
        assert_eq!(
            new.fs & (ll::EXECUTE | ll::TRUNCATE),
            ll::EXECUTE | ll::TRUNCATE
        );
        assert!(all.missing(7).is_empty());
        let old = all.ruleset(1).unwrap().unwrap();
        assert_eq!((old.scoped, old.net, old.fs & ll::TRUNCATE), (0, 0, 0));
        assert_eq!(all.missing(1).len(), 3);
        assert!(all.ruleset(0).unwrap().is_none());
        // Scopes alone: a domain, and files can still be moved.
        let scopes = Landlock {
            scope_abstract: true,
            ..Landlock::default()
        };
        let old = scopes.ruleset(2).unwrap().unwrap();
        assert_eq!(old.fs, ll::MAKE_BLOCK | ll::REFER);
        assert_eq!(old.paths, [(c"/".to_owned(), ll::REFER)]);
        assert_eq!(scopes.ruleset(6).unwrap().unwrap().fs, 0);
        assert!(Landlock::default().ruleset(7).unwrap().is_none());
    }
}
