//! What init and exec have in common: everything in `process`. The same code for both, so that an exec is never confined
//! less than its container's init.

use std::collections::HashSet;
use std::ffi::CString;
use std::sync::Arc;

use oci_spec::runtime::{PosixRlimitType, Process, User};

use super::confinement::Confinement;
use super::error::c_string;
use super::script::{Step, UserProgram};
use super::{Error, Result, Stdio, lsm, scheduling};
use crate::oci::capabilities::{SYS_ADMIN, Sets};
use crate::seccomp::Program;
use crate::sys::creds;
use crate::sys::process::CStrVec;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_UMASK: u32 = 0o022;

/// A process, ready to be turned into steps.
pub(super) struct Plan<'a> {
    pub process: &'a Process,
    pub stdio: Stdio,
    pub seccomp: Option<Arc<Program>>,
    /// Loaded instead of the floor and `seccomp`: the two in one, which asks.
    pub watched: Option<Arc<Program>>,
    /// Session keyring to join, unless the runtime's options forbid it.
    pub keyring: Option<CString>,
    /// How many descriptors after the standard three the program gets.
    pub preserve_fds: u32,
    /// It runs in a user namespace other than the runtime's.
    pub mapped: bool,
    /// What a profile adds.
    pub confinement: Option<Arc<Confinement>>,
    /// The container's init, for an exec.
    pub init: Option<i32>,
    /// Whether it comes into a container that is there.
    pub exec: bool,
}

/// Each variable once: the last one counts, as for every program that looks one up. An empty `HOME` is none, as with runc.
fn environment(list: &[String]) -> Result<Vec<&str>> {
    let mut seen = HashSet::new();
    let mut env = Vec::with_capacity(list.len());
    for (i, entry) in list.iter().enumerate().rev() {
        let Some((key, value)) = entry.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Error::field(
                format!("process.env[{i}]"),
                format!("{entry:?} is not KEY=VALUE"),
            ));
        };
        let is_last = seen.insert(key);
        if is_last && !(key == "HOME" && value.is_empty()) {
            env.push(entry.as_str());
        }
    }
    env.reverse();
    Ok(env)
}

/// The program, its arguments and environment.
pub(super) fn program(process: &Process) -> Result<UserProgram> {
    let args = process.args().as_deref().unwrap_or_default();
    let Some(name) = args.first().filter(|a| !a.is_empty()) else {
        return Err(Error::field(
            "process.args",
            "is empty: the container has no program to run",
        ));
    };
    let env = environment(process.env().as_deref().unwrap_or_default())?;
    let value = |key: &str| {
        env.iter()
            .find_map(|e| e.strip_prefix(key)?.strip_prefix('='))
    };
    let candidates = if name.contains('/') {
        vec![c_string(name.as_str(), "process.args[0]")?]
    } else {
        value("PATH")
            .unwrap_or(DEFAULT_PATH)
            .split(':')
            .map(|dir| {
                c_string(
                    if dir.is_empty() {
                        format!("./{name}")
                    } else {
                        format!("{dir}/{name}")
                    },
                    "process.args[0]",
                )
            })
            .collect::<Result<_>>()?
    };
    let args = args.iter().enumerate();
    let args = args.map(|(i, s)| c_string(s.as_str(), &format!("process.args[{i}]")));
    let env_strings = env.iter().map(|s| c_string(*s, "process.env"));
    let env_strings = env_strings.collect::<Result<_>>()?;
    let has_home = value("HOME").is_some();
    Ok(UserProgram {
        candidates,
        argv: CStrVec::new(args.collect::<Result<_>>()?),
        env: if has_home {
            CStrVec::new(env_strings)
        } else {
            CStrVec::with_buffer(env_strings, b"HOME=/", 1024)
        },
        home_of: (!has_home).then_some(process.user().uid()),
    })
}

/// 2^32-1 means "leave it as it is" to the kernel: an id that is not changed is root's.
fn check_ids(user: &User) -> Result<()> {
    let extra = user
        .additional_gids()
        .iter()
        .flatten()
        .map(|g| ("additionalGids", "group", *g));
    let ids = [("uid", "user", user.uid()), ("gid", "group", user.gid())];
    match ids
        .into_iter()
        .chain(extra)
        .find(|(_, _, id)| *id == u32::MAX)
    {
        Some((field, kind, id)) => Err(Error::field(
            format!("process.user.{field}"),
            format!("{id} is not a {kind}"),
        )),
        None => Ok(()),
    }
}

