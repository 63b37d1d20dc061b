//! The floor of a class, whoever writes the pod or the spec: what ../docs/security.md says of host paths, hooks, namespaces,
//! groups of pods, updates and quotas, tried as an attacker would; and the volumes of Kubernetes, which must go on working.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use containerd_shim_protos::api::{CreateTaskResponse, Empty, UpdateTaskRequest};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::Case;
use crate::attacks;
use crate::isolation::{greedy, output, read_all, request, run_under};
use crate::support::cri::{self, Client, PodSandboxConfig};
use crate::support::place::{Place, program};
use crate::support::shim::{Shim, Streams};
use crate::support::{BUSYBOX, Daemon, Output, Release, wait_until};

const HARDENED: &str = "containerd-shim-cofferdam-hardened-v1";
const UNTRUSTED: &str = "containerd-shim-cofferdam-untrusted-v1";
const CLASSES: [&str; 2] = ["cofferdam-hardened", "cofferdam-untrusted"];

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::cri("floor::volumes", volumes),
        Case::cri("floor::host_paths", host_paths),
        Case::cri("floor::links_in_volumes", links_in_volumes),
        Case::cri("floor::swapped_sources", swapped_sources).only(Release::V2),
        Case::cri("floor::hooks_of_devices", hooks_of_devices).only(Release::V2),
        Case::cri("floor::groups_are_private", groups_are_private),
        Case::ctr(
            "floor::annotations_choose_no_pod",
            annotations_choose_no_pod,
        ),
        Case::plain("floor::kubelet_elsewhere", kubelet_elsewhere),
        Case::plain("floor::files_of_others", files_of_others),
        Case::plain("floor::mounts_of_a_spec", mounts_of_a_spec),
        Case::plain("floor::namespaces_by_path", namespaces_by_path),
        Case::plain("floor::hooks_and_loggers", hooks_and_loggers),
        Case::plain("floor::hooks_in_their_places", hooks_in_their_places),
        Case::plain("floor::updates", updates),
        Case::plain("floor::names_that_are_no_text", names_that_are_no_text),
        Case::plain("floor::escape_sequences", escape_sequences),
        Case::plain("floor::quotas_of_a_pod", quotas_of_a_pod),
        Case::plain("floor::threads_are_not_held", threads_are_not_held),
        Case::plain("floor::stopped_execs", stopped_execs),
        Case::plain("floor::what_the_shim_keeps", what_the_shim_keeps),
        Case::plain("floor::foreign_peers", foreign_peers),
        Case::plain("floor::the_nodes_null_device", the_nodes_null_device),
        Case::plain("floor::roots_beside_the_spec", roots_beside_the_spec),
        Case::plain("floor::streams_are_no_files", streams_are_no_files),
        Case::plain("floor::namespaces_of_others", namespaces_of_others),
        Case::plain("floor::one_shim_one_pod", one_shim_one_pod),
        Case::plain("floor::groups_of_others", groups_of_others),
        Case::plain("floor::environment_of_hooks", environment_of_hooks),
        Case::plain("floor::links_of_an_image", links_of_an_image),
        Case::plain("floor::devices_of_a_spec", devices_of_a_spec),
        Case::plain("floor::bundles_of_others", bundles_of_others),
        Case::plain("floor::users_after_a_refusal", users_after_a_refusal),
        Case::plain("floor::users_beside_a_refusal", users_beside_a_refusal),
        Case::plain(
            "floor::mounts_below_a_listed_path",
            mounts_below_a_listed_path,
        ),
    ]
}

/// A pod of Kubernetes: kubelet's directory with its uid, and CRI's sandbox. Both go with it.
struct Pod<'a> {
    client: Client,
    config: PodSandboxConfig,
    id: String,
    uid: String,
    mounts: Vec<PathBuf>,
    _daemon: &'a Daemon,
}

impl<'a> Pod<'a> {
    fn run(daemon: &'a Daemon, name: &str, class: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let uid = format!(
            "cdtest-{}-{}-{name}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let mut config = cri::pod_config(daemon, name);
        config.metadata.as_mut().unwrap().uid.clone_from(&uid);
        let client = Client::connect(daemon);
        let id = client.run_pod(&config, class).unwrap();
        daemon.remember(&id);
        let this = Self {
            client,
            config,
            id,
            uid,
            mounts: Vec::new(),
            _daemon: daemon,
        };
        fs::create_dir_all(this.directory()).unwrap();
        this
    }

    fn directory(&self) -> PathBuf {
        Path::new("/var/lib/kubelet/pods").join(&self.uid)
    }

    /// A directory or file of the pod's, made.
    fn make(&self, path: &str, is_dir: bool) -> PathBuf {
        let path = self.directory().join(path);
        if is_dir {
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "content\n").unwrap();
        }
        path
    }

    /// Mounts as kubelet and its plugins do.
    fn mount(&mut self, source: &Path, target: &Path, fstype: Option<&str>) {
        let flags = if fstype.is_some() {
            MsFlags::empty()
        } else {
            MsFlags::MS_BIND
        };
        mount(Some(source), target, fstype, flags, None::<&str>).unwrap();
        self.mounts.push(target.to_owned());
    }

    /// A container with a volume; why it was refused.
    fn start(&self, name: &str, source: &Path, at: &str, readonly: bool) -> Result<String, String> {
        let mut c = cri::container_config(name, BUSYBOX, &["sleep", "1000"]);
        c.mounts.push(cri::Mount {
            container_path: at.into(),
            host_path: source.display().to_string(),
            readonly,
            ..Default::default()
        });
        self.start_config(&c)
    }

    fn start_config(&self, c: &cri::ContainerConfig) -> Result<String, String> {
        let text = |e: containerd_client::tonic::Status| e.message().to_owned();
        let id = self
            .client
            .create(&self.id, c, &self.config)
            .map_err(text)?;
        self.client.start(&id).map_err(|e| {
            let why = text(e);
            self.client.remove(&id).ok();
            why
        })?;
        Ok(id)
    }

    #[track_caller]
    fn sh(&self, container: &str, script: &str) -> String {
        let out = self
            .client
            .exec(container, &["sh", "-c", script], 20)
            .unwrap();
        assert_eq!(out.exit_code, 0, "{script}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, source: &Path, text: &str) {
        let answer = self.start("refused", source, "/host", false);
        let why = answer.expect_err(&format!("{} was mounted", source.display()));
        assert!(
            why.contains(text),
            "{}: {text:?} is not in {why:?}",
            source.display()
        );
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        self.client.stop_pod(&self.id).ok();
        self.client.remove_pod(&self.id).ok();
        for target in self.mounts.iter().rev() {
            umount2(target, MntFlags::MNT_DETACH).ok();
        }
        fs::remove_dir_all(self.directory()).ok();
    }
}

/// A directory of the node's that no class may see.
struct OfNode(PathBuf);

