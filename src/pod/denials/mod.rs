//! What the filters of a container deny: seen, answered, logged and counted.
//!
//! A denied call waits in the kernel until the shim answers with the error that the filter would have given. While nothing is
//! denied nobody runs for it; then a thread of its own ([`answering`]) answers those calls that wait, and ends. All containers of a pod
//! share one thread at a time, and nobody sleeps in it: whatever a container does, it waits for us and not we for it. What it can
//! cost is bounded by [`ANSWERS`].

mod pace;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::sync::Semaphore;

use super::{Isolation, answering, lock};
use crate::control;
use crate::executor::NotifyHandler;
use crate::seccomp::{Call, Judgement, NotifyingFilter, Verdict};
use crate::sys::notify::{self, Notification, Readiness};
use crate::sys::process;
use pace::{Count, Rate, TokenBucket};

/// Denied calls a second that are answered at once; more have to wait.
const ANSWERS: Rate = Rate {
    burst: 2000.0,
    per_second: 2000.0,
};
/// Lines in the log, of all calls.
const LOG_LINES: Rate = Rate {
    burst: 20.0,
    per_second: 1.0,
};
/// How many calls are answered before others have their turn.
const AT_ONCE: usize = 64;
/// The shortest pause of a container that is too fast.
const PAUSE: Duration = Duration::from_millis(10);
/// Calls that are counted one by one.
const MAX_COUNTS: usize = 1000;
/// Bytes of a path or an address that are shown.
const SHOWN: usize = 256;

