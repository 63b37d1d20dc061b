//! Accepts connections of our own user only. The socket's mode says the same; this holds where a path was moved or linked.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::net::{UnixListener, UnixStream};
use ttrpc::asynchronous::transport::Listener;

use crate::sys::socket::peer_uid;

struct SameUser {
    listener: UnixListener,
    uid: u32,
}

impl Stream for SameUser {
    type Item = io::Result<UnixStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.listener.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(e)) => return Poll::Ready(Some(Err(e))),
                Poll::Ready(Ok((stream, _))) => match peer_uid(stream.as_fd()) {
                    Ok(uid) if uid == self.uid => return Poll::Ready(Some(Ok(stream))),
                    Ok(uid) => log::warn!(uid:%; "refused a connection of another user"),
                    Err(e) => {
                        log::warn!(error:% = e; "refused a connection of an unknown user")
                    }
                },
            }
        }
    }
}

/// A ttrpc listener on `listener` that drops every connection of another user.
pub(super) fn same_user(listener: StdUnixListener) -> io::Result<Listener> {
    listener.set_nonblocking(true)?;
    Ok(Listener::new(SameUser {
        listener: UnixListener::from_std(listener)?,
        uid: nix::unistd::geteuid().as_raw(),
    }))
}
