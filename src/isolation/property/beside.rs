//! What is asked for beside a spec, and judged too: streams, the mounts of a root, and updates of resources. Over 400 lines, because it is
//! one list of cases over shared fixtures.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::{Choices, World};
use crate::cgroup::{Cgroup, Layout};
use crate::executor::effects::root_effects;
use crate::isolation::profile::Profile;
use crate::isolation::{Judged, Place, judge_root_mounts, judge_streams, judge_update};
use crate::oci::streams::{self, Effect, StdioUris};
use crate::oci::{DeviceKind, Request, RootMount, is_usable};

static STREAMS: AtomicUsize = AtomicUsize::new(0);
static ROOTS: AtomicUsize = AtomicUsize::new(0);
static UPDATES: AtomicUsize = AtomicUsize::new(0);
static LIMITS: AtomicUsize = AtomicUsize::new(0);

/// How many streams, roots, updates and lists of control files were looked at.
#[cfg(test)]
pub(super) fn taken() -> (usize, usize, usize, usize) {
    let of = |n: &AtomicUsize| n.load(Ordering::Relaxed);
    (of(&STREAMS), of(&ROOTS), of(&UPDATES), of(&LIMITS))
}

/// Requests that come beside a spec.
pub(super) struct Asked {
    streams: StdioUris,
    root_mounts: Vec<RootMount>,
    update: Value,
}

impl Asked {
    pub(crate) fn new(choices: &mut Choices<'_>, world: &World) -> Self {
        let dir = world.dir.display();
        let streams: Vec<String> = vec![
            String::new(),
            format!("{dir}/srv/secret"),
            format!("file://{dir}/srv/secret"),
            format!("file://{dir}/srv/new"),
            format!("fifo://{dir}/fifo"),
            format!("{dir}/fifo"),
            "/dev/null".into(),
            "binary:///bin/true".into(),
            "binary:///bin/true?a=b".into(),
            "binary:///bin/sh?-c=id".into(),
            "binary:///bin/../bin/sh".into(),
            "binary://bin/true".into(),
            "binary-v2:///bin/true?x".into(),
            "binary-v2:///bin/sh".into(),
            "BINARY:///bin/sh".into(),
            "binary:///bin/true%3f/../sh".into(),
            "binary:///bin/true#/../sh".into(),
        ];
        let mut one = || choices.one(&streams).clone();
        let streams = StdioUris {
            stdin: one(),
            stdout: one(),
            stderr: one(),
            ..StdioUris::default()
        };
        Self {
            streams,
            root_mounts: root_mounts(choices, world),
            update: update(choices),
        }
    }

    /// Judges and compares those that belong to no spec.
    pub(crate) fn check(&self, profile: &Profile) {
        self.check_streams(profile);
        let Ok(update) = serde_json::from_value(self.update.clone()) else {
            return;
        };
        if let Ok(judged) = judge_update(profile, update) {
            UPDATES.fetch_add(1, Ordering::Relaxed);
            let told = || format!("{}: the update {:#}", profile.name, self.update);
            resources(profile, &judged, false, &told);
        }
    }

    fn check_streams(&self, profile: &Profile) {
        let Ok(judged) = judge_streams(profile, self.streams.clone()) else {
            return;
        };
        STREAMS.fetch_add(1, Ordering::Relaxed);
        let listed = profile.pod.loggers.as_ref().expect("classes list loggers");
        for effect in streams::effects(&judged).unwrap_or_default() {
            let fine = match &effect {
                Effect::Program(path) => listed.contains(path),
                Effect::Fifo(_) => true,
                Effect::File(_) => false,
            };
            assert!(fine, "{}: {effect:?} of {:?}", profile.name, self.streams);
        }
    }

