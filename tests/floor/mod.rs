//! The floor of a class, whoever writes the pod or the spec: what ../docs/security.md says of host paths, hooks, namespaces,
//! groups of pods, updates and quotas, tried as an attacker would; and the volumes of Kubernetes, which must go on working.

mod beside;
mod hooks;
mod kubernetes;
mod shim;
mod spec;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

use crate::Case;
use crate::support::cri::{self, Client, PodSandboxConfig};
use crate::support::place::program;
use crate::support::shim::{Shim, Streams};
use crate::support::{BUSYBOX, Daemon, Output, Release};

const HARDENED: &str = "containerd-shim-cofferdam-hardened-v1";
const UNTRUSTED: &str = "containerd-shim-cofferdam-untrusted-v1";
const CLASSES: [&str; 2] = ["cofferdam-hardened", "cofferdam-untrusted"];

use beside::{
    bundles_of_others, links_of_an_image, mounts_below_a_listed_path, roots_beside_the_spec,
    streams_are_no_files,
};
use hooks::{environment_of_hooks, hooks_in_their_places};
use kubernetes::{
    annotations_choose_no_pod, files_of_others, groups_are_private, hooks_of_devices, host_paths,
    kubelet_elsewhere, links_in_volumes, swapped_sources, volumes,
};
use shim::{
    escape_sequences, foreign_peers, groups_of_others, names_that_are_no_text, one_shim_one_pod,
    quotas_of_a_pod, stopped_execs, the_nodes_null_device, threads_are_not_held,
    users_after_a_refusal, users_beside_a_refusal, what_the_shim_keeps,
};
use spec::{
    devices_of_a_spec, hooks_and_loggers, mounts_of_a_spec, namespaces_by_path,
    namespaces_of_others, updates,
};

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::cri("floor::volumes", volumes),
        Case::cri("floor::host_paths", host_paths),
        Case::cri("floor::links_in_volumes", links_in_volumes),
        Case::cri("floor::swapped_sources", swapped_sources).only(Release::V2),
        Case::cri("floor::hooks_of_devices", hooks_of_devices).only(Release::V2),
        Case::cri("floor::groups_are_private", groups_are_private),
        Case::ctr(
            "floor::annotations_choose_no_pod",
            annotations_choose_no_pod,
        ),
        Case::plain("floor::kubelet_elsewhere", kubelet_elsewhere),
        Case::plain("floor::files_of_others", files_of_others),
        Case::plain("floor::mounts_of_a_spec", mounts_of_a_spec),
        Case::plain("floor::namespaces_by_path", namespaces_by_path),
        Case::plain("floor::hooks_and_loggers", hooks_and_loggers),
        Case::plain("floor::hooks_in_their_places", hooks_in_their_places),
        Case::plain("floor::updates", updates),
        Case::plain("floor::names_that_are_no_text", names_that_are_no_text),
        Case::plain("floor::escape_sequences", escape_sequences),
        Case::plain("floor::quotas_of_a_pod", quotas_of_a_pod),
        Case::plain("floor::threads_are_not_held", threads_are_not_held),
        Case::plain("floor::stopped_execs", stopped_execs),
        Case::plain("floor::what_the_shim_keeps", what_the_shim_keeps),
        Case::plain("floor::foreign_peers", foreign_peers),
        Case::plain("floor::the_nodes_null_device", the_nodes_null_device),
        Case::plain("floor::roots_beside_the_spec", roots_beside_the_spec),
        Case::plain("floor::streams_are_no_files", streams_are_no_files),
        Case::plain("floor::namespaces_of_others", namespaces_of_others),
        Case::plain("floor::one_shim_one_pod", one_shim_one_pod),
        Case::plain("floor::groups_of_others", groups_of_others),
        Case::plain("floor::environment_of_hooks", environment_of_hooks),
        Case::plain("floor::links_of_an_image", links_of_an_image),
        Case::plain("floor::devices_of_a_spec", devices_of_a_spec),
        Case::plain("floor::bundles_of_others", bundles_of_others),
        Case::plain("floor::users_after_a_refusal", users_after_a_refusal),
        Case::plain("floor::users_beside_a_refusal", users_beside_a_refusal),
        Case::plain(
            "floor::mounts_below_a_listed_path",
            mounts_below_a_listed_path,
        ),
    ]
}

