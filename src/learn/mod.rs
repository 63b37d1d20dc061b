//! Learning: what a container uses of the kernel, recorded while it works, and the smallest profile that covers it.
//!
//! Programs in the kernel count system calls, capabilities and files of one pid namespace ([`programs`]); nothing of the
//! container is stopped or slowed by more than that, and nothing is there while nobody records.

mod btf;
mod elf;
mod programs;
mod tree;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::files::private_directory;
use crate::oci;
use crate::oci::capabilities;
use crate::seccomp;
use crate::sys::bpf::{self, HashMap, Probe};
use crate::sys::{process, time};
use btf::Btf;
use programs::{NUMBER_KEY, PATH_KEY, REFUSED, Watched};
use tree::Tree;
pub use write::{Learnt, learnt, store};

/// Where the recordings of containers that are deleted are kept, until somebody takes them.
pub const DIRECTORY: &str = "/run/cofferdam/learnt";

fn kept_file(container: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{container}.json"))
}

/// Keeps the recording of a container that goes.
pub fn keep(recorded: &Recorded) -> io::Result<()> {
    private_directory(Path::new(DIRECTORY))?;
    fs::write(
        kept_file(&recorded.container),
        serde_json::to_vec(recorded)?,
    )
}

/// A recording that was kept.
pub fn kept(container: &str) -> Option<Recorded> {
    if container.contains('/') {
        return None;
    }
    serde_json::from_slice(&fs::read(kept_file(container)).ok()?).ok()
}

/// All recordings that were kept, by their containers' ids.
pub fn all_kept() -> Vec<Recorded> {
    let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    let id = |name: &std::ffi::OsString| Some(name.to_str()?.strip_suffix(".json")?.to_owned());
    names
        .iter()
        .filter_map(id)
        .filter_map(|id| kept(&id))
        .collect()
}

/// Removes it.
pub fn forget(container: &str) {
    fs::remove_file(kept_file(container)).ok();
}

/// Different paths that are kept; there are more in a container that makes its own names.
const MAX_PATHS: u32 = 16 * 1024;
const MAX_NUMBERS: u32 = 1024;
/// How far back a process's directory is looked for.
const MAX_ANCESTORS: u32 = 64;

/// A file that was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// How often for reading only.
    pub read: u64,
    /// How often for writing, or made.
    pub written: u64,
    /// How often to be executed.
    pub executed: u64,
}

/// A capability that decided something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// How often it was there.
    pub had: u64,
    /// How often it was not.
    pub lacked: u64,
}

/// What a container used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The container's id.
    pub container: String,
    /// The profile that it ran under.
    pub profile: String,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// Whether the start of its program was seen.
    pub from_start: bool,
    /// System calls that its filters let through, and how often.
    pub calls: BTreeMap<String, u64>,
    /// Calls that its own filter allows; none where it has no filter.
    pub allowed: Option<usize>,
    /// Capabilities.
    pub capabilities: BTreeMap<String, Decided>,
    /// Files, by their paths in the container.
    pub files: BTreeMap<String, Use>,
    /// Paths that were made, moved or removed.
    pub changed: BTreeSet<String>,
    /// The same, relative to directories that cannot be told any more.
    pub unresolved: BTreeSet<String>,
    /// What could not be recorded, and why.
    pub gaps: Vec<String>,
}

/// A recording that goes on until this is dropped.
#[derive(Debug)]
pub struct Recorder {
    /// The pid namespace of the container.
    namespace: u64,
    /// Its root.
    root: File,
    since: u64,
    from_start: bool,
    calls: HashMap,
    capabilities: HashMap,
    paths: HashMap,
    forks: HashMap,
    /// The init's directory at first.
    directory: Option<String>,
    gaps: Vec<String>,
    /// Programs and what holds them in place.
    _probes: Vec<(OwnedFd, OwnedFd)>,
}

/// What cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something of the container's process.
    #[error("{0}: {1}")]
    Process(String, #[source] io::Error),
    /// Its processes cannot be told from the node's.
    #[error(
        "the container shares the node's pid namespace: its processes cannot be told from the node's"
    )]
    SharedPids,
    /// A map, on this kernel.
    #[error("make an eBPF map: {}", .0.desc())]
    Map(Errno),
    /// The first program, without which there is nothing to learn.
    #[error("attach to system calls: {0} (needs Linux 5.7 with CONFIG_BPF_SYSCALL)")]
    Calls(Box<Self>),
    /// A program, on this kernel.
    #[error("{}", .0.desc())]
    Program(Errno),
    /// The kernel does not describe itself.
    #[error("the kernel's types: {0} (needs CONFIG_DEBUG_INFO_BTF)")]
    Types(String),
    /// What is looked at has another layout.
    #[error("this kernel's types are others")]
    OtherTypes,
    /// What is looked at is not there.
    #[error("this kernel has no such function")]
    NoFunction,
    /// Neither place will do.
    #[error("{0}; at the tracepoint: {1} (Linux 6.14)")]
    Neither(Box<Self>, Box<Self>),
}

