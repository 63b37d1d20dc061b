//! What Landlock denied, from the kernel's audit records (Linux 6.15; `Documentation/admin-guide/LSM/landlock.rst`). They are there where audit is
//! turned on, and for profiles with `landlock.audit`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

/// What auditd writes.
const AUDIT_LOG: &str = "/var/log/audit/audit.log";
/// How much of its end is read, in bytes.
const TAIL: u64 = 16 << 20;
/// Denials that are told one by one.
const MOST: usize = 64;

/// What processes with these pids were denied, and how often: the right, and the file or port.
pub(super) fn denied(pids: &BTreeSet<i32>) -> Vec<(String, u64)> {
    count(&records(), pids)
}

/// auditd's file, or the kernel's log, where records go if nobody takes them.
fn records() -> String {
    end_of(AUDIT_LOG).unwrap_or_else(kernel_log)
}

fn end_of(path: &str) -> Option<String> {
    use std::io::{Seek, SeekFrom};
    let mut file = fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Each read of `/dev/kmsg` is a record; `EPIPE` says that some are lost, `EAGAIN` that there are no more.
fn kernel_log() -> String {
    let mut options = fs::OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    let Ok(mut file) = options.open("/dev/kmsg") else {
        return String::new();
    };
    let (mut text, mut buffer) = (String::new(), [0u8; 8192]);
    loop {
        match file.read(&mut buffer) {
            Ok(n @ 1..) => text += &String::from_utf8_lossy(buffer.get(..n).unwrap_or_default()),
            Err(e) if e.raw_os_error() == Some(libc::EPIPE) => {}
            _ => return text,
        }
    }
}

/// The value of a field of a record.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let mut words = line.split(' ');
    words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn count(text: &str, pids: &BTreeSet<i32>) -> Vec<(String, u64)> {
    let is_record = |line: &&str| {
        [
            "type=1423 ",
            "type=1424 ",
            "type=LANDLOCK_ACCESS ",
            "type=LANDLOCK_DOMAIN ",
        ]
        .iter()
        .any(|kind| line.contains(kind))
    };
    let lines: Vec<&str> = text.lines().filter(is_record).collect();
    // The newest domain of each process: a pid may have been another's before.
    let mut domains = BTreeMap::new();
    for line in &lines {
        if field(line, "status") == Some("allocated")
            && let Some(pid) = field(line, "pid").and_then(|pid| pid.parse::<i32>().ok())
            && let Some(domain) = field(line, "domain")
        {
            domains.insert(pid, domain);
        }
    }
    let ours: BTreeSet<&str> = pids
        .iter()
        .filter_map(|pid| domains.get(pid).copied())
        .collect();
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for line in &lines {
        let is_ours = field(line, "domain").is_some_and(|domain| ours.contains(domain));
        if let Some(right) = field(line, "blockers").filter(|_| is_ours) {
            let what = ["path", "dest", "src", "opid"]
                .into_iter()
                .find_map(|name| field(line, name));
            let what = what.map_or_else(String::new, |what| format!(" {}", what.trim_matches('"')));
            *all.entry(format!("{right}{what}")).or_default() += 1;
        }
    }
    let mut all: Vec<(String, u64)> = all.into_iter().collect();
    all.sort_by(|(a, more), (b, less)| less.cmp(more).then(a.cmp(b)));
    let rest: u64 = all.iter().skip(MOST).map(|(_, count)| count).sum();
    all.truncate(MOST);
    if rest > 0 {
        all.push(("others".into(), rest));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.18 writes them, into its own log and by auditd.
    const RECORDS: &str = r#"6,1,5,-;audit: type=1423 audit(1796096005.627:4299): domain=1ee304f58 blockers=fs.write_file path="/etc/old" dev="vda" ino=1
6,1,5,-;audit: type=1424 audit(1796096005.627:4299): domain=1ee304f58 status=allocated mode=enforcing pid=14990 uid=0 exe="/bin/a" comm="a"
6,1,5,-;audit: type=1424 audit(1796096005.679:4301): domain=1ee304f58 status=deallocated denials=1
type=LANDLOCK_ACCESS msg=audit(1796096006.1:1): domain=2aa blockers=fs.write_file path="/etc/passwd" dev="vda" ino=2
type=LANDLOCK_DOMAIN msg=audit(1796096006.1:1): domain=2aa status=allocated mode=enforcing pid=14990 uid=0 exe="/bin/b" comm="b"
type=LANDLOCK_ACCESS msg=audit(1796096006.2:2): domain=2aa blockers=fs.write_file path="/etc/passwd" dev="vda" ino=2
type=LANDLOCK_ACCESS msg=audit(1796096006.3:3): domain=2aa blockers=net.connect_tcp daddr=10.0.0.1 dest=80
type=LANDLOCK_ACCESS msg=audit(1796096006.3:3): domain=3bb blockers=fs.write_file path="/other" dev="vda" ino=3
"#;

    #[test]
    fn records_of_a_process() {
        let of = |pid| count(RECORDS, &BTreeSet::from([pid]));
        assert_eq!(
            of(14990),
            [
                ("fs.write_file /etc/passwd".to_owned(), 2),
                ("net.connect_tcp 80".to_owned(), 1)
            ]
        );
        assert_eq!(of(1), []);
    }
}
