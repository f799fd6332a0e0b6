//! [`Request`] → upstream body.
//!
//! Enters: a request that [`crate::ir::lower`] made fit. Leaves: a body that the API takes. May go wrong:
//! nothing; what the API has no place for is recorded.
//!
//! What is made true here: roles alternate and a user begins; no text is blank; thinking leads its turn and
//! calls end it; a begun answer has no blank at its end; instructions in mid-conversation are reminders in
//! the user's turn, because only the newest models take them as messages.

use super::cache_control::{self, Section, Slot};
use super::settings::{self, Conversation};
use super::write_blocks::{self, Block, Body, Site};
use super::write_tools::{self, Declared};
use crate::ir::{CacheMark, LossKind, Losses, Part, Request, Role, note_lost};
use crate::json::{self, Path};
use crate::target::Target;
use crate::thinking::Support;
use std::borrow::Cow;

/// Settings of [`note_lost`] that are written here.
const CARRIED: [&str; 4] = ["stop", "top_k", "user", "service_tier"];
/// Stands in where the API wants a user to speak and none does.
const OPENING: &str = "Begin.";

/// Ends a conversation whose answer the client began, for models that refuse that.
const GO_ON: &str = "Continue.";

/// Longest `metadata.user_id`.
const USER_MAX: usize = 256;

/// A message to write.
struct Message<'r> {
    role: Role,
    blocks: Vec<Block<'r>>,
}

/// Which operation a body is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// An answer.
    Generate,
    /// A count: no limits, no marks, no settings of the answer.
    Count,
}

/// Writes the body of `/v1/messages`.
pub(super) fn write(request: &Request<'_>, target: &Target<'_>, losses: &mut Losses) -> Vec<u8> {
    write_for(Purpose::Generate, request, target, losses)
}

/// Writes a body.
pub(super) fn write_for(
    purpose: Purpose,
    request: &Request<'_>,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Vec<u8> {
    let mut messages = messages(request, target, losses);
    let conversation = end(&mut messages, target);
    let mut tools = write_tools::declared(request, losses);
    let choice = write_tools::choice(request, &tools);
    if request.tool_choice.is_some() && choice.is_none() {
        losses.member(LossKind::Setting, "tool_choice");
    }
    let generate = purpose == Purpose::Generate;
    let max_tokens = generate.then(|| settings::max_tokens(request, target, losses));
    let forced = choice.as_ref().is_some_and(write_tools::Choice::forces);
    let mode = settings::thinking(target, max_tokens, forced, conversation, losses);
    let mut system: Vec<Block<'_>> =
        request.system.iter().filter_map(|i| Block::text(i.text.as_ref(), i.cache)).collect();
    if generate {
        fit_marks(&mut tools, &mut system, &mut messages, losses);
    } else {
        drop_marks(&mut tools, &mut system, &mut messages);
    }
    let mut out = Vec::new();
    json::object(&mut out, |o| {
        o.str("model", target.model);
        if let Some(max_tokens) = max_tokens {
            o.uint("max_tokens", max_tokens);
        }
        if !system.is_empty() {
            o.array("system", |a| system.iter().for_each(|block| write_blocks::write(a.item(), block)));
        }
        o.array("messages", |a| messages.iter().for_each(|message| write_message(a.item(), message)));
        write_tools::write(o, request, &tools, choice.as_ref(), losses);
        settings::write_thinking(o, mode, request.thinking.visible);
        settings::write_output_config(o, request, mode, losses);
        if generate {
            settings::write_sampling(o, request, target, mode, losses);
            write_rest(o, request, target, losses);
        }
    });
    out
}

