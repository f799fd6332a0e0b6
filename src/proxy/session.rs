//! Which conversation a request belongs to, so that it is served where its prompt is cached.
//!
//! Enters: the client's headers and body, a scope that no other client key has. Leaves: [`Conversation`].
//! Nothing may go wrong: a request that says nothing is told by its first words, and one without words has no
//! conversation. Order of the sources: `reference/cliproxyapi.md` 5.3; but `X-Client-Request-Id` counts only
//! where a Codex client sends it (with `originator`), for others give each request its own.

use super::parse::Parsed;
use http::HeaderMap;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use wire::Protocol;
use wire::json::{self, Json};
use wire::target::Operation;

/// Longest id that a client may give.
const LONGEST_ID: usize = 256;
/// Longest `metadata` that is looked into.
const LONGEST_METADATA: usize = 16 << 10;
/// How much of the instructions counts: what follows often holds the time of day.
const INSTRUCTIONS: usize = 200;
/// How much of the first question counts.
const QUESTION: usize = 4096;
/// Longest content that is looked into.
const CONTENT: usize = 1 << 20;

/// A conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conversation {
    /// Its name, of this client key only.
    pub id: u64,
    /// It has no answer yet and is told by its words: others may begin with the same.
    pub begins: bool,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'o> {
    /// The client's headers.
    pub headers: &'o HeaderMap,
    /// What no other client key has.
    pub scope: u64,
    /// The WebSocket on which it came.
    pub socket: Option<&'o str>,
    /// Sub-agents belong to the conversation of who sent them.
    pub subagents: bool,
}

/// The conversation of a request.
pub(super) fn conversation(parsed: &Parsed, origin: &Origin<'_>) -> Option<Conversation> {
    let spoken =
        matches!(parsed.call.operation, Operation::Generate | Operation::Completion | Operation::Compact);
    if !spoken || parsed.head.boundary.is_some() {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    origin.scope.hash(&mut hasher);
    if let Some(id) = given(parsed, origin) {
        ("given", &*id).hash(&mut hasher);
        if let Some(agent) = agent(origin.headers).filter(|_| !origin.subagents) {
            agent.hash(&mut hasher);
        }
        return Some(Conversation { id: hasher.finish(), begins: false });
    }
    let begins = words(parsed, &mut hasher)?;
    Some(Conversation { id: hasher.finish(), begins })
}

/// The id that the client gave.
fn given<'p>(parsed: &'p Parsed, origin: &Origin<'p>) -> Option<Cow<'p, str>> {
    let header = |name: &str| legal(Cow::Borrowed(origin.headers.get(name)?.to_str().ok()?));
    let text = |name: &str| legal(string(member(parsed, name)?)?);
    let user = || user_id(member(parsed, "metadata")?);
    let conversation = || {
        let value = member(parsed, "conversation").filter(|value| value.len() <= LONGEST_METADATA)?;
        match json::parse_any(value).ok()? {
            Json::Str(id) => legal(id),
            whole => legal(Cow::Owned(whole.get("id")?.as_str()?.to_owned())),
        }
    };
    header("x-claude-code-session-id")
        .or_else(|| user().and_then(|user| session_of(&user)))
        .or_else(|| header("session-id"))
        .or_else(|| header("session_id"))
        .or_else(|| header("x-session-id"))
        .or_else(|| header("x-session-affinity"))
        .or_else(|| header("x-client-request-id").filter(|_| origin.headers.contains_key("originator")))
        .or_else(|| text("session_id"))
        .or_else(|| text("sessionId"))
        .or_else(|| text("prompt_cache_key"))
        .or_else(conversation)
        .or_else(|| user().and_then(legal))
        .or_else(|| text("conversation_id"))
        .or_else(|| origin.socket.map(Cow::Borrowed))
}

/// Which agent of a conversation asks: a sub-agent of Claude Code or Codex; `None`: the one whom the user
/// talks to.
fn agent(headers: &HeaderMap) -> Option<&[u8]> {
    let value = |name: &str| headers.get(name).map(http::HeaderValue::as_bytes).filter(|v| !v.is_empty());
    let codex = || value("x-codex-parent-thread-id").or_else(|| value("x-openai-subagent"));
    value("x-claude-code-agent-id").or_else(|| value("thread-id").filter(|_| codex().is_some()))
}

/// The value of a member of the body.
fn member<'p>(parsed: &'p Parsed, name: &str) -> Option<&'p [u8]> {
    let is = |key: &std::ops::Range<usize>| parsed.body.get(key.clone()) == Some(name.as_bytes());
    let place = parsed.head.members.iter().find(|place| is(&place.key))?;
    parsed.body.get(place.value.clone())
}