impl OfNode {
    fn new(name: &str) -> Self {
        let dir = PathBuf::from("/srv").join(format!("cdtest-{}-{name}", std::process::id()));
        fs::create_dir_all(dir.join("below")).unwrap();
        fs::write(dir.join("secret"), "secret of the node\n").unwrap();
        Self(dir)
    }
}

impl Drop for OfNode {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Every type of volume that Kubernetes makes for a pod, as kubelet and its plugins leave it, in each class.
fn volumes(d: &mut Daemon) {
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
fn kubelet_elsewhere() {
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
fn files_of_others() {
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
fn host_paths(d: &mut Daemon) {
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
fn links_in_volumes(d: &mut Daemon) {
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
fn swapped_sources(d: &mut Daemon) {
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

/// A program that tells who and where it is.
const REPORT: &str = "#!/bin/sh\n{ echo uid=$(id -u); grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; ls / | tr '\\n' ' '; } > \"$1\" 2>&1\n";

/// A CDI device's createContainer hook: the node's program, or none. Never one of the image's that has its name.
fn hooks_of_devices(d: &mut Daemon) {
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
            why.contains("refuses the hook") && why.contains("pod.hooks of the profile"),
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

/// createContainer hooks are programs of the node's in the container's namespaces, startContainer hooks the container's own under
/// all that confines it; with and without users of its own.
fn hooks_in_their_places() {
    for mapped in [false, true] {
        let mut p = Place::new(&["cat", "/tmp/start"]);
        if mapped {
            p.mapped(700_000);
        }
        let bin = p.rootfs().join("bin");
        // In the image, where a hook of the node's name would be found if the image were looked at.
        let of_node = format!("/usr/local/bin/cdtest-{}-{mapped}", std::process::id());
        fs::create_dir_all(p.rootfs().join("usr/local/bin")).unwrap();
        let in_image = p.rootfs().join(of_node.trim_start_matches('/'));
        for path in [&in_image, &bin.join("hook")] {
            fs::write(path, REPORT).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        p.set(
            "/hooks",
            json!({ "createContainer": [{ "path": of_node, "args": ["hook", "/dev/null"] }] }),
        );
        let out = p.run();
        assert!(
            out.status != 0 && out.stderr.contains("No such file or directory"),
            "mapped {mapped}: {out:?}"
        );
        // The same one on the node: it runs in the container's host name, with the node's root.
        let told = p.dir.join("told");
        fs::write(&told, "").unwrap();
        fs::set_permissions(&told, fs::Permissions::from_mode(0o666)).unwrap();
        fs::set_permissions(&p.dir, fs::Permissions::from_mode(0o755)).unwrap();
        let script = format!(
            "#!/bin/sh\n{{ hostname; id -u; test -e {}/bundle && echo node; }} > {} 2>&1\n",
            p.dir.display(),
            told.display()
        );
        fs::write(&of_node, script).unwrap();
        fs::set_permissions(&of_node, fs::Permissions::from_mode(0o755)).unwrap();
        p.set("/hostname", json!("inside"));
        p.set("/process/noNewPrivileges", json!(true));
        p.set(
            "/process/capabilities",
            json!({ "bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"] }),
        );
        p.mount(
            json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": [] }),
        );
        p.set(
            "/hooks",
            json!({
                "createContainer": [{ "path": of_node, "args": ["hook"], "env": ["PATH=/bin:/usr/bin"] }],
                "startContainer": [{ "path": "/bin/hook", "args": ["hook", "/tmp/start"], "env": ["PATH=/bin"] }]
            }),
        );
        let out = p.run();
        fs::remove_file(&of_node).unwrap();
        let inside = out.ok().stdout;
        let node = fs::read_to_string(&told).unwrap();
        // The kernel's host name is set after these hooks, as runc has it; the namespace is the container's all the same.
        assert!(
            node.contains("\n0\n") && node.ends_with("node\n"),
            "mapped {mapped}: {node}"
        );
        assert!(
            inside.contains("uid=0")
                && inside.contains("CapEff:\t0000000000000001")
                && inside.contains("NoNewPrivs:\t1")
                && !inside.contains("boot"),
            "mapped {mapped}: {inside}"
        );
    }
    // One that fails, one that is late, and one that says much and reads nothing.
    for (script, timeout, text) in [
        (
            "exit 3",
            None,
            "startContainer hook /bin/sh: exit status: 3",
        ),
        (
            "sleep 100",
            Some(1),
            "startContainer hook /bin/sh: did not finish within its timeout",
        ),
        ("kill -9 $$", None, "startContainer hook /bin/sh: signal: 9"),
    ] {
        let mut p = Place::new(&["true"]);
        let mut hook =
            json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] });
        if let Some(seconds) = timeout {
            hook["timeout"] = json!(seconds);
        }
        p.set("/hooks", json!({ "startContainer": [hook] }));
        let out = p.run();
        assert!(
            out.status != 0 && out.stderr.contains(text),
            "{text}: {out:?}"
        );
    }
    let mut p = Place::new(&["echo", "ran"]);
    let much = "sleep .1; seq 1 100000; seq 1 100000 >&2";
    let annotations: serde_json::Map<_, _> = (0..20)
        .map(|i| (format!("a{i}"), json!("x".repeat(8000))))
        .collect();
    p.set("/annotations", Value::Object(annotations));
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", much], "env": ["PATH=/bin:/usr/bin"], "timeout": 20 }]);
    p.set(
        "/hooks",
        json!({ "createRuntime": hook, "startContainer": hook }),
    );
    assert_eq!(p.run().ok().stdout, "ran\n");
    // The state of a startContainer hook has the pid that the container sees.
    let mut p = Place::new(&["cat", "/state"]);
    let hook =
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", "cat > /state"], "env": ["PATH=/bin"] }]);
    p.set("/hooks", json!({ "startContainer": hook }));
    let state: Value = serde_json::from_str(&p.run().ok().stdout).unwrap();
    assert_eq!(
        (&state["pid"], &state["status"]),
        (&json!(1), &json!("created"))
    );
}

/// `auto` or not, a class's control groups are its own.
fn groups_are_private(d: &mut Daemon) {
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

fn annotations_choose_no_pod(d: &mut Daemon) {
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

/// What is refused of a spec under a class; the reason.
fn refused(s: &Shim, change: impl FnOnce(&mut Value)) -> String {
    let mut spec = s.spec("box", &["true"]);
    change(&mut spec);
    let answer = s.create_with("box", &spec, Streams::default());
    let (_, message) = answer.expect_err("it was created");
    message
}

fn mounts_of_a_spec() {
    let node = OfNode::new("spec");
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let push = |spec: &mut Value, mount: Value| {
            spec["mounts"].as_array_mut().unwrap().push(mount);
        };
        for (typ, options) in [
            ("rbind", json!(["rw"])),
            ("bind", json!(["rw"])),
            ("none", json!(["rbind"])),
            ("tmpfs", json!(["bind"])),
            ("proc", json!(["rbind"])),
        ] {
            let why = refused(&s, |spec| {
                push(
                    spec,
                    json!({ "type": typ, "source": node.0, "destination": "/host", "options": options }),
                );
            });
            assert!(why.contains("refuses the hostPath volume"), "{typ}: {why}");
        }
        for (typ, at) in [
            ("proc", "/p2"),
            ("sysfs", "/s2"),
            ("cgroup2", "/c2"),
            ("debugfs", "/d"),
            ("tracefs", "/d"),
            ("securityfs", "/d"),
            ("bpf", "/d"),
            ("devtmpfs", "/d"),
            ("binfmt_misc", "/d"),
            ("overlay", "/d"),
            ("ext4", "/d"),
            ("tmpfs", "/sys/kernel"),
        ] {
            let why = refused(&s, |spec| {
                push(
                    spec,
                    json!({ "type": typ, "source": "x", "destination": at,
                    "options": if typ == "overlay" { json!(["lowerdir=/etc:/usr"]) } else { json!([]) } }),
                );
            });
            assert!(why.contains(&format!("the {typ} mount at {at}")), "{why}");
        }
        // Words that come later, and words for whole trees.
        for (i, words) in [
            json!(["ro", "rw"]),
            json!(["rrw"]),
            json!(["rw", "rexec", "rsuid", "rdev"]),
        ]
        .iter()
        .enumerate()
        {
            let script = "touch /sys/kernel/profiling 2>&1; echo 0 > /sys/kernel/profiling; grep ' /sys ' /proc/mounts; \
                grep ' /dev/cache ' /proc/mounts";
            let mut spec = s.spec(&format!("w{i}"), &["sh", "-c", script]);
            for m in spec["mounts"].as_array_mut().unwrap() {
                if m["type"] == "sysfs" {
                    m["options"] = words.clone();
                }
            }
            push(
                &mut spec,
                json!({ "type": "tmpfs", "source": "tmpfs", "destination": "/dev/cache", "options": words }),
            );
            let (text, _) = output(&s, &format!("w{i}"), &spec);
            let flags = |at: &str| {
                let line = text.lines().find(|l| l.contains(&format!(" {at} ")));
                line.unwrap_or_else(|| panic!("{text}")).to_owned()
            };
            for (at, wanted) in [
                ("/sys", &["ro,", "nosuid", "nodev", "noexec"][..]),
                ("/dev/cache", &["nosuid", "nodev"][..]),
            ] {
                for flag in wanted {
                    assert!(flags(at).contains(flag), "{words} at {at}: {text}");
                }
            }
            assert!(text.contains("Read-only file system"), "{text}");
        }
        s.end();
    }
}

fn namespaces_by_path() {
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let shim = s.pid().unwrap();
        for (typ, file, text) in [
            ("network", "net", "refuses hostNetwork"),
            ("pid", "pid", "refuses hostPID"),
            ("ipc", "ipc", "refuses hostIPC"),
            ("uts", "uts", "refuses the node's host name"),
            ("mount", "mnt", "refuses the node's mounts"),
        ] {
            for path in [
                format!("/proc/self/ns/{file}"),
                format!("/proc/{shim}/ns/{file}"),
                format!("/proc/thread-self/ns/{file}"),
            ] {
                let why = refused(&s, |spec| {
                    let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
                    list.retain(|n| n["type"] != typ);
                    list.push(json!({ "type": typ, "path": path }));
                });
                assert!(why.contains(text), "{path}: {why}");
            }
        }
        // A mount namespace of somebody else's is not joined either.
        let neighbour = s.run("neighbour", &["sleep", "1000"]);
        let why = refused(&s, |spec| {
            let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
            list.retain(|n| n["type"] != "mount");
            list.push(json!({ "type": "mount", "path": format!("/proc/{neighbour}/ns/mnt") }));
        });
        assert!(why.contains("refuses mounts of others"), "{why}");
        s.kill("neighbour", "", 9, false).unwrap();
        s.wait("neighbour", "").unwrap();
        s.delete("neighbour", "").unwrap();
        s.end();
    }
}

fn hooks_and_loggers() {
    let node = OfNode::new("programs");
    let mark = node.0.join("ran");
    let script = node.0.join("hook.sh");
    fs::write(
        &script,
        format!(
            "#!/bin/sh\ncat > /dev/null\necho $0 >> {}\n",
            mark.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        for kind in [
            "prestart",
            "createRuntime",
            "createContainer",
            "poststart",
            "poststop",
        ] {
            let why = refused(&s, |spec| {
                spec["hooks"] = json!({ kind: [{ "path": script }] })
            });
            assert!(
                why.contains(&format!("refuses the hook {}", script.display())),
                "{why}"
            );
        }
        let why = refused(&s, |spec| {
            spec["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock",
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]
            });
        });
        assert!(
            why.contains("refuses the seccomp agent /run/agent.sock"),
            "{why}"
        );
        let logger = format!("binary://{}", script.display());
        let streams = Streams {
            stdout: logger.clone(),
            ..Streams::default()
        };
        let spec = s.spec("logged", &["true"]);
        let (_, why) = s.create_with("logged", &spec, streams.clone()).unwrap_err();
        assert!(why.contains("refuses the logger"), "{why}");
        s.run("box", &["sleep", "1000"]);
        let exec = Shim::exec_request("box", "e", &["true"], streams);
        let (_, why) = s.call::<Empty>("Exec", &exec).unwrap_err();
        assert!(why.contains("refuses the logger"), "{why}");
        s.kill("box", "", 9, false).unwrap();
        s.wait("box", "").unwrap();
        s.delete("box", "").unwrap();
        s.end();
    }
    assert!(!mark.exists(), "nothing ran");
    // Listed by exact path, they run.
    let s = Shim::start(3);
    let profile = format!(
        "extends = \"hardened\"\n[pod]\nhooks = [{0:?}]\nloggers = [{0:?}]\n",
        script.display().to_string()
    );
    let mut spec = s.spec("box", &["true"]);
    spec["hooks"] =
        json!({ "createRuntime": [{ "path": script }], "poststop": [{ "path": script }] });
    run_under(&s, &request(&s, "box", &spec, &profile)).unwrap();
    let ran = fs::read_to_string(&mark).unwrap();
    assert_eq!(ran.lines().count(), 2, "{ran}");
    s.end();
}

fn updates() {
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        s.run("box", &["sleep", "1000"]);
        let update = |resources: Value| {
            let request = UpdateTaskRequest {
                id: "box".into(),
                resources: Some(Any {
                    type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
                        .into(),
                    value: resources.to_string().into_bytes(),
                    ..Any::default()
                })
                .into(),
                ..UpdateTaskRequest::default()
            };
            s.call::<Empty>("Update", &request)
        };
        for rule in [
            json!({ "allow": true, "access": "rwm" }),
            json!({ "allow": true, "type": "a", "major": -1, "minor": -1, "access": "rwm" }),
            json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }),
            json!({ "allow": true, "type": "b", "major": 254, "access": "rw" }),
        ] {
            let (_, why) = update(json!({ "devices": [rule] })).unwrap_err();
            assert!(why.contains("refuses access to devices"), "{rule}: {why}");
        }
        for (resources, text) in [
            (
                json!({ "memory": { "disableOOMKiller": true } }),
                "without the OOM killer",
            ),
            (
                json!({ "unified": { "cpuset.cpus.partition": "root" } }),
                "the control file",
            ),
            (
                json!({ "unified": { "cgroup.freeze": "1" } }),
                "the control file",
            ),
            (json!({ "cpu": { "realtimeRuntime": 1000 } }), "real-time"),
        ] {
            let (_, why) = update(resources.clone()).unwrap_err();
            assert!(why.contains(text), "{resources}: {why}");
        }
        if program == UNTRUSTED {
            let (_, why) = update(json!({ "memory": { "swap": 1_u64 << 40 } })).unwrap_err();
            assert!(
                why.contains("a limit of swap without one of memory"),
                "{why}"
            );
            update(json!({ "pids": { "limit": 0 } })).unwrap();
            let file = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
                .map(|m| PathBuf::from(format!("{m}{}/pids.max", s.group("box"))));
            let max = file
                .iter()
                .find_map(|f| fs::read_to_string(f).ok())
                .unwrap();
            assert_eq!(max.trim(), "4096");
        }
        update(json!({ "pids": { "limit": 100 } })).unwrap();
        s.kill("box", "", 9, false).unwrap();
        s.wait("box", "").unwrap();
        s.delete("box", "").unwrap();
        s.end();
    }
}

fn explain(id: &str) -> Output {
    Output::of(Command::new(program()).args(["explain", id]))
}

/// A process may call itself anything.
fn names_that_are_no_text() {
    let s = Shim::start_as(3, HARDENED);
    let id = format!("names-{}", std::process::id());
    let mut spec = greedy(&s, &id, &["/dev/attacker"]);
    spec["process"]["env"] = json!([format!("{}=odd-name", attacks::MARK)]);
    s.create_with(&id, &spec, Streams::default()).unwrap();
    s.start_process(&id, "").unwrap();
    let pid = s.state(&id, "").unwrap().pid;
    wait_until("it has its name", Duration::from_secs(5), || {
        fs::read(format!("/proc/{pid}/comm")).is_ok_and(|c| c.starts_with(b"\xff\xfe"))
    });
    let out = explain(&id);
    let mut missing = out.stdout.lines().filter(|l| l.contains("MISSING"));
    assert!(
        out.stdout.contains(&id) && missing.all(|l| l.contains("this kernel lacks it")),
        "{out:?}"
    );
    let all = s.log();
    assert!(all.contains("call=unshare"), "its denials are seen: {all}");
    s.kill(&id, "", 9, false).unwrap();
    s.wait(&id, "").unwrap();
    s.delete(&id, "").unwrap();
    s.end();
    // The command line sees and ends it as well.
    let mut p = Place::new(&["/bin/attacker"]);
    fs::copy(
        std::env::current_exe().unwrap(),
        p.rootfs().join("bin/attacker"),
    )
    .unwrap();
    p.set(
        "/process/env",
        json!([format!("{}=odd-name", attacks::MARK)]),
    );
    p.start();
    let state = |p: &Place| -> Value {
        serde_json::from_str(&p.call(&["state", &p.id]).ok().stdout).unwrap()
    };
    wait_until("it has its name", Duration::from_secs(5), || {
        let pid = state(&p)["pid"].clone();
        fs::read(format!("/proc/{pid}/comm")).is_ok_and(|c| c.starts_with(b"\xff\xfe"))
    });
    assert_eq!(state(&p)["status"], "running");
    p.call(&["kill", &p.id, "KILL"]).ok();
    wait_until("it is stopped", Duration::from_secs(5), || {
        state(&p)["status"] == "stopped"
    });
    p.call(&["delete", &p.id]).ok();
}

/// What others chose reaches nobody's terminal, and makes no line of its own in a log.
fn escape_sequences() {
    let s = Shim::start_as(3, HARDENED);
    let id = format!("escapes-{}", std::process::id());
    let odd = "/dev/v\u{1b}]0;title\u{7}\u{1b}[2J\nlevel=error msg=FORGED\u{9b}1m\u{202e}";
    let mut spec = s.spec(&id, &["sleep", "1000"]);
    spec["mounts"].as_array_mut().unwrap().push(
        json!({ "type": "tmpfs", "source": "tmpfs", "destination": odd, "options": ["nosuid"] }),
    );
    spec["annotations"]["io.kubernetes.cri.sandbox-name"] = json!(odd);
    s.create_with(&id, &spec, Streams::default()).unwrap();
    s.start_process(&id, "").unwrap();
    for args in [
        &["explain", &id, "--verbose"][..],
        &["explain", &id, "--json"],
        &["top"],
        &["top", "--json"],
    ] {
        let out = Output::of(Command::new(program()).args(args));
        let odd = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(
            !out.stdout.contains(odd) && !out.stderr.contains(odd),
            "{args:?}: {out:?}"
        );
        assert!(
            !out.stdout.lines().any(|l| l.starts_with("level=error")),
            "{out:?}"
        );
    }
    let log = s.log();
    assert!(
        !log.lines()
            .any(|l| l.contains("msg=FORGED") && !l.starts_with("time=")),
        "{log}"
    );
    assert!(!log.contains('\u{1b}'), "{log}");
    s.kill(&id, "", 9, false).unwrap();
    s.wait(&id, "").unwrap();
    s.delete(&id, "").unwrap();
    // An id is part of all of these.
    let spec = s.spec("odd", &["true"]);
    let mut bad = s.create_request("odd", &spec, Streams::default());
    bad.id = "x\nlevel=error msg=FORGED".into();
    let (_, why) = s.call::<CreateTaskResponse>("Create", &bad).unwrap_err();
    assert!(why.contains("is not an id"), "{why}");
    s.end();
}

/// inotify instances are counted to the pod's own root, not to the node's.
fn quotas_of_a_pod() {
    let s = Shim::start_as(3, UNTRUSTED);
    let mut spec = greedy(&s, "hog", &["/dev/attacker"]);
    spec["process"]["env"] = json!([format!("{}=inotify", attacks::MARK)]);
    let out = crate::isolation::fifo(&s, "hog-out");
    let reader = read_all(&out);
    let streams = Streams {
        stdout: out,
        ..Streams::default()
    };
    s.create_with("hog", &spec, streams).unwrap();
    s.start_process("hog", "").unwrap();
    let pid = s.state("hog", "").unwrap().pid;
    let held = || {
        let fds = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        fds.flatten()
            .filter(|f| {
                fs::read_link(f.path()).is_ok_and(|l| l.to_string_lossy().contains("inotify"))
            })
            .count()
    };
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    wait_until("it has all that it can", Duration::from_secs(10), || {
        let now = held();
        std::thread::sleep(Duration::from_millis(100));
        now >= most.min(900) - 2 && now == held()
    });
    // SAFETY: plain numbers.
    #[allow(unsafe_code)]
    let own = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
    assert!(
        own >= 0,
        "the node's root has none left beside {} of the pod",
        held()
    );
    // SAFETY: it is ours.
    #[allow(unsafe_code)]
    unsafe {
        libc::close(own);
    }
    s.kill("hog", "", 9, false).unwrap();
    s.wait("hog", "").unwrap();
    s.delete("hog", "").unwrap();
    reader.join().unwrap();
    s.end();
}

/// Execs that leave processes behind whose calls are denied again and again.
fn threads_are_not_held() {
    let s = Shim::start_as(3, UNTRUSTED);
    let id = format!("held-{}", std::process::id());
    s.run(&id, &["sleep", "1000"]);
    for i in 0..80 {
        let exec = format!("e{i}");
        let script = "while :; do unshare -U true; sleep 0.04; done > /dev/null 2>&1 &";
        s.exec(&id, &exec, &["sh", "-c", script]).unwrap();
        s.start_process(&id, &exec).unwrap();
        s.wait(&id, &exec).unwrap();
        s.delete(&id, &exec).unwrap();
    }
    let shim = s.pid().unwrap();
    let threads = || fs::read_dir(format!("/proc/{shim}/task")).unwrap().count();
    for _ in 0..10 {
        let now = threads();
        assert!(now < 16, "{now} threads");
        std::thread::sleep(Duration::from_millis(50));
    }
    let begun = std::time::Instant::now();
    s.exec(&id, "last", &["true"]).unwrap();
    s.start_process(&id, "last").unwrap();
    assert_eq!(s.wait(&id, "last").unwrap(), 0);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let out = explain(&id);
    assert!(!out.stderr.contains("does not answer"), "{out:?}");
    s.kill(&id, "", 9, true).unwrap();
    s.wait(&id, "").unwrap();
    s.delete(&id, "").unwrap();
    s.end();
}

/// Execs that a container stops.
const STOPPED: usize = 70;

/// A container that stops every new process of its own, execs among them.
fn stopped_execs() {
    let s = Shim::start_as(3, HARDENED);
    let id = format!("stopper-{}", std::process::id());
    let mut spec = greedy(&s, &id, &["/dev/attacker"]);
    spec["process"]["env"] = json!([format!("{}=stopper", attacks::MARK)]);
    s.create_with(&id, &spec, Streams::default()).unwrap();
    s.start_process(&id, "").unwrap();
    std::thread::scope(|scope| {
        // More than there are threads for blocking work.
        for i in 0..STOPPED {
            let (s, id) = (&s, &id);
            scope.spawn(move || {
                let exec = format!("e{i}");
                s.exec(id, &exec, &["true"]).unwrap();
                s.start_process(id, &exec).ok();
            });
        }
        std::thread::sleep(Duration::from_secs(3));
        // Meanwhile people are answered, and the container can be ended.
        let out = explain(&id);
        assert!(!out.stderr.contains("does not answer"), "{out:?}");
        s.kill(&id, "", 9, true).unwrap();
    });
    s.wait(&id, "").unwrap();
    for i in 0..STOPPED {
        s.delete(&id, &format!("e{i}")).ok();
    }
    s.delete(&id, "").unwrap();
    s.end();
}

/// A shim under a profile has no rights that it neither needs nor can grant.
fn what_the_shim_keeps() {
    let s = Shim::start_as(3, HARDENED);
    // It serves: what it gives up is given up.
    assert!(s.state("nothing", "").is_err());
    let status = fs::read_to_string(format!("/proc/{}/status", s.pid().unwrap())).unwrap();
    let number = |key: &str| {
        let line = status.lines().find(|l| l.starts_with(key)).unwrap();
        u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap()
    };
    for (name, bit) in [
        ("SYS_MODULE", 16),
        ("SYS_RAWIO", 17),
        ("SYS_BOOT", 22),
        ("SYS_TIME", 25),
        ("MAC_ADMIN", 33),
        ("MAC_OVERRIDE", 32),
        ("SYSLOG", 34),
        ("AUDIT_CONTROL", 30),
        ("NET_RAW", 13),
    ] {
        for set in ["CapBnd", "CapPrm", "CapEff"] {
            assert_eq!(number(set) >> bit & 1, 0, "{name} in {set}: {status}");
        }
    }
    assert_eq!(number("NoNewPrivs"), 1);
    s.end();
}

/// The node's root, but from within a container: a path to a shim's socket is not enough.
fn foreign_peers() {
    let s = Shim::start_as(3, HARDENED);
    let socket = PathBuf::from("/run/cofferdam/pods").join(format!("{}.sock", s.pid().unwrap()));
    wait_until("people can ask", Duration::from_secs(5), || socket.exists());
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    // A container of the class that restricts nothing may be given the directory by an administrator.
    let mut p = Place::new(&[
        "nc",
        "-w",
        "2",
        &format!("local:/s/{}", socket.file_name().unwrap().to_str().unwrap()),
    ]);
    p.set("/process/args", json!(["/bin/attacker"]));
    p.set(
        "/process/env",
        json!([format!(
            "{}=socket=/s/{}",
            attacks::MARK,
            socket.file_name().unwrap().to_str().unwrap()
        )]),
    );
    fs::copy(
        std::env::current_exe().unwrap(),
        p.rootfs().join("bin/attacker"),
    )
    .unwrap();
    p.mount(json!({ "type": "bind", "source": "/run/cofferdam/pods", "destination": "/s", "options": ["rbind"] }));
    assert_eq!(p.run().ok().stdout, "connected, no answer\n");
    assert!(s.log().contains("refused a connection"), "{}", s.log());
    // The node's own process is answered.
    let stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    assert!(stream.as_fd().try_clone_to_owned().is_ok());
    s.end();
}

/// The one file that every container once had in common with the node.
fn the_nodes_null_device() {
    let stat = || {
        let m = fs::metadata("/dev/null").unwrap();
        (m.mode(), m.uid(), m.gid(), m.ino())
    };
    let before = stat();
    for program in ["containerd-shim-cofferdam-v1", HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let script = "for f in /dev/null /proc/keys /proc/self/fd/0; do \
            chmod 0600 $f; chown 7:7 $f; stat -L -c %t:%T $f; done 2>&1";
        let mut spec = s.spec("box", &["sh", "-c", script]);
        let caps = json!(["CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE"]);
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = caps.clone();
        }
        let (said, _) = output(&s, "box", &spec);
        assert_eq!(said.matches("1:3").count(), 3, "{program}: {said}");
        assert_eq!(stat(), before, "{program}: {said}");
        s.end();
    }
}

