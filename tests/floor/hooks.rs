//! Where hooks run, and with what.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use containerd_shim_protos::api::CreateTaskResponse;
use serde_json::Value;
use serde_json::json;

use super::{OfNode, REPORT};
use crate::isolation::read_all;
use crate::isolation::request;
use crate::isolation::run_under;
use crate::support::place::Place;
use crate::support::shim::Shim;
use crate::support::wait_until;

/// createContainer hooks are programs of the node's in the container's namespaces, startContainer hooks the container's own under
/// all that confines it; with and without users of its own.
pub(super) fn hooks_in_their_places() {
    for mapped in [false, true] {
        let mut p = Place::new(&["cat", "/tmp/start"]);
        if mapped {
            p.mapped(700_000);
        }
        let bin = p.rootfs().join("bin");
        // In the image, where a hook of the node's name would be found if the image were looked at.
        let of_node = format!("/usr/local/bin/cdtest-{}-{mapped}", std::process::id());
        fs::create_dir_all(p.rootfs().join("usr/local/bin")).unwrap();
        let in_image = p.rootfs().join(of_node.trim_start_matches('/'));
        for path in [&in_image, &bin.join("hook")] {
            fs::write(path, REPORT).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        p.set(
            "/hooks",
            json!({ "createContainer": [{ "path": of_node, "args": ["hook", "/dev/null"] }] }),
        );
        let out = p.run();
        assert!(
            out.status != 0 && out.stderr.contains("No such file or directory"),
            "mapped {mapped}: {out:?}"
        );
        // The same one on the node: it runs in the container's host name, with the node's root.
        let told = p.dir.join("told");
        fs::write(&told, "").unwrap();
        fs::set_permissions(&told, fs::Permissions::from_mode(0o666)).unwrap();
        fs::set_permissions(&p.dir, fs::Permissions::from_mode(0o755)).unwrap();
        let script = format!(
            "#!/bin/sh\n{{ hostname; id -u; test -e {}/bundle && echo node; }} > {} 2>&1\n",
            p.dir.display(),
            told.display()
        );
        fs::write(&of_node, script).unwrap();
        fs::set_permissions(&of_node, fs::Permissions::from_mode(0o755)).unwrap();
        p.set("/hostname", json!("inside"));
        p.set("/process/noNewPrivileges", json!(true));
        p.set(
            "/process/capabilities",
            json!({ "bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"] }),
        );
        p.mount(
            json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": [] }),
        );
        p.set(
            "/hooks",
            json!({
                "createContainer": [{ "path": of_node, "args": ["hook"], "env": ["PATH=/bin:/usr/bin"] }],
                "startContainer": [{ "path": "/bin/hook", "args": ["hook", "/tmp/start"], "env": ["PATH=/bin"] }]
            }),
        );
        let out = p.run();
        fs::remove_file(&of_node).unwrap();
        let inside = out.ok().stdout;
        let node = fs::read_to_string(&told).unwrap();
        // The kernel's host name is set after these hooks, as runc has it; the namespace is the container's all the same.
        assert!(
            node.contains("\n0\n") && node.ends_with("node\n"),
            "mapped {mapped}: {node}"
        );
        assert!(
            inside.contains("uid=0")
                && inside.contains("CapEff:\t0000000000000001")
                && inside.contains("NoNewPrivs:\t1")
                && !inside.contains("boot"),
            "mapped {mapped}: {inside}"
        );
    }
    // One that fails, one that is late, and one that says much and reads nothing.
    for (script, timeout, text) in [
        (
            "exit 3",
            None,
            "startContainer hook #0: /bin/sh: exit status: 3",
        ),
        (
            "sleep 100",
            Some(1),
            "startContainer hook #0: /bin/sh: did not finish within its timeout",
        ),
        (
            "kill -9 $$",
            None,
            "startContainer hook #0: /bin/sh: signal: 9",
        ),
    ] {
        let mut p = Place::new(&["true"]);
        let mut hook =
            json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] });
        if let Some(seconds) = timeout {
            hook["timeout"] = json!(seconds);
        }
        p.set("/hooks", json!({ "startContainer": [hook] }));
        let out = p.run();
        assert!(
            out.status != 0 && out.stderr.contains(text),
            "{text}: {out:?}"
        );
    }
    let mut p = Place::new(&["echo", "ran"]);
    let much = "sleep .1; seq 1 100000; seq 1 100000 >&2";
    let annotations: serde_json::Map<_, _> = (0..20)
        .map(|i| (format!("a{i}"), json!("x".repeat(8000))))
        .collect();
    p.set("/annotations", Value::Object(annotations));
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", much], "env": ["PATH=/bin:/usr/bin"], "timeout": 20 }]);
    p.set(
        "/hooks",
        json!({ "createRuntime": hook, "startContainer": hook }),
    );
    assert_eq!(p.run().ok().stdout, "ran\n");
    // The state of a startContainer hook has the pid that the container sees.
    let mut p = Place::new(&["cat", "/state"]);
    let hook =
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", "cat > /state"], "env": ["PATH=/bin"] }]);
    p.set("/hooks", json!({ "startContainer": hook }));
    let state: Value = serde_json::from_str(&p.run().ok().stdout).unwrap();
    assert_eq!(
        (&state["pid"], &state["status"]),
        (&json!(1), &json!("created"))
    );
}

