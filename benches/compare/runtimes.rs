//! What is compared.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

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
}

pub const OURS: Runtime = Runtime {
    name: "standard",
    id: support::RUNTIME,
    shim: "containerd-shim-cofferdam",
};
pub const HARDENED: Runtime = Runtime {
    name: "hardened",
    id: "io.containerd.cofferdam-hardened.v1",
    shim: "containerd-shim-cofferdam",
};
pub const UNTRUSTED: Runtime = Runtime {
    name: "untrusted",
    id: "io.containerd.cofferdam-untrusted.v1",
    shim: "containerd-shim-cofferdam",
};
pub const RUNC: Runtime = Runtime {
    name: "runc",
    id: "io.containerd.runc.v2",
    shim: "containerd-shim-runc",
};
/// A shim that answers and does nothing: what containerd itself takes.
pub const NOTHING: Runtime = Runtime {
    name: "nothing",
    id: "io.containerd.nothing.v1",
    shim: "containerd-shim-nothing",
};

/// All that are here. The shim that does nothing is built by `make bench`.
pub fn all() -> Vec<Runtime> {
    let mut all = vec![OURS, HARDENED, UNTRUSTED, RUNC];
    if let Some(program) = std::env::var_os("COFFERDAM_NOTHING") {
        let link = support::shim_directory().join("containerd-shim-nothing-v1");
        fs::remove_file(&link).ok();
        symlink(Path::new(&program), link).unwrap();
        all.push(NOTHING);
    }
    all
}
