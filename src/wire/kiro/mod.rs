//! Kiro (Amazon CodeWhisperer, Amazon Q): an upstream that no client speaks.
//!
//! Enters: the IR, and AWS event-stream messages. Leaves: the body of `GenerateAssistantResponse`, and IR
//! events. May go wrong: nothing on the way there; on the way back an exception of the service, a message
//! that is no JSON, and a stream that stops inside a call, all of which become a failure.
//!
//! The service always answers in events; a whole answer is what they add up to. There is no public
//! documentation: names and shapes are those of the client that AWS generates for its own command line
//! (`amzn-codewhisperer-streaming-client`), rules beyond shapes are what the service refuses.
//!
//! | file | what |
//! |---|---|
//! | `write_request.rs` | IR → body: the envelope, settings, model names |
//! | `conversation.rs` | turns → messages that alternate |
//! | `attachments.rs` | pictures and documents → what the service reads, or text |
//! | `prompt.rs` | what the service has no member for, said to the model |
//! | `write_tools.rs` | tools → specifications, stubs for tools of the history |
//! | `events.rs` | payloads of messages as they are on the wire |
//! | `read_stream.rs`, `blocks.rs`, `calls.rs` | messages → IR events |
//! | `thinking_tags.rs` | thinking inside of text |
//! | `error.rs` | exceptions → failures |

mod attachments;
mod blocks;
mod calls;
mod conversation;
mod error;
mod events;
mod prompt;
mod read_stream;
mod thinking_tags;
mod write_request;
mod write_tools;

use crate::error::WireError;
use crate::event_stream::{Kind, Message};
use crate::ir::lower::Rules;
use crate::ir::{Context, Losses, Part, ReadAnswer, Request, Restored, Tool, ToolKind};
use crate::json;
use crate::names::NameRule;
use crate::target::Target;
use std::borrow::Cow;

/// What [`crate::ir::lower`] has to make true: names and ids of the models behind the service (Bedrock).
pub const RULES: Rules = Rules {
    names: NameRule {
        name_max: 64,
        name_extra: b"_-",
        name_starts_with_letter: false,
        id_max: 64,
        id_plain: true,
    },
    custom_tools: false,
    namespaces: false,
};

/// Begins the name of an event that is none: an exception that ends the answer.
const EXCEPTION: &str = "exception:";

/// What clients call a tool that the service wants to have another name, and that name.
const WEB_SEARCH: (&str, &str) = ("web_search", "remote_web_search");

/// Names of tools as the service takes them.
#[derive(Clone, Copy, Debug)]
struct WireNames {
    /// Whether there is a tool to rename, and no other has the name.
    search: bool,
}

impl WireNames {
    /// The names of `request`'s tools.
    fn of(request: &Request<'_>) -> Self {
        let calls = request.turns.iter().flat_map(|turn| &turn.parts).filter_map(|part| match part {
            Part::ToolCall(call) => Some(call.name.as_ref()),
            _ => None,
        });
        let names = || request.tools.iter().filter_map(Tool::name).map(AsRef::as_ref).chain(calls.clone());
        Self { search: names().any(|n| n == WEB_SEARCH.0) && names().all(|n| n != WEB_SEARCH.1) }
    }

    /// The service's name of the tool `name`.
    fn get(self, name: &str) -> &str {
        if self.search && name == WEB_SEARCH.0 { WEB_SEARCH.1 } else { name }
    }

    /// Lets calls come back under the client's names.
    fn restore(self, context: &mut Context) {
        let (name, wire) = WEB_SEARCH;
        if self.search {
            let restored = context.names.get(name).cloned().unwrap_or_else(|| Restored {
                name: name.to_owned(),
                namespace: None,
                kind: ToolKind::Function,
                placeholder: None,
            });
            context.names.insert(wire.to_owned(), restored);
        }
    }
}

/// IR → upstream body.
pub fn write_request(
    request: &Request<'_>,
    target: &Target<'_>,
    context: &mut Context,
    losses: &mut Losses,
) -> Result<Vec<u8>, WireError> {
    Ok(write_request::write(request, target, context, losses))
}

/// Reads an answer. `context` says what its request asked for.
pub fn reader(context: &Context) -> Box<dyn ReadAnswer> {
    Box::new(read_stream::Reader::new(context))
}

/// A message as [`ReadAnswer::event`] takes it: its name and its JSON. An exception keeps its type in its
/// name; an error, which has no payload, gets one.
pub fn event<'m>(message: &Message<'m>) -> (Cow<'m, str>, Cow<'m, [u8]>) {
    let payload = Cow::Borrowed(message.payload);
    match message.kind {
        Kind::Event => (Cow::Borrowed(message.name), payload),
        Kind::Exception => (format!("{EXCEPTION}{}", message.name).into(), payload),
        Kind::Error => {
            let mut said = Vec::new();
            json::object(&mut said, |o| o.str("message", message.problem));
            let said = if message.payload.is_empty() { Cow::Owned(said) } else { payload };
            (format!("{EXCEPTION}{}", message.name).into(), said)
        }
    }
}