/// Mounts that a client passes for the root: a snapshotter's, and nothing else.
fn roots_beside_the_spec() {
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let spec = s.spec("box", &["true"]);
        let layers = s.dir().join("layers");
        for dir in ["lower", "upper", "work"] {
            fs::create_dir_all(layers.join(dir)).unwrap();
        }
        symlink("/etc", layers.join("link")).unwrap();
        let overlay = |options: &[&str]| {
            (
                "overlay".to_owned(),
                "overlay".to_owned(),
                options
                    .iter()
                    .map(|o| o.replace("L/", &format!("{}/", layers.display())))
                    .collect(),
            )
        };
        let of_kernel = |fstype: &str| {
            let source = layers.join("lower").display().to_string();
            (fstype.to_owned(), source, Vec::new())
        };
        let bind = |source: &str| {
            (
                "bind".to_owned(),
                source.replace("L/", &format!("{}/", layers.display())),
                vec!["rbind".to_owned()],
            )
        };
        for (fstype, source, options) in [
            bind("/"),
            bind("/etc"),
            bind("L/link"),
            bind("L/lower/../../../.."),
            ("ext4".into(), "/dev/vda".into(), vec![]),
            ("proc".into(), "proc".into(), vec![]),
            of_kernel("proc"),
            of_kernel("debugfs"),
            of_kernel("sysfs"),
            of_kernel("devtmpfs"),
            of_kernel("cgroup2"),
            of_kernel("tmpfs"),
            ("tmpfs".into(), "tmpfs".into(), vec![]),
            overlay(&["lowerdir=/etc:L/lower"]),
            overlay(&["lowerdir=L/lower:/"]),
            overlay(&["lowerdir=L/lower", "upperdir=/etc", "workdir=L/work"]),
            overlay(&["index=off,lowerdir=/etc"]),
            overlay(&["lowerdir=L/lower", "lowerdir+=/etc"]),
            overlay(&["lowerdir=etc:L/lower"]),
            overlay(&["lowerdir=L/lower:"]),
        ] {
            let mut request = s.create_request("box", &spec, Streams::default());
            let told = format!("{fstype} {source} {options:?}");
            request.rootfs[0].type_ = fstype;
            request.rootfs[0].source = source;
            request.rootfs[0].options = options;
            let answer = s.call::<CreateTaskResponse>("Create", &request);
            let (_, why) = answer.expect_err(&told);
            assert!(why.contains("refuses the root's mount 0"), "{told}: {why}");
        }
        let mut request = s.create_request("box", &spec, Streams::default());
        request.rootfs[0].target = "../../x".into();
        let (_, why) = s
            .call::<CreateTaskResponse>("Create", &request)
            .unwrap_err();
        assert!(why.contains("is not the root"), "{why}");
        s.end();
    }
}

