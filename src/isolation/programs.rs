//! Programs of the node that a spec or a request names: hooks, loggers, and agents that decide on system calls. They run with the
//! node's rights, whatever the container has, so a profile lists them.

use std::path::{Path, PathBuf};

use super::judged::Judged;
use super::profile::Profile;
use super::refusal::Refusal;
use crate::oci::Request;
use crate::oci::StdioUris;

fn is_listed(list: Option<&Vec<PathBuf>>, path: &Path) -> bool {
    list.is_none_or(|l| l.iter().any(|p| p == path))
}

fn refuse(profile: &Profile, what: &str, path: &Path, field: &str, key: &'static str) -> Refusal {
    let what = format!("{what} {} ({field})", path.display());
    Refusal::new(profile, what, "remove it").by(key)
}

/// All that the environment of a node's program has: the rest decides what it loads, and is the spec's.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// dockerd's hooks are itself, by its process. What that leads to now is what is listed, and what runs.
fn of_process(path: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix("/proc").ok()?;
    let mut parts = rest.iter().map(|p| p.to_str().unwrap_or_default());
    let pid = parts.next()?;
    let is_exe = parts.next() == Some("exe") && parts.next().is_none();
    let is_pid = !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
    (is_exe && is_pid).then(|| std::fs::read_link(path).ok())?
}

/// Judges hooks and the seccomp agent.
pub(super) fn judge(
    profile: &Profile,
    request: &mut Request,
    report: &mut Vec<String>,
) -> Result<(), Refusal> {
    for h in request.hooks.0.iter_mut().filter(|h| h.kind.is_of_node()) {
        h.path = of_process(&h.path).unwrap_or_else(|| h.path.clone());
        if !is_listed(profile.pod.hooks.as_ref(), &h.path) {
            let (field, key) = (format!("{}.path", h.field()), "pod.hooks");
            return Err(refuse(profile, "the hook", &h.path, &field, key));
        }
        if h.env.as_deref() != Some(&[PATH.to_owned()]) {
            h.env = Some(vec![PATH.to_owned()]);
            report.push(format!("{}.env: {PATH}", h.field()));
        }
    }
    let linux = request.rest.linux().as_ref();
    let filter = linux.and_then(|l| l.seccomp().as_ref());
    let agent = filter.and_then(|f| f.listener_path().as_deref());
    if let Some(agent) = agent.filter(|a| !is_listed(profile.pod.seccomp_agents.as_ref(), a)) {
        let (field, key) = ("linux.seccomp.listenerPath", "pod.seccomp_agents");
        return Err(refuse(profile, "the seccomp agent", agent, field, key));
    }
    Ok(())
}

/// Judges where a process's streams go.
///
/// # Errors
/// A logger that is not listed.
pub fn judge_streams(
    profile: &Profile,
    mut addresses: StdioUris,
) -> Result<Judged<StdioUris>, Refusal> {
    addresses.no_files |= !profile.is_standard();
    for (field, logger) in addresses.loggers() {
        if !is_listed(profile.pod.loggers.as_ref(), &logger) {
            return Err(refuse(profile, "the logger", &logger, field, "pod.loggers"));
        }
    }
    Ok(Judged::new(addresses))
}
