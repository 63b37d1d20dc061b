//! Descriptors: reading, writing, passing and closing them.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::{Result, check};

/// Marks every descriptor from `first` upwards close-on-exec. Linux 5.11; walks the numbers on older kernels.
pub fn cloexec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: plain numbers.
    match check(unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC)
    }) {
        Ok(_) => Ok(()),
        Err(Errno::ENOSYS | Errno::EINVAL) => {
            for fd in first..65536 {
                // SAFETY: fcntl on an unused number fails harmlessly.
                unsafe { libc::fcntl(fd as i32, libc::F_SETFD, libc::FD_CLOEXEC) };
            }
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// Takes the mark for `execve(2)` from descriptors.
pub fn keep_on_exec(fds: std::ops::Range<u32>) -> Result<()> {
    for fd in fds {
        // SAFETY: plain numbers.
        check(libc::c_long::from(unsafe {
            libc::fcntl(fd.cast_signed(), libc::F_SETFD, 0)
        }))?;
    }
    Ok(())
}

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standard {
    /// Descriptor 0.
    Input,
    /// Descriptor 1.
    Output,
    /// Descriptor 2.
    Error,
}

impl Standard {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Input, Self::Output, Self::Error];

    /// Its descriptor. One that is closed is an error of the call that it is used in.
    pub fn borrowed(self) -> BorrowedFd<'static> {
        // SAFETY: nobody owns the numbers 0 to 2, so nobody closes them.
        unsafe { BorrowedFd::borrow_raw(self as RawFd) }
    }
}

/// `fd` becomes a standard stream of this process, and of the program that it executes: `dup3(2)` without close-on-exec. Nobody
/// owns the numbers 0 to 2, so nothing is taken away from anybody.
pub fn become_standard(fd: BorrowedFd<'_>, stream: Standard) -> Result<()> {
    let number = stream as RawFd;
    if fd.as_raw_fd() == number {
        // SAFETY: plain numbers.
        check(libc::c_long::from(unsafe {
            libc::fcntl(number, libc::F_SETFD, 0)
        }))?;
        return Ok(());
    }
    // SAFETY: plain numbers.
    check(libc::c_long::from(unsafe {
        libc::dup3(fd.as_raw_fd(), number, 0)
    }))?;
    Ok(())
}

