//! Accepts connections of the node's own processes only. The socket's mode says the same; this holds where a path was moved, linked
//! or mounted into a container.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};
use ttrpc::asynchronous::transport::Listener;

use crate::control::peer;
use crate::sys::socket::PAUSE_AFTER_FAILED_ACCEPT;

struct OfNode {
    listener: UnixListener,
    /// Set after an error: no connection is accepted before its end.
    pause: Option<Pin<Box<Sleep>>>,
    /// Nothing was accepted since an error.
    is_failing: bool,
}

impl Stream for OfNode {
    type Item = io::Result<UnixStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            match ready!(this.listener.poll_accept(cx)) {
                // No descriptor or no memory is left. The connection waits, and would be reported again at once.
                Err(e) => {
                    if !std::mem::replace(&mut this.is_failing, true) {
                        log::warn!(error:% = e; "cannot accept a connection: trying again");
                    }
                    this.pause = Some(Box::pin(sleep(PAUSE_AFTER_FAILED_ACCEPT)));
                }
                Ok((stream, _)) => {
                    this.is_failing = false;
                    if peer::is_ours(stream.as_fd()) {
                        return Poll::Ready(Some(Ok(stream)));
                    }
                }
            }
        }
    }
}

/// A ttrpc listener on `listener` that drops every connection of others.
pub(super) fn of_node(listener: StdUnixListener) -> io::Result<Listener> {
    listener.set_nonblocking(true)?;
    Ok(Listener::new(OfNode {
        listener: UnixListener::from_std(listener)?,
        pause: None,
        is_failing: false,
    }))
}
