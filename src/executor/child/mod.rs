//! The child's side: walks the [`Script`] between `clone3` and `execve`.
//!
//! Only async-signal-safe code here: no allocation, no lock, no logging, nothing that can panic. Dropping an `OwnedFd` is a
//! plain `close(2)`.

mod mounts;
mod paths;
mod program;

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use self::mounts::{attach, change, map_ids, mask, protect};
use self::paths::{make_directories, open_target, parent_of};
use self::program::{credentials, find_program, landlock, set_home};
use super::hooks;
use super::script::{Script, StartHook, Step, UserProgram};
use super::wire::{self, Message, Question};
use crate::sys::mount::{
    self as m, CWD, MountAttr, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, attr,
};
use crate::sys::process::Standard;
use crate::sys::{self, confine, creds, process, socket, tty};

const TIME_NAMESPACE: i32 = 0x80; // CLONE_NEWTIME, Linux 5.6
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
    lsm: Option<OwnedFd>,
    /// Which candidate is the program.
    chosen: usize,
}

impl Context<'_> {
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
    let errno = match script.program.candidates.get(ctx.chosen) {
        Some(path) => process::execve(path, &script.program.argv, &script.program.env),
        None => Errno::ENOENT,
    };
    report(ctx.control(), script.steps.len(), "execve", errno as i32);
    process::exit_now(1)
}

/// Tells why the process cannot go on.
fn report(control: BorrowedFd<'_>, index: usize, op: &str, number: i32) {
    let step = index as u16;
    say(control, Message::Failed { step, op, number }).ok();
}

fn say(control: BorrowedFd<'_>, message: Message<'_>) -> Outcome<()> {
    let mut buffer = [0; wire::LONGEST];
    process::write_all(control, message.encode(&mut buffer)).map_err(at("write"))
}

/// Says something, with a descriptor beside it.
fn hand(control: BorrowedFd<'_>, message: Message<'_>, fd: BorrowedFd<'_>) -> Outcome<()> {
    let mut buffer = [0; wire::LONGEST];
    socket::send_fd(control, message.encode(&mut buffer), fd).map_err(at("sendmsg"))
}

