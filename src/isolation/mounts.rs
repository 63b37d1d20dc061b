//! Mounts under a profile: which file systems, where, and with which attributes in the end.

use std::path::Path;

use super::Given;
use super::profile::Profile;
use super::refusal::Refusal;
use crate::oci::{Kind, Mount};
use crate::sys::mount::attr;

/// New file systems that a container may have, and the one place where. A tmpfs may be anywhere but below these two.
const PLACES: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devpts", "/dev/pts"),
    ("mqueue", "/dev/mqueue"),
    ("cgroup", "/sys/fs/cgroup"),
    ("cgroup2", "/sys/fs/cgroup"),
];
/// Below these nothing is mounted but what has its place there.
const KERNELS: [&str; 2] = ["/proc", "/sys"];

/// No set-user-ID bits, and no device nodes.
const NO_PRIVILEGE: u64 = attr::NOSUID | attr::NODEV;

/// Judges types and places, and puts the profile's attributes on every mount.
pub(super) fn judge(
    profile: &Profile,
    given: &Given,
    mounts: &mut [Mount],
    report: &mut Vec<String>,
) -> Result<(), Refusal> {
    let mut taken: Vec<&str> = Vec::new();
    for m in mounts {
        if let Some(place) = place(profile, m)? {
            if taken.contains(&place) {
                return Err(refuse(profile, m, "a second one there", "mount it once"));
            }
            taken.push(place);
        }
        if m.is_shared() {
            return Err(refuse(
                profile,
                m,
                "what is mounted there would appear on the node (mountPropagation: Bidirectional)",
                "use HostToContainer or None",
            ));
        }
        let before = (m.flags, m.data.clone());
        harden(profile, given, m);
        if (m.flags, &m.data) != (before.0, &before.1) {
            let options = m.to_spec().options().clone().unwrap_or_default();
            report.push(format!(
                "{} ({}): {}",
                m.field(),
                m.destination.display(),
                options.join(",")
            ));
        }
    }
    Ok(())
}

fn refuse(profile: &Profile, m: &Mount, why: &str, remedy: &str) -> Refusal {
    let what = match &m.kind {
        Kind::Bind { source, .. } => format!("the bind mount of {}", source.path.display()),
        _ => format!("the {} mount", m.fstype().unwrap_or_default()),
    };
    let at = m.destination.display();
    Refusal::new(
        profile,
        format!("{what} at {at} ({}; {why})", m.field()),
        remedy,
    )
}

/// The place that a file system of the kernel's takes, where it may.
fn place(profile: &Profile, m: &Mount) -> Result<Option<&'static str>, Refusal> {
    let at = m.destination.as_path();
    if let Some(fstype) = m.fstype().filter(|t| *t != "tmpfs") {
        let known = PLACES.iter().find(|(t, _)| *t == fstype);
        return match known {
            Some((_, place)) if at == Path::new(place) => Ok(Some(place)),
            Some((_, place)) => {
                let why = format!("its one place is {place}");
                Err(refuse(profile, m, &why, "mount it there"))
            }
            None => {
                let why = "such file systems show the node, or its kernel trusts them";
                Err(refuse(profile, m, why, "remove the mount from the pod"))
            }
        };
    }
    let in_kernels = KERNELS.iter().any(|k| at.starts_with(k));
    // lxcfs: single files of /proc, from a volume that the profile lists. The reading of the spec knows which.
    let is_lxcfs = m.is_bind() && at.starts_with("/proc") && at != Path::new("/proc");
    if in_kernels && !is_lxcfs {
        let why = "it would cover what the profile protects there";
        return Err(refuse(profile, m, why, "mount it elsewhere"));
    }
    Ok(None)
}

fn harden(profile: &Profile, given: &Given, m: &mut Mount) {
    let files = &profile.filesystem;
    let read_only = m.flags.effective() & attr::RDONLY != 0;
    let data = if files.no_exec_mounts && !read_only {
        NO_PRIVILEGE | attr::NOEXEC
    } else {
        NO_PRIVILEGE
    };
    match &mut m.kind {
        Kind::Bind { recursive, .. } => {
            // Linux before 5.12 changes single mounts only: there, what is mounted below a volume is not shown.
            *recursive &= given.recursive_attributes;
            let tree = *recursive;
            m.flags.require(data, tree);
            // Programs may be in what cannot be written: then nothing below it can be written either.
            if read_only && tree && files.no_exec_mounts {
                m.flags.require(attr::RDONLY, true);
            }
        }
        // A control group or a sysfs that can be written is a way out: CVE-2022-0492.
        Kind::Cgroup => m
            .flags
            .require(attr::RDONLY | attr::NOEXEC | NO_PRIVILEGE, false),
        Kind::New { fstype, .. } => match fstype.as_str() {
            "cgroup2" | "sysfs" => {
                m.flags
                    .require(attr::RDONLY | attr::NOEXEC | NO_PRIVILEGE, false);
            }
            "devpts" => m.flags.require(attr::NOSUID | attr::NOEXEC, false),
            // The container's /dev has nodes.
            "tmpfs" if m.destination == Path::new("/dev") => {
                m.flags.require(data & !attr::NODEV, false);
            }
            "tmpfs" => m.flags.require(data, false),
            _ => m.flags.require(NO_PRIVILEGE | attr::NOEXEC, false),
        },
    }
    if m.fstype() == Some("proc") {
        // gid= would show all processes to a group: proc(5).
        m.data.retain(|(k, _)| k == "hidepid" || k == "subset");
        for (wanted, key, value) in [
            (files.hide_processes, "hidepid", "invisible"),
            (files.only_processes, "subset", "pid"),
        ] {
            let is = |(k, v): &(String, Option<String>)| k == key && v.as_deref() == Some(value);
            let once = m.data.iter().filter(|(k, _)| k == key).count() == 1;
            if wanted && !(once && m.data.iter().any(is)) {
                m.data.retain(|(k, _)| k != key);
                m.data.push((key.to_owned(), Some(value.to_owned())));
            }
        }
    }
}
