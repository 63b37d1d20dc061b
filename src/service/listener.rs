//! Accepts connections of the node's own processes only. The socket's mode says the same; this holds where a path was moved, linked
//! or mounted into a container.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::net::{UnixListener, UnixStream};
use ttrpc::asynchronous::transport::Listener;

use crate::control::peer;

struct OfNode {
    listener: UnixListener,
}

impl Stream for OfNode {
    type Item = io::Result<UnixStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.listener.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(e)) => return Poll::Ready(Some(Err(e))),
                Poll::Ready(Ok((stream, _))) if peer::is_ours(stream.as_fd()) => {
                    return Poll::Ready(Some(Ok(stream)));
                }
                Poll::Ready(Ok(_)) => {}
            }
        }
    }
}

/// A ttrpc listener on `listener` that drops every connection of others.
pub(super) fn of_node(listener: StdUnixListener) -> io::Result<Listener> {
    listener.set_nonblocking(true)?;
    Ok(Listener::new(OfNode {
        listener: UnixListener::from_std(listener)?,
    }))
}
