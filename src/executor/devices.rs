//! Device nodes and links below `/dev`, OCI config-linux.md "Default Devices" and "Dev symbolic links".

use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::error::c_string;
use super::mounts::{below_root, of_own, of_tree};
use super::script::{DeviceNode, Step};
use super::{Error, Result};
use crate::oci::{DeviceKind, LINKS, Links, NODES, Opened, Request};
use crate::sys::creds;
use crate::sys::mount as m;

/// How a container comes by its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// They are made where they belong.
    Make,
    /// They are made before its users are entered: see [`make`].
    Prepare,
    /// They are the node's, bound: this process may make none.
    Bind,
}

impl Way {
    fn of(mapped: bool) -> Self {
        match mapped {
            _ if creds::is_in_user_namespace() => Self::Bind,
            true => Self::Prepare,
            false => Self::Make,
        }
    }
}

/// A node to be made.
struct Node {
    path: PathBuf,
    kind: DeviceKind,
    numbers: (u32, u32),
    mode: u32,
    owner: (u32, u32),
    field: String,
}

impl Node {
    fn type_bits(&self) -> u32 {
        match self.kind {
            DeviceKind::Block => libc::S_IFBLK,
            DeviceKind::Char => libc::S_IFCHR,
            DeviceKind::Fifo => libc::S_IFIFO,
        }
    }

    /// Made; or in a user namespace, whose root may make none, the node's own bound in its place.
    fn step(self, way: Way) -> Result<Step> {
        let path = below_root(&self.path, &self.field)?;
        if way != Way::Make && self.kind != DeviceKind::Fifo {
            return self.bind(path, way);
        }
        let ((major, minor), (uid, gid)) = (self.numbers, self.owner);
        Ok(Step::Device(DeviceNode {
            path,
            mode: self.type_bits() | self.mode,
            major,
            minor,
            uid,
            gid,
        }))
    }

    fn bind(self, path: CString, way: Way) -> Result<Step> {
        let (major, minor) = self.numbers;
        let number = (self.kind == DeviceKind::Char).then(|| m::makedev(major, minor));
        if way == Way::Prepare
            && let Some(own) = made().position(|(_, rdev)| Some(rdev) == number)
        {
            let label = format!("{}: bind /{}", self.field, self.path.display());
            return Ok(Step::Mount(of_own(label, path, own)));
        }
        let source = self.path.display();
        let opened = Opened::open(&self.path, Links::OfRoot).ok().filter(|o| {
            o.kind() == self.type_bits()
                && m::fstat(o.fd()).is_ok_and(|s| s.st_rdev == m::makedev(major, minor))
        });
        let Some(opened) = opened else {
            return Err(Error::field(
                self.field,
                format!(
                    "a user namespace cannot make device nodes, and {source} of the node is not {major}:{minor}"
                ),
            ));
        };
        let label = format!("{}: bind {source}", self.field);
        let tree = m::open_tree_clone(opened.fd().as_fd(), c"", false);
        let tree = tree.map_err(|errno| Error::Step {
            what: label.clone(),
            op: "open_tree".into(),
            errno,
        })?;
        Ok(Step::Mount(of_tree(label, path, tree)))
    }
}

fn same(a: &Path, b: &Path) -> bool {
    a.components().eq(b.components())
}

/// The default devices that are made: path below the root, and number.
fn made() -> impl Iterator<Item = (&'static str, u64)> {
    NODES
        .iter()
        .filter_map(|n| Some((n.path?, m::makedev(n.major, n.minor?))))
}

/// For a container in a user namespace: makes its default devices while the node's root may. They are its own, and no file of the
/// node's, which it could lock and watch. Nothing where this process may make none itself.
pub(super) fn make() -> Result<Option<Step>> {
    if Way::of(true) == Way::Bind {
        return Ok(None);
    }
    let name = |(path, rdev): (&str, u64)| {
        let name = path.rsplit('/').next().unwrap_or(path);
        Ok((c_string(name, "dev")?, rdev))
    };
    let made = made().map(name).collect::<Result<_>>()?;
    Ok(Some(Step::MakeDevices(made)))
}

/// Appends the steps. Where the spec binds a whole `/dev` of its own, that one is left as it is.
pub(super) fn plan(request: &Request, mapped: bool, steps: &mut Vec<Step>) -> Result<()> {
    let dev = Path::new("/dev");
    let mut mounts = request.mounts.iter();
    if mounts.any(|m| m.is_bind() && m.destination == dev) {
        return Ok(());
    }
    let way = Way::of(mapped);
    for (number, (name, rdev)) in made().enumerate() {
        let path = Path::new("/").join(name);
        if request.devices.iter().any(|d| same(&d.path, &path)) {
            continue;
        }
        let dest = c_string(name, "dev")?;
        steps.push(match way {
            Way::Prepare => Step::Mount(of_own(format!("dev: bind /{name}"), dest, number)),
            Way::Make | Way::Bind => Node {
                path,
                kind: DeviceKind::Char,
                numbers: (libc::major(rdev), libc::minor(rdev)),
                mode: 0o666,
                owner: (0, 0),
                field: "dev".into(),
            }
            .step(way)?,
        });
    }
    for d in &request.devices {
        if same(&d.path, Path::new("/")) {
            return Err(Error::field(format!("{}.path", d.field()), "is empty"));
        }
        // What it leads to is the container's own, not the node's: the link comes below.
        if same(&d.path, Path::new("/dev/ptmx")) {
            continue;
        }
        let node = Node {
            path: d.path.clone(),
            kind: d.kind,
            numbers: (d.major, d.minor),
            mode: d.mode,
            owner: (d.uid, d.gid),
            field: d.field(),
        };
        steps.push(node.step(way)?);
    }
    for (target, path) in LINKS {
        steps.push(Step::Symlink {
            target: c_string(target, "dev")?,
            path: c_string(path, "dev")?,
            replace: false,
        });
    }
    steps.push(Step::Symlink {
        target: c"pts/ptmx".to_owned(),
        path: c"dev/ptmx".to_owned(),
        replace: true,
    });
    Ok(())
}