#[expect(clippy::too_many_lines, reason = "an arm for each step")]
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
            process::write_all(tasks.as_fd(), b"0").map_err(at("write"))?
        }
        Step::JoinNamespace { ns, flags, .. } => {
            process::setns(ns.as_fd(), *flags).map_err(at("setns"))?
        }
        Step::UnshareMounts => process::unshare(libc::CLONE_NEWNS).map_err(at("unshare"))?,
        Step::NewTimeNamespace(offsets) => {
            process::unshare(TIME_NAMESPACE).map_err(at("unshare"))?;
            if !offsets.is_empty() {
                write_proc(c"/proc/self/timens_offsets", offsets)?;
            }
        }
        Step::CloneSibling { namespaces } => continue_as_sibling(ctx.control(), *namespaces)?,
        Step::BecomeRoot => {
            creds::setgroups(&[]).map_err(at("setgroups"))?;
            creds::setresgid(0).map_err(at("setresgid"))?;
            creds::setresuid(0).map_err(at("setresuid"))?;
        }
        Step::TakeRoot { path } => ctx.root_tree = Some(clone_root(ctx, path)?),
        Step::AttachRoot => {
            let tree = ctx.root_tree.take().ok_or(Failure("open", Errno::EBADF))?;
            let top = open_slash()?;
            m::move_mount(tree.as_fd(), top.as_fd()).map_err(at("move_mount"))?;
            ctx.root = Some(tree);
            ctx.node_root = Some(top);
        }
        Step::NewCgroupNamespace => process::unshare(CGROUP_NAMESPACE).map_err(at("unshare"))?,
        Step::WriteProc { path, value, .. } => write_proc(path, value)?,
        Step::Hostname(name) => process::sethostname(name).map_err(at("sethostname"))?,
        Step::Domainname(name) => process::setdomainname(name).map_err(at("setdomainname"))?,
        Step::Ask(Question::CreateHooks) => ask_for_hooks(ctx)?,
        Step::Ask(question) => ask(ctx.control(), *question)?,
        Step::Gate { listener } => wait_at_gate(ctx, listener.take())?,
        Step::MakeDevices(devices) => make_devices(ctx, devices)?,
        Step::TakeSysfs => {
            ctx.sysfs = Some(mounts::new_file_system(c"sysfs", &[], 0)?);
        }
        Step::PlaceRoot { tree, target, .. } => {
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let target = m::openat(CWD, target, flags, 0).map_err(at("open"))?;
            m::move_mount(tree.as_fd(), target.as_fd()).map_err(at("move_mount"))?;
            // As if it had been bound after the node's propagation was cut.
            let slave = MountAttr {
                propagation: libc::MS_SLAVE,
                ..MountAttr::default()
            };
            change(tree.as_fd(), true, &slave)?;
            let kept = tree.try_clone();
            ctx.root = Some(kept.map_err(|_| Failure("dup", Errno::EMFILE))?);
        }
        Step::StartHook(hook) => start_hook(ctx, index, hook)?,
        Step::Propagation { flags, .. } => {
            m::mount(None, c"/", None, *flags, None).map_err(at("mount"))?
        }
        Step::MountRoot {
            source,
            target,
            fstype,
            flags,
            data,
            workdir,
            owner,
            ..
        } => {
            if let Some(dir) = workdir {
                process::chdir(dir).map_err(at("chdir"))?;
            }
            let mount = || m::mount(Some(source), target, Some(fstype), *flags, data.as_deref());
            match owner {
                Some(id) => creds::with_file_owner(*id, *id, mount).map_err(at("setfsuid"))?,
                None => mount(),
            }
            .map_err(at("mount"))?;
            if *flags & libc::MS_BIND != 0 && *flags & !(libc::MS_BIND | libc::MS_REC) != 0 {
                // Flags of a bind mount take effect on a second call only.
                m::mount(None, target, None, *flags | libc::MS_REMOUNT, None)
                    .map_err(at("mount"))?;
            }
        }
        Step::MapLayers {
            maps,
            layers,
            names,
            at: place,
        } => {
            m::mount(Some(c"tmpfs"), place, Some(c"tmpfs"), 0, None).map_err(at("mount"))?;
            let place =
                m::openat(CWD, place, libc::O_PATH | libc::O_DIRECTORY, 0).map_err(at("open"))?;
            for (layer, name) in layers.iter().zip(names.iter()) {
                let tree = m::open_tree_clone(CWD, layer, false).map_err(at("open_tree"))?;
                map_ids(&tree, maps, false)?;
                m::mkdirat(place.as_raw_fd(), name, 0o700).map_err(at("mkdir"))?;
                let flags = libc::O_PATH | libc::O_DIRECTORY;
                let target = m::openat(place.as_raw_fd(), name, flags, 0).map_err(at("open"))?;
                m::move_mount(tree.as_fd(), target.as_fd()).map_err(at("move_mount"))?;
            }
        }
        Step::MapRoot { maps, target } => {
            let tree = clone_root(ctx, target)?;
            map_ids(&tree, maps, true)?;
            let place = take_root(ctx, target)?;
            m::move_mount(tree.as_fd(), place.as_fd()).map_err(at("move_mount"))?;
            ctx.root = Some(tree);
        }
        Step::OpenRoot { path } => ctx.root = Some(take_root(ctx, path)?),
        Step::Mount(mount) => attach(ctx, mount)?,
        Step::Device {
            path,
            mode,
            major,
            minor,
            uid,
            gid,
        } => {
            let (parent, name) = parent_of(root(ctx)?, path)?;
            match m::mknodat(parent.as_raw_fd(), name, *mode, m::makedev(*major, *minor)) {
                Ok(()) => {
                    m::lchownat(parent.as_raw_fd(), name, *uid, *gid).map_err(at("fchownat"))?
                }
                // The image, or a bind mount of the spec, has one already.
                Err(Errno::EEXIST) => {}
                Err(e) => return Err(Failure("mknod", e)),
            }
        }
        Step::Symlink {
            target,
            path,
            replace,
        } => {
            let (parent, name) = parent_of(root(ctx)?, path)?;
            let link = || m::symlinkat(target, parent.as_raw_fd(), name);
            match link() {
                Err(Errno::EEXIST) if *replace => {
                    m::unlinkat(parent.as_raw_fd(), name).map_err(at("unlink"))?;
                    link().map_err(at("symlink"))?;
                }
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(Failure("symlink", e)),
            }
        }
        Step::Mask(path) => mask(ctx, path)?,
        Step::ReadOnly(path) => protect(root(ctx)?, path)?,
        Step::PivotRoot => {
            leave_node(ctx);
            process::fchdir(root(ctx)?).map_err(at("fchdir"))?;
            m::pivot_here().map_err(at("pivot_root"))?;
            m::umount_detach(c".").map_err(at("umount"))?;
            process::chdir(c"/").map_err(at("chdir"))?;
        }
        Step::MoveRoot => {
            leave_node(ctx);
            process::fchdir(root(ctx)?).map_err(at("fchdir"))?;
            m::mount(Some(c"."), c"/", None, libc::MS_MOVE, None).map_err(at("mount"))?;
            process::chroot(c".").map_err(at("chroot"))?;
            process::chdir(c"/").map_err(at("chdir"))?;
        }
        Step::ChangeRoot => {
            process::fchdir(root(ctx)?).map_err(at("fchdir"))?;
            process::chroot(c".").map_err(at("chroot"))?;
            process::chdir(c"/").map_err(at("chdir"))?;
        }
        Step::PrivateRoot => {
            let private = MountAttr {
                propagation: libc::MS_PRIVATE,
                ..MountAttr::default()
            };
            change(root(ctx)?, true, &private)?;
        }
        Step::RootReadOnly => {
            let set = MountAttr {
                attr_set: attr::RDONLY,
                ..MountAttr::default()
            };
            change(root(ctx)?, false, &set)?;
        }
        Step::OpenOwnRoot => {
            ctx.root = Some(
                m::openat(CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0).map_err(at("open"))?,
            )
        }
        Step::Terminal { uid, size, console } => terminal(ctx, *uid, *size, *console)?,
        Step::Stdio(fds) => {
            process::setsid().map_err(at("setsid"))?;
            for (fd, stream) in fds.iter().zip(Standard::ALL) {
                process::become_standard(fd.as_fd(), stream).map_err(at("dup3"))?;
            }
        }
        Step::Rlimit {
            resource,
            soft,
            hard,
            ..
        } => process::setrlimit(*resource, *soft, *hard).map_err(at("prlimit"))?,
        Step::Keyring(name) => match creds::join_session_keyring(name) {
            // Kernels without keys, and hosts whose filter denies them, have no keyring that could leak.
            Ok(_) | Err(Errno::ENOSYS | Errno::EPERM | Errno::EACCES) => {}
            Err(e) => return Err(Failure("keyctl", e)),
        },
        Step::OpenLsm { path, .. } => {
            ctx.lsm = Some(m::openat(CWD, path, libc::O_WRONLY, 0).map_err(at("open"))?)
        }
        Step::ApplyLsm { label, .. } => {
            let file = ctx.lsm.as_ref().ok_or(Failure("open", Errno::ENOENT))?;
            process::write_all(file.as_fd(), label).map_err(at("write"))?;
        }
        Step::WorkingDirectory { path } => {
            // Never through a link like /proc/self/fd/7, which may lead out of the root: CVE-2024-21626.
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let open = || m::openat2(CWD, path, flags, 0, RESOLVE_NO_MAGICLINKS);
            let directory = match open() {
                Err(Errno::ENOENT) => {
                    make_directories(root(ctx)?, path)?;
                    open()
                }
                r => r,
            };
            let directory = directory.map_err(at("openat2"))?;
            process::fchdir(directory.as_fd()).map_err(at("fchdir"))?;
            if !process::cwd_is_reachable().map_err(at("getcwd"))? {
                return Err(Failure(
                    "the directory lies outside the container's root",
                    Errno::EPERM,
                ));
            }
        }
        Step::Credentials {
            uid,
            gid,
            groups,
            caps,
            keep,
        } => credentials(*uid, *gid, groups, caps, *keep)?,
        Step::IoPriority(value) => process::ioprio_set(*value).map_err(at("ioprio_set"))?,
        Step::Scheduler(attr) => process::sched_setattr(attr).map_err(at("sched_setattr"))?,
        Step::Affinity(mask) => {
            process::sched_setaffinity(mask).map_err(at("sched_setaffinity"))?
        }
        Step::Personality(domain) => process::personality(*domain).map_err(at("personality"))?,
        Step::MemoryPolicy { mode, nodes } => {
            process::set_mempolicy(*mode, nodes).map_err(at("set_mempolicy"))?
        }
        Step::Umask(mask) => process::umask(*mask),
        Step::NoNewPrivileges => creds::set_no_new_privs().map_err(at("prctl"))?,
        Step::FindProgram => {
            if let Some(uid) = program.home_of {
                set_home(uid, program);
            }
            ctx.chosen = find_program(program)?;
        }
        Step::CloseOnExec { first } => process::cloexec_from(*first).map_err(at("close_range"))?,
        Step::CoreScheduling { from } => {
            confine::core_scheduling(*from).map_err(at("prctl PR_SCHED_CORE"))?
        }
        Step::Securebits(bits) => {
            confine::set_securebits(*bits).map_err(at("prctl PR_SET_SECUREBITS"))?
        }
        Step::MitigateSpeculation => {
            for feature in [0, 1] {
                match confine::disable_speculation(feature) {
                    // Off for everybody, not to be turned off, or the processor does not need it.
                    Ok(()) | Err(Errno::ENXIO | Errno::ENODEV | Errno::EPERM) => {}
                    Err(e) => return Err(Failure("prctl PR_SET_SPECULATION_CTRL", e)),
                }
            }
        }
        Step::WriteXorExecute => confine::deny_write_execute().map_err(at("prctl PR_SET_MDWE"))?,
        Step::Landlock(rules) => landlock(rules)?,
        Step::Seccomp { program } => {
            let fd = sys::bpf::seccomp_set_filter(&program.insns, program.flags)
                .map_err(at("seccomp"))?;
            if program.asks() {
                hand_over(ctx.control(), fd)?;
            }
        }
    }
    Ok(())
}

