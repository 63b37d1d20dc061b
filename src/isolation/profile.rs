//! Profiles: `/etc/cofferdam/NAME.toml`, or one of the built-in ones. Every key is known or an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capability, LinuxSeccomp};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::floor;
use super::pool::{Pool, RANGE};
use crate::oci::DeviceKind;

/// Where an operator's profiles are.
pub const DIRECTORY: &str = "/etc/cofferdam";

/// The profiles that are always there, and their texts. A file of the same name takes a built-in one's place.
pub const BUILT_IN: [(&str, &str); 3] = [
    (
        "standard",
        include_str!("../../shim-config/profiles/standard.toml"),
    ),
    (
        "hardened",
        include_str!("../../shim-config/profiles/hardened.toml"),
    ),
    (
        "untrusted",
        include_str!("../../shim-config/profiles/untrusted.toml"),
    ),
];

/// Where these are from, for messages.
const BUILT_IN_ORIGIN: &str = "built in";

/// How many profiles may extend one another.
const MAX_DEPTH: usize = 8;

/// What is wrong with a profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error(
        "profile {name:?}: there is no {} and no built-in profile of this name (built in: standard, hardened, untrusted)",
        file.display()
    )]
    Unknown {
        /// Its name.
        name: String,
        /// Where it would be.
        file: PathBuf,
    },
    /// It cannot be read.
    #[error("profile {name:?}: read {}: {source}", file.display())]
    Read {
        /// Its name.
        name: String,
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is no TOML, or has keys or values that are not known. The text has line and column.
    #[error("profile {name:?} ({origin}): {text}")]
    Syntax {
        /// Its name.
        name: String,
        /// The file, or "built in".
        origin: String,
        /// What, and where.
        text: String,
    },
    /// A value that is well-formed and wrong.
    #[error("profile {name:?}: {key}: {text}")]
    Value {
        /// Its name.
        name: String,
        /// The key, as in `limits.pids.max`.
        key: String,
        /// What is wrong, and what would be right.
        text: String,
    },
}

/// A profile, with everything it extends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// The name that it was asked for by; not a key of the file.
    #[serde(skip)]
    pub name: String,
    /// The profile that this one begins with. Its tables are kept but for the keys that are set here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extends: Option<String>,
    /// What a pod may ask for.
    pub pod: Pod,
    /// Every process: inits and execs.
    pub process: Process,
    /// The floor below the pod's own filter.
    pub seccomp: Seccomp,
    /// Landlock, `landlock(7)`.
    pub landlock: Landlock,
    /// Files and mounts.
    pub filesystem: Filesystem,
    /// Limits, and ceilings for those that the pod sets.
    pub limits: Limits,
    /// Execs.
    pub exec: Exec,
    /// User namespaces.
    pub user_namespace: UserNamespace,
    /// The network.
    pub network: Network,
    /// Recording what pods use.
    pub learn: Learn,
}

/// `[learn]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Learn {
    /// Whether `cofferdam learn` records.
    pub policy: LearnPolicy,
}

/// Whether what a container uses is recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LearnPolicy {
    /// When root asks for it.
    #[default]
    Allow,
    /// Not at all: what hostile code does teaches nothing.
    Never,
    /// From the first instruction of every container's program.
    Always,
}

/// `[user_namespace]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserNamespace {
    /// Whether pods have one.
    pub mode: UserNamespaceMode,
    /// What becomes of a pod whose root, or of a volume whose file system, cannot map ids.
    pub unmappable: Unmappable,
    /// Where `auto` takes ids from.
    pub pool: Pool,
}

/// What becomes of file systems that cannot map ids (overlays that are mounted already, NFS, FUSE).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unmappable {
    /// Create fails.
    #[default]
    Refuse,
    /// A pod whose root it is has the node's users; the files of a volume are nobody's. Both are warnings in the log.
    FallBack,
}

/// Whether pods have a user namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserNamespaceMode {
    /// As the pod asks.
    #[default]
    Pod,
    /// Always: a pod that does not ask for one (`hostUsers: false`) gets one, with 65,536 ids that no other pod has.
    Auto,
    /// Pods without one are refused.
    Required,
}

/// `[network]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Which network a container has.
    pub mode: NetworkMode,
    /// Where it may connect and send to, beside loopback; left out, everywhere. Needs a cgroup v2 tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<EgressRule>>,
}

/// One destination: `{ to = "10.0.0.0/8", port = 443 }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// An address, or a network in CIDR notation.
    pub to: String,
    /// A port; left out, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl EgressRule {
    /// Address and length of the prefix.
    pub fn network(&self) -> Option<(IpAddr, u8)> {
        let (address, prefix) = match self.to.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (self.to.as_str(), None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(p) => p.parse().ok().filter(|p| *p <= bits)?,
            None => bits,
        };
        Some((address, prefix))
    }
}

