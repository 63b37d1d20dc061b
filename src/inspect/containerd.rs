//! containerd, as it is set up: its version, its merged configuration, Cofferdam's handlers in it, and their binaries.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use toml::{Table, Value};

pub use super::daemon::Source;
use super::daemon::{Daemon, daemon, main_file, restarted};
use super::findings::{Findings, State};
use crate::isolation::Profile;

/// What was learnt.
#[derive(Debug, Default)]
pub(super) struct Installed {
    /// The profiles that handlers stand for.
    pub profiles: Vec<String>,
    /// Where containerd keeps images.
    pub root: PathBuf,
}

const HANDLER: &str =
    "add shim-config/containerd-2.x.toml (or -1.x) to containerd's configuration, and restart it";

pub(super) fn check(source: &Source, out: &mut Findings) -> Installed {
    let mut installed = Installed {
        root: "/var/lib/containerd".into(),
        ..Installed::default()
    };
    let version = Command::new(&source.program).arg("--version").output();
    let version = match version {
        Ok(o) if o.status.success() => String::from_utf8_lossy(&o.stdout).into_owned(),
        Ok(o) => {
            let why = String::from_utf8_lossy(&o.stderr).trim().to_owned();
            out.say(
                "program",
                State::Failing,
                why,
                "mend the installation of containerd",
            );
            return installed;
        }
        Err(e) => {
            let found = format!("{}: {e}", source.program.display());
            let remedy = "install containerd 1.6 or later, or say where it is: --containerd PATH";
            out.say("program", State::Failing, found, remedy);
            return installed;
        }
    };
    let number = version
        .split_whitespace()
        .nth(2)
        .unwrap_or_default()
        .to_owned();
    let (major, minor) = numbers(&number);
    let state = if (major, minor) >= (1, 6) {
        State::Ok
    } else {
        State::Failing
    };
    out.say("version", state, &number, "use containerd 1.6 or later");
    let Some(config) = dump(source, out) else {
        return installed;
    };
    if let Some(root) = config.get("root").and_then(Value::as_str) {
        installed.root = root.into();
    }
    imports(source, &config, out);
    let daemon = daemon(source);
    let runtimes = runtimes(&config);
    let ours: Vec<(&String, &Table)> = runtimes
        .iter()
        .filter_map(|(name, runtime)| Some((name, runtime.as_table()?)))
        .filter(|(_, r)| is_ours(r))
        .collect();
    if ours.is_empty() {
        let found = format!(
            "none of the configured handlers is Cofferdam's: {}",
            runtimes.keys().cloned().collect::<Vec<_>>().join(" ")
        );
        out.say("handlers", State::Failing, found, HANDLER);
    }
    let asked_for_features = |r: &Table| text(r, "runtime_type") == "io.containerd.runc.v2";
    if (major, minor) < (2, 4) && !ours.iter().any(|(_, r)| asked_for_features(r)) {
        let found = "pods with hostUsers: false or recursiveReadOnly mounts are refused: containerd before 2.4 asks runc's runtime type only; \
                     if you want them, see the end of shim-config/containerd-2.x.toml";
        out.say("handlers", State::Ok, found, "");
    }
    let mut profiles = BTreeSet::new();
    for (name, runtime) in ours {
        if let Some(profile) = handler(name, runtime, daemon.as_ref(), out) {
            profiles.insert(profile);
        }
    }
    if let Some(daemon) = &daemon {
        restarted(source, daemon, out);
    } else {
        let remedy = "start it: systemctl start containerd";
        out.say("daemon", State::Degraded, "not running", remedy);
    }
    installed.profiles = profiles.into_iter().collect();
    installed
}

fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version
        .trim_start_matches('v')
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// The configuration with everything that it imports.
fn dump(source: &Source, out: &mut Findings) -> Option<Table> {
    let mut command = Command::new(&source.program);
    if let Some(config) = &source.config {
        command.arg("--config").arg(config);
    }
    let dumped = command.args(["config", "dump"]).output().ok()?;
    if !dumped.status.success() {
        let why = String::from_utf8_lossy(&dumped.stderr).trim().to_owned();
        out.say(
            "configuration",
            State::Failing,
            why,
            "mend the configuration file",
        );
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
            let remedy = "report this: containerd's dump is no TOML";
            out.say("configuration", State::Failing, e.to_string(), remedy);
            None
        }
    }
}

/// Files that are to be merged, and are not there.
fn imports(source: &Source, config: &Table, out: &mut Findings) {
    let main = main_file(source);
    let list = config.get("imports").and_then(Value::as_array);
    let patterns = list.into_iter().flatten().filter_map(Value::as_str);
    let missing: Vec<&str> = patterns
        .filter(|p| {
            // containerd lists the file itself, too, and a pattern may match nothing.
            let literal = !p.contains(['*', '?', '[']);
            let path = main.parent().unwrap_or(Path::new("/")).join(p);
            literal && path != main && !path.exists()
        })
        .collect();
    if !missing.is_empty() {
        let remedy = "make the files, or take them out of imports";
        out.say("imports", State::Degraded, missing.join(" "), remedy);
    }
}

/// CRI's runtimes, in the places that versions 2 and 3 have for them.
fn runtimes(config: &Table) -> Table {
    let plugins = config.get("plugins").and_then(Value::as_table);
    let of = |plugin: &str| {
        plugins?
            .get(plugin)?
            .get("containerd")?
            .get("runtimes")?
            .as_table()
            .cloned()
    };
    of("io.containerd.cri.v1.runtime")
        .or_else(|| of("io.containerd.grpc.v1.cri"))
        .unwrap_or_default()
}

