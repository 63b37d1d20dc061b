//! States that people bring about by hand: every one ends in an answer within seconds, and in a clean node.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use super::situations;
use super::subject::{Front, Subject};
use crate::support::{Output, slowness, wait_until};

situations! {
    paused_before_it_starts, COMMAND, "runc#1058", "paused; refused; created; running";
    a_paused_container_is_deleted, ROOT, "runc delete.bats", "0 gone";
    a_frozen_group, ROOT, "runc#3223, crun#2243, youki#3233", "refused: unexpectedly frozen; 0 processes";
    below_a_frozen_group, ROOT, "crun#2243", "refused: unexpectedly frozen";
    a_group_that_is_not_empty, COMMAND, "runc cgroups.bats", "refused: not empty";
    four_deletes_at_once, LINE, "podman#9903", "all ended; gone";
    a_creation_that_was_killed, LINE, "runc#4645", "gone";
    a_creation_that_is_under_way, LINE, "runc#4645", "refused; deleted by force; gone";
    the_group_was_removed, COMMAND, "runc#2163", "0 gone";
    a_killed_init_whose_children_live, ROOT, "runc kill.bats", "0 left";
    asked_to_end_before_it_starts, ALL, "runc pidfd-socket.bats", "stopped";
    two_of_one_name, ALL, "kind 7", "exists";
    the_command_cannot_be_overwritten, COMMAND, "CVE-2019-5736", "read-only read-only";
    a_group_with_processes_below, ROOT, "runc cgroups.bats", "refused: not empty; alive";
    a_deletion_without_a_process_of_its_own, COMMAND, "kind 7", "0 gone; alive";
    a_hook_that_hangs_is_deleted, COMMAND, "kind 7", "0 gone";
    a_deletion_that_was_killed, COMMAND, "kind 7", "0 gone; created again";
    a_start_that_was_killed, LINE, "kind 7", "running; refused: already running; not deleted";
    a_state_that_is_broken, COMMAND, "kind 7", "told by list; 0 gone; ended";
    an_abandoned_directory, LINE, "kind 7", "0";
    no_hierarchy_is_mounted, ROOT, "boot2docker#1301", "no cgroup hierarchy is mounted; mount cgroup2 on /sys/fs/cgroup";
    names_in_a_list_of_processes, SHIM, "podman#23557", "containerd-shim cofferdam:init sleep";
    an_exec_whose_id_is_taken, SHIM, "containerd", "AlreadyExists";
    a_state_of_another_version, COMMAND, "kind 7", "refused: another version";
}

fn refused(out: &crate::support::Output, text: &str) -> String {
    match (out.status, out.stderr.contains(text)) {
        (0, _) => "accepted".into(),
        (_, true) => format!("refused: {text}"),
        _ => format!("refused: {}", out.stderr.trim()),
    }
}

fn paused_before_it_starts(s: &mut Subject) -> String {
    s.set("/process/args", json!(["sleep", "1000"]));
    s.create().ok();
    s.pause(true).ok();
    let paused = s.status();
    let start = if s.start().status == 0 {
        "started"
    } else {
        "refused"
    };
    s.pause(false).ok();
    let created = s.status();
    s.start().ok();
    format!("{paused}; {start}; {created}; {}", s.status())
}

fn a_paused_container_is_deleted(s: &mut Subject) -> String {
    s.launch();
    s.pause(true).ok();
    if s.front == Front::Shim {
        // As containerd does.
        s.pause(false).ok();
    }
    format!("{} {}", s.delete().status, s.status())
}

/// Where groups are frozen, and how.
fn freezer() -> (PathBuf, &'static str, &'static str, &'static str) {
    let v1 = PathBuf::from("/sys/fs/cgroup/freezer");
    if v1.exists() {
        (v1, "freezer.state", "FROZEN", "THAWED")
    } else {
        ("/sys/fs/cgroup".into(), "cgroup.freeze", "1", "0")
    }
}

fn in_frozen(s: &mut Subject, above: bool) -> String {
    let (root, file, frozen, thawed) = freezer();
    let top = s.spec["linux"]["cgroupsPath"]
        .as_str()
        .unwrap()
        .trim_start_matches('/')
        .to_owned();
    let group = root.join(&top);
    let group = if above {
        group.parent().unwrap().to_owned()
    } else {
        group
    };
    fs::create_dir_all(&group).unwrap();
    fs::write(group.join(file), frozen).unwrap();
    let began = Instant::now();
    let out = s.run();
    let quick = began.elapsed() < Duration::from_secs(5) * slowness();
    let left = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    fs::write(group.join(file), thawed).unwrap();
    wait_until("the group can be removed", Duration::from_secs(5), || {
        fs::remove_dir(root.join(&top)).ok();
        fs::remove_dir(&group).is_ok() || !group.exists()
    });
    let text = if quick {
        refused(&out, "unexpectedly frozen")
    } else {
        "late".into()
    };
    if above {
        text
    } else {
        format!("{text}; {} processes", left.lines().count())
    }
}

