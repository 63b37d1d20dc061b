//! Nodes that are broken on purpose, as people break them: `cofferdam check` names what is wrong, and after its remedy was followed
//! it finds nothing more than before.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::daemon::Release;
use crate::support::place::program;
use crate::support::{Daemon, Output, repository, shim_directory};

mod mistakes;
mod root;

use mistakes::{On, elsewhere, in_configuration, in_handlers, kubelet};
use root::another_root;

/// The cases of this file.
pub fn cases() -> Vec<crate::Case> {
    vec![
        crate::Case::cri("broken::nodes", nodes),
        crate::Case::cri("broken::a_root_that_is_not_in_use", another_root),
        crate::Case::cri("broken::processes_that_pretend", pretenders),
    ]
}

/// The files of a node, which a check finds in their usual places.
struct Node {
    dir: PathBuf,
    release: Release,
    /// Beside the usual: `/etc` is the node's.
    setup: String,
    arguments: Vec<String>,
    path: String,
    containerd: PathBuf,
}

const CONFIG: &str = "etc/containerd/config.toml";
const DROP_IN: &str = "etc/containerd/conf.d/cofferdam.toml";
const DROP_IN_FILE: &str = "/etc/containerd/conf.d/cofferdam.toml";
const SHIM: &str = "containerd-shim-cofferdam-v1";

impl Node {
    fn new(d: &Daemon) -> Self {
        let dir = d.dir().join("broken");
        fs::remove_dir_all(&dir).ok();
        let node = Self {
            release: d.release,
            setup: String::new(),
            arguments: Vec::new(),
            containerd: d.programs().1.join("containerd"),
            path: format!("{}/bin:/usr/bin:/bin", dir.display()),
            dir,
        };
        for directory in ["etc/containerd/conf.d", "etc/cofferdam", "bin", "root"] {
            fs::create_dir_all(node.at(directory)).unwrap();
        }
        let root = node.at("root");
        let drop_in =
            |name: &str| fs::read_to_string(repository().join("shim-config").join(name)).unwrap();
        let (of_1, of_2) = (
            drop_in("containerd-1.x.toml"),
            drop_in("containerd-2.x.toml"),
        );
        let common = format!("root = {root:?}\n");
        if node.is_2() {
            node.write(
                CONFIG,
                &format!(
                    "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n{common}\
                     [plugins.\"io.containerd.cri.v1.runtime\"]\nrestrict_oom_score_adj = true\n"
                ),
            );
            node.write(DROP_IN, &of_2);
        } else {
            let handlers = of_1.replace("version = 2", "");
            node.write(
                CONFIG,
                &format!(
                    "version = 2\n{common}[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"local/pause\"\n\
                     restrict_oom_score_adj = true\n{handlers}"
                ),
            );
        }
        for class in ["", "-hardened", "-untrusted"] {
            let name = format!("containerd-shim-cofferdam{class}-v1");
            symlink(shim_directory().join(&name), node.at("bin").join(&name)).unwrap();
        }
        node
    }

    fn is_2(&self) -> bool {
        self.release == Release::V2
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.at(path), text).unwrap();
    }

    fn append(&self, path: &str, text: &str) {
        let old = fs::read_to_string(self.at(path)).unwrap_or_default();
        self.write(path, &format!("{old}\n{text}\n"));
    }

    #[track_caller]
    fn replace(&self, path: &str, from: &str, to: &str) {
        let old = fs::read_to_string(self.at(path)).unwrap();
        assert!(old.contains(from), "{from:?} is not in {old}");
        self.write(path, &old.replacen(from, to, 1));
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.at(path)).unwrap();
    }

    fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A program in the place of the shim.
    fn shim(&self, text: &[u8]) {
        let shim = format!("bin/{SHIM}");
        self.remove(&shim);
        fs::write(self.at(&shim), text).unwrap();
        self.mode(&shim, 0o755);
    }

    fn right_shim(&self) {
        let shim = format!("bin/{SHIM}");
        self.remove(&shim);
        symlink(shim_directory().join(SHIM), self.at(&shim)).unwrap();
    }

    /// containerd 2.3 does not start with a drop-in that is newer than its main file; the one here does.
    fn as_2_3(&mut self) {
        let script = format!(
            "#!/bin/sh\nif [ \"$*\" = 'config dump' ] && grep -q 'version = 2' /etc/containerd/config.toml && \
             grep -q 'version = 3' {DROP_IN_FILE}; then\n\
             echo 'containerd: drop-in config version 3 higher than root config version 2' >&2; exit 1; fi\nexec {:?} \"$@\"\n",
            self.containerd
        );
        self.write("bin/containerd", &script);
        self.mode("bin/containerd", 0o755);
        self.containerd = self.at("bin/containerd");
    }

    /// The file with the handlers, and the table of one.
    fn handlers(&self) -> (&'static str, &'static str) {
        if self.is_2() {
            (
                DROP_IN,
                "plugins.\"io.containerd.cri.v1.runtime\".containerd",
            )
        } else {
            (CONFIG, "plugins.\"io.containerd.grpc.v1.cri\".containerd")
        }
    }

    /// One more handler, of this type and with these lines.
    fn handler(&self, kind: &str, more: &str) {
        let (file, table) = self.handlers();
        let more = more.replace("TABLE", &format!("{table}.runtimes.odd"));
        self.append(file, &format!("[{table}.runtimes.odd]\n{kind}\n{more}"));
    }

    #[track_caller]
    fn in_handlers(&self, from: &str, to: &str) {
        self.replace(self.handlers().0, from, to);
    }

    /// Runs the check where its processes and its `/etc` are the node's.
    fn check(&self) -> Vec<Value> {
        let setup = format!(
            "set -e\nD={0}\nmkdir -p {0}/t\nmount -t tmpfs t {0}/t\nmkdir {0}/t/u {0}/t/w\ncp -a {0}/etc/. {0}/t/u/\n\
             mount -t overlay o -o lowerdir=/etc,upperdir={0}/t/u,workdir={0}/t/w /etc\n{1}\nexec \"$@\"",
            self.dir.display(),
            self.setup
        );
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["sh", "-c", &setup, "sh"])
            .arg(program())
            .args(["check", "--json", "--containerd"])
            .arg(&self.containerd)
            .args(&self.arguments)
            .env("PATH", &self.path);
        let out = Output::of(&mut command);
        let all: Value =
            serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
        all["findings"].as_array().unwrap().clone()
    }
}

