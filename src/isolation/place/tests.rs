use super::*;

pub(crate) fn place(dir: &Path) -> Place {
    Place {
        node: Node {
            kubelet_root: dir.join("kubelet"),
            ..Node::default()
        },
        bundle: dir.join("state").join(BUNDLES).join("k8s.io/c1"),
        state: Some(dir.join("state")),
        root: Some(dir.join("root")),
        id: "c1".into(),
        by_hand: None,
        pod: Some(PodOfKubernetes {
            sandbox: "s1".into(),
            uid: Some("../x".into()),
        }),
    }
}

#[test]
fn what_was_made_for_a_container_and_what_was_not() {
    let place = place(Path::new("/x"));
    for (path, ours) in [
        ("/x/root/io.containerd.grpc.v1.cri/sandboxes/s1/hosts", true),
        (
            "/x/root/io.containerd.grpc.v1.cri/sandboxes/s2/hosts",
            false,
        ),
        ("/x/root/io.containerd.grpc.v1.cri/sandboxes/s1", false),
        ("/x/state/io.containerd.grpc.v1.cri/sandboxes/s1/shm", true),
        (
            "/x/state/io.containerd.grpc.v1.cri/image-volumes/s1/sha",
            true,
        ),
        ("/x/state/io.containerd.grpc.v1.cri/image-volumes/s1", false),
        (
            "/x/root/io.containerd.grpc.v1.cri/containers/c1/volumes/v",
            true,
        ),
        (
            "/x/root/io.containerd.grpc.v1.cri/containers/c2/volumes/v",
            false,
        ),
        (
            "/x/root/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs",
            false,
        ),
        ("/var/lib/docker/containers/c1/resolv.conf", true),
        ("/var/lib/docker/containers/c2/resolv.conf", false),
        (
            "/var/lib/nerdctl/1935db59/containers/default/c1/hostname",
            true,
        ),
        ("/var/lib/nerdctl/1935db59/etchosts/default/c1/hosts", true),
        ("/var/lib/nerdctl/1935db59/etchosts/default/c2/hosts", false),
        (
            "/run/containers/storage/overlay-containers/c1/userdata/resolv.conf",
            true,
        ),
        (
            "/run/containers/storage/overlay-containers/c1/userdata/run/secrets",
            true,
        ),
        (
            "/run/containers/storage/overlay-containers/c2/userdata/hosts",
            false,
        ),
        (
            "/run/containers/storage/overlay-containers/c1/userdata/config.json",
            false,
        ),
        (
            "/var/lib/containers/storage/overlay-containers/c1/userdata/shm",
            true,
        ),
    ] {
        assert_eq!(place.is_of_engine(Path::new(path)), ours, "{path}");
    }
    assert!(place.pod().is_none());
}

#[test]
fn bundles_lead_to_containerds_directories() {
    let dir = std::env::temp_dir().join(format!("cdtest-place-{}", std::process::id()));
    let at = |root: &str| dir.join(root).join(BUNDLES).join("k8s.io/c1");
    fs::create_dir_all(at("state")).unwrap();
    fs::create_dir_all(at("root")).unwrap();
    std::os::unix::fs::symlink(at("root"), at("state").join("work")).unwrap();
    let place = Place::of(&Node::default(), &at("state"), "c1");
    assert_eq!(
        (place.state, place.root),
        (Some(dir.join("state")), Some(dir.join("root")))
    );
    let other = Place::of(&Node::default(), &dir, "c1");
    assert_eq!((other.state, other.root), (None, None));
    fs::remove_dir_all(dir).unwrap();
}
