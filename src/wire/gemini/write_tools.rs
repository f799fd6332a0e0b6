//! Tools and tool choice → `tools` and `toolConfig`.
//!
//! Enters: functions whose names fit. Leaves: declarations with `parametersJsonSchema` for the public API, with
//! cleaned `parameters` for the envelopes. May go wrong: built-in tools without a counterpart, and all of
//! them beside functions (the API refuses the mixture), are dropped and recorded.

use super::flavour::Flavour;
use crate::Protocol;
use crate::ir::{Builtin, Context, LossKind, Losses, RawJson, Request, Restored, Tool, ToolChoice, ToolKind};
use crate::json::{Object, Path};
use crate::schema::{self, Dialect};
use crate::target::{Profile, Target};

/// Writes `tools` and `toolConfig`, where there are any.
pub(super) fn write_tools(
    o: &mut Object<'_>,
    request: &Request<'_>,
    target: &Target<'_>,
    context: &mut Context,
    losses: &mut Losses,
) {
    let flavour = Flavour::of(target);
    let functions = request.tools.iter().any(|tool| matches!(tool, Tool::Function { .. }));
    let mut writer = ToolWriter { flavour, target, context, losses };
    let builtins = writer.builtins(&request.tools, functions);
    if functions || !builtins.is_empty() {
        o.array("tools", |a| {
            if functions {
                a.object(|o| {
                    o.array("functionDeclarations", |a| {
                        for (n, tool) in request.tools.iter().enumerate() {
                            if let Tool::Function { .. } = tool {
                                a.object(|o| writer.function(o, tool, n));
                            }
                        }
                    });
                });
            }
            for (name, raw) in &builtins {
                a.object(|o| o.raw(name, raw));
            }
        });
    }
    if functions {
        writer.choice(o, request.tool_choice.as_ref());
    } else if request.tool_choice.is_some() {
        writer.losses.member(LossKind::Setting, "tool_choice");
    }
}

struct ToolWriter<'w, 't> {
    flavour: Flavour,
    target: &'w Target<'t>,
    context: &'w mut Context,
    losses: &'w mut Losses,
}

impl ToolWriter<'_, '_> {
    /// Member names and values of the built-in tools.
    fn builtins<'r>(&mut self, tools: &'r [Tool<'_>], functions: bool) -> Vec<(&'r str, &'r str)> {
        let root = Path::Root;
        let at = root.key("tools");
        let mut found = Vec::new();
        for (n, tool) in tools.iter().enumerate() {
            let member = match tool {
                Tool::Function { .. } => continue,
                Tool::Builtin(Builtin::WebSearch { .. }) => Some(("googleSearch", "{}")),
                Tool::Builtin(Builtin::CodeExecution) => Some(("codeExecution", "{}")),
                // Drawing is not a tool here, see `write_config`.
                Tool::Builtin(Builtin::ImageGeneration(_)) if Flavour::draws(self.target.model) => continue,
                Tool::Builtin(Builtin::Other { vendor: Protocol::Gemini, kind, raw }) => {
                    Some((kind.as_ref(), raw.as_str()))
                }
                Tool::Builtin(_) | Tool::Custom { .. } => None,
            };
            match member.filter(|_| !functions && self.flavour.google) {
                Some(member) if !found.contains(&member) => found.push(member),
                Some(_) => {}
                None => self.losses.at(LossKind::Builtin, &at.index(n)),
            }
        }
        found
    }