/// A file as a stream is a file of the node's that its root writes, or that the container reads.
fn streams_are_no_files() {
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let file = s.dir().join("target");
        fs::write(&file, "content\n").unwrap();
        let path = file.display().to_string();
        let spec = s.spec("box", &["sh", "-c", "echo x; echo y >&2"]);
        s.run("live", &["sleep", "1000"]);
        for streams in [
            Streams {
                stdout: path.clone(),
                ..Streams::default()
            },
            Streams {
                stderr: path.clone(),
                ..Streams::default()
            },
            Streams {
                stdin: path.clone(),
                ..Streams::default()
            },
            Streams {
                stdout: format!("file://{path}"),
                ..Streams::default()
            },
            Streams {
                stdout: format!("file://{path}"),
                terminal: true,
                ..Streams::default()
            },
            Streams {
                stdout: format!("file://{path}-new"),
                ..Streams::default()
            },
        ] {
            let told = format!("{streams:?}");
            let (_, why) = s
                .create_with("box", &spec, streams.clone())
                .expect_err(&told);
            assert!(why.contains("is not a fifo"), "{told}: {why}");
            let exec = Shim::exec_request("live", "e", &["true"], streams);
            let answer = s
                .call::<Empty>("Exec", &exec)
                .and_then(|_| s.start_process("live", "e"));
            let (_, why) = answer.expect_err(&told);
            assert!(why.contains("is not a fifo"), "{told}: {why}");
            s.delete("live", "e").ok();
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "content\n");
        assert!(!file.with_file_name("target-new").exists());
        // A pipe between other processes looks like a fifo, too.
        let mut other = Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        for (stdin, stdout) in [("0", ""), ("", "0")] {
            let pipe = |n: &str| match n {
                "" => String::new(),
                n => format!("/proc/{}/fd/{n}", other.id()),
            };
            let streams = Streams {
                stdin: pipe(stdin),
                stdout: pipe(stdout),
                ..Streams::default()
            };
            let (_, why) = s.create_with("box", &spec, streams).unwrap_err();
            assert!(why.contains("is a pipe without a name"), "{why}");
        }
        other.kill().unwrap();
        other.wait().unwrap();
        s.finish("live");
        s.end();
    }
}

