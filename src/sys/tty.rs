//! Pseudo-terminals, by descriptor only.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};

use super::{Result, check};

/// Unlocks the master and opens its peer without any path: `TIOCSPTLCK`, `TIOCGPTPEER` (Linux 4.13).
pub fn open_peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    check(libc::c_long::from(unsafe {
        libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock)
    }))?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a descriptor.
    let fd = check(libc::c_long::from(unsafe {
        libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags)
    }))?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Lets the ends of lines come out as they are written: `ONLCR`, termios(3).
pub fn keep_ends_of_lines(tty: BorrowedFd<'_>) -> Result<()> {
    let mut settings = tcgetattr(tty)?;
    settings.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(tty, SetArg::TCSANOW, &settings)
}

/// Makes the terminal the controlling one of the caller's session.
pub fn set_controlling(tty: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: plain number.
    check(libc::c_long::from(unsafe {
        libc::ioctl(tty.as_raw_fd(), libc::TIOCSCTTY, 0)
    }))?;
    Ok(())
}

/// The window size, in characters.
pub fn size(tty: BorrowedFd<'_>) -> Result<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one winsize.
    check(libc::c_long::from(unsafe {
        libc::ioctl(tty.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size)
    }))?;
    Ok((size.ws_col, size.ws_row))
}

/// Sets the window size, in characters.
pub fn set_size(tty: BorrowedFd<'_>, columns: u16, rows: u16) -> Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize.
    check(libc::c_long::from(unsafe {
        libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ, &raw const size)
    }))?;
    Ok(())
}
