//! The spec's `mounts`: OCI config.md "Mounts", `mount(8)`. The only reading of their words.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, Mount as SpecMount, Spec};

use super::path::lexical;
use super::{Error, Reading, Result, Source};
use crate::sys::mount::attr;

/// What options do to a mount's attributes (`mount_setattr(2)`): first to the mount itself, then to it and all below it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// Attributes that are set.
    pub set: u64,
    /// Attributes that are cleared.
    pub clear: u64,
    /// Set on the whole tree, afterwards.
    pub recursive_set: u64,
    /// Cleared on the whole tree, afterwards.
    pub recursive_clear: u64,
}

impl Flags {
    /// Makes attributes hold, whatever was asked for before; with `tree`, on everything below as well.
    pub fn require(&mut self, bits: u64, tree: bool) {
        self.set |= bits;
        self.clear &= !bits;
        self.recursive_clear &= !bits;
        if tree {
            self.recursive_set |= bits;
        }
    }

    /// The attributes of the mount itself in the end, where it began without any.
    pub fn effective(self) -> u64 {
        (self.set & !self.recursive_clear) | self.recursive_set
    }
}

/// Mount options, sorted by what they act on.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Options {
    /// What is mounted is there already.
    pub bind: bool,
    /// With everything that is mounted below it.
    pub recursive_bind: bool,
    /// Map ids; with `true`, also of what is mounted below.
    pub idmap: Option<bool>,
    /// A new file system starts with what the image has at the destination.
    pub copy_up: bool,
    /// Attributes.
    pub flags: Flags,
    /// `(MS_PRIVATE and kin, recursive)`.
    pub propagation: Vec<(u64, bool)>,
    /// Parameters of the file system: `(key, value)`.
    pub data: Vec<(String, Option<String>)>,
}

/// What one option word does to a mount attribute.
enum Effect {
    Set(u64),
    Clear(u64),
    /// One of the access-time settings, which exclude each other.
    Atime(u64),
}

/// Words that set an attribute, and their opposites.
const ATTRIBUTES: [(&str, &str, u64); 6] = [
    ("ro", "rw", attr::RDONLY),
    ("nosuid", "suid", attr::NOSUID),
    ("nodev", "dev", attr::NODEV),
    ("noexec", "exec", attr::NOEXEC),
    ("nodiratime", "diratime", attr::NODIRATIME),
    ("nosymfollow", "symfollow", attr::NOSYMFOLLOW),
];

fn attribute(word: &str) -> Option<Effect> {
    for (on, off, bit) in ATTRIBUTES {
        if word == on {
            return Some(Effect::Set(bit));
        }
        if word == off {
            return Some(Effect::Clear(bit));
        }
    }
    Some(match word {
        // The kernel's default is relatime, and what takes another back asks for the default.
        "relatime" | "norelatime" | "atime" | "nostrictatime" => Effect::Atime(attr::RELATIME),
        "noatime" => Effect::Atime(attr::NOATIME),
        "strictatime" => Effect::Atime(attr::STRICTATIME),
        _ => return None,
    })
}

fn apply(effect: Effect, set: &mut u64, clear: &mut u64) {
    match effect {
        Effect::Set(bit) => {
            *set |= bit;
            *clear &= !bit;
        }
        Effect::Clear(bit) => {
            *clear |= bit;
            *set &= !bit;
        }
        Effect::Atime(value) => {
            *set = *set & !attr::ATIME | value;
            *clear |= attr::ATIME; // the kernel wants the whole field cleared when it is set
        }
    }
}

/// Propagation, `mount_namespaces(7)`: words without and with recursion.
const PROPAGATION: [(&str, &str, u64); 4] = [
    ("private", "rprivate", libc::MS_PRIVATE),
    ("slave", "rslave", libc::MS_SLAVE),
    ("shared", "rshared", libc::MS_SHARED),
    ("unbindable", "runbindable", libc::MS_UNBINDABLE),
];

fn propagation(word: &str) -> Option<(u64, bool)> {
    PROPAGATION
        .into_iter()
        .find_map(|(one, tree, flag)| (word == one || word == tree).then_some((flag, word == tree)))
}