/// Namespaces of another pod, and what is none.
fn namespaces_of_others() {
    let other = Shim::start(3);
    let victim = other.run("victim", &["sleep", "1000"]);
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let join = |typ: &'static str, path: String| {
            move |spec: &mut Value| {
                let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
                list.retain(|n| n["type"] != typ);
                list.push(json!({ "type": typ, "path": path }));
            }
        };
        for (typ, file) in [
            ("pid", "pid"),
            ("ipc", "ipc"),
            ("uts", "uts"),
            ("network", "net"),
        ] {
            let why = refused(&s, join(typ, format!("/proc/{victim}/ns/{file}")));
            assert!(
                why.contains(&format!("refuses the {typ} namespace of others")),
                "{why}"
            );
        }
        let fifo = s.dir().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).ok();
        for path in [
            fifo.display().to_string(),
            "/dev/null".into(),
            "/etc/passwd".into(),
        ] {
            let why = refused(&s, join("network", path));
            assert!(why.contains("it is no namespace"), "{why}");
        }
        s.end();
    }
    other.finish("victim");
    other.end();
}

/// What annotations say of the pod holds for one pod, and this shim's.
fn one_shim_one_pod() {
    let victim = format!("{}-victim", crate::support::pod_uid());
    let volume = Path::new("/var/lib/kubelet/pods")
        .join(&victim)
        .join("volumes/kubernetes.io~secret/s");
    fs::create_dir_all(&volume).unwrap();
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let with = |sandbox: &str, uid: &str| {
            let (sandbox, uid) = (sandbox.to_owned(), uid.to_owned());
            let volume = volume.clone();
            move |spec: &mut Value| {
                spec["annotations"] = json!({
                    "io.kubernetes.cri.sandbox-id": sandbox, "io.kubernetes.cri.sandbox-uid": uid
                });
                spec["mounts"].as_array_mut().unwrap().push(json!({
                    "type": "bind", "source": volume, "destination": "/s", "options": ["bind"]
                }));
            }
        };
        // Not this shim's pod.
        let why = refused(&s, with("victim", &victim));
        assert!(why.contains("it shows /var/lib/kubelet"), "{why}");
        // This one's, and then another one's.
        s.run("first", &["sleep", "1000"]);
        let why = refused(&s, with("pod", &victim));
        assert!(why.contains("the container is of the pod"), "{why}");
        s.finish("first");
        s.end();
    }
    fs::remove_dir_all(Path::new("/var/lib/kubelet/pods").join(&victim)).unwrap();
}

