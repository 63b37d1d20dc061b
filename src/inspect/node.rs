//! Whether this node can do what profiles promise: its kernel, its control groups, its file systems.

use std::fs;
use std::path::Path;

use super::findings::{Finding, Findings, State};
use super::{containerd, elsewhere, handler, kubelet};
use crate::cgroup::Layout;
use crate::executor::{PodUsers, check_mappable};
use crate::files::read_settings;
use crate::isolation::pool::RANGE;
use crate::isolation::{DIRECTORY, Judged, Node, NodeError, Profile, UserNamespaceMode, names};
use crate::pod::Isolation;
use crate::procfs::MountInfo;
use crate::sys::kernel;

/// The oldest kernel that we run on.
const FLOOR: (u32, u32) = (5, 10);

/// Where shims keep sockets and ranges of ids.
const RUN: &str = "/run/cofferdam";

/// Whether there is room for what every pod writes there.
fn room(out: &mut Findings) {
    let path = if Path::new(RUN).exists() { RUN } else { "/run" };
    let Ok(of) = nix::sys::statvfs::statvfs(path) else {
        return;
    };
    let bytes = of.blocks_available() * of.fragment_size();
    let full = bytes < 64 * 1024 || of.files() > 0 && of.files_available() < 16;
    out.test(
        RUN,
        !full,
        State::Failing,
        format!("{} KiB and {} files are free", bytes / 1024, of.files_available()),
        "make room: pods with users of their own do not start, and `cofferdam top` does not see new pods",
    );
}

/// Looks at the node, for the profiles that are named; without any, for those that containerd's handlers use.
///
/// The root of another node may not be trusted: none of its programs is executed.
///
/// # Errors
/// That root cannot be entered.
pub fn check(profiles: &[String], daemon: &containerd::Source) -> std::io::Result<Vec<Finding>> {
    let mut out = Findings {
        area: "kernel".into(),
        ..Findings::default()
    };
    kernel_itself(&mut out);
    out.area = "control groups".into();
    control_groups(&mut out);
    room(&mut out);
    let has_v2_tree = Layout::detect().is_ok_and(|l| l.unified().is_some());
    if let Some(root) = &daemon.root {
        elsewhere::enter(root)?;
    }
    out.area = "kubernetes".into();
    let settings = settings(&mut out);
    if let Some(settings) = &settings {
        kubelet::check(settings, daemon.is_elsewhere(), &mut out);
    }
    out.area = "containerd".into();
    let installed = containerd::check(daemon, &mut out);
    let wanted = match (profiles.is_empty(), installed.profiles.is_empty()) {
        (false, _) => profiles.to_vec(),
        (true, false) => installed.profiles,
        (true, true) => names(Path::new(DIRECTORY)),
    };
    for name in wanted {
        out.area = format!("profile {name}");
        let given = Given {
            images: (!daemon.is_elsewhere()).then_some(installed.root.as_path()),
            has_v2_tree,
            has_settings: settings.is_some(),
        };
        profile(&name, &given, &mut out);
    }
    Ok(out.all)
}

/// The node's settings. A mistake in them is told once, though it is every profile's.
fn settings(out: &mut Findings) -> Option<Node> {
    let remedy = "correct the file: no pod of a class starts until then";
    let failed = |e: &NodeError| out.say("node settings", State::Failing, e.to_string(), remedy);
    Node::load().inspect_err(failed).ok()
}

/// What profiles are held against.
struct Given<'a> {
    /// Where this node keeps images: whether ids can be mapped is tried there. None for another node.
    images: Option<&'a Path>,
    has_v2_tree: bool,
    has_settings: bool,
}

