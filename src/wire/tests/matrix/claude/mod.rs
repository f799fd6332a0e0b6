//! Claude Messages.

pub(crate) mod answer;
pub(crate) mod request;
