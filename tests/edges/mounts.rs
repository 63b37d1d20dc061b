//! Mounts: what is made below them, what of the image dangles, what is read-only at the end.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::situations;
use super::subject::Subject;

situations! {
    a_file_on_a_dangling_link, ALL, "runc#5090, minikube#1324", "content /run/resolv.conf content";
    a_file_on_links_that_dangle_in_turn, ALL, "beta9#967", "content";
    a_directory_on_a_dangling_link, ALL, "runc#5090", "content";
    a_link_that_leads_out, ALL, "CVE-2021-30465", "content; node untouched";
    links_that_go_round, ALL, "runc#5090", "refused: ELOOP";
    read_only_dev, ALL, "runc#3248, podman#12937", "null pts shm; touch: /dev/x: Read-only file system";
    read_only_tmpfs_with_something_below, ALL, "runc#3248", "inner; read-only";
    two_mounts_in_one_place, ALL, "runc#3248", "written";
    working_directory_on_a_read_only_root, ALL, "runc#1604, kata#13694", "/made/up";
    working_directory_on_a_read_only_tmpfs, ALL, "runc#1604", "/t/made; read-only";
    mode_of_a_tmpfs, ALL, "runc mounts.bats", "710 1777 1500";
    relative_source, LINE, "runtime-spec#735", "content";
    ptmx_among_the_devices, ALL, "podman --privileged --userns", "pts/ptmx";
    default_devices_again, ALL, "runc dev.bats", "0";
    owner_of_message_queues, COMMAND, "docker userns-remap", "0 0";
    cgroup_hierarchies_once, ROOT, "enroot#188, jdk#10193", "once, read-only";
    proc_of_a_container_without_pivot, COMMAND, "CVE-2019-19921", "denied";
}

fn source(s: &Subject) -> String {
    let file = s.dir.join("source");
    fs::write(&file, "content").unwrap();
    file.display().to_string()
}

fn a_file_on_a_dangling_link(s: &mut Subject) -> String {
    let source = source(s);
    symlink("/run/resolv.conf", s.rootfs().join("etc/resolv.conf")).unwrap();
    symlink("../usr/zone/info", s.rootfs().join("etc/localtime")).unwrap();
    for destination in ["/etc/resolv.conf", "/etc/localtime"] {
        s.mount(json!({ "destination": destination, "type": "bind", "source": source, "options": ["bind", "ro"] }));
    }
    s.script("echo $(cat /run/resolv.conf) $(readlink /etc/resolv.conf) $(cat /etc/localtime)");
    s.run().stdout
}

fn a_file_on_links_that_dangle_in_turn(s: &mut Subject) -> String {
    let source = source(s);
    symlink("b", s.rootfs().join("etc/a")).unwrap();
    symlink("/no/such/c", s.rootfs().join("etc/b")).unwrap();
    s.mount(
        json!({ "destination": "/etc/a", "type": "bind", "source": source, "options": ["bind"] }),
    );
    s.script("cat /no/such/c");
    s.run().stdout
}

fn a_directory_on_a_dangling_link(s: &mut Subject) -> String {
    let source = s.dir.join("directory");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    symlink("not/there", s.rootfs().join("d")).unwrap();
    s.mount(json!({ "destination": "/d", "type": "bind", "source": source, "options": ["bind"] }));
    s.script("cat /not/there/file");
    s.run().stdout
}

fn a_link_that_leads_out(s: &mut Subject) -> String {
    let source = source(s);
    let outside = std::env::temp_dir().join(format!("{}-outside", s.id));
    symlink(
        format!("../../../../../../..{}", outside.display()),
        s.rootfs().join("etc/out"),
    )
    .unwrap();
    s.mount(
        json!({ "destination": "/etc/out", "type": "bind", "source": source, "options": ["bind"] }),
    );
    s.script(&format!("cat {}", outside.display()));
    let out = s.run().stdout;
    format!(
        "{out}; {}",
        if outside.exists() {
            "made on the node"
        } else {
            "node untouched"
        }
    )
}

fn links_that_go_round(s: &mut Subject) -> String {
    let source = source(s);
    symlink("y", s.rootfs().join("etc/x")).unwrap();
    symlink("x", s.rootfs().join("etc/y")).unwrap();
    s.mount(
        json!({ "destination": "/etc/x", "type": "bind", "source": source, "options": ["bind"] }),
    );
    let out = s.run();
    let told = out.stderr.contains("ELOOP") || out.stderr.contains("symbolic links");
    format!(
        "{}: {}",
        if out.status == 0 { "ran" } else { "refused" },
        if told { "ELOOP" } else { &out.stderr }
    )
}

fn read_only_dev(s: &mut Subject) -> String {
    for mount in s.spec["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev" {
            mount["options"].as_array_mut().unwrap().push(json!("ro"));
        }
    }
    s.script("echo x > /dev/null && echo $(cd /dev; ls -d null pts shm); touch /dev/x 2>&1; echo x > /dev/shm/y");
    s.run().stdout.trim().replace('\n', "; ")
}

