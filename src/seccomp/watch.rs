//! Filters whose denials are seen: one program that does what a floor and a pod's own filter do together, but asks the shim
//! (`SECCOMP_RET_USER_NOTIF`, Linux 5.0) where they would answer with an error. The shim judges by the very filters, so what it
//! answers is what the kernel would have.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "words of a filter: 32 bits of what the kernel has"
)]

use std::sync::Arc;

use oci_spec::runtime::LinuxSeccomp;

use super::arch::{NATIVE, name_of};
use super::{
    ACTION, FLAG_NEW_LISTENER, FLAG_WAIT_KILLABLE_RECV, MAX_INSNS, Program, RET_ALLOW, RET_ERRNO,
    RET_KILL_THREAD, RET_LOG, RET_TRACE, RET_USER_NOTIF, Result, compile,
};
use crate::sys::bpf::Insn;
use crate::sys::kernel;

/// What an answer has beside its action. linux/seccomp.h
const DATA: u32 = 0xffff;

/// A system call, as a filter sees it: `struct seccomp_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// `AUDIT_ARCH_*`
    pub arch: u32,
    /// The call's number.
    pub number: u32,
    /// Its arguments.
    pub args: [u64; 6],
}

impl Call {
    /// The call's name.
    pub fn name(&self) -> String {
        name_of(self.arch, self.number)
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is let through.
    Allow,
    /// It is let through, and recorded.
    Audit,
    /// It fails with an error number.
    Errno(i32),
    /// Its process is killed.
    Kill,
}

/// A verdict, and whether it is the floor's or the pod's own filter's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// What becomes of the call.
    pub verdict: Verdict,
    /// The floor says so.
    pub by_floor: bool,
}

/// A call of this machine's without arguments.
fn bare(number: u32) -> Call {
    Call {
        arch: NATIVE.audit,
        number,
        args: [0; 6],
    }
}

impl Program {
    /// The answer to a call, as the kernel computes it: `seccomp_run_filters` in `kernel/seccomp.c`. A program that the kernel
    /// would not take kills.
    pub(super) fn run(&self, call: &Call) -> u32 {
        self.answer(call).unwrap_or(RET_KILL_THREAD)
    }

    /// The same; none where it has an instruction that our own never have.
    fn answer(&self, call: &Call) -> Option<u32> {
        let word = |offset: u32| match offset {
            0 => call.number,
            4 => call.arch,
            o => {
                let index = (o.saturating_sub(16) / 8) as usize;
                let arg = call.args.get(index).copied().unwrap_or(0);
                if o % 8 == 0 {
                    arg as u32
                } else {
                    (arg >> 32) as u32
                }
            }
        };
        let (mut acc, mut at) = (0u32, 0usize);
        while let Some(i) = self.insns.get(at) {
            at += 1;
            let branch = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
            match u32::from(i.code) {
                c if c == libc::BPF_RET | libc::BPF_K => return Some(i.k),
                c if c == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => acc = word(i.k),
                c if c == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => acc &= i.k,
                c if c == libc::BPF_JMP | libc::BPF_JA => at += i.k as usize,
                c if c == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => at += branch(acc == i.k),
                c if c == libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K => at += branch(acc > i.k),
                c if c == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => at += branch(acc >= i.k),
                _ => break,
            }
        }
        None
    }

    fn verdict(&self, call: &Call) -> Verdict {
        match self.run(call) {
            RET_ALLOW => Verdict::Allow,
            RET_LOG => Verdict::Audit,
            answer if answer & ACTION == RET_ERRNO => Verdict::Errno((answer & DATA).cast_signed()),
            _ => Verdict::Kill,
        }
    }
}

impl Program {
    /// Whether it lets a call of this machine's through that has no arguments.
    pub fn allows(&self, name: &str) -> bool {
        let Some(number) = (NATIVE.number)(name) else {
            return true;
        };
        matches!(self.verdict(&bare(number)), Verdict::Allow | Verdict::Audit)
    }

    /// Whether it surely does not let a call of this machine through, without arguments: a filter of somebody else's may have
    /// instructions that we do not follow.
    pub fn denies(&self, name: &str) -> bool {
        let answer = (NATIVE.number)(name).and_then(|number| self.answer(&bare(number)));
        answer.is_some_and(|answer| !matches!(answer, RET_ALLOW | RET_LOG))
    }
}

