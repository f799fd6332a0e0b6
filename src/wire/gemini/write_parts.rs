//! [`Part`]s → `parts[]` of a content.
//!
//! Enters: parts that the model can be told. Leaves: parts with exactly one payload each. May go wrong:
//! attachments that Google cannot read become text that says what was there, recorded.
//!
//! Signatures: a thought signature proves that a call is the model's own. The first call of a turn that has
//! none gets the word that Google documents for calls of other models. A signature that came back without
//! text (a foreign client had no place for it) goes to the part behind it, where it came from.

use super::flavour::{Flavour, SENTINEL};
use super::read_parts::{is_text, mime_of_url};
use crate::Protocol;
use crate::ir::{
    Document, LossKind, Losses, Part, Reasoning, SearchResult, Source, Str, Text, ToolCall, ToolResult,
};
use crate::json::{self, Array, Json, Object};
use crate::names::split_data_url;
use crate::signature::Signature;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// An attachment as the API takes it.
pub(super) enum Media<'r> {
    Inline {
        mime: Str<'r>,
        data: &'r str,
    },
    Uri {
        mime: Str<'r>,
        uri: &'r str,
    },
    /// What cannot be attached, in words.
    Text(Str<'r>),
}

impl Media<'_> {
    fn write(&self, o: &mut Object<'_>) {
        match self {
            Self::Inline { mime, data } => o.object("inlineData", |o| {
                o.str("mimeType", mime);
                o.str("data", data);
            }),
            Self::Uri { mime, uri } => o.object("fileData", |o| {
                o.str("mimeType", mime);
                o.str("fileUri", uri);
            }),
            Self::Text(text) => o.str("text", text),
        }
    }

    /// Whether a result may hold it.
    fn fits_result(&self) -> bool {
        match self {
            Self::Inline { mime, .. } | Self::Uri { mime, .. } => {
                mime.starts_with("image/") || mime == "application/pdf"
            }
            Self::Text(_) => false,
        }
    }
}

/// Writes the parts of one content.
pub(super) struct PartWriter<'w, 'o, 'r> {
    out: &'w mut Array<'o>,
    flavour: Flavour,
    losses: &'w mut Losses,
    /// A signature that waits for its part.
    carried: Option<Str<'r>>,
    /// A call was written: only the first of a turn is signed.
    called: bool,
}

impl<'w, 'o, 'r> PartWriter<'w, 'o, 'r> {
    pub(super) fn new(out: &'w mut Array<'o>, flavour: Flavour, losses: &'w mut Losses) -> Self {
        Self { out, flavour, losses, carried: None, called: false }
    }

    /// Writes a part that is no result.
    pub(super) fn part(&mut self, part: &'r Part<'_>) {
        match part {
            Part::Text(text) => self.text(text),
            Part::Refusal(text) => self.out.object(|o| o.str("text", text)),
            Part::Reasoning(reasoning) => self.reasoning(reasoning),
            Part::ToolCall(call) => self.call(call),
            Part::SearchResult(result) => self.out.object(|o| o.str("text", &search_result(result))),
            Part::Server(item) => self.out.raw(item.raw.as_str()),
            Part::Image(_) | Part::Audio(_) | Part::Document(_) => {
                if let Some(media) = self.attachment(part) {
                    self.media(&media);
                }
            }
            // Written before, see `result`.
            Part::ToolResult(_) => {}
        }
    }

    /// Writes an attachment.
    pub(super) fn media(&mut self, media: &Media<'_>) {
        self.out.object(|o| media.write(o));
    }

    /// Ends the content: a signature that still waits gets an empty part, as Google writes it itself.
    pub(super) fn finish(&mut self) {
        if let Some(signature) = self.carried.take() {
            self.out.object(|o| {
                o.str("text", "");
                o.str("thoughtSignature", &signature);
            });
        }
    }

