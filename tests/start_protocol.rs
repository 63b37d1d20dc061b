//! `start`, `-v`, `-info` as containerd calls them. The dialects of releases that no package here speaks are pinned by
//! recorded bytes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use containerd_shim_protos::api::{
    CheckpointTaskRequest, CreateTaskRequest, CreateTaskResponse, Empty,
};

use crate::Case;
use crate::isolation::output;
use crate::support::shim::{Shim, call};
use crate::support::spec::default_spec;
use crate::support::{Output, is_alive, kill, processes, shim_directory, slowness, wait_until};

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::plain(
            "start_protocol::plain_address_for_1_6_to_2_2",
            plain_address,
        ),
        Case::plain("start_protocol::protobuf_for_2_3_and_later", protobuf),
        Case::plain(
            "start_protocol::containers_of_a_group_share_a_shim",
            grouping,
        ),
        Case::plain("start_protocol::a_stale_socket_is_replaced", stale_socket),
        Case::plain("start_protocol::a_server_with_a_full_queue", full_queue),
        Case::plain("start_protocol::start_is_quick", quick),
        Case::plain("start_protocol::information", information),
        Case::plain("start_protocol::wrong_arguments_are_named", wrong_arguments),
        Case::plain("start_protocol::another_user_is_refused", another_user),
        Case::plain(
            "start_protocol::create_names_what_is_wrong_in_the_bundle",
            broken_bundles,
        ),
        Case::plain("start_protocol::checkpoint_is_unimplemented", checkpoint),
        Case::plain(
            "start_protocol::a_bundle_that_changes",
            a_bundle_that_changes,
        ),
    ]
}

/// A bundle that no daemon made, with its own containerd address.
struct Bundle {
    dir: PathBuf,
}