    fn function(&mut self, o: &mut Object<'_>, tool: &Tool<'_>, n: usize) {
        let Tool::Function { name, description, schema, strict, .. } = tool else { return };
        let root = Path::Root;
        let tools = root.key("tools");
        let at = tools.index(n);
        if *strict == Some(true) {
            self.losses.at(LossKind::Setting, &at.key("strict"));
        }
        o.str("name", name);
        o.opt_str("description", description.as_deref());
        let dialect = self.flavour.dialect();
        let none = RawJson("{}".into());
        let schema = match schema {
            Some(schema) => schema,
            None if dialect == Dialect::AntigravityClaude => &none,
            None => return,
        };
        let cleaned = match dialect {
            Dialect::GeminiApi => schema::clean(&schema::object_root(schema), dialect, &at, self.losses),
            _ => schema::clean(schema, dialect, &at, self.losses),
        };
        if let Some(placeholder) = cleaned.placeholder {
            let restored = self.context.names.entry(name.as_ref().to_owned()).or_insert_with(|| Restored {
                name: name.as_ref().to_owned(),
                namespace: None,
                kind: ToolKind::Function,
                placeholder: None,
            });
            restored.placeholder = Some(placeholder);
        }
        match dialect {
            // Objects without properties are refused; a function without parameters is not.
            Dialect::GeminiApi | Dialect::Antigravity if cleaned.empty => {}
            Dialect::GeminiApi => o.raw("parametersJsonSchema", cleaned.schema.as_str()),
            _ => o.raw("parameters", cleaned.schema.as_str()),
        }
    }

