//! [`Request`] → the body of `GenerateAssistantResponse`.
//!
//! Enters: a request that [`crate::ir::lower`] made fit. Leaves: a body that the service takes. May go
//! wrong: nothing; what the service has no place for is recorded.

use super::WireNames;
use super::conversation::{self, Answered, Message, User};
use super::prompt::{Asked, preamble};
use super::write_tools::{self, Spec};
use crate::ir::{Context, LossKind, Losses, Request, note_lost};
use crate::json::{self, Object, write_escaped};
use crate::names::uuid;
use crate::target::Target;
use std::borrow::Cow;

/// Who asks. The service answers only those it knows.
const ORIGIN: &str = "AI_EDITOR";

/// A model as the service names it, and what its name in the catalogue asks for besides.
#[derive(Debug, PartialEq, Eq)]
struct Model {
    id: String,
    /// `…-agentic`: long files are written in pieces.
    agentic: bool,
    /// `…-chat`: no tools.
    chat: bool,
}

impl Model {
    /// Reads a name of the catalogue: `kiro-claude-sonnet-4-5-agentic` is `claude-sonnet-4.5`.
    fn read(name: &str) -> Self {
        let name = name.strip_prefix("kiro-").or_else(|| name.strip_prefix("amazonq-")).unwrap_or(name);
        let (name, agentic) = name.strip_suffix("-agentic").map_or((name, false), |name| (name, true));
        let (name, chat) = name.strip_suffix("-chat").map_or((name, false), |name| (name, true));
        let mut id = String::new();
        for part in name.split('-') {
            let number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if number && part.len() == 8 {
                // The date of a version, which the service does not know.
                continue;
            }
            if !id.is_empty() {
                let version = number && part.len() <= 2 && id.ends_with(|c: char| c.is_ascii_digit());
                id.push(if version { '.' } else { '-' });
            }
            id.push_str(part);
        }
        Self { id, agentic, chat }
    }
}

/// Writes the body, and notes in `context` what its answer is read by.
pub(super) fn write(
    request: &Request<'_>,
    target: &Target<'_>,
    context: &mut Context,
    losses: &mut Losses,
) -> Vec<u8> {
    let model = Model::read(target.model);
    let names = WireNames::of(request);
    let mut conversation = conversation::read(request, losses);
    let specs = write_tools::specs(request, &conversation, names, model.chat, losses);
    let called = Asked { callable: !specs.is_empty(), agentic: model.agentic, names };
    let preamble = preamble(request, target, called, losses);
    context.thinking_tags = preamble.thinks;
    context.upstream_model.clone_from(&model.id);
    context.window = target.card.context;
    names.restore(context);
    if !preamble.text.is_empty() {
        conversation.first().text.insert(0, Cow::Borrowed(&preamble.text));
    }
    let mut out = Vec::new();
    json::object(&mut out, |o| {
        o.object("conversationState", |o| {
            o.str("agentTaskType", "vibe");
            o.str("chatTriggerType", "MANUAL");
            o.str("conversationId", &uuid(&context.seed));
            o.object("currentMessage", |o| write_user(o, &conversation.current, &model.id, &specs));
            if !conversation.history.is_empty() {
                o.array("history", |a| {
                    for message in &conversation.history {
                        a.object(|o| write_message(o, message, &model.id, names));
                    }
                });
            }
        });
        // Google's projects stand in the same place: only the name of a profile goes out.
        if target.project.starts_with("arn:") {
            o.str("profileArn", target.project);
        }
        write_inference(o, request, target, losses);
    });
    note_lost(request, &[], losses);
    if request.has_cache_marks() {
        losses.member(LossKind::CacheMark, "cache_control");
    }
    out
}

fn write_message(o: &mut Object<'_>, message: &Message<'_>, model: &str, names: WireNames) {
    match message {
        Message::User(user) => write_user(o, user, model, &[]),
        Message::Assistant(said) => o.object("assistantResponseMessage", |o| {
            write_text(o, "content", &said.text);
            if !said.calls.is_empty() {
                o.array("toolUses", |a| {
                    for call in &said.calls {
                        a.object(|o| {
                            o.str("toolUseId", &call.id);
                            o.str("name", names.get(&call.name));
                            o.raw("input", &call.object());
                        });
                    }
                });
            }
        }),
    }
}

