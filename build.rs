//! The commit for `--version`: the environment's `COFFERDAM_COMMIT`, or git's. Not in builds for tests, which each commit would make anew.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=COFFERDAM_COMMIT");
    if std::env::var_os("COFFERDAM_COMMIT").is_some()
        || std::env::var("PROFILE").as_deref() != Ok("release")
    {
        return;
    }
    // Without it, in an archive, cargo would build anew each time.
    if std::path::Path::new(".git/logs/HEAD").exists() {
        println!("cargo::rerun-if-changed=.git/logs/HEAD");
    }
    let git = |args: &[&str]| {
        let out = Command::new("git").args(args).output().ok()?;
        let text = String::from_utf8(out.stdout).ok()?;
        out.status.success().then(|| text.trim().to_owned())
    };
    // Not the commit of a directory above that happens to be a checkout.
    let is_ours = git(&["rev-parse", "--show-prefix"]).is_some_and(|prefix| prefix.is_empty());
    if is_ours && let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo::rustc-env=COFFERDAM_COMMIT={commit}");
    }
}