/// A pod of Kubernetes: kubelet's directory with its uid, and CRI's sandbox. Both go with it.
struct Pod<'a> {
    client: Client,
    config: PodSandboxConfig,
    id: String,
    uid: String,
    mounts: Vec<PathBuf>,
    _daemon: &'a Daemon,
}

impl<'a> Pod<'a> {
    fn run(daemon: &'a Daemon, name: &str, class: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let uid = format!(
            "cdtest-{}-{}-{name}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let mut config = cri::pod_config(daemon, name);
        config.metadata.as_mut().unwrap().uid.clone_from(&uid);
        let client = Client::connect(daemon);
        let id = client.run_pod(&config, class).unwrap();
        daemon.remember(&id);
        let this = Self {
            client,
            config,
            id,
            uid,
            mounts: Vec::new(),
            _daemon: daemon,
        };
        fs::create_dir_all(this.directory()).unwrap();
        this
    }

    fn directory(&self) -> PathBuf {
        Path::new("/var/lib/kubelet/pods").join(&self.uid)
    }

    /// A directory or file of the pod's, made.
    fn make(&self, path: &str, is_dir: bool) -> PathBuf {
        let path = self.directory().join(path);
        if is_dir {
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "content\n").unwrap();
        }
        path
    }

    /// Mounts as kubelet and its plugins do.
    fn mount(&mut self, source: &Path, target: &Path, fstype: Option<&str>) {
        let flags = if fstype.is_some() {
            MsFlags::empty()
        } else {
            MsFlags::MS_BIND
        };
        mount(Some(source), target, fstype, flags, None::<&str>).unwrap();
        self.mounts.push(target.to_owned());
    }

    /// A container with a volume; why it was refused.
    fn start(&self, name: &str, source: &Path, at: &str, readonly: bool) -> Result<String, String> {
        let mut c = cri::container_config(name, BUSYBOX, &["sleep", "1000"]);
        c.mounts.push(cri::Mount {
            container_path: at.into(),
            host_path: source.display().to_string(),
            readonly,
            ..Default::default()
        });
        self.start_config(&c)
    }

    fn start_config(&self, c: &cri::ContainerConfig) -> Result<String, String> {
        let text = |e: containerd_client::tonic::Status| e.message().to_owned();
        let id = self
            .client
            .create(&self.id, c, &self.config)
            .map_err(text)?;
        self.client.start(&id).map_err(|e| {
            let why = text(e);
            self.client.remove(&id).ok();
            why
        })?;
        Ok(id)
    }

    #[track_caller]
    fn sh(&self, container: &str, script: &str) -> String {
        let out = self
            .client
            .exec(container, &["sh", "-c", script], 20)
            .unwrap();
        assert_eq!(out.exit_code, 0, "{script}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, source: &Path, text: &str) {
        let answer = self.start("refused", source, "/host", false);
        let why = answer.expect_err(&format!("{} was mounted", source.display()));
        assert!(
            why.contains(text),
            "{}: {text:?} is not in {why:?}",
            source.display()
        );
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        self.client.stop_pod(&self.id).ok();
        self.client.remove_pod(&self.id).ok();
        for target in self.mounts.iter().rev() {
            umount2(target, MntFlags::MNT_DETACH).ok();
        }
        fs::remove_dir_all(self.directory()).ok();
    }
}

/// A directory of the node's that no class may see.
struct OfNode(PathBuf);

impl OfNode {
    fn new(name: &str) -> Self {
        let dir = PathBuf::from("/srv").join(format!("cdtest-{}-{name}", std::process::id()));
        fs::create_dir_all(dir.join("below")).unwrap();
        fs::write(dir.join("secret"), "secret of the node\n").unwrap();
        Self(dir)
    }
}

impl Drop for OfNode {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A program that tells who and where it is.
const REPORT: &str = "#!/bin/sh\n{ echo uid=$(id -u); grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; ls / | tr '\\n' ' '; } > \"$1\" 2>&1\n";

/// What is refused of a spec under a class; the reason.
fn refused(s: &Shim, change: impl FnOnce(&mut Value)) -> String {
    let mut spec = s.spec("box", &["true"]);
    change(&mut spec);
    let answer = s.create_with("box", &spec, Streams::default());
    let (_, message) = answer.expect_err("it was created");
    message
}

fn explain(id: &str) -> Output {
    Output::of(Command::new(program()).args(["explain", id]))
}

/// Execs that a container stops.
const STOPPED: usize = 70;