/// Which network a container has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The pod's.
    #[default]
    Pod,
    /// An empty network namespace of its own, which the other containers of the pod cannot reach either.
    None,
}

/// `[pod]`: allow-lists. What is left out is not restricted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pod {
    /// Namespaces of the node that a pod may share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_namespaces: Option<BTreeSet<HostNamespace>>,
    /// Device nodes beyond the default ones: `c MAJOR:MINOR`, `b MAJOR:MINOR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<String>>,
    /// Where on the node volumes may come from: these, and what is below them. What Kubernetes and containerd made for this pod
    /// (its volumes, `/etc/hosts`, `/dev/shm` and the like) is not the node's, and need not be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_paths: Option<Vec<PathBuf>>,
    /// Paths of the node that no volume may show: neither these, nor what is above or below them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forbidden_host_paths: Vec<PathBuf>,
    /// Programs of the node that hooks may run, by their exact paths. Hooks of kind startContainer are the container's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Vec<PathBuf>>,
    /// Programs of the node that may get a container's output (`binary://`), by their exact paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loggers: Option<Vec<PathBuf>>,
    /// Sockets of the node's programs that may decide on a container's system calls (`SCMP_ACT_NOTIFY`), by their exact paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp_agents: Option<Vec<PathBuf>>,
}

/// A namespace that a pod may share with the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostNamespace {
    /// hostNetwork
    Network,
    /// hostPID
    Pid,
    /// hostIPC
    Ipc,
    /// The node's host name.
    Uts,
}

/// `[process]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// Set it whatever the pod says: `prctl(2)`, `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// A ceiling for the five sets; left out, it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// Ambient capabilities cannot be raised, and root without capabilities gains none by executing: `capabilities(7)`.
    pub lock_securebits: bool,
    /// Memory is writable or executable, never one after the other: `PR_SET_MDWE`, Linux 6.3. Breaks compilers at run time
    /// (Java, JavaScript, …).
    pub write_xor_execute: bool,
    /// `PR_SET_SPECULATION_CTRL`, where the processor can.
    pub mitigate_speculation: bool,
    /// `PR_SCHED_CORE`, Linux 5.14, where the kernel can.
    pub core_scheduling: bool,
}

/// `[seccomp]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seccomp {
    /// `none`, `hardened`, `untrusted`, or the path of a file in OCI's format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<String>,
    /// Another action for single calls of the floor, or for calls that it leaves alone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub actions: BTreeMap<String, CallAction>,
    /// Denied calls, the pod's own filter's too, are logged and counted. Each costs the caller a round trip through the shim.
    pub report_denials: bool,
    /// The floor's filter.
    #[serde(skip)]
    pub filter: Option<LinuxSeccomp>,
}

impl Default for Seccomp {
    fn default() -> Self {
        Self {
            floor: None,
            actions: BTreeMap::new(),
            report_denials: true,
            filter: None,
        }
    }
}

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallAction {
    /// The floor lets it through.
    Allow,
    /// It is let through, and the kernel's audit log has it.
    Audit,
    /// `EPERM`
    Deny,
    /// The process is killed.
    Kill,
}

/// `[landlock]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Landlock {
    /// What must not reach out of the container. Linux 6.12.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub scopes: BTreeSet<Scope>,
    /// Paths below which programs may be executed; left out, everywhere. Those that are not there are passed over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execute: Option<Vec<PathBuf>>,
    /// Paths below which files may be changed; left out, everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<Vec<PathBuf>>,
    /// TCP ports to listen on; left out, all. Linux 6.7.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_bind: Option<Vec<u16>>,
    /// TCP ports to connect to; left out, all. Linux 6.7.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_connect: Option<Vec<u16>>,
    /// What this kernel's Landlock cannot do is an error, rather than a line in the log.
    pub required: bool,
}

/// A scope of Landlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Connections to abstract unix sockets.
    AbstractUnixSocket,
    /// Signals.
    Signal,
}

/// `[filesystem]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filesystem {
    /// The root file system is read-only whatever the pod says.
    pub read_only_root: bool,
    /// Mounts that can be written to get `noexec`, `nosuid` and `nodev`.
    pub no_exec_mounts: bool,
    /// `/proc` with `hidepid=invisible`.
    pub hide_processes: bool,
    /// `/proc` with `subset=pid`: processes, and nothing of the kernel's. Many programs miss `/proc/meminfo` and `/proc/stat`.
    pub only_processes: bool,
    /// Hidden, in addition to the pod's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub masked_paths: Vec<String>,
    /// Read-only, in addition to the pod's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read_only_paths: Vec<String>,
}

