//! From a recording to profiles: a filter in OCI's format, and a Cofferdam profile that has it as its floor.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Recorded;
use crate::executor::{SINK_DIRECTORIES, SINKS};
use crate::files::private_directory;
use crate::isolation::{BUILT_IN, DIRECTORY};
use crate::show::{shown, toml_string};

/// What every start of a container does between the loading of its filter and its program.
const OF_THE_RUNTIME: [&str; 2] = ["execve", "exit_group"];
/// What the kernel has programs call by itself.
const OF_THE_KERNEL: [&str; 2] = ["restart_syscall", "rt_sigreturn"];
/// What the pause container of a pod does, which runs under the class as well.
const OF_PAUSE: [&str; 20] = [
    "arch_prctl",
    "brk",
    "exit_group",
    "getpid",
    "getrandom",
    "mmap",
    "mprotect",
    "munmap",
    "nanosleep",
    "pause",
    "prlimit64",
    "readlink",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "set_robust_list",
    "set_tid_address",
    "wait4",
    "write",
    "writev",
];
/// What the start of nearly every program takes: the loader and the C library.
const OF_A_START: [&str; 27] = [
    "access",
    "arch_prctl",
    "brk",
    "close",
    "exit",
    "fstat",
    "futex",
    "getgid",
    "getpid",
    "getrandom",
    "getuid",
    "ioctl",
    "lseek",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "openat",
    "pread64",
    "prlimit64",
    "read",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "set_robust_list",
    "set_tid_address",
    "write",
];
/// `clone(2)`'s flags for new namespaces.
const NAMESPACES: u64 = 0x7e02_0000;

/// Two files.
#[derive(Debug, Clone, PartialEq)]
pub struct Learnt {
    /// A filter in OCI's format (`linux.seccomp`), for every runtime.
    pub filter: Value,
    /// A Cofferdam profile.
    pub profile: String,
    /// Calls that the filter allows.
    pub calls: usize,
}

/// The smallest profile that covers a recording. `filter` is where the filter will be.
pub fn learnt(recorded: &Recorded, filter: &Path) -> Learnt {
    let calls = calls(recorded);
    let mut entries: Vec<Value> = Vec::new();
    for (name, why) in &calls {
        let mut entry = json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "comment": why });
        match name.as_str() {
            "clone" => {
                entry["args"] = json!([{
                    "index": 0, "value": NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"
                }]);
                entry["comment"] = format!("{why}; without new namespaces").into();
            }
            // Its flags are out of a filter's reach: the C library then calls clone.
            "clone3" => {
                entry["action"] = "SCMP_ACT_ERRNO".into();
                entry["errnoRet"] = libc::ENOSYS.into();
                entry["comment"] =
                    format!("{why}; as if it did not exist, so that clone is called").into();
            }
            _ => {}
        }
        entries.push(entry);
    }
    let allowed = entries
        .iter()
        .filter(|e| e["action"] == "SCMP_ACT_ALLOW")
        .count();
    Learnt {
        profile: profile(recorded, filter, allowed),
        filter: json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": libc::EPERM,
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": entries,
        }),
        calls: allowed,
    }
}

/// Writes `NAME.toml` and `NAME.seccomp.json` into a directory, which is made; the paths, and how many calls are allowed.
pub fn store(
    recorded: &Recorded,
    directory: &Path,
    name: &str,
) -> io::Result<(PathBuf, PathBuf, usize)> {
    private_directory(directory)?;
    let directory = fs::canonicalize(directory)?;
    let profile = directory.join(format!("{name}.toml"));
    let filter = directory.join(format!("{name}.seccomp.json"));
    let learnt = learnt(recorded, &filter);
    fs::write(&filter, format!("{:#}\n", learnt.filter))?;
    fs::write(&profile, learnt.profile)?;
    Ok((profile, filter, learnt.calls))
}

