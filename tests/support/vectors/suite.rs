//! Running every vector of the repository against one implementation.
//!
//! Enters: a function that makes an [`Attempt`] of a vector, and the name of the list of vectors that do not
//! pass yet. Leaves: a [`Report`] with a table and everything that is wrong. May go wrong: a vector outside of
//! the list that fails, and one on the list that passes, so that the list can only shrink.
//!
//! | variable | effect |
//! |---|---|
//! | `CLIPROXY_VECTOR` | only vectors whose id starts so; input, output and failures in full |
//! | `CLIPROXY_VECTORS_SHRINK=1` | takes vectors that pass now off the list |

use super::{Form, Kind, Level, Output, Vector, check, document, load};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// What became of a vector.
#[derive(Debug)]
pub enum Attempt {
    /// It ran.
    Ran {
        /// What came out.
        output: Output,
        /// Failures that the runner found itself.
        faults: Vec<String>,
        /// Worth seeing when the vector is looked at alone.
        notes: Vec<String>,
    },
    /// The implementation does not have what the vector needs; what that is.
    Unable(String),
}

/// The list of vectors that do not pass yet: one id per line, `#` starts a comment.
#[derive(Debug)]
struct Pending {
    path: PathBuf,
    lines: Vec<String>,
}

/// What a run found.
#[derive(Debug)]
pub struct Report {
    /// For people.
    pub text: String,
    /// Why the run failed; empty when it did not.
    pub problems: Vec<String>,
}

/// What became of one vector, and why it does not pass.
struct Row<'v> {
    vector: &'v Vector,
    failures: Vec<String>,
    unable: Option<String>,
}

/// The folder of the vectors and their lists.
pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("vectors")
}

/// Runs all vectors, or those that `CLIPROXY_VECTOR` names.
pub fn run(list: &str, attempt: impl Fn(&Vector) -> Attempt) -> Report {
    let read = load(&folder().join("open")).and_then(|all| Ok((all, Pending::read(&folder().join(list))?)));
    let (vectors, mut pending) = match read {
        Ok(read) => read,
        Err(problem) => return Report { text: String::new(), problems: vec![problem] },
    };
    if let Ok(wanted) = env::var("CLIPROXY_VECTOR") {
        return show(&vectors, &wanted, attempt);
    }
    let rows: Vec<Row<'_>> = vectors.iter().map(|vector| row(vector, &attempt).0).collect();
    let mut problems = Vec::new();
    if env::var_os("CLIPROXY_VECTORS_SHRINK").is_some() {
        let passed = |id: &str| rows.iter().any(|row| row.vector.id == id && row.passed());
        problems.extend(pending.shrink(passed).err());
    }
    problems.extend(verdict(&rows, &pending));
    Report { text: table(&rows), problems }
}

fn row<'v>(
    vector: &'v Vector,
    attempt: &impl Fn(&Vector) -> Attempt,
) -> (Row<'v>, Option<(Output, Vec<String>)>) {
    let (failures, unable, seen) = match catch_unwind(AssertUnwindSafe(|| attempt(vector))) {
        Ok(Attempt::Ran { output, faults, notes }) => {
            let mut failures = check(vector, &output);
            failures.extend(faults);
            (failures, None, Some((output, notes)))
        }
        Ok(Attempt::Unable(reason)) => (Vec::new(), Some(reason), None),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            (vec![format!("panic: {said}")], None, None)
        }
    };
    (Row { vector, failures, unable }, seen)
}

impl Row<'_> {
    fn passed(&self) -> bool {
        self.failures.is_empty() && self.unable.is_none()
    }

    fn why(&self) -> String {
        self.unable.clone().unwrap_or_else(|| self.failures.join("\n      "))
    }
}

