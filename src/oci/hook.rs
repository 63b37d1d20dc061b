//! Lifecycle hooks, OCI config.md "POSIX-platform Hooks".

use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

/// A timeout beyond a year is one that never comes, and this one can be added to any time: in seconds.
const LONGEST: u64 = 366 * 24 * 3600;

/// A kind of hook, which says where its program is looked for, where it runs and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookKind {
    /// A program of the node, in the runtime's namespaces. Deprecated, and in use.
    Prestart,
    /// A program of the node, in the runtime's namespaces.
    CreateRuntime,
    /// A program of the node, in the container's namespaces, before its root is the root.
    CreateContainer,
    /// A program of the container, in the container, before the user's program.
    StartContainer,
    /// A program of the node, in the runtime's namespaces, after the user's program began. A failure is logged.
    Poststart,
    /// A program of the node, in the runtime's namespaces, after the container is deleted. A failure is logged.
    Poststop,
}

impl HookKind {
    /// In the order in which they run.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// The spec's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// Whether the program is the node's, and runs with rights over it.
    pub fn is_of_node(self) -> bool {
        self != Self::StartContainer
    }

    #[allow(deprecated)]
    fn list(self, hooks: &oci_spec::runtime::Hooks) -> &[oci_spec::runtime::Hook] {
        match self {
            Self::Prestart => hooks.prestart(),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::CreateContainer => hooks.create_container(),
            Self::StartContainer => hooks.start_container(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        }
        .as_deref()
        .unwrap_or_default()
    }
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Its kind.
    pub kind: HookKind,
    /// Its place among those of its kind.
    pub index: usize,
    /// The program, an absolute path.
    pub path: PathBuf,
    /// The whole `argv`; empty means the path alone.
    pub args: Vec<String>,
    /// The whole environment, as `KEY=VALUE`; none where the spec does not say.
    pub env: Option<Vec<String>>,
    /// In seconds; none is no limit.
    pub timeout: Option<u64>,
}

impl Hook {
    /// The JSON path.
    pub fn field(&self) -> String {
        format!("hooks.{}[{}]", self.kind.name(), self.index)
    }
}

/// All hooks of a spec, by kind in the order of [`HookKind::ALL`], each kind in the spec's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks(pub Vec<Hook>);

impl Hooks {
    /// Those of a spec that was validated.
    pub(super) fn read(spec: &Spec) -> Self {
        let Some(hooks) = spec.hooks() else {
            return Self::default();
        };
        let of = |kind: HookKind| {
            let list = kind.list(hooks).iter().enumerate();
            list.map(move |(index, h)| Hook {
                kind,
                index,
                path: h.path().clone(),
                args: h.args().clone().unwrap_or_default(),
                env: h.env().clone(),
                timeout: h
                    .timeout()
                    .and_then(|t| u64::try_from(t).ok())
                    .map(|t| t.min(LONGEST)),
            })
        };
        Self(HookKind::ALL.into_iter().flat_map(of).collect())
    }

    /// Those of one kind.
    pub fn of(&self, kind: HookKind) -> impl Iterator<Item = &Hook> {
        self.0.iter().filter(move |h| h.kind == kind)
    }

    /// Whether there are any of these kinds.
    pub fn has(&self, kinds: &[HookKind]) -> bool {
        self.0.iter().any(|h| kinds.contains(&h.kind))
    }
}