/// A spec names control groups: only those of its container.
fn groups_of_others() {
    let mounts = || {
        let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let of = |l: &str| {
            l.contains(" - cgroup")
                .then(|| l.split(' ').nth(4).map(PathBuf::from))?
        };
        all.lines().filter_map(of).collect::<Vec<_>>()
    };
    let name = format!("cdtest-foreign-{}", std::process::id());
    let foreign: Vec<PathBuf> = mounts()
        .into_iter()
        .map(|m| m.join(&name))
        .filter(|d| fs::create_dir_all(d.join("child")).is_ok())
        .collect();
    assert!(!foreign.is_empty());
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        s.run("victim", &["sleep", "1000"]);
        for (path, text) in [
            (format!("/{name}"), "it exists already"),
            (format!("/{name}/child"), "it exists already"),
            (
                format!("{}/x", s.group("victim")),
                "it is another container's",
            ),
        ] {
            let why = refused(&s, |spec| spec["linux"]["cgroupsPath"] = json!(path));
            assert!(why.contains(text), "{path}: {why}");
            // What containerd calls after a failure.
            s.clean_up(program, "box");
            assert!(
                foreign.iter().all(|d| d.join("child").is_dir()),
                "{path}: removed"
            );
        }
        s.finish("victim");
        s.end();
    }
    for dir in foreign {
        fs::remove_dir(dir.join("child")).unwrap();
        fs::remove_dir(dir).unwrap();
    }
}

