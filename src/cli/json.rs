//! What `--json` prints: documents of one version, described in docs/json.md.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Value, json};

use super::print_json;
use crate::control;
use crate::learn;
use crate::sys::time::rfc3339;

/// The version of all documents. Keys may be added to it; one that goes, or means something else, makes another version.
pub(super) const VERSION: &str = "cofferdam/v1";

/// Prints a document of this kind: its version, its kind, and the keys of `body`.
pub(super) fn print(kind: &str, body: Value) {
    let mut document = json!({ "apiVersion": VERSION, "kind": kind });
    if let (Some(all), Value::Object(body)) = (document.as_object_mut(), body) {
        all.extend(body);
    }
    print_json(&format!("{document:#}\n"));
}

/// A command that failed, instead of its document.
pub(super) fn print_error(message: &str, status: i32) {
    print("Error", json!({ "message": message, "status": status }));
}

/// A time in seconds since 1970, as RFC 3339.
pub(super) fn date(seconds: u64) -> String {
    rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// A number that stands for "no limit" where it is as large as can be.
pub(super) fn limit(value: u64) -> Option<u64> {
    (value < i64::MAX as u64).then_some(value)
}

/// A pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pod<'a> {
    id: &'a str,
    name: Option<String>,
    namespace: &'a str,
    class: &'a str,
    started: String,
    shim: Value,
    error: Option<&'a str>,
    containers: Vec<Container<'a>>,
}

impl<'a> From<&'a control::Pod> for Pod<'a> {
    fn from(pod: &'a control::Pod) -> Self {
        Self {
            id: &pod.id,
            name: pod.name(),
            namespace: &pod.namespace,
            class: &pod.class,
            started: date(pod.started),
            shim: json!({ "pid": pod.pid, "version": pod.version }),
            error: pod.broken.as_deref(),
            containers: pod.containers.iter().map(Container::from).collect(),
        }
    }
}

/// A container of a pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container<'a> {
    id: &'a str,
    names: &'a crate::names::Names,
    sandbox: bool,
    pid: i32,
    status: &'a str,
    created: String,
    bundle: &'a std::path::Path,
    profile: &'a str,
    unavailable: &'a [control::Unavailable],
    filters: u32,
    learning: bool,
    memory_bytes: u64,
    memory_limit_bytes: Option<u64>,
    processes: u64,
    process_limit: Option<u64>,
    cpu_nanoseconds: u64,
    denials: &'a [control::Denials],
}

impl<'a> From<&'a control::Container> for Container<'a> {
    fn from(c: &'a control::Container) -> Self {
        Self {
            id: &c.id,
            names: &c.names,
            sandbox: c.is_sandbox(),
            pid: c.pid,
            status: &c.status,
            created: date(c.created),
            bundle: &c.bundle,
            profile: &c.profile,
            unavailable: &c.unavailable,
            filters: c.filters,
            learning: c.learning,
            memory_bytes: c.usage.memory,
            memory_limit_bytes: c.usage.memory_limit.and_then(limit),
            processes: c.usage.pids,
            process_limit: c.usage.pids_limit.and_then(limit),
            cpu_nanoseconds: c.usage.cpu,
            denials: &c.denials,
        }
    }
}

/// What a container used, while it was recorded.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Recording<'a> {
    container: &'a str,
    profile: &'a str,
    since: String,
    from_start: bool,
    calls: &'a BTreeMap<String, u64>,
    allowed_calls: Option<usize>,
    capabilities: &'a BTreeMap<String, learn::Decided>,
    files: &'a BTreeMap<String, learn::Use>,
    changed: &'a BTreeSet<String>,
    unresolved: &'a BTreeSet<String>,
    gaps: &'a [String],
}

impl<'a> From<&'a learn::Recorded> for Recording<'a> {
    fn from(recorded: &'a learn::Recorded) -> Self {
        Self {
            container: &recorded.container,
            profile: &recorded.profile,
            since: date(recorded.since),
            from_start: recorded.from_start,
            calls: &recorded.calls,
            allowed_calls: recorded.allowed,
            capabilities: &recorded.capabilities,
            files: &recorded.files,
            changed: &recorded.changed,
            unresolved: &recorded.unresolved,
            gaps: &recorded.gaps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../docs/json.md");

    fn keys(value: &Value, all: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    all.push(key.clone());
                    keys(value, all);
                }
            }
            Value::Array(list) => list.iter().for_each(|v| keys(v, all)),
            _ => {}
        }
    }

    #[test]
    fn every_key_is_documented() {
        let container = json!({
            "id": "c", "names": { "namespace": "n", "pod": "p", "container": "c" }, "bundle": "/b", "pid": 1, "status": "running",
            "created": 0, "cgroup": "/c", "profile": "hardened", "profile_toml": "",
            "unavailable": [{ "key": "k", "what": "w", "why": "y", "accepted": true }], "users": null,
            "open_files": u64::MAX, "core_size": u64::MAX, "filters": 0, "watched": false, "updated": false, "learning": false,
            "usage": { "memory": 0, "memory_limit": u64::MAX, "pids": 0, "pids_limit": null, "cpu": 0 },
            "denials": [{ "call": "mount", "rule": "r", "what": "denied", "count": 1 }]
        });
        let pod: control::Pod = serde_json::from_value(json!({
            "id": "p", "namespace": "k8s.io", "pid": 7, "version": "0", "class": "hardened", "broken": null, "started": 0,
            "containers": [container]
        }))
        .unwrap();
        let document = json!(Pod::from(&pod));
        assert_eq!(document["containers"][0]["memoryLimitBytes"], Value::Null);
        let mut all = Vec::new();
        keys(&document, &mut all);
        for key in all {
            assert!(DOCUMENT.contains(&format!("`{key}`")), "{key}");
        }
    }
}
