//! [`Tree`] → typed values, through serde.
//!
//! Enters: a node. Leaves: any type that can be deserialized. May go wrong: a value of the wrong kind; the
//! [`Fault`] says which node, so that the caller can note it, blank the node and go on with the next mistake.
//!
//! Lenient as people who write YAML expect: numbers and booleans are text where text is wanted, quoted numbers
//! are numbers, `yes` and `on` are true, nothing (`key:`) is the default. Keys that a struct does not have
//! are collected with the keys it does have.

use crate::tree::{Class, Id, Kind, Tree};
use serde::de::value::StrDeserializer;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use std::cell::RefCell;
use std::fmt::{self, Display};
use std::rc::Rc;

/// A message that starts with this is a remark: the file is used, with the default in place of the value.
pub(crate) const REMARK: &str = "\u{1}";

/// Name of a struct that people may also write as one word, for [`Deserializer::deserialize_struct`].
pub(crate) const WORD_OR_MAP: &str = "word or map";

/// What is wrong with a node.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) problem: String,
    pub(crate) at: Option<Id>,
}

impl Fault {
    fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), at: None }
    }
}

impl Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.problem)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(problem: T) -> Self {
        Self::new(problem.to_string())
    }

    // serde's own sentence repeats the value, which may be a secret in the wrong place.
    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {expected}, found {}", kind_of(&found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("`{field}` is said twice, under two spellings"))
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        Self::new(format!("{} is not one of {}", quoted(found), known.join(", ")))
    }
}

/// Reads text and makes something of it without keeping a copy. For the `Deserialize` of types that are words
/// in the file; the error of `parse` is the whole sentence that people read.
pub(crate) fn word<'de, D, T, F>(input: D, parse: F) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    F: FnOnce(&str) -> Result<T, String>,
{
    struct Word<F>(F);

    impl<T, F: FnOnce(&str) -> Result<T, String>> Visitor<'_> for Word<F> {
        type Value = T;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("text")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.0)(text.trim()).map_err(E::custom)
        }
    }

    input.deserialize_str(Word(parse))
}

/// A word of the file in a message: short, one line, escaped.
pub(crate) fn quoted(word: &str) -> String {
    const MOST: usize = 40;
    let short: String = word.chars().take(MOST).flat_map(char::escape_default).collect();
    if word.chars().nth(MOST).is_some() { format!("`{short}…`") } else { format!("`{short}`") }
}

fn kind_of(found: &Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a map",
        Unexpected::Unit | Unexpected::Option => "nothing",
        _ => "text",
    }
}

/// A key that no struct asked for.
#[derive(Debug)]
pub(crate) struct Unknown {
    pub(crate) id: Id,
    /// The keys that are known beside it.
    pub(crate) known: Rc<[&'static str]>,
}

/// Reads values out of a tree, and remembers the keys that nobody asked for.
#[derive(Debug)]
pub(crate) struct Reader<'t> {
    tree: &'t Tree<'t>,
    unknown: RefCell<Vec<Unknown>>,
    /// The fields of structs that were read from the top level. Several are: a key is unknown there when none
    /// of them has it.
    top: RefCell<Vec<&'static str>>,
}

impl<'t> Reader<'t> {
    pub(crate) fn new(tree: &'t Tree<'t>) -> Self {
        Self { tree, unknown: RefCell::default(), top: RefCell::default() }
    }

    /// Reads the value at `id`.
    pub(crate) fn read<T: Deserialize<'t>>(&self, id: Id) -> Result<T, Fault> {
        T::deserialize(Cursor { reader: self, tree: self.tree, id })
    }

    /// Unknown keys below the top level, and known keys of the top level.
    pub(crate) fn into_strangers(self) -> (Vec<Unknown>, Vec<&'static str>) {
        (self.unknown.into_inner(), self.top.into_inner())
    }
}

/// A node as a deserializer.
#[derive(Clone, Copy)]
struct Cursor<'r, 't> {
    reader: &'r Reader<'t>,
    tree: &'t Tree<'t>,
    id: Id,
}

