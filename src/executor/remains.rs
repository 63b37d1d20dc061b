//! The end of a container: what goes, and in which order. A deletion by containerd or by a person, the shim's `delete` after a
//! shim that died, and a creation that fails all end here.

use std::ffi::CString;
use std::path::Path;
use std::time::Duration;

use super::hooks::HookRunner;
use crate::cgroup::{self, Cgroup, Placeholder};
use crate::isolation::Judged;
use crate::oci::Request;
use crate::sys::mount::umount_detach;

/// How long the processes of a failed creation may take to end, and its groups to go.
const UNDO_WITHIN: Duration = Duration::from_secs(5);

/// What is to be removed of a container: its groups with their processes, its root, its poststop hooks. It goes in this order:
/// [`Remains::kill`], [`Killed::remove`], [`Gone::run_poststop`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Remains<'a> {
    /// The container's id, for the log.
    pub id: &'a str,
    /// Its control groups, with all processes in them.
    pub cgroup: Option<&'a Cgroup>,
    /// Its root, where it had the node's mount namespace and that is still mounted; all other mounts went with the container's own.
    pub root: Option<&'a Path>,
    /// Its poststop hooks.
    pub hooks: Option<&'a HookRunner>,
}

/// A container without processes.
#[derive(Debug)]
#[must_use]
pub struct Killed<'a>(Remains<'a>);

/// A container of which only the poststop hooks are left. They come last: OCI runtime.md, "Lifecycle".
#[derive(Debug)]
#[must_use]
pub struct Gone<'a>(Option<&'a HookRunner>);

impl<'a> Remains<'a> {
    /// Kills the processes, and waits until they are gone, for at most `within`.
    ///
    /// # Errors
    /// Processes are still there. Nothing else has changed, and it can be called again.
    pub fn kill(self, within: Duration) -> Result<Killed<'a>, cgroup::Error> {
        if let Some(cgroup) = self.cgroup {
            cgroup.kill_and_wait(within)?;
        }
        Ok(Killed(self))
    }

    /// The whole end, for callers that cannot try again. What fails is logged, and the rest is done all the same. Groups with
    /// processes stay. `within` counts twice: for the processes, and for the groups.
    pub fn destroy(self, within: Duration) {
        let gone = match self.kill(within) {
            Ok(killed) => killed.remove_or_warn(within),
            Err(e) => {
                log::warn!(id = self.id, error:% = e; "processes are left behind");
                self.unmount()
            }
        };
        gone.run_poststop();
    }

    fn unmount(self) -> Gone<'a> {
        let path = |root: &Path| CString::new(root.as_os_str().as_encoded_bytes()).ok();
        if let Some(root) = self.root.and_then(path) {
            umount_detach(&root).ok();
        }
        Gone(self.hooks)
    }
}

impl<'a> Killed<'a> {
    /// Removes the groups, and then the root. Waits for the kernel for at most `within`; systemd takes its own time.
    ///
    /// # Errors
    /// Groups are left. It can be tried again.
    pub fn remove(self, within: Duration) -> Result<Gone<'a>, cgroup::Error> {
        if let Some(cgroup) = self.0.cgroup {
            cgroup.remove(within)?;
        }
        Ok(self.0.unmount())
    }

    /// The same, but groups that are left are logged: nothing runs in them.
    pub fn remove_or_warn(self, within: Duration) -> Gone<'a> {
        if let Some(Err(e)) = self.0.cgroup.map(|c| c.remove(within)) {
            log::warn!(id = self.0.id, error:% = e; "control groups are left behind");
        }
        self.0.unmount()
    }
}

impl Gone<'_> {
    /// Runs the hooks. One that fails is logged.
    pub fn run_poststop(self) {
        if let Some(hooks) = self.0 {
            hooks.run_poststop();
        }
    }
}

/// What a creation has made beside its process. A drop destroys it. The poststop hooks run then, because hooks of the
/// creation may have run.
#[derive(Debug, Default)]
pub struct Undo<'a> {
    made: Remains<'a>,
    /// Held until a process of the container is in the groups.
    placeholder: Option<Placeholder>,
}

impl<'a> Undo<'a> {
    pub(super) fn new(
        id: &'a str,
        request: &'a Judged<Request>,
        cgroup: Option<&'a Cgroup>,
        hooks: Option<&'a HookRunner>,
        placeholder: Option<Placeholder>,
    ) -> Self {
        let made = Remains {
            id,
            cgroup,
            root: request.root_on_node(),
            hooks,
        };
        Self { made, placeholder }
    }

    pub(super) fn hooks(&self) -> Option<&'a HookRunner> {
        self.made.hooks
    }

    /// A process of the container is in the groups.
    pub(super) fn drop_placeholder(&mut self) {
        self.placeholder = None;
    }

    /// The container is made: nothing is taken back.
    pub fn keep(mut self) {
        self.made = Remains::default();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.placeholder = None;
        self.made.destroy(UNDO_WITHIN);
    }
}
