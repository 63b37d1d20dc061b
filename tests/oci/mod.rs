//! The OCI runtime command line: its operations, and the spec's fields one by one. No daemon is involved. The fields that
//! containerd sends as well are in `process`, `resources` and `pod`; docs/conformance.md has the whole list.

mod command;
mod namespaces;
mod process;

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::Case;
use crate::support::Output;
use crate::support::place::{Place, program};

use command::{
    exec_with_flags_and_files, kill_by_name_and_number, log_file, missing_podman, operations,
    pause_resume_update_events, pid_file_and_console_socket, podman, preserved_descriptors,
    run_and_its_status, states_and_their_errors,
};
use namespaces::{
    cgroup_namespace, copy_up, id_mapped_mounts, mount_namespace_of_the_node, net_devices,
    recursive_read_only, time_namespace, user_namespace, user_namespace_by_path, without_pivot,
};
use process::{
    additional_groups_and_umask, apparmor, capabilities_that_nobody_has, console_size,
    cpu_affinity_of_exec, domainname, hooks_in_order, io_priority, memory_policy, missing_apparmor,
    personality, poststop_after_a_crash, seccomp_notification, seccomp_operators_and_actions,
};

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    macro_rules! plain {
        ($($function:ident),* $(,)?) => {
            vec![$(Case::plain(concat!("oci::", stringify!($function)), $function)),*]
        };
    }
    plain![
        operations,
        states_and_their_errors,
        run_and_its_status,
        kill_by_name_and_number,
        exec_with_flags_and_files,
        pause_resume_update_events,
        pid_file_and_console_socket,
        preserved_descriptors,
        hooks_in_order,
        poststop_after_a_crash,
        user_namespace,
        user_namespace_by_path,
        time_namespace,
        cgroup_namespace,
        mount_namespace_of_the_node,
        without_pivot,
        copy_up,
        net_devices,
        io_priority,
        personality,
        memory_policy,
        domainname,
        console_size,
        capabilities_that_nobody_has,
        wrong_specs_name_the_path,
        additional_groups_and_umask,
        seccomp_notification,
        seccomp_operators_and_actions,
        bad_ids_and_bundles,
        log_file,
    ]
    .into_iter()
    .chain([
        Case::plain("oci::podman", podman).unless(missing_podman()),
        Case::plain("oci::cpu_affinity_of_exec", cpu_affinity_of_exec).unless(one_processor()),
        Case::plain("oci::id_mapped_mounts", id_mapped_mounts).unless(before(5, 12)),
        Case::plain("oci::recursive_read_only", recursive_read_only).unless(before(5, 12)),
        Case::plain("oci::apparmor", apparmor).unless(missing_apparmor()),
    ])
    .collect()
}

/// Whether this kernel is older.
pub fn before(major: u32, minor: u32) -> Option<String> {
    let older = cofferdam::sys::kernel::version() < (major, minor);
    older.then(|| format!("needs Linux {major}.{minor}"))
}

fn one_processor() -> Option<String> {
    let more = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
    (!more).then(|| "needs two processors".into())
}

#[track_caller]
fn refused(out: &Output, text: &str) {
    assert!(
        out.status == 1 && out.stderr.contains(text),
        "{text:?} is not in {out:?}"
    );
}

/// An exec's own errors: to be told from its program's statuses.
#[track_caller]
fn exec_refused(out: &Output, text: &str) {
    assert!(
        out.status == 255 && out.stderr.contains(text),
        "{text:?} is not in {out:?}"
    );
}

/// Wrong specs are refused before anything is made, and the JSON path says where.
fn wrong_specs_name_the_path() {
    for (pointer, value, text) in [
        (
            "/linux/resources/memory",
            json!({ "limit": -5 }),
            "linux.resources.memory.limit: -5 is below -1",
        ),
        (
            "/linux/resources/memory",
            json!({ "limit": "x" }),
            "linux.resources.memory.limit: invalid type: string \"x\", expected i64",
        ),
        (
            "/linux/devices",
            json!([{ "path": "x", "type": "c", "major": 1, "minor": 3 }]),
            "linux.devices[0].path: \"x\" is not an absolute path",
        ),
        (
            "/ociVersion",
            json!("0.5.0"),
            "ociVersion: \"0.5.0\" is not supported",
        ),
    ] {
        let mut p = Place::new(&["true"]);
        p.set(pointer, value);
        refused(&p.run(), text);
    }
}

fn bad_ids_and_bundles() {
    let p = Place::new(&["true"]);
    let bundle = p.dir.join("bundle").display().to_string();
    for id in ["", ".", "..", "a/b", "a b", "../x"] {
        refused(
            &p.call(&["run", "--bundle", &bundle, id]),
            "invalid container ID format",
        );
    }
    refused(
        &p.call(&["run", "--bundle", "/no/such/bundle", &p.id]),
        "find the bundle /no/such/bundle: No such file or directory",
    );
    fs::write(p.dir.join("bundle/config.json"), "{").unwrap();
    let mut c = Command::new(program());
    c.arg("--root")
        .arg(p.dir.join("state"))
        .args(["run", "--bundle", &bundle, &p.id]);
    refused(
        &Output::of(&mut c),
        "config.json is not a valid OCI spec: EOF while parsing",
    );
    assert_eq!(p.call(&["nonsense"]).status, 2);
    assert_eq!(
        fs::read_dir(p.dir.join("state")).map_or(0, Iterator::count),
        0
    );
}
