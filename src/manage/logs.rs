//! The log files, by lines.
//!
//! Enters: how many lines, or from where. Leaves: lines and a cursor that goes on behind them, also over the
//! change to a new file; a live tail as events. May go wrong: logs go to no file (400); the file of a cursor is
//! gone, then the newest lines come and `cursor-reset` says so.

use super::answer::{Json, Refusal};
use super::lists::Parameters;
use super::{App, Routes, beside};
use crate::state::{State as Shared, reload};
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::stream;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Lines where the request names no number.
const LINES: usize = 200;
/// Most lines of one answer.
const MOST_LINES: usize = 10_000;
/// Most bytes that are read for one answer.
const MOST_BYTES: u64 = 8 << 20;
/// A line is rarely longer.
const USUAL_LINE: u64 = 700;
/// Time between two looks of a live tail.
const LOOK: Duration = Duration::from_millis(500);
/// Looks without a line after which a live tail shows that it lives.
const QUIET: u32 = 30;

pub(super) fn routes() -> Routes {
    vec![("logs".to_owned(), get(lines).delete(clear)), ("logs/stream".to_owned(), get(follow))]
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    inode: u64,
    offset: u64,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub lines: Vec<String>,
    pub next: Option<Cursor>,
    reset: bool,
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let (inode, offset) = text.split_once(':')?;
        Some(Self { inode: inode.parse().ok()?, offset: offset.parse().ok()? })
    }

    fn text(self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}:{}", self.inode, self.offset))
    }
}

pub(super) fn folder(state: &Shared) -> Result<PathBuf, Refusal> {
    let config = &state.snapshot.load().config;
    let folder = reload::logging(config, state.config_file.path().as_deref()).folder;
    folder.ok_or_else(|| Refusal::bad("logging to file disabled"))
}

/// Log files, the oldest first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let is_older =
        |name: &str| name.strip_prefix("main-").and_then(|name| name.strip_suffix(".log")).is_some();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_older))
        .collect();
    files.sort();
    files.extend(Some(folder.join("main.log")).filter(|main| main.is_file()));
    files
}

/// The whole lines of a file from an offset on, and the offset behind them.
fn read(path: &Path, from: u64) -> std::io::Result<(Vec<String>, Cursor)> {
    let mut file = File::open(path)?;
    let about = file.metadata()?;
    // Somebody emptied it.
    let from = if from > about.len() { 0 } else { from };
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let whole = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    let lines = whole.lines().map(str::to_owned).collect();
    Ok((lines, Cursor { inode: about.ino(), offset: from + end as u64 }))
}

/// The last lines of a file, at least so many where [`MOST_BYTES`] hold them, and the offset behind them.
fn end_of(path: &Path, limit: usize) -> Option<(Vec<String>, Cursor)> {
    let size = std::fs::metadata(path).ok()?.len();
    let mut bytes = (limit as u64 * USUAL_LINE).min(MOST_BYTES);
    loop {
        let from = size.saturating_sub(bytes);
        let (mut lines, next) = read(path, from).ok()?;
        if from == 0 {
            return Some((lines, next));
        }
        if lines.len() > limit || bytes >= MOST_BYTES {
            // The beginning of the first one was not read.
            lines.drain(..lines.len().min(1));
            return Some((lines, next));
        }
        bytes = (bytes * 4).min(MOST_BYTES);
    }
}

/// The newest lines of all files.
fn tail(files: &[PathBuf], limit: usize) -> Page {
    let mut page = Page::default();
    for path in files.iter().rev() {
        let Some((mut lines, next)) = end_of(path, limit.saturating_sub(page.lines.len())) else { continue };
        page.next.get_or_insert(next);
        lines.append(&mut page.lines);
        page.lines = lines;
        if page.lines.len() >= limit {
            break;
        }
    }
    let over = page.lines.len().saturating_sub(limit);
    page.lines.drain(..over);
    page
}

/// What came behind a cursor.
fn behind(files: &[PathBuf], cursor: Cursor, limit: usize) -> Page {
    let at =
        files.iter().position(|path| std::fs::metadata(path).is_ok_and(|about| about.ino() == cursor.inode));
    let Some(at) = at else {
        return Page { reset: true, ..tail(files, limit) };
    };
    let mut page = Page { next: Some(cursor), ..Page::default() };
    for (n, path) in files.iter().enumerate().skip(at) {
        let from = if n == at { cursor.offset } else { 0 };
        let Ok((lines, next)) = read(path, from) else { continue };
        page.reset |= n == at && next.offset < cursor.offset;
        page.next = Some(next);
        page.lines.extend(lines);
        if page.lines.len() >= limit {
            break;
        }
    }
    page
}

/// What came behind a cursor; without one, the last line and a cursor.
pub(super) fn new_lines(folder: &Path, cursor: Option<Cursor>) -> Page {
    let files = files(folder);
    match cursor {
        Some(cursor) => behind(&files, cursor, MOST_LINES),
        None => tail(&files, 1),
    }
}

