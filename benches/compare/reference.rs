//! What there is beside containerd: gVisor by its command line, and the kernel's own cost.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::measure::Times;
use crate::support::{Daemon, spec, test_directory};

/// `RUNTIME run` of `/bin/true`, and its removal, in milliseconds: the command lines that are installed, one after the other.
pub fn command_lines(daemon: &Daemon, rounds: usize) -> Value {
    let ours = std::env::var("COFFERDAM_CLI").unwrap_or_default();
    let runtimes: [(&str, &str, &[&str]); 3] = [
        ("cofferdam", &ours, &[]),
        ("runc", "runc", &[]),
        ("runsc", "runsc", &["--network=none", "--ignore-cgroups"]),
    ];
    let here = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let bundle = daemon.dir().join("command-line");
    fs::create_dir_all(&bundle).unwrap();
    let rootfs = test_directory().join("rootfs");
    let mut config = spec::default_spec(rootfs.to_str().unwrap(), "", &["/bin/true"]);
    config["root"]["readonly"] = json!(true);
    config["linux"]["cgroupsPath"] = json!(format!("/{}-command", daemon.namespace()));
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let mut out = json!({});
    let mut times = runtimes.map(|_| Vec::new());
    for i in 0..rounds {
        for (r, (name, program, options)) in runtimes.iter().enumerate() {
            if !here(program) {
                continue;
            }
            let begun = Instant::now();
            let ended = Command::new(program)
                .args(*options)
                .arg("--root")
                .arg(daemon.dir().join(format!("{name}-state")))
                .args(["run", "--bundle"])
                .arg(&bundle)
                .arg(format!("b{i}"))
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&ended.stderr);
            assert!(ended.status.success(), "{name}: {stderr}");
            times[r].push(begun.elapsed());
            out[*name] = Times::of(&times[r]).json();
        }
    }
    out
}

/// The bare program: the kernel's own cost of what our shim does.
pub struct Floor<'a> {
    daemon: &'a Daemon,
    program: PathBuf,
    filter: PathBuf,
}

impl<'a> Floor<'a> {
    /// None where it was not built.
    pub fn new(daemon: &'a Daemon, filter: &Value) -> Option<Self> {
        let this = Self {
            daemon,
            program: std::env::var_os("COFFERDAM_FLOOR")?.into(),
            filter: daemon.dir().join("filter.json"),
        };
        fs::write(&this.filter, filter.to_string()).unwrap();
        Some(this)
    }

    /// One time, from its first system call to the execution. The group above, which it shares with the daemon's containers, is
    /// there if one of these is.
    pub fn round(&self) -> Duration {
        let out = Command::new(&self.program)
            .arg(test_directory().join("rootfs"))
            .arg(self.daemon.dir().join("floor"))
            .arg(format!("{}/floor", self.daemon.namespace()))
            .arg(&self.filter)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "floor: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        let text = String::from_utf8(out.stdout).unwrap();
        Duration::from_micros(text.trim().parse().unwrap())
    }
}
