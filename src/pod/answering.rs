//! The thread that answers denied calls: what a container says is looked at where least can be done.
//!
//! A filter of its own (`seccomp(2)`, which is a thread's) leaves it what answering takes: to read files and the memory of the process that
//! waits, to answer it, to kill it, and to log. It shares its memory with the rest of the shim, so this raises the bar and is no wall.

use std::sync::{Arc, OnceLock};

use serde_json::json;

use crate::seccomp::{self, Program};
use crate::sys::confine::seccomp_set_filter;

/// Bytes of stack: a path of 256 bytes and a line for the log.
const STACK: usize = 128 * 1024;

/// What everything takes: memory without execution, locks, the thread's end.
const PLAIN: [&str; 25] = [
    "brk",
    "clock_gettime",
    "clock_nanosleep",
    "close",
    "exit",
    "fstat",
    "futex",
    "getpid",
    "getrandom",
    "gettid",
    "lseek",
    "madvise",
    "munmap",
    "newfstatat",
    "poll",
    "ppoll",
    "read",
    "rseq",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_yield",
    "set_robust_list",
    "sigaltstack",
    "statx",
    "write",
];
/// What answering takes beside it.
const ANSWERING: [&str; 3] = ["process_vm_readv", "pidfd_open", "pidfd_send_signal"];

/// `_IOC` of `SECCOMP_IOCTL_NOTIF_RECV`, `_SEND` and `_ID_VALID`: `linux/seccomp.h`.
const NOTIFY: [u32; 3] = [0xc050_2100, 0xc018_2101, 0x4008_2102];

/// Compiled once; none where this machine's calls have other numbers than the compiler knows.
fn filter() -> Option<&'static Arc<Program>> {
    static FILTER: OnceLock<Option<Arc<Program>>> = OnceLock::new();
    let compile = || {
        let allow = |names: &[&str]| json!({ "names": names, "action": "SCMP_ACT_ALLOW" });
        let allow_if = |name: &str, index: u32, mask: u64, value: u64| {
            json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [
                { "index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" }
            ] })
        };
        let mut rules = vec![allow(&PLAIN), allow(&ANSWERING)];
        rules.extend(NOTIFY.map(|n| allow_if("ioctl", 1, 0xffff_ffff, n.into())));
        // Files to read, nothing to make: neither O_WRONLY and O_RDWR nor O_CREAT and O_TRUNC.
        let writes = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
        rules.push(allow_if("openat", 2, u64::from(writes.cast_unsigned()), 0));
        for call in ["mmap", "mprotect"] {
            rules.push(allow_if(
                call,
                2,
                u64::from(libc::PROT_EXEC.cast_unsigned()),
                0,
            ));
        }
        let filter = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::EPERM, "syscalls": rules
        });
        let filter = serde_json::from_value(filter).ok()?;
        seccomp::compile(&filter).ok().map(Arc::new)
    };
    FILTER.get_or_init(compile).as_ref()
}

/// Runs `answer` on a thread of its own, under the filter. `None` where there is no thread to be had for now.
pub(super) async fn run<T: Send + 'static>(
    answer: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().stack_size(STACK);
    let spawned = thread.spawn(move || {
        if let Some(filter) = filter()
            && let Err(e) = seccomp_set_filter(&filter.insns, filter.flags)
        {
            log::warn!(error:% = e.desc(); "denied calls are answered without a filter");
        }
        sender.send(answer()).ok();
    });
    spawned.ok()?;
    receiver.await.ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    #[test]
    fn answering_can_read_and_log_and_no_more() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let tried = runtime.block_on(super::run(|| {
            let read = crate::procfs::read("/proc/self/comm").is_ok();
            let text = format!("{:?}", vec![1u8; 100_000].len());
            let made = fs::write("/tmp/cdtest-answering", "x").is_err();
            let executed = std::process::Command::new("/bin/true").spawn().is_err();
            let connected = std::net::TcpListener::bind("127.0.0.1:0").is_err();
            (read, text, made, executed, connected)
        }));
        if nix::unistd::geteuid().is_root() {
            assert_eq!(tried, Some((true, "100000".into(), true, true, true)));
        }
    }
}
