//! `cofferdam top`, and the names of pods: thirty pods, a terminal, and what people type.

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::place::program;
use crate::support::shim::{Shim, Streams};
use crate::support::terminal::Terminal;
use crate::support::{Output, wait_until};

/// The cases of this file.
pub fn cases() -> Vec<crate::Case> {
    use crate::Case;
    vec![
        Case::plain("top::a_session_on_a_terminal", session),
        Case::plain("top::it_ends_and_leaves_the_terminal_as_it_was", endings),
        Case::plain("top::names_find_pods", names),
        Case::plain("top::output_for_pipes", pipes),
        Case::plain("top::two_worlds", two_worlds),
        Case::plain("top::what_the_programs_say_of_themselves", themselves),
    ]
}

/// Pods of one namespace of Kubernetes, which nobody else here has.
struct Pods {
    namespace: String,
    shims: Vec<Shim>,
}

impl Pods {
    fn new(what: &str, names: &[&str]) -> Self {
        let namespace = format!("cd{what}{}", std::process::id());
        let shims = names.iter().map(|name| pod(&namespace, name)).collect();
        Self { namespace, shims }
    }

    fn top(&self) -> Command {
        let mut command = Command::new(program());
        command.args(["top", "--filter", &self.namespace]);
        command
    }

    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.namespace)
    }

    fn end(self) {
        for shim in self.shims {
            shim.finish("box");
            shim.end();
        }
    }
}

/// A pod with a container "nginx", as containerd's CRI plugin annotates it.
fn pod(namespace: &str, name: &str) -> Shim {
    let shim = Shim::start(3);
    let mut spec = shim.spec("box", &["sleep", "1000"]);
    spec["annotations"] = json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-namespace": namespace,
        "io.kubernetes.cri.sandbox-name": name,
        "io.kubernetes.cri.container-name": "nginx",
    });
    shim.create_with("box", &spec, Streams::default()).unwrap();
    shim.start_process("box", "").unwrap();
    shim
}

/// Names that sort as they are written.
fn thirty() -> Vec<String> {
    (0..30).map(|i| format!("web-{i:02}")).collect()
}

const UP: &str = "\x1b[A";
const DOWN: &str = "\x1b[B";
const PAGE_UP: &str = "\x1b[5~";
const PAGE_DOWN: &str = "\x1b[6~";
const HOME: &str = "\x1b[H";
const END: &str = "\x1b[F";
const F1: &str = "\x1bOP";
const DELETE: &str = "\x1b[3~";

fn session() {
    let names = thirty();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let pods = Pods::new("top", &names);
    let mut t = Terminal::start(&mut pods.top(), 80, 24);
    let selected = |t: &Terminal, name: &str| {
        t.until(name, |t| {
            t.selected()
                .is_some_and(|line| line.contains(&pods.name(name)))
        });
    };
    t.shows("30 pods, 30 containers");
    let text = t.shows("1-21 of 30");
    assert!(
        text.contains(&pods.name("web-20")) && !text.contains("web-21"),
        "{text}"
    );
    // What ended it once: arrows and function keys come in several bytes.
    for unknown in [
        DELETE,
        "\x1b[15;2~",
        "\x1b[1;5C",
        "Z",
        "%",
        "\t",
        "\x1b[200~",
    ] {
        t.send(unknown);
    }
    t.send(DOWN);
    selected(&t, "web-00");
    t.send(&DOWN.repeat(3));
    selected(&t, "web-03");
    t.send(UP);
    selected(&t, "web-02");
    t.send(PAGE_DOWN);
    selected(&t, "web-23");
    t.shows("4-24 of 30");
    t.send(END);
    selected(&t, "web-29");
    t.shows("10-30 of 30");
    t.send(PAGE_UP);
    selected(&t, "web-08");
    t.send(HOME);
    selected(&t, "web-00");
    t.send("m");
    t.shows("by memory");
    t.send("r");
    t.shows("by memory, reverse");
    t.send("rp");
    t.shows("by pod  every 1s");
    t.send("+");
    t.shows("every 2s");
    t.send(" ");
    t.shows("paused");
    t.send(" -");
    t.shows("every 1s");
    t.send("/web-1\r");
    t.shows("10 pods, 10 containers");
    t.send("\x1b");
    // The filter of the command line goes, too.
    t.hides("10 pods");
    t.send(&format!("/{}\r", pods.namespace));
    t.shows("30 pods");
    t.send(F1);
    t.shows("this page");
    t.send("q");
    t.hides("this page");
    t.send(HOME);
    t.send("\r");
    let page = t.shows("verdict:");
    assert!(page.contains(&pods.name("web-00")), "{page}");
    t.send(&format!("{PAGE_DOWN}{UP}\x1b"));
    t.hides("verdict:");
    // The window grows, and shrinks to what nobody can read.
    t.resize(200, 50);
    let text = t.shows("VERSION");
    assert!(
        text.contains(&pods.name("web-29")) && text.contains("SHIM"),
        "{text}"
    );
    t.resize(40, 10);
    t.hides("VERSION");
    assert!(t.shows("CPU%").lines().count() <= 10);
    t.resize(1, 1);
    t.hides("CPU%");
    t.resize(80, 24);
    t.shows("1-21 of 30");
    t.send("q");
    assert!(t.ends().success());
    pods.end();
}

