//! The kubelet of this node: where it keeps volumes, and who makes its groups.

use std::fs;
use std::path::{Path, PathBuf};

use super::findings::{Findings, State};
use super::process;
use crate::files::read_settings;
use crate::isolation::{Node, SETTINGS};
use crate::procfs;
use crate::show::toml_string;

/// Whether classes know where kubelet makes volumes: a volume elsewhere is a path of the node's, and every pod has some.
pub(super) fn check(node: &Node, is_elsewhere: bool, out: &mut Findings) {
    let running = if is_elsewhere { None } else { running() };
    let Some(kubelet) = running else {
        let found = format!("no kubelet runs here; {}", node.kubelet_root.display());
        out.say("kubelet's directory", State::Ok, found, "");
        return;
    };
    kubelet.check_driver(out);
    let Some(root) = kubelet.root else {
        return;
    };
    let root = fs::canonicalize(&root).unwrap_or(root);
    let remedy = format!(
        "write kubelet_root = {} into {SETTINGS}: every pod of class hardened or untrusted is refused for its volumes",
        toml_string(&root.to_string_lossy())
    );
    out.test(
        "kubelet's directory",
        root == node.kubelet_root,
        State::Failing,
        format!(
            "kubelet runs with {}, the settings say {}",
            root.display(),
            node.kubelet_root.display()
        ),
        &remedy,
    );
}

/// A kubelet, by itself or as a part of k0s, k3s or microk8s.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kubelet {
    /// Its `--root-dir`; none where it is not to be known.
    root: Option<PathBuf>,
    /// Its `--config`.
    config: Option<PathBuf>,
    /// Its `--cgroup-driver`.
    driver: Option<String>,
}

fn running() -> Option<Kubelet> {
    let processes = procfs::pids()
        .into_iter()
        .filter(|pid| process::is_of_node(*pid));
    let mut lines = processes.filter_map(|pid| procfs::read(format!("/proc/{pid}/cmdline")).ok());
    lines.find_map(|line| Kubelet::of(&line))
}

impl Kubelet {
    /// From a command line, as `/proc/PID/cmdline` has it.
    fn of(line: &str) -> Option<Self> {
        const PROGRAMS: [&str; 4] = ["kubelet", "kubelite", "k0s", "k3s"];
        let mut arguments = line.split('\0');
        let program = Path::new(arguments.next()?).file_name()?.to_str()?;
        if !PROGRAMS.contains(&program) {
            return None;
        }
        let arguments: Vec<&str> = arguments.collect();
        let of = |flag: &str| {
            let after = arguments.iter().position(|a| *a == flag)? + 1;
            arguments.get(after).copied()
        };
        let with = |flag: &str| {
            let prefix = format!("{flag}=");
            arguments.iter().find_map(|a| a.strip_prefix(&prefix))
        };
        let flag = |flag| of(flag).or_else(|| with(flag)).map(str::to_owned);
        let root = match (flag("--root-dir"), program) {
            (Some(root), _) => Some(root.into()),
            (None, "kubelet" | "kubelite") => Some("/var/lib/kubelet".into()),
            // These run kubelet as a child or as a thread, and say where only if it was changed.
            (None, _) => None,
        };
        Some(Self {
            root,
            // k0s and k3s have the flag too, for a file of their own.
            config: flag("--config")
                .filter(|_| matches!(program, "kubelet" | "kubelite"))
                .map(PathBuf::from),
            driver: flag("--cgroup-driver"),
        })
    }

    /// Who makes the groups of pods. The form of a pod's cgroup path tells us; a driver without its systemd fails in each pod.
    fn check_driver(&self, out: &mut Findings) {
        let of_file = || {
            let text = read_settings(self.config.as_ref()?).ok()?;
            driver_in(&text)
        };
        let driver = self.driver.clone().or_else(of_file);
        let Some(driver) = driver else {
            return;
        };
        let has_systemd = Path::new("/run/systemd/system").exists();
        let good = driver != "systemd" || has_systemd;
        let found = if good {
            format!("{driver}; handlers of Cofferdam need no option for it")
        } else {
            "systemd, and no systemd runs here: every pod fails".to_owned()
        };
        let remedy = match &self.driver {
            Some(_) => "start kubelet with --cgroup-driver=cgroupfs",
            None => {
                "write cgroupDriver: cgroupfs into kubelet's configuration, and restart kubelet"
            }
        };
        out.test(
            "kubelet's cgroup driver",
            good,
            State::Failing,
            found,
            remedy,
        );
    }
}

/// `cgroupDriver` of kubelet's configuration, which is YAML or JSON.
fn driver_in(text: &str) -> Option<String> {
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(text) {
        return Some(json.get("cgroupDriver")?.as_str()?.to_owned());
    }
    let quotes = ['"', '\''];
    let value = text.lines().find_map(|line| {
        let line = line.trim().trim_start_matches(quotes);
        let value = line.strip_prefix("cgroupDriver")?;
        value.trim_start_matches(quotes).trim().strip_prefix(':')
    })?;
    let value = value.split('#').next()?.trim().trim_matches(quotes);
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_kubelet_keeps_volumes() {
        let of = |words: &[&str]| Kubelet::of(&words.join("\0")).and_then(|k| k.root);
        for (words, root) in [
            (&["/usr/bin/kubelet", "--v=2"][..], Some("/var/lib/kubelet")),
            (
                &["kubelet", "--root-dir=/data/kubelet"],
                Some("/data/kubelet"),
            ),
            (
                &[
                    "/var/lib/k0s/bin/kubelet",
                    "--root-dir",
                    "/var/lib/k0s/kubelet",
                ],
                Some("/var/lib/k0s/kubelet"),
            ),
            (
                &["/snap/microk8s/1/kubelite", "--root-dir=/var/snap/x"],
                Some("/var/snap/x"),
            ),
            (&["/usr/local/bin/k3s", "server"], None),
            (&["bash", "--root-dir=/x"], None),
            (&[""], None),
        ] {
            assert_eq!(of(words), root.map(PathBuf::from), "{words:?}");
        }
    }

    #[test]
    fn who_makes_groups() {
        for (text, driver) in [
            (
                "kind: X\ncgroupDriver: systemd # kubeadm\n",
                Some("systemd"),
            ),
            ("cgroupDriver: \"cgroupfs\"", Some("cgroupfs")),
            (
                "{\"kind\": \"X\", \"cgroupDriver\": \"systemd\"}",
                Some("systemd"),
            ),
            ("'cgroupDriver': 'systemd'", Some("systemd")),
            ("# cgroupDriver: systemd\n", None),
        ] {
            assert_eq!(driver_in(text).as_deref(), driver, "{text}");
        }
        let kubelet = Kubelet::of("kubelet\0--config=/c\0--cgroup-driver\0systemd").unwrap();
        assert_eq!(kubelet.config.as_deref(), Some(Path::new("/c")));
        assert_eq!(kubelet.driver.as_deref(), Some("systemd"));
    }
}
