//! User namespaces that a profile gives to pods: whose the files are, who shares ids with whom, and what becomes of them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use containerd_shim_protos::api::CreateTaskResponse;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use crate::isolation::{request, run_under, runtime_options, under};
use crate::support::cri::{self, Client};
use crate::support::shim::{Shim, Streams};
use crate::support::{
    BUSYBOX, Daemon, is_alive, kill, pod_uid, shim_directory, volumes, wait_until,
};

/// The cases of this file.
pub fn cases() -> Vec<crate::Case> {
    use crate::Case;
    vec![
        Case::plain("users::nobody_shares", nobody_shares),
        Case::plain("users::killed_shim", killed_shim),
        Case::plain("users::unmappable_root", unmappable_root),
        Case::plain("users::unmappable_volume", unmappable_volume),
        Case::ctr("users::files_keep_their_ids", files_keep_their_ids),
        Case::cri("users::one_namespace_per_pod", one_namespace_per_pod),
    ]
}

const UNTRUSTED: &str = "io.containerd.cofferdam-untrusted.v1";
const AUTO: &str = "[user_namespace]\nmode = \"auto\"\n";

/// The node's id of root, from a `uid_map`.
fn first_id(map: &str) -> u32 {
    let numbers: Vec<u32> = map.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert!(
        numbers.len() == 3 && numbers[0] == 0 && numbers[2] == 65536,
        "{map}"
    );
    numbers[1]
}

fn files_keep_their_ids(d: &mut Daemon) {
    let volume = volumes().join(format!("users-{}", d.release.name()));
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("theirs"), "x").unwrap();
    nix::unistd::chown(&volume.join("theirs"), Some(1000.into()), Some(1001.into())).unwrap();
    let flags = format!(
        "type=bind,src={},dst=/volume,options=rbind:rw",
        volume.display()
    );
    d.run_detached(
        &[
            "--null-io",
            "--runtime",
            UNTRUSTED,
            "--mount",
            &flags,
            "--annotation",
            &format!("io.kubernetes.cri.sandbox-uid={}", pod_uid()),
            "--annotation",
            "io.kubernetes.cri.sandbox-id=box",
        ],
        "box",
        &["sleep", "1000"],
    );
    let sh = |script: &str| {
        let out = d.exec(&[], "box", "e", &["sh", "-c", script]).ok();
        assert_eq!(out.stderr, "");
        out.stdout
    };
    let first = first_id(&sh("cat /proc/self/uid_map"));
    assert!(
        first >= 0x7000_0000 && first.is_multiple_of(65536),
        "{first}"
    );
    assert_eq!(
        sh("id -u; stat -c %u:%g / /bin/busybox /volume /volume/theirs"),
        "0\n0:0\n0:0\n0:0\n1000:1001\n"
    );
    let script = "mkdir /made && touch /made/file /volume/file && chown 33:34 /made/file /volume/file && \
        mv /etc/group /etc/moved && rm /etc/passwd && rm -r /made/../root && mkdir /root && \
        ls /etc/passwd /root/.. > /dev/null 2>&1; stat -c %u:%g /made/file /volume/file /etc/moved /root";
    assert_eq!(sh(script), "33:34\n33:34\n0:0\n0:0\n");
    // On disk, everything is as if there was no user namespace: the snapshot can be committed, and mounted by others.
    let written = snapshot_with(d.dir(), "made/file");
    let ids = |path: &Path| {
        let m = fs::symlink_metadata(path).unwrap();
        (m.uid(), m.gid())
    };
    assert_eq!(ids(&written.join("made")), (0, 0));
    assert_eq!(ids(&written.join("made/file")), (33, 34));
    assert_eq!(ids(&written.join("etc/moved")), (0, 0));
    assert_eq!(ids(&written.join("etc/passwd")), (0, 0), "a whiteout");
    assert_eq!(ids(&volume.join("file")), (33, 34));
    // The processes are nobody on the node.
    let uid = fs::metadata(format!("/proc/{}", d.pid("box")))
        .unwrap()
        .uid();
    let status = fs::read_to_string(format!("/proc/{}/status", d.pid("box"))).unwrap();
    assert!(
        status.contains(&format!("Uid:\t{first}\t{first}")),
        "{uid} {status}"
    );
    assert!(
        Path::new("/run/cofferdam/ids")
            .join(first.to_string())
            .exists()
    );
    d.remove("box");
    wait_until("the range is given back", Duration::from_secs(10), || {
        !Path::new("/run/cofferdam/ids")
            .join(first.to_string())
            .exists()
    });
}