impl Bundle {
    fn new(name: &str, config: Option<&str>) -> Self {
        let dir = std::env::temp_dir().join(format!("cdsp{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        if let Some(config) = config {
            fs::write(dir.join("config.json"), config).unwrap();
        }
        Self { dir }
    }

    fn address(&self) -> String {
        self.dir.join("c.sock").display().to_string()
    }

    fn command(&self, id: &str) -> Command {
        let mut c = Command::new(shim_directory().join("containerd-shim-cofferdam-v1"));
        c.args([
            "-namespace",
            "ns",
            "-id",
            id,
            "-address",
            &self.address(),
            "start",
        ])
        .current_dir(&self.dir);
        c.env("TTRPC_ADDRESS", format!("{}.ttrpc", self.address()));
        c
    }

    fn start(&self, id: &str, input: &[u8]) -> Vec<u8> {
        let out = self.output(id, input);
        assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        out.stdout
    }

    fn output(&self, id: &str, input: &[u8]) -> std::process::Output {
        let mut child = self
            .command(id)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        // To the end of both outputs: nobody may hold them.
        child.wait_with_output().unwrap()
    }

    /// Its shims. Start answers before the shim is executed, and until then that has another name.
    fn running(&self) -> Vec<i32> {
        wait_until("it runs", Duration::from_secs(5), || {
            !self.shims().is_empty()
        });
        self.shims()
    }

    /// Kills them. A process that ends has no arguments any more while it still listens: it is gone when its files are.
    fn kill_all(&self) {
        let shims = self.running();
        shims.iter().copied().for_each(kill);
        wait_until("they are gone", Duration::from_secs(5), || {
            !shims.iter().any(|pid| is_alive(*pid))
        });
    }

    fn shims(&self) -> Vec<i32> {
        let address = self.address();
        processes()
            .into_iter()
            .filter(|(_, a)| a.contains(&address) && a.iter().any(|a| a == "serve"))
            .map(|(p, _)| p)
            .collect()
    }

    fn socket(&self, group: &str) -> PathBuf {
        containerd_shim::socket_address(&self.address(), "ns", group)
            .trim_start_matches("unix://")
            .into()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.shims().into_iter().for_each(kill);
        for group in ["a", "b", "the-pod"] {
            fs::remove_file(self.socket(group)).ok();
        }
        fs::remove_dir_all(&self.dir).ok();
    }
}

fn plain_address() {
    let b = Bundle::new("plain", None); // no config.json: a sandbox without a container
    // containerd.runc.v1.Options, as 1.x and 2.0 to 2.2 send them for a handler with options.
    let out = b.start("a", b"\x0a\x1acontainerd.runc.v1.Options\x12\x02\x48\x01");
    let address = String::from_utf8(out).unwrap();
    assert_eq!(address, format!("unix://{}", b.socket("a").display()));
    UnixStream::connect(b.socket("a")).unwrap();
    assert_eq!(fs::read_to_string(b.dir.join("address")).unwrap(), address);
    assert_eq!(
        fs::metadata(b.socket("a")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        fs::metadata(b.socket("a").parent().unwrap())
            .unwrap()
            .permissions()
            .mode()
            & 0o007,
        0
    );
    assert_eq!(
        b.start("a", b""),
        address.as_bytes(),
        "again, without options: the same shim"
    );
    assert_eq!(b.running().len(), 1);
}

fn protobuf() {
    let b = Bundle::new("proto", None);
    let (grpc, ttrpc) = (b.address(), format!("{}.ttrpc", b.address()));
    // BootstrapParams: instance_id 1, namespace 2, containerd_ttrpc_address 5, containerd_grpc_address 6, socket_dir 9.
    let sockets = b.dir.join("s").display().to_string();
    let mut params = Vec::new();
    for (field, value) in [
        (1, "a"),
        (2, "ns"),
        (5, ttrpc.as_str()),
        (6, grpc.as_str()),
        (9, sockets.as_str()),
    ] {
        params.extend([field << 3 | 2, value.len() as u8]);
        params.extend(value.as_bytes());
    }
    let out = b.start("a", &params);
    // BootstrapResult: version 1, address 2, protocol 3.
    let address =
        containerd_shim::socket_address(&grpc, "ns", "a").replace("/run/containerd/s", &sockets);
    let mut expected = b"\x08\x03\x12".to_vec();
    expected.push(address.len() as u8);
    expected.extend(address.as_bytes());
    expected.extend(b"\x1a\x05ttrpc");
    assert_eq!(
        String::from_utf8_lossy(&out),
        String::from_utf8_lossy(&expected)
    );
    UnixStream::connect(address.trim_start_matches("unix://")).unwrap();
}

fn grouping() {
    let cri = Bundle::new(
        "cri",
        Some(r#"{"annotations": {"io.kubernetes.cri.sandbox-id": "the-pod"}}"#),
    );
    let first = cri.start("the-pod", b"");
    assert_eq!(cri.start("a", b""), first);
    assert_eq!(cri.shims().len(), 1);
    // A client's grouping, where there is no sandbox. A pod's own annotation does not move it to another one.
    let group = r#"{"annotations": {"io.containerd.runc.v2.group": "the-pod"}}"#;
    fs::write(cri.dir.join("config.json"), group).unwrap();
    assert_eq!(cri.start("b", b""), first);
    let both = r#"{"annotations": {"io.kubernetes.cri.sandbox-id": "x", "io.containerd.runc.v2.group": "the-pod"}}"#;
    fs::write(cri.dir.join("config.json"), both).unwrap();
    assert_ne!(cri.start("b", b""), first);
    let odd = r#"{"annotations": {"io.containerd.runc.v2.group": "x\nlevel=error msg=FORGED"}}"#;
    fs::write(cri.dir.join("config.json"), odd).unwrap();
    let out = cri.output("b", b"");
    assert!(
        !out.status.success() && String::from_utf8_lossy(&out.stderr).contains("is not an id"),
        "{out:?}"
    );
    fs::write(cri.dir.join("config.json"), "not json").unwrap();
    assert_ne!(
        cri.start("b", b""),
        first,
        "a broken spec is reported by Create"
    );
}

fn stale_socket() {
    let b = Bundle::new("stale", None);
    b.start("a", b"");
    b.kill_all();
    assert!(b.socket("a").exists());
    b.start("a", b"");
    UnixStream::connect(b.socket("a")).unwrap();
}

fn quick() {
    let b = Bundle::new("quick", Some("{}"));
    let mut others = Vec::new();
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            // What a process takes here and now that does nothing.
            let begun = Instant::now();
            Output::of(
                Command::new(shim_directory().join("containerd-shim-cofferdam-v1")).arg("-v"),
            );
            others.push(begun.elapsed());
            let begun = Instant::now();
            b.start("a", b"");
            let took = begun.elapsed();
            b.kill_all();
            took
        })
        .collect();
    times.sort();
    // The best of them: other tests run beside this one, and what they take is not start's.
    others.sort();
    let limit = Duration::from_millis(10).max(4 * others[1]);
    assert!(times[1] < limit, "{times:?}, and {others:?} for -v");
}

/// A server that is stopped, or slow, is not waited for, and its socket is not taken from it.
fn full_queue() {
    let b = Bundle::new("full", None);
    b.start("a", b"");
    let server = b.running()[0];
    signal(server, Signal::SIGSTOP);
    let mut queued = Vec::new();
    while let Ok(stream) = cofferdam::sys::socket::connect_at_once(&b.socket("a")) {
        queued.push(stream);
    }
    let begun = Instant::now();
    let answer = b.start("a", b"");
    assert!(begun.elapsed() < Duration::from_secs(2) * slowness());
    let address = format!("unix://{}", b.socket("a").display());
    assert_eq!(String::from_utf8(answer).unwrap(), address);
    assert_eq!(b.shims(), [server]);
    drop(queued);
    signal(server, Signal::SIGCONT);
    UnixStream::connect(b.socket("a")).unwrap();
}

fn signal(pid: i32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(pid), signal).unwrap();
}