/// `write(2)` of the whole buffer or an error.
pub fn write_all(fd: BorrowedFd<'_>, mut buf: &[u8]) -> Result<()> {
    while !buf.is_empty() {
        // SAFETY: `buf` is readable for its length.
        let written = unsafe { libc::write(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len()) };
        match check(written as libc::c_long) {
            Ok(n) => buf = buf.get(n as usize..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// `read(2)`, retried on EINTR.
pub fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    loop {
        // SAFETY: `buf` is writable for its length.
        let got = unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
        match check(got as libc::c_long) {
            Ok(n) => return Ok(n as usize),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// A close-on-exec eventfd.
pub fn eventfd() -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = check(libc::c_long::from(unsafe {
        libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)
    }))?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Takes over a descriptor that was inherited under a known number; `None` if there is none.
///
/// # Safety
/// Nobody else in this process may own the descriptor.
pub unsafe fn inherited_fd(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD on an unused number fails harmlessly.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, and the caller says that nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Waits until a descriptor can be read, or its other end is closed; false if `within` has passed before. Signals, such as a child's
/// end, do not end the wait: `poll(2)`.
pub fn wait_readable(fd: BorrowedFd<'_>, within: Option<Duration>) -> Result<bool> {
    wait_any([fd], within).map(|[ready]| ready)
}

/// The same for some: which of them can be read. None of them: `within` has passed.
pub fn wait_any<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    within: Option<Duration>,
) -> Result<[bool; N]> {
    // A time that the clock does not have is for ever.
    let end = within.and_then(|within| Instant::now().checked_add(within));
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut all = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut all, timeout) {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
            Ok(0) if end.is_none_or(|end| Instant::now() < end) => {}
            Ok(_) => return Ok(all.map(|fd| fd.any().unwrap_or(false))),
        }
    }
}

/// A pipe: what is written to the second can be read from the first. `pipe2(2)`, close-on-exec.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC)
}

/// Waits until nobody has the other end of a pipe.
pub fn wait_for_end(pipe: BorrowedFd<'_>) -> Result<()> {
    let mut byte = [0u8; 1];
    loop {
        match nix::unistd::read(pipe, &mut byte) {
            Err(Errno::EINTR) => {}
            read => return read.map(drop),
        }
    }
}

/// The number of bytes that wait in a pipe or fifo: `FIONREAD`.
pub fn bytes_waiting(fd: BorrowedFd<'_>) -> Result<usize> {
    let mut n: libc::c_int = 0;
    // SAFETY: `n` is writable.
    check(libc::c_long::from(unsafe {
        libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut n)
    }))?;
    Ok(n as usize)
}

/// Moves up to `len` bytes from one pipe to another without copying them: `splice(2)`, non-blocking.
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> Result<usize> {
    // SAFETY: null offsets, as pipes require.
    let n = check(unsafe {
        libc::splice(
            from.as_raw_fd(),
            ptr::null_mut(),
            to.as_raw_fd(),
            ptr::null_mut(),
            len,
            libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE,
        )
    } as libc::c_long)?;
    Ok(n as usize)
}

/// Closes every descriptor from 3 upwards that is neither `control` nor in `keep`, which is sorted. Allocates nothing.
///
/// # Safety
/// The caller is a fresh child that uses no other descriptor, and never drops the owner of one.
pub unsafe fn close_all_but(control: RawFd, keep: &[RawFd]) {
    let mut first = 3;
    let mut control_left = true;
    let mut next = keep.iter().copied();
    let mut kept = next.next();
    loop {
        let fd = match (kept, control_left) {
            (Some(k), true) if control < k => {
                control_left = false;
                control
            }
            (Some(k), _) => {
                kept = next.next();
                k
            }
            (None, true) => {
                control_left = false;
                control
            }
            (None, false) => break,
        };
        close_range(first, fd - 1);
        first = fd + 1;
    }
    close_range(first, i32::MAX);
}

/// Closes the descriptors `first` to `last`, both included; nothing if the range is empty. Linux 5.9.
fn close_range(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: the caller of `close_all_but` uses none of them.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } < 0 {
        for fd in first..last.min(65536) {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        }
    }
}

/// Writes at an offset: `pwrite(2)`.
pub fn write_at(fd: BorrowedFd<'_>, bytes: &[u8], offset: usize) -> Result<()> {
    // SAFETY: `bytes` is readable for its length.
    check(unsafe {
        libc::pwrite(
            fd.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            offset as libc::off_t,
        ) as libc::c_long
    })?;
    Ok(())
}

/// Makes `fds` the descriptors `first`, `first + 1`, … of `command`. Our copies close with the command.
pub fn pass_descriptors(command: &mut std::process::Command, fds: Vec<OwnedFd>, first: RawFd) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure only makes system calls that are async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            let mut high: [RawFd; 8] = [-1; 8];
            for (fd, slot) in fds.iter().zip(high.iter_mut()) {
                // Out of the way first: a source may have the number of another one's target.
                *slot = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 64);
                if *slot < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            for (slot, target) in high.iter().take(fds.len()).zip(first..) {
                // In the program to come nobody owns the number.
                if libc::dup3(*slot, target, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::thread::JoinHandleExt;

    use super::*;

    extern "C" fn nothing(_: libc::c_int) {}

    #[test]
    fn signals_do_not_end_a_wait() {
        // SAFETY: the handler does nothing; without SA_RESTART, and with it, poll(2) is interrupted.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(libc::SIGUSR2, &raw const action, ptr::null_mut());
        }
        let (reader, writer) = std::io::pipe().unwrap();
        let begun = Instant::now();
        let within = Duration::from_millis(300);
        let waiting = std::thread::spawn(move || wait_readable(reader.as_fd(), Some(within)));
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(20));
            // SAFETY: the thread is not joined yet.
            unsafe { libc::pthread_kill(waiting.as_pthread_t(), libc::SIGUSR2) };
        }
        assert_eq!(waiting.join().unwrap(), Ok(false));
        assert!(begun.elapsed() >= within);
        drop(writer);
    }

    #[test]
    fn a_closed_end_ends_a_wait() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        assert_eq!(wait_readable(reader.as_fd(), None), Ok(true));
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(
            wait_readable(reader.as_fd(), Some(Duration::ZERO)),
            Ok(false)
        );
    }
}
