//! Tools that the backend would refuse, repaired.
//!
//! Enters: `tools` as a client of the same format sent it. Leaves: `None` when it is fine, else its new text:
//! each schema in the one member the backend reads, and no empty lists. May go wrong: what has another shape
//! stays as it is.

use super::camel;
use super::flavour::Flavour;
use crate::ir::{Losses, RawJson};
use crate::json::{self, Json, Map, Path};
use crate::schema::{self, Dialect, lower_types, object_root};
use crate::target::Profile;

/// The new text of `tools`, when something had to change.
pub(super) fn repair_tools(tools: &[u8], flavour: Flavour, losses: &mut Losses) -> Option<Vec<u8>> {
    let raw = ["parameters", "parametersJsonSchema", "parameters_json_schema"];
    let Json::Array(mut all) = json::parse(tools, &raw).ok()? else { return None };
    let root = Path::Root;
    let at = root.key("tools");
    let mut changed = false;
    for (n, tool) in all.iter_mut().enumerate() {
        let Json::Object(tool) = tool else { continue };
        for (key, value) in &mut tool.0 {
            if let ("functionDeclarations", Json::Array(declarations)) = (camel(key).as_ref(), value) {
                for declaration in declarations {
                    if let Json::Object(declaration) = declaration {
                        changed |= repair(declaration, flavour, &at.index(n), losses);
                    }
                }
            }
        }
        let before = tool.len();
        let empty = |key: &str, value: &Json<'_>| {
            camel(key) == "functionDeclarations" && value.as_array().is_some_and(<[Json<'_>]>::is_empty)
        };
        tool.0.retain(|(key, value)| !empty(key, value));
        changed |= tool.len() != before;
    }
    all.retain(|tool| !tool.as_object().is_some_and(Map::is_empty));
    changed.then(|| Json::Array(all).to_text().into_bytes())
}

/// Makes the schema of one declaration what the backend takes.
fn repair(declaration: &mut Map<'_>, flavour: Flavour, at: &Path<'_>, losses: &mut Losses) -> bool {
    let find = |name: &str| {
        let key =
            declaration.0.iter().find(|(key, _)| camel(key) == name).map(|(key, _)| key.clone().into_owned());
        key.and_then(|key| Some((declaration.get(&key)?.clone().into_raw().into_owned(), key)))
    };
    let (plain, json_schema) = (find("parameters"), find("parametersJsonSchema"));
    let legal = |text: &str| schema::is_openapi(&RawJson(text.into()).parse());
    match (flavour.profile, plain, json_schema) {
        (_, None, None) => false,
        (Profile::Antigravity, plain, json_schema) => {
            if json_schema.is_none() && plain.as_ref().is_some_and(|(text, _)| legal(text)) {
                return false;
            }
            declaration
                .0
                .retain(|(key, _)| !matches!(camel(key).as_ref(), "parameters" | "parametersJsonSchema"));
            let source = json_schema.or(plain).map(|(text, _)| RawJson(text.into()));
            let cleaned = source.map(|source| schema::clean(&source, Dialect::Antigravity, at, losses));
            if let Some(cleaned) = cleaned.filter(|cleaned| !cleaned.empty || flavour.claude) {
                declaration.set("parameters", cleaned.schema.parse().into_owned());
            }
            true
        }
        // One of the two is read: the one that can say more.
        (_, Some((_, key)), Some(_)) => {
            declaration.remove(&key);
            true
        }
        (_, Some((text, _)), None) if !legal(&text) => {
            declaration.remove("parameters");
            let lowered = lower_types(&RawJson(text.into()));
            let cleaned = schema::clean(&object_root(&lowered), Dialect::GeminiApi, at, losses);
            declaration.set("parametersJsonSchema", cleaned.schema.parse().into_owned());
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::flavour::tests::target;
    use super::*;
    use crate::target::Card;
    use std::sync::LazyLock;

    static CARD: LazyLock<Card> = LazyLock::new(Card::default);

    fn repaired(profile: Profile, declaration: &str) -> Option<String> {
        let flavour = Flavour::of(&target(profile, "gemini-3-flash", &CARD));
        let tools = format!(r#"[{{"functionDeclarations":[{declaration}]}}]"#);
        let out = repair_tools(tools.as_bytes(), flavour, &mut Losses::default())?;
        let out = String::from_utf8(out).unwrap();
        let inner = out.strip_prefix(r#"[{"functionDeclarations":["#).unwrap().strip_suffix("]}]").unwrap();
        Some(inner.to_owned())
    }

    #[test]
    fn each_backend_gets_the_member_it_reads() {
        let legal = r#"{"name":"f","parameters":{"type":"OBJECT","properties":{"a":{"type":"STRING"}}}}"#;
        assert_eq!(repaired(Profile::Gemini, legal), None);
        assert_eq!(repaired(Profile::Antigravity, legal), None);
        let json =
            r#"{"name":"f","parameters_json_schema":{"type":"object","properties":{"a":{"const":"v"}}}}"#;
        assert_eq!(repaired(Profile::Gemini, json), None);
        assert_eq!(
            repaired(Profile::Antigravity, json).unwrap(),
            r#"{"name":"f","parameters":{"type":"OBJECT","properties":{"a":{"type":"STRING","enum":["v"]}}}}"#
        );
        let both = r#"{"name":"f","parameters":{"type":"OBJECT"},"parametersJsonSchema":{"type":"object"}}"#;
        assert_eq!(
            repaired(Profile::Gemini, both).unwrap(),
            r#"{"name":"f","parametersJsonSchema":{"type":"object"}}"#
        );
        let illegal = r#"{"name":"f","parameters":{"type":"OBJECT","$schema":"x"}}"#;
        assert_eq!(
            repaired(Profile::GeminiCli, illegal).unwrap(),
            r#"{"name":"f","parametersJsonSchema":{"type":"object"}}"#
        );
    }

    #[test]
    fn empty_lists_go() {
        let flavour = Flavour::of(&target(Profile::Gemini, "gemini-3-flash", &CARD));
        let repair = |text: &str| repair_tools(text.as_bytes(), flavour, &mut Losses::default());
        assert_eq!(repair(r#"[{"functionDeclarations":[]}]"#).unwrap(), b"[]");
        assert_eq!(repair(r#"[{"googleSearch":{}}]"#), None);
    }
}
