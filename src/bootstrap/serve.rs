//! The pod's server process.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use containerd_shim::Flags;
use tokio::signal::unix::{SignalKind, signal};

use super::{Error, Result, logging, profile, protect, start};
use crate::cgroup::Layout;
use crate::control::{self, Unavailable};
use crate::isolation::Node;
use crate::pod::{BrokenProfile, Isolation, Pod, event_queue};
use crate::service;
use crate::sys::{memory, process};
use crate::trace;

/// At the end of the pod, events that containerd does not take by then are lost.
const FLUSH_WITHIN: Duration = Duration::from_secs(10);
const THREAD_STACK: usize = 512 * 1024;
/// Threads for blocking work: a start that hangs in the kernel holds one, so there are some, but they go when idle.
const MAX_THREADS: usize = 64;
const THREAD_KEEP_ALIVE: Duration = Duration::from_millis(200);
/// A server that nobody has given a container by then was forgotten: containerd died between `start` and Create.
const FIRST_CONTAINER_WITHIN: Duration = Duration::from_secs(600);

pub(super) fn run(name: &str, flags: &Flags) -> Result<()> {
    trace::beginning("execve of the server");
    let beginning = trace::span("serve: begin");
    process::set_name(process::SERVER_NAME).ok();
    memory::keep_allocator_small();
    logging::init(flags.debug);
    process::set_not_dumpable()
        .map_err(|e| Error::Io("protect the server's memory".into(), e.into()))?;
    process::set_child_subreaper().map_err(|e| Error::Io("become a subreaper".into(), e.into()))?;
    let listener = flags
        .socket
        .strip_prefix(start::LISTENER)
        .and_then(|number| number.parse().ok())
        .and_then(|number| {
            // SAFETY: `start` has passed it on for this, and nothing else in this process has been told its number.
            #[allow(unsafe_code)]
            unsafe {
                process::inherited_fd(number)
            }
        })
        .ok_or_else(|| Error::Other("no listener: use `start`".into()))?;
    process::cloexec_from(3)
        .map_err(|e| Error::Io("mark descriptors close-on-exec".into(), e.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .thread_stack_size(THREAD_STACK)
        .max_blocking_threads(MAX_THREADS)
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .build()
        .map_err(Error::io("start the event loop"))?;
    drop(beginning);
    let served = runtime.block_on(serve(name, flags, UnixListener::from(listener)));
    // Blocking work that is still under way belongs to requests that nobody waits for any more.
    runtime.shutdown_timeout(Duration::from_millis(100));
    served
}

/// As the node's settings say.
fn set_log_level(id: &str) {
    match Node::read() {
        Ok(node) => {
            if let Some(level) = node.log_level {
                log::set_max_level(level.into());
            }
        }
        Err(e) => log::warn!(id, error:% = e; "the node's settings are not used"),
    }
}

/// What cannot be enforced.
fn tell(id: &str, profile: &str, broken: Option<&BrokenProfile>, missing: &[Unavailable]) {
    if let Some(e) = broken {
        log::error!(id, error:% = e; "no container can be created");
    }
    for lack in missing {
        let level = if lack.accepted {
            log::Level::Debug
        } else {
            log::Level::Warn
        };
        log::log!(
            level, id, profile:%, key:% = lack.key, missing:% = lack.what, why:% = lack.why;
            "this machine cannot enforce a part of the profile"
        );
    }
}

async fn serve(name: &str, flags: &Flags, listener: UnixListener) -> Result<()> {
    let listening = trace::span("serve: load the profile and listen");
    let socket = listener
        .local_addr()
        .ok()
        .and_then(|a| a.as_pathname().map(ToOwned::to_owned));
    let layout = Layout::detect_or_explain();
    let address = std::env::var("TTRPC_ADDRESS")
        .ok()
        .filter(|a| !a.is_empty())
        .map(|a| format!("unix://{a}"));
    let (publisher, queue) = event_queue();
    set_log_level(&flags.id);
    let profile = profile(name);
    // With a broken profile every Create fails, with the reason.
    let isolation = Isolation::load(profile);
    let (broken, missing) = match &isolation {
        Ok(isolation) => {
            protect::give_up_rights(isolation);
            (None, isolation.missing())
        }
        Err(e) => (Some(e.clone()), Vec::new()),
    };
    let pod = Pod::new(
        flags.id.clone(),
        flags.namespace.clone(),
        profile.to_owned(),
        layout,
        isolation,
        publisher,
    );
    tokio::spawn(service::send_events(
        queue,
        flags.namespace.clone(),
        address,
    ));
    let mut server = service::serve(&pod, listener)
        .await
        .map_err(|e| Error::Other(format!("serve the task API: {e}")))?;
    log::debug!(id:% = flags.id, profile:%, version:% = env!("CARGO_PKG_VERSION"); "serving");
    tell(&flags.id, profile, broken.as_ref(), &missing);
    drop(listening);
    // `start` ran in the first container's bundle, and so do we.
    let first = pod.clone();
    tokio::task::spawn_blocking(move || {
        if let Ok(bundle) = std::env::current_dir() {
            first.prefetch(&bundle);
        }
    });
    handle_signals(&pod)?;
    reap_orphans()?;
    answer_people(&flags.id, &pod);
    tokio::spawn(pod.clone().give_back_when_idle());
    let forgotten = pod.clone();
    tokio::spawn(async move {
        tokio::time::sleep(FIRST_CONTAINER_WITHIN).await;
        forgotten.request_shutdown();
    });
    pod.until_shutdown().await;
    // From here on nobody can find us; a `start` for the same group begins anew.
    if let Some(socket) = &socket {
        fs::remove_file(socket).ok();
        control::remove_note();
    }
    server.stop_listen().await;
    pod.release();
    pod.flush_events(FLUSH_WITHIN).await;
    crate::stdio::wait_for_loggers();
    pod.sum_up();
    Ok(())
}

/// Without a socket the pod runs all the same, and people cannot look into it.
fn answer_people(id: &str, pod: &std::sync::Arc<Pod>) {
    let pod = pod.clone();
    match control::Server::bind() {
        Ok(server) => {
            tokio::spawn(server.run(move |ask| {
                let pod = pod.clone();
                async move {
                    pod.note_activity();
                    answer_one(pod, ask).await
                }
            }));
        }
        Err(e) => log::warn!(id:% = id, error:% = e; "no control socket"),
    }
}

/// On a thread of its own: what people ask is answered when all others are taken, too. The socket's server has few clients at a
/// time.
async fn answer_one(pod: std::sync::Arc<Pod>, ask: control::Ask) -> control::Answer {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new()
        .stack_size(THREAD_STACK)
        .spawn(move || sender.send(pod.answer(ask)).ok());
    if let Err(e) = thread {
        return control::Answer::Error(format!("no thread to answer: {e}"));
    }
    let answer = receiver.await;
    answer.unwrap_or_else(|_| control::Answer::Error("the answer was lost".into()))
}

/// What containers, hooks and loggers leave behind becomes our child, because we are a subreaper.
fn reap_orphans() -> Result<()> {
    let mut ended = signal(SignalKind::child()).map_err(Error::io("handle SIGCHLD"))?;
    tokio::spawn(async move {
        while ended.recv().await.is_some() {
            process::reap_orphans();
        }
    });
    Ok(())
}

fn handle_signals(pod: &std::sync::Arc<Pod>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::io("handle SIGTERM"))?;
    let mut dump = signal(SignalKind::user_defined1()).map_err(Error::io("handle SIGUSR1"))?;
    let pod = pod.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => pod.terminate().await,
                _ = dump.recv() => pod.dump().iter().for_each(|line| log::info!(state = line; "state")),
            }
        }
    });
    Ok(())
}