/// The upper layer that has this file.
fn snapshot_with(dir: &Path, file: &str) -> PathBuf {
    let snapshots = dir.join("root/io.containerd.snapshotter.v1.overlayfs/snapshots");
    let all = fs::read_dir(snapshots).unwrap().flatten();
    all.map(|e| e.path().join("fs"))
        .find(|p| p.join(file).exists())
        .unwrap()
}

fn one_namespace_per_pod(d: &mut Daemon) {
    let mut config = cri::pod_config(d, "untrusted");
    let sysctls = [
        ("net.ipv4.ip_local_port_range", "20000\t20100"),
        ("kernel.shm_rmid_forced", "1"),
    ];
    let linux = config.linux.as_mut().unwrap();
    linux.sysctls = sysctls
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let client = Client::connect(d);
    let pod = client.run_pod(&config, "cofferdam-untrusted").unwrap();
    let start = |name: &str| {
        let c = cri::container_config(name, BUSYBOX, &["sleep", "1000"]);
        let id = client.create(&pod, &c, &config).unwrap();
        client.start(&id).unwrap();
        id
    };
    let (a, b) = (start("a"), start("b"));
    let sh = |c: &str, script: &str| {
        let out = client.exec(c, &["sh", "-c", script], 10).unwrap();
        String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap()
    };
    let namespaces = "readlink /proc/self/ns/user /proc/self/ns/net /proc/self/ns/ipc";
    assert_eq!(sh(&a, namespaces), sh(&b, namespaces));
    assert!(first_id(&sh(&a, "cat /proc/self/uid_map")) >= 0x7000_0000);
    // CNI made the network, and the node owns it.
    assert_eq!(
        sh(
            &a,
            "ls /sys/class/net | grep -c eth0; cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced"
        ),
        "1\n20000\t20100\n1\n"
    );
    assert_eq!(
        sh(
            &a,
            "nc -l -p 80 -e echo served & sleep 0.3; nc 127.0.0.1 80; touch /dev/shm/x && cat /proc/sys/user/max_user_namespaces"
        ),
        "served\n0\n"
    );
    assert!(
        sh(&b, "ls /dev/shm").contains('x'),
        "the pod's memory is shared"
    );
    client.stop_pod(&pod).unwrap();
    client.remove_pod(&pod).unwrap();
}

fn nobody_shares() {
    let shims: Vec<_> = (0..12)
        .map(|_| {
            std::thread::spawn(|| {
                let s = Shim::start(3);
                let pid = start_under(&s, "box", AUTO).unwrap();
                let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
                assert_eq!(
                    map,
                    fs::read_to_string(format!("/proc/{pid}/gid_map")).unwrap()
                );
                (s, first_id(&map))
            })
        })
        .collect();
    let all: Vec<(Shim, u32)> = shims.into_iter().map(|s| s.join().unwrap()).collect();
    let firsts: BTreeSet<u32> = all.iter().map(|(_, first)| *first).collect();
    assert_eq!(firsts.len(), 12, "{firsts:?}");
    for (s, _) in all {
        end(s, "box");
    }
    for first in firsts {
        let file = Path::new("/run/cofferdam/ids").join(first.to_string());
        wait_until("ranges are given back", Duration::from_secs(10), || {
            !file.exists()
        });
    }
}

fn start_under(s: &Shim, id: &str, profile: &str) -> Result<u32, String> {
    let spec = s.spec(id, &["sleep", "1000"]);
    let mut request = s.create_request(id, &spec, Streams::default());
    request.options = Some(runtime_options(3, profile)).into();
    let created = s.call::<CreateTaskResponse>("Create", &request);
    let pid = created.map_err(|(_, text)| text)?.pid;
    if let Err(e) = s.start_process(id, "") {
        std::thread::sleep(Duration::from_millis(300));
        panic!("{e:?}: {}", s.log());
    }
    Ok(pid)
}

/// Ends a shim whose one container still runs.
fn end(s: Shim, id: &str) {
    s.kill(id, "", 9, false).unwrap();
    s.wait(id, "").unwrap();
    s.delete(id, "").unwrap();
    s.end();
}