impl Options {
    /// Parses the words; of two that contradict each other the later one holds. Unknown ones are the file system's own
    /// parameters.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut o = Self::default();
        for word in words {
            match word {
                "bind" => o.bind = true,
                "rbind" => {
                    o.bind = true;
                    o.recursive_bind = true;
                }
                "defaults" | "" | "async" | "loud" | "nomand" | "nolazytime" | "noiversion"
                | "silent" | "remount" => {}
                "idmap" => o.idmap = Some(false),
                "ridmap" => o.idmap = Some(true),
                "tmpcopyup" => o.copy_up = true,
                _ => o.parse_word(word),
            }
        }
        o
    }

    fn parse_word(&mut self, word: &str) {
        let flags = &mut self.flags;
        if let Some(p) = propagation(word) {
            self.propagation.push(p);
        } else if let Some(effect) = attribute(word) {
            apply(effect, &mut flags.set, &mut flags.clear);
        } else if let Some(effect) = word.strip_prefix('r').and_then(attribute) {
            apply(effect, &mut flags.recursive_set, &mut flags.recursive_clear);
        } else {
            let (key, value) = word
                .split_once('=')
                .map_or((word, None), |(k, v)| (k, Some(v)));
            self.data.push((key.to_owned(), value.map(str::to_owned)));
        }
    }
}

/// What is mounted.
#[derive(Debug)]
pub enum Kind {
    /// Something of the node.
    Bind {
        /// What.
        source: Source,
        /// With everything that is mounted below it.
        recursive: bool,
    },
    /// The container's view of its control groups, `type: cgroup`.
    Cgroup,
    /// A new file system.
    New {
        /// Its type.
        fstype: String,
        /// The word that it is listed with; a device for some types.
        source: String,
    },
}

/// One mount.
#[derive(Debug)]
pub struct Mount {
    /// Its place in the spec's list.
    pub index: usize,
    /// Where it goes in the container: an absolute path without `.` and `..`. Links are the image's, and resolved inside it.
    pub destination: PathBuf,
    /// What is mounted.
    pub kind: Kind,
    /// Attributes.
    pub flags: Flags,
    /// `(MS_PRIVATE and kin, recursive)`, in order.
    pub propagation: Vec<(u64, bool)>,
    /// Parameters of a new file system.
    pub data: Vec<(String, Option<String>)>,
    /// Starts with what the image has at the destination (`tmpcopyup`).
    pub copy_up: bool,
    /// Map ids; with `true`, also of what is mounted below.
    pub idmap: Option<bool>,
    /// The mount's own id maps.
    pub uid_mappings: Vec<LinuxIdMapping>,
    /// Likewise, of groups.
    pub gid_mappings: Vec<LinuxIdMapping>,
    /// As the spec has it, for those who show it.
    asked: SpecMount,
    /// Its options, as they were read.
    read: Options,
}

/// Paths below `/proc` that lxcfs and the like may cover; anything else there would let an image lie to our own writes.
const ALLOWED_IN_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
    "/proc/net/dev",
];

impl Mount {
    /// The JSON path.
    pub fn field(&self) -> String {
        format!("mounts[{}]", self.index)
    }

    /// Whether it shows something of the node.
    pub fn is_bind(&self) -> bool {
        matches!(self.kind, Kind::Bind { .. })
    }

    /// The type of a new file system.
    pub fn fstype(&self) -> Option<&str> {
        match &self.kind {
            Kind::New { fstype, .. } => Some(fstype),
            Kind::Cgroup => Some("cgroup"),
            Kind::Bind { .. } => None,
        }
    }

    /// Whether what is mounted or unmounted below it on one side is to be seen on the other.
    pub fn is_shared(&self) -> bool {
        self.propagation.iter().any(|(p, _)| *p == libc::MS_SHARED)
    }

    pub(super) fn read_all(spec: &Spec, bundle: &Path, reading: Reading) -> Result<Vec<Self>> {
        let list = spec.mounts().iter().flatten().enumerate();
        list.map(|(i, m)| Self::read(i, m, bundle, reading))
            .collect()
    }

