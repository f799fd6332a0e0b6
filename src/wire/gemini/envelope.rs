//! The envelopes of Google's Code Assist backends: `{project, model, request}` around a request and
//! `{response}` around an answer.
//!
//! Enters: bodies in or out of an envelope. Leaves: the other. Both sides may speak it: the upstreams
//! Antigravity and Gemini CLI, and the CLI as a client of ours. May go wrong: nothing; what is no envelope
//! stays as it is.
//!
//! | | Gemini CLI | Antigravity |
//! |---|---|---|
//! | beside `project`, `model`, `request` | – | `userAgent`, `requestType`, `requestId` |
//! | in `request` | – | `sessionId`; no `safetySettings`, `maxOutputTokens` only for Claude |

use super::flavour::Flavour;
use crate::ir::Context;
use crate::json::{self, Json};
use crate::names::{fingerprint, uuid};
use crate::patch::members;
use crate::target::{Profile, Target};
use std::borrow::Cow;
use std::ops::Range;

/// Where the request stands in a body `{model, project, request}`; `None` when the body is no envelope.
pub fn unwrap_client_envelope(body: &[u8]) -> Option<Range<usize>> {
    let mut request = None;
    for member in members(body, 0) {
        match member.key {
            b"contents" => return None,
            b"request" if body.get(member.value.start) == Some(&b'{') => request = Some(member.value),
            _ => {}
        }
    }
    request
}

/// The model that an envelope names: the URL of `/v1internal:generateContent` does not.
pub fn client_model(body: &[u8]) -> Option<String> {
    unwrap_client_envelope(body)?;
    let member = members(body, 0).find(|member| member.key == b"model")?;
    let value = json::parse_any(body.get(member.value)?).ok()?;
    value.as_str().map(str::to_owned).filter(|model| !model.is_empty())
}

/// What happens to an answer between an upstream and a client that both speak this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrap {
    /// Both have the envelope, or neither.
    Keep,
    /// The upstream has it, the client does not.
    Unwrap,
    /// The client has it, the upstream does not.
    Wrap,
}

impl Rewrap {
    /// Between an upstream of `profile` and the client of `context`.
    pub fn between(profile: Profile, context: &Context) -> Self {
        match (matches!(profile, Profile::Antigravity | Profile::GeminiCli), context.envelope) {
            (true, false) => Self::Unwrap,
            (false, true) => Self::Wrap,
            _ => Self::Keep,
        }
    }

    /// An answer, or a chunk of one, as the client takes it. Errors have no envelope.
    pub fn apply(self, answer: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Keep => Cow::Borrowed(answer),
            Self::Unwrap => Cow::Borrowed(unwrap_answer(answer)),
            Self::Wrap if members(answer, 0).any(|member| member.key == b"error") => Cow::Borrowed(answer),
            Self::Wrap => Cow::Owned([b"{\"response\":", answer, b"}"].concat()),
        }
    }
}

/// The answer inside `{response, traceId}`; the same bytes when there is no envelope.
fn unwrap_answer(answer: &[u8]) -> &[u8] {
    let response = members(answer, 0).find(|member| member.key == b"response");
    let object = response.filter(|member| answer.get(member.value.start) == Some(&b'{'));
    object.and_then(|member| answer.get(member.value)).unwrap_or(answer)
}

/// Writes the envelope around what `request` appends. `seed` is 32 hex digits.
pub(super) fn wrap(
    out: &mut Vec<u8>,
    flavour: Flavour,
    target: &Target<'_>,
    seed: &str,
    request: impl FnOnce(&mut Vec<u8>),
) {
    json::object(out, |o| {
        o.str("project", target.project);
        o.str("model", target.model);
        if flavour.profile == Profile::Antigravity {
            o.str("userAgent", "antigravity");
            o.str("requestType", if Flavour::draws(target.model) { "image_gen" } else { "agent" });
            o.str("requestId", &request_id(seed));
        }
        request(o.key("request"));
    });
}

/// `agent-` and the seed in the form of a UUID.
fn request_id(seed: &str) -> String {
    format!("agent-{}", uuid(seed))
}

/// A number that stays the same over a conversation, whose first text does: the backend binds its caches to
/// it.
pub(super) fn session_id(first_text: &str) -> String {
    let hash = u64::from_str_radix(&fingerprint(first_text.as_bytes()), 16).unwrap_or_default();
    format!("-{}", hash >> 1)
}

/// Writes `{"response":…}` around what `answer` appends when the client speaks the envelope.
pub(super) fn wrap_answer(out: &mut Vec<u8>, context: &Context, answer: impl FnOnce(&mut Vec<u8>)) {
    if context.envelope {
        json::object(out, |o| answer(o.key("response")));
    } else {
        answer(out);
    }
}

