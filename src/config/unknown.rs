//! Keys that nobody asked for.
//!
//! Enters: their nodes, and the keys that are known beside them. Leaves: warnings: what becomes of keys that
//! other proxies know, and the nearest known key for the rest. Nothing may go wrong.

use crate::read::Unknown;
use crate::report::Findings;
use crate::tree::{Id, Kind, Tree};

/// What becomes of a key that other proxies know.
enum Fate {
    /// It makes requests look as if another client had sent them.
    Disguise,
    /// It is accepted and does nothing, for this reason.
    Ignored(&'static str),
}

use Fate::{Disguise, Ignored};

/// Keys of CLIProxyAPI 6 and 7 and of cliproxyapi++ that have no counterpart. `[]` stands for any element.
const FOREIGN: &[(&str, Fate)] = &[
    ("disable-claude-cloak-mode", Disguise),
    ("claude-header-defaults", Disguise),
    ("codex-header-defaults", Disguise),
    ("cloak", Disguise),
    ("fingerprint-profile", Disguise),
    ("kiro-fingerprint", Disguise),
    ("antigravity.sensitive-words", Disguise),
    ("codex.disable-codex-cloaking", Disguise),
    ("codex.identity-confuse", Disguise),
    ("claude-api-key[].cloak", Disguise),
    ("claude-api-key[].fingerprint-profile", Disguise),
    ("claude-api-key[].experimental-cch-signing", Disguise),
    ("antigravity.connection-pool", Ignored("connections are always pooled")),
    ("codex.optimize-multi-agent-v2", Ignored("requests of Codex agents are passed on as they are")),
    ("codex.orphan-delegation-compatibility", Ignored("requests of Codex agents are passed on as they are")),
    ("codex.live-media-relay", Ignored("there is no WebRTC relay")),
    ("pprof", Ignored("that is a profiler for Go programs")),
    ("plugins", Ignored("no code is loaded into the server")),
    ("credential-concurrency", Ignored("there is no Home control plane")),
    ("credential-in-flight", Ignored("there is no Home control plane")),
    ("home", Ignored("there is no Home control plane")),
    ("remote-management.disable-auto-update-panel", Ignored("the dashboard is part of the program")),
    ("remote-management.panel-github-repository", Ignored("the dashboard is part of the program")),
    ("incognito-browser", Ignored("logins print their address; open it where you like")),
    ("kiro", Ignored("Kiro accounts are files in auth-dir; import them there")),
    ("cursor", Ignored("Cursor accounts are files in auth-dir; import them there")),
    ("amp-upstream-url", Ignored("it is now ampcode.upstream-url")),
    ("amp-upstream-api-key", Ignored("it is now ampcode.upstream-api-key")),
    ("amp-restrict-management-to-localhost", Ignored("it is now ampcode.restrict-management-to-localhost")),
    ("amp-model-mappings", Ignored("it is now ampcode.model-mappings")),
];

/// Notes what becomes of `strange` keys, and of those keys of the top level that are not in `top`.
pub(crate) fn report(tree: &Tree<'_>, strange: Vec<Unknown>, top: &[&'static str], found: &mut Findings) {
    let strays = tree.below(0).iter().copied().filter(|id| !top.contains(&tree.key(*id)));
    let strays = strays.map(|id| Unknown { id, known: top.into() });
    let mut disguises = Vec::new();
    for Unknown { id, known } in strays.chain(strange) {
        judge(tree, id, &known, &mut disguises, found);
    }
    // One warning for the whole family: some files have dozens.
    if let Some((first, others)) = disguises.split_first() {
        let also = match others.len() {
            0 => String::new(),
            n => format!(" (also {n} further keys of this kind)"),
        };
        let problem = format!("accepted and ignored: cliproxy does not disguise clients{also}");
        found.warnings.push(tree.notice_key(*first, problem));
    }
}

fn judge(tree: &Tree<'_>, id: Id, known: &[&str], disguises: &mut Vec<Id>, found: &mut Findings) {
    let path = tree.path(id);
    let general = without_numbers(&path);
    match FOREIGN.iter().find(|(key, _)| *key == general) {
        Some((_, Disguise)) => disguises.push(id),
        Some((_, Ignored(reason))) => {
            found.warnings.push(tree.notice_key(id, format!("accepted and ignored: {reason}")));
        }
        // A map of which only keys below are listed.
        None if leads_to_foreign(&general) && matches!(tree.kind(id), Kind::Map(_)) => {
            for below in tree.below(id) {
                judge(tree, *below, &[], disguises, found);
            }
        }
        // A place for anchors, as in Compose files.
        None if tree.up(id) == 0 && general.starts_with("x-") => {}
        None if found.warnings.skip() => {}
        None => {
            let hint = nearest(tree.key(id), known).map(|key| format!("; did you mean `{key}`?"));
            let problem = format!("unknown key, ignored{}", hint.unwrap_or_default());
            found.warnings.push(tree.notice_key(id, problem));
        }
    }
}

fn leads_to_foreign(path: &str) -> bool {
    FOREIGN.iter().any(|(key, _)| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// `claude-api-key[3].cloak` → `claude-api-key[].cloak`.
fn without_numbers(path: &str) -> String {
    let mut general = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        inside = match c {
            '[' => true,
            ']' => false,
            _ => inside,
        };
        if !inside || c == '[' {
            general.push(c);
        }
    }
    general
}

/// The known key that `key` is a misspelling of: the same but for `-`, `_` and case, or a few letters away.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let bare = |key: &str| -> Vec<char> {
        key.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect()
    };
    let wanted = bare(key);
    let allowed = match wanted.len() {
        0..=3 => 0,
        4..=7 => 1,
        _ => 2,
    };
    known
        .iter()
        .map(|known| (distance(&wanted, &bare(known), allowed), *known))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Edits (insert, delete, replace, swap neighbours) between two words; more than `most` is only known to be more.
fn distance(a: &[char], b: &[char], most: usize) -> usize {
    if a.len().abs_diff(b.len()) > most {
        return most + 1;
    }
    let at = |row: &[usize], n: usize| row.get(n).copied().unwrap_or(usize::MAX - 1);
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (at(&row, j) + usize::from(x != y)).min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    at(&row, b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_keys_are_found_and_far_ones_are_not() {
        let known = ["api-key", "api-keys", "base-url", "host", "request-retry"];
        assert_eq!(nearest("api_keys", &known), Some("api-keys"));
        assert_eq!(nearest("baseUrl", &known), Some("base-url"));
        assert_eq!(nearest("requst-retry", &known), Some("request-retry"));
        assert_eq!(nearest("hots", &known), Some("host"));
        assert_eq!(nearest("hsto", &known), None);
        assert_eq!(nearest("hosts", &known), Some("host"));
        assert_eq!(nearest("completely-else", &known), None);
        assert_eq!(nearest("x", &known), None);
    }
}
