//! The isolation profile of a pod: loaded once, applied to each container at Create and to each exec.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::{LinuxResources, Process};

use super::{Error, Result};
use crate::cgroup::{DeniedEgress, Destination, Layout, Protocol};
use crate::control;
use crate::executor::{Confinement, Landlock, Missing};
use crate::isolation::{
    self, DIRECTORY, Given, Judged, Node, Place, PodOfKubernetes, Profile, Refusal, Verdict,
};
use crate::oci::StdioUris;
use crate::oci::{Links, Reading, Request, RootMount, capabilities};
use crate::seccomp;
use crate::sys::kernel;

/// A pod's profile, ready to be applied.
#[derive(Debug)]
pub struct Isolation {
    profile: Profile,
    /// What OCI's fields cannot express; nothing for a profile that adds nothing.
    confinement: Option<Arc<Confinement>>,
    /// Where the node keeps what runs it.
    node: Node,
}

/// What a container is judged with that is its pod's.
#[derive(Debug)]
pub struct OfPod<'a> {
    /// The node's control groups.
    pub layout: &'a Layout,
    /// The first of the ids that the pod was given.
    pub users: Option<u32>,
    /// Where it is from.
    pub place: Place,
    /// Those of the other containers, as device and inode.
    pub namespaces: BTreeSet<(u64, u64)>,
}

/// Where the options of containerd's handler have a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfileSource {
    /// `ConfigPath`
    File(PathBuf),
    /// A table of options, as TOML.
    Text(String),
}

/// Why a profile cannot be used, for people: no container of it is created.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct BrokenProfile(String);

impl ProfileSource {
    /// The profile.
    ///
    /// # Errors
    /// It cannot be read, or is wrong.
    pub fn load(&self) -> std::result::Result<Profile, BrokenProfile> {
        let broken = |e: &dyn Display| BrokenProfile(format!("runtime options: {e}"));
        match self {
            Self::File(path) => {
                let text = isolation::read_of_root(path)
                    .map_err(|e| broken(&format_args!("ConfigPath {}: {e}", path.display())))?;
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let directory = path.parent().unwrap_or(Path::new(DIRECTORY));
                Profile::parse(directory, &name, &path.display().to_string(), &text)
            }
            Self::Text(text) => Profile::parse(
                Path::new(DIRECTORY),
                "options",
                "the handler's options",
                text,
            ),
        }
        .map_err(|e| broken(&e))
    }
}

impl Isolation {
    /// From the options of containerd's handler.
    pub(super) fn from_options(source: &ProfileSource) -> std::result::Result<Self, BrokenProfile> {
        let broken = |e: &dyn Display| BrokenProfile(format!("runtime options: {e}"));
        Self::of(source.load()?).map_err(|e| broken(&e))
    }

    /// Loads a profile by its name.
    pub fn load(name: &str) -> std::result::Result<Self, BrokenProfile> {
        let profile = Profile::load_from(Path::new(DIRECTORY), name)
            .map_err(|e| BrokenProfile(e.to_string()))?;
        Self::of(profile).map_err(|e| BrokenProfile(format!("profile {name:?}: {e}")))
    }

