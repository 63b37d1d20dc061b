//! The side of the command line.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::names::{self, Names};
use crate::sys::socket;

use super::{Answer, Ask, Container, DIRECTORY, Error, Pod, docker, remove_dead, socket_of, sweep};

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
    Ok(ask_all(pids()))
}

/// The pods of those of these shims that live, by their pids.
pub fn ask_all(pids: Vec<u32>) -> Vec<Found> {
    let (sender, receiver) = mpsc::channel();
    for pid in pids {
        let sender = sender.clone();
        // One that hangs delays no other.
        std::thread::spawn(move || {
            let mut pod = ask::<Pod>(pid, &Ask::State);
            match &mut pod {
                Ok(pod) => name_as_docker_does(pod),
                // Nobody listens: the shim is dead, and its pid perhaps another process's.
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    return remove_dead(&socket_of(pid));
                }
                Err(_) => {}
            }
            sender.send(Found { pid, pod }).ok();
        });
    }
    drop(sender);
    let mut found: Vec<Found> = receiver.iter().collect();
    found.sort_by_key(|f| f.pid);
    found
}

fn name_as_docker_does(pod: &mut Pod) {
    if pod.namespace == docker::NAMESPACE {
        for container in &mut pod.containers {
            container.names.container = docker::name(&container.id, &container.bundle);
        }
    }
}

/// What a name stands for.
#[derive(Debug)]
pub struct Target {
    /// The pod.
    pub pod: Pod,
    /// The id of one of its containers; none where the pod is meant.
    pub container: Option<String>,
}

impl Target {
    /// The containers that are meant.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        let is_meant = |c: &&Container| self.container.as_ref().is_none_or(|id| c.id == *id);
        self.pod.containers.iter().filter(is_meant)
    }

    /// The only container that is meant, beside the sandbox's.
    ///
    /// # Errors
    /// There are others.
    pub fn one(&self, name: &str) -> Result<&Container, Error> {
        let all: Vec<_> = self.containers().collect();
        let mut own = all.iter().filter(|c| !c.is_sandbox());
        match (own.next(), own.next(), all.as_slice()) {
            (Some(one), None, _) | (None, _, [one]) => Ok(one),
            _ => Err(Error::Ambiguous {
                name: name.to_owned(),
                could_be: all
                    .iter()
                    .map(|c| Self::title(&self.pod, Some(c)))
                    .collect(),
            }),
        }
    }

    /// For people: its names, and its id.
    fn title(pod: &Pod, container: Option<&Container>) -> String {
        let (title, id) = match container {
            Some(c) => (format!("{}/{}", pod.title(), c.title()), &c.id),
            None => (pod.title(), &pod.id),
        };
        format!("{title} ({})", names::short(id))
    }
}

/// Of a pod that a name may stand for: the number of a container, or none for the pod itself.
type Meant = Option<usize>;

/// How a name is meant, the surest first: of the first kind that any pod has, all pods' count.
const KINDS: [fn(&Pod, &str) -> Vec<Meant>; 4] = [
    // A whole id, or the shim's pid. The first container of a pod has the pod's id.
    |pod, name| {
        let is_pod = pod.id == name || pod.pid.to_string() == name;
        found(pod, is_pod, |c| c.id == name)
    },
    |pod, name| {
        let is_pod =
            |n: &Names| n.of_pod().as_deref() == Some(name) || n.pod.as_deref() == Some(name);
        let named =
            pod.containers.iter().any(|c| is_pod(&c.names)) || pod.name().as_deref() == Some(name);
        found(pod, named, |_| false)
    },
    |pod, name| {
        found(pod, false, |c| {
            let Some(container) = name.strip_suffix(c.title()) else {
                return false;
            };
            match container.strip_suffix('/') {
                Some(of) => {
                    c.names.of_pod().as_deref() == Some(of) || c.names.pod.as_deref() == Some(of)
                }
                None => container.is_empty(),
            }
        })
    },
    // The beginning of an id.
    |pod, name| {
        let begins = |id: &str| !name.is_empty() && id.starts_with(name);
        found(pod, begins(&pod.id), |c| begins(&c.id))
    },
];

/// The pod, or those of its containers that are meant.
fn found(pod: &Pod, is_pod: bool, is_meant: impl Fn(&Container) -> bool) -> Vec<Meant> {
    if is_pod {
        return vec![None];
    }
    let all = pod.containers.iter().enumerate();
    all.filter(|(_, c)| is_meant(c))
        .map(|(i, _)| Some(i))
        .collect()
}

/// What `name` stands for: `NAMESPACE/POD`, `POD`, `NAMESPACE/POD/CONTAINER`, `POD/CONTAINER`, `CONTAINER`, an id of a pod or of a
/// container, the beginning of one, or the shim's pid.
pub fn find(name: &str) -> Result<Target, Error> {
    let mut silent = Vec::new();
    let mut all = Vec::new();
    for found in pods()? {
        match found.pod {
            Ok(pod) => all.push(pod),
            Err(why) => silent.push(format!("shim {} {why}", found.pid)),
        }
    }
    if let Some(target) = choose(&mut all, name)? {
        return Ok(target);
    }
    let name = name.to_owned();
    if !silent.is_empty() {
        let silent = silent.join("; ");
        return Err(Error::NotAmongAnswers { name, silent });
    }
    let like = like(&all, &name);
    Err(Error::NotFound { name, like })
}

/// The one target that a name stands for.
fn choose(all: &mut Vec<Pod>, name: &str) -> Result<Option<Target>, Error> {
    for kind in KINDS {
        let of = |(at, pod): (usize, &Pod)| {
            let meant = kind(pod, name).into_iter();
            meant.map(|container| (at, container)).collect::<Vec<_>>()
        };
        let found: Vec<_> = all.iter().enumerate().flat_map(of).collect();
        match found.as_slice() {
            [] => {}
            [(at, container)] => {
                let pod = all.swap_remove(*at);
                let container = container.and_then(|c| pod.containers.get(c));
                let container = container.map(|c| c.id.clone());
                return Ok(Some(Target { pod, container }));
            }
            several => {
                let title = |(at, container): &(usize, Meant)| {
                    let pod = all.get(*at)?;
                    let container = container.and_then(|c| pod.containers.get(c));
                    Some(Target::title(pod, container))
                };
                return Err(Error::Ambiguous {
                    name: name.to_owned(),
                    could_be: several.iter().filter_map(title).collect(),
                });
            }
        }
    }
    Ok(None)
}

/// A name that somebody may have mistyped.
fn like(all: &[Pod], name: &str) -> Option<String> {
    let names = all.iter().flat_map(|pod| {
        let of_pod = pod.containers.iter().filter_map(|c| c.names.pod.clone());
        let containers = pod
            .containers
            .iter()
            .filter_map(|c| c.names.container.clone());
        of_pod.chain(containers).chain(pod.name())
    });
    let near = names.map(|known| (strsim::jaro_winkler(&known, name), known));
    let best = near.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.85).then_some(best.1)
}

#[cfg(test)]
mod tests;