fn a_frozen_group(s: &mut Subject) -> String {
    in_frozen(s, false)
}

fn below_a_frozen_group(s: &mut Subject) -> String {
    in_frozen(s, true)
}

fn a_group_that_is_not_empty(s: &mut Subject) -> String {
    s.launch();
    let mut other = Subject::new(s.front);
    let path = s.spec["linux"]["cgroupsPath"].clone();
    other.set("/linux/cgroupsPath", path);
    let out = other.run();
    assert_eq!(s.status(), "running");
    refused(&out, "not empty")
}

fn four_deletes_at_once(s: &mut Subject) -> String {
    s.launch();
    let delete = || {
        let mut command = s.command(&["delete", "--force", &s.id]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let all: Vec<_> = (0..4).map(|_| delete()).collect();
    let began = Instant::now();
    let ended = all.into_iter().all(|mut d| d.wait().unwrap().success());
    let quick = began.elapsed() < Duration::from_secs(10) * slowness();
    format!(
        "{}; {}",
        if ended && quick {
            "all ended"
        } else {
            "not all ended"
        },
        s.status()
    )
}

/// A creation that stands still in a hook.
fn standing(s: &mut Subject) -> std::process::Child {
    s.set("/process/args", json!(["sleep", "1000"]));
    let mark = s.dir.join("run/there");
    let script = format!("touch {0}; exec tail -f {0}", mark.display());
    s.set("/hooks", json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }] }));
    s.write_spec();
    let mut command = s.command(&["create", "--bundle", s.bundle(), &s.id]);
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the hook runs", Duration::from_secs(10), || mark.exists());
    child
}

fn end_hook(s: &Subject) {
    let mark = s.dir.join("run/there").display().to_string();
    for (pid, args) in crate::support::processes() {
        if args.iter().any(|a| a.contains(&mark)) {
            crate::support::kill(pid);
        }
    }
}

fn a_creation_that_was_killed(s: &mut Subject) -> String {
    let mut child = standing(s);
    child.kill().unwrap();
    child.wait().unwrap();
    let status = s.status();
    // Without force: what has no maker any more has stopped.
    let deleted = s.call(&["delete", &s.id]);
    end_hook(s);
    if deleted.status != 0 {
        return format!("{status}: {deleted:?}");
    }
    s.status()
}

fn a_creation_that_is_under_way(s: &mut Subject) -> String {
    let mut child = standing(s);
    let refused = s.call(&["delete", &s.id]).status != 0;
    let waiting = s
        .command(&["delete", "--force", &s.id])
        .stderr(Stdio::null())
        .spawn();
    std::thread::sleep(Duration::from_millis(100));
    end_hook(s);
    let deleted = waiting.unwrap().wait().unwrap().success();
    assert!(!child.wait().unwrap().success());
    format!(
        "{}; {}; {}",
        if refused { "refused" } else { "deleted" },
        if deleted {
            "deleted by force"
        } else {
            "not deleted by force"
        },
        s.status()
    )
}

fn the_group_was_removed(s: &mut Subject) -> String {
    s.launch();
    s.kill();
    let group = s.spec["linux"]["cgroupsPath"]
        .as_str()
        .unwrap()
        .trim_start_matches('/')
        .to_owned();
    for hierarchy in crate::support::leftovers::hierarchies() {
        fs::remove_dir(hierarchy.join(&group)).ok();
    }
    format!("{} {}", s.call(&["delete", &s.id]).status, s.status())
}

fn a_killed_init_whose_children_live(s: &mut Subject) -> String {
    let namespaces = s.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|n| n["type"] != "pid");
    let mark = format!("{}.31415", std::process::id());
    s.script(&format!("sleep {mark} & sleep {mark} & wait"));
    s.launch();
    let alive = || {
        let all = crate::support::processes();
        all.iter()
            .filter(|(pid, args)| args.contains(&mark) && crate::support::is_alive(*pid))
            .count()
    };
    wait_until("its children", Duration::from_secs(5), || alive() >= 2);
    let init = s.pid();
    crate::support::kill(init);
    wait_until("the init ends", Duration::from_secs(5), || {
        !crate::support::is_alive(init)
    });
    s.delete();
    wait_until("its children end", Duration::from_secs(5), || alive() == 0);
    format!("{} left", alive())
}

