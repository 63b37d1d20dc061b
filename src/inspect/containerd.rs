//! containerd, as it is set up: its version, its merged configuration, Cofferdam's handlers in it, and their binaries.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use toml::{Table, Value};

pub use super::daemon::Source;
use super::daemon::{Daemon, daemon, main_file, restarted};
use super::files::{self, Files};
use super::findings::{Findings, State};
use super::{handler, plugins};

/// What was learnt.
#[derive(Debug, Default)]
pub(super) struct Installed {
    /// The profiles that handlers stand for.
    pub profiles: Vec<String>,
    /// Where containerd keeps images.
    pub root: PathBuf,
}

/// What to do where no handler is ours. The main file's version decides: of the daemon's own dump it is always the newest.
fn add_handlers(files: Option<&Files>, release: Option<Release>) -> String {
    let version = files.map(Files::version);
    let is_old = match release {
        Some(release) if release < (2, 0, 0) => true,
        _ => version.is_some_and(|version| version < 3),
    };
    let file = if is_old {
        "shim-config/containerd-1.x.toml"
    } else {
        "shim-config/containerd-2.x.toml"
    };
    format!(
        "add {file} to containerd's configuration (docs/install.md says how), and restart containerd"
    )
}

pub(super) fn check(source: &Source, out: &mut Findings) -> Installed {
    let mut installed = Installed {
        root: "/var/lib/containerd".into(),
        ..Installed::default()
    };
    let files = Files::read(source);
    let Some((config, release)) = configuration(source, files.as_ref(), out) else {
        return installed;
    };
    if let Some(root) = config.get("root").and_then(Value::as_str) {
        installed.root = root.into();
        out.test(
            "root",
            installed.root.is_dir(),
            State::Degraded,
            root,
            "start containerd once, or correct root in its configuration: whether images can be mapped cannot be told",
        );
    }
    let files = files.and_then(Result::ok);
    let major = release.map_or(2, |(major, ..)| major);
    let reads_all = files.as_ref().is_none_or(|f| files::missing(f, major, out));
    if let Some(files) = files.as_ref().filter(|_| major < 2) {
        files::replaced(files, out);
    }
    let daemon = daemon(source);
    if plugins::cri_is_disabled(&config, out) {
        return installed;
    }
    let node = Found {
        source,
        daemon: daemon.as_ref(),
        release,
    };
    installed.profiles = handlers(&node, files.as_ref(), &config, out);
    if let Some(files) = files.as_ref().filter(|_| reads_all) {
        files::vanished(files, &config, out);
    }
    files::default_handler(&config, out);
    if let Some(root) = plugins::snapshotters(&config, source.is_elsewhere(), out) {
        installed.root = root;
    }
    plugins::spec_changers(&config, out);
    if source.is_elsewhere() {
        return installed;
    }
    rights(daemon.as_ref(), &config, out);
    if let Some(daemon) = &daemon {
        restarted(source, files.as_ref(), daemon, out);
    } else if source.config.is_none() {
        let remedy = "start it: systemctl start containerd";
        out.say("daemon", State::Degraded, "not running", remedy);
    } else {
        out.say(
            "daemon",
            State::Ok,
            "none runs with this configuration yet",
            "",
        );
    }
    installed
}

/// The node that is looked at.
pub(super) struct Found<'a> {
    pub source: &'a Source,
    pub daemon: Option<&'a Daemon>,
    release: Option<Release>,
}

/// containerd's whole configuration, and its release. Of another node it is read from the files: nothing of that node is executed.
fn configuration(
    source: &Source,
    files: Option<&Result<Files, String>>,
    out: &mut Findings,
) -> Option<(Table, Option<Release>)> {
    if source.is_elsewhere() {
        if files::faults(files, None, out) {
            return None;
        }
        let merged = match files {
            Some(Ok(files)) => files.merged(),
            _ => Table::new(),
        };
        let found = "read from its files; no program of that node was executed";
        out.say("configuration", State::Ok, found, "");
        return Some((merged, None));
    }
    let release = release(source, out)?;
    Some((dump(source, files, out)?, Some(release)))
}

