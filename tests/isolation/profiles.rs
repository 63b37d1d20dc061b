//! Where a profile comes from, and what is wrong with one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use containerd_shim_protos::api::CreateTaskResponse;
use containerd_shim_protos::api::Empty;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use ttrpc::Code;

use super::{fifo, greedy, read_all};
use crate::support::Daemon;
use crate::support::Output;
use crate::support::place::program;
use crate::support::shim::Shim;
use crate::support::shim::Streams;
use crate::support::shim_directory;

pub(super) fn unknown_profile() {
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

pub(super) fn profile_in_options() {
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

pub(super) fn profile_by_path(d: &mut Daemon) {
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

pub(super) fn broken_profiles() {
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
        assert_eq!(out.status, 1, "{text:?}");
        for part in message.split('|') {
            assert!(
                out.stdout.contains(part),
                "{text:?}: {part:?} is not in {:?}",
                out.stdout
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

/// What an operator who writes a profile is told, and what the commands end with.
pub(super) fn drafts() {
    let dir = std::env::temp_dir().join(format!("cddraft-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let tool = dir.join("cofferdam");
    fs::copy(program(), &tool).unwrap();
    let run = |args: &[&str]| Output::of(Command::new(&tool).args(args).current_dir(&dir));
    // A list replaces the inherited one.
    fs::write(
        dir.join("mine.toml"),
        "extends = \"hardened\"\n[filesystem]\nmasked_paths = [\"/proc/mine\"]\n",
    )
    .unwrap();
    let out = run(&["profile", "validate", "mine.toml"]).ok().stdout;
    assert!(out.contains("masked_paths: "), "{out}");
    assert!(out.contains("of \"hardened\" are not in it"), "{out}");
    assert!(!out.contains("no shim would read it"), "{out}");
    // What nobody but root can have written.
    fs::set_permissions(dir.join("mine.toml"), fs::Permissions::from_mode(0o666)).unwrap();
    let out = run(&["profile", "validate", "mine.toml"]).ok().stdout;
    assert!(out.contains("no shim would read it"), "{out}");
    fs::write(dir.join("bare.toml"), "").unwrap();
    let out = run(&["profile", "validate", "bare.toml"]).ok().stdout;
    assert!(out.contains("extends nothing"), "{out}");
    // One that extends a file beside it is not whole where the shim looks.
    fs::write(dir.join("child.toml"), "extends = \"bare\"\n").unwrap();
    let out = run(&["profile", "validate", "child.toml"]).ok().stdout;
    assert!(out.contains("install both there"), "{out}");
    // The spec of a bundle by a relative path.
    run(&["spec"]).ok();
    for path in ["config.json", "./config.json"] {
        let out = run(&["profile", "diff", "hardened", "--spec", path]);
        assert_eq!(out.status, 1, "{path}: {out:?}");
        assert!(
            out.stdout.contains("process.noNewPrivileges") || out.stdout.contains("linux."),
            "{out:?}"
        );
    }
    // 1 is an answer of these; an error is something else.
    assert_eq!(run(&["profile", "diff", "hardened", "nosuch"]).status, 2);
    assert_eq!(run(&["explain", "nosuch-pod"]).status, 2);
    assert_eq!(run(&["help"]).status, 0);
    for args in [
        vec!["top"],
        vec!["explain", "x"],
        vec!["learn", "show", "x"],
        vec!["profile", "diff", "hardened", "--container", "x"],
    ] {
        let out = Output::of(
            Command::new(&tool)
                .args(&args)
                .current_dir(&dir)
                .uid(65534)
                .gid(65534),
        );
        assert_ne!(out.status, 0, "{out:?}");
        assert!(out.stderr.contains("run this as root"), "{out:?}");
    }
    fs::remove_dir_all(&dir).unwrap();
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
        "[process]\ncapabilities = [\"CHWON\"]",
        "process.capabilities|\"CAP_CHWON\" is not a capability",
    ),
    (
        "[process]\ncapabilities = [\"CAP_ALL\"]",
        "\"CAP_ALL\" is not a capability",
    ),
    ("[process]\ncapabilities = [1]", "line 2|expected a string"),
    (
        "[process]\ncore_scheduling = []",
        "line 2|expected true, false or \"best-effort\"",
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
    ("[limits]\npids = 100", "line 2|{ default = N, max = N }"),
    (
        "[limits]\npids = { max = 0 }",
        "limits.pids.max: 0 would start nothing",
    ),
    (
        "[limits]\npids = { default = 10, max = 5 }",
        "limits.pids: the default 10 is above the max 5",
    ),
    ("[limits]\nmemory = { max = -1 }", "line 2|-1"),
    (
        "[limits]\nmemory = { max = \"1GB\" }",
        "line 2, column 18|a quantity like \"8Gi\"",
    ),
    (
        "[limits]\ncpu = { max = \"half\" }",
        "line 2, column 15|2, 0.5 or \"500m\"",
    ),
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
    (
        "extends = \"nosuch\"",
        "line 1, column 1: extends: there is no",
    ),
    ("extends = \"mine\"", "extends|\"mine\" extends itself"),
    ("extends = 5", "line 1, column 11|expected a string"),
    (
        "extends = \"hardened\"\nextends = \"standard\"",
        "line 2|duplicate key",
    ),
    ("[limits]\n[limits]", "line 2|duplicate key"),
    ("\u{0}", "line 1"),
];
