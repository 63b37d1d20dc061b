use serde_json::json;

use super::*;

/// A pod with containers of these names, the first the sandbox's.
fn pod(id: &str, namespace: &str, name: &str, containers: &[&str]) -> Pod {
    let one = |id: String, container: Option<&str>| {
        json!({
            "id": id, "bundle": "/b", "pid": 1, "status": "running", "created": 0, "cgroup": "/c", "profile": "standard", "profile_toml": "",
            "unavailable": [], "users": null, "open_files": 0, "core_size": 0, "filters": 0, "watched": false, "updated": false,
            "learning": false, "usage": { "memory": 0, "memory_limit": null, "pids": 0, "pids_limit": null, "cpu": 0 }, "denials": [],
            "names": { "namespace": namespace, "pod": name, "container": container }
        })
    };
    let named = containers.iter().enumerate();
    let named = named.map(|(i, name)| one(format!("{id}{i}"), Some(name)));
    let all: Vec<_> = [one(id.into(), None)].into_iter().chain(named).collect();
    let pod = json!({
        "id": id, "namespace": "k8s.io", "pid": 7, "version": "0", "class": "hardened", "broken": null, "started": 0, "containers": all
    });
    serde_json::from_value(pod).unwrap()
}

fn all() -> Vec<Pod> {
    vec![
        pod("aaa", "shop", "web", &["nginx", "log"]),
        pod("abb", "test", "web", &["nginx"]),
        pod("bcc", "shop", "db", &["db", "nginx-exporter"]),
    ]
}

/// The id of what a name stands for, or the error.
fn meant(name: &str) -> String {
    match choose(&mut all(), name) {
        Ok(Some(t)) => t.container.unwrap_or_else(|| format!("pod {}", t.pod.id)),
        Ok(None) => "nothing".into(),
        Err(e) => e.to_string(),
    }
}

#[test]
fn every_name_of_a_pod_and_of_a_container_finds_it() {
    for (name, id) in [
        ("shop/web", "pod aaa"),
        ("shop/web/nginx", "aaa0"),
        ("shop/web/(pause)", "aaa"),
        ("web/log", "aaa1"),
        ("log", "aaa1"),
        // A pod before a container of its name.
        ("db", "pod bcc"),
        ("db/db", "bcc0"),
        ("aaa", "pod aaa"),
        ("abb0", "abb0"),
        ("ab", "pod abb"),
        ("shop/nosuch", "nothing"),
        ("", "nothing"),
        ("/nginx", "nothing"),
    ] {
        assert_eq!(meant(name), id, "{name}");
    }
}

#[test]
fn a_name_of_several_lists_them() {
    assert_eq!(
        meant("web"),
        "\"web\" could be shop/web (aaa), test/web (abb): give more of the name or of the id"
    );
    assert_eq!(
        meant("nginx"),
        "\"nginx\" could be shop/web/nginx (aaa0), test/web/nginx (abb0): give more of the name or of the id"
    );
    assert_eq!(
        meant("a"),
        "\"a\" could be shop/web (aaa), test/web (abb): give more of the name or of the id"
    );
}

#[test]
fn a_mistyped_name_has_a_suggestion() {
    assert_eq!(like(&all(), "shop/wbe").as_deref(), Some("shop/web"));
    assert_eq!(like(&all(), "ngnix").as_deref(), Some("nginx"));
    assert_eq!(like(&all(), "zzz"), None);
}
