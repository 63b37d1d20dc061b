//! The user namespace that a profile gives to a pod: one for all its containers, and a range of ids that no other pod has.

use std::path::Path;
use std::sync::Arc;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};

use super::{Error, Isolation, Pod, Result, lock};
use crate::executor::{self, PodUsers};
use crate::isolation::pool::{self, Lease};
use crate::isolation::{Judged, Unmappable, UserNamespace, UserNamespaceMode};
use crate::oci::{Request, RootMount};

/// Ids, and the namespace that has them.
pub(super) struct Users {
    pub namespace: PodUsers,
    /// Given back when the pod ends.
    lease: Lease,
    settings: UserNamespace,
}

impl Users {
    fn new(lease: Lease, settings: UserNamespace) -> executor::Result<Self> {
        let strict = settings.unmappable == Unmappable::Refuse;
        Ok(Self {
            namespace: PodUsers::new(lease.first(), pool::RANGE, strict)?,
            lease,
            settings,
        })
    }

    /// The node's id of the containers' root.
    pub fn first(&self) -> u32 {
        self.lease.first()
    }
}

fn take_ids(settings: UserNamespace) -> Result<Lease> {
    Lease::take(Path::new(pool::DIRECTORY), settings.pool)
        .map_err(|e| Error::FailedPrecondition(e.to_string()))
}

/// Whose ids the pod's containers have, where the profile gives them some. The first container of the pod decides for all.
#[derive(Default)]
pub(super) enum Decision {
    #[default]
    Open,
    /// Open, but a namespace was made already for a container that may need it.
    Prepared(Users),
    /// The containers share this namespace.
    Own(Arc<Users>),
    /// The containers have the node's ids: their root cannot be mapped, and the profile allows that.
    Node,
}

impl Pod {
    /// Makes the namespace for a first container that will probably need it.
    pub(super) fn prepare_users(&self, isolation: &Isolation, spec: &Spec) {
        let settings = isolation.user_namespace();
        let own = |n: &LinuxNamespace| n.typ() == LinuxNamespaceType::User;
        let namespaces = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
        if settings.mode != UserNamespaceMode::Auto
            || namespaces.is_some_and(|all| all.iter().any(own))
        {
            return;
        }
        // What is wrong is told when the container is created.
        let mut decision = lock(&self.users);
        if let Decision::Open = *decision
            && let Ok(lease) = take_ids(settings)
            && let Ok(users) = Users::new(lease, settings)
        {
            *decision = Decision::Prepared(users);
        }
    }

    /// The users of a container whose profile gives it some.
    pub(super) fn users(
        &self,
        isolation: &Isolation,
        asked: &Request,
        root_mounts: &Judged<Vec<RootMount>>,
        id: &str,
    ) -> Result<Option<Arc<Users>>> {
        let settings = isolation.user_namespace();
        let mut decision = lock(&self.users);
        let prepared = match &*decision {
            Decision::Prepared(_) => std::mem::take(&mut *decision),
            _ => Decision::Open,
        };
        let has_own = !asked.namespaces.user.is_host();
        if settings.mode != UserNamespaceMode::Auto || has_own {
            return Ok(None);
        }
        let made = match (&*decision, prepared) {
            (Decision::Own(users), _) => return Ok(Some(users.clone())),
            (Decision::Node, _) => return Ok(None),
            (_, Decision::Prepared(users)) if users.settings == settings => Ok(users),
            _ => Users::new(take_ids(settings)?, settings),
        };
        let rootfs = &asked.root.source.path;
        let made = made.and_then(|users| {
            executor::check_mappable(rootfs, root_mounts, &users.namespace)?;
            Ok(users)
        });
        match made {
            Ok(users) => {
                let users = Arc::new(users);
                *decision = Decision::Own(users.clone());
                Ok(Some(users))
            }
            Err(e) if settings.unmappable == Unmappable::Refuse => {
                Err(Error::FailedPrecondition(format!(
                    "profile {:?}: {e}. user_namespace.unmappable = \"fall-back\" would run the pod as the node's users",
                    isolation.name()
                )))
            }
            Err(e) => {
                log::warn!(id, profile:% = isolation.name(), error:% = e; "the pod has the node's users");
                *decision = Decision::Node;
                Ok(None)
            }
        }
    }
}