impl Recorder {
    /// Records what the pid namespace of `pid` uses.
    pub fn start(pid: i32, from_start: bool) -> Result<Self, Error> {
        let namespace = |pid: &str| {
            let link = format!("/proc/{pid}/ns/pid");
            fs::metadata(&link).map_err(|e| Error::Process(link, e))
        };
        let (theirs, ours) = (namespace(&pid.to_string())?, namespace("self")?);
        if theirs.ino() == ours.ino() {
            return Err(Error::SharedPids);
        }
        let root = File::open(format!("/proc/{pid}/root"))
            .map_err(|e| Error::Process("its root".into(), e))?;
        let mut comm = [0u8; 16];
        for (to, from) in comm.iter_mut().zip(process::CHILD_NAME.to_bytes()) {
            *to = *from;
        }
        // The kernel's own form of the number, linux/kdev_t.h.
        let (major, minor) = (libc::major(theirs.dev()), libc::minor(theirs.dev()));
        let watched = Watched {
            dev: u64::from(major) << 20 | u64::from(minor),
            ino: theirs.ino(),
            comm,
        };
        let map = |key, entries| HashMap::new(key, 8, entries).map_err(Error::Map);
        let (calls, capabilities) = (map(NUMBER_KEY, MAX_NUMBERS)?, map(NUMBER_KEY, MAX_NUMBERS)?);
        let (paths, forks) = (map(PATH_KEY, MAX_PATHS)?, map(NUMBER_KEY, MAX_PATHS)?);
        let attach = |at, insns: &[_]| bpf::probe(at, insns).map_err(Error::Program);
        // Without the calls there is nothing to learn; the rest is as good as the kernel allows.
        let first = attach(
            Probe::Tracepoint(c"sys_enter"),
            &programs::calls(watched, calls.fd()),
        )
        .map_err(|e| Error::Calls(Box::new(e)))?;
        let (mut probes, mut gaps) = (vec![first], Vec::new());
        let mut more = |what: &str, probe: Result<_, Error>| match probe {
            Ok(probe) => probes.push(probe),
            Err(e) => gaps.push(format!("{what}: {e}")),
        };
        for second in [false, true] {
            let insns = programs::paths(watched, paths.fd(), second);
            more("files", attach(Probe::Tracepoint(c"sys_exit"), &insns));
        }
        let insns = programs::forks(watched, forks.fd());
        more("files", attach(Probe::Tracepoint(c"sys_exit"), &insns));
        let types = Btf::load().map_err(|e| e.to_string());
        let types = || types.as_ref().map_err(|e| Error::Types(e.clone()));
        let insns = types()
            .and_then(|btf| programs::programs(watched, paths.fd(), btf).ok_or(Error::OtherTypes));
        let at = Probe::Tracepoint(c"sched_process_exec");
        more("files", insns.and_then(|insns| attach(at, &insns)));
        // The function knows which questions are the kernel's own; the tracepoint does not.
        let fd = capabilities.fd();
        let at_function = types().and_then(|btf| {
            let id = btf.function("cap_capable");
            let id = id.ok_or(Error::NoFunction)?;
            attach(Probe::Exit(id), &programs::capabilities(watched, fd, false))
        });
        more(
            "capabilities",
            at_function.or_else(|e| {
                let insns = programs::capabilities(watched, fd, true);
                attach(Probe::Tracepoint(c"cap_capable"), &insns)
                    .map_err(|t| Error::Neither(Box::new(e), Box::new(t)))
            }),
        );
        Ok(Self {
            namespace: theirs.ino(),
            root,
            since: time::seconds_since_1970(),
            from_start,
            calls,
            capabilities,
            paths,
            forks,
            directory: directory_of(pid, "cwd"),
            gaps,
            _probes: probes,
        })
    }

