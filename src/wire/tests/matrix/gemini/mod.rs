//! Gemini generateContent.

pub(crate) mod answer;
pub(crate) mod request;
