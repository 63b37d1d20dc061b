//! Capability sets as bit masks, `capabilities(7)`.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

/// `CAP_SYS_ADMIN`, needed to load a seccomp filter without `no_new_privs`.
pub(super) const SYS_ADMIN: u64 = 1 << 21;

/// The five sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sets {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
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
