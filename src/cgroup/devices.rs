//! Device access: the OCI rules as a short list, written to `devices.allow`/`devices.deny` on v1 and compiled to an eBPF
//! program on v2 (`BPF_PROG_TYPE_CGROUP_DEVICE`, Linux 4.15).

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::error::io_error;
use super::{Error, Result};
use crate::sys::bpf::{self, EbpfInsn};
use crate::sys::ebpf::{CONTEXT, Program, Size};

/// What every container may use, whatever its spec says: the devices that OCI config-linux.md makes default, terminals,
/// and making nodes (using them is another matter).
const DEFAULT_ALLOWED: [(Kind, Option<u32>, Option<u32>, u8); 10] = [
    (Kind::Char, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Char, Some(1), Some(3), ALL), // null
    (Kind::Char, Some(1), Some(5), ALL), // zero
    (Kind::Char, Some(1), Some(7), ALL), // full
    (Kind::Char, Some(1), Some(8), ALL), // random
    (Kind::Char, Some(1), Some(9), ALL), // urandom
    (Kind::Char, Some(5), Some(0), ALL), // tty
    (Kind::Char, Some(5), Some(2), ALL), // ptmx
    (Kind::Char, Some(136), None, ALL),  // pts/*
];

// BPF_DEVCG_ACC_*, linux/bpf.h
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block = 1, // BPF_DEVCG_DEV_BLOCK
    Char = 2,  // BPF_DEVCG_DEV_CHAR
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

/// A starting verdict and the exceptions to it, later ones winning.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rules {
    allow_by_default: bool,
    exceptions: Vec<Rule>,
}

/// Reads the spec's rules, then adds what every container may use. Without a rule for all devices the start is "deny".
pub(super) fn normalise(spec: &[LinuxDeviceCgroup]) -> Result<Rules> {
    let mut rules = Rules {
        allow_by_default: false,
        exceptions: Vec::new(),
    };
    for (i, r) in spec.iter().enumerate() {
        let field = || format!("linux.resources.devices[{i}]");
        let number = |n: Option<i64>, name: &str| match n {
            None | Some(-1) => Ok(None),
            Some(n) => u32::try_from(n).map(Some).map_err(|_| Error::Unavailable {
                field: format!("{}.{name}", field()),
                reason: format!("{n} is not a device number (0 to 4294967295, or -1 for all)"),
            }),
        };
        let (major, minor) = (number(r.major(), "major")?, number(r.minor(), "minor")?);
        let mut access = 0;
        for c in r
            .access()
            .as_deref()
            .filter(|a| !a.is_empty())
            .unwrap_or("rwm")
            .chars()
        {
            access |= match c {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => {
                    return Err(Error::Unavailable {
                        field: format!("{}.access", field()),
                        reason: format!("{c:?} is none of r, w, m"),
                    });
                }
            };
        }
        let kinds: &[Kind] = match r.typ() {
            None | Some(LinuxDeviceType::A) => &[Kind::Block, Kind::Char],
            Some(LinuxDeviceType::B) => &[Kind::Block],
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => &[Kind::Char],
            Some(LinuxDeviceType::P) => {
                return Err(Error::Unavailable {
                    field: format!("{}.type", field()),
                    reason: "a fifo has no device rule".into(),
                });
            }
        };
        if kinds.len() == 2 && major.is_none() && minor.is_none() && access == ALL {
            rules = Rules {
                allow_by_default: r.allow(),
                exceptions: Vec::new(),
            };
            continue;
        }
        rules.exceptions.extend(kinds.iter().map(|kind| Rule {
            allow: r.allow(),
            kind: *kind,
            major,
            minor,
            access,
        }));
    }
    if !(rules.allow_by_default && rules.exceptions.is_empty()) {
        rules
            .exceptions
            .extend(DEFAULT_ALLOWED.map(|(kind, major, minor, access)| Rule {
                allow: true,
                kind,
                major,
                minor,
                access,
            }));
    }
    Ok(rules)
}

/// Devices that can be read or written: type, major and minor, where none is any. One without any of them is all.
#[cfg(any(test, fuzzing, feature = "sabotage"))]
pub(crate) type Opened = Vec<(Option<char>, Option<u32>, Option<u32>)>;

