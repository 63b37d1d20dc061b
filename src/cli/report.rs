//! `state`, `list`, `ps`, `events`: what is there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::store::{Entry, Status, Store};
use super::{Error, Format, Result, print, print_json};
use crate::show::shown;

/// The name of the user who made it; the number where there is no name.
fn owner(entry: &Entry) -> String {
    let Some(uid) = entry.owner() else {
        return String::new();
    };
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
    match user {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// OCI runtime.md "State", with what runc adds, in its order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Description<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'static str,
    bundle: &'a Path,
    rootfs: Option<PathBuf>,
    created: &'a str,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    annotations: HashMap<String, String>,
    owner: String,
}

impl<'a> Description<'a> {
    fn of(entry: &'a Entry) -> Self {
        let s = &entry.saved;
        let rootfs = s.spec.root().as_ref().map(|r| s.bundle.join(r.path()));
        Self {
            oci_version: s.spec.version(),
            id: &s.id,
            pid: entry.pid(),
            status: entry.status().name(),
            bundle: &s.bundle,
            rootfs,
            created: &s.created,
            annotations: s.spec.annotations().clone().unwrap_or_default(),
            owner: owner(entry),
        }
    }
}

pub(super) fn state(store: &Store, id: &str) -> Result<()> {
    let entry = store.load(id)?;
    let text = serde_json::to_string_pretty(&Description::of(&entry));
    print_json(&format!(
        "{}\n",
        text.map_err(|e| Error::Other(e.to_string()))?
    ));
    Ok(())
}

pub(super) fn list(store: &Store, format: Format, quiet: bool) {
    let all = store.all();
    if quiet {
        for e in &all {
            print(&format!("{}\n", e.saved.id));
        }
        return;
    }
    if format == Format::Json {
        let all: Vec<_> = all.iter().map(Description::of).collect();
        let text = serde_json::to_string(&all).unwrap_or_default();
        print_json(&format!("{text}\n"));
        return;
    }
    print(&format!(
        "{:<24} {:<10} {:<10} {:<32} {:<30} {}\n",
        "ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"
    ));
    for e in &all {
        let s = &e.saved;
        print(&format!(
            "{:<24} {:<10} {:<10} {:<32} {:<30} {}\n",
            s.id,
            e.pid(),
            e.status().name(),
            shown(&s.bundle.to_string_lossy()),
            s.created,
            shown(&owner(e))
        ));
    }
}

pub(super) fn ps(store: &Store, id: &str, format: Format, options: &[String]) -> Result<()> {
    let pids = store.load(id)?.pids()?;
    if format == Format::Json {
        print_json(&format!("{}\n", json!(pids)));
        return Ok(());
    }
    let options: Vec<&str> = if options.is_empty() {
        vec!["-ef"]
    } else {
        options.iter().map(String::as_str).collect()
    };
    let out = Command::new("ps")
        .args(&options)
        .output()
        .map_err(Error::io("run ps"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|c| c == "PID");
    let column = column
        .ok_or_else(|| Error::Other(format!("ps {} shows no PID column", options.join(" "))))?;
    print(&format!("{header}\n"));
    for line in lines {
        if line
            .split_whitespace()
            .nth(column)
            .and_then(|p| p.parse().ok())
            .is_some_and(|p: i32| pids.contains(&p))
        {
            print(&format!("{line}\n"));
        }
    }
    Ok(())
}

/// One line, with its keys in runc's order.
fn print_event(kind: &str, id: &str, data: Option<Value>) {
    let data = data.map(|data| format!(",\"data\":{data}"));
    let (kind, id, data) = (json!(kind), json!(id), data.unwrap_or_default());
    print_json(&format!("{{\"type\":{kind},\"id\":{id}{data}}}\n"));
}

pub(super) fn events(store: &Store, id: &str, once: bool, interval: Duration) -> Result<()> {
    let entry = store.load(id)?;
    let cgroup = entry.own_cgroup()?;
    let mut kills = cgroup.oom_kills();
    loop {
        if entry.status() == Status::Stopped {
            return if once {
                Err(Error::Other("container not running".into()))
            } else {
                Ok(())
            };
        }
        print_event("stats", id, Some(cgroup.counters().to_json()));
        if once {
            return Ok(());
        }
        std::thread::sleep(interval);
        let now = cgroup.oom_kills();
        if now > kills {
            print_event("oom", id, None);
            kills = now;
        }
    }
}
