use super::*;

#[test]
fn where_kubelet_keeps_volumes() {
    let of = |words: &[&str]| root_of_kubelet(&words.join("\0"));
    for (words, root) in [
        (&["/usr/bin/kubelet", "--v=2"][..], Some("/var/lib/kubelet")),
        (
            &["kubelet", "--root-dir=/data/kubelet"],
            Some("/data/kubelet"),
        ),
        (
            &[
                "/var/lib/k0s/bin/kubelet",
                "--root-dir",
                "/var/lib/k0s/kubelet",
            ],
            Some("/var/lib/k0s/kubelet"),
        ),
        (
            &["/snap/microk8s/1/kubelite", "--root-dir=/var/snap/x"],
            Some("/var/snap/x"),
        ),
        (&["/usr/local/bin/k3s", "server"], None),
        (&["bash", "--root-dir=/x"], None),
        (&[""], None),
    ] {
        assert_eq!(of(words), root.map(PathBuf::from), "{words:?}");
    }
}

#[test]
fn what_is_well_needs_no_remedy() {
    let mut out = Findings::default();
    out.test("a", true, State::Failing, "x", "do this");
    out.test("b", false, State::Degraded, "y", "do that");
    let remedies: Vec<&str> = out.all.iter().map(|f| f.remedy.as_str()).collect();
    assert_eq!(remedies, ["", "do that"]);
    assert!(State::Failing > State::Degraded && State::Degraded > State::Ok);
}
