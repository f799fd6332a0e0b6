//! What a format could not hold: recorded, never silent.

use crate::json::Path;
use std::fmt;

/// Kind of loss. The policy per kind is the table in [`super::lower`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LossKind {
    /// A member that nobody here knows.
    UnknownMember,
    /// A setting the target does not have (`seed` for Claude).
    Setting,
    /// A built-in tool or its history without a counterpart.
    Builtin,
    /// A signature of another vendor.
    Signature,
    /// An attachment that was replaced by text.
    AttachmentAsText,
    /// A file id of another account.
    FileId,
    /// A tool result without its call, or a call without its result, that was repaired.
    ToolPairing,
    /// A value that was moved into the target's range.
    Clamped,
    /// Part of a schema that the target refuses.
    Schema,
    /// A cache mark the target does not have or has too few of.
    CacheMark,
    /// Content of an answer that the client's format cannot show.
    Content,
}

impl LossKind {
    /// Name in logs and headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownMember => "unknown-member",
            Self::Setting => "setting",
            Self::Builtin => "builtin-tool",
            Self::Signature => "signature",
            Self::AttachmentAsText => "attachment-as-text",
            Self::FileId => "file-id",
            Self::ToolPairing => "tool-pairing",
            Self::Clamped => "clamped",
            Self::Schema => "schema",
            Self::CacheMark => "cache-mark",
            Self::Content => "content",
        }
    }
}

/// One thing that did not get through as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Kind.
    pub kind: LossKind,
    /// Where in the client's document, or in the IR.
    pub path: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.path)
    }
}

/// Most losses that are kept of one request; hostile bodies have millions of unknown members.
const KEPT: usize = 64;

/// The losses of one request.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    kept: Vec<Loss>,
    more: usize,
}

impl Losses {
    /// Records a loss at `path`.
    pub fn at(&mut self, kind: LossKind, path: &Path<'_>) {
        if self.kept.len() < KEPT {
            self.kept.push(Loss { kind, path: path.to_string() });
        } else {
            self.more += 1;
        }
    }

    /// Records a loss of the top-level member `name`.
    pub fn member(&mut self, kind: LossKind, name: &str) {
        self.at(kind, &Path::Key(&Path::Root, name));
    }

    /// Whether one of those after the first `from` may be of the top-level member `name`.
    pub fn names_since(&self, from: usize, name: &str) -> bool {
        self.more > 0 || self.kept.iter().skip(from).any(|loss| loss.path == name)
    }

    /// The recorded ones.
    pub fn iter(&self) -> impl Iterator<Item = &Loss> {
        self.kept.iter()
    }

    /// Number of losses, also of those that were not kept.
    pub fn len(&self) -> usize {
        self.kept.len() + self.more
    }

    /// Whether nothing was lost.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, loss) in self.kept.iter().enumerate() {
            if n > 0 {
                f.write_str(", ")?;
            }
            loss.fmt(f)?;
        }
        if self.more > 0 {
            write!(f, ", and {} more", self.more)?;
        }
        Ok(())
    }
}
