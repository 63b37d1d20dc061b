//! The commands of the documents work as they are written: they run line by line, on a node of their own.
//!
//! The node has this daemon's containerd and a pod `shop/web` of class hardened. Stand-ins take the place of what is not here: images that are
//! there already (`ctr image pull`), a Kubernetes that takes files which exist (`kubectl apply`), a podman with one image, systemctl, journalctl. Of
//! `make` it is seen that its target is there. All else is real.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use crate::support::cri::{self, Client};
use crate::support::place::program;
use crate::support::{BUSYBOX, Daemon, Output, Release, repository, shim_directory};

const DOCUMENTS: [&str; 7] = [
    "README.md",
    "docs/command-line.md",
    "docs/install.md",
    "docs/operations.md",
    "docs/profiles.md",
    "docs/security.md",
    "docs/troubleshooting.md",
];

/// The cases of this file.
pub fn cases() -> Vec<crate::Case> {
    vec![crate::Case::cri("documents::commands", commands).only(Release::V2)]
}

/// The lines of a document's shell blocks.
fn lines(document: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join(document)).unwrap();
    let mut all = Vec::new();
    for block in text.split("\n```sh\n").skip(1) {
        let block = block.split("\n```").next().unwrap();
        let lines = block
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with('#'));
        all.extend(lines.map(str::to_owned));
    }
    all
}

/// Statuses that are an answer and no failure.
fn is_answer(line: &str, status: i32) -> bool {
    match status {
        0 => true,
        // They differ; a promise that this machine cannot keep.
        1 => line.starts_with("cofferdam profile diff") || line.starts_with("cofferdam explain"),
        // Less than there could be.
        3 => line.starts_with("cofferdam check"),
        _ => false,
    }
}

struct Node {
    dir: PathBuf,
}

impl Node {
    fn new(daemon: &Daemon) -> Self {
        let dir = daemon.dir().join("documents");
        let this = Self { dir };
        for directory in [
            "bin",
            "local",
            "etc/containerd/conf.d",
            "etc/cofferdam",
            "etc/fresh",
        ] {
            fs::create_dir_all(this.dir.join(directory)).unwrap();
        }
        let (_, programs) = daemon.programs();
        let (ctr, address) = (programs.join("ctr"), daemon.address());
        let log = daemon.dir().join("containerd.log");
        // What is on a node's PATH before everything else.
        let stand_ins = [
            (
                "ctr",
                format!(
                    "case \"$1 $2\" in 'image pull') exec {ctr:?} --address {address:?} images check -q \"name==$3\";; esac\n\
                     exec {ctr:?} --address {address:?} \"$@\""
                ),
            ),
            (
                "kubectl",
                "[ \"$1 $2\" = 'apply -f' ] && exec test -s \"$3\"; exit 1".to_owned(),
            ),
            (
                "podman",
                format!(
                    "case $1 in export) exec tar -c -C {0:?}/rootfs .;; create) echo box; exit;; --runtime) exec \"$2\" --version;; esac; exit 1",
                    this.dir
                ),
            ),
            ("systemctl", "[ \"$*\" = 'restart containerd' ]".to_owned()),
            ("journalctl", format!("exec cat {log:?}")),
            (
                "make",
                format!("exec /usr/bin/make -n -C {:?} \"$@\"", repository()),
            ),
        ];
        for (name, script) in stand_ins {
            this.script(name, &script);
        }
        symlink(programs.join("containerd"), this.dir.join("bin/containerd")).unwrap();
        for class in ["", "-hardened", "-untrusted"] {
            let name = format!("containerd-shim-cofferdam{class}-v1");
            symlink(
                shim_directory().join(&name),
                this.dir.join("local").join(&name),
            )
            .unwrap();
        }
        symlink(program(), this.dir.join("local/cofferdam")).unwrap();
        fs::write(
            this.dir.join("etc/containerd/config.toml"),
            "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n\
             [plugins.\"io.containerd.cri.v1.runtime\"]\nrestrict_oom_score_adj = true\n",
        )
        .unwrap();
        // What README.md copies, the others have.
        let drop_in = "containerd-2.x.toml";
        let from = repository().join("shim-config").join(drop_in);
        fs::copy(from, this.dir.join("etc/containerd/conf.d/here.toml")).unwrap();
        this.rootfs("rootfs");
        this
    }

