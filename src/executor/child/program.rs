//! What the process becomes, from its identity to its program: keyring, label, working directory, credentials, Landlock, where the
//! program is, and its home.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::super::script::Ruleset;
use super::super::script::UserProgram;
use super::super::wire::NO_EXEC;
use super::paths::{PathBuffer, make_directories};
use super::{Context, Failure, Outcome, at};
use crate::oci::capabilities::Sets;
use crate::sys::mount::{self as m, CWD, RESOLVE_NO_MAGICLINKS};
use crate::sys::process::Standard;
use crate::sys::{confine, creds, process};

pub(super) fn credentials(
    uid: u32,
    gid: u32,
    groups: &[u32],
    caps: &Sets,
    keep: u64,
) -> Outcome<()> {
    for cap in 0..64 {
        if caps.bounding & 1 << cap == 0 && creds::in_bounding(cap) {
            creds::drop_bounding(cap).map_err(at("drop from the bounding set"))?;
        }
    }
    creds::keep_capabilities(true).map_err(at("PR_SET_KEEPCAPS"))?;
    creds::setgroups(groups).map_err(at("setgroups"))?;
    creds::setresgid(gid).map_err(at("setresgid"))?;
    creds::setresuid(uid).map_err(at("setresuid"))?;
    creds::capset(
        caps.effective | keep,
        caps.permitted | keep,
        caps.inheritable,
    )
    .map_err(at("capset"))?;
    creds::keep_capabilities(false).map_err(at("PR_SET_KEEPCAPS"))?;
    creds::clear_ambient().map_err(at("clear the ambient set"))?;
    for cap in (0..64).filter(|cap| caps.ambient & 1 << cap != 0) {
        creds::raise_ambient(cap).map_err(at("raise an ambient capability"))?;
    }
    Ok(())
}

/// Fills in `HOME`, and chooses the first candidate that may be executed. If there is none, the most telling reason is the error.
pub(super) fn find_program(ctx: &mut Context<'_>, program: &mut UserProgram) -> Outcome<()> {
    if let Some(uid) = program.home_of {
        set_home(uid, program);
    }
    let mut reason = Errno::ENOENT;
    let mut no_exec = false;
    for (index, path) in program.candidates.iter().enumerate() {
        match process::access(path, libc::X_OK) {
            Ok(()) if process::is_dir(path) => reason = Errno::EISDIR,
            Ok(()) => {
                ctx.chosen = index;
                return Ok(());
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(e) => {
                reason = e;
                no_exec |= m::is_no_exec(path);
            }
        }
    }
    Err(Failure(if no_exec { NO_EXEC } else { "find" }, reason))
}

/// A file that is there and is no program: a script that names no interpreter, or one that the image lacks. The process ends as it
/// would with runc, with word on its standard error, and with a shell's status (POSIX, "Exit Status for Commands"): it is the image that
/// is wrong, not the node. So the start succeeds, and a probe fails instead of being an error of the runtime.
pub(super) fn not_executable(path: &CStr, errno: Errno) -> ! {
    let reason = match errno {
        Errno::ENOEXEC => "exec format error",
        Errno::ENOENT => "no such file or directory",
        e => e.desc(),
    };
    let mut line = PathBuffer::new();
    for part in [b"exec ", path.to_bytes(), b": ", reason.as_bytes(), b"\n"] {
        line.push(part).ok();
    }
    process::write_all(Standard::Error.borrowed(), line.as_c_str().to_bytes()).ok();
    process::exit_now(126)
}

/// How much of `/etc/passwd` is read, in bytes.
const LONGEST_PASSWD: usize = 1 << 20;

/// Fills in `HOME=` from the image's `/etc/passwd`, `/` where the user is not in it. passwd(5).
fn set_home(uid: u32, program: &mut UserProgram) {
    let Some(out) = program
        .env
        .buffer_mut()
        .and_then(|b| b.get_mut(b"HOME=".len()..))
    else {
        return;
    };
    let rules = RESOLVE_NO_MAGICLINKS;
    let Ok(file) = m::openat2(
        CWD,
        c"/etc/passwd",
        libc::O_RDONLY | libc::O_NONBLOCK,
        0,
        rules,
    ) else {
        return;
    };
    // A device or a pipe of the image's may have no end.
    let is_file = |st: libc::stat| st.st_mode & libc::S_IFMT == libc::S_IFREG;
    if !m::fstat(file.as_fd()).is_ok_and(is_file) {
        return;
    }
    let mut buffer = [0u8; 4096];
    let mut filled = 0;
    for _ in 0..LONGEST_PASSWD / buffer.len() {
        let Some(free) = buffer.get_mut(filled..) else {
            return;
        };
        let n = process::read(file.as_fd(), free).unwrap_or(0);
        filled += n;
        let text = buffer.get(..filled).unwrap_or_default();
        let complete = if n == 0 {
            filled
        } else {
            text.iter().rposition(|b| *b == b'\n').map_or(0, |p| p + 1)
        };
        for line in text
            .get(..complete)
            .unwrap_or_default()
            .split(|b| *b == b'\n')
        {
            let mut fields = line.split(|b| *b == b':').skip(2);
            if parse_uid(fields.next().unwrap_or_default()) == Some(uid)
                && let Some(home) = fields
                    .nth(2)
                    .filter(|h| !h.is_empty() && h.len() <= out.len())
            {
                out.fill(0);
                if let Some(to) = out.get_mut(..home.len()) {
                    to.copy_from_slice(home);
                }
                return;
            }
        }
        if n == 0 {
            return;
        }
        // Keep the part of a line at the end; a line longer than the buffer is nobody's entry.
        buffer.copy_within(complete..filled, 0);
        filled = if complete == 0 && filled == buffer.len() {
            0
        } else {
            filled - complete
        };
    }
}

pub(super) fn parse_uid(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Paths that are not there need no rule.
pub(super) fn landlock(rules: &Ruleset) -> Outcome<()> {
    use confine::landlock as ll;
    let ruleset = confine::landlock_ruleset(rules.fs, rules.net, rules.scoped)
        .map_err(at("landlock_create_ruleset"))?;
    let paths = rules.paths.iter().map(|rule| (rule, true));
    let files = rules.files.iter().map(|rule| (rule, false));
    for ((path, access), may_be_dir) in paths.chain(files) {
        let file = match m::openat(CWD, path, libc::O_PATH, 0) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            file => file.map_err(at("open"))?,
        };
        let is_dir =
            m::fstat(file.as_fd()).map_err(at("fstat"))?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if is_dir && !may_be_dir {
            continue;
        }
        // Of a file's rights only these make sense.
        let of_files = ll::EXECUTE | ll::WRITE_FILE | ll::TRUNCATE;
        let access = if is_dir { *access } else { *access & of_files };
        match confine::landlock_allow_path(ruleset.as_fd(), file.as_fd(), access) {
            // Pipes and sockets, which Landlock restricts for nobody.
            Err(Errno::EBADFD) => {}
            added => added.map_err(at("landlock_add_rule"))?,
        }
    }
    for (port, access) in &rules.ports {
        confine::landlock_allow_port(ruleset.as_fd(), *port, *access)
            .map_err(at("landlock_add_rule"))?;
    }
    confine::landlock_restrict(ruleset.as_fd(), rules.audit).map_err(at("landlock_restrict_self"))
}

/// A session keyring of the container's own. Kernels without keys, and nodes whose filter denies them, have no keyring that
/// could leak.
pub(super) fn join_keyring(name: &CStr) -> Outcome<()> {
    match creds::join_session_keyring(name) {
        Ok(keyring) => {
            // An exec can only join what it may search. By default that is a keyring's possessor alone.
            creds::set_key_permissions(keyring, creds::KEYS_OF_CONTAINER).ok();
            Ok(())
        }
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EACCES) => Ok(()),
        Err(e) => Err(Failure("keyctl", e)),
    }
}

