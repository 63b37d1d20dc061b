//! `linux.netDevices`: the node's network devices that move into the container, OCI config-linux.md "Network Devices".
//!
//! A device keeps its hardware address, its MTU and its permanent global addresses, and is brought up. When the
//! container's network namespace ends the kernel gives a physical device back to the node and removes a virtual one.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use oci_spec::runtime::Spec;

use super::{Error, Result};
use crate::sys::process::setns;

/// A device that moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetDevice {
    /// Its name on the node.
    outside: String,
    /// Its name in the container.
    inside: String,
}

impl NetDevice {
    fn error(&self, reason: impl std::fmt::Display) -> Error {
        Error::field(
            format!("linux.netDevices[{:?}]", self.outside),
            reason.to_string(),
        )
    }
}

/// What the spec asks for, in the order of the names.
pub(super) fn plan(spec: &Spec, has_net: bool) -> Result<Vec<NetDevice>> {
    let devices = spec.linux().as_ref().and_then(|l| l.net_devices().as_ref());
    let mut out = Vec::new();
    let mut names = BTreeSet::new();
    for (outside, device) in devices.into_iter().flatten() {
        let inside = device.name().clone().filter(|n| !n.is_empty());
        let device = NetDevice {
            outside: outside.clone(),
            inside: inside.unwrap_or_else(|| outside.clone()),
        };
        for name in [&device.outside, &device.inside] {
            // dev_valid_name(), net/core/dev.c
            let bad = name.is_empty()
                || name.len() > 15
                || name == "."
                || name == ".."
                || name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
            if bad {
                return Err(device.error(format!(
                    "{name:?} is not a device's name: 1 to 15 bytes without '/', ':' and spaces"
                )));
            }
        }
        if !names.insert(device.inside.clone()) {
            return Err(device.error(format!("another device is to be {:?}, too", device.inside)));
        }
        if !has_net {
            return Err(device.error("needs a network namespace in linux.namespaces"));
        }
        out.push(device);
    }
    out.sort_by(|a, b| a.outside.cmp(&b.outside));
    Ok(out)
}

/// Moves the devices into the network namespace of the process `pid`. On failure those that moved already come back.
pub(super) fn move_all(devices: &[NetDevice], pid: i32) -> Result<()> {
    let Some(first) = devices.first() else {
        return Ok(());
    };
    let open = |path: String| File::open(&path).map_err(|e| first.error(format!("{path}: {e}")));
    let (ours, theirs) = (
        open("/proc/thread-self/ns/net".into())?,
        open(format!("/proc/{pid}/ns/net"))?,
    );
    let outside = Netlink::here().map_err(|e| first.error(e))?;
    // A socket belongs to the namespace that its thread was in when it was made.
    let there = theirs.as_fd();
    let made = std::thread::scope(|s| {
        s.spawn(move || {
            setns(there, libc::CLONE_NEWNET)?;
            Netlink::here()
        })
        .join()
    });
    let inside = made
        .map_err(|_| io::Error::other("a thread died"))
        .and_then(|r| r)
        .map_err(|e| first.error(e))?;
    for (i, device) in devices.iter().enumerate() {
        let moved = relocate(
            (&outside, &device.outside),
            (&inside, &device.inside),
            &theirs,
        );
        if let Err(e) = moved {
            for back in devices.iter().take(i) {
                relocate((&inside, &back.inside), (&outside, &back.outside), &ours).ok();
            }
            return Err(device.error(e));
        }
    }
    Ok(())
}

fn relocate(
    (from, old): (&Netlink, &str),
    (to, new): (&Netlink, &str),
    namespace: &File,
) -> io::Result<()> {
    let index = from.index(old).map_err(|e| match e.raw_os_error() {
        Some(libc::ENODEV) => io::Error::other("there is no such device on this node"),
        _ => e,
    })?;
    if to.index(new).is_ok() {
        return Err(io::Error::other(format!(
            "there is a device {new:?} in the container's network namespace already"
        )));
    }
    let addresses = from.addresses(index)?;
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes = vec![
        LinkAttribute::NetNsFd(namespace.as_raw_fd()),
        LinkAttribute::IfName(new.to_owned()),
    ];
    from.change(RouteNetlinkMessage::SetLink(link), 0)?;
    let index = to.index(new)?;
    for mut address in addresses {
        address.header.index = index;
        to.change(
            RouteNetlinkMessage::NewAddress(address),
            NLM_F_CREATE | NLM_F_EXCL,
        )?;
    }
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    to.change(RouteNetlinkMessage::SetLink(link), 0)
}

/// A conversation about one network namespace, rtnetlink(7).
struct Netlink(Socket);

impl Netlink {
    fn here() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Sends a request; the messages of its answer.
    fn ask(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let mut answer = Vec::new();
        loop {
            let (bytes, _) = self.0.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|e| io::Error::other(e.to_string()))?;
                // NLMSG_ALIGN, netlink(3)
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(16)..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(answer),
                    NetlinkPayload::Error(e) if e.code.is_none() => return Ok(answer),
                    NetlinkPayload::Error(e) => return Err(e.to_io()),
                    NetlinkPayload::InnerMessage(m) => answer.push(m),
                    _ => {}
                }
            }
        }
    }

    fn change(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(message, NLM_F_ACK | flags).map(drop)
    }

    fn index(&self, name: &str) -> io::Result<u32> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let answer = self.ask(RouteNetlinkMessage::GetLink(link), NLM_F_ACK)?;
        answer
            .into_iter()
            .find_map(|m| match m {
                RouteNetlinkMessage::NewLink(link) => Some(link.header.index),
                _ => None,
            })
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// The permanent global addresses of a device, as they can be given to another.
    fn addresses(&self, index: u32) -> io::Result<Vec<AddressMessage>> {
        let mut query = AddressMessage::default();
        query.header.family = AddressFamily::Unspec;
        let answer = self.ask(RouteNetlinkMessage::GetAddress(query), NLM_F_DUMP)?;
        let permanent = |a: &AddressMessage| {
            a.header.index == index
                && a.header.scope == AddressScope::Universe
                && a.header.flags.contains(AddressHeaderFlags::Permanent)
        };
        let given = |a: &AddressAttribute| {
            matches!(
                a,
                AddressAttribute::Local(_)
                    | AddressAttribute::Address(_)
                    | AddressAttribute::Broadcast(_)
            )
        };
        Ok(answer
            .into_iter()
            .filter_map(|m| match m {
                RouteNetlinkMessage::NewAddress(a) if permanent(&a) => Some(a),
                _ => None,
            })
            .map(|mut a| {
                a.attributes.retain(given);
                a
            })
            .collect())
    }
}
