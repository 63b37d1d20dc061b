//! `cofferdam check` and `cofferdam profile diff`: what is wrong is found, and the remedy named.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::place::program;
use crate::support::{Daemon, Output, shim_directory};

/// The cases of this file.
pub fn cases() -> Vec<crate::Case> {
    use crate::Case;
    vec![
        Case::cri("check::a_daemon_that_is_right", a_daemon_that_is_right),
        Case::cri("check::handlers", handlers),
        Case::plain("check::profile_diff", profile_diff),
    ]
}

/// One containerd's setup.
struct Node<'a> {
    daemon: &'a Daemon,
    /// Where shims are found.
    path: PathBuf,
    config: PathBuf,
}

impl<'a> Node<'a> {
    fn of(daemon: &'a Daemon) -> Self {
        Self {
            daemon,
            path: shim_directory().into(),
            config: daemon.dir().join("config.toml"),
        }
    }

    fn check(&self, args: &[&str]) -> (i32, Vec<Value>) {
        let (_, programs) = self.daemon.programs();
        let out = Output::of(
            Command::new(program())
                .args(["check", "--json", "--containerd"])
                .arg(programs.join("containerd"))
                .arg("--config")
                .arg(&self.config)
                .args(args)
                .env("PATH", format!("{}:/usr/bin:/bin", self.path.display())),
        );
        let all: Value =
            serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
        (out.status, all["findings"].as_array().unwrap().clone())
    }
}

#[track_caller]
fn find<'a>(findings: &'a [Value], area: &str, what: &str) -> &'a Value {
    let found = findings
        .iter()
        .find(|f| f["area"] == area && f["what"] == what);
    found.unwrap_or_else(|| panic!("no {area}: {what} in {findings:#?}"))
}

fn a_daemon_that_is_right(d: &mut Daemon) {
    let node = Node::of(d);
    let (status, findings) = node.check(&[]);
    // What this very kernel lacks is degraded, and so is what is not found of the running daemon; nothing fails.
    assert_ne!(status, 1, "{findings:#?}");
    for handler in ["cofferdam", "cofferdam-hardened", "cofferdam-untrusted"] {
        let found = find(&findings, "containerd", &format!("handler {handler}"));
        assert_eq!(found["state"], "ok", "{found}");
    }
    for profile in ["standard", "hardened", "untrusted"] {
        let area = format!("profile {profile}");
        assert!(
            findings.iter().any(|f| f["area"] == area.as_str()),
            "{area}"
        );
    }
    let can = find(&findings, "profile untrusted", "user namespace");
    assert_eq!(can["state"], "ok", "{can}");
    for f in &findings {
        let is_fine = f["state"] == "ok" || f["state"] == "not-here";
        assert_eq!(is_fine, f["remedy"] == "", "{f}");
    }
    // Only what was asked for.
    let (_, findings) = node.check(&["standard"]);
    assert!(!findings.iter().any(|f| f["area"] == "profile hardened"));
    let (status, findings) = node.check(&["no-such-profile"]);
    let found = find(&findings, "profile no-such-profile", "profile");
    assert!(status == 1 && found["state"] == "failing", "{found}");
}

/// Options of handlers that are a profile, or runc's; and a profile's file that others can write.
fn handlers(d: &mut Daemon) {
    let mut node = Node::of(d);
    let right = fs::read_to_string(&node.config).unwrap();
    node.config = d.dir().join("handlers.toml");
    let plugin = match d.release.name() {
        "containerd_2" => "io.containerd.cri.v1.runtime",
        _ => "io.containerd.grpc.v1.cri",
    };
    for (options, expected) in [
        (
            "extends = \"untrusted\"",
            "of its options (extends untrusted)",
        ),
        ("SystemdCgroup = true", "profile standard"),
    ] {
        let table = format!("plugins.{plugin:?}.containerd.runtimes.odd");
        let text = format!(
            "{right}\n[{table}]\nruntime_type = \"io.containerd.cofferdam.v1\"\n[{table}.options]\n{options}\n"
        );
        fs::write(&node.config, text).unwrap();
        let (_, findings) = node.check(&["standard"]);
        let found = find(&findings, "containerd", "handler odd");
        assert!(
            found["state"] == "ok" && found["found"].as_str().unwrap().contains(expected),
            "{found}"
        );
    }
    let class = d
        .dir()
        .join(format!("{}.toml", crate::support::daemon::CLASS));
    for (mode, state) in [(0o666, "failing"), (0o644, "ok")] {
        fs::write(&class, "extends = \"untrusted\"\n").unwrap();
        fs::set_permissions(&class, PermissionsExt::from_mode(mode)).unwrap();
        fs::write(&node.config, &right).unwrap();
        let (_, findings) = node.check(&["standard"]);
        let found = find(&findings, "containerd", "handler class");
        assert_eq!(found["state"], state, "{found}");
    }
}

fn diff(args: &[&str]) -> Output {
    Output::of(Command::new(program()).args(["profile", "diff"]).args(args))
}

fn profile_diff() {
    let out = diff(&["hardened", "untrusted"]);
    assert!(
        out.status == 1
            && out
                .stdout
                .contains("user_namespace.mode\n  - \"pod\"\n  + \"auto\"\n")
            && out
                .stdout
                .contains("process.capabilities\n  - [\"CAP_SETPCAP\"]\n"),
        "{out:?}"
    );
    let out = diff(&["hardened", "hardened"]);
    assert!(out.status == 0 && out.stdout.is_empty(), "{out:?}");
    // A spec, before and after.
    let dir = std::env::temp_dir().join(format!("cofferdam-diff-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let seed = include_str!("../fuzz/seeds/spec/containerd.json");
    let mut seed: Value = serde_json::from_str(seed).unwrap();
    seed["linux"]["devices"] = Value::Array(Vec::new());
    seed["root"]["path"] = "rootfs".into();
    fs::write(dir.join("config.json"), seed.to_string()).unwrap();
    let out = diff(&[
        "hardened",
        "--spec",
        dir.join("config.json").to_str().unwrap(),
    ]);
    assert!(
        out.status == 2
            && out
                .stderr
                .contains("refuses the hostPath volume /tmp at /volume"),
        "{out:?}"
    );
    seed["hooks"] = Value::Null;
    let mounts = seed["mounts"].as_array_mut().unwrap();
    mounts.retain(|m| m["type"] != "bind");
    fs::write(dir.join("config.json"), seed.to_string()).unwrap();
    let spec =
        |profile: &str, path: &Path| diff(&["--json", profile, "--spec", path.to_str().unwrap()]);
    let file = dir.join("config.json");
    let out = spec("hardened", &file);
    let all: Value = serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    let changed = |key: &str| {
        all["changes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["key"] == key)
            .cloned()
    };
    let limits = changed("process.rlimits").unwrap();
    assert!(
        limits["after"].to_string().contains("RLIMIT_CORE"),
        "{all:#}"
    );
    assert!(changed("linux.maskedPaths").is_some() && changed("process.noNewPrivileges").is_none());
    assert_eq!(spec("standard", &file).status, 0);
    let out = spec("hardened", &dir.join("other.json"));
    assert!(
        out.status == 2 && out.stderr.contains("config.json of a bundle"),
        "{out:?}"
    );
    fs::remove_dir_all(dir).unwrap();
}
