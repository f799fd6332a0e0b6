//! Words of JSON Schema and of Gemini's `Schema` message, by what becomes of them.

/// All members of Gemini's `Schema` message, in both spellings.
pub(super) const MEMBERS: [&str; 34] = [
    "type",
    "format",
    "title",
    "description",
    "nullable",
    "enum",
    "maxItems",
    "minItems",
    "properties",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "example",
    "anyOf",
    "propertyOrdering",
    "default",
    "items",
    "minimum",
    "maximum",
    "defs",
    "ref",
    "max_items",
    "min_items",
    "min_properties",
    "max_properties",
    "min_length",
    "max_length",
    "any_of",
    "property_ordering",
    "additionalProperties",
    "additional_properties",
];
/// Constraints that the backends refuse and the description can say.
pub(super) const HINTS: [&str; 15] = [
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
    "format",
    "default",
    "examples",
    "example",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];
/// Members that cannot be said in a few words.
pub(super) const DROPPED: [&str; 11] = [
    "patternProperties",
    "propertyNames",
    "unevaluatedProperties",
    "unevaluatedItems",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "contains",
    "not",
    "contentSchema",
    "$dynamicRef",
];
/// Longest constraint that is put into a description, in bytes.
pub(super) const HINT_MAX: usize = 200;

/// Whether `key` means something in a schema, so that an object with it is no bare map of properties.
pub(super) fn is_keyword(key: &str) -> bool {
    key.starts_with('$')
        || key.starts_with("x-")
        || MEMBERS.contains(&key)
        || HINTS.contains(&key)
        || DROPPED.contains(&key)
        || ["const", "oneOf", "allOf", "if", "then", "else", "definitions", "prefixItems"].contains(&key)
}

/// Whether an object with the member `key` is a schema and no bare map of properties, which may have names like
/// `title` or `default`.
pub(super) fn marks_a_schema(key: &str) -> bool {
    const PLAIN: [&str; 9] =
        ["type", "title", "description", "format", "default", "enum", "required", "pattern", "const"];
    is_keyword(key) && !PLAIN.contains(&key)
}
