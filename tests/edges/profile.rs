//! Profiles on the command line.

use std::fs;
use std::os::unix::net::UnixDatagram;

use serde_json::json;

use super::situations;
use super::subject::Subject;
use crate::support::place::program;
use crate::support::{Output, leftovers};

situations! {
    a_profile_by_a_flag, COMMAND, "podman --runtime-flag", "NoNewPrivs: 1 Seccomp: 2";
    a_profile_by_the_name_of_a_link, COMMAND, "podman --runtime", "NoNewPrivs: 1 Seccomp: 2";
    a_profile_and_a_service_manager, COMMAND, "podman --sdnotify", "0";
    a_profile_without_groups, COMMAND, "crun --cgroup-manager", "refused: need control groups";
    a_profile_of_an_ordinary_user, ROOTLESS, "podman rootless", "refused: for containers that root makes";
    hooks_of_a_profile_are_the_judged_ones, COMMAND, "CVE-2023-27561", "prestart poststart poststop; no LD_PRELOAD";
    an_update_of_zero_under_a_profile, COMMAND, "runc#4014", "50";
}

const STATUS: &str = "echo $(grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status)";

/// What a profile needs of the test's spec.
fn hardened(s: &mut Subject) -> &mut Subject {
    s.set("/process/noNewPrivileges", json!(false));
    s
}

fn run_with(s: &Subject, flags: &[&str]) -> Output {
    s.write_spec();
    let args = [flags, &["run", "--bundle", s.bundle(), &s.id]].concat();
    s.call(&args)
}

fn a_profile_by_a_flag(s: &mut Subject) -> String {
    hardened(s).script(STATUS);
    run_with(s, &["--profile", "hardened"]).ok().stdout
}

fn a_profile_by_the_name_of_a_link(s: &mut Subject) -> String {
    hardened(s).script(STATUS);
    s.write_spec();
    let link = s.dir.join("run/cofferdam-hardened");
    std::os::unix::fs::symlink(program(), &link).unwrap();
    let mut run = std::process::Command::new(link);
    run.arg("--root")
        .arg(s.dir.join("run/state"))
        .args(["run", "--bundle", s.bundle(), &s.id])
        .current_dir("/");
    Output::of(&mut run).ok().stdout
}

fn a_profile_and_a_service_manager(s: &mut Subject) -> String {
    let path = s.dir.join("run/manager");
    let _manager = UnixDatagram::bind(&path).unwrap();
    s.environment
        .push(("NOTIFY_SOCKET".into(), path.display().to_string()));
    hardened(s).script("[ -n \"$NOTIFY_SOCKET\" ]");
    let out = run_with(s, &["--profile", "hardened"]);
    assert_eq!(out.stderr, "");
    out.status.to_string()
}

fn refused(out: &Output, why: &str) -> String {
    if out.status != 0 && out.stderr.contains(why) {
        format!("refused: {why}")
    } else {
        format!("{out:?}")
    }
}

fn a_profile_without_groups(s: &mut Subject) -> String {
    let flags = ["--profile", "hardened", "--cgroup-manager", "disabled"];
    refused(&run_with(hardened(s), &flags), "need control groups")
}

fn a_profile_of_an_ordinary_user(s: &mut Subject) -> String {
    let out = run_with(s, &["--profile", "hardened"]);
    refused(&out, "for containers that root makes")
}

/// A profile that lists a hook, whose environment is the node's to choose.
fn hooks_of_a_profile_are_the_judged_ones(s: &mut Subject) -> String {
    let name = format!("{}-hooks", s.id);
    let log = s.dir.join("log");
    let hook = s.dir.join("hook");
    let script = format!(
        "#!/bin/sh\nstatus=$(cat)\nenv | grep -q LD_PRELOAD && echo LD_PRELOAD >> {0}\necho \"$1\" >> {0}\n",
        log.display()
    );
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir_all("/etc/cofferdam").unwrap();
    let profile = std::path::PathBuf::from(format!("/etc/cofferdam/{name}.toml"));
    let text = format!("extends = \"hardened\"\n[pod]\nhooks = [{hook:?}]\n");
    fs::write(&profile, text).unwrap();
    let one = |kind: &str| json!([{ "path": hook, "args": ["hook", kind], "env": ["LD_PRELOAD=/no/such.so"] }]);
    s.set(
        "/hooks",
        json!({ "prestart": one("prestart"), "poststart": one("poststart"), "poststop": one("poststop") }),
    );
    let out = run_with(hardened(s), &["--profile", &name]);
    fs::remove_file(profile).unwrap();
    assert_eq!(out.stderr, "");
    let said = fs::read_to_string(log).unwrap();
    let preloaded = said.contains("LD_PRELOAD");
    format!(
        "{}; {}",
        said.split_whitespace().collect::<Vec<_>>().join(" "),
        if preloaded {
            "LD_PRELOAD"
        } else {
            "no LD_PRELOAD"
        }
    )
}

fn an_update_of_zero_under_a_profile(s: &mut Subject) -> String {
    hardened(s).set("/linux/resources/pids", json!({ "limit": 50 }));
    s.set("/process/args", json!(["sleep", "1000"]));
    s.write_spec();
    let mut create = s.command(&[
        "--profile",
        "hardened",
        "create",
        "--bundle",
        s.bundle(),
        &s.id,
    ]);
    let null = std::process::Stdio::null;
    assert!(
        create
            .stdout(null())
            .stderr(null())
            .status()
            .unwrap()
            .success()
    );
    s.call(&["update", "--pids-limit", "0", &s.id]).ok();
    let group = s.spec["linux"]["cgroupsPath"].as_str().unwrap().to_owned();
    let files = leftovers::hierarchies().into_iter();
    let mut files = files.map(|h| h.join(group.trim_start_matches('/')).join("pids.max"));
    let found = files.find_map(|file| fs::read_to_string(file).ok());
    found.unwrap_or_default()
}
