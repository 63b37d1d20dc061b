//! Differences that are known, each with its reason. docs/conformance.md has the list for people.

use serde_json::Value;

use super::run::Difference;

/// What only Cofferdam refuses.
pub fn refusal(_spec: &Value, why: &str) -> Option<&'static str> {
    let told = |text: &str| why.contains(text);
    Some(match () {
        () if told("exists on cgroup v") => {
            "what cgroup v2 does not have is refused by name, as crun does; runc passes it over"
        }
        () if told("a swap limit needs memory.limit beside it") => {
            "on cgroup v2 a swap limit has no meaning beside unlimited memory; runc passes it over"
        }
        () => return None,
    })
}

/// What only runc refuses.
pub fn acceptance(_spec: &Value, why: &str) -> Option<&'static str> {
    let told = |text: &str| why.contains(text);
    Some(match () {
        () if told("error reopening /dev/null inside container") => {
            "runc opens the container's /dev/null, which these device rules deny; here nobody needs to"
        }
        () if told("/proc/sys/kernel/cap_last_cap") => {
            "runc reads files of /proc that this spec hides, after it has hidden them"
        }
        () if told("cannot punch hole in existing wildcard rule") => {
            "runc cannot take a device away from a wildcard; here any rules can be had"
        }
        () if told("cpu.weight") => {
            "shares that runc turns into a weight that the kernel does not take; here it is the nearest one"
        }
        () if told("cannot change locked atime flags") => {
            "in a user namespace runc binds when the node's flags are locked already"
        }
        () if told("mount src=/dev/pipe") || told("mount src=/elsewhere/") => {
            "a device is made, also in a user namespace and where the node has none; runc wants to bind the node's"
        }
        () if told("mount dst=/mnt/../other") => {
            "runc does not find the place of a mount again if it has .. in it"
        }
        () if told("error mounting \\\"sysfs\\\"") => {
            "the sysfs of another owner's network is made before the container's users are entered"
        }
        () => return None,
    })
}

/// What both run, and where something else is seen.
pub fn difference(spec: &Value, d: &Difference) -> Option<&'static str> {
    let has_users = || {
        let all = spec["linux"]["namespaces"].as_array();
        all.is_some_and(|all| all.iter().any(|n| n["type"] == "user"))
    };
    let only = |part: &str, theirs: &str, ours: &str| {
        d.part == part
            && d.theirs.iter().all(|l| l.starts_with(theirs))
            && d.ours.iter().all(|l| l.starts_with(ours))
    };
    let of_status = |prefix: &str| {
        let mut all = d.theirs.iter().chain(&d.ours);
        d.part == "status" && all.any(|l| l.starts_with(prefix))
    };
    let mut all = d.theirs.iter().chain(&d.ours);
    let only_these = all.all(|l| l.starts_with("SigIgn:") || l.starts_with("Cap"));
    let has_capabilities = !spec["process"]["capabilities"].is_null();
    if only_these && of_status("Cap") && !has_capabilities {
        return Some("without process.capabilities a process has none; runc leaves it all of them");
    }
    if only_these && of_status("SigIgn:") && !of_status("Cap") {
        return Some(
            "a process begins with no signal ignored, whatever the runtime's caller ignores",
        );
    }
    if only("group hugetlb.2MB.max", "", "") && d.theirs.is_empty() {
        return Some(
            "on a hybrid node the v2 tree's controllers are enabled down to the container",
        );
    }
    let is_default = |l: &String| l.starts_with("c 1:") || l.starts_with("c 5:");
    if only("group devices.list", "c 10:200 rwm", "c ") && d.ours.iter().all(is_default) {
        return Some("/dev/net/tun is for who asks for it, and the default devices are for all");
    }
    if only("group devices.list", "c 10:200 rwm", "") && d.ours.is_empty() {
        return Some("/dev/net/tun is for who asks for it");
    }
    if d.part == "dev"
        && d.ours.is_empty()
        && d.theirs.iter().all(|l| l.ends_with("core -> /proc/kcore"))
    {
        return Some("there is no link to the kernel's memory");
    }
    let names = |lines: &[String]| -> Vec<String> {
        let name = |l: &String| l.split_whitespace().last().unwrap_or_default().to_owned();
        lines
            .iter()
            .map(name)
            .filter(|n| n != "/proc/kcore")
            .collect()
    };
    if d.part == "dev" && has_users() && names(&d.theirs) == names(&d.ours) {
        return Some(
            "the default devices of a container with users are its own, and its root's; runc binds the node's",
        );
    }
    if only("end", "exited 255", "exited 126") {
        return Some("a file that cannot be executed ends with a shell's 126");
    }
    if only("env", "HOME=", "HOME=/") {
        return Some("a user whom the image does not know lives in /");
    }
    if let Some(place) = d.part.strip_prefix("mount ") {
        return mount(spec, place, d, has_users());
    }
    None
}

