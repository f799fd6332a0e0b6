//! What a format cannot say, and what stands for it instead. Everything else has to arrive.

use crate::meaning::{Ask, Block, Part, Said};
use serde_json::Value;
use wire::Protocol;

const CHAT: Protocol = Protocol::OpenaiChat;
const RESPONSES: Protocol = Protocol::OpenaiResponses;
const CLAUDE: Protocol = Protocol::Claude;
const GEMINI: Protocol = Protocol::Gemini;

/// What an upstream has to be asked for what a client meant, and whether a loss has to be recorded.
pub(crate) fn asked(client: Protocol, upstream: Protocol, ask: Ask) -> (Ask, bool) {
    let ask = spoken(client, ask);
    if client == upstream { (ask, false) } else { rewritten(upstream, ask) }
}

/// What a body for `upstream` says when it is written anew, and not patched, and whether something is lost.
pub(crate) fn rewritten(upstream: Protocol, mut ask: Ask) -> (Ask, bool) {
    let mut lost = false;
    if upstream == RESPONSES && !ask.stop.is_empty() {
        ask.stop.clear();
        lost = true;
    }
    if upstream == CLAUDE {
        // The API insists on a limit.
        ask.max_tokens.get_or_insert(32_000);
    }
    for turn in &mut ask.turns {
        turn.parts.retain_mut(|part| {
            let (kept, less) = heard(upstream, part);
            lost |= less;
            kept
        });
    }
    (ask, lost)
}

/// What a client's own format can say.
pub(crate) fn spoken(client: Protocol, mut ask: Ask) -> Ask {
    if client == RESPONSES {
        ask.stop.clear();
    }
    if client == CLAUDE {
        ask.max_tokens.get_or_insert(32_000);
    }
    for part in ask.turns.iter_mut().flat_map(|turn| &mut turn.parts) {
        match part {
            Part::Refusal(text) if matches!(client, CLAUDE | GEMINI) => *part = Part::Text(text.clone()),
            Part::Document { name, .. } if client == GEMINI => *name = None,
            _ => {}
        }
    }
    ask
}

/// Makes of a part what an upstream can hear: whether it is kept, and whether it lost something.
fn heard(upstream: Protocol, part: &mut Part) -> (bool, bool) {
    match part {
        // Servers that only know the old members of Chat refuse `refusal`; the words stay.
        Part::Refusal(text) if upstream != RESPONSES => {
            *part = Part::Text(text.clone());
            (true, false)
        }
        Part::Document { name, .. } if upstream == GEMINI => (true, name.take().is_some()),
        // Both insist on a file name.
        Part::Document { name, .. } if matches!(upstream, CHAT | RESPONSES) => {
            name.get_or_insert_with(|| "document.pdf".to_owned());
            (true, false)
        }
        // A result is an object here: text that is one goes as such, without the blanks around it.
        Part::Result { text, .. } if upstream == GEMINI => {
            if let Ok(value @ Value::Object(_)) = serde_json::from_str::<Value>(text) {
                *text = value.to_string();
            }
            (true, false)
        }
        Part::Thought { signature, .. } if upstream == CHAT => (true, signature.take().is_some()),
        // The vendor refuses thinking that it has not signed.
        Part::Thought { signature: None, .. } => (false, true),
        _ => (true, false),
    }
}

/// What a client has to be told of what an upstream said.
pub(crate) fn told(client: Protocol, upstream: Protocol, mut said: Said) -> Said {
    if client == upstream {
        return said;
    }
    for block in &mut said.blocks {
        match block {
            // Official Chat has no thinking; `reasoning_content`, which clients know, has no signature.
            Block::Thought { signature, .. } if client == CHAT => *signature = None,
            // A model of this vendor draws no pictures.
            Block::Image { mime, .. } if client == CLAUDE => *block = plain(format!("[image: {mime}]")),
            Block::Refusal(text) if matches!(client, CLAUDE | GEMINI) => *block = plain(text.clone()),
            _ => {}
        }
    }
    said
}

fn plain(text: String) -> Block {
    Block::Text { text, urls: Vec::new() }
}
