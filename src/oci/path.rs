//! Paths as text. What is decided on a path of the node is decided on what was opened there: see [`super::Opened`].

use std::path::{Component, Path, PathBuf};

/// The path without `.`, `..` and doubled slashes, from `/` on. Symbolic links are not resolved.
pub fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// Whether a text can be one component of a path and nothing else.
pub fn is_component(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_path() {
        for text in ["/a/b", "//a/./b/", "/a/../a/c/../b", "a/b", "/../a/b"] {
            assert_eq!(lexical(Path::new(text)), Path::new("/a/b"), "{text}");
        }
        assert!(is_component("a.b") && !is_component("..") && !is_component("a/b"));
    }
}
