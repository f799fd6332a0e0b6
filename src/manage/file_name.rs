//! Names of account files, as others say them.
//!
//! Enters: text of a request. Leaves: a name that cannot lead out of the folder. May go wrong: anything but a
//! plain name (400).

use super::answer::Refusal;
use std::path::Path;

/// Longest name in bytes: what file systems take.
const LONGEST: usize = 255;

/// Names that mean devices on Windows, where folders may be shared with.
const DEVICES: [&str; 22] = [
    "con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8", "com9",
    "lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
];

/// A plain name that ends in `.json`.
pub(super) fn plain(name: &str) -> Result<&str, Refusal> {
    // ASCII only: letters that look like others, or like a slash, are no letters here.
    let letter = |c: char| c.is_ascii_alphanumeric() || "@._+-=,~()[] ".contains(c);
    let stem = name.split('.').next().unwrap_or_default().trim().to_ascii_lowercase();
    let legal = (6..=LONGEST).contains(&name.len())
        && name.chars().all(letter)
        && !name.starts_with(['.', ' ', '-', '~'])
        && name.to_ascii_lowercase().ends_with(".json")
        && !DEVICES.contains(&stem.as_str());
    if legal {
        Ok(name)
    } else {
        Err(Refusal::bad("invalid name: a plain file name ending in .json is meant"))
    }
}

/// The same, or the whole path of a file in `folder`.
pub(super) fn in_folder<'n>(name: &'n str, folder: &Path) -> Result<&'n str, Refusal> {
    let path = Path::new(name);
    match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        // Compared as text: `..` within it stays another folder.
        (Some(parent), Some(base)) if path.is_absolute() && parent.as_os_str() == folder.as_os_str() => {
            plain(base)
        }
        _ => plain(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p58_only_a_plain_name_is_one() {
        for good in [
            "a.json",
            "A.JSON",
            "antigravity-a_b.json",
            "codex-user@host.tld-team.json",
            "kiro aws (2).json",
            "x.y.json",
            &format!("{}.json", "n".repeat(250)),
        ] {
            assert_eq!(plain(good).unwrap(), good);
        }
        for bad in [
            "",
            ".json",
            "a",
            "a.jso",
            "a.json.txt",
            "../a.json",
            "..json/../a.json",
            "/etc/a.json",
            "b/a.json",
            "b\\a.json",
            "..\\a.json",
            "a\0.json",
            "a.json\0",
            "%2e%2e%2fa.json",
            "..%2fa.json",
            "a\n.json",
            "nul.json",
            "CON.json",
            "com1.x.json",
            "lpt9.json",
            "c:a.json",
            ".hidden.json",
            "-rf.json",
            " a.json",
            "a.json ",
            "a\u{ff0f}b.json",
            "a\u{2215}b.json",
            "\u{430}.json",
            "a\u{202e}nosj.json",
            "*.json",
            "a?.json",
            "a|b.json",
            "<a>.json",
            &format!("{}.json", "n".repeat(251)),
        ] {
            assert!(plain(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn row_66_the_whole_path_of_a_file_of_the_folder_is_its_name() {
        let folder = Path::new("/srv/auths");
        assert_eq!(in_folder("/srv/auths/a.json", folder).unwrap(), "a.json");
        assert_eq!(in_folder("a.json", folder).unwrap(), "a.json");
        for bad in [
            "/srv/a.json",
            "/srv/auths/../a.json",
            "/srv/auths/../auths/a.json",
            "/srv/auths/b/a.json",
            "/srv/auths/",
            "/srv/auths/.json",
            "auths/a.json",
        ] {
            assert!(in_folder(bad, folder).is_err(), "{bad}");
        }
    }
}
