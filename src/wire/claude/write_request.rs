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
use crate::ir::{CacheMark, LossKind, Losses, Part, Request, Role};
use crate::json::{self, Path};
use crate::target::Target;
use crate::thinking::Support;
use std::borrow::Cow;

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
    settings::note_lost(request, losses);
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
