//! The mounts that make up a root file system, as containerd passes them beside the spec.

/// One of them, as in containerd's `types.Mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootMount {
    /// File system type, or `bind`.
    pub fstype: String,
    /// Device, directory, or any word.
    pub source: String,
    /// Directory below the root, usually empty.
    pub target: String,
    /// Mount options.
    pub options: Vec<String>,
}

impl RootMount {
    /// Whether a directory is bound.
    pub fn is_bind(&self) -> bool {
        let bind = |word: &str| word == "bind" || word == "rbind";
        bind(&self.fstype) || self.options.iter().any(|o| bind(o))
    }

    /// The value of an option `KEY=VALUE`.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options
            .iter()
            .find_map(|o| o.strip_prefix(key)?.strip_prefix('='))
    }
}
