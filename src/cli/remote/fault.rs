//! Why a running process could not be asked, and what to do.
//!
//! Enters: what went wrong. Leaves: text for people, without secrets. Nothing may go wrong.

use crate::cli::table::harmless;
use std::fmt::Write;

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum Fault {
    /// The address is none.
    #[error("{base}: {reason}")]
    Address { base: String, reason: String },
    /// The file of the secret cannot be used.
    #[error("the secret cannot be read: {file}: {reason}")]
    SecretFile { file: String, reason: String },
    /// The configuration file, which says where the process is, cannot be used.
    #[error("{file}: {reason}")]
    ConfigFile { file: String, reason: String },
    /// Nobody answers.
    #[error("{base} does not answer: {reason}")]
    Unreachable { base: String, reason: String },
    /// Somebody else answers.
    #[error("{base} is no cliproxy, or one that does not know {path}: it answers {status}")]
    Stranger { base: String, path: String, status: u16 },
    /// There is no management.
    #[error("management is off on {base}")]
    Off { base: String },
    /// The process is older than this command.
    #[error("{base} has no {path}: it is of another version than this command")]
    NoPath { base: String, path: String },
    /// No secret was given.
    #[error("{base} wants its management secret")]
    NoSecret { base: String },
    /// The secret is wrong.
    #[error("{base} refuses the secret of {source_of}")]
    WrongSecret { base: String, source_of: String },
    /// Too many wrong secrets.
    #[error("{base} locks this machine out after too many wrong secrets")]
    LockedOut { base: String, wait: String },
    /// It answers its own machine only.
    #[error("{base} lets nobody manage it from another machine")]
    NotFromHere { base: String },
    /// It says no for a reason of its own.
    #[error("{error} ({status} from {base})")]
    Refused { base: String, status: u16, error: String, mend: &'static str },
    /// A mistake of whoever typed the command.
    #[error("{what}")]
    Usage { what: String, mend: &'static str },
}

impl Fault {
    /// What a refusal of the process means. `source`: where the secret came from, if there was one.
    pub(super) fn of(base: &str, status: u16, error: &str, path: &str, source: Option<&str>) -> Self {
        let base = base.to_owned();
        let path = path.split('?').next().unwrap_or_default().to_owned();
        match status {
            404 if error.starts_with("management is off") => Self::Off { base },
            404 if error.starts_with("there is no such management path") => Self::NoPath { base, path },
            405 => Self::NoPath { base, path },
            401 => match source {
                None => Self::NoSecret { base },
                Some(source) => Self::WrongSecret { base, source_of: source.to_owned() },
            },
            403 if error.contains("banned") => {
                let wait = error.split_once("again in ").map_or(error, |(_, wait)| wait).to_owned();
                Self::LockedOut { base, wait }
            }
            403 if error.starts_with("remote management disabled") => Self::NotFromHere { base },
            _ => {
                let mend = match error {
                    "logging to file disabled" => "set logging-to-file: true in its configuration",
                    _ if status == 503 => "try again in a moment",
                    _ => "",
                };
                Self::Refused { base, status, error: error.to_owned(), mend }
            }
        }
    }

    /// Whether it may pass by itself.
    pub(in crate::cli) fn passes(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } | Self::Stranger { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// What the process said, or what is so.
    pub(in crate::cli) fn reason(&self) -> String {
        match self {
            Self::Refused { error, .. } => error.clone(),
            other => other.to_string(),
        }
    }

    /// What to do; empty: nothing is known.
    fn mend(&self) -> String {
        match self {
            Self::Address { .. } => "write --url (CLIPROXY_URL) as http://HOST:PORT or https://HOST".to_owned(),
            Self::SecretFile { .. } => "name a readable file with --secret-file (CLIPROXY_SECRET_FILE)".to_owned(),
            Self::ConfigFile { .. } => {
                "name the right file with --config, or the process with --url (CLIPROXY_URL)".to_owned()
            }
            Self::Unreachable { base, .. } if base.starts_with("https:") => {
                "is it running? name it as its certificate does, with --url (CLIPROXY_URL); the system has to \
                 trust the certificate"
                    .to_owned()
            }
            Self::Unreachable { .. } => {
                "is it running? start it with `cliproxy`, or say where it is with --url (CLIPROXY_URL)".to_owned()
            }
            Self::Stranger { .. } => "check --url (CLIPROXY_URL), and what stands between".to_owned(),
            Self::Off { .. } => {
                "set remote-management.secret-key in its configuration, or start it with MANAGEMENT_PASSWORD set"
                    .to_owned()
            }
            Self::NoPath { .. } => "upgrade the one that is older; `cliproxy status` shows its version".to_owned(),
            Self::NoSecret { .. } => {
                "put it into the variable CLIPROXY_SECRET, or into a file for --secret-file".to_owned()
            }
            Self::WrongSecret { .. } => "it has to be the text of remote-management.secret-key before it was \
                                         hashed, or MANAGEMENT_PASSWORD of the process; client keys do not count"
                .to_owned(),
            Self::LockedOut { wait, .. } => format!("try again in {wait}, with the right secret"),
            Self::NotFromHere { .. } => {
                "run this on its machine, tunnel (ssh -L 8317:127.0.0.1:8317 HOST), or set \
                 remote-management.allow-remote: true"
                    .to_owned()
            }
            Self::Refused { mend, .. } | Self::Usage { mend, .. } => (*mend).to_owned(),
        }
    }

    /// For standard error: what is wrong, and below it what to do.
    pub(in crate::cli) fn text(&self) -> String {
        let mut text = format!("error: {}", harmless(&self.to_string()));
        let mend = self.mend();
        if !mend.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  -> {}", harmless(&mend));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_what_to_do() {
        let of =
            |status, error, source| Fault::of("http://h:1", status, error, "logs?limit=5", source).text();
        for (text, says) in [
            (
                of(404, "management is off: set remote-management.secret-key", None),
                "set remote-management.secret-key",
            ),
            (of(404, "there is no such management path", None), "has no logs: it is of another version"),
            (of(401, "missing management key", None), "CLIPROXY_SECRET"),
            (of(401, "invalid management key", Some("FILE")), "refuses the secret of FILE"),
            (
                of(403, "IP banned due to too many failed attempts. Try again in 0m30s", Some("F")),
                "try again in 0m30s",
            ),
            (of(403, "remote management disabled", Some("F")), "ssh -L"),
            (of(400, "logging to file disabled", Some("F")), "logging-to-file: true"),
            (of(503, "too many management requests at once", Some("F")), "in a moment"),
            (of(404, "auth file not found", Some("F")), "auth file not found (404"),
        ] {
            assert!(text.contains(says), "{text}");
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let gone = Fault::Unreachable { base: "http://h".into(), reason: "ConnectRefused".into() };
        assert!(gone.passes() && gone.text().contains("is it running?"));
        assert!(Fault::of("b", 503, "busy", "p", None).passes());
        assert!(!Fault::of("b", 401, "missing management key", "p", None).passes());
    }
}
