//! From resources to control files: written, taken back when one is refused, compared with what is there.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;

use super::settings::Setting;
use super::{Cgroup, Error, Result, devices, systemd, v1, v2};
use crate::isolation::Judged;
use crate::sys::creds;

/// A limit, as it was asked for and as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// JSON path in the spec.
    pub field: String,
    /// The control file.
    pub file: String,
    /// What was asked for.
    pub wanted: String,
    /// What the file says; none where there is no file.
    pub found: Option<String>,
    /// Nobody asked for it.
    pub optional: bool,
}

impl Cgroup {
    pub(super) fn settings(&self, resources: Option<&LinuxResources>) -> Result<Vec<Setting>> {
        let mut settings = Vec::new();
        if let Some(r) = resources {
            if self.is_v2() {
                v2::settings(self, r, &mut settings)?
            } else {
                v1::settings(self, r, &mut settings)?
            }
        }
        Ok(settings)
    }

    /// For tests: the control files that resources are written to, with their values and in their order, on a node of either
    /// kind; and what its rules open, as type, major and minor, where none is any.
    ///
    /// # Errors
    /// As for applying them.
    #[cfg(any(test, fuzzing, feature = "sabotage"))]
    pub fn effects(
        &self,
        resources: &Judged<LinuxResources>,
        v2: bool,
    ) -> Result<(Vec<(String, String)>, devices::Opened)> {
        let mut settings = Vec::new();
        if v2 {
            v2::settings(self, resources, &mut settings)?;
        } else {
            v1::settings(self, resources, &mut settings)?;
        }
        let rules = devices::normalise(resources.devices().as_deref().unwrap_or_default())?;
        let written = settings.into_iter().map(|s| (s.file, s.value));
        Ok((written.collect(), rules.opened()))
    }

    /// What `resources` ask for, and what is in the live groups.
    pub fn compare(&self, resources: &LinuxResources) -> Result<Vec<Comparison>> {
        let one = |s: Setting| {
            let file = self.controller_dir(s.controller).map(|d| d.join(&s.file));
            let found = file.and_then(|f| fs::read_to_string(f).ok());
            Comparison {
                field: s.field,
                file: s.file,
                wanted: s.value,
                found: found.map(|f| f.trim().to_owned()),
                optional: s.optional,
            }
        };
        let settings = self.settings(Some(resources))?;
        Ok(settings.into_iter().map(one).collect())
    }

    /// Applies `resources` to live groups. A refused value puts the earlier ones back.
    pub fn update(&self, resources: &Judged<LinuxResources>) -> Result<()> {
        self.must_exist("linux.resources")?;
        self.apply(Some(resources), false)
    }

    pub(super) fn apply(&self, resources: Option<&LinuxResources>, fresh: bool) -> Result<()> {
        let settings = self.settings(resources)?;
        let before = self.write_settings(&settings, !fresh)?;
        if let Some(unit) = self.unit.as_ref().filter(|_| !fresh) {
            if let Err(e) = systemd::update(unit, systemd::properties(&settings)) {
                put_back(&before);
                return Err(e);
            }
            // systemd rounds some of them.
            self.write_settings(&settings, false)?;
        }
        let rules = resources.and_then(|r| r.devices().as_deref());
        // Only the node's root may load these programs, and containers of others make no device nodes.
        let may_have_rules = creds::is_nodes_root();
        if may_have_rules && (fresh || rules.is_some_and(|r| !r.is_empty())) {
            let rules = devices::normalise(rules.unwrap_or_default())?;
            match self.layout.find("devices") {
                Some(h) if !h.v2 => devices::write_v1(&self.dir(h), &rules, fresh)?,
                _ => {
                    if let Some(dir) = self.is_v2().then(|| self.unified_dir()).flatten() {
                        devices::attach_v2(&dir, &rules, fresh)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns what was there before, for [`put_back`], if that is wanted.
    fn write_settings(&self, settings: &[Setting], undo: bool) -> Result<Vec<(PathBuf, String)>> {
        let mut done: Vec<(PathBuf, String)> = Vec::new();
        let mut postponed = None;
        for s in settings {
            let written = match self.write_setting(s, undo) {
                Err(Error::Refused { .. }) if s.retry_after_next && postponed.is_none() => {
                    postponed = Some(s);
                    continue;
                }
                written => written,
            };
            let again = postponed.take().map(|s| self.write_setting(s, undo));
            for written in std::iter::once(written).chain(again) {
                match written {
                    Ok(before) => done.extend(before),
                    Err(e) => {
                        put_back(&done);
                        return Err(e);
                    }
                }
            }
        }
        if let Some(Err(e)) = postponed.map(|s| self.write_setting(s, undo)) {
            put_back(&done);
            return Err(e);
        }
        Ok(done)
    }

    /// Returns the file and what was there before, if that is wanted.
    fn write_setting(&self, s: &Setting, undo: bool) -> Result<Option<(PathBuf, String)>> {
        let Some(dir) = self.controller_dir(s.controller) else {
            if s.optional {
                return Ok(None);
            }
            return Err(Error::Unavailable {
                field: s.field.clone(),
                reason: format!("this node has no {} cgroup controller", s.controller),
            });
        };
        let file = dir.join(&s.file);
        let before = if undo {
            fs::read_to_string(&file).ok()
        } else {
            None
        };
        match fs::write(&file, s.value.as_bytes()) {
            Ok(()) => Ok(before.map(|before| (file, before.trim().to_owned()))),
            Err(e) if s.optional && e.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Refused {
                field: s.field.clone(),
                value: s.value.clone(),
                file,
                source,
            }),
        }
    }
}

/// Takes settings back, the last one first.
fn put_back(done: &[(PathBuf, String)]) {
    for (file, value) in done.iter().rev() {
        fs::write(file, value.as_bytes()).ok();
    }
}
