//! Keeps the answers that tests made, for `tests/kit/sdk_types.py`, which parses them with the types of the
//! official SDKs.
//!
//! Enters: answers and streams in a client's format. Leaves: JSON lines at the end of the file that
//! `CLIPROXY_RECORD` names: `{"cell", "format", "kind": "body" | "event", "value"}`. Without the variable
//! nothing is kept. May go wrong: a file that cannot be written, which panics.

use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

static OUT: LazyLock<Option<Mutex<File>>> = LazyLock::new(|| {
    let path = std::env::var_os("CLIPROXY_RECORD")?;
    match OpenOptions::new().create(true).append(true).open(&path) {
        Ok(file) => Some(Mutex::new(file)),
        Err(error) => panic!("CLIPROXY_RECORD cannot be written: {error}"),
    }
});

/// Keeps a whole answer in the client format `format`, made by the test `cell`.
pub fn body(cell: &str, format: &str, value: &Value) {
    line(cell, format, "body", value);
}

/// Keeps each event of a stream, which [`crate::vectors::stream_document`] has read.
pub fn events(cell: &str, format: &str, document: &Value) {
    for event in document["raw"].as_array().into_iter().flatten() {
        line(cell, format, "event", event);
    }
}

fn line(cell: &str, format: &str, kind: &str, value: &Value) {
    if let Some(out) = &*OUT {
        let line = json!({"cell": cell, "format": format, "kind": kind, "value": value});
        let mut file = out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(file, "{line}") {
            panic!("CLIPROXY_RECORD takes no line: {error}");
        }
    }
}
