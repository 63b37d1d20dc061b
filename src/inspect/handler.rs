//! containerd's handlers that are Cofferdam's: their shims, their options, their profiles.

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use toml::{Table, Value};

use super::containerd::{Found, text};
use super::findings::{Findings, State};
use crate::isolation::{CHANGEABLE, DIRECTORY, Profile, changeable_by_others, names};
use crate::pod::ProfileSource;
use crate::service::profile_in;
use crate::sys;

/// Where programs are, whatever PATH says.
const USUAL: &str = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/opt/cofferdam/bin";

pub(super) fn is_ours(runtime: &Table) -> bool {
    let typ = text(runtime, "runtime_type");
    (typ.starts_with("io.containerd.cofferdam") && typ.matches('.').count() >= 3)
        || text(runtime, "runtime_path").contains("containerd-shim-cofferdam")
}

/// The binary's name: `io.containerd.NAME.VERSION` is `containerd-shim-NAME-VERSION` (containerd `pkg/shim/util.go`).
pub(super) fn binary(runtime_type: &str) -> Option<String> {
    let mut parts = runtime_type.split('.').rev();
    let (version, name) = (parts.next()?, parts.next()?);
    Some(format!("containerd-shim-{name}-{version}"))
}

/// What to do about a shim that is not there.
fn missing(file: &str) -> String {
    let of = |file: &str| {
        let name = file.strip_prefix("containerd-shim-cofferdam")?;
        let name = name.strip_suffix("-v1")?.trim_start_matches('-');
        Some(if name.is_empty() { "standard" } else { name }.to_owned())
    };
    let name = of(file).unwrap_or_default();
    let known = names(Path::new(DIRECTORY));
    if known.contains(&name) {
        return "install it where containerd looks (make install), or link it there: the link's name chooses the profile".into();
    }
    let like = known.iter().max_by(|a, b| {
        let near = |known: &str| strsim::jaro_winkler(known, &name);
        near(a).total_cmp(&near(b))
    });
    match like.filter(|known| strsim::jaro_winkler(known, &name) > 0.85) {
        Some(known) => format!(
            "there is no profile {name:?}: did you mean runtime_type = \"io.containerd.cofferdam-{known}.v1\"?"
        ),
        None => format!("there is no profile {name:?}: `cofferdam profile new {name}` begins one"),
    }
}

/// The shim that a handler names, by its path or by its type.
fn program_of(
    what: &str,
    runtime: &Table,
    node: &Found<'_>,
    out: &mut Findings,
) -> Option<PathBuf> {
    let path = text(runtime, "runtime_path");
    if !path.is_empty() {
        return Some(PathBuf::from(path));
    }
    let file = binary(text(runtime, "runtime_type"))?;
    let dirs = node.daemon.map_or_else(
        || std::env::var_os("PATH").unwrap_or_default(),
        |d| d.path.clone(),
    );
    let dirs = if node.source.is_elsewhere() {
        USUAL.into()
    } else {
        dirs
    };
    let within = |dirs: &OsStr| {
        let mut found = std::env::split_paths(dirs).map(|d| d.join(&file));
        found.find(|f| f.is_file())
    };
    let found = within(&dirs);
    if found.is_none() {
        let own = std::env::var_os("PATH").unwrap_or_default();
        let elsewhere = within(&own).or_else(|| within(OsStr::new(USUAL)));
        let remedy = match elsewhere {
            Some(there) => format!(
                "it is {}: link it into a directory of containerd's PATH, or add that directory to PATH in containerd's unit and restart it",
                there.display()
            ),
            None => missing(&file),
        };
        let found = format!("no {file} in containerd's PATH, {}", dirs.to_string_lossy());
        out.say(what, State::Failing, found, &remedy);
    }
    found
}

/// What to do about a profile with mistakes.
pub(super) const CORRECT_PROFILE: &str =
    "correct the profile: `cofferdam profile validate` says where. Until then no pod of it starts";

/// What to do about a profile that cannot be loaded: about its owner, or `otherwise`.
pub(super) fn remedy_of<'a>(error: &impl Display, otherwise: &'a str) -> &'a str {
    if error.to_string().contains(CHANGEABLE) {
        "chown root and chmod go-w it: until then no pod of it starts"
    } else {
        otherwise
    }
}

