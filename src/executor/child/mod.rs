//! The child's side: walks the [`Script`] between `clone3` and `execve`.
//!
//! Only async-signal-safe code here, in all files of this folder: no allocation, no lock, no logging, nothing that can panic.
//! Dropping an `OwnedFd` is a plain `close(2)`.

#![deny(clippy::indexing_slicing)]

mod devices;
mod hooks;
mod mounts;
mod namespaces;
mod paths;
mod program;
mod root;
mod talk;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;

use self::devices::{connect_streams, link, make_device, make_devices, terminal, write_notice};
use self::hooks::start_hook;
use self::mounts::{attach, make_read_only, mask, new_file_system, protect};
use self::namespaces::{become_root, continue_as_sibling, new_time_namespace, write_proc};
use self::program::{credentials, find_program, landlock};
use self::root::{clone_root, open_slash, take_root};
use self::talk::{ask, ask_for_hooks, load_filter, report, wait_at_gate};
use super::script::{Script, Step, UserProgram};
use super::wire::Question;
use crate::sys::mount as m;
use crate::sys::{confine, creds, process};

const CGROUP_NAMESPACE: i32 = libc::CLONE_NEWCGROUP;
/// As many as there are default devices.
const DEVICES: usize = 6;

/// A failed system call: its name and the kernel's answer.
struct Failure(&'static str, Errno);

type Outcome<T> = Result<T, Failure>;

fn at(op: &'static str) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure(op, errno)
}

struct Context<'a> {
    /// Who made us.
    parent: BorrowedFd<'a>,
    /// Who came to the gate to start us, if that is somebody else.
    visitor: Option<OwnedFd>,
    root: Option<OwnedFd>,
    /// The default devices of a container in a user namespace, made before that was entered.
    devices: [Option<OwnedFd>; DEVICES],
    /// The one empty read-only tmpfs that hides directories.
    empty: Option<OwnedFd>,
    /// The mounted root, on its way into another mount namespace.
    root_tree: Option<OwnedFd>,
    /// The node's root, where the container's was mounted over it.
    node_root: Option<OwnedFd>,
    /// The sysfs of the pod's network, made while the network's owner could.
    sysfs: Option<OwnedFd>,
    /// The node's procfs.
    proc: Option<OwnedFd>,
    lsm: Option<OwnedFd>,
    /// Which candidate is the program.
    chosen: usize,
}

impl Context<'_> {
    /// Closes everything but what is needed from the gate on.
    fn let_go(&mut self, keep: &[RawFd]) {
        for own in [
            &mut self.root,
            &mut self.empty,
            &mut self.root_tree,
            &mut self.node_root,
            &mut self.sysfs,
            &mut self.proc,
            &mut self.lsm,
        ]
        .into_iter()
        .chain(&mut self.devices)
        {
            *own = None;
        }
        #[allow(unsafe_code)]
        // SAFETY: what the steps before this one own is used no more, and this process never drops them: it ends by execve(2) or
        // _exit(2).
        unsafe {
            process::close_all_but(self.parent.as_raw_fd(), keep)
        };
    }

    /// The container's root, once there is one.
    fn root(&self) -> Outcome<BorrowedFd<'_>> {
        let root = self.root.as_ref().map(AsFd::as_fd);
        root.ok_or(Failure("open", Errno::EBADF))
    }

    /// The parent: receives failures and answers questions.
    fn control(&self) -> BorrowedFd<'_> {
        self.visitor.as_ref().map_or(self.parent, AsFd::as_fd)
    }
}

