//! Isolation profiles: what a hostile process can do under each, what ordinary programs can, and broken profiles.

mod network;
mod profiles;
mod work;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use containerd_shim_protos::api::{CreateTaskRequest, CreateTaskResponse, Empty};
use serde_json::{Value, json};

use crate::Case;
use crate::attacks;
use crate::support::shim::{Shim, Streams};
use crate::support::{read_fifo, volumes};

use network::{
    abstract_sockets, denied_destinations, egress, landlock_audit, landlock_ports, neighbours,
    networks_and_users, no_audit, no_network_but_the_nodes,
};
pub use profiles::runtime_options;
use profiles::{broken_profiles, drafts, profile_by_path, profile_in_options, unknown_profile};
use work::{
    denied_execs, fork_bomb, landlock_paths, limits, memory_hog, notices, process_status,
    reduced_proc, refused_pods, setuid_programs, work_in_untrusted,
};

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
        Case::plain("isolation::drafts", drafts),
        Case::plain("isolation::profile_in_options", profile_in_options),
        Case::plain("isolation::single_calls", single_calls),
        Case::plain("isolation::networks_and_users", networks_and_users),
        Case::plain("isolation::egress", egress),
        Case::plain("isolation::denied_destinations", denied_destinations),
        Case::plain("isolation::landlock_audit", landlock_audit).unless(no_audit()),
        Case::plain("isolation::notices", notices),
        Case::plain("isolation::execs_that_a_rule_denies", denied_execs),
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

/// A container "box" that does nothing under a profile; its pid.
fn sleeper(s: &Shim, profile: &str) -> u32 {
    let spec = s.spec("box", &["sleep", "1000"]);
    let mut request = s.create_request("box", &spec, Streams::default());
    request.options = Some(runtime_options(3, profile)).into();
    let created = s.call::<CreateTaskResponse>("Create", &request).unwrap();
    s.start_process("box", "").unwrap();
    created.pid
}
