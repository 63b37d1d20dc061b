//! Runs a spec by one of the two runtimes, and collects what can be seen: from within, of its groups, of its state, of its end.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

/// Everything that was seen, by part: `mounts`, `status`, `group memory.limit_in_bytes` and so on.
#[derive(Debug, Default)]
pub struct Seen {
    pub refusal: Option<String>,
    pub parts: BTreeMap<String, String>,
}

/// One part that differs.
#[derive(Debug)]
pub struct Difference {
    pub part: String,
    pub theirs: Vec<String>,
    pub ours: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: runc {:?}, cofferdam {:?}",
            self.part, self.theirs, self.ours
        )
    }
}

/// The lines of each part that only one has.
pub fn differences(theirs: &Seen, ours: &Seen) -> Vec<Difference> {
    let names: std::collections::BTreeSet<&String> =
        theirs.parts.keys().chain(ours.parts.keys()).collect();
    let lines = |seen: &Seen, part: &str| -> Vec<String> {
        let text = seen.parts.get(part).map(String::as_str).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    };
    let mut out = Vec::new();
    for part in names {
        let (theirs, ours) = (lines(theirs, part), lines(ours, part));
        if theirs == ours {
            continue;
        }
        let only = |a: &[String], b: &[String]| {
            a.iter()
                .filter(|l| !b.contains(l))
                .cloned()
                .collect::<Vec<_>>()
        };
        let (a, b) = (only(&theirs, &ours), only(&ours, &theirs));
        if part == "mounts" {
            out.extend(by_place(&a, &b));
        } else {
            let same_lines = a.is_empty() && b.is_empty();
            let part = if same_lines {
                format!("{part} (order)")
            } else {
                part.clone()
            };
            out.push(Difference {
                part,
                theirs: a,
                ours: b,
            });
        }
    }
    out
}

/// Each place by itself: `mount /proc`.
fn by_place(theirs: &[String], ours: &[String]) -> Vec<Difference> {
    let place = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
    let places: std::collections::BTreeSet<String> = theirs.iter().chain(ours).map(place).collect();
    let of = |lines: &[String], at: &String| -> Vec<String> {
        let lines = lines.iter().filter(|l| place(l) == *at);
        lines
            .map(|l| l.strip_prefix(at.as_str()).unwrap_or(l).to_owned())
            .collect()
    };
    let one = |at: String| Difference {
        part: format!("mount {at}"),
        theirs: of(theirs, &at),
        ours: of(ours, &at),
    };
    places.into_iter().map(one).collect()
}

/// A runtime with a place of its own.
pub struct Runtime {
    program: PathBuf,
    dir: PathBuf,
    id: String,
}

/// How long a container may run.
const WITHIN: Duration = Duration::from_secs(30);

/// Files of a container's groups that limits are written to, on cgroup v1 and v2.
const CONTROL_FILES: [&str; 34] = [
    "memory.limit_in_bytes",
    "memory.soft_limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.swappiness",
    "memory.oom_control",
    "cpu.shares",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "cpu.idle",
    "cpu.cfs_burst_us",
    "cpuset.cpus",
    "cpuset.mems",
    "pids.max",
    "blkio.throttle.read_bps_device",
    "blkio.throttle.write_bps_device",
    "blkio.throttle.read_iops_device",
    "blkio.weight",
    "devices.list",
    "freezer.state",
    "memory.max",
    "memory.high",
    "memory.low",
    "memory.min",
    "memory.swap.max",
    "cpu.max",
    "cpu.max.burst",
    "cpu.weight",
    "io.max",
    "io.weight",
    "io.bfq.weight",
    "cgroup.freeze",
    "hugetlb.2MB.max",
    "cgroup.type",
    "memory.oom.group",
];

