//! The documents name files of the tree: each has to be there.

use std::path::Path;

const DOCUMENTS: [(&str, &str); 3] = [
    (
        "docs/architecture.md",
        include_str!("../docs/architecture.md"),
    ),
    ("docs/design.md", include_str!("../docs/design.md")),
    ("CONTRIBUTING.md", include_str!("../CONTRIBUTING.md")),
];

#[test]
fn every_file_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for (document, text) in DOCUMENTS {
        // What stands between backticks, and looks like a file or a folder of the tree.
        for word in text.split('`').skip(1).step_by(2) {
            let is_path =
                word.ends_with('/') || Path::new(word).extension().is_some_and(|e| e == "rs");
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
            if !is_path || word.starts_with('/') || !word.chars().all(is_plain) {
                continue;
            }
            let here = [root.to_owned(), root.join("src"), root.join("docs")];
            let exists = here.iter().any(|d| d.join(word).exists())
                || word.starts_with("target/")
                || !word.contains('/') && has(&root.join("src"), word);
            assert!(exists, "{document}: {word}");
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} files are named");
}

/// Whether a file of this name is anywhere below a folder.
fn has(folder: &Path, name: &str) -> bool {
    let mut entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.any(|e| e.file_name() == name || e.path().is_dir() && has(&e.path(), name))
}