/// Seconds since 1970 at which a line was written.
fn moment(line: &str) -> Option<i64> {
    line.split(' ').next()?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

async fn lines(State(app): State<App>, Query(query): Query<Parameters>) -> Result<Json, Refusal> {
    let number = |key: &str| {
        query
            .get(key)
            .map(|text| text.parse::<i64>().map_err(|_| Refusal::bad(format!("invalid {key}"))))
            .transpose()
    };
    let limit = match number("limit")?.or(number("lines")?) {
        Some(limit @ 1..) => usize::try_from(limit).unwrap_or(MOST_LINES).min(MOST_LINES),
        Some(_) => return Err(Refusal::bad("invalid limit")),
        None => LINES,
    };
    let after = number("after")?.filter(|after| *after > 0);
    let cursor = query.get("cursor").filter(|text| !text.is_empty());
    let cursor =
        cursor.map(|text| Cursor::parse(text).ok_or_else(|| Refusal::bad("invalid cursor"))).transpose()?;
    let state = Arc::clone(&app.state);
    let page = beside(move || {
        let files = files(&folder(&state)?);
        Ok::<_, Refusal>(match (cursor, after) {
            (Some(cursor), _) => behind(&files, cursor, limit),
            (None, None) => tail(&files, limit),
            (None, Some(after)) => {
                let mut page = tail(&files, MOST_LINES);
                // A line without a time belongs to the one before.
                let mut seen = false;
                page.lines.retain(|line| {
                    seen = moment(line).map_or(seen, |at| at > after);
                    seen
                });
                let over = page.lines.len().saturating_sub(limit);
                page.lines.drain(..over);
                page
            }
        })
    });
    Ok(Json(shown(&page.await??, after)))
}

fn shown(page: &Page, after: Option<i64>) -> Value {
    let latest = page.lines.iter().rev().find_map(|line| moment(line)).or(after).unwrap_or(0);
    let mut body = json!({
        "lines": page.lines,
        "line-count": page.lines.len(),
        "latest-timestamp": latest,
        "next-cursor": page.next.map(Cursor::text),
    });
    if page.reset {
        body["cursor-reset"] = true.into();
    }
    body
}

/// Empties `main.log` and removes the others.
async fn clear(State(app): State<App>) -> Result<Json, Refusal> {
    let state = Arc::clone(&app.state);
    let removed = beside(move || {
        let mut removed = 0;
        for path in files(&folder(&state)?) {
            let done = if path.ends_with("main.log") {
                File::options().write(true).truncate(true).open(&path).map(drop)
            } else {
                std::fs::remove_file(&path).inspect(|()| removed += 1)
            };
            done.map_err(|error| {
                Refusal::new(
                    http::StatusCode::INTERNAL_SERVER_ERROR,
                    format!("logs cannot be cleared: {error}"),
                )
            })?;
        }
        Ok::<_, Refusal>(removed)
    });
    let removed = removed.await??;
    Ok(Json(json!({ "success": true, "message": "Logs cleared successfully", "removed": removed })))
}

/// New lines as they come, as events.
async fn follow(State(app): State<App>) -> Result<Response, Refusal> {
    let folder = folder(&app.state)?;
    let cursor = tail(&files(&folder), 1).next;
    let events = stream::unfold((folder, cursor, 0_u32), |(folder, cursor, mut quiet)| async move {
        loop {
            tokio::time::sleep(LOOK).await;
            let place = folder.clone();
            let page = beside(move || {
                let files = files(&place);
                match cursor {
                    Some(cursor) => behind(&files, cursor, MOST_LINES),
                    None => tail(&files, LINES),
                }
            });
            let page = page.await.ok()?;
            if !page.lines.is_empty() {
                let text =
                    page.lines.iter().fold(String::new(), |text, line| text + "data: " + line + "\n\n");
                return Some((Ok::<_, std::convert::Infallible>(text), (folder, page.next, 0)));
            }
            quiet += 1;
            if quiet >= QUIET {
                return Some((Ok(": still here\n\n".to_owned()), (folder, cursor, 0)));
            }
        }
    });
    let kind = [(CONTENT_TYPE, "text/event-stream; charset=utf-8")];
    Ok((kind, Body::from_stream(events)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::scratch::Scratch;

    fn append(path: &Path, text: &str) {
        use std::io::Write;
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn row_150_a_cursor_goes_on_over_rotation_and_says_when_it_cannot() {
        let scratch = Scratch::new();
        let (folder, main) = (scratch.path(), scratch.path().join("main.log"));
        append(&main, "2026-11-21T00:00:01Z one\n2026-11-21T00:00:02Z two\nhalf");
        let first = tail(&files(folder), 10);
        assert_eq!(first.lines.len(), 2, "half a line waits");
        let cursor = Cursor::parse(&first.next.unwrap().text()).unwrap();
        assert!(behind(&files(folder), cursor, 10).lines.is_empty());
        append(&main, " line\n");
        std::fs::rename(&main, folder.join("main-20261121T000000.000000.log")).unwrap();
        append(&main, "2026-11-21T00:00:03Z three\n");
        let second = behind(&files(folder), cursor, 10);
        assert_eq!(second.lines, ["half line", "2026-11-21T00:00:03Z three"]);
        assert!(!second.reset);
        assert_eq!(tail(&files(folder), 2).lines, ["half line", "2026-11-21T00:00:03Z three"]);
        std::fs::remove_file(folder.join("main-20261121T000000.000000.log")).unwrap();
        let lost = behind(&files(folder), cursor, 10);
        assert!(lost.reset && lost.lines.len() == 1);
        let shown = shown(&lost, None);
        assert_eq!((&shown["line-count"], &shown["cursor-reset"]), (&json!(1), &json!(true)));
        assert_eq!(shown["latest-timestamp"], moment("2026-11-21T00:00:03Z").unwrap());
        for odd in ["", "x", "!!", &URL_SAFE_NO_PAD.encode("a:b"), &URL_SAFE_NO_PAD.encode("1")] {
            assert_eq!(Cursor::parse(odd), None, "{odd}");
        }
    }
}