fn endings() {
    let pods = Pods::new("ends", &["a"]);
    for (keys, status) in [
        ("q", 0),
        ("\x03", 0),
        ("\x04", 0),
        ("?\x03", 0),
        ("/x\x03", 0),
    ] {
        let mut t = Terminal::start(&mut pods.top(), 80, 24);
        t.shows("1 pods");
        t.send(keys);
        assert_eq!(t.ends().code(), Some(status), "{keys:?}");
    }
    let t = Terminal::start(&mut pods.top(), 80, 24);
    t.shows("1 pods");
    t.signal(Signal::SIGTERM);
    assert_eq!(t.ends().code(), Some(128 + 15));
    pods.end();
}

fn cofferdam(args: &[&str]) -> Output {
    Output::of(Command::new(program()).args(args).stdin(Stdio::null()))
}

fn names() {
    let pods = Pods::new("names", &["web", "db"]);
    let other = pod(&format!("{}-test", pods.namespace), "web");
    let ns = &pods.namespace;
    let pid = |shim: &Shim| json!(shim.pid().unwrap());
    let found = |name: &str| {
        let out = cofferdam(&["explain", "--json", name]);
        let answer: Value =
            serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
        assert_eq!(answer["apiVersion"], "cofferdam/v1");
        answer
    };
    for name in [pods.name("web"), pods.name("web/nginx")] {
        let answer = found(&name);
        assert_eq!(answer["kind"], "Explanation", "{answer:#}");
        assert_eq!(answer["pod"]["shim"]["pid"], pid(&pods.shims[0]), "{name}");
        assert_eq!(answer["pod"]["name"], json!(pods.name("web")));
        let names = &answer["containers"][0]["container"]["names"];
        assert_eq!(
            *names,
            json!({ "namespace": ns, "pod": "web", "container": "nginx" })
        );
    }
    // One that several have lists them; one that nobody has gets a suggestion. Both as JSON, where that is asked for.
    let answer = found("web/nginx");
    assert_eq!(answer["kind"], "Error");
    let message = answer["message"].as_str().unwrap();
    for pod in [
        format!("{ns}/web/nginx (box)"),
        format!("{ns}-test/web/nginx (box)"),
    ] {
        assert!(message.contains(&pod), "{message}");
    }
    let answer = found(&pods.name("wbe"));
    assert_eq!(answer["status"], 2);
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("did you mean {:?}", pods.name("web"))),
        "{message}"
    );
    let out = cofferdam(&["learn", "show", &pods.name("db")]);
    assert!(
        out.status == 2 && out.stderr.contains("nothing is being recorded"),
        "{out:?}"
    );
    // Lines of the log have the names.
    let named = format!("k8s_namespace={ns} pod=web container=nginx");
    wait_until("a line with names", Duration::from_secs(5), || {
        pods.shims[0].log().contains(&named)
    });
    // Nobody but root is told that there is nothing.
    for args in [
        &["top"][..],
        &["top", "--json"],
        &["explain", "x"],
        &["learn", "start", "x"],
    ] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        let out = Output::of(command.arg(program()).args(args).stdin(Stdio::null()));
        assert!(
            out.status == 2 && out.stderr.contains("run this as root"),
            "{args:?}: {out:?}"
        );
    }
    other.finish("box");
    other.end();
    pods.end();
}

/// A line of heads, a line for each pod, and nothing else; long names are whole.
fn pipes() {
    let long = "a-deployment-with-a-name-that-is-as-long-as-names-get-5f7d9c6b8-zx81q";
    let pods = Pods::new("pipes", &["web", long]);
    let out = Output::of(pods.top().stdin(Stdio::null())).ok();
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", out.stdout);
    let heads: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(heads[..2], ["POD", "CLASS"]);
    assert!(out.stderr.is_empty(), "{}", out.stderr);
    for line in &lines[1..] {
        let fields = line.split_whitespace().count();
        assert_eq!(fields, heads.len(), "{line}");
    }
    assert!(lines[1].starts_with(&pods.name(long)), "{}", lines[1]);
    let all = Output::of(Command::new(program()).args(["top", "--json"])).ok();
    let all: Value = serde_json::from_str(&all.stdout).unwrap();
    assert_eq!(
        (&all["apiVersion"], &all["kind"]),
        (&json!("cofferdam/v1"), &json!("PodList"))
    );
    let items = all["items"].as_array().unwrap();
    let web = items
        .iter()
        .find(|p| p["name"] == pods.name("web"))
        .unwrap();
    let one = Output::of(Command::new(program()).args(["top", "--json", "--filter", long])).ok();
    let one: Value = serde_json::from_str(&one.stdout).unwrap();
    assert_eq!(one["items"].as_array().unwrap().len(), 1, "{one:#}");
    let container = &web["containers"][0];
    assert!(container["memoryBytes"].as_u64().unwrap() > 0, "{web:#}");
    assert!(
        container["created"].as_str().unwrap().ends_with('Z'),
        "{web:#}"
    );
    pods.end();
}