/// What a handler's options say of its profile: its name for people, and whether it is one of the node's. None where they are wrong.
fn profile_of(
    what: &str,
    shims: &str,
    options: Option<&Table>,
    out: &mut Findings,
) -> Option<(String, bool)> {
    let fails = |out: &mut Findings, found: String, remedy: &str| {
        out.say(what, State::Failing, found, remedy);
        None
    };
    let path = options.map_or("", |o| text(o, "ConfigPath"));
    let table = options.map(toml::to_string).and_then(Result::ok);
    let (source, title, remedy) = if path.is_empty() {
        match table.as_deref().map(profile_in) {
            Some(Err(e)) => return fails(out, e, "correct the handler's options"),
            Some(Ok(Some(text))) => (
                ProfileSource::Text(text),
                "of its options",
                "correct the handler's options: they are a profile, docs/profiles.md",
            ),
            _ => {
                return match Profile::load(shims) {
                    Ok(_) => Some((shims.to_owned(), true)),
                    Err(e) => fails(out, e.to_string(), remedy_of(&e, CORRECT_PROFILE)),
                };
            }
        }
    } else {
        let source = ProfileSource::File(path.into());
        (source, path, "correct the file that ConfigPath names")
    };
    match source.load() {
        Ok(profile) => Some((titled(title, &profile), false)),
        Err(e) => fails(out, e.to_string(), remedy_of(&e, remedy)),
    }
}

fn titled(name: &str, profile: &Profile) -> String {
    match &profile.extends {
        Some(base) => format!("{name} (extends {base})"),
        None => name.to_owned(),
    }
}

/// A handler whose type is missing, or nearly ours: containerd takes it, and its pods fail.
pub(super) fn check_type(name: &str, runtime: &Table, out: &mut Findings) {
    let what = format!("handler {name}");
    let typ = text(runtime, "runtime_type");
    // containerd takes NAME.VERSION with anything before it, and looks for containerd-shim-NAME-VERSION.
    let last = typ.rsplit('.').next().unwrap_or_default();
    let is_version = last
        .strip_prefix('v')
        .is_some_and(|n| n.parse::<u32>().is_ok());
    if typ.contains("cofferdam") && !(is_version && typ.matches('.').count() >= 3) {
        let name = typ
            .strip_prefix("io.containerd.")
            .unwrap_or(typ)
            .split('.')
            .next();
        let remedy = format!(
            "write runtime_type = \"io.containerd.{}.v1\"",
            name.unwrap_or_default()
        );
        let found = format!(
            "runtime_type {typ:?} is not the name of a shim, as io.containerd.NAME.v1 is: its pods fail"
        );
        return out.say(&what, State::Failing, found, &remedy);
    }
    if typ.is_empty() && text(runtime, "runtime_path").is_empty() {
        let near = |key: &&String| strsim::jaro_winkler(key, "runtime_type");
        // A default of containerd's, which nobody wrote, is empty.
        let written = |key: &&String| runtime.get(*key).is_some_and(|v| v.as_str() != Some(""));
        let keys = runtime.keys().filter(written).filter(|key| near(key) > 0.9);
        let like = keys.max_by(|a, b| near(a).total_cmp(&near(b)));
        let found = match like {
            Some(key) => {
                format!("no runtime_type, but {key}: pods fail with \"Runtime.Name must be set\"")
            }
            None => "no runtime_type: pods fail with \"Runtime.Name must be set\"".into(),
        };
        out.say(
            &what,
            State::Failing,
            found,
            "write runtime_type = \"io.containerd.NAME.v1\"",
        );
    }
}

/// Whether only root can change what runs as root.
fn is_of_root(what: &str, program: &Path, out: &mut Findings) -> bool {
    use std::os::unix::fs::MetadataExt;
    let real = fs::canonicalize(program).unwrap_or_else(|_| program.to_owned());
    let directory = real.parent().unwrap_or(Path::new("/"));
    let mut good = true;
    for path in [real.as_path(), directory] {
        let Ok(metadata) = fs::metadata(path) else {
            continue;
        };
        // A sticky directory lets nobody replace another's file.
        let sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0 && metadata.uid() == 0;
        if let Some(how) = changeable_by_others(&metadata).filter(|_| !sticky) {
            let found = format!("{} {how}", path.display());
            out.say(what, State::Failing, found, "chown root and chmod go-w it");
            good = false;
        }
    }
    good
}

