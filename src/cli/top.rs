//! `cofferdam top`: the pods of this node, live.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::terminal::{self, Raw, Screen, Signals};
use super::{Result, print, print_json, print_raw};
use crate::control::{self, Found};
use crate::show::{shown, shown_lines};
use crate::sys::time;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Between the two looks of a table that is printed once.
const ONCE: Duration = Duration::from_millis(300);
const WIDTH: usize = 80;

/// Signals that end it.
const ENDS: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// What pods are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    Pod,
    Class,
    Containers,
    Memory,
    Pids,
    Cpu,
    Denials,
    Started,
}

/// The keys that choose it.
const KEYS: [(u8, Sort); 8] = [
    (b'p', Sort::Pod),
    (b'l', Sort::Class),
    (b'n', Sort::Containers),
    (b'm', Sort::Memory),
    (b'i', Sort::Pids),
    (b'c', Sort::Cpu),
    (b'd', Sort::Denials),
    (b't', Sort::Started),
];

/// One line of the table.
#[derive(Debug, Clone, Default, PartialEq)]
struct Row {
    pid: u32,
    pod: String,
    class: String,
    isolation: String,
    containers: usize,
    memory: u64,
    pids: u64,
    /// Nanoseconds.
    cpu: u64,
    /// Of one processor.
    percent: f64,
    denials: u64,
    /// Seconds since 1970.
    started: u64,
    /// Why there is nothing to tell.
    error: Option<String>,
}

pub(super) fn top(as_json: bool, sort: Sort) -> Result<i32> {
    if as_json {
        let all: Vec<Value> = control::pods()?.into_iter().map(to_json).collect();
        print_json(&format!("{:#}\n", Value::Array(all)));
        return Ok(0);
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let (before, at) = (rows(control::pods()?), Instant::now());
        std::thread::sleep(ONCE);
        let mut now = rows(control::pods()?);
        measure(&before, &mut now, at.elapsed());
        print(&table(&mut now, sort, usize::MAX));
        return Ok(0);
    }
    live(sort)
}

fn to_json(found: Found) -> Value {
    match found.pod {
        Ok(pod) => {
            let mut value = json!(pod);
            for c in value["containers"].as_array_mut().into_iter().flatten() {
                if let Some(c) = c.as_object_mut() {
                    c.remove("profile_toml");
                }
            }
            value
        }
        Err(error) => json!({ "pid": found.pid, "error": error.to_string() }),
    }
}