/// A listed hook runs as the node's root: what it loads is not the spec's.
fn environment_of_hooks() {
    let node = OfNode::new("environment");
    let (mark, script) = (node.0.join("env"), node.0.join("hook.sh"));
    let text = format!("#!/bin/sh\ncat > /dev/null\nenv > {}\n", mark.display());
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let s = Shim::start(3);
    let mut sleeper = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let exe = format!("/proc/{}/exe", sleeper.id());
    wait_until("it is sleep", Duration::from_secs(5), || {
        fs::read_link(&exe).is_ok_and(|p| p.ends_with("sleep"))
    });
    let real = fs::read_link(&exe).unwrap();
    let profile = format!("extends = \"hardened\"\n[pod]\nhooks = [{script:?}, {real:?}]\n");
    let mut spec = s.spec("box", &["true"]);
    spec["hooks"] = json!({ "createRuntime": [
        { "path": script, "env": ["LD_PRELOAD=/tmp/x.so", "PATH=/tmp", "BASH_ENV=/tmp/x"] },
        { "path": exe, "args": ["sleep", "0"] },
    ] });
    run_under(&s, &request(&s, "box", &spec, &profile)).unwrap();
    let env = fs::read_to_string(&mark).unwrap();
    assert!(
        !env.contains("LD_PRELOAD") && !env.contains("BASH_ENV") && !env.contains("PATH=/tmp"),
        "{env}"
    );
    let other = format!("extends = \"hardened\"\n[pod]\nhooks = [{script:?}]\n");
    let why = run_under(&s, &request(&s, "other", &spec, &other)).unwrap_err();
    assert!(
        why.contains(&format!("refuses the hook {}", real.display())),
        "{why}"
    );
    // Also where containerd cleans up after a shim that was killed.
    fs::remove_file(&mark).unwrap();
    let mut spec = s.spec("left", &["sleep", "1000"]);
    spec["hooks"] = json!({ "poststop": [{ "path": script, "env": ["LD_PRELOAD=/tmp/x.so"] }] });
    let request = request(&s, "left", &spec, &profile);
    let reader = read_all(&request.stdout);
    s.call::<CreateTaskResponse>("Create", &request).unwrap();
    let shim = nix::unistd::Pid::from_raw(s.pid().unwrap());
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_until("the shim is gone", Duration::from_secs(5), || {
        s.pid().is_none()
    });
    s.clean_up("containerd-shim-cofferdam-v1", "left");
    reader.join().unwrap();
    let env = fs::read_to_string(&mark).unwrap();
    assert!(!env.contains("LD_PRELOAD"), "{env}");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    s.end();
}

/// Devices that a spec lists are the container's own, or refused.
fn devices_of_a_spec() {
    let before = fs::metadata("/dev/null").unwrap();
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        for (path, major, minor) in [
            ("/dev/term", 136, 0),
            ("/dev/mux", 5, 2),
            ("/dev/console", 5, 1),
            ("/dev/kmsg", 1, 11),
        ] {
            let why = refused(&s, |spec| {
                spec["linux"]["devices"] =
                    json!([{ "path": path, "type": "c", "major": major, "minor": minor }]);
            });
            assert!(why.contains("refuses the device"), "{path}: {why}");
        }
        let mut spec = s.spec(
            "box",
            &[
                "sh",
                "-c",
                "chmod 0600 /dev/null /dev/other; stat -c %t:%T:%a /dev/null /dev/other",
            ],
        );
        spec["linux"]["devices"] = json!([
            { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0 },
            { "path": "/dev/other", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666, "uid": 0, "gid": 0 },
        ]);
        let (said, _) = output(&s, "box", &spec);
        assert!(
            said.contains("1:3:") && said.contains("1:5:"),
            "{program}: {said}"
        );
        let after = fs::metadata("/dev/null").unwrap();
        assert_eq!(
            (after.mode(), after.uid(), after.ino()),
            (before.mode(), before.uid(), before.ino())
        );
        assert_eq!(fs::metadata("/dev/zero").unwrap().mode() & 0o777, 0o666);
        s.end();
    }
}

/// A refused creation decides nothing for the pod's users.
fn users_after_a_refusal() {
    let s = Shim::start_as(3, UNTRUSTED);
    let mut request = s.create_request("box", &s.spec("box", &["true"]), Streams::default());
    request.rootfs[0].type_ = "overlay".into();
    request.rootfs[0].options = vec![format!("lowerdir={}", s.dir().join("nothing").display())];
    s.call::<CreateTaskResponse>("Create", &request)
        .unwrap_err();
    let (map, _) = output(&s, "box", &s.spec("box", &["cat", "/proc/self/uid_map"]));
    let first: Vec<&str> = map.split_whitespace().collect();
    assert!(first.len() == 3 && first[1] != "0", "{map}");
    let why = refused(&s, |spec| {
        spec["linux"]["sysctl"] = json!({ "user/./max_user_namespaces": "1000" })
    });
    assert!(why.contains("is not a kernel parameter"), "{why}");
    s.end();
}