/// What containerd says of itself.
fn release(source: &Source, out: &mut Findings) -> Option<Release> {
    let version = Command::new(&source.program).arg("--version").output();
    let version = match version {
        Ok(o) if o.status.success() => String::from_utf8_lossy(&o.stdout).into_owned(),
        Ok(o) => {
            let why = String::from_utf8_lossy(&o.stderr).trim().to_owned();
            let remedy = "install containerd again: `containerd --version` fails";
            out.say("program", State::Failing, why, remedy);
            return None;
        }
        Err(e) => {
            let found = format!("{}: {e}", source.program.display());
            let remedy = "install containerd 1.6 or later, or say where it is: --containerd PATH";
            out.say("program", State::Failing, found, remedy);
            return None;
        }
    };
    let number = version.split_whitespace().nth(2).unwrap_or_default();
    let release = numbers(number);
    let good = release >= (1, 6, 0);
    out.test(
        "version",
        good,
        State::Failing,
        number,
        "use containerd 1.6 or later",
    );
    Some(release)
}

/// Cofferdam's handlers; the profiles that they stand for.
fn handlers(
    node: &Found<'_>,
    files: Option<&Files>,
    config: &Table,
    out: &mut Findings,
) -> Vec<String> {
    let runtimes = runtimes(config);
    let tables = runtimes.iter();
    let mut ours: Vec<(&String, &Table)> = tables
        .filter_map(|(name, runtime)| Some((name, runtime.as_table()?)))
        .collect();
    for (name, runtime) in &ours {
        handler::check_type(name, runtime, out);
    }
    ours.retain(|(_, r)| handler::is_ours(r));
    if ours.is_empty() {
        let found = format!(
            "none of the configured handlers is Cofferdam's: {}",
            runtimes.keys().cloned().collect::<Vec<_>>().join(" ")
        );
        let remedy = add_handlers(files, node.release);
        out.say("handlers", State::Failing, found, &remedy);
    }
    let asked_for_features = |r: &Table| text(r, "runtime_type") == "io.containerd.runc.v2";
    if node.release.is_some_and(asks_only_runc) && !ours.iter().any(|(_, r)| asked_for_features(r))
    {
        let found = "pods with hostUsers: false or recursiveReadOnly mounts are refused: containerd before 2.2.7, 2.3.4 and 2.4 asks runc's runtime type only; \
                     if you want them, see the end of shim-config/containerd-2.x.toml";
        out.say("handlers", State::Ok, found, "");
    }
    let mut profiles = BTreeSet::new();
    for (name, runtime) in ours {
        if let Some(profile) = handler::check(name, runtime, node, out) {
            profiles.insert(profile);
        }
    }
    profiles.into_iter().collect()
}

/// Without this capability no process's OOM score can be lowered, as CRI asks for every container.
fn rights(daemon: Option<&Daemon>, config: &Table, out: &mut Findings) {
    const SYS_RESOURCE: u64 = 1 << 24;
    let pid = daemon.map_or_else(|| "self".to_owned(), |d| d.pid.to_string());
    let status = crate::procfs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    let permitted = status.lines().find_map(|l| l.strip_prefix("CapPrm:"));
    let permitted = permitted.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let has = permitted.is_none_or(|mask| mask & SYS_RESOURCE != 0);
    let plugins = config.get("plugins").and_then(Value::as_table);
    let restricted = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
        .into_iter()
        .filter_map(|plugin| {
            plugins?
                .get(plugin)?
                .get("restrict_oom_score_adj")?
                .as_bool()
        })
        .any(|restricted| restricted);
    let found = match (has, restricted) {
        (true, _) => "CAP_SYS_RESOURCE",
        (false, true) => "no CAP_SYS_RESOURCE, and restrict_oom_score_adj = true",
        (false, false) => {
            "containerd has no CAP_SYS_RESOURCE: every pod of Kubernetes fails, because its OOM score cannot be lowered"
        }
    };
    let remedy = "give containerd the capability, or set restrict_oom_score_adj = true in its CRI configuration";
    out.test("rights", has || restricted, State::Failing, found, remedy);
}

/// Major, minor and patch number.
type Release = (u32, u32, u32);

