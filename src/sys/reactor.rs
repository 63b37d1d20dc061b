//! Descriptors on the event loop.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers an owner of a descriptor with the event loop that this runs on.
pub fn register<T: AsFd + AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: `AsFd` promises that the descriptor is open as long as `owner` lives, and the `AsyncFd` owns `owner`; all of
    // our types return the same descriptor every time.
    let registered = unsafe { AsyncFd::register_with_interest(owner, interest) };
    registered.map_err(Into::into)
}
