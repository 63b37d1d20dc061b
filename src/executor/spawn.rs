//! The parent's side: `clone3`, and the conversation with the child over the control socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use std::sync::Arc;

use super::netdev::{self, NetDevice};
use super::script::Script;
use super::undo::Undo;
use super::wire::{self, Message, Question};
use super::{Error, Result, child, hooks, seccomp, userns};
use crate::cgroup::V2Group;
use crate::oci::HookKind;
use crate::sys::memory::SharedTimes;
use crate::sys::process::{self, Child, Making};
use crate::sys::socket;
use crate::trace;
use serde::{Deserialize, Serialize};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How the child is born.
#[derive(Debug, Default)]
pub(super) struct BornIn {
    /// `CLONE_NEW*` flags.
    pub namespaces: u64,
    /// A pid namespace to be born in: a namespace descriptor or a pidfd.
    pub pid_namespace: Option<OwnedFd>,
    /// A cgroup v2 group to be born in.
    pub cgroup: Option<V2Group>,
    /// The container's init, whose group it is born in if the container's top one can have no processes.
    pub init: Option<i32>,
}

/// A planned process.
pub struct Launch {
    script: Script,
    birth: BornIn,
    terminal: bool,
    seccomp_agent: Option<SeccompAgent>,
    net_devices: Vec<NetDevice>,
    watcher: Option<NotifyHandler>,
    mapped: bool,
}

/// A process that sets itself up.
pub struct Launched<'a> {
    // Killed first, then the rest is taken back.
    child: Child,
    control: OwnedFd,
    undo: Undo<'a>,
    job: Launch,
}

/// A process that was started: for an init, up to its gate.
#[derive(Debug)]
pub struct Spawned<'a> {
    /// Who it is. It is killed if this is dropped.
    pub child: Child,
    /// The master of its terminal.
    pub terminal: Option<OwnedFd>,
    /// Where an init waits; `None` for an exec, which runs already.
    pub gate: Option<Gate>,
    /// What else a creation has made, until it is kept.
    pub undo: Undo<'a>,
}

/// What is left to do for an init: open the gate.
#[derive(Debug)]
pub struct Gate {
    control: OwnedFd,
    times: Option<Arc<SharedTimes>>,
    watcher: Option<NotifyHandler>,
    behind: AfterGate,
}

/// What is behind a gate, to explain a failure there.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AfterGate {
    program: String,
    /// Descriptions of the steps, with the number of the first.
    steps: Vec<String>,
    first: usize,
    /// Who gets the notifications of the seccomp filter.
    seccomp_agent: Option<SeccompAgent>,
    /// Whether there are startContainer hooks, which have time-outs of their own.
    #[serde(default)]
    has_hooks: bool,
}

/// How long an exec may set itself up, its program's execution among it. Its container can stop it as soon as it is inside; one
/// that is late is killed.
const EXEC_WITHIN: Duration = Duration::from_secs(30);
/// The same for an init from its gate to its program, where it runs no hooks.
const START_WITHIN: Duration = Duration::from_secs(120);
/// How long a seccomp agent may take to take a message.
const AGENT_WITHIN: Duration = Duration::from_secs(5);

/// Receives what a process says, with the descriptor that it hands over; `None` if its end is closed: its program executes, or it
/// is dead. Gives up at a deadline.
fn receive<'b>(
    control: &OwnedFd,
    deadline: Option<Instant>,
    buffer: &'b mut [u8; wire::LONGEST],
) -> Result<Option<(Message<'b>, Option<OwnedFd>)>> {
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        let ready = process::wait_readable(control.as_fd(), Some(left))
            .map_err(Error::system("wait for the container's process"))?;
        if !ready {
            return Err(Error::System {
                what: "the process was not set up in time (was it stopped, or can its program not be read?)".into(),
                errno: Errno::ETIMEDOUT,
            });
        }
    }
    let (n, fd) = socket::receive(control.as_fd(), buffer)
        .map_err(Error::system("hear from the container's process"))?;
    if n == 0 {
        return Ok(None);
    }
    let message = buffer.get(..n).and_then(Message::decode);
    message.map_or_else(|| Err(misunderstood()), |message| Ok(Some((message, fd))))
}

