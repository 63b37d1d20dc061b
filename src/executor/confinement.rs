//! What is added to every process of a pod, init or exec, whatever its spec says: the second half of an isolation profile,
//! the one that OCI's fields cannot express.

use std::ffi::CStr;
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
    /// Beside both: what nearly every program needs.
    pub essentials: bool,
    /// Denials are recorded by the kernel's audit, where it can.
    pub audit: bool,
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

/// Programs that are executed for others: loaders by the kernel, and the pause container's by the CRI. A rule holds for the file that is
/// there when a process starts.
const LOADERS: [&CStr; 8] = [
    c"/lib64/ld-linux-x86-64.so.2",
    c"/lib/ld-linux-aarch64.so.1",
    c"/lib/ld-linux-riscv64-lp64d.so.1",
    c"/lib/ld-musl-x86_64.so.1",
    c"/lib/ld-musl-aarch64.so.1",
    c"/lib/ld-musl-riscv64.so.1",
    c"/lib64/ld64.so.1",
    c"/pause",
];
/// Files that programs write to without changing anything that lasts.
pub const SINKS: [&CStr; 10] = [
    c"/dev/null",
    c"/dev/zero",
    c"/dev/full",
    c"/dev/random",
    c"/dev/urandom",
    c"/dev/tty",
    c"/dev/console",
    c"/dev/ptmx",
    // The process's output, which /dev/stdout and /dev/stderr lead to: named pipes of the node, in no directory of the container.
    c"/proc/self/fd/1",
    c"/proc/self/fd/2",
];
/// The same, for the files below: terminals, and a process's own settings (those of the node are read-only there).
pub const SINK_DIRECTORIES: [&CStr; 2] = [c"/dev/pts", c"/proc"];

/// Kinds of speculation that can be turned off: the kernel's number (linux/prctl.h), and what there is then, for people.
pub const SPECULATION: [(u64, &str); 2] = [
    (0, "no store bypass"),
    (1, "no indirect branch speculation"),
];

/// What this machine cannot do of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The profile's key, or its table.
    pub key: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// Why it cannot be had, and what would help, for people.
    pub why: &'static str,
}

impl Landlock {
    fn is_empty(&self) -> bool {
        let Self {
            scope_abstract,
            scope_signal,
            execute,
            write,
            essentials: _,
            audit: _,
            tcp_bind,
            tcp_connect,
        } = self;
        let lists = execute.is_some() || write.is_some();
        let ports = tcp_bind.is_some() || tcp_connect.is_some();
        !(*scope_abstract || *scope_signal || lists || ports)
    }

    /// What of this a kernel with this version of Landlock cannot do, each with the version that can.
    fn missing(&self, abi: u32) -> Vec<&'static str> {
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
        .map(|(_, _, what)| what)
        .collect()
    }

    fn ruleset(&self, abi: u32) -> Result<Option<Ruleset>> {
        if self.is_empty() || abi == 0 {
            return Ok(None);
        }
        let mut rules = Ruleset {
            audit: self.audit && abi >= 7,
            ..Ruleset::default()
        };
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
        if self.essentials && self.execute.as_ref().is_some_and(|l| !l.is_empty()) {
            let loaders = LOADERS.into_iter().map(CStr::to_owned);
            rules.files.extend(loaders.map(|path| (path, ll::EXECUTE)));
        }
        if self.essentials && self.write.is_some() {
            let into_files = write & (ll::WRITE_FILE | ll::TRUNCATE);
            let rule = |path: &CStr| (path.to_owned(), into_files);
            rules.files.extend(SINKS.into_iter().map(rule));
            rules.paths.extend(SINK_DIRECTORIES.into_iter().map(rule));
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
        if (rules.fs, rules.net, rules.scoped) == (0, 0, 0) && abi >= 2 {
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
    /// What of this the running kernel cannot do.
    pub fn missing(&self) -> Vec<Missing> {
        let of_landlock = self.landlock.missing(kernel::landlock_abi()).into_iter();
        let mut missing: Vec<Missing> = of_landlock
            .map(|what| Missing {
                key: "landlock",
                what,
                why: "this kernel's Landlock is older, or turned off (lsm= on its command line)",
            })
            .collect();
        let mut add = |key, what, why| missing.push(Missing { key, what, why });
        if self.write_xor_execute && kernel::version() < (6, 3) {
            let why = "it needs Linux 6.3";
            add(
                "process.write_xor_execute",
                "memory writable or executable",
                why,
            );
        }
        if self.core_scheduling
            && let Err(why) = kernel::core_scheduling()
        {
            add("process.core_scheduling", "processor cores", why);
        }
        for (feature, what) in SPECULATION {
            if self.mitigate_speculation && confine::speculates_for_good(feature) {
                let why = "this processor, or its hypervisor, offers no switch for it: nothing can be done on this machine";
                add("process.mitigate_speculation", what, why);
            }
        }
        missing
    }

    /// Before capabilities are dropped. `init` is the container's init for an exec.
    pub(super) fn privileged_steps(&self, caps: &Sets, init: Option<i32>, steps: &mut Vec<Step>) {
        if self.core_scheduling && kernel::core_scheduling().is_ok() {
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
            essentials: true,
            audit: false,
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
        // Beside the lists what nearly every program needs, and with it nothing is made or removed.
        let right = |path: &CStr| new.files.iter().find(|(p, _)| p.as_c_str() == path);
        assert_eq!(right(c"/pause").unwrap().1, ll::EXECUTE);
        assert_eq!(
            right(c"/dev/null").unwrap().1,
            ll::WRITE_FILE | ll::TRUNCATE
        );
        let exact = Landlock {
            essentials: false,
            audit: false,
            ..all.clone()
        };
        let exact = exact.ruleset(7).unwrap().unwrap();
        assert_eq!((exact.paths.len(), exact.files.len()), (2, 0));
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
