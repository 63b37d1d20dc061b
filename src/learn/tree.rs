//! Absolute paths for relative ones, by the working directories that processes had.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{MAX_ANCESTORS, clean, directory_of};

/// Processes, by their numbers in the container.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The init's directory at first.
    pub first: Option<String>,
    /// Those that are still there, and their numbers on the node.
    pub live: BTreeMap<u32, i32>,
    pub parents: BTreeMap<u32, u32>,
    /// Where each went, in no order.
    pub directories: BTreeMap<u32, BTreeSet<String>>,
}

impl Tree {
    /// What a path may be in the container: more than one where its process was in more than one directory.
    pub(crate) fn resolve(&self, path: &str, directory: i32, process: u32) -> Vec<String> {
        if path.starts_with('/') {
            return vec![clean(Path::new(path))];
        }
        let bases = if directory == libc::AT_FDCWD {
            self.directories(process, MAX_ANCESTORS)
        } else {
            let live = self.live.get(&process);
            let base = live.and_then(|pid| directory_of(*pid, &format!("fd/{directory}")));
            base.into_iter().collect()
        };
        let join = |base: String| clean(&Path::new(&base).join(path));
        bases.into_iter().map(join).collect()
    }

    fn directories(&self, process: u32, ancestors: u32) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        if let Some(pid) = self.live.get(&process) {
            all.extend(directory_of(*pid, "cwd"));
        }
        let before = || match (self.parents.get(&process), ancestors.checked_sub(1)) {
            (Some(parent), Some(left)) => self.directories(*parent, left),
            _ => self.first.iter().cloned().collect(),
        };
        match self.directories.get(&process) {
            Some(own) => {
                for path in own {
                    if path.starts_with('/') {
                        all.insert(clean(Path::new(path)));
                    } else {
                        let from = before().into_iter();
                        all.extend(from.map(|base| clean(&Path::new(&base).join(path))));
                    }
                }
            }
            None => all.extend(before()),
        }
        all
    }
}
