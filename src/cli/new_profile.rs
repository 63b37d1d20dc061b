//! `cofferdam profile new`: the steps to a class of one's own, those that may be done here done, the rest printed.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use super::{Error, Result, print};
use crate::isolation::{BUILT_IN, DIRECTORY, Profile};

const TEMPLATE: &str = include_str!("../../shim-config/profiles/template.toml");
/// What every link leads to.
const SHIM: &str = "containerd-shim-cofferdam-v1";

/// containerd makes the shim's name of the runtime's: letters, digits and dashes.
fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let plain = !name.is_empty() && name.len() <= 40 && name.chars().all(good);
    if plain && !name.starts_with('-') && !name.ends_with('-') {
        return Ok(());
    }
    Err(Error::Other(format!(
        "{name:?} cannot be the name of a class: use up to 40 lower-case letters, digits and dashes, as in \"web\""
    )))
}

/// The shim beside this command, or where programs are looked for.
fn shim() -> Option<PathBuf> {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = beside.into_iter().chain(std::env::split_paths(&path));
    places.find_map(|dir| Some(dir.join(SHIM)).filter(|file| file.is_file()))
}

pub(super) fn new(name: &str, from: &str, dry_run: bool) -> Result<()> {
    check_name(name)?;
    if BUILT_IN.iter().any(|(built_in, _)| *built_in == name) {
        return Err(Error::Other(format!(
            "{name:?} is built in: take another name (cofferdam profile new my-{name} --from {name}). To change it for every class, write {DIRECTORY}/{name}.toml by hand"
        )));
    }
    Profile::load(from)?;
    let file = Path::new(DIRECTORY).join(format!("{name}.toml"));
    let text = TEMPLATE.replace("PARENT", from).replace("NAME", name);
    let link = format!("containerd-shim-cofferdam-{name}-v1");
    let shim = shim();
    let link = shim
        .as_ref()
        .map(|shim| shim.with_file_name(&link))
        .ok_or(link);
    if dry_run {
        print(&format!("would write {}\n", file.display()));
    } else {
        write(&file, &text)?;
        print(&format!("wrote {}\n", file.display()));
    }
    match &link {
        Ok(link) if link.symlink_metadata().is_ok() => {
            print(&format!("{} is there already\n", link.display()));
        }
        Ok(link) if dry_run => print(&format!("would link {} to {SHIM}\n", link.display())),
        Ok(link) => {
            symlink(SHIM, link).map_err(Error::io(format!("link {}", link.display())))?;
            print(&format!("linked {} to {SHIM}\n", link.display()));
        }
        Err(link) => print(&format!(
            "{SHIM} was found neither beside this command nor in PATH: link {link} to it where it is installed\n"
        )),
    }
    print(&format!(
        "\nWhat remains:\n\n\
         1. Edit {file}, then: cofferdam profile validate {name}\n\n\
         2. Tell containerd 2.x: write /etc/containerd/conf.d/cofferdam-{name}.toml, which the main file must import:\n\n\
         \x20   version = 3\n\
         \x20   [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.cofferdam-{name}]\n\
         \x20     runtime_type = \"io.containerd.cofferdam-{name}.v1\"\n\n\
         \x20  (If the main file is of version 2, and with containerd 1.x: add the table to the main file itself, with io.containerd.grpc.v1.cri\n\
         \x20  as the plugin.)\n\n\
         3. cofferdam check {name}, then restart containerd. Running pods stay as they are.\n\n\
         4. kubectl apply -f - <<END\n\
         apiVersion: node.k8s.io/v1\n\
         kind: RuntimeClass\n\
         metadata:\n\
         \x20 name: cofferdam-{name}\n\
         handler: cofferdam-{name}\n\
         END\n\n\
         5. Pods choose it: runtimeClassName: cofferdam-{name}\n",
        file = file.display()
    ));
    Ok(())
}

/// Nothing that is there is replaced.
fn write(file: &Path, text: &str) -> Result<()> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    let made = fs::create_dir_all(directory);
    made.map_err(Error::io(format!("create {}", directory.display())))?;
    let opened = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(file);
    let written = opened.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Error::Other(format!(
            "{} is there already: edit it, or remove it first",
            file.display()
        )),
        _ => Error::Io(format!("write {}", file.display()), e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The template with every key set, as if each were wanted.
    fn with_every_key() -> String {
        let line = |line: &str| match line.strip_prefix("# ") {
            Some(key) if key.contains(" = ") && !key.contains('`') => key.to_owned(),
            _ => line.to_owned(),
        };
        let lines: Vec<String> = TEMPLATE.lines().map(line).collect();
        lines.join("\n").replace("PARENT", "hardened")
    }

    #[test]
    fn the_template_is_right_and_has_every_key() {
        let directory = Path::new("/nonexistent");
        let parse = |text: &str| Profile::parse(directory, "mine", "mine.toml", text);
        let plain = parse(&TEMPLATE.replace("PARENT", "hardened")).unwrap();
        let hardened = Profile::load_from(directory, "hardened").unwrap();
        assert_eq!(plain.to_toml(), hardened.to_toml());
        // With every key set, too.
        parse(&with_every_key()).unwrap();
    }

    #[test]
    fn names_are_what_containerd_makes_a_shims_of() {
        for (name, good) in [
            ("web", true),
            ("ci-runner2", true),
            ("", false),
            ("Web", false),
            ("a.b", false),
            ("../x", false),
            ("-a", false),
        ] {
            assert_eq!(check_name(name).is_ok(), good, "{name}");
        }
    }
}
