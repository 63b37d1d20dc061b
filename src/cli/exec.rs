//! `exec`: one more process in a running container.

use std::fs;

use oci_spec::runtime::Process;
use serde_json::{Value, json};

use super::lifecycle::{filter, known, stdio, write_pid_file};
use super::store::{Status, Store};
use super::terminal::{self, Console, Signals};
use super::{Error, ExecArgs, Result};
use crate::executor::{self, ExecPlan, JoinedNamespaces};
use crate::isolation::Judged;
use crate::oci::{self, Request};

pub(super) fn exec(store: &Store, args: &ExecArgs) -> Result<i32> {
    let entry = store.load(&args.id)?;
    match entry.status() {
        Status::Running | Status::Created => {}
        status => {
            return Err(Error::Other(format!(
                "cannot exec in a {} container",
                status.name()
            )));
        }
    }
    let init = entry
        .pidfd()
        .ok_or_else(|| Error::Other("cannot exec in a stopped container".into()))?;
    let container = known(&entry.saved.bundle)?;
    let process = match &args.process {
        Some(path) => {
            let text = fs::read(path).map_err(Error::io(format!("read {}", path.display())))?;
            oci::parse_process(&text)?
        }
        None => from_flags(&container, args)?,
    };
    let console = Console::new(
        args.console_socket.as_deref(),
        process.terminal() == Some(true),
        args.detach,
    )?;
    let process = Judged::standard(process);
    let cgroup = entry
        .cgroup()?
        .with_resctrl(&container.rest, &entry.saved.id)?;
    let signals = if args.detach {
        None
    } else {
        Some(Signals::hold()?)
    };
    let filter = filter(&container.rest)?;
    let spawned = executor::exec(ExecPlan {
        process: &process,
        id: &args.id,
        init,
        enter: JoinedNamespaces::of(&container),
        seccomp_agent: executor::seccomp_agent(
            filter.as_ref(),
            &container,
            &args.id,
            &entry.saved.bundle,
            "running",
        ),
        cgroup: Some(&cgroup),
        stdio: stdio(&process)?,
        seccomp: filter,
        confinement: None,
        watcher: None,
        new_keyring: entry.saved.new_keyring,
        preserve_fds: args.preserve_fds,
    })?
    .spawn()?;
    let child = spawned.child;
    let master = console.take(spawned.terminal)?;
    write_pid_file(args.pid_file.as_deref(), child.pid())?;
    let pidfd = child.pidfd().map_err(Error::io("duplicate a pidfd"))?;
    child.leave();
    match signals {
        Some(signals) => terminal::attend(&pidfd, master, &signals),
        None => Ok(0),
    }
}

/// The container's own process, changed by what the flags say.
fn from_flags(container: &Request, args: &ExecArgs) -> Result<Process> {
    if args.command.is_empty() {
        return Err(Error::Other(
            "exec needs a command, or --process FILE".into(),
        ));
    }
    let own = container
        .rest
        .process()
        .as_ref()
        .ok_or_else(|| Error::Other("process: is missing".into()))?;
    let mut p = serde_json::to_value(own).map_err(|e| Error::Other(e.to_string()))?;
    p["args"] = json!(args.command);
    p["terminal"] = json!(args.tty);
    if let Some(cwd) = &args.cwd {
        p["cwd"] = json!(cwd);
    }
    let mut append = |key: &str, values: Vec<Value>| {
        if let (Some(list), false) = (p[key].as_array_mut(), values.is_empty()) {
            list.extend(values);
        } else if !values.is_empty() {
            p[key] = Value::Array(values);
        }
    };
    append("env", args.env.iter().map(|e| json!(e)).collect());
    if let Some(user) = &args.user {
        let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
        let number = |text: &str| {
            text.parse::<u32>().map_err(|_| {
                Error::Other(format!("--user {user:?}: expected UID[:GID], two numbers"))
            })
        };
        p["user"] = json!({ "uid": number(uid)?, "gid": if gid.is_empty() { own.user().gid() } else { number(gid)? } });
    }
    if !args.additional_gids.is_empty() {
        p["user"]["additionalGids"] = json!(args.additional_gids);
    }
    for cap in &args.cap {
        let cap = cap.to_uppercase();
        let cap = if cap.starts_with("CAP_") {
            cap
        } else {
            format!("CAP_{cap}")
        };
        for set in ["bounding", "effective", "permitted"] {
            match p["capabilities"][set].as_array_mut() {
                Some(list) => list.push(json!(cap)),
                None => p["capabilities"][set] = json!([cap]),
            }
        }
    }
    if args.no_new_privs {
        p["noNewPrivileges"] = json!(true);
    }
    if let Some(profile) = &args.apparmor {
        p["apparmorProfile"] = json!(profile);
    }
    serde_json::from_value(p).map_err(|e| Error::Other(format!("exec: {e}")))
}