fn asked_to_end_before_it_starts(s: &mut Subject) -> String {
    s.set("/process/args", json!(["sleep", "1000"]));
    s.create().ok();
    match s.front {
        Front::Shim => s.shim().kill(&s.id, "", 15, false).unwrap(),
        _ => drop(s.call(&["kill", &s.id, "TERM"]).ok()),
    }
    let end = Instant::now() + Duration::from_secs(5) * slowness();
    while s.status() != "stopped" && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    s.status()
}

fn two_of_one_name(s: &mut Subject) -> String {
    s.launch();
    let out = s.create();
    if out.status != 0 && out.stderr.contains("exists") {
        "exists".into()
    } else {
        format!("{out:?}")
    }
}

fn the_command_cannot_be_overwritten(s: &mut Subject) -> String {
    // As an attacker does it: kept until nobody executes it any more.
    let keep = |pid: i32| {
        let path = fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_PATH)
            .open(format!("/proc/{pid}/exe"));
        path.unwrap()
    };
    let writable = |kept: &fs::File| {
        let path = format!("/proc/self/fd/{}", kept.as_raw_fd());
        match fs::OpenOptions::new().write(true).open(path) {
            Err(e) if e.raw_os_error() == Some(nix::libc::EROFS) => "read-only".to_owned(),
            other => format!("{other:?}"),
        }
    };
    // A copy, which no other case executes: as long as anybody does, its file is busy.
    let copy = s.dir.join("run/cofferdam");
    fs::copy(&s.program, &copy).unwrap();
    s.program = copy;
    s.set("/process/args", json!(["sleep", "1000"]));
    s.create().ok();
    let at_gate = keep(s.pid());
    s.start().ok();
    // A program that is waited for has the command beside it.
    let mark = format!("{}.1414", std::process::id());
    let mut exec = s.command(&["exec", &s.id, "sleep", &mark]).spawn().unwrap();
    wait_until("the exec runs", Duration::from_secs(10), || {
        let all = crate::support::processes();
        all.iter()
            .any(|(_, a)| a.join(" ").trim() == format!("sleep {mark}"))
    });
    let beside = keep(exec.id() as i32);
    s.kill();
    exec.wait().unwrap();
    format!("{} {}", writable(&at_gate), writable(&beside))
}

/// A group of somebody else's, as systemd and dockerd make them: its process is in a group below it.
struct Foreign {
    name: String,
    sleep: std::process::Child,
    below: Vec<PathBuf>,
}

impl Foreign {
    fn new(s: &Subject) -> Self {
        let name = format!("{}-foreign", s.id);
        let sleep = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let mut all = Vec::new();
        for hierarchy in crate::support::leftovers::hierarchies() {
            let below = hierarchy.join(&name).join("below");
            fs::create_dir_all(&below).unwrap();
            // A cpuset group is empty of processors at first.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                for group in [hierarchy.join(&name), below.clone()] {
                    if let Ok(of_root) = fs::read_to_string(hierarchy.join(file)) {
                        fs::write(group.join(file), of_root).ok();
                    }
                }
            }
            if !hierarchy.ends_with("devices") {
                fs::write(below.join("cgroup.procs"), sleep.id().to_string()).ok();
            }
            all.push(below);
        }
        Self {
            name,
            sleep,
            below: all,
        }
    }

    fn state(&mut self) -> &'static str {
        match self.sleep.try_wait().unwrap() {
            None => "alive",
            Some(_) => "killed",
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.sleep.kill().ok();
        self.sleep.wait().ok();
        for below in &self.below {
            fs::remove_dir(below).ok();
            fs::remove_dir(below.parent().unwrap()).ok();
        }
    }
}

fn a_group_with_processes_below(s: &mut Subject) -> String {
    let mut foreign = Foreign::new(s);
    s.set("/linux/cgroupsPath", json!(format!("/{}", foreign.name)));
    let out = s.run();
    format!("{}; {}", refused(&out, "not empty"), foreign.state())
}

/// Killed before its process was there, a creation has not yet made the groups that its state names.
fn a_deletion_without_a_process_of_its_own(s: &mut Subject) -> String {
    let mut foreign = Foreign::new(s);
    s.set("/process/args", json!(["sleep", "1000"]));
    s.create().ok();
    let file = own_directory(s).join("state.json");
    let text = fs::read_to_string(&file).unwrap();
    let mut state: serde_json::Value = serde_json::from_str(&text).unwrap();
    let init = state["init"].take();
    let groups = state["cgroup"]["path"].clone();
    state["cgroup"]["path"] = json!(format!("/{}", foreign.name));
    fs::write(&file, state.to_string()).unwrap();
    let status = s.call(&["delete", "--force", &s.id]).status;
    let gone = s.status();
    let theirs = foreign.state();
    crate::support::kill(i32::try_from(init["pid"].as_i64().unwrap()).unwrap());
    for hierarchy in crate::support::leftovers::hierarchies() {
        let group = hierarchy.join(groups.as_str().unwrap().trim_start_matches('/'));
        wait_until("the group can be removed", Duration::from_secs(5), || {
            fs::remove_dir(&group).is_ok() || !group.exists()
        });
    }
    format!("{status} {gone}; {theirs}")
}

