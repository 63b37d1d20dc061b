//! What there is to tell of one pod.

use std::collections::HashMap;
use std::time::Duration;

use clap::ValueEnum;

use crate::control::{self, Found};
use crate::isolation::Landlock;
use crate::names;

/// What pods are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    Pod,
    Class,
    Containers,
    Memory,
    Pids,
    Cpu,
    Denials,
    Started,
}

impl Sort {
    /// As `--sort` has it.
    pub(super) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or(String::new(), |v| v.get_name().to_owned())
    }
}

/// A pod, or a shim that does not tell of one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Row {
    /// The shim's.
    pub pid: u32,
    /// Its name, or its id.
    pub title: String,
    pub id: String,
    pub class: String,
    pub isolation: String,
    pub containers: usize,
    pub memory: u64,
    pub memory_limit: Option<u64>,
    pub pids: u64,
    /// Nanoseconds.
    pub cpu: u64,
    /// Of one processor.
    pub percent: f64,
    pub denials: u64,
    /// Seconds since 1970.
    pub started: u64,
    /// The shim's.
    pub version: String,
    /// Why there is nothing to tell.
    pub error: Option<String>,
}

impl Row {
    /// Whether a text is part of what is shown of it.
    pub(super) fn contains(&self, text: &str) -> bool {
        let all = [&self.title, &self.id, &self.class, &self.version];
        let text = text.to_lowercase();
        all.into_iter().any(|t| t.to_lowercase().contains(&text))
    }
}

impl From<Found> for Row {
    fn from(found: Found) -> Self {
        match found.pod {
            Ok(pod) => pod.into(),
            Err(error) => Self {
                pid: found.pid,
                title: format!("shim {}", found.pid),
                error: Some(error.to_string()),
                ..Self::default()
            },
        }
    }
}

impl From<control::Pod> for Row {
    fn from(pod: control::Pod) -> Self {
        let sum = |of: fn(&control::Container) -> u64| pod.containers.iter().map(of).sum();
        let limits: Option<Vec<u64>> = pod
            .containers
            .iter()
            .filter(|c| !c.is_sandbox())
            .map(|c| c.usage.memory_limit)
            .collect();
        Self {
            pid: pod.pid,
            title: pod.title(),
            isolation: isolation(&pod),
            containers: pod.containers.len(),
            memory: sum(|c| c.usage.memory),
            memory_limit: limits.filter(|l| !l.is_empty()).map(|l| l.iter().sum()),
            pids: sum(|c| c.usage.pids),
            cpu: sum(|c| c.usage.cpu),
            percent: 0.0,
            denials: sum(|c| c.denials.iter().map(|d| d.count).sum()),
            started: pod.started,
            error: pod.broken.clone(),
            id: names::short(&pod.id).to_owned(),
            class: pod.profile().to_owned(),
            version: pod.version,
        }
    }
}

/// What the letters of [`Row::isolation`] mean.
pub(super) const LEGEND: [(char, &str); 5] = [
    ('U', "users of its own (a user namespace)"),
    ('C', "a ceiling of capabilities"),
    ('N', "no_new_privs"),
    ('S', "a seccomp filter"),
    ('L', "Landlock"),
];

/// A letter for each kind of protection that all containers of the pod have, and a dash for each other.
fn isolation(pod: &control::Pod) -> String {
    let of = |c: &control::Container| {
        let profile = c.profile().unwrap_or_default();
        [
            c.users.is_some(),
            profile.process.capabilities.is_some(),
            profile.process.no_new_privileges,
            c.filters > 0,
            profile.landlock != Landlock::default(),
        ]
    };
    let all: Vec<_> = pod.containers.iter().map(of).collect();
    let letter = |(i, (letter, _)): (usize, (char, &str))| {
        let mut has = all.iter().map(|c| c.get(i) == Some(&true));
        if !all.is_empty() && has.all(|has| has) {
            letter
        } else {
            '-'
        }
    };
    LEGEND.into_iter().enumerate().map(letter).collect()
}

/// What was used of the processors since an earlier look.
pub(super) fn measure(before: &[Row], now: &mut [Row], passed: Duration) {
    let before: HashMap<u32, u64> = before.iter().map(|r| (r.pid, r.cpu)).collect();
    for row in now {
        if let Some(cpu) = before.get(&row.pid) {
            let used = row.cpu.saturating_sub(*cpu) as f64;
            row.percent = used / passed.as_nanos().max(1) as f64 * 100.0;
        }
    }
}

/// Puts the largest first, and names and classes in order; `reverse` the other way round.
pub(super) fn sort(rows: &mut [Row], by: Sort, reverse: bool) {
    rows.sort_by(|a, b| {
        let order = match by {
            Sort::Pod => a.title.cmp(&b.title),
            Sort::Class => a.class.cmp(&b.class),
            Sort::Containers => b.containers.cmp(&a.containers),
            Sort::Memory => b.memory.cmp(&a.memory),
            Sort::Pids => b.pids.cmp(&a.pids),
            Sort::Cpu => b.percent.total_cmp(&a.percent).then(b.cpu.cmp(&a.cpu)),
            Sort::Denials => b.denials.cmp(&a.denials),
            Sort::Started => b.started.cmp(&a.started),
        };
        let order = if reverse { order.reverse() } else { order };
        order.then(a.title.cmp(&b.title)).then(a.pid.cmp(&b.pid))
    });
}
