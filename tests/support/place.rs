//! A container that the command line `cofferdam` drives, without containerd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::{Output, spec, test_directory};

/// The command under test.
pub fn program() -> PathBuf {
    std::env::var_os("COFFERDAM_CLI")
        .map(PathBuf::from)
        .or_else(|| option_env!("CARGO_BIN_EXE_cofferdam").map(PathBuf::from))
        .expect("COFFERDAM_CLI names the command's binary")
}

/// A place for containers, with one bundle. Dropping it removes all.
pub struct Place {
    pub dir: PathBuf,
    pub id: String,
    pub spec: Value,
}

impl Place {
    pub fn new(args: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "cdoci-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(&id);
        fs::create_dir_all(dir.join("bundle")).unwrap();
        Output::of(
            Command::new("cp")
                .arg("-a")
                .arg(test_directory().join("rootfs"))
                .arg(dir.join("bundle/rootfs")),
        )
        .ok();
        let spec = spec::default_spec("rootfs", &format!("/{id}/container"), args);
        Self { dir, id, spec }
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("bundle/rootfs")
    }

    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        spec::set(&mut self.spec, pointer, value);
        self
    }

    /// Adds a namespace.
    pub fn namespace(&mut self, value: Value) -> &mut Self {
        self.spec["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(value);
        self
    }

    pub fn mount(&mut self, value: Value) -> &mut Self {
        self.spec["mounts"].as_array_mut().unwrap().push(value);
        self
    }

    /// With a user namespace whose root owns the root file system.
    pub fn mapped(&mut self, host: u32) -> &mut Self {
        let map = json!([{ "containerID": 0, "hostID": host, "size": 65536 }]);
        self.namespace(json!({ "type": "user" }));
        self.set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map);
        Output::of(
            Command::new("chown")
                .arg("-R")
                .arg(format!("{host}:{host}"))
                .arg(self.rootfs()),
        )
        .ok();
        self
    }

    pub fn command(&self, args: &[&str]) -> Command {
        fs::write(self.dir.join("bundle/config.json"), self.spec.to_string()).unwrap();
        let mut c = Command::new(program());
        c.arg("--root")
            .arg(self.dir.join("state"))
            .args(args)
            .stdin(Stdio::null());
        c
    }

    pub fn call(&self, args: &[&str]) -> Output {
        Output::of(&mut self.command(args))
    }

    /// A directory of its own on a disk: before Linux 6.3 a tmpfs cannot map ids.
    pub fn on_disk(&self, name: &str) -> PathBuf {
        Path::new("/var/tmp").join(&self.id).join(name)
    }

    /// Runs the container to its end.
    pub fn run(&self) -> Output {
        let bundle = self.dir.join("bundle");
        self.call(&["run", "--bundle", bundle.to_str().unwrap(), &self.id])
    }

    /// Creates and starts it in the background, without streams.
    #[track_caller]
    pub fn start(&self) {
        let bundle = self.dir.join("bundle");
        let status = self
            .command(&[
                "run",
                "--detach",
                "--bundle",
                bundle.to_str().unwrap(),
                &self.id,
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub fn state(&self) -> Value {
        serde_json::from_str(&self.call(&["state", &self.id]).ok().stdout).unwrap()
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    pub fn exec(&self, script: &str) -> Output {
        self.call(&["exec", &self.id, "sh", "-c", script])
    }

    pub fn delete(&self) {
        self.call(&["delete", "--force", &self.id]).ok();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.delete();
        if !std::thread::panicking() {
            for hierarchy in crate::support::leftovers::hierarchies() {
                assert!(
                    !hierarchy.join(&self.id).exists(),
                    "a cgroup is left in {}",
                    hierarchy.display()
                );
            }
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!mounts.contains(&self.id), "a mount is left: {mounts}");
        }
        fs::remove_dir_all(&self.dir).ok();
        fs::remove_dir_all(self.on_disk("")).ok();
    }
}