/// Runs the script; never returns. `keep` are the descriptors that it needs, sorted.
pub(super) fn run(script: &mut Script, control: BorrowedFd<'_>, keep: &[RawFd]) -> ! {
    process::reset_signals();
    process::umask(0); // modes of nodes and directories are exact; the spec's own mask comes at the end
    #[allow(unsafe_code)]
    // SAFETY: this is a fresh child, which uses no other descriptor.
    unsafe {
        process::close_all_but(control.as_raw_fd(), keep)
    };
    let mut ctx = Context {
        parent: control,
        visitor: None,
        root: None,
        devices: [const { None }; DEVICES],
        empty: None,
        root_tree: None,
        node_root: None,
        sysfs: None,
        proc: None,
        lsm: None,
        chosen: 0,
    };
    let note = |index: usize, script: &Script| {
        if let Some(times) = &script.times {
            times.note(index);
        }
    };
    note(0, script);
    for index in 0..script.steps.len() {
        let outcome = step(&mut ctx, &mut script.steps, index, &mut script.program);
        if let Err(failure) = outcome {
            report(ctx.control(), index, failure.0, failure.1 as i32);
            process::exit_now(1);
        }
        note(index + 1, script);
    }
    let path = script.program.candidates.get(ctx.chosen);
    let errno = match path {
        Some(path) => process::execve(path, &script.program.argv, &script.program.env),
        None => Errno::ENOENT,
    };
    // What is wrong with the program ends it, as a shell would; all else is told to who asked.
    if let (
        Some(path),
        Errno::ENOEXEC
        | Errno::ENOENT
        | Errno::ENOTDIR
        | Errno::ELIBBAD
        | Errno::EINVAL
        | Errno::ELOOP,
    ) = (path, errno)
    {
        program::not_executable(path, errno);
    }
    report(ctx.control(), script.steps.len(), "execve", errno as i32);
    process::exit_now(1)
}

