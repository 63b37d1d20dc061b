//! containerd's start protocol: `start`, `delete`, `-info`, `-v`, and becoming the pod's server.
//! containerd `core/runtime/v2/README.md`, `pkg/shim/`.

mod delete;
mod dialect;
mod info;
mod logging;
mod protect;
mod serve;
mod start;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use containerd_shim::{Flags, parse};

pub use info::features;

/// Everything that can end a subcommand; its text is what containerd shows its user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// With what we were doing.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |e| Self::Io(what, e)
    }
}

type Result<T> = std::result::Result<T, Error>;

/// The argument with which `start` runs the server; not for people.
const SERVE: &str = "serve";

/// The shim's `main`. Returns the exit status.
pub fn run(args: &[OsString]) -> i32 {
    match dispatch(args) {
        Ok(()) => 0,
        Err(e) => {
            // containerd shows standard error where the status is not 0.
            writeln!(io::stderr(), "cofferdam: {e}").ok();
            1
        }
    }
}

fn dispatch(args: &[OsString]) -> Result<()> {
    let name = args
        .first()
        .map(|a| {
            Path::new(a)
                .file_name()
                .unwrap_or(a)
                .to_string_lossy()
                .into_owned()
        })
        .unwrap_or_default();
    let is_help = |a: &OsString| ["-h", "-help", "--help", "help"].iter().any(|h| a == h);
    if args.len() == 2 && args.iter().skip(1).any(is_help) {
        return print(&info::help(&name));
    }
    let flags: Flags = parse(args.get(1..).unwrap_or_default())
        .map_err(|e| Error::Other(format!("arguments: {e}")))?;
    if flags.version {
        return print(&info::version(&name));
    }
    if flags.info {
        return write_out(&info::runtime_info()?);
    }
    match flags.action.as_str() {
        "start" => start::run(&name, &flags),
        "delete" => delete::run(&flags),
        SERVE => serve::run(&name, &flags),
        "" => Err(Error::Other(format!(
            "{name} is a containerd shim, which containerd starts by itself: set runtime_type = {:?}. \
             It takes the actions start and delete, and the flags -v, -info and -help",
            runtime_type(&name)
        ))),
        other => Err(Error::Other(format!(
            "unknown action {other:?}: expected start or delete"
        ))),
    }
}

fn print(text: &str) -> Result<()> {
    write_out(text.as_bytes())
}

fn write_out(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(Error::io("write the answer"))
}

/// The isolation profile that the name of the binary stands for: `containerd-shim-cofferdam-NAME-v1` is NAME.
pub(crate) fn profile(name: &str) -> &str {
    name.strip_prefix("containerd-shim-cofferdam-")
        .and_then(|n| n.strip_suffix("-v1"))
        .unwrap_or(STANDARD)
}

/// The `runtime_type` for which containerd starts the program of this name.
fn runtime_type(name: &str) -> String {
    match profile(name) {
        STANDARD => "io.containerd.cofferdam.v1".to_owned(),
        profile => format!("io.containerd.cofferdam-{profile}.v1"),
    }
}

/// The profile that takes things as they are.
const STANDARD: &str = "standard";

#[cfg(test)]
mod tests {
    use super::profile;

    #[test]
    fn the_binary_name_selects_the_profile() {
        assert_eq!(profile("containerd-shim-cofferdam-v1"), "standard");
        assert_eq!(profile("containerd-shim-cofferdam-hardened-v1"), "hardened");
        assert_eq!(profile("containerd-shim-cofferdam-my-own-v1"), "my-own");
        assert_eq!(profile("something-else"), "standard");
    }
}
