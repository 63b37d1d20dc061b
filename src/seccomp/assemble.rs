//! From tables of system calls to instructions: one balanced tree for each architecture.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "fields of instructions, whose ranges are checked where they are made"
)]

use super::arch::{Abi, X32_BIT, X86_64};
use super::{
    ACTION, Condition, Leaf, MAX_INSNS, OFFSET_ARCH, OFFSET_ARGS, OFFSET_NR, RET_ERRNO,
    RET_KILL_PROCESS, RET_KILL_THREAD, SILENT, Table,
};
use crate::oci::{Error, Result};
use crate::sys::bpf::Insn;
use oci_spec::runtime::LinuxSeccompOperator;

/// An instruction, by its distance from the end.
type Label = usize;

/// Builds a program from its end, so that every jump's target is known when the jump is written.
struct Assembler {
    reversed: Vec<Insn>,
}

impl Assembler {
    fn emit(&mut self, code: u32, k: u32, jt: u8, jf: u8) -> Label {
        self.reversed.push(Insn {
            code: code as u16,
            jt,
            jf,
            k,
        });
        self.reversed.len() - 1
    }

    fn ret(&mut self, verdict: u32) -> Label {
        let is_error = verdict & ACTION == RET_ERRNO;
        let (answer, silent) = match verdict & SILENT {
            SILENT if is_error => (verdict & !SILENT, 1),
            _ => (verdict, 0),
        };
        // A return has no use for a distance to jump.
        self.emit(libc::BPF_RET | libc::BPF_K, answer, silent, 0)
    }

    fn load(&mut self, offset: u32) -> Label {
        self.emit(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
    }

    fn goto(&mut self, target: Label) -> Label {
        let distance = self.reversed.len() - 1 - target;
        if distance == 0 {
            return target;
        }
        self.emit(libc::BPF_JMP | libc::BPF_JA, distance as u32, 0, 0)
    }

    /// Distance from the next instruction to be emitted to `target`.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - 1 - target
    }

    fn jump(&mut self, op: u32, k: u32, yes: Label, no: Label) -> Label {
        // A conditional jump reaches 255 instructions; a long one goes by a stepping trampoline.
        let (mut yes, mut no) = (yes, no);
        if self.distance(no) > 254 {
            no = self.trampoline(no);
        }
        if self.distance(yes) > 255 {
            yes = self.trampoline(yes);
        }
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.emit(libc::BPF_JMP | op | libc::BPF_K, k, jt, jf)
    }

    fn trampoline(&mut self, target: Label) -> Label {
        let distance = self.distance(target);
        self.emit(libc::BPF_JMP | libc::BPF_JA, distance as u32, 0, 0)
    }

    fn condition(&mut self, c: &Condition, bits: u32, pass: Label, fail: Label) -> Label {
        use LinuxSeccompOperator as Op;
        // A 32-bit program passes 32-bit arguments: compare what it can have meant.
        let narrow = |v: u64| if bits == 32 { v & 0xffff_ffff } else { v };
        let (value, datum) = (narrow(c.value), narrow(c.datum));
        let (hi, lo) = ((value >> 32) as u32, value as u32);
        let low_word = OFFSET_ARGS + 8 * c.index + if cfg!(target_endian = "big") { 4 } else { 0 };
        let high_word = OFFSET_ARGS + 8 * c.index + if cfg!(target_endian = "big") { 0 } else { 4 };
        let compare =
            |a: &mut Self, op: u32, on_low: (Label, Label), above: Label, below: Label| {
                let (yes, no) = on_low;
                a.jump(op, lo, yes, no);
                let low = a.load(low_word);
                let equal = a.jump(libc::BPF_JEQ, hi, low, below);
                if above != below {
                    a.jump(libc::BPF_JGT, hi, above, equal);
                }
                a.load(high_word)
            };
        match c.op {
            Op::ScmpCmpEq => compare(self, libc::BPF_JEQ, (pass, fail), fail, fail),
            Op::ScmpCmpNe => compare(self, libc::BPF_JEQ, (fail, pass), pass, pass),
            Op::ScmpCmpGt => compare(self, libc::BPF_JGT, (pass, fail), pass, fail),
            Op::ScmpCmpGe => compare(self, libc::BPF_JGE, (pass, fail), pass, fail),
            Op::ScmpCmpLt => compare(self, libc::BPF_JGE, (fail, pass), fail, pass),
            Op::ScmpCmpLe => compare(self, libc::BPF_JGT, (fail, pass), fail, pass),
            Op::ScmpCmpMaskedEq => {
                let low = self.masked_word(low_word, (lo, datum as u32), pass, fail);
                self.masked_word(high_word, (hi, (datum >> 32) as u32), low, fail)
            }
        }
    }

