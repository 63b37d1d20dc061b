//! The shim's side.

use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{Answer, Ask, DIRECTORY, peer, socket_of};
use crate::files::private_directory;
use crate::sys::socket::{self, PAUSE_AFTER_FAILED_ACCEPT};

/// A question is a line; whoever does not send one by then is left.
const MAX_QUESTION: usize = 4096;
const WITHIN: Duration = Duration::from_secs(5);
/// People who ask at once; more have to wait.
const MAX_CLIENTS: usize = 4;

/// The pod's socket. It goes with the value.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
}

impl Server {
    /// Makes the socket, readable by root alone.
    pub fn bind() -> io::Result<Self> {
        private_directory(Path::new(DIRECTORY))?;
        let path = socket_of(std::process::id());
        // An earlier process of this pid is gone.
        fs::remove_file(&path).ok();
        let listener = socket::listen_privately(&path)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(Self { listener })
    }

    /// Answers for as long as the pod lives.
    pub async fn run<F, T>(self, answer: F)
    where
        F: Fn(Ask) -> T + Send + Sync + 'static,
        T: Future<Output = Answer> + Send + 'static,
    {
        let (answer, turns) = (Arc::new(answer), Arc::new(Semaphore::new(MAX_CLIENTS)));
        loop {
            let Ok(turn) = turns.clone().acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let answer = answer.clone();
                    tokio::spawn(async move {
                        tokio::time::timeout(WITHIN, talk(stream, &*answer))
                            .await
                            .ok();
                        drop(turn);
                    });
                }
                Err(_) => tokio::time::sleep(PAUSE_AFTER_FAILED_ACCEPT).await,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        fs::remove_file(socket_of(std::process::id())).ok();
    }
}

async fn talk<F, T>(mut stream: UnixStream, answer: &F) -> io::Result<()>
where
    F: Fn(Ask) -> T,
    T: Future<Output = Answer>,
{
    // The file's mode says so already; but a path can be mounted into a container, and a descriptor passed on.
    if !peer::is_ours(stream.as_fd()) {
        return Ok(());
    }
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() < MAX_QUESTION {
        if stream.read_buf(&mut line).await? == 0 {
            break;
        }
    }
    let answer = match serde_json::from_slice::<Ask>(&line) {
        Ok(ask) => answer(ask).await,
        Err(e) => Answer::Error(format!(
            "this shim (version {}) does not know the question: {e}",
            env!("CARGO_PKG_VERSION")
        )),
    };
    stream.write_all(&serde_json::to_vec(&answer)?).await
}
