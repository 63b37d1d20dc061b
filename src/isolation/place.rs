//! Where a node keeps what runs it, and what Kubernetes and containerd made for one pod there.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::oci::Request;

/// The node-wide settings. No profile: the name ends differently.
pub const SETTINGS: &str = "/etc/cofferdam/node.conf";

/// State of container engines that are not asked where it is, because nothing of theirs runs our pods.
const ENGINES: [&str; 13] = [
    "/run/containerd",
    "/var/lib/containerd",
    "/run/docker",
    "/run/docker.sock",
    "/run/crio",
    "/var/lib/containers",
    "/run/containers",
    "/run/podman",
    "/run/cri-dockerd.sock",
    "/run/cofferdam",
    "/run/k3s",
    "/etc/cofferdam",
    "/etc/kubernetes",
];

/// The settings of a node, TOML.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// kubelet's `--root-dir`.
    pub kubelet_root: PathBuf,
    /// dockerd's `data-root`.
    pub docker_root: PathBuf,
    /// nerdctl's `--data-root`.
    pub nerdctl_root: PathBuf,
    /// podman's `graphroot`, containers-storage.conf(5).
    pub podman_root: PathBuf,
    /// podman's `runroot`.
    pub podman_run: PathBuf,
    /// What no pod of a class may see, beside what is always kept from them.
    pub hidden: Vec<PathBuf>,
    /// Where snapshotters keep their snapshots, beside containerd's own in its root.
    pub snapshots: Vec<PathBuf>,
    /// Whom the author of a pod may ask that a profile refuses.
    pub contact: Option<String>,
    /// From which level on shims write lines into containerd's log, whatever containerd's own level is.
    pub log_level: Option<LogLevel>,
}

/// A level of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What somebody should look at, denied calls among it.
    Warning,
    /// Two lines for a pod.
    Info,
    /// Every step.
    Debug,
}

impl From<LogLevel> for log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warning => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self {
            kubelet_root: "/var/lib/kubelet".into(),
            docker_root: "/var/lib/docker".into(),
            nerdctl_root: "/var/lib/nerdctl".into(),
            podman_root: "/var/lib/containers/storage".into(),
            podman_run: "/run/containers/storage".into(),
            hidden: Vec::new(),
            snapshots: Vec::new(),
            contact: None,
            log_level: None,
        }
    }
}

/// What is wrong with the node's settings.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct NodeError {
    path: PathBuf,
    reason: NodeReason,
}

#[derive(Debug, thiserror::Error)]
enum NodeReason {
    #[error(transparent)]
    Read(#[from] std::io::Error),
    #[error(transparent)]
    Parse(#[from] toml::de::Error),
    #[error("{} is not a plain absolute path below the root", .0.display())]
    Path(PathBuf),
}

impl Node {
    /// Reads [`SETTINGS`]; the defaults where there is no such file. Links in the paths are resolved.
    ///
    /// # Errors
    /// A file that cannot be read, or has keys that are not known, or that others than root can write.
    pub fn load() -> Result<Self, NodeError> {
        let mut node = Self::read()?;
        for root in [
            &mut node.kubelet_root,
            &mut node.docker_root,
            &mut node.nerdctl_root,
            &mut node.podman_root,
            &mut node.podman_run,
        ] {
            *root = resolved(root);
        }
        Ok(node)
    }

    /// The same with the paths as they are written, for who needs none of them.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn read() -> Result<Self, NodeError> {
        // Tests run beside each other, and beside what the machine has.
        #[cfg(feature = "sabotage")]
        if let Some(path) = std::env::var_os("COFFERDAM_NODE_CONF") {
            return Self::read_from(Path::new(&path));
        }
        Self::read_from(Path::new(SETTINGS))
    }

    fn read_from(path: &Path) -> Result<Self, NodeError> {
        let wrong = |reason: NodeReason| NodeError {
            path: path.to_owned(),
            reason,
        };
        let text = match super::profile::read_of_root(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(wrong(e.into())),
        };
        let node: Self = toml::from_str(&text).map_err(|e| wrong(e.into()))?;
        let roots = [
            &node.kubelet_root,
            &node.docker_root,
            &node.nerdctl_root,
            &node.podman_root,
            &node.podman_run,
        ];
        for root in roots.into_iter().chain(&node.hidden).chain(&node.snapshots) {
            let plain = root.is_absolute() && !root.to_string_lossy().contains('*');
            if !plain || root.parent().is_none() {
                return Err(wrong(NodeReason::Path(root.clone())));
            }
        }
        Ok(node)
    }
}

/// The path with its links resolved as far as it exists.
pub(super) fn resolved(path: &Path) -> PathBuf {
    if let Ok(real) = fs::canonicalize(path) {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => resolved(parent).join(name),
        _ => path.to_owned(),
    }
}

/// The pod of Kubernetes that a shim serves. Its annotations say so: containerd's CRI plugin puts these two there, and a pod's own
/// cannot replace them; whoever has containerd's socket can write what it likes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodOfKubernetes {
    /// CRI's id of the pod.
    pub sandbox: String,
    /// Kubernetes' id of the pod, which kubelet's directory of it is named after.
    pub uid: Option<String>,
}

