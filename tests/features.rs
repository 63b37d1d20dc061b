//! `cofferdam features`: what it lists, the executor does.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::Case;
use crate::support::Output;
use crate::support::place::{Place, program};
use crate::support::spec::CAPABILITIES;

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::plain("features::namespaces", namespaces),
        Case::plain("features::mount_options", mount_options),
        Case::plain("features::hooks", hooks),
        Case::plain("features::capabilities", capabilities),
        Case::plain("features::seccomp", seccomp),
        Case::plain("features::kernel", kernel),
    ]
}

fn features() -> Value {
    let out = Output::of(std::process::Command::new(program()).arg("features")).ok();
    serde_json::from_str(&out.stdout).unwrap()
}

/// A list of the features, by its JSON pointer.
fn list(pointer: &str) -> Vec<String> {
    let features = features();
    let list = features.pointer(pointer).and_then(Value::as_array);
    let list = list.unwrap_or_else(|| panic!("{pointer} is missing"));
    list.iter()
        .map(|v| v.as_str().unwrap().to_owned())
        .collect()
}

fn namespaces() {
    let names = list("/linux/namespaces");
    assert_eq!(names.len(), 8);
    for name in names {
        let file = match name.as_str() {
            "mount" => "mnt",
            "network" => "net",
            name => name,
        };
        let mut p = Place::new(&["readlink", &format!("/proc/self/ns/{file}")]);
        let present = p.spec["linux"]["namespaces"].as_array().unwrap();
        if name == "user" {
            p.mapped(100_000);
        } else if !present.iter().any(|n| n["type"] == name.as_str()) {
            p.namespace(json!({ "type": name }));
        }
        let ours = std::fs::read_link(format!("/proc/self/ns/{file}")).unwrap();
        let theirs = p.run().ok().stdout;
        assert!(theirs.starts_with(file), "{theirs}");
        assert_ne!(Path::new(theirs.trim()), ours, "{name}");
    }
}

fn mount_options() {
    let options = list("/mountOptions");
    assert!(options.len() > 50);
    let none_such = ["nonsense".to_owned()];
    let old = crate::oci::before(5, 12).is_some();
    for option in options.iter().chain(&none_such) {
        // Recursive attributes and mapped ids: 5.12, as the features' annotations say.
        let recursive = option.starts_with('r')
            && !matches!(
                option.as_str(),
                "ro" | "rw"
                    | "relatime"
                    | "rbind"
                    | "rprivate"
                    | "rshared"
                    | "rslave"
                    | "runbindable"
            );
        if old && (recursive || option == "idmap") {
            continue;
        }
        let mut p = Place::new(&["grep", " /m ", "/proc/self/mountinfo"]);
        // Words that are a bind mount's own, and those that any file system takes.
        let bind = matches!(option.as_str(), "bind" | "rbind" | "idmap" | "ridmap");
        let source = p.dir.join("source");
        let source = if bind { p.on_disk("source") } else { source };
        std::fs::create_dir_all(&source).unwrap();
        let mut mount = if bind {
            json!({ "destination": "/m", "type": "bind", "source": source, "options": ["bind", option] })
        } else {
            json!({ "destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": [option] })
        };
        if option.ends_with("idmap") {
            let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
            mount["uidMappings"] = map.clone();
            mount["gidMappings"] = map;
        }
        p.mount(mount);
        let out = p.run();
        if option == "nonsense" {
            assert!(
                out.stderr.contains("fsconfig"),
                "it is for the file system to know: {out:?}"
            );
            continue;
        }
        let line = out.ok().stdout;
        // What a person sees of it.
        let shown = [
            "ro",
            "noexec",
            "nosuid",
            "nodev",
            "noatime",
            "nodiratime",
            "relatime",
            "sync",
            "dirsync",
            "lazytime",
            "nosymfollow",
        ];
        let seen = without_recursion(option);
        if !shown.contains(&seen) {
            continue;
        }
        assert!(
            line.split([' ', ',', '\n']).any(|w| w == seen),
            "{option}: {line}"
        );
    }
}

/// `rnoexec` and the like show as `noexec`.
fn without_recursion(option: &str) -> &str {
    match option.strip_prefix('r') {
        Some(rest) if rest.starts_with("no") || rest == "ro" => rest,
        _ => option,
    }
}

