//! What is compared.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support;

/// One runtime on containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runtime {
    /// For people.
    pub name: &'static str,
    /// containerd's name.
    pub id: &'static str,
    /// A part of its shims' program names.
    pub shim: &'static str,
    /// What its shim is to run instead of runc.
    pub binary: Option<&'static str>,
}

pub const OURS: Runtime = Runtime {
    name: "standard",
    id: support::RUNTIME,
    shim: "containerd-shim-cofferdam",
    binary: None,
};
pub const HARDENED: Runtime = Runtime {
    name: "hardened",
    id: "io.containerd.cofferdam-hardened.v1",
    shim: "containerd-shim-cofferdam",
    binary: None,
};
pub const UNTRUSTED: Runtime = Runtime {
    name: "untrusted",
    id: "io.containerd.cofferdam-untrusted.v1",
    shim: "containerd-shim-cofferdam",
    binary: None,
};
pub const RUNC: Runtime = Runtime {
    name: "runc",
    id: "io.containerd.runc.v2",
    shim: "containerd-shim-runc",
    binary: None,
};
/// A shim that answers and does nothing: what containerd itself takes.
pub const NOTHING: Runtime = Runtime {
    name: "nothing",
    id: "io.containerd.nothing.v1",
    shim: "containerd-shim-nothing",
    binary: None,
};

/// runc's shim with crun, which refuses a hybrid of cgroup v1 and v2.
pub const CRUN: Runtime = Runtime {
    name: "crun",
    binary: Some("crun"),
    ..RUNC
};

/// All that are here. The shim that does nothing is built by `make bench`.
pub fn all() -> Vec<Runtime> {
    let mut all = vec![OURS, HARDENED, UNTRUSTED, RUNC];
    let here = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() && here("crun") {
        all.push(CRUN);
    }
    all.extend(nothing());
    all
}

/// The shim that does nothing; none where it was not built.
pub fn nothing() -> Option<Runtime> {
    let program = std::env::var_os("COFFERDAM_NOTHING")?;
    let link = support::shim_directory().join("containerd-shim-nothing-v1");
    fs::remove_file(&link).ok();
    symlink(Path::new(&program), link).unwrap();
    Some(NOTHING)
}