impl PodOfKubernetes {
    /// What a container's annotations say.
    pub fn claimed(request: &Request) -> Option<Self> {
        Some(Self {
            sandbox: request.annotation(SANDBOX_ID)?.to_owned(),
            uid: request.annotation(SANDBOX_UID).map(str::to_owned),
        })
    }
}

const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
const SANDBOX_UID: &str = "io.kubernetes.cri.sandbox-uid";

/// What is known of where a container is from: from containerd's own directories, never from the pod.
#[derive(Debug, Clone, Default)]
pub struct Place {
    node: Node,
    /// Directory of `config.json`.
    bundle: PathBuf,
    /// containerd's `state` directory.
    state: Option<PathBuf>,
    /// containerd's `root` directory.
    root: Option<PathBuf>,
    /// The container's id.
    id: String,
    /// Whose volumes are the container's.
    pod: Option<PodOfKubernetes>,
    /// Set for a container of the command line, whose caller has made the bundle and may name it as they like: the directory that the
    /// command line itself mounts into it.
    by_hand: Option<PathBuf>,
}

/// containerd's directory of bundles below its state and its root: NAME/NAMESPACE/ID.
const BUNDLES: &str = "io.containerd.runtime.v2.task";
/// The CRI plugin's directories in both.
const CRI: &str = "io.containerd.grpc.v1.cri";

/// containerd's directory, from one of a bundle below it.
fn above_bundles(bundle: &Path) -> Option<PathBuf> {
    let bundles = bundle.parent()?.parent()?;
    (bundles.file_name()? == BUNDLES).then(|| bundles.parent().map(Path::to_owned))?
}

impl Place {
    /// For the container of a bundle.
    pub fn of(node: &Node, bundle: &Path, id: &str) -> Self {
        let bundle = resolved(bundle);
        // containerd links each bundle to the container's directory in its root.
        let work = fs::read_link(bundle.join("work")).ok();
        Self {
            node: node.clone(),
            state: above_bundles(&bundle),
            root: work.and_then(|w| above_bundles(&resolved(&w))),
            bundle,
            id: id.to_owned(),
            pod: None,
            by_hand: None,
        }
    }

    /// The same, for a container of the node's root itself, by the command line.
    #[must_use]
    pub fn by_hand(self, added: &Path) -> Self {
        Self {
            by_hand: Some(resolved(added)),
            ..self
        }
    }

    /// The same, for a container of a pod of Kubernetes.
    #[must_use]
    pub fn of_pod(self, pod: Option<PodOfKubernetes>) -> Self {
        Self { pod, ..self }
    }

