//! Turns as the service takes them: a user begins, roles alternate, nobody says nothing, and a user is last.
//!
//! Enters: turns that [`crate::ir::lower`] paired. Leaves: the history and the current message. May go
//! wrong: nothing; what a message cannot hold becomes text or is recorded.

use super::attachments::{Attached, File, attached, note};
use crate::ir::{LossKind, Losses, Part, Request, Role, SearchResult, Source, ToolCall, ToolResult};
use crate::json::Path;
use std::borrow::Cow;
use std::collections::HashSet;

/// Opens a conversation that the model began.
const OPENING: &str = ".";
/// What a user says who says nothing: also behind a conversation that the model had the last word in.
const GO_ON: &str = "Continue";
/// What a user says who only brings results.
const RESULTS: &str = "Tool results provided.";
/// What a model says that only calls tools.
const ONLY_CALLS: &str = ".";
/// What a tool says that said nothing.
const NO_OUTPUT: &str = "(no output)";

/// Most documents of a message.
const MOST_DOCUMENTS: usize = 5;

/// What was said.
#[derive(Default)]
pub(super) struct Conversation<'r> {
    /// Before the current message; begins with a user and alternates.
    pub(super) history: Vec<Message<'r>>,
    /// What is to be answered.
    pub(super) current: User<'r>,
}

/// A message.
pub(super) enum Message<'r> {
    User(User<'r>),
    Assistant(Assistant<'r>),
}

/// What a user said.
#[derive(Default)]
pub(super) struct User<'r> {
    /// Paragraphs.
    pub(super) text: Vec<Cow<'r, str>>,
    pub(super) images: Vec<File<'r>>,
    /// With their names, which are unique in the conversation.
    pub(super) documents: Vec<(String, File<'r>)>,
    pub(super) results: Vec<Answered<'r>>,
}

/// What a tool answered.
pub(super) struct Answered<'r> {
    pub(super) id: &'r str,
    pub(super) text: Vec<Cow<'r, str>>,
    pub(super) is_error: bool,
}

/// What the model said.
#[derive(Default)]
pub(super) struct Assistant<'r> {
    /// Paragraphs.
    pub(super) text: Vec<Cow<'r, str>>,
    pub(super) calls: Vec<&'r ToolCall<'r>>,
}

/// Reads the turns of `request`.
pub(super) fn read<'r>(request: &'r Request<'_>, losses: &mut Losses) -> Conversation<'r> {
    let (mut messages, mut names) = (Vec::new(), HashSet::new());
    let root = Path::Root;
    let all = root.key("turns");
    for (n, turn) in request.turns.iter().enumerate() {
        let path = all.index(n);
        if turn.name.is_some() {
            losses.at(LossKind::Setting, &path.key("name"));
        }
        if turn.role == Role::Assistant {
            let mut said = Assistant::default();
            turn.parts.iter().for_each(|part| said.take(part, &path, losses));
            said.join(&mut messages);
        } else {
            let reminder = turn.role != Role::User;
            let mut said = User::default();
            turn.parts.iter().for_each(|part| said.take(part, reminder, &path, &mut names, losses));
            said.join(&mut messages);
        }
    }
    arrange(messages)
}

/// Gives the conversation a user at both ends, and everybody something to say.
fn arrange(mut messages: Vec<Message<'_>>) -> Conversation<'_> {
    let current = match messages.pop() {
        Some(Message::User(user)) => user,
        Some(last @ Message::Assistant(_)) => {
            messages.push(last);
            User::default()
        }
        None => User::default(),
    };
    if matches!(messages.first(), Some(Message::Assistant(_))) {
        let text = vec![Cow::Borrowed(OPENING)];
        messages.insert(0, Message::User(User { text, ..User::default() }));
    }
    let mut conversation = Conversation { history: messages, current };
    conversation.current.fill();
    for message in &mut conversation.history {
        match message {
            Message::User(user) => user.fill(),
            Message::Assistant(said) if said.text.is_empty() => said.text.push(Cow::Borrowed(ONLY_CALLS)),
            Message::Assistant(_) => {}
        }
    }
    conversation
}

impl<'r> Conversation<'r> {
    /// The first message, which is a user's.
    pub(super) fn first(&mut self) -> &mut User<'r> {
        match self.history.first_mut() {
            Some(Message::User(user)) => user,
            _ => &mut self.current,
        }
    }

    /// All calls of the history.
    pub(super) fn calls(&self) -> impl Iterator<Item = &'r ToolCall<'r>> {
        self.history
            .iter()
            .flat_map(|message| match message {
                Message::Assistant(said) => said.calls.as_slice(),
                Message::User(_) => &[],
            })
            .copied()
    }
}

impl<'r> Assistant<'r> {
    fn take(&mut self, part: &'r Part<'_>, path: &Path<'_>, losses: &mut Losses) {
        match part {
            Part::Text(text) => {
                if text.signature.is_some() {
                    losses.at(LossKind::Signature, path);
                }
                push(&mut self.text, &text.text);
            }
            Part::Refusal(text) => push(&mut self.text, text),
            Part::SearchResult(result) => self.text.push(found(result)),
            Part::ToolCall(call) => {
                if call.signature.is_some() {
                    losses.at(LossKind::Signature, path);
                }
                self.calls.push(call);
            }
            Part::Image(_) | Part::Audio(_) | Part::Document(_) => {
                if let Some(Attached::Text(text)) = attached(part, false, path, losses) {
                    self.text.push(text);
                }
            }
            // The service has no place for thinking of earlier turns.
            Part::Reasoning(_) => losses.at(LossKind::Signature, path),
            Part::Server(_) => losses.at(LossKind::Builtin, path),
            // Pairing has put every result into a turn of the user.
            Part::ToolResult(_) => losses.at(LossKind::ToolPairing, path),
        }
    }

