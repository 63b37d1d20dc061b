//! What there is beside containerd: gVisor by its command line, and the kernel's own cost.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::measure::Times;
use crate::support::{Daemon, spec, test_directory};

/// `runsc run` of `/bin/true`, and its removal, in milliseconds; none where runsc is not installed.
pub fn runsc(daemon: &Daemon, rounds: usize) -> Option<Times> {
    Command::new("runsc").arg("--version").output().ok()?;
    let bundle = daemon.dir().join("runsc");
    fs::create_dir_all(&bundle).unwrap();
    let rootfs = test_directory().join("rootfs");
    let mut config = spec::default_spec(rootfs.to_str()?, "", &["/bin/true"]);
    config["root"]["readonly"] = json!(true);
    config["linux"]["cgroupsPath"] = json!(format!("/{}-runsc", daemon.namespace()));
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let times: Vec<Duration> = (0..rounds)
        .map(|i| {
            let begun = Instant::now();
            let out = Command::new("runsc")
                .args(["--network=none", "--ignore-cgroups", "--root"])
                .arg(daemon.dir().join("runsc-state"))
                .args(["run", "--bundle"])
                .arg(&bundle)
                .arg(format!("b{i}"))
                .output()
                .unwrap();
            assert!(
                out.status.success(),
                "runsc: {}",
                String::from_utf8_lossy(&out.stderr)
            );
            begun.elapsed()
        })
        .collect();
    Some(Times::of(&times))
}

/// The bare program, from its first system call to the execution; none where it was not built.
pub fn floor(daemon: &Daemon, rounds: usize) -> Option<Times> {
    let program = std::env::var_os("COFFERDAM_FLOOR")?;
    let out = Command::new(program)
        .arg(test_directory().join("rootfs"))
        .arg(daemon.dir().join("floor"))
        .arg(format!("{}-floor", daemon.namespace()))
        .arg(rounds.to_string())
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "floor: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).unwrap();
    let times: Vec<Duration> = text
        .lines()
        .map(|l| Duration::from_micros(l.parse().unwrap()))
        .collect();
    Some(Times::of(&times))
}