/// Whether it asks no other runtime than runc's what it can do: from 2.4 on, and in 2.2.7 and 2.3.4, it asks each.
fn asks_only_runc(release: Release) -> bool {
    match release {
        (2, 2, patch) => patch < 7,
        (2, 3, patch) => patch < 4,
        (major, minor, _) => (major, minor) < (2, 4),
    }
}

fn numbers(version: &str) -> Release {
    let mut parts = version
        .trim_start_matches('v')
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

/// The configuration with everything that it imports, and containerd's defaults.
fn dump(
    source: &Source,
    files: Option<&Result<Files, String>>,
    out: &mut Findings,
) -> Option<Table> {
    let mut command = Command::new(&source.program);
    if let Some(config) = &source.config {
        command.arg("--config").arg(config);
    }
    let dumped = command.args(["config", "dump"]).output().ok()?;
    if !dumped.status.success() {
        // Lines of its log come before the error.
        let all = String::from_utf8_lossy(&dumped.stderr).into_owned();
        let why = all.trim().lines().last().unwrap_or_default().to_owned();
        if files::faults(files, Some(&why), out) {
            return None;
        }
        let remedy = format!(
            "correct {} or what it imports: containerd does not start with it. `{} config dump` says more",
            main_file(source).display(),
            source.program.display()
        );
        out.say("configuration", State::Failing, why, &remedy);
        return None;
    }
    match toml::from_str::<Table>(&String::from_utf8_lossy(&dumped.stdout)) {
        Ok(table) => {
            let version = table.get("version").and_then(Value::as_integer);
            let found = version.map_or("no version".into(), |v| format!("version {v}"));
            out.say("configuration", State::Ok, found, "");
            Some(table)
        }
        Err(e) => {
            let remedy = "report this: `containerd config dump` printed something that is not TOML";
            out.say("configuration", State::Failing, e.to_string(), remedy);
            None
        }
    }
}

/// CRI's runtimes, in the places that versions 2 and 3 have for them.
pub(super) fn runtimes(config: &Table) -> Table {
    let plugins = config.get("plugins").and_then(Value::as_table);
    let of = |plugin: &str| {
        plugins?
            .get(plugin)?
            .get("containerd")?
            .get("runtimes")?
            .as_table()
            .cloned()
    };
    // A daemon keeps sections that it does not know.
    let names = match config.get("version").and_then(Value::as_integer) {
        Some(3..) => &["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"][..],
        _ => &["io.containerd.grpc.v1.cri"],
    };
    names.iter().find_map(|name| of(name)).unwrap_or_default()
}

pub(super) fn text<'a>(runtime: &'a Table, key: &str) -> &'a str {
    runtime.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions() {
        assert_eq!(
            handler::binary("io.containerd.cofferdam-hardened.v1").unwrap(),
            "containerd-shim-cofferdam-hardened-v1"
        );
        assert_eq!(numbers("2.1.9+unknown"), (2, 1, 9));
        assert_eq!(numbers("v1.6.20"), (1, 6, 20));
        assert_eq!(numbers("1.6.20~ds1"), (1, 6, 20));
        assert_eq!(numbers("2.4.0-rc.1"), (2, 4, 0));
        let only = ["1.7.28", "2.1.9", "2.2.6", "2.3.3"];
        assert!(only.iter().all(|v| asks_only_runc(numbers(v))));
        let each = ["2.2.7", "2.2.8", "2.3.4", "2.4.0", "2.5.0"];
        assert!(!each.iter().any(|v| asks_only_runc(numbers(v))));
    }

    #[test]
    fn runtimes_of_both_versions() {
        for (version, plugin) in [
            (3, "io.containerd.cri.v1.runtime"),
            (2, "io.containerd.grpc.v1.cri"),
        ] {
            let text = format!(
                "version = {version}\n[plugins.\"{plugin}\".containerd.runtimes.mine]\nruntime_type = \"io.containerd.cofferdam.v1\"\n"
            );
            let found = runtimes(&toml::from_str(&text).unwrap());
            assert!(handler::is_ours(found["mine"].as_table().unwrap()));
        }
    }
}
