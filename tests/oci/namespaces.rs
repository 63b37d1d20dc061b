//! Namespaces, mounts and network devices of a spec.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::refused;
use crate::support::Output;
use crate::support::place::Place;

pub(super) fn user_namespace() {
    let script = "id -u; cat /proc/self/uid_map; touch /new; echo x > /dev/null && echo null; cat /proc/sys/net/ipv4/ip_default_ttl; hostname; ls -n /dev/pts/ptmx | cut -c1-10";
    let mut p = Place::new(&["sh", "-c", script]);
    p.mapped(200_000)
        .set("/hostname", json!("inside"))
        .set("/linux/sysctl", json!({ "net.ipv4.ip_default_ttl": "99" }));
    let out = p.run().ok().stdout;
    assert_eq!(
        out,
        "0\n         0     200000      65536\nnull\n99\ninside\ncrw-rw-rw-\n"
    );
    let owner = fs::metadata(p.rootfs().join("new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 200_000);
    // An exec is in it, too, and has no more rights.
    let mut p = Place::new(&["sleep", "1000"]);
    p.mapped(200_000);
    p.start();
    let out = p.exec("id -u; cat /proc/self/uid_map; grep CapEff /proc/self/status; mkdir /m; mount -t tmpfs t /m 2>/dev/null || echo denied").ok().stdout;
    let init = fs::read_to_string(format!("/proc/{}/status", p.state()["pid"])).unwrap();
    let caps = init.lines().find(|l| l.starts_with("CapEff")).unwrap();
    assert_eq!(
        out,
        format!("0\n         0     200000      65536\n{caps}\ndenied\n")
    );
    // Wrong maps are named.
    let mut p = Place::new(&["true"]);
    p.mapped(200_000).set(
        "/linux/uidMappings",
        json!([{ "containerID": 0, "hostID": 4_294_967_295u32, "size": 2 }]),
    );
    refused(
        &p.run(),
        "linux.uidMappings[0]: containerID 0, hostID 4294967295, size 2: not a range of ids",
    );
    p.set("/linux/uidMappings", json!([]));
    refused(&p.run(), "linux.uidMappings: is empty");
}

pub(super) fn user_namespace_by_path() {
    let mut first = Place::new(&["sleep", "1000"]);
    first.mapped(300_000);
    first.start();
    let pid = first.state()["pid"].clone();
    let mut second = Place::new(&[
        "sh",
        "-c",
        "readlink /proc/self/ns/user; readlink /proc/self/ns/net; id -u",
    ]);
    second.mapped(300_000);
    let namespaces: Vec<Value> = ["user", "net", "ipc", "uts"]
        .iter()
        .map(|n| json!({ "type": if *n == "net" { "network" } else { n }, "path": format!("/proc/{pid}/ns/{n}") }))
        .chain([json!({ "type": "mount" }), json!({ "type": "pid" })])
        .collect();
    second.set("/linux/namespaces", json!(namespaces));
    let link = |n: &str| {
        fs::read_link(format!("/proc/{pid}/ns/{n}"))
            .unwrap()
            .display()
            .to_string()
    };
    assert_eq!(
        second.run().ok().stdout,
        format!("{}\n{}\n0\n", link("user"), link("net"))
    );
}

pub(super) fn id_mapped_mounts() {
    let mut p = Place::new(&[
        "sh",
        "-c",
        "stat -c %u /volume/file; touch /volume/new; stat -c %u /own/file",
    ]);
    let volume = p.on_disk("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("file"), "").unwrap();
    p.mapped(400_000);
    p.mount(json!({ "destination": "/volume", "type": "bind", "source": volume, "options": ["rbind", "idmap"] }));
    let own = json!([{ "containerID": 0, "hostID": 400_005, "size": 10 }]);
    p.mount(json!({ "destination": "/own", "type": "bind", "source": volume, "options": ["bind", "ro"], "uidMappings": own, "gidMappings": own }));
    assert_eq!(p.run().ok().stdout, "0\n5\n");
    // On the node the files stay root's.
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&fs::metadata(volume.join("new")).unwrap()),
        0
    );
    // Without a user namespace, by maps of its own.
    let mut p = Place::new(&["stat", "-c", "%u", "/own/file"]);
    let map = json!([{ "containerID": 0, "hostID": 77, "size": 1 }]);
    let volume = p.on_disk("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("file"), "").unwrap();
    p.mount(json!({ "destination": "/own", "type": "bind", "source": volume, "options": ["bind"], "uidMappings": map, "gidMappings": map }));
    assert_eq!(p.run().ok().stdout, "77\n");
    let mut p = Place::new(&["true"]);
    p.mount(json!({ "destination": "/own", "type": "bind", "source": "/tmp", "options": ["bind", "idmap"] }));
    refused(
        &p.run(),
        "mounts[6]: to map ids, it needs uidMappings and gidMappings, or a user namespace",
    );
}

pub(super) fn time_namespace() {
    let mut p = Place::new(&["sh", "-c", "cut -d. -f1 /proc/uptime; sleep 1000"]);
    p.namespace(json!({ "type": "time" })).set(
        "/linux/timeOffsets",
        json!({ "boottime": { "secs": 5_000_000 } }),
    );
    p.start();
    let uptime = |text: &str| {
        text.split('.')
            .next()
            .unwrap()
            .trim()
            .parse::<u64>()
            .unwrap()
    };
    let node = uptime(&fs::read_to_string("/proc/uptime").unwrap());
    let inside = uptime(&p.exec("cat /proc/uptime").ok().stdout);
    assert!(
        (5_000_000..5_000_100).contains(&(inside - node)),
        "{inside} {node}"
    );
    let mut p = Place::new(&["true"]);
    p.namespace(json!({ "type": "time" }))
        .set("/linux/timeOffsets", json!({ "realtime": { "secs": 1 } }));
    refused(
        &p.run(),
        "linux.timeOffsets[\"realtime\"]: is not a clock that can be offset",
    );
}

pub(super) fn cgroup_namespace() {
    let mut p = Place::new(&["cat", "/proc/self/cgroup"]);
    assert!(p.run().ok().stdout.contains("/container"));
    p.namespace(json!({ "type": "cgroup" }));
    let out = p.run().ok().stdout;
    assert!(
        out.lines().all(|l| l.ends_with(":/") || !l.contains(&p.id)),
        "{out}"
    );
}

pub(super) fn mount_namespace_of_the_node() {
    let mut p = Place::new(&[
        "sh",
        "-c",
        "readlink /proc/self/ns/mnt; ls / | grep -c rootfs-marker",
    ]);
    fs::write(p.rootfs().join("rootfs-marker"), "").unwrap();
    p.spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|n| n["type"] != "mount");
    let node = fs::read_link("/proc/self/ns/mnt").unwrap();
    assert_eq!(p.run().ok().stdout, format!("{}\n1\n", node.display()));
}

pub(super) fn without_pivot() {
    let p = Place::new(&[
        "sh",
        "-c",
        "ls / | grep -c rootfs-marker; ls /proc/1/root | wc -l",
    ]);
    fs::write(p.rootfs().join("rootfs-marker"), "").unwrap();
    let bundle = p.dir.join("bundle").display().to_string();
    assert!(
        p.call(&["run", "--no-pivot", "--bundle", &bundle, &p.id])
            .ok()
            .stdout
            .starts_with("1\n")
    );
}

pub(super) fn recursive_read_only() {
    let mut p = Place::new(&[
        "sh",
        "-c",
        "touch /v/sub/x 2>&1; touch /w/sub/x && echo written",
    ]);
    let volume = p.dir.join("volume");
    fs::create_dir_all(volume.join("sub")).unwrap();
    nix::mount::mount(
        Some("tmpfs"),
        &volume.join("sub"),
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    p.mount(json!({ "destination": "/v", "type": "bind", "source": volume, "options": ["rbind", "rro"] }));
    p.mount(json!({ "destination": "/w", "type": "bind", "source": volume, "options": ["rbind", "ro"] }));
    let out = p.run();
    nix::mount::umount(&volume.join("sub")).unwrap();
    assert_eq!(
        out.stdout,
        "touch: /v/sub/x: Read-only file system\nwritten\n"
    );
}

pub(super) fn copy_up() {
    let script = "cat /data/file /data/sub/deep; readlink /data/link; stat -c '%a %u' /data /data/sub /data/file; \
                  test -p /data/fifo && echo fifo; echo new > /data/new && ls /data | wc -l; touch /ro/x; cat /ro/file";
    let mut p = Place::new(&["sh", "-c", script]);
    for dir in ["data", "ro"] {
        let dir = p.rootfs().join(dir);
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("file"), "first\n").unwrap();
        fs::write(dir.join("sub/deep"), "second\n").unwrap();
        std::os::unix::fs::symlink("/else/where", dir.join("link")).unwrap();
        nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        std::os::unix::fs::chown(dir.join("sub"), Some(77), Some(77)).unwrap();
        fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o4640)).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o1751)).unwrap();
    }
    p.mount(json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "tmpcopyup"] }));
    p.mount(json!({ "destination": "/ro", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "tmpcopyup", "mode=700"] }));
    let out = p.run();
    assert_eq!(
        out.stdout, "first\nsecond\n/else/where\n1751 0\n755 77\n4640 0\nfifo\n5\nfirst\n",
        "{out:?}"
    );
    assert!(
        out.stderr.contains("/ro/x: Read-only file system"),
        "{out:?}"
    );
    assert!(
        !p.rootfs().join("data/new").exists(),
        "the image is untouched"
    );
    let last = p.spec["mounts"].as_array().unwrap().len() - 1;
    p.set(&format!("/mounts/{last}/type"), json!("ramfs"));
    assert!(p.run().stderr.contains("\"tmpcopyup\" is for a tmpfs only"));
}

