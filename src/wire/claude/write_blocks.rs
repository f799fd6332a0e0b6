//! Parts → content blocks.
//!
//! Enters: the parts of a turn. Leaves: blocks that the API takes, in the order of the parts. May go wrong:
//! nothing; what has no block becomes text that says what was there, and is recorded.

use crate::Protocol;
use crate::ir::{CacheMark, Document, Image, LossKind, Losses, Part, Reasoning, Role, Source, ToolResult};
use crate::json::{self, Path};
use crate::names::{split_data_url, standard_base64};
use crate::signature::{Vendor, unwrap_vertex};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// Pictures that the API reads.
const IMAGES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

/// A content block.
pub(super) struct Block<'r> {
    /// What it holds.
    pub(super) body: Body<'r>,
    /// Its cache mark.
    pub(super) mark: Option<CacheMark>,
}

/// What a block holds.
pub(super) enum Body<'r> {
    Text(Cow<'r, str>),
    Image(Bytes<'r>),
    Document {
        source: Bytes<'r>,
        title: Option<&'r str>,
        context: Option<&'r str>,
        citations: bool,
    },
    Thinking {
        text: Cow<'r, str>,
        signature: Cow<'r, str>,
    },
    Redacted(&'r str),
    Call {
        id: &'r str,
        name: &'r str,
        input: Cow<'r, str>,
    },
    Result {
        id: &'r str,
        content: Vec<Block<'r>>,
        is_error: bool,
    },
    /// The block as JSON text.
    Raw(Cow<'r, str>),
}

/// Where the bytes of an attachment are.
pub(super) enum Bytes<'r> {
    Base64 { mime: &'r str, data: Cow<'r, str> },
    Url(&'r str),
    File(&'r str),
    Text(Cow<'r, str>),
}

impl<'r> Block<'r> {
    fn plain(body: Body<'r>) -> Self {
        Self { body, mark: None }
    }

    /// Text, unless it is blank.
    pub(super) fn text(text: impl Into<Cow<'r, str>>, mark: Option<CacheMark>) -> Option<Self> {
        let text = text.into();
        (!text.trim().is_empty()).then_some(Self { body: Body::Text(text), mark })
    }

    /// Whether it is thinking, open or hidden.
    pub(super) fn is_thinking(&self) -> bool {
        matches!(self.body, Body::Thinking { .. } | Body::Redacted(_))
    }

    /// Whether it may carry a cache mark.
    pub(super) fn takes_mark(&self) -> bool {
        !self.is_thinking() && !matches!(self.body, Body::Raw(_))
    }
}

/// Where a part stands, and what is known of the target.
#[derive(Clone, Copy)]
pub(super) struct Site<'p> {
    /// Who speaks.
    pub(super) role: Role,
    /// Whether the model thinks at all; one that does not refuses thinking in the history.
    pub(super) thinks: bool,
    /// The turn, for losses.
    pub(super) path: &'p Path<'p>,
}

/// The block of `part`, if one is left.
pub(super) fn block<'r>(part: &'r Part<'_>, site: Site<'_>, losses: &mut Losses) -> Option<Block<'r>> {
    match part {
        Part::Text(text) => {
            if text.signature.is_some() {
                losses.at(LossKind::Signature, site.path);
            }
            Block::text(text.text.as_ref(), text.cache)
        }
        Part::Refusal(text) => Block::text(text.as_ref(), None),
        Part::Image(part) => image(part, site, losses),
        Part::Audio(audio) => {
            losses.at(LossKind::AttachmentAsText, site.path);
            Block::text(format!("[audio: {}]", audio.source.mime("audio/wav")), None)
        }
        Part::Document(part) => document(part, site, losses),
        Part::SearchResult(result) if site.role == Role::User => {
            Some(Block::plain(Body::Raw(Cow::Borrowed(result.raw.as_str()))))
        }
        Part::SearchResult(result) => Block::text(result.text.join("\n"), None),
        Part::ToolCall(call) => {
            if call.signature.is_some() {
                losses.at(LossKind::Signature, site.path);
            }
            let body = Body::Call { id: &call.id, name: &call.name, input: call.object() };
            Some(Block { body, mark: call.cache })
        }
        Part::ToolResult(part) => Some(result(part, site, losses)),
        Part::Reasoning(part) => reasoning(part, site, losses),
        Part::Server(item) if item.vendor == Protocol::Claude => {
            Some(Block::plain(Body::Raw(Cow::Borrowed(item.raw.as_str()))))
        }
        Part::Server(_) => {
            losses.at(LossKind::Builtin, site.path);
            None
        }
    }
}

fn image<'r>(image: &'r Image<'_>, site: Site<'_>, losses: &mut Losses) -> Option<Block<'r>> {
    if image.detail.as_deref().is_some_and(|detail| detail != "auto") {
        losses.at(LossKind::Setting, site.path);
    }
    let source = match &image.source {
        // The API takes pictures of users and of tools only.
        _ if site.role == Role::Assistant => None,
        source @ Source::Inline { data, .. } => {
            let mime = source.mime("image/png");
            IMAGES.contains(&mime).then(|| base64_of(mime, data))
        }
        Source::Url { url, .. } => url_of(url),
        Source::File { vendor: Protocol::Claude, id } => Some(Bytes::File(id)),
        Source::File { .. } | Source::Text(_) => None,
    };
    match source {
        Some(source) => Some(Block { body: Body::Image(source), mark: image.cache }),
        None => placeholder("image", &image.source, None, site, losses),
    }
}