/// A container of the other kind is recognised, and options that would mean nothing are refused.
fn two_worlds() {
    let pods = Pods::new("worlds", &["web"]);
    let name = pods.name("web");
    for args in [
        &["state", &name][..],
        &["exec", &name, "ls"],
        &["kill", &name, "TERM"],
        &["ps", &name],
    ] {
        let out = cofferdam(args);
        let told =
            format!("it belongs to the pod {name}, which containerd manages: use ctr --namespace");
        assert!(out.status != 0 && out.stderr.contains(&told), "{out:?}");
    }
    let out = cofferdam(&["top", "--root", "/x"]);
    assert!(
        out.status == 2
            && out
                .stderr
                .contains("--root is for containers of OCI bundles"),
        "{out:?}"
    );
    pods.end();
    // A built-in profile's name is not free.
    let out = cofferdam(&["profile", "new", "--dry-run", "hardened"]);
    assert!(
        out.status == 2 && out.stderr.contains("is built in"),
        "{out:?}"
    );
    // The command's page has both, and neither's options are on the other's.
    let help = cofferdam(&["--help"]).ok().stdout;
    let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("{text}: {help}"));
    assert!(at("\nPods of containerd") < at("\n  explain "));
    assert!(at("\n  explain ") < at("\nContainers of OCI bundles"));
    assert!(at("\nContainers of OCI bundles") < at("\n  run "));
    for (command, shown) in [("top", false), ("profile", false), ("run", true)] {
        let help = cofferdam(&[command, "--help"]).ok().stdout;
        assert_eq!(help.contains("--systemd-cgroup"), shown, "{help}");
    }
    let out = cofferdam(&["explian", "x"]);
    assert!(
        out.status == 2 && out.stderr.contains("'explain'"),
        "{out:?}"
    );
}

/// Completions, manual pages, versions, and JSON where there are tables.
fn themselves() {
    let completion = cofferdam(&["completion", "bash"]).ok().stdout;
    assert!(completion.contains("_cofferdam()") && completion.contains("--sort"));
    let pages = std::env::temp_dir().join(format!("cofferdam-pages-{}", std::process::id()));
    cofferdam(&["man", pages.to_str().unwrap()]).ok();
    let page = std::fs::read_to_string(pages.join("cofferdam-top.1")).unwrap();
    assert!(page.contains(".TH cofferdam-top 1") && page.contains("interval"));
    assert!(!page.contains("systemd"), "{page}");
    std::fs::remove_dir_all(pages).unwrap();
    let version = cofferdam(&["--version"]).ok().stdout;
    assert!(version.starts_with("cofferdam version ") && version.contains("\nspec: 1.3.0"));
    let shim = crate::support::shim_directory().join("containerd-shim-cofferdam-hardened-v1");
    for flag in ["-h", "--help", "-help"] {
        let help = Output::of(Command::new(&shim).arg(flag)).ok().stdout;
        let told = "runtime_type = \"io.containerd.cofferdam-hardened.v1\"";
        assert!(help.contains(told), "{help}");
    }
    let document = |args: &[&str]| -> Value {
        let out = cofferdam(args);
        serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"))
    };
    let list = document(&["profile", "list", "--json"]);
    assert_eq!(list["kind"], "ProfileList");
    let all = list["items"].as_array().unwrap();
    let hardened = all.iter().find(|p| p["name"] == "hardened").unwrap();
    assert_eq!(hardened["builtIn"], true);
    let profile = document(&["profile", "show", "--json", "hardened"]);
    assert_eq!(
        (&profile["kind"], &profile["name"]),
        (&json!("Profile"), &json!("hardened"))
    );
    assert_eq!(profile["profile"]["seccomp"]["floor"], "hardened");
    let error = document(&["profile", "show", "--json", "nosuch"]);
    assert_eq!(
        (&error["kind"], &error["status"]),
        (&json!("Error"), &json!(2))
    );
}
