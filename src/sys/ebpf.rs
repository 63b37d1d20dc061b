//! A small assembler for eBPF, `Documentation/bpf/standardization/instruction-set.rst`.

use std::os::fd::RawFd;

use super::bpf::EbpfInsn;

/// A place to jump to, further on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

/// How many bytes are loaded or stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// One
    Byte = 0x10,
    /// Two
    Half = 0x08,
    /// Four
    Word = 0x00,
    /// Eight
    Double = 0x18,
}

/// What a program begins with: a pointer to its context.
pub const CONTEXT: u8 = 1;
/// The frame pointer.
pub const FP: u8 = 10;

/// A program in the making.
#[derive(Debug, Default)]
pub struct Program {
    insns: Vec<EbpfInsn>,
    /// Jumps, and where to.
    jumps: Vec<(usize, Label)>,
    places: Vec<usize>,
}

impl Program {
    fn push(&mut self, code: u8, dst: u8, src: u8, off: i16, imm: i32) {
        self.insns.push(EbpfInsn {
            code,
            regs: dst | src << 4,
            off,
            imm,
        });
    }

    /// A place that is not known yet.
    pub fn label(&mut self) -> Label {
        self.places.push(usize::MAX);
        Label(self.places.len() - 1)
    }

    /// The label is here.
    pub fn here(&mut self, label: Label) {
        let at = self.insns.len();
        if let Some(place) = self.places.get_mut(label.0) {
            *place = at;
        }
    }

    /// `dst = *(src + off)`
    pub fn load(&mut self, size: Size, dst: u8, src: u8, off: i16) {
        self.push(0x61 | size as u8, dst, src, off, 0);
    }

    /// `*(dst + off) = src`
    pub fn store(&mut self, size: Size, dst: u8, off: i16, src: u8) {
        self.push(0x63 | size as u8, dst, src, off, 0);
    }

    /// `*(dst + off) = value`
    pub fn store_value(&mut self, size: Size, dst: u8, off: i16, value: i32) {
        self.push(0x62 | size as u8, dst, 0, off, value);
    }

    /// `*(u64 *)(dst + off) += src`, atomically.
    pub fn atomic_add(&mut self, dst: u8, off: i16, src: u8) {
        self.push(0xdb, dst, src, off, 0);
    }

    /// `dst = src`
    pub fn copy(&mut self, dst: u8, src: u8) {
        self.push(0xbf, dst, src, 0, 0);
    }

    /// `dst = value`, with its sign.
    pub fn set(&mut self, dst: u8, value: i32) {
        self.push(0xb7, dst, 0, 0, value);
    }

    /// `dst = value`, of 64 bits.
    pub fn set_wide(&mut self, dst: u8, value: u64) {
        self.push(0x18, dst, 0, 0, value as i32);
        self.push(0, 0, 0, 0, (value >> 32) as i32);
    }

    /// `dst` = a map.
    pub fn set_map(&mut self, dst: u8, map: RawFd) {
        const PSEUDO_MAP_FD: u8 = 1;
        self.push(0x18, dst, PSEUDO_MAP_FD, 0, map);
        self.push(0, 0, 0, 0, 0);
    }

    /// `dst += value`
    pub fn add(&mut self, dst: u8, value: i32) {
        self.push(0x07, dst, 0, 0, value);
    }

    /// `dst &= value`
    pub fn and(&mut self, dst: u8, value: i32) {
        self.push(0x57, dst, 0, 0, value);
    }

    /// `dst |= value`
    pub fn or(&mut self, dst: u8, value: i32) {
        self.push(0x47, dst, 0, 0, value);
    }

    /// `dst >>= bits`, without the sign.
    pub fn shift_right(&mut self, dst: u8, bits: i32) {
        self.push(0x77, dst, 0, 0, bits);
    }

    /// Calls a helper, `enum bpf_func_id`.
    pub fn call(&mut self, helper: i32) {
        self.push(0x85, 0, 0, 0, helper);
    }

    /// Ends with this answer.
    pub fn answer(&mut self, value: i32) {
        self.set(0, value);
        self.exit();
    }

    /// Ends; `r0` is the answer.
    pub fn exit(&mut self) {
        self.push(0x95, 0, 0, 0, 0);
    }

    fn jump(&mut self, code: u8, dst: u8, src: u8, imm: i32, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.push(code, dst, src, 0, imm);
    }

    /// Goes on elsewhere.
    pub fn go(&mut self, to: Label) {
        self.jump(0x05, 0, 0, 0, to);
    }

    /// If `dst == value`
    pub fn if_equal(&mut self, dst: u8, value: i32, to: Label) {
        self.jump(0x15, dst, 0, value, to);
    }

    /// If `dst != value`
    pub fn if_not(&mut self, dst: u8, value: i32, to: Label) {
        self.jump(0x55, dst, 0, value, to);
    }

    /// If `dst != value`, of the lower 32 bits: what does not fit an immediate of 64 bits, which has a sign.
    pub fn if_not_word(&mut self, dst: u8, value: u32, to: Label) {
        self.jump(0x56, dst, 0, value as i32, to);
    }

    /// If `dst != src`
    pub fn if_differ(&mut self, dst: u8, src: u8, to: Label) {
        self.jump(0x5d, dst, src, 0, to);
    }

    /// If `dst < 0`
    pub fn if_negative(&mut self, dst: u8, to: Label) {
        self.jump(0xc5, dst, 0, 0, to);
    }

    /// The instructions.
    pub fn finish(mut self) -> Vec<EbpfInsn> {
        for (at, label) in &self.jumps {
            let place = self.places.get(label.0).copied().unwrap_or(0);
            if let Some(insn) = self.insns.get_mut(*at) {
                insn.off = (place as i64 - *at as i64 - 1) as i16;
            }
        }
        self.insns
    }
}

/// Runs a program without calls, maps and memory of its own, as the kernel would. Its answer.
#[cfg(test)]
pub(crate) fn run(program: &[EbpfInsn], context: &[u8]) -> u64 {
    let (mut r, mut at) = ([0u64; 11], 0);
    loop {
        let i = &program[at];
        at += 1;
        let (dst, src) = (usize::from(i.regs & 15), usize::from(i.regs >> 4));
        let (old, imm) = (r[dst], i64::from(i.imm) as u64);
        let jump = match i.code {
            0x61 => {
                assert_eq!(
                    i.regs >> 4,
                    CONTEXT,
                    "a load from something else than the context"
                );
                let word = context[i.off as usize..].first_chunk().unwrap();
                r[dst] = u64::from(u32::from_ne_bytes(*word));
                false
            }
            0xbf => {
                r[dst] = r[src];
                false
            }
            0xb7 => {
                r[dst] = imm;
                false
            }
            0x57 => {
                r[dst] &= imm;
                false
            }
            0x77 => {
                r[dst] >>= imm;
                false
            }
            0x05 => true,
            0x15 => old == imm,
            0x55 => old != imm,
            0x56 => old as u32 != imm as u32,
            0x5d => old != r[src],
            0xc5 => (old as i64) < imm as i64,
            0x95 => return r[0],
            code => panic!("code {code:#x}"),
        };
        at += if jump { i.off as usize } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_lead_to_their_labels() {
        let mut p = Program::default();
        let end = p.label();
        p.set(0, 0);
        p.if_equal(0, 0, end);
        p.set_wide(1, 1 << 40);
        p.here(end);
        p.exit();
        let insns = p.finish();
        assert_eq!(insns.len(), 5);
        assert_eq!(insns[1].off, 2, "over both halves of the wide one");
        assert_eq!((insns[2].imm, insns[3].imm), (0, 256));
    }
}