fn killed_shim() {
    // A pool of one range, which nobody else uses.
    let first = 0x6000_0000 + (std::process::id() % 1000) * 65536;
    let profile = format!("{AUTO}pool = {{ first = {first}, ranges = 1 }}\n");
    let file = Path::new("/run/cofferdam/ids").join(first.to_string());
    let (killed, next) = (Shim::start(3), Shim::start(3));
    let pid = start_under(&killed, "box", &profile).unwrap() as i32;
    let full = format!("all 1 ranges from id {first} on are in use");
    let refused = start_under(&next, "early", &profile).unwrap_err();
    assert!(refused.contains(&full), "{refused}");
    let shim = killed.pid().unwrap();
    kill(shim);
    wait_until("the shim is gone", Duration::from_secs(5), || {
        !is_alive(shim)
    });
    // Nobody holds the range any more, but the pod's processes live on.
    assert!(is_alive(pid) && file.exists());
    let refused = start_under(&next, "soon", &profile).unwrap_err();
    assert!(refused.contains(&full), "{refused}");
    // What containerd does next.
    let bundle = killed.dir().join("box");
    let delete = Command::new(shim_directory().join("containerd-shim-cofferdam-v1"))
        .args([
            "-namespace",
            "cdshim",
            "-id",
            "box",
            "-address",
            "x",
            "-bundle",
        ])
        .arg(&bundle)
        .arg("delete")
        .current_dir(&bundle)
        .output()
        .unwrap();
    assert!(delete.status.success() && !is_alive(pid), "{delete:?}");
    assert!(!file.exists(), "{} is left", file.display());
    start_under(&next, "late", &profile).unwrap();
    end(next, "late");
    killed.end();
    // A shim that died between taking a range and using it, and no `delete` for it.
    fs::write(&file, "1\n").unwrap();
    let last = Shim::start(3);
    start_under(&last, "box", &profile).unwrap();
    end(last, "box");
    assert!(!file.exists());
}

/// An overlay that is mounted on the node, until it is dropped.
struct Overlay(PathBuf);

impl Overlay {
    fn mount(dir: &Path, lower: &Path) -> Self {
        let place = dir.join("merged");
        fs::create_dir_all(&place).unwrap();
        fs::create_dir_all(dir.join("empty")).unwrap();
        let data = format!(
            "lowerdir={}:{}",
            lower.display(),
            dir.join("empty").display()
        );
        mount(
            Some("overlay"),
            &place,
            Some("overlay"),
            MsFlags::MS_RDONLY,
            Some(data.as_str()),
        )
        .unwrap();
        Self(place)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

/// Runs a command on a root that is an overlay already, as dockerd's are.
fn on_overlay(s: &Shim, id: &str, root: &Path, profile: &str) -> Result<String, String> {
    let spec = s.spec(id, &["cat", "/proc/self/uid_map"]);
    let mut request = request(s, id, &spec, profile);
    request.rootfs[0].source = root.display().to_string();
    run_under(s, &request).map(|(text, _)| text)
}

fn unmappable_root() {
    let s = Shim::start(3);
    let root = crate::support::test_directory().join("rootfs");
    let overlay = Overlay::mount(s.dir(), &root);
    let refused = on_overlay(&s, "strict", &overlay.0, AUTO).unwrap_err();
    assert!(
        refused.contains("merged: its file system cannot map ids")
            && refused.contains("user_namespace.unmappable = \"fall-back\""),
        "{refused}"
    );
    let lenient = format!("{AUTO}unmappable = \"fall-back\"\n");
    let map = on_overlay(&s, "lenient", &overlay.0, &lenient).unwrap();
    assert_eq!(map.split_whitespace().nth(2), Some("4294967295"), "{map}");
    assert!(
        s.log().contains("the pod has the node's users"),
        "{}",
        s.log()
    );
    drop(overlay);
    s.end();
}

fn unmappable_volume() {
    let s = Shim::start(3);
    let root = crate::support::test_directory().join("rootfs");
    let overlay = Overlay::mount(s.dir(), &root);
    let run = |id: &str, profile: &str| {
        let mut spec = s.spec(id, &["stat", "-c", "%u", "/tmp/volume/bin", "/tmp/volume"]);
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }));
        mounts.push(json!({
            "destination": "/tmp/volume", "type": "bind", "source": overlay.0, "options": ["rbind", "ro"]
        }));
        run_under(&s, &request(&s, id, &spec, profile))
    };
    let refused = run("strict", AUTO).unwrap_err();
    assert!(
        refused.contains(".source: ") && refused.contains("cannot map ids on this kernel"),
        "{refused}"
    );
    // The pod's decision is for all its containers, the policy for volumes is each profile's.
    drop(overlay);
    s.end();
    let s = Shim::start(3);
    let (text, _) = under(&s, "plain", AUTO, &["cat", "/proc/self/uid_map"]).unwrap();
    first_id(&text);
    s.end();
}
