//! `linux.intelRdt`: cache and memory bandwidth allocation through the resctrl file system, OCI config-linux.md "`IntelRdt`",
//! `Documentation/filesystems/resctrl.rst`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use super::{Error, Result};

const MOUNT: &str = "/sys/fs/resctrl";
/// What the root of the file system has besides groups.
const RESERVED: [&str; 5] = ["info", "mon_groups", "mon_data", ".", ".."];

/// The groups of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// The class of service.
    clos: PathBuf,
    /// It has the container's id for a name, and goes with the container.
    own: bool,
    /// Lines for its `schemata`.
    schemata: Vec<String>,
    /// A monitoring group for this container alone.
    monitor: Option<PathBuf>,
}

fn error(field: &str, reason: impl std::fmt::Display) -> Error {
    Error::Unavailable {
        field: format!("linux.intelRdt{field}"),
        reason: reason.to_string(),
    }
}

impl Groups {
    /// What the spec asks for, if anything.
    pub(super) fn of(spec: &Spec, id: &str) -> Result<Option<Self>> {
        Self::below(Path::new(MOUNT), spec, id)
    }

    #[allow(deprecated)] // enableCMT and enableMBM say today's enableMonitoring
    fn below(mount: &Path, spec: &Spec, id: &str) -> Result<Option<Self>> {
        let Some(rdt) = spec.linux().as_ref().and_then(|l| l.intel_rdt().as_ref()) else {
            return Ok(None);
        };
        if !mount.join("schemata").exists() {
            return Err(error(
                "",
                format!(
                    "needs the resctrl file system: mount -t resctrl resctrl {} (a processor or a virtual machine without \
                     resource allocation has none)",
                    mount.display()
                ),
            ));
        }
        let named = rdt.clos_id().as_deref().filter(|c| !c.is_empty());
        let name = named.unwrap_or(id);
        if name != "/" && (name.contains('/') || RESERVED.contains(&name)) {
            return Err(error(
                ".closID",
                format!("{name:?} cannot be a group's name"),
            ));
        }
        let clos = if name == "/" {
            mount.to_owned()
        } else {
            mount.join(name)
        };
        let lines = rdt.schemata().iter().flatten().map(String::as_str);
        let schemata = [rdt.l3_cache_schema(), rdt.mem_bw_schema()]
            .into_iter()
            .flatten()
            .flat_map(|text| text.lines())
            .chain(lines)
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect();
        let monitored = [rdt.enable_monitoring(), rdt.enable_cmt(), rdt.enable_mbm()];
        Ok(Some(Self {
            own: named.is_none(),
            monitor: monitored
                .contains(&&Some(true))
                .then(|| clos.join("mon_groups").join(id)),
            clos,
            schemata,
        }))
    }

    /// Makes what is not there. Leaves nothing behind on failure.
    pub(super) fn create(&self) -> Result<()> {
        self.make().inspect_err(|_| self.remove())
    }

    /// The `tasks` files that a process of the container is to enter, in their order.
    pub(super) fn entry(&self) -> Result<Vec<(PathBuf, File)>> {
        [Some(&self.clos), self.monitor.as_ref()]
            .into_iter()
            .flatten()
            .map(|group| {
                let tasks = group.join("tasks");
                let file = OpenOptions::new().write(true).open(&tasks);
                file.map(|f| (tasks.clone(), f))
                    .map_err(|e| error("", format!("{}: {e}", tasks.display())))
            })
            .collect()
    }

    fn make(&self) -> Result<()> {
        let file = self.clos.join("schemata");
        let failed = |e: io::Error| error("", format!("{}: {e}", self.clos.display()));
        if make_dir(&self.clos).map_err(failed)? {
            let lines = self.schemata.iter().map(String::as_str);
            write_schemata(&file, lines).inspect_err(|_| {
                fs::remove_dir(&self.clos).ok();
            })?;
        } else if !self.schemata.is_empty() {
            let there = fs::read_to_string(&file).map_err(failed)?;
            let differs = |l: &&String| !there.lines().any(|t| t.trim() == l.as_str());
            if let Some(line) = self.schemata.iter().find(differs) {
                return Err(error(
                    ".closID",
                    format!(
                        "{} exists with another schemata: it has not {line:?}",
                        self.clos.display()
                    ),
                ));
            }
        }
        if let Some(monitor) = &self.monitor {
            make_dir(monitor)
                .map_err(|e| error(".enableMonitoring", format!("{}: {e}", monitor.display())))?;
        }
        Ok(())
    }