fn write_user(o: &mut Object<'_>, user: &User<'_>, model: &str, tools: &[Spec<'_>]) {
    o.object("userInputMessage", |o| {
        write_text(o, "content", &user.text);
        o.str("modelId", model);
        o.str("origin", ORIGIN);
        if !user.images.is_empty() {
            o.array("images", |a| {
                for file in &user.images {
                    a.object(|o| {
                        o.str("format", file.format);
                        o.object("source", |o| o.str("bytes", &file.data));
                    });
                }
            });
        }
        if !user.documents.is_empty() {
            o.array("documents", |a| {
                for (name, file) in &user.documents {
                    a.object(|o| {
                        o.str("name", name);
                        o.str("format", file.format);
                        o.object("source", |o| o.str("bytes", &file.data));
                    });
                }
            });
        }
        if !user.results.is_empty() || !tools.is_empty() {
            o.object("userInputMessageContext", |o| {
                if !user.results.is_empty() {
                    o.array("toolResults", |a| {
                        user.results.iter().for_each(|result| a.object(|o| write_result(o, result)));
                    });
                }
                if !tools.is_empty() {
                    o.array("tools", |a| write_tools::write(tools, a));
                }
            });
        }
    });
}

fn write_result(o: &mut Object<'_>, result: &Answered<'_>) {
    o.str("toolUseId", result.id);
    o.str("status", if result.is_error { "error" } else { "success" });
    o.array("content", |a| result.text.iter().for_each(|text| a.object(|o| o.str("text", text))));
}

/// Writes paragraphs as one string, with a blank line between them.
fn write_text(o: &mut Object<'_>, key: &str, paragraphs: &[Cow<'_, str>]) {
    let out = o.key(key);
    out.push(b'"');
    for (n, paragraph) in paragraphs.iter().enumerate() {
        if n > 0 {
            write_escaped(out, "\n\n");
        }
        write_escaped(out, paragraph);
    }
    out.push(b'"');
}

