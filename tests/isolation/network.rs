//! Networks and connections of a class.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use serde_json::json;

use super::{HARDENED, UNTRUSTED, greedy, output, request, run_under, under};
use crate::attacks;
use crate::support::shim::Shim;

pub(super) fn networks_and_users() {
    let s = Shim::start(3);
    // The pod's network, joined by path as CRI does it, is not there.
    let namespace = std::fs::read_link("/proc/self/ns/net").unwrap();
    let (text, _) = under(
        &s,
        "box",
        "[network]\nmode = \"none\"\n",
        &["sh", "-c", "ls /sys/class/net; readlink /proc/self/ns/net"],
    )
    .unwrap();
    assert!(
        text.starts_with("lo\n") && !text.contains(&namespace.display().to_string()),
        "{text}"
    );
    let refused = under(
        &s,
        "users",
        "[user_namespace]\nmode = \"required\"\n",
        &["true"],
    )
    .unwrap_err();
    assert!(
        refused.contains("set hostUsers: false in the pod"),
        "{refused}"
    );
    let (text, _) = under(&s, "cpu", "[limits]\ncpu = { max = \"250m\" }\n", &["true"]).unwrap();
    assert_eq!(text, "");
    assert!(
        s.log().contains("250 thousandths of a processor"),
        "{}",
        s.log()
    );
    s.end();
}

pub(super) fn egress() {
    // Nobody listens anywhere: what may go out is refused by the peer, the rest by the node.
    let s = Shim::start(3);
    let script = "ip link set lo up; ip addr add 10.99.0.1/24 dev lo; ip addr add fd00:99::1/64 dev lo 2>/dev/null; \
        for to in 10.99.0.1:81 10.99.0.1:80 10.99.0.2:80 127.0.0.1:80 8.8.8.8:80; do nc -w 2 ${to%:*} ${to#*:} < /dev/null 2>&1 | sed \"s/^/$to /\"; done; \
        echo end";
    let profile =
        "[network]\negress = [{ to = \"10.99.0.1\", port = 80 }, { to = \"fd00:99::/64\" }]\n";
    let (text, status) = under(&s, "box", profile, &["sh", "-c", script]).unwrap();
    assert_eq!(status, 0, "{text}");
    for (to, expected) in [
        ("10.99.0.1:81", "Operation not permitted"),
        ("10.99.0.1:80", "Connection refused"),
        ("10.99.0.2:80", "Operation not permitted"),
        ("127.0.0.1:80", "Connection refused"),
        ("8.8.8.8:80", "Operation not permitted"),
    ] {
        let line = text.lines().find(|l| l.starts_with(to));
        assert!(line.is_some_and(|l| l.contains(expected)), "{to}: {text}");
    }
    // Datagrams of sockets that never connect are seen, too.
    for (to, answer) in [
        ("127.0.0.1:53", "127.0.0.1:53 sent"),
        ("10.99.0.2:53", "10.99.0.2:53 1"),
    ] {
        let id = to.replace(['.', ':'], "x");
        let (text, _) = under(&s, &id, profile, &["/dev/attacker", &format!("send={to}")]).unwrap();
        // Without a route the first is not delivered, which is not the node's doing.
        assert!(
            text.trim() == answer || (answer.ends_with("sent") && !text.ends_with(" 1\n")),
            "{text}"
        );
    }
    // Those that the node cannot see where they send to cannot be made.
    assert_eq!(
        ways_to_connect(&s, "ways", profile, &["icmp", "raw"]),
        "icmp 1, raw 1"
    );
    assert_eq!(
        ways_to_connect(&s, "all", "", &["icmp", "raw"]),
        "icmp 0, raw 0"
    );
    // Nothing is restricted without the list, and nothing goes out with an empty one.
    let (text, _) = under(&s, "free", "", &["sh", "-c", script]).unwrap();
    assert!(!text.contains("not permitted"), "{text}");
    let (text, _) = under(
        &s,
        "none",
        "[network]\negress = []\n",
        &["sh", "-c", script],
    )
    .unwrap();
    assert_eq!(text.matches("not permitted").count(), 4, "{text}");
    s.end();
}

