//! What the tests of all packages share.

pub mod vectors;
