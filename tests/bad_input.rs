//! What is wrong is named, to the caller, and nothing is left behind. (The search for leftovers follows every case.)

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::support::spec::Bundle;
use crate::support::{BUSYBOX, Daemon, Output, RUNTIME};

crate::cases!(ctr: [
    a_missing_root,
    a_program_that_cannot_be_executed,
    a_malformed_spec,
    unknown_mounts,
    an_absent_user,
    fields_that_are_not_honoured,
    a_full_disk,
    options_that_are_not_there,
    an_interpreter_that_is_missing,
]);

#[track_caller]
fn refused(out: &Output, text: &str) {
    assert!(
        out.status != 0 && out.stderr.contains(text),
        "{text:?} is not in {out:?}"
    );
    assert_eq!(out.stdout, "");
}

fn a_missing_root(d: &mut Daemon) {
    let mut b = Bundle::new(d, "x", &["true"]);
    b.set("/root/path", json!("/no/such/root"));
    refused(
        &b.run(),
        "root.path: /no/such/root: no such file or directory",
    );
    b.set("/root/path", json!("/etc/hostname"));
    refused(&b.run(), "root.path: /etc/hostname: is not a directory");
}

fn a_program_that_cannot_be_executed(d: &mut Daemon) {
    refused(
        &d.run_container(&[], "x", &["nosuch"]),
        "exec: \"nosuch\": executable file not found in $PATH",
    );
    refused(
        &d.run_container(&[], "x", &["/no/such"]),
        "exec: \"/no/such\": stat /no/such: no such file or directory",
    );
    refused(
        &d.run_container(&[], "x", &["/etc/passwd"]),
        "exec: \"/etc/passwd\": permission denied",
    );
    refused(
        &d.run_container(&[], "x", &["/etc"]),
        "exec: \"/etc\": is a directory",
    );
    let mut b = Bundle::new(d, "x", &[]);
    b.set("/process/args", json!([]));
    refused(&b.run(), "process.args: is empty");
}

fn an_interpreter_that_is_missing(d: &mut Daemon) {
    let b = Bundle::new(d, "x", &["/script"]);
    let script = b.rootfs().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    Output::of(Command::new("chmod").arg("755").arg(&script)).ok();
    // As with runc and as in a shell, the container starts, and ends.
    let out = b.run();
    assert_eq!(
        (out.status, out.stderr.as_str()),
        (126, "exec /script: no such file or directory\n")
    );
    fs::write(&script, "\u{7f}neither a script nor a program").unwrap();
    let out = b.run();
    assert_eq!(
        (out.status, out.stderr.as_str()),
        (126, "exec /script: exec format error\n")
    );
}

