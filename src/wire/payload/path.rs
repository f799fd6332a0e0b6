//! Paths: which values of a body a rule is about, as gjson and sjson spell them.
//!
//! Enters: text of a configuration. Leaves: [`Path`]. May go wrong: what the notation has and this does not
//! (`#` alone, `*`, `?`, `|`, `@`), or what it does not have; the problem says which.
//!
//! | step | means |
//! |---|---|
//! | `name` | a member of an object; `\.` and the like are letters of the name |
//! | `3` | an element of an array, or the member `3` of an object |
//! | `:3` | the member `3` |
//! | `-1` | the place behind the last element |
//! | `#(role=="user")` | the first element that fits |
//! | `#(role=="user")#` | all that fit |

use super::query::Query;

/// Most steps of a path.
const STEPS: usize = 64;
/// Largest number of an element: missing ones before it are written as nulls.
const LAST: usize = 999;

/// A path; never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(pub(super) Vec<Step>);

/// A step of a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// A member of an object, or an element of an array where the name is one's number.
    Member { name: String, element: Option<Element> },
    /// Elements of an array.
    Query(Query),
}

/// Which element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// The one of this number, from 0.
    At(usize),
    /// The one that would come next.
    Next,
}

impl Path {
    /// Reads a path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = Some(text);
        while let Some(text) = rest {
            if steps.len() == STEPS {
                return Err(format!("it has more than {STEPS} steps"));
            }
            let (step, behind) = match text.strip_prefix("#(") {
                Some(inner) => query(inner)?,
                None => member(text)?,
            };
            steps.push(step);
            rest = behind;
        }
        Ok(Self(steps))
    }
}

/// Reads `…)` or `…)#`, and what follows the dot behind it.
fn query(text: &str) -> Result<(Step, Option<&str>), String> {
    let mut letters = text.char_indices();
    let mut quoted = false;
    let end = loop {
        match letters.next() {
            Some((_, '\\')) => {
                letters.next();
            }
            Some((_, '"')) => quoted = !quoted,
            Some((at, ')')) if !quoted => break at,
            Some((_, '(')) if !quoted => return Err("a query inside a query is not supported".to_owned()),
            Some(_) => {}
            None => return Err("`#(` has no `)`".to_owned()),
        }
    };
    let (inner, behind) = (text.get(..end).unwrap_or_default(), text.get(end + 1..).unwrap_or_default());
    let (all, behind) = behind.strip_prefix('#').map_or((false, behind), |behind| (true, behind));
    let step = Step::Query(Query::parse(inner, all)?);
    match behind.strip_prefix('.') {
        Some(next) => Ok((step, Some(next))),
        None if behind.is_empty() => Ok((step, None)),
        None => Err(format!("a dot is missing before `{behind}`")),
    }
}

/// Reads a name, and what follows the dot behind it.
fn member(text: &str) -> Result<(Step, Option<&str>), String> {
    let (forced, text) = text.strip_prefix(':').map_or((false, text), |text| (true, text));
    let mut name = String::new();
    let mut plain = !forced;
    let mut letters = text.char_indices();
    let mut rest = None;
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => {
                plain = false;
                name.extend(letters.next().map(|(_, letter)| letter));
            }
            '.' => {
                rest = Some(text.get(at + 1..).unwrap_or_default());
                break;
            }
            '*' | '?' | '|' => {
                return Err(format!("`{letter}` is not supported; `\\{letter}` is the letter"));
            }
            '@' | '#' if at == 0 => {
                return Err(format!("`{letter}` is not supported here; `\\{letter}` is the letter"));
            }
            letter => name.push(letter),
        }
    }
    if name.is_empty() {
        return Err("a step is empty".to_owned());
    }
    let element = if plain { element(&name)? } else { None };
    Ok((Step::Member { name, element }, rest))
}

fn element(name: &str) -> Result<Option<Element>, String> {
    if name == "-1" {
        return Ok(Some(Element::Next));
    }
    if !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match name.parse() {
        Ok(at @ 0..=LAST) => Ok(Some(Element::At(at))),
        _ => Err(format!("elements are counted up to {LAST}; `:{name}` is a member of that name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, Option<Element>)> {
        let step = |step| match step {
            Step::Member { name, element } => (name, element),
            Step::Query(query) => (format!("{}", query.all), None),
        };
        Path::parse(text).unwrap().0.into_iter().map(step).collect()
    }

    fn plain(name: &str) -> (String, Option<Element>) {
        (name.to_owned(), None)
    }

    #[test]
    fn steps_are_read_as_gjson_and_sjson_spell_them() {
        assert_eq!(names("a.b_c.d-1"), [plain("a"), plain("b_c"), plain("d-1")]);
        assert_eq!(names(r"fav\.movie.x\\y"), [plain("fav.movie"), plain(r"x\y")]);
        let at = ("2".to_owned(), Some(Element::At(2)));
        let next = ("-1".to_owned(), Some(Element::Next));
        assert_eq!(names("a.2.-1.:2.:-1"), [plain("a"), at, next, plain("2"), plain("-1")]);
        assert_eq!(
            names(r#"a.#(b=="x.y)").c.#(d>1)#"#),
            [plain("a"), plain("false"), plain("c"), plain("true")]
        );
    }

    #[test]
    fn what_is_not_a_path_says_why() {
        for (text, says) in [
            ("", "empty"),
            ("a..b", "empty"),
            (".a", "empty"),
            ("a.", "empty"),
            ("a.*", "`*` is not supported"),
            ("a|b", "`|` is not supported"),
            ("@this.a", "`@` is not supported"),
            ("a.#", "`#` is not supported"),
            ("a.#.b", "`#` is not supported"),
            ("a.#(b==1", "no `)`"),
            ("a.#(b==1)c", "dot is missing"),
            ("a.#(b.#(c==1).d==2)", "query inside"),
            ("a.99999999999", "counted up to"),
        ] {
            let problem = Path::parse(text).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
        }
        assert!(Path::parse(&"a.".repeat(100)).unwrap_err().contains("more than 64"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[#().:\\\\a-c\"=!<>%&| 0-9*-]{0,24}|\\PC{0,16}") {
            let _ = Path::parse(&text);
        }
    }
}
