//! The keys of a profile's file; docs/profiles.md has them for operators. Every key is known or an error.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use oci_spec::runtime::{Capability, LinuxSeccomp};
use serde::{Deserialize, Serialize};

use crate::isolation::pool::Pool;
use crate::oci::DeviceKind;

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
    /// TCP or UDP; left out, both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<EgressProtocol>,
}

/// What a destination is spoken to by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressProtocol {
    /// TCP
    #[serde(alias = "TCP")]
    Tcp,
    /// UDP
    #[serde(alias = "UDP")]
    Udp,
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
    /// A ceiling for the five sets; left out, it is none. With `CAP_` or without, in any case.
    #[serde(
        deserialize_with = "capabilities",
        skip_serializing_if = "Option::is_none"
    )]
    pub capabilities: Option<Vec<String>>,
    /// Ambient capabilities cannot be raised, and root without capabilities gains none by executing: `capabilities(7)`.
    pub lock_securebits: bool,
    /// Memory is writable or executable, never one after the other: `PR_SET_MDWE`, Linux 6.3. Breaks compilers at run time
    /// (Java, JavaScript, …).
    pub write_xor_execute: Wanted,
    /// `PR_SET_SPECULATION_CTRL`.
    pub mitigate_speculation: Wanted,
    /// `PR_SCHED_CORE`, Linux 5.14.
    pub core_scheduling: Wanted,
}

/// Whether a protection is to be there that not every machine can give: `true`, `false` or `"best-effort"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// No.
    #[default]
    No,
    /// Where the machine can; where it cannot, nothing is missing.
    BestEffort,
    /// It is promised: where the machine cannot, it is missing.
    Yes,
}

impl Wanted {
    const BEST_EFFORT: &str = "best-effort";

    /// Whether it is to be tried.
    pub fn is_wanted(self) -> bool {
        self != Self::No
    }
}

impl Serialize for Wanted {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::No => to.serialize_bool(false),
            Self::BestEffort => to.serialize_str(Self::BEST_EFFORT),
            Self::Yes => to.serialize_bool(true),
        }
    }
}

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Wanted;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true, false or \"best-effort\"")
            }
            fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Wanted, E> {
                Ok(if value { Wanted::Yes } else { Wanted::No })
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Wanted, E> {
                if value == Wanted::BEST_EFFORT {
                    Ok(Wanted::BestEffort)
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Str(value), &self))
                }
            }
        }
        from.deserialize_any(Visitor)
    }
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Beside both lists what nearly every program needs: the loaders and `/pause` may be executed, and `/dev/null` and its kin, terminals and
    /// files of `/proc` written to.
    pub essentials: bool,
    /// TCP ports to listen on; left out, all. Linux 6.7.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_bind: Option<Vec<u16>>,
    /// TCP ports to connect to; left out, all. Linux 6.7.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_connect: Option<Vec<u16>>,
    /// The kernel writes an audit record of each denial, where audit is turned on. Linux 6.15.
    pub audit: bool,
    /// What this kernel's Landlock cannot do is an error. Otherwise it is best effort.
    pub required: bool,
}

impl Default for Landlock {
    fn default() -> Self {
        Self {
            scopes: BTreeSet::new(),
            execute: None,
            write: None,
            essentials: true,
            tcp_bind: None,
            tcp_connect: None,
            audit: false,
            required: false,
        }
    }
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
    /// Hidden, in addition to the pod's. One that ends in `*` stands for all paths of the node that begin so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub masked_paths: Vec<String>,
    /// Read-only, in addition to the pod's; as above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read_only_paths: Vec<String>,
}

/// A value for pods that set none, and a ceiling for those that do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "{ default = N, max = N }")]
pub struct Limit {
    /// Where the pod says nothing.
    #[serde(
        deserialize_with = "super::quantity::number",
        skip_serializing_if = "Option::is_none"
    )]
    pub default: Option<u64>,
    /// Where it says more.
    #[serde(
        deserialize_with = "super::quantity::number",
        skip_serializing_if = "Option::is_none"
    )]
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
    /// CPU of a container: processors in the file, thousandths here.
    #[serde(with = "super::quantity::cpu")]
    pub cpu: Limit,
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
    /// Whether it takes specs as they are.
    pub fn is_standard(&self) -> bool {
        let nothing = Self {
            name: self.name.clone(),
            extends: self.extends.clone(),
            ..Self::default()
        };
        *self == nothing
    }

    /// Whether the profile takes it as it is that this machine cannot do what a key asks for.
    pub fn accepts_without(&self, key: &str) -> bool {
        let process = &self.process;
        let wanted = match key {
            "process.write_xor_execute" => process.write_xor_execute,
            "process.mitigate_speculation" => process.mitigate_speculation,
            "process.core_scheduling" => process.core_scheduling,
            _ => return key == "landlock" && !self.landlock.required,
        };
        wanted != Wanted::Yes
    }

    /// The profile as a file would have it, all defaults and everything inherited included.
    pub fn to_toml(&self) -> String {
        let mut whole = self.clone();
        whole.extends = None;
        toml::to_string_pretty(&whole).unwrap_or_default()
    }
}

/// `c MAJOR:MINOR` or `b MAJOR:MINOR`.
pub(in crate::isolation) fn device(text: &str) -> Option<(DeviceKind, u32, u32)> {
    let (kind, numbers) = text.split_once(' ')?;
    let (major, minor) = numbers.split_once(':')?;
    let kind = match kind {
        "c" => DeviceKind::Char,
        "b" => DeviceKind::Block,
        _ => return None,
    };
    Some((kind, major.parse().ok()?, minor.parse().ok()?))
}

/// Names of capabilities as the kernel's headers have them, whether they begin with `CAP_` or not.
fn capabilities<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Option<Vec<String>>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    let whole = |name: String| {
        let name = name.to_uppercase();
        if name.starts_with("CAP_") {
            name
        } else {
            format!("CAP_{name}")
        }
    };
    Ok(Some(names.into_iter().map(whole).collect()))
}

/// A capability by its name, with `CAP_`.
pub(in crate::isolation) fn capability(name: &str) -> Option<Capability> {
    name.strip_prefix("CAP_")?;
    serde_json::from_value(name.into()).ok()
}