impl Runtime {
    pub fn new(name: &str, program: &Path, worker: usize) -> Self {
        let dir =
            std::env::temp_dir().join(format!("differ-{}-{worker}/{name}", std::process::id()));
        fs::create_dir_all(dir.join("bundle/rootfs")).unwrap();
        for sub in ["upper", "work", "extra", "state"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        let this = Self {
            program: program.to_owned(),
            dir,
            id: format!("differ{worker}"),
        };
        this.fill_extra();
        this
    }

    /// What the image has besides busybox.
    fn fill_extra(&self) {
        let root = self.dir.join("extra");
        for (link, target) in [
            ("link-to-directory", "tmp"),
            ("link-to-nothing", "/no/thing/here"),
            ("link-to-file", "/etc/passwd"),
            ("link-up", "../../../mnt"),
            ("bin/link-to-shell", "sh"),
        ] {
            fs::create_dir_all(root.join("bin")).unwrap();
            symlink(target, root.join(link)).unwrap();
        }
        for (name, text, mode) in [
            ("not-executable", "#!/bin/sh\n", 0o644),
            ("script", "#!/bin/sh\nexit 4\n", 0o755),
            ("no-interpreter", "exit 4\n", 0o755),
        ] {
            fs::write(root.join(name), text).unwrap();
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let source = self.dir.join("bundle/source");
        fs::create_dir_all(source.join("directory/sub")).unwrap();
        fs::write(source.join("file"), "content\n").unwrap();
    }

    fn mount_root(&self) {
        let lower = std::env::var("DIFFER_ROOTFS").unwrap_or_else(|_| "target/test/rootfs".into());
        let lower = fs::canonicalize(lower).unwrap();
        for sub in ["upper", "work"] {
            fs::remove_dir_all(self.dir.join(sub)).unwrap();
            fs::create_dir(self.dir.join(sub)).unwrap();
        }
        let data = format!(
            "lowerdir={}:{},upperdir={},workdir={}",
            self.dir.join("extra").display(),
            lower.display(),
            self.dir.join("upper").display(),
            self.dir.join("work").display()
        );
        let root = self.dir.join("bundle/rootfs");
        mount(
            Some("overlay"),
            &root,
            Some("overlay"),
            MsFlags::empty(),
            Some(data.as_str()),
        )
        .unwrap();
    }

    fn call(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(self.dir.join("state"))
            .args(args)
            .stdin(Stdio::null());
        command.output().unwrap()
    }

    /// Runs a container to its end.
    pub fn run(&self, spec: &Value) -> Seen {
        self.mount_root();
        let log = self.dir.join("log");
        fs::write(&log, "").unwrap();
        let text = spec
            .to_string()
            .replace("LOG\"", &format!("{}\"", log.display()))
            .replace("/ID", &format!("/{}", self.id));
        fs::write(self.dir.join("bundle/config.json"), text).unwrap();
        let mut seen = Seen::default();
        if let Err(refusal) = self.run_in(&mut seen) {
            seen.refusal = Some(self.plain(&refusal));
        }
        self.call(&["delete", "--force", &self.id]);
        seen.parts
            .insert("hooks".into(), fs::read_to_string(&log).unwrap());
        seen.parts.insert("left in the root".into(), self.left());
        umount2(&self.dir.join("bundle/rootfs"), MntFlags::MNT_DETACH).unwrap();
        seen
    }

    fn run_in(&self, seen: &mut Seen) -> Result<(), String> {
        let (out, err) = (self.dir.join("out"), self.dir.join("err"));
        let bundle = self.dir.join("bundle");
        let mut create = Command::new(&self.program);
        create
            .arg("--root")
            .arg(self.dir.join("state"))
            .args(["create", "--bundle"])
            .arg(&bundle)
            .arg(&self.id);
        create
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap());
        let told = |file: &Path| String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
        if !create.status().unwrap().success() {
            return Err(told(&err));
        }
        let state: Value = serde_json::from_slice(&self.call(&["state", &self.id]).stdout).unwrap();
        let pid = i32::try_from(state["pid"].as_i64().unwrap()).unwrap();
        seen.parts.insert(
            "state".into(),
            format!(
                "{} {} {:#}",
                state["status"], state["bundle"], state["annotations"]
            )
            .replace(&self.dir.display().to_string(), "DIR"),
        );
        self.groups(pid, seen);
        let start = self.call(&["start", &self.id]);
        if !start.status.success() {
            self.end(pid);
            return Err(String::from_utf8_lossy(&start.stderr).into_owned());
        }
        seen.parts.insert("end".into(), self.end(pid));
        let mut part = "output".to_owned();
        for line in told(&out).lines() {
            match line.strip_prefix('=') {
                Some(name) if name.chars().all(|c| c.is_ascii_lowercase()) => {
                    name.clone_into(&mut part)
                }
                _ => {
                    let line = if part == "mounts" {
                        self.mount_line(line)
                    } else {
                        self.plain(line)
                    };
                    let text = seen.parts.entry(part.clone()).or_default();
                    text.push_str(&line);
                    text.push('\n');
                }
            }
        }
        // In the order of their places: what is mounted on the same place stays in its own order.
        if let Some(mounts) = seen.parts.get_mut("mounts") {
            let mut lines: Vec<&str> = mounts.lines().collect();
            lines.sort_by_key(|l| l.split(' ').next().map(str::to_owned));
            *mounts = lines.join("\n");
        }
        seen.parts.insert("errors".into(), self.plain(&told(&err)));
        Ok(())
    }

    /// How the init ended. It is our child since who made it has gone.
    fn end(&self, pid: i32) -> String {
        let end = Instant::now() + WITHIN;
        loop {
            match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => return format!("exited {code}"),
                Ok(WaitStatus::Signaled(_, signal, _)) => return format!("killed {signal}"),
                Err(e) => return format!("not ours: {e}"),
                Ok(_) if Instant::now() > end => {
                    self.call(&["kill", &self.id, "KILL"]);
                    return "late".into();
                }
                Ok(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn groups(&self, pid: i32, seen: &mut Seen) {
        let all = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        seen.parts.insert("groups".into(), self.plain(&all));
        for line in all.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next().unwrap(), fields.next().unwrap());
            let roots = match controllers {
                "" => vec!["unified".to_owned(), String::new()],
                names => vec![names.trim_start_matches("name=").to_owned()],
            };
            for root in roots {
                let dir = format!("/sys/fs/cgroup/{root}{path}");
                for file in CONTROL_FILES {
                    if let Ok(text) = fs::read_to_string(format!("{dir}/{file}")) {
                        // Rules are in the order in which they were written; what counts is which there are.
                        let mut lines: Vec<&str> = text
                            .lines()
                            .filter(|l| !l.starts_with("under_oom") && !l.starts_with("oom_kill "))
                            .collect();
                        if file == "devices.list" {
                            lines.sort_unstable();
                        }
                        seen.parts.insert(format!("group {file}"), lines.join("\n"));
                    }
                }
            }
        }
    }

    /// What the run has made in the root: places of mounts, and what of the image it has changed.
    fn left(&self) -> String {
        fn walk(dir: &Path, prefix: &str, out: &mut Vec<String>) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                let path = format!("{prefix}/{}", entry.file_name().to_string_lossy());
                out.push(format!(
                    "{path} {:o} {}:{}",
                    meta.mode(),
                    meta.uid(),
                    meta.gid()
                ));
                if meta.is_dir() {
                    walk(&entry.path(), &path, out);
                }
            }
        }
        let mut out = Vec::new();
        walk(&self.dir.join("upper"), "", &mut out);
        out.sort();
        out.join("\n")
    }

