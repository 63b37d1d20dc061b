use super::*;

#[test]
fn paths_of_the_container() {
    const HERE: i32 = libc::AT_FDCWD;
    let dirs = |of: &[&str]| of.iter().map(|d| (*d).to_owned()).collect::<BTreeSet<_>>();
    let tree = Tree {
        first: Some("/srv".into()),
        parents: [(2, 1), (3, 2), (4, 3), (9, 9)].into(),
        directories: [(2, dirs(&["/a/../b", "sub"])), (4, dirs(&["deep"]))].into(),
        live: BTreeMap::new(),
    };
    assert_eq!(tree.resolve("/a/../b/./c", 0, 7), ["/b/c"]);
    assert_eq!(tree.resolve("x", HERE, 1), ["/srv/x"]);
    assert_eq!(
        tree.resolve("x", HERE, 3),
        ["/b/x", "/srv/sub/x"],
        "its parent's"
    );
    assert_eq!(tree.resolve("x", HERE, 4), ["/b/deep/x", "/srv/sub/deep/x"]);
    assert_eq!(tree.resolve("x", HERE, 9), ["/srv/x"], "a circle ends");
    assert!(
        tree.resolve("x", 5, 3).is_empty(),
        "a descriptor that is gone"
    );
    let me = std::process::id();
    let here = std::env::current_dir().unwrap();
    let live = Tree {
        live: [(1, me.cast_signed())].into(),
        ..Tree::default()
    };
    assert_eq!(
        live.resolve("x", HERE, 1),
        [here.join("x").to_string_lossy()]
    );
}

#[test]
fn words_of_keys() {
    let key = [1u8, 0, 0, 0, 2, 0, 0, 0, b'/', b'x', 0, b'y'];
    assert_eq!(
        (word(&key, 0), word(&key, 4), text(&key, 8)),
        (1, 2, "/x".into())
    );
}