impl<'t> Cursor<'_, 't> {
    fn to(self, id: Id) -> Self {
        Self { id, ..self }
    }

    fn kind(self) -> &'t Kind {
        self.tree.kind(self.id)
    }

    /// Blames this node for a fault that nobody below is blamed for.
    fn blame<T>(self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| Fault { at: fault.at.or(Some(self.id)), ..fault })
    }

    fn expected<T>(self, what: &str) -> Result<T, Fault> {
        let found = match self.kind() {
            Kind::Null => "nothing",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
            Kind::Word(word) if word.class == Class::Number => "a number",
            Kind::Word(word) if word.class == Class::Bool => "true or false",
            Kind::Word(_) => "text",
        };
        Err(Fault { problem: format!("expected {what}, found {found}"), at: Some(self.id) })
    }

    fn text(self, what: &str) -> Result<&'t str, Fault> {
        match self.kind() {
            Kind::Word(word) => Ok(&word.text),
            Kind::Null => Ok(""),
            _ => self.expected(what),
        }
    }

    fn integer<T: TryFrom<i128>>(self, from: i128, to: i128) -> Result<T, Fault> {
        let range = || {
            let wide = to >= u32::MAX.into();
            if wide && from == 0 {
                "a whole number that is not negative".to_owned()
            } else if wide {
                "a whole number".to_owned()
            } else {
                format!("a whole number from {from} to {to}")
            }
        };
        let Kind::Word(word) = self.kind() else { return self.expected(&range()) };
        let Some(number) = whole(word.text.trim()) else { return self.expected(&range()) };
        T::try_from(number).map_err(|_| Fault {
            problem: format!("expected {}, found {number}", range()),
            at: Some(self.id),
        })
    }
}

/// `8317`, `1_000`, `-1`, `0x1F`, `0o17`.
fn whole(text: &str) -> Option<i128> {
    let text = text.replace('_', "");
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(&text)),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, digits.get(2..)?),
        Some("0o" | "0O") => (8, digits.get(2..)?),
        _ => (10, digits),
    };
    if !digits.chars().next()?.is_digit(radix) {
        return None;
    }
    i128::from_str_radix(digits, radix).ok()?.checked_mul(sign)
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty),*) => {
        $(fn $method<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault> {
            let number: $type = self.integer(<$type>::MIN.into(), <$type>::MAX.into())?;
            self.blame(visitor.$visit(number))
        })*
    };
}

impl<'t> Deserializer<'t> for Cursor<'_, 't> {
    type Error = Fault;

    integers!(
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    );

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault> {
        let result = match self.kind() {
            Kind::Null => visitor.visit_unit(),
            Kind::List(ids) => visitor.visit_seq(Below { cursor: self, ids: ids.iter() }),
            Kind::Map(ids) => visitor.visit_map(Entries::new(self, ids, false)),
            Kind::Word(word) => match word.class {
                Class::Bool => visitor.visit_bool(truth(&word.text) == Some(true)),
                Class::Text => visitor.visit_borrowed_str(&word.text),
                Class::Number => match whole(&word.text) {
                    Some(number) => match (u64::try_from(number), i64::try_from(number)) {
                        (Ok(number), _) => visitor.visit_u64(number),
                        (_, Ok(number)) => visitor.visit_i64(number),
                        _ => visitor.visit_f64(number as f64),
                    },
                    None => visitor.visit_f64(float(&word.text)),
                },
            },
        };
        self.blame(result)
    }