/// A rule may be for one protocol; and what is denied is counted by its destination, for `explain` and the log.
pub(super) fn denied_destinations() {
    let s = Shim::start(3);
    let script = "ip link set lo up; ip addr add 10.99.0.1/24 dev lo; for i in 1 2 3; do nc -w 2 10.99.0.2 80 < /dev/null; done; \
        nc -w 2 10.99.0.1 80 < /dev/null; nc -w 2 10.99.0.1 53 < /dev/null; nc -w 2 feff:ffff::1 80 < /dev/null; echo done; sleep 1000";
    let profile = "[network]\negress = [{ to = \"10.99.0.1\", protocol = \"udp\" }, { to = \"10.99.0.1\", port = 80, protocol = \"tcp\" }]\n";
    let mut spec = greedy(&s, "box", &["sh", "-c", script]);
    spec["process"]["env"] = json!(["PATH=/bin"]);
    let request = request(&s, "box", &spec, profile);
    let reader = crate::support::read_fifo(std::path::Path::new(&request.stdout), |mut file| {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut file, &mut text).unwrap();
        text
    });
    s.call::<containerd_shim_protos::api::CreateTaskResponse>("Create", &request)
        .unwrap();
    s.start_process("box", "").unwrap();
    let pid = s.pid().unwrap().to_string();
    let denied = || {
        let mut command = std::process::Command::new(crate::support::place::program());
        let out = crate::support::Output::of(command.args(["explain", "--json", &pid]));
        let all: serde_json::Value = serde_json::from_str(&out.stdout).unwrap();
        all["containers"][0]["container"]["denials"].clone()
    };
    let expected = json!([
        { "call": "10.99.0.2:80 tcp", "rule": "profile options: network.egress", "what": "denied", "count": 3 },
        { "call": "10.99.0.1:53 tcp", "rule": "profile options: network.egress", "what": "denied", "count": 1 },
        { "call": "[feff:ffff::1]:80 tcp", "rule": "profile options: network.egress", "what": "denied", "count": 1 },
    ]);
    crate::support::wait_until("destinations are counted", Duration::from_secs(10), || {
        denied() == expected
    });
    s.finish("box");
    assert!(reader.join().unwrap().contains("done"));
    crate::support::wait_until("a line with them", Duration::from_secs(5), || {
        let log = s.log();
        log.contains("10.99.0.2:80 tcp: 3") && log.contains("rule=network.egress")
    });
    s.end();
}

/// What some of the ways to connect answer: 0 or an error.
pub(super) fn ways_to_connect(s: &Shim, id: &str, profile: &str, which: &[&str]) -> String {
    let script = format!(
        "ip link set lo up; {}=ways-to-connect exec /dev/attacker",
        attacks::MARK
    );
    let mut spec = greedy(s, id, &["sh", "-c", &script]);
    spec["linux"]["sysctl"] = json!({ "net.ipv4.ping_group_range": "0 2147483647" });
    let (text, _) = run_under(s, &request(s, id, &spec, profile)).unwrap();
    let is_asked = |line: &&str| which.iter().any(|w| line.split(' ').next() == Some(w));
    text.lines().filter(is_asked).collect::<Vec<_>>().join(", ")
}

/// The machine's audit, turned on for a while, with all of its records in the kernel's log. It was off.
struct Audit {
    socket: OwnedFd,
    rate_limit: String,
}

const RATE_LIMIT: &str = "/proc/sys/kernel/printk_ratelimit";