impl Rules {
    /// What they open. Denials are not counted.
    #[cfg(any(test, fuzzing, feature = "sabotage"))]
    pub(crate) fn opened(&self) -> Opened {
        let one = |r: &Rule| {
            let kind = if r.kind == Kind::Char { 'c' } else { 'b' };
            (r.allow && r.access & (READ | WRITE) != 0).then_some((Some(kind), r.major, r.minor))
        };
        let all = self.allow_by_default.then_some((None, None, None));
        all.into_iter()
            .chain(self.exceptions.iter().filter_map(one))
            .collect()
    }

    /// As systemd's `DevicePolicy` and `DeviceAllow`, systemd.resource-control(5). Its own list knows no denials, so these
    /// are left to what we write ourselves.
    pub(crate) fn for_systemd(&self) -> (&'static str, Vec<(String, String)>) {
        if self.allow_by_default {
            return ("auto", Vec::new());
        }
        let allowed = self.exceptions.iter().filter(|r| r.allow);
        let device = |r: &Rule| {
            let kind = if r.kind == Kind::Block {
                "block"
            } else {
                "char"
            };
            let name = match (r.major, r.minor) {
                (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
                (Some(major), None) => format!("{kind}-{major}"),
                (None, _) => format!("{kind}-*"),
            };
            (name, access_text(r.access))
        };
        ("strict", allowed.map(device).collect())
    }
}

impl Rule {
    fn v1_text(&self) -> String {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let mut text = format!(
            "{} {}:{} ",
            if self.kind == Kind::Block { 'b' } else { 'c' },
            number(self.major),
            number(self.minor)
        );
        text.push_str(&access_text(self.access));
        text
    }
}

fn access_text(access: u8) -> String {
    [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
        .into_iter()
        .filter(|(bit, _)| access & bit != 0)
        .map(|(_, c)| c)
        .collect()
}

/// Writes the rules of a v1 group. A new group inherits its parent's list, so "all allowed" needs no write.
pub(super) fn write_v1(dir: &Path, rules: &Rules, fresh: bool) -> Result<()> {
    let write = |file: &str, value: &str| {
        let file = dir.join(file);
        fs::write(&file, value).map_err(|source| Error::Refused {
            field: "linux.resources.devices".into(),
            value: value.to_owned(),
            file: file.clone(),
            source,
        })
    };
    if rules.allow_by_default {
        if !fresh {
            write("devices.allow", "a")?;
        }
    } else {
        write("devices.deny", "a")?;
    }
    for r in &rules.exceptions {
        write(
            if r.allow {
                "devices.allow"
            } else {
                "devices.deny"
            },
            &r.v1_text(),
        )?;
    }
    Ok(())
}

/// Loads the rules of a v2 group and takes away what was there before.
pub(super) fn attach_v2(dir: &Path, rules: &Rules, fresh: bool) -> Result<()> {
    if fresh && rules.allow_by_default && rules.exceptions.is_empty() {
        return Ok(());
    }
    let group = fs::File::open(dir).map_err(io_error("open", dir))?;
    let program =
        bpf::load_device_program(&compile(rules)).map_err(|errno| Error::DeviceProgram {
            what: "load the eBPF program",
            errno,
        })?;
    bpf::attach_device_program(group.as_fd(), program.as_fd()).map_err(|errno| {
        Error::DeviceProgram {
            what: "attach the eBPF program",
            errno,
        }
    })?;
    if !fresh {
        bpf::detach_device_programs(group.as_fd(), Some(program.as_fd())).map_err(|errno| {
            Error::DeviceProgram {
                what: "detach the earlier eBPF program",
                errno,
            }
        })?;
    }
    Ok(())
}

/// The last matching rule wins, so test them from the end; the default comes last. A rule that allows must cover all of
/// the access that is asked for; one that denies, any of it.
fn compile(rules: &Rules) -> Vec<EbpfInsn> {
    const KIND: u8 = 2;
    const ACCESS: u8 = 3;
    const MAJOR: u8 = 4;
    const MINOR: u8 = 5;
    const COVERED: u8 = 6;
    let mut p = Program::default();
    // struct bpf_cgroup_dev_ctx: access_type (access << 16 | kind), major, minor.
    p.load(Size::Word, KIND, CONTEXT, 0);
    p.and(KIND, 0xffff);
    p.load(Size::Word, ACCESS, CONTEXT, 0);
    p.shift_right(ACCESS, 16);
    p.load(Size::Word, MAJOR, CONTEXT, 4);
    p.load(Size::Word, MINOR, CONTEXT, 8);
    for r in rules.exceptions.iter().rev() {
        let next = p.label();
        p.if_not_word(KIND, r.kind as u32, next);
        if r.access != ALL {
            p.copy(COVERED, ACCESS);
            p.and(COVERED, i32::from(r.access));
            if r.allow {
                p.if_differ(COVERED, ACCESS, next); // asks for more than the rule gives
            } else {
                p.if_equal(COVERED, 0, next); // nothing that it denies is asked for
            }
        }
        for (register, number) in [(MAJOR, r.major), (MINOR, r.minor)] {
            if let Some(number) = number {
                p.if_not_word(register, number, next);
            }
        }
        p.answer(i32::from(r.allow));
        p.here(next);
    }
    p.answer(i32::from(rules.allow_by_default));
    p.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::ebpf;
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;

    fn rule(
        allow: bool,
        typ: LinuxDeviceType,
        major: i64,
        minor: i64,
        access: &str,
    ) -> LinuxDeviceCgroup {
        LinuxDeviceCgroupBuilder::default()
            .allow(allow)
            .typ(typ)
            .major(major)
            .minor(minor)
            .access(access)
            .build()
            .unwrap()
    }

    fn verdict(program: &[EbpfInsn], kind: u8, access: u8, major: u32, minor: u32) -> bool {
        let context = [u32::from(access) << 16 | u32::from(kind), major, minor];
        ebpf::run(program, context.map(u32::to_ne_bytes).as_flattened()) == 1
    }

    #[test]
    fn what_containerd_sends_becomes_an_allow_list() {
        let spec = [
            LinuxDeviceCgroupBuilder::default()
                .allow(false)
                .access("rwm")
                .build()
                .unwrap(),
            rule(true, LinuxDeviceType::C, 10, 200, "rw"),
            rule(false, LinuxDeviceType::C, 10, 200, "w"),
        ];
        let p = compile(&normalise(&spec).unwrap());
        assert!(verdict(&p, 2, READ | WRITE, 1, 3), "null");
        assert!(verdict(&p, 2, MKNOD, 9, 9), "mknod of anything");
        assert!(!verdict(&p, 1, READ, 8, 0), "a disk");
        assert!(verdict(&p, 2, READ, 10, 200));
        assert!(
            !verdict(&p, 2, READ | WRITE, 10, 200),
            "a later denial of w wins"
        );
        assert!(
            !verdict(&p, 1, READ, 10, 200),
            "the block device of the same number"
        );
    }

    #[test]
    fn all_allowed_needs_no_program() {
        let spec = [
            rule(false, LinuxDeviceType::A, -1, -1, "rwm"),
            rule(true, LinuxDeviceType::A, -1, -1, "rwm"),
        ];
        assert_eq!(
            normalise(&spec).unwrap(),
            Rules {
                allow_by_default: true,
                exceptions: vec![]
            }
        );
    }

    #[test]
    fn bad_rules_are_named() {
        let e = normalise(&[rule(true, LinuxDeviceType::C, 1, 3, "rx")])
            .unwrap_err()
            .to_string();
        assert_eq!(
            e,
            "linux.resources.devices[0].access: 'x' is none of r, w, m"
        );
        let e = normalise(&[rule(true, LinuxDeviceType::C, -7, 3, "r")])
            .unwrap_err()
            .to_string();
        assert!(e.starts_with("linux.resources.devices[0].major: -7"), "{e}");
    }

    #[test]
    fn v1_text() {
        let r = normalise(&[rule(true, LinuxDeviceType::B, 8, -1, "rm")]).unwrap();
        assert_eq!(r.exceptions[0].v1_text(), "b 8:* rm");
    }
}
