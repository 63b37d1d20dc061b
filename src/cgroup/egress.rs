//! Where a container's processes may connect and send to: eBPF programs on its v2 group (`BPF_PROG_TYPE_CGROUP_SOCK_ADDR`,
//! Linux 4.17; UDP 4.18). They see every `connect(2)` and every `sendto(2)` of IPv4 and IPv6, whatever network namespace it
//! is made in. The v2 tree of a hybrid node does as well. Sockets that they do not see (ICMP, raw) cannot be made.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use super::error::io_error;
use super::{Cgroup, Error, Result};
use crate::sys::bpf::{self, EbpfInsn, SocketHook};
use crate::sys::ebpf::{CONTEXT, Program, Size};

/// Destinations that are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The network's address.
    pub address: IpAddr,
    /// How many leading bits count.
    pub prefix: u8,
    /// The port; all where there is none.
    pub port: Option<u16>,
}

/// The machine itself, which other namespaces cannot reach: `127.0.0.0/8`, `::1`, and the addresses that stand for them.
const LOOPBACK: [(IpAddr, u8); 4] = [
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 32),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128),
];

impl Cgroup {
    /// Lets processes of the group connect and send to loopback and to `allowed` only: `EPERM` for the rest.
    pub fn restrict_egress(&self, allowed: &[Destination]) -> Result<()> {
        let unavailable = |reason: String| Error::Unavailable {
            field: "network.egress".into(),
            reason,
        };
        let Some(dir) = self.unified_dir() else {
            return Err(unavailable("needs a cgroup v2 tree on the node".into()));
        };
        let group = File::open(&dir).map_err(io_error("open", &dir))?;
        for hook in SocketHook::ALL {
            let insns = match hook {
                SocketHook::Create => only_tcp_and_udp(),
                SocketHook::Connect4 | SocketHook::Send4 => compile(allowed, false),
                SocketHook::Connect6 | SocketHook::Send6 => compile(allowed, true),
            };
            let failed = |what: &str, e: nix::errno::Errno| {
                unavailable(format!(
                    "{what} the eBPF program for {hook:?}: {}",
                    e.desc()
                ))
            };
            let program = bpf::load_socket_program(hook, &insns).map_err(|e| failed("load", e))?;
            bpf::attach_socket_program(group.as_fd(), program.as_fd(), hook)
                .map_err(|e| failed("attach", e))?;
        }
        Ok(())
    }
}

/// Allows the sockets whose destinations the other hooks see, and no others.
fn only_tcp_and_udp() -> Vec<EbpfInsn> {
    // struct bpf_sock
    const TYPE: i16 = 8;
    const PROTOCOL: i16 = 12;
    let mut p = Program::default();
    p.load(Size::Word, 2, CONTEXT, TYPE);
    p.load(Size::Word, 3, CONTEXT, PROTOCOL);
    for (typ, protocol) in [
        (libc::SOCK_STREAM, libc::IPPROTO_TCP),
        (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
    ] {
        let next = p.label();
        p.if_not_word(2, typ.cast_unsigned(), next);
        p.if_not_word(3, protocol.cast_unsigned(), next);
        p.answer(1);
        p.here(next);
    }
    p.answer(0);
    p.finish()
}

// struct bpf_sock_addr
const USER_IP4: i16 = 4;
const USER_IP6: i16 = 8;
const USER_PORT: i16 = 24;

/// The words of an address and of its mask, as the kernel has them in memory. IPv4 in a program for IPv6 is in its mapped
/// form, which sockets of that family can be used with.
fn words(destination: &Destination, v6: bool) -> Option<Vec<(u32, u32)>> {
    let (octets, prefix): (Vec<u8>, u8) = match (destination.address, v6) {
        (IpAddr::V4(a), false) => (a.octets().to_vec(), destination.prefix),
        (IpAddr::V4(a), true) => (
            a.to_ipv6_mapped().octets().to_vec(),
            destination.prefix + 96,
        ),
        (IpAddr::V6(a), true) => (a.octets().to_vec(), destination.prefix),
        (IpAddr::V6(_), false) => return None,
    };
    let words = octets.chunks_exact(4).zip(0u32..).map(|(word, i)| {
        let bits = u32::from(prefix).saturating_sub(32 * i).min(32);
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0).to_be();
        let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
        (word & mask, mask)
    });
    Some(words.collect())
}

fn compile(allowed: &[Destination], v6: bool) -> Vec<EbpfInsn> {
    // And the three after it, for IPv6.
    const ADDRESS: u8 = 2;
    // In network order.
    const PORT: u8 = 6;
    const MASKED: u8 = 7;
    let loopback = LOOPBACK.map(|(address, prefix)| Destination {
        address,
        prefix,
        port: None,
    });
    let mut p = Program::default();
    let first = if v6 { USER_IP6 } else { USER_IP4 };
    for i in 0..if v6 { 4 } else { 1 } {
        p.load(Size::Word, ADDRESS + i, CONTEXT, first + 4 * i16::from(i));
    }
    p.load(Size::Word, PORT, CONTEXT, USER_PORT);
    for destination in loopback.iter().chain(allowed) {
        let Some(words) = words(destination, v6) else {
            continue;
        };
        let next = p.label();
        for (register, (word, mask)) in (ADDRESS..).zip(words) {
            if mask != 0 {
                p.copy(MASKED, register);
                p.and(MASKED, mask.cast_signed());
                p.if_not_word(MASKED, word, next);
            }
        }
        if let Some(port) = destination.port {
            p.if_not_word(PORT, u32::from(port.to_be()), next);
        }
        p.answer(1);
        p.here(next);
    }
    p.answer(0);
    p.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::ebpf;

    fn verdict(allowed: &[Destination], address: &str, port: u16) -> bool {
        let address: IpAddr = address.parse().unwrap();
        let (v6, octets) = match address {
            IpAddr::V4(a) => (false, a.octets().to_vec()),
            IpAddr::V6(a) => (true, a.octets().to_vec()),
        };
        let mut context = [0u8; 32];
        let at = if v6 { 8 } else { 4 };
        context[at..at + octets.len()].copy_from_slice(&octets);
        context[24..26].copy_from_slice(&port.to_be_bytes());
        ebpf::run(&compile(allowed, v6), &context) == 1
    }

    #[test]
    fn only_what_is_listed_and_loopback() {
        let to = |address: &str, prefix, port| Destination {
            address: address.parse().unwrap(),
            prefix,
            port,
        };
        let allowed = [
            to("10.1.0.0", 16, None),
            to("192.0.2.7", 32, Some(443)),
            to("2001:db8::", 33, None),
        ];
        for (address, port, expected) in [
            ("10.1.2.3", 1, true),
            ("10.2.0.1", 1, false),
            ("192.0.2.7", 443, true),
            ("192.0.2.7", 444, false),
            ("192.0.2.6", 443, false),
            ("127.9.9.9", 5, true),
            ("0.0.0.0", 5, true),
            ("169.254.169.254", 80, false),
            ("2001:db8:7fff::1", 9, true),
            ("2001:db8:8000::1", 9, false),
            ("::1", 9, true),
            ("::ffff:10.1.2.3", 9, true),
            ("::ffff:10.2.2.3", 9, false),
            ("::ffff:127.0.0.1", 9, true),
            ("fe80::1", 9, false),
        ] {
            assert_eq!(
                verdict(&allowed, address, port),
                expected,
                "{address}:{port}"
            );
        }
        assert!(!verdict(&[], "10.1.2.3", 1) && verdict(&[to("0.0.0.0", 0, None)], "8.8.8.8", 1));
    }
}
