//! What broke other runtimes, tried on this one. Each case names the vulnerability that it is about.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::Case;
use crate::support::spec::{Bundle, CAPABILITIES};
use crate::support::{Daemon, Output, RUNTIME, Release, shim_directory, volumes};

/// The cases of this file: with both releases of containerd, and under each profile.
pub fn cases() -> Vec<Case> {
    type Test = fn(&mut Daemon);
    let all: [(&'static str, Test); 7] = [
        ("security::linked_dev_stays_inside", linked_dev_stays_inside),
        (
            "security::linked_proc_and_sys_are_refused",
            linked_proc_and_sys_are_refused,
        ),
        (
            "security::a_replaced_null_device_hides_nothing_else",
            a_replaced_null_device_hides_nothing_else,
        ),
        (
            "security::the_binary_is_out_of_reach",
            the_binary_is_out_of_reach,
        ),
        (
            "security::swapped_mount_targets_stay_inside",
            swapped_mount_targets_stay_inside,
        ),
        (
            "security::exec_in_a_foreign_directory",
            exec_in_a_foreign_directory,
        ),
        (
            "security::the_shim_cannot_be_inspected",
            the_shim_cannot_be_inspected,
        ),
    ];
    let under =
        |profile| all.map(|(name, run)| Case::ctr(name, run).only(Release::V2).under(profile));
    let plain = all.map(|(name, run)| Case::ctr(name, run));
    plain
        .into_iter()
        .chain(under("hardened"))
        .chain(under("untrusted"))
        .collect()
}

/// CVE-2026-41579, CVE-2026-47766: set-up of `/dev` followed the image's link to the host.
fn linked_dev_stays_inside(d: &mut Daemon) {
    let outside = d.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    let up = "../".repeat(12);
    let targets = [
        outside.display().to_string(),
        format!("{up}{}", outside.display()),
    ];
    for (link, target) in ["dev", "dev/pts", "dev/shm"]
        .iter()
        .flat_map(|l| targets.iter().map(move |t| (*l, t)))
    {
        // With mounts there, and with device nodes only.
        for mounts in [true, false] {
            let mut b = Bundle::new(d, "dev", &["true"]);
            if !mounts {
                let list = b.spec["mounts"].as_array_mut().unwrap();
                list.retain(|m| m["destination"].as_str().unwrap().trim_end_matches('/') != "/dev");
            }
            let path = b.rootfs().join(link);
            fs::remove_dir_all(&path).ok();
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, &path).unwrap();
            b.run(); // it may succeed or be refused
            let found: Vec<_> = fs::read_dir(&outside)
                .unwrap()
                .flatten()
                .map(|e| e.path())
                .collect();
            assert!(found.is_empty(), "/{link} -> {target}: {found:?}");
            fs::remove_dir_all(&b.dir).unwrap();
        }
    }
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: `/proc` that is not what it seems.
fn linked_proc_and_sys_are_refused(d: &mut Daemon) {
    for name in ["proc", "sys"] {
        let b = Bundle::new(d, name, &["true"]);
        fs::remove_dir(b.rootfs().join(name)).unwrap();
        symlink("/tmp", b.rootfs().join(name)).unwrap();
        let out = b.run();
        assert!(
            out.status != 0
                && out.stderr.contains(&format!(
                    "on /{name}: it must be mounted on ordinary directory"
                )),
            "{out:?}"
        );
    }
    // A file system of the container's making, where the kernel's belongs.
    let mut b = Bundle::new(d, "tmpfs", &["true"]);
    b.spec["mounts"].as_array_mut().unwrap()[0] =
        json!({ "destination": "/proc", "type": "tmpfs", "source": "tmpfs" });
    b.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    b.run(); // wherever the value goes, it is not this node's:
    let mut b = Bundle::new(d, "bind", &["true"]);
    let volume = volumes().join("proc");
    fs::create_dir_all(&volume).unwrap();
    b.spec["mounts"].as_array_mut().unwrap()[0] =
        json!({ "destination": "/proc", "type": "bind", "source": volume, "options": ["rbind"] });
    let out = b.run();
    // Classes do not let it come that far.
    let text = if d.runtime == RUNTIME {
        "only a procfs may be mounted on /proc"
    } else {
        "at /proc (mounts[0]; it would cover what the profile protects there)"
    };
    assert!(out.status != 0 && out.stderr.contains(text), "{out:?}");
}

/// CVE-2025-31133, CVE-2025-62161: masks were bound from the container's `/dev/null`.
fn a_replaced_null_device_hides_nothing_else(d: &mut Daemon) {
    let mut b = Bundle::new(d, "null", &["sh", "-c", "wc -c < /secret"]);
    // No /dev of its own: the image's is used.
    b.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    fs::write(b.rootfs().join("secret"), "1234").unwrap();
    fs::write(b.rootfs().join("dev/null"), "the attacker's").unwrap();
    b.set("/linux/maskedPaths", json!(["/secret"]));
    assert_eq!(b.run().ok().stdout, "0\n");
}

fn digest(file: &Path) -> String {
    Output::of(Command::new("sha256sum").arg(fs::canonicalize(file).unwrap()))
        .ok()
        .stdout
}

/// CVE-2019-5736: the runtime's own binary, through `/proc/PID/exe`.
fn the_binary_is_out_of_reach(d: &mut Daemon) {
    let shim = shim_directory().join("containerd-shim-cofferdam-v1");
    let before = digest(&shim);
    // An entrypoint, and an interpreter, that is whatever executes it: it may run (with the container's rights), and
    // must not be writable.
    Bundle::new(d, "self", &["/proc/self/exe", "-v"]).run();
    let b = Bundle::new(d, "script", &["/script"]);
    fs::write(b.rootfs().join("script"), "#!/proc/self/exe\n").unwrap();
    Output::of(
        Command::new("chmod")
            .arg("755")
            .arg(b.rootfs().join("script")),
    )
    .ok();
    b.run();
    assert_eq!(digest(&shim), before);
    // In the node's pid namespace, with every capability: the worst pod there is. It holds the shim's executable open
    // past the shim's end, and tries to write.
    let script = "for i in $(seq 1 40); do for p in /proc/[0-9]*; do \
                  case $(readlink $p/exe) in */containerd-shim-cofferdam*|/) (echo x > $p/exe) 2>/dev/null && echo wrote $p;; esac; done; done; echo tried";
    let mut b = Bundle::new(d, "writer", &["sh", "-c", script]);
    b.set("/linux/namespaces", json!([{ "type": "mount" }]));
    let more = ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"];
    let caps: Vec<&str> = CAPABILITIES.into_iter().chain(more).collect();
    b.set(
        "/process/capabilities",
        json!({ "bounding": caps, "effective": caps, "permitted": caps }),
    );
    if d.runtime != RUNTIME {
        let refused = b.run();
        assert!(refused.stderr.contains("refuses host"), "{refused:?}");
        return;
    }
    b.run_detached();
    for i in 0..10 {
        d.run_container(&[], &format!("c{i}"), &["true"]).ok();
    }
    d.remove("writer");
    assert_eq!(digest(&shim), before);
}

/// CVE-2021-30465, CVE-2024-45310: a sibling swaps a mount's target for a link between check and use.
fn swapped_mount_targets_stay_inside(d: &mut Daemon) {
    let place = volumes().join(format!("{}-{}", d.namespace(), d.runtime));
    let (volume, outside) = (place.join("volume"), d.dir().join("outside"));
    fs::create_dir_all(volume.join("real")).unwrap();
    fs::create_dir(&outside).unwrap();
    symlink(&outside, volume.join("link")).unwrap();
    let file = place.join("file");
    fs::write(&file, "").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
            let (a, b) = (volume.join("real"), volume.join("link"));
            while !stop.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        for i in 0..40 {
            let mut b = Bundle::new(d, &format!("swap{}", i % 2), &["true"]);
            let mounts = b.spec["mounts"].as_array_mut().unwrap();
            mounts.push(json!({ "destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"] }));
            mounts.push(json!({ "destination": "/volume/real/new", "type": "tmpfs", "source": "tmpfs", "options": [] }));
            mounts.push(json!({ "destination": "/volume/real/file", "type": "bind", "source": file, "options": ["bind"] }));
            b.run(); // it may succeed or be refused
            let found: Vec<_> = fs::read_dir(&outside)
                .unwrap()
                .flatten()
                .map(|e| e.path())
                .collect();
            if !found.is_empty() {
                stop.store(true, Ordering::Relaxed);
                panic!("made outside: {found:?}");
            }
            fs::remove_dir_all(&b.dir).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// CVE-2024-21626, for an exec.
fn exec_in_a_foreign_directory(d: &mut Daemon) {
    d.run_detached(&[], "box", &["sleep", "1000"]);
    for n in 3..20 {
        let out = d.exec(
            &["--cwd", &format!("/proc/self/fd/{n}")],
            "box",
            &format!("e{n}"),
            &["sh", "-c", "echo got in"],
        );
        assert!(
            out.status != 0 && !out.stdout.contains("got in"),
            "{n}: {out:?}"
        );
    }
    d.remove("box");
}

/// CVE-2019-5736 again: what an exec is before it is the user's program. A sibling with the same rights that looks at the
/// right moment must not see the shim in it.
fn the_shim_cannot_be_inspected(d: &mut Daemon) {
    let look = "while :; do for p in /proc/[0-9]*; do x=$(readlink $p/exe 2>/dev/null); \
                case \"$x\" in ''|/bin/busybox) ;; *) echo \"$p $x\" >> /found;; esac; done; done";
    let b = Bundle::new(d, "box", &["sh", "-c", look]);
    b.run_detached();
    for i in 0..60 {
        d.exec(&[], "box", &format!("e{i}"), &["true"]).ok();
    }
    let found = fs::read_to_string(b.rootfs().join("found")).unwrap_or_default();
    d.remove("box");
    assert_eq!(found, "");
}
