//! `start`: finds the pod's server or starts it, and says where it listens.

use std::collections::HashMap;
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use containerd_shim::{Flags, StartOpts};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde::Deserialize;

use super::dialect::{Environment, Params};
use super::{Error, Result, SERVE, STANDARD, write_out};
use crate::control;
use crate::files::private_directory;
use crate::sealed;
use crate::sys::socket;
use crate::trace;

/// The sandbox of a container of CRI, which containerd writes there itself.
const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";
/// Which containers share a shim, where their client says so; containerd `cmd/containerd-shim-runc-v2/manager`. It may be a
/// pod's own annotation, so it counts in the class that restricts nothing only.
const GROUP: &str = "io.containerd.runc.v2.group";
const MAX_INPUT: u64 = 10 << 20;
/// Prefix of the server's socket argument; the number of an inherited descriptor follows.
pub(super) const LISTENER: &str = "fd:";

pub(super) fn run(name: &str, flags: &Flags) -> Result<()> {
    trace::beginning("execve of start");
    let _trace = trace::span("start");
    let env = |key: &str| std::env::var(key).unwrap_or_default();
    let environment = Environment {
        ttrpc_address: env("TTRPC_ADDRESS"),
        grpc_address: env("GRPC_ADDRESS"),
    };
    let params = Params::parse(&read_input()?, flags, environment)?;
    let profile = super::profile(name);
    let group = group(Path::new("config.json"), profile)?.unwrap_or_else(|| params.id.clone());
    for id in [&params.id, &group] {
        crate::id::check(id).map_err(|e| Error::Other(e.to_string()))?;
    }
    let opts = StartOpts {
        id: params.id.clone(),
        address: params.grpc_address.clone(),
        namespace: params.namespace.clone(),
        socket_dir: params.socket_dir.clone(),
        ..StartOpts::default()
    };
    // A pod is found by its class as well: none can be put into the shim of another one.
    let address = opts.socket_address(&match profile {
        STANDARD => group.clone(),
        class => format!("{group}\0{class}"),
    });
    let socket = socket_path(&address);
    control::note_socket(socket);
    let started = listen(socket).and_then(|listener| {
        let Some(listener) = listener else {
            return Ok(None);
        };
        let server = spawn(name, &params, &group, listener);
        server.map(Some).inspect_err(|_| {
            fs::remove_file(socket).ok();
        })
    });
    match started {
        Ok(Some(server)) => control::hand_note_over(server),
        Ok(None) => control::remove_note(),
        Err(e) => {
            control::remove_note();
            return Err(e);
        }
    }
    // containerd 1.x finds us again by this file after its own restart.
    fs::write("address", &address)
        .map_err(Error::io("write the file \"address\" into the bundle"))?;
    write_out(&params.reply(&address)?)
}

fn read_input() -> Result<Vec<u8>> {
    let mut input = Vec::new();
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        stdin
            .lock()
            .take(MAX_INPUT)
            .read_to_end(&mut input)
            .map_err(Error::io("read standard input"))?;
    }
    Ok(input)
}

/// The group that the bundle belongs to. There is no `config.json` where containerd starts a sandbox without a container;
/// and a broken one is reported by Create, with the place of the error.
fn group(config: &Path, profile: &str) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Annotated {
        #[serde(default)]
        annotations: HashMap<String, String>,
    }
    let spec = || -> Option<Annotated> { serde_json::from_slice(&fs::read(config).ok()?).ok() };
    let Some(spec) = spec() else { return Ok(None) };
    let get = |key| spec.annotations.get(key).filter(|g| !g.is_empty()).cloned();
    let asked = get(GROUP);
    if let (Some(group), true) = (&asked, profile != STANDARD) {
        return Err(Error::Other(format!(
            "profile {profile:?} refuses the annotation {GROUP} = {group:?}: remove it; the containers of a Kubernetes pod share a shim without it"
        )));
    }
    Ok(get(SANDBOX).or(asked))
}

pub(super) fn socket_path(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix://").unwrap_or(address))
}

/// A listener on `path`, or `None` where the group's server listens there already.
fn listen(path: &Path) -> Result<Option<UnixListener>> {
    if path.as_os_str().len() > 107 {
        return Err(Error::Other(format!(
            "{}: longer than the 107 bytes that a socket's path may have",
            path.display()
        )));
    }
    if let Some(dir) = path.parent() {
        private_directory(dir).map_err(Error::io(format!("create {}", dir.display())))?;
    }
    for _ in 0..2 {
        match socket::listen_privately(path) {
            Ok(listener) => return Ok(Some(listener)),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                match socket::connect_at_once(path) {
                    // A full queue is a server's, too.
                    Ok(_) | Err(Errno::EAGAIN) => return Ok(None),
                    // Left behind by a server that was killed, or from before a reboot.
                    Err(_) => fs::remove_file(path).ok(),
                };
            }
            Err(e) => return Err(Error::Io(format!("listen on {}", path.display()), e)),
        }
    }
    Err(Error::Other(format!(
        "{}: taken by a server that does not answer",
        path.display()
    )))
}

/// Starts the server as a detached process that holds none of our streams open: containerd reads our output to its end. Returns its
/// pid.
fn spawn(name: &str, params: &Params, group: &str, listener: UnixListener) -> Result<u32> {
    let sealing = trace::span("seal the program");
    let program = sealed::program().map_err(Error::io("seal the shim's program"))?;
    drop(sealing);
    let _trace = trace::span("spawn the server");
    let mut command = Command::new(PathBuf::from(format!(
        "/proc/self/fd/{}",
        program.as_fd().as_raw_fd()
    )));
    command
        .arg0(name)
        .args([
            "-namespace",
            &params.namespace,
            "-id",
            group,
            "-address",
            &params.grpc_address,
        ])
        .arg("-socket")
        .arg(format!("{LISTENER}{}", listener.as_raw_fd()))
        .args(params.debug.then_some("-debug"))
        .arg(SERVE)
        .env_clear()
        .env("TTRPC_ADDRESS", &params.ttrpc_address)
        .envs(
            std::env::vars_os()
                .filter(|(k, _)| k.to_string_lossy().starts_with("COFFERDAM_") || k == "PATH"),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    // Nothing runs between the clone and the exec, so that the C library need not copy our memory for it, as it does for fork(2).
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty()))
        .map_err(|e| Error::Io("pass the listener on".into(), e.into()))?;
    adjust_oom_score();
    let server = command
        .spawn()
        .map_err(Error::io("start the pod's server"))?;
    Ok(server.id())
}

/// The server is killed just before containerd when memory runs out: its score is containerd's plus one. Inherited by the
/// server; our own life is too short for it to matter.
fn adjust_oom_score() {
    const FILE: &str = "/proc/self/oom_score_adj";
    if let Some(score) = fs::read_to_string(FILE)
        .ok()
        .and_then(|s| s.trim().parse::<i32>().ok())
        && score < 1000
    {
        fs::write(FILE, (score + 1).to_string()).ok();
    }
}
