//! Which elements of an array a path is about: `#(type=="function" && name%"get_*")`.
//!
//! Enters: the text between the brackets; later elements of a body. Leaves: [`Query`], and whether an element
//! fits. May go wrong: a text that says nothing, or that this does not have (`~`); the problem says which.
//!
//! A test compares what it finds with a word by the kind of what it finds, as gjson does: strings by their
//! letters, numbers by their value, booleans with the order false < true. Null, objects and arrays only exist.
//! `&&` binds closer than `||`.

use super::find::values_below;
use super::path::{Path, Step};
use std::cmp::Ordering;
use std::ops::Range;
use wildmatch::WildMatch;

/// A test of elements.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Query {
    /// One of these holds: that is, all of its tests.
    any: Vec<Vec<Test>>,
    /// All elements that fit, not only the first.
    pub(super) all: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Test {
    /// Below the element; empty: the element itself.
    path: Vec<Step>,
    asks: Asks,
    word: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Asks {
    Exists,
    /// The comparison is one of these.
    Compare(&'static [Ordering]),
    Like {
        pattern: WildMatch,
        wanted: bool,
    },
}

const OPERATORS: [(&str, &[Ordering]); 7] = [
    ("==", &[Ordering::Equal]),
    ("!=", &[Ordering::Less, Ordering::Greater]),
    ("<=", &[Ordering::Less, Ordering::Equal]),
    (">=", &[Ordering::Greater, Ordering::Equal]),
    ("=", &[Ordering::Equal]),
    ("<", &[Ordering::Less]),
    (">", &[Ordering::Greater]),
];

impl Query {
    /// Reads the text between the brackets.
    pub(super) fn parse(text: &str, all: bool) -> Result<Self, String> {
        let both = |text: &str| split(text, "&&").into_iter().map(Test::parse).collect::<Result<Vec<_>, _>>();
        let any = split(text, "||").into_iter().map(both).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { any, all })
    }

    /// Whether the element at `span` fits.
    pub(super) fn fits(&self, body: &[u8], span: &Range<usize>) -> bool {
        self.any.iter().any(|tests| tests.iter().all(|test| test.holds(body, span)))
    }
}

impl Test {
    fn parse(text: &str) -> Result<Self, String> {
        let operator = unquoted(text).find(|(_, letter)| b"=!<>%".contains(letter)).map(|(at, _)| at);
        let (path, rest) = operator.map_or((text, ""), |at| text.split_at(at));
        let path = path.trim();
        let path = if path.is_empty() { Vec::new() } else { Path::parse(path)?.0 };
        if rest.is_empty() {
            if path.is_empty() {
                return Err("a query is empty".to_owned());
            }
            return Ok(Self { path, asks: Asks::Exists, word: String::new() });
        }
        let like = rest.strip_prefix('%').map(|word| (word, true));
        if let Some((word, wanted)) = like.or_else(|| rest.strip_prefix("!%").map(|word| (word, false))) {
            let word = literal(word)?;
            return Ok(Self { path, asks: Asks::Like { pattern: WildMatch::new(&word), wanted }, word });
        }
        let found = OPERATORS.iter().find_map(|(sign, is)| Some((rest.strip_prefix(sign)?, is)));
        let Some((word, is)) = found else { return Err(format!("`{rest}` is no comparison")) };
        Ok(Self { path, asks: Asks::Compare(is), word: literal(word)? })
    }

    fn holds(&self, body: &[u8], span: &Range<usize>) -> bool {
        let found = if self.path.is_empty() {
            Some(span.clone())
        } else {
            values_below(body, span.start, &self.path).into_iter().next()
        };
        let Some(text) = found.and_then(|span| body.get(span)) else { return false };
        match &self.asks {
            Asks::Exists => true,
            Asks::Compare(is) => self.compare(text).is_some_and(|order| is.contains(&order)),
            Asks::Like { pattern, wanted } => {
                let text = serde_json::from_slice::<String>(text);
                text.is_ok_and(|text| pattern.matches(&text) == *wanted)
            }
        }
    }

    /// A value against the word.
    fn compare(&self, text: &[u8]) -> Option<Ordering> {
        let word = self.word.as_str();
        match text.first()? {
            b'"' => Some(serde_json::from_slice::<String>(text).ok()?.as_str().cmp(word)),
            b't' | b'f' => {
                let word = word.parse::<bool>().ok()?;
                Some((text == b"true").cmp(&word))
            }
            b'-' | b'0'..=b'9' => {
                let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
                number.partial_cmp(&word.parse().ok()?)
            }
            _ => None,
        }
    }
}

/// A word, without its quotes.
fn literal(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.starts_with('~') {
        return Err("`~` is not supported".to_owned());
    }
    if text.starts_with('"') {
        return serde_json::from_str(text).map_err(|_| format!("`{text}` is no JSON string"));
    }
    Ok(text.to_owned())
}

/// The letters outside of strings and escapes, with their places.
fn unquoted(text: &str) -> impl Iterator<Item = (usize, u8)> {
    let (mut quoted, mut escaped) = (false, false);
    text.bytes().enumerate().filter(move |(_, letter)| {
        let special = std::mem::take(&mut escaped);
        match letter {
            b'\\' if !special => escaped = true,
            b'"' if !special => quoted = !quoted,
            _ => return !quoted && !special,
        }
        false
    })
}

fn split<'t>(text: &'t str, sign: &str) -> Vec<&'t str> {
    let mut parts = Vec::new();
    let mut from = 0;
    for (at, _) in unquoted(text) {
        if at >= from && text.get(at..).is_some_and(|rest| rest.starts_with(sign)) {
            parts.push(text.get(from..at).unwrap_or_default());
            from = at + sign.len();
        }
    }
    parts.push(text.get(from..).unwrap_or_default());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(query: &str, element: &str) -> bool {
        let span = 0..element.len();
        Query::parse(query, false).unwrap_or_else(|e| panic!("{query}: {e}")).fits(element.as_bytes(), &span)
    }

    #[test]
    fn comparisons_go_by_the_kind_of_the_value() {
        let element =
            r#"{"type":"function","n":10,"on":true,"off":false,"nil":null,"f":{"name":"get_a"},"t":["x"]}"#;
        for (query, expected) in [
            (r#"type=="function""#, true),
            ("type==function", true),
            (r#" type = "function" "#, true),
            (r#"type!="function""#, false),
            (r#"missing!="x""#, false),
            ("n>9", true),
            ("n==10.0", true),
            ("n<9", false),
            ("n>=10", true),
            ("n<=10", true),
            ("n==x", false),
            ("on==true", true),
            ("off!=true", true),
            ("nil", true),
            ("nil==null", false),
            ("missing", false),
            (r#"f.name%"get_*""#, true),
            (r#"f.name!%"get_?""#, false),
            (r#"f.name!%"set_*""#, true),
            ("t.0==x", true),
            (r#"type=="function" && n>100"#, false),
            (r#"n>100 || type=="function" && on==true"#, true),
            (r#"type=="a && b" || n==10"#, true),
        ] {
            assert_eq!(fits(query, element), expected, "{query}");
        }
        assert!(
            fits(r#"=="a\"b""#, r#""a\"b""#)
                && fits(">1", "2")
                && !fits(">1", "\"0\"")
                && fits("%\"a*\"", "\"ab\"")
        );
    }

    #[test]
    fn what_is_no_query_says_why() {
        for (text, says) in [
            ("", "empty"),
            ("a==1 && ", "empty"),
            ("a==~true", "`~`"),
            (r#"a=="x"#, "no JSON string"),
            ("a!b", "no comparison"),
        ] {
            let problem = Query::parse(text, false).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
        }
    }
}