fn write_rest(o: &mut json::Object<'_>, request: &Request<'_>, target: &Target<'_>, losses: &mut Losses) {
    let stop: Vec<_> = request.limits.stop.iter().filter(|stop| !stop.trim().is_empty()).collect();
    if stop.len() < request.limits.stop.len() {
        losses.member(LossKind::Setting, "stop_sequences");
    }
    if !stop.is_empty() {
        o.array("stop_sequences", |a| stop.iter().for_each(|stop| a.str(stop)));
    }
    match request.user.as_deref() {
        Some(user) if user.chars().count() > USER_MAX => {
            // Too long for the API, but it still tells one user from another.
            losses.member(LossKind::Clamped, "user");
            let id = crate::names::fingerprint(user.as_bytes());
            o.object("metadata", |o| o.str("user_id", &id));
        }
        Some(user) => o.object("metadata", |o| o.str("user_id", user)),
        None => {}
    }
    match request.service_tier.as_deref() {
        Some(tier @ ("auto" | "standard_only")) => o.str("service_tier", tier),
        // OpenAI's word for the same.
        Some("default") => o.str("service_tier", "standard_only"),
        Some(_) => losses.member(LossKind::Setting, "service_tier"),
        None => {}
    }
    if target.stream {
        o.bool("stream", true);
    }
    note_lost(request, &CARRIED, losses);
}

/// The turns as messages: roles alternate, a user begins.
fn messages<'r>(request: &'r Request<'_>, target: &Target<'_>, losses: &mut Losses) -> Vec<Message<'r>> {
    let mut messages: Vec<Message<'r>> = Vec::with_capacity(request.turns.len() + 1);
    let (root, thinks) = (Path::Root, target.card.thinking != Support::Never);
    let all = root.key("turns");
    for (n, turn) in request.turns.iter().enumerate() {
        let path = all.index(n);
        let reminder = matches!(turn.role, Role::System | Role::Developer);
        let role = if turn.role == Role::Assistant { Role::Assistant } else { Role::User };
        let site = Site { role, thinks, path: &path };
        if turn.name.is_some() {
            losses.at(LossKind::Setting, &path.key("name"));
        }
        let blocks: Vec<_> = turn
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Text(text) if reminder => remind(&text.text, text.cache),
                part => write_blocks::block(part, site, losses),
            })
            .collect();
        if blocks.is_empty() {
            continue;
        }
        match messages.last_mut() {
            Some(last) if last.role == role => last.blocks.extend(blocks),
            _ => messages.push(Message { role, blocks }),
        }
    }
    if messages.first().is_none_or(|first| first.role != Role::User) {
        let blocks = Block::text(OPENING, None).into_iter().collect();
        messages.insert(0, Message { role: Role::User, blocks });
    }
    for message in messages.iter_mut().filter(|message| message.role == Role::Assistant) {
        order(&mut message.blocks);
    }
    messages
}

fn remind<'r>(text: &str, mark: Option<CacheMark>) -> Option<Block<'r>> {
    Block::text(format!("<system-reminder>\n{text}\n</system-reminder>"), mark)
}