/// A filter whose denials are seen.
#[derive(Debug)]
pub struct NotifyingFilter {
    /// What is loaded.
    pub program: Arc<Program>,
    floor: Option<Arc<Program>>,
    own: Option<Arc<Program>>,
}

impl NotifyingFilter {
    /// What the filters say of a call. The most restrictive wins, as among filters that are stacked, `seccomp(2)`.
    pub fn judge(&self, call: &Call) -> Judgement {
        let of = |program: &Option<Arc<Program>>| {
            program.as_ref().map_or(Verdict::Allow, |p| p.verdict(call))
        };
        let rank = |v: Verdict| match v {
            Verdict::Allow => 0,
            Verdict::Audit => 1,
            Verdict::Errno(_) => 2,
            Verdict::Kill => 3,
        };
        let (floor, own) = (of(&self.floor), of(&self.own));
        let by_floor = rank(floor) >= rank(own);
        let verdict = match (floor, own) {
            // Of two errors the kernel gives the later filter's.
            (Verdict::Errno(_), Verdict::Errno(_)) => own,
            _ if by_floor => floor,
            _ => own,
        };
        Judgement { verdict, by_floor }
    }
}

/// The same filter, but the shim is asked where it answers with an error, and about what is to be recorded.
fn asking(program: &Program) -> Program {
    let ask = |insn: &Insn| match insn.k {
        k if is_return(*insn)
            && (k == RET_LOG || (k & ACTION == RET_ERRNO && !is_silent(*insn))) =>
        {
            Insn {
                k: RET_USER_NOTIF,
                ..*insn
            }
        }
        _ => *insn,
    };
    Program {
        insns: program.insns.iter().map(ask).collect(),
        flags: program.flags,
        listener: None,
    }
}

/// Where a filter asks somebody else already, there can be no second one to be asked.
fn asks_others(program: &Program) -> bool {
    let asks =
        |insn: &Insn| is_return(*insn) && matches!(insn.k & ACTION, RET_USER_NOTIF | RET_TRACE);
    program.insns.iter().any(asks)
}

/// Puts the filters into one that asks. `None` where there is nothing to see, or where it cannot be done: then the filters are
/// to be loaded one by one, and their denials are not seen.
pub fn watch(
    floor: Option<&Arc<Program>>,
    own: Option<&LinuxSeccomp>,
) -> Result<Option<NotifyingFilter>> {
    let own = own.map(compile).transpose()?.map(Arc::new);
    if floor.into_iter().chain(&own).any(|p| asks_others(p)) {
        return Ok(None);
    }
    let both = merge(own.as_deref().map(asking), floor.map(|f| asking(f)));
    let Some((insns, flags)) = both else {
        return Ok(None);
    };
    if insns.len() > MAX_INSNS || !insns.iter().any(|i| is_return(*i) && i.k == RET_USER_NOTIF) {
        return Ok(None);
    }
    let wait_killable = FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV;
    let flags = if kernel::has_seccomp_flag(wait_killable) {
        flags | wait_killable
    } else {
        flags | FLAG_NEW_LISTENER
    };
    let watched = NotifyingFilter {
        program: Arc::new(Program {
            insns,
            flags,
            listener: None,
        }),
        floor: floor.cloned(),
        own,
    };
    // Between the loading of the filter and the program, with nobody there to be asked.
    let needed = ["write", "read", "execve", "exit_group"];
    let passes = |name: &&str| {
        let number = (NATIVE.number)(name).unwrap_or(u32::MAX);
        let call = Call {
            arch: NATIVE.audit,
            number,
            args: [0; 6],
        };
        watched.program.run(&call) == RET_ALLOW
    };
    Ok(needed.iter().all(passes).then_some(watched))
}

fn is_return(insn: Insn) -> bool {
    u32::from(insn.code) == libc::BPF_RET | libc::BPF_K
}

/// A return that the compiler marked: see [`super::SILENT`].
fn is_silent(insn: Insn) -> bool {
    insn.jt != 0
}

