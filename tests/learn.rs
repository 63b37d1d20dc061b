//! `cofferdam learn`: what is used is seen, and the profile that comes of it is enough for the same work and for no more.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use containerd_shim_protos::api::CreateTaskResponse;
use serde_json::{Value, json};

use crate::common::{self, Network};
use crate::isolation::{read_all, request, run_under, runtime_options, under};
use crate::support::cri::{self, Client, SecurityProfile};
use crate::support::daemon::CLASS;
use crate::support::place::program;
use crate::support::shim::Shim;
use crate::support::{Daemon, NGINX, Output, wait_until};

/// The cases of this file.
pub fn cases() -> Vec<crate::Case> {
    use crate::Case;
    let service = |name, run: fn()| Case::plain(name, run).unless(common::missing());
    vec![
        Case::plain("learn::what_a_shell_does", what_a_shell_does),
        Case::plain("learn::from_the_middle", from_the_middle),
        Case::plain("learn::not_allowed", not_allowed),
        service("learn::nginx", || replay("nginx", NGINX_WORK, "1\n1\n1\n")),
        service("learn::redis", || {
            replay("redis", REDIS_WORK, "42\nsaved\n")
        }),
        service("learn::python_web_service", || {
            replay("python", PYTHON_WORK, "hello 3\n")
        }),
        service("learn::postgres", || {
            let (script, expected) = common::work("postgres");
            replay("postgres", script, expected);
        }),
        service("learn::node_web_service", || {
            let (script, expected) = common::work("node");
            replay("node", script, expected);
        }),
        Case::cri("learn::a_pod_through_cri", a_pod_through_cri),
    ]
}

const NGINX_WORK: &str = "nginx; for i in 1 2 3; do busybox wget -q -O - http://127.0.0.1/ | grep -c 'Welcome to nginx!</h1>'; done; \
     nginx -s quit 2> /dev/null";
const REDIS_WORK: &str = "sleep 0.01; redis-server --daemonize yes --dir /var/lib/redis > /dev/null; \
     for i in $(seq 200); do redis-cli ping > /dev/null 2>&1 && break; sleep 0.05; done; redis-cli set a 41 > /dev/null; redis-cli incr a; \
     redis-cli bgsave > /dev/null; for i in $(seq 200); do [ -s /var/lib/redis/dump.rdb ] && break; sleep 0.05; done; redis-cli shutdown; echo saved";
const PYTHON_WORK: &str = "sleep 0.01; mkdir -p /srv/data; cat > /srv/app.py <<'X'\n\
     import http.server, json, os, sqlite3\n\
     class H(http.server.BaseHTTPRequestHandler):\n\
    \x20   def do_GET(self):\n\
    \x20       db = sqlite3.connect('/srv/data/hits.db'); db.execute('create table if not exists h (n)')\n\
    \x20       db.execute('insert into h values (1)'); db.commit()\n\
    \x20       n = db.execute('select count(*) from h').fetchone()[0]\n\
    \x20       self.send_response(200); self.end_headers(); self.wfile.write(f'hello {n}\\n'.encode())\n\
    \x20   def log_message(self, *a): open('/srv/data/log', 'a').write('x')\n\
     http.server.ThreadingHTTPServer(('127.0.0.1', 8000), H).serve_forever()\n\
     X\n\
     python3 /srv/app.py & until busybox wget -q -O - http://127.0.0.1:8000/ > /dev/null 2>&1; do sleep 0.1; done; \
     busybox wget -q -O - http://127.0.0.1:8000/ > /dev/null; busybox wget -q -O - http://127.0.0.1:8000/; kill %1";

fn learn(args: &[&str]) -> Output {
    Output::of(Command::new(program()).arg("learn").args(args))
}

fn recorded(s: &Shim) -> Value {
    let out = learn(&["show", "--json", &s.pid().unwrap().to_string()]).ok();
    serde_json::from_str::<Value>(&out.stdout).unwrap()["items"][0].clone()
}

const ALWAYS: &str = "[learn]\npolicy = \"always\"\n";

