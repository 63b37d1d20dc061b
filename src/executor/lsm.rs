//! Security modules that this node may lack.

use std::fs;
use std::path::Path;

pub(super) const NO_APPARMOR: &str = "AppArmor is not enabled on this node";
pub(super) const NO_SELINUX: &str = "SELinux is not enabled on this node";

pub(super) fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|enabled| enabled.starts_with('Y'))
}

pub(super) fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}
