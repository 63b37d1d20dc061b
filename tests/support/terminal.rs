//! A terminal for a command, and what is on its screen: a pseudo-terminal that another library reads as xterm would.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::pty::Winsize;
use nix::sys::termios::{LocalFlags, tcgetattr};

/// A command on a terminal.
pub struct Terminal {
    child: Child,
    master: File,
    slave: OwnedFd,
    screen: Arc<Mutex<vt100::Parser>>,
    before: LocalFlags,
}

nix::ioctl_write_ptr_bad!(set_size, nix::libc::TIOCSWINSZ, Winsize);

fn size(columns: u16, lines: u16) -> Winsize {
    Winsize {
        ws_row: lines,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn cells(n: u16) -> NonZero<u16> {
    NonZero::new(n).unwrap()
}

/// How many bytes at the end belong to a frame that has begun and has not ended: a test must not read half of one.
fn unfinished(received: &[u8]) -> usize {
    const BEGINS: &[u8] = b"\x1b[?2026h";
    const ENDS: &[u8] = b"\x1b[?2026l";
    let last = |mark: &[u8]| received.windows(mark.len()).rposition(|w| w == mark);
    // The mark itself may be cut.
    let cut = |bytes: &[u8]| {
        let mut lengths = (1..BEGINS.len()).rev();
        lengths
            .find(|n| bytes.ends_with(&BEGINS[..*n]))
            .unwrap_or(0)
    };
    match (last(BEGINS), last(ENDS)) {
        (Some(begin), Some(end)) if end > begin => cut(received),
        (Some(begin), _) => received.len() - begin,
        (None, _) => cut(received),
    }
}

impl Terminal {
    /// Starts it on a terminal of this size.
    pub fn start(command: &mut Command, columns: u16, lines: u16) -> Self {
        let pty = nix::pty::openpty(Some(&size(columns, lines)), None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap().local_flags;
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let command = command.env("TERM", "xterm-256color");
        let child = command.stdin(end()).stdout(end()).stderr(end());
        let child = child.spawn().unwrap();
        let master = File::from(pty.master);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(
            cells(lines),
            cells(columns),
            0,
        )));
        let (mut output, parser) = (master.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0u8; 4096];
            let mut received = Vec::new();
            while let Ok(n @ 1..) = output.read(&mut buffer) {
                received.extend_from_slice(&buffer[..n]);
                let shown = received.len() - unfinished(&received);
                parser.lock().unwrap().process(&received[..shown]);
                received.drain(..shown);
            }
        });
        Self {
            child,
            master,
            slave: pty.slave,
            screen,
            before,
        }
    }

    /// Types something.
    pub fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Gives the window another size, as a person with a mouse does.
    #[allow(unsafe_code)]
    pub fn resize(&mut self, columns: u16, lines: u16) {
        use std::os::fd::AsRawFd;
        let mut parser = self.screen.lock().unwrap();
        parser.screen_mut().set_size(cells(lines), cells(columns));
        // SAFETY: the descriptor is a terminal's, and the size is readable.
        unsafe { set_size(self.slave.as_raw_fd(), &size(columns, lines)) }.unwrap();
        drop(parser);
        // The kernel tells the terminal's foreground group, which a child of ours without a session is not.
        self.signal(nix::sys::signal::Signal::SIGWINCH);
    }

    /// Sends the command a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// The text of a line that is shown in reverse.
    pub fn selected(&self) -> Option<String> {
        let parser = self.screen.lock().unwrap();
        let screen = parser.screen();
        let (lines, columns) = screen.size();
        let (lines, columns) = (lines.get(), columns.get());
        // The second line has the columns' names.
        let mut rows =
            (2..lines).filter(|line| screen.cell(*line, 0).is_some_and(vt100::Cell::inverse));
        let line = rows.next()?;
        Some(screen.contents_between(line, 0, line, columns))
    }

    /// Waits until the screen is as `right` says. Returns its text.
    #[track_caller]
    pub fn until(&self, what: &str, right: impl Fn(&Self) -> bool) -> String {
        let began = Instant::now();
        while !right(self) {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{what} is not on the screen:\n{}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        self.text()
    }

    /// Waits until a text is on the screen.
    #[track_caller]
    pub fn shows(&self, text: &str) -> String {
        self.until(text, |t| t.text().contains(text))
    }

    /// Waits until a text is gone.
    #[track_caller]
    pub fn hides(&self, text: &str) -> String {
        self.until(&format!("no {text}"), |t| !t.text().contains(text))
    }

    /// Waits for its end. The terminal is as it was, without the other screen.
    #[track_caller]
    pub fn ends(mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        let after = tcgetattr(&self.slave).unwrap().local_flags;
        assert_eq!(self.before, after, "the terminal's mode");
        self.until("the screen from before", |t| {
            let parser = t.screen.lock().unwrap();
            !parser.screen().alternate_screen() && !parser.screen().hide_cursor()
        });
        status
    }
}