/// What the first program lets through goes on to the second.
fn merge(first: Option<Program>, second: Option<Program>) -> Option<(Vec<Insn>, u64)> {
    // The threads of a process that has just been made are one.
    let synchronise = libc::SECCOMP_FILTER_FLAG_TSYNC;
    let (first, second) = match (first, second) {
        (Some(first), Some(second)) => (first, second),
        (Some(only), None) | (None, Some(only)) => {
            return Some((only.insns, only.flags & !synchronise));
        }
        (None, None) => return None,
    };
    let mut insns = first.insns;
    let length = insns.len();
    for (at, insn) in insns.iter_mut().enumerate() {
        if is_return(*insn) && insn.k == RET_ALLOW {
            *insn = Insn {
                code: (libc::BPF_JMP | libc::BPF_JA) as u16,
                jt: 0,
                jf: 0,
                k: (length - at - 1) as u32,
            };
        }
    }
    insns.extend(second.insns);
    // The processor's mitigations go only where both may do without, everything else where one asks for it.
    let lenient = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    let flags = (first.flags | second.flags) & !lenient | (first.flags & second.flags & lenient);
    Some((insns, flags & !synchronise))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Verdict::{Allow, Audit, Errno, Kill};
    use super::*;

    fn spec(json: serde_json::Value) -> LinuxSeccomp {
        serde_json::from_value(json).unwrap()
    }

    fn call(name: &str, args: &[u64]) -> Call {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        Call {
            arch: NATIVE.audit,
            number: (NATIVE.number)(name).unwrap(),
            args: all,
        }
    }

    fn watch(
        floor: Option<&LinuxSeccomp>,
        own: Option<&LinuxSeccomp>,
    ) -> Result<Option<NotifyingFilter>> {
        let compiled = floor.map(|f| Arc::new(compile(f).unwrap()));
        super::watch(compiled.as_ref(), own)
    }

    #[test]
    fn together_they_do_what_they_did_one_by_one() {
        let floor = spec(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["bpf", "mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
            { "names": ["ptrace"], "action": "SCMP_ACT_LOG" },
            { "names": ["keyctl"], "action": "SCMP_ACT_KILL_PROCESS" },
            { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,
              "args": [{ "index": 0, "value": 16, "op": "SCMP_CMP_GT" }] },
        ] }));
        let own = spec(
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": [
            { "names": ["read", "write", "execve", "exit_group", "bpf", "socket", "ptrace", "keyctl", "clone3"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13 },
        ] }),
        );
        let watched = watch(Some(&floor), Some(&own)).unwrap().unwrap();
        for (call, answer, verdict, by_floor) in [
            (call("read", &[]), RET_ALLOW, Allow, true),
            (call("bpf", &[]), RET_USER_NOTIF, Errno(1), true),
            (call("mount", &[]), RET_USER_NOTIF, Errno(13), true),
            (call("ptrace", &[]), RET_USER_NOTIF, Audit, true),
            (call("keyctl", &[]), 0x8000_0000, Kill, true),
            (call("socket", &[2]), RET_ALLOW, Allow, true),
            (call("socket", &[40]), RET_USER_NOTIF, Errno(97), true),
            (call("unlink", &[]), RET_USER_NOTIF, Errno(1), false),
            (call("clone3", &[]), RET_ERRNO | 38, Errno(38), true),
        ] {
            assert_eq!(watched.program.run(&call), answer, "{}", call.name());
            assert_eq!(
                watched.judge(&call),
                Judgement { verdict, by_floor },
                "{}",
                call.name()
            );
        }
        let foreign = Call {
            arch: 1,
            ..call("read", &[])
        };
        assert_eq!(watched.judge(&foreign).verdict, Kill);
    }

    #[test]
    fn where_it_cannot_be_watched_it_is_not() {
        let denies = |names: &[&str]| {
            spec(
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": names, "action": "SCMP_ACT_ERRNO" }] }),
            )
        };
        assert!(watch(None, Some(&denies(&["bpf"]))).unwrap().is_some());
        assert!(watch(Some(&denies(&["bpf"])), None).unwrap().is_some());
        // The child says with it that the filter is there.
        assert!(watch(None, Some(&denies(&["write"]))).unwrap().is_none());
        assert!(watch(None, None).unwrap().is_none());
        let allows = spec(json!({ "defaultAction": "SCMP_ACT_ALLOW" }));
        assert!(watch(Some(&allows), None).unwrap().is_none());
        let traced = spec(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["bpf"], "action": "SCMP_ACT_TRACE" }] }));
        assert!(
            watch(Some(&denies(&["mount"])), Some(&traced))
                .unwrap()
                .is_none()
        );
    }
}
