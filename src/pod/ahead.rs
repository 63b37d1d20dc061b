//! What is done for a pod's first container before containerd asks for it: between the end of `start` and the Create request
//! our processor has nothing to do. Nothing of it outlives this process.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::{Pod, Result, lock};
use crate::oci;

/// How far it has come.
#[derive(Default)]
pub(super) enum Prefetch {
    #[default]
    Nothing,
    Read(Box<Bundle>),
    /// A container is being created: there is nothing to get ahead of any more.
    Late,
}

/// A bundle whose `config.json` was read and parsed.
pub(super) struct Bundle {
    path: PathBuf,
    text: Vec<u8>,
    spec: Spec,
}

impl Pod {
    /// Reads the bundle that `start` ran in, and compiles its filters. Blocks. An error is reported when its container
    /// is created.
    pub fn prefetch(&self, bundle: &Path) {
        let mut ahead = lock(&self.ahead);
        let Prefetch::Nothing = *ahead else { return };
        let _trace = crate::trace::span("get ahead");
        let Ok(text) = oci::read(bundle) else { return };
        let Ok(spec) = oci::parse_of(&text, bundle) else {
            return;
        };
        if let Ok(isolation) = &self.isolation {
            self.filters(&spec, isolation).ok();
            self.prepare_users(isolation, &spec);
        }
        *ahead = Prefetch::Read(Box::new(Bundle {
            path: bundle.to_owned(),
            text,
            spec,
        }));
    }

    /// The spec of a bundle: the one that was read before, if its file still says the same.
    pub(super) fn spec(&self, bundle: &Path) -> Result<Spec> {
        let ahead = std::mem::replace(&mut *lock(&self.ahead), Prefetch::Late);
        let text = oci::read(bundle)?;
        match ahead {
            Prefetch::Read(known) if known.path == bundle && known.text == text => Ok(known.spec),
            _ => Ok(oci::parse_of(&text, bundle)?),
        }
    }
}