fn information() {
    let shim = |name: &str, arg: &str| {
        Output::of(
            Command::new(shim_directory().join(name))
                .arg(arg)
                .stdin(Stdio::null()),
        )
        .ok()
    };
    let version = shim("containerd-shim-cofferdam-hardened-v1", "-v").stdout;
    assert!(
        version.contains(env!("CARGO_PKG_VERSION")) && version.contains("hardened"),
        "{version}"
    );
    let info = shim("containerd-shim-cofferdam-v1", "-info").stdout;
    // RuntimeInfo, raw: name is field 1.
    assert!(
        info.starts_with("\n\u{1c}containerd-shim-cofferdam-v1"),
        "{info:?}"
    );
    assert!(info.contains("types.containerd.io/opencontainers/runtime-spec/1/features/Features"));
}

fn wrong_arguments() {
    let shim = |args: &[&str]| {
        Output::of(
            Command::new(shim_directory().join("containerd-shim-cofferdam-v1"))
                .args(args)
                .stdin(Stdio::null()),
        )
    };
    let out = shim(&[]);
    assert!(
        out.status == 1
            && out
                .stderr
                .contains("runtime_type = \"io.containerd.cofferdam.v1\""),
        "{out:?}"
    );
    let out = shim(&["-namespace", "ns", "start"]);
    assert!(
        out.status == 1 && out.stderr.contains("-id is missing"),
        "{out:?}"
    );
    let out = shim(&["nonsense"]);
    assert!(
        out.status == 1 && out.stderr.contains("unknown action \"nonsense\""),
        "{out:?}"
    );
}

fn another_user() {
    let b = Bundle::new("user", None);
    b.start("a", b"");
    // Open the door as far as the mode goes: the peer check must hold by itself.
    let inside = b.dir.join("socket");
    fs::hard_link(b.socket("a"), &inside).ok();
    let path = if inside.exists() {
        inside
    } else {
        b.socket("a")
    };
    fs::set_permissions(&b.dir, PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let script = format!(
        "import socket,os\nos.setgid(65534); os.setuid(65534)\ns=socket.socket(socket.AF_UNIX); s.connect({:?}); s.settimeout(3)\ntry:\n  print(repr(s.recv(1)))\nexcept ConnectionResetError:\n  print('reset')",
        path.display().to_string()
    );
    let out = Output::of(Command::new("python3").args(["-c", &script])).ok();
    assert!(
        out.stdout == "b''\n" || out.stdout == "reset\n",
        "closed at once: {out:?}"
    );
}

fn broken_bundles() {
    let b = Bundle::new("broken", None);
    b.start("a", b"");
    let request = CreateTaskRequest {
        id: "a".into(),
        bundle: b.dir.display().to_string(),
        ..Default::default()
    };
    let create = |version| {
        call::<CreateTaskResponse>(&b.socket("a"), version, "Create", &request)
            .unwrap_err()
            .1
    };
    for version in [2, 3] {
        fs::remove_file(b.dir.join("config.json")).ok();
        let text = create(version);
        assert!(
            text.contains("read ") && text.contains("config.json: No such file or directory"),
            "{text}"
        );
        fs::write(
            b.dir.join("config.json"),
            "{ \"ociVersion\": \"1.0.0\",\n  oops }",
        )
        .unwrap();
        let text = create(version);
        assert!(
            text.contains(
                "config.json is not a valid OCI spec: key must be a string at line 2 column 3"
            ),
            "{text}"
        );
        fs::write(b.dir.join("config.json"), "{ \"ociVersion\": \"1.0.0\" }").unwrap();
        assert!(!create(version).is_empty());
    }
    assert_eq!(
        fs::read_dir(&b.dir).unwrap().count(),
        2,
        "nothing but config.json and address"
    );
}

fn checkpoint() {
    let b = Bundle::new("checkpoint", None);
    b.start("a", b"");
    let request = CheckpointTaskRequest {
        id: "a".into(),
        ..Default::default()
    };
    let (code, text) = call::<Empty>(&b.socket("a"), 3, "Checkpoint", &request).unwrap_err();
    assert_eq!(
        (code, text.as_str()),
        (ttrpc::Code::UNIMPLEMENTED, "checkpoints are not supported")
    );
}

/// The shim reads the bundle that `start` ran in before it is asked to. What counts is what is there when it is asked.
fn a_bundle_that_changes() {
    let trace = std::env::temp_dir().join(format!("cofferdam-ahead-{}", std::process::id()));
    let environment = [("COFFERDAM_TRACE", trace.to_str().unwrap())];
    let spec = |word: &str| default_spec("rootfs", "", &["echo", word]);
    for after in ["before", "after"] {
        fs::remove_file(&trace).ok();
        let s = Shim::start_in(3, "containerd-shim-cofferdam-v1", &environment, |bundle| {
            fs::write(bundle.join("config.json"), spec("before").to_string()).unwrap();
        });
        wait_until("the bundle is read", Duration::from_secs(5), || {
            fs::read_to_string(&trace).is_ok_and(|t| t.contains("get ahead"))
        });
        assert_eq!(output(&s, "pod", &spec(after)).0, format!("{after}\n"));
        s.end();
    }
    fs::remove_file(trace).unwrap();
}