fn read_only_tmpfs_with_something_below(s: &mut Subject) -> String {
    let source = s.dir.join("inner");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "inner").unwrap();
    s.mount(json!({ "destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "nosuid"] }));
    s.mount(
        json!({ "destination": "/t/a/b", "type": "bind", "source": source, "options": ["bind"] }),
    );
    s.script("cat /t/a/b/file; touch /t/x 2>/dev/null && echo ' writable' || echo '; read-only'");
    s.run().stdout
}

fn two_mounts_in_one_place(s: &mut Subject) -> String {
    s.mount(json!({ "destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["ro"] }));
    s.mount(json!({ "destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["rw"] }));
    s.mount(json!({ "destination": "/t/below", "type": "tmpfs", "source": "tmpfs" }));
    s.script("touch /t/x && echo written");
    s.run().stdout
}

fn working_directory_on_a_read_only_root(s: &mut Subject) -> String {
    s.set("/root/readonly", json!(true));
    s.set("/process/cwd", json!("/made/up"));
    s.script("pwd");
    s.run().stdout
}

fn working_directory_on_a_read_only_tmpfs(s: &mut Subject) -> String {
    s.mount(json!({ "destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["ro"] }));
    s.set("/process/cwd", json!("/t/made"));
    s.script("pwd; touch /t/x 2>/dev/null && echo writable || echo read-only");
    s.run().stdout.trim().replace('\n', "; ")
}

fn mode_of_a_tmpfs(s: &mut Subject) -> String {
    use std::os::unix::fs::PermissionsExt;
    let there = s.rootfs().join("there");
    fs::create_dir(&there).unwrap();
    fs::set_permissions(&there, fs::Permissions::from_mode(0o710)).unwrap();
    for (destination, options) in [
        ("/there", json!([])),
        ("/not/there", json!([])),
        ("/set", json!(["mode=1500"])),
    ] {
        s.mount(json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options }));
    }
    s.script("echo $(stat -c %a /there /not/there /set)");
    s.run().stdout
}

fn relative_source(s: &mut Subject) -> String {
    source(s);
    s.mount(
        json!({ "destination": "/file", "type": "bind", "source": "source", "options": ["bind"] }),
    );
    s.script("cat /file");
    s.run().stdout
}

fn ptmx_among_the_devices(s: &mut Subject) -> String {
    s.set("/linux/devices", json!([{ "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2, "fileMode": 0o666, "uid": 0, "gid": 0 }]));
    s.script("readlink /dev/ptmx");
    let out = s.run();
    format!("{}{}", out.stdout, out.stderr)
}

fn default_devices_again(s: &mut Subject) -> String {
    let device = |path: &str, major: u32, minor: u32| json!({ "path": path, "type": "c", "major": major, "minor": minor });
    s.set(
        "/linux/devices",
        json!([
            device("/dev/null", 1, 3),
            device("/dev/tty", 5, 0),
            device("/dev/zero", 1, 5)
        ]),
    );
    s.script("echo x > /dev/null");
    s.run().status.to_string()
}

fn owner_of_message_queues(s: &mut Subject) -> String {
    let map = json!([{ "containerID": 0, "hostID": 500_000, "size": 65536 }]);
    s.spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "type": "user" }));
    s.set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    crate::support::Output::of(
        std::process::Command::new("chown")
            .args(["-hR", "500000:500000"])
            .arg(s.rootfs()),
    )
    .ok();
    s.script("stat -c '%u %g' /dev/mqueue");
    let out = s.run();
    format!("{}{}", out.stdout, out.stderr)
}

fn cgroup_hierarchies_once(s: &mut Subject) -> String {
    s.mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }));
    s.script("cut -d' ' -f5,6 /proc/self/mountinfo | grep '^/sys/fs/cgroup'");
    let out = s.run().stdout;
    let mut points: Vec<&str> = out.lines().filter_map(|l| l.split(' ').next()).collect();
    let all = points.len();
    points.sort_unstable();
    points.dedup();
    let read_only = out.lines().all(|l| {
        l.split(' ')
            .nth(1)
            .is_some_and(|o| o.split(',').any(|o| o == "ro"))
    });
    if all > 0 && points.len() == all && read_only {
        "once, read-only".into()
    } else {
        out
    }
}

fn proc_of_a_container_without_pivot(s: &mut Subject) -> String {
    let all = json!([
        "CAP_SYS_ADMIN",
        "CAP_SETFCAP",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_SYS_CHROOT"
    ]);
    s.set(
        "/process/capabilities",
        json!({ "bounding": all, "effective": all, "permitted": all }),
    );
    s.set(
        "/process/args",
        json!([
            "unshare",
            "-mrpf",
            "sh",
            "-c",
            "mount -t proc none /proc && echo mounted"
        ]),
    );
    s.write_spec();
    let out = s.call(&["run", "--no-pivot", "--bundle", s.bundle(), &s.id]);
    if out.stdout.contains("mounted") || out.status == 0 {
        format!("{out:?}")
    } else {
        "denied".into()
    }
}