/// A listed hook runs as the node's root: what it loads is not the spec's.
pub(super) fn environment_of_hooks() {
    let node = OfNode::new("environment");
    let (mark, script) = (node.0.join("env"), node.0.join("hook.sh"));
    let text = format!("#!/bin/sh\ncat > /dev/null\nenv > {}\n", mark.display());
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let s = Shim::start(3);
    let mut sleeper = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let exe = format!("/proc/{}/exe", sleeper.id());
    wait_until("it is sleep", Duration::from_secs(5), || {
        fs::read_link(&exe).is_ok_and(|p| p.ends_with("sleep"))
    });
    let real = fs::read_link(&exe).unwrap();
    let profile = format!("extends = \"hardened\"\n[pod]\nhooks = [{script:?}, {real:?}]\n");
    let mut spec = s.spec("box", &["true"]);
    spec["hooks"] = json!({ "createRuntime": [
        { "path": script, "env": ["LD_PRELOAD=/tmp/x.so", "PATH=/tmp", "BASH_ENV=/tmp/x"] },
        { "path": exe, "args": ["sleep", "0"] },
    ] });
    run_under(&s, &request(&s, "box", &spec, &profile)).unwrap();
    let env = fs::read_to_string(&mark).unwrap();
    assert!(
        !env.contains("LD_PRELOAD") && !env.contains("BASH_ENV") && !env.contains("PATH=/tmp"),
        "{env}"
    );
    let other = format!("extends = \"hardened\"\n[pod]\nhooks = [{script:?}]\n");
    let why = run_under(&s, &request(&s, "other", &spec, &other)).unwrap_err();
    assert!(
        why.contains(&format!("refuses the hook {}", real.display())),
        "{why}"
    );
    // Also where containerd cleans up after a shim that was killed.
    fs::remove_file(&mark).unwrap();
    let mut spec = s.spec("left", &["sleep", "1000"]);
    spec["hooks"] = json!({ "poststop": [{ "path": script, "env": ["LD_PRELOAD=/tmp/x.so"] }] });
    let request = request(&s, "left", &spec, &profile);
    let reader = read_all(&request.stdout);
    s.call::<CreateTaskResponse>("Create", &request).unwrap();
    let shim = nix::unistd::Pid::from_raw(s.pid().unwrap());
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_until("the shim is gone", Duration::from_secs(5), || {
        s.pid().is_none()
    });
    s.clean_up("containerd-shim-cofferdam-v1", "left");
    reader.join().unwrap();
    let env = fs::read_to_string(&mark).unwrap();
    assert!(!env.contains("LD_PRELOAD"), "{env}");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    s.end();
}