    /// Whether the bundle is one that was made for this container: an engine's has the container's id. It lies where no container can
    /// write.
    pub(super) fn has_own_bundle(&self, listed: &[PathBuf]) -> bool {
        let node = &self.node;
        // podman's directory of a container, where no container can write.
        if self.podman_files(&self.bundle).as_deref() == Some(&[]) {
            return true;
        }
        let writable = [&node.kubelet_root, &node.docker_root, &node.nerdctl_root];
        let engines = ["/var/lib/containerd", "/var/lib/containers"].map(PathBuf::from);
        // A list that has what is above all bundles says nothing of this one.
        let above = |p: &PathBuf| self.state.as_ref().is_some_and(|s| s.starts_with(p));
        let listed = listed.iter().filter(|p| p.parent().is_some() && !above(p));
        let mut all = writable.into_iter().chain(&engines).chain(listed);
        let named = self
            .bundle
            .file_name()
            .is_some_and(|name| name == self.id.as_str());
        (named || self.by_hand.is_some()) && !all.any(|p| self.bundle.starts_with(resolved(p)))
    }

    /// Whether `real` is the container's root as its engine unpacked it: below the bundle (containerd), or where dockerd mounts
    /// roots. dockerd's overlay2 driver names them after layers, not after containers.
    pub(super) fn is_own_root(&self, real: &Path) -> bool {
        let in_docker = match parts(real, &self.node.docker_root).as_deref() {
            Some(["overlay2", _, "merged"]) => true,
            Some(["rootfs", _, id]) => *id == self.id,
            _ => false,
        };
        let podman = parts(real, &self.node.podman_root);
        let in_podman = matches!(podman.as_deref(), Some(["overlay", _, "merged"]));
        in_docker || in_podman || (real.starts_with(&self.bundle) && real != self.bundle)
    }

    /// kubelet's directory of the pod.
    pub(super) fn pod(&self) -> Option<PathBuf> {
        let uid = self.pod.as_ref()?.uid.as_ref()?;
        crate::oci::path::is_component(uid).then(|| self.node.kubelet_root.join("pods").join(uid))
    }

    /// Whether kubelet binds a part of a volume there.
    pub(super) fn is_subpath(&self, point: &Path) -> bool {
        let below = parts(point, &self.node.kubelet_root.join("pods"));
        matches!(below.as_deref(), Some([_, "volume-subpaths", ..]))
    }

    /// Whether a snapshotter keeps it. containerd's have `NAME/snapshots/NUMBER/fs`, and what is further down is a container's.
    pub(super) fn is_snapshot(&self, real: &Path) -> bool {
        let below = self.root.as_ref().and_then(|root| parts(real, root));
        let of_containerd = match below.as_deref() {
            Some([name, "snapshots" | "active" | "view", number, rest @ ..]) => {
                name.starts_with("io.containerd.snapshotter.v1.")
                    && number.bytes().all(|b| b.is_ascii_digit())
                    && rest.len() <= 1
            }
            _ => false,
        };
        let mut others = self.node.snapshots.iter();
        of_containerd || others.any(|s| real.starts_with(resolved(s)) || real.starts_with(s))
    }

    /// Whether containerd keeps it for the pod: namespaces that it has made before the first container.
    pub(super) fn is_kept_for_pod(&self, real: &Path) -> bool {
        let Some((pod, state)) = self.pod.as_ref().zip(self.state.as_ref()) else {
            return false;
        };
        matches!(parts(real, &state.join(CRI)).as_deref(), Some(["sandboxes", id, _, ..]) if *id == pod.sandbox)
    }

    /// The directories in which `ip-netns(8)`, CNI plugins and containerd keep network namespaces.
    pub(super) fn networks(&self) -> Vec<PathBuf> {
        let shared = ["/run/netns", "/run/docker/netns"].map(PathBuf::from);
        let own = self.state.iter();
        let own = own.flat_map(|s| [s.join(CRI).join("netns"), s.join("netns")]);
        own.chain(shared).collect()
    }

