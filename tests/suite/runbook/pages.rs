//! The operator's pages, `conf/docs/*.md`: what they say to type is typed, what they say to configure is loaded.

use super::{BINARY, Site};
use std::path::Path;
use std::process::Command;
use testkit::scratch::Scratch;

/// Pages that operators know by name (row 158).
const PAGES: [&str; 6] = [
    "api-index",
    "getting-started",
    "provider-catalog",
    "provider-usage",
    "routing-reference",
    "troubleshooting",
];

fn page(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/docs").join(format!("{name}.md"));
    std::fs::read_to_string(&file).expect(name)
}

/// The fenced blocks in a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(named)) => open = Some((named == language, String::new())),
            (Some((wanted, block)), Some(_)) => {
                if *wanted {
                    found.push(std::mem::take(block));
                }
                open = None;
            }
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

#[test]
fn row_158_the_pages_are_there_and_lead_to_each_other() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/docs");
    for name in PAGES {
        let text = page(name);
        assert!(text.starts_with("# ") && (50..=150).contains(&text.lines().count()), "{name}");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(folder.join(link).is_file(), "{name} leads to {link}, which is not there");
        }
    }
}

#[test]
fn row_158_configurations_of_the_pages_load_without_a_warning() {
    let mut seen = 0;
    for name in PAGES {
        for block in blocks(&page(name), "yaml") {
            let scratch = Scratch::new();
            // The folder of accounts of whoever runs the tests is none of theirs.
            let accounts = format!("auth-dir: \"{}\"\n", scratch.path().join("auths").display());
            let own = block.lines().filter(|line| !line.starts_with("auth-dir:"));
            let text: String = own.map(|line| format!("{line}\n")).collect();
            let file = scratch.file("config.yaml", &(accounts + &text));
            let checked =
                Command::new(BINARY).arg("check").arg("--config").arg(&file).output().expect("it runs");
            let said = String::from_utf8_lossy(&checked.stderr).into_owned();
            assert!(checked.status.success() && said.is_empty(), "{name}: {said}\n{block}");
            seen += 1;
        }
    }
    assert!(seen >= 6, "{seen}");
}

fn typed(name: &str) {
    let site = Site::own(|_| ());
    // What the pages ask for has happened before.
    site.types(
        r#"chat -o /dev/null -d '{"model":"team-a/fast","messages":[{"role":"user","content":"ping"}]}'"#,
    )
    .ok();
    let blocks = blocks(&page(name), "sh");
    assert!(!blocks.is_empty(), "{name} has nothing to type");
    for block in blocks {
        let typed = site.shell(&format!("set -euo pipefail\n{block}"), "60");
        // 141: `head` has seen enough.
        assert!([0, 141].contains(&typed.rc) && !typed.out.is_empty(), "{name}: {typed:#?}");
        for wrong in ["null", "jq: error", "curl: ("] {
            let lines = typed.out.lines().chain(typed.err.lines());
            assert!(
                lines.clone().all(|line| line != wrong && !line.starts_with("jq: error")),
                "{name}: {typed:#?}"
            );
        }
    }
}

#[test]
fn row_158_lines_of_getting_started() {
    typed("getting-started");
}

#[test]
fn row_158_lines_of_the_catalogue() {
    typed("provider-catalog");
}

#[test]
fn row_158_lines_of_usage() {
    typed("provider-usage");
}

#[test]
fn row_158_lines_of_routing() {
    typed("routing-reference");
}

#[test]
fn row_158_lines_of_troubleshooting() {
    typed("troubleshooting");
}

#[test]
fn row_158_lines_of_the_routes() {
    typed("api-index");
}