fn what_a_shell_does() {
    let s = Shim::start(3);
    let script = "echo x > /tmp/written; cat /etc/passwd > /dev/null; mkdir /tmp/made; cd /tmp; mkdir near; mv written made/moved; \
         chown 5 made; chroot / true; unshare -n true; sleep 1000";
    let mut spec = crate::isolation::greedy(&s, "box", &["sh", "-c", script]);
    spec["process"]["env"] = json!(["PATH=/bin"]);
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["unshare"], "action": "SCMP_ACT_ERRNO" }]
    });
    let mut wanted = request(&s, "box", &spec, ALWAYS);
    wanted.stdout.clear();
    wanted.stderr.clear();
    s.call::<CreateTaskResponse>("Create", &wanted).unwrap();
    s.start_process("box", "").unwrap();
    wait_until("the work is done", Duration::from_secs(10), || {
        recorded(&s)["calls"]["clock_nanosleep"].is_number()
            || recorded(&s)["calls"]["nanosleep"].is_number()
    });
    let r = recorded(&s);
    assert_eq!(
        (&r["fromStart"], &r["gaps"]),
        (&json!(true), &json!([])),
        "{r:#}"
    );
    for call in ["openat", "write", "chroot", "fork"] {
        let fork =
            call == "fork" && (r["calls"]["clone"].is_number() || r["calls"]["vfork"].is_number());
        let open = call == "openat" && r["calls"]["open"].is_number();
        assert!(
            fork || open || r["calls"][call].is_number(),
            "{call}: {r:#}"
        );
    }
    // Not what was denied, nor what sets the container up.
    for call in [
        "unshare",
        "mount",
        "pivot_root",
        "seccomp",
        "landlock_restrict_self",
    ] {
        assert!(r["calls"][call].is_null(), "{call}: {r:#}");
    }
    for capability in ["CAP_CHOWN", "CAP_SYS_CHROOT"] {
        assert!(
            r["capabilities"][capability]["had"].as_u64() > Some(0),
            "{capability}: {r:#}"
        );
    }
    assert!(
        r["files"]["/tmp/written"]["written"].as_u64() > Some(0),
        "{r:#}"
    );
    assert!(
        r["files"]["/etc/passwd"]["read"].as_u64() > Some(0),
        "{r:#}"
    );
    assert!(
        r["files"]["/bin/sh"]["executed"].as_u64() > Some(0),
        "{r:#}"
    );
    let changed = r["changed"].as_array().unwrap();
    assert!(changed.contains(&json!("/tmp/made")), "{r:#}");
    // What is relative to a directory that the shell went to, and its child was in.
    assert!(changed.contains(&json!("/tmp/near")), "{r:#}");
    assert_eq!(r["unresolved"], json!([]), "{r:#}");
    let text = learn(&["show", &s.pid().unwrap().to_string()]).ok().stdout;
    assert!(text.contains("\"CAP_CHOWN\", # "), "{text}");
    s.finish("box");
    s.end();
    // The recording of a container that is deleted is kept until it is taken.
    let list: Value = serde_json::from_str(&learn(&["list", "--json"]).ok().stdout).unwrap();
    let mut items = list["items"].as_array().unwrap().iter();
    let is_kept = |r: &Value| r["container"] == "box" && r["recording"] == false;
    assert!(items.any(is_kept), "{list:#}");
    let (profile, filter) = taken("box");
    assert!(profile.contains("\"CAP_CHOWN\", # "), "{profile}");
    fs::remove_file(filter).unwrap();
    assert_eq!(learn(&["show", "box"]).status, 2, "it was taken");
}

/// The profile that was learnt of a container that is gone, and the file with its filter.
fn taken(id: &str) -> (String, PathBuf) {
    let dir = std::env::temp_dir().join(format!("cofferdam-learnt-{}", std::process::id()));
    learn(&["stop", id, "--output", dir.to_str().unwrap()]).ok();
    let profile = dir.join(format!("{id}.toml"));
    let text = fs::read_to_string(&profile).unwrap();
    fs::remove_file(profile).unwrap();
    (text, dir.join(format!("{id}.seccomp.json")))
}