    /// Everything so far. `pids` are the container's processes on the node.
    pub fn recorded(&self, pids: &[i32]) -> Recorded {
        let mut out = Recorded {
            since: self.since,
            from_start: self.from_start,
            gaps: self.gaps.clone(),
            ..Recorded::default()
        };
        for (number, count) in numbers(&self.calls) {
            let name = seccomp::own_name(u32::try_from(number).unwrap_or(u32::MAX));
            *out.calls.entry(name).or_default() += count;
        }
        for (number, count) in numbers(&self.capabilities) {
            let index = usize::try_from(number & !REFUSED).unwrap_or(usize::MAX);
            let name = capabilities::NAMES
                .get(index)
                .map_or_else(|| format!("CAP_{index}"), |n| (*n).to_owned());
            let decided = out.capabilities.entry(name).or_default();
            if number & REFUSED == 0 {
                decided.had += count;
            } else {
                decided.lacked += count;
            }
        }
        let entries = self.paths.entries();
        if entries.len() >= MAX_PATHS as usize {
            out.gaps.push(format!(
                "files: more than {MAX_PATHS}; the later ones are missing"
            ));
        }
        let tree = self.tree(pids, &entries);
        for (key, value) in entries {
            let (call, flags) = (i64::from(word(&key, 0)), word(&key, 12).cast_signed());
            let (path, count) = (text(&key, 16), wide(&value));
            if call == libc::SYS_chdir || path.is_empty() {
                continue;
            }
            let found = tree.resolve(&path, word(&key, 4).cast_signed(), word(&key, 8));
            if found.is_empty() {
                out.unresolved.insert(path);
            }
            for path in found {
                if call != libc::SYS_execve && !programs::opens(call) {
                    out.changed.insert(path);
                    continue;
                }
                let file = out.files.entry(path).or_default();
                if call == libc::SYS_execve {
                    file.executed += count;
                } else if flags & (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) != 0 {
                    file.written += count;
                } else {
                    file.read += count;
                }
            }
        }
        self.add_loaders(&mut out);
        out
    }

    /// What the kernel executes for a program: the loader that its file names.
    fn add_loaders(&self, out: &mut Recorded) {
        let executed = out.files.iter().filter(|(_, f)| f.executed > 0);
        let loaders: Vec<(String, u64)> = executed
            .filter_map(|(path, f)| Some((elf::loader(&self.root, path)?, f.executed)))
            .collect();
        for (loader, times) in loaders {
            out.files.entry(loader).or_default().executed += times;
        }
    }

    /// Whose child and in which directories processes were.
    fn tree(&self, pids: &[i32], paths: &[(Vec<u8>, Vec<u8>)]) -> Tree {
        let mut tree = Tree {
            first: self.directory.clone(),
            ..Tree::default()
        };
        for (key, _) in self.forks.entries() {
            tree.parents.insert(word(&key, 4), word(&key, 0));
        }
        for (key, _) in paths {
            if i64::from(word(key, 0)) == libc::SYS_chdir {
                let of = tree.directories.entry(word(key, 8)).or_default();
                of.insert(text(key, 16));
            }
        }
        for pid in pids {
            let inside = || {
                let ns = fs::metadata(format!("/proc/{pid}/ns/pid")).ok()?;
                let status = crate::procfs::read(format!("/proc/{pid}/status")).ok()?;
                let line = status.lines().find_map(|l| l.strip_prefix("NSpid:"))?;
                let number = line.split_whitespace().last()?.parse().ok()?;
                (ns.ino() == self.namespace).then_some(number)
            };
            if let Some(number) = inside() {
                tree.live.insert(number, *pid);
            }
        }
        tree
    }
}

/// A directory that a process has, by its path in the container.
fn directory_of(pid: i32, link: &str) -> Option<String> {
    // As the node sees it: the container's root is taken off.
    let base = fs::read_link(format!("/proc/{pid}/{link}")).ok()?;
    let root = fs::read_link(format!("/proc/{pid}/root")).ok()?;
    let base = match base.strip_prefix(&root) {
        Ok(inside) => Path::new("/").join(inside),
        Err(_) => base,
    };
    base.is_absolute().then(|| clean(&base))
}

/// Without `.` and `..`.
fn clean(path: &Path) -> String {
    oci::path::lexical(path).to_string_lossy().into_owned()
}

fn numbers(map: &HashMap) -> Vec<(u64, u64)> {
    let entries = map.entries().into_iter();
    entries
        .map(|(key, value)| (wide(&key), wide(&value)))
        .collect()
}

fn wide(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk::<8>()
        .map_or(0, |b| u64::from_ne_bytes(*b))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>);
    bytes.map_or(0, |b| u32::from_ne_bytes(*b))
}

fn text(bytes: &[u8], from: usize) -> String {
    let bytes = bytes.get(from..).unwrap_or_default();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests;
