//! What the author of a pod asks for, through CRI; and the volumes of Kubernetes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use containerd_shim_protos::api::CreateTaskResponse;
use nix::mount::MsFlags;
use nix::mount::mount;
use serde_json::json;

use super::{CLASSES, OfNode, Pod, UNTRUSTED};
use crate::isolation::output;
use crate::support::BUSYBOX;
use crate::support::Daemon;
use crate::support::Release;
use crate::support::cri;
use crate::support::shim::Shim;
use crate::support::shim::Streams;
use crate::support::wait_until;

/// Every type of volume that Kubernetes makes for a pod, as kubelet and its plugins leave it, in each class.
pub(super) fn volumes(d: &mut Daemon) {
    let disk = OfNode::new(&format!("disk-{}", d.release.name()));
    for class in CLASSES {
        let mut pod = Pod::run(d, &format!("volumes-{class}"), class);
        let plugin = |name: &str, volume: &str| format!("volumes/kubernetes.io~{name}/{volume}");
        let in_memory = pod.make(&plugin("empty-dir", "memory"), true);
        pod.mount(Path::new("tmpfs"), &in_memory, Some("tmpfs"));
        let secret = pod.make(&plugin("secret", "s"), true);
        pod.mount(Path::new("tmpfs"), &secret, Some("tmpfs"));
        // A volume of a CSI driver, and a local one: of another file system, and of a directory of the node's that the
        // cluster's administrator has made a volume.
        let csi = pod.make(&plugin("csi", "pv/mount"), true);
        pod.mount(Path::new("tmpfs"), &csi, Some("tmpfs"));
        let local = pod.make(&plugin("local-volume", "pv-local"), true);
        pod.mount(&disk.0, &local, None);
        // A part of a volume, which kubelet binds to a place of its own.
        let disk_volume = pod.make(&plugin("empty-dir", "disk"), true);
        fs::create_dir(disk_volume.join("part")).unwrap();
        fs::set_permissions(disk_volume.join("part"), fs::Permissions::from_mode(0o777)).unwrap();
        let part = pod.make("volume-subpaths/disk/c/0", true);
        pod.mount(&disk_volume.join("part"), &part, None);
        let config = pod.make(&plugin("configmap", "c/..2026/key"), false);
        symlink("..2026", config.parent().unwrap().with_file_name("..data")).unwrap();
        let key = pod.make("volume-subpaths/c/c/1", false);
        pod.mount(&config, &key, None);
        let writable = [
            ("emptyDir", disk_volume),
            ("emptyDir in memory", in_memory),
            ("CSI", csi),
            ("local", local),
            ("subPath", part),
        ];
        for (i, (what, path)) in writable.iter().enumerate() {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
            let c = pod
                .start(&format!("w{i}"), path, "/v", false)
                .unwrap_or_else(|e| panic!("{class}: {what}: {e}"));
            assert_eq!(
                pod.sh(&c, "echo x > /v/made && cat /v/made"),
                "x\n",
                "{class}: {what}"
            );
            assert!(path.join("made").exists(), "{class}: {what}");
        }
        let files = [
            ("secret", secret),
            (
                "configMap",
                config.parent().unwrap().parent().unwrap().to_owned(),
            ),
            ("projected", pod.make(&plugin("projected", "p"), true)),
            ("downwardAPI", pod.make(&plugin("downward-api", "d"), true)),
        ];
        for (i, (what, path)) in files.iter().enumerate() {
            fs::write(path.join("file"), "data\n").unwrap();
            let c = pod
                .start(&format!("r{i}"), path, "/v", true)
                .unwrap_or_else(|e| panic!("{class}: {what}: {e}"));
            let script = "cat /v/file; touch /v/file 2>/dev/null || echo read-only";
            assert_eq!(pod.sh(&c, script), "data\nread-only\n", "{class}: {what}");
        }
        // Where the kernel has huge pages.
        let huge = pod.make(&plugin("empty-dir", "huge"), true);
        if mount(
            Some("none"),
            &huge,
            Some("hugetlbfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .is_ok()
        {
            pod.mounts.push(huge.clone());
            let c = pod
                .start("huge", &huge, "/v", false)
                .unwrap_or_else(|e| panic!("{class}: huge pages: {e}"));
            assert_eq!(pod.sh(&c, "grep -c '/v hugetlbfs' /proc/mounts"), "1\n");
        }
        if d.release == Release::V2 {
            // An image as a volume.
            let mut c = cri::container_config("image", BUSYBOX, &["sleep", "1000"]);
            c.mounts.push(cri::Mount {
                container_path: "/image".into(),
                image: Some(k8s_cri::v1::ImageSpec {
                    image: BUSYBOX.into(),
                    ..Default::default()
                }),
                readonly: true,
                ..Default::default()
            });
            let c = pod
                .start_config(&c)
                .unwrap_or_else(|e| panic!("{class}: image volume: {e}"));
            assert_eq!(
                pod.sh(&c, "ls /image/bin/busybox"),
                "/image/bin/busybox\n",
                "{class}"
            );
        }
        let hosts = pod.make("etc-hosts", false);
        let log = pod.make("containers/c/0123", false);
        for (i, (path, at)) in [
            (key, "/key"),
            (hosts, "/etc/hosts"),
            (log, "/dev/termination-log"),
        ]
        .iter()
        .enumerate()
        {
            let c = pod
                .start(&format!("f{i}"), path, at, false)
                .unwrap_or_else(|e| panic!("{class}: {at}: {e}"));
            assert_eq!(pod.sh(&c, &format!("cat {at}")), "content\n", "{class}");
        }
    }
}

/// k0s, microk8s and others have kubelet's directory elsewhere: the node says where, never the pod.
pub(super) fn kubelet_elsewhere() {
    let dir = std::env::temp_dir().join(format!("cdtest-kubelet-{}", std::process::id()));
    let uid = crate::support::pod_uid();
    let hosts = dir.join("kubelet/pods").join(&uid).join("etc-hosts");
    fs::create_dir_all(hosts.parent().unwrap()).unwrap();
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let settings = dir.join("node.conf");
    let text = format!(
        "kubelet_root = {:?}\nsnapshots = [{:?}]\n",
        dir.join("kubelet"),
        crate::support::test_directory()
    );
    fs::write(&settings, text).unwrap();
    let set = |s: &Shim| {
        let mut spec = s.spec("box", &["cat", "/dev/hosts"]);
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "type": "bind", "source": hosts, "destination": "/dev/hosts", "options": ["rbind"]
        }));
        spec
    };
    let s = Shim::start_as(3, UNTRUSTED);
    let (_, why) = s
        .create_with("box", &set(&s), Streams::default())
        .unwrap_err();
    assert!(
        why.contains("/etc/cofferdam/node.conf (kubelet_root"),
        "{why}"
    );
    s.end();
    let s = Shim::start_with(
        3,
        UNTRUSTED,
        &[("COFFERDAM_NODE_CONF", settings.to_str().unwrap())],
    );
    assert_eq!(output(&s, "box", &set(&s)).0, "127.0.0.1 localhost\n");
    s.end();
    for text in [
        "hidden = [\"srv/x\"]",
        "hidden = [\"/x/*\"]",
        "snapshots = [\"/\"]",
    ] {
        fs::write(&settings, text).unwrap();
        let s = Shim::start_with(
            3,
            UNTRUSTED,
            &[("COFFERDAM_NODE_CONF", settings.to_str().unwrap())],
        );
        let (_, why) = s
            .create_with("box", &set(&s), Streams::default())
            .unwrap_err();
        assert!(why.contains("is not a plain absolute path"), "{why}");
        s.end();
    }
    fs::write(&settings, "kubelet_rot = \"/x\"\n").unwrap();
    let s = Shim::start_with(
        3,
        UNTRUSTED,
        &[("COFFERDAM_NODE_CONF", settings.to_str().unwrap())],
    );
    let (_, why) = s
        .create_with("box", &set(&s), Streams::default())
        .unwrap_err();
    assert!(
        why.contains("node settings") && why.contains("kubelet_rot"),
        "{why}"
    );
    s.end();
    fs::remove_dir_all(dir).unwrap();
}

