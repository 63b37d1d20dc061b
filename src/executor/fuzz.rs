//! Entrances for the fuzz targets and the property tests: everything of a creation that changes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // for tests: a panic is a find

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::plan::{ExecPlan, InitPlan, exec, init};
use super::script::Step;
use super::spawn::Launch;
use super::{Error, Result, Stdio, hooks};
use crate::isolation::Judged;
use crate::oci::{self, Reading, Request, RootMount};
use crate::seccomp;

/// Plans the init of a container from the text of a `config.json`.
pub fn plan(config: &[u8]) -> Result<()> {
    let spec = oci::parse_spec(config)?;
    let request = Request::read(spec, Path::new(BUNDLE), Reading::Show)?;
    let request = Judged::standard(request);
    let filter = request
        .rest
        .linux()
        .as_ref()
        .and_then(|l| l.seccomp().as_ref());
    let filter = filter.map(seccomp::compile).transpose()?.map(Arc::new);
    // As containerd passes it.
    let root_mounts = Judged::standard(vec![RootMount {
        fstype: "overlay".into(),
        source: "overlay".into(),
        target: String::new(),
        options: vec!["lowerdir=/a:/b".into()],
    }]);
    planned(&request, &root_mounts, filter).map(drop)
}

const BUNDLE: &str = "/tmp";

/// The init of a container without control groups and streams, and its hooks.
pub(super) fn planned(
    request: &Judged<Request>,
    root_mounts: &Judged<Vec<RootMount>>,
    seccomp: Option<Arc<seccomp::Program>>,
) -> Result<(Launch, Option<hooks::HookRunner>)> {
    let null = || {
        File::open("/dev/null")
            .map(OwnedFd::from)
            .map_err(|e| Error::field("/dev/null", e.to_string()))
    };
    let bundle = Path::new(BUNDLE);
    let plan = InitPlan {
        request,
        id: "id",
        bundle,
        root_mounts,
        cgroup: None,
        stdio: Stdio::Files([null()?, null()?, null()?]),
        seccomp,
        confinement: None,
        watcher: None,
        denied_egress: None,
        notice: None,
        users: None,
        new_keyring: true,
        gate: None,
        preserve_fds: 0,
        pivot: true,
    };
    let hooks = hooks::HookRunner::new(request, "id", bundle);
    Ok((init(plan, hooks.as_ref())?, hooks))
}

/// Compiles a `linux.seccomp`.
///
/// # Panics
/// Where the kernel would not take the program: `bpf_check_classic` in `net/core/filter.c`, `seccomp_check_filter` in
/// `kernel/seccomp.c`.
pub fn compile(filter: &[u8]) -> Result<()> {
    let filter =
        serde_json::from_slice(filter).map_err(|e| Error::field("linux.seccomp", e.to_string()))?;
    let program = seccomp::compile(&filter)?;
    let insns = &program.insns;
    assert!((1..=4096).contains(&insns.len()));
    for (at, insn) in insns.iter().enumerate() {
        let left = insns.len() - at - 1;
        match u32::from(insn.code) {
            c if c == libc::BPF_RET | libc::BPF_K => {}
            c if c == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                assert!(insn.k < 64 && insn.k % 4 == 0, "load at {at}");
            }
            c if c == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => {}
            c if c == libc::BPF_JMP | libc::BPF_JA => assert!((insn.k as usize) < left),
            c if c & 7 == libc::BPF_JMP => {
                assert!(usize::from(insn.jt.max(insn.jf)) < left, "jump at {at}");
            }
            c => panic!("code {c:#x} at {at}"),
        }
    }
    let last = insns.last().map(|i| u32::from(i.code));
    assert_eq!(last, Some(libc::BPF_RET | libc::BPF_K));
    Ok(())
}

/// The labels of an init's steps, in their order.
///
/// # Errors
/// As for a creation.
pub fn steps_of_init(plan: InitPlan<'_>) -> Result<Vec<String>> {
    let hooks = hooks::HookRunner::new(plan.request, plan.id, plan.bundle);
    Ok(labels(&init(plan, hooks.as_ref())?))
}

/// The labels of an exec's steps, in their order.
///
/// # Errors
/// As for an exec.
pub fn steps_of_exec(plan: ExecPlan<'_>) -> Result<Vec<String>> {
    Ok(labels(&exec(plan)?))
}

fn labels(job: &Launch) -> Vec<String> {
    job.parts().0.iter().map(Step::describe).collect()
}
