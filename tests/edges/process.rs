//! The program: its environment, its capabilities, how it cannot be executed, what asks for nothing.

use std::fs;

use serde_json::json;

use super::situations;
use super::subject::{Front, Subject};

situations! {
    one_variable_twice, ALL, "runc#4325", "A=2 1";
    an_empty_home, ALL, "runc#4704, youki#3269", "/root 1";
    variables_that_are_none, ALL, "kata#2829, runc#3850", "process.env[1]: \"NOTHING\" is not KEY=VALUE; process.env[1]: \"=x\" is not KEY=VALUE";
    bytes_that_are_not_utf8, ALL, "runc#2528", "A=a\u{fffd}b";
    ambient_without_inheritable, ALL, "runc#4367, beta9#967", "CapAmb: 0000000000000000";
    a_script_without_an_interpreter, ALL, "runc#4171", "126 exec /script: exec format error";
    a_script_whose_interpreter_is_missing, ALL, "runc#4171", "126 exec /script: no such file or directory";
    an_exec_of_such_a_script, ALL, "runc#4171", "126 exec /script: exec format error";
    a_program_that_is_missing, ALL, "runc#3073, crun#2245", "executable file not found in $PATH";
    zero_limits, ROOT, "runc#4014, #4949, gvisor#5887", "0";
    empty_fields, ALL, "kind 6", "0";
    an_update_of_zero, ROOT, "runc#4014, #4949", "50 50";
    an_update_in_the_other_order, ROOT, "runc#3084, crun#1188", "10000 3000";
    scheduler_flags_by_their_names, COMMAND, "runc scheduler.bats", "0";
    a_filter_in_dockers_old_form, ALL, "docker", "refused: it names linux.seccomp.syscalls[0]";
    an_unknown_version, ALL, "kind 6", "refused: ociVersion";
}

fn one_variable_twice(s: &mut Subject) -> String {
    s.set("/process/env", json!(["PATH=/bin", "A=1", "A=2"]));
    s.script("echo A=$A $(xargs -0 -n1 < /proc/$$/environ | grep -c ^A=)");
    s.run().stdout
}

fn an_empty_home(s: &mut Subject) -> String {
    s.set(
        "/process/env",
        json!(["PATH=/bin", "HOME=/override", "HOME="]),
    );
    s.script("echo $HOME $(xargs -0 -n1 < /proc/$$/environ | grep -c ^HOME=)");
    s.run().stdout
}

fn variables_that_are_none(s: &mut Subject) -> String {
    let mut told = |entry: &str| {
        s.set("/process/env", json!(["PATH=/bin", entry]));
        let out = s.run();
        let text = out.stderr.trim();
        text.find("process.env")
            .map_or(format!("{out:?}"), |at| text[at..].to_owned())
    };
    [told("NOTHING"), told("=x")].join("; ")
}

fn bytes_that_are_not_utf8(s: &mut Subject) -> String {
    s.set("/process/env", json!(["PATH=/bin", "A=a@@b"]));
    s.script("echo A=$A");
    if s.front == Front::Shim {
        // containerd writes what Go has made UTF-8 of.
        s.set("/process/env/1", json!("A=a\u{fffd}b"));
        return s.run().stdout;
    }
    let mut text = s.spec.to_string().into_bytes();
    let at = text.windows(2).position(|w| w == b"@@").unwrap();
    text.splice(at..at + 2, [0xff]);
    fs::write(s.dir.join("config.json"), text).unwrap();
    s.call(&["run", "--bundle", s.bundle(), &s.id]).stdout
}

fn ambient_without_inheritable(s: &mut Subject) -> String {
    let set = json!(["CAP_KILL"]);
    s.set(
        "/process/capabilities",
        json!({ "bounding": set, "effective": set, "permitted": set, "ambient": set }),
    );
    s.script("echo $(grep CapAmb /proc/self/status)");
    s.run().stdout
}

fn a_script_without_an_interpreter(s: &mut Subject) -> String {
    s.file("/script", "\u{7f}echo hello\n");
    s.set("/process/args", json!(["/script"]));
    let out = s.run();
    format!("{} {}", out.status, out.stderr)
}

fn a_script_whose_interpreter_is_missing(s: &mut Subject) -> String {
    s.file("/script", "#!/no/such/shell\necho hello\n");
    s.set("/process/args", json!(["/script"]));
    let out = s.run();
    format!("{} {}", out.status, out.stderr)
}

fn an_exec_of_such_a_script(s: &mut Subject) -> String {
    s.file("/script", "\u{7f}echo hello\n");
    s.launch();
    let out = s.exec(&json!({ "args": ["/script"] }));
    format!("{} {}", out.status, out.stderr)
}

fn a_program_that_is_missing(s: &mut Subject) -> String {
    s.launch();
    let out = s.exec(&json!({ "args": ["nosuch"] }));
    let text = "executable file not found in $PATH";
    if out.status == 255 && out.stderr.contains(text) {
        text.into()
    } else {
        format!("{out:?}")
    }
}

