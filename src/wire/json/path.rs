//! Where in a document a reader is: a chain on the stack, turned into text only for an error or a loss.

use std::fmt;

/// A position such as `messages[2].content[0].text`.
#[derive(Clone, Copy, Debug)]
pub enum Path<'p> {
    /// The document itself.
    Root,
    /// A member of the object at the parent.
    Key(&'p Path<'p>, &'p str),
    /// An element of the array at the parent.
    Index(&'p Path<'p>, usize),
}

impl<'p> Path<'p> {
    /// The member `key` of this value.
    #[must_use]
    pub fn key(&'p self, key: &'p str) -> Self {
        Path::Key(self, key)
    }

    /// The element `index` of this value.
    #[must_use]
    pub fn index(&'p self, index: usize) -> Self {
        Path::Index(self, index)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(parent, key) => write!(f, "{parent}.{key}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_the_client_wrote_it() {
        let root = Path::Root;
        let messages = root.key("messages");
        let second = messages.index(2);
        assert_eq!(second.key("role").to_string(), "messages[2].role");
    }
}
