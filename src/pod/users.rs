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
    pub(crate) fn first(&self) -> u32 {
        self.lease.first()
    }
}

fn take_ids(settings: UserNamespace) -> Result<Lease> {
    Lease::take(Path::new(pool::DIRECTORY), settings.pool)
        .map_err(|e| Error::FailedPrecondition(e.to_string()))
}

/// Whose ids the pod's containers have, where the profile gives them some: the same for all of them.
#[derive(Default)]
pub(super) enum Decision {
    #[default]
    Open,
    /// Open, but a namespace was made already for a container that may need it.
    Prepared(Users),
    /// The containers share this namespace.
    Own(Arc<Users>),
    /// The containers have the node's ids.
    Node,
}

/// Whose ids a container is to have.
pub(super) enum OfContainer {
    /// Those of the pod's namespace.
    Own(Arc<Users>),
    /// The node's, or those of a namespace that its spec has.
    AsAsked,
    /// The node's, because its root cannot be mapped, and the profile allows that. It decides for the pod when it is made, and
    /// not before: a spec that is refused changes nothing.
    FallBack,
}

impl OfContainer {
    pub(crate) fn own(&self) -> Option<&Arc<Users>> {
        match self {
            Self::Own(users) => Some(users),
            Self::AsAsked | Self::FallBack => None,
        }
    }
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
        // An error is reported when the container is created.
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
    ) -> Result<OfContainer> {
        let settings = isolation.user_namespace();
        let mut decision = lock(&self.users);
        let prepared = match &*decision {
            Decision::Prepared(_) => std::mem::take(&mut *decision),
            _ => Decision::Open,
        };
        let has_own = !asked.namespaces.user.is_host();
        if settings.mode != UserNamespaceMode::Auto || has_own {
            return Ok(OfContainer::AsAsked);
        }
        let users = match (&*decision, prepared) {
            (Decision::Own(users), _) => return Ok(OfContainer::Own(users.clone())),
            (Decision::Node, _) => return Ok(OfContainer::FallBack),
            (_, Decision::Prepared(users)) if users.settings == settings => users,
            _ => Users::new(take_ids(settings)?, settings)
                .map_err(|e| Error::FailedPrecondition(e.to_string()))?,
        };
        let rootfs = &asked.root.source.path;
        match executor::check_mappable(rootfs, root_mounts, &users.namespace) {
            Ok(()) => {
                let users = Arc::new(users);
                *decision = Decision::Own(users.clone());
                Ok(OfContainer::Own(users))
            }
            Err(e @ executor::Error::Unmappable { .. })
                if settings.unmappable == Unmappable::FallBack =>
            {
                log::warn!(id, profile:% = isolation.name(), error:% = e; "the pod has the node's users");
                Ok(OfContainer::FallBack)
            }
            Err(e) => Err(Error::FailedPrecondition(format!(
                "profile {:?}: {e}{}",
                isolation.name(),
                if settings.unmappable == Unmappable::FallBack {
                    ""
                } else {
                    ". user_namespace.unmappable = \"fall-back\" would run the pod as the node's users"
                }
            ))),
        }
    }

    /// A container was made with these users: the pod's others have the same from now on.
    ///
    /// # Errors
    /// The pod has others meanwhile.
    pub(super) fn decide_users(&self, of: &OfContainer) -> Result<()> {
        let OfContainer::FallBack = of else {
            return Ok(());
        };
        let mut decision = lock(&self.users);
        if let Decision::Own(_) = *decision {
            return Err(Error::FailedPrecondition(
                "the pod's containers have user ids of their own, and this one's root cannot have them: put it into a pod of its own".into(),
            ));
        }
        *decision = Decision::Node;
        Ok(())
    }
}
