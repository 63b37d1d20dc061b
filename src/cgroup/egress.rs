//! Where a container's processes may connect and send to: eBPF programs on its v2 group (`BPF_PROG_TYPE_CGROUP_SOCK_ADDR`,
//! Linux 4.17; UDP 4.18). They see every `connect(2)` and every `sendto(2)` of IPv4 and IPv6, whatever network namespace it
//! is made in. The v2 tree of a hybrid node does as well. Sockets that they do not see (ICMP, raw) cannot be made.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, RawFd};

use super::error::io_error;
use super::{Cgroup, Error, Result};
use crate::sys::bpf::{self, EbpfInsn, HashMap, SocketHook};
use crate::sys::ebpf::{CONTEXT, FP, Program, Size};

/// Destinations that are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The network's address.
    pub address: IpAddr,
    /// How many leading bits count.
    pub prefix: u8,
    /// The port; all where there is none.
    pub port: Option<u16>,
    /// TCP or UDP; both where there is none.
    pub protocol: Option<Protocol>,
}

/// What a destination is spoken to by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Protocol {
    fn number(self) -> u32 {
        match self {
            Self::Tcp => libc::IPPROTO_TCP.cast_unsigned(),
            Self::Udp => libc::IPPROTO_UDP.cast_unsigned(),
        }
    }
}

/// How often a container was kept from which destination. The programs write into it; it lives as long as one of them, or this.
#[derive(Debug)]
pub struct DeniedEgress {
    map: HashMap,
}

/// A destination, as the programs count it: the address as IPv6, the port in network order, the protocol.
const KEY: usize = 24;
/// Destinations that are counted one by one.
const COUNTED: u32 = 64;
/// In the place of the protocol, for a socket that cannot be made: its family, type and protocol are the first words.
const SOCKET: u32 = u32::MAX - 1;
/// All words for what had no room. No protocol has this number, so no destination looks like it.
const OTHERS: u32 = u32::MAX;

impl DeniedEgress {
    /// # Errors
    /// The kernel has no room, or gives us none.
    pub fn new() -> nix::Result<Self> {
        let map = HashMap::new(KEY, size_of::<u64>(), COUNTED + 1)?;
        map.set(&[0xff; KEY], &0u64.to_ne_bytes())?;
        Ok(Self { map })
    }

    /// What was denied, for people, and how often; the most frequent first.
    pub fn counts(&self) -> Vec<(String, u64)> {
        let entries = self.map.entries().into_iter();
        let mut all: Vec<_> = entries
            .filter_map(|(key, count)| {
                let count = u64::from_ne_bytes(count.try_into().ok()?);
                (count > 0).then_some((titled(&key)?, count))
            })
            .collect();
        all.sort_by(|(a, more), (b, less)| less.cmp(more).then(a.cmp(b)));
        all
    }
}

/// A key of the map, for people.
fn titled(key: &[u8]) -> Option<String> {
    let (words, _) = key.as_chunks::<4>();
    let [a, b, c, d, port, protocol] = words else {
        return None;
    };
    let number = |word: &[u8; 4]| u32::from_ne_bytes(*word);
    match number(protocol) {
        OTHERS => return Some("other destinations".into()),
        SOCKET => {
            return Some(format!(
                "socket family={} type={} protocol={}",
                number(a),
                number(b),
                number(c)
            ));
        }
        _ => {}
    }
    let address: [u8; 16] = [*a, *b, *c, *d].concat().try_into().ok()?;
    let address = Ipv6Addr::from(address).to_canonical();
    // In network order, in the first half of the word.
    let [high, low, ..] = *port;
    let port = u16::from_be_bytes([high, low]);
    let protocol = match number(protocol).cast_signed() {
        libc::IPPROTO_TCP => "tcp".to_owned(),
        libc::IPPROTO_UDP => "udp".to_owned(),
        other => format!("protocol {other}"),
    };
    let to = std::net::SocketAddr::new(address, port);
    Some(format!("{to} {protocol}"))
}

