//! A private containerd, and what is asked of it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use super::output::Output;

use super::{
    BUSYBOX, PAUSE, RUNTIME, cri, kill, leftovers, processes, repository, shim_directory, slowness,
    test_directory, text, wait_until,
};

/// A release of containerd that is on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Debian 12's package: configuration version 2, the task API v2.
    V1_6,
    /// Debian sid's package: configuration version 3, the task API v3.
    V2,
}

impl Release {
    pub const ALL: [Self; 2] = [Self::V1_6, Self::V2];

    pub fn name(self) -> &'static str {
        match self {
            Self::V1_6 => "containerd_1_6",
            Self::V2 => "containerd_2",
        }
    }

    /// The directory of `containerd` and `ctr`.
    fn programs(self) -> PathBuf {
        match self {
            Self::V1_6 => PathBuf::from("/usr/bin"),
            Self::V2 => test_directory().join("containerd-2/usr/bin"),
        }
    }

    /// Why it cannot be tested here.
    pub fn missing(self) -> Option<String> {
        let program = self.programs().join("containerd");
        if !program.exists() {
            return Some(format!(
                "{} is missing: run tests/prepare.sh",
                program.display()
            ));
        }
        let version = Command::new(&program)
            .arg("--version")
            .output()
            .map(|o| text(&o.stdout))
            .unwrap_or_default();
        let expected = if self == Self::V1_6 { " 1.6." } else { " 2." };
        (!version.contains(expected)).then(|| format!("{} says {version:?}", program.display()))
    }
}

/// A handler of every test's daemon whose profile is the file of this name, with `.toml`, in [`Daemon::dir`].
pub const CLASS: &str = "class";

/// How to start a daemon.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// With the CRI plugin, a pod network and the images in its namespace.
    pub cri: bool,
    /// It logs at level debug, and so do its shims.
    pub debug: bool,
}

/// A private containerd: own root, state, address, configuration and cgroups. Dropping it ends all that it started.
pub struct Daemon {
    pub release: Release,
    /// What containers are run with: our shim under one of its names.
    pub runtime: String,
    setup: Setup,
    dir: PathBuf,
    number: u32,
    child: Option<Child>,
    /// Ids that a shim may have been started for.
    ids: Mutex<BTreeSet<String>>,
}

