//! The shape of the source: who may use whom, how long a file may be, what every module opens with.
//!
//! Packages are held apart by Cargo; what Cargo cannot say is said here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest file, tests and all. Most are a third of it.
const LONGEST: usize = 600;

/// Packages and the packages of ours that each may use. Left may not see right.
const PACKAGES: [(&str, &[&str]); 5] = [
    ("wire", &[]),
    ("config", &["wire"]),
    ("pool", &["wire", "config"]),
    ("testkit", &[]),
    ("cliproxy", &["wire", "config", "pool"]),
];

/// What the pure packages must never pull in, at any depth.
const IMPURE: [&str; 8] = ["tokio", "pingora", "reqwest", "hyper", "mio", "rand", "tracing", "log"];

/// What the sources of the pure packages must not name: files, sockets, clocks, threads, the environment.
const EFFECTS: [&str; 11] = [
    "std::fs",
    "std::io::stdin",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os",
    "std::process",
    "std::thread",
    "std::env",
    "Instant::now",
    "SystemTime",
    "RandomState",
];

/// Modules of the root package and the modules that each may name.
const MODULES: [(&str, &[&str]); 10] = [
    ("observe", &[]),
    ("upstream", &["observe"]),
    ("state", &["observe", "upstream"]),
    ("proxy", &["observe", "upstream", "state"]),
    // It and `proxy` never name each other: they meet in `state`.
    ("manage", &["observe", "upstream", "state"]),
    ("demo", &["proxy"]),
    ("server", &["observe", "upstream", "state", "proxy", "manage", "demo"]),
    ("embed", &["state", "server"]),
    ("cli", &["observe", "upstream", "state", "proxy", "demo", "server"]),
    ("main", &["cli"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn all_sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in ["src", "tests/suite", "tests/sim", "tests/support", "benches"] {
        let folder = root().join(folder);
        if folder.is_dir() {
            sources(&folder, &mut files);
        }
    }
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            (name, fs::read_to_string(&path).expect("the file can be read"))
        })
        .collect()
}

/// The part of a file before its tests.
fn product(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod tests").map_or(text, |at| &text[..at])
}

#[test]
fn every_module_says_what_it_is() {
    let silent: Vec<_> = all_sources()
        .into_iter()
        .filter(|(_, text)| !text.trim_start().starts_with("//!"))
        .map(|(name, _)| name)
        .collect();
    assert!(silent.is_empty(), "these files do not open with `//!`: {silent:?}");
}

#[test]
fn no_file_is_longer_than_a_reader() {
    let long: Vec<_> = all_sources()
        .into_iter()
        .map(|(name, text)| (text.lines().count(), name))
        .filter(|(lines, _)| *lines > LONGEST)
        .collect();
    assert!(long.is_empty(), "longer than {LONGEST} lines: {long:?}");
}

#[test]
fn packages_use_only_what_is_left_of_them() {
    let metadata = metadata(&["--no-deps"]);
    let ours: BTreeMap<&str, &[&str]> = PACKAGES.into_iter().collect();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        let allowed = ours.get(name).unwrap_or_else(|| panic!("{name} is not in the list of packages"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let used = dependency["name"].as_str().expect("a name");
            let for_tests = dependency["kind"].as_str() == Some("dev");
            let forbidden =
                ours.contains_key(used) && !allowed.contains(&used) && !(for_tests && used == "testkit");
            assert!(!forbidden, "{name} must not use {used}");
        }
    }
}

#[test]
fn pure_packages_reach_no_io() {
    for package in ["wire", "config", "pool"] {
        let tree = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--locked",
                "-p",
                package,
                "-e",
                "normal",
                "--prefix",
                "none",
                "-f",
                "{p}",
            ])
            .current_dir(root())
            .output()
            .expect("cargo runs");
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let text = String::from_utf8_lossy(&tree.stdout).into_owned();
        for line in text.lines() {
            let name = line.split(' ').next().unwrap_or_default();
            assert!(!IMPURE.contains(&name), "{package} pulls in {name}");
        }
    }
}

#[test]
fn pure_packages_name_no_effects() {
    let mut wrong = Vec::new();
    for (name, text) in all_sources() {
        // Scenarios and integration tests may use threads and read their data.
        let pure = ["src/wire/", "src/config/", "src/pool/"].iter().any(|p| name.starts_with(p));
        if !pure || name.contains("/tests/") || name.contains("/scenario/") {
            continue;
        }
        let code = product(&text).lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            wrong.extend(EFFECTS.iter().filter(|e| line.contains(*e)).map(|e| format!("{name} names {e}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn modules_of_the_root_keep_their_order() {
    let allowed: BTreeMap<&str, &[&str]> = MODULES.into_iter().collect();
    let mut wrong = Vec::new();
    for (name, text) in all_sources() {
        let Some(inside) = name.strip_prefix("src/") else { continue };
        if ["wire/", "config/", "pool/", "lib.rs"].iter().any(|p| inside.starts_with(p)) {
            continue;
        }
        let module = inside.split(['/', '.']).next().unwrap_or_default();
        let allowed = allowed.get(module).unwrap_or_else(|| panic!("{module} is not in the list of modules"));
        for used in named_modules(product(&text)) {
            if used != module && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{name} names crate::{used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The first segments after `crate::`.
fn named_modules(text: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect())
        .filter(|name: &String| !name.is_empty())
        .collect();
    found.dedup();
    found
}

#[test]
fn the_map_names_every_module() {
    let map = fs::read_to_string(root().join("src/lib.rs")).expect("the map can be read");
    let map: String = map.lines().filter(|line| line.starts_with("//!")).collect();
    for (name, _) in all_sources() {
        let Some(inside) = name.strip_prefix("src/") else { continue };
        let first = inside.split('/').next().unwrap_or_default();
        if first != "lib.rs" {
            assert!(map.contains(first), "src/lib.rs does not name {first}");
        }
    }
}

fn metadata(arguments: &[&str]) -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("metadata is JSON")
}