fn misunderstood() -> Error {
    Error::System {
        what: "understand the container's process".into(),
        errno: Errno::EPROTO,
    }
}

fn explain(program: &str, what: Option<&str>, op: &str, number: i32) -> Error {
    if op == wire::HOOK {
        return hooks::explain(what.unwrap_or("startContainer hook"), number);
    }
    let errno = Errno::from_raw(number);
    let exec = |reason: String| Error::Exec {
        program: program.to_owned(),
        reason,
    };
    match (op, errno) {
        ("find", Errno::ENOENT) if program.contains('/') => {
            exec(format!("stat {program}: no such file or directory"))
        }
        ("find", Errno::ENOENT) => exec("executable file not found in $PATH".into()),
        ("find" | "execve", Errno::EISDIR) => exec("is a directory".into()),
        ("find" | "execve", Errno::EACCES | Errno::EPERM) => exec("permission denied".into()),
        ("execve", Errno::ENOEXEC) => exec("exec format error".into()),
        ("execve", Errno::ENOENT) => {
            exec("no such file or directory (is its interpreter or dynamic loader missing?)".into())
        }
        ("find" | "execve", e) => exec(e.desc().to_lowercase()),
        _ => Error::Step {
            what: what.unwrap_or("set up the container").to_owned(),
            op: op.to_owned(),
            errno,
        },
    }
}

impl Launch {
    pub(super) fn new(
        script: Script,
        birth: BornIn,
        terminal: bool,
        seccomp_agent: Option<SeccompAgent>,
    ) -> Self {
        #[cfg(feature = "sabotage")]
        let script = script.sabotage();
        let script = Script {
            times: times(script.steps.len()),
            ..script
        };
        Self {
            script,
            birth,
            terminal,
            seccomp_agent,
            net_devices: Vec::new(),
            watcher: None,
            mapped: false,
        }
    }

    /// In a user namespace of its own, or not.
    pub(super) fn mapped(self, mapped: bool) -> Self {
        Self { mapped, ..self }
    }

    /// With somebody who sees what its filters deny.
    pub(super) fn with_watcher(self, watcher: Option<NotifyHandler>) -> Self {
        Self { watcher, ..self }
    }

    /// With devices of the node that move into the container.
    pub(super) fn with_net_devices(self, net_devices: Vec<NetDevice>) -> Self {
        Self {
            net_devices,
            ..self
        }
    }

    /// For tests: the steps, the namespaces that it is born in, and the one of pids that it joins.
    #[cfg(any(test, fuzzing, feature = "sabotage"))]
    pub(super) fn parts(&self) -> (&[super::script::Step], u64, Option<BorrowedFd<'_>>) {
        let pid = self.birth.pid_namespace.as_ref().map(AsFd::as_fd);
        (&self.script.steps, self.birth.namespaces, pid)
    }