    /// The same for the mounts of a container's root.
    pub(crate) fn check_root(
        &self,
        profile: &Profile,
        place: &Place,
        request: &Judged<Request>,
        world: &World,
    ) {
        let Ok(judged) = judge_root_mounts(profile, place, self.root_mounts.clone()) else {
            return;
        };
        let Ok(effects) = root_effects(request, &judged) else {
            return;
        };
        ROOTS.fetch_add(usize::from(!effects.is_empty()), Ordering::Relaxed);
        let snapshots = world
            .dir
            .join("root/io.containerd.snapshotter.v1.overlayfs/snapshots");
        let is_snapshot = |path: &Path| {
            let real = std::fs::canonicalize(path);
            path.is_absolute() && real.is_ok_and(|r| r.starts_with(&snapshots) && r != snapshots)
        };
        for e in effects {
            let fail =
                |why: &str| panic!("{}: {why}: {e:?} of {:?}", profile.name, self.root_mounts);
            if e.target != Path::new("") {
                fail("not the root");
            }
            let bound = e.flags & libc::MS_BIND != 0;
            let layers = e
                .data
                .iter()
                .filter(|(key, _)| key.trim_end_matches('+').ends_with("dir"));
            let mut layers = layers.flat_map(|(_, value)| value.split(':'));
            if bound {
                if e.source.exists() && !is_snapshot(&e.source) {
                    fail("no snapshot is bound");
                }
            } else if e.fstype == "overlay" {
                if layers.any(|l| Path::new(l).exists() && !is_snapshot(Path::new(l))) {
                    fail("a layer is no snapshot");
                }
                let plain = |v: &str| !v.contains('/');
                let known = |(k, v): &(String, String)| {
                    k.trim_end_matches('+').ends_with("dir") || plain(v)
                };
                if !e.data.iter().all(known) {
                    fail("another option is a path");
                }
            } else {
                fail("another file system");
            }
        }
    }
}

fn root_mounts(choices: &mut Choices<'_>, world: &World) -> Vec<RootMount> {
    let dir = world.dir.display();
    let below = format!("{dir}/root/io.containerd.snapshotter.v1.overlayfs/snapshots");
    let sources = [
        format!("{below}/1/fs"),
        format!("{below}/2/fs"),
        format!("{below}/2/work"),
        below.clone(),
        format!("{below}/../../.."),
        format!("{below}/1/fs/link/etc"),
        format!("{below}/1/../../../../srv"),
        format!("{below}/1/fs:/etc"),
        format!("{below}/1/fs,lowerdir=/etc"),
        format!("{below}/1/fs\\:/etc"),
        format!("{dir}/srv"),
        "/".into(),
        "/etc".into(),
        "relative".into(),
        "overlay".into(),
        String::new(),
    ];
    let mut all = Vec::new();
    for _ in 0..=choices.below(3) {
        let usual = choices.below(3) > 0;
        let source = |choices: &mut Choices<'_>| {
            let of = if usual {
                sources.get(..3).unwrap_or_default()
            } else {
                &sources
            };
            choices.one(of).clone()
        };
        let mut options: Vec<String> = choices.some(
            &[
                "ro",
                "rw",
                "bind",
                "rbind",
                "remount",
                "index=off",
                "userxattr",
                "volatile",
                "metacopy=on",
                "redirect_dir=/etc",
                "uidmap=0:0:1,lowerdir=/etc",
                "uid=0,lowerdir=/etc",
                "suid",
            ]
            .map(str::to_owned),
            2,
        );
        for key in [
            "lowerdir",
            "upperdir",
            "workdir",
            "lowerdir+",
            "datadir+",
            " lowerdir",
        ] {
            if choices.below(3) == 0 {
                let layers: Vec<String> = (0..=choices.below(2)).map(|_| source(choices)).collect();
                options.push(format!("{key}={}", layers.join(":")));
            }
        }
        all.push(RootMount {
            fstype: choices
                .one(&[
                    "overlay", "overlay", "bind", "rbind", "", "proc", "tmpfs", "ext4x", "Overlay",
                    "fuse",
                ])
                .to_string(),
            source: source(choices),
            target: choices.one(&["", "", "", "etc", "/", "../x"]).to_string(),
            options,
        });
    }
    all
}

