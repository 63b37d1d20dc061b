//! `cofferdam learn`: what a live pod uses, and the smallest profile that covers it.

use std::path::Path;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Error, Result, json, print, profile};
use crate::control::{self, Ask};
use crate::learn::{self, Recorded};

#[derive(Debug, Subcommand)]
pub(super) enum LearnCommand {
    /// Record from now on what the containers of a pod use, and those to come; or one container
    Start {
        /// A pod or a container: NAMESPACE/POD, POD/CONTAINER, an id or the beginning of one
        #[arg(value_name = "POD")]
        id: String,
    },
    /// Print what was recorded so far, and go on
    Show {
        /// A pod or a container: NAMESPACE/POD, POD/CONTAINER, an id or the beginning of one
        #[arg(value_name = "POD")]
        id: String,
        /// As JSON, with everything that was counted
        #[arg(long)]
        json: bool,
    },
    /// List what is being recorded, and the recordings of deleted containers that nobody has taken yet
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the profile that covers it, and record no more. Of a container that was deleted meanwhile, too
    Stop {
        /// A pod or a container: NAMESPACE/POD, POD/CONTAINER, an id or the beginning of one
        #[arg(value_name = "POD")]
        id: String,
        /// Where to: NAME.toml and NAME.seccomp.json for each container
        #[arg(short, long, default_value = ".")]
        output: std::path::PathBuf,
        /// Its name; for one container. The container's id without it
        #[arg(short, long)]
        name: Option<String>,
    },
}

/// The shim's pid, and the container that is meant; none for all of the pod.
fn target(id: &str) -> Result<(u32, Option<String>)> {
    let target = control::find(id)?;
    Ok((target.pod.pid, target.container))
}

pub(super) fn run(command: &LearnCommand) -> Result<()> {
    match command {
        LearnCommand::Start { id } => start(id),
        LearnCommand::Show { id, json } => show(id, *json),
        LearnCommand::List { json } => list(*json),
        LearnCommand::Stop { id, output, name } => stop(id, output, name.as_deref()),
    }
}

fn start(id: &str) -> Result<()> {
    let (pid, container) = target(id)?;
    let started: Vec<String> = control::ask(pid, &Ask::LearnStart { container })?;
    for id in &started {
        print(&format!("recording {id}\n"));
    }
    if started.is_empty() {
        print("recording the containers to come\n");
    }
    Ok(())
}

/// What was recorded of a pod or container, which may be deleted; and the shim to be told, where there is one.
fn recorded(id: &str) -> Result<(Vec<Recorded>, Option<u32>, Option<String>)> {
    if let Some(kept) = learn::kept(id) {
        return Ok((vec![kept], None, None));
    }
    let (pid, container) = target(id)?;
    let question = Ask::LearnShow {
        container: container.clone(),
    };
    let all = control::ask(pid, &question)?;
    Ok((all, Some(pid), container))
}

fn show(id: &str, as_json: bool) -> Result<()> {
    let (all, ..) = recorded(id)?;
    if all.is_empty() {
        return Err(nothing(id));
    }
    if as_json {
        let items: Vec<json::Recording<'_>> = all.iter().map(json::Recording::from).collect();
        json::print("Recordings", json!({ "items": items }));
        return Ok(());
    }
    for recorded in &all {
        let file = format!("{}.seccomp.json", recorded.container);
        print(&learn::learnt(recorded, Path::new(&file)).profile);
    }
    Ok(())
}

/// A recording in a list.
fn listed(container: &str, name: Option<String>, profile: &str, is_live: bool) -> Value {
    json!({ "container": container, "name": name, "profile": profile, "recording": is_live })
}

fn list(as_json: bool) -> Result<()> {
    let mut all = Vec::new();
    for found in control::pods()? {
        let pod = match found.pod {
            Ok(pod) => pod,
            Err(e) => {
                log::warn!("shim {} {e}", found.pid);
                continue;
            }
        };
        for container in pod.containers.iter().filter(|c| c.learning) {
            let name = format!("{}/{}", pod.title(), container.title());
            all.push(listed(&container.id, Some(name), &container.profile, true));
        }
    }
    let kept = learn::all_kept();
    all.extend(
        kept.iter()
            .map(|r| listed(&r.container, None, &r.profile, false)),
    );
    if as_json {
        json::print("RecordingList", json!({ "items": all }));
        return Ok(());
    }
    for one in &all {
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        let state = if one["recording"] == true {
            "recording"
        } else {
            "kept"
        };
        print(&format!(
            "{:<10} {}  {}\n",
            state,
            text("container"),
            text("name")
        ));
    }
    Ok(())
}

fn nothing(id: &str) -> Error {
    Error::Other(format!(
        "{id}: nothing is being recorded: `cofferdam learn start {id}` begins"
    ))
}

/// Whether the profile is right, and what becomes of the container that it was learnt from.
fn tried(profile: &Path, container: &str) -> Result<String> {
    let spec = control::find(container).ok();
    let spec = spec.and_then(|t| Some(t.containers().next()?.bundle.join("config.json")));
    profile::trial(&profile.to_string_lossy(), spec.as_deref())?;
    let text = match spec {
        Some(_) => "the profile is right, and takes the container as it is",
        None => "the profile is right (the container is gone, so its spec was not tried)",
    };
    Ok(format!(
        "{text}; run it as a class before you rely on it: docs/profiles.md has the steps"
    ))
}

fn stop(id: &str, output: &Path, name: Option<&str>) -> Result<()> {
    let (all, shim, container) = recorded(id)?;
    if name.is_some() && all.len() > 1 {
        return Err(Error::Other(format!(
            "{} containers were recorded: --name is for one",
            all.len()
        )));
    }
    let mut failed = Vec::new();
    for recorded in &all {
        let name = name.unwrap_or(&recorded.container);
        let (profile, filter, calls) = learn::store(recorded, output, name)
            .map_err(Error::io(format!("write into {}", output.display())))?;
        let before = match recorded.allowed {
            Some(n) => format!(" (the pod's own filter allows {n})"),
            None => String::new(),
        };
        print(&format!(
            "{}: {calls} calls{before}\n  {}\n  {}\n",
            recorded.container,
            profile.display(),
            filter.display()
        ));
        for gap in &recorded.gaps {
            print(&format!("  not recorded: {gap}\n"));
        }
        match tried(&profile, &recorded.container) {
            Ok(text) => print(&format!("  tried: {text}\n")),
            Err(e) => failed.push(format!("{}: {e}", profile.display())),
        }
    }
    if !failed.is_empty() {
        return Err(Error::Other(format!(
            "what was written does not work, and the recording goes on: {}",
            failed.join("; ")
        )));
    }
    // Only now that the files are there: where that failed, nothing is lost.
    match shim {
        Some(pid) => {
            control::ask::<Vec<Recorded>>(pid, &Ask::LearnStop { container })?;
        }
        None => learn::forget(id),
    }
    if all.is_empty() {
        return Err(nothing(id));
    }
    Ok(())
}
