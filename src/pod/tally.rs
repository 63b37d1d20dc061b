//! What a pod did, in the two lines that it has in the log if nothing goes wrong.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Container, Pod, lock};

/// What was counted since the shim started.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub containers: AtomicU64,
    pub execs: AtomicU64,
    /// System calls that filters denied, of containers that are deleted.
    pub denied: AtomicU64,
}

impl Pod {
    /// The first line, when the pod has its first container: until then its names are not known.
    pub(super) fn announce(&self) {
        let version = env!("CARGO_PKG_VERSION");
        // A handler's options may give it another than the shim's name stands for.
        let shared = lock(&self.shared_profile).clone();
        let profile = shared.as_ref().map_or(self.class.as_str(), |p| p.name());
        log::info!(id:% = self.id, profile, version; "pod started");
    }

    /// The last line.
    pub fn sum_up(&self) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Tally {
            containers,
            execs,
            denied,
        } = &self.tally;
        if of(containers) > 0 {
            log::info!(
                id:% = self.id, containers:% = of(containers), execs:% = of(execs), denied:% = of(denied);
                "pod ended"
            );
        }
        crate::names::forget(&self.id);
    }

    /// A container goes.
    pub(super) fn count_out(&self, container: &Container) {
        if let Some(denials) = &container.denials {
            let denied = denials.sum_up();
            self.tally.denied.fetch_add(denied, Ordering::Relaxed);
        }
        let egress = container.denied_egress();
        if !egress.is_empty() {
            let denied = egress.iter().map(|(_, count)| count).sum();
            self.tally.denied.fetch_add(denied, Ordering::Relaxed);
            let one = |(to, count): &(String, u64)| format!("{to}: {count}");
            let to: Vec<String> = egress.iter().map(one).collect();
            log::warn!(id:% = container.id, to:% = crate::show::first_of(&to, 8), count:% = denied, rule = "network.egress"; "denied in all");
        }
    }
}
