//! `exec`: one more process in a running container.

use std::fs;

use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};

use super::args::ExecArgs;
use super::create::{filter, send_pidfd, stdio, write_pid_file};
use super::store::{Status, Store};
use super::systemd::check_preserved;
use super::terminal::{self, Console, Signals};
use super::{Error, Result};
use crate::cgroup::Below;
use crate::executor::{self, ExecPlan, JoinedNamespaces};
use crate::oci::{self, Inherited};

pub(super) fn exec(store: &Store, args: &ExecArgs) -> Result<i32> {
    check_preserved(args.preserve_fds)?;
    let entry = store.load(&args.id)?;
    let status = entry.status();
    match status {
        Status::Running | Status::Created => {}
        Status::Paused if args.ignore_paused => {}
        Status::Paused => {
            return Err(Error::Other(
                "cannot exec in a paused container (use --ignore-paused to override)".into(),
            ));
        }
        Status::Stopped | Status::Creating => {
            let status = status.name();
            return Err(Error::Other(format!("cannot exec in a {status} container")));
        }
    }
    let init = entry
        .pidfd()
        .ok_or_else(|| Error::Other("cannot exec in a stopped container".into()))?;
    entry.enter_users(&init)?;
    let spec = &entry.saved.spec;
    let process = process(spec, args)?;
    let console = Console::new(
        args.console_socket.as_deref(),
        process.terminal() == Some(true),
        args.detach,
    )?;
    let profile = entry.profile()?;
    let process = profile.judge_exec(process)?;
    let cgroup = entry.cgroup()?;
    let below = Below::parse(&args.cgroup, cgroup.layout())?;
    let signals = if args.detach {
        None
    } else {
        Some(Signals::hold()?)
    };
    let filter = filter(spec)?;
    let spawned = executor::exec(ExecPlan {
        process: &process,
        id: &args.id,
        init,
        enter: JoinedNamespaces::of(entry.pid())?,
        // Nobody knows what other execs have.
        may_be_traced: true,
        personality: executor::personality(spec),
        seccomp_agent: executor::seccomp_agent(
            filter.as_ref(),
            spec,
            &args.id,
            &entry.saved.bundle,
            "running",
        ),
        cgroup: Some(&cgroup),
        below: &below,
        patient: args.ignore_paused,
        stdio: stdio(&process, &console)?,
        seccomp: filter,
        confinement: profile.confinement(),
        watcher: None,
        new_keyring: entry.saved.new_keyring,
        preserve_fds: args.preserve_fds,
    })?
    .spawn()?;
    let child = spawned.child;
    log::debug!(id = args.id, pid = child.pid(); "exec");
    let master = console.take(spawned.terminal)?;
    let pidfd = child.pidfd().map_err(Error::io("duplicate a pidfd"))?;
    send_pidfd(args.pidfd_socket.as_deref(), &pidfd)?;
    write_pid_file(args.pid_file.as_deref(), child.pid())?;
    child.leave();
    match signals {
        Some(signals) => terminal::attend(&pidfd, master, &signals),
        None => Ok(0),
    }
}

/// The process to run, from a file or from flags.
fn process(spec: &Spec, args: &ExecArgs) -> Result<Process> {
    let own = spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::Other("process: is missing".into()))?;
    match &args.process {
        Some(path) => {
            let text = fs::read(path).map_err(Error::io(format!("read {}", path.display())))?;
            Ok(Inherited::of(own).complete(&text)?)
        }
        None => from_flags(own, args),
    }
}

/// The container's own process, changed by what the flags say.
fn from_flags(own: &Process, args: &ExecArgs) -> Result<Process> {
    if args.command.is_empty() {
        return Err(Error::Other(
            "exec needs a command, or --process FILE".into(),
        ));
    }
    let mut p = serde_json::to_value(own).map_err(|e| Error::Other(e.to_string()))?;
    p["args"] = json!(args.command);
    p["terminal"] = json!(args.tty);
    if let Some(cwd) = &args.cwd {
        let text = cwd
            .to_str()
            .ok_or_else(|| Error::Other(format!("--cwd {}: is not UTF-8", cwd.display())))?;
        p["cwd"] = json!(text);
    }
    let extend = |list: &mut Value, values: Vec<Value>| match list.as_array_mut() {
        Some(list) => list.extend(values),
        None if values.is_empty() => {}
        None => *list = Value::Array(values),
    };
    let values = |texts: &[String]| texts.iter().map(|t| json!(t)).collect::<Vec<_>>();
    extend(&mut p["env"], values(&args.env));
    if let Some(user) = &args.user {
        let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
        let number = |text: &str| {
            text.parse::<u32>().map_err(|_| {
                Error::Other(format!("--user {user:?}: expected UID[:GID], two numbers"))
            })
        };
        p["user"]["uid"] = json!(number(uid)?);
        if !gid.is_empty() {
            p["user"]["gid"] = json!(number(gid)?);
        }
    }
    let groups = args.additional_gids.iter().map(|g| json!(g)).collect();
    extend(&mut p["user"]["additionalGids"], groups);
    let caps: Vec<_> = args.cap.iter().map(|c| capability(c)).collect();
    if !caps.is_empty() {
        let mut sets = vec!["bounding", "effective", "permitted"];
        // As with runc: what the container's process hands on, an exec's does, too.
        let hands_on = |set: &str| {
            p["capabilities"][set]
                .as_array()
                .is_some_and(|l| !l.is_empty())
        };
        sets.extend(
            ["inheritable", "ambient"]
                .into_iter()
                .filter(|s| hands_on(s)),
        );
        for set in sets {
            extend(&mut p["capabilities"][set], values(&caps));
        }
    }
    if args.no_new_privs {
        p["noNewPrivileges"] = json!(true);
    }
    if let Some(profile) = &args.apparmor {
        p["apparmorProfile"] = json!(profile);
    }
    if let Some(label) = &args.process_label {
        p["selinuxLabel"] = json!(label);
    }
    Ok(oci::parse_process(p.to_string().as_bytes())?)
}

/// As the spec names it.
fn capability(name: &str) -> String {
    let name = name.to_uppercase();
    if name.starts_with("CAP_") {
        name
    } else {
        format!("CAP_{name}")
    }
}