/// Opens the LSM attribute file while the node's procfs is still there.
pub(super) fn open_label_file(ctx: &mut Context<'_>, path: &CStr) -> Outcome<()> {
    let here = match &ctx.proc {
        Some(_) => None,
        None => Some(open_proc()?),
    };
    let proc = ctx.proc.as_ref().or(here.as_ref());
    let proc = proc.map_or(CWD, AsFd::as_fd);
    ctx.lsm = Some(m::openat(proc, path, libc::O_WRONLY, 0).map_err(at("open"))?);
    Ok(())
}

/// `/proc`, as it is now.
pub(super) fn open_proc() -> Outcome<OwnedFd> {
    m::openat(CWD, c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0).map_err(at("open /proc"))
}

/// Writes the label that execve(2) applies.
pub(super) fn write_label(ctx: &Context<'_>, label: &[u8]) -> Outcome<()> {
    let file = ctx.lsm.as_ref().ok_or(Failure("open", Errno::ENOENT))?;
    process::write_all(file.as_fd(), label).map_err(at("write"))
}

/// The working directory, never through a link like /proc/self/fd/7, which may lead out of the root: CVE-2024-21626.
pub(super) fn enter_directory(ctx: &Context<'_>, path: &CStr, make: bool) -> Outcome<()> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let open = || m::openat2(CWD, path, flags, 0, RESOLVE_NO_MAGICLINKS);
    let directory = match open() {
        Err(Errno::ENOENT) if make => {
            make_directories(ctx.root()?, path)?;
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
    Ok(())
}

/// Turns off speculative store bypass and indirect branch speculation.
pub(super) fn mitigate_speculation() -> Outcome<()> {
    for feature in [0, 1] {
        match confine::disable_speculation(feature) {
            // Off for everybody, not to be turned off, or the processor does not need it.
            Ok(()) | Err(Errno::ENXIO | Errno::ENODEV | Errno::EPERM) => {}
            Err(e) => return Err(Failure("prctl PR_SET_SPECULATION_CTRL", e)),
        }
    }
    Ok(())
}
