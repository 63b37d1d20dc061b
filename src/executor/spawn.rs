//! The parent's side: `clone3`, and the conversation with the child over the control socket.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::gate::{AfterGate, Gate};
use super::namespaces::JoinedNamespaces;
use super::netdev::{self, NetDevice};
use super::remains::Undo;
use super::script::{Script, Step};
use super::talk::{
    NotifyHandler, SeccompAgent, Suspects, explain, go_on, hand_over, misunderstood, receive,
};
use super::times::{times, trace_steps};
use super::wire::{self, Message, Question};
use super::{Error, Result, child, hooks};
use crate::cgroup::V2Group;
use crate::oci::HookKind;
use crate::sys::process::{self, Child, Making};
use crate::sys::socket;
use crate::trace;

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
    patient: bool,
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

/// How long an exec may set itself up, its program's execution among it. Its container can stop it as soon as it is inside; one
/// that is late is killed.
const EXEC_WITHIN: Duration = Duration::from_secs(30);

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
        let script = script.with_kept_at_gate();
        Self {
            script,
            birth,
            terminal,
            seccomp_agent,
            net_devices: Vec::new(),
            watcher: None,
            mapped: false,
            patient: false,
        }
    }

    /// For an exec: without a limit of its time.
    pub(super) fn patient(self, patient: bool) -> Self {
        Self { patient, ..self }
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
    pub(super) fn parts(&self) -> (&[Step], u64, Option<std::os::fd::BorrowedFd<'_>>) {
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
        let init = (pid, child.as_fd());
        subject.run_in_creation(HookKind::Prestart, init, None)?;
        subject.run_in_creation(HookKind::CreateRuntime, init, None)?;
        let root = root.ok_or_else(|| Error::Died("wait for the create hooks".into()))?;
        let directory = std::fs::File::open(format!("/proc/{pid}/cwd"));
        let directory = directory
            .map_err(|e| Error::field("hooks", format!("open the container's root: {e}")))?;
        let inside = hooks::Inside {
            pidfd: child.as_fd(),
            namespaces: JoinedNamespaces::of(pid)?,
            root,
            directory: directory.into(),
            mapped: self.mapped,
        };
        subject.run_in_creation(HookKind::CreateContainer, init, Some(&inside))
    }

    fn has_gate(&self) -> bool {
        self.script
            .steps
            .iter()
            .any(|s| matches!(s, Step::Gate { .. }))
    }

    fn gate(&self, control: OwnedFd) -> Gate {
        let first = self
            .script
            .steps
            .iter()
            .position(|s| matches!(s, Step::Gate { .. }))
            .unwrap_or(0);
        let steps = self
            .script
            .steps
            .iter()
            .skip(first)
            .map(Step::describe)
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
                suspects: Suspects::of(&self.script.steps),
                has_hooks: self
                    .script
                    .steps
                    .iter()
                    .any(|s| matches!(s, Step::StartHook(_))),
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
        let names = steps.map(Step::describe);
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
        let deadline = (!job.has_gate() && !job.patient).then(|| Instant::now() + EXEC_WITHIN);
        let mut sibling_to_come = job.script.has_sibling().then(Making::begin);
        let mut buffer = [0; wire::LONGEST];
        while let Some((message, fd)) = receive(control, deadline, &mut buffer)? {
            match (message, fd) {
                (Message::Terminal, Some(fd)) => terminal = Some(fd),
                (Message::Sibling(number), fd) => {
                    let making = sibling_to_come.take().ok_or_else(misunderstood)?;
                    let Some(fd) = fd else {
                        // No room for its pidfd. Nobody else reaps it, so its number is still its own, if that is one of our pid namespace. Of
                        // another one it is an init, which ends before its gate because nobody listens.
                        if job.birth.pid_namespace.is_none() {
                            process::kill(number, libc::SIGKILL).ok();
                            process::wait_child(number).ok();
                        }
                        return Err(misunderstood());
                    };
                    // Its own number may be one of another pid namespace.
                    let pid = process::pid_of(fd.as_fd())
                        .map_err(Error::system("find the new process"))?;
                    let sibling = making.own(pid, fd);
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
                    let what = step.map(Step::describe);
                    let suspects = Suspects::of(&job.script.steps);
                    return Err(explain(
                        &job.program(),
                        what.as_deref(),
                        op,
                        number,
                        suspects,
                    ));
                }
                (Message::HookFailed { step, status, said }, _) => {
                    let step = job.script.steps.get(usize::from(step));
                    let what = step.map(Step::describe).unwrap_or_default();
                    return Err(hooks::explain(&what, status, said));
                }
                (Message::Listener(number), _) => {
                    let told = (job.watcher.as_ref(), job.seccomp_agent.as_ref());
                    let child = &self.child;
                    hand_over(control, child.pid(), child.as_fd(), number, told)?;
                }
                (Message::Terminal, None) => return Err(misunderstood()),
            }
        }
        if job.has_gate() {
            return Err(Error::Died(last));
        }
        Ok((terminal, false))
    }
}