    fn choice(&mut self, o: &mut Object<'_>, choice: Option<&ToolChoice<'_>>) {
        let validated = self.flavour.profile == Profile::Antigravity && self.flavour.claude;
        let auto = if validated { "VALIDATED" } else { "AUTO" };
        let (mode, names): (&str, Vec<&str>) = match choice {
            None if validated => (auto, Vec::new()),
            None => return,
            Some(ToolChoice::Builtin(_)) => {
                self.losses.member(LossKind::Setting, "tool_choice");
                return;
            }
            Some(ToolChoice::Auto) => (auto, Vec::new()),
            Some(ToolChoice::None) => ("NONE", Vec::new()),
            Some(ToolChoice::Any) => ("ANY", Vec::new()),
            Some(ToolChoice::Named { name, .. }) => ("ANY", vec![name]),
            Some(ToolChoice::Allowed { required, names }) => {
                // Names may only stand beside these two modes; VALIDATED leaves the model the choice.
                let mode = if *required { "ANY" } else { "VALIDATED" };
                (mode, names.iter().map(AsRef::as_ref).collect())
            }
        };
        o.object("toolConfig", |o| {
            o.object("functionCallingConfig", |o| {
                o.str("mode", mode);
                if !names.is_empty() {
                    o.array("allowedFunctionNames", |a| names.iter().for_each(|name| a.str(name)));
                }
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::flavour::tests::target;
    use super::super::write_request::tests::{text, user, written_with};
    use super::*;
    use crate::target::Card;
    use std::sync::LazyLock;

    static CARD: LazyLock<Card> = LazyLock::new(Card::default);

    fn function(name: &'static str, schema: Option<&'static str>) -> Tool<'static> {
        let schema = schema.map(|schema| RawJson(schema.into()));
        let description = Some("d".into());
        Tool::Function {
            name: name.into(),
            namespace: None,
            description,
            schema,
            strict: Some(true),
            cache: None,
        }
    }

    fn search() -> Tool<'static> {
        Tool::Builtin(Builtin::WebSearch {
            allowed_domains: vec![],
            blocked_domains: vec![],
            max_uses: None,
            user_location: None,
            context_size: None,
        })
    }

    /// `tools`, `toolConfig`, and what was lost.
    fn tools(
        profile: Profile,
        model: &'static str,
        tools: Vec<Tool<'static>>,
        tool_choice: Option<ToolChoice<'static>>,
        context: &mut Context,
    ) -> (String, String, String) {
        let request =
            Request { turns: vec![user(vec![text("q")])], tools, tool_choice, ..Request::default() };
        let mut losses = Losses::default();
        let value = written_with(&request, &target(profile, model, &CARD), context, &mut losses);
        let get = |key: &str| value.get(key).map(crate::json::Json::to_text).unwrap_or_default();
        (get("tools"), get("toolConfig"), losses.to_string())
    }

    const CITY: &str = r#"{"type":"object","properties":{"city":{"type":"string","minLength":1}},"required":["city"],"additionalProperties":false}"#;

    #[test]
    fn the_public_api_gets_json_schema_and_the_envelopes_openapi() {
        let mut context = Context::default();
        let all = || {
            vec![
                function("f", Some(CITY)),
                function("g", None),
                function("h", Some(r#"{"type":"object","properties":{}}"#)),
            ]
        };
        let (public, _, losses) = tools(Profile::Gemini, "gemini-2.5-pro", all(), None, &mut context);
        assert_eq!(
            public,
            format!(
                r#"[{{"functionDeclarations":[{{"name":"f","description":"d","parametersJsonSchema":{CITY}}},{{"name":"g","description":"d"}},{{"name":"h","description":"d"}}]}}]"#
            )
        );
        assert_eq!(losses, "setting tools[0].strict, setting tools[1].strict, setting tools[2].strict");
        let (wrapped, _, _) = tools(Profile::GeminiCli, "gemini-2.5-pro", all(), None, &mut context);
        assert_eq!(
            wrapped,
            r#"[{"functionDeclarations":[{"name":"f","description":"d","parameters":{"type":"OBJECT","description":"No extra properties allowed","properties":{"city":{"type":"STRING","description":"minLength: 1"}},"required":["city"]}},{"name":"g","description":"d"},{"name":"h","description":"d"}]}]"#
        );
        assert!(context.names.is_empty());
    }

    #[test]
    fn placeholders_are_remembered_under_the_target_s_name() {
        let mut context = Context::default();
        let all = vec![function("1st", None), function("f", Some(CITY))];
        let (out, config, _) = tools(Profile::Antigravity, "claude-sonnet-4-6", all, None, &mut context);
        assert!(out.contains(
            r#"{"name":"_1st","description":"d","parameters":{"type":"OBJECT","properties":{"reason""#
        ));
        assert_eq!(config, r#"{"functionCallingConfig":{"mode":"VALIDATED"}}"#);
        let restored = &context.names["_1st"];
        assert_eq!((restored.name.as_str(), restored.placeholder), ("1st", Some("reason")));
        assert!(!context.names.contains_key("f"));
    }

    #[test]
    fn built_in_tools_stand_alone() {
        let mut context = Context::default();
        let code = Tool::Builtin(Builtin::CodeExecution);
        let other = Tool::Builtin(Builtin::Other {
            vendor: Protocol::Claude,
            kind: "x".into(),
            raw: RawJson("{}".into()),
        });
        let (out, _, losses) = tools(
            Profile::Gemini,
            "gemini-2.5-pro",
            vec![search(), search(), code, other.clone()],
            None,
            &mut context,
        );
        assert_eq!(out, r#"[{"googleSearch":{}},{"codeExecution":{}}]"#);
        assert_eq!(losses, "builtin-tool tools[3]");
        let (out, _, losses) =
            tools(Profile::Gemini, "gemini-2.5-pro", vec![search(), function("f", None)], None, &mut context);
        assert_eq!(out, r#"[{"functionDeclarations":[{"name":"f","description":"d"}]}]"#);
        assert!(losses.contains("builtin-tool tools[0]"));
        let (out, config, _) =
            tools(Profile::Gemini, "gemini-2.5-pro", vec![other], Some(ToolChoice::Any), &mut context);
        assert_eq!((out.as_str(), config.as_str()), ("", ""));
    }

    #[test]
    fn choices_become_modes() {
        let named = |name: &'static str| ToolChoice::Named {
            name: name.into(),
            namespace: None,
            kind: ToolKind::Function,
        };
        for (choice, expected) in [
            (None, ""),
            (Some(ToolChoice::Auto), r#"{"mode":"AUTO"}"#),
            (Some(ToolChoice::None), r#"{"mode":"NONE"}"#),
            (Some(ToolChoice::Any), r#"{"mode":"ANY"}"#),
            (Some(named("1st")), r#"{"mode":"ANY","allowedFunctionNames":["_1st"]}"#),
            (
                Some(ToolChoice::Allowed { required: false, names: vec!["f".into()] }),
                r#"{"mode":"VALIDATED","allowedFunctionNames":["f"]}"#,
            ),
        ] {
            let all = vec![function("1st", None), function("f", None)];
            let (_, config, _) =
                tools(Profile::Gemini, "gemini-2.5-pro", all, choice, &mut Context::default());
            let expected = if expected.is_empty() {
                String::new()
            } else {
                format!(r#"{{"functionCallingConfig":{expected}}}"#)
            };
            assert_eq!(config, expected);
        }
    }
}