impl Daemon {
    /// Starts it and imports the busybox image (with CRI: all images).
    pub fn start(release: Release, setup: Setup) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("cd{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut this = Self {
            release,
            runtime: RUNTIME.into(),
            setup,
            dir,
            number,
            child: None,
            ids: Mutex::default(),
        };
        fs::write(this.dir.join("config.toml"), this.configuration()).unwrap();
        let class = format!("{CLASS}.toml");
        fs::write(this.dir.join(class), "extends = \"standard\"\n").unwrap();
        fs::create_dir_all(this.dir.join("cni")).unwrap();
        fs::write(this.dir.join("cni/10-test.conflist"), this.network()).unwrap();
        this.run();
        this.import("busybox");
        if setup.cri {
            this.import("pause");
        }
        this
    }

    /// Makes an image of `target/test/images` available.
    pub fn import(&self, image: &str) {
        let tar = test_directory().join(format!("images/{image}.tar"));
        self.ctr(["images", "import", tar.to_str().unwrap()]).ok();
        if self.setup.cri {
            let name = format!("localhost/{image}:1");
            wait_until(
                "CRI knows the imported image",
                Duration::from_secs(10),
                || cri::Client::connect(self).has_image(&name),
            );
        }
    }

    fn configuration(&self) -> String {
        let dir = self.dir.display();
        let level = if self.setup.debug { "debug" } else { "info" };
        let cni = "/usr/lib/cni";
        // Not loaded, or noisy, on a test machine.
        let common = format!(
            "root = \"{dir}/root\"\nstate = \"{dir}/state\"\noom_score = 0\n[grpc]\naddress = \"{dir}/c.sock\"\n[debug]\nlevel = \"{level}\"\n"
        );
        let drop_in = |name: &str| {
            let text = fs::read_to_string(repository().join("shim-config").join(name)).unwrap();
            text.lines()
                .filter(|l| !l.starts_with("version"))
                .collect::<Vec<_>>()
                .join("\n")
        };
        match (self.release, self.setup.cri) {
            (Release::V1_6, false) => {
                format!("version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n{common}")
            }
            (Release::V2, false) => format!(
                "version = 3\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"]\n{common}"
            ),
            // As the drop-in says: 1.x wants its tables in the main file, 2.x merges.
            (Release::V1_6, true) => format!(
                "version = 2\n{common}\
                 [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{PAUSE}\"\nrestrict_oom_score_adj = true\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{cni}\"\nconf_dir = \"{dir}/cni\"\n{}\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{CLASS}]\nruntime_type = \"{RUNTIME}\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{CLASS}.options]\nConfigPath = \"{dir}/{CLASS}.toml\"\n",
                drop_in("containerd-1.x.toml")
            ),
            (Release::V2, true) => format!(
                "version = 3\nimports = [\"{}\"]\n{common}\
                 [plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"{PAUSE}\"\n\
                 [plugins.\"io.containerd.cri.v1.runtime\"]\nrestrict_oom_score_adj = true\n\
                 [plugins.\"io.containerd.cri.v1.runtime\".cni]\nbin_dirs = [\"{cni}\"]\nconf_dir = \"{dir}/cni\"\n\
                 [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.cofferdam-userns]\n\
                 runtime_type = \"io.containerd.runc.v2\"\nruntime_path = \"{}/containerd-shim-cofferdam-v1\"\n\
                 [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.{CLASS}]\nruntime_type = \"{RUNTIME}\"\n\
                 [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.{CLASS}.options]\nConfigPath = \"{dir}/{CLASS}.toml\"\n",
                repository()
                    .join("shim-config/containerd-2.x.toml")
                    .display(),
                shim_directory().display()
            ),
        }
    }

    /// A point-to-point network of its own: no bridge that would stay behind.
    fn network(&self) -> String {
        let (high, low) = (std::process::id() % 250, self.number % 250);
        serde_json::json!({
            "cniVersion": "0.4.0",
            "name": format!("cofferdam-{}-{}", std::process::id(), self.number),
            "plugins": [{
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "dataDir": self.dir.join("ipam"),
                    "ranges": [[{ "subnet": format!("10.{high}.{low}.0/24") }]],
                    "routes": [{ "dst": "0.0.0.0/0" }]
                }
            }]
        })
        .to_string()
    }

    /// Starts the daemon's process; also after [`Daemon::stop`].
    pub fn run(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("containerd.log"))
            .unwrap();
        let path = format!(
            "{}:{}:{}",
            shim_directory().display(),
            self.release.programs().display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let child = Command::new(self.release.programs().join("containerd"))
            .args(["--config", self.dir.join("config.toml").to_str().unwrap()])
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let end = Instant::now() + Duration::from_secs(30) * slowness();
        while UnixStream::connect(self.address()).is_err() {
            let exited = self
                .child
                .as_mut()
                .is_none_or(|c| c.try_wait().unwrap().is_some());
            assert!(
                !exited && Instant::now() < end,
                "containerd does not start:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops the daemon's process, as an upgrade would: containers go on.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(child.id() as i32),
                nix::sys::signal::Signal::SIGTERM,
            )
            .ok();
            child.wait().ok();
        }
    }

    /// Its release's name, and where its programs are.
    pub fn programs(&self) -> (&'static str, PathBuf) {
        (self.release.name(), self.release.programs())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn address(&self) -> PathBuf {
        self.dir.join("c.sock")
    }

    /// The containerd namespace of the tests. It is also the parent cgroup of what `ctr` runs, so it is unique.
    pub fn namespace(&self) -> String {
        if self.setup.cri {
            "k8s.io".into()
        } else {
            format!("cdtest-{}-{}", std::process::id(), self.number)
        }
    }

    /// Notes an id that a shim will be started for, so that its socket is looked for at the end.
    pub fn remember(&self, id: &str) {
        self.ids.lock().unwrap().insert(id.to_owned());
    }

    /// The socket of the shim that was started for `id`, in the class that takes things as they are.
    pub fn socket(&self, id: &str) -> PathBuf {
        let address = containerd_shim::socket_address(
            &self.address().display().to_string(),
            &self.namespace(),
            id,
        );
        PathBuf::from(address.trim_start_matches("unix://"))
    }

    /// The same in each class.
    fn sockets_of(&self, id: &str) -> [PathBuf; 3] {
        ["", "\0hardened", "\0untrusted"].map(|class| self.socket(&format!("{id}{class}")))
    }

    /// The sockets of all shims that were started.
    pub fn sockets(&self) -> Vec<PathBuf> {
        self.ids
            .lock()
            .unwrap()
            .iter()
            .flat_map(|id| self.sockets_of(id))
            .collect()
    }

    /// The parent cgroup for pods.
    pub fn cgroup_parent(&self) -> String {
        format!("/cdtest-{}-{}", std::process::id(), self.number)
    }

    /// containerd's and our shims' log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("containerd.log")).unwrap_or_default()
    }

    /// The bundle of a container.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.dir
            .join("state/io.containerd.runtime.v2.task")
            .join(self.namespace())
            .join(id)
    }

    /// A `ctr` command.
    pub fn ctr_command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(self.release.programs().join("ctr"));
        command
            .arg("--address")
            .arg(self.address())
            .args(["--namespace", &self.namespace()])
            .args(args);
        command.stdin(Stdio::null());
        command
    }

    /// Runs `ctr`.
    pub fn ctr<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        Output::of(&mut self.ctr_command(args))
    }

    /// `ctr run FLAGS --runtime … IMAGE ID COMMAND`.
    pub fn run_command(&self, flags: &[&str], id: &str, command: &[&str]) -> Command {
        self.remember(id);
        let mut args = vec!["run", "--runtime", &self.runtime, "--fifo-dir"];
        let fifos = self.dir.join("fifos");
        args.push(fifos.to_str().unwrap());
        args.extend(flags);
        args.extend([BUSYBOX, id]);
        args.extend(command);
        self.ctr_command(args)
    }

    /// Runs a container to its end and removes it.
    pub fn run_container(&self, flags: &[&str], id: &str, command: &[&str]) -> Output {
        let flags: Vec<&str> = std::iter::once("--rm")
            .chain(flags.iter().copied())
            .collect();
        Output::of(&mut self.run_command(&flags, id, command))
    }

    /// Starts a container in the background; it has no streams.
    #[track_caller]
    pub fn run_detached(&self, flags: &[&str], id: &str, command: &[&str]) {
        let flags: Vec<&str> = std::iter::once("--detach")
            .chain(flags.iter().copied())
            .collect();
        Output::of(&mut self.run_command(&flags, id, command)).ok();
    }

    /// Runs a command in a container.
    pub fn exec(&self, flags: &[&str], id: &str, exec_id: &str, command: &[&str]) -> Output {
        Output::of(&mut self.exec_command(flags, id, exec_id, command))
    }

    pub fn exec_command(
        &self,
        flags: &[&str],
        id: &str,
        exec_id: &str,
        command: &[&str],
    ) -> Command {
        let fifos = self.dir.join("fifos");
        let mut args = vec![
            "tasks",
            "exec",
            "--fifo-dir",
            fifos.to_str().unwrap(),
            "--exec-id",
            exec_id,
        ];
        args.extend(flags);
        args.push(id);
        args.extend(command);
        self.ctr_command(args)
    }

    /// Status of a task as `ctr` shows it (`RUNNING`, …); `None` where there is none.
    pub fn task_status(&self, id: &str) -> Option<String> {
        let list = self.ctr(["tasks", "list"]).ok().stdout;
        list.lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>())
            .find(|l| l.first() == Some(&id))
            .map(|l| l[2].to_owned())
    }

    /// The pid of a container's init.
    pub fn pid(&self, id: &str) -> i32 {
        let list = self.ctr(["tasks", "list"]).ok().stdout;
        let line = list
            .lines()
            .find(|l| l.split_whitespace().next() == Some(id))
            .unwrap_or_else(|| panic!("no task {id}: {list}"));
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Kills and removes a container, whatever its state.
    pub fn remove(&self, id: &str) {
        self.ctr(["tasks", "delete", "--force", id]);
        self.ctr(["containers", "delete", id]);
    }

    /// Pids of our shims' servers: they are told this daemon's address.
    pub fn shims(&self) -> Vec<i32> {
        let address = self.address().display().to_string();
        processes()
            .into_iter()
            .filter(|(_, args)| args.contains(&address) && args.iter().any(|a| a == "serve"))
            .map(|(p, _)| p)
            .collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            writeln!(
                std::io::stderr(),
                "--- log of {}:\n{}---",
                self.release.name(),
                tail(&self.log(), 25)
            )
            .ok();
        }
        if self.setup.cri && !leftovers::tasks(self).is_empty() && self.child.is_some() {
            // A failed test's pods, so that their networks go as well.
            let client = cri::Client::connect(self);
            for pod in client.pods() {
                client
                    .stop_pod(&pod)
                    .and_then(|()| client.remove_pod(&pod))
                    .ok();
            }
        }
        // Shims first: containerd cleans up after them.
        for pid in self.shims() {
            kill(pid);
        }
        wait_quietly(Duration::from_secs(5), || leftovers::tasks(self).is_empty());
        self.stop();
        leftovers::remove(self);
        if std::env::var_os("COFFERDAM_KEEP").is_none() {
            fs::remove_dir_all(&self.dir).ok();
        }
    }
}

fn wait_quietly(within: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + within;
    while !done() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text
        .lines()
        .filter(|l| !l.contains("loading plugin") && !l.contains("skip loading"))
        .collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