/// The object under `key` or the value itself: count requests and answers may be wrapped.
pub(super) fn inner<'v, 'a>(value: &'v Json<'a>, key: &str) -> &'v Json<'a> {
    value.get(key).filter(|inner| inner.is_object()).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use crate::frames::Framing;
    use crate::target::Card;
    use crate::translate::{Flow, Job, Reply, prepare};

    #[test]
    fn client_envelopes_are_told_from_requests() {
        let body = br#"{"model":"gemini-2.5-pro","project":"p","request" : {"contents":[]}}"#;
        let span = unwrap_client_envelope(body).unwrap();
        assert_eq!(&body[span], br#"{"contents":[]}"#);
        assert_eq!(client_model(body).as_deref(), Some("gemini-2.5-pro"));
        assert_eq!(unwrap_client_envelope(br#"{"request":{},"contents":[]}"#), None);
        assert_eq!(unwrap_client_envelope(br#"{"request":"x"}"#), None);
        assert_eq!(unwrap_client_envelope(b"[1,2"), None);
    }

    #[test]
    fn answers_are_rewrapped() {
        let unwrapped = Rewrap::Unwrap.apply(br#"{"traceId":"t","response":{"candidates":[]}}"#);
        assert_eq!(unwrapped.as_ref(), br#"{"candidates":[]}"#);
        assert_eq!(Rewrap::Unwrap.apply(br#"{"error":{}}"#).as_ref(), br#"{"error":{}}"#);
        assert_eq!(Rewrap::Wrap.apply(b"{}").as_ref(), br#"{"response":{}}"#);
        assert_eq!(Rewrap::Wrap.apply(br#"{"error":{}}"#).as_ref(), br#"{"error":{}}"#);
    }

    #[test]
    fn ids_have_the_form_of_the_vendor() {
        assert_eq!(
            request_id("0123456789abcdef0123456789abcdef"),
            "agent-01234567-89ab-cdef-0123-456789abcdef"
        );
        assert_eq!(session_id("hello"), session_id("hello"));
        assert_ne!(session_id("hello"), session_id("hallo"));
        assert!(session_id("x").bytes().skip(1).all(|b| b.is_ascii_digit()));
        assert!(!request_id("short é").is_empty());
    }

    /// What a client of this format gets, for a request and an upstream's answer: chunks or a body.
    fn exchange(profile: Profile, framing: Framing, stream: bool, request: &str, answer: &str) -> String {
        let head = crate::head::parse(request.as_bytes(), Protocol::Gemini).unwrap();
        let card = Card::default();
        let job = Job {
            client: Protocol::Gemini,
            operation: crate::target::Operation::Generate,
            body: request.as_bytes(),
            head: &head,
            stream,
            framing,
            profile,
            model: "gemini-3-flash",
            card: &card,
            suffix: None,
            strict: false,
            shown_model: Some("alias"),
            created: 0,
            seed: "seed",
            project: "p",
            image_base: "",
        };
        let mut reply = Reply::new(&prepare(&job).unwrap().plan);
        if stream {
            reply.feed(answer.as_bytes());
            assert_eq!(reply.eof(), Flow::Done);
        } else {
            assert_eq!(reply.whole(answer.as_bytes()), Flow::Done);
        }
        String::from_utf8(reply.take()).unwrap()
    }

    #[test]
    fn the_client_gets_the_envelope_it_speaks() {
        let bare = r#"{"contents":[{"parts":[{"text":"q"}]}]}"#;
        let cli = format!(r#"{{"model":"m","request":{bare}}}"#);
        let answer =
            |model: &str| format!(r#"{{"candidates":[{{"finishReason":"STOP"}}],"modelVersion":"{model}"}}"#);
        let wrapped = |model: &str| format!(r#"{{"response":{}}}"#, answer(model));
        for (profile, request, from, to) in [
            (Profile::Gemini, bare, answer("m"), answer("alias")),
            (Profile::Antigravity, bare, wrapped("m"), answer("alias")),
            (Profile::Gemini, &cli, answer("m"), wrapped("alias")),
            (Profile::GeminiCli, &cli, wrapped("m"), wrapped("alias")),
        ] {
            assert_eq!(exchange(profile, Framing::Sse, false, request, &from), to);
            let events = format!("data: {from}\n\n");
            assert_eq!(exchange(profile, Framing::Sse, true, request, &events), format!("data: {to}\n\n"));
            assert_eq!(exchange(profile, Framing::JsonArray, true, request, &events), format!("[{to}]"));
        }
    }
}