fn kernel_itself(out: &mut Findings) {
    let (major, minor) = kernel::version();
    out.test(
        "Linux",
        (major, minor) >= FLOOR,
        State::Failing,
        format!("{major}.{minor}"),
        "use Linux 5.10 or later",
    );
    let root = nix::unistd::geteuid().is_root();
    out.test(
        "root",
        root,
        State::Failing,
        if root { "yes" } else { "no" },
        "run this as root, as containerd and its shims do",
    );
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let actions: Vec<&str> = actions.split_whitespace().collect();
    out.test(
        "seccomp",
        actions.contains(&"errno"),
        State::Failing,
        actions.join(" "),
        "use a kernel with CONFIG_SECCOMP_FILTER",
    );
    out.test(
        "denials are seen",
        actions.contains(&"user_notif"),
        State::Degraded,
        if actions.contains(&"user_notif") {
            "user_notif"
        } else {
            "no user_notif"
        },
        "use Linux 5.0 or later; on this kernel denied calls are not reported",
    );
    let modules = kernel::security_modules();
    out.say("security modules", State::Ok, modules.join(" "), "");
    let enforcing = fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|on| on.trim() == "1");
    if enforcing {
        let found = "enforcing: Cofferdam sets the labels that pods ask for, but was never run on such a node";
        out.say(
            "SELinux",
            State::Degraded,
            found,
            "run a pod of each class that you use, and look at what auditd says",
        );
    }
    let abi = kernel::landlock_abi();
    out.test(
        "landlock",
        abi > 0,
        State::Degraded,
        format!("ABI {abi}"),
        "boot with lsm=landlock,... (CONFIG_SECURITY_LANDLOCK): profiles lose their landlock sections",
    );
    let max = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let max = max.trim();
    out.test(
        "user namespaces",
        max.parse::<u64>().is_ok_and(|n| n > 0),
        State::Degraded,
        format!("at most {}", if max.is_empty() { "none" } else { max }),
        "sysctl user.max_user_namespaces=15000: pods with users of their own do not start",
    );
    for offer in kernel::offers() {
        let (major, minor) = offer.since;
        out.test(
            offer.name,
            offer.available,
            State::Degraded,
            if offer.available {
                "there"
            } else {
                "not there"
            },
            &format!("Linux {major}.{minor} has it"),
        );
    }
}

fn control_groups(out: &mut Findings) {
    let layout = match Layout::detect() {
        Ok(layout) => layout,
        Err(e) => {
            let remedy = "mount -t cgroup2 none /sys/fs/cgroup";
            out.say("hierarchies", State::Failing, e.to_string(), remedy);
            return;
        }
    };
    let mode = match (layout.is_v2(), layout.unified().is_some()) {
        (true, _) => "v2",
        (false, true) => "v1, with a v2 tree beside it",
        (false, false) => "v1",
    };
    out.say("mode", State::Ok, mode, "");
    let read_only: Vec<String> = MountInfo::of_self()
        .unwrap_or_default()
        .into_iter()
        .filter(|m| m.fstype.starts_with("cgroup") && m.is_read_only)
        .map(|m| m.point.display().to_string())
        .collect();
    out.test(
        "writable",
        read_only.is_empty(),
        State::Failing,
        if read_only.is_empty() {
            "yes".into()
        } else {
            format!("mounted read-only: {}", read_only.join(" "))
        },
        "mount them writable: no container can have its groups",
    );
    for controller in ["cpu", "cpuset", "memory", "pids", "io"] {
        let there = match controller {
            "io" if !layout.is_v2() => layout.find("blkio").is_some(),
            _ => layout.find(controller).is_some(),
        };
        out.test(
            controller,
            there,
            State::Degraded,
            if there { "there" } else { "not there" },
            &format!(
                "enable it (cgroup_enable={controller} on the kernel's command line): its limits refuse pods that set them"
            ),
        );
    }
}