#[expect(
    clippy::too_many_lines,
    reason = "an arm for each step, so that none is forgotten"
)]
fn step(
    ctx: &mut Context<'_>,
    steps: &mut [Step],
    index: usize,
    program: &mut UserProgram,
) -> Outcome<()> {
    let Some(step) = steps.get_mut(index) else {
        return Ok(());
    };
    match step {
        Step::EnterCgroup { tasks, .. } => {
            process::write_all(tasks.as_fd(), b"0").map_err(at("write"))
        }
        Step::JoinNamespace { ns, flags, .. } => {
            process::setns(ns.as_fd(), *flags).map_err(at("setns"))
        }
        Step::UnshareMounts => process::unshare(libc::CLONE_NEWNS).map_err(at("unshare")),
        Step::NewTimeNamespace(offsets) => new_time_namespace(offsets),
        Step::NewCgroupNamespace => process::unshare(CGROUP_NAMESPACE).map_err(at("unshare")),
        Step::CloneSibling { namespaces } => continue_as_sibling(ctx.control(), *namespaces),
        Step::BecomeRoot => become_root(),
        Step::WriteProc { path, value, .. } => write_proc(path, value),
        Step::Hostname(name) => process::sethostname(name).map_err(at("sethostname")),
        Step::Domainname(name) => process::setdomainname(name).map_err(at("setdomainname")),
        Step::Ask(Question::CreateHooks) => ask_for_hooks(ctx),
        Step::Ask(question) => ask(ctx.control(), *question),
        Step::Gate { listener, keep } => wait_at_gate(ctx, listener.take(), keep),
        Step::StartHook(hook) => start_hook(ctx, index, hook, program),
        Step::TakeRoot { path } => clone_root(ctx, path).map(|tree| ctx.root_tree = Some(tree)),
        Step::AttachRoot => root::attach_root(ctx),
        Step::PlaceRoot { tree, target, .. } => root::place_root(ctx, tree, target),
        Step::MountRoot(mount) => root::mount_root(mount),
        Step::MapLayers {
            maps,
            layers,
            names,
            at,
        } => root::map_layers(maps, layers, names, at),
        Step::MapRoot { maps, target } => root::map_root(ctx, maps, target),
        Step::OpenRoot { path } => take_root(ctx, path).map(|root| ctx.root = Some(root)),
        Step::OpenOwnRoot => open_slash().map(|root| ctx.root = Some(root)),
        Step::PivotRoot => root::pivot_root(ctx),
        Step::MoveRoot { hide } => root::move_root(ctx, hide),
        Step::ChangeRoot => root::change_root(ctx),
        Step::PrivateRoot => root::make_private(ctx),
        Step::RootReadOnly => root::make_read_only(ctx),
        Step::Propagation { flags, .. } => {
            m::mount(None, c"/", None, *flags, None).map_err(at("mount"))
        }
        Step::TakeSysfs => new_file_system(c"sysfs", &[], 0).map(|fs| ctx.sysfs = Some(fs)),
        Step::Mount(mount) => attach(ctx, mount),
        Step::Mask(path) => mask(ctx, path),
        Step::MakeReadOnly(path) => make_read_only(ctx.root()?, path),
        Step::MakeWorkingDirectory(path) => {
            paths::make_directories(ctx.root()?, path).ok();
            Ok(())
        }
        Step::ReadOnly(path) => protect(ctx.root()?, path),
        Step::MakeDevices(devices) => make_devices(ctx, devices),
        Step::Device(device) => make_device(ctx, device),
        Step::Notice(text) => write_notice(ctx, text),
        Step::Symlink {
            target,
            path,
            replace,
        } => link(ctx, target, path, *replace),
        Step::Terminal {
            uid,
            size,
            plain,
            console,
        } => terminal(ctx, *uid, *size, *plain, *console),
        Step::Stdio(fds) => connect_streams(fds),
        Step::Rlimit {
            resource,
            soft,
            hard,
            ..
        } => process::setrlimit(*resource, *soft, *hard).map_err(at("prlimit")),
        Step::Keyring(name) => program::join_keyring(name),
        Step::DropGroups => creds::setgroups(&[]).map_err(at("setgroups")),
        Step::KeepProc => program::open_proc().map(|proc| ctx.proc = Some(proc)),
        Step::OpenLsm { path, .. } => program::open_label_file(ctx, path),
        Step::ApplyLsm { label, .. } => program::write_label(ctx, label),
        Step::WorkingDirectory { path, make } => program::enter_directory(ctx, path, *make),
        Step::Credentials {
            uid,
            gid,
            groups,
            caps,
            keep,
        } => credentials(*uid, *gid, groups, caps, *keep),
        Step::IoPriority(value) => process::ioprio_set(*value).map_err(at("ioprio_set")),
        Step::Scheduler(attr) => process::sched_setattr(attr).map_err(at("sched_setattr")),
        Step::Affinity(mask) => process::sched_setaffinity(mask).map_err(at("sched_setaffinity")),
        Step::Personality(domain) => process::personality(*domain).map_err(at("personality")),
        Step::MemoryPolicy { mode, nodes } => {
            process::set_mempolicy(*mode, nodes).map_err(at("set_mempolicy"))
        }
        Step::Umask(mask) => {
            process::umask(*mask);
            Ok(())
        }
        Step::NoNewPrivileges => creds::set_no_new_privs().map_err(at("prctl")),
        Step::FindProgram => find_program(ctx, program),
        Step::CloseOnExec { first } => {
            process::keep_on_exec(3..*first).map_err(at("fcntl"))?;
            process::cloexec_from(*first).map_err(at("close_range"))
        }
        Step::CoreScheduling { from } => {
            confine::core_scheduling(*from).map_err(at("prctl PR_SCHED_CORE"))
        }
        Step::Securebits(bits) => {
            confine::set_securebits(*bits).map_err(at("prctl PR_SET_SECUREBITS"))
        }
        Step::MitigateSpeculation => program::mitigate_speculation(),
        Step::WriteXorExecute => confine::deny_write_execute().map_err(at("prctl PR_SET_MDWE")),
        Step::Landlock(rules) => landlock(rules),
        Step::Seccomp { program } => load_filter(ctx.control(), program),
    }
}
