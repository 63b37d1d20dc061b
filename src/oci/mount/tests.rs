use super::*;

fn parse(words: &[&str]) -> Options {
    Options::parse(words.iter().copied())
}

#[test]
fn what_cri_generates() {
    let o = parse(&["nosuid", "strictatime", "mode=755", "size=65536k"]);
    assert_eq!(o.flags.set, attr::NOSUID | attr::STRICTATIME);
    assert_eq!(o.flags.clear, attr::ATIME);
    assert_eq!(
        o.data,
        [
            ("mode".into(), Some("755".into())),
            ("size".into(), Some("65536k".into()))
        ]
    );
    let o = parse(&["nosuid", "noexec", "newinstance", "ptmxmode=0666", "gid=5"]);
    assert_eq!(o.data.first().unwrap(), &("newinstance".into(), None));
    let o = parse(&["rbind", "rslave", "rro"]);
    assert!(o.bind && o.recursive_bind);
    assert_eq!(o.propagation, [(libc::MS_SLAVE, true)]);
    assert_eq!((o.flags.set, o.flags.recursive_set), (0, attr::RDONLY));
}

#[test]
fn later_words_win_and_recursive_ones_come_last() {
    let o = parse(&["ro", "rw", "noatime", "relatime"]);
    assert_eq!(
        (o.flags.set, o.flags.clear),
        (0, attr::RDONLY | attr::ATIME)
    );
    assert_eq!(parse(&["rw", "ro"]).flags.set, attr::RDONLY);
    for (words, read_only) in [
        (&["ro"][..], true),
        (&["ro", "rw"], false),
        (&["ro", "rrw"], false),
        (&["rrw", "ro"], false),
        (&["rro", "rw"], true),
        (&["rw", "rro", "rrw"], false),
    ] {
        let effective = parse(words).flags.effective() & attr::RDONLY != 0;
        assert_eq!(effective, read_only, "{words:?}");
    }
}

#[test]
fn what_is_required_holds_whatever_was_said() {
    for words in [
        &["rw"][..],
        &["ro", "rw"],
        &["rrw"],
        &["rexec", "rsuid", "rdev", "rw"],
        &[],
    ] {
        for tree in [false, true] {
            let mut flags = parse(words).flags;
            let wanted = attr::RDONLY | attr::NOSUID | attr::NODEV;
            flags.require(wanted, tree);
            assert_eq!(flags.effective() & wanted, wanted, "{words:?}");
            assert_eq!(flags.clear & wanted, 0);
        }
    }
}

#[test]
fn destinations_stay_below_the_root() {
    let read = |path: &str| destination(Path::new(path), "mounts[3]");
    assert_eq!(read("/a/../../b/./c").unwrap(), Path::new("/b/c"));
    let e = read("/..").unwrap_err().to_string();
    assert!(e.starts_with("mounts[3].destination"), "{e}");
    assert!(read("/proc/../proc/self").is_err());
    assert!(read("/proc/meminfo").is_ok());
}