    fn script(&self, name: &str, text: &str) {
        let file = self.dir.join("bin").join(name);
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn rootfs(&self, path: &str) {
        let bin = self.dir.join(path).join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        symlink("busybox", bin.join("sh")).unwrap();
    }

    /// Runs the lines of a document, one after the other; those that failed, with what they said.
    fn run(&self, document: &str) -> Vec<String> {
        let lines = lines(document);
        assert!(!lines.is_empty(), "no commands in {document}");
        let work = self.dir.join(document.replace('/', "-"));
        fs::create_dir_all(&work).unwrap();
        symlink(repository().join("shim-config"), work.join("shim-config")).unwrap();
        fs::write(work.join("mine.toml"), "extends = \"hardened\"\n").unwrap();
        Output::of(Command::new(program()).arg("spec").current_dir(&work)).ok();
        if document != "README.md" {
            self.rootfs(&format!(
                "{}/box/rootfs",
                work.file_name().unwrap().display()
            ));
        }
        let mut script = format!(
            "set -e\nD={0}\nmkdir -p $D/t\nmount -t tmpfs t $D/t\nmkdir $D/t/u $D/t/w $D/t/local\n\
             cp -a $D/etc/. $D/t/u/\nmount -t overlay o -o lowerdir=/etc,upperdir=$D/t/u,workdir=$D/t/w /etc\n\
             cp -a $D/local/. $D/t/local\nmount --bind $D/t/local /usr/local/bin\nset +e\ncd {1}\n",
            self.dir.display(),
            work.display()
        );
        for (i, line) in lines.iter().enumerate() {
            fs::write(work.join(format!("line{i}")), line).unwrap();
            let line = if line.contains("cofferdam run") {
                // A shell in a container: somebody sits at a terminal, and leaves it.
                format!("echo exit | timeout 20 script -qec 'sh line{i}' /dev/null")
            } else {
                format!("timeout 60 sh line{i} < /dev/null")
            };
            script += &format!("{line} > out{i} 2>&1; echo $? > status{i}\n");
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).env(
            "PATH",
            format!(
                "{}/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                self.dir.display()
            ),
        );
        command.env("PAGER", "cat");
        Output::of(&mut command).ok();
        let read = |name: String| fs::read_to_string(work.join(name)).unwrap();
        let mut failed = Vec::new();
        for (i, line) in lines.iter().enumerate() {
            let status = read(format!("status{i}")).trim().parse().unwrap();
            if !is_answer(line, status) {
                failed.push(format!(
                    "{document}: {line}: {status}: {}",
                    read(format!("out{i}"))
                ));
            }
        }
        failed
    }
}

fn commands(d: &mut Daemon) {
    let client = Client::connect(d);
    let mut config = cri::pod_config(d, "web");
    config.metadata.as_mut().unwrap().namespace = "shop".into();
    let pod = client.run_pod(&config, "cofferdam-hardened").unwrap();
    d.remember(&pod);
    let container = cri::container_config("nginx", BUSYBOX, &["sleep", "1000"]);
    let container = client.create(&pod, &container, &config).unwrap();
    client.start(&container).unwrap();
    let image = "docker.io/library/alpine:latest";
    let (_, programs) = d.programs();
    let mut ctr = Command::new(programs.join("ctr"));
    ctr.arg("--address").arg(d.address());
    Output::of(
        ctr.args(["images", "import", "--index-name", image])
            .arg(crate::support::test_directory().join("images/busybox.tar")),
    )
    .ok();
    let node = Node::new(d);
    let failed: Vec<String> = DOCUMENTS
        .iter()
        .flat_map(|document| node.run(document))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let hello = fs::read_dir(node.dir.join("README.md")).unwrap().flatten();
    let said = hello
        .filter(|e| fs::read_to_string(e.path()).is_ok_and(|text| text == "hello\n"))
        .count();
    assert_eq!(said, 1, "what `ctr run … echo hello` says");
    client.stop_pod(&pod).unwrap();
    client.remove_pod(&pod).unwrap();
}