fn hooks() {
    for name in list("/hooks") {
        let mut p = Place::new(&["true"]);
        let mark = p.dir.join("mark");
        // Those that run in the container have its files only.
        let path = if name == "startContainer" {
            p.set(
                &format!("/hooks/{name}"),
                json!([{ "path": "/bin/busybox", "args": ["touch", "/mark"] }]),
            );
            p.rootfs().join("mark")
        } else {
            p.set(
                &format!("/hooks/{name}"),
                json!([{ "path": "/bin/busybox", "args": ["touch", mark] }]),
            );
            mark
        };
        p.run().ok();
        assert!(path.exists(), "{name} did not run");
    }
}

fn capabilities() {
    let names = list("/linux/capabilities");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let own = u64::from_str_radix(own.unwrap().trim(), 16).unwrap();
    for (i, name) in names.iter().enumerate() {
        let mut p = Place::new(&["grep", "CapEff", "/proc/self/status"]);
        let set = json!({ "bounding": [name], "effective": [name], "permitted": [name] });
        p.set("/process/capabilities", set);
        // What this root does not have it cannot give.
        let expected = (1u64 << i) & own;
        let out = p.run().ok().stdout;
        assert_eq!(out.trim(), format!("CapEff:\t{expected:016x}"), "{name}");
    }
    assert!(CAPABILITIES.iter().all(|c| names.iter().any(|n| n == c)));
}

fn seccomp() {
    // One filter with everything that is listed, on a call that nobody makes: the program runs under it.
    let arguments: Vec<Value> = list("/linux/seccomp/operators")
        .iter()
        .map(|op| json!([{ "index": 0, "value": 7, "valueTwo": 7, "op": op }]))
        .collect();
    let mut calls: Vec<Value> = arguments
        .into_iter()
        .map(|args| json!({ "names": ["acct"], "action": "SCMP_ACT_ERRNO", "args": args }))
        .collect();
    let actions = list("/linux/seccomp/actions");
    for (i, action) in actions.iter().enumerate() {
        // Somebody must listen for this one: see oci::seccomp_notification.
        if action != "SCMP_ACT_NOTIFY" {
            let args = json!([{ "index": 1, "value": i, "op": "SCMP_CMP_EQ" }]);
            calls.push(json!({ "names": ["swapon"], "action": action, "args": args }));
        }
    }
    for flag in list("/linux/seccomp/supportedFlags") {
        let mut p = Place::new(&["grep", "Seccomp:", "/proc/self/status"]);
        p.set(
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": list("/linux/seccomp/archs"),
                "flags": [flag],
                "syscalls": calls
            }),
        );
        assert_eq!(p.run().ok().stdout, "Seccomp:\t2\n", "{flag}");
    }
    let known: BTreeSet<_> = list("/linux/seccomp/knownFlags").into_iter().collect();
    assert!(
        list("/linux/seccomp/supportedFlags")
            .iter()
            .all(|f| known.contains(f))
    );
    let mut p = Place::new(&["true"]);
    p.set(
        "/linux/seccomp",
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NONSENSE"] }),
    );
    assert_ne!(p.run().status, 0);
}

fn kernel() {
    let features = features();
    let annotation = |name: &str| {
        let name = format!("org.cofferdam.kernel.{name}");
        features["annotations"][&name].as_str().unwrap().to_owned()
    };
    let idmap = annotation("idmapped-mounts");
    assert_eq!(
        features["linux"]["mountExtensions"]["idmap"]["enabled"],
        json!(idmap == "available")
    );
    // It says what is missing, and is right: id-mapped mounts work, or need a later kernel.
    let mut p = Place::new(&["true"]);
    let source = p.on_disk("source");
    std::fs::create_dir_all(&source).unwrap();
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    p.mount(
        json!({ "destination": "/m", "type": "bind", "source": source, "options": ["bind"],
                    "uidMappings": map, "gidMappings": map }),
    );
    assert_eq!(p.run().status == 0, idmap == "available", "{idmap}");
    assert!(idmap == "available" || idmap == "needs Linux 5.12");
}
