//! For tests only, behind the feature of this name: leaves out protections that `COFFERDAM_SABOTAGE` lists, so that it can be
//! seen that `cofferdam explain` misses them.

use super::script::{Script, Step};
use crate::oci::capabilities::Sets;

impl Script {
    /// Takes protections away.
    pub(super) fn sabotage(mut self) -> Self {
        let Ok(list) = std::env::var("COFFERDAM_SABOTAGE") else {
            return self;
        };
        for what in list.split(',') {
            self.steps.retain(|step| !is(step, what));
            for step in &mut self.steps {
                match step {
                    Step::Credentials { caps, .. } if what == "capabilities" => {
                        // CAP_SYS_PTRACE and CAP_SYS_ADMIN, which the shim itself keeps.
                        let more = 1 << 19 | 1 << 21;
                        *caps = Sets {
                            bounding: caps.bounding | more,
                            effective: caps.effective | more,
                            permitted: caps.permitted | more,
                            ..*caps
                        };
                    }
                    Step::Mount(mount) if what == "mounts" => mount.attr.attr_set = 0,
                    _ => {}
                }
            }
        }
        self
    }
}

fn is(step: &Step, what: &str) -> bool {
    match step {
        Step::NoNewPrivileges => what == "no_new_privs",
        Step::Seccomp { .. } => what == "seccomp",
        Step::Mask(_) => what == "masks",
        Step::ReadOnly(_) => what == "read-only-paths",
        Step::RootReadOnly => what == "root",
        Step::Rlimit { .. } => what == "rlimits",
        Step::MitigateSpeculation => what == "speculation",
        Step::ApplyLsm { .. } => what == "label",
        _ => false,
    }
}