impl Plan<'_> {
    /// What must happen while the host's procfs is still in reach.
    pub(crate) fn early_steps(&self, steps: &mut Vec<Step>) -> Result<()> {
        check_ids(self.process.user())?;
        let groups = self.process.user().additional_gids().as_ref();
        if creds::are_groups_denied() && groups.is_some_and(|g| !g.is_empty()) {
            return Err(Error::field(
                "process.user.additionalGids",
                "cannot be set in a user namespace of a single group: give the user more in /etc/subgid",
            ));
        }
        if let Some(adj) = self.process.oom_score_adj() {
            if !(-1000..=1000).contains(&adj) {
                return Err(Error::field(
                    "process.oomScoreAdj",
                    format!("{adj} is not between -1000 and 1000"),
                ));
            }
            let current = crate::procfs::read("/proc/self/oom_score_adj")
                .ok()
                .and_then(|s| s.trim().parse::<i32>().ok());
            if current != Some(adj) {
                steps.push(Step::WriteProc {
                    path: c"/proc/self/oom_score_adj".to_owned(),
                    value: adj.to_string().into_bytes(),
                    what: format!(
                        "process.oomScoreAdj: set to {adj} (lowering it needs CAP_SYS_RESOURCE on the node; \
                         restrict_oom_score_adj = true in containerd's CRI configuration avoids that)"
                    ),
                });
            }
        }
        Ok(())
    }

    /// Whether labels will be written.
    pub(crate) fn has_labels(&self) -> bool {
        !lsm::labels(self.process).is_empty()
    }

    /// Opens what the labels will be written to: the files of the very process that is to execute the program, so after it went on as
    /// another one, and those of the node's procfs, while that is in reach or kept.
    pub(crate) fn label_steps(&self, steps: &mut Vec<Step>) -> Result<()> {
        for label in lsm::labels(self.process) {
            label.check()?;
            steps.push(Step::OpenLsm {
                path: label.file.to_owned(),
                field: label.field,
            });
        }
        Ok(())
    }

    /// The terminal, which needs the container's `/dev/pts`; for an init, before its root becomes the root.
    pub(crate) fn stdio_step(&mut self, console: bool, steps: &mut Vec<Step>) {
        let uid = self.process.user().uid();
        let none = Stdio::Terminal {
            size: None,
            plain: false,
        };
        match std::mem::replace(&mut self.stdio, none) {
            Stdio::Files(fds) => steps.push(Step::Stdio(fds)),
            Stdio::Terminal { size, plain } => steps.push(Step::Terminal {
                uid,
                size,
                plain,
                console,
            }),
        }
    }

    /// From limits to the filter, in this order: rlimits, keyring, groups, user,
    /// capabilities, `no_new_privs`, seccomp. An init's gate, and its hooks, come before the filter.
    pub(crate) fn late_steps(&self, gate: Option<Step>, steps: &mut Vec<Step>) -> Result<()> {
        self.limit_steps(steps)?;
        self.place_steps(steps)?;
        self.identity_steps(steps)?;
        steps.push(Step::FindProgram);
        steps.extend(gate);
        self.filter_steps(steps)
    }

    /// Limits and scheduling.
    fn limit_steps(&self, steps: &mut Vec<Step>) -> Result<()> {
        let p = self.process;
        for (i, r) in p.rlimits().iter().flatten().enumerate() {
            let (resource, name) = rlimit(r.typ());
            if r.soft() > r.hard() {
                return Err(Error::field(
                    format!("process.rlimits[{i}]"),
                    format!(
                        "{name}: soft limit {} is above the hard limit {}",
                        r.soft(),
                        r.hard()
                    ),
                ));
            }
            steps.push(Step::Rlimit {
                resource,
                soft: r.soft(),
                hard: r.hard(),
                name,
            });
        }
        scheduling::steps(p, steps)
    }

    /// Keyring, working directory and labels.
    fn place_steps(&self, steps: &mut Vec<Step>) -> Result<()> {
        let p = self.process;
        if let Some(name) = &self.keyring {
            steps.push(Step::Keyring(name.clone()));
        }
        if !p.cwd().is_absolute() {
            return Err(Error::field(
                "process.cwd",
                format!("{:?} is not an absolute path", p.cwd()),
            ));
        }
        steps.push(Step::WorkingDirectory {
            path: c_string(p.cwd().as_os_str().as_encoded_bytes(), "process.cwd")?,
            make: !self.exec,
        });
        let labels = lsm::labels(p).into_iter();
        steps.extend(labels.map(|label| Step::ApplyLsm {
            label: label.text,
            field: label.field,
        }));
        Ok(())
    }

    /// Users, groups and capabilities.
    fn identity_steps(&self, steps: &mut Vec<Step>) -> Result<()> {
        let p = self.process;
        let nnp = p.no_new_privileges().unwrap_or(false);
        let caps = Sets::from_spec(p.capabilities().as_ref());
        // The root of a user namespace has them all there.
        let caps = if self.mapped {
            caps
        } else {
            caps.grantable(creds::permitted())
        };
        let caps = caps.possible();
        if caps.effective & !caps.permitted != 0 {
            return Err(Error::field(
                "process.capabilities.effective",
                "has capabilities that are not in the permitted set",
            ));
        }
        // Without no_new_privs the filter needs CAP_SYS_ADMIN. It stays in the permitted set until exec, which computes the
        // set anew from the bounding, inheritable and ambient sets (capabilities(7)), so the program never has it.
        let confinement = self.confinement.as_deref();
        if let Some(c) = confinement {
            c.privileged_steps(&caps, self.init, steps);
        }
        let restricts = self.seccomp.is_some() || self.watched.is_some() || confinement.is_some();
        let keep = if restricts && !nnp { SYS_ADMIN } else { 0 };
        steps.push(Step::Credentials {
            uid: p.user().uid(),
            gid: p.user().gid(),
            groups: p.user().additional_gids().clone().unwrap_or_default(),
            caps,
            keep,
        });
        steps.push(Step::Umask(
            p.user().umask().unwrap_or(DEFAULT_UMASK) & 0o7777,
        ));
        if nnp {
            steps.push(Step::NoNewPrivileges);
        }
        Ok(())
    }

    /// The profile's last steps, and the filters.
    fn filter_steps(&self, steps: &mut Vec<Step>) -> Result<()> {
        let confinement = self.confinement.as_deref();
        let floor = confinement.and_then(|c| c.floor.as_ref());
        // Before the filter, which may deny it.
        steps.push(Step::CloseOnExec {
            first: self.preserve_fds.saturating_add(3),
        });
        if let Some(c) = confinement {
            c.last_steps(steps)?;
        }
        // The floor first: the spec's own filter may deny the loading of filters.
        let load = |program: &Arc<Program>| Step::Seccomp {
            program: program.clone(),
        };
        match &self.watched {
            Some(both) => steps.push(load(both)),
            None => steps.extend(floor.into_iter().chain(&self.seccomp).map(load)),
        }
        Ok(())
    }
}