fn update(choices: &mut Choices<'_>) -> Value {
    let numbers = [
        -1i64,
        0,
        1,
        50_000,
        1_000_000,
        1 << 30,
        1 << 40,
        i64::MAX,
        i64::MIN,
    ];
    let mut r = json!({});
    for (table, fields) in [
        ("pids", &["limit"][..]),
        ("memory", &["limit", "swap", "reservation", "swappiness"]),
        (
            "cpu",
            &[
                "quota",
                "period",
                "shares",
                "realtimeRuntime",
                "realtimePeriod",
                "burst",
                "idle",
            ],
        ),
    ] {
        for field in fields {
            if choices.below(3) == 0 {
                let value = *choices.one(&numbers);
                // Periods and shares have no sign.
                let unsigned = matches!(
                    *field,
                    "period" | "shares" | "realtimePeriod" | "burst" | "swappiness"
                );
                r[table][*field] = json!(if unsigned {
                    value.saturating_abs().max(0)
                } else {
                    value
                });
            }
        }
    }
    if choices.below(8) == 0 {
        r["memory"]["disableOOMKiller"] = json!(choices.below(2) == 0);
    }
    for _ in 0..choices.below(3) {
        let file = *choices.one(&[
            "pids.max",
            "memory.max",
            "memory.swap.max",
            "memory.high",
            "cpu.max",
            "cpu.max.burst",
            "cpuset.cpus",
            "cgroup.procs",
            "cgroup.freeze",
            "memory.oom.group",
            " pids.max",
            "pids.max\n",
            "../pids.max",
        ]);
        let value = *choices.one(&[
            "max",
            "1",
            "99999999999",
            "x",
            "max 1000",
            "100000 1",
            "",
            "1\nmax",
            "0x7fffffff",
            "+5",
            "-1",
            " max ",
        ]);
        r["unified"][file] = json!(value);
    }
    let mut rules = Vec::new();
    for _ in 0..choices.below(3) {
        rules.push(json!({
            "allow": choices.below(3) > 0,
            "type": choices.one(&[json!("a"), json!("b"), json!("c"), json!("u"), json!(null)]),
            "major": choices.one(&[json!(null), json!(-1), json!(1), json!(5), json!(8), json!(136)]),
            "minor": choices.one(&[json!(null), json!(-1), json!(0), json!(1), json!(3), json!(11)]),
            "access": choices.one(&[json!("rwm"), json!("r"), json!("m"), json!(""), json!(null)]),
        }));
    }
    r["devices"] = rules.into();
    r
}

/// The values written to control files are within the class. `fresh` says that the groups are new, and without a limit before.
pub(super) fn resources(
    profile: &Profile,
    judged: &Judged<oci_spec::runtime::LinuxResources>,
    fresh: bool,
    told: &dyn Fn() -> String,
) {
    static GROUP: OnceLock<Option<Cgroup>> = OnceLock::new();
    let group = GROUP.get_or_init(|| {
        let layout = Arc::new(Layout::detect().ok()?);
        Cgroup::new(layout, Some(Path::new("/cofferdam-property")), "id").ok()
    });
    let Some(group) = group else { return };
    for v2 in [false, true] {
        let Ok((written, opened)) = group.effects(judged, v2) else {
            continue;
        };
        within_limits(profile, &written, fresh, &|| {
            format!("v2={v2} {written:?} of {}", told())
        });
        for (kind, major, minor) in opened {
            let fine = match (kind, major, minor) {
                (Some('c'), Some(136), _) => true,
                (Some(kind), Some(major), Some(minor)) => {
                    let kind = if kind == 'c' {
                        DeviceKind::Char
                    } else {
                        DeviceKind::Block
                    };
                    is_usable(kind, major, minor)
                }
                _ => false,
            };
            assert!(fine, "opens {kind:?} {major:?}:{minor:?}: {}", told());
        }
    }
}