    fn of(mut profile: Profile) -> std::result::Result<Self, crate::executor::Error> {
        // What it was made from is needed no more: some tens of KiB of each idle pod.
        let floor = profile.seccomp.filter.take();
        let floor = floor.as_ref().map(seccomp::compile).transpose()?;
        let has = |scope| profile.landlock.scopes.contains(&scope);
        let landlock = &profile.landlock;
        let confinement = Confinement {
            floor: floor.map(Arc::new),
            landlock: Landlock {
                scope_abstract: has(isolation::Scope::AbstractUnixSocket),
                scope_signal: has(isolation::Scope::Signal),
                execute: landlock.execute.clone(),
                write: landlock.write.clone(),
                essentials: landlock.essentials,
                audit: landlock.audit,
                tcp_bind: landlock.tcp_bind.clone(),
                tcp_connect: landlock.tcp_connect.clone(),
            },
            lock_securebits: profile.process.lock_securebits,
            write_xor_execute: profile.process.write_xor_execute.is_wanted(),
            mitigate_speculation: profile.process.mitigate_speculation.is_wanted(),
            core_scheduling: profile.process.core_scheduling.is_wanted(),
            egress: profile.network.egress.as_ref().map(|rules| {
                let destination = |rule: &isolation::EgressRule| {
                    let (address, prefix) = rule.network()?;
                    Some(Destination {
                        address,
                        prefix,
                        port: rule.port,
                        protocol: rule.protocol.map(|protocol| match protocol {
                            isolation::EgressProtocol::Tcp => Protocol::Tcp,
                            isolation::EgressProtocol::Udp => Protocol::Udp,
                        }),
                    })
                };
                rules.iter().filter_map(destination).collect()
            }),
        };
        if landlock.required {
            confinement.require_landlock()?;
        }
        let adds_nothing = profile.is_standard();
        // The profile that takes things as they are asks nothing of the node.
        let node = if adds_nothing {
            Node::default()
        } else {
            Node::load()
                .map_err(|e| crate::executor::Error::field("node settings", e.to_string()))?
        };
        Ok(Self {
            profile,
            confinement: (!adds_nothing).then(|| Arc::new(confinement)),
            node,
        })
    }

    /// The profile's name.
    pub fn name(&self) -> &str {
        &self.profile.name
    }

    /// The capabilities that its processes can have at most; none where there is no ceiling.
    pub fn ceiling(&self) -> Option<u64> {
        let names = self.profile.process.capabilities.as_ref()?;
        let bit = |name: &String| capabilities::NAMES.iter().position(|n| n == name);
        Some(
            names
                .iter()
                .filter_map(bit)
                .fold(0, |mask, bit| mask | 1 << bit),
        )
    }

    /// Whether nothing that its processes execute gains rights.
    pub fn forces_no_new_privileges(&self) -> bool {
        self.profile.process.no_new_privileges
    }

    /// What this machine cannot do of it.
    pub fn missing(&self) -> Vec<control::Unavailable> {
        let all = self.confinement.as_ref().map(|c| c.missing());
        let one = |missing: Missing| control::Unavailable {
            key: missing.key.to_owned(),
            what: missing.what.to_owned(),
            why: missing.why.to_owned(),
            accepted: self.profile.accepts_without(missing.key),
        };
        all.unwrap_or_default().into_iter().map(one).collect()
    }

    /// Whether the profile takes anything away.
    pub fn restricts(&self) -> bool {
        self.confinement.is_some()
    }

    /// What it adds to every process.
    pub fn confinement(&self) -> Option<Arc<Confinement>> {
        self.confinement.clone()
    }

    /// Who counts the destinations that a container may not reach, if there are any.
    pub(super) fn denied_egress(&self) -> Option<DeniedEgress> {
        self.confinement.as_ref()?.egress.as_ref()?;
        let counter = DeniedEgress::new();
        let failed = |e: &nix::errno::Errno| log::warn!(error:% = e.desc(); "denied destinations are not counted");
        counter.inspect_err(failed).ok()
    }

    /// The floor.
    pub(super) fn floor(&self) -> Option<&Arc<seccomp::Program>> {
        self.confinement.as_ref()?.floor.as_ref()
    }

    /// Whether denied system calls are to be seen.
    pub(super) fn reports_denials(&self) -> bool {
        self.profile.seccomp.report_denials
    }

