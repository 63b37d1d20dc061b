//! Recording what the containers of a pod use.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use oci_spec::runtime::{LinuxSeccompAction, Spec};
use serde_json::Value;

use super::{Container, Pod, Status, lock};
use crate::isolation::LearnPolicy;
use crate::learn::{self, Recorded, Recorder};
use crate::oci::capabilities;

/// How many calls a spec's own filter allows; none where it has no filter, or one that lists what is denied.
pub(super) fn allowed(spec: &Spec) -> Option<usize> {
    let filter = spec.linux().as_ref()?.seccomp().as_ref()?;
    if filter.default_action() == LinuxSeccompAction::ScmpActAllow {
        return None;
    }
    let rules = filter.syscalls().iter().flatten();
    let names = rules
        .filter(|r| r.action() == LinuxSeccompAction::ScmpActAllow)
        .flat_map(|r| r.names().iter());
    Some(names.collect::<std::collections::BTreeSet<_>>().len())
}

/// Why nothing is recorded, or shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// There is no such container.
    #[error(transparent)]
    Pod(#[from] super::Error),
    #[error(
        "profile {profile:?} of container {container} does not allow it: learn.policy = \"never\""
    )]
    NotAllowed { profile: String, container: String },
    #[error(transparent)]
    Recorder(#[from] learn::Error),
    #[error("container {0}: nothing is being recorded: `cofferdam learn start` begins")]
    NotRecording(String),
    #[error("{0}")]
    Encode(serde_json::Error),
}

impl Pod {
    /// A container whose profile wants it, or whose pod is being learnt from, is recorded from its program's first call on.
    pub(super) fn learn_from_start(&self, container: &Container) {
        let wanted = match container.isolation.learn() {
            LearnPolicy::Always => true,
            LearnPolicy::Allow => self.learning.load(Ordering::Relaxed),
            LearnPolicy::Never => false,
        };
        if !wanted {
            return;
        }
        match Recorder::start(container.init.pid(), true) {
            Ok(recorder) => *lock(&container.recorder) = Some(recorder),
            Err(e) => log::warn!(id:% = container.id, error:% = e; "nothing is recorded"),
        }
    }

    fn chosen(&self, container: Option<&str>) -> Result<Vec<Arc<Container>>, Error> {
        match container {
            Some(id) => Ok(vec![self.container(id)?]),
            None => Ok(self.all()),
        }
    }

    /// Begins. What is recorded already goes on.
    pub(super) fn learn_start(&self, container: Option<&str>) -> Result<Value, Error> {
        let mut started = Vec::new();
        for c in self.chosen(container)? {
            if c.isolation.learn() == LearnPolicy::Never {
                return Err(Error::NotAllowed {
                    profile: c.isolation.name().to_owned(),
                    container: c.id.clone(),
                });
            }
            let mut recorder = lock(&c.recorder);
            if recorder.is_none() && c.init.report().status != Status::Stopped {
                let from_start = c.init.report().status == Status::Created;
                *recorder = Some(Recorder::start(c.init.pid(), from_start)?);
            }
            started.push(c.id.clone());
        }
        if container.is_none() {
            self.learning.store(true, Ordering::Relaxed);
        }
        Ok(started.into())
    }

    /// Everything so far.
    pub(super) fn learn_show(&self, container: Option<&str>, stop: bool) -> Result<Value, Error> {
        let mut all = Vec::new();
        for c in self.chosen(container)? {
            if let Some(recorded) = c.recorded() {
                all.push(recorded);
            } else if container.is_some() {
                return Err(Error::NotRecording(c.id.clone()));
            }
            if stop {
                lock(&c.recorder).take();
            }
        }
        if stop && container.is_none() {
            self.learning.store(false, Ordering::Relaxed);
        }
        serde_json::to_value(all).map_err(Error::Encode)
    }
}

impl Container {
    fn recorded(&self) -> Option<Recorded> {
        let recorder = lock(&self.recorder);
        let mut recorded = recorder.as_ref()?.recorded(&self.cgroup.pids());
        // What decided for others (the kernel, the runtime) was never the container's.
        let has = |name: &String| {
            let bit = capabilities::NAMES.iter().position(|n| n == name);
            bit.is_some_and(|bit| self.capabilities >> bit & 1 == 1)
        };
        for (name, decided) in &mut recorded.capabilities {
            if !has(name) {
                decided.had = 0;
            }
        }
        recorded.capabilities.retain(|_, d| d.had + d.lacked > 0);
        Some(Recorded {
            container: self.id.clone(),
            profile: self.isolation.name().to_owned(),
            allowed: self.allowed,
            ..recorded
        })
    }

    /// Before the container goes: what was recorded stays.
    pub(super) fn keep_recording(&self) {
        let Some(recorded) = self.recorded() else {
            return;
        };
        lock(&self.recorder).take();
        match learn::keep(&recorded) {
            Ok(()) => log::info!(id:% = self.id; "its recording is kept"),
            Err(e) => log::warn!(id:% = self.id, error:% = e; "what was recorded is lost"),
        }
    }
}