    fn read(index: usize, m: &SpecMount, bundle: &Path, reading: Reading) -> Result<Self> {
        let field = format!("mounts[{index}]");
        let options = Options::parse(m.options().iter().flatten().map(String::as_str));
        let fstype = m.typ().as_deref().unwrap_or("");
        let bind = options.bind || fstype == "bind" || fstype == "rbind";
        if fstype.is_empty() && !bind {
            return Err(Error::field(
                format!("{field}.type"),
                "is missing; a bind mount needs the option \"bind\" or \"rbind\"",
            ));
        }
        let destination = destination(m.destination(), &field)?;
        if destination == Path::new("/proc") && !bind && fstype != "proc" {
            return Err(Error::field(
                format!("{field}.type"),
                format!("only a procfs may be mounted on /proc, not {fstype}"),
            ));
        }
        if options.copy_up && (bind || fstype != "tmpfs") {
            return Err(Error::field(
                format!("{field}.options"),
                "\"tmpcopyup\" is for a tmpfs only",
            ));
        }
        let source = m.source().clone().unwrap_or_default();
        let kind = if bind {
            if source.as_os_str().is_empty() {
                return Err(Error::field(
                    format!("{field}.source"),
                    "a bind mount needs a source",
                ));
            }
            Kind::Bind {
                source: Source::read(bundle.join(source), reading),
                recursive: options.recursive_bind || fstype == "rbind",
            }
        } else if fstype == "cgroup" {
            Kind::Cgroup
        } else {
            Kind::New {
                fstype: fstype.to_owned(),
                source: source.to_string_lossy().into_owned(),
            }
        };
        Ok(Self {
            index,
            destination,
            kind,
            flags: options.flags,
            propagation: options.propagation.clone(),
            data: options.data.clone(),
            copy_up: options.copy_up,
            idmap: options.idmap,
            uid_mappings: m.uid_mappings().clone().unwrap_or_default(),
            gid_mappings: m.gid_mappings().clone().unwrap_or_default(),
            asked: m.clone(),
            read: options,
        })
    }

    /// As a spec has it: in its own words where nothing was changed.
    pub fn to_spec(&self) -> SpecMount {
        let mut out = self.asked.clone();
        let bind = matches!(self.kind, Kind::Bind { recursive, .. } if recursive != self.read.recursive_bind);
        if self.flags == self.read.flags && self.data == self.read.data && !bind {
            return out;
        }
        let mut words: Vec<String> = Vec::new();
        if let Kind::Bind { recursive, .. } = self.kind {
            words.push(if recursive { "rbind" } else { "bind" }.into());
        }
        let flags = self.flags;
        for (prefix, set, clear) in [
            ("", flags.set, flags.clear),
            ("r", flags.recursive_set, flags.recursive_clear),
        ] {
            for (on, off, bit) in ATTRIBUTES {
                if set & bit != 0 {
                    words.push(format!("{prefix}{on}"));
                } else if clear & bit != 0 {
                    words.push(format!("{prefix}{off}"));
                }
            }
            if clear & attr::ATIME != 0 {
                let word = match set & attr::ATIME {
                    attr::NOATIME => "noatime",
                    attr::STRICTATIME => "strictatime",
                    _ => "relatime",
                };
                words.push(format!("{prefix}{word}"));
            }
        }
        for (flag, tree) in &self.propagation {
            let word = PROPAGATION.into_iter().find(|(_, _, f)| f == flag);
            words.extend(word.map(|(one, all, _)| if *tree { all } else { one }.to_owned()));
        }
        words.extend(
            self.idmap
                .map(|tree| if tree { "ridmap" } else { "idmap" }.to_owned()),
        );
        words.extend(self.copy_up.then(|| "tmpcopyup".to_owned()));
        let parameter = |(k, v): &(String, Option<String>)| match v {
            Some(v) => format!("{k}={v}"),
            None => k.clone(),
        };
        words.extend(self.data.iter().map(parameter));
        out.set_options(Some(words));
        out
    }
}

fn destination(path: &Path, field: &str) -> Result<PathBuf> {
    let destination = lexical(path);
    if destination == Path::new("/") {
        return Err(Error::field(
            format!("{field}.destination"),
            "mounting over the root itself is not possible; set root.path instead",
        ));
    }
    let in_proc = destination.starts_with("/proc") && destination != Path::new("/proc");
    if in_proc && !ALLOWED_IN_PROC.iter().any(|a| destination == Path::new(a)) {
        return Err(Error::field(
            format!("{field}.destination"),
            format!(
                "{}: nothing may be mounted inside /proc",
                destination.display()
            ),
        ));
    }
    Ok(destination)
}

#[cfg(test)]
mod tests;