    fn own(&self, signature: Option<&'r Signature<'_>>) -> Option<Str<'r>> {
        signature.and_then(|signature| self.flavour.own_signature(signature))
    }

    fn text(&mut self, text: &'r Text<'_>) {
        let signature = self.own(text.signature.as_ref()).or_else(|| self.carried.take());
        self.out.object(|o| {
            o.str("text", &text.text);
            o.opt_str("thoughtSignature", signature.as_deref());
        });
    }

    fn reasoning(&mut self, reasoning: &'r Reasoning<'_>) {
        let Some(signature) = self.own(reasoning.signature.as_ref()) else { return };
        let text = reasoning.text.join("\n\n");
        if text.is_empty() && self.flavour.google {
            self.finish();
            self.carried = Some(signature);
            return;
        }
        self.out.object(|o| {
            o.str("text", &text);
            o.bool("thought", true);
            o.str("thoughtSignature", &signature);
        });
    }

    fn call(&mut self, call: &'r ToolCall<'_>) {
        let mut signature = self.own(call.signature.as_ref()).or_else(|| self.carried.take());
        if signature.is_none() && self.flavour.google && !self.called {
            signature = Some(Cow::Borrowed(SENTINEL));
        }
        self.called = true;
        self.out.object(|o| {
            o.object("functionCall", |o| {
                if self.flavour.ids() {
                    o.str("id", &call.id);
                }
                o.str("name", &call.name);
                o.raw("args", &call.object());
            });
            o.opt_str("thoughtSignature", signature.as_deref());
        });
    }

    /// Writes a result; what it cannot hold itself goes to `beside`.
    pub(super) fn result(&mut self, result: &'r ToolResult<'_>, beside: &mut Vec<Media<'r>>) {
        let mut text = result.text();
        let mut inside = Vec::new();
        let nests = self.flavour.media_in_results();
        let before = beside.len();
        for part in &result.parts {
            match self.attachment(part) {
                // Text documents are part of the result's text already.
                Some(Media::Text(_)) if is_text_document(part) => {}
                Some(Media::Text(note)) => {
                    text.push_str(if text.is_empty() { "" } else { "\n" });
                    text.push_str(&note);
                }
                Some(media) if nests && media.fits_result() => inside.push(media),
                Some(media) => beside.push(media),
                None => {}
            }
        }
        if text.is_empty() && (!inside.is_empty() || beside.len() > before) {
            text.push_str("The result is attached.");
        }
        self.out.object(|o| {
            o.object("functionResponse", |o| {
                if self.flavour.ids() {
                    o.str("id", &result.call_id);
                }
                o.str("name", result.name.as_deref().unwrap_or_default());
                write_response(o.key("response"), &text, result.is_error);
                if !inside.is_empty() {
                    o.array("parts", |a| inside.iter().for_each(|media| a.object(|o| media.write(o))));
                }
            });
        });
    }

    /// The attachment that a part is.
    fn attachment(&mut self, part: &'r Part<'_>) -> Option<Media<'r>> {
        match part {
            Part::Image(image) => Some(self.source(&image.source, "image", "image/jpeg", None)),
            Part::Audio(audio) => Some(self.source(&audio.source, "audio", "audio/wav", None)),
            Part::Document(document) => Some(self.document(document)),
            _ => None,
        }
    }

    fn document(&mut self, document: &'r Document<'_>) -> Media<'r> {
        let titled = |text: &str| {
            let heads = [document.name.as_deref(), document.context.as_deref()];
            let lines = heads.into_iter().flatten().filter(|head| !head.trim().is_empty());
            Media::Text(lines.chain([text]).collect::<Vec<_>>().join("\n\n").into())
        };
        match &document.source {
            Source::Text(text) => titled(text),
            Source::Inline { mime, data } if is_text(mime) => {
                let text = STANDARD.decode(data.as_bytes()).ok().and_then(|b| String::from_utf8(b).ok());
                match text {
                    Some(text) => titled(&text),
                    None => self.source(&document.source, "document", "text/plain", document.name.as_deref()),
                }
            }
            source => {
                // The public API takes no name beside the bytes.
                if document.name.is_some() || document.context.is_some() {
                    self.losses.member(LossKind::Setting, "turns");
                }
                self.source(source, "document", "application/pdf", document.name.as_deref())
            }
        }
    }

    fn source(
        &mut self,
        source: &'r Source<'_>,
        what: &str,
        fallback: &'static str,
        name: Option<&str>,
    ) -> Media<'r> {
        match source {
            Source::Inline { data, .. } if !data.is_empty() => {
                Media::Inline { mime: Cow::Borrowed(source.mime(fallback)), data }
            }
            Source::Url { url, mime } => {
                if let Some((said, data)) = split_data_url(url).filter(|(_, data)| !data.is_empty()) {
                    return Media::Inline {
                        mime: Cow::Borrowed(if said.is_empty() { fallback } else { said }),
                        data,
                    };
                }
                if ["https://", "http://", "gs://"].iter().any(|scheme| url.starts_with(scheme)) {
                    let mime = mime.as_deref().or_else(|| mime_of_url(url)).unwrap_or(fallback);
                    return Media::Uri { mime: Cow::Borrowed(mime), uri: url };
                }
                self.note(LossKind::AttachmentAsText, what, url)
            }
            Source::File { vendor: Protocol::Gemini, id } => Media::Uri { mime: fallback.into(), uri: id },
            Source::File { id, .. } => self.note(LossKind::FileId, what, name.unwrap_or(id)),
            Source::Text(text) => Media::Text(Cow::Borrowed(text)),
            Source::Inline { .. } => self.note(LossKind::AttachmentAsText, what, name.unwrap_or("empty")),
        }
    }

    fn note(&mut self, kind: LossKind, what: &str, name: &str) -> Media<'r> {
        self.losses.member(kind, "turns");
        Media::Text(format!("[{what}: {name}]").into())
    }
}