    /// Without what is one run's alone.
    fn plain(&self, text: &str) -> String {
        text.replace(&self.dir.display().to_string(), "DIR")
    }

    /// Place, what of its file system is there, options, propagation, type, options of the file system.
    fn mount_line(&self, line: &str) -> String {
        let fields: Vec<&str> = line.split(' ').collect();
        let dash = fields
            .iter()
            .position(|f| *f == "-")
            .unwrap_or(fields.len());
        let get = |i: usize| fields.get(i).copied().unwrap_or_default();
        let propagation: Vec<&str> = fields
            .get(6..dash)
            .unwrap_or_default()
            .iter()
            .map(|f| f.split(':').next().unwrap_or(f))
            .collect();
        let mut of_file_system: Vec<String> = get(dash + 3)
            .split(',')
            .map(|o| {
                if o.contains("dir=") {
                    "LAYER".to_owned()
                } else {
                    o.to_owned()
                }
            })
            .collect();
        of_file_system.sort();
        let root = self.plain(get(3));
        let root = if get(dash + 1) == "overlay" {
            "OVERLAY".to_owned()
        } else {
            root
        };
        self.plain(&format!(
            "{} {root} {} {} {} {}",
            get(4),
            get(5),
            propagation.join(","),
            get(dash + 1),
            of_file_system.join(",")
        ))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        fs::remove_dir_all(self.dir.parent().unwrap()).ok();
    }
}