fn live(mut sort: Sort) -> Result<i32> {
    // Their end puts the terminal back, whatever ends this: first the screen, then its mode.
    let signals = Signals::hold()?;
    let _raw = Raw::new();
    let _screen = Screen::enter();
    let stdin = std::io::stdin();
    let mut before: (Vec<Row>, Instant) = (Vec::new(), Instant::now());
    loop {
        let mut now = rows(control::pods()?);
        measure(&before.0, &mut now, before.1.elapsed());
        before = (now.clone(), Instant::now());
        // A terminal that does not know its size says 0.
        let height = terminal::own_size().map_or(24, |(_, rows)| usize::from(rows));
        let height = if height == 0 { 24 } else { height };
        let text = table(&mut now, sort, height.saturating_sub(1));
        // In raw mode a new line does not return the carriage. What is left of older lines is cleared.
        let text = shown_lines(&text);
        print_raw(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\r\n")));
        std::io::stdout().flush().ok();
        let mut fds = [
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        let wait = PollTimeout::try_from(EVERY).unwrap_or(PollTimeout::ZERO);
        if poll(&mut fds, wait).unwrap_or(0) == 0 {
            continue;
        }
        let [has_key, _] = fds.map(|f| f.any().unwrap_or(false));
        match signals.next() {
            Some(signal) if ENDS.contains(&signal) => return Ok(128 + signal),
            // The terminal has another size, perhaps.
            _ if !has_key => continue,
            _ => {}
        }
        let mut key = [0u8];
        let read = nix::unistd::read(stdin.as_fd(), &mut key);
        // Ctrl-C and Ctrl-D are keys here.
        if !matches!(read, Ok(1)) || [b'q', 3, 4, 27].contains(&key[0]) {
            return Ok(0);
        }
        if let Some((_, chosen)) = KEYS.iter().find(|(k, _)| *k == key[0]) {
            sort = *chosen;
        }
    }
}

fn rows(found: Vec<Found>) -> Vec<Row> {
    let row = |found: Found| match found.pod {
        Ok(pod) => {
            let sum = |of: fn(&control::Container) -> u64| pod.containers.iter().map(of).sum();
            let denied = |c: &control::Container| c.denials.iter().map(|d| d.count).sum();
            Row {
                pid: pod.pid,
                isolation: isolation(&pod),
                containers: pod.containers.len(),
                memory: sum(|c| c.usage.memory),
                pids: sum(|c| c.usage.pids),
                cpu: sum(|c| c.usage.cpu),
                percent: 0.0,
                denials: sum(denied),
                started: pod.started,
                error: pod.broken.clone(),
                pod: pod.id,
                class: pod.class,
            }
        }
        Err(error) => Row {
            pid: found.pid,
            error: Some(error.to_string()),
            ..Row::default()
        },
    };
    found.into_iter().map(row).collect()
}

/// A letter for each kind of protection that all containers of the pod have: see [`LEGEND`].
fn isolation(pod: &control::Pod) -> String {
    let of = |c: &control::Container| {
        let profile = c.profile().unwrap_or_default();
        [
            (c.users.is_some(), 'U'),
            (profile.process.capabilities.is_some(), 'C'),
            (profile.process.no_new_privileges, 'N'),
            (c.filters > 0, 'S'),
            (
                profile.landlock != crate::isolation::Landlock::default(),
                'L',
            ),
        ]
    };
    let all: Vec<_> = pod.containers.iter().map(of).collect();
    (0..5)
        .map(|i| {
            let (mut every, mut letter) = (!all.is_empty(), '-');
            for letters in &all {
                if let Some((has, l)) = letters.get(i) {
                    every &= *has;
                    letter = *l;
                }
            }
            if every { letter } else { '-' }
        })
        .collect()
}

const LEGEND: &str = "U own users  C capability ceiling  N no_new_privs  S seccomp  L landlock";

/// What was used of the processors since the last look.
fn measure(before: &[Row], now: &mut [Row], passed: Duration) {
    let before: HashMap<u32, u64> = before.iter().map(|r| (r.pid, r.cpu)).collect();
    for row in now {
        if let Some(cpu) = before.get(&row.pid) {
            let used = row.cpu.saturating_sub(*cpu) as f64;
            row.percent = used / passed.as_nanos().max(1) as f64 * 100.0;
        }
    }
}

fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "K", "M", "G"] {
        if value < 999.5 {
            return if unit == "B" {
                format!("{n}B")
            } else {
                format!("{value:.1}{unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1}T")
}

/// How long ago, in one unit.
fn age(started: u64) -> String {
    let seconds = time::seconds_since_1970().saturating_sub(started);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// The table, of at most `height` lines.
fn table(rows: &mut [Row], sort: Sort, height: usize) -> String {
    rows.sort_by(|a, b| {
        let order = match sort {
            Sort::Pod => a.pod.cmp(&b.pod),
            Sort::Class => a.class.cmp(&b.class),
            Sort::Containers => b.containers.cmp(&a.containers),
            Sort::Memory => b.memory.cmp(&a.memory),
            Sort::Pids => b.pids.cmp(&a.pids),
            Sort::Cpu => b.percent.total_cmp(&a.percent).then(b.cpu.cmp(&a.cpu)),
            Sort::Denials => b.denials.cmp(&a.denials),
            Sort::Started => b.started.cmp(&a.started),
        };
        order.then(a.pod.cmp(&b.pod)).then(a.pid.cmp(&b.pid))
    });
    let containers: usize = rows.iter().map(|r| r.containers).sum();
    let mut lines = vec![
        format!(
            "{} pods, {containers} containers, by {}.  Keys: p l n m i c d t sort, q quits",
            rows.len(),
            sort.to_possible_value()
                .map_or(String::new(), |v| v.get_name().to_owned())
        ),
        LEGEND.to_owned(),
        format!(
            "{:<20} {:<11} {:<5} {:>4} {:>7} {:>5} {:>6} {:>7} {:>5}",
            "POD", "CLASS", "ISOL", "CTRS", "MEMORY", "PIDS", "CPU%", "DENIED", "AGE"
        ),
    ];
    for row in rows {
        let short = |text: &str, width: usize| shown(text).chars().take(width).collect::<String>();
        lines.push(match &row.error {
            Some(error) => {
                let name = if row.pod.is_empty() {
                    format!("shim {}", row.pid)
                } else {
                    short(&row.pod, 20)
                };
                // One line, whatever a profile's error has.
                let error = error.replace('\n', " ");
                short(&format!("{name:<20} {error}"), WIDTH)
            }
            None => format!(
                "{:<20} {:<11} {:<5} {:>4} {:>7} {:>5} {:>6.1} {:>7} {:>5}",
                short(&row.pod, 20),
                short(&row.class, 11),
                row.isolation,
                row.containers,
                bytes(row.memory),
                row.pids,
                row.percent,
                row.denials,
                age(row.started)
            ),
        });
    }
    lines.truncate(height);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_80_columns_and_is_sorted() {
        let row = |pod: &str, memory: u64, denials: u64| Row {
            pod: pod.into(),
            class: "untrusted".into(),
            isolation: "UCNSL".into(),
            memory,
            denials,
            pids: 9999,
            percent: 1600.0,
            ..Row::default()
        };
        let mut rows = vec![
            row(&"a".repeat(64), 1 << 20, 7),
            row("b", 900 << 30, 0),
            Row {
                pid: 4_194_304,
                error: Some(
                    "does not answer within 900 ms, and says why at length\nin lines".into(),
                ),
                ..Row::default()
            },
        ];
        let text = table(&mut rows, Sort::Memory, usize::MAX);
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        assert_eq!(text.lines().count(), 6);
        assert!(text.lines().nth(3).unwrap().starts_with("b "), "{text}");
        let text = table(&mut rows, Sort::Denials, 4);
        assert!(text.lines().nth(3).unwrap().starts_with("aaa"), "{text}");
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn figures_for_people() {
        assert_eq!(
            [0, 999, 1024, 1 << 20, 1 << 30].map(bytes),
            ["0B", "999B", "1.0K", "1.0M", "1.0G"]
        );
    }
}