/// Calls last; thinking first, unless the turn begins with thinking: then its order is the model's own, and
/// the API holds the client to it.
fn order(blocks: &mut [Block<'_>]) {
    let as_made = blocks.first().is_some_and(Block::is_thinking);
    blocks.sort_by_key(|block| match &block.body {
        Body::Call { .. } => 2,
        Body::Thinking { .. } | Body::Redacted(_) if !as_made => 0,
        _ => 1,
    });
}

/// Makes the end of the conversation legal, and says what it means for thinking.
fn end(messages: &mut Vec<Message<'_>>, target: &Target<'_>) -> Conversation {
    if let Some(last) = messages.last_mut().filter(|last| last.role == Role::Assistant) {
        if let Some(Block { body: Body::Text(text), .. }) = last.blocks.last_mut() {
            match text {
                Cow::Borrowed(text) => *text = text.trim_end(),
                Cow::Owned(text) => text.truncate(text.trim_end().len()),
            }
        }
        let text_last = matches!(last.blocks.last(), Some(Block { body: Body::Text(_), .. }));
        if text_last && settings::takes_prefill(target) {
            return Conversation { begun: true, loop_without_thinking: false };
        }
        let blocks = Block::text(GO_ON, None).into_iter().collect();
        messages.push(Message { role: Role::User, blocks });
    }
    let answers_tools =
        |message: &Message<'_>| message.blocks.iter().any(|block| matches!(block.body, Body::Result { .. }));
    // From the end: results, the turn that made the calls, results, …
    let mut calls = false;
    for pair in messages.rchunks(2) {
        let [model, user] = pair else { break };
        if model.role != Role::Assistant || !answers_tools(user) {
            break;
        }
        calls = true;
        if model.blocks.iter().any(Block::is_thinking) {
            return Conversation::default();
        }
    }
    Conversation { begun: false, loop_without_thinking: calls }
}

fn write_message(out: &mut Vec<u8>, message: &Message<'_>) {
    json::object(out, |o| {
        o.str("role", if message.role == Role::Assistant { "assistant" } else { "user" });
        o.array("content", |a| message.blocks.iter().for_each(|block| write_blocks::write(a.item(), block)));
    });
}

/// Marks as the API takes them. A conversation that goes on, because it has tools or an answer already, gets
/// marks when its client set none.
fn fit_marks(
    tools: &mut [Declared<'_, '_>],
    system: &mut [Block<'_>],
    messages: &mut [Message<'_>],
    losses: &mut Losses,
) {
    let goes_on = !tools.is_empty() || messages.len() > 1;
    let mut slots = Vec::new();
    let last = tools.iter().rposition(Declared::takes_mark);
    for (n, tool) in tools.iter_mut().enumerate().filter(|(_, tool)| tool.takes_mark()) {
        let (section, ends_prefix) = (Section::Tools, Some(n) == last);
        slots.push(Slot { section, mark: &mut tool.mark, ends_prefix });
    }
    let last = system.len();
    for (n, block) in system.iter_mut().enumerate() {
        let (section, ends_prefix) = (Section::System, n + 1 == last);
        slots.push(Slot { section, mark: &mut block.mark, ends_prefix });
    }
    // The last two turns of the user: the older one is what the previous request has written.
    let users: Vec<usize> =
        messages.iter().enumerate().filter(|(_, m)| m.role == Role::User).map(|(n, _)| n).collect();
    let recent = users.get(users.len().saturating_sub(2)..).unwrap_or_default().to_vec();
    for (n, message) in messages.iter_mut().enumerate() {
        let end = message.blocks.iter().rposition(Block::takes_mark);
        for (b, block) in message.blocks.iter_mut().enumerate().filter(|(_, block)| block.takes_mark()) {
            let ends_prefix = Some(b) == end && recent.contains(&n);
            slots.push(Slot { section: Section::Messages, mark: &mut block.mark, ends_prefix });
        }
    }
    cache_control::fit(&mut slots, goes_on, losses);
}

fn drop_marks(tools: &mut [Declared<'_, '_>], system: &mut [Block<'_>], messages: &mut [Message<'_>]) {
    for tool in tools {
        tool.mark = None;
    }
    for block in system {
        block.mark = None;
    }
    for block in messages.iter_mut().flat_map(|message| message.blocks.iter_mut()) {
        block.mark = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{
        Context, Format, Instruction, RawJson, Reasoning, Text, Tool, ToolCall, ToolKind, ToolResult, Turn,
        lower,
    };
    use crate::json::{Json, parse_any};
    use crate::signature::{Signature, Vendor, wrap_vertex};
    use crate::target::{Card, Profile};
    use crate::thinking::{Bounds, Level, Mode};

    fn text(text: &'static str) -> Part<'static> {
        Part::Text(Text::plain(text))
    }

    fn call(id: &'static str) -> Part<'static> {
        Part::ToolCall(ToolCall {
            id: id.into(),
            name: "f".into(),
            namespace: None,
            kind: ToolKind::Function,
            arguments: "".into(),
            signature: None,
            cache: None,
        })
    }

    fn result(id: &'static str, parts: Vec<Part<'static>>) -> Part<'static> {
        Part::ToolResult(ToolResult {
            call_id: id.into(),
            name: None,
            parts,
            is_error: false,
            kind: ToolKind::Function,
            cache: None,
        })
    }

    fn thought(vendor: Vendor, value: &'static str) -> Part<'static> {
        Part::Reasoning(Reasoning {
            text: vec!["plan".into()],
            signature: Signature::of(vendor, value),
            ..Reasoning::default()
        })
    }

    fn user(parts: Vec<Part<'static>>) -> Turn<'static> {
        Turn::new(Role::User, parts)
    }

    fn model(parts: Vec<Part<'static>>) -> Turn<'static> {
        Turn::new(Role::Assistant, parts)
    }

    fn function(name: &'static str) -> Tool<'static> {
        Tool::Function {
            name: name.into(),
            namespace: None,
            description: None,
            schema: None,
            strict: None,
            cache: None,
        }
    }

    fn run(mut request: Request<'static>, thinking: Option<Mode>, card: &Card) -> (String, Losses) {
        let mut losses = Losses::default();
        lower::lower(&mut request, &super::super::RULES, &mut Context::default(), &mut losses);
        let profile = Profile::Claude;
        let target = Target { profile, model: "claude-x", card, stream: false, thinking, project: "" };
        let out = write(&request, &target, &mut losses);
        (String::from_utf8(out).unwrap(), losses)
    }

    /// The messages, one letter for the role, then the types of the blocks and what they say.
    fn shape(request: Request<'static>) -> String {
        let (body, _) = run(request, None, &Card::default());
        let body = parse_any(body.as_bytes()).unwrap();
        let mut out = String::new();
        for message in body.get("messages").unwrap().as_array().unwrap() {
            let role = message.get("role").unwrap().as_str().unwrap();
            out.push_str(if role == "user" { " U" } else { " A" });
            for block in message.get("content").unwrap().as_array().unwrap() {
                let kind = block.get("type").unwrap().as_str().unwrap();
                let text = block.get("text").and_then(Json::as_str).unwrap_or(kind);
                out.push_str(" [");
                out.push_str(&text.replace('\n', "|"));
                out.push(']');
            }
        }
        out.trim().to_owned()
    }

    fn turns(turns: Vec<Turn<'static>>) -> Request<'static> {
        Request { turns, ..Request::default() }
    }

    #[test]
    fn a_user_begins_and_roles_alternate() {
        let mut only_system = turns(vec![]);
        only_system.system.push(Instruction { text: "Say hello.".into(), developer: false, cache: None });
        assert_eq!(shape(only_system), "U [Begin.]");
        assert_eq!(
            shape(turns(vec![model(vec![text("hi")]), user(vec![text("q")])])),
            "U [Begin.] A [hi] U [q]"
        );
        assert_eq!(
            shape(turns(vec![user(vec![text("a")]), user(vec![text("b")]), model(vec![text("c")])])),
            "U [a] [b] A [c]"
        );
    }

    #[test]
    fn instructions_in_mid_conversation_are_reminders_behind_the_results() {
        let request = turns(vec![
            user(vec![text("q")]),
            model(vec![text("look"), call("a")]),
            user(vec![result("a", vec![])]),
            Turn::new(Role::Developer, vec![text("be brief")]),
            user(vec![text("go on")]),
        ]);
        assert_eq!(
            shape(request),
            "U [q] A [look] [tool_use] U [tool_result] [<system-reminder>|be brief|</system-reminder>] [go on]"
        );
    }

    #[test]
    fn thinking_leads_and_calls_end_a_turn() {
        let request = turns(vec![
            user(vec![text("q")]),
            model(vec![call("a"), text("look"), thought(Vendor::Claude, "s")]),
            user(vec![result("a", vec![])]),
        ]);
        assert_eq!(shape(request), "U [q] A [thinking] [look] [tool_use] U [tool_result]");
    }

    #[test]
    fn only_signatures_of_this_vendor_go_back() {
        let parts = vec![
            thought(Vendor::Gemini, "g"),
            thought(Vendor::Openai, "o"),
            thought(Vendor::Unknown, "u"),
            Part::Reasoning(Reasoning { text: vec!["unsigned".into()], ..Reasoning::default() }),
            text("answer"),
        ];
        let request = turns(vec![user(vec![text("q")]), model(parts.clone()), user(vec![text("r")])]);
        let (body, losses) = run(request.clone(), None, &Card::default());
        assert!(!body.contains("thinking") && !body.contains("plan"), "{body}");
        assert_eq!(losses.iter().filter(|loss| loss.kind == LossKind::Signature).count(), 4);
        // A turn of nothing else goes, and its neighbours are one.
        let request = turns(vec![
            user(vec![text("q")]),
            model(parts.into_iter().take(3).collect()),
            user(vec![text("r")]),
        ]);
        assert_eq!(shape(request), "U [q] [r]");

        let direct = "EpYBCkYICxgCKkBO";
        let wrapped = Part::Reasoning(Reasoning {
            text: vec!["plan".into()],
            signature: Signature::of(Vendor::ClaudeVertex, wrap_vertex(direct)),
            ..Reasoning::default()
        });
        let hidden = Part::Reasoning(Reasoning { redacted: Some("x".into()), ..Reasoning::default() });
        let request = turns(vec![user(vec![text("q")]), model(vec![wrapped, hidden, text("a")])]);
        let (body, _) = run(request.clone(), None, &Card::default());
        assert!(body.contains(&format!(r#"{{"type":"thinking","thinking":"plan","signature":"{direct}"}}"#)));
        assert!(body.contains(r#"{"type":"redacted_thinking","data":"x"}"#));
        let never = Card { thinking: Support::Never, ..Card::default() };
        assert!(!run(request, None, &never).0.contains("thinking"));
    }

    #[test]
    fn a_begun_answer_has_no_blank_at_its_end() {
        let request = turns(vec![user(vec![text("q")]), model(vec![text("The answer is \n")])]);
        assert_eq!(shape(request.clone()), "U [q] A [The answer is]");
        let levels = vec![Level::Low, Level::High];
        let thinking = Support::Bounded(Bounds { levels, ..Bounds::default() });
        let (body, _) = run(request.clone(), None, &Card { thinking, ..Card::default() });
        assert!(body.contains("Continue."), "a model with levels wants the user to end");
        let (body, losses) = run(request, Some(Mode::Budget(2000)), &Card::default());
        assert!(!body.contains("budget_tokens"));
        assert_eq!(losses.to_string(), "clamped thinking");
    }

    #[test]
    fn settings_without_a_place_are_recorded_and_never_go_out() {
        let mut request = turns(vec![user(vec![text("q")])]);
        request.limits.choices = Some(2);
        request.limits.stop = vec!["END".into(), " ".into()];
        request.sampling.seed = Some(1);
        request.service_tier = Some("priority".into());
        request.user = Some("u".into());
        request.format = Some(Format::JsonObject);
        request.extra = vec![("store".into(), RawJson("true".into()))];
        let (body, losses) = run(request, None, &Card::default());
        assert_eq!(
            body,
            r#"{"model":"claude-x","max_tokens":32000,"messages":[{"role":"user","content":[{"type":"text","text":"q"}]}],"stop_sequences":["END"],"metadata":{"user_id":"u"}}"#
        );
        assert_eq!(losses.len(), 6, "{losses}");
    }

    #[test]
    fn efforts_and_schemas_share_output_config() {
        let mut request = turns(vec![user(vec![text("q")])]);
        let schema = RawJson(r#"{"type":"object"}"#.into());
        request.format = Some(Format::JsonSchema { name: None, description: None, schema, strict: None });
        request.thinking.visible = Some(true);
        let (body, _) = run(request, Some(Mode::Level(Level::Minimal)), &Card::default());
        assert!(body.ends_with(
            r#""thinking":{"type":"adaptive","display":"summarized"},"output_config":{"effort":"low","format":{"type":"json_schema","schema":{"type":"object"}}}}"#
        ), "{body}");
    }

    #[test]
    fn conversations_that_go_on_get_marks_and_single_questions_do_not() {
        let one = turns(vec![user(vec![text("q")])]);
        assert!(!run(one, None, &Card::default()).0.contains("cache_control"));
        let mut request = turns(vec![
            user(vec![text("q")]),
            model(vec![text("a")]),
            user(vec![text("r")]),
            model(vec![text("b")]),
            user(vec![text("s")]),
        ]);
        request.tools = vec![function("f")];
        request.system.push(Instruction { text: "sys".into(), developer: false, cache: None });
        let (body, _) = run(request, None, &Card::default());
        assert_eq!(body.matches("cache_control").count(), 4);
        for marked in [r#""sys","cache"#, r#""r","cache"#, r#""s","cache"#] {
            assert!(body.contains(marked), "{marked} {body}");
        }
    }
}