impl Audit {
    fn on() -> Result<Self, String> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
        let family = AddressFamily::Netlink;
        let protocol = SockProtocol::NetlinkAudit;
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol);
        let rate_limit = std::fs::read_to_string(RATE_LIMIT).map_err(|e| e.to_string())?;
        let this = Self {
            socket: socket.map_err(|e| e.to_string())?,
            rate_limit,
        };
        std::fs::write(RATE_LIMIT, "0").map_err(|e| e.to_string())?;
        this.set(1)?;
        Ok(this)
    }

    /// `AUDIT_SET` with `AUDIT_STATUS_ENABLED`: linux/audit.h.
    fn set(&self, enabled: u32) -> Result<(), String> {
        use nix::sys::socket::{MsgFlags, recv, send};
        let words: [u32; 10] = [1, enabled, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut message = Vec::new();
        message.extend(56u32.to_ne_bytes());
        message.extend(1001u16.to_ne_bytes());
        message.extend(5u16.to_ne_bytes());
        message.extend([1u32, 0].map(u32::to_ne_bytes).concat());
        message.extend(words.map(u32::to_ne_bytes).concat());
        let fd = self.socket.as_raw_fd();
        send(fd, &message, MsgFlags::empty()).map_err(|e| e.to_string())?;
        let mut answer = [0u8; 256];
        recv(fd, &mut answer, MsgFlags::empty()).map_err(|e| e.to_string())?;
        match i32::from_ne_bytes(answer[16..20].try_into().unwrap()) {
            0 => Ok(()),
            errno => Err(format!("error {errno}")),
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.set(0).ok();
        std::fs::write(RATE_LIMIT, self.rate_limit.trim()).ok();
    }
}

/// Why Landlock's denials cannot be recorded here.
pub(super) fn no_audit() -> Option<String> {
    let mut command = std::process::Command::new(crate::support::place::program());
    let features = crate::support::Output::of(command.arg("features")).stdout;
    let features: serde_json::Value = serde_json::from_str(&features).ok()?;
    let abi = features["annotations"]["org.cofferdam.kernel.landlock-abi"].as_str()?;
    if abi.parse::<u32>().is_ok_and(|abi| abi < 7) {
        return Some(format!("Landlock's ABI is {abi}, and audit needs 7"));
    }
    Audit::on()
        .err()
        .map(|e| format!("audit cannot be turned on: {e}"))
}

/// With `landlock.audit` the kernel records what Landlock denies, and `explain` counts it.
pub(super) fn landlock_audit() {
    let _on = Audit::on().unwrap();
    let s = Shim::start(3);
    let profile = "[landlock]\nwrite = [\"/dev/shm\"]\naudit = true\n";
    let script = "for i in 1 2 3; do echo x > /tmp/denied; done 2> /dev/null; sleep 1000";
    let mut spec = greedy(&s, "box", &["sh", "-c", script]);
    spec["process"]["env"] = json!(["PATH=/bin"]);
    let request = request(&s, "box", &spec, profile);
    let reader = super::read_all(&request.stdout);
    s.call::<containerd_shim_protos::api::CreateTaskResponse>("Create", &request)
        .unwrap();
    s.start_process("box", "").unwrap();
    let pid = s.pid().unwrap().to_string();
    crate::support::wait_until("denials are counted", Duration::from_secs(10), || {
        let mut command = std::process::Command::new(crate::support::place::program());
        let out = crate::support::Output::of(command.args(["explain", "--json", &pid]));
        let all: serde_json::Value = serde_json::from_str(&out.stdout).unwrap();
        let denials = all["containers"][0]["container"]["denials"].clone();
        let expected = json!({
            "call": "fs.make_reg /tmp", "rule": "profile options: landlock", "what": "denied", "count": 3
        });
        denials.as_array().unwrap().contains(&expected)
    });
    s.finish("box");
    reader.join().unwrap();
    s.end();
}

/// A profile's TCP ports hold for every way to connect to one.
pub(super) fn landlock_ports() {
    if cofferdam::sys::kernel::landlock_abi() < 4 {
        return;
    }
    let s = Shim::start(3);
    for (id, extends) in [("box", ""), ("hard", "extends = \"hardened\"\n")] {
        let all = ["connect", "mptcp", "smc", "fast-open"];
        let profile = format!("{extends}[landlock]\ntcp_connect = [443]\n");
        let text = ways_to_connect(&s, id, &profile, &all);
        assert_eq!(text, "connect 13, mptcp 93, smc 93, fast-open 95");
        let profile = format!("{extends}[landlock]\ntcp_connect = [8080]\n");
        let text = ways_to_connect(&s, &format!("{id}-open"), &profile, &["connect"]);
        // Under hardened the container cannot set up its loopback device.
        assert!(text == "connect 0" || text == "connect 101", "{text}");
    }
    s.end();
}

/// The node's network is none of a profile without a network.
pub(super) fn no_network_but_the_nodes() {
    let s = Shim::start(3);
    let mut spec = s.spec("box", &["readlink", "/proc/self/ns/net"]);
    let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|n| n["type"] != "network");
    let profile = "[network]\nmode = \"none\"\n";
    let (text, _) = run_under(&s, &request(&s, "box", &spec, profile)).unwrap();
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(text.trim(), own.to_str().unwrap());
    s.end();
}

/// Containers of a pod that shares its process ids.
pub(super) fn neighbours() {
    for (program, expected) in [
        (
            "containerd-shim-cofferdam-v1",
            "ptrace ok\nmemory ok\nroot ok\nsignal ok\n",
        ),
        (HARDENED, "ptrace 1\nmemory 13\nroot 13\nsignal ok\n"),
        // There, /proc does not even show the other one.
        (UNTRUSTED, "ptrace 1\nmemory 2\nroot 2\nsignal 1\n"),
    ] {
        let expected = match cofferdam::sys::kernel::landlock_abi() {
            0..6 => expected.replace("signal 1", "signal ok"),
            _ => expected.to_owned(),
        };
        let s = Shim::start_as(3, program);
        let victim = s.run("victim", &["sleep", "1000"]);
        let mut spec = greedy(&s, "attacker", &["/dev/attacker"]);
        spec["process"]["env"] = json!([format!("{}=neighbour", attacks::MARK)]);
        for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "pid" {
                namespace["path"] = json!(format!("/proc/{victim}/ns/pid"));
            }
        }
        let (text, _) = output(&s, "attacker", &spec);
        assert_eq!(text, expected, "{program}");
        s.kill("victim", "", 9, false).unwrap();
        s.wait("victim", "").unwrap();
        s.delete("victim", "").unwrap();
        s.end();
    }
}

pub(super) fn abstract_sockets() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let name = format!("cdtest-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let s = Shim::start(3);
    for (id, profile, expected) in [
        ("plain", "", "ok\n"),
        (
            "scoped",
            "extends = \"hardened\"\n[pod]\nhost_namespaces = [\"network\"]\n",
            "1\n",
        ),
    ] {
        let mut spec = greedy(&s, id, &["/dev/attacker"]);
        spec["process"]["env"] = json!([format!("{}=abstract={name}", attacks::MARK)]);
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != "network");
        let (text, _) = run_under(&s, &request(&s, id, &spec, profile)).unwrap();
        let without = cofferdam::sys::kernel::landlock_abi() < 6;
        assert!(
            text == expected || (without && text == "ok\n"),
            "{id}: {text}"
        );
    }
    s.end();
}