/// Of a mount: what of its file system is there, options, propagation, type, options of the file system.
fn fields(line: &str) -> Vec<&str> {
    line.trim_start().split(' ').collect()
}

fn mount(spec: &Value, place: &str, d: &Difference, has_users: bool) -> Option<&'static str> {
    if place == "/sys/fs/cgroup/unified" && d.theirs.is_empty() {
        return Some(
            "on a hybrid node a cgroup mount shows the v2 tree beside the hierarchies of v1",
        );
    }
    let propagation = spec["linux"]["rootfsPropagation"].as_str();
    // runc gives every mount the root's propagation at the end.
    let is_of_root = |line: &String| {
        let shared = fields(line).get(2).is_some_and(|p| p.contains("shared"));
        match propagation {
            Some("shared" | "rshared") => shared,
            Some("rslave" | "rprivate" | "runbindable") => !shared,
            _ => false,
        }
    };
    let same_but_propagation = |(a, b): (&String, &String)| {
        let (mut a, mut b) = (fields(a), fields(b));
        a.len() == 5 && b.len() == 5 && a.remove(2) != b.remove(2) && a == b
    };
    if d.theirs.iter().all(is_of_root)
        && (propagation.is_some_and(|p| p.ends_with("shared"))
            || d.theirs.len() == d.ours.len()
                && d.theirs.iter().zip(&d.ours).all(same_but_propagation))
    {
        return Some(
            "linux.rootfsPropagation is the root's own; mounts below it have what their options say",
        );
    }
    let there = spec["mounts"].as_array().into_iter().flatten();
    let is_there = |m: &&Value| {
        let destination = m["destination"].as_str().unwrap_or_default();
        let destination = destination.trim_end_matches('/');
        destination.replace("/link-to-directory", "/tmp") == place
    };
    if there.filter(is_there).count() > 1 {
        return Some(
            "of two mounts in one place each keeps its options; runc's last pass changes the upper one",
        );
    }
    if d.theirs.len() != d.ours.len() {
        return None;
    }
    let mut pairs = d
        .theirs
        .iter()
        .zip(&d.ours)
        .map(|(a, b)| pair(spec, place, &fields(a), &fields(b), has_users));
    pairs.try_fold(None, |_, reason| reason.map(Some)).flatten()
}

/// One mount, as each has it.
fn pair(
    spec: &Value,
    place: &str,
    a: &[&str],
    b: &[&str],
    has_users: bool,
) -> Option<&'static str> {
    let (
        &[a_root, a_options, a_propagation, a_type, a_super],
        &[b_root, b_options, b_propagation, b_type, b_super],
    ) = (a, b)
    else {
        return None;
    };
    let same_options = a_options == b_options;
    let same_rest = a_root == b_root && a_propagation == b_propagation && a_type == b_type;
    let both_tmpfs = a_type == "tmpfs" && b_type == "tmpfs";
    if a_type == "devtmpfs" && b_type == "tmpfs" && has_users {
        return Some(
            "the default devices of a container with users are its own, and its root's; runc binds the node's",
        );
    }
    if both_tmpfs
        && a_options.starts_with("ro")
        && b_options.starts_with("ro")
        && b_super.contains("nr_inodes=1")
    {
        return Some("a hidden directory is an empty tmpfs with nosuid, nodev and noexec");
    }
    if place == "/sys/fs/cgroup" && both_tmpfs && a_super == b_super {
        return Some(
            "the directory above the hierarchies of v1 has the mount's own options; runc's stays writable",
        );
    }
    let namespaces = spec["linux"]["namespaces"].as_array();
    let cgroup_namespace = namespaces.is_some_and(|all| all.iter().any(|n| n["type"] == "cgroup"));
    if place.starts_with("/sys/fs/cgroup/") && cgroup_namespace && same_rest && a_super == b_super {
        return Some(
            "in a cgroup namespace the hierarchies of v1 have the mount's own options; runc adds some",
        );
    }
    if same_rest
        && same_options
        && without(a_super, &["ro", "rw"]) == without(b_super, &["ro", "rw"])
    {
        return Some(
            "read-only is a property of the mount, not of the file system, which other mounts may share",
        );
    }
    if same_rest
        && same_options
        && without(a_super, &["mode=755"]) == without(b_super, &["mode=755"])
    {
        return Some(
            "a tmpfs that starts as a copy gets its mode from what is copied, not as an option",
        );
    }
    let times = ["noatime", "relatime", "nodiratime"];
    if same_rest && a_super == b_super && without(a_options, &times) == without(b_options, &times) {
        return Some("of options on access times that contradict each other the last one counts");
    }
    None
}

fn without<'a>(options: &'a str, names: &[&str]) -> Vec<&'a str> {
    options.split(',').filter(|o| !names.contains(o)).collect()
}

/// Without what is one run's alone, to count alike.
pub fn without_numbers(text: &str) -> String {
    let text = text.trim();
    let text = text.split("msg=").nth(1).unwrap_or(text);
    text.replace(|c: char| c.is_ascii_digit(), "#")
}
