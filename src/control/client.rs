//! The side of the command line.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::sys::socket;

use super::{Answer, Ask, Container, DIRECTORY, Error, Pod, socket_of, sweep};

/// A shim that has not answered by then is shown as one that does not.
const WITHIN: Duration = Duration::from_millis(900);

/// A shim, and what it told.
#[derive(Debug)]
pub struct Found {
    /// Its pid.
    pub pid: u32,
    /// Its answer, or what became of the question.
    pub pod: Result<Pod, Error>,
}

/// Asks one shim.
pub fn ask<T: DeserializeOwned>(pid: u32, question: &Ask) -> Result<T, Error> {
    let answer = exchange(pid, question).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Late(WITHIN),
        _ => Error::Io(e),
    })?;
    match answer {
        Answer::Ok(value) => serde_json::from_value(value).map_err(Error::Unknown),
        Answer::Error(why) => Err(Error::Refused(why)),
    }
}

fn exchange(pid: u32, question: &Ask) -> io::Result<Answer> {
    let end = Instant::now() + WITHIN;
    let mut stream = connect(&socket_of(pid))?;
    stream.set_write_timeout(Some(WITHIN))?;
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let (mut answer, mut buffer) = (Vec::new(), [0u8; 16 * 1024]);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => break,
            n => answer.extend(buffer.iter().take(n)),
        }
    }
    if answer.is_empty() {
        return Err(io::Error::other("the shim hung up"));
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// A connection, or `EAGAIN` where nobody takes it: a shim that hangs has a queue that is full some day.
fn connect(path: &Path) -> io::Result<UnixStream> {
    Ok(UnixStream::from(socket::connect_at_once(path)?))
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    let pid = |e: fs::DirEntry| e.file_name().to_str()?.strip_suffix(".sock")?.parse().ok();
    let mut pids: Vec<u32> = entries.filter_map(pid).collect();
    pids.sort_unstable();
    pids
}

/// Every pod of this node, by their shims' pids. The sockets of dead shims are removed.
///
/// # Errors
/// The caller is not root, to whom there would seem to be none.
pub fn pods() -> Result<Vec<Found>, Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    sweep();
    let pids = pids();
    let (sender, receiver) = mpsc::channel();
    for pid in pids {
        let sender = sender.clone();
        // One that hangs delays no other.
        std::thread::spawn(move || {
            let pod = ask::<Pod>(pid, &Ask::State);
            sender.send(Found { pid, pod }).ok();
        });
    }
    drop(sender);
    let mut found: Vec<Found> = receiver.iter().collect();
    found.sort_by_key(|f| f.pid);
    Ok(found)
}

/// The pod that `name` stands for: its id, a container's, the beginning of one of these, or the shim's pid.
pub fn find(name: &str) -> Result<Pod, Error> {
    let all = pods()?;
    let mut silent = Vec::new();
    let (mut exact, mut begin) = (Vec::new(), Vec::new());
    for found in all {
        match found.pod {
            Ok(pod) => {
                let ids = || pod.containers.iter().map(|c| &c.id).chain([&pod.id]);
                if ids().any(|id| id == name) || pod.pid.to_string() == name {
                    exact.push(pod);
                } else if !name.is_empty() && ids().any(|id| id.starts_with(name)) {
                    begin.push(pod);
                }
            }
            Err(why) => silent.push(format!("shim {} {why}", found.pid)),
        }
    }
    let mut found = if exact.is_empty() { begin } else { exact };
    match (found.pop(), found.is_empty()) {
        (Some(pod), true) => Ok(pod),
        (Some(_), false) => Err(Error::Ambiguous {
            name: name.to_owned(),
            count: found.len() + 1,
        }),
        (None, _) if silent.is_empty() => Err(Error::NotFound(name.to_owned())),
        (None, _) => Err(Error::NotAmongAnswers {
            name: name.to_owned(),
            silent: silent.join("; "),
        }),
    }
}

/// The containers of a pod that `name` stands for: all where it is the pod's id.
pub fn find_container<'a>(pod: &'a Pod, name: &str) -> Vec<&'a Container> {
    let of = |named: &dyn Fn(&str) -> bool| -> Vec<&'a Container> {
        pod.containers.iter().filter(|c| named(&c.id)).collect()
    };
    let everything = || of(&|_| true);
    // The first container of a pod has the pod's id.
    if pod.id.starts_with(name) || pod.pid.to_string() == name {
        return everything();
    }
    let own = of(&|id| id == name);
    if own.is_empty() {
        of(&|id| id.starts_with(name))
    } else {
        own
    }
}