/// A shim that cannot be executed: what it is, and what to do.
fn not_started(program: &Path, e: &io::Error) -> (String, String) {
    let path = program.display();
    let mut head = [0u8; 20];
    let read = fs::File::open(program).and_then(|mut file| file.read_exact(&mut head));
    let machine = read.ok().and_then(|()| machine_of(&head));
    match (e.kind(), machine) {
        (io::ErrorKind::PermissionDenied, _) if is_no_exec(program) => (
            format!("{path} is on a file system that is mounted noexec"),
            "install it on another file system, or mount this one without noexec".to_owned(),
        ),
        (io::ErrorKind::PermissionDenied, _) => (
            format!("{path} is not executable"),
            format!("chmod 755 {path}"),
        ),
        (_, Some(machine)) if machine != std::env::consts::ARCH => (
            format!(
                "{path} is built for {machine}, this is {}",
                std::env::consts::ARCH
            ),
            "install the build for this processor".to_owned(),
        ),
        _ => (
            format!("{path}: {e}"),
            "install the shim there: make install".to_owned(),
        ),
    }
}

fn is_no_exec(program: &Path) -> bool {
    let path = std::ffi::CString::new(program.as_os_str().as_encoded_bytes());
    path.is_ok_and(|path| sys::mount::is_no_exec(&path))
}

/// The processor that an ELF file is for: elf(5), `e_machine`.
fn machine_of(file: &[u8]) -> Option<&'static str> {
    let header = file.strip_prefix(b"\x7fELF")?;
    match (header.get(14)?, header.get(15)?) {
        (62, 0) => Some("x86_64"),
        (183, 0) => Some("aarch64"),
        (243, 0) => Some("riscv64"),
        (40, 0) => Some("arm"),
        (3, 0) => Some("x86"),
        _ => Some("another processor"),
    }
}

/// The profile that a program's name stands for.
fn of_name(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    crate::bootstrap::profile(&name).to_owned()
}

/// What a shim says of itself: its version and its profile.
fn ask(what: &str, program: &Path, out: &mut Findings) -> Option<(Option<String>, String)> {
    let answer = match Command::new(program).arg("-v").output() {
        Ok(o) => String::from_utf8_lossy(&o.stdout).into_owned(),
        Err(e) => {
            let (found, remedy) = not_started(program, &e);
            out.say(what, State::Failing, found, &remedy);
            return None;
        }
    };
    let value = |key: &str| {
        let line = answer.lines().find_map(|l| l.trim().strip_prefix(key));
        line.map(|v| v.trim().to_owned()).unwrap_or_default()
    };
    let (version, profile) = (value("Version:"), value("Profile:"));
    let own = env!("CARGO_PKG_VERSION");
    if version != own {
        let found = format!(
            "{} is version {version:?}, this command {own}",
            program.display()
        );
        out.say(
            what,
            State::Degraded,
            found,
            "install both from one build: make install",
        );
    }
    Some((Some(version), profile))
}

/// One handler; the name of its profile.
pub(super) fn check(
    name: &str,
    runtime: &Table,
    node: &Found<'_>,
    out: &mut Findings,
) -> Option<String> {
    let what = format!("handler {name}");
    let program = program_of(&what, runtime, node, out)?;
    // What others can write is not executed, not even to ask it.
    if !is_of_root(&what, &program, out) {
        return None;
    }
    let (version, profile) = if node.source.is_elsewhere() {
        (None, of_name(&program))
    } else {
        ask(&what, &program, out)?
    };
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
    let (profile, is_nodes) = profile_of(&what, &profile, options, out)?;
    let known = ["privileged_without_host_devices"];
    for key in known {
        if runtime.get(key).and_then(Value::as_bool) == Some(true) {
            out.say(&what, State::Ok, format!("{key} = true"), "");
        }
    }
    out.say(
        &what,
        State::Ok,
        match version {
            Some(version) => format!(
                "{}, version {version}, profile {profile}",
                program.display()
            ),
            None => format!("{}, profile {profile}", program.display()),
        },
        "",
    );
    is_nodes.then_some(profile)
}