fn string(value: &[u8]) -> Option<Cow<'_, str>> {
    // Escapes make it longer.
    let short = value.first() == Some(&b'"') && value.len() <= 6 * LONGEST_ID + 2;
    if short { json::parse_any(value).ok()?.into_str() } else { None }
}

/// What the client says of its user: an id, or JSON in a string.
fn user_id(metadata: &[u8]) -> Option<Cow<'_, str>> {
    let short = metadata.len() <= LONGEST_METADATA;
    let metadata = short.then(|| json::parse_any(metadata).ok()).flatten()?;
    Some(Cow::Owned(metadata.get("user_id")?.as_str()?.to_owned()))
}

/// The session in what Claude Code says of its user: a member of JSON, or the tail of an older form.
fn session_of(user: &str) -> Option<Cow<'static, str>> {
    if user.trim_start().starts_with('{') {
        let parsed = json::parse_any(user.as_bytes()).ok()?;
        return legal(Cow::Owned(parsed.get("session_id")?.as_str()?.to_owned()));
    }
    let (_, session) = user.rsplit_once("_session_")?;
    legal(Cow::Owned(session.to_owned()))
}

fn legal(id: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let fits = !id.trim().is_empty() && id.len() <= LONGEST_ID && !id.chars().any(char::is_control);
    fits.then_some(id)
}

/// Takes in the first words of the instructions and the first question, and says whether there is no answer
/// yet. `None`: there is no question.
fn words(parsed: &Parsed, hasher: &mut DefaultHasher) -> Option<bool> {
    let (instructions, turns) = match parsed.call.client {
        Protocol::OpenaiChat => (None, member(parsed, "messages").or_else(|| member(parsed, "prompt"))),
        Protocol::Claude => (member(parsed, "system"), member(parsed, "messages")),
        Protocol::OpenaiResponses => (member(parsed, "instructions"), member(parsed, "input")),
        Protocol::Gemini => {
            let system = member(parsed, "systemInstruction").or_else(|| member(parsed, "system_instruction"));
            (system, member(parsed, "contents"))
        }
    };
    ("words", parsed.call.client.name()).hash(hasher);
    if let Some(instructions) = instructions {
        take(instructions, INSTRUCTIONS, hasher);
    }
    let turns = turns?;
    if turns.first() != Some(&b'[') {
        take(turns, QUESTION, hasher).then_some(())?;
        return Some(true);
    }
    let mut opening = Opening { hasher, asked: false, answered: false };
    // It stops with an error as soon as it knows enough.
    let _ = opening.deserialize(&mut serde_json::Deserializer::from_slice(turns));
    opening.asked.then_some(!opening.answered)
}

/// Takes in the text of a content: a string, or parts with texts. False: there is none.
fn take(content: &[u8], most: usize, hasher: &mut DefaultHasher) -> bool {
    let parsed = (content.len() <= CONTENT).then(|| json::parse_any(content).ok()).flatten();
    let Some(content) = parsed else { return false };
    let mut left = most;
    let mut push = |text: &str| {
        let part: String = text.chars().take(left).collect();
        left -= part.chars().count();
        part.hash(hasher);
    };
    let parts = content.get("parts").unwrap_or(&content);
    if let Some(text) = parts.as_str().or_else(|| parts.get("text")?.as_str()) {
        push(text);
        return true;
    }
    let texts = parts.as_array().unwrap_or_default().iter();
    texts.filter_map(|part| part.as_str().or_else(|| part.get("text")?.as_str())).map(&mut push).count() > 0
}

/// A turn of any format.
#[derive(Deserialize)]
struct Turn<'t> {
    #[serde(borrow, default)]
    role: Option<Cow<'t, str>>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'t, str>>,
    #[serde(borrow, default)]
    content: Option<&'t RawValue>,
    #[serde(borrow, default)]
    parts: Option<&'t RawValue>,
}

/// Reads turns up to the first question and the first answer.
struct Opening<'h> {
    hasher: &'h mut DefaultHasher,
    asked: bool,
    answered: bool,
}

