//! `delete`: containerd runs it when a pod's server is gone, also after every normal end. It works from what is on disk,
//! may run any number of times, and leaves nothing: no process, no group, no mount, no socket.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containerd_shim::Flags;
use containerd_shim::api::DeleteResponse;
use containerd_shim::protos::protobuf::{Message, MessageField};

use super::start::socket_path;
use super::{Error, Result, logging, write_out};
use crate::cgroup::{Cgroup, Layout};
use crate::control;
use crate::executor::Remains;
use crate::executor::hooks::HookRunner;
use crate::isolation::pool;
use crate::oci::{self, Hooks};
use crate::pod::Record;
use crate::service::timestamp;
use crate::sys;

/// How long a container's processes may take to end, and its groups to go: containerd waits for 5 seconds for both.
const WITHIN: Duration = Duration::from_secs(2);
/// What a container's end looks like when nobody saw it.
const UNSEEN: u32 = 128 + libc::SIGKILL as u32;

pub(super) fn run(flags: &Flags) -> Result<()> {
    logging::to_stderr();
    let bundle = if flags.bundle.is_empty() {
        std::env::current_dir().map_err(Error::io("find the bundle"))?
    } else {
        PathBuf::from(&flags.bundle)
    };
    let layout = Arc::new(Layout::detect_or_explain());
    let record = clean(&bundle, &flags.id, &layout);
    for sibling in siblings(&bundle, &flags.id) {
        let id = sibling
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        clean(&sibling, &id, &layout);
    }
    if let Ok(address) = fs::read_to_string(bundle.join("address")) {
        control::remove_dead(socket_path(address.trim()));
    }
    control::sweep();
    // Last, when no process has them any more.
    if let Some(first) = record.users {
        pool::give_back(Path::new(pool::DIRECTORY), first);
    }
    let (status, at) = match record.exit {
        Some((status, nanos)) => (status, UNIX_EPOCH + Duration::from_nanos(nanos)),
        None => (UNSEEN, SystemTime::now()),
    };
    let response = DeleteResponse {
        pid: record.pid.cast_unsigned(),
        exit_status: status,
        exited_at: MessageField::some(timestamp(at)),
        ..DeleteResponse::default()
    };
    write_out(
        &response
            .write_to_bytes()
            .map_err(|e| Error::Other(format!("encode the answer: {e}")))?,
    )
}

/// Kills and removes what a bundle's container left. Goes on after each failure, and reports it: containerd logs it.
fn clean(bundle: &Path, id: &str, layout: &Arc<Layout>) -> Record {
    let record = Record::load(bundle).unwrap_or_default();
    let spec = oci::load(bundle).ok();
    if record.pid > 0
        && record.is_alive()
        && let Ok(pidfd) = sys::process::pidfd_open(record.pid)
        && record.is_alive()
    {
        use std::os::fd::AsFd;
        sys::process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
    }
    let recorded = !record.cgroup.as_os_str().is_empty();
    let path = if recorded {
        Some(record.cgroup.clone())
    } else {
        spec.as_ref()
            .and_then(|s| s.linux().as_ref()?.cgroups_path().clone())
    };
    if let Some(path) = path {
        let resume = |c: Cgroup| c.resume(record.resctrl.clone());
        let cgroup = if recorded {
            Cgroup::at(layout.clone(), &path, record.below.clone(), id)
        } else {
            Cgroup::new(layout.clone(), Some(&path), id)
        };
        match cgroup.map(resume) {
            // Without a record the creation failed, or was killed half-way, and the path may be another container's or the node's.
            Ok(cgroup) if !recorded && !cgroup.is_marked() => {}
            Ok(cgroup) if cgroup.exists() => {
                // Only if there was something to clean: after a normal end they have run. As the record has them: those of
                // the spec have not been judged.
                let hooks = spec.filter(|_| !record.poststop.is_empty()).map(|spec| {
                    let judged = Hooks(record.poststop.clone());
                    HookRunner::recorded(&spec, judged, id, bundle)
                });
                let remains = Remains {
                    id,
                    cgroup: Some(&cgroup),
                    root: None,
                    hooks: hooks.as_ref(),
                };
                remains.destroy(WITHIN);
            }
            Ok(_) => {}
            Err(e) => log::warn!(id, error:% = e; "the container's control groups are unknown"),
        }
    }
    // Not ours, but another runtime's or an earlier version's: a mount here would keep the bundle from being removed.
    if let Ok(rootfs) =
        std::ffi::CString::new(bundle.join("rootfs").into_os_string().into_encoded_bytes())
    {
        while sys::mount::umount_detach(&rootfs).is_ok() {}
    }
    record
}

/// Bundles of the same pod: containerd 2.3 and later ask for the sandbox's only, and name it in a file of each bundle.
fn siblings(bundle: &Path, id: &str) -> Vec<PathBuf> {
    let Some(entries) = bundle.parent().and_then(|p| fs::read_dir(p).ok()) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| {
            p != bundle && fs::read_to_string(p.join("sandbox")).is_ok_and(|s| s.trim() == id)
        })
        .collect()
}
