//! A CRI client (gRPC, the published protos), in the few calls that a kubelet makes.

use std::path::PathBuf;

use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Status};
use k8s_cri::v1 as cri;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;

use super::{Daemon, block_on};

#[allow(unused_imports)] // each user needs some
pub use cri::{
    ContainerConfig, ContainerState, ContainerStats, ContainerStatus, ExecSyncResponse,
    LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, Mount,
    NamespaceMode, NamespaceOption, PodSandboxConfig, SecurityProfile,
};

/// How CRI writes log lines: `TIME STREAM TAG TEXT`.
pub fn log_text(log: &str, stream: &str) -> String {
    log.lines()
        .filter_map(|l| {
            let mut parts = l.splitn(4, ' ');
            let (_, of, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            (of == stream).then(|| format!("{text}{}", if tag == "F" { "\n" } else { "" }))
        })
        .collect()
}

/// A connection.
pub struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

type Result<T> = std::result::Result<T, Status>;

impl Client {
    pub fn connect(daemon: &Daemon) -> Self {
        let channel = block_on(containerd_client::connect(daemon.address())).unwrap();
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
        }
    }

    pub fn has_image(&self, name: &str) -> bool {
        let image = Some(cri::ImageSpec {
            image: name.to_owned(),
            ..Default::default()
        });
        let status = block_on(self.images.clone().image_status(cri::ImageStatusRequest {
            image,
            verbose: false,
        }));
        status.is_ok_and(|s| s.into_inner().image.is_some())
    }

    pub fn run_pod(&self, config: &PodSandboxConfig, handler: &str) -> Result<String> {
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: handler.to_owned(),
        };
        Ok(block_on(self.runtime.clone().run_pod_sandbox(request))?
            .into_inner()
            .pod_sandbox_id)
    }

    pub fn stop_pod(&self, pod: &str) -> Result<()> {
        let request = cri::StopPodSandboxRequest {
            pod_sandbox_id: pod.to_owned(),
        };
        block_on(self.runtime.clone().stop_pod_sandbox(request)).map(drop)
    }

    pub fn remove_pod(&self, pod: &str) -> Result<()> {
        let request = cri::RemovePodSandboxRequest {
            pod_sandbox_id: pod.to_owned(),
        };
        block_on(self.runtime.clone().remove_pod_sandbox(request)).map(drop)
    }

    pub fn pod_ip(&self, pod: &str) -> Result<String> {
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: pod.to_owned(),
            verbose: false,
        };
        let status = block_on(self.runtime.clone().pod_sandbox_status(request))?
            .into_inner()
            .status;
        status
            .and_then(|s| s.network)
            .map(|n| n.ip)
            .ok_or_else(|| Status::new(Code::NotFound, "the pod has no network"))
    }

    pub fn create(
        &self,
        pod: &str,
        container: &ContainerConfig,
        config: &PodSandboxConfig,
    ) -> Result<String> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(container.clone()),
            sandbox_config: Some(config.clone()),
        };
        Ok(block_on(self.runtime.clone().create_container(request))?
            .into_inner()
            .container_id)
    }

    pub fn start(&self, container: &str) -> Result<()> {
        let request = cri::StartContainerRequest {
            container_id: container.to_owned(),
        };
        block_on(self.runtime.clone().start_container(request)).map(drop)
    }

    pub fn stop(&self, container: &str, timeout: i64) -> Result<()> {
        let request = cri::StopContainerRequest {
            container_id: container.to_owned(),
            timeout,
        };
        block_on(self.runtime.clone().stop_container(request)).map(drop)
    }

    pub fn remove(&self, container: &str) -> Result<()> {
        let request = cri::RemoveContainerRequest {
            container_id: container.to_owned(),
        };
        block_on(self.runtime.clone().remove_container(request)).map(drop)
    }

    /// Runs a command in a container; `timeout` in seconds, 0 for none.
    pub fn exec(
        &self,
        container: &str,
        command: &[&str],
        timeout: i64,
    ) -> Result<ExecSyncResponse> {
        let request = cri::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(|s| (*s).to_owned()).collect(),
            timeout,
        };
        Ok(block_on(self.runtime.clone().exec_sync(request))?.into_inner())
    }

    pub fn status(&self, container: &str) -> Result<ContainerStatus> {
        let request = cri::ContainerStatusRequest {
            container_id: container.to_owned(),
            verbose: false,
        };
        let status = block_on(self.runtime.clone().container_status(request))?
            .into_inner()
            .status;
        status.ok_or_else(|| Status::new(Code::NotFound, "no status"))
    }

    pub fn stats(&self, container: &str) -> Result<ContainerStats> {
        let request = cri::ContainerStatsRequest {
            container_id: container.to_owned(),
        };
        let stats = block_on(self.runtime.clone().container_stats(request))?
            .into_inner()
            .stats;
        stats.ok_or_else(|| Status::new(Code::NotFound, "no stats"))
    }

    pub fn update(&self, container: &str, linux: LinuxContainerResources) -> Result<()> {
        let request = cri::UpdateContainerResourcesRequest {
            container_id: container.to_owned(),
            linux: Some(linux),
            ..Default::default()
        };
        block_on(self.runtime.clone().update_container_resources(request)).map(drop)
    }

    pub fn pods(&self) -> Vec<String> {
        let list = block_on(
            self.runtime
                .clone()
                .list_pod_sandbox(cri::ListPodSandboxRequest::default()),
        );
        list.map(|l| l.into_inner().items.into_iter().map(|p| p.id).collect())
            .unwrap_or_default()
    }
}

/// A pod's configuration, as a kubelet would send it.
pub fn pod_config(daemon: &Daemon, name: &str) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        log_directory: log_directory(daemon, name).display().to_string(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: daemon.cgroup_parent(),
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn log_directory(daemon: &Daemon, pod: &str) -> PathBuf {
    let dir = daemon.dir().join("logs").join(pod);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// What Kubernetes asks for by default: the pod's network and IPC, a pid namespace for each container.
pub fn namespaces() -> NamespaceOption {
    NamespaceOption {
        pid: NamespaceMode::Container.into(),
        ..Default::default()
    }
}

/// A container's configuration, with the runtime's default seccomp profile.
pub fn container_config(name: &str, image: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: name.into(),
            attempt: 0,
        }),
        image: Some(cri::ImageSpec {
            image: image.into(),
            ..Default::default()
        }),
        command: command.iter().map(|s| (*s).to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources::default()),
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(namespaces()),
                seccomp: Some(SecurityProfile::default()),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

/// The log that CRI wrote for a container.
pub fn read_log(daemon: &Daemon, pod: &str, container: &str) -> String {
    std::fs::read_to_string(
        daemon
            .dir()
            .join("logs")
            .join(pod)
            .join(format!("{container}.log")),
    )
    .unwrap_or_default()
}
