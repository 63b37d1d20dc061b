//! One process, as `/proc` shows it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::oci::capabilities::NAMES;
use crate::procfs;

/// `/proc/PID/status`, by its keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Status(HashMap<String, String>);

impl Status {
    /// None where the process is gone.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let text = procfs::read(format!("/proc/{pid}/status")).ok()?;
        Some(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let pair = |line: &str| {
            let (key, value) = line.split_once(':')?;
            Some((key.to_owned(), value.trim().to_owned()))
        };
        Self(text.lines().filter_map(pair).collect())
    }

    pub(crate) fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.get(key).parse().ok()
    }

    /// A set of capabilities: `CapBnd` and the like.
    pub(crate) fn capabilities(&self, key: &str) -> u64 {
        u64::from_str_radix(self.get(key), 16).unwrap_or(0)
    }

    /// Real, effective, saved and file system id: `Uid` or `Gid`.
    pub(crate) fn effective(&self, key: &str) -> u32 {
        let mut ids = self.get(key).split_whitespace();
        ids.nth(1).and_then(|id| id.parse().ok()).unwrap_or(0)
    }
}

/// The namespace of a process: `user`, `mnt`, ….
pub(super) fn namespace(pid: impl std::fmt::Display, name: &str) -> Option<u64> {
    inode(Path::new(&format!("/proc/{pid}/ns/{name}")))
}

/// Whether a process is one of the node's own: root's, and in the namespaces that we are in. Any container can call itself as it likes.
pub(super) fn is_of_node(pid: i32) -> bool {
    let is_root = fs::metadata(format!("/proc/{pid}")).is_ok_and(|m| m.uid() == 0);
    let shares = |name: &str| {
        let own = namespace("self", name);
        own.is_some() && namespace(pid, name) == own
    };
    is_root && ["user", "mnt", "pid"].into_iter().all(shares)
}

/// The inode of what a path leads to.
pub(super) fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|m| m.ino())
}

/// `uid_map` or `gid_map`: inside, outside, how many.
pub(super) fn id_map(pid: i32, file: &str) -> Vec<(u32, u32, u32)> {
    let text = procfs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = |line: &str| {
        let mut n = line.split_whitespace().map(str::parse::<u32>);
        Some((n.next()?.ok()?, n.next()?.ok()?, n.next()?.ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// The label of a security module, without the mode.
pub(super) fn label(pid: i32, module: &str) -> Option<String> {
    let read = |file: String| procfs::read(file).ok();
    let label = read(format!("/proc/{pid}/attr/{module}/current"))
        .or_else(|| read(format!("/proc/{pid}/attr/current")))?;
    let label = label.trim_end_matches(['\0', '\n']);
    let label = label.split(" (").next().unwrap_or_default();
    (!label.is_empty()).then(|| label.to_owned())
}

/// Soft and hard limit by the name that `/proc/PID/limits` has.
pub(super) fn limit(pid: i32, name: &str) -> Option<(u64, u64)> {
    let text = procfs::read(format!("/proc/{pid}/limits")).ok()?;
    let rest = text.lines().find_map(|l| l.strip_prefix(name))?;
    let number = |word: &str| match word {
        "unlimited" => Some(u64::MAX),
        n => n.parse().ok(),
    };
    let mut words = rest.split_whitespace();
    Some((number(words.next()?)?, number(words.next()?)?))
}

/// Names of capabilities, without `CAP_`, for people.
pub(super) fn names(set: u64) -> String {
    let known = |bit: &usize| set & (1 << bit) != 0;
    let names: Vec<&str> = (0..NAMES.len())
        .filter(known)
        .filter_map(|bit| NAMES.get(bit)?.strip_prefix("CAP_"))
        .collect();
    if names.is_empty() {
        "none".into()
    } else if names.len() == NAMES.len() {
        "all".into()
    } else {
        names.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ourselves() {
        let me = std::process::id().cast_signed();
        let status = Status::of(me).unwrap();
        assert_eq!(status.number("Pid"), Some(u64::try_from(me).unwrap()));
        assert!(status.capabilities("CapBnd") > 0);
        assert_eq!(status.effective("Uid"), nix::unistd::geteuid().as_raw());
        assert_eq!(namespace("self", "mnt"), namespace(me, "mnt"));
        assert!(limit(me, "Max open files").is_some_and(|(soft, hard)| soft <= hard));
        assert_eq!(names(0b1001), "CHOWN FOWNER");
        assert!(Status::of(-1).is_none());
    }

    #[test]
    fn whose_a_process_is() {
        use std::process::{Command, Stdio};
        const SAYS: [&str; 3] = ["sh", "-c", "echo up; exec sleep 1000"];
        let is_ours = |program: &str, args: &[&str]| {
            let mut child = Command::new(program)
                .args(args)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            // It has become what it is to be when it says so.
            let mut line = [0u8; 3];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
            let found = is_of_node(child.id().cast_signed());
            child.kill().unwrap();
            child.wait().unwrap();
            found
        };
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        assert!(is_ours("sh", &SAYS[1..]));
        assert!(!is_ours(
            "setpriv",
            &[&["--reuid", "65534", "--clear-groups"][..], &SAYS].concat()
        ));
        assert!(!is_ours("unshare", &[&["--mount"][..], &SAYS].concat()));
    }
}