/// Names, and why each is there.
fn calls(recorded: &Recorded) -> BTreeMap<String, String> {
    let times = |n: u64| {
        if n == 1 {
            "once".to_owned()
        } else {
            format!("{n} times")
        }
    };
    let mut all: BTreeMap<String, String> = recorded
        .calls
        .iter()
        .map(|(name, count)| (name.clone(), times(*count)))
        .collect();
    let mut add = |names: &[&str], why: &str| {
        for name in names {
            all.entry((*name).to_owned())
                .or_insert_with(|| why.to_owned());
        }
    };
    add(
        &OF_THE_RUNTIME,
        "not seen: runtimes need it to start a container",
    );
    add(
        &OF_THE_KERNEL,
        "not seen: the kernel needs it after signals",
    );
    add(
        &OF_PAUSE,
        "not seen: the pause container of a pod needs it, which the class is for, too",
    );
    if !recorded.from_start {
        add(
            &OF_A_START,
            "not seen: the start of a program, before the recording began",
        );
    }
    if all.contains_key("clone3") {
        all.entry("clone".into())
            .or_insert_with(|| "not seen: what is called where there is no clone3".into());
    }
    all
}

fn profile(recorded: &Recorded, filter: &Path, allowed: usize) -> String {
    let base = match recorded.profile.as_str() {
        "" | "options" => "hardened",
        name if BUILT_IN.iter().any(|(n, _)| *n == name)
            || Path::new(DIRECTORY).join(format!("{name}.toml")).exists() =>
        {
            name
        }
        _ => "hardened",
    };
    let mut out = format!(
        "# Learnt from container {} under the profile {}.\n",
        shown(&recorded.container),
        toml_string(&recorded.profile)
    );
    if !recorded.from_start {
        out += "# The start of its program was not seen, so capabilities and files are not restricted, and calls that only the start needs may be missing.\n\
                # Record it from its start: `cofferdam learn start POD` before the container is created.\n";
    }
    for gap in &recorded.gaps {
        out += &format!("# Not recorded: {}\n", shown(gap));
    }
    out += &format!("extends = {}\n", toml_string(base));
    // A list of what was seen later would deny what the start takes.
    let knows =
        |what: &str| recorded.from_start && !recorded.gaps.iter().any(|g| g.starts_with(what));
    if knows("capabilities") {
        out += "\n[process]\n# Those that decided something.\ncapabilities = [\n";
        for (name, decided) in &recorded.capabilities {
            // At every mapping of memory the kernel asks whether there may be more than there is.
            let doubt = match name.as_str() {
                "CAP_SYS_ADMIN" => "; perhaps only by the kernel itself: try without",
                _ => "",
            };
            if decided.had > 0 {
                out += &format!("    {name:?}, # {} times{doubt}\n", decided.had);
            }
        }
        out += "]\n";
        let lacked = recorded.capabilities.iter().filter(|(_, d)| d.lacked > 0);
        for (name, decided) in lacked {
            out += &format!(
                "# {name} was asked for {} times, and not there.\n",
                decided.lacked
            );
        }
    }
    let before = match recorded.allowed {
        Some(n) => format!("the pod's own filter allows {n}"),
        None => "the pod has no filter of its own".into(),
    };
    out += &format!(
        "\n[seccomp]\n# {allowed} calls; {before}.\nfloor = {}\n",
        toml_string(&filter.display().to_string())
    );
    if knows("files") {
        out += "\n[landlock]\n";
        // What /proc/self/exe leads to was executed under its own name before.
        let executed = recorded
            .files
            .iter()
            .filter(|(path, f)| f.executed > 0 && !path.starts_with("/proc/"));
        let executed: BTreeSet<String> = executed.map(|(path, _)| path.clone()).collect();
        out += "# Programs, and the loaders that they name.\nexecute = [\n";
        for path in &executed {
            let times = recorded.files.get(path).map_or(0, |f| f.executed);
            out += &format!("    {}, # {times} times\n", toml_string(path));
        }
        out += "]\n# Directories in which files were written, made, moved or removed.\nwrite = [\n";
        for (directory, what) in written(recorded) {
            out += &format!("    {}, # {what}\n", toml_string(&directory));
        }
        out += "]\n";
        if !recorded.unresolved.is_empty() {
            out += "# Changed, relative to a directory that could not be told any more (add it above, if it is not):\n";
            for path in &recorded.unresolved {
                out += &format!("#     {}\n", toml_string(path));
            }
        }
    }
    out
}

/// What `landlock.essentials` stands for, and streams under the names that lead to them.
fn is_essential(path: &str) -> bool {
    const STREAMS: [&str; 4] = ["/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd"];
    let sinks = SINKS.into_iter().chain(SINK_DIRECTORIES);
    let sinks = sinks.map(|sink| sink.to_str().unwrap_or_default());
    let mut all = sinks.chain(STREAMS);
    all.any(|known| Path::new(path).starts_with(known))
}

