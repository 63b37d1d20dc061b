//! What people call a container: names for messages and lookups. Nothing is decided by them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// The names of a container, as its engine has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// Kubernetes' namespace of the pod.
    pub namespace: Option<String>,
    /// Kubernetes' name of the pod.
    pub pod: Option<String>,
    /// Its name in the pod, or in its engine. None for the sandbox (pause) container of a pod.
    pub container: Option<String>,
}

/// Annotations with a name: namespace, pod, container. containerd's CRI plugin, CRI-O and cri-dockerd (kubelet's own labels), nerdctl.
const SOURCES: [[&str; 3]; 3] = [
    [
        "io.kubernetes.cri.sandbox-namespace",
        "io.kubernetes.cri.sandbox-name",
        "io.kubernetes.cri.container-name",
    ],
    [
        "io.kubernetes.pod.namespace",
        "io.kubernetes.pod.name",
        "io.kubernetes.container.name",
    ],
    ["", "", "nerdctl/name"],
];

/// Kubernetes' names have 253 characters at most. A spec by hand may have any, and each line of the log would repeat it.
const LONGEST: usize = 253;

impl Names {
    /// From the annotations of a container.
    pub fn of<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Self {
        let get = |key: &str| {
            let value = annotation(key).filter(|value| !value.is_empty())?;
            Some(value.chars().take(LONGEST).collect::<String>())
        };
        let known = SOURCES.into_iter().map(|[namespace, pod, container]| Self {
            namespace: get(namespace),
            pod: get(pod),
            container: get(container).filter(|name| name != "POD"),
        });
        known
            .into_iter()
            .find(|names| !names.is_empty())
            .unwrap_or_default()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it is the sandbox (pause) container of a pod of Kubernetes.
    pub fn is_sandbox(&self) -> bool {
        self.pod.is_some() && self.container.is_none()
    }

    /// The pod: `NAMESPACE/POD`.
    pub fn of_pod(&self) -> Option<String> {
        let pod = self.pod.as_deref()?;
        Some(match &self.namespace {
            Some(namespace) => format!("{namespace}/{pod}"),
            None => pod.to_owned(),
        })
    }
}

/// An id as people see it: of those that engines draw, the 13 digits that crictl shows; another one was chosen by somebody, and is whole.
pub fn short(id: &str) -> &str {
    let is_drawn = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if is_drawn {
        id.get(..13).unwrap_or(id)
    } else {
        id
    }
}

static KNOWN: Mutex<BTreeMap<String, Names>> = Mutex::new(BTreeMap::new());

/// From now on every line of the log that has this container's id has its names, too.
pub fn register(id: &str, names: &Names) {
    if !names.is_empty() {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(id.to_owned(), names.clone());
    }
}

/// The container is gone.
pub fn forget(id: &str) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.remove(id);
}

/// The names that were registered for a container.
pub fn registered(id: &str) -> Option<Names> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.get(id).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(annotations: &[(&str, &str)]) -> Names {
        Names::of(|key| {
            annotations
                .iter()
                .find(|(k, _)| *k == key)
                .map(|(_, value)| *value)
        })
    }

    #[test]
    fn engines_have_names_in_annotations() {
        let cri = names(&[
            ("io.kubernetes.cri.sandbox-name", "web"),
            ("io.kubernetes.cri.sandbox-namespace", "shop"),
            ("io.kubernetes.cri.container-name", "nginx"),
        ]);
        assert_eq!(cri.of_pod().as_deref(), Some("shop/web"));
        assert_eq!(cri.container.as_deref(), Some("nginx"));
        let crio = names(&[
            ("io.kubernetes.pod.name", "web"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.container.name", "POD"),
        ]);
        assert_eq!(
            (crio.of_pod().as_deref(), crio.container),
            (Some("shop/web"), None)
        );
        let nerdctl = names(&[("nerdctl/name", "web"), ("nerdctl/namespace", "default")]);
        assert_eq!(
            (nerdctl.of_pod(), nerdctl.container.as_deref()),
            (None, Some("web"))
        );
        assert!(names(&[("io.kubernetes.cri.sandbox-name", "")]).is_empty());
        let long = "x".repeat(100_000);
        let long = names(&[("nerdctl/name", &long)]);
        assert_eq!(long.container.unwrap().len(), LONGEST);
    }

    #[test]
    fn ids_are_as_short_as_crictls() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(short(&id), "0123456789abc");
        assert_eq!(short("hello"), "hello");
    }
}