fn a_hook_that_hangs_is_deleted(s: &mut Subject) -> String {
    let mut child = standing(s);
    let began = Instant::now();
    let status = s.call(&["delete", "--force", &s.id]).status;
    assert!(began.elapsed() < Duration::from_secs(8) * slowness());
    assert!(!child.wait().unwrap().success());
    end_hook(s);
    format!("{status} {}", s.status())
}

fn own_directory(s: &Subject) -> std::path::PathBuf {
    s.dir.join("run/state").join(&s.id)
}

fn a_deletion_that_was_killed(s: &mut Subject) -> String {
    s.launch();
    s.kill();
    fs::remove_file(own_directory(s).join("lock")).unwrap();
    let status = s.call(&["delete", &s.id]).status;
    let gone = s.status();
    s.create().ok();
    format!("{status} {gone}; {} again", s.status())
}

fn a_start_that_was_killed(s: &mut Subject) -> String {
    s.launch();
    // Its gate's socket is still there.
    fs::write(own_directory(s).join("gate"), "").unwrap();
    let status = s.status();
    let start = s.start();
    let refused = start.status != 0 && start.stderr.contains("already running");
    let deleted = s.call(&["delete", &s.id]).status == 0;
    format!(
        "{status}; {}; {}",
        if refused {
            "refused: already running"
        } else {
            "started"
        },
        if deleted { "deleted" } else { "not deleted" }
    )
}

fn a_state_that_is_broken(s: &mut Subject) -> String {
    s.launch();
    let init = s.pid();
    let file = own_directory(s).join("state.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("\"version\":", "\"version\":9", 1)).unwrap();
    let told = s.call(&["list"]).stderr.contains(&s.id);
    let status = s.call(&["delete", "--force", &s.id]).status;
    format!(
        "{} by list; {status} {}; {}",
        if told { "told" } else { "not told" },
        s.status(),
        if crate::support::is_alive(init) {
            "alive"
        } else {
            "ended"
        }
    )
}

fn an_abandoned_directory(s: &mut Subject) -> String {
    let dir = own_directory(s);
    fs::create_dir_all(&dir).unwrap();
    let of_run = s.dir.join("run");
    if s.front == Front::Rootless {
        let owner = format!("{0}:{0}", super::subject::USER);
        Output::of(
            std::process::Command::new("chown")
                .arg("-R")
                .arg(owner)
                .arg(of_run),
        )
        .ok();
    }
    Output::of(
        std::process::Command::new("touch")
            .args(["-d", "-1 hour"])
            .arg(&dir),
    )
    .ok();
    s.run().status.to_string()
}

fn no_hierarchy_is_mounted(s: &mut Subject) -> String {
    let front = s.front;
    // A thread has mounts of its own, and what it starts has them too.
    let thread = std::thread::spawn(move || {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        use nix::sched::{CloneFlags, unshare};
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH).unwrap();
        let out = Subject::new(front).run();
        assert_ne!(out.status, 0, "{out:?}");
        let told = out
            .stderr
            .find("no cgroup hierarchy")
            .map(|at| &out.stderr[at..]);
        told.unwrap_or(&out.stderr).to_owned()
    });
    thread.join().unwrap()
}

fn names_in_a_list_of_processes(s: &mut Subject) -> String {
    let name = |pid: i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        name.trim().to_owned()
    };
    s.set("/process/args", json!(["sleep", "1000"]));
    s.create().ok();
    let created = name(s.pid());
    s.start().ok();
    let shim = s.shim().pid().unwrap();
    format!("{} {created} {}", name(shim), name(s.pid()))
}

fn an_exec_whose_id_is_taken(s: &mut Subject) -> String {
    s.launch();
    s.shim().exec(&s.id, "one", &["sleep", "1000"]).unwrap();
    let again = s.shim().exec(&s.id, "one", &["true"]).unwrap_err();
    if again.0 == ttrpc::Code::ALREADY_EXISTS {
        "AlreadyExists".into()
    } else {
        format!("{again:?}")
    }
}

fn a_state_of_another_version(s: &mut Subject) -> String {
    if s.front == Front::Runc {
        return "refused: another version".into();
    }
    s.launch();
    let file = s.dir.join("run/state").join(&s.id).join("state.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("\"version\":", "\"version\":9", 1)).unwrap();
    let out = s.call(&["state", &s.id]);
    fs::write(&file, text).unwrap();
    refused(&out, "another version")
}