/// What is not as it should be: area and what.
fn wrong(findings: &[Value]) -> BTreeSet<String> {
    let bad = findings
        .iter()
        .filter(|f| f["state"] == "failing" || f["state"] == "degraded");
    bad.map(|f| {
        format!(
            "{}: {}: {} -> {}",
            f["area"], f["what"], f["found"], f["remedy"]
        )
    })
    .collect()
}

fn nodes(d: &mut Daemon) {
    let right = wrong(&Node::new(d).check());
    let on = if d.release == Release::V2 {
        On::V2
    } else {
        On::V1
    };
    let all = [in_configuration(), in_handlers(), elsewhere()];
    let all = all
        .into_iter()
        .flatten()
        .filter(|m| m.on == On::Both || m.on == on);
    let mut failures = Vec::new();
    for mistake in all {
        let mut node = Node::new(d);
        (mistake.make)(&mut node);
        let findings = node.check();
        let [found, remedy] = mistake.told;
        let is_told = |f: &Value| {
            let has = |key: &str, part: &str| f[key].as_str().unwrap().contains(part);
            f["remedy"] != "" && has("found", found) && has("remedy", remedy)
        };
        let all = wrong(&findings);
        if !findings.iter().any(is_told) || all == right {
            failures.push(format!("{found:?}, {remedy:?} are not in {all:#?}"));
        }
        (mistake.mend)(&mut node);
        let after = wrong(&node.check());
        if after != right {
            failures.push(format!("{found:?}, after its remedy: {after:#?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // containerd itself.
    let mut node = Node::new(d);
    for (name, text, found, remedy) in [
        ("nowhere", "", "No such file", "--containerd PATH"),
        (
            "old",
            "#!/bin/sh\necho containerd github.com/containerd/containerd v1.5.9 x\n",
            "1.5.9",
            "1.6 or later",
        ),
        (
            "dead",
            "#!/bin/sh\necho no >&2\nexit 1\n",
            "no",
            "install containerd again",
        ),
    ] {
        let program = node.at(name);
        if !text.is_empty() {
            node.write(name, text);
            node.mode(name, 0o755);
        }
        node.containerd = program;
        let findings = node.check();
        let is_told = |f: &Value| {
            let has = |key: &str, part: &str| f[key].as_str().unwrap().contains(part);
            f["state"] == "failing" && has("found", found) && has("remedy", remedy)
        };
        assert!(findings.iter().any(is_told), "{name}: {findings:#?}");
    }
}

/// What calls itself a kubelet and is a container's, or an ordinary user's, decides nothing: its arguments are its own.
fn pretenders(d: &mut Daemon) {
    let right = wrong(&Node::new(d).check());
    for other in [
        "setpriv --reuid 65534 --clear-groups",
        "unshare --mount",
        "unshare --pid --fork",
    ] {
        let mut node = Node::new(d);
        node.setup = kubelet("--root-dir=/data/kubelet --config=/dev/zero")
            .replace("bash", &format!("{other} bash"));
        assert_eq!(wrong(&node.check()), right, "{other}");
    }
}
