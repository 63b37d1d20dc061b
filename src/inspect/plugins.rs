//! What else in containerd decides about a pod's root and its spec: snapshotters, NRI, CDI.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::containerd::{runtimes, text};
use super::findings::{Findings, State};
use crate::files::read_settings;

/// Snapshotters that containerd has by itself. Some need their own setup, which containerd tells at its start.
const BUILT_IN: [&str; 8] = [
    "overlayfs",
    "native",
    "btrfs",
    "zfs",
    "devmapper",
    "erofs",
    "blockfile",
    "aufs",
];

fn plugin<'a>(config: &'a Table, name: &str) -> Option<&'a Table> {
    config.get("plugins")?.as_table()?.get(name)?.as_table()
}

fn disabled(config: &Table) -> Vec<&str> {
    let list = config.get("disabled_plugins").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Whether Kubernetes cannot use this containerd at all.
pub(super) fn cri_is_disabled(config: &Table, out: &mut Findings) -> bool {
    const NAMES: [&str; 3] = [
        "cri",
        "io.containerd.grpc.v1.cri",
        "io.containerd.cri.v1.runtime",
    ];
    let disabled = disabled(config);
    let Some(name) = NAMES.into_iter().find(|name| disabled.contains(name)) else {
        return false;
    };
    let found = format!(
        "the CRI plugin is disabled ({name:?}), as Docker's package has it: Kubernetes cannot use this containerd"
    );
    let remedy = format!(
        "take {name:?} out of disabled_plugins, and restart containerd. For Docker alone nothing is to be done"
    );
    out.say("CRI", State::Failing, found, &remedy);
    true
}

/// The snapshotter of pods whose handler names none.
fn default_snapshotter(config: &Table) -> &str {
    let images = plugin(config, "io.containerd.cri.v1.images").map(|t| text(t, "snapshotter"));
    let cri = plugin(config, "io.containerd.grpc.v1.cri");
    let old = cri.and_then(|t| t.get("containerd")?.as_table());
    let names = [images, old.map(|t| text(t, "snapshotter"))];
    let found = names.into_iter().flatten().find(|name| !name.is_empty());
    found.unwrap_or("overlayfs")
}

/// Whether each snapshotter that a pod would get is there; and where the default one keeps roots.
pub(super) fn snapshotters(
    config: &Table,
    is_elsewhere: bool,
    out: &mut Findings,
) -> Option<PathBuf> {
    let default = default_snapshotter(config);
    let mut wanted = vec![(default.to_owned(), "snapshotter".to_owned())];
    for (handler, runtime) in runtimes(config) {
        if let Some(name) = runtime.get("snapshotter").and_then(Value::as_str)
            && !name.is_empty()
        {
            wanted.push((name.to_owned(), format!("snapshotter of {handler}")));
        }
    }
    let disabled = disabled(config);
    for (name, what) in wanted {
        let proxy = config
            .get("proxy_plugins")
            .and_then(|p| p.get(&name)?.as_table());
        let id = format!("io.containerd.snapshotter.v1.{name}");
        let (found, remedy) = if disabled.contains(&id.as_str()) {
            (
                format!("{name} is disabled: no image can be used"),
                format!("take {id:?} out of disabled_plugins"),
            )
        } else if let Some(proxy) = proxy {
            let address = text(proxy, "address");
            // Sockets are of running programs.
            if is_elsewhere || Path::new(address).exists() {
                out.say(&what, State::Ok, format!("{name}, at {address}"), "");
                continue;
            }
            (
                format!("{name}: its socket {address} does not exist: no image can be used"),
                format!("start {name}, or use snapshotter = \"overlayfs\""),
            )
        } else if BUILT_IN.contains(&name.as_str()) {
            out.say(&what, State::Ok, name, "");
            continue;
        } else {
            (
                format!("containerd has no snapshotter {name:?}: no image can be used"),
                format!("configure proxy_plugins.{name}, or use snapshotter = \"overlayfs\""),
            )
        };
        out.say(&what, State::Failing, found, &remedy);
    }
    let own = plugin(config, &format!("io.containerd.snapshotter.v1.{default}"));
    let root = own
        .map(|t| text(t, "root_path"))
        .filter(|root| !root.is_empty());
    root.map(PathBuf::from)
}

/// Who changes specs before a class judges them, and whom a class refuses.
pub(super) fn spec_changers(config: &Table, out: &mut Findings) {
    if let Some(nri) = plugin(config, "io.containerd.nri.v1.nri")
        && nri.get("disable").and_then(Value::as_bool) == Some(false)
    {
        let directory = match text(nri, "plugin_path") {
            "" => "/opt/nri/plugins",
            path => path,
        };
        let all = fs::read_dir(directory).into_iter().flatten().flatten();
        let names: Vec<String> = all
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        if !names.is_empty() {
            let found = format!(
                "{} change pods before a class judges them: what a class forbids stays forbidden",
                names.join(" ")
            );
            out.say("NRI plugins", State::Ok, found, "");
        }
    }
    let hooks: Vec<String> = cdi_directories(config)
        .iter()
        .flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| read_settings(path).is_ok_and(|text| text.contains("hookName")))
        .map(|path| path.display().to_string())
        .collect();
    if !hooks.is_empty() {
        let found = format!(
            "devices of {} come with hooks, which hardened and untrusted refuse: a class for them lists the hooks' programs in pod.hooks",
            hooks.join(" ")
        );
        out.say("CDI devices", State::Ok, found, "");
    }
}

fn cdi_directories(config: &Table) -> Vec<PathBuf> {
    let of = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"];
    let list = of
        .into_iter()
        .find_map(|name| plugin(config, name)?.get("cdi_spec_dirs")?.as_array());
    match list {
        Some(list) => list
            .iter()
            .filter_map(Value::as_str)
            .map(PathBuf::from)
            .collect(),
        None => vec!["/etc/cdi".into(), "/var/run/cdi".into()],
    }
}