fn root<'a>(ctx: &'a Context<'_>) -> Outcome<BorrowedFd<'a>> {
    ctx.root
        .as_ref()
        .map(AsFd::as_fd)
        .ok_or(Failure("open", Errno::EBADF))
}

fn open_slash() -> Outcome<OwnedFd> {
    m::openat(CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0).map_err(at("open"))
}

/// Has the parent run the hooks of a creation, and tells it where the node's root is in here.
fn ask_for_hooks(ctx: &mut Context<'_>) -> Outcome<()> {
    let root = match ctx.node_root.take() {
        Some(root) => root,
        None => open_slash()?,
    };
    let question = Message::Asks(Question::CreateHooks);
    hand(ctx.control(), question, root.as_fd())?;
    wait_for_answer(ctx.control())
}

/// Runs a hook of the container to its end.
fn start_hook(ctx: &Context<'_>, index: usize, hook: &StartHook) -> Outcome<()> {
    let mut digits = [b' '; 10];
    let mut left = process::own_pid().unsigned_abs();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    let at_pid = hook.pid_at.saturating_sub(digits.len());
    process::write_at(hook.state.as_fd(), &digits, at_pid).map_err(at("pwrite"))?;
    // SAFETY: this process has one thread, and the child makes system calls only.
    #[allow(unsafe_code)]
    let pid = match unsafe { process::fork() }.map_err(at("clone"))? {
        process::Forked::Child => {
            let outputs = [hook.state.as_fd(), hook.null.as_fd(), hook.null.as_fd()];
            for (fd, stream) in outputs.into_iter().zip(Standard::ALL) {
                if process::become_standard(fd, stream).is_err() {
                    process::exit_now(126);
                }
            }
            process::execve(&hook.program, &hook.argv, &hook.env);
            process::exit_now(127)
        }
        process::Forked::Parent(pid) => pid,
    };
    match wait_for_hook(pid, hook.timeout).map_err(at("wait4"))? {
        0 => Ok(()),
        status => {
            report(ctx.control(), index, wire::HOOK, status);
            process::exit_now(1)
        }
    }
}