fn text<'a>(runtime: &'a Table, key: &str) -> &'a str {
    runtime.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn is_ours(runtime: &Table) -> bool {
    text(runtime, "runtime_type").starts_with("io.containerd.cofferdam")
        || text(runtime, "runtime_path").contains("containerd-shim-cofferdam")
}

/// The binary's name: `io.containerd.NAME.VERSION` is `containerd-shim-NAME-VERSION` (containerd `pkg/shim/util.go`).
fn binary(runtime_type: &str) -> Option<String> {
    let mut parts = runtime_type.split('.').rev();
    let (version, name) = (parts.next()?, parts.next()?);
    Some(format!("containerd-shim-{name}-{version}"))
}

/// The shim that a handler names, by its path or by its type.
fn program_of(
    what: &str,
    runtime: &Table,
    daemon: Option<&Daemon>,
    out: &mut Findings,
) -> Option<PathBuf> {
    let path = text(runtime, "runtime_path");
    if !path.is_empty() {
        return Some(PathBuf::from(path));
    }
    let file = binary(text(runtime, "runtime_type"))?;
    let dirs = daemon.map_or_else(
        || std::env::var_os("PATH").unwrap_or_default(),
        |d| d.path.clone(),
    );
    let mut found = std::env::split_paths(&dirs).map(|d| d.join(&file));
    let found = found.find(|f| f.is_file());
    if found.is_none() {
        out.say(
            what,
            State::Failing,
            format!("no {file} in {}", dirs.to_string_lossy()),
            "install it (make install), or link it: the name chooses the profile",
        );
    }
    found
}

/// The profile in a file of the handler's own.
fn config_path(what: &str, config: &str, out: &mut Findings) {
    let file = Path::new(config);
    let found = match fs::read_to_string(file) {
        Err(e) => format!("{config}: {e}"),
        Ok(text) => {
            let dir = file.parent().unwrap_or(Path::new("/"));
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            match Profile::parse(dir, &name, config, &text) {
                Ok(_) => return,
                Err(e) => e.to_string(),
            }
        }
    };
    let remedy = "mend the file that ConfigPath names";
    out.say(what, State::Failing, found, remedy);
}

/// One handler; the name of its profile.
fn handler(
    name: &str,
    runtime: &Table,
    daemon: Option<&Daemon>,
    out: &mut Findings,
) -> Option<String> {
    let what = format!("handler {name}");
    let program = program_of(&what, runtime, daemon, out)?;
    let answer = match Command::new(&program).arg("-v").output() {
        Ok(o) => String::from_utf8_lossy(&o.stdout).into_owned(),
        Err(e) => {
            let found = format!("{}: {e}", program.display());
            out.say(
                &what,
                State::Failing,
                found,
                "install the shim there: make install",
            );
            return None;
        }
    };
    let value = |key: &str| {
        let line = answer.lines().find_map(|l| l.trim().strip_prefix(key));
        line.map(|v| v.trim().to_owned()).unwrap_or_default()
    };
    let (version, mut profile) = (value("Version:"), value("Profile:"));
    let own = env!("CARGO_PKG_VERSION");
    if version != own {
        out.say(
            &what,
            State::Degraded,
            format!(
                "{} is version {version:?}, this command {own}",
                program.display()
            ),
            "install both from one build: make install",
        );
    }
    // containerd 2.x: another sandboxer than its own would ask for an API that we do not serve.
    let sandboxer = text(runtime, "sandboxer");
    if !matches!(sandboxer, "" | "podsandbox") {
        out.say(
            &what,
            State::Failing,
            format!("sandboxer = {sandboxer:?}"),
            "sandboxer = \"podsandbox\"",
        );
    }
    let options = runtime.get("options").and_then(Value::as_table);
    let config = options.map_or("", |o| text(o, "ConfigPath"));
    if config.is_empty() {
        if let Err(e) = Profile::load(&profile) {
            out.say(&what, State::Failing, e.to_string(), "mend the profile");
        }
    } else {
        config.clone_into(&mut profile);
        config_path(&what, config, out);
    }
    let known = ["privileged_without_host_devices"];
    for key in known {
        if runtime.get(key).and_then(Value::as_bool) == Some(true) {
            out.say(&what, State::Ok, format!("{key} = true"), "");
        }
    }
    out.say(
        &what,
        State::Ok,
        format!("{}, profile {profile}", program.display()),
        "",
    );
    (config.is_empty()).then_some(profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions() {
        assert_eq!(
            binary("io.containerd.cofferdam-hardened.v1").unwrap(),
            "containerd-shim-cofferdam-hardened-v1"
        );
        assert_eq!(numbers("2.1.9+unknown"), (2, 1));
        assert_eq!(numbers("v1.6.20"), (1, 6));
        assert_eq!(numbers("1.6.20~ds1"), (1, 6));
    }

    #[test]
    fn runtimes_of_both_versions() {
        for plugin in ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"] {
            let text = format!(
                "[plugins.\"{plugin}\".containerd.runtimes.mine]\nruntime_type = \"io.containerd.cofferdam.v1\"\n"
            );
            let found = runtimes(&toml::from_str(&text).unwrap());
            assert!(is_ours(found["mine"].as_table().unwrap()));
        }
    }
}
