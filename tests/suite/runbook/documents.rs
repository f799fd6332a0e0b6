//! The commands of the documents: every block of shell that an operator may copy is run.
//!
//! Enters: a document. Leaves: nothing, when all blocks marked `sh` end well under `set -euo pipefail`, one after
//! the other against one process. Words behind `sh` say what else a block does:
//!
//! | word | the block |
//! |---|---|
//! | `expect=TEXT` | prints this text |
//! | `endless` | goes on until somebody ends it |
//! | `fresh` | has a process of its own, which it may stop |
//! | `skip=REASON` | cannot run in a test; [`SKIPPED`] counts them |

use super::Site;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Blocks of a document that are not run.
const SKIPPED: [(&str, usize); 2] = [("conf/runbook.md", 0), ("README.md", 0)];
/// Most lines of the runbook.
const LONGEST: usize = 300;

/// A block of shell.
#[derive(Debug, Default)]
struct Block {
    /// Line of its first command.
    line: usize,
    script: String,
    expect: Option<String>,
    endless: bool,
    fresh: bool,
    skip: bool,
}

fn text(document: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    std::fs::read_to_string(path).expect("the document can be read")
}

/// The blocks of a document that are marked `sh`.
fn blocks(document: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Option<Block>> = None;
    for (n, line) in text(document).lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some(begin(info, n + 2)),
            (Some(_), Some(_)) => found.extend(open.take().flatten()),
            (None, Some(Some(block))) => {
                block.script.push_str(line);
                block.script.push('\n');
            }
            (None, _) => {}
        }
    }
    assert!(open.is_none(), "{document}: the last block has no end");
    found
}

/// A block by the words of its first line; `None`: it is not shell.
fn begin(info: &str, line: usize) -> Option<Block> {
    let mut words = info.split(' ');
    if words.next() != Some("sh") {
        return None;
    }
    let mut block = Block { line, ..Block::default() };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("expect", text) if !text.is_empty() => block.expect = Some(text.to_owned()),
            ("endless", "") => block.endless = true,
            ("fresh", "") => block.fresh = true,
            ("skip", reason) => {
                assert!(!reason.is_empty(), "line {line}: say why it is skipped");
                block.skip = true;
            }
            _ => assert!(word.is_empty(), "line {line}: nobody knows the word {word:?}"),
        }
    }
    Some(block)
}

/// A server as the documents suppose it: one provider with an alias, one account that is called `a.json`.
fn site() -> Site {
    Site::own(|setup| {
        setup.without("openai-compatibility").only(&["kiro-aws-a.json", "qwen-a.json"]).add(
            r#"openai-compatibility:
  - name: openrouter
    base-url: "UPSTREAM/v1"
    prefix: or
    api-key-entries: [{api-key: k1}, {api-key: k2}]
    models: [{name: m1, alias: coder}]
alerts:
  notify: [{webhook: "UPSTREAM/alerts"}]
"#,
        );
        let account = serde_json::json!({
            "type": "claude", "access_token": "ca", "refresh_token": "cr", "email": "c@b.test",
            "expired": "2036-01-01T00:00:00Z",
        });
        setup.account("a.json", account);
    })
}

/// Ends what a block has left running in a server's folder.
struct Strays(PathBuf);

impl Drop for Strays {
    fn drop(&mut self) {
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == self.0) {
                let _ = Command::new("kill").arg("-9").arg(entry.file_name()).status();
            }
        }
    }
}

fn run(document: &str) {
    let blocks = blocks(document);
    assert!(!blocks.is_empty(), "{document} has commands");
    let shared = site();
    for block in blocks.iter().filter(|block| !block.skip) {
        let fresh = block.fresh.then(site);
        let site = fresh.as_ref().unwrap_or(&shared);
        let _strays = block.fresh.then(|| Strays(site.folder().to_owned()));
        let script = format!("set -euo pipefail\n{}", block.script);
        let ran = site.shell(&script, if block.endless { "2" } else { "60" });
        let place = format!("{document}:{}", block.line);
        assert_eq!(ran.rc, if block.endless { 124 } else { 0 }, "{place}: {ran:?}");
        if let Some(text) = &block.expect {
            assert!(ran.out.contains(text), "{place}: it does not print {text:?}: {ran:?}");
        }
    }
}

#[test]
fn every_command_of_the_runbook_runs() {
    run("conf/runbook.md");
}

#[test]
fn every_command_of_the_readme_runs() {
    run("README.md");
}

#[test]
fn few_commands_are_skipped_and_the_runbook_is_short() {
    for (document, most) in SKIPPED {
        let skipped = blocks(document).iter().filter(|block| block.skip).count();
        assert_eq!(skipped, most, "{document}");
    }
    let lines = text("conf/runbook.md").lines().count();
    assert!(lines < LONGEST, "the runbook has {lines} lines");
}
