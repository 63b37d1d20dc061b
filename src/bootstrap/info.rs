//! `-v` and `-info`: what we are and what we can do. One table for containerd, which gates features on it, and for people.

use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::{Message, MessageField};
use containerd_shim::protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use serde_json::{Value, json};

use super::{Error, Result};
use crate::COMMIT;
use crate::oci::capabilities;
use crate::sys::kernel;

/// containerd `pkg/typeurl`: the features travel as JSON under this name.
const FEATURES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

pub(super) fn version(name: &str) -> String {
    let commit = COMMIT.map_or_else(String::new, |c| format!("  Commit: {c}\n"));
    format!(
        "{name}:\n  Version: {}\n{commit}  Profile: {}\n",
        env!("CARGO_PKG_VERSION"),
        super::profile(name)
    )
}

/// For people who run the shim by hand.
pub(super) fn help(name: &str) -> String {
    let profile = super::profile(name);
    format!(
        "{name}: containerd's shim for pods of the isolation profile {profile}\n\n\
         containerd starts it for each pod of a runtime with this runtime_type; do not start it by hand:\n\n  \
         runtime_type = {:?}\n\n\
         The name of the program is the profile: containerd-shim-cofferdam-PROFILE-v1 is a link to\n\
         containerd-shim-cofferdam-v1. `cofferdam profile new` makes one, `cofferdam check` says what is missing.\n\n\
         Flags for people:\n  -v      print the version\n  -info   print what it supports, as containerd reads it (protobuf)\n  -help   print this\n\n\
         Actions and flags for containerd (its core/runtime/v2/README.md):\n  start, delete\n  \
         -namespace, -id, -address, -publish-binary, -bundle, -debug\n",
        super::runtime_type(name)
    )
}

/// OCI features.md. What the executor can do, and among the annotations what this kernel offers of it.
pub fn features() -> Value {
    let mut annotations = json!({
        "org.cofferdam.version": env!("CARGO_PKG_VERSION"),
        "org.cofferdam.kernel.security-modules": kernel::security_modules().join(","),
        "org.cofferdam.kernel.landlock-abi": kernel::landlock_abi().to_string(),
    });
    let offers = kernel::offers();
    for offer in &offers {
        let (major, minor) = offer.since;
        let text = if offer.available {
            "available".to_owned()
        } else {
            format!("needs Linux {major}.{minor}")
        };
        annotations[format!("org.cofferdam.kernel.{}", offer.name)] = text.into();
    }
    let has = |name| offers.iter().any(|o| o.name == name && o.available);
    let flags = [
        ("SECCOMP_FILTER_FLAG_LOG", libc::SECCOMP_FILTER_FLAG_LOG),
        (
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        ),
        ("SECCOMP_FILTER_FLAG_TSYNC", libc::SECCOMP_FILTER_FLAG_TSYNC),
    ];
    let supported: Vec<&str> = flags
        .into_iter()
        .filter(|(_, flag)| kernel::has_seccomp_flag(*flag))
        .map(|(name, _)| name)
        .chain(has("seccomp-wait-killable").then_some("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"))
        .collect();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": [
            "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "idmap", "lazytime", "loud", "noatime", "nodev", "nodiratime",
            "noexec", "norelatime", "nostrictatime", "nosuid", "nosymfollow", "private", "ratime", "rbind", "rdev", "rdiratime", "relatime",
            "rexec", "ridmap", "rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnorelatime", "rnostrictatime", "rnosuid", "rnosymfollow", "ro",
            "rprivate", "rrelatime", "rro", "rrw", "rshared", "rslave", "rstrictatime", "rsuid", "rsymfollow", "runbindable", "rw", "shared",
            "silent", "slave", "strictatime", "suid", "symfollow", "sync", "tmpcopyup", "unbindable"
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities::NAMES.as_slice(),
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
                    "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"],
                "operators": ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"],
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_RISCV64", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
                "knownFlags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
                    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
                "supportedFlags": supported
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": {
                "modes": ["MPOL_DEFAULT", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED", "MPOL_PREFERRED_MANY",
                    "MPOL_WEIGHTED_INTERLEAVE"],
                "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"]
            },
            "netDevices": { "enabled": true },
            "mountExtensions": { "idmap": { "enabled": has("idmapped-mounts") } }
        },
        "annotations": annotations
    })
}

/// `containerd.types.RuntimeInfo`, as it is on the wire: containerd does not unpack an `Any` here.
pub(super) fn runtime_info() -> Result<Vec<u8>> {
    let features = Any {
        type_url: FEATURES_TYPE.into(),
        value: features().to_string().into_bytes(),
        ..Any::default()
    };
    let info = RuntimeInfo {
        name: "containerd-shim-cofferdam-v1".into(),
        version: MessageField::some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").into(),
            ..RuntimeVersion::default()
        }),
        features: MessageField::some(features),
        ..RuntimeInfo::default()
    };
    info.write_to_bytes()
        .map_err(|e| Error::Other(format!("encode the answer: {e}")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_features_are_what_the_oci_type_expects() {
        let f: oci_spec::runtime::Features = serde_json::from_value(super::features()).unwrap();
        let linux = f.linux().as_ref().unwrap();
        assert!(
            f.mount_options()
                .as_ref()
                .unwrap()
                .iter()
                .any(|o| o == "rro"),
            "containerd gates read-only mounts on it"
        );
        assert_eq!(linux.capabilities().as_ref().unwrap().len(), 41);
    }
}
