//! Isolation profiles: what a hostile process can do under each, what ordinary programs can, and broken profiles.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use containerd_shim_protos::api::{CreateTaskRequest, CreateTaskResponse, Empty};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use serde_json::{Value, json};
use ttrpc::Code;

use crate::Case;
use crate::attacks;
use crate::support::place::program;
use crate::support::shim::{Shim, Streams};
use crate::support::spec::Bundle;
use crate::support::{Daemon, Output, read_fifo, shim_directory, volumes, wait_until};

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::plain("isolation::attacks_on_standard", attacks_on_standard),
        Case::plain("isolation::attacks_on_hardened", attacks_on_hardened),
        Case::plain("isolation::attacks_on_untrusted", attacks_on_untrusted),
        Case::plain("isolation::process_status", process_status),
        Case::plain("isolation::refused_pods", refused_pods),
        Case::plain("isolation::limits", limits),
        Case::plain("isolation::work_in_untrusted", work_in_untrusted),
        Case::plain("isolation::unknown_profile", unknown_profile),
        Case::plain("isolation::broken_profiles", broken_profiles),
        Case::plain("isolation::profile_in_options", profile_in_options),
        Case::plain("isolation::single_calls", single_calls),
        Case::plain("isolation::networks_and_users", networks_and_users),
        Case::plain("isolation::egress", egress),
        Case::plain("isolation::neighbours", neighbours),
        Case::plain("isolation::landlock_paths", landlock_paths),
        Case::plain("isolation::landlock_ports", landlock_ports),
        Case::plain(
            "isolation::no_network_but_the_nodes",
            no_network_but_the_nodes,
        ),
        Case::plain("isolation::abstract_sockets", abstract_sockets),
        Case::plain("isolation::fork_bomb", fork_bomb),
        Case::plain("isolation::memory_hog", memory_hog),
        Case::plain("isolation::reduced_proc", reduced_proc),
        Case::ctr("isolation::setuid_programs", setuid_programs),
        Case::ctr("isolation::profile_by_path", profile_by_path),
    ]
}

const HARDENED: &str = "containerd-shim-cofferdam-hardened-v1";
const UNTRUSTED: &str = "containerd-shim-cofferdam-untrusted-v1";

/// Root, every capability, no filter, nothing masked: all that a pod can ask for without being privileged.
pub fn greedy(s: &Shim, id: &str, args: &[&str]) -> Value {
    let mut spec = s.spec(id, args);
    let all: Vec<&str> = cofferdam::oci::capabilities::NAMES.to_vec();
    spec["process"]["capabilities"] = json!({
        "bounding": all, "effective": all, "permitted": all, "inheritable": all, "ambient": all
    });
    spec["process"]["noNewPrivileges"] = json!(false);
    let linux = spec["linux"].as_object_mut().unwrap();
    for key in ["seccomp", "maskedPaths", "readonlyPaths"] {
        linux.remove(key);
    }
    for mount in spec["mounts"].as_array_mut().unwrap() {
        if mount["type"] == "sysfs" {
            mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
        }
    }
    scratch(&mut spec);
    spec["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/dev/attacker", "type": "bind", "source": attacker(), "options": ["bind", "ro"]
    }));
    spec["process"]["env"] = json!(["PATH=/bin", format!("{}=1", attacks::MARK)]);
    spec
}

/// This program, as a file of a volume.
fn attacker() -> &'static Path {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| {
        let copy = volumes().join("attacker");
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        copy
    })
}

/// A writable volume whose programs can be executed, unless somebody forbids it.
fn scratch(spec: &mut Value) {
    let mount =
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"] });
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

/// Runs a process of a container to its end; what it printed, and its status.
pub fn output(s: &Shim, id: &str, spec: &Value) -> (String, u32) {
    let out = fifo(s, &format!("{id}-out"));
    let reader = read_all(&out);
    let streams = Streams {
        stdout: out.clone(),
        stderr: out,
        ..Streams::default()
    };
    s.create_with(id, spec, streams).unwrap();
    s.start_process(id, "").unwrap();
    let status = s.wait(id, "").unwrap();
    s.delete(id, "").unwrap();
    (reader.join().unwrap(), status)
}

pub fn fifo(s: &Shim, name: &str) -> String {
    let path = s.dir().join(name);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    path.display().to_string()
}

pub fn read_all(path: &str) -> std::thread::JoinHandle<String> {
    read_fifo(path, |mut file| {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    })
}

pub fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|l| l.split_once(' '))
        .map(|(name, answer)| (name.to_owned(), answer.to_owned()))
        .collect()
}

