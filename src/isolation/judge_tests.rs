//! What each profile makes of specs, ordinary and greedy. Over 400 lines, because it is
//! one list of cases over shared fixtures.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{PosixRlimitType, Spec};
use serde_json::{Value, json};

use super::super::profile::{Limit, Limits};
use super::super::{Node, Place, PodOfKubernetes};
use super::*;
use crate::oci::{Links, Reading};
use crate::sys::mount::attr;

fn profile(name: &str) -> Profile {
    Profile::load_from(Path::new("/nonexistent"), name).unwrap()
}

/// A node below a directory of our own, with a kubelet and a containerd that made things for the pod "u1" and the container "c1".
struct Fixture {
    dir: PathBuf,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cdtest-judge-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        let this = Self { dir };
        for path in [
            "kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v",
            "kubelet/pods/u1/containers/c",
            "kubelet/pods/u1/plugins",
            "kubelet/pods/u2/volumes/kubernetes.io~secret/s",
            "kubelet/pki",
            "root/io.containerd.grpc.v1.cri/sandboxes/s1",
            "root/io.containerd.grpc.v1.cri/sandboxes/s2",
            "root/io.containerd.grpc.v1.cri/containers/c1/volumes/v",
            "root/io.containerd.runtime.v2.task/k8s.io/c1",
            "state/io.containerd.grpc.v1.cri/sandboxes/s1/shm",
            "state/io.containerd.runtime.v2.task/k8s.io/c1/rootfs",
            "srv/data",
        ] {
            std::fs::create_dir_all(this.path(path)).unwrap();
        }
        for file in [
            "kubelet/pods/u1/etc-hosts",
            "kubelet/pods/u1/containers/c/log",
            "root/io.containerd.grpc.v1.cri/sandboxes/s1/hosts",
            "root/io.containerd.grpc.v1.cri/sandboxes/s2/hosts",
        ] {
            std::fs::write(this.path(file), "").unwrap();
        }
        let link =
            |target: PathBuf, link: &str| std::os::unix::fs::symlink(target, this.path(link));
        link(
            this.path("root/io.containerd.runtime.v2.task/k8s.io/c1"),
            "state/io.containerd.runtime.v2.task/k8s.io/c1/work",
        )
        .unwrap();
        let volume = "kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v";
        link("/".into(), &format!("{volume}/link")).unwrap();
        link(this.path("kubelet/pods/u2"), &format!("{volume}/other")).unwrap();
        link(this.path("srv"), "alias").unwrap();
        this
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.join(below)
    }

    fn bundle(&self) -> PathBuf {
        self.path("state/io.containerd.runtime.v2.task/k8s.io/c1")
    }

    fn given(&self) -> Given {
        let node = Node {
            kubelet_root: self.path("kubelet"),
            ..Node::default()
        };
        Given {
            open_files: 20_000,
            core_size: u64::MAX,
            users: None,
            cgroup_v2: false,
            recursive_attributes: true,
            place: Place::of(&node, &self.bundle(), "c1"),
            namespaces: Some(BTreeSet::new()),
        }
    }

    /// With the pod of the container's annotations.
    fn given_to(&self, request: &Request) -> Given {
        let mut given = self.given();
        given.place = given.place.of_pod(PodOfKubernetes::claimed(request));
        given
    }

    fn read(&self, spec: &Spec) -> Request {
        let reading = Reading::Run(Links::Any);
        Request::read(spec.clone(), &self.bundle(), reading).unwrap()
    }

    /// What becomes of a spec, and the report.
    fn judge(&self, profile: &Profile, spec: &Spec) -> Result<(Spec, Vec<String>), Refusal> {
        let request = self.read(spec);
        let verdict = judge(profile, &self.given_to(&request), request)?;
        Ok((verdict.judged.to_spec(spec), verdict.report))
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// What containerd sends, changed.
fn spec(change: impl FnOnce(&mut Value)) -> Spec {
    let text = include_str!("../../fuzz/seeds/spec/containerd.json");
    let mut json: Value = serde_json::from_str(text).unwrap();
    json["linux"]["devices"] = json!([]);
    json["root"]["path"] = json!("rootfs");
    json["hooks"] = json!({});
    json["annotations"] = json!({
        "io.kubernetes.cri.sandbox-id": "s1", "io.kubernetes.cri.sandbox-uid": "u1"
    });
    let mounts = json["mounts"].as_array_mut().unwrap();
    mounts.retain(|m| m["type"] != "bind");
    change(&mut json);
    serde_json::from_value(json).unwrap()
}

fn with_mount(mount: Value) -> Spec {
    spec(|json| json["mounts"].as_array_mut().unwrap().push(mount))
}

fn bind(source: &Path, destination: &str, options: Value) -> Value {
    json!({ "type": "bind", "source": source, "destination": destination, "options": options })
}

#[test]
fn standard_changes_nothing() {
    let f = Fixture::new("standard");
    let asked = with_mount(bind(
        Path::new("/etc"),
        "/host",
        json!(["rbind", "rw", "ro", "rw"]),
    ));
    let (judged, report) = f.judge(&profile("standard"), &asked).unwrap();
    assert_eq!((judged.mounts(), report.len()), (asked.mounts(), 0));
    assert_eq!(judged.process(), asked.process());
}

#[test]
fn a_floor_under_a_floor_is_the_same_floor() {
    let f = Fixture::new("twice");
    for name in ["hardened", "untrusted"] {
        let profile = profile(name);
        let volume = f.path("kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v");
        let asked = with_mount(bind(&volume, "/v", json!(["rbind", "rw"])));
        let (once, report) = f.judge(&profile, &asked).unwrap();
        assert!(report.len() > 3, "{report:?}");
        let (twice, report) = f.judge(&profile, &once).unwrap();
        assert!(report.is_empty(), "{report:?}");
        assert_eq!(twice, once);
    }
}

#[test]
fn whatever_a_pod_asks_for_the_floor_holds() {
    let f = Fixture::new("greedy");
    let volume = f.path("kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v");
    let greedy = spec(|json| {
        let all = ["CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_CHOWN", "CAP_BPF"];
        let p = &mut json["process"];
        p["noNewPrivileges"] = json!(false);
        p["capabilities"] = json!({ "bounding": all, "effective": all, "permitted": all, "inheritable": all, "ambient": all });
        p["rlimits"] = json!([
            { "type": "RLIMIT_CORE", "soft": 1, "hard": 1 },
            { "type": "RLIMIT_CORE", "soft": 1, "hard": 1_000_000 }
        ]);
        json["linux"]["maskedPaths"] = json!([]);
        json["linux"]["resources"]["pids"] = json!({ "limit": 10_000_000 });
        json["mounts"].as_array_mut().unwrap().push(bind(
            &volume,
            "/v",
            json!([
                "rbind", "rw", "exec", "suid", "dev", "rexec", "rsuid", "rdev"
            ]),
        ));
    });
    let (applied, _) = f.judge(&profile("hardened"), &greedy).unwrap();
    let p = applied.process().as_ref().unwrap();
    assert_eq!(p.no_new_privileges(), Some(true));
    let caps = p.capabilities().as_ref().unwrap();
    for set in [
        caps.bounding(),
        caps.effective(),
        caps.permitted(),
        caps.inheritable(),
        caps.ambient(),
    ] {
        let names: Vec<String> = set.iter().flatten().map(ToString::to_string).collect();
        assert_eq!(names, ["CHOWN"], "of all that was asked for");
    }
    let core = p.rlimits().as_ref().unwrap();
    assert_eq!(core.len(), 1, "one that holds: {core:?}");
    assert_eq!((core[0].soft(), core[0].hard()), (1, 1));
    let linux = applied.linux().as_ref().unwrap();
    let masked = linux.masked_paths().as_ref().unwrap();
    for path in ["/proc/kcore", "/proc/kpageflags", "/sys/kernel/slab"] {
        assert!(masked.contains(&path.to_owned()), "{path}");
    }
    let pids = linux.resources().as_ref().unwrap().pids();
    assert_eq!(pids.unwrap().limit(), 32_768);
    let options = applied.mounts().as_ref().unwrap().last().unwrap().options();
    let options = options.clone().unwrap();
    for word in ["noexec", "nosuid", "nodev", "rnoexec", "rnosuid", "rnodev"] {
        assert!(options.iter().any(|o| o == word), "{options:?}");
    }
    for word in ["exec", "suid", "dev", "rexec", "rsuid", "rdev"] {
        assert!(!options.iter().any(|o| o == word), "{options:?}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn host_paths_are_judged_by_what_is_there() {
    let f = Fixture::new("paths");
    let volume = "kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v";
    let mut listing = profile("hardened");
    listing.name = "listing".into();
    listing.pod.host_paths = Some(vec![f.path("alias"), "/proc/sys".into(), "/run".into()]);
    let (listing, hardened, untrusted) = (&listing, &profile("hardened"), &profile("untrusted"));
    for (source, ok, with_list) in [
        // What was made for the pod.
        (f.path(volume), true, true),
        (f.path("kubelet/pods/u1/etc-hosts"), true, true),
        (f.path("kubelet/pods/u1/containers/c/log"), true, true),
        (
            f.path("root/io.containerd.grpc.v1.cri/sandboxes/s1/hosts"),
            true,
            true,
        ),
        (
            f.path("root/io.containerd.grpc.v1.cri/containers/c1/volumes/v"),
            true,
            true,
        ),
        (
            f.path("state/io.containerd.grpc.v1.cri/sandboxes/s1/shm"),
            true,
            true,
        ),
        // What was made for others, or holds it.
        (f.path("kubelet/pods/u1"), false, false),
        (f.path("kubelet/pods/u1/plugins"), false, false),
        (f.path("kubelet/pods"), false, false),
        (
            f.path("kubelet/pods/u2/volumes/kubernetes.io~secret/s"),
            false,
            false,
        ),
        (f.path("kubelet/pki"), false, false),
        (
            f.path("root/io.containerd.grpc.v1.cri/sandboxes/s2/hosts"),
            false,
            false,
        ),
        (f.path("root"), false, false),
        (f.path("state"), false, false),
        // Links in a volume of the pod's.
        (f.path(&format!("{volume}/link/etc")), false, false),
        (f.path(&format!("{volume}/link")), false, false),
        (
            f.path(&format!("{volume}/other/volumes/kubernetes.io~secret/s")),
            false,
            false,
        ),
        (
            f.path(&format!(
                "{volume}/../../../../u2/volumes/kubernetes.io~secret/s"
            )),
            false,
            false,
        ),
        // The node's.
        ("/".into(), false, false),
        ("/etc".into(), false, false),
        ("//etc/./ssl".into(), false, false),
        ("/proc/sys".into(), false, false),
        ("/sys".into(), false, false),
        ("/dev/null".into(), false, false),
        ("/run".into(), false, false),
        (f.path("srv/data"), false, true),
        (f.path("alias/data"), false, true),
    ] {
        let asked = with_mount(bind(&source, "/v", json!(["rbind"])));
        for (profile, ok) in [(hardened, ok), (untrusted, ok), (listing, with_list)] {
            let answer = f.judge(profile, &asked);
            let name = &profile.name;
            assert_eq!(
                answer.is_ok(),
                ok,
                "{name}: {}: {answer:?}",
                source.display()
            );
        }
        // However it says that it is a bind mount.
        for (typ, options) in [
            ("rbind", json!(["rw"])),
            ("none", json!(["bind"])),
            ("", json!(["rbind"])),
        ] {
            let mut mount = bind(&source, "/v", options);
            mount["type"] = json!(typ);
            let answer = f.judge(hardened, &with_mount(mount));
            assert_eq!(
                answer.is_ok(),
                ok,
                "{typ}: {}: {answer:?}",
                source.display()
            );
        }
    }
    let elsewhere = f.path("kubelet2/pods/u1/etc-hosts");
    std::fs::create_dir_all(elsewhere.parent().unwrap()).unwrap();
    std::fs::write(&elsewhere, "").unwrap();
    let asked = with_mount(bind(&elsewhere, "/etc/hosts", json!(["bind"])));
    let refused = f.judge(untrusted, &asked).unwrap_err().to_string();
    assert!(
        refused.contains("/etc/cofferdam/node.conf (kubelet_root"),
        "{refused}"
    );
    let asked = spec(|json| json["root"]["path"] = json!("/"));
    let refused = f.judge(hardened, &asked).unwrap_err().to_string();
    assert!(
        refused.contains("the root / (root.path; it shows /)"),
        "{refused}"
    );
}

#[test]
fn a_pod_of_another_uid_has_other_volumes() {
    let f = Fixture::new("uids");
    let volume = f.path("kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v");
    for (uid, ok) in [
        (json!("u1"), true),
        (json!("u2"), false),
        (json!("."), false),
        (json!(".."), false),
        (json!("u2/../u1"), false),
        (json!(""), false),
    ] {
        let asked = spec(|json| {
            json["annotations"]["io.kubernetes.cri.sandbox-uid"] = uid.clone();
            let mounts = json["mounts"].as_array_mut().unwrap();
            mounts.push(bind(&volume, "/v", json!(["rbind"])));
        });
        assert_eq!(f.judge(&profile("untrusted"), &asked).is_ok(), ok, "{uid}");
    }
}

#[test]
fn file_systems_have_their_places_and_their_flags() {
    let f = Fixture::new("mounts");
    let hardened = profile("hardened");
    let mount = |typ: &str, destination: &str, options: Value| json!({ "type": typ, "source": typ, "destination": destination, "options": options });
    for (asked, ok) in [
        (mount("tmpfs", "/cache", json!([])), true),
        (mount("tmpfs", "/sys/kernel", json!([])), false),
        (mount("proc", "/p2", json!([])), false),
        (mount("proc", "/proc", json!([])), false),
        (mount("sysfs", "/s2", json!(["ro"])), false),
        (mount("cgroup2", "/c", json!(["ro"])), false),
        (mount("overlay", "/o", json!(["lowerdir=/etc:/usr"])), false),
        (mount("ext4", "/d", json!([])), false),
        (mount("debugfs", "/d", json!([])), false),
        (mount("binfmt_misc", "/proc/../b", json!([])), false),
        (mount("devtmpfs", "/d", json!([])), false),
        (mount("bpf", "/sys/fs/bpf", json!([])), false),
        (mount("nosuch", "/x", json!([])), false),
        (mount("ramfs", "/x", json!([])), false),
    ] {
        let answer = f.judge(&hardened, &with_mount(asked.clone()));
        assert_eq!(answer.is_ok(), ok, "{asked}: {answer:?}");
    }
    for words in [
        json!(["ro", "rw"]),
        json!(["rrw"]),
        json!(["rw", "rexec", "rsuid", "rdev"]),
        json!([]),
    ] {
        let asked = spec(|json| {
            for m in json["mounts"].as_array_mut().unwrap() {
                if m["type"] == "sysfs" || m["type"] == "cgroup" {
                    m["options"] = words.clone();
                }
            }
        });
        let request = f.read(&asked);
        let verdict = judge(&hardened, &f.given_to(&request), request).unwrap();
        for m in &verdict.judged.mounts {
            let wanted = match m.fstype() {
                Some("sysfs" | "cgroup") => {
                    attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC
                }
                Some("devpts") => attr::NOSUID,
                Some("tmpfs") if m.destination == Path::new("/dev") => attr::NOSUID,
                _ => attr::NOSUID | attr::NODEV,
            };
            let effective = m.flags.effective();
            assert_eq!(
                effective & wanted,
                wanted,
                "{words} at {}",
                m.destination.display()
            );
        }
    }
    let volume = f.path("kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v");
    let shared = with_mount(bind(&volume, "/v", json!(["rbind", "rshared"])));
    let refused = f.judge(&hardened, &shared).unwrap_err().to_string();
    assert!(
        refused.contains("mountPropagation: Bidirectional"),
        "{refused}"
    );
    let request = f.read(&with_mount(bind(&volume, "/v", json!(["rbind"]))));
    let old = Given {
        recursive_attributes: false,
        ..f.given_to(&request)
    };
    let verdict = judge(&hardened, &old, request).unwrap();
    let last = verdict.judged.mounts.last().unwrap();
    let crate::oci::Kind::Bind { recursive, .. } = last.kind else {
        panic!("no bind");
    };
    assert!(!recursive && last.flags.recursive_set == 0);
}

#[test]
fn the_nodes_namespaces_are_the_nodes_by_whatever_path() {
    let f = Fixture::new("namespaces");
    for name in ["hardened", "untrusted"] {
        for (typ, file, text) in [
            ("network", "net", "refuses hostNetwork"),
            ("pid", "pid", "refuses hostPID"),
            ("ipc", "ipc", "refuses hostIPC"),
            ("uts", "uts", "refuses the node's host name"),
            ("mount", "mnt", "refuses the node's mounts"),
        ] {
            for path in [
                format!("/proc/self/ns/{file}"),
                format!("/proc/1/ns/{file}"),
            ] {
                // Here and there not even root may look at the first process.
                if std::fs::metadata(&path).is_err() {
                    continue;
                }
                let asked = spec(|json| {
                    let list = json["linux"]["namespaces"].as_array_mut().unwrap();
                    list.retain(|n| n["type"] != typ);
                    list.push(json!({ "type": typ, "path": path }));
                });
                let refused = f.judge(&profile(name), &asked).unwrap_err().to_string();
                assert!(refused.contains(text), "{path}: {refused}");
            }
        }
        let asked = spec(|json| {
            let list = json["linux"]["namespaces"].as_array_mut().unwrap();
            list.retain(|n| n["type"] != "cgroup");
        });
        let verdict = judge(&profile(name), &f.given(), f.read(&asked)).unwrap();
        assert!(verdict.judged.namespaces.cgroup.is_new());
    }
}

#[test]
fn programs_of_the_node_are_listed() {
    let f = Fixture::new("programs");
    let mut listing = profile("hardened");
    listing.pod.hooks = Some(vec!["/usr/bin/hook".into()]);
    listing.pod.loggers = Some(vec!["/usr/bin/logger".into()]);
    listing.pod.seccomp_agents = Some(vec!["/run/agent".into()]);
    for (kind, of_node) in [
        ("prestart", true),
        ("createRuntime", true),
        ("createContainer", true),
        ("startContainer", false),
        ("poststart", true),
        ("poststop", true),
    ] {
        let hook = |path: &str| spec(|json| json["hooks"] = json!({ kind: [{ "path": path }] }));
        let ok = |profile: &Profile, path: &str| f.judge(profile, &hook(path)).is_ok();
        assert_eq!(
            ok(&profile("hardened"), "/usr/bin/hook"),
            !of_node,
            "{kind}"
        );
        assert!(ok(&listing, "/usr/bin/hook"), "{kind}");
        assert_eq!(
            ok(&listing, "/usr/bin/../bin/hook"),
            !of_node,
            "{kind}: exactly"
        );
        assert!(ok(&profile("standard"), "/any"), "{kind}");
    }
    let agent = |path: &str| {
        spec(|json| {
            json["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]
            });
        })
    };
    let refused = f
        .judge(&profile("untrusted"), &agent("/run/agent"))
        .unwrap_err();
    assert!(
        refused.to_string().contains("pod.seccomp_agents"),
        "{refused}"
    );
    assert!(f.judge(&listing, &agent("/run/agent")).is_ok());
    let streams = |stdout: &str| crate::oci::StdioUris {
        stdout: stdout.into(),
        stderr: "/a/fifo".into(),
        ..crate::oci::StdioUris::default()
    };
    for (address, hardened, listed) in [
        ("/a/fifo", true, true),
        ("file:///x/log", true, true),
        ("binary:///usr/bin/logger?a=b", false, true),
        ("binary-v2:///usr/bin/logger", false, true),
        ("binary:///tmp/h.sh", false, false),
    ] {
        let ok = |p: &Profile| super::super::judge_streams(p, streams(address)).is_ok();
        assert_eq!(
            (ok(&profile("hardened")), ok(&listing)),
            (hardened, listed),
            "{address}"
        );
    }
}

#[test]
fn users_are_nobody_elses() {
    let f = Fixture::new("users");
    let maps = |host: u32, size: u32| {
        spec(|json| {
            let list = json["linux"]["namespaces"].as_array_mut().unwrap();
            list.push(json!({ "type": "user" }));
            let map = json!([{ "containerID": 0, "hostID": host, "size": size }]);
            json["linux"]["uidMappings"] = map.clone();
            json["linux"]["gidMappings"] = map;
        })
    };
    for (name, host, size, ok) in [
        ("untrusted", 0, 65536, false),
        ("untrusted", 65535, 65536, false),
        ("untrusted", 65536, 4_294_836_223_u32, false),
        ("untrusted", 0x7000_0000 - 1, 2, false),
        ("untrusted", 655_360, 65536, true),
        ("hardened", 0x7000_0000, 1, false),
        ("hardened", 655_360, 65536, true),
    ] {
        let answer = f.judge(&profile(name), &maps(host, size));
        assert_eq!(answer.is_ok(), ok, "{name}: {host}, {size}: {answer:?}");
    }
    let asked = spec(|json| {
        json["linux"]["sysctl"] = json!({
            "user.max_user_namespaces": "1000", "user/max_user_namespaces": "1000"
        });
    });
    let given = Given {
        users: Some(0x7000_0000),
        ..f.given()
    };
    let verdict = judge(&profile("untrusted"), &given, f.read(&asked)).unwrap();
    let linux = verdict.judged.rest.linux().as_ref().unwrap();
    let limits: Vec<_> = linux
        .sysctl()
        .iter()
        .flatten()
        .filter(|(k, _)| k.contains("max_user_namespaces"))
        .collect();
    assert_eq!(limits.len(), 1);
    assert_eq!(limits[0].1, "0");
}

#[test]
fn what_a_spec_can_take_from_the_node() {
    let f = Fixture::new("things");
    for (change, text) in [
        (
            json!({ "linux": { "netDevices": { "eth0": {} } } }),
            "network device \"eth0\"",
        ),
        (json!({ "linux": { "intelRdt": {} } }), "linux.intelRdt"),
        (
            json!({ "process": { "ioPriority": { "class": "IOPRIO_CLASS_RT", "priority": 0 } } }),
            "process.ioPriority",
        ),
        (
            json!({ "process": { "scheduler": { "policy": "SCHED_FIFO", "priority": 1 } } }),
            "process.scheduler",
        ),
        (
            json!({ "linux": { "devices": [{ "path": "/dev/c", "type": "c", "major": 5, "minor": 1 }] } }),
            "the device /dev/c (c 5:1)",
        ),
        (
            json!({ "linux": { "devices": [{ "path": "/dev/c", "type": "u", "major": 1, "minor": 11 }] } }),
            "the device /dev/c (c 1:11)",
        ),
    ] {
        let asked = spec(|json| {
            for (part, fields) in change.as_object().unwrap() {
                for (key, value) in fields.as_object().unwrap() {
                    json[part][key] = value.clone();
                }
            }
        });
        let refused = f
            .judge(&profile("hardened"), &asked)
            .unwrap_err()
            .to_string();
        assert!(refused.contains(text), "{refused}");
        assert!(f.judge(&profile("standard"), &asked).is_ok());
    }
}

#[test]
fn swap_without_a_typed_limit_lifts_nothing() {
    let mut profile = Profile::default();
    profile.limits.swap = Limit {
        default: None,
        max: Some(0),
    };
    for memory in [json!({ "swap": -1 }), json!({ "swap": 500, "limit": -1 })] {
        let mut r: LinuxResources = serde_json::from_value(json!({
            "memory": memory, "unified": { "memory.max": "104857600" }
        }))
        .unwrap();
        resources::judge(&profile, true, &mut r, &mut Vec::new()).unwrap();
        let unified = r.unified().clone().unwrap();
        assert_eq!(unified["memory.swap.max"], "0", "{memory}");
    }
}

#[test]
fn swap_is_counted_beyond_the_memory() {
    let f = Fixture::new("swap");
    let limit = |default: Option<u64>, max: Option<u64>| Limit { default, max };
    for (limit, memory, expected) in [
        (limit(Some(0), None), json!({ "limit": 100 }), Some(100)),
        (
            limit(None, Some(50)),
            json!({ "limit": 100, "swap": 400 }),
            Some(150),
        ),
        (
            limit(None, Some(50)),
            json!({ "limit": 100, "swap": -1 }),
            Some(150),
        ),
        (
            limit(None, Some(50)),
            json!({ "limit": 100, "swap": 120 }),
            Some(120),
        ),
        (limit(Some(0), Some(50)), json!({ "swap": 120 }), Some(120)),
        (
            limit(Some(0), Some(0)),
            json!({ "limit": 100, "swap": 0 }),
            Some(100),
        ),
    ] {
        let profile = Profile {
            limits: Limits {
                swap: limit,
                ..Limits::default()
            },
            ..Profile::default()
        };
        let asked = spec(|json| json["linux"]["resources"]["memory"] = memory.clone());
        let (applied, _) = f.judge(&profile, &asked).unwrap();
        let r = applied.linux().as_ref().unwrap().resources().clone();
        assert_eq!(r.unwrap().memory().unwrap().swap(), expected, "{memory}");
    }
}

fn limited() -> Profile {
    let mut p = profile("untrusted");
    p.limits.memory = Limit {
        default: Some(1),
        max: Some(1000),
    };
    p.limits.cpu = Limit {
        default: Some(1),
        max: Some(500),
    };
    p
}

#[test]
fn an_update_stays_below_the_ceilings() {
    let p = limited();
    let update = |json: Value| {
        let asked: LinuxResources = serde_json::from_value(json).unwrap();
        judge_update(&p, asked).map(|judged| serde_json::to_value(&*judged).unwrap())
    };
    for (asked, expected) in [
        (
            json!({ "pids": { "limit": 10 } }),
            json!({ "pids": { "limit": 10 } }),
        ),
        (
            json!({ "pids": { "limit": -1 } }),
            json!({ "pids": { "limit": 4096 } }),
        ),
        (
            json!({ "pids": { "limit": 0 } }),
            json!({ "pids": { "limit": 0 } }),
        ),
        (
            json!({ "unified": { "memory.oom.group": "0" } }),
            json!({ "unified": { "memory.oom.group": "1" } }),
        ),
        (
            json!({ "memory": { "limit": 500, "swap": 900 } }),
            json!({ "memory": { "limit": 500, "swap": 500 } }),
        ),
        (
            json!({ "memory": { "limit": -1, "swap": -1 } }),
            json!({ "memory": { "limit": 1000, "swap": 1000 } }),
        ),
        (
            json!({ "cpu": { "quota": 90_000, "period": 100_000 } }),
            json!({ "cpu": { "quota": 50_000, "period": 100_000 } }),
        ),
        (
            json!({ "cpu": { "shares": 2 } }),
            json!({ "cpu": { "shares": 2 } }),
        ),
        (
            json!({ "unified": { "pids.max": "max", "memory.max": "5000", "memory.swap.max": "max", "cpu.max": "max" } }),
            json!({ "unified": { "pids.max": "4096", "memory.max": "1000", "memory.swap.max": "0", "cpu.max": "50000 100000" } }),
        ),
        (
            json!({ "unified": { "pids.max": "5", "cpu.max": "100 10000", "memory.high": "max" } }),
            json!({ "unified": { "pids.max": "5", "cpu.max": "100 10000", "memory.high": "max" } }),
        ),
        (json!({}), json!({})),
    ] {
        assert_eq!(update(asked.clone()).unwrap(), expected, "{asked}");
    }
    for refused in [
        json!({ "devices": [{ "allow": true, "access": "rwm" }] }),
        json!({ "devices": [{ "allow": true, "type": "a", "access": "r" }] }),
        json!({ "devices": [{ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw" }] }),
        json!({ "unified": { "pids.max": "many" } }),
        json!({ "unified": { "cpu.max": "1 2 3" } }),
        json!({ "unified": { "cpuset.cpus.partition": "root" } }),
        json!({ "unified": { "io.prio.class": "promote-to-rt" } }),
        json!({ "memory": { "swap": 5000 } }),
        json!({ "memory": { "swap": -1 } }),
        json!({ "memory": { "disableOOMKiller": true } }),
        json!({ "cpu": { "period": 1000 } }),
        json!({ "cpu": { "realtimeRuntime": 1000 } }),
    ] {
        assert!(update(refused.clone()).is_err(), "{refused}");
    }
    // containerd's rule for the node's console, which every container of its has.
    let console = json!({ "devices": [
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 5, "minor": 1, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" }
    ] });
    let kept = update(console).unwrap();
    assert_eq!(kept["devices"].as_array().unwrap().len(), 2);
    let asked: LinuxResources =
        serde_json::from_value(json!({ "unified": { "pids.max": "max" } })).unwrap();
    let standard = judge_update(&profile("standard"), asked.clone()).unwrap();
    assert_eq!(*standard, asked);
}

#[test]
fn unified_limits_of_a_new_container_are_capped_too() {
    let f = Fixture::new("unified");
    let asked = spec(|json| {
        json["linux"]["resources"]["unified"] = json!({ "pids.max": "max", "memory.max": "max" });
    });
    let (applied, report) = f.judge(&limited(), &asked).unwrap();
    let r = applied
        .linux()
        .as_ref()
        .unwrap()
        .resources()
        .clone()
        .unwrap();
    let unified = r.unified().as_ref().unwrap();
    assert_eq!(
        (unified["pids.max"].as_str(), unified["memory.max"].as_str()),
        ("4096", "1000")
    );
    assert!(report.iter().any(|r| r.contains("unified")), "{report:?}");
}

#[test]
fn nothing_is_served_before_others() {
    let f = Fixture::new("before-others");
    let with = |key: &str, value: Value| spec(|json| json["process"][key] = value);
    let hardened = profile("hardened");
    let limits = json!([
        { "type": "RLIMIT_RTPRIO", "soft": 0, "hard": 99 },
        { "type": "RLIMIT_NICE", "soft": 40, "hard": 40 },
        { "type": "RLIMIT_STACK", "soft": 5, "hard": 5 },
    ]);
    let (applied, _) = f.judge(&hardened, &with("rlimits", limits)).unwrap();
    let kept = applied.process().as_ref().unwrap().rlimits().clone();
    let kept: Vec<_> = kept
        .unwrap()
        .iter()
        .map(oci_spec::runtime::PosixRlimit::typ)
        .collect();
    assert!(kept.contains(&PosixRlimitType::RlimitStack), "{kept:?}");
    assert!(
        !kept.contains(&PosixRlimitType::RlimitRtprio)
            && !kept.contains(&PosixRlimitType::RlimitNice)
    );
    let nice = |n: i32| with("scheduler", json!({ "policy": "SCHED_OTHER", "nice": n }));
    assert!(f.judge(&hardened, &nice(-5)).is_err());
    assert!(f.judge(&hardened, &nice(5)).is_ok());
}

#[test]
fn a_proc_has_two_options() {
    let f = Fixture::new("proc");
    let asked = spec(|json| {
        for m in json["mounts"].as_array_mut().unwrap() {
            if m["type"] == "proc" {
                m["options"] = json!(["gid=0", "hidepid=0", "nosuid"]);
            }
        }
    });
    let request = f.read(&asked);
    let verdict = judge(&profile("untrusted"), &f.given_to(&request), request).unwrap();
    let proc = verdict
        .judged
        .mounts
        .iter()
        .find(|m| m.fstype() == Some("proc"));
    let wanted = ("hidepid".to_owned(), Some("invisible".to_owned()));
    assert_eq!(proc.unwrap().data, [wanted]);
}

#[test]
fn execs_are_as_the_policy_says() {
    let f = Fixture::new("execs");
    let exec = || spec(|_| {}).process().clone().unwrap();
    let mut p = profile("hardened");
    assert!(judge_exec(&p, &f.given(), exec()).is_ok());
    p.exec.policy = ExecPolicy::WithoutCapabilities;
    let bare = judge_exec(&p, &f.given(), exec()).unwrap().judged;
    let caps = bare.capabilities().as_ref().unwrap();
    assert!(caps.effective().as_ref().unwrap().is_empty());
    p.exec.policy = ExecPolicy::Deny;
    let refused = judge_exec(&p, &f.given(), exec()).unwrap_err().to_string();
    assert!(
        refused.contains("profile \"hardened\" refuses execs"),
        "{refused}"
    );
}
