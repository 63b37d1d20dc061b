//! What a creation takes back when it fails.

use std::ffi::CString;
use std::time::Duration;

use super::hooks;
use crate::cgroup::{Cgroup, Placeholder};
use crate::isolation::Judged;
use crate::oci::{HookKind, Request};
use crate::sys::mount::umount_detach;

/// How long the removal of what a failed creation made may take.
const UNDO_WITHIN: Duration = Duration::from_secs(5);

/// What a creation has made beside its process. Dropped, it removes that: the control groups with all processes in them, the
/// root of a container without a mount namespace; and it runs the poststop hooks, since hooks of the creation may have run.
#[derive(Debug, Default)]
pub struct Undo<'a> {
    made: Option<Made<'a>>,
}

#[derive(Debug)]
struct Made<'a> {
    request: &'a Request,
    cgroup: Option<&'a Cgroup>,
    hooks: Option<&'a hooks::HookRunner>,
    /// Held until a process of the container is in the groups.
    placeholder: Option<Placeholder>,
}

impl<'a> Undo<'a> {
    pub(super) fn new(
        request: &'a Judged<Request>,
        cgroup: Option<&'a Cgroup>,
        hooks: Option<&'a hooks::HookRunner>,
        placeholder: Option<Placeholder>,
    ) -> Self {
        let made = Made {
            request,
            cgroup,
            hooks,
            placeholder,
        };
        Self { made: Some(made) }
    }

    pub(super) fn hooks(&self) -> Option<&'a hooks::HookRunner> {
        self.made.as_ref()?.hooks
    }

    /// A process of the container is in the groups.
    pub(super) fn drop_placeholder(&mut self) {
        if let Some(made) = &mut self.made {
            made.placeholder = None;
        }
    }

    /// The container is made: nothing is taken back.
    pub fn keep(mut self) {
        self.made = None;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let Some(mut made) = self.made.take() else {
            return;
        };
        made.placeholder = None;
        if let Some(cgroup) = made.cgroup {
            cgroup.kill_and_wait(UNDO_WITHIN).ok();
            cgroup.remove(UNDO_WITHIN).ok();
        }
        if let Some(hooks) = made.hooks {
            hooks.run_all_logged(HookKind::Poststop, 0);
        }
        unmount_root(made.request);
    }
}

/// Takes away the mounts of a container without a mount namespace of its own; those of all others went with theirs.
pub fn unmount_root(request: &Request) {
    let rootfs = request.root.source.path.as_os_str();
    let path = CString::new(rootfs.as_encoded_bytes()).ok();
    if let (true, Some(path)) = (request.namespaces.mount.is_host(), path) {
        umount_detach(&path).ok();
    }
}