fn document<'r>(document: &'r Document<'_>, site: Site<'_>, losses: &mut Losses) -> Option<Block<'r>> {
    let source = match &document.source {
        Source::Text(text) if text.trim().is_empty() => return None,
        Source::Text(text) if site.role == Role::Assistant => return Block::text(text.as_ref(), None),
        _ if site.role == Role::Assistant => None,
        Source::Text(text) => Some(Bytes::Text(Cow::Borrowed(text))),
        source @ Source::Inline { data, .. } => {
            let mime = source.mime("application/pdf");
            if IMAGES.contains(&mime) {
                return Some(Block { body: Body::Image(base64_of(mime, data)), mark: document.cache });
            }
            if mime == "application/pdf" { Some(base64_of(mime, data)) } else { text_of(data) }
        }
        Source::Url { url, mime } => match mime.as_deref() {
            Some(mime) if mime.starts_with("image/") => {
                return url_of(url).map(|url| Block { body: Body::Image(url), mark: document.cache });
            }
            None | Some("application/pdf") => url_of(url),
            Some(_) => None,
        },
        Source::File { vendor: Protocol::Claude, id } => Some(Bytes::File(id)),
        Source::File { .. } => None,
    };
    let Some(source) = source else {
        return placeholder("document", &document.source, document.name.as_deref(), site, losses);
    };
    let body = Body::Document {
        source,
        title: document.name.as_deref().filter(|t| !t.is_empty()),
        context: document.context.as_deref().filter(|t| !t.is_empty()),
        citations: document.citations,
    };
    Some(Block { body, mark: document.cache })
}

fn base64_of<'r>(mime: &'r str, data: &'r str) -> Bytes<'r> {
    let (mime, data) =
        split_data_url(data).map_or((mime, data), |(m, d)| (if m.is_empty() { mime } else { m }, d));
    Bytes::Base64 { mime, data: standard_base64(Cow::Borrowed(data)) }
}

/// Text in base64, as clients send source files.
fn text_of(data: &str) -> Option<Bytes<'static>> {
    let text = String::from_utf8(STANDARD.decode(data.as_bytes()).ok()?).ok()?;
    let readable = !text.trim().is_empty() && !text.contains('\0');
    readable.then_some(Bytes::Text(Cow::Owned(text)))
}

/// The API fetches from the web, not from the storage of another vendor.
fn url_of(url: &str) -> Option<Bytes<'_>> {
    if let Some((mime, data)) = split_data_url(url) {
        return Some(base64_of(mime, data));
    }
    (url.starts_with("https://") || url.starts_with("http://")).then_some(Bytes::Url(url))
}