fn profile(name: &str, given: &Given<'_>, out: &mut Findings) {
    let has_v2_tree = given.has_v2_tree;
    let profile = match Profile::load(name) {
        Ok(profile) => profile,
        Err(e) => {
            let remedy = match &e {
                crate::isolation::Error::Unknown { .. } => {
                    format!("`cofferdam profile new {name}` begins one")
                }
                _ => handler::remedy_of(&e, handler::CORRECT_PROFILE).to_owned(),
            };
            out.say("profile", State::Failing, e.to_string(), &remedy);
            return;
        }
    };
    match Isolation::load(name) {
        Ok(isolation) => {
            let missing = isolation.missing();
            for lack in &missing {
                let (state, remedy) = if lack.accepted {
                    (State::NotHere, String::new())
                } else {
                    let remedy = format!(
                        "use another kernel or machine, or set {} = \"best-effort\"",
                        lack.key
                    );
                    (State::Degraded, remedy)
                };
                let what = format!("{}: {}", lack.key, lack.what);
                out.say(&what, state, &lack.why, &remedy);
            }
            if missing.is_empty() {
                out.say("everything it asks of the kernel", State::Ok, "there", "");
            }
        }
        // Said above, of all profiles.
        Err(_) if !given.has_settings => {}
        Err(e) => {
            let remedy = "use a kernel that has it, or landlock.required = false";
            out.say("required", State::Failing, e.to_string(), remedy);
        }
    }
    if profile.network.egress.is_some() {
        out.test(
            "network.egress",
            has_v2_tree,
            State::Failing,
            if has_v2_tree {
                "a v2 tree"
            } else {
                "no v2 tree"
            },
            "mount a cgroup2 tree: without one no pod of this profile starts",
        );
    }
    if profile.user_namespace.mode == UserNamespaceMode::Auto
        && let Some(images) = given.images
    {
        users(&profile, images, out);
    }
    if profile.process.write_xor_execute.is_wanted() {
        out.say(
            "process.write_xor_execute",
            State::Ok,
            "no program that compiles at run time (Java, JavaScript, …) works in it",
            "",
        );
    }
}

/// Whether pods can have users of their own: the ids, and the file systems that they see.
fn users(profile: &Profile, root: &Path, out: &mut Findings) {
    let pool = profile.user_namespace.pool;
    let last = u64::from(pool.first) + u64::from(pool.ranges) * u64::from(RANGE);
    let mut taken = Vec::new();
    for file in ["/etc/subuid", "/etc/subgid"] {
        for line in read_settings(Path::new(file)).unwrap_or_default().lines() {
            let mut parts = line.split(':').skip(1).map(str::parse::<u64>);
            if let (Some(Ok(first)), Some(Ok(count))) = (parts.next(), parts.next())
                && first < last
                && first + count > u64::from(pool.first)
            {
                taken.push(format!("{file}: {line}"));
            }
        }
    }
    out.test(
        "user_namespace.pool",
        taken.is_empty(),
        State::Degraded,
        if taken.is_empty() {
            format!("{} ranges from {} on", pool.ranges, pool.first)
        } else {
            taken.join(", ")
        },
        "give the profile another pool, or those users other ids: two would share them",
    );
    let namespace = match PodUsers::new(pool.first, RANGE, false) {
        Ok(namespace) => namespace,
        Err(e) => {
            let remedy = "see user namespaces above: pods of this profile do not start";
            out.say("user namespace", State::Failing, e.to_string(), remedy);
            return;
        }
    };
    out.say("user namespace", State::Ok, "can be made", "");
    for (what, path) in [
        ("images", root),
        ("volumes", Path::new("/var/lib/kubelet")),
        ("in memory", Path::new("/dev/shm")),
    ] {
        if !path.exists() {
            continue;
        }
        match check_mappable(path, &Judged::standard(Vec::new()), &namespace) {
            Ok(()) => {
                let found = format!("{} can be mapped", path.display());
                out.say(what, State::Ok, found, "");
            }
            Err(e) => out.say(
                what,
                State::Degraded,
                e.to_string(),
                "put it on ext4, xfs or btrfs (Linux 5.12), or tmpfs (Linux 6.3); until then unmappable decides: the node's \
                 users, or no pod",
            ),
        }
    }
}

#[cfg(test)]
mod tests;
