//! `top` on a terminal.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyEventKind};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::row::{Row, measure};
use super::screen::{Do, Look, Page, Screen};
use super::{TopArgs, rows};
use crate::cli::style::{self, Style};
use crate::cli::terminal::{self, Raw, Signals};
use crate::cli::{Error, Result, explain, print_raw};
use crate::control;

/// Signals that end it.
const ENDS: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

pub(super) fn run(args: &TopArgs) -> Result<i32> {
    let mut screen = Screen::new(args.sort, args.reverse, &args.filter, args.interval);
    // An error before the first look belongs on the terminal as it is.
    let mut looked = Looked::now(&[], Duration::ZERO)?;
    screen.set_rows(looked.rows.clone());
    // Their end puts the terminal back, whatever ends this: first the screen, then its mode.
    let signals = Signals::hold()?;
    let _raw = Raw::new();
    let _screen = terminal::Screen::enter();
    let stdin = std::io::stdin();
    loop {
        let (columns, lines) = terminal::own_size().unwrap_or_default();
        // A terminal that does not know its size says 0.
        let or = |size: u16, default| match size {
            0 => default,
            size => usize::from(size),
        };
        screen.resize(or(columns, 80), or(lines, 24));
        draw(&screen.lines());
        let wait = match looked.at.elapsed() {
            _ if screen.is_paused() => PollTimeout::NONE,
            passed => PollTimeout::try_from(screen.every.saturating_sub(passed))
                .unwrap_or(PollTimeout::MAX),
        };
        let mut fds = [
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut fds, wait).ok();
        let ready = fds.map(|f| f.revents().unwrap_or(PollFlags::empty()));
        if let Some(signal) = signals.next()
            && ENDS.contains(&signal)
        {
            return Ok(128 + signal);
        }
        let mut look = !screen.is_paused() && looked.at.elapsed() >= screen.every;
        let [input, _] = ready;
        if input.contains(PollFlags::POLLIN) {
            for asked in keys(&mut screen)? {
                match asked {
                    Do::Quit => return Ok(0),
                    Do::Explain(pid) => screen.show(page(pid, screen.width())),
                    Do::Look => look = true,
                    Do::Nothing => {}
                }
            }
        } else if input.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            return Ok(0); // the terminal is gone
        }
        if look {
            looked = Looked::now(&looked.rows, looked.at.elapsed())?;
            screen.set_rows(looked.rows.clone());
        }
    }
}

/// What was seen, and when.
struct Looked {
    rows: Vec<Row>,
    at: Instant,
}

impl Looked {
    fn now(before: &[Row], passed: Duration) -> Result<Self> {
        let mut now = rows(control::pods()?);
        measure(before, &mut now, passed);
        let at = Instant::now();
        Ok(Self { rows: now, at })
    }
}

/// What the keys that were typed so far ask for.
fn keys(screen: &mut Screen) -> Result<Vec<Do>> {
    let failed = |e| Error::Io("read the terminal".into(), e);
    let mut asked = Vec::new();
    while event::poll(Duration::ZERO).map_err(failed)? {
        if let Event::Key(key) = event::read().map_err(failed)?
            && key.kind != KeyEventKind::Release
        {
            asked.push(screen.key(key));
        }
    }
    Ok(asked)
}

/// What `explain` says of a pod.
fn page(pid: u32, width: usize) -> Page {
    let text = explain::text(&pid.to_string(), width);
    Page::new(&text.unwrap_or_else(|e| e.to_string()))
}

/// Draws a whole frame. A terminal that knows synchronized updates (mode 2026) shows no half of it, the others ignore the
/// mode.
fn draw(lines: &[(Look, String)]) {
    let style = Style::of_stdout(0);
    let mut out = String::from("\x1b[?2026h\x1b[H");
    for (i, (look, line)) in lines.iter().enumerate() {
        if i > 0 {
            out.push_str("\r\n");
        }
        let line = match look {
            Look::Plain => line.clone(),
            Look::Head | Look::Selected => style::reverse(line),
            Look::Bad => style.bad(line),
            Look::Hint => style.dim(line),
        };
        // What is left of an older line is cleared before it: a full line has no room behind it.
        out.push_str(&format!("\x1b[2K{line}"));
    }
    out.push_str("\x1b[J\x1b[?2026l");
    print_raw(&out);
    std::io::stdout().flush().ok();
}