/// The kernel's number and the spec's name, `setrlimit(2)`.
fn rlimit(kind: PosixRlimitType) -> (u32, &'static str) {
    use PosixRlimitType as T;
    match kind {
        T::RlimitCpu => (libc::RLIMIT_CPU, "RLIMIT_CPU"),
        T::RlimitFsize => (libc::RLIMIT_FSIZE, "RLIMIT_FSIZE"),
        T::RlimitData => (libc::RLIMIT_DATA, "RLIMIT_DATA"),
        T::RlimitStack => (libc::RLIMIT_STACK, "RLIMIT_STACK"),
        T::RlimitCore => (libc::RLIMIT_CORE, "RLIMIT_CORE"),
        T::RlimitRss => (libc::RLIMIT_RSS, "RLIMIT_RSS"),
        T::RlimitNproc => (libc::RLIMIT_NPROC, "RLIMIT_NPROC"),
        T::RlimitNofile => (libc::RLIMIT_NOFILE, "RLIMIT_NOFILE"),
        T::RlimitMemlock => (libc::RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK"),
        T::RlimitAs => (libc::RLIMIT_AS, "RLIMIT_AS"),
        T::RlimitLocks => (libc::RLIMIT_LOCKS, "RLIMIT_LOCKS"),
        T::RlimitSigpending => (libc::RLIMIT_SIGPENDING, "RLIMIT_SIGPENDING"),
        T::RlimitMsgqueue => (libc::RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE"),
        T::RlimitNice => (libc::RLIMIT_NICE, "RLIMIT_NICE"),
        T::RlimitRtprio => (libc::RLIMIT_RTPRIO, "RLIMIT_RTPRIO"),
        T::RlimitRttime => (libc::RLIMIT_RTTIME, "RLIMIT_RTTIME"),
    }
}