    /// Changes the schemata of a class that is the container's own.
    pub(super) fn update(&self, schemata: &[&str]) -> Result<()> {
        if !self.own {
            return Err(error(
                ".closID",
                format!("{} is of several containers", self.clos.display()),
            ));
        }
        let lines = schemata.iter().flat_map(|text| text.lines());
        write_schemata(&self.clos.join("schemata"), lines)
    }

    /// Removes what belongs to the container alone.
    pub(super) fn remove(&self) {
        if let Some(monitor) = &self.monitor {
            fs::remove_dir(monitor).ok();
        }
        if self.own {
            fs::remove_dir(&self.clos).ok();
        }
    }
}

/// One line each: the kernel says of the whole write only that something in it is wrong.
fn write_schemata<'a>(file: &Path, lines: impl Iterator<Item = &'a str>) -> Result<()> {
    for line in lines.map(str::trim).filter(|line| !line.is_empty()) {
        let written = OpenOptions::new()
            .append(true)
            .open(file)
            .and_then(|mut f| f.write_all(format!("{line}\n").as_bytes()));
        written.map_err(|e| error(".schemata", format!("{line:?}: {e}")))?;
    }
    Ok(())
}

/// Whether the directory is new.
fn make_dir(dir: &Path) -> io::Result<bool> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn groups(mount: &Path, rdt: &serde_json::Value) -> Result<Option<Groups>> {
        let spec = json!({ "ociVersion": "1.2.0", "linux": { "intelRdt": rdt } });
        Groups::below(mount, &serde_json::from_value(spec).unwrap(), "box")
    }

    // No machine here has the hardware: what is tested is what is made and written where, on plain files.
    #[test]
    fn groups_are_made_written_and_removed() {
        let mount = std::env::temp_dir().join(format!("cofferdam-resctrl-{}", std::process::id()));
        fs::create_dir_all(&mount).unwrap();
        let text = |r: Result<Option<Groups>>| r.unwrap_err().to_string();
        assert!(text(groups(&mount, &json!({}))).contains("mount -t resctrl"));
        fs::write(mount.join("schemata"), "L3:0=ff\n").unwrap();
        assert!(
            text(groups(&mount, &json!({ "closID": "a/b" })))
                .contains("linux.intelRdt.closID: \"a/b\"")
        );
        // A class that the operator made, with the schemata that the spec expects, and with another.
        fs::create_dir_all(mount.join("gold/mon_groups")).unwrap();
        fs::write(mount.join("gold/schemata"), "    L3:0=f0\n").unwrap();
        fs::write(mount.join("gold/tasks"), "").unwrap();
        let gold = json!({ "closID": "gold", "l3CacheSchema": "L3:0=f0" });
        let gold = groups(&mount, &gold).unwrap().unwrap();
        gold.create().unwrap();
        assert_eq!(gold.entry().unwrap()[0].0, mount.join("gold/tasks"));
        gold.remove();
        assert!(mount.join("gold").exists(), "it is the operator's");
        let other = json!({ "closID": "gold", "schemata": ["L3:0=1"] });
        let other = groups(&mount, &other).unwrap().unwrap();
        let refused = other.create().unwrap_err().to_string();
        assert!(refused.contains("has not \"L3:0=1\""), "{refused}");
        // One of the container's own.
        let own = groups(&mount, &json!({ "memBwSchema": "MB:0=50" }))
            .unwrap()
            .unwrap();
        assert!(own.own && own.clos == mount.join("box"));
        // Plain directories have no files in them: the kernel would have made them.
        assert!(own.create().unwrap_err().to_string().contains("MB:0=50"));
        assert!(!mount.join("box").exists(), "nothing is left of a failure");
        fs::remove_dir_all(&mount).unwrap();
    }
}