fn is_text_document(part: &Part<'_>) -> bool {
    matches!(part, Part::Document(Document { source: Source::Text(_), .. }))
}

/// An object the model can read: the tool's own, or its text under `output`; a failure under `error`.
fn write_response(out: &mut Vec<u8>, text: &str, is_error: bool) {
    // The blanks of JSON only: others are words of the result.
    let bare = text.trim_matches([' ', '\t', '\n', '\r']);
    if is_error {
        return json::object(out, |o| o.str("error", text));
    }
    let parsed =
        matches!(bare.as_bytes().first(), Some(b'{' | b'[')).then(|| json::parse_any(bare.as_bytes()));
    match parsed {
        Some(Ok(Json::Object(_))) => out.extend_from_slice(bare.as_bytes()),
        Some(Ok(Json::Array(_))) => json::object(out, |o| o.raw("output", bare)),
        _ => json::object(out, |o| o.str("output", text)),
    }
}

/// A passage as text: Google has no counterpart.
fn search_result(result: &SearchResult<'_>) -> String {
    let head = [result.title.as_ref(), result.source.as_ref()];
    let lines = head.into_iter().chain(result.text.iter().map(AsRef::as_ref));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::write_request::tests::*;
    use super::*;
    use crate::ir::{Context, Image};
    use crate::signature::Vendor;
    use crate::target::{Profile, Target};

    #[test]
    fn results_are_objects_that_the_model_can_read() {
        for (said, response) in [
            ("21C", r#"{"output":"21C"}"#),
            (r#" {"b": 1, "a":[]} "#, r#"{"b":1,"a":[]}"#),
            (r"[1,2]", r#"{"output":[1,2]}"#),
            ("21", r#"{"output":"21"}"#),
            ("{broken", r#"{"output":"{broken"}"#),
            ("", r#"{"output":""}"#),
        ] {
            let parts = if said.is_empty() { vec![] } else { vec![text(said)] };
            let request =
                asks(vec![model(vec![call("1", "f", None)]), user(vec![result("1", parts, false)])]);
            let value = written(&request, &pro());
            let parts = value.get("contents").and_then(Json::as_array).unwrap()[2].get("parts").unwrap();
            let got = parts.as_array().unwrap()[0].at(&["functionResponse", "response"]).unwrap().to_text();
            assert_eq!(got, response, "{said}");
        }
    }

    #[test]
    fn pictures_of_results_reach_the_model() {
        let request = asks(vec![
            model(vec![call("1", "f", None), call("2", "g", None)]),
            user(vec![result("1", vec![image()], false), result("2", vec![text("x")], false), text("t")]),
        ]);
        let beside = contents_of(&request, &pro());
        assert!(beside.ends_with(
            r#""response":{"output":"x"}}},{"inlineData":{"mimeType":"image/png","data":"AAAA"}},{"text":"t"}]}]"#
        ));
        let inside = contents_of(&request, &to(Profile::Gemini, "gemini-3-pro-preview"));
        assert!(inside.contains(
            r#""response":{"output":"The result is attached."},"parts":[{"inlineData":{"mimeType":"image/png","data":"AAAA"}}]"#
        ));
    }

    #[test]
    fn only_own_signatures_go_out() {
        let thought = |vendor, words: &'static str| {
            let text = if words.is_empty() { vec![] } else { vec![words.into()] };
            Part::Reasoning(Reasoning { text, signature: signed(vendor), ..Reasoning::default() })
        };
        let turn = |parts| asks(vec![user(vec![text("q")]), model(parts)]);
        // (parts, for Gemini, for Claude behind Antigravity)
        for (parts, gemini, claude) in [
            (
                vec![thought(Vendor::Claude, "plan"), text("a")],
                r#"[{"text":"a"}]"#,
                r#"[{"text":"plan","thought":true,"thoughtSignature":"YzJsbg=="},{"text":"a"}]"#,
            ),
            (
                vec![thought(Vendor::Gemini, "plan"), text("a")],
                r#"[{"text":"plan","thought":true,"thoughtSignature":"c2ln"},{"text":"a"}]"#,
                r#"[{"text":"a"}]"#,
            ),
            (
                vec![thought(Vendor::Gemini, ""), text("a")],
                r#"[{"text":"a","thoughtSignature":"c2ln"}]"#,
                r#"[{"text":"a"}]"#,
            ),
            (
                vec![text("a"), thought(Vendor::Gemini, "")],
                r#"[{"text":"a"},{"text":"","thoughtSignature":"c2ln"}]"#,
                r#"[{"text":"a"}]"#,
            ),
            (vec![thought(Vendor::Openai, "plan"), text("a")], r#"[{"text":"a"}]"#, r#"[{"text":"a"}]"#),
        ] {
            let request = turn(parts);
            let parts = |target: &Target<'_>| {
                let value = written(&request, target);
                value.get("contents").and_then(Json::as_array).unwrap()[1].get("parts").unwrap().to_text()
            };
            assert_eq!(parts(&pro()), gemini);
            assert_eq!(parts(&to(Profile::Antigravity, "claude-sonnet-4-6")), claude);
        }
        let native = asks(vec![
            user(vec![text("q")]),
            model(vec![call("1", "f", signed(Vendor::Gemini)), call("2", "f", None)]),
        ]);
        let out = contents_of(&native, &pro());
        assert!(out.contains("c2ln") && !out.contains("skip_thought"));
        let mut losses = Losses::default();
        written_with(
            &turn(vec![thought(Vendor::Openai, "plan"), text("a")]),
            &pro(),
            &mut Context::default(),
            &mut losses,
        );
        assert_eq!(losses.to_string(), "signature turns[1]");
    }

    #[test]
    fn attachments_find_their_member_or_are_named() {
        let source = |source| Part::Image(Image { source, detail: None, cache: None });
        let url = |url: &'static str| source(Source::Url { url: url.into(), mime: None });
        for (part, expected) in [
            (image(), r#"{"inlineData":{"mimeType":"image/png","data":"AAAA"}}"#),
            (url("https://x/a.png"), r#"{"fileData":{"mimeType":"image/png","fileUri":"https://x/a.png"}}"#),
            (url("https://x/a"), r#"{"fileData":{"mimeType":"image/jpeg","fileUri":"https://x/a"}}"#),
            (url("data:image/gif;base64,R0lG"), r#"{"inlineData":{"mimeType":"image/gif","data":"R0lG"}}"#),
            (url("file:///x"), r#"{"text":"[image: file:///x]"}"#),
            (
                source(Source::File { vendor: Protocol::OpenaiResponses, id: "file_1".into() }),
                r#"{"text":"[image: file_1]"}"#,
            ),
            (
                Part::SearchResult(SearchResult {
                    source: "https://s".into(),
                    title: "T".into(),
                    text: vec!["words".into()],
                    raw: crate::ir::RawJson("{}".into()),
                }),
                r#"{"text":"T\nhttps://s\nwords"}"#,
            ),
        ] {
            let out = contents_of(&asks(vec![user(vec![part])]), &pro());
            assert_eq!(out, format!(r#"[{{"role":"user","parts":[{expected}]}}]"#));
        }
    }
}
