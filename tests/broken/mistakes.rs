//! The mistakes: what people do to a node, what is said of it, and what the remedy makes of it.

use std::fs;
use std::os::unix::fs::symlink;

use super::{CONFIG, DROP_IN, Node, SHIM};
use crate::support::{repository, shim_directory};

/// Which containerd has the mistake.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum On {
    Both,
    V1,
    V2,
}

/// A mistake, what is said of it, and what its remedy says.
pub(super) struct Mistake {
    pub on: On,
    pub make: fn(&mut Node),
    /// Parts of what was found, and of the remedy.
    pub told: [&'static str; 2],
    pub mend: fn(&mut Node),
}

const OURS: &str = "runtime_type = \"io.containerd.cofferdam.v1\"";

macro_rules! mistakes {
    ($($on:ident, $make:expr, $found:expr, $remedy:expr, $mend:expr;)*) => {
        vec![$(Mistake { on: On::$on, make: $make, told: [$found, $remedy], mend: $mend }),*]
    };
}

/// The configuration of containerd.
pub(super) fn in_configuration() -> Vec<Mistake> {
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
            "put imports = [\"/etc/containerd/conf.d/*.toml\"] above the first [table] of /etc/containerd/config.toml",
            |n| n.replace(CONFIG, "version = 3", "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]");
        V2, |n| {
                n.replace(CONFIG, "imports = [\"/etc/containerd/conf.d/*.toml\"]", "");
                n.append(CONFIG, "imports = [\"/etc/containerd/conf.d/*.toml\"]");
            },
            "imports stands inside the table [plugins.io.containerd.cri.v1.runtime]", "move imports above the first [table]",
            |n| {
                n.replace(CONFIG, "imports = [\"/etc/containerd/conf.d/*.toml\"]", "");
                n.replace(CONFIG, "version = 3", "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]");
            };
        Both, |n| n.replace(CONFIG, "root =", "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\nroot ="),
            "the CRI plugin is disabled", "out of disabled_plugins", |n| n.replace(CONFIG, "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]", "");
        V2, |n| n.replace(DROP_IN, "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.cofferdam-hardened]",
                "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.cofferdam-hardened]"),
            "does not look for handlers in plugins.io.containerd.grpc.v1.cri",
            "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.cofferdam-hardened]",
            |n| n.replace(DROP_IN, "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime");
        V1, |n| {
                let text = fs::read_to_string(repository().join("shim-config/containerd-1.x.toml")).unwrap();
                n.write("etc/containerd/cofferdam.toml", &text.replace("runtimes.cofferdam-hardened", "runtimes.mine"));
            },
            "mine of /etc/containerd/cofferdam.toml are not in effect", "put imports = [\"/etc/containerd/cofferdam.toml\"]",
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
pub(super) fn in_handlers() -> Vec<Mistake> {
    mistakes![
        Both, |n| n.handler("runtime_typ = \"io.containerd.cofferdam.v1\"", ""),
            "no runtime_type", "write runtime_type", |n| n.in_handlers("runtime_typ =", "runtime_type =");
        Both, |n| n.handler("runtime_type = \"cofferdam-hardened\"", ""),
            "is not the name of a shim", "io.containerd.cofferdam-hardened.v1",
            |n| n.in_handlers("\"cofferdam-hardened\"", "\"io.containerd.cofferdam-hardened.v1\"");
        Both, |n| n.handler("runtime_type = \"io.containerd.cofferdam-hardened\"", ""),
            "is not the name of a shim", "io.containerd.cofferdam-hardened.v1",
            |n| n.in_handlers("\"io.containerd.cofferdam-hardened\"", "\"io.containerd.cofferdam-hardened.v1\"");
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
pub(super) fn elsewhere() -> Vec<Mistake> {
    mistakes![
        Both, |n| n.write("etc/cofferdam/hardened.toml", "extends = \"standard\"\n[network]\nmode = \"nnone\"\n"),
            "hardened.toml", "cofferdam profile validate", |n| n.remove("etc/cofferdam/hardened.toml");
        Both, |n| {
                n.write("etc/cofferdam/hardened.toml", "extends = \"standard\"\n");
                n.mode("etc/cofferdam/hardened.toml", 0o666);
            },
            "can be changed by others than root", "", |n| n.mode("etc/cofferdam/hardened.toml", 0o644);
        Both, |n| n.write("etc/cofferdam/node.conf", "kubelet_rot = \"/x\"\n"),
            "kubelet_rot", "correct the file", |n| n.remove("etc/cofferdam/node.conf");
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
pub(super) fn kubelet(arguments: &str) -> String {
    format!(
        "bash -c 'exec -a kubelet sh -c \"sleep 1000\" sh {arguments}' &\nuntil grep -qsa ^kubelet /proc/[0-9]*/cmdline; do sleep 0.01; done\n\
         test ! -d /run/systemd || mount -t tmpfs t /run/systemd"
    )
}