    fn deserialize_bool<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Kind::Word(word) = self.kind() else { return self.expected("true or false") };
        let Some(value) = truth(&word.text) else { return self.expected("true or false") };
        self.blame(visitor.visit_bool(value))
    }

    fn deserialize_str<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault> {
        let text = self.text("text")?;
        self.blame(visitor.visit_borrowed_str(text))
    }

    fn deserialize_string<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.kind() {
            Kind::Null => self.blame(visitor.visit_none()),
            _ => self.blame(visitor.visit_some(self)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'t>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.blame(visitor.visit_newtype_struct(self))
    }

    fn deserialize_seq<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.kind() {
            Kind::List(ids) => self.blame(visitor.visit_seq(Below { cursor: self, ids: ids.iter() })),
            Kind::Null => self.blame(visitor.visit_seq(Below { cursor: self, ids: [].iter() })),
            _ => self.expected("a list"),
        }
    }

    /// Of a map every key counts, also one without a value: `oauth-model-alias: {kiro: }` is an empty list.
    fn deserialize_map<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.kind() {
            Kind::Map(ids) => self.blame(visitor.visit_map(Entries::new(self, ids, false))),
            Kind::Null => self.blame(visitor.visit_map(Entries::new(self, &[], false))),
            _ => self.expected("a map"),
        }
    }

    fn deserialize_struct<V: Visitor<'t>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let ids: &[Id] = match self.kind() {
            Kind::Map(ids) => ids,
            Kind::Null => &[],
            Kind::Word(word) if name == WORD_OR_MAP => {
                return self.blame(visitor.visit_borrowed_str(&word.text));
            }
            Kind::List(_) if name == WORD_OR_MAP => return self.expected("a key, or a map with api-key"),
            _ => return self.expected("a map"),
        };
        if self.id == 0 {
            self.reader.top.borrow_mut().extend_from_slice(fields);
        } else {
            let mut strays =
                ids.iter().copied().filter(|id| !fields.contains(&self.tree.key(*id))).peekable();
            if strays.peek().is_some() {
                let known: Rc<[_]> = fields.into();
                let strays = strays.map(|id| Unknown { id, known: Rc::clone(&known) });
                self.reader.unknown.borrow_mut().extend(strays);
            }
        }
        self.blame(visitor.visit_map(Entries::new(self, ids, true)))
    }

    fn deserialize_enum<V: Visitor<'t>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let word = self.text("a word")?.trim().to_ascii_lowercase();
        let word: StrDeserializer<'_, Fault> = word.as_str().into_deserializer();
        self.blame(visitor.visit_enum(word))
    }

    fn deserialize_ignored_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <V: Visitor<'t>>
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "1" => Some(true),
        "false" | "no" | "off" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// What YAML took for a number and is not whole.
fn float(text: &str) -> f64 {
    text.replace('_', "").parse().unwrap_or(f64::NAN)
}

/// Elements of a list.
struct Below<'r, 't> {
    cursor: Cursor<'r, 't>,
    ids: std::slice::Iter<'t, Id>,
}

impl<'t> de::SeqAccess<'t> for Below<'_, 't> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'t>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(id) = self.ids.next() else { return Ok(None) };
        let cursor = self.cursor.to(*id);
        cursor.blame(seed.deserialize(cursor)).map(Some)
    }
}

/// Keys and values of a map.
struct Entries<'r, 't> {
    cursor: Cursor<'r, 't>,
    ids: std::slice::Iter<'t, Id>,
    value: Id,
    /// A struct: nothing is the default, as if the key were not there.
    skip_null: bool,
}

impl<'r, 't> Entries<'r, 't> {
    fn new(cursor: Cursor<'r, 't>, ids: &'t [Id], skip_null: bool) -> Self {
        Self { cursor, ids: ids.iter(), value: cursor.id, skip_null }
    }
}

impl<'t> de::MapAccess<'t> for Entries<'_, 't> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'t>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let tree = self.cursor.tree;
        let skip = self.skip_null;
        let Some(id) = self.ids.find(|id| !(skip && matches!(tree.kind(**id), Kind::Null))) else {
            return Ok(None);
        };
        self.value = *id;
        let key: StrDeserializer<'t, Fault> = tree.key(*id).into_deserializer();
        self.cursor.to(*id).blame(seed.deserialize(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'t>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let cursor = self.cursor.to(self.value);
        cursor.blame(seed.deserialize(cursor))
    }
}
