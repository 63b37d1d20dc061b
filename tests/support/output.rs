//! Running programs, with a time limit.

use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use super::{slowness, text};

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Runs a command to its end; panics where that takes longer than a minute.
    #[track_caller]
    pub fn of(command: &mut Command) -> Self {
        let text = format!("{command:?}");
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self::wait(child.unwrap_or_else(|e| panic!("{text}: {e}")), &text)
    }

    /// The same for a command that was started with pipes already.
    #[track_caller]
    pub fn wait(mut child: Child, what: &str) -> Self {
        let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
        let end = Instant::now() + Duration::from_secs(60) * slowness();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                child.kill().ok();
                panic!("still running after a minute: {what}");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        Self {
            status: status.code().unwrap_or(-1),
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        }
    }

    /// Panics unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 0, "{self:?}");
        self
    }
}

fn drain(stream: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            stream.read_to_end(&mut bytes).ok();
        }
        text(&bytes)
    })
}