type Key = (String, String, &'static str);

#[derive(Debug)]
struct State {
    counts: BTreeMap<Key, Count>,
    lines: TokenBucket,
    pace: TokenBucket,
}

impl State {
    fn count(&mut self, key: Key) -> &mut Count {
        // Numbers that have no names come from whoever calls.
        let is_counted = self.counts.len() < MAX_COUNTS || self.counts.contains_key(&key);
        let key = if is_counted {
            key
        } else {
            ("others".into(), key.1, key.2)
        };
        let new = || Count::new(Instant::now());
        self.counts.entry(key).or_insert_with(new)
    }
}

/// What comes after some answers.
enum Next {
    /// More of them.
    More,
    /// Nobody asks for now.
    Wait,
    /// The container has asked too often.
    Pause(Duration),
    /// Nobody will ever ask.
    End,
}

/// The denials of one container, its execs' among them.
#[derive(Debug)]
pub(super) struct Denials {
    id: String,
    isolation: Arc<Isolation>,
    filter: Arc<NotifyingFilter>,
    /// Held by who answers, for the whole pod.
    turn: Arc<Semaphore>,
    state: Mutex<State>,
}

impl Denials {
    pub(crate) fn new(
        id: &str,
        isolation: Arc<Isolation>,
        filter: Arc<NotifyingFilter>,
        turn: Arc<Semaphore>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: id.to_owned(),
            isolation,
            filter,
            turn,
            state: Mutex::new(State {
                counts: BTreeMap::new(),
                lines: TokenBucket::new(LOG_LINES),
                pace: TokenBucket::new(ANSWERS),
            }),
        })
    }

    /// For the executor: the filter, and who is asked. `exec` is the exec's id, empty for the init.
    pub(crate) fn watcher(self: &Arc<Self>, exec: &str) -> NotifyHandler {
        let (this, exec) = (self.clone(), exec.to_owned());
        let handle = tokio::runtime::Handle::current();
        NotifyHandler {
            program: self.filter.program.clone(),
            adopt: Arc::new(move |fd| {
                handle.spawn(this.clone().serve(fd, exec.clone()));
            }),
        }
    }

    /// How often which rule denied what.
    pub(crate) fn counts(&self) -> Vec<control::Denials> {
        let state = lock(&self.state);
        let count = |((call, rule, what), count): (&Key, &Count)| control::Denials {
            call: call.clone(),
            rule: rule.clone(),
            what: (*what).to_owned(),
            count: count.all,
        };
        state.counts.iter().map(count).collect()
    }

    /// Answers until the last process with the filter is gone.
    async fn serve(self: Arc<Self>, fd: OwnedFd, exec: String) {
        let Ok(listener) = crate::sys::reactor::register(fd, Interest::READABLE) else {
            // Without us the kernel denies, with ENOSYS.
            log::error!(id:% = self.id, exec:%; "denials cannot be watched");
            return;
        };
        let listener = Arc::new(listener);
        loop {
            let Ok(mut ready) = listener.readable().await else {
                return;
            };
            let Ok(turn) = self.turn.clone().acquire_owned().await else {
                return;
            };
            let (this, fd, exec) = (self.clone(), listener.clone(), exec.clone());
            let answered = answering::run(move || this.answer_some(fd.as_fd(), &exec)).await;
            drop(turn);
            match answered.unwrap_or(Next::Pause(PAUSE)) {
                Next::End => return,
                Next::More => {}
                Next::Wait => ready.clear_ready(),
                // Before a call is taken: the process can be killed while it waits.
                Next::Pause(wait) => tokio::time::sleep(wait.max(PAUSE)).await,
            }
        }
    }

    /// Answers the calls that wait, never waiting itself.
    fn answer_some(&self, listener: BorrowedFd<'_>, exec: &str) -> Next {
        for _ in 0..AT_ONCE {
            match notify::wait(listener, 0) {
                Readiness::Nothing => return Next::Wait,
                Readiness::Gone => return Next::End,
                Readiness::Call => {}
            }
            let wait = lock(&self.state).pace.take();
            if let Err(wait) = wait {
                return Next::Pause(wait);
            }
            if let Ok(notification) = notify::receive(listener) {
                self.answer(listener, &notification, exec);
            }
        }
        Next::More
    }

    fn answer(&self, listener: BorrowedFd<'_>, notification: &Notification, exec: &str) {
        let call = Call {
            arch: notification.arch,
            number: notification.number.cast_unsigned(),
            args: notification.args,
        };
        let judgement = self.filter.judge(&call);
        let name = call.name();
        let rule = self.rule(judgement, &name);
        let what = if matches!(judgement.verdict, Verdict::Allow | Verdict::Audit) {
            "audited"
        } else {
            "denied"
        };
        let key = (name.clone(), rule.clone(), what);
        // Read before the answer: then the process goes on, and its memory with it.
        let details = self
            .may_log(&key)
            .then(|| details(listener, notification, &name));
        let answered = match judgement.verdict {
            // What was asked about and is allowed after all is to be recorded, no more.
            Verdict::Allow | Verdict::Audit => notify::let_through(listener, notification.id),
            Verdict::Errno(errno) => notify::deny(listener, notification.id, errno),
            Verdict::Kill => {
                if let Ok(process) = process::pidfd_open(notification.pid.cast_signed())
                    && notify::is_waiting(listener, notification.id)
                {
                    process::pidfd_send_signal(process.as_fd(), libc::SIGKILL).ok();
                }
                notify::deny(listener, notification.id, libc::EPERM)
            }
        };
        if answered.is_err() {
            return; // the process was killed meanwhile
        }
        let (count, unlogged) = {
            let mut state = lock(&self.state);
            let count = state.count(key);
            count.all += 1;
            if details.is_none() {
                count.unlogged += 1;
                return;
            }
            (count.all, count.logged(Instant::now()))
        };
        let mut line: Vec<(&str, String)> = vec![
            ("id", self.id.clone()),
            ("exec", exec.to_owned()),
            ("pid", notification.pid.to_string()),
            ("call", name),
        ];
        if let Verdict::Errno(errno) = judgement.verdict {
            let errno = nix::errno::Errno::from_raw(errno);
            line.push(("errno", format!("{errno:?}")));
        }
        line.extend(details.unwrap_or_default());
        line.push(("rule", rule));
        line.push(("count", count.to_string()));
        line.push(("unlogged", unlogged.to_string()));
        log::logger().log(
            &log::Record::builder()
                .level(log::Level::Warn)
                .target(module_path!())
                .key_values(&line)
                .args(format_args!("{what}"))
                .build(),
        );
    }

    /// Whose rule it is, for people.
    fn rule(&self, judgement: Judgement, call: &str) -> String {
        if judgement.by_floor {
            let key = self.isolation.seccomp_key(call);
            format!("profile {}: {key}", self.isolation.name())
        } else {
            "pod: linux.seccomp".into()
        }
    }

    fn may_log(&self, key: &Key) -> bool {
        let mut state = lock(&self.state);
        state.count(key.clone()).is_news(Instant::now()) && state.lines.take().is_ok()
    }

    /// The end: what had no line is summed up in one. Returns how many calls were denied.
    pub(crate) fn sum_up(&self) -> u64 {
        let state = lock(&self.state);
        let silent: u64 = state.counts.values().map(|c| c.unlogged).sum();
        if silent > 0 {
            let mut all: Vec<_> = state.counts.iter().collect();
            all.sort_by_key(|(_, count)| std::cmp::Reverse(count.all));
            let one = |((call, ..), count): &(&Key, &Count)| format!("{call} {}", count.all);
            let calls: Vec<String> = all.iter().take(8).map(one).collect();
            log::warn!(id:% = self.id, calls:% = calls.join(", "), unlogged:% = silent; "denied in all");
        }
        let denied = state
            .counts
            .iter()
            .filter(|((.., what), _)| *what == "denied");
        denied.map(|(_, count)| count.all).sum()
    }
}