    /// Whether containerd, dockerd or nerdctl made `real` for this container, or for its sandbox.
    pub(super) fn is_of_engine(&self, real: &Path) -> bool {
        let cri = |root: &Option<PathBuf>| parts(real, &root.as_ref()?.join(CRI));
        let sandbox = self.pod.as_ref().map_or("", |p| p.sandbox.as_str());
        let of_root = match cri(&self.root).as_deref() {
            Some(["sandboxes", id, "hosts" | "hostname" | "resolv.conf"]) => *id == sandbox,
            Some(["containers", id, "volumes", _, ..]) => *id == self.id,
            _ => false,
        };
        let of_state = match cri(&self.state).as_deref() {
            Some(["sandboxes", id, "shm"]) => *id == sandbox,
            Some(["image-volumes", id, _, ..]) => *id == sandbox,
            _ => false,
        };
        of_root || of_state || self.by_hand.as_deref() == Some(real) || self.is_of_client(real)
    }

    /// dockerd's and nerdctl's files of a container are in a directory that has its id.
    fn is_of_client(&self, real: &Path) -> bool {
        let in_docker = match parts(real, &self.node.docker_root).as_deref() {
            Some(
                ["containers", id, "hosts" | "hostname" | "resolv.conf"]
                | ["containers", id, "mounts", "shm" | "secrets"],
            ) => *id == self.id,
            _ => false,
        };
        let in_nerdctl = match parts(real, &self.node.nerdctl_root).as_deref() {
            Some(
                [_, "containers", _, id, "hosts" | "hostname" | "resolv.conf"]
                | [_, "etchosts", _, id, "hosts"],
            ) => *id == self.id,
            _ => false,
        };
        let in_podman = matches!(
            self.podman_files(real).as_deref(),
            Some(["hosts" | "hostname" | "resolv.conf" | ".containerenv" | "shm"] | ["run", ..])
        );
        in_docker || in_nerdctl || in_podman
    }

    /// What is below podman's directories of this container: DRIVER-containers/ID/userdata.
    fn podman_files<'a>(&self, real: &'a Path) -> Option<Vec<&'a str>> {
        let roots = [&self.node.podman_root, &self.node.podman_run];
        let below = roots.into_iter().find_map(|root| parts(real, root))?;
        match below.as_slice() {
            [driver, id, "userdata", rest @ ..]
                if driver.ends_with("-containers") && *id == self.id =>
            {
                Some(rest.to_vec())
            }
            _ => None,
        }
    }

    /// What no pod of a class may see: neither these, nor what is above or below them. Links resolved.
    pub(super) fn hidden(&self) -> Vec<PathBuf> {
        let node = &self.node;
        let kernel = ["/proc", "/sys", "/dev"].map(PathBuf::from);
        let engines = ENGINES.map(|p| resolved(Path::new(p)));
        let own = [
            &node.kubelet_root,
            &node.docker_root,
            &node.nerdctl_root,
            &node.podman_root,
            &node.podman_run,
        ];
        kernel
            .into_iter()
            .chain(engines)
            .chain(own.into_iter().cloned())
            .chain(self.state.iter().chain(&self.root).cloned())
            .chain(node.hidden.iter().map(|p| resolved(p)))
            .collect()
    }

    /// dockerd's and podman's named volumes: the node's, though their other files are nobody's.
    pub(super) fn named_volumes(&self) -> [PathBuf; 2] {
        let roots = [&self.node.docker_root, &self.node.podman_root];
        roots.map(|root| root.join("volumes"))
    }
}

/// What is below a directory, in parts. Names that are not UTF-8 are nobody's whom we know.
pub(super) fn parts<'a>(path: &'a Path, below: &Path) -> Option<Vec<&'a str>> {
    let rest = path.strip_prefix(below).ok()?;
    rest.iter().map(|part| part.to_str()).collect()
}

#[cfg(test)]
mod tests;