    fn join(mut self, messages: &mut Vec<Message<'r>>) {
        if self.text.is_empty() && self.calls.is_empty() {
            return;
        }
        match messages.last_mut() {
            Some(Message::Assistant(last)) => {
                last.text.append(&mut self.text);
                last.calls.append(&mut self.calls);
            }
            _ => messages.push(Message::Assistant(self)),
        }
    }
}

impl<'r> User<'r> {
    fn take(
        &mut self,
        part: &'r Part<'_>,
        reminder: bool,
        path: &Path<'_>,
        names: &mut HashSet<String>,
        losses: &mut Losses,
    ) {
        match part {
            Part::Text(text) if reminder => {
                self.text.push(format!("<system-reminder>\n{}\n</system-reminder>", text.text).into());
            }
            Part::Text(text) => push(&mut self.text, &text.text),
            Part::Refusal(text) => push(&mut self.text, text),
            Part::SearchResult(result) => self.text.push(found(result)),
            Part::ToolResult(result) => self.answer(result, path, names, losses),
            Part::Image(_) | Part::Audio(_) | Part::Document(_) => {
                if let Some(text) = self.attach(part, path, names, losses) {
                    self.text.push(text);
                }
            }
            Part::Reasoning(_) => losses.at(LossKind::Signature, path),
            Part::Server(_) => losses.at(LossKind::Builtin, path),
            // Only models call.
            Part::ToolCall(_) => losses.at(LossKind::ToolPairing, path),
        }
    }

    /// Adds a result. Its attachments stand beside it: results hold text.
    fn answer(
        &mut self,
        result: &'r ToolResult<'_>,
        path: &Path<'_>,
        names: &mut HashSet<String>,
        losses: &mut Losses,
    ) {
        let mut said = Vec::new();
        for part in &result.parts {
            match part {
                Part::Text(text) => push(&mut said, &text.text),
                Part::SearchResult(result) => said.push(found(result)),
                part => said.extend(self.attach(part, path, names, losses)),
            }
        }
        if said.is_empty() {
            said.push(Cow::Borrowed(NO_OUTPUT));
        }
        self.results.push(Answered { id: &result.call_id, text: said, is_error: result.is_error });
    }

    /// Adds an attachment; gives what has to be said in its place.
    fn attach(
        &mut self,
        part: &'r Part<'_>,
        path: &Path<'_>,
        names: &mut HashSet<String>,
        losses: &mut Losses,
    ) -> Option<Cow<'r, str>> {
        match attached(part, true, path, losses)? {
            Attached::Picture(file) => self.images.push(file),
            Attached::Document(file, name) if self.documents.len() < MOST_DOCUMENTS => {
                self.documents.push((unique(name, names), file));
            }
            Attached::Document(file, name) => {
                let source = Source::Inline { mime: file.format.into(), data: "".into() };
                if let Attached::Text(text) = note("document", &source, Some(name), path, losses) {
                    return Some(text);
                }
            }
            Attached::Text(text) => return Some(text),
        }
        None
    }

    fn join(mut self, messages: &mut Vec<Message<'r>>) {
        if self.text.is_empty()
            && self.images.is_empty()
            && self.documents.is_empty()
            && self.results.is_empty()
        {
            return;
        }
        match messages.last_mut() {
            Some(Message::User(last)) => {
                last.text.append(&mut self.text);
                last.images.append(&mut self.images);
                last.documents.append(&mut self.documents);
                last.results.append(&mut self.results);
            }
            _ => messages.push(Message::User(self)),
        }
    }

    /// Gives a user who says nothing something to say.
    fn fill(&mut self) {
        if self.text.is_empty() {
            self.text.push(Cow::Borrowed(if self.results.is_empty() { GO_ON } else { RESULTS }));
        }
    }
}

fn push<'r>(text: &mut Vec<Cow<'r, str>>, more: &'r str) {
    if !more.trim().is_empty() {
        text.push(Cow::Borrowed(more));
    }
}

/// A passage with where it was found.
fn found(result: &SearchResult<'_>) -> Cow<'static, str> {
    format!("[{}: {}]\n{}", result.title, result.source, result.text.join("\n")).into()
}

/// A name as the service takes it: no extension, few characters, once in the conversation.
fn unique(name: &str, names: &mut HashSet<String>) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "()[]".contains(c) { c } else { '-' };
    let stem: String = stem.chars().map(plain).take(180).collect();
    let stem = if stem.is_empty() { "document".to_owned() } else { stem };
    let numbered = (2_usize..).map(|n| format!("{stem}-{n}"));
    let free = std::iter::once(stem.clone()).chain(numbered).find(|name| !names.contains(name));
    let name = free.unwrap_or(stem);
    names.insert(name.clone());
    name
}
