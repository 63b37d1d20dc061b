//! The two things that we do with files of our own everywhere: private directories, and files that are there whole or not at all.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Makes a directory that only its owner can enter, and those above it. One that exists stays as it is.
pub fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file with this mode (before the umask) beside `path`, and renames it: readers see the old content or the new one. Replaces
/// what is there, a link too.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(name);
    fs::remove_file(&temporary).ok(); // of a writer that was killed
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        fs::remove_file(&temporary).ok();
    }
    written
}

/// Bytes of a file that somebody writes by hand.
const LONGEST: u64 = 4 << 20;

/// Opens a file of settings. Only an ordinary file of at most 4 MiB: reading a pipe would wait, and a device has no end.
pub fn open_settings(path: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let metadata = file.metadata()?;
    let refused = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    if !metadata.is_file() {
        return Err(refused("it is not an ordinary file"));
    }
    if metadata.len() > LONGEST {
        return Err(refused("it is longer than 4 MiB"));
    }
    Ok(file)
}

/// The text of a file of settings: see [`open_settings`].
pub fn read_settings(path: &Path) -> io::Result<String> {
    read_opened(open_settings(path)?)
}

/// What is in a file that [`open_settings`] has opened.
pub fn read_opened(file: fs::File) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, LONGEST), &mut text)?;
    Ok(text)
}
