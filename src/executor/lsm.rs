//! The labels of security modules that a process may ask for, and whether this node has the modules.

use std::ffi::CStr;
use std::fs;
use std::path::Path;

use oci_spec::runtime::Process;

use super::{Error, Result};

/// A label for the program, written before it is executed.
pub(super) struct Label {
    /// The field of `process` that asks for it.
    pub field: &'static str,
    /// Below procfs.
    pub file: &'static CStr,
    /// What is written there.
    pub text: Vec<u8>,
}

/// The labels that a process asks for. An empty one asks for nothing.
pub(super) fn labels(process: &Process) -> Vec<Label> {
    let apparmor = process.apparmor_profile().as_deref().map(|name| Label {
        field: "apparmorProfile",
        file: apparmor_file(),
        text: format!("exec {name}").into_bytes(),
    });
    let selinux = process.selinux_label().as_deref().map(|label| Label {
        field: "selinuxLabel",
        file: c"self/attr/exec",
        text: label.as_bytes().to_vec(),
    });
    let is_set = |label: &Label| !label.text.is_empty() && label.text != b"exec ";
    [apparmor, selinux]
        .into_iter()
        .flatten()
        .filter(is_set)
        .collect()
}

fn apparmor_file() -> &'static CStr {
    if Path::new("/proc/self/attr/apparmor/exec").exists() {
        c"self/attr/apparmor/exec"
    } else {
        c"self/attr/exec"
    }
}

impl Label {
    /// Refuses a label that this node cannot give.
    pub(super) fn check(&self) -> Result<()> {
        match self.field {
            "selinuxLabel" => check_selinux("process.selinuxLabel"),
            _ if has_apparmor() => Ok(()),
            _ => Err(Error::field(
                "process.apparmorProfile",
                "AppArmor is not enabled on this node",
            )),
        }
    }
}

/// Refuses a field that needs `SELinux` where there is none.
pub(super) fn check_selinux(field: &'static str) -> Result<()> {
    if Path::new("/sys/fs/selinux/enforce").exists() {
        return Ok(());
    }
    Err(Error::field(field, "SELinux is not enabled on this node"))
}

fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|enabled| enabled.starts_with('Y'))
}