pub(super) fn net_devices() {
    let ip = |args: &str| Output::of(Command::new("ip").args(args.split(' ')));
    let (ours, theirs) = (
        format!("cda{}", std::process::id()),
        format!("cdb{}", std::process::id()),
    );
    ip(&format!(
        "link add {ours} type veth peer name {theirs} address 02:00:00:00:00:77 mtu 1400"
    ))
    .ok();
    ip(&format!("addr add 10.99.7.2/24 dev {theirs}")).ok();
    ip(&format!("addr add fd00:99::2/64 dev {theirs} nodad")).ok();
    let mut p = Place::new(&["sh", "-c", "ip addr show dev eth7; ip link show dev lo"]);
    p.set(
        "/linux/netDevices",
        json!({ theirs.as_str(): { "name": "eth7" } }),
    );
    let out = p.run().ok().stdout;
    for part in [
        "mtu 1400",
        "02:00:00:00:00:77",
        "inet 10.99.7.2/24",
        "inet6 fd00:99::2/64",
        ",UP",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let gone = |name: &str| !Path::new("/sys/class/net").join(name).exists();
    crate::support::wait_until("the pair is gone", Duration::from_secs(20), || gone(&ours));
    // A name that is taken, and one that cannot be: the first device comes back with its address.
    ip(&format!("link add {ours} type veth peer name {theirs}")).ok();
    ip(&format!("addr add 10.99.7.2/24 dev {ours}")).ok();
    p.set(
        "/linux/netDevices",
        json!({ ours.as_str(): { "name": "eth7" }, theirs.as_str(): { "name": "lo" } }),
    );
    let out = p.run();
    assert!(
        out.stderr
            .contains("there is a device \"lo\" in the container's network namespace already"),
        "{out:?}"
    );
    assert!(
        ip(&format!("addr show dev {ours}"))
            .ok()
            .stdout
            .contains("10.99.7.2/24")
    );
    p.set(
        "/linux/netDevices",
        json!({ ours.as_str(): { "name": "a/b" } }),
    );
    assert!(p.run().stderr.contains("\"a/b\" is not a device's name"));
    p.set("/linux/netDevices", json!({ ours.as_str(): {} }));
    let namespaces = p.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|n| n["type"] != "network");
    assert!(p.run().stderr.contains("needs a network namespace"));
    ip(&format!("link del {ours}")).ok();
}