    /// The key of the profile that decides on a system call.
    pub(super) fn seccomp_key(&self, call: &str) -> &'static str {
        if self.profile.seccomp.actions.contains_key(call) {
            "seccomp.actions"
        } else {
            "seccomp.floor"
        }
    }

    /// Whether what containers use is recorded.
    pub(super) fn learn(&self) -> isolation::LearnPolicy {
        self.profile.learn.policy
    }

    /// Whether every container is to have users of its own, asked for or not.
    pub fn gives_users(&self) -> bool {
        self.profile.user_namespace.mode != isolation::UserNamespaceMode::Pod
    }

    /// What the profile says of user namespaces.
    pub(super) fn user_namespace(&self) -> isolation::UserNamespace {
        self.profile.user_namespace
    }

    /// How a spec is read for it: where a profile restricts what a pod may see, links that others than root can make are not
    /// followed.
    pub fn reading(&self) -> Reading {
        Reading::Run(if self.restricts() {
            Links::OfRoot
        } else {
            Links::Any
        })
    }

    /// Where a container is from.
    pub fn place(&self, id: &str, bundle: &Path, pod: Option<PodOfKubernetes>) -> Place {
        Place::of(&self.node, bundle, id).of_pod(pod)
    }

    /// What a container's root is made of, under the profile.
    pub(super) fn judge_root_mounts(
        &self,
        place: &Place,
        mounts: Vec<RootMount>,
    ) -> Result<Judged<Vec<RootMount>>> {
        isolation::judge_root_mounts(&self.profile, place, mounts).map_err(|e| self.refused(e))
    }

    fn refused(&self, refusal: Refusal) -> Error {
        let refusal = refusal.with_contact(self.node.contact.as_deref());
        Error::FailedPrecondition(refusal.to_string())
    }

    /// A container under the profile, and what it is told of that.
    pub fn judge(
        &self,
        id: &str,
        of_pod: OfPod<'_>,
        request: Request,
    ) -> Result<(Judged<Request>, Option<String>)> {
        let given = Given {
            users: of_pod.users,
            place: of_pod.place,
            namespaces: Some(of_pod.namespaces),
            ..host_limits(of_pod.layout)
        };
        let Verdict { judged, report } =
            isolation::judge(&self.profile, &given, request).map_err(|e| self.refused(e))?;
        for change in &report {
            log::debug!(id, profile = self.name(), change:% = change; "tightened");
        }
        let contact = self.node.contact.as_deref();
        let notice = || isolation::notice(&self.profile, contact, &report);
        Ok((judged, self.restricts().then(notice)))
    }

    /// Where a process's streams go, under the profile.
    pub(super) fn judge_streams(&self, addresses: StdioUris) -> Result<Judged<StdioUris>> {
        isolation::judge_streams(&self.profile, addresses).map_err(|e| self.refused(e))
    }

    /// Changed resources of a live container, under the profile's ceilings.
    pub fn judge_update(&self, resources: LinuxResources) -> Result<Judged<LinuxResources>> {
        isolation::judge_update(&self.profile, resources).map_err(|e| self.refused(e))
    }

    /// The profile, with all that it inherits.
    pub(super) fn to_toml(&self) -> String {
        self.profile.to_toml()
    }

    /// An exec's process under the profile.
    pub fn judge_exec(&self, layout: &Layout, process: Process) -> Result<Judged<Process>> {
        isolation::judge_exec(&self.profile, &host_limits(layout), process)
            .map(|verdict| verdict.judged)
            .map_err(|e| self.refused(e))
    }

    /// Whether two profiles isolate alike: the containers of a pod have one.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        let words = |of| Self::floor(of).into_iter().flat_map(|f| f.words());
        self.profile == other.profile && words(self).eq(words(other))
    }
}

/// What this process has to give to others, and what its kernel can do.
pub fn host_limits(layout: &Layout) -> Given {
    use nix::sys::resource::{Resource, getrlimit};
    let hard = |resource| getrlimit(resource).map_or(u64::MAX, |(_, hard)| hard);
    Given {
        open_files: hard(Resource::RLIMIT_NOFILE),
        core_size: hard(Resource::RLIMIT_CORE),
        cgroup_v2: layout.is_v2(),
        recursive_attributes: kernel::version() >= (5, 12),
        ..Given::default()
    }
}
