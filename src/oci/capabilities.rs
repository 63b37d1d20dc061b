//! Capability sets as bit masks, `capabilities(7)`.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

/// `CAP_SYS_ADMIN`, needed to load a seccomp filter without `no_new_privs`.
pub const SYS_ADMIN: u64 = 1 << 21;

/// The kernel's capabilities, by number: `linux/capability.h`.
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The names in a mask.
fn names(mask: u64) -> String {
    let named = NAMES.iter().enumerate().filter(|(n, _)| mask & 1 << n != 0);
    named.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

/// The five sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    /// What can be gained by executing something.
    pub bounding: u64,
    /// What counts.
    pub effective: u64,
    /// What can be made to count.
    pub permitted: u64,
    /// What executing a file with capabilities keeps.
    pub inheritable: u64,
    /// What executing any file keeps.
    pub ambient: u64,
}

impl Sets {
    /// Exactly what the spec lists: a missing set is an empty one.
    pub fn from_spec(caps: Option<&LinuxCapabilities>) -> Self {
        let Some(c) = caps else {
            return Self::default();
        };
        Self {
            bounding: mask(c.bounding().as_ref()),
            effective: mask(c.effective().as_ref()),
            permitted: mask(c.permitted().as_ref()),
            inheritable: mask(c.inheritable().as_ref()),
            ambient: mask(c.ambient().as_ref()),
        }
    }
}

/// `CAP_SYS_PTRACE`, linux/capability.h.
const SYS_PTRACE: u64 = 1 << 19;

impl Sets {
    /// Whether a process with these can come to trace processes that have more rights than itself: ptrace(2), "Ptrace access mode
    /// checking".
    pub fn may_trace(self) -> bool {
        (self.bounding | self.permitted) & SYS_PTRACE != 0
    }

    /// All that are in any set.
    pub fn all(self) -> u64 {
        self.bounding | self.effective | self.permitted | self.inheritable | self.ambient
    }

    /// Without ambient capabilities that are not permitted and inheritable as well: the kernel allows no others
    /// (capabilities(7)), and old versions of `runc spec` write some.
    #[must_use]
    pub fn possible(self) -> Self {
        let without = self.ambient & !(self.inheritable & self.permitted);
        if without != 0 {
            log::warn!(
                "process.capabilities.ambient: can't raise ambient capability {}: it is not inheritable and permitted as well",
                names(without)
            );
        }
        Self {
            ambient: self.ambient & !without,
            ..self
        }
    }

    /// Without what this process does not have itself and so cannot give: OCI config.md "capabilities" wants a warning, not
    /// a failure.
    #[must_use]
    pub fn grantable(self, available: u64) -> Self {
        let without =
            (self.bounding | self.permitted | self.inheritable | self.ambient) & !available;
        if without != 0 {
            log::warn!(
                "process.capabilities: {} cannot be given: the runtime does not have it",
                names(without)
            );
        }
        Self {
            bounding: self.bounding & available,
            effective: self.effective & available,
            permitted: self.permitted & available,
            inheritable: self.inheritable & available,
            ambient: self.ambient & available,
        }
    }
}

/// Removes the capabilities of a config.json that no supported kernel has: OCI config.md "capabilities" wants a
/// warning, not a failure. `pointer` leads to the process.
pub(crate) fn remove_unknown(json: &mut serde_json::Value, pointer: &str) {
    let Some(sets) = json
        .pointer_mut(&format!("{pointer}/capabilities"))
        .and_then(|c| c.as_object_mut())
    else {
        return;
    };
    let mut unknown = std::collections::BTreeSet::new();
    for list in sets.values_mut().filter_map(|list| list.as_array_mut()) {
        list.retain(|c| match c.as_str() {
            Some(c) if !NAMES.contains(&c) => {
                unknown.insert(c.to_owned());
                false
            }
            _ => true,
        });
    }
    for name in unknown {
        log::warn!("process.capabilities: {name:?} is not known, and is ignored");
    }
}

fn mask(caps: Option<&Capabilities>) -> u64 {
    caps.into_iter()
        .flatten()
        .fold(0, |m, c| m | 1 << number(*c))
}

/// The kernel's number, `linux/capability.h`.
fn number(cap: Capability) -> u32 {
    match cap {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxCapabilitiesBuilder;

    #[test]
    fn sets_are_exactly_the_spec_and_inheritable_stays_empty() {
        let caps = LinuxCapabilitiesBuilder::default()
            .bounding([Capability::Kill, Capability::SysAdmin])
            .permitted([Capability::Kill])
            .effective([Capability::Kill])
            .inheritable([])
            .ambient([])
            .build()
            .unwrap();
        let s = Sets::from_spec(Some(&caps));
        assert_eq!(
            s,
            Sets {
                bounding: 1 << 5 | SYS_ADMIN,
                permitted: 1 << 5,
                effective: 1 << 5,
                inheritable: 0,
                ambient: 0
            }
        );
        assert_eq!(Sets::from_spec(None), Sets::default());
    }
}