/// The attacks' answers from a container's init, and from an exec in it.
fn attack(program: &str) -> [BTreeMap<String, String>; 2] {
    let s = Shim::start_as(3, program);
    let (text, status) = output(&s, "init", &greedy(&s, "init", &["/dev/attacker"]));
    assert_eq!(status, 0, "{text}");
    s.create_with(
        "box",
        &greedy(&s, "box", &["sleep", "1000"]),
        Streams::default(),
    )
    .unwrap();
    s.start_process("box", "").unwrap();
    let out = fifo(&s, "exec-out");
    let reader = read_all(&out);
    let streams = Streams {
        stdout: out,
        ..Streams::default()
    };
    let mut request = Shim::exec_request("box", "e", &["/dev/attacker"], streams);
    let mut process = greedy(&s, "unused", &["/dev/attacker"])["process"].clone();
    process["terminal"] = json!(false);
    request.spec.as_mut().unwrap().value = process.to_string().into_bytes();
    s.call::<Empty>("Exec", &request).unwrap();
    s.start_process("box", "e").unwrap();
    assert_eq!(s.wait("box", "e").unwrap(), 0);
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
    let exec = reader.join().unwrap();
    s.end();
    let answers = [parse(&text), parse(&exec)];
    assert_eq!(
        answers[0].len(),
        attacks::ALL.len() + attacks::ORDINARY.len(),
        "{text}"
    );
    for answers in &answers {
        for (name, answer) in answers.iter().filter(|(n, _)| n.starts_with("ordinary-")) {
            assert_eq!(answer, "ok", "{name}");
        }
    }
    answers
}

fn attacks_on_standard() {
    // What the suite would not notice is nothing to be proud of: without a profile most of them get through.
    let [init, exec] = attack("containerd-shim-cofferdam-v1");
    for answers in [init, exec] {
        let through = answers.values().filter(|a| *a == "ok").count();
        assert!(through > 20, "{answers:?}");
        for name in [
            "mount",
            "unshare-user",
            "ptrace",
            "dropped-program",
            "core-pattern",
            "chroot",
        ] {
            assert_eq!(answers[name], "ok", "{name}: {answers:?}");
        }
    }
}

#[track_caller]
fn nothing_gets_through(program: &str, but: &[&str]) {
    for (who, answers) in ["init", "exec"].into_iter().zip(attack(program)) {
        let through: Vec<_> = answers
            .iter()
            .filter(|(name, answer)| {
                *answer == "ok" && !name.starts_with("ordinary-") && !but.contains(&name.as_str())
            })
            .collect();
        assert!(through.is_empty(), "{who}: {through:?}");
        assert!(
            !answers.values().any(|a| a == "killed"),
            "{who}: {answers:?}"
        );
        assert_eq!(
            (
                answers["io-uring"].as_str(),
                answers["clone3-user"].as_str()
            ),
            ("38", "38")
        );
        assert_eq!(
            (answers["mount"].as_str(), answers["alg-socket"].as_str()),
            ("1", "97")
        );
    }
}

fn attacks_on_hardened() {
    nothing_gets_through(HARDENED, &[]);
}

fn attacks_on_untrusted() {
    // A compiler's output has to run.
    nothing_gets_through(UNTRUSTED, &["dropped-program"]);
}

fn process_status() {
    let s = Shim::start_as(3, HARDENED);
    let spec = greedy(
        &s,
        "box",
        &[
            "grep",
            "-E",
            "^(NoNewPrivs|Seccomp|Seccomp_filters|CapBnd|CapEff|CapAmb):",
            "/proc/self/status",
        ],
    );
    let (text, _) = output(&s, "box", &spec);
    for line in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapBnd:\t00000000000005fb",
        "CapEff:\t00000000000005fb",
        "CapAmb:\t00000000000005fb",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // The floor and the pod's own filter are one, and both still work.
    let mut spec = s.spec("own", &["sh", "-c", "grep Seccomp_filters /proc/self/status; mkdir /dev/shm/x; ls / > /dev/null && echo fine"]);
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13 }]
    });
    let (text, status) = output(&s, "own", &spec);
    assert_eq!(status, 0, "{text}");
    assert!(
        text.contains("Seccomp_filters:\t1")
            && text.contains("Permission denied")
            && text.contains("fine"),
        "{text}"
    );
    let log = s.log();
    assert!(
        log.contains("profile=hardened") && log.contains("tightened"),
        "{log}"
    );
    s.end();
}

