//! What is wrong with a spec by itself, whatever the node: checked before anything is created. Each error names the JSON
//! path. What depends on the node, or needs more than a look, is checked where it is planned.

use std::path::Path;

use oci_spec::runtime::{Hook, LinuxResources, Spec};

use super::{Error, Result};

fn check(ok: bool, field: impl FnOnce() -> String, reason: impl FnOnce() -> String) -> Result<()> {
    if ok {
        Ok(())
    } else {
        Err(Error::field(field(), reason()))
    }
}

fn absolute(path: &Path, field: &str) -> Result<()> {
    check(
        path.is_absolute(),
        || field.into(),
        || format!("{path:?} is not an absolute path"),
    )
}

/// A limit where -1 means none.
fn limit(value: Option<i64>, field: &str) -> Result<()> {
    let value = value.unwrap_or(0);
    check(
        value >= -1,
        || format!("linux.resources.{field}"),
        || format!("{value} is below -1"),
    )
}

/// Checks everything. The order is that of the specification.
pub(super) fn spec(spec: &Spec) -> Result<()> {
    let version = spec.version();
    check(
        version.starts_with("1."),
        || "ociVersion".into(),
        || format!("{version:?} is not supported: 1.x is"),
    )?;
    if let Some(name) = spec.hostname() {
        check(
            name.len() <= 64,
            || "hostname".into(),
            || format!("has {} bytes; the kernel takes 64", name.len()),
        )?;
    }
    if let Some(name) = spec.domainname() {
        check(
            name.len() <= 64,
            || "domainname".into(),
            || format!("has {} bytes; the kernel takes 64", name.len()),
        )?;
    }
    for (i, m) in spec.mounts().iter().flatten().enumerate() {
        check(
            !m.destination().as_os_str().is_empty(),
            || format!("mounts[{i}].destination"),
            || "is empty".into(),
        )?;
    }
    hooks(spec)?;
    let Some(linux) = spec.linux() else {
        return Err(Error::field("linux", "is missing"));
    };
    for (i, d) in linux.devices().iter().flatten().enumerate() {
        absolute(d.path(), &format!("linux.devices[{i}].path"))?;
    }
    linux.resources().as_ref().map_or(Ok(()), resources)
}

#[allow(deprecated)]
fn hooks(spec: &Spec) -> Result<()> {
    let Some(hooks) = spec.hooks() else {
        return Ok(());
    };
    let kinds: [(&str, &Option<Vec<Hook>>); 6] = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (kind, list) in kinds {
        for (i, hook) in list.iter().flatten().enumerate() {
            absolute(hook.path(), &format!("hooks.{kind}[{i}].path"))?;
            if let Some(timeout) = hook.timeout() {
                check(
                    timeout > 0,
                    || format!("hooks.{kind}[{i}].timeout"),
                    || format!("{timeout} is not above 0"),
                )?;
            }
        }
    }
    Ok(())
}

/// Checks `linux.resources`, also of an update.
pub fn resources(r: &LinuxResources) -> Result<()> {
    if let Some(m) = r.memory() {
        limit(m.limit(), "memory.limit")?;
        limit(m.swap(), "memory.swap")?;
        limit(m.reservation(), "memory.reservation")?;
        limit(m.kernel(), "memory.kernel")?;
        limit(m.kernel_tcp(), "memory.kernelTCP")?;
        if let Some(s) = m.swappiness() {
            check(
                s <= 200,
                || "linux.resources.memory.swappiness".into(),
                || format!("{s} is not between 0 and 200"),
            )?;
        }
        if let (Some(limit), Some(swap)) = (m.limit(), m.swap()) {
            check(
                swap <= 0 || limit <= swap,
                || "linux.resources.memory.swap".into(),
                || {
                    format!(
                        "{swap} is memory plus swap, so it cannot be below memory.limit ({limit})"
                    )
                },
            )?;
        }
    }
    if let Some(c) = r.cpu() {
        limit(c.quota(), "cpu.quota")?;
        if let Some(idle) = c.idle() {
            check(
                (0..=1).contains(&idle),
                || "linux.resources.cpu.idle".into(),
                || format!("{idle} is neither 0 nor 1"),
            )?;
        }
    }
    if let Some(p) = r.pids() {
        limit(Some(p.limit()), "pids.limit")?;
    }
    if let Some(b) = r.block_io()
        && let Some(w) = b.weight().filter(|w| *w != 0)
    {
        check(
            (10..=1000).contains(&w),
            || "linux.resources.blockIO.weight".into(),
            || format!("{w} is not between 10 and 1000"),
        )?;
    }
    for (i, h) in r.hugepage_limits().iter().flatten().enumerate() {
        let size = h.page_size();
        let number = size.trim_end_matches(char::is_alphabetic);
        let good = number.parse::<u32>().is_ok()
            && ["KB", "MB", "GB"].contains(&size.get(number.len()..).unwrap_or(""));
        check(
            good,
            || format!("linux.resources.hugepageLimits[{i}].pageSize"),
            || format!("{size:?} is not a size like 2MB or 1GB"),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    fn base() -> Value {
        json!({
            "ociVersion": "1.1.0",
            "root": { "path": "/tmp" },
            "process": { "user": { "uid": 0, "gid": 0 }, "args": ["sh"], "cwd": "/", "env": ["PATH=/bin"] },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"] }],
            "hooks": { "poststop": [{ "path": "/bin/true", "timeout": 5 }] },
            "linux": {
                "resources": { "memory": { "limit": 1000 }, "pids": { "limit": 5 }, "cpu": { "shares": 10 } },
                "namespaces": [{ "type": "mount" }],
                "devices": [{ "path": "/dev/x", "type": "c", "major": 1, "minor": 3 }],
                "seccomp": { "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] },
                "maskedPaths": ["/proc/kcore"]
            }
        })
    }

    fn refusal(pointer: &str, value: Value) -> String {
        let mut json = base();
        *json.pointer_mut(pointer).unwrap() = value;
        let spec = serde_json::from_value(json).unwrap();
        super::spec(&spec).unwrap_err().to_string()
    }

    #[test]
    fn each_error_names_the_path() {
        super::spec(&serde_json::from_value(base()).unwrap()).unwrap();
        for (pointer, value, text) in [
            (
                "/linux/resources/memory/limit",
                json!(-5),
                "linux.resources.memory.limit: -5 is below -1",
            ),
            (
                "/linux/resources/pids/limit",
                json!(-2),
                "linux.resources.pids.limit: -2 is below -1",
            ),
            (
                "/ociVersion",
                json!("2.0.0"),
                "ociVersion: \"2.0.0\" is not supported: 1.x is",
            ),
            (
                "/hooks/poststop/0/path",
                json!("true"),
                "hooks.poststop[0].path: \"true\" is not an absolute path",
            ),
            (
                "/hooks/poststop/0/timeout",
                json!(0),
                "hooks.poststop[0].timeout: 0 is not above 0",
            ),
            (
                "/linux/devices/0/path",
                json!("dev/x"),
                "linux.devices[0].path: \"dev/x\" is not an absolute path",
            ),
            (
                "/mounts/0/destination",
                json!(""),
                "mounts[0].destination: is empty",
            ),
            (
                "/linux/resources/memory",
                json!({ "limit": 100, "swap": 50 }),
                "linux.resources.memory.swap: 50 is memory plus swap, so it cannot be below memory.limit (100)",
            ),
        ] {
            assert_eq!(refusal(pointer, value), text);
        }
    }
}