/// Files that are written to in place, and directories in which something is made; of these, none within another.
fn written(recorded: &Recorded) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut add = |path: &str| {
        // Devices are written to where they are.
        let is_device = path.starts_with("/dev/") && !path.starts_with("/dev/shm/");
        let place = if is_device {
            path.to_owned()
        } else {
            let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
            parent.display().to_string()
        };
        let entry = found.entry(place).or_insert((0, path.to_owned()));
        entry.0 += 1;
    };
    for (path, _) in recorded.files.iter().filter(|(_, f)| f.written > 0) {
        // Sockets, pipes and what is deleted have no path, and what every program may write to needs no entry.
        if path.starts_with('/') && !is_essential(path) {
            add(path.trim_end_matches(" (deleted)"));
        }
    }
    recorded.changed.iter().for_each(|path| add(path));
    let places: Vec<String> = found.keys().cloned().collect();
    let within = |path: &str| {
        places
            .iter()
            .any(|p| p != path && Path::new(path).starts_with(p))
    };
    found
        .into_iter()
        .filter(|(path, _)| !within(path))
        .map(|(path, (paths, example))| {
            let what = if paths == 1 {
                example
            } else {
                format!("{example} and {} more", paths - 1)
            };
            (path, shown(&what).into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Decided, Use};
    use super::*;
    use crate::isolation::Profile;

    fn recorded() -> Recorded {
        let counts = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), 2)).collect();
        let mut r = Recorded {
            container: "web".into(),
            profile: "hardened".into(),
            from_start: true,
            calls: counts(&["read", "write", "clone3", "openat"]),
            allowed: Some(350),
            ..Recorded::default()
        };
        let decided = |had, lacked| Decided { had, lacked };
        r.capabilities.insert("CAP_CHOWN".into(), decided(1, 0));
        r.capabilities.insert("CAP_SYS_ADMIN".into(), decided(0, 3));
        let (written, executed) = (
            Use {
                written: 1,
                ..Use::default()
            },
            Use {
                executed: 1,
                ..Use::default()
            },
        );
        for path in [
            "/var/log/x.log",
            "/var/log/deep/y\n.log",
            "/dev/null",
            "pipe:[1]",
            "/dev/stdout",
            "/proc/self/fd/1",
            "/proc/7/oom_score_adj",
        ] {
            r.files.insert(path.into(), written.clone());
        }
        r.files.insert("/bin/sh".into(), executed);
        r.changed.insert("/run/x.sock".into());
        r
    }

    #[test]
    fn the_profile_is_one_and_covers_what_was_seen() {
        let dir = std::env::temp_dir().join(format!("cofferdam-learn-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("web.seccomp.json");
        let learnt = learnt(&recorded(), &file);
        std::fs::write(&file, learnt.filter.to_string()).unwrap();
        let profile = Profile::parse(&dir, "web", "learnt", &learnt.profile).unwrap();
        assert_eq!(profile.process.capabilities.unwrap(), ["CAP_CHOWN"]);
        let paths = |p: Option<Vec<std::path::PathBuf>>| {
            p.unwrap()
                .iter()
                .map(|p| p.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(paths(profile.landlock.write), ["/run", "/var/log"]);
        assert_eq!(paths(profile.landlock.execute), ["/bin/sh"]);
        let names: Vec<&str> = learnt.filter["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["names"][0].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "arch_prctl",
                "brk",
                "clone",
                "clone3",
                "execve",
                "exit_group",
                "getpid",
                "getrandom",
                "mmap",
                "mprotect",
                "munmap",
                "nanosleep",
                "openat",
                "pause",
                "prlimit64",
                "read",
                "readlink",
                "restart_syscall",
                "rseq",
                "rt_sigaction",
                "rt_sigprocmask",
                "rt_sigreturn",
                "set_robust_list",
                "set_tid_address",
                "wait4",
                "write",
                "writev"
            ]
        );
        assert_eq!(learnt.calls, 26);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_was_not_recorded_is_not_restricted() {
        let mut r = recorded();
        r.gaps = vec!["capabilities: no".into(), "files: no".into()];
        r.from_start = false;
        let learnt = learnt(&r, Path::new("/x.json"));
        for absent in ["capabilities = ", "execute = ", "write = "] {
            assert!(!learnt.profile.contains(absent), "{}", learnt.profile);
        }
        assert!(learnt.calls > 25 && learnt.profile.contains("# Not recorded: files: no"));
    }
}
