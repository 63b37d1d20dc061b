//! Who may talk to a shim: the node's own user that the shim runs as. A container's root is that user too, where it has the node's
//! users, but never in the node's own namespaces of processes.

use std::os::fd::BorrowedFd;

use crate::procfs::namespace;
use crate::sys::process::start_time;
use crate::sys::socket;

/// Whether a process runs as our user, in our user and pid namespaces; or who it is, for people.
fn check((uid, pid): (u32, i32)) -> Result<(), String> {
    if uid != nix::unistd::geteuid().as_raw() {
        return Err(format!("user {uid}"));
    }
    for file in ["pid", "user"] {
        let theirs = namespace(pid, file).map_err(|e| format!("process {pid}: {e}"))?;
        let ours = namespace("self", file).map_err(|e| e.to_string())?;
        if theirs != ours {
            return Err(format!("process {pid}, of another {file} namespace"));
        }
    }
    Ok(())
}

/// Whether a connection is the node's own. Who else comes is a line in the log, but for who has left already: `start` connects to find
/// out whether we are there.
pub fn is_ours(stream: BorrowedFd<'_>) -> bool {
    let checked = match socket::peer(stream) {
        Ok((_, pid)) if start_time(pid).is_none() => return false,
        Ok(peer) => check(peer),
        Err(e) => Err(e.desc().to_owned()),
    };
    if let Err(peer) = &checked {
        log::warn!(peer; "refused a connection");
    }
    checked.is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn our_own_process_may_talk() {
        let (a, _b) = UnixStream::pair().unwrap();
        let peer = crate::sys::socket::peer(a.as_fd()).unwrap();
        super::check(peer).unwrap();
    }
}
