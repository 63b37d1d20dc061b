//! The worked profiles of docs/profiles.md, each with the work that it is for and with what it is to stop.

use std::fs;

use serde_json::{Value, json};

use crate::Case;
use crate::common::{self, Network};
use crate::isolation::{run_under, runtime_options};
use crate::support::shim::Shim;
use crate::support::{repository, test_directory};

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    [
        Case::plain("worked::ci_runner", ci_runner),
        Case::plain("worked::ai_agent", ai_agent),
        Case::plain("worked::database", database),
        Case::plain(
            "worked::a_volume_in_the_place_of_pause",
            a_volume_in_the_place_of_pause,
        ),
    ]
    .map(|case| case.unless(common::missing()))
    .into()
}

fn profile(name: &str) -> String {
    let file = format!("shim-config/profiles/examples/{name}.toml");
    let text = fs::read_to_string(repository().join(file)).unwrap();
    let page = fs::read_to_string(repository().join("docs/profiles.md")).unwrap();
    assert!(page.contains(&text), "docs/profiles.md has another {name}");
    text
}

/// Runs a script in the common root under a profile; its output.
fn run(name: &str, profile: &str, script: &str, change: impl FnOnce(&mut Value)) -> String {
    let network = Network::make(&format!("worked-{name}"));
    let s = Shim::start(3);
    let id = format!("worked-{}-{name}", std::process::id());
    let mut request = common::request(&s, &network, &id, script);
    let file = std::path::Path::new(&request.bundle).join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut spec);
    fs::write(&file, spec.to_string()).unwrap();
    request.options = Some(runtime_options(3, profile)).into();
    let out = run_under(&s, &request);
    fs::remove_dir_all(s.dir().join(format!("{id}-layers"))).unwrap();
    let log = s.log();
    s.end();
    out.unwrap_or_else(|e| panic!("{e}\n{log}")).0
}

/// It compiles and runs, installs with pip, and reaches nothing but what is listed.
fn ci_runner() {
    let script = "cd /tmp; printf 'int main(void) { return 42; }' > a.c; gcc a.c -o a; ./a; echo built $?; \
         python3 -m venv env > /dev/null && env/bin/python -c 'print(\"venv\")'; \
         python3 -c '\n\
         import socket\n\
         def to(*to):\n\
         \x20 s = socket.socket(); s.settimeout(1)\n\
         \x20 try: s.connect(to)\n\
         \x20 except OSError as e: print(*to, type(e).__name__)\n\
         to(\"192.0.2.1\", 443); to(\"10.20.0.1\", 80); to(\"10.20.0.1\", 443)'";
    let text = run("ci", &profile("ci-runner"), script, |_| {});
    for line in [
        "built 42",
        "venv",
        "192.0.2.1 443 PermissionError",
        "10.20.0.1 80 PermissionError",
        // Let through; the test's network leads nowhere.
        "10.20.0.1 443 OSError",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// Model-written Python works in its directory; what it downloads cannot run, and neither the root nor other ports are open to it.
fn ai_agent() {
    let script = "cd /work; echo 'print(6 * 7)' > a.py; python3 a.py; echo to /dev/null > /dev/null && echo null; \
         cp /usr/bin/true /tmp/dropped; /tmp/dropped || echo not executed; \
         touch /srv/x 2> /dev/null || echo not written; \
         python3 -c '\n\
import socket\n\
s = socket.socket()\n\
try: s.connect((\"127.0.0.1\", 22))\n\
except OSError as e: print(\"22\", type(e).__name__)\n\
s = socket.socket()\n\
try: s.connect((\"127.0.0.1\", 443))\n\
except OSError as e: print(\"443\", type(e).__name__)'; \
         grep CapEff /proc/self/status";
    let volumes = |spec: &mut Value| {
        for path in ["/work", "/tmp"] {
            let mount = json!({ "destination": path, "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"] });
            spec["mounts"].as_array_mut().unwrap().push(mount);
        }
    };
    let text = run("agent", &profile("ai-agent"), script, volumes);
    for line in [
        "42",
        "null",
        "not executed",
        "not written",
        "22 PermissionError",
        "443 ConnectionRefusedError",
        "CapEff:\t0000000000000000",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// What every program needs are files: a volume that a pod mounts in the place of one opens nothing.
fn a_volume_in_the_place_of_pause() {
    let script =
        "cp /usr/bin/true /pause/x; /pause/x || echo not executed; ls / > /dev/null && echo runs";
    let volume = |spec: &mut Value| {
        let mount = json!({ "destination": "/pause", "type": "tmpfs", "source": "tmpfs" });
        spec["mounts"].as_array_mut().unwrap().push(mount);
    };
    let profile = "[landlock]\nexecute = [\"/usr\", \"/bin\"]\n";
    let text = run("pause", profile, script, volume);
    assert!(text.ends_with("not executed\nruns\n"), "{text}");
}

/// A database keeps its files in a directory of the node's, whose owner is the image's user without any change on disk.
fn database() {
    let data = test_directory().join(format!("worked-{}", std::process::id()));
    fs::create_dir_all(&data).unwrap();
    let owner = crate::support::Output::of(
        std::process::Command::new("chroot")
            .arg(test_directory().join("common"))
            .args(["id", "-u", "postgres"]),
    )
    .ok();
    let owner: u32 = owner.stdout.trim().parse().unwrap();
    std::os::unix::fs::chown(&data, Some(owner), Some(owner)).unwrap();
    // The test's place of /srv/db.
    let text = profile("database").replace("/srv/db", data.to_str().unwrap());
    let script = "as='setpriv --reuid=postgres --regid=postgres --init-groups'; b=/usr/lib/postgresql/15/bin; d=/srv/db/data; \
         $as $b/initdb -D $d > /dev/null; $as $b/pg_ctl -D $d -w -o '-k /tmp' -l /srv/db/log start > /dev/null; \
         p='psql -h /tmp -U postgres -tA -c'; $p 'create table t as select generate_series(1, 1000) as n'; $p 'select sum(n) from t'; \
         $as $b/pg_ctl -D $d -w stop | tail -1; cat /proc/self/uid_map";
    let volume = |spec: &mut Value| {
        let mount = json!({ "destination": "/srv/db", "type": "bind", "source": data, "options": ["rbind", "rw"] });
        spec["mounts"].as_array_mut().unwrap().push(mount);
    };
    let out = run("db", &text, script, volume);
    assert!(
        out.contains("SELECT 1000\n500500\nserver stopped\n"),
        "{out}"
    );
    // Root in the pod is nobody on the node, and the files are the same user's there.
    let map: Vec<&str> = out.lines().last().unwrap().split_whitespace().collect();
    assert!(map[0] == "0" && map[1] != "0", "{out}");
    let file = fs::metadata(data.join("data/PG_VERSION")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&file), owner);
    fs::remove_dir_all(data).unwrap();
}
