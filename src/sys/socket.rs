//! Unix sockets: the one between the executor and a container's process, and those that people and containerd connect to.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::ptr;
use std::time::Duration;

use super::{Result, check};
use nix::errno::Errno;

/// When descriptors or memory run out, the connection stays in the queue and the listener stays readable. A server that tried
/// again at once would be busy with nothing else.
pub const PAUSE_AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// A listener that root alone can connect to, from its first moment: the mode of a socket before it is bound is that of its file,
/// `unix(7)`.
///
/// # Errors
/// As of `bind(2)`; a path of more than 107 bytes.
pub fn listen_privately(path: &Path) -> std::io::Result<UnixListener> {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
    };
    use nix::sys::stat::{Mode, fchmod};
    let fd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::MAXCONN)?;
    Ok(fd.into())
}

/// A close-on-exec pair that keeps record boundaries: `SOCK_SEQPACKET`.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    // SAFETY: `fds` has room for two descriptors.
    check(libc::c_long::from(unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC,
            0,
            fds.as_mut_ptr(),
        )
    }))?;
    // SAFETY: the kernel has just returned both descriptors to us alone.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

#[repr(C, align(8))]
struct Control([u8; 24]); // CMSG_SPACE(sizeof(int))

/// Sends `fd` with some data, at least one byte.
pub fn send_fd(socket: BorrowedFd<'_>, data: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let mut control = Control([0; 24]);
    let mut iov = libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    };
    // SAFETY: an all-zero msghdr is valid; the pointers set below outlive the call, and the control buffer is
    // aligned and large enough for one descriptor.
    unsafe {
        let mut msg: libc::msghdr = std::mem::zeroed();
        msg.msg_iov = &raw mut iov;
        msg.msg_iovlen = 1;
        msg.msg_control = control.0.as_mut_ptr().cast();
        msg.msg_controllen = control.0.len();
        let cmsg = libc::CMSG_FIRSTHDR(&raw const msg);
        (*cmsg).cmsg_level = libc::SOL_SOCKET;
        (*cmsg).cmsg_type = libc::SCM_RIGHTS;
        (*cmsg).cmsg_len = libc::CMSG_LEN(4) as usize;
        ptr::write_unaligned(libc::CMSG_DATA(cmsg).cast::<RawFd>(), fd.as_raw_fd());
        check(
            libc::sendmsg(socket.as_raw_fd(), &raw const msg, libc::MSG_NOSIGNAL) as libc::c_long,
        )?;
    }
    Ok(())
}

/// Receives one record into `buf`, with a descriptor if one came along. A length of 0 is the end of the stream.
pub fn receive(socket: BorrowedFd<'_>, buf: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut control = Control([0; 24]);
    let mut iov = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    loop {
        // SAFETY: an all-zero msghdr is valid; the pointers set below outlive the call.
        unsafe {
            let mut msg: libc::msghdr = std::mem::zeroed();
            msg.msg_iov = &raw mut iov;
            msg.msg_iovlen = 1;
            msg.msg_control = control.0.as_mut_ptr().cast();
            msg.msg_controllen = control.0.len();
            let n =
                match check(
                    libc::recvmsg(socket.as_raw_fd(), &raw mut msg, libc::MSG_CMSG_CLOEXEC)
                        as libc::c_long,
                ) {
                    Ok(n) => n as usize,
                    Err(Errno::EINTR) => continue,
                    // The peer closed the socket before it read our data: handled as an end of stream.
                    Err(Errno::ECONNRESET) => 0,
                    Err(e) => return Err(e),
                };
            let cmsg = libc::CMSG_FIRSTHDR(&raw const msg);
            let fd = (!cmsg.is_null()
                && (*cmsg).cmsg_level == libc::SOL_SOCKET
                && (*cmsg).cmsg_type == libc::SCM_RIGHTS)
                .then(|| {
                    OwnedFd::from_raw_fd(ptr::read_unaligned(libc::CMSG_DATA(cmsg).cast::<RawFd>()))
                });
            return Ok((n, fd));
        }
    }
}

fn address(path: &Path) -> Result<(libc::sockaddr_un, libc::socklen_t)> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: an all-zero sockaddr_un is valid.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    if bytes.len() >= address.sun_path.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok((address, size_of::<libc::sockaddr_un>() as libc::socklen_t))
}

fn socket() -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = check(libc::c_long::from(unsafe {
        libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0)
    }))?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A listener for connections that keep record boundaries, at `path`, of at most 107 bytes.
pub fn listen(path: &Path) -> Result<OwnedFd> {
    let (socket, (address, len)) = (socket()?, address(path)?);
    // SAFETY: `address` is readable for `len` bytes.
    check(libc::c_long::from(unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len)
    }))?;
    // SAFETY: plain numbers.
    check(libc::c_long::from(unsafe {
        libc::listen(socket.as_raw_fd(), 1)
    }))?;
    Ok(socket)
}

/// Connects to a [`listen`]er.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let (socket, (address, len)) = (socket()?, address(path)?);
    // SAFETY: `address` is readable for `len` bytes.
    check(libc::c_long::from(unsafe {
        libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len)
    }))?;
    Ok(socket)
}

/// Waits for a connection to `listener`.
pub fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd> {
    loop {
        // SAFETY: null addresses are allowed.
        let fd = unsafe {
            libc::accept4(
                listener.as_raw_fd(),
                ptr::null_mut(),
                ptr::null_mut(),
                libc::SOCK_CLOEXEC,
            )
        };
        match check(libc::c_long::from(fd)) {
            // SAFETY: the kernel has just returned this descriptor to us alone.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// User and process at the other end of a unix socket when it connected: `SO_PEERCRED`, `unix(7)`.
pub fn peer(socket: BorrowedFd<'_>) -> Result<(u32, i32)> {
    let found = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)?;
    Ok((found.uid(), found.pid()))
}

/// A stream to a listener at `path`; `EAGAIN` where its queue is full, so that nobody who listens and does not accept is waited
/// for.
pub fn connect_at_once(path: &Path) -> Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let fd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(fd)
}