/// A value for pods that set none, and a ceiling for those that do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limit {
    /// Where the pod says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<u64>,
    /// Where it says more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

/// `[limits]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Processes and threads of a container.
    pub pids: Limit,
    /// Bytes of memory of a container.
    pub memory: Limit,
    /// Bytes that may be swapped out, beyond those of its memory. For containers that have a limit of memory; 0 is no swap.
    pub swap: Limit,
    /// CPU of a container, in thousandths of a processor.
    pub millicpus: Limit,
    /// Open files of a process, `RLIMIT_NOFILE`.
    pub open_files: Limit,
    /// Bytes of a core dump, `RLIMIT_CORE`.
    pub core_size: Limit,
    /// All processes of a container go together when memory runs out: `memory.oom.group`, on cgroup v2.
    pub memory_oom_group: bool,
}

/// `[exec]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exec {
    /// Who may execute something in a running container.
    pub policy: ExecPolicy,
}

/// What becomes of execs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecPolicy {
    /// They run, confined as the container's init is.
    #[default]
    Allow,
    /// They run without capabilities.
    WithoutCapabilities,
    /// They are refused, probes among them.
    Deny,
}

impl Profile {
    /// Loads a profile by its name, with all that it extends.
    pub fn load(name: &str) -> Result<Self, Error> {
        Self::load_from(Path::new(DIRECTORY), name)
    }

    /// The same, from another directory than `/etc/cofferdam`.
    pub fn load_from(directory: &Path, name: &str) -> Result<Self, Error> {
        let (origin, text) = text_of(directory, name)?;
        Self::parse(directory, name, &origin, &text)
    }

    /// From a text; what it extends comes from `directory`. `origin` is for messages.
    pub fn parse(directory: &Path, name: &str, origin: &str, text: &str) -> Result<Self, Error> {
        let mut table = checked(name, origin, text)?;
        let mut seen = vec![name.to_owned()];
        let mut extends = parent(&table);
        let own = extends.clone();
        while let Some(base) = extends {
            // A file may extend the built-in profile whose name it has.
            let itself = base == name && seen.len() == 1;
            if (seen.contains(&base) && !itself) || seen.len() > MAX_DEPTH {
                return Err(Error::Value {
                    name: name.to_owned(),
                    key: "extends".into(),
                    text: format!(
                        "{} -> {base}: the profiles extend one another",
                        seen.join(" -> ")
                    ),
                });
            }
            let (origin, text) = if itself {
                built_in(&base).ok_or_else(|| Error::Value {
                    name: name.to_owned(),
                    key: "extends".into(),
                    text: format!("{base:?} extends itself, and is not built in"),
                })?
            } else {
                text_of(directory, &base)?
            };
            let below = checked(&base, &origin, &text)?;
            extends = parent(&below);
            seen.push(base);
            table = merge(below, table);
        }
        let mut profile: Self = Value::Table(table)
            .try_into()
            .map_err(|e: toml::de::Error| Error::Syntax {
                name: name.to_owned(),
                origin: origin.to_owned(),
                text: e.to_string(),
            })?;
        name.clone_into(&mut profile.name);
        profile.extends = own;
        profile.check()?;
        Ok(profile)
    }

    /// Whether it takes specs as they are.
    pub fn is_standard(&self) -> bool {
        let nothing = Self {
            name: self.name.clone(),
            extends: self.extends.clone(),
            ..Self::default()
        };
        *self == nothing
    }

    fn wrong(&self, key: &str, text: impl Into<String>) -> Error {
        Error::Value {
            name: self.name.clone(),
            key: key.to_owned(),
            text: text.into(),
        }
    }