/// Text in the place of an attachment.
fn placeholder<'r>(
    what: &str,
    source: &Source<'_>,
    name: Option<&str>,
    site: Site<'_>,
    losses: &mut Losses,
) -> Option<Block<'r>> {
    let (kind, text) = match source {
        Source::File { id, .. } => (LossKind::FileId, format!("file {id}")),
        Source::Url { url, .. } => (LossKind::AttachmentAsText, url.to_string()),
        Source::Inline { .. } | Source::Text(_) => {
            (LossKind::AttachmentAsText, source.mime("unknown type").to_owned())
        }
    };
    losses.at(kind, site.path);
    let name = name.map(|name| format!("{name}, ")).unwrap_or_default();
    Block::text(format!("[{what}: {name}{text}]"), None)
}

fn result<'r>(result: &'r ToolResult<'_>, site: Site<'_>, losses: &mut Losses) -> Block<'r> {
    let mut content: Vec<_> = result.parts.iter().filter_map(|part| block(part, site, losses)).collect();
    // A mark inside means the same as one on the result: everything up to its end.
    let mark = content.iter_mut().filter_map(|block| block.mark.take()).last();
    let mark = result.cache.or(mark);
    Block { body: Body::Result { id: &result.call_id, content, is_error: result.is_error }, mark }
}

/// Thinking goes back only with a signature of this vendor; hidden thinking is of this vendor always.
fn reasoning<'r>(reasoning: &'r Reasoning<'_>, site: Site<'_>, losses: &mut Losses) -> Option<Block<'r>> {
    if site.role == Role::Assistant && site.thinks {
        if let Some(data) = &reasoning.redacted {
            return Some(Block::plain(Body::Redacted(data)));
        }
        let signature = reasoning.signature.as_ref().and_then(|signature| match signature.vendor {
            Vendor::Claude => Some(Cow::Borrowed(signature.value.as_ref())),
            Vendor::ClaudeVertex => unwrap_vertex(&signature.value).map(Cow::Owned),
            Vendor::Gemini | Vendor::Openai | Vendor::Unknown => None,
        });
        if let Some(signature) = signature {
            let text = match reasoning.text.as_slice() {
                [one] => Cow::Borrowed(one.as_ref()),
                many => Cow::Owned(many.join("\n\n")),
            };
            return Some(Block::plain(Body::Thinking { text, signature }));
        }
    }
    losses.at(LossKind::Signature, site.path);
    None
}

/// Appends `block` as JSON.
pub(super) fn write(out: &mut Vec<u8>, block: &Block<'_>) {
    if let Body::Raw(raw) = &block.body {
        out.extend_from_slice(raw.as_bytes());
        return;
    }
    json::object(out, |o| {
        match &block.body {
            Body::Text(text) => {
                o.str("type", "text");
                o.str("text", text);
            }
            Body::Image(source) => {
                o.str("type", "image");
                write_source(o, source);
            }
            Body::Document { source, title, context, citations } => {
                o.str("type", "document");
                write_source(o, source);
                o.opt_str("title", *title);
                o.opt_str("context", *context);
                if *citations {
                    o.object("citations", |o| o.bool("enabled", true));
                }
            }
            Body::Thinking { text, signature } => {
                o.str("type", "thinking");
                o.str("thinking", text);
                o.str("signature", signature);
            }
            Body::Redacted(data) => {
                o.str("type", "redacted_thinking");
                o.str("data", data);
            }
            Body::Call { id, name, input } => {
                o.str("type", "tool_use");
                o.str("id", id);
                o.str("name", name);
                o.raw("input", input);
            }
            Body::Result { id, content, is_error } => {
                o.str("type", "tool_result");
                o.str("tool_use_id", id);
                // Without content the member is left out, as the API's own examples do.
                if !content.is_empty() {
                    o.array("content", |a| content.iter().for_each(|block| write(a.item(), block)));
                }
                if *is_error {
                    o.bool("is_error", true);
                }
            }
            Body::Raw(_) => {}
        }
        write_mark(o, block.mark);
    });
}

fn write_source(o: &mut json::Object<'_>, source: &Bytes<'_>) {
    o.object("source", |o| match source {
        Bytes::Base64 { mime, data } => {
            o.str("type", "base64");
            o.str("media_type", mime);
            o.str("data", data);
        }
        Bytes::Url(url) => {
            o.str("type", "url");
            o.str("url", url);
        }
        Bytes::File(id) => {
            o.str("type", "file");
            o.str("file_id", id);
        }
        Bytes::Text(text) => {
            o.str("type", "text");
            o.str("media_type", "text/plain");
            o.str("data", text);
        }
    });
}