impl Opening<'_> {
    fn read(&mut self, turn: &Turn<'_>) {
        let content = turn.content.or(turn.parts).map_or(&b""[..], |raw| raw.get().as_bytes());
        match turn.role.as_deref() {
            Some("system" | "developer") if !self.asked => {
                take(content, INSTRUCTIONS, self.hasher);
            }
            Some("system" | "developer") => {}
            // Gemini's turns need no role.
            Some("user") | None if turn.kind.as_deref().is_none_or(|kind| kind == "message") => {
                self.asked |= !self.asked && take(content, QUESTION, self.hasher);
            }
            _ => self.answered = true,
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Opening<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut Opening<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("turns")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut turns: A) -> Result<(), A::Error> {
        while !(self.asked && self.answered) {
            match turns.next_element::<Turn<'de>>()? {
                Some(turn) => self.read(&turn),
                None => return Ok(()),
            }
        }
        Err(A::Error::custom("enough is known"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::endpoint::Call;
    use crate::proxy::parse::of_body;
    use http::{HeaderName, HeaderValue};
    use wire::frames::Framing;

    fn parsed(client: Protocol, body: &str) -> Parsed {
        let (model, framing) = (Some("m".to_owned()), Framing::Sse);
        let call = Call { client, operation: Operation::Generate, model, stream: None, framing };
        let text = body.replacen('{', "{\"model\":\"m\",", 1);
        of_body(call, text.into_bytes().into(), None).unwrap_or_else(|_| panic!("{body}"))
    }

    fn of(headers: &[(&'static str, &'static str)], client: Protocol, body: &str) -> Option<Conversation> {
        scoped(headers, client, body, 1, true)
    }

    fn scoped(
        headers: &[(&'static str, &'static str)],
        client: Protocol,
        body: &str,
        scope: u64,
        subagents: bool,
    ) -> Option<Conversation> {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers = headers.iter().map(pair).collect();
        let origin = Origin { headers: &headers, scope, socket: None, subagents };
        conversation(&parsed(client, body), &origin)
    }

    const HI: &str = r#"{"messages":[{"role":"user","content":"hi"}]}"#;

    #[test]
    fn every_place_of_an_id_counts() {
        let bare = of(&[], Protocol::Claude, HI);
        for headers in [
            &[("x-claude-code-session-id", "s")][..],
            &[("session-id", "s")],
            &[("session_id", "s")],
            &[("x-session-id", "s")],
            &[("x-session-affinity", "s")],
            &[("x-client-request-id", "s"), ("originator", "codex_cli_rs")],
        ] {
            let found = of(headers, Protocol::Claude, HI);
            assert_ne!(found, bare, "{headers:?}");
            assert_eq!(found, of(&[("session-id", "s")], Protocol::OpenaiChat, r#"{"messages":[]}"#));
        }
        for body in [
            r#"{"session_id":"s"}"#,
            r#"{"sessionId":"s"}"#,
            r#"{"prompt_cache_key":"s"}"#,
            r#"{"conversation":"s"}"#,
            r#"{"conversation":{"id":"s"}}"#,
            r#"{"conversation_id":"s"}"#,
            r#"{"metadata":{"user_id":"s"}}"#,
            r#"{"metadata":{"user_id":"user_1_account__session_s"}}"#,
            r#"{"metadata":{"user_id":"{\"device_id\":\"d\",\"session_id\":\"s\"}"}}"#,
        ] {
            let found = of(&[], Protocol::OpenaiResponses, body);
            assert_eq!(found, of(&[("session-id", "s")], Protocol::Claude, HI), "{body}");
        }
        assert_eq!(of(&[("x-client-request-id", "one")], Protocol::Claude, HI), bare);
    }

    #[test]
    fn strange_ids_are_none() {
        let bare = of(&[], Protocol::Claude, HI);
        let long = "x".repeat(257);
        for id in ["", "  ", "a\\u0007b", &long] {
            let body = format!(r#"{{"session_id":"{id}","messages":[{{"role":"user","content":"hi"}}]}}"#);
            assert_eq!(of(&[], Protocol::Claude, &body), bare, "{id}");
        }
        let deep =
            r#"{"metadata":7,"conversation":[],"session_id":{},"messages":[{"role":"user","content":"hi"}]}"#;
        assert_eq!(of(&[], Protocol::Claude, deep), bare);
    }

    #[test]
    fn two_keys_never_share_a_session() {
        for headers in [&[("session-id", "s")][..], &[]] {
            let [one, two] = [1, 2].map(|scope| scoped(headers, Protocol::Claude, HI, scope, true).unwrap());
            assert_ne!(one.id, two.id);
        }
    }

    #[test]
    fn sub_agents_go_along_unless_they_shall_not() {
        const MAIN: (&str, &str) = ("x-claude-code-session-id", "s");
        const AGENT: [(&str, &str); 2] = [MAIN, ("x-claude-code-agent-id", "a")];
        const THREAD: [(&str, &str); 3] =
            [("session-id", "s"), ("thread-id", "t"), ("x-codex-parent-thread-id", "p")];
        for agent in [&AGENT[..], &THREAD] {
            let ask = |headers, subagents| scoped(headers, Protocol::Claude, HI, 1, subagents);
            assert_eq!(ask(agent, true), ask(&[MAIN], true));
            assert_ne!(ask(agent, false), ask(&[MAIN], false));
        }
        let own = [("session-id", "s"), ("thread-id", "t")];
        assert_eq!(
            scoped(&own, Protocol::Claude, HI, 1, false),
            scoped(&[MAIN], Protocol::Claude, HI, 1, false)
        );
    }

    #[test]
    fn a_conversation_without_an_id_is_told_by_its_first_words() {
        for (client, first, later, other) in [
            (
                Protocol::OpenaiChat,
                r#"{"messages":[{"role":"system","content":"S"},{"role":"user","content":"hi"}]}"#,
                r#"{"messages":[{"role":"system","content":"S"},{"role":"user","content":[{"type":"text","text":"hi"}]},{"role":"assistant","content":"yes"},{"role":"user","content":"more"}]}"#,
                r#"{"messages":[{"role":"system","content":"S"},{"role":"user","content":"ho"}]}"#,
            ),
            (
                Protocol::Claude,
                r#"{"system":"S","messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]}]}"#,
                r#"{"system":[{"type":"text","text":"S"}],"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"yes"},{"role":"user","content":"x"}]}"#,
                r#"{"system":"T","messages":[{"role":"user","content":"hi"}]}"#,
            ),
            (
                Protocol::OpenaiResponses,
                r#"{"instructions":"S","input":"hi"}"#,
                r#"{"instructions":"S","input":[{"role":"user","content":"hi"},{"type":"function_call","name":"f"}]}"#,
                r#"{"instructions":"S","input":"ho"}"#,
            ),
            (
                Protocol::Gemini,
                r#"{"systemInstruction":{"parts":[{"text":"S"}]},"contents":[{"parts":[{"text":"hi"}]}]}"#,
                r#"{"systemInstruction":{"parts":[{"text":"S"}]},"contents":[{"role":"user","parts":[{"text":"hi"}]},{"role":"model","parts":[{"text":"yes"}]}]}"#,
                r#"{"systemInstruction":{"parts":[{"text":"T"}]},"contents":[{"parts":[{"text":"hi"}]}]}"#,
            ),
        ] {
            let [first, later, other] = [first, later, other].map(|body| of(&[], client, body).unwrap());
            assert_eq!((first.begins, later.begins), (true, false), "{client:?}");
            assert_eq!(first.id, later.id, "{client:?}");
            assert_ne!(first.id, other.id, "{client:?}");
        }
        for silent in
            [r#"{"messages":[]}"#, r#"{"messages":[{"role":"user","content":[{"type":"image"}]}]}"#, "{}"]
        {
            assert_eq!(of(&[], Protocol::Claude, &silent.replace("{}", r#"{"x":1}"#)), None, "{silent}");
        }
    }

    #[test]
    fn no_turn_panics() {
        for turn in [
            "7",
            "[]",
            "null",
            "{}",
            r#"{"role":7}"#,
            r#"{"role":"user","content":{"parts":{}}}"#,
            r#""\ud83d\ude00""#,
        ] {
            let user = r#"{"role":"user","content":"hi"}"#;
            for turns in
                [turn.to_owned(), format!("[{turn}]"), format!("[{turn},{user}]"), format!("[{user},{turn}]")]
            {
                let body = format!(
                    r#"{{"system":{turn},"metadata":{turn},"conversation":{turn},"messages":[{turns}]}}"#
                );
                let _ = of(&[], Protocol::Claude, &body);
            }
        }
    }
}
