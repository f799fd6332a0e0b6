//! Says what the binary was built from.
//!
//! Enters: `CLIPROXY_BUILD`, as `VERSION` or `VERSION (COMMIT, DATE)`, or the git checkout in release builds.
//! Leaves: `CLIPROXY_VERSION`, as `git describe --tags --always --dirty` says it, and `CLIPROXY_VERSION_LINE` with
//! commit and date. Nothing may go wrong: without git it is the package's version.
//!
//! Builds for development say the package's version and do not look at git: a commit would build them anew.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=CLIPROXY_BUILD");
    println!("cargo:rerun-if-changed=build.rs");
    let told = |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    let release = told("PROFILE").is_some_and(|profile| profile == "release");
    let line = told("CLIPROXY_BUILD").or_else(|| if release { of_git() } else { None });
    let line = line.unwrap_or_else(|| told("CARGO_PKG_VERSION").unwrap_or_default());
    let version = line.split(" (").next().unwrap_or_default();
    println!("cargo:rustc-env=CLIPROXY_VERSION={version}");
    println!("cargo:rustc-env=CLIPROXY_VERSION_LINE={line}");
}

/// What git says of the checkout. It is asked again when the commit or a source has changed.
fn of_git() -> Option<String> {
    // Inside of another project's checkout it would be that project's version.
    let top = std::path::PathBuf::from(git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    let own = std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?).canonicalize().ok()?;
    if top != own {
        return None;
    }
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
    let version = git(&["describe", "--tags", "--always", "--dirty"])?;
    let built_from = [git(&["rev-parse", "--short=12", "HEAD"]), git(&["log", "-1", "--format=%cs"])];
    let built_from: Vec<String> = built_from.into_iter().flatten().collect();
    Some(format!("{version} ({})", built_from.join(", ")))
}

fn git(arguments: &[&str]) -> Option<String> {
    let out = Command::new("git").args(arguments).output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8(out.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}