/// Writes `cache_control`, if there is a mark.
pub(super) fn write_mark(o: &mut json::Object<'_>, mark: Option<CacheMark>) {
    if let Some(mark) = mark {
        o.object("cache_control", |o| {
            o.str("type", "ephemeral");
            if mark.hour {
                o.str("ttl", "1h");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Audio, Text};

    #[test]
    fn attachments_reach_the_model_or_say_what_they_were() {
        let inline =
            |mime: &'static str, data: &'static str| Source::Inline { mime: mime.into(), data: data.into() };
        let document = |source| {
            Part::Document(Document {
                source,
                name: Some("n".into()),
                context: None,
                citations: false,
                cache: None,
            })
        };
        let image = |source| Part::Image(Image { source, detail: None, cache: None });
        let foreign = Source::File { vendor: Protocol::OpenaiChat, id: "file-1".into() };
        let parts = [
            image(inline("image/jpeg", "iVBORw0KGgoAAAANSUhEUgAA")),
            image(Source::Url { url: "https://e/a.png".into(), mime: None }),
            image(Source::Url { url: "gs://b/a.png".into(), mime: None }),
            image(foreign),
            document(inline("", "JVBERi0xLjEKMSAwIG9iajw8")),
            document(inline("text/x-rust", "Zm4gbWFpbigpIHt9")),
            document(inline("application/zip", "UEsDBBQAAAAA/w==")),
            Part::Audio(Audio { source: inline("audio/wav", "UklGRiQAAABXQVZF") }),
        ];
        let (mut out, mut losses) = (Vec::new(), Losses::default());
        let site = Site { role: Role::User, thinks: true, path: &Path::Root };
        for part in &parts {
            write(&mut out, &block(part, site, &mut losses).unwrap());
        }
        let body = String::from_utf8(out).unwrap();
        for expected in [
            r#""source":{"type":"base64","media_type":"image/png","data":"iVBOR"#,
            r#"{"type":"image","source":{"type":"url","url":"https://e/a.png"}}"#,
            "[image: gs://b/a.png]",
            "[image: file file-1]",
            r#""source":{"type":"base64","media_type":"application/pdf","data":"JVBER"#,
            r#""source":{"type":"text","media_type":"text/plain","data":"fn main() {}"},"title":"n""#,
            "[document: n, application/zip]",
            "[audio: audio/wav]",
        ] {
            assert!(body.contains(expected), "{expected} is missing in {body}");
        }
        let kinds: Vec<_> = losses.iter().map(|loss| loss.kind.name()).collect();
        assert_eq!(kinds, ["attachment-as-text", "file-id", "attachment-as-text", "attachment-as-text"]);
    }

    #[test]
    fn what_the_model_made_is_not_sent_as_the_users_picture() {
        let source = Source::Inline { mime: "image/png".into(), data: "iVBORw0KGgo=".into() };
        let part = Part::Image(Image { source, detail: None, cache: None });
        let (mut out, mut losses) = (Vec::new(), Losses::default());
        let site = Site { role: Role::Assistant, thinks: true, path: &Path::Root };
        write(&mut out, &block(&part, site, &mut losses).unwrap());
        assert_eq!(out, br#"{"type":"text","text":"[image: image/png]"}"#);
        assert_eq!(losses.len(), 1);
    }

    #[test]
    fn a_mark_inside_a_result_is_one_on_the_result() {
        let text = |cache| Part::Text(Text { text: "r".into(), cache, signature: None });
        let part = Part::ToolResult(ToolResult {
            call_id: "t".into(),
            name: None,
            parts: vec![text(Some(CacheMark { hour: true }))],
            is_error: true,
            kind: crate::ir::ToolKind::Function,
            cache: None,
        });
        let site = Site { role: Role::User, thinks: true, path: &Path::Root };
        let made = block(&part, site, &mut Losses::default()).unwrap();
        assert_eq!(made.mark, Some(CacheMark { hour: true }));
        let Body::Result { content, .. } = &made.body else { panic!() };
        assert_eq!(content[0].mark, None);
    }
}
