//! One write to one control file, and the JSON path of the spec field that asks for it.

use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::{Error, Result};

/// A value to be written into a container's group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The controller whose hierarchy has the file.
    pub controller: &'static str,
    /// File name.
    pub file: String,
    /// Text to write.
    pub value: String,
    /// JSON path in the spec.
    pub field: String,
    /// A default that may be missing on this kernel, rather than something that the user asked for.
    pub optional: bool,
    /// Where the kernel refuses it, it may take it after the next one.
    pub retry_after_next: bool,
}

impl Setting {
    /// A required setting.
    pub(crate) fn new(
        controller: &'static str,
        file: impl Into<String>,
        value: impl ToString,
        field: &str,
    ) -> Self {
        Self {
            controller,
            file: file.into(),
            value: value.to_string(),
            field: format!("linux.resources.{field}"),
            optional: false,
            retry_after_next: false,
        }
    }

    /// Optional on a condition: a value of zero asks for what is so without it.
    pub(crate) fn optional_if(self, zero: bool) -> Self {
        if zero { self.optional() } else { self }
    }

    /// See the field.
    pub(crate) fn retried_after_next(self) -> Self {
        Self {
            retry_after_next: true,
            ..self
        }
    }

    /// The same, but nothing is lost where the file does not exist.
    pub(crate) fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

/// `memory.kernel`: no kernel that we run on has such a limit any more, but kernel memory counts towards `memory.limit`, so
/// one that is not below that holds all the same.
pub(super) fn check_kernel_memory(m: &LinuxMemory) -> Result<()> {
    let Some(kernel) = m.kernel().filter(|k| *k > 0) else {
        return Ok(());
    };
    if m.limit().is_some_and(|l| l > 0 && l <= kernel) {
        return Ok(());
    }
    Err(Error::Unavailable {
        field: format!("linux.resources.memory.kernel: {kernel}"),
        reason: "kernel memory has no limit of its own any more; it counts towards memory.limit"
            .into(),
    })
}

/// `pids.limit`: -1 is no limit, and 0 asks for nothing.
pub(super) fn pids(r: &LinuxResources, out: &mut Vec<Setting>) {
    if let Some(pids) = r.pids().as_ref().filter(|p| p.limit() != 0) {
        let limit = limit_or_max(pids.limit());
        out.push(Setting::new("pids", "pids.max", limit, "pids.limit"));
    }
}

/// The kernel takes no shares of a group that is idle: who becomes idle gets its shares before, who ceases to be so after.
pub(super) fn shares_and_idle(shares: Option<Setting>, idle: Option<i64>, out: &mut Vec<Setting>) {
    let setting = idle.map(|v| Setting::new("cpu", "cpu.idle", v, "cpu.idle").optional_if(v == 0));
    if idle == Some(0) {
        out.extend(setting.into_iter().chain(shares));
    } else {
        out.extend(shares.into_iter().chain(setting));
    }
}

/// A limit where a negative number means none.
pub(super) fn limit_or_max(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}