    fn check(&mut self) -> Result<(), Error> {
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
                let text = format!("the default {default} is above the max {max}");
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
        let absolute = |paths: &[PathBuf]| paths.iter().find(|p| !p.is_absolute()).cloned();
        let landlock = &self.landlock;
        for (key, paths) in [
            ("pod.host_paths", self.pod.host_paths.as_ref()),
            (
                "pod.forbidden_host_paths",
                Some(&self.pod.forbidden_host_paths),
            ),
            ("pod.hooks", self.pod.hooks.as_ref()),
            ("pod.loggers", self.pod.loggers.as_ref()),
            ("pod.seccomp_agents", self.pod.seccomp_agents.as_ref()),
            ("landlock.execute", landlock.execute.as_ref()),
            ("landlock.write", landlock.write.as_ref()),
        ] {
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
            .find(|n| !crate::executor::seccomp::is_known(n))
        {
            let text = format!("{name:?} is not a system call");
            return Err(self.wrong("seccomp.actions", text));
        }
        self.seccomp.filter = floor.map(|f| floor::with_actions(f, &self.seccomp.actions));
        Ok(())
    }

    fn floor_file(&self, path: &str) -> Result<LinuxSeccomp, Error> {
        let text = read_of_root(Path::new(path))
            .map_err(|e| self.wrong("seccomp.floor", format!("read {path}: {e}")))?;
        let filter: LinuxSeccomp = serde_json::from_str(&text)
            .map_err(|e| self.wrong("seccomp.floor", format!("{path}: {e}")))?;
        crate::executor::seccomp::compile(&filter)
            .map_err(|e| self.wrong("seccomp.floor", format!("{path}: {e}")))?;
        Ok(filter)
    }

    /// The profile as a file would have it, all defaults and everything inherited included.
    pub fn to_toml(&self) -> String {
        let mut whole = self.clone();
        whole.extends = None;
        toml::to_string_pretty(&whole).unwrap_or_default()
    }
}

/// `c MAJOR:MINOR` or `b MAJOR:MINOR`.
pub(super) fn device(text: &str) -> Option<(DeviceKind, u32, u32)> {
    let (kind, numbers) = text.split_once(' ')?;
    let (major, minor) = numbers.split_once(':')?;
    let kind = match kind {
        "c" => DeviceKind::Char,
        "b" => DeviceKind::Block,
        _ => return None,
    };
    Some((kind, major.parse().ok()?, minor.parse().ok()?))
}

/// The text of a file that nobody but root can have written: what it says decides over pods.
///
/// # Errors
/// The system's, and `PermissionDenied` where the file, or the directory that it is in, is another user's or can be written by
/// group or others.
pub(crate) fn read_of_root(path: &Path) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let directory = path.parent().map(fs::metadata).transpose()?;
    for (what, metadata) in [("it", Some(file.metadata()?)), ("its directory", directory)] {
        let Some(metadata) = metadata else { continue };
        // Somebody who has no more rights than the file's owner reads a file of their own: tests, and `profile validate`.
        let owner = metadata.uid() == 0 || metadata.uid() == nix::unistd::geteuid().as_raw();
        if !owner || metadata.mode() & 0o022 != 0 {
            let text = format!(
                "{what} can be changed by others than root (owner {}, mode {:o}): chown root and chmod go-w it",
                metadata.uid(),
                metadata.mode() & 0o7777
            );
            return Err(std::io::Error::new(
                std::io::ErrorKind::PermissionDenied,
                text,
            ));
        }
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// A capability by its name, with `CAP_`.
pub(super) fn capability(name: &str) -> Option<Capability> {
    name.strip_prefix("CAP_")?;
    serde_json::from_value(name.into()).ok()
}

/// The names of all profiles: the built-in ones and the files'.
pub fn names(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let files = files.filter_map(|e| {
        let path = e.path();
        (path.extension()? == "toml").then(|| path.file_stem()?.to_str().map(str::to_owned))?
    });
    let built_in = BUILT_IN.iter().map(|(name, _)| (*name).to_owned());
    let all: BTreeSet<String> = built_in.chain(files).collect();
    all.into_iter().collect()
}

fn built_in(name: &str) -> Option<(String, String)> {
    let found = BUILT_IN.iter().find(|(n, _)| *n == name)?;
    Some((BUILT_IN_ORIGIN.into(), found.1.to_owned()))
}

fn text_of(directory: &Path, name: &str) -> Result<(String, String), Error> {
    let file = directory.join(format!("{name}.toml"));
    if name.contains('/') || name.is_empty() || name.starts_with('.') {
        return Err(Error::Unknown {
            name: name.to_owned(),
            file,
        });
    }
    match read_of_root(&file) {
        Ok(text) => Ok((file.display().to_string(), text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            built_in(name).ok_or_else(|| Error::Unknown {
                name: name.to_owned(),
                file,
            })
        }
        Err(source) => Err(Error::Read {
            name: name.to_owned(),
            file,
            source,
        }),
    }
}

/// The file's own keys and values, each by itself: with line and column where one is wrong.
fn checked(name: &str, origin: &str, text: &str) -> Result<Table, Error> {
    let syntax = |e: toml::de::Error| Error::Syntax {
        name: name.to_owned(),
        origin: origin.to_owned(),
        text: e.to_string(),
    };
    // The built-in ones are right; every shim loads one when it starts.
    if origin != BUILT_IN_ORIGIN {
        toml::from_str::<Profile>(text).map_err(syntax)?;
    }
    toml::from_str(text).map_err(syntax)
}

fn parent(table: &Table) -> Option<String> {
    table
        .get("extends")
        .and_then(Value::as_str)
        .map(str::to_owned)
}

/// Tables are merged, everything else is replaced.
fn merge(mut below: Table, above: Table) -> Table {
    for (key, value) in above {
        match (below.remove(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => {
                below.insert(key, Value::Table(merge(old, new)));
            }
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
    below
}