/// Writes `inferenceConfig`, when the client set any of it.
fn write_inference(o: &mut Object<'_>, request: &Request<'_>, target: &Target<'_>, losses: &mut Losses) {
    let asked = request.limits.max_tokens;
    let max_tokens = asked.map(|asked| asked.clamp(1, target.card.max_output.unwrap_or(u64::MAX).max(1)));
    if max_tokens != asked {
        losses.member(LossKind::Clamped, "max_tokens");
    }
    let (temperature, top_p) = (request.sampling.temperature, request.sampling.top_p);
    if max_tokens.is_none() && temperature.is_none() && top_p.is_none() {
        return;
    }
    o.object("inferenceConfig", |o| {
        if let Some(max_tokens) = max_tokens {
            o.uint("maxTokens", max_tokens);
        }
        if let Some(temperature) = temperature {
            o.float("temperature", temperature.clamp(0.0, 1.0));
            if temperature > 1.0 {
                losses.member(LossKind::Clamped, "temperature");
            }
        }
        if let Some(top_p) = top_p {
            o.float("topP", top_p);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::WireError;
    use crate::ir::lower;
    use crate::json::{Json, parse_any};
    use crate::target::{Card, Profile};
    use crate::thinking::Mode;

    struct Written {
        body: Json<'static>,
        losses: Losses,
        context: Context,
    }

    impl Written {
        /// A value, by its keys and positions.
        fn at(&self, path: &str) -> &Json<'static> {
            path.split('/').fold(&self.body, |value, key| match value {
                Json::Array(items) => {
                    key.parse().ok().and_then(|n: usize| items.get(n)).unwrap_or(&Json::Null)
                }
                value => value.get(key).unwrap_or(&Json::Null),
            })
        }

        fn text(&self, path: &str) -> &str {
            self.at(path).as_str().unwrap_or_else(|| panic!("{path} of {:?}", self.body))
        }

        fn length(&self, path: &str) -> usize {
            self.at(path).as_array().map_or(0, <[_]>::len)
        }
    }

    const NOW: &str = "conversationState/currentMessage/userInputMessage";
    const HISTORY: &str = "conversationState/history";

    fn now(rest: &str) -> String {
        format!("{NOW}/{rest}")
    }

    fn past(rest: &str) -> String {
        format!("{HISTORY}/{rest}")
    }

    fn target<'t>(model: &'t str, card: &'t Card, thinking: Option<Mode>) -> Target<'t> {
        Target { profile: Profile::Kiro, model, card, stream: true, thinking, project: "" }
    }

    fn try_run(body: &str, target: &Target<'_>) -> Result<Written, WireError> {
        let mut losses = Losses::default();
        let mut request = crate::claude::read_request(body.as_bytes(), &mut losses)?;
        let mut context = Context { seed: "0123456789abcdef0123456789abcdef".into(), ..Context::default() };
        lower::lower(&mut request, &super::super::RULES, &mut context, &mut losses);
        let written = write(&request, target, &mut context, &mut losses);
        Ok(Written { body: parse_any(&written)?.into_owned(), losses, context })
    }

    fn run(body: &str) -> Written {
        try_run(body, &target("claude-sonnet-4.5", &Card::default(), None)).unwrap()
    }

    fn messages(messages: &str) -> Written {
        run(&format!(r#"{{"model":"x","max_tokens":9,"messages":[{messages}]}}"#))
    }

    #[test]
    fn the_envelope_has_what_the_service_asks_for() {
        let made = messages(r#"{"role":"user","content":"hi"}"#);
        assert_eq!(made.text("conversationState/conversationId"), "01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(made.text("conversationState/chatTriggerType"), "MANUAL");
        assert_eq!(made.text("conversationState/agentTaskType"), "vibe");
        assert_eq!(made.text(&now("modelId")), "claude-sonnet-4.5");
        assert_eq!(made.text(&now("origin")), "AI_EDITOR");
        assert_eq!(made.at("inferenceConfig/maxTokens").as_u64(), Some(9));
        assert!(made.at("profileArn").is_null() && made.at(HISTORY).is_null());
        assert!(made.at(&now("userInputMessageContext")).is_null());
        let card = Card::default();
        let arn = Target { project: "arn:aws:codewhisperer:x", ..target("m", &card, None) };
        let made =
            try_run(r#"{"model":"x","max_tokens":9,"messages":[{"role":"user","content":"a"}]}"#, &arn);
        assert_eq!(made.unwrap().text("profileArn"), "arn:aws:codewhisperer:x");
    }

    #[test]
    fn names_of_the_catalogue_are_the_services_names() {
        for (name, id, agentic, chat) in [
            ("claude-sonnet-4.5", "claude-sonnet-4.5", false, false),
            ("kiro-claude-sonnet-4-5", "claude-sonnet-4.5", false, false),
            ("kiro-claude-opus-4-6-agentic", "claude-opus-4.6", true, false),
            ("kiro-claude-sonnet-4-chat", "claude-sonnet-4", false, true),
            ("claude-sonnet-4-5-20250929", "claude-sonnet-4.5", false, false),
            ("claude-3-7-sonnet-20250219", "claude-3.7-sonnet", false, false),
            ("kiro-minimax-m2-1", "minimax-m2.1", false, false),
            ("kiro-qwen3-coder-next", "qwen3-coder-next", false, false),
            ("amazonq-auto", "auto", false, false),
            ("CLAUDE_SONNET_4_20250514_V1_0", "CLAUDE_SONNET_4_20250514_V1_0", false, false),
        ] {
            assert_eq!(Model::read(name), Model { id: id.to_owned(), agentic, chat }, "{name}");
        }
    }

    #[test]
    fn neighbours_of_one_role_are_one_message() {
        let made = messages(
            r#"{"role":"user","content":"a"},{"role":"user","content":"b"},{"role":"assistant","content":"c"},
               {"role":"assistant","content":"d"},{"role":"user","content":"e"}"#,
        );
        assert_eq!(made.length(HISTORY), 2);
        assert_eq!(made.text(&past("0/userInputMessage/content")), "a\n\nb");
        assert_eq!(made.text(&past("1/assistantResponseMessage/content")), "c\n\nd");
        assert_eq!(made.text(&now("content")), "e");
    }

    #[test]
    fn a_user_begins_and_a_user_is_last() {
        let made = messages(r#"{"role":"assistant","content":"a"}"#);
        assert_eq!(made.text(&past("0/userInputMessage/content")), ".");
        assert_eq!(made.text(&past("1/assistantResponseMessage/content")), "a");
        assert_eq!(made.text(&now("content")), "Continue");
    }

    const LOOP: &str = r#"{"role":"user","content":"q"},
        {"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"f","input":{"a": 1}},
            {"type":"tool_use","id":"t2","name":"web_search","input":{}}]},
        {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"21C"},
            {"type":"tool_result","tool_use_id":"t2","is_error":true}]}"#;

    #[test]
    fn results_stand_in_the_context_and_tools_of_the_history_are_declared() {
        let made = messages(LOOP);
        assert_eq!(made.text(&past("1/assistantResponseMessage/content")), ".");
        assert_eq!(made.text(&past("1/assistantResponseMessage/toolUses/0/toolUseId")), "t1");
        assert_eq!(made.at(&past("1/assistantResponseMessage/toolUses/0/input/a")).as_u64(), Some(1));
        assert_eq!(made.text(&now("content")), "Tool results provided.");
        let result = |rest: &str| now(&format!("userInputMessageContext/toolResults/{rest}"));
        assert_eq!(made.text(&result("0/content/0/text")), "21C");
        assert_eq!((made.text(&result("0/status")), made.text(&result("1/status"))), ("success", "error"));
        assert_eq!(made.text(&result("1/content/0/text")), "(no output)");
        let tool = |rest: &str| now(&format!("userInputMessageContext/tools/{rest}"));
        assert_eq!(made.text(&tool("0/toolSpecification/name")), "f");
        assert_eq!(made.text(&tool("0/toolSpecification/description")), "f");
        assert_eq!(made.text(&tool("1/toolSpecification/name")), "remote_web_search");
        assert_eq!(made.context.names["remote_web_search"].name, "web_search");
    }

    #[test]
    fn pictures_of_a_result_stand_beside_it() {
        let made = messages(
            r#"{"role":"user","content":"q"},
            {"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"f","input":{}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[
                {"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw0KGgo="}}]}]}"#,
        );
        assert_eq!(made.text(&now("images/0/format")), "png");
        assert_eq!(made.text(&now("images/0/source/bytes")), "iVBORw0KGgo=");
    }

    #[test]
    fn documents_have_names_that_are_unique_and_at_most_five_of_them() {
        let pdf = r#"{"type":"document","title":"a/b.pdf","source":{"type":"base64",
            "media_type":"application/pdf","data":"JVBERi0xLjQK"}}"#;
        let made = messages(&format!(r#"{{"role":"user","content":[{}]}}"#, [pdf; 6].join(",")));
        assert_eq!(made.length(&now("documents")), 5);
        assert_eq!(made.text(&now("documents/0/name")), "a-b");
        assert_eq!(made.text(&now("documents/4/name")), "a-b-5");
        assert_eq!(made.text(&now("documents/0/format")), "pdf");
        assert!(made.text(&now("content")).starts_with("[document: a/b.pdf"));
        assert_eq!(made.losses.len(), 1);
    }

    fn with(members: &str, thinking: Option<Mode>, model: &str) -> Written {
        let body = format!(
            r#"{{"model":"x","max_tokens":9,"messages":[{{"role":"user","content":"one"}},
               {{"role":"assistant","content":"two"}},{{"role":"user","content":"three"}}],{members}}}"#
        );
        try_run(&body, &target(model, &Card { context: Some(7), ..Card::default() }, thinking)).unwrap()
    }

    #[test]
    fn instructions_lead_the_first_message_on_every_turn() {
        let made = with(r#""system":"You are A.""#, None, "m");
        assert_eq!(
            made.text(&past("0/userInputMessage/content")),
            "<system-prompt>\nYou are A.\n</system-prompt>\n\none"
        );
        assert_eq!(made.text(&now("content")), "three");
        assert!(!made.context.thinking_tags);
        assert_eq!(made.context.window, Some(7));
        let agentic = with(r#""system":"You are A.""#, None, "m-agentic");
        assert!(agentic.text(&past("0/userInputMessage/content")).contains("350 lines"));
    }

    #[test]
    fn thinking_is_asked_for_in_tags_once() {
        let tags = "<thinking_mode>enabled</thinking_mode>\n<max_thinking_length>2048</max_thinking_length>";
        let made = with(r#""system":"S""#, Some(Mode::Budget(2048)), "m");
        let first = made.text(&past("0/userInputMessage/content"));
        assert!(first.starts_with(tags) && made.context.thinking_tags, "{first}");
        assert!(!with(r#""system":"S""#, Some(Mode::Off), "m").context.thinking_tags);
        let own = with(r#""system":"<thinking_mode>enabled</thinking_mode>""#, Some(Mode::Auto), "m");
        let first = own.text(&past("0/userInputMessage/content"));
        assert_eq!(first.matches("<thinking_mode>").count(), 1);
        assert!(own.context.thinking_tags);
    }

    const TOOL: &str = r#""tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}]"#;

    #[test]
    fn descriptions_are_not_empty_and_cut_between_characters() {
        let long = "é".repeat(6000);
        let tools = format!(
            r#""tools":[{{"name":"f","description":" ","input_schema":{{"anyOf":[{{"type":"object"}}]}}}},
               {{"name":"g","description":"{long}","input_schema":{{"type":"object"}}}}]"#
        );
        let made = with(&tools, None, "m");
        let tool = |rest: &str| now(&format!("userInputMessageContext/tools/{rest}"));
        assert_eq!(made.text(&tool("0/toolSpecification/description")), "f");
        assert_eq!(made.text(&tool("0/toolSpecification/inputSchema/json/type")), "object");
        let cut = made.text(&tool("1/toolSpecification/description"));
        assert!(cut.len() <= 10_237 && cut.len() > 10_230 && cut.ends_with("é..."), "{}", cut.len());
    }

    #[test]
    fn wishes_that_the_service_cannot_be_told_are_told_to_the_model_and_recorded() {
        let first = past("0/userInputMessage/content");
        let forced = with(
            &format!(r#"{TOOL},"tool_choice":{{"type":"tool","name":"f","disable_parallel_tool_use":true}}"#),
            None,
            "m",
        );
        let said = forced.text(&first);
        assert!(said.contains("You must call the tool f") && said.contains("at most one tool"), "{said}");
        let lost: Vec<String> = forced.losses.iter().map(ToString::to_string).collect();
        assert_eq!(lost, ["setting tool_choice", "setting parallel_tool_calls"]);
        // Nothing to choose from is surer than a word.
        let none = with(&format!(r#"{TOOL},"tool_choice":{{"type":"none"}}"#), None, "m");
        assert!(none.at(&now("userInputMessageContext")).is_null());
        assert_eq!(none.text(&first), "one");
        let chat = with(TOOL, None, "m-chat");
        assert!(chat.at(&now("userInputMessageContext")).is_null());
        assert_eq!(chat.losses.len(), 1);
    }

    #[test]
    fn settings_that_the_service_lacks_are_recorded() {
        let made = with(r#""temperature":0.5,"top_p":0.9,"top_k":4,"stop_sequences":["x"]"#, None, "m");
        assert_eq!(made.at("inferenceConfig/temperature").as_f64(), Some(0.5));
        assert_eq!(made.at("inferenceConfig/topP").as_f64(), Some(0.9));
        let lost: Vec<String> = made.losses.iter().map(ToString::to_string).collect();
        assert_eq!(lost, ["setting stop", "setting top_k"]);
    }
}
