//! A container that a situation is tried on, whoever runs it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use containerd_shim_protos::api::CreateTaskResponse;
use serde_json::{Value, json};

use crate::support::place::program;
use crate::support::shim::{Shim, Streams};
use crate::support::{Output, spec, test_directory, wait_until};

/// Who runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// The command line, as root.
    Command,
    /// The command line, as an ordinary user.
    Rootless,
    /// The shim.
    Shim,
    /// runc's command line, to compare.
    Runc,
}

impl Front {
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Rootless => "rootless",
            Self::Shim => "shim",
            Self::Runc => "runc",
        }
    }
}

/// The user that rootless containers are tried as: one that every system has, with an id of its own.
pub const USER: u32 = 65534;

/// The container, before it is made and after.
pub struct Subject {
    pub front: Front,
    pub dir: PathBuf,
    pub id: String,
    pub spec: Value,
    /// More variables for whoever makes it.
    pub environment: Vec<(String, String)>,
    /// The command line's binary.
    pub program: PathBuf,
    shim: Option<Shim>,
    execs: u32,
}

impl Subject {
    pub fn new(front: Front) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("cdedge-{}-{number}", std::process::id());
        let shim = (front == Front::Shim).then(|| Shim::start(2));
        let dir = match &shim {
            Some(shim) => shim.dir().join(&id),
            None => std::env::temp_dir().join(&id),
        };
        let rootfs = dir.join("rootfs");
        fs::create_dir_all(dir.join("run")).unwrap();
        copy(&test_directory().join("rootfs"), &rootfs);
        let group = match &shim {
            Some(shim) => shim.group(&id),
            None => format!("/{id}/container"),
        };
        let mut spec = spec::default_spec("rootfs", &group, &["true"]);
        spec["annotations"]["io.kubernetes.cri.sandbox-id"] = json!("pod");
        if front == Front::Rootless {
            without_root(&mut spec);
            own(&dir);
        }
        Self {
            front,
            dir,
            id,
            spec,
            environment: Vec::new(),
            program: program(),
            shim,
            execs: 0,
        }
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        spec::set(&mut self.spec, pointer, value);
        self
    }

    pub fn script(&mut self, script: &str) -> &mut Self {
        self.set("/process/args", json!(["sh", "-c", script]))
    }

    pub fn mount(&mut self, value: Value) -> &mut Self {
        self.spec["mounts"].as_array_mut().unwrap().push(value);
        self
    }

    /// A file of the container's root, executable.
    pub fn file(&self, path: &str, text: &str) {
        let path = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        if self.front == Front::Rootless {
            own(&path);
        }
    }

    /// The shim that has it.
    pub fn shim(&self) -> &Shim {
        self.shim.as_ref().unwrap()
    }

    /// The command line, which reads the bundle's `config.json` as it is on the disk.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.front {
            Front::Runc => Command::new("runc"),
            _ => Command::new(&self.program),
        };
        let state = self.dir.join("run/state");
        command
            .arg("--root")
            .arg(&state)
            .args(args)
            .envs(self.environment.iter().cloned())
            .current_dir("/")
            .stdin(Stdio::null());
        if self.front == Front::Rootless {
            command
                .uid(USER)
                .gid(USER)
                .env("XDG_RUNTIME_DIR", self.dir.join("run"));
        }
        command
    }

    pub fn call(&self, args: &[&str]) -> Output {
        Output::of(&mut self.command(args))
    }

    /// Writes the bundle's `config.json`.
    pub fn write_spec(&self) {
        fs::write(self.dir.join("config.json"), self.spec.to_string()).unwrap();
    }

    pub fn bundle(&self) -> &str {
        self.dir.to_str().unwrap()
    }

    fn streams(&self, name: &str) -> (Streams, [PathBuf; 2]) {
        let files = ["out", "err"].map(|kind| self.dir.join(format!("{name}.{kind}")));
        for file in &files {
            fs::write(file, "").unwrap();
        }
        let [stdout, stderr] = files.clone().map(|f| format!("file://{}", f.display()));
        let streams = Streams {
            stdout,
            stderr,
            ..Streams::default()
        };
        (streams, files)
    }

    fn ended(status: Result<u32, (ttrpc::Code, String)>, files: &[PathBuf; 2]) -> Output {
        let [stdout, stderr] = files.clone().map(|f| fs::read_to_string(f).unwrap());
        match status {
            Ok(status) => Output {
                status: status as i32,
                stdout,
                stderr,
            },
            Err((_, message)) => Output {
                status: 255,
                stdout,
                stderr: format!("{stderr}{message}\n"),
            },
        }
    }

    /// Runs it to its end. A refusal has the status 1 or 255, and is on standard error.
    pub fn run(&self) -> Output {
        self.write_spec();
        let Some(shim) = &self.shim else {
            return self.call(&["run", "--bundle", self.bundle(), &self.id]);
        };
        let (streams, files) = self.streams("init");
        let status = self
            .create_in(shim, streams)
            .and_then(|()| shim.start_process(&self.id, ""))
            .and_then(|_| shim.wait(&self.id, ""));
        shim.delete(&self.id, "").ok();
        Self::ended(status, &files)
    }

    /// Creates it in the shim, on the bundle's own root.
    fn create_in(&self, shim: &Shim, streams: Streams) -> Result<(), (ttrpc::Code, String)> {
        let mut request = shim.create_request(&self.id, &self.spec, streams);
        request.rootfs.clear();
        shim.call::<CreateTaskResponse>("Create", &request)
            .map(drop)
    }

    /// Creates it.
    pub fn create(&self) -> Output {
        self.write_spec();
        match &self.shim {
            None => {
                let mut command = self.command(&["create", "--bundle", self.bundle(), &self.id]);
                let err = self.dir.join("create.err");
                let file = fs::File::create(&err).unwrap();
                command.stdout(Stdio::null()).stderr(file);
                let status = command.status().unwrap();
                Output {
                    status: status.code().unwrap_or(-1),
                    stdout: String::new(),
                    stderr: fs::read_to_string(err).unwrap(),
                }
            }
            Some(shim) => done(self.create_in(shim, Streams::default())),
        }
    }

    pub fn start(&self) -> Output {
        match &self.shim {
            None => self.call(&["start", &self.id]),
            Some(shim) => done(shim.start_process(&self.id, "").map(drop)),
        }
    }

    /// Creates and starts it: `sleep`, unless the spec has something else by now.
    #[track_caller]
    pub fn launch(&mut self) -> &mut Self {
        if self.spec["process"]["args"] == json!(["true"]) {
            self.set("/process/args", json!(["sleep", "1000"]));
        }
        self.create().ok();
        self.start().ok();
        self
    }

    /// Runs a process in it. What the request does not have is the container's.
    pub fn exec(&mut self, process: &Value) -> Output {
        self.execs += 1;
        let name = format!("exec{}", self.execs);
        let mut process = process.clone();
        if process["cwd"].is_null() {
            process["cwd"] = json!("/");
        }
        let Some(shim) = &self.shim else {
            let file = self.dir.join(&name);
            fs::write(&file, process.to_string()).unwrap();
            let file = file.to_str().unwrap();
            return self.call(&["exec", "--process", file, &self.id]);
        };
        let (streams, files) = self.streams(&name);
        let announced = shim.exec_process(&self.id, &name, &process, streams);
        let status = announced
            .and_then(|()| shim.start_process(&self.id, &name))
            .and_then(|_| shim.wait(&self.id, &name));
        shim.delete(&self.id, &name).ok();
        Self::ended(status, &files)
    }

    pub fn exec_script(&mut self, script: &str) -> Output {
        self.exec(&json!({ "args": ["sh", "-c", script] }))
    }

    pub fn pause(&self, pause: bool) -> Output {
        match &self.shim {
            None => self.call(&[if pause { "pause" } else { "resume" }, &self.id]),
            Some(shim) if pause => done(shim.pause(&self.id)),
            Some(shim) => done(shim.resume(&self.id)),
        }
    }

    pub fn status(&self) -> String {
        match &self.shim {
            None => {
                let out = self.call(&["state", &self.id]);
                let state: Value = serde_json::from_str(&out.stdout).unwrap_or_default();
                state["status"].as_str().unwrap_or("gone").to_owned()
            }
            Some(shim) => match shim.state(&self.id, "") {
                Ok(state) => format!("{:?}", state.status.unwrap()).to_lowercase(),
                Err(_) => "gone".into(),
            },
        }
    }

    /// The init's pid on the node.
    pub fn pid(&self) -> i32 {
        match &self.shim {
            None => {
                let state: Value =
                    serde_json::from_str(&self.call(&["state", &self.id]).ok().stdout).unwrap();
                state["pid"].as_i64().unwrap() as i32
            }
            Some(shim) => shim.state(&self.id, "").unwrap().pid as i32,
        }
    }

    pub fn kill(&self) {
        match &self.shim {
            None => drop(self.call(&["kill", &self.id, "KILL"])),
            Some(shim) => drop(shim.kill(&self.id, "", 9, false)),
        }
        wait_until("the container ends", Duration::from_secs(10), || {
            matches!(self.status().as_str(), "stopped" | "gone")
        });
    }

    pub fn delete(&self) -> Output {
        match &self.shim {
            None => self.call(&["delete", "--force", &self.id]),
            Some(shim) => {
                shim.kill(&self.id, "", 9, true).ok();
                shim.wait(&self.id, "").ok();
                done(shim.delete(&self.id, "").map(drop))
            }
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let (Some(shim), true) = (&self.shim, std::thread::panicking()) {
            eprintln!("{}", shim.log());
        }
        if self.shim.is_none() {
            self.call(&["delete", "--force", &self.id]);
            if !std::thread::panicking() {
                for hierarchy in crate::support::leftovers::hierarchies() {
                    let group = hierarchy.join(&self.id);
                    // What a situation has put there itself goes with it.
                    fs::remove_dir(&group).ok();
                    assert!(!group.exists(), "a group is left: {}", group.display());
                }
            }
            fs::remove_dir_all(&self.dir).ok();
        } else {
            self.delete();
        }
    }
}

fn done(result: Result<(), (ttrpc::Code, String)>) -> Output {
    let (status, stderr) = match result {
        Ok(()) => (0, String::new()),
        Err((_, message)) => (255, message),
    };
    Output {
        status,
        stdout: String::new(),
        stderr,
    }
}

fn copy(from: &Path, to: &Path) {
    Output::of(Command::new("cp").arg("-a").arg(from).arg(to)).ok();
}

fn own(path: &Path) {
    let owner = format!("{USER}:{USER}");
    Output::of(Command::new("chown").args(["-hR", &owner]).arg(path)).ok();
}

/// As `cofferdam spec --rootless` writes it.
fn without_root(spec: &mut Value) {
    let map = json!([{ "containerID": 0, "hostID": USER, "size": 1 }]);
    let linux = &mut spec["linux"];
    linux["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "type": "user" }));
    linux["uidMappings"] = map.clone();
    linux["gidMappings"] = map;
    for mount in spec["mounts"].as_array_mut().unwrap() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|o| o != "gid=5");
        }
    }
}
