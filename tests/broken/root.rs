//! `check --root`: the files of a node that is not running, and that nobody may trust.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::Node;
use crate::support::place::program;
use crate::support::{Daemon, Output};

/// A program that says so where it is executed.
fn trap(file: &Path, trace: &Path) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(
        file,
        format!("#!/bin/sh\necho executed > {}\n", trace.display()),
    )
    .unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

pub(super) fn another_root(d: &mut Daemon) {
    let node = Node::new(d);
    let root = node.at("m");
    let trace = node.at("trace");
    fs::create_dir_all(&root).unwrap();
    Output::of(Command::new("cp").arg("-a").arg(node.at("etc")).arg(&root)).ok();
    for name in [
        "containerd",
        "containerd-shim-cofferdam-v1",
        "containerd-shim-cofferdam-hardened-v1",
    ] {
        trap(&root.join("usr/local/bin").join(name), &trace);
    }
    let findings = |root: &Path| {
        let mut command = Command::new("timeout");
        let command = command.arg("20").arg(program());
        let out = Output::of(command.args(["check", "--json", "--root"]).arg(root));
        let all: Value =
            serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
        all["findings"]
            .as_array()
            .cloned()
            .unwrap_or_else(|| panic!("{all:#}"))
    };
    let has = |all: &[Value], what: &str, state: &str, found: &str| {
        let is = |f: &Value, key: &str, part: &str| f[key].as_str().unwrap().contains(part);
        all.iter()
            .any(|f| is(f, "what", what) && f["state"] == state && is(f, "found", found))
    };
    let all = findings(&root);
    assert!(
        has(&all, "handler cofferdam-hardened", "ok", "profile hardened"),
        "{all:#?}"
    );
    assert!(
        has(
            &all,
            "handler cofferdam-untrusted",
            "failing",
            "no containerd-shim-cofferdam-untrusted-v1"
        ),
        "{all:#?}"
    );
    assert!(!all.iter().any(|f| f["what"] == "daemon"), "{all:#?}");
    assert!(has(&all, "Linux", "ok", ""), "{all:#?}");
    assert!(!has(&all, "user namespace", "failing", ""), "{all:#?}");
    // Mistakes in its files are found; links lead nowhere out of it, and what has no end is not read.
    fs::write(root.join("etc/cofferdam/hardened.toml"), "nosuch = 1\n").unwrap();
    symlink(
        "/proc/self/root/etc/passwd",
        root.join("etc/cofferdam/other.toml"),
    )
    .unwrap();
    for fifo in [
        "etc/cofferdam/node.conf",
        "etc/subuid",
        "etc/containerd/conf.d/pipe.toml",
    ] {
        let path = root.join(fifo);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let all = findings(&root);
    assert!(
        has(&all, "handler cofferdam-hardened", "failing", "nosuch"),
        "{all:#?}"
    );
    assert!(
        has(&all, "node settings", "failing", "not an ordinary file"),
        "{all:#?}"
    );
    assert!(!trace.exists(), "a program of the other root was executed");
    let mut command = Command::new(program());
    let out = Output::of(command.args(["check", "--json", "--root", "/nowhere"]));
    assert!(
        out.status == 2 && out.stdout.contains("enter /nowhere"),
        "{out:?}"
    );
    fs::remove_dir_all(&root).unwrap();
}