/// Keys and values for the log.
type Details = Vec<(&'static str, String)>;

/// The name of the process, and of the call's arguments those that matter, as they were while it waited.
fn details(listener: BorrowedFd<'_>, notification: &Notification, name: &str) -> Details {
    let comm = crate::procfs::read(format!("/proc/{}/comm", notification.pid));
    let comm = comm.unwrap_or_default();
    let [a, b, c, ..] = notification.args;
    let text = |address: u64| {
        let mut buffer = [0u8; SHOWN];
        let read = notify::read_memory(notification.pid, address, &mut buffer).unwrap_or(0);
        let bytes = buffer.get(..read).unwrap_or_default();
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
    };
    let shown = match name {
        "mount" => vec![("source", text(a)), ("target", text(b)), ("type", text(c))],
        "chroot" | "umount" | "umount2" | "swapon" | "acct" | "execve" | "open" | "unlink"
        | "mkdir" | "rmdir" | "chmod" | "chown" | "mknod" | "creat" | "truncate" => {
            vec![("path", text(a))]
        }
        "openat" | "openat2" | "open_tree" | "mknodat" | "unlinkat" | "mkdirat" | "fchmodat"
        | "execveat" | "name_to_handle_at" | "mount_setattr" | "fspick" => {
            vec![("path", text(b))]
        }
        "pivot_root" | "rename" | "link" | "symlink" => vec![("path", text(a)), ("to", text(b))],
        "add_key" | "request_key" | "fsopen" | "mq_open" => vec![("name", text(a))],
        "clone" | "unshare" => vec![("flags", flags(a))],
        "setns" => vec![("flags", flags(b))],
        "socket" | "socketpair" => vec![
            ("family", a.to_string()),
            ("type", b.to_string()),
            ("protocol", c.to_string()),
        ],
        "ptrace" => vec![("request", format!("{a:#x}")), ("pid", b.to_string())],
        "ioctl" => vec![("request", format!("{b:#x}"))],
        "connect" | "bind" => vec![("address", address(notification.pid, b, c))],
        _ => vec![("args", format!("{a:#x},{b:#x},{c:#x}"))],
    };
    // Another process may have the pid by now; then what was read is that one's.
    if notify::is_waiting(listener, notification.id) {
        let comm = comm.trim_end_matches('\n').to_owned();
        std::iter::once(("comm", comm)).chain(shown).collect()
    } else {
        Vec::new()
    }
}

/// The namespaces among the flags of `clone(2)`.
fn flags(flags: u64) -> String {
    let names = [
        (libc::CLONE_NEWNS, "CLONE_NEWNS"),
        (libc::CLONE_NEWUSER, "CLONE_NEWUSER"),
        (libc::CLONE_NEWPID, "CLONE_NEWPID"),
        (libc::CLONE_NEWNET, "CLONE_NEWNET"),
        (libc::CLONE_NEWIPC, "CLONE_NEWIPC"),
        (libc::CLONE_NEWUTS, "CLONE_NEWUTS"),
        (libc::CLONE_NEWCGROUP, "CLONE_NEWCGROUP"),
    ];
    let set: Vec<&str> = names
        .iter()
        .filter(|(bit, _)| flags & u64::from(bit.cast_unsigned()) != 0)
        .map(|(_, name)| *name)
        .collect();
    if set.is_empty() {
        format!("{flags:#x}")
    } else {
        set.join("|")
    }
}

/// A socket's address: a family, and what people call it.
fn address(pid: u32, address: u64, length: u64) -> String {
    let mut buffer = [0u8; 128];
    let length = usize::try_from(length).map_or(buffer.len(), |n| n.min(buffer.len()));
    let read = buffer
        .get_mut(..length)
        .and_then(|b| notify::read_memory(pid, address, b).ok());
    let bytes = buffer.get(..read.unwrap_or(0)).unwrap_or_default();
    match bytes {
        [2, 0, p0, p1, a, b, c, d, ..] => {
            format!("{a}.{b}.{c}.{d}:{}", u16::from_be_bytes([*p0, *p1]))
        }
        [1, 0, 0, name @ ..] => format!("@{}", String::from_utf8_lossy(name)),
        [1, 0, path @ ..] => {
            let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
            String::from_utf8_lossy(path.get(..end).unwrap_or_default()).into_owned()
        }
        [family, ..] => format!("family {family}"),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests;