/// What decides over pods is root's alone.
pub(super) fn files_of_others() {
    let dir = std::env::temp_dir().join(format!("cdtest-files-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join("mine.toml");
    fs::write(&file, "extends = \"hardened\"\n").unwrap();
    let create = || {
        let s = Shim::start(3);
        let spec = s.spec("box", &["true"]);
        let mut request = s.create_request("box", &spec, Streams::default());
        request.options = Some(crate::isolation::runtime_options(2, file.to_str().unwrap())).into();
        let answer = s.call::<CreateTaskResponse>("Create", &request);
        if answer.is_ok() {
            s.delete("box", "").unwrap();
        }
        s.end();
        answer.map(drop).map_err(|(_, why)| why)
    };
    create().unwrap();
    for (path, mode) in [(&file, 0o666), (&dir, 0o777)] {
        let before = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let why = create().unwrap_err();
        assert!(why.contains("can be changed by others than root"), "{why}");
        fs::set_permissions(path, before).unwrap();
    }
    nix::unistd::chown(&file, Some(1000.into()), None).unwrap();
    assert!(
        create()
            .unwrap_err()
            .contains("can be changed by others than root (owner 1000")
    );
    fs::remove_dir_all(dir).unwrap();
}

/// What is the node's, by whatever path.
pub(super) fn host_paths(d: &mut Daemon) {
    let node = OfNode::new(&format!("paths-{}", d.release.name()));
    let neighbour = Pod::run(d, "neighbour", "cofferdam");
    let theirs = neighbour.make("volumes/kubernetes.io~secret/token", true);
    for class in CLASSES {
        let mut pod = Pod::run(d, &format!("paths-{class}"), class);
        for path in [
            "/",
            "/etc",
            "/etc/ssl",
            "/root",
            "/home",
            "/opt",
            "/var",
            "/var/lib",
            "/var/spool/cron",
            "/var/lib/dpkg",
            "/var/lib/kubelet",
            "/var/lib/kubelet/pods",
            "/run",
            "/run/containerd",
            "/run/containerd/s",
            "/var/run",
            "/var/run/containerd",
            "/proc/sys",
            "/proc/1",
            "/sys/fs/cgroup",
            "/dev/shm",
            "/tmp",
        ] {
            if Path::new(path).exists() {
                pod.refused(Path::new(path), "refuses the hostPath volume");
            }
        }
        for path in [
            d.dir().join("root"),
            d.dir().join("state"),
            d.dir().join("c.sock"),
            Path::new("/run/cofferdam").to_owned(),
            Path::new("/run/cofferdam/pods").to_owned(),
            node.0.clone(),
            theirs.clone(),
            pod.directory(),
        ] {
            pod.refused(&path, "refuses the hostPath volume");
        }
        // kubelet binds a part of a hostPath volume (subPath) into the pod's own directory.
        let part = pod.make("volume-subpaths/host/c/0", true);
        let below = node.0.join("below");
        pod.mount(&below, &part, None);
        pod.refused(&part, "refuses the hostPath volume");
        let file = pod.make("volume-subpaths/host/c/1", false);
        let secret = node.0.join("secret");
        pod.mount(&secret, &file, None);
        pod.refused(&file, "refuses the hostPath volume");
    }
}

/// A link that one pod leaves in its volume does not lead another pod, or itself, to the node.
pub(super) fn links_in_volumes(d: &mut Daemon) {
    let node = OfNode::new(&format!("links-{}", d.release.name()));
    for class in CLASSES {
        let pod = Pod::run(d, &format!("links-{class}"), class);
        let volume = pod.make("volumes/kubernetes.io~empty-dir/v", true);
        let c = pod.start("first", &volume, "/v", false).unwrap();
        let there = node.0.display();
        pod.sh(
            &c,
            &format!("cd /v && ln -s / root && ln -s {there} direct && ln -s ../../.. up && mkdir real && ln -s real ok"),
        );
        let attacker = Pod::run(d, &format!("links2-{class}"), class);
        for (path, own) in [
            ("root/etc", false),
            ("root", false),
            ("direct", false),
            ("up", false),
            ("ok", false),
        ] {
            let path = volume.join(path);
            for by in [&pod, &attacker] {
                let answer = by.start("refused", &path, "/host", false);
                // Where a link's target is in the pod's own volume it may be followed, and that is all.
                let own = own || (by.uid == pod.uid && path.ends_with("ok"));
                assert!(
                    answer.is_err() || own,
                    "{class}: {} was mounted",
                    path.display()
                );
            }
        }
        assert_eq!(
            fs::read_to_string(node.0.join("secret")).unwrap(),
            "secret of the node\n"
        );
    }
}

/// The last part of a path is swapped for a link while pods are made.
pub(super) fn swapped_sources(d: &mut Daemon) {
    let node = OfNode::new("swap");
    for class in CLASSES {
        let pod = Pod::run(d, &format!("swap-{class}"), class);
        let volume = pod.make("volumes/kubernetes.io~empty-dir/v", true);
        fs::create_dir(volume.join("a")).unwrap();
        fs::set_permissions(volume.join("a"), fs::Permissions::from_mode(0o777)).unwrap();
        symlink(&node.0, volume.join("b")).unwrap();
        let (stop, mut mounted, mut refused) = (AtomicBool::new(false), 0, 0);
        std::thread::scope(|s| {
            s.spawn(|| {
                use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
                let (a, b) = (volume.join("a"), volume.join("b"));
                while !stop.load(Ordering::Relaxed) {
                    renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE).unwrap();
                }
            });
            for i in 0..20 {
                match pod.start(&format!("c{i}"), &volume.join("a"), "/host", false) {
                    Err(_) => refused += 1,
                    Ok(c) => {
                        mounted += 1;
                        let seen = pod.sh(&c, "ls /host");
                        pod.client.stop(&c, 0).unwrap();
                        pod.client.remove(&c).unwrap();
                        if seen.contains("secret") {
                            stop.store(true, Ordering::Relaxed);
                            panic!("{class}: {seen}");
                        }
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        eprintln!("{class}: {mounted} mounted, {refused} refused");
    }
}

/// A CDI device's createContainer hook: the node's program, or none. Never one of the image's that has its name.
pub(super) fn hooks_of_devices(d: &mut Daemon) {
    let name = format!("cdtest-{}", std::process::id());
    let hook = format!("/usr/bin/{name}-hook");
    let cdi = PathBuf::from("/var/run/cdi").join(format!("{name}.json"));
    fs::create_dir_all("/var/run/cdi").unwrap();
    let edits =
        json!({ "hooks": [{ "hookName": "createContainer", "path": hook, "args": ["hook"] }] });
    let device = json!({ "cdiVersion": "0.5.0", "kind": format!("{name}.test/device"),
        "devices": [{ "name": "one", "containerEdits": edits }] });
    fs::write(&cdi, device.to_string()).unwrap();
    let start = |pod: &Pod<'_>| {
        let mut c = cri::container_config("c", BUSYBOX, &["sleep", "1000"]);
        c.cdi_devices = vec![k8s_cri::v1::CdiDevice {
            name: format!("{name}.test/device=one"),
        }];
        pod.start_config(&c)
    };
    for class in CLASSES {
        let pod = Pod::run(d, &format!("cdi-{class}"), class);
        let why = start(&pod).unwrap_err();
        assert!(
            why.contains("refuses the hook") && why.contains("(pod.hooks decides)"),
            "{why}"
        );
    }
    let pod = Pod::run(d, "cdi-standard", "cofferdam");
    let why = start(&pod).unwrap_err();
    assert!(
        why.contains("No such file or directory"),
        "the node has no such program: {why}"
    );
    fs::remove_file(cdi).unwrap();
}

/// `auto` or not, a class's control groups are its own.
pub(super) fn groups_are_private(d: &mut Daemon) {
    let node = fs::read_link("/proc/self/ns/cgroup").unwrap();
    for class in CLASSES {
        let pod = Pod::run(d, &format!("groups-{class}"), class);
        let c = pod
            .start_config(&cri::container_config("c", BUSYBOX, &["sleep", "1000"]))
            .unwrap();
        let seen = pod.sh(&c, "readlink /proc/self/ns/cgroup; cat /proc/self/cgroup");
        assert!(!seen.contains(node.to_str().unwrap()), "{class}: {seen}");
        assert!(!seen.contains("cdtest"), "{class}: {seen}");
        let paths: Vec<&str> = seen
            .lines()
            .skip(1)
            .filter(|l| !l.ends_with(":/"))
            .collect();
        assert!(paths.is_empty(), "{class}: {seen}");
        let made = pod.sh(
            &c,
            "for g in /sys/fs/cgroup /sys/fs/cgroup/memory; do mkdir $g/x 2>/dev/null && echo made; done; echo end",
        );
        assert_eq!(made, "end\n", "{class}");
    }
}

pub(super) fn annotations_choose_no_pod(d: &mut Daemon) {
    d.run_detached(&["--null-io"], "victim", &["sleep", "1000"]);
    for class in ["hardened", "untrusted"] {
        d.runtime = format!("io.containerd.cofferdam-{class}.v1");
        let group = "io.containerd.runc.v2.group=victim";
        let out = d.run_container(&["--annotation", group], "attacker", &["true"]);
        assert!(
            out.status != 0
                && out
                    .stderr
                    .contains("refuses the annotation io.containerd.runc.v2.group"),
            "{out:?}"
        );
        // containerd's own key, which only somebody with containerd's socket can set: another class is another shim.
        let sandbox = "io.kubernetes.cri.sandbox-id=victim";
        let shims = d.shims().len();
        d.run_detached(
            &["--null-io", "--annotation", sandbox],
            "other",
            &["sleep", "1000"],
        );
        assert_eq!(d.shims().len(), shims + 1, "a shim of its own");
        let status = d.exec(
            &[],
            "other",
            "e",
            &["grep", "NoNewPrivs", "/proc/self/status"],
        );
        assert_eq!(status.ok().stdout, "NoNewPrivs:\t1\n");
        d.remember("victim");
        d.remove("other");
        wait_until("its shim has ended", Duration::from_secs(5), || {
            d.shims().len() == shims
        });
    }
    d.remove("victim");
}