fn zero_limits(s: &mut Subject) -> String {
    s.set("/linux/resources", json!({
        "devices": [], "pids": { "limit": 0 }, "network": { "classID": 0, "priorities": [] },
        "memory": { "limit": 0, "reservation": 0, "swap": 0 },
        "cpu": { "shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": "", "idle": 0, "burst": 0 },
        "blockIO": { "weight": 0, "leafWeight": 0, "weightDevice": [] },
        "hugepageLimits": [], "unified": {}, "rdma": {}
    }));
    let out = s.run();
    format!("{}{}", out.status, out.stderr)
}

fn empty_fields(s: &mut Subject) -> String {
    s.set("/hostname", json!(""))
        .set("/domainname", json!(""))
        .set("/hooks", json!({}));
    s.set("/process/apparmorProfile", json!(""))
        .set("/process/selinuxLabel", json!(""));
    s.set("/process/rlimits", json!([]))
        .set("/process/user/additionalGids", json!([]));
    for (field, empty) in [
        ("sysctl", json!({})),
        ("devices", json!([])),
        ("maskedPaths", json!([])),
        ("readonlyPaths", json!([])),
        ("mountLabel", json!("")),
        ("rootfsPropagation", json!("")),
        ("timeOffsets", json!({})),
        ("netDevices", json!({})),
    ] {
        s.set(&format!("/linux/{field}"), empty);
    }
    let out = s.run();
    format!("{}{}", out.status, out.stderr)
}

/// Changes limits of a live container.
fn update(s: &Subject, resources: &serde_json::Value) {
    if s.front == Front::Shim {
        s.shim().update(&s.id, resources).unwrap();
        return;
    }
    let file = s.dir.join("resources");
    fs::write(&file, resources.to_string()).unwrap();
    s.call(&["update", "--resources", file.to_str().unwrap(), &s.id])
        .ok();
}

/// A control file of the container's.
fn control(s: &Subject, v1: &str, v2: &str) -> String {
    let group = s.spec["linux"]["cgroupsPath"].as_str().unwrap().to_owned();
    let (controller, file) = v1.split_once('/').unwrap();
    let v1 = format!("/sys/fs/cgroup/{controller}{group}/{file}");
    let v2 = format!("/sys/fs/cgroup{group}/{v2}");
    fs::read_to_string(v1)
        .or_else(|_| fs::read_to_string(v2))
        .unwrap()
        .trim()
        .to_owned()
}

fn an_update_of_zero(s: &mut Subject) -> String {
    s.set("/linux/resources/pids", json!({ "limit": 50 }));
    s.launch();
    let before = control(s, "pids/pids.max", "pids.max");
    update(s, &json!({ "pids": { "limit": 0 } }));
    format!("{before} {}", control(s, "pids/pids.max", "pids.max"))
}

fn an_update_in_the_other_order(s: &mut Subject) -> String {
    // A quota of 50,000 in 100,000 would be five processors of a period of 10,000, and the group above has half of one.
    s.set(
        "/linux/resources/cpu",
        json!({ "period": 100_000, "quota": 50_000 }),
    );
    s.launch();
    let group = s.spec["linux"]["cgroupsPath"].as_str().unwrap();
    let above = std::path::Path::new(group)
        .parent()
        .unwrap()
        .display()
        .to_string();
    let limit = |file: &str, value: &str| fs::write(file, value);
    if limit(
        &format!("/sys/fs/cgroup/cpu{above}/cpu.cfs_quota_us"),
        "50000",
    )
    .is_err()
    {
        limit(&format!("/sys/fs/cgroup{above}/cpu.max"), "50000 100000").unwrap();
    }
    update(s, &json!({ "cpu": { "period": 10_000, "quota": 3_000 } }));
    let period = control(s, "cpu/cpu.cfs_period_us", "cpu.max");
    match period.split_once(' ') {
        Some((quota, period)) => format!("{period} {quota}"),
        None => format!("{period} {}", control(s, "cpu/cpu.cfs_quota_us", "")),
    }
}

fn scheduler_flags_by_their_names(s: &mut Subject) -> String {
    s.set(
        "/process/scheduler",
        json!({ "policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"] }),
    );
    let out = s.run();
    format!("{}{}", out.status, out.stderr)
}

fn a_filter_in_dockers_old_form(s: &mut Subject) -> String {
    s.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "name": "mkdir", "names": null, "action": "SCMP_ACT_ERRNO" }]
        }),
    );
    let out = s.run();
    let named = out.stderr.contains("linux.seccomp.syscalls[0]");
    let ran = if out.status == 0 { "ran" } else { "refused" };
    if named {
        format!("{ran}: it names linux.seccomp.syscalls[0]")
    } else {
        format!("{ran}: {}", out.stderr)
    }
}

fn an_unknown_version(s: &mut Subject) -> String {
    s.set("/ociVersion", json!("2.0.0"));
    let out = s.run();
    if out.status != 0 && out.stderr.contains("ociVersion") {
        "refused: ociVersion".into()
    } else {
        format!("{out:?}")
    }
}
