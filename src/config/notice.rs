//! What there is to say about a file.
//!
//! Enters: a place and a problem. Leaves: lines such as
//! `config.yaml:12:5: claude-api-key[0].base-url: it has no host`. Nothing may go wrong.

use crate::Config;
use std::fmt;

/// One remark. Never holds a secret: values are quoted only where they are words of a fixed set or numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Line, from 1; `None` when the remark is about the whole file.
    pub line: Option<u32>,
    /// Column in characters, from 1.
    pub column: Option<u32>,
    /// Keys that lead to the place: `claude-api-key[0].base-url`; empty for the whole file.
    pub path: String,
    /// What is wrong, and what happens or helps.
    pub problem: String,
}

impl Notice {
    /// A remark about the whole file.
    pub(crate) fn whole(problem: String) -> Self {
        Self { line: None, column: None, path: String::new(), problem }
    }

    /// The remark with the name of its file in front, as compilers print it.
    pub fn in_file<'n>(&'n self, file: &'n str) -> impl fmt::Display + 'n {
        fmt::from_fn(move |out| {
            out.write_str(file)?;
            out.write_str(":")?;
            if let Some(line) = self.line {
                write!(out, "{line}:")?;
                if let Some(column) = self.column {
                    write!(out, "{column}:")?;
                }
            }
            out.write_str(" ")?;
            if !self.path.is_empty() {
                write!(out, "{}: ", self.path)?;
            }
            out.write_str(&self.problem)
        })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.in_file("config").fmt(out)
    }
}

/// A file that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What was not understood, left out or is out of date, in the order of the file.
    pub warnings: Vec<Notice>,
}

/// A file that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Broken {
    /// The mistakes, at least one, in the order of the file.
    pub notices: Vec<Notice>,
}

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, notice) in self.notices.iter().enumerate() {
            if n > 0 {
                out.write_str("\n")?;
            }
            notice.fmt(out)?;
        }
        Ok(())
    }
}