fn refused_pods() {
    let s = Shim::start_as(3, HARDENED);
    let refused = |change: &dyn Fn(&mut Value), text: &str| {
        let mut spec = s.spec("box", &["true"]);
        change(&mut spec);
        let (code, message) = s.create_with("box", &spec, Streams::default()).unwrap_err();
        assert_eq!(code, Code::FAILED_PRECONDITION, "{message}");
        assert!(message.contains(text), "{text:?} is not in {message:?}");
        assert!(
            message.starts_with("profile \"hardened\" refuses ")
                && message.contains("or use RuntimeClass \"cofferdam\""),
            "{message}"
        );
    };
    for (name, text) in [
        ("network", "hostNetwork"),
        ("pid", "hostPID"),
        ("ipc", "hostIPC"),
    ] {
        let without = |spec: &mut Value| {
            spec["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .retain(|n| n["type"] != name);
        };
        refused(&without, text);
    }
    for path in [
        "/",
        "/etc",
        "/etc/../etc/ssh",
        "/proc/1/root",
        "/var",
        "/run/containerd/containerd.sock",
    ] {
        let volume = |spec: &mut Value| {
            let mount = json!({ "destination": "/host", "type": "bind", "source": path, "options": ["rbind"] });
            spec["mounts"].as_array_mut().unwrap().push(mount);
        };
        refused(&volume, "the hostPath volume");
    }
    refused(
        &|spec| {
            spec["linux"]["devices"] =
                json!([{ "path": "/dev/sda", "type": "b", "major": 8, "minor": 0 }])
        },
        "the device /dev/sda (b 8:0)",
    );
    refused(
        &|spec| spec["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]),
        "access to devices",
    );
    s.end();
}

fn limits() {
    let s = Shim::start_as(3, UNTRUSTED);
    s.create_with(
        "box",
        &s.spec("box", &["sleep", "1000"]),
        Streams::default(),
    )
    .unwrap();
    let pids = crate::resources::read(&s.group("box"), ("pids", "pids.max"), "pids.max");
    assert_eq!(pids, "1024");
    s.start_process("box", "").unwrap();
    // Of another user's processes nothing is seen.
    let mut spec = s.spec("other", &["sh", "-c", "ulimit -c; ls -d /proc/1"]);
    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let (text, _) = output(&s, "other", &spec);
    assert!(text.starts_with("0\n"), "{text}");
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
    s.end();
}

fn work_in_untrusted() {
    // What a shell does all day.
    let s = Shim::start_as(3, UNTRUSTED);
    let script = "set -e; mkdir /tmp/w; cd /tmp/w; for i in 1 2 3; do echo $i > f$i; done; cat f* | sort -r | head -1; \
        cp /bin/busybox echo; ./echo copied; (sleep 0.1; echo late) & wait; chmod 755 f1; chown 1000 f1; stat -c %u f1; \
        tar cf - f1 | tar tf -; su user -c 'id -u'; kill -0 $$; echo end";
    let mut spec = s.spec("box", &["sh", "-c", script]);
    scratch(&mut spec);
    let (text, status) = output(&s, "box", &spec);
    assert_eq!(
        (text.as_str(), status),
        ("3\ncopied\nlate\n1000\nf1\n1000\nend\n", 0)
    );
    s.end();
}

fn unknown_profile() {
    let name = "containerd-shim-cofferdam-lost-v1";
    let link = shim_directory().join(name);
    if !link.exists() {
        std::os::unix::fs::symlink(shim_directory().join("containerd-shim-cofferdam-v1"), &link)
            .unwrap();
    }
    let s = Shim::start_as(3, name);
    let (code, text) = s.create("box", &["true"]).unwrap_err();
    assert_eq!(code, Code::FAILED_PRECONDITION);
    assert!(
        text.contains("profile \"lost\": there is no /etc/cofferdam/lost.toml"),
        "{text}"
    );
    s.end();
}

/// `runtimeoptions.v1.Options` with a field: 2 is a path, 3 a text.
pub fn runtime_options(field: u8, text: &str) -> Any {
    let mut value = vec![field << 3 | 2];
    let mut length = text.len();
    while length >= 0x80 {
        value.push(length as u8 | 0x80);
        length >>= 7;
    }
    value.push(length as u8);
    value.extend(text.as_bytes());
    Any {
        type_url: "runtimeoptions.v1.Options".into(),
        value,
        ..Any::default()
    }
}

fn profile_in_options() {
    // A table of options in containerd's configuration arrives as text. It wins over the shim's name.
    let s = Shim::start(3);
    let caps = |options: Option<Any>| {
        let out = fifo(&s, &format!("out{}", options.is_some()));
        let reader = read_all(&out);
        let streams = Streams {
            stdout: out,
            ..Streams::default()
        };
        let spec = greedy(&s, "box", &["grep", "CapEff", "/proc/self/status"]);
        let mut request = s.create_request("box", &spec, streams);
        request.options = options.into();
        s.call::<CreateTaskResponse>("Create", &request).unwrap();
        s.start_process("box", "").unwrap();
        s.wait("box", "").unwrap();
        s.delete("box", "").unwrap();
        reader.join().unwrap()
    };
    let text = "extends = \"hardened\"\n[process]\ncapabilities = [\"CAP_CHOWN\"]\n";
    assert_eq!(
        caps(Some(runtime_options(3, text))),
        "CapEff:\t0000000000000001\n"
    );
    assert_ne!(caps(None), "CapEff:\t0000000000000001\n");
    // A broken one starts nothing.
    let mut request = s.create_request("box", &s.spec("box", &["true"]), Streams::default());
    request.options = Some(runtime_options(3, "[process]\nwrong = 1")).into();
    let (code, message) = s.call::<Empty>("Create", &request).unwrap_err();
    assert_eq!(code, Code::FAILED_PRECONDITION);
    assert!(
        message.contains("runtime options")
            && message.contains("line 2, column 1")
            && message.contains("unknown field `wrong`"),
        "{message}"
    );
    s.end();
}

/// Runs a command under a profile; its output and status.
pub fn under(s: &Shim, id: &str, profile: &str, args: &[&str]) -> Result<(String, u32), String> {
    let mut spec = greedy(s, id, args);
    spec["process"]["env"] = json!(["PATH=/bin"]);
    if args.first() == Some(&"/dev/attacker") {
        let mark = args.get(1).unwrap_or(&"1");
        spec["process"]["env"] = json!([format!("{}={mark}", attacks::MARK)]);
    }
    run_under(s, &request(s, id, &spec, profile))
}

/// The request for a container from a spec under a profile, with its output in a fifo.
pub fn request(s: &Shim, id: &str, spec: &Value, profile: &str) -> CreateTaskRequest {
    let out = fifo(s, &format!("{id}-under"));
    let streams = Streams {
        stdout: out.clone(),
        stderr: out,
        ..Streams::default()
    };
    let mut request = s.create_request(id, spec, streams);
    request.options = Some(runtime_options(3, profile)).into();
    request
}

/// Runs what such a request asks for; its output and status.
pub fn run_under(s: &Shim, request: &CreateTaskRequest) -> Result<(String, u32), String> {
    let reader = read_all(&request.stdout);
    let created = s.call::<CreateTaskResponse>("Create", request);
    created.map_err(|(_, text)| text)?;
    s.start_process(&request.id, "").unwrap();
    let status = s.wait(&request.id, "").unwrap();
    s.delete(&request.id, "").unwrap();
    Ok((reader.join().unwrap(), status))
}

fn single_calls() {
    let s = Shim::start(3);
    let profile = "extends = \"hardened\"\n[seccomp.actions]\nptrace = \"allow\"\nkeyctl = \"kill\"\nadd_key = \"audit\"\npersonality = \"deny\"\n";
    let (text, _) = under(&s, "box", profile, &["/dev/attacker"]).unwrap();
    let answers = parse(&text);
    assert_eq!(answers["ptrace"], "ok", "allowed, and of one's own user");
    assert_eq!(
        (answers["keyctl"].as_str(), answers["add-key"].as_str()),
        ("killed", "ok")
    );
    assert_eq!(
        (
            answers["ordinary-personality"].as_str(),
            answers["bpf"].as_str()
        ),
        ("1", "1")
    );
    // Without a floor, single calls are one.
    let (text, _) = under(
        &s,
        "bare",
        "[seccomp.actions]\nbpf = \"deny\"\n",
        &["/dev/attacker"],
    )
    .unwrap();
    let answers = parse(&text);
    assert_eq!(
        (answers["bpf"].as_str(), answers["mount"].as_str()),
        ("1", "ok")
    );
    s.end();
}

fn networks_and_users() {
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
    let (text, _) = under(
        &s,
        "cpu",
        "[limits]\nmillicpus = { max = 250 }\n",
        &["true"],
    )
    .unwrap();
    assert_eq!(text, "");
    assert!(
        s.log().contains("250 thousandths of a processor"),
        "{}",
        s.log()
    );
    s.end();
}

fn egress() {
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

/// What some of the ways to connect answer: 0 or an error.
fn ways_to_connect(s: &Shim, id: &str, profile: &str, which: &[&str]) -> String {
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

/// A profile's TCP ports hold for every way to connect to one.
fn landlock_ports() {
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
fn no_network_but_the_nodes() {
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
fn neighbours() {
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

/// A list of places to execute from leaves the moving of files alone.
fn landlock_paths() {
    let s = Shim::start(3);
    let profile = "[landlock]\nexecute = [\"/bin\"]\n";
    let script = "cd /tmp && mkdir a b && echo x > a/f && ln a/f b/g && mv a/f b/f && cat b/f; cp /bin/busybox echo; ./echo no || echo denied";
    let (text, _) = under(&s, "box", profile, &["sh", "-c", script]).unwrap();
    assert!(
        text.starts_with("x\n") && text.ends_with("denied\n"),
        "{text}"
    );
    assert!(!text.contains("cross-device"), "{text}");
    s.end();
}

fn abstract_sockets() {
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

/// A container "box" that does nothing under a profile; its pid.
fn sleeper(s: &Shim, profile: &str) -> u32 {
    let spec = s.spec("box", &["sleep", "1000"]);
    let mut request = s.create_request("box", &spec, Streams::default());
    request.options = Some(runtime_options(3, profile)).into();
    let created = s.call::<CreateTaskResponse>("Create", &request).unwrap();
    s.start_process("box", "").unwrap();
    created.pid
}

fn fork_bomb() {
    let s = Shim::start(3);
    // Fewer than the built-in profile's 1,024, which some machines have not to give.
    let profile = "extends = \"untrusted\"\n[limits]\npids = { default = 200, max = 200 }\n";
    sleeper(&s, profile);
    let mut spec = greedy(&s, "bomb", &["/dev/attacker"]);
    spec["process"]["env"] = json!([format!("{}=bomb", attacks::MARK)]);
    let mut request = s.create_request("bomb", &spec, Streams::default());
    request.options = Some(runtime_options(3, profile)).into();
    let bomb = s
        .call::<CreateTaskResponse>("Create", &request)
        .unwrap()
        .pid;
    s.start_process("bomb", "").unwrap();
    wait_until("the bomb went off", Duration::from_secs(20), || {
        s.pids("bomb").is_ok_and(|p| p.processes.len() > 180)
    });
    // Next to it, nothing is different.
    for i in 0..5 {
        let exec = format!("e{i}");
        s.exec("box", &exec, &["true"]).unwrap();
        s.start_process("box", &exec).unwrap();
        assert_eq!(s.wait("box", &exec).unwrap(), 0);
        s.delete("box", &exec).unwrap();
    }
    assert!(s.pids("bomb").unwrap().processes.len() <= 200);
    // What the lists of processes took is given back.
    let shim = s.pid().unwrap();
    wait_until("the shim is small again", Duration::from_secs(10), || {
        crate::denials::private_dirty(shim) < 6144
    });
    s.kill("bomb", "", 9, false).unwrap();
    assert_eq!(s.wait("bomb", "").unwrap(), 137);
    s.delete("bomb", "").unwrap();
    assert!(!crate::support::is_alive(bomb as i32));
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
    s.end();
}

fn memory_hog() {
    let s = Shim::start(3);
    let profile = "extends = \"untrusted\"\n[limits]\nmemory = { default = 33554432 }\n";
    let sibling = sleeper(&s, profile);
    let (_, status) = under(&s, "hog", profile, &["tail", "/dev/zero"]).unwrap();
    assert_eq!(status, 137);
    assert!(crate::support::is_alive(sibling as i32));
    s.kill("box", "", 9, false).unwrap();
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
    s.end();
}

fn reduced_proc() {
    let s = Shim::start(3);
    let profile = "[filesystem]\nonly_processes = true\n";
    let script = "cat /proc/1/comm; ls /proc | grep -v '^[0-9]*$' | sort | tr '\\n' ' '";
    let (text, _) = under(&s, "box", profile, &["sh", "-c", script]).unwrap();
    assert_eq!(text, "sh\nself thread-self ");
    s.end();
}

fn setuid_programs(d: &mut Daemon) {
    for (runtime, expected) in [
        ("io.containerd.cofferdam.v1", "0\n"),
        ("io.containerd.cofferdam-hardened.v1", "1000\n"),
        ("io.containerd.cofferdam-untrusted.v1", "1000\n"),
    ] {
        runtime.clone_into(&mut d.runtime);
        let mut b = Bundle::new(d, "box", &["/bin/other"]);
        let program = b.rootfs().join("bin/other");
        fs::copy(attacker(), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
        b.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
        b.set("/process/noNewPrivileges", json!(false));
        b.set("/process/env", json!([format!("{}=user", attacks::MARK)]));
        assert_eq!(b.run().ok().stdout, expected, "{runtime}");
        fs::remove_dir_all(&b.dir).unwrap();
    }
}

fn profile_by_path(d: &mut Daemon) {
    // ConfigPath in containerd's configuration; ctr has a flag for it.
    let file = d.dir().join("mine.toml");
    fs::write(
        &file,
        "extends = \"untrusted\"\n[exec]\npolicy = \"deny\"\n",
    )
    .unwrap();
    let flags = ["--null-io", "--runtime-config-path", file.to_str().unwrap()];
    d.run_detached(&flags, "box", &["sleep", "1000"]);
    let out = d.exec(&[], "box", "e", &["true"]);
    assert!(
        out.stderr.contains("profile \"mine\" refuses execs"),
        "{out:?}"
    );
    d.remove("box");
}

fn broken_profiles() {
    let dir = std::env::temp_dir().join(format!("cdprofile-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join("mine.toml");
    let validate = |text: &str| {
        fs::write(&file, text).unwrap();
        Output::of(
            Command::new(program())
                .args(["profile", "validate"])
                .arg(&file),
        )
    };
    for (text, message) in BROKEN {
        let out = validate(text);
        assert_ne!(out.status, 0, "{text:?}");
        for part in message.split('|') {
            assert!(
                out.stderr.contains(part),
                "{text:?}: {part:?} is not in {:?}",
                out.stderr
            );
        }
    }
    assert!(BROKEN.len() >= 30);
    let out =
        validate("extends = \"hardened\"\n[limits]\npids = { max = 100, default = 50 }\n").ok();
    assert!(out.stdout.contains("mine.toml: valid"), "{out:?}");
    let shown = Output::of(Command::new(program()).args(["profile", "show"]).arg(&file))
        .ok()
        .stdout;
    // What is inherited is there, and what is set here wins.
    assert!(
        shown.contains("no_new_privileges = true") && shown.contains("max = 100"),
        "{shown}"
    );
    fs::remove_dir_all(&dir).unwrap();
    let listed = Output::of(Command::new(program()).args(["profile", "list"]))
        .ok()
        .stdout;
    for name in ["standard", "hardened", "untrusted"] {
        assert!(listed.lines().any(|l| l.starts_with(name)), "{listed}");
    }
}

/// Texts, and what must be said of each.
const BROKEN: &[(&str, &str)] = &[
    ("x = ", "line 1, column 5"),
    (
        "nonsense = 1",
        "line 1, column 1|unknown field `nonsense`|expected one of",
    ),
    (
        "[process]\nno_new_privs = true",
        "line 2, column 1|unknown field `no_new_privs`|no_new_privileges",
    ),
    (
        "[process]\nno_new_privileges = \"yes\"",
        "line 2, column 21|expected a boolean",
    ),
    (
        "[process]\nno_new_privileges = 1",
        "line 2|expected a boolean",
    ),
    (
        "[process]\ncapabilities = \"CAP_CHOWN\"",
        "line 2|expected a sequence",
    ),
    (
        "[process]\ncapabilities = [\"CHOWN\"]",
        "process.capabilities|\"CHOWN\" is not a capability",
    ),
    (
        "[process]\ncapabilities = [\"CAP_ALL\"]",
        "\"CAP_ALL\" is not a capability",
    ),
    ("[process]\ncapabilities = [1]", "line 2|expected a string"),
    (
        "[process]\ncore_scheduling = []",
        "line 2|expected a boolean",
    ),
    (
        "[pod]\nhost_namespaces = [\"mount\"]",
        "line 2|unknown variant `mount`|network",
    ),
    ("[pod]\nhost_namespaces = \"network\"", "line 2|expected"),
    (
        "[pod]\ndevices = [\"fuse\"]",
        "pod.devices|\"fuse\": expected \"c MAJOR:MINOR\"",
    ),
    ("[pod]\ndevices = [\"c 10:x\"]", "\"c 10:x\": expected"),
    ("[pod]\ndevices = [\"p 1:1\"]", "\"p 1:1\": expected"),
    (
        "[pod]\nforbidden_host_paths = [\"etc\"]",
        "pod.forbidden_host_paths|\"etc\" is not an absolute path",
    ),
    (
        "[seccomp]\nfloor = \"strict\"",
        "seccomp.floor|\"strict\" is none of|hardened",
    ),
    (
        "[seccomp]\nfloor = \"/no/such.json\"",
        "seccomp.floor: read /no/such.json: No such file",
    ),
    (
        "[seccomp]\nfloor = \"/etc/passwd\"",
        "seccomp.floor: /etc/passwd: expected value at line 1",
    ),
    (
        "[landlock]\nscopes = [\"all\"]",
        "line 2|unknown variant `all`|abstract-unix-socket",
    ),
    ("[landlock]\ntcp_bind = [70000]", "line 2|70000"),
    ("[landlock]\ntcp_connect = [-1]", "line 2|-1"),
    (
        "[landlock]\nexecute = [\"bin\"]",
        "landlock.execute|\"bin\" is not an absolute path",
    ),
    (
        "[landlock]\nwrite = [\"\"]",
        "landlock.write|\"\" is not an absolute path",
    ),
    (
        "[filesystem]\nmasked_paths = [\"proc/x\"]",
        "filesystem.masked_paths|\"proc/x\" is not an absolute path",
    ),
    (
        "[filesystem]\nread_only = true",
        "line 2|unknown field `read_only`|read_only_root",
    ),
    ("[limits]\npids = 100", "line 2|expected struct Limit"),
    (
        "[limits]\npids = { max = 0 }",
        "limits.pids.max: 0 would start nothing",
    ),
    (
        "[limits]\npids = { default = 10, max = 5 }",
        "limits.pids: the default 10 is above the max 5",
    ),
    ("[limits]\nmemory = { max = -1 }", "line 2|-1"),
    ("[limits]\nmemory = { max = \"1G\" }", "line 2|expected u64"),
    (
        "[seccomp.actions]\nopnat = \"kill\"",
        "seccomp.actions: \"opnat\" is not a system call",
    ),
    (
        "[seccomp.actions]\nbpf = \"crash\"",
        "line 2|unknown variant `crash`|audit",
    ),
    (
        "[network]\nmode = \"host\"",
        "line 2|unknown variant `host`",
    ),
    (
        "[user_namespace]\nmode = \"always\"",
        "line 2|unknown variant `always`|required",
    ),
    (
        "[user_namespace]\npool = { first = 100000 }",
        "user_namespace.pool.first: 100000 is not a multiple of 65536",
    ),
    (
        "[user_namespace]\npool = { first = 0, ranges = 1 }",
        "user_namespace.pool.first: 0 is not a multiple",
    ),
    (
        "[user_namespace]\npool = { first = 4294836224, ranges = 2 }",
        "user_namespace.pool.ranges: 2: expected 1 to 1 ranges",
    ),
    (
        "[user_namespace]\nunmappable = \"ignore\"",
        "line 2|unknown variant `ignore`|fall-back",
    ),
    (
        "[exec]\npolicy = \"maybe\"",
        "line 2|unknown variant `maybe`|without-capabilities",
    ),
    ("extends = \"nosuch\"", "profile \"nosuch\": there is no"),
    ("extends = \"mine\"", "extends|\"mine\" extends itself"),
    ("extends = 5", "line 1, column 11|expected a string"),
    (
        "extends = \"hardened\"\nextends = \"standard\"",
        "line 2|duplicate key",
    ),
    ("[limits]\n[limits]", "line 2|duplicate key"),
    ("\u{0}", "line 1"),
];
