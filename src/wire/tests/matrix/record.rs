//! Keeps what the cells made, for `tests/kit/types.py`, which parses it with the types of the official SDKs.
//!
//! Enters: answers and streams. Leaves: JSON lines in the file that `CLIPROXY_MATRIX_OUT` names, one body or
//! event each: `{"cell", "format", "kind": "body" | "event", "value"}`. Without the variable nothing is kept.

use crate::cell::Cell;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

static OUT: LazyLock<Option<Mutex<File>>> = LazyLock::new(|| {
    let path = std::env::var_os("CLIPROXY_MATRIX_OUT")?;
    match File::create(&path) {
        Ok(file) => Some(Mutex::new(file)),
        Err(error) => panic!("CLIPROXY_MATRIX_OUT cannot be written: {error}"),
    }
});

/// Keeps a whole answer.
pub(crate) fn body(cell: Cell, value: &Value) {
    line(cell, "body", value);
}

/// Keeps each event of a stream.
pub(crate) fn events(cell: Cell, document: &Value) {
    for event in document["raw"].as_array().into_iter().flatten() {
        line(cell, "event", event);
    }
}

fn line(cell: Cell, kind: &str, value: &Value) {
    if cell.client == cell.upstream {
        // Bytes of the upstream, which this test wrote itself.
        return;
    }
    if let Some(out) = &*OUT {
        let line = json!({"cell": cell.name(), "format": cell.client.name(), "kind": kind, "value": value});
        let mut file = out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(file, "{line}") {
            panic!("CLIPROXY_MATRIX_OUT takes no line: {error}");
        }
    }
}
