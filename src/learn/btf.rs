//! The kernel's own description of its types, `Documentation/bpf/btf.rst`: as much as it takes to find a function and the place
//! of a member.

use std::io;

/// Where the running kernel has it.
const FILE: &str = "/sys/kernel/btf/vmlinux";

// enum of kinds, linux/btf.h
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNC: u32 = 12;

/// The description.
pub(super) struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Where each type begins; the first has id 1.
    at: Vec<usize>,
}

impl Btf {
    /// Of the running kernel.
    pub(crate) fn load() -> io::Result<Self> {
        let data = std::fs::read(FILE)?;
        Self::parse(data).ok_or_else(|| io::Error::other("malformed"))
    }

    fn parse(data: Vec<u8>) -> Option<Self> {
        let word = |at: usize| word(&data, at);
        let header = word(4)? as usize;
        let types = header + word(8)? as usize;
        let end = types + word(12)? as usize;
        let strings = header + word(16)? as usize;
        let (mut at, mut next) = (Vec::new(), types);
        while next < end {
            at.push(next);
            let info = word(next + 4)?;
            let count = (info & 0xffff) as usize;
            next += 12
                + match info >> 24 & 0x1f {
                    1 | 14 | 17 => 4,
                    ARRAY => 12,
                    STRUCT | UNION | 15 | 19 => count * 12,
                    6 | 13 => count * 8,
                    _ => 0,
                };
        }
        Some(Self { data, strings, at })
    }

    fn name(&self, offset: u32) -> &[u8] {
        let from = self.strings + offset as usize;
        let text = self.data.get(from..).unwrap_or_default();
        let end = text.iter().position(|b| *b == 0).unwrap_or(0);
        text.get(..end).unwrap_or_default()
    }

    fn find(&self, kind: u32, name: &str) -> Option<usize> {
        self.at.iter().position(|at| {
            let info = word(&self.data, at + 4).unwrap_or(0);
            let is = word(&self.data, *at).map(|n| self.name(n));
            info >> 24 & 0x1f == kind && is == Some(name.as_bytes())
        })
    }

    /// The id of a function.
    pub(crate) fn function(&self, name: &str) -> Option<u32> {
        self.find(FUNC, name)
            .and_then(|i| u32::try_from(i + 1).ok())
    }

    /// Bytes from the beginning of a structure to its member, which may be in a union or structure without a name.
    pub(crate) fn offset(&self, structure: &str, member: &str) -> Option<i16> {
        let found = self.find(STRUCT, structure)?;
        i16::try_from(self.member(found, member.as_bytes())?).ok()
    }

    fn member(&self, index: usize, name: &[u8]) -> Option<u32> {
        let at = *self.at.get(index)?;
        let info = word(&self.data, at + 4)?;
        for i in 0..(info & 0xffff) as usize {
            let member = at + 12 + i * 12;
            let bits = word(&self.data, member + 8)?;
            let bits = if info >> 31 == 1 {
                bits & 0xff_ffff
            } else {
                bits
            };
            let own = self.name(word(&self.data, member)?);
            if own == name {
                return Some(bits / 8);
            }
            if own.is_empty() {
                let inner = word(&self.data, member + 4)? as usize;
                let kind = word(&self.data, *self.at.get(inner.checked_sub(1)?)? + 4)? >> 24 & 0x1f;
                if matches!(kind, STRUCT | UNION)
                    && let Some(below) = self.member(inner - 1, name)
                {
                    return Some(bits / 8 + below);
                }
            }
        }
        None
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel() {
        let Ok(btf) = Btf::load() else {
            return; // a kernel without CONFIG_DEBUG_INFO_BTF
        };
        assert!(btf.function("cap_capable").is_some());
        assert!(btf.function("no_such_function").is_none());
        let (path, flags) = (btf.offset("file", "f_path"), btf.offset("file", "f_flags"));
        assert!(path.is_some() && flags.is_some() && path != flags);
        assert!(btf.offset("file", "nothing").is_none());
    }

    #[test]
    fn what_is_malformed_is_no_description() {
        assert!(Btf::parse(vec![0; 8]).is_none());
    }
}