/// A container that runs already: its start is not seen, and what starts need is added.
fn from_the_middle() {
    let s = Shim::start(3);
    let id = format!("middle-{}", std::process::id());
    s.run(
        &id,
        &[
            "sh",
            "-c",
            "while :; do ls /proc/self > /dev/null; sleep 0.05; done",
        ],
    );
    let out = learn(&["show", &id]);
    assert!(
        out.status == 2 && out.stderr.contains("nothing is being recorded"),
        "{out:?}"
    );
    assert_eq!(
        learn(&["start", &id]).ok().stdout,
        format!("recording {id}\n")
    );
    wait_until("something is seen", Duration::from_secs(10), || {
        recorded(&s)["calls"]["getdents64"].is_number()
    });
    let list = learn(&["list"]).ok().stdout;
    let line = list.lines().find(|l| l.contains(&id));
    assert!(line.is_some_and(|l| l.starts_with("recording ")), "{list}");
    let dir = s.dir().join("learnt");
    let path = dir.to_str().unwrap();
    let out = learn(&["stop", &id, "--output", path, "--name", "mine"]).ok();
    assert!(
        out.stdout.contains(&format!("{id}: ")) && out.stdout.contains("mine.toml"),
        "{out:?}"
    );
    let profile = fs::read_to_string(dir.join("mine.toml")).unwrap();
    assert!(
        profile.contains("The start of its program was not seen"),
        "{profile}"
    );
    let filter: Value =
        serde_json::from_str(&fs::read_to_string(dir.join("mine.seccomp.json")).unwrap()).unwrap();
    let entries = filter["syscalls"].as_array().unwrap();
    assert!(
        entries.iter().all(|e| e["comment"].is_string()),
        "{filter:#}"
    );
    assert!(entries.iter().any(|e| e["names"][0] == "execve"));
    assert_eq!(learn(&["show", &id]).status, 2, "it is over");
    let validated = Output::of(
        Command::new(program())
            .args(["profile", "validate"])
            .arg(dir.join("mine.toml")),
    );
    assert_eq!(
        validated.ok().stdout,
        format!("{}: valid\n", dir.join("mine.toml").display())
    );
    s.finish(&id);
    s.end();
}

fn not_allowed() {
    let s = Shim::start_as(3, "containerd-shim-cofferdam-untrusted-v1");
    s.run("box", &["sleep", "1000"]);
    let out = learn(&["start", &s.pid().unwrap().to_string()]);
    assert!(
        out.status == 2
            && out.stderr.contains("profile \"untrusted\"")
            && out.stderr.contains("learn.policy"),
        "{out:?}"
    );
    s.finish("box");
    s.end();
}

