//! Says what the binary was built from.
//!
//! Enters: `CLIPROXY_BUILD` (with `CLIPROXY_COMMIT` and `CLIPROXY_DATE` where they are known), or the git
//! checkout in release builds. Leaves: `CLIPROXY_VERSION`, as `git describe --tags --always --dirty` says it, and
//! `CLIPROXY_VERSION_LINE` with commit and date. Nothing may go wrong: without git it is the package's version.
//!
//! Builds for development say the package's version and do not look at git: a commit would build them anew.

use std::process::Command;

fn main() {
    for name in ["CLIPROXY_BUILD", "CLIPROXY_COMMIT", "CLIPROXY_DATE"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    let told = |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    let release = told("PROFILE").is_some_and(|profile| profile == "release");
    let (version, commit, date) = match told("CLIPROXY_BUILD") {
        Some(version) => (Some(version), told("CLIPROXY_COMMIT"), told("CLIPROXY_DATE")),
        None if release => of_git(),
        None => (None, None, None),
    };
    let version = version.unwrap_or_else(|| told("CARGO_PKG_VERSION").unwrap_or_default());
    let from: Vec<String> = [commit, date].into_iter().flatten().collect();
    let line = if from.is_empty() { version.clone() } else { format!("{version} ({})", from.join(", ")) };
    println!("cargo:rustc-env=CLIPROXY_VERSION={version}");
    println!("cargo:rustc-env=CLIPROXY_VERSION_LINE={line}");
}

/// What git says of the checkout. It is asked again when the commit or a source has changed.
fn of_git() -> (Option<String>, Option<String>, Option<String>) {
    // Written by commits and checkouts. A path that is not there would run this at each build.
    for place in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", place]);
        if let Some(path) = path.filter(|path| std::path::Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    for place in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={place}");
    }
    (
        git(&["describe", "--tags", "--always", "--dirty"]),
        git(&["rev-parse", "--short=12", "HEAD"]),
        git(&["log", "-1", "--format=%cs"]),
    )
}

fn git(arguments: &[&str]) -> Option<String> {
    let out = Command::new("git").args(arguments).output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8(out.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}
