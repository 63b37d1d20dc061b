//! `cofferdam`: the companion command for people.

use std::io::Write;

const HELP: &str = "cofferdam, the companion of containerd-shim-cofferdam-v1

Usage: cofferdam <command>

Commands:
  features   Print what the executor supports, as OCI features JSON
  version    Print the version
  help       Print this text

The shim itself is started by containerd: set runtime_type = \"io.containerd.cofferdam.v1\".
";

fn main() {
    let mut out = std::io::stdout().lock();
    let text = match std::env::args().nth(1).as_deref() {
        Some("features") => format!("{:#}\n", cofferdam::bootstrap::features()),
        Some("version" | "--version" | "-v") => {
            format!("cofferdam {}\n", env!("CARGO_PKG_VERSION"))
        }
        None | Some("help" | "--help" | "-h") => HELP.to_owned(),
        Some(other) => {
            eprintln!("cofferdam: unknown command {other:?}; try cofferdam help");
            std::process::exit(2);
        }
    };
    out.write_all(text.as_bytes()).ok();
}