fn within_limits(
    profile: &Profile,
    written: &[(String, String)],
    fresh: bool,
    told: &dyn Fn() -> String,
) {
    LIMITS.fetch_add(usize::from(!written.is_empty()), Ordering::Relaxed);
    for (file, _) in written {
        // They move processes, stop them, or take them out of the OOM killer's reach.
        let harmless = !file.starts_with("cgroup.")
            && !file.starts_with("freezer.")
            && file != "memory.oom_control";
        assert!(harmless, "{file}: {}", told());
    }
    let last = |file: &str| {
        let found = written.iter().rfind(|(f, _)| f == file);
        found.map(|(_, value)| value.trim().to_owned())
    };
    // No limit is the largest one.
    let number = |text: &str| match text.trim_start_matches('+') {
        "max" => u64::MAX,
        text if text.starts_with('-') => u64::MAX,
        // What the kernel might read as a number and this does not is none that the judge lets through.
        text => text.parse().unwrap_or(u64::MAX),
    };
    let limits = &profile.limits;
    for (files, limit) in [
        (&["pids.max"][..], limits.pids),
        (&["memory.max", "memory.limit_in_bytes"], limits.memory),
        (&["memory.swap.max"], limits.swap),
    ] {
        let Some(max) = limit.max else { continue };
        let values: Vec<u64> = files
            .iter()
            .filter_map(|f| last(f))
            .map(|v| number(&v))
            .collect();
        let above = values.iter().any(|v| *v > max);
        assert!(!above, "{files:?} is above {max}: {}", told());
        let is_alone = files.contains(&"pids.max") || files.contains(&"memory.max");
        assert!(
            !(fresh && is_alone && values.is_empty()),
            "{files:?} is missing: {}",
            told()
        );
    }
    if let (Some(swap), Some(memory), Some(both)) = (
        limits.swap.max,
        last("memory.limit_in_bytes").map(|v| number(&v)),
        last("memory.memsw.limit_in_bytes").map(|v| number(&v)),
    ) && memory != u64::MAX
    {
        assert!(both.saturating_sub(memory) <= swap, "swap: {}", told());
    }
    let memory = last("memory.max").or_else(|| last("memory.limit_in_bytes"));
    let has_swap = last("memory.swap.max").or_else(|| last("memory.memsw.limit_in_bytes"));
    if let (Some(memory), Some(_)) = (memory, limits.swap.max) {
        let is_limited = number(&memory) != u64::MAX;
        assert!(
            !is_limited || has_swap.is_some(),
            "no limit of swap: {}",
            told()
        );
    }
    let Some(most) = limits.cpu.max else {
        return;
    };
    // The period of a live group is not known.
    let before = if fresh { 100_000 } else { 1 };
    let of_v2 = last("cpu.max").map(|text| {
        let mut words = text.split_whitespace();
        let quota = words.next().map_or(0, number);
        (quota, words.next().map_or(before, number))
    });
    let of_v1 = last("cpu.cfs_quota_us").map(|quota| {
        let period = last("cpu.cfs_period_us").map_or(before, |p| number(&p));
        (number(&quota), period)
    });
    for (quota, period) in of_v1.into_iter().chain(of_v2) {
        // The kernel has no quota below a thousandth of a second.
        let allowed = (u128::from(period) * u128::from(most) / 1000).max(1000);
        assert!(u128::from(quota) <= allowed, "processors: {}", told());
    }
    if of_v1.is_none() && of_v2.is_none() {
        assert!(!fresh, "no quota: {}", told());
        assert!(
            last("cpu.cfs_period_us").is_none(),
            "a period alone: {}",
            told()
        );
    }
    let real_time = last("cpu.rt_runtime_us").map_or(0, |v| number(&v));
    assert_eq!(real_time, 0, "real-time: {}", told());
}
