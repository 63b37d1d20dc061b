//! Who may talk to a shim: the node's own user that the shim runs as. A container's root is that user too, where it has the node's
//! users, but never in the node's own namespaces of processes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use crate::sys::socket;

/// Whether the process at the other end of a connection runs as our user, in our user and pid namespaces; or who it is, for people.
fn check(stream: impl AsFd) -> Result<(), String> {
    let (uid, pid) = socket::peer(stream.as_fd()).map_err(|e| e.desc().to_owned())?;
    if uid != nix::unistd::geteuid().as_raw() {
        return Err(format!("user {uid}"));
    }
    for namespace in ["pid", "user"] {
        let of = |pid: &str| -> io::Result<(u64, u64)> {
            let metadata = std::fs::metadata(format!("/proc/{pid}/ns/{namespace}"))?;
            Ok((metadata.dev(), metadata.ino()))
        };
        let theirs = of(&pid.to_string()).map_err(|e| format!("process {pid}: {e}"))?;
        let ours = of("self").map_err(|e| e.to_string())?;
        if theirs != ours {
            return Err(format!("process {pid}, of another {namespace} namespace"));
        }
    }
    Ok(())
}

/// Whether a connection is the node's own. Who else comes is a line in the log, but for who has left already: `start` connects to find
/// out whether we are there.
pub fn is_ours(stream: BorrowedFd<'_>) -> bool {
    let peer = socket::peer(stream);
    if peer.is_ok_and(|(_, pid)| crate::sys::process::start_time(pid).is_none()) {
        return false;
    }
    let checked = check(stream);
    if let Err(peer) = &checked {
        log::warn!(peer; "refused a connection");
    }
    checked.is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    #[test]
    fn our_own_process_may_talk() {
        let (a, _b) = UnixStream::pair().unwrap();
        super::check(&a).unwrap();
    }
}