    /// Whether a word has `wanted` in the bits of `mask`. Most masks have bits in the low half of an argument alone.
    fn masked_word(
        &mut self,
        word: u32,
        (mask, wanted): (u32, u32),
        pass: Label,
        fail: Label,
    ) -> Label {
        if mask == 0 && wanted == 0 {
            return pass;
        }
        self.jump(libc::BPF_JEQ, wanted, pass, fail);
        if mask != u32::MAX {
            self.emit(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0);
        }
        self.load(word)
    }

    fn leaf(&mut self, leaf: &Leaf, bits: u32) -> Label {
        let mut next = self.ret(leaf.verdict);
        for (conditions, action) in leaf.conditional.iter().rev() {
            let mut pass = self.ret(*action);
            for c in conditions.iter().rev() {
                pass = self.condition(c, bits, pass, next);
            }
            next = pass;
        }
        next
    }

    /// A binary search over `(first number, leaf)`; each leaf holds up to the next one's first number.
    fn tree(&mut self, ranges: &[(u32, Leaf)], bits: u32) -> Label {
        match ranges {
            [] => self.ret(RET_KILL_PROCESS), // never: there is always a range from 0
            [(_, leaf)] => self.leaf(leaf, bits),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let right = self.tree(high, bits);
                let left = self.tree(low, bits);
                let middle = high.first().map_or(0, |(n, _)| *n);
                self.jump(libc::BPF_JGE, middle, right, left)
            }
        }
    }
}

/// Turns the rules of one ABI into ranges without gaps. Calls beyond the newest one that the profile knows of are answered
/// ENOSYS where the default is another errno: to a C library that probes for a new call, "not permitted" is a failure, and
/// "not there" is not.
fn ranges(table: &[(u32, Leaf)], default: u32, first: u32) -> Vec<(u32, Leaf)> {
    let plain = |verdict| Leaf {
        conditional: Vec::new(),
        verdict,
    };
    let mut out: Vec<(u32, Leaf)> = vec![(first, plain(default))];
    let mut push = |number: u32, leaf: Leaf| match out.last_mut() {
        Some(last) if last.0 == number => last.1 = leaf,
        Some(last) if last.1 == leaf && leaf.conditional.is_empty() => {}
        _ => out.push((number, leaf)),
    };
    let mut next = first;
    for (number, leaf) in table {
        if *number > next {
            push(next, plain(default));
        }
        push(*number, leaf.clone());
        next = number + 1;
    }
    let unknown = if default & 0xffff_0000 == RET_ERRNO && !table.is_empty() {
        RET_ERRNO | libc::ENOSYS as u32
    } else {
        default
    };
    push(next, plain(unknown));
    // Overwriting may have left equal neighbours.
    out.dedup_by(|b, a| a.1 == b.1 && a.1.conditional.is_empty());
    out
}

pub(super) fn assemble(tables: &[(Abi, bool, Table)], default: u32) -> Result<Vec<Insn>> {
    let mut a = Assembler {
        reversed: Vec::new(),
    };
    // Any other architecture: as libseccomp's default for a foreign one.
    let mut next = a.ret(RET_KILL_THREAD);
    let x32 = tables.iter().find(|(_, is_x32, _)| *is_x32);
    for (abi, _, table) in tables.iter().filter(|(_, is_x32, _)| !is_x32).rev() {
        let mut entry = a.tree(&ranges(table, default, 0), abi.bits);
        if abi.audit == X86_64.audit {
            let foreign = match x32 {
                Some((abi, _, table)) => a.tree(&ranges(table, default, X32_BIT), abi.bits),
                None => a.ret(RET_KILL_THREAD),
            };
            entry = a.jump(libc::BPF_JGE, X32_BIT, foreign, entry);
            // -1 is how a tracer skips a call; it is no x32 call.
            let skipped = a.ret(default);
            entry = a.jump(libc::BPF_JEQ, u32::MAX, skipped, entry);
        }
        a.goto(entry);
        let block = a.load(OFFSET_NR);
        next = a.jump(libc::BPF_JEQ, abi.audit, block, next);
    }
    a.goto(next);
    a.load(OFFSET_ARCH);
    a.reversed.reverse();
    if a.reversed.len() > MAX_INSNS {
        return Err(Error::field(
            "linux.seccomp",
            format!(
                "compiles to {} instructions; the kernel takes {MAX_INSNS}",
                a.reversed.len()
            ),
        ));
    }
    Ok(a.reversed)
}