/// A service works, its profile is written, works again under that, and is denied what it never did.
fn replay(name: &str, script: &str, expected: &str) {
    let network = Network::make(&format!("learn-{name}"));
    let s = Shim::start(3);
    let id = format!("learn-{}-{name}", std::process::id());
    let mut first = common::request(&s, &network, &id, script);
    let learning = format!("extends = \"hardened\"\n{ALWAYS}");
    first.options = Some(runtime_options(3, &learning)).into();
    let (text, _) = run_under(&s, &first).unwrap();
    assert!(text.ends_with(expected), "{name}:\n{text}");
    let (learnt, filter) = taken(&id);
    assert!(!learnt.contains("Not recorded"), "{learnt}");
    let calls: Value = serde_json::from_str(&fs::read_to_string(&filter).unwrap()).unwrap();
    let names = |e: &Value| e["names"][0].as_str().unwrap().to_owned();
    let calls: Vec<String> = calls["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .map(names)
        .collect();
    eprintln!("learnt of {name}: {} calls", calls.len());
    for denied in ["unshare", "bpf", "ptrace", "mount"] {
        assert!(!calls.iter().any(|c| c == denied), "{denied}: {calls:?}");
    }
    // The same again, under what was learnt.
    let mut again = common::request(&s, &network, &format!("{id}-again"), script);
    again.options = Some(runtime_options(3, &learnt)).into();
    let (text, _) = run_under(&s, &again).unwrap();
    assert!(
        text.ends_with(expected),
        "{name} under what was learnt:\n{text}\n{learnt}\n{}",
        s.log()
    );
    // And the pause container of its pod.
    let pause = format!("{id}-pause");
    let spec = s.spec(&pause, &["/pause"]);
    let created = request(&s, &pause, &spec, &learnt);
    let reader = read_all(&created.stdout);
    s.call::<CreateTaskResponse>("Create", &created).unwrap();
    s.start_process(&pause, "").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let denied = crate::denials::counters(&s, &pause);
    let loops = denied.iter().any(|d| d.count > 3);
    assert!(!loops, "{name}: the pause container: {denied:?}");
    s.finish(&pause);
    reader.join().unwrap();
    // The filter alone, without any other floor.
    let alone = format!("[seccomp]\nfloor = {:?}\n", filter.to_str().unwrap());
    for attack in ["unshare-user", "bpf", "ptrace", "mount"] {
        let (text, _) = under(
            &s,
            attack,
            &alone,
            &["/dev/attacker", &format!("only={attack}")],
        )
        .unwrap();
        // The attacker's own start may take what was not learnt, too.
        let denied = format!("{attack} {}\n", libc::EPERM);
        assert!(
            text == denied || (text.is_empty() && name != "python"),
            "{attack}: {text:?}"
        );
    }
    fs::remove_file(filter).unwrap();
    for id in [id.clone(), format!("{id}-again")] {
        fs::remove_dir_all(s.dir().join(format!("{id}-layers"))).unwrap();
    }
    s.end();
}

/// As an operator would: a pod is made, the recording begins, its containers come, work, and are learnt from. containerd takes
/// the filter as a local profile of Kubernetes.
fn a_pod_through_cri(d: &mut Daemon) {
    d.import("nginx");
    let client = Client::connect(d);
    let config = cri::pod_config(d, "learn");
    let work = |container: &cri::ContainerConfig,
                config: &cri::PodSandboxConfig,
                (class, learn_it): (&str, bool)| {
        let pod = client.run_pod(config, class).unwrap();
        d.remember(&pod);
        if learn_it {
            learn(&["start", &pod]).ok();
        }
        let id = client.create(&pod, container, config).unwrap();
        client.start(&id).unwrap();
        let ip = client.pod_ip(&pod).unwrap();
        let url = format!("http://{ip}/");
        let page = || Output::of(Command::new("curl").args(["-s", "-m", "5", &url])).stdout;
        wait_until("nginx serves", Duration::from_secs(20), || {
            page().contains("Served from a pod in Cofferdam")
        });
        (pod, id)
    };
    let nginx = cri::container_config("nginx", NGINX, &[]);
    let (pod, id) = work(&nginx, &config, ("cofferdam-hardened", true));
    let recorded_pod = pod.clone();
    let dir = d.dir().join("learnt");
    client.stop(&id, 10).unwrap();
    let out = learn(&[
        "stop",
        &id,
        "--output",
        dir.to_str().unwrap(),
        "--name",
        "nginx",
    ])
    .ok();
    assert!(
        out.stdout.contains("the pod's own filter allows 3"),
        "{out:?}"
    );
    let tried = "tried: the profile is right (the container is gone";
    assert!(out.stdout.contains(tried), "{out:?}");
    eprintln!("{}", out.stdout.lines().next().unwrap());
    client.stop_pod(&pod).unwrap();
    client.remove_pod(&pod).unwrap();
    let mut again = nginx.clone();
    let context = again
        .linux
        .as_mut()
        .unwrap()
        .security_context
        .as_mut()
        .unwrap();
    context.seccomp = Some(SecurityProfile {
        profile_type: 2, // Localhost
        localhost_ref: dir.join("nginx.seccomp.json").display().to_string(),
    });
    let remove = |pod: &str| {
        client.stop_pod(pod).unwrap();
        client.remove_pod(pod).unwrap();
    };
    let (pod, _) = work(
        &again,
        &cri::pod_config(d, "learn-again"),
        ("cofferdam-hardened", false),
    );
    remove(&pod);
    // The profile as a class of its own: the pause container has it, too.
    fs::copy(
        dir.join("nginx.toml"),
        d.dir().join(format!("{CLASS}.toml")),
    )
    .unwrap();
    let (pod, _) = work(&nginx, &cri::pod_config(d, "learnt"), (CLASS, false));
    let out = Output::of(Command::new(program()).args(["explain", "--json", &pod])).ok();
    let seen: Value = serde_json::from_str(&out.stdout).unwrap();
    assert_eq!(seen["verdict"], "enforced");
    for container in seen["containers"].as_array().unwrap() {
        let container = &container["container"];
        let denials = container["denials"].as_array().unwrap();
        let loops = denials.iter().any(|d| d["call"] == "pause");
        assert!(
            container["profile"] == "class" && !loops && denials.len() < 3,
            "{container:#}"
        );
    }
    remove(&pod);
    // The sandbox was recorded, too.
    cofferdam::learn::forget(&recorded_pod);
}