/// The wait status. A hook that is late is killed.
fn wait_for_hook(pid: i32, timeout: Option<Duration>) -> Result<i32, Errno> {
    let Some(timeout) = timeout else {
        return process::wait_child(pid);
    };
    let end = Instant::now() + timeout;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = process::try_wait_child(pid)? {
            return Ok(status);
        }
        if Instant::now() >= end {
            process::kill(pid, libc::SIGKILL).ok();
            process::wait_child(pid)?;
            return Ok(hooks::LATE);
        }
        process::pause_for(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Asks the parent and waits for its word. If the parent is gone, so are we.
fn ask(control: BorrowedFd<'_>, question: Question) -> Outcome<()> {
    say(control, Message::Asks(question))?;
    wait_for_answer(control)
}

fn wait_for_answer(control: BorrowedFd<'_>) -> Outcome<()> {
    match process::read(control, &mut [0u8; 1]) {
        Ok(1) => Ok(()),
        _ => process::exit_now(1),
    }
}

/// Tells under which number the filter's notifications are, and waits until somebody has them.
fn hand_over(control: BorrowedFd<'_>, fd: RawFd) -> Outcome<()> {
    say(control, Message::Listener(fd))?;
    wait_for_answer(control)
}

/// Goes on as a sibling: the parent's child, as we are. Our own end follows at once.
fn continue_as_sibling(control: BorrowedFd<'_>, namespaces: u64) -> Outcome<()> {
    // SAFETY: this is a fork of a child that has one thread, and what follows is the same careful code.
    #[allow(unsafe_code)]
    match unsafe { process::clone3_sibling(namespaces) }.map_err(at("clone3"))? {
        // Told by the new process itself, or what it says next could be heard first.
        process::Cloned::Child => {
            let own = process::pidfd_open(process::own_pid()).map_err(at("pidfd_open"))?;
            hand(control, Message::Sibling, own.as_fd())
        }
        process::Cloned::Parent => process::exit_now(0),
    }
}

/// The gate. Without a listener only the parent can open it.
fn wait_at_gate(ctx: &mut Context<'_>, listener: Option<OwnedFd>) -> Outcome<()> {
    let Some(listener) = listener else {
        return ask(ctx.parent, Question::Gate);
    };
    say(ctx.parent, Message::Asks(Question::Gate))?;
    loop {
        let visitor = socket::accept(listener.as_fd()).map_err(at("accept"))?;
        // One that leaves without a word did not come to start us.
        if let Ok(1) = process::read(visitor.as_fd(), &mut [0u8; 1]) {
            ctx.visitor = Some(visitor);
            return Ok(());
        }
    }
}

fn write_proc(path: &CStr, value: &[u8]) -> Outcome<()> {
    let file = m::openat(CWD, path, libc::O_WRONLY, 0).map_err(at("open"))?;
    if m::fs_magic(file.as_fd()).map_err(at("fstatfs"))? != m::magic::PROC {
        return Err(Failure("the file is not on a procfs", Errno::EPERM));
    }
    process::write_all(file.as_fd(), value).map_err(at("write"))
}

/// What leads out of the container is not there any more when its own programs run.
fn leave_node(ctx: &mut Context<'_>) {
    ctx.node_root = None;
    ctx.sysfs = None;
    ctx.root_tree = None;
    ctx.devices = [const { None }; DEVICES];
}

/// The root that was placed; else, after mounts that make it up, what is at its path.
fn take_root(ctx: &mut Context<'_>, path: &CStr) -> Outcome<OwnedFd> {
    match ctx.root.take() {
        Some(root) => Ok(root),
        None => m::openat(CWD, path, libc::O_PATH | libc::O_DIRECTORY, 0).map_err(at("open")),
    }
}

fn clone_root(ctx: &Context<'_>, path: &CStr) -> Outcome<OwnedFd> {
    let clone = match &ctx.root {
        Some(root) => m::open_tree_clone(root.as_raw_fd(), c"", true),
        None => m::open_tree_clone(CWD, path, true),
    };
    clone.map_err(at("open_tree"))
}

/// Makes devices on a file system in memory, over this mount namespace's own `/dev`, which nobody else sees: only an attached mount
/// can be cloned on every kernel. What is kept are the clones, one for each.
fn make_devices(ctx: &mut Context<'_>, devices: &[(CString, u64)]) -> Outcome<()> {
    let tree = mounts::new_file_system(c"tmpfs", &[], attr::NOSUID | attr::NOEXEC)?;
    let dev = m::openat(CWD, c"/dev", libc::O_PATH | libc::O_DIRECTORY, 0).map_err(at("open"))?;
    m::move_mount(tree.as_fd(), dev.as_fd()).map_err(at("move_mount"))?;
    for ((name, rdev), slot) in devices.iter().zip(ctx.devices.iter_mut()) {
        let mode = libc::S_IFCHR | 0o666;
        m::mknodat(tree.as_raw_fd(), name, mode, *rdev).map_err(at("mknod"))?;
        let clone = m::open_tree_clone(tree.as_raw_fd(), name, false);
        *slot = Some(clone.map_err(at("open_tree"))?);
    }
    m::umount_detach(c"/dev").map_err(at("umount"))
}

/// A terminal of the container's own devpts, by descriptor all the way (CVE-2025-52565).
fn terminal(ctx: &Context<'_>, uid: u32, size: Option<(u16, u16)>, console: bool) -> Outcome<()> {
    let root = root(ctx)?;
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let rules = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS;
    let master = m::openat2(root.as_raw_fd(), c"dev/pts/ptmx", flags, 0, rules)
        .map_err(at("openat2 /dev/pts/ptmx"))?;
    let st = m::fstat(master.as_fd()).map_err(at("fstat"))?;
    if st.st_rdev != m::makedev(5, 2)
        || m::fs_magic(master.as_fd()).map_err(at("fstatfs"))? != m::magic::DEVPTS
    {
        return Err(Failure("/dev/pts is not a devpts", Errno::ENODEV));
    }
    let peer = tty::open_peer(master.as_fd()).map_err(at("TIOCGPTPEER"))?;
    sys::fchown(peer.as_fd(), uid, u32::MAX).map_err(at("fchown"))?;
    if let Some((columns, rows)) = size {
        tty::set_size(peer.as_fd(), columns, rows).map_err(at("TIOCSWINSZ"))?;
    }
    if console {
        let target = open_target(root, c"dev/console", false, true)?;
        let tree = m::open_tree_clone(peer.as_raw_fd(), c"", false).map_err(at("open_tree"))?;
        m::move_mount(tree.as_fd(), target.as_fd()).map_err(at("move_mount"))?;
    }
    hand(ctx.control(), Message::Terminal, master.as_fd())?;
    process::setsid().map_err(at("setsid"))?;
    tty::set_controlling(peer.as_fd()).map_err(at("TIOCSCTTY"))?;
    for stream in Standard::ALL {
        process::become_standard(peer.as_fd(), stream).map_err(at("dup3"))?;
    }
    Ok(())
}