    fn program(&self) -> String {
        self.script
            .program
            .argv
            .strings()
            .first()
            .map(|s| s.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// Starts an exec, until its program executes. On failure nothing of it is left.
    pub fn spawn(self) -> Result<Spawned<'static>> {
        self.launch(Undo::default())?.wait()
    }

    /// Clones the process, which begins with its script.
    pub(super) fn launch(mut self, undo: Undo<'_>) -> Result<Launched<'_>> {
        let (control, theirs) = socket::pair().map_err(Error::system("create a control socket"))?;
        let _cloning = trace::span("clone3");
        let child = self.clone(&theirs)?;
        Ok(Launched {
            child,
            control,
            undo,
            job: self,
        })
    }

    fn clone(&mut self, control: &OwnedFd) -> Result<Child> {
        let keep = self.script.descriptors();
        let restore = match &self.birth.pid_namespace {
            None => None,
            Some(target) => {
                let own = std::fs::File::open("/proc/self/ns/pid")
                    .map_err(|e| Error::field("open /proc/self/ns/pid", e.to_string()))?;
                process::setns(target.as_fd(), libc::CLONE_NEWPID)
                    .map_err(Error::system("join the pid namespace"))?;
                Some(own)
            }
        };
        let cloned = self.clone_here(control, &keep);
        if let Some(own) = restore
            && process::setns(own.as_fd(), libc::CLONE_NEWPID).is_err()
        {
            // This thread's next child would be born in a container. It cannot happen; if it does, stop everything.
            std::process::abort();
        }
        cloned.map_err(Error::system("clone the container's process"))
    }

    fn clone_here(&mut self, control: &OwnedFd, keep: &[i32]) -> std::result::Result<Child, Errno> {
        let birth = &self.birth;
        let top = birth.cgroup.as_ref();
        let mut of_init = None;
        loop {
            let cgroup = of_init.as_ref().or(top.map(V2Group::fd)).map(AsFd::as_fd);
            #[allow(unsafe_code)]
            // SAFETY: the child runs `child::run` only, which is written to allocate nothing, lock nothing and never
            // return or panic.
            let cloned = unsafe {
                process::clone3(birth.namespaces, cgroup, || {
                    child::run(&mut self.script, control.as_fd(), keep)
                })
            };
            match cloned {
                Ok(child) => return Ok(child),
                Err(Errno::EBUSY) if of_init.is_none() => {
                    let group = top
                        .zip(birth.init)
                        .and_then(|(top, init)| top.of(init).ok());
                    of_init = Some(group.ok_or(Errno::EBUSY)?);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Runs the hooks that a creation has.
    fn create_hooks(
        &self,
        child: &Child,
        root: Option<OwnedFd>,
        subject: Option<&hooks::HookRunner>,
    ) -> Result<()> {
        let Some(subject) = subject else {
            return Ok(());
        };
        let pid = child.pid();
        subject.run(HookKind::Prestart, pid)?;
        subject.run(HookKind::CreateRuntime, pid)?;
        let root = root.ok_or_else(|| Error::Died("wait for the create hooks".into()))?;
        let inside = hooks::Inside {
            pidfd: child.as_fd(),
            root,
            mapped: self.mapped,
        };
        subject.run_in(HookKind::CreateContainer, pid, Some(&inside))
    }

    fn has_gate(&self) -> bool {
        self.script
            .steps
            .iter()
            .any(|s| matches!(s, super::script::Step::Gate { .. }))
    }

    fn gate(&self, control: OwnedFd) -> Gate {
        let first = self
            .script
            .steps
            .iter()
            .position(|s| matches!(s, super::script::Step::Gate { .. }))
            .unwrap_or(0);
        let steps = self
            .script
            .steps
            .iter()
            .skip(first)
            .map(super::script::Step::describe)
            .collect();
        Gate {
            control,
            times: self.script.times.clone(),
            watcher: self.watcher.clone(),
            behind: AfterGate {
                program: self.program(),
                steps,
                first,
                seccomp_agent: self.seccomp_agent.clone(),
                has_hooks: self
                    .script
                    .steps
                    .iter()
                    .any(|s| matches!(s, super::script::Step::StartHook(_))),
            },
        }
    }
}

impl<'a> Launched<'a> {
    /// The process's pid. An init that has users of its own may go on as another process: see [`Launched::wait`].
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Waits until an init is at its gate, or an exec executes its program. Runs the hooks of a creation.
    ///
    /// # Errors
    /// Why it cannot. Nothing of it is left.
    pub fn wait(mut self) -> Result<Spawned<'a>> {
        let _child = trace::span("wait for the child");
        let (terminal, at_gate) = self.converse()?;
        let steps = self.job.script.steps.iter();
        let names = steps.map(super::script::Step::describe);
        trace_steps(self.job.script.times.as_ref(), self.pid(), 0, names);
        if self.job.terminal && terminal.is_none() {
            return Err(Error::Died("process.terminal: open a terminal".into()));
        }
        self.undo.drop_placeholder();
        Ok(Spawned {
            gate: at_gate.then(|| self.job.gate(self.control)),
            child: self.child,
            terminal,
            undo: self.undo,
        })
    }

    /// Talks with the child until it is at its gate (true) or executes its program (false).
    fn converse(&mut self) -> Result<(Option<OwnedFd>, bool)> {
        let mut terminal = None;
        let mut last = "start".to_owned();
        let job = &self.job;
        let control = &self.control;
        let deadline = (!job.has_gate()).then(|| Instant::now() + EXEC_WITHIN);
        let mut sibling_to_come = job.script.has_sibling().then(Making::begin);
        let mut buffer = [0; wire::LONGEST];
        while let Some((message, fd)) = receive(control, deadline, &mut buffer)? {
            match (message, fd) {
                (Message::Terminal, Some(fd)) => terminal = Some(fd),
                (Message::Sibling, Some(fd)) => {
                    let making = sibling_to_come.take().ok_or_else(misunderstood)?;
                    let sibling = making.own(userns::pid_of(&fd)?, fd);
                    std::mem::replace(&mut self.child, sibling).wait().ok();
                }
                (Message::Asks(Question::Gate), _) => return Ok((terminal, true)),
                (Message::Asks(Question::NetDevices), _) => {
                    netdev::move_all(&job.net_devices, self.child.pid())?;
                    go_on(control)?;
                }
                (Message::Asks(Question::CreateHooks), root) => {
                    job.create_hooks(&self.child, root, self.undo.hooks())?;
                    go_on(control)?;
                    "after the hooks".clone_into(&mut last);
                }
                (Message::Failed { step, op, number }, _) => {
                    let step = job.script.steps.get(usize::from(step));
                    let what = step.map(super::script::Step::describe);
                    return Err(explain(&job.program(), what.as_deref(), op, number));
                }
                (Message::Listener(number), _) => {
                    let told = (job.watcher.as_ref(), job.seccomp_agent.as_ref());
                    let child = &self.child;
                    hand_over(control, child.pid(), child.as_fd(), number, told)?;
                }
                (Message::Terminal | Message::Sibling, None) => return Err(misunderstood()),
            }
        }
        if job.has_gate() {
            return Err(Error::Died(last));
        }
        Ok((terminal, false))
    }
}

/// Somewhere for the child to note times, where a trace is wanted.
fn times(steps: usize) -> Option<Arc<SharedTimes>> {
    let times = || SharedTimes::new(steps + 1).ok().map(Arc::new);
    trace::is_on().then(times).flatten()
}

/// What the child did, from a step on, as far as it came.
fn trace_steps(
    times: Option<&Arc<SharedTimes>>,
    pid: i32,
    first: usize,
    names: impl Iterator<Item = String>,
) {
    let Some(times) = times else { return };
    for (i, name) in names.enumerate() {
        let (from, to) = (times.get(first + i), times.get(first + i + 1));
        if to == 0 {
            return;
        }
        trace::event(&name, pid, pid, from, to);
    }
}

fn go_on(control: &OwnedFd) -> Result<()> {
    process::write_all(control.as_fd(), &[wire::GO_ON])
        .map_err(Error::system("answer the container's process"))
}

/// A process whose system calls somebody else decides on: whom to tell, and what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeccompAgent {
    pub(super) listener: seccomp::Listener,
    /// OCI runtime.md "State", but for the pid.
    pub(super) state: serde_json::Value,
}

/// The handler in the shim that receives the denials of a process's filters.
#[derive(Clone)]
pub struct NotifyHandler {
    /// The filters in one, which asks.
    pub program: Arc<seccomp::Program>,
    /// Who gets the descriptor to be asked through; called before the process's program is executed.
    pub adopt: Arc<dyn Fn(OwnedFd) + Send + Sync>,
}

impl std::fmt::Debug for NotifyHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotifyHandler").finish_non_exhaustive()
    }
}

/// Gives the filter's descriptor to who watches, or sends it to the listener: OCI config-linux.md "The Container Process State".
fn hand_over(
    control: &OwnedFd,
    pid: i32,
    pidfd: BorrowedFd<'_>,
    number: i32,
    (watcher, seccomp_agent): (Option<&NotifyHandler>, Option<&SeccompAgent>),
) -> Result<()> {
    if let Some(watcher) = watcher {
        let fd = process::pidfd_getfd(pidfd, number)
            .map_err(Error::system("take the filter's descriptor"))?;
        (watcher.adopt)(fd);
        return go_on(control);
    }
    let Some(SeccompAgent { listener, state }) = seccomp_agent else {
        return Err(Error::field("linux.seccomp.listenerPath", "is missing"));
    };
    let failed = |what: &str, reason: String| {
        Error::field(
            "linux.seccomp.listenerPath",
            format!("{what} {}: {reason}", listener.path.display()),
        )
    };
    let fd = process::pidfd_getfd(pidfd, number)
        .map_err(Error::system("take the filter's descriptor"))?;
    let mut state = state.clone();
    state["pid"] = pid.into();
    let message = serde_json::json!({
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": listener.metadata,
        "state": state
    });
    let connected = socket::connect_at_once(&listener.path).map(UnixStream::from);
    let stream = connected.map_err(|e| failed("connect to", e.desc().to_owned()))?;
    stream
        .set_write_timeout(Some(AGENT_WITHIN))
        .map_err(|e| failed("limit the time for", e.to_string()))?;
    socket::send_fd(stream.as_fd(), message.to_string().as_bytes(), fd.as_fd())
        .map_err(|e| failed("send the filter's descriptor to", e.desc().to_owned()))?;
    go_on(control)
}

/// A place where a gate can be opened by another process than the one that made the container: a socket at `path`, of at
/// most 107 bytes.
pub fn listen_at_gate(path: &Path) -> Result<OwnedFd> {
    socket::listen(path).map_err(Error::system(format!("listen on {}", path.display())))
}

impl Gate {
    /// Goes to a gate that another process left: see [`listen_at_gate`].
    pub fn connect(path: &Path, behind: AfterGate) -> Result<Self> {
        let control = socket::connect(path).map_err(Error::system("reach the container's init"))?;
        Ok(Self {
            control,
            times: None,
            watcher: None,
            behind,
        })
    }

    fn trace(&self, pid: i32) {
        let AfterGate { steps, first, .. } = &self.behind;
        trace_steps(self.times.as_ref(), pid, *first, steps.iter().cloned());
        if let Some(times) = &self.times {
            let done = times.get(first + steps.len());
            trace::event("execve", pid, pid, done, trace::now());
        }
    }

    /// What is behind it.
    pub fn behind(&self) -> &AfterGate {
        &self.behind
    }

    /// Lets the init execute the user's program. Returns when it does, or with the reason why it cannot; then the init
    /// ends, with status 1.
    pub fn open(self, pid: i32, pidfd: &OwnedFd) -> Result<()> {
        process::write_all(self.control.as_fd(), &[wire::GO_ON])
            .map_err(Error::system("open the container's gate"))?;
        let deadline = (!self.behind.has_hooks).then(|| Instant::now() + START_WITHIN);
        let kill = |_: &Error| {
            process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
        };
        let mut buffer = [0; wire::LONGEST];
        while let Some((message, _)) =
            receive(&self.control, deadline, &mut buffer).inspect_err(kill)?
        {
            match message {
                Message::Failed { step, op, number } => {
                    let what = usize::from(step)
                        .checked_sub(self.behind.first)
                        .and_then(|i| self.behind.steps.get(i))
                        .map(String::as_str);
                    return Err(explain(&self.behind.program, what, op, number));
                }
                Message::Listener(number) => {
                    let told = (self.watcher.as_ref(), self.behind.seccomp_agent.as_ref());
                    hand_over(&self.control, pid, pidfd.as_fd(), number, told).inspect_err(kill)?;
                }
                Message::Terminal | Message::Sibling | Message::Asks(_) => {}
            }
        }
        self.trace(pid);
        Ok(())
    }
}