/// The machine itself, which other namespaces cannot reach: `127.0.0.0/8`, `::1`, and the addresses that stand for them.
const LOOPBACK: [(IpAddr, u8); 4] = [
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 32),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128),
];

impl Cgroup {
    /// Lets processes of the group connect and send to loopback and to `allowed` only: `EPERM` for the rest, which is counted in
    /// `denied`.
    pub fn restrict_egress(
        &self,
        allowed: &[Destination],
        denied: Option<&DeniedEgress>,
    ) -> Result<()> {
        let unavailable = |reason: String| Error::Unavailable {
            field: "network.egress".into(),
            reason,
        };
        let Some(dir) = self.unified_dir() else {
            return Err(unavailable("needs a cgroup v2 tree on the node".into()));
        };
        let group = File::open(&dir).map_err(io_error("open", &dir))?;
        let map = denied.map(|d| d.map.fd());
        for hook in SocketHook::ALL {
            let insns = match hook {
                SocketHook::Create => only_tcp_and_udp(map),
                SocketHook::Connect4 | SocketHook::Send4 => compile(allowed, false, map),
                SocketHook::Connect6 | SocketHook::Send6 => compile(allowed, true, map),
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

/// Where the key is on the stack, and a value.
const KEY_AT: i16 = -32;
const VALUE_AT: i16 = -40;

/// Denies, and counts the key that is on the stack.
fn deny(mut p: Program, map: Option<RawFd>) -> Vec<EbpfInsn> {
    // enum bpf_func_id
    const LOOKUP: i32 = 1;
    const UPDATE: i32 = 2;
    if let Some(map) = map {
        let at = |p: &mut Program, register, offset: i16| {
            p.copy(register, FP);
            p.add(register, offset.into());
        };
        let (found, done) = (p.label(), p.label());
        p.set_map(1, map);
        at(&mut p, 2, KEY_AT);
        p.call(LOOKUP);
        p.if_not(0, 0, found);
        p.store_value(Size::Double, FP, VALUE_AT, 1);
        p.set_map(1, map);
        at(&mut p, 2, KEY_AT);
        at(&mut p, 3, VALUE_AT);
        p.set(4, 0);
        p.call(UPDATE);
        p.if_equal(0, 0, done);
        // No room: it is one of the others.
        for word in 0..6 {
            p.store_value(Size::Word, FP, KEY_AT + 4 * word, OTHERS.cast_signed());
        }
        p.set_map(1, map);
        at(&mut p, 2, KEY_AT);
        p.call(LOOKUP);
        p.if_equal(0, 0, done);
        p.here(found);
        p.set(1, 1);
        p.atomic_add(0, 0, 1);
        p.here(done);
    }
    p.answer(0);
    p.finish()
}

/// Allows the sockets whose destinations the other hooks see, and no others.
fn only_tcp_and_udp(map: Option<RawFd>) -> Vec<EbpfInsn> {
    // struct bpf_sock
    const FAMILY: i16 = 4;
    const TYPE: i16 = 8;
    const PROTOCOL: i16 = 12;
    let mut p = Program::default();
    p.load(Size::Word, 2, CONTEXT, TYPE);
    p.load(Size::Word, 3, CONTEXT, PROTOCOL);
    p.load(Size::Word, 4, CONTEXT, FAMILY);
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
    if map.is_some() {
        for (offset, register) in [(0, 4), (4, 2), (8, 3)] {
            p.store(Size::Word, FP, KEY_AT + offset, register);
        }
        p.store_value(Size::Word, FP, KEY_AT + 12, 0);
        p.store_value(Size::Word, FP, KEY_AT + 16, 0);
        p.store_value(Size::Word, FP, KEY_AT + 20, SOCKET.cast_signed());
    }
    deny(p, map)
}

// struct bpf_sock_addr
const USER_IP4: i16 = 4;
const USER_IP6: i16 = 8;
const USER_PORT: i16 = 24;
const PROTOCOL: i16 = 36;

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

fn compile(allowed: &[Destination], v6: bool, map: Option<RawFd>) -> Vec<EbpfInsn> {
    // And the three after it, for IPv6.
    const ADDRESS: u8 = 2;
    // In network order.
    const PORT: u8 = 6;
    const MASKED: u8 = 7;
    const BY: u8 = 8;
    let loopback = LOOPBACK.map(|(address, prefix)| Destination {
        address,
        prefix,
        port: None,
        protocol: None,
    });
    let mut p = Program::default();
    let first = if v6 { USER_IP6 } else { USER_IP4 };
    for i in 0..if v6 { 4 } else { 1 } {
        p.load(Size::Word, ADDRESS + i, CONTEXT, first + 4 * i16::from(i));
    }
    p.load(Size::Word, PORT, CONTEXT, USER_PORT);
    p.load(Size::Word, BY, CONTEXT, PROTOCOL);
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
        if let Some(protocol) = destination.protocol {
            p.if_not_word(BY, protocol.number(), next);
        }
        p.answer(1);
        p.here(next);
    }
    if map.is_some() {
        if v6 {
            for i in 0..4 {
                p.store(Size::Word, FP, KEY_AT + 4 * i16::from(i), ADDRESS + i);
            }
        } else {
            // ::ffff:a.b.c.d
            p.store_value(Size::Word, FP, KEY_AT, 0);
            p.store_value(Size::Word, FP, KEY_AT + 4, 0);
            p.store_value(Size::Word, FP, KEY_AT + 8, 0xffff_u32.to_be().cast_signed());
            p.store(Size::Word, FP, KEY_AT + 12, ADDRESS);
        }
        p.store(Size::Word, FP, KEY_AT + 16, PORT);
        p.store(Size::Word, FP, KEY_AT + 20, BY);
    }
    deny(p, map)
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
        let mut context = [0u8; 40];
        let at = if v6 { 8 } else { 4 };
        context[at..at + octets.len()].copy_from_slice(&octets);
        context[24..26].copy_from_slice(&port.to_be_bytes());
        context[36..].copy_from_slice(&6u32.to_ne_bytes());
        ebpf::run(&compile(allowed, v6, None), &context) == 1
    }

    #[test]
    fn only_what_is_listed_and_loopback() {
        let to = |address: &str, prefix, port| Destination {
            address: address.parse().unwrap(),
            prefix,
            port,
            protocol: None,
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
        let by = |protocol| Destination {
            protocol: Some(protocol),
            ..to("10.1.0.0", 16, None)
        };
        assert!(verdict(&[by(Protocol::Tcp)], "10.1.2.3", 1));
        assert!(!verdict(&[by(Protocol::Udp)], "10.1.2.3", 1));
        assert!(!verdict(&[], "10.1.2.3", 1) && verdict(&[to("0.0.0.0", 0, None)], "8.8.8.8", 1));
    }

    #[test]
    fn what_was_denied_for_people() {
        let key = |words: [u32; 6]| words.map(u32::to_ne_bytes).concat();
        let v4 = u32::from_ne_bytes([10, 99, 0, 2]);
        let port = u32::from_ne_bytes([0, 80, 0, 0]);
        for (words, text) in [
            ([0, 0, 0xffff_u32.to_be(), v4, port, 6], "10.99.0.2:80 tcp"),
            (
                [1_u32.to_be(), 0, 0, 5_u32.to_be(), port, 17],
                "[0:1::5]:80 udp",
            ),
            ([2, 3, 1, 0, 0, SOCKET], "socket family=2 type=3 protocol=1"),
            ([OTHERS; 6], "other destinations"),
            (
                [SOCKET, OTHERS, 0, 0, port, 17],
                "[feff:ffff:ffff:ffff::]:80 udp",
            ),
        ] {
            assert_eq!(titled(&key(words)).as_deref(), Some(text));
        }
    }
}
