//! From `linux.cgroupsPath` to a path below the hierarchies.

use std::path::{Component, Path, PathBuf};

use super::systemd::Manager;
use super::{Error, Result};

fn bad(path: &Path, reason: &str) -> Error {
    Error::Unavailable {
        field: format!("linux.cgroupsPath: {path:?}"),
        reason: reason.to_owned(),
    }
}

/// A path of systemd's form, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// As the spec has it: `slice:prefix:name`.
    pub text: String,
    /// The slice that the unit goes into.
    pub slice: String,
    /// The unit: a scope, or a slice where `name` is one.
    pub name: String,
    /// Who makes it.
    pub manager: Manager,
}

impl Unit {
    /// Whether it is a slice, which needs no process, rather than a scope.
    pub(crate) fn is_slice(&self) -> bool {
        is_slice(&self.name)
    }
}

fn is_slice(unit: &str) -> bool {
    Path::new(unit).extension().is_some_and(|e| e == "slice")
}

/// Whether `cgroups_path` has systemd's form, `slice:prefix:name`.
pub fn is_systemd_form(cgroups_path: &Path) -> bool {
    cgroups_path
        .to_str()
        .is_some_and(|s| !s.starts_with('/') && s.matches(':').count() == 2)
}

/// What a `linux.cgroupsPath` comes down to.
#[derive(Debug)]
pub(super) struct Relative {
    /// Without a leading slash.
    pub path: PathBuf,
    /// It is below the caller's own group, which each hierarchy of cgroup v1 has another one for; else below the hierarchy's root.
    pub below_own: bool,
    pub unit: Option<Unit>,
}

/// The container's path relative to every hierarchy's mount, and the unit that it belongs to where systemd makes it.
///
/// Units are `manager`'s, and their path is below its group.
pub(super) fn relative(
    cgroups_path: Option<&Path>,
    id: &str,
    manager: Manager,
) -> Result<Relative> {
    let (path, below_own, unit) = match cgroups_path.filter(|p| !p.as_os_str().is_empty()) {
        None => (PathBuf::from(id), true, None),
        Some(p) if is_systemd_form(p) => {
            let (path, unit) = systemd(p, manager)?;
            (path, false, Some(unit))
        }
        Some(p) if p.is_absolute() => (p.to_owned(), false, None),
        // "runtimes MAY interpret relative paths": below our own group, as runc does.
        Some(p) => (p.to_owned(), true, None),
    };
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => clean.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(bad(&path, "must not contain `..`"));
            }
        }
    }
    if clean.as_os_str().is_empty() {
        return Err(bad(
            &path,
            "names the root of the hierarchy; give the container a group of its own",
        ));
    }
    Ok(Relative {
        path: clean,
        below_own,
        unit,
    })
}

/// `slice:prefix:name` as systemd lays it out: `a-b.slice` lies in `a.slice`, and the unit is `prefix-name.scope`
/// (or `name` itself where it is a slice). systemd.slice(5).
fn systemd(path: &Path, manager: Manager) -> Result<(PathBuf, Unit)> {
    let text = path.to_str().unwrap_or("");
    let mut parts = text.split(':');
    let (slice, prefix, name) = (
        parts.next().unwrap_or(""),
        parts.next().unwrap_or(""),
        parts.next().unwrap_or(""),
    );
    if name.is_empty() || name.contains('/') || prefix.contains('/') {
        return Err(bad(
            path,
            "expected slice:prefix:name without slashes and with a name",
        ));
    }
    let mut out = PathBuf::new();
    let slice = if slice.is_empty() {
        manager.default_slice()
    } else {
        slice
    };
    if slice != "-.slice" {
        let Some(stem) = slice
            .strip_suffix(".slice")
            .filter(|s| !s.is_empty() && !s.contains('/'))
        else {
            return Err(bad(
                path,
                "the slice must end in .slice and contain no slash",
            ));
        };
        let mut prefix_so_far = String::new();
        for part in stem.split('-') {
            if part.is_empty() {
                return Err(bad(path, "the slice has an empty part between dashes"));
            }
            if !prefix_so_far.is_empty() {
                prefix_so_far.push('-');
            }
            prefix_so_far.push_str(part);
            out.push(format!("{prefix_so_far}.slice"));
        }
    }
    let unit = if is_slice(name) {
        name.to_owned()
    } else if prefix.is_empty() {
        format!("{name}.scope")
    } else {
        format!("{prefix}-{name}.scope")
    };
    out.push(&unit);
    let unit = Unit {
        text: text.to_owned(),
        slice: slice.to_owned(),
        name: unit,
        manager,
    };
    Ok((out, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(p: &str) -> std::result::Result<PathBuf, String> {
        relative(Some(Path::new(p)), "id", Manager::Node)
            .map(|r| r.path)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn both_forms() {
        assert_eq!(rel("/k8s.io/abc").unwrap(), Path::new("k8s.io/abc"));
        assert_eq!(
            rel("kubepods-burstable-podx.slice:cri-containerd:abc").unwrap(),
            Path::new(
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice/cri-containerd-abc.scope"
            )
        );
        assert_eq!(
            rel(":runc:abc").unwrap(),
            Path::new("system.slice/runc-abc.scope")
        );
        assert_eq!(rel("-.slice::abc").unwrap(), Path::new("abc.scope"));
        assert_eq!(
            relative(None, "id", Manager::Node).unwrap().path,
            Path::new("id")
        );
        assert!(
            relative(Some(Path::new("a/b")), "id", Manager::Node)
                .unwrap()
                .below_own
        );
        assert!(
            !relative(Some(Path::new("/a/b")), "id", Manager::Node)
                .unwrap()
                .below_own
        );
    }

    #[test]
    fn bad_paths_are_named() {
        assert!(rel("/a/../../b").unwrap_err().contains("linux.cgroupsPath"));
        assert!(rel("/").unwrap_err().contains("root of the hierarchy"));
        assert!(rel("nope:x:y").unwrap_err().contains(".slice"));
        assert!(rel("a--b.slice:x:y").unwrap_err().contains("empty part"));
    }
}