/// Neither does one that is refused while others are being created.
fn users_beside_a_refusal() {
    let s = Shim::start_as(3, UNTRUSTED);
    let held = s.create_request("held", &s.spec("held", &["true"]), Streams::default());
    let config = Path::new(&held.bundle).join("config.json");
    let whole = fs::read(&config).unwrap();
    fs::remove_file(&config).unwrap();
    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| s.call::<CreateTaskResponse>("Create", &held).map(drop));
        wait_until("its id is taken", Duration::from_secs(5), || {
            s.pids("held")
                .is_err_and(|(_, text)| text.contains("still being created"))
        });
        let mut spec = s.spec("refused", &["true"]);
        spec["root"]["path"] = json!("/proc");
        let mut request = s.create_request("refused", &spec, Streams::default());
        request.rootfs.clear();
        s.call::<CreateTaskResponse>("Create", &request)
            .unwrap_err();
        let (map, _) = output(&s, "box", &s.spec("box", &["cat", "/proc/self/uid_map"]));
        let words: Vec<&str> = map.split_whitespace().collect();
        assert!(words.len() == 3 && words[1] != "0", "{map}");
        fs::write(&config, whole).unwrap();
        waiting.join().unwrap().unwrap();
    });
    s.kill("held", "", 9, true).unwrap();
    s.wait("held", "").unwrap();
    s.delete("held", "").unwrap();
    s.end();
}

/// The paths of mounts are judged; an image's links do not lead them elsewhere.
fn links_of_an_image() {
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let root = s.dir().join("linked");
        Output::of(
            Command::new("cp")
                .arg("-a")
                .arg(crate::support::test_directory().join("rootfs"))
                .arg(&root),
        )
        .ok();
        for (link, to) in [
            ("dev-link", "/dev"),
            ("proc-link", "proc"),
            ("below", "/proc/sys"),
            ("sys-link", "/sys/kernel"),
            ("fine", "/home"),
        ] {
            symlink(to, root.join(link)).unwrap();
        }
        fs::create_dir_all(root.join("home")).unwrap();
        // An image's list of users that has no end names nobody's home.
        fs::remove_file(root.join("etc/passwd")).ok();
        symlink("/dev/zero", root.join("etc/passwd")).unwrap();
        let create = |at: &str| {
            let mut spec = s.spec("box", &["true"]);
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "type": "tmpfs", "source": "tmpfs", "destination": at, "options": []
            }));
            let mut request = s.create_request("box", &spec, Streams::default());
            request.rootfs[0].source = root.display().to_string();
            s.call::<CreateTaskResponse>("Create", &request)
        };
        for at in ["/dev-link", "/proc-link", "/below", "/sys-link"] {
            let (_, why) = create(at).expect_err(at);
            assert!(why.contains("a symbolic link of the image"), "{at}: {why}");
        }
        create("/fine").unwrap();
        s.finish("box");
        s.end();
    }
}

/// What is mounted below a listed path comes along, and is looked at, too; the kernel's own links are no image's.
fn mounts_below_a_listed_path() {
    let node = OfNode::new("below");
    let dir = node.0.join("listed");
    fs::create_dir_all(dir.join("proc")).unwrap();
    mount(
        Some("proc"),
        &dir.join("proc"),
        Some("proc"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let s = Shim::start(3);
    let listing = |path: &Path| format!("extends = \"hardened\"\n[pod]\nhost_paths = [{path:?}]\n");
    let run = |id: &str, source: &Path, at: &str, option: &str, listed: &Path| {
        let mut spec = s.spec("box", &["true"]);
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "type": "bind", "source": source, "destination": at, "options": [option]
        }));
        run_under(&s, &request(&s, id, &spec, &listing(listed)))
    };
    let why = run("box", &dir, "/dev/host", "rbind", &dir).unwrap_err();
    assert!(why.contains("below it is mounted what shows"), "{why}");
    run("single", &dir, "/dev/host", "bind", &dir).unwrap();
    umount2(&dir.join("proc"), MntFlags::MNT_DETACH).unwrap();
    // A listed path with a link that somebody else can make lists nothing.
    let link = node.0.join("link");
    symlink(&dir, &link).unwrap();
    nix::unistd::fchownat(
        nix::fcntl::AT_FDCWD,
        &link,
        Some(1000.into()),
        None,
        nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .unwrap();
    let why = run("linked", &dir, "/dev/host", "bind", &link).unwrap_err();
    assert!(why.contains("is not below one of pod.host_paths"), "{why}");
    run("whole", &dir, "/dev/host", "rbind", &dir).unwrap();
    // As lxcfs does: /proc/net is a link of the kernel's.
    let file = dir.join("dev");
    fs::write(&file, "faked\n").unwrap();
    run("lxcfs", &file, "/proc/net/dev", "bind", &dir).unwrap();
    // What is forbidden has no other name.
    let alias = node.0.join("alias");
    fs::create_dir_all(alias.join("secret")).unwrap();
    fs::create_dir_all(dir.join("secret")).unwrap();
    mount(
        Some(&dir),
        &alias,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    for (id, source) in [("alias", alias.join("secret")), ("above", alias.clone())] {
        let profile = format!("[pod]\nforbidden_host_paths = [{:?}]\n", dir.join("secret"));
        let mut spec = s.spec(id, &["true"]);
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "type": "bind", "source": source, "destination": "/dev/host", "options": ["rbind"]
        }));
        let why = run_under(&s, &request(&s, id, &spec, &profile)).unwrap_err();
        assert!(why.contains("it shows"), "{why}");
    }
    umount2(&alias, MntFlags::MNT_DETACH).unwrap();
    s.end();
}

/// A bundle is its container's: nobody else is created there, and no container can write it.
fn bundles_of_others() {
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        s.run("victim", &["sleep", "1000"]);
        let record = s.dir().join("victim/cofferdam.json");
        let before = fs::read_to_string(&record).unwrap();
        let mut request = s.create_request("box", &s.spec("box", &["true"]), Streams::default());
        request.bundle = s.dir().join("victim").display().to_string();
        let (_, why) = s
            .call::<CreateTaskResponse>("Create", &request)
            .unwrap_err();
        assert!(why.contains("is of a container that runs"), "{why}");
        assert_eq!(fs::read_to_string(&record).unwrap(), before);
        // Its root is a link in a place of a pod's, which the pod can change at any time.
        let volume = Path::new("/var/lib/kubelet/pods")
            .join(crate::support::pod_uid())
            .join("volumes/kubernetes.io~empty-dir/b");
        let bundle = volume.join("box");
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        fs::write(
            bundle.join("config.json"),
            s.spec("box", &["true"]).to_string(),
        )
        .unwrap();
        request.bundle = bundle.display().to_string();
        let (_, why) = s
            .call::<CreateTaskResponse>("Create", &request)
            .unwrap_err();
        assert!(
            why.contains("a bundle that is not named after the container"),
            "{why}"
        );
        fs::remove_dir_all(&volume).unwrap();
        let link = s.dir().join("box/link");
        let why = refused(&s, |spec| {
            symlink("/etc", &link).ok();
            spec["root"]["path"] = json!("link");
        });
        assert!(why.contains("(root.path; "), "{why}");
        s.finish("victim");
        s.end();
    }
}
