//! Columns for people: as wide as they need to be, and in colours where somebody looks.
//!
//! Enters: cells. Leaves: text. Nothing may go wrong: what a cell holds never moves the cursor of a terminal
//! or changes its colours, whoever wrote it.

use std::fmt::Write;
use std::io::IsTerminal;

/// How a cell looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Paint {
    /// As everything else.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Worth a look.
    Warn,
    /// Something is wrong.
    Bad,
    /// Of little weight.
    Dim,
    /// A heading.
    Bold,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Dim => "\x1b[2m",
            Self::Bold => "\x1b[1m",
        }
    }
}

/// Whether standard output shows colours: it is a terminal, and nobody set `NO_COLOR` (no-color.org).
pub(super) fn colours() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    std::io::stdout().is_terminal()
        && set("NO_COLOR").is_none()
        && set("TERM").is_none_or(|term| term != "dumb")
}

/// Text without what a terminal would obey: control characters are written as `\u{1b}`.
pub(super) fn harmless(text: &str) -> String {
    // These change the direction of what follows.
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_control() && c != '\t') || turns(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Text in a colour, where there are colours.
pub(super) fn painted(text: &str, paint: Paint, colours: bool) -> String {
    let text = harmless(text);
    match (paint.code(), colours) {
        ("", _) | (_, false) => text,
        (code, true) => format!("{code}{text}\x1b[0m"),
    }
}

/// A cell.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// In a colour.
    pub(super) fn painted(text: impl Into<String>, paint: Paint) -> Self {
        Self { text: harmless(&text.into()), paint }
    }

    /// Its width in characters.
    fn wide(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::painted(text, Paint::Plain)
    }
}

/// Rows under headings.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Headings, and whether a column is pushed to the right, as numbers are.
    head: Vec<(String, bool)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Columns by their headings; one that begins with `>` is pushed to the right.
    pub(super) fn new(head: &[&str]) -> Self {
        let column = |name: &&str| match name.strip_prefix('>') {
            Some(name) => (name.to_owned(), true),
            None => ((*name).to_owned(), false),
        };
        Self { head: head.iter().map(column).collect(), rows: Vec::new() }
    }

    /// One more row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Leaves the first rows.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.rows.truncate(rows);
    }

    /// As text, a line for the headings and one for each row.
    pub(super) fn text(&self, colours: bool) -> String {
        let heading = |(name, _): &(String, bool)| Cell::painted(name.clone(), Paint::Bold);
        let head: Vec<Cell> = self.head.iter().map(heading).collect();
        let lines = || std::iter::once(&head).chain(&self.rows);
        let wide = |at: usize| lines().filter_map(|line| Some(line.get(at)?.wide())).max().unwrap_or(0);
        let columns: Vec<(usize, bool)> =
            self.head.iter().enumerate().map(|(at, (_, right))| (wide(at), *right)).collect();
        let mut text = String::new();
        for line in lines() {
            let last = line.iter().rposition(|cell| cell.wide() > 0);
            let mut before = 0;
            for (at, (cell, (wide, right))) in line.iter().zip(&columns).enumerate() {
                if last.is_none_or(|last| at > last) {
                    break;
                }
                let space = wide.saturating_sub(cell.wide());
                let (left, behind) = if *right { (space, 0) } else { (0, space) };
                // Writing to a string cannot fail.
                let _ = write!(text, "{:1$}", "", before + left);
                let _ = match (cell.paint.code(), colours) {
                    ("", _) | (_, false) => write!(text, "{}", cell.text),
                    (code, true) => write!(text, "{code}{}\x1b[0m", cell.text),
                };
                before = behind + 2;
            }
            text.push('\n');
        }
        text
    }
}

/// A time span: `45s`, `3m 12s`, `5h 9m`, `12d 4h`.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {}s", seconds % 60),
        3600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// A number of things: `950`, `12.3k`, `4.0M`.
pub(super) fn count(number: u64) -> String {
    let scaled = |unit: f64, sign: char| format!("{:.1}{sign}", number as f64 / unit);
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => scaled(1e3, 'k'),
        1_000_000..1_000_000_000 => scaled(1e6, 'M'),
        _ => scaled(1e9, 'G'),
    }
}

/// Milliseconds: `?` where nothing is known, `85ms`, `1.2s`.
pub(super) fn millis(known: Option<u64>) -> String {
    match known {
        None => "?".to_owned(),
        Some(ms @ 0..1000) => format!("{ms}ms"),
        Some(ms) => format!("{:.1}s", ms as f64 / 1000.0),
    }
}

/// A share of a whole; `-` where the whole is nothing.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1}%", part as f64 * 100.0 / whole as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", ">COUNT", "STATE"]);
        table.row(["a".into(), "5".into(), Cell::painted("ready", Paint::Good)]);
        table.row(["längst".into(), "12345".into(), Cell::default()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_lines_end_where_their_text_ends() {
        assert_eq!(table().text(false), "NAME    COUNT  STATE\na           5  ready\nlängst  12345\n");
        assert_eq!(Table::new(&["A", "B"]).text(false), "A  B\n");
    }

    #[test]
    fn colours_do_not_move_the_columns() {
        let coloured = table().text(true);
        assert!(coloured.contains("\x1b[32mready\x1b[0m"));
        let mut plain = coloured;
        for code in ["\x1b[32m", "\x1b[1m", "\x1b[0m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, table().text(false));
    }

    #[test]
    fn what_others_wrote_does_not_reach_the_terminal_as_an_order() {
        let mut table = Table::new(&["X"]);
        table.row(["\x1b]0;evil\x07\n\u{202e}".into()]);
        let text = table.text(true);
        assert!(!text.contains('\x07') && !text.contains("\x1b]") && !text.contains('\u{202e}'), "{text:?}");
        assert_eq!(text.lines().count(), 2);
        assert_eq!(harmless("a\tb\u{9b}31m"), "a\tb\\u{9b}31m");
    }

    #[test]
    fn numbers_are_short() {
        let spans = [0, 59, 60, 3599, 3600, 86_399, 86_400 * 12 + 4 * 3600].map(span);
        assert_eq!(spans, ["0s", "59s", "1m 0s", "59m 59s", "1h 0m", "23h 59m", "12d 4h"]);
        assert_eq!(
            [0, 9999, 12_345, 4_000_000, 2_500_000_000].map(count),
            ["0", "9999", "12.3k", "4.0M", "2.5G"]
        );
        assert_eq!([None, Some(0), Some(999), Some(1250)].map(millis), ["?", "0ms", "999ms", "1.2s"]);
        assert_eq!([percent(0, 0), percent(1, 8)], ["-", "12.5%"]);
    }
}
