//! YAML text → [`Tree`].
//!
//! Enters: UTF-8 text without a byte order mark. Leaves: the tree, merge keys (`<<`) applied. May go wrong:
//! syntax, more than one document, nesting over 128 levels, aliases that unfold into too much, tags, keys that
//! are not words: the first of them, with line and column.
//!
//! The YAML library reports positions of errors only. But it lends out slices of the input for every word that
//! is written as it reads, and a slice says where it lies. It also decides by itself what is a number, which
//! loses the spelling of a key such as `0123`. So the document is read twice: once for its shape, once for the
//! text of each word. What has no slice (escapes, block text) takes the position of its key.

use crate::notice::Notice;
use crate::tree::{Class, Id, Kind, Step, Tree, Word};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use std::fmt;

/// Starts an error in our words; the library puts the path in front of it.
const OURS: char = '\u{1}';

/// Deepest nesting of `[` and `{` that the library is given. It refuses more than 128 levels, but only after
/// it has scanned all of them in quadratic time.
const MAX_OPEN: usize = 1000;

/// Reads a document.
pub(crate) fn parse(text: &str) -> Result<Tree<'_>, Notice> {
    let mut tree = Tree::over(text);
    if let Some(at) = too_deep(text) {
        return Err(tree.notice_at(at, TOO_DEEP.to_owned()));
    }
    let base = text.as_ptr() as usize;
    let shape = Shape { tree: &mut tree, id: 0, base };
    shape.deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|e| syntax(&e, text))?;
    let fill = Fill { tree: &mut tree, id: 0, base };
    fill.deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|e| syntax(&e, text))?;
    tree.merge();
    Ok(tree)
}

/// Where more brackets are open than any real file has. Brackets in strings and comments are counted too: one
/// would have to open a thousand of them there.
fn too_deep(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    text.bytes().position(|byte| {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open > MAX_OPEN
    })
}

const TOO_DEEP: &str = "it is nested more than 128 levels deep";

/// First pass: what is a map, a list, a word of which class.
struct Shape<'a, 't> {
    tree: &'a mut Tree<'t>,
    id: Id,
    base: usize,
}

impl Shape<'_, '_> {
    fn word(self, class: Class) {
        self.tree.set(self.id, Kind::Word(Word { class, text: String::new() }));
    }
}

impl<'de> DeserializeSeed<'de> for Shape<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Shape<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a map, a list or a word without a tag")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.word(Class::Bool);
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.word(Class::Number);
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.word(Class::Number);
        Ok(())
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<(), E> {
        self.word(Class::Number);
        Ok(())
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<(), E> {
        self.word(Class::Number);
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.word(Class::Number);
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.word(Class::Text);
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(ours("YAML tags (`!word`) mean nothing here"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { tree, id, base } = self;
        let mut ids = Vec::new();
        loop {
            let item = tree.add(id, Step::Item(ids.len()), None).map_err(ours)?;
            if items.next_element_seed(Shape { tree, id: item, base })?.is_none() {
                // The node that was made for an element that does not exist.
                tree.take_back();
                break;
            }
            ids.push(item);
        }
        tree.set(id, Kind::List(ids));
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Self { tree, id, base } = self;
        let mut ids = Vec::new();
        while let Some((key, at)) = entries.next_key_seed(Text { base })? {
            let child = tree.add(id, Step::Key(key), at).map_err(ours)?;
            entries.next_value_seed(Shape { tree, id: child, base })?;
            ids.push(child);
        }
        tree.set(id, Kind::Map(ids));
        Ok(())
    }
}

/// Second pass: the spelling and the place of each word.
struct Fill<'a, 't> {
    tree: &'a mut Tree<'t>,
    id: Id,
    base: usize,
}

impl<'de> DeserializeSeed<'de> for Fill<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        match self.tree.kind(self.id) {
            Kind::Null => input.deserialize_ignored_any(IgnoredAny).map(|_| ()),
            Kind::List(_) => input.deserialize_seq(self),
            Kind::Map(_) => input.deserialize_map(self),
            Kind::Word(_) => {
                let (text, at) = Text { base: self.base }.deserialize(input)?;
                self.tree.spell(self.id, text, at);
                Ok(())
            }
        }
    }
}

impl<'de> Visitor<'de> for Fill<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the same document again")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for id in self.tree.below(self.id).to_vec() {
            items.next_element_seed(Fill { tree: self.tree, id, base: self.base })?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        for id in self.tree.below(self.id).to_vec() {
            entries.next_key::<IgnoredAny>()?;
            entries.next_value_seed(Fill { tree: self.tree, id, base: self.base })?;
        }
        Ok(())
    }
}

/// A word as it is spelt, and its offset when the library lends out the input.
struct Text {
    base: usize,
}

impl<'de> DeserializeSeed<'de> for Text {
    type Value = (String, Option<usize>);

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = (String, Option<usize>);

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a word")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok((text.to_owned(), (text.as_ptr() as usize).checked_sub(self.base)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok((text.to_owned(), None))
    }
}

/// An error in our words, told apart from those of the library.
fn ours<E: Error>(problem: &str) -> E {
    E::custom(format_args!("{OURS}{problem}"))
}

/// What the YAML library says, with its position taken out of the sentence.
fn syntax(error: &serde_yaml::Error, text: &str) -> Notice {
    let place = error.location();
    let (line, column) = place.as_ref().map(|at| (at.line() as u32, at.column() as u32)).unzip();
    let mut problem = error.to_string();
    if let Some(at) = &place {
        problem = problem.replacen(&format!(" at line {} column {}", at.line(), at.column()), "", 1);
    }
    let mut path = String::new();
    if let Some((before, words)) = problem.split_once(OURS) {
        before.strip_suffix(": ").unwrap_or(before).clone_into(&mut path);
        problem = words.to_owned();
    }
    let starts_with_tab = || {
        let line = text.lines().nth(line.unwrap_or(1).saturating_sub(1) as usize).unwrap_or_default();
        line.trim_start_matches(' ').starts_with('\t')
    };
    if problem.contains("cannot start any token") && starts_with_tab() {
        problem.push_str(": YAML is indented with spaces, not with tabs");
    } else if problem.contains("expected a word") {
        "a key has to be one word".clone_into(&mut problem);
    } else if problem.contains("more than one document") {
        "the file holds more than one document: remove the line `---` in its middle".clone_into(&mut problem);
    } else if problem.contains("recursion limit") {
        TOO_DEEP.clone_into(&mut problem);
    } else if problem.contains("repetition limit") {
        "its aliases unfold into too much".clone_into(&mut problem);
    }
    Notice { line, column, path, problem }
}
