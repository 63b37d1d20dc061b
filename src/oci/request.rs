//! A container, as its spec asks for it.

use std::path::Path;

use oci_spec::runtime::Spec;

use super::{Device, Error, Hooks, Mount, Namespaces, Reading, Result, Source, validate};

/// The root file system.
#[derive(Debug)]
pub struct Root {
    /// Its directory on the node, absolute.
    pub source: Source,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

/// A spec that was read.
#[derive(Debug)]
pub struct Request {
    /// What has one meaning: process, limits, filter, sysctls, annotations and the like. The fields that are typed below are
    /// empty here, so that nobody reads them a second time.
    pub rest: Spec,
    /// The root file system.
    pub root: Root,
    /// In the spec's order.
    pub mounts: Vec<Mount>,
    /// All types.
    pub namespaces: Namespaces,
    /// Nodes to be made below `/dev` or elsewhere.
    pub devices: Vec<Device>,
    /// All kinds.
    pub hooks: Hooks,
}

impl Request {
    /// The root, where it is mounted among the node's mounts and stays there.
    pub fn root_on_node(&self) -> Option<&Path> {
        let is_there = self.namespaces.mount.is_host();
        is_there.then_some(self.root.source.path.as_path())
    }

    /// Reads the spec of a bundle.
    ///
    /// # Errors
    /// What is wrong with the spec by itself, and namespaces that cannot be opened. A bind source that cannot be opened is no
    /// error yet: its mount says so, as part of the order in which the container is set up.
    pub fn read(mut spec: Spec, bundle: &Path, reading: Reading) -> Result<Self> {
        validate::spec(&spec)?;
        let root = Root::read(&spec, bundle, reading)?;
        let mounts = Mount::read_all(&spec, bundle, reading)?;
        let namespaces = Namespaces::read(&spec, reading)?;
        let devices = Device::read_all(&spec)?;
        let hooks = Hooks::read(&spec);
        spec.set_root(None);
        spec.set_mounts(None);
        spec.set_hooks(None);
        if let Some(mut linux) = spec.linux().clone() {
            linux.set_namespaces(None);
            linux.set_devices(None);
            spec.set_linux(Some(linux));
        }
        Ok(Self {
            rest: spec,
            root,
            mounts,
            namespaces,
            devices,
            hooks,
        })
    }

    /// The container's annotation of this name.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        let all = self.rest.annotations().as_ref()?;
        all.get(name).map(String::as_str)
    }

    /// A spec that asks for the same, to be shown: mounts that were changed have their options written anew.
    pub fn to_spec(&self, asked: &Spec) -> Spec {
        let mut spec = self.rest.clone();
        let mut root = asked.root().clone();
        if let Some(root) = root.as_mut().filter(|_| self.root.read_only) {
            root.set_readonly(Some(true));
        }
        spec.set_root(root);
        spec.set_hooks(asked.hooks().clone());
        let mounts = || self.mounts.iter().map(Mount::to_spec).collect();
        spec.set_mounts(asked.mounts().as_ref().map(|_| mounts()));
        if let Some(mut linux) = spec.linux().clone() {
            let list = asked
                .linux()
                .as_ref()
                .and_then(|l| l.namespaces().as_deref());
            linux.set_namespaces(Some(self.namespaces.to_spec(list.unwrap_or_default())));
            linux.set_devices(asked.linux().as_ref().and_then(|l| l.devices().clone()));
            spec.set_linux(Some(linux));
        }
        spec
    }
}

impl Root {
    fn read(spec: &Spec, bundle: &Path, reading: Reading) -> Result<Self> {
        let root = spec
            .root()
            .as_ref()
            .ok_or_else(|| Error::field("root", "is missing"))?;
        if root.path().as_os_str().is_empty() {
            return Err(Error::field("root.path", "is empty"));
        }
        Ok(Self {
            source: Source::read(bundle.join(root.path()), reading),
            read_only: root.readonly() == Some(true),
        })
    }
}