fn verdict(rows: &[Row<'_>], pending: &Pending) -> Vec<String> {
    let listed: BTreeSet<&str> = pending.ids().collect();
    let mut problems = Vec::new();
    for row in rows {
        let id = row.vector.id.as_str();
        match (row.passed(), listed.contains(id)) {
            (false, false) => problems.push(format!("{id} fails:\n      {}", row.why())),
            (true, true) => problems.push(format!(
                "{id} passes now: take it off {} (CLIPROXY_VECTORS_SHRINK=1 does)",
                pending.path.display()
            )),
            _ => {}
        }
    }
    let known: BTreeSet<&str> = rows.iter().map(|row| row.vector.id.as_str()).collect();
    problems.extend(
        listed.difference(&known).map(|id| format!("{id} is on the list but there is no such vector")),
    );
    problems
}

impl Pending {
    /// Reads a list.
    fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path: path.to_owned(), lines: text.lines().map(str::to_owned).collect() })
    }

    /// The ids on the list.
    fn ids(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty() && !line.starts_with('#'))
    }

    /// Takes those off the list that `passed`, and writes it.
    fn shrink(&mut self, passed: impl Fn(&str) -> bool) -> Result<(), String> {
        self.lines.retain(|line| !passed(line.trim()));
        let text: String = self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        fs::write(&self.path, text).map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

/// Passed and all vectors by kind and pair of formats, and what the implementation does not have.
fn table(rows: &[Row<'_>]) -> String {
    let mut pairs: BTreeMap<(Kind, &str, &str), (usize, usize)> = BTreeMap::new();
    let mut unable: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        let key = (row.vector.kind, row.vector.from.as_str(), row.vector.to.as_str());
        let (passed, all) = pairs.entry(key).or_default();
        *passed += usize::from(row.passed());
        *all += 1;
        if let Some(reason) = &row.unable {
            *unable.entry(reason).or_default() += 1;
        }
    }
    let mut text = String::from("\nkind      from                 to                   passed/total\n");
    let mut line = |kind: &str, from: &str, to: &str, (passed, all): (usize, usize)| {
        let mark = if passed == all { "" } else { "  *" };
        let _ = writeln!(text, "{kind:<9} {from:<20} {to:<20} {passed:>6}/{all}{mark}");
    };
    let sum = |of: &dyn Fn(Kind) -> bool| {
        pairs.iter().filter(|((kind, ..), _)| of(*kind)).fold((0, 0), |a, (_, b)| (a.0 + b.0, a.1 + b.1))
    };
    for kind in [Kind::Request, Kind::Response, Kind::Stream, Kind::Ws] {
        for ((_, from, to), counts) in pairs.iter().filter(|((of, ..), _)| *of == kind) {
            line(kind.name(), from, to, *counts);
        }
        line(kind.name(), "all", "", sum(&|of| of == kind));
    }
    line("total", "", "", sum(&|_| true));
    for (reason, count) in unable {
        let _ = writeln!(text, "not tried: {count:>3} × {reason}");
    }
    text
}

/// Runs the vectors whose id starts with `wanted` and shows all there is to see.
fn show(vectors: &[Vector], wanted: &str, attempt: impl Fn(&Vector) -> Attempt) -> Report {
    let (mut text, mut problems) = (String::new(), Vec::new());
    let chosen: Vec<&Vector> = vectors.iter().filter(|vector| vector.id.starts_with(wanted)).collect();
    if chosen.is_empty() {
        problems.push(format!("CLIPROXY_VECTOR: no id starts with {wanted}"));
    }
    for vector in chosen {
        let (row, seen) = row(vector, &attempt);
        describe(&row, seen, &mut text);
        if !row.passed() {
            problems.push(format!("{} fails:\n      {}", vector.id, row.why()));
        }
    }
    Report { text, problems }
}

fn describe(row: &Row<'_>, seen: Option<(Output, Vec<String>)>, text: &mut String) {
    let vector = row.vector;
    let verdict = if row.passed() { "passes" } else { "FAILS" };
    let level = if vector.level == Level::Must { "must" } else { "should" };
    let (id, kind, from, to) = (&vector.id, vector.kind.name(), &vector.from, &vector.to);
    let _ = writeln!(text, "\n═══ {id} {verdict}: {kind} {from} → {to}, {}, {level}", vector.model);
    let _ = writeln!(text, "{}: {}", vector.title, vector.pitfall);
    if let Some(choice) = &vector.choice {
        let _ = writeln!(text, "choice: {choice}");
    }
    match vector.kind {
        Kind::Ws => section(text, "client's frames", vector.input.to_string().as_bytes()),
        _ => section(text, "client's request", &vector.client_request()),
    }
    match (vector.kind, vector.input_form) {
        (Kind::Request, _) => {}
        (Kind::Ws, _) => section(text, "upstream's answers", json!(vector.upstream).to_string().as_bytes()),
        (Kind::Stream, None | Some(Form::Sse)) => {
            section(text, "upstream's stream", &vector.answer(b"", false));
        }
        _ => section(text, "upstream's answer", vector.input.to_string().as_bytes()),
    }
    if let Some((output, notes)) = seen {
        for note in notes {
            let _ = writeln!(text, "note: {note}");
        }
        match &output {
            Output::Body(body) => section(text, "output", body),
            Output::Stream(stream) => section(text, "output", stream),
            Output::Turns { upstream, frames } => {
                for body in upstream {
                    section(text, "to the upstream", body);
                }
                for events in frames {
                    section(text, "to the client", &events.join(&b'\n'));
                }
            }
            Output::Refused { status, message } => {
                let _ = writeln!(text, "── refused with status {status}: {message}");
            }
        }
        if let (Kind::Stream | Kind::Ws, Ok((folded, _))) = (vector.kind, document(vector, &output)) {
            section(text, "folded", without_raw(folded).to_string().as_bytes());
        }
    }
    if !row.passed() {
        let _ = writeln!(text, "── failures\n      {}", row.why());
    }
}

/// The raw events are in the output already.
fn without_raw(mut folded: Value) -> Value {
    if let Value::Object(members) = &mut folded {
        members.shift_remove("raw");
    }
    folded
}

/// JSON is laid out, other text shown as it is.
fn section(text: &mut String, title: &str, bytes: &[u8]) {
    let parsed =
        serde_json::from_slice::<Value>(bytes).and_then(|value| serde_json::to_string_pretty(&value));
    let shown = parsed.unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned());
    let _ = writeln!(text, "── {title}\n{}", shown.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors() -> Vec<Vector> {
        let one = |id: &str| {
            let input = json!({"model": "x"});
            serde_json::from_value(
                json!({"id": id, "title": "", "pitfall": "", "from": "openai", "to": "kiro",
                "model": "m", "kind": "request", "level": "must", "input": input,
                "expect": {"assert": [{"pointer": "/good", "op": "exists"}]}}),
            )
            .unwrap()
        };
        ["bad", "good", "panics", "unable"].map(one).to_vec()
    }

    fn attempt(vector: &Vector) -> Attempt {
        let ran = |body: &str| Attempt::Ran {
            output: Output::Body(body.as_bytes().to_vec()),
            faults: Vec::new(),
            notes: vec!["noted".to_owned()],
        };
        match vector.id.as_str() {
            "bad" => ran("{}"),
            "good" => ran("{\"good\":1}"),
            "panics" => panic!("at the disco"),
            _ => Attempt::Unable("no wings".to_owned()),
        }
    }

    fn pending(ids: &[&str]) -> Pending {
        Pending { path: PathBuf::from("list"), lines: ids.iter().map(|id| (*id).to_owned()).collect() }
    }

    #[test]
    fn the_list_must_hold_exactly_what_does_not_pass() {
        let vectors = vectors();
        let rows: Vec<_> = vectors.iter().map(|vector| row(vector, &attempt).0).collect();
        assert_eq!(verdict(&rows, &pending(&["# why", "bad", " panics ", "unable", ""])), [""; 0]);
        let problems = verdict(&rows, &pending(&["good", "gone", "unable"]));
        let starts = [
            "bad fails:\n      /good exists",
            "good passes now",
            "panics fails:\n      panic: at the disco",
            "gone is on the list",
        ];
        assert_eq!(problems.len(), starts.len());
        for (problem, start) in problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem}");
        }
    }

    #[test]
    fn the_table_counts_and_says_what_is_not_tried() {
        let vectors = vectors();
        let rows: Vec<_> = vectors.iter().map(|vector| row(vector, &attempt).0).collect();
        let table = table(&rows);
        assert!(table.contains("request   openai               kiro                      1/4  *"), "{table}");
        assert!(table.contains("not tried:   1 × no wings"), "{table}");
    }

    #[test]
    fn one_vector_is_shown_in_full() {
        let report = show(&vectors(), "bad", attempt);
        for part in ["bad FAILS", "note: noted", "── output\n{}", "/good exists null: got <missing>"] {
            assert!(report.text.contains(part), "{part}");
        }
        assert_eq!(report.problems.len(), 1);
        assert_eq!(show(&vectors(), "good", attempt).problems, [""; 0]);
        assert_eq!(show(&vectors(), "x", attempt).problems.len(), 1);
    }
}
