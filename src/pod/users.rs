//! The user namespace that a profile gives to a pod: one for all its containers, and a range of ids that no other pod has.

use std::path::Path;
use std::sync::Arc;

use super::{Error, Isolation, Pod, Result, lock};
use crate::executor::{self, PodUsers};
use crate::isolation::pool::{self, Lease};
use crate::isolation::{Judged, Unmappable, UserNamespaceMode};
use crate::oci::{Request, RootMount};

/// Ids, and the namespace that has them.
pub(super) struct Users {
    pub namespace: PodUsers,
    /// Given back when the pod ends.
    lease: Lease,
}

impl Users {
    /// The node's id of the containers' root.
    pub fn first(&self) -> u32 {
        self.lease.first()
    }
}

/// Whether the pod has users of its own. Its first container that may have some decides.
pub(super) type Decision = Option<Option<Arc<Users>>>;

impl Pod {
    /// The users of a container whose profile gives it some. The first container of the pod decides for all: they share a
    /// namespace, or none of them has one.
    pub(super) fn users(
        &self,
        isolation: &Isolation,
        asked: &Request,
        root_mounts: &Judged<Vec<RootMount>>,
        id: &str,
    ) -> Result<Option<Arc<Users>>> {
        let settings = isolation.user_namespace();
        let has_own = !asked.namespaces.user.is_host();
        if settings.mode != UserNamespaceMode::Auto || has_own {
            return Ok(None);
        }
        let mut decision = lock(&self.users);
        if let Some(users) = &*decision {
            return Ok(users.clone());
        }
        let strict = settings.unmappable == Unmappable::Refuse;
        let lease = Lease::take(Path::new(pool::DIRECTORY), settings.pool)
            .map_err(|e| Error::FailedPrecondition(e.to_string()))?;
        let rootfs = &asked.root.source.path;
        let made = PodUsers::new(lease.first(), pool::RANGE, strict).and_then(|namespace| {
            executor::check_mappable(rootfs, root_mounts, &namespace)?;
            Ok(namespace)
        });
        let users = match made {
            Ok(namespace) => Some(Arc::new(Users { namespace, lease })),
            Err(e) if strict => {
                return Err(Error::FailedPrecondition(format!(
                    "profile {:?}: {e}. user_namespace.unmappable = \"fall-back\" would run the pod as the node's users",
                    isolation.name()
                )));
            }
            Err(e) => {
                log::warn!(id, profile:% = isolation.name(), error:% = e; "the pod has the node's users");
                None
            }
        };
        *decision = Some(users.clone());
        Ok(users)
    }
}
