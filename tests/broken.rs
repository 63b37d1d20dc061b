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

/// The cases of this file.
pub fn cases() -> Vec<crate::Case> {
    vec![
        crate::Case::cri("broken::nodes", nodes),
        crate::Case::cri("broken::a_root_that_is_not_in_use", another_root),
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

/// Which containerd has the mistake.
#[derive(Clone, Copy, PartialEq)]
enum On {
    Both,
    V1,
    V2,
}

/// A mistake, what is said of it, and what its remedy says.
struct Mistake {
    on: On,
    make: fn(&mut Node),
    /// Parts of what was found, and of the remedy.
    told: [&'static str; 2],
    mend: fn(&mut Node),
}

const OURS: &str = "runtime_type = \"io.containerd.cofferdam.v1\"";

macro_rules! mistakes {
    ($($on:ident, $make:expr, $found:expr, $remedy:expr, $mend:expr;)*) => {
        vec![$(Mistake { on: On::$on, make: $make, told: [$found, $remedy], mend: $mend }),*]
    };
}

/// The configuration of containerd.
fn in_configuration() -> Vec<Mistake> {
    mistakes![
        V2, |n| { n.as_2_3(); n.replace(CONFIG, "version = 3", "version = 2"); },
            "an import that is newer", "put shim-config/containerd-1.x.toml in the place of /etc/containerd/conf.d/cofferdam.toml",
            |n| {
                n.replace(CONFIG, "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri");
                let text = fs::read_to_string(repository().join("shim-config/containerd-1.x.toml")).unwrap();
                n.write(DROP_IN, &text);
            };
        V2, |n| { n.as_2_3(); n.replace(CONFIG, "version = 3", "version = 2"); },
            "is of version 3, /etc/containerd/config.toml of version 2", "containerd config migrate",
            |n| n.replace(CONFIG, "version = 2", "version = 3");
        Both, |n| n.append(CONFIG, "[plugins"),
            "/etc/containerd/config.toml, line ", "until `containerd config dump`", |n| n.replace(CONFIG, "[plugins\n", "");
        V2, |n| n.append(DROP_IN, "x = = 1"),
            "/etc/containerd/conf.d/cofferdam.toml, line ", "correct the file", |n| n.replace(DROP_IN, "x = = 1", "");
        V2, |n| n.replace(CONFIG, "imports = [", "imports = [\"/nowhere/x.toml\", "),
            "/nowhere/x.toml", "take them out of imports", |n| n.replace(CONFIG, "\"/nowhere/x.toml\", ", "");
        V2, |n| n.replace(CONFIG, "imports = [\"/etc/containerd/conf.d/*.toml\"]", ""),
            "/etc/containerd/config.toml does not import it",
            "write imports = [\"/etc/containerd/conf.d/cofferdam.toml\"] into /etc/containerd/config.toml",
            |n| n.replace(CONFIG, "version = 3", "version = 3\nimports = [\"/etc/containerd/conf.d/cofferdam.toml\"]");
        V1, |n| {
                let text = fs::read_to_string(repository().join("shim-config/containerd-1.x.toml")).unwrap();
                n.write("etc/containerd/cofferdam.toml", &text.replace("runtimes.cofferdam-hardened", "runtimes.mine"));
            },
            "mine of /etc/containerd/cofferdam.toml are not in effect", "write imports",
            |n| n.remove("etc/containerd/cofferdam.toml");
        V1, |n| {
                let text = fs::read_to_string(repository().join("shim-config/containerd-1.x.toml")).unwrap();
                n.write("etc/containerd/cofferdam.toml", &text);
                n.replace(CONFIG, "version = 2", "version = 2\nimports = [\"/etc/containerd/cofferdam.toml\"]");
            },
            "not in effect: restrict_oom_score_adj, sandbox_image", "take it out of imports",
            |n| n.replace(CONFIG, "imports = [\"/etc/containerd/cofferdam.toml\"]", "");
        V2, |n| n.replace(DROP_IN, "containerd.runtimes.cofferdam-hardened]", "runtimes.cofferdam-hardened]"),
            "does not look for handlers in", "containerd.runtimes.cofferdam-hardened]",
            |n| n.replace(DROP_IN, "runtime\".runtimes.cofferdam-hardened]", "runtime\".containerd.runtimes.cofferdam-hardened]");
        V1, |n| n.replace(CONFIG, "\"io.containerd.grpc.v1.cri\".containerd.runtimes.cofferdam-hardened]",
                "\"io.containerd.cri.v1.runtime\".containerd.runtimes.cofferdam-hardened]"),
            "does not look for handlers in", "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.cofferdam-hardened]",
            |n| n.replace(CONFIG, "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri");
        V2, |n| n.remove(DROP_IN),
            "none of the configured handlers is Cofferdam's", "shim-config/containerd-2.x.toml", |n| {
                let text = fs::read_to_string(repository().join("shim-config/containerd-2.x.toml")).unwrap();
                n.write(DROP_IN, &text);
            };
        V1, |n| n.write(CONFIG, "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nrestrict_oom_score_adj = true\n"),
            "none of the configured handlers is Cofferdam's", "shim-config/containerd-1.x.toml", |n| {
                let text = fs::read_to_string(repository().join("shim-config/containerd-1.x.toml")).unwrap();
                n.append(CONFIG, &text.replace("version = 2", ""));
                n.replace(CONFIG, "version = 2", &format!("version = 2\nroot = {:?}", n.at("root")));
            };
        V1, |n| n.replace(CONFIG, "containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"", "containerd]"),
            "default_runtime_name is \"runc\", which is not configured", "add runc",
            |n| n.handler("runtime_type = \"io.containerd.runc.v2\"", "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"");
        V2, |n| n.append(CONFIG, "[plugins.\"io.containerd.cri.v1.runtime\".containerd]\ndefault_runtime_name = \"cofferdm\""),
            "default_runtime_name is \"cofferdm\"", "name one of the configured handlers", |n| n.replace(CONFIG, "cofferdm", "cofferdam");
        Both, |n| fs::remove_dir(n.at("root")).unwrap(),
            "root", "start containerd once", |n| fs::create_dir(n.at("root")).unwrap();
        Both, |n| n.replace(CONFIG, "restrict_oom_score_adj = true", "restrict_oom_score_adj = false"),
            "its OOM score cannot be lowered", "restrict_oom_score_adj = true",
            |n| n.replace(CONFIG, "restrict_oom_score_adj = false", "restrict_oom_score_adj = true");
        V2, |n| n.append(CONFIG, "[plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"stargz\""),
            "no snapshotter \"stargz\"", "snapshotter = \"overlayfs\"", |n| n.replace(CONFIG, "\"stargz\"", "\"overlayfs\"");
        V2, |n| n.append(CONFIG, "[plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"nydus\"\n\
                [proxy_plugins.nydus]\ntype = \"snapshot\"\naddress = \"/etc/nydus.sock\""),
            "its socket /etc/nydus.sock does not exist", "start nydus", |n| n.write("etc/nydus.sock", "");
        V2, |n| n.handler(OURS, "snapshotter = \"overlay\""),
            "no snapshotter \"overlay\"", "overlayfs", |n| n.in_handlers("\"overlay\"", "\"overlayfs\"");
        Both, |n| n.replace(CONFIG, "root =", "disabled_plugins = [\"io.containerd.snapshotter.v1.overlayfs\"]\nroot ="),
            "overlayfs is disabled", "out of disabled_plugins",
            |n| n.replace(CONFIG, "\"io.containerd.snapshotter.v1.overlayfs\"", "");
    ]
}

/// Handlers and shims.
fn in_handlers() -> Vec<Mistake> {
    mistakes![
        Both, |n| n.handler("runtime_typ = \"io.containerd.cofferdam.v1\"", ""),
            "no runtime_type", "write runtime_type", |n| n.in_handlers("runtime_typ =", "runtime_type =");
        Both, |n| n.handler("runtime_type = \"io.containerd.cofferdam-hardend.v1\"", ""),
            "no containerd-shim-cofferdam-hardend-v1", "cofferdam-hardened.v1", |n| n.in_handlers("hardend", "hardened");
        Both, |n| n.handler("runtime_type = \"io.containerd.cofferdam-mine.v1\"", ""),
            "no containerd-shim-cofferdam-mine-v1", "cofferdam profile new mine", |n| {
                n.write("etc/cofferdam/mine.toml", "extends = \"hardened\"\n");
                symlink(SHIM, n.at("bin/containerd-shim-cofferdam-mine-v1")).unwrap();
            };
        V2, |n| n.handler(OURS, "sandboxer = \"shim\""),
            "sandboxer = \"shim\"", "podsandbox", |n| n.in_handlers("\"shim\"", "\"podsandbox\"");
        Both, |n| n.handler(OURS, "[TABLE.options]\nextends = \"untrusted\"\nnosuch = 1"),
            "unknown field `nosuch`", "docs/profiles.md", |n| n.in_handlers("nosuch = 1", "");
        Both, |n| n.handler(OURS, "[TABLE.options]\nextends = \"hardned\""),
            "no built-in profile", "docs/profiles.md", |n| n.in_handlers("hardned", "hardened");
        Both, |n| n.handler(OURS, "[TABLE.options]\nConfigPath = \"/etc/cofferdam/odd.toml\""),
            "/etc/cofferdam/odd.toml", "correct the file", |n| n.write("etc/cofferdam/odd.toml", "extends = \"hardened\"\n");
        Both, |n| {
                n.handler(OURS, "[TABLE.options]\nConfigPath = \"/etc/cofferdam/odd.toml\"");
                n.write("etc/cofferdam/odd.toml", "extends = \"hardened\"\n[limits]\npids = \"many\"\n");
            },
            "line 3, column 8", "correct the file", |n| n.write("etc/cofferdam/odd.toml", "extends = \"hardened\"\n");
        Both, |n| n.remove(&format!("bin/{SHIM}")),
            "no containerd-shim-cofferdam-v1 in containerd's PATH", "make install",
            |n| symlink(shim_directory().join(SHIM), n.at(&format!("bin/{SHIM}"))).unwrap();
        Both, |n| {
                n.remove(&format!("bin/{SHIM}"));
                // It is installed, but not where this PATH looks.
                n.setup = format!("mount -t tmpfs t /usr/local/bin\nln -s {} /usr/local/bin/", shim_directory().join(SHIM).display());
            },
            "no containerd-shim-cofferdam-v1", "it is /usr/local/bin/containerd-shim-cofferdam-v1: link it",
            |n| symlink(shim_directory().join(SHIM), n.at(&format!("bin/{SHIM}"))).unwrap();
        Both, |n| { n.shim(b"#!/bin/sh\n"); n.mode(&format!("bin/{SHIM}"), 0o644); },
            "is not executable", "chmod 755", |n| n.right_shim();
        Both, |n| {
                let mut file = fs::read("/bin/true").unwrap();
                file[18] = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
                n.shim(&file);
            },
            "is built for", "install the build for this processor", |n| n.right_shim();
        Both, |n| n.shim(b"#!/bin/sh\nprintf 'x:\\n  Version: 0.0.1\\n  Profile: standard\\n'\n"),
            "version \"0.0.1\"", "one build", |n| n.right_shim();
        Both, |n| {
                n.shim(b"#!/bin/sh\nprintf 'x:\\n  Version: 0.1.0\\n  Profile: standard\\n'\n");
                n.mode(&format!("bin/{SHIM}"), 0o777);
            },
            "can be changed by others than root", "chmod go-w", |n| n.mode(&format!("bin/{SHIM}"), 0o755);
        Both, |n| {
                n.shim(b"#!/bin/sh\nprintf 'x:\\n  Version: 0.1.0\\n  Profile: standard\\n'\n");
                nix::unistd::chown(&n.at(&format!("bin/{SHIM}")), Some(65534.into()), None).unwrap();
            },
            "can be changed by others than root", "chown root",
            |n| nix::unistd::chown(&n.at(&format!("bin/{SHIM}")), Some(0.into()), None).unwrap();
        Both, |n| n.handler(&format!("{OURS}\nruntime_path = \"/opt/nowhere/{SHIM}\""), ""),
            "/opt/nowhere/containerd-shim-cofferdam-v1", "install the shim there",
            |n| n.in_handlers(&format!("runtime_path = \"/opt/nowhere/{SHIM}\""), "");
    ]
}

/// Profiles, settings, the kernel, and what else runs on the node.
fn elsewhere() -> Vec<Mistake> {
    mistakes![
        Both, |n| n.write("etc/cofferdam/hardened.toml", "extends = \"standard\"\n[network]\nmode = \"nnone\"\n"),
            "hardened.toml", "cofferdam profile validate", |n| n.remove("etc/cofferdam/hardened.toml");
        Both, |n| {
                n.write("etc/cofferdam/hardened.toml", "extends = \"standard\"\n");
                n.mode("etc/cofferdam/hardened.toml", 0o666);
            },
            "can be changed by others than root", "", |n| n.mode("etc/cofferdam/hardened.toml", 0o644);
        Both, |n| n.write("etc/cofferdam/node.conf", "kubelet_rot = \"/x\"\n"),
            "kubelet_rot", "mend the file", |n| n.remove("etc/cofferdam/node.conf");
        Both, |n| n.arguments.push("hardned".into()),
            "hardned", "", |n| n.arguments.clear();
        Both, |n| n.setup = "d=$D/g\nmkdir -p $d\nmount --bind $d $d\nmount -t cgroup2 none $d\nmount -o remount,bind,ro $d".into(),
            "mounted read-only", "mount them writable", |n| n.setup.clear();
        Both, |n| n.setup = "mkdir -p /run/cofferdam\nmount -t tmpfs -o size=4k t /run/cofferdam\necho > /run/cofferdam/x".into(),
            "KiB and", "make room", |n| n.setup.push_str("\nrm /run/cofferdam/x\nmount -o remount,size=8m /run/cofferdam");
        Both, |n| n.setup = "echo 0 > $D/none\nmount --bind $D/none /proc/sys/user/max_user_namespaces".into(),
            "at most 0", "sysctl user.max_user_namespaces", |n| n.setup.clear();
        Both, |n| n.setup = "echo errno > $D/few\nmount --bind $D/few /proc/sys/kernel/seccomp/actions_avail".into(),
            "no user_notif", "denied calls are not reported", |n| n.setup.clear();
        Both, |n| n.write("etc/subuid", "somebody:2000000000:100000000\n"),
            "/etc/subuid: somebody", "another pool", |n| n.remove("etc/subuid");
        Both, |n| n.setup = kubelet("--root-dir=/data/kubelet"),
            "kubelet runs with /data/kubelet", "kubelet_root = \"/data/kubelet\"",
            |n| n.write("etc/cofferdam/node.conf", "kubelet_root = \"/data/kubelet\"\n");
        Both, |n| {
                n.write("etc/kubelet.yaml", "kind: KubeletConfiguration\ncgroupDriver: systemd\n");
                n.setup = kubelet("--config=/etc/kubelet.yaml");
            },
            "no systemd runs here", "cgroupDriver: cgroupfs",
            |n| n.replace("etc/kubelet.yaml", "systemd", "cgroupfs");
    ]
}

/// A process that looks like a kubelet with these arguments.
fn kubelet(arguments: &str) -> String {
    format!(
        "bash -c 'exec -a kubelet sh -c \"sleep 1000\" sh {arguments}' &\nuntil grep -qsa ^kubelet /proc/[0-9]*/cmdline; do sleep 0.01; done\n\
         test ! -d /run/systemd || mount -t tmpfs t /run/systemd"
    )
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

/// `--root`: the files of a node that is not running.
fn another_root(d: &mut Daemon) {
    let containerd = d.programs().1.join("containerd");
    let node = Node::new(d);
    let setup = format!(
        "set -e\nmkdir -p {0}/t {0}/m\nmount -t tmpfs t {0}/t\nmkdir {0}/t/u {0}/t/w\n\
         mount -t overlay o -o lowerdir=/,upperdir={0}/t/u,workdir={0}/t/w {0}/m\nmkdir -p {0}/m/etc\ncp -a {0}/etc/. {0}/m/etc/\n\
         mkdir -p {0}/m{0} {0}/m{1}\nmount --bind {0} {0}/m{0}\nmount --bind {1} {0}/m{1}\nexec \"$@\"",
        node.dir.display(),
        containerd.parent().unwrap().display(),
    );
    let check = |root: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", &setup, "sh"])
            .arg(program())
            .args(["check", "--json", "--containerd"])
            .arg(&containerd)
            .args(["--root", root])
            .env("PATH", &node.path);
        Output::of(&mut command)
    };
    let findings = |root: &str| {
        let out = check(root);
        let all: Value =
            serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
        all["findings"].as_array().unwrap().clone()
    };
    let root = node.at("m");
    let root = root.to_str().unwrap();
    let right = findings(root);
    let handlers: Vec<&Value> = right
        .iter()
        .filter(|f| f["what"].as_str().unwrap().starts_with("handler "))
        .collect();
    assert_eq!(handlers.len(), 3, "{right:#?}");
    assert!(!right.iter().any(|f| f["what"] == "daemon"), "{right:#?}");
    node.write("etc/cofferdam/hardened.toml", "nosuch = 1\n");
    let found = findings(root);
    let told = found
        .iter()
        .any(|f| f["state"] == "failing" && f["found"].as_str().unwrap().contains("nosuch"));
    assert!(told, "{found:#?}");
    let out = check("/nowhere");
    assert!(
        out.status == 2 && out.stderr.contains("find /nowhere"),
        "{out:?}"
    );
}