/// Runs the shim as containerd does, but with a bundle of our own.
fn a_malformed_spec(d: &mut Daemon) {
    // containerd writes config.json itself, so what it sends is well-formed JSON with wrong types at most.
    let mut b = Bundle::new(d, "x", &["true"]);
    b.set(
        "/process/rlimits",
        json!([{ "type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1 }]),
    );
    refused(
        &b.run(),
        "is not a valid OCI spec: process.rlimits[0].type: unknown variant `RLIMIT_NONSENSE`",
    );
    b = Bundle::new(d, "x", &["true"]);
    b.set(
        "/linux/namespaces",
        json!([{ "type": "pid" }, { "type": "pid" }, { "type": "mount" }]),
    );
    refused(&b.run(), "linux.namespaces[1]: a second pid namespace");
    b = Bundle::new(d, "x", &["true"]);
    b.set(
        "/linux/namespaces",
        json!([{ "type": "mount" }, { "type": "network", "path": "/no/such/ns" }]),
    );
    refused(
        &b.run(),
        "linux.namespaces[1].path: /no/such/ns: No such file or directory",
    );
    b = Bundle::new(d, "x", &["true"]);
    b.set("/process/cwd", json!("relative"));
    refused(
        &b.run(),
        "process.cwd: \"relative\" is not an absolute path",
    );
}

fn unknown_mounts(d: &mut Daemon) {
    let with = |mount: serde_json::Value| {
        let mut b = Bundle::new(d, "x", &["true"]);
        b.spec["mounts"].as_array_mut().unwrap().push(mount);
        b.run()
    };
    refused(
        &with(json!({ "destination": "/m", "type": "nosuchfs", "source": "none" })),
        "mount nosuchfs on /m: fsopen: No such device (ENODEV)",
    );
    refused(
        &with(
            json!({ "destination": "/m", "type": "bind", "source": "/no/such/source", "options": ["rbind"] }),
        ),
        "bind /no/such/source on /m: open_tree: No such file or directory (ENOENT)",
    );
    refused(
        &with(
            json!({ "destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": ["nonsense=1"] }),
        ),
        "mount tmpfs on /m: fsconfig: Invalid argument (EINVAL)",
    );
    refused(
        &with(
            json!({ "destination": "/proc/sys/kernel", "type": "bind", "source": "/tmp", "options": ["bind"] }),
        ),
        "/proc/sys/kernel: nothing may be mounted inside /proc",
    );
}

fn an_absent_user(d: &mut Daemon) {
    // containerd's client looks names up in the image; what reaches the shim is a number.
    let out = d.ctr([
        "run",
        "--rm",
        "--runtime",
        RUNTIME,
        "--user",
        "nosuchuser",
        BUSYBOX,
        "x",
        "true",
    ]);
    assert_ne!(out.status, 0, "{out:?}");
    d.remove("x");
    let mut b = Bundle::new(d, "x", &["true"]);
    // What is no 32-bit number is refused by containerd already.
    for uid in [json!(4_294_967_296u64), json!(-1)] {
        b.set("/process/user/uid", uid);
        assert_ne!(b.run().status, 0);
    }
    b.set("/process/user/uid", json!(4_294_967_295u32));
    refused(&b.run(), "process.user.uid: 4294967295 is not a user");
}

fn fields_that_are_not_honoured(d: &mut Daemon) {
    for (pointer, value, text) in [
        (
            "/linux/mountLabel",
            json!("system_u:object_r:x:s0"),
            "linux.mountLabel: SELinux is not enabled on this node",
        ),
        (
            "/linux/intelRdt",
            json!({ "closID": "x" }),
            "linux.intelRdt: needs the resctrl file system",
        ),
    ] {
        let mut b = Bundle::new(d, "x", &["true"]);
        b.set(pointer, value);
        refused(&b.run(), text);
    }
}

fn a_full_disk(d: &mut Daemon) {
    d.stop();
    let state = d.dir().join("state");
    fs::create_dir_all(&state).unwrap();
    nix::mount::mount(
        Some("tmpfs"),
        &state,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=1m"),
    )
    .unwrap();
    d.run();
    d.run_detached(&[], "before", &["sleep", "1000"]);
    let filler = state.join("filler");
    Output::of(
        Command::new("dd")
            .arg("if=/dev/zero")
            .arg(format!("of={}", filler.display()))
            .arg("bs=4k"),
    );
    let out = d.run_container(&[], "x", &["true"]);
    assert!(
        out.status != 0 && out.stderr.contains("no space left on device"),
        "{out:?}"
    );
    // What runs can still be looked at, entered, killed and deleted.
    assert_eq!(d.task_status("before").as_deref(), Some("RUNNING"));
    assert_eq!(
        d.exec(&[], "before", "e", &["echo", "works"]).ok().stdout,
        "works\n"
    );
    d.ctr(["tasks", "delete", "--force", "before"]).ok();
    d.ctr(["containers", "delete", "before"]).ok();
    fs::remove_file(filler).unwrap();
    d.run_container(&[], "x", &["true"]).ok();
    crate::support::leftovers::assert_none(d);
    d.stop();
    nix::mount::umount(&state).unwrap();
    d.run();
}

fn options_that_are_not_there(d: &mut Daemon) {
    let out = d.ctr([
        "run",
        "--rm",
        "--runtime",
        RUNTIME,
        "--runtime-config-path",
        "/etc/some.toml",
        BUSYBOX,
        "x",
        "true",
    ]);
    refused(
        &out,
        "runtime options: ConfigPath /etc/some.toml: No such file or directory",
    );
    d.remove("x");
}
