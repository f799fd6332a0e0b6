//! Events of an answer → the Images API: one body, or events of its own.
//!
//! Enters: IR events, and what the upstream's own events tell of pictures beyond them. Leaves: `data[]` with
//! base64 or data URLs, or sketches and finished pictures as events. May go wrong: an answer without a
//! picture: 400 when the upstream refused to draw, 502 `empty_image` when it talked instead.

use crate::Protocol;
use crate::error::Failure;
use crate::frames::{Frames, Framing};
use crate::ir::{BlockKind, Context, Delta, Event, Finish, Sink, Usage};
use crate::json::{self, Object, parse_any};
use crate::names::sniff_mime;
use crate::openai_responses::pictures::{Drawing, Glimpse, of_answer, of_event};
use crate::target::Operation;

/// Characters of the model's words that an error repeats.
const WORDS: usize = 500;

/// Writes one answer.
#[derive(Debug)]
pub(crate) struct Images {
    edit: bool,
    /// Events, or one body.
    stream: bool,
    frames: Frames,
    body: Vec<u8>,
    created: Option<u64>,
    pictures: Vec<Picture>,
    /// How the pictures were drawn, in the same order, as far as it was told.
    facts: Vec<Facts>,
    /// Counts of the drawing tool, as sent.
    tool_usage: Option<String>,
    usage: Usage,
    /// What the model said.
    words: String,
    finish: Option<(Finish, String)>,
    over: bool,
}

#[derive(Debug)]
struct Picture {
    block: u32,
    mime: String,
    data: String,
}

/// Members that say how a picture was drawn.
#[derive(Clone, Debug, Default)]
struct Facts {
    revised_prompt: String,
    size: String,
    quality: String,
    background: String,
    output_format: String,
}

impl From<&Drawing<'_>> for Facts {
    fn from(drawing: &Drawing<'_>) -> Self {
        Self {
            revised_prompt: drawing.revised_prompt.as_ref().to_owned(),
            size: drawing.size.as_ref().to_owned(),
            quality: drawing.quality.as_ref().to_owned(),
            background: drawing.background.as_ref().to_owned(),
            output_format: drawing.output_format.as_ref().to_owned(),
        }
    }
}

impl Facts {
    /// Completed by what the client asked for and by what the bytes say.
    fn complete(mut self, context: &Context, mime: Option<&str>) -> Self {
        for (key, slot) in [
            ("size", &mut self.size),
            ("quality", &mut self.quality),
            ("background", &mut self.background),
            ("output_format", &mut self.output_format),
        ] {
            if slot.is_empty() {
                *slot = asked(context, key).unwrap_or_default();
            }
        }
        if let Some(format) = mime.and_then(|mime| mime.strip_prefix("image/")) {
            format.clone_into(&mut self.output_format);
        }
        self
    }

    fn write(&self, o: &mut Object<'_>) {
        for (key, value) in [
            ("background", &self.background),
            ("output_format", &self.output_format),
            ("quality", &self.quality),
            ("size", &self.size),
        ] {
            o.opt_str(key, Some(value.as_str()).filter(|value| !value.is_empty()));
        }
    }

    /// The same in an event, where the API always says them: `auto` is what it says when nobody chose.
    fn write_event(mut self, o: &mut Object<'_>) {
        for slot in [&mut self.background, &mut self.quality, &mut self.size] {
            if slot.is_empty() {
                "auto".clone_into(slot);
            }
        }
        self.write(o);
    }
}

/// What the client asked for.
fn asked(context: &Context, key: &str) -> Option<String> {
    let (_, raw) = context.echo.iter().find(|(known, _)| *known == key)?;
    parse_any(raw.as_bytes()).ok()?.as_str().map(str::to_owned)
}

impl Images {
    pub(crate) fn new(operation: Operation, stream: bool) -> Self {
        Self {
            edit: operation == Operation::ImageEdit,
            stream,
            frames: Frames::new(Framing::Sse),
            body: Vec::new(),
            created: None,
            pictures: Vec::new(),
            facts: Vec::new(),
            tool_usage: None,
            usage: Usage::default(),
            words: String::new(),
            finish: None,
            over: false,
        }
    }

    /// Looks at an event of a Responses upstream. Returns whether something for the client came of it.
    pub(crate) fn look(&mut self, data: &[u8], context: &Context) -> bool {
        of_event(data).is_some_and(|glimpse| self.glimpse(glimpse, context))
    }

    /// Looks at a whole answer of a Responses upstream.
    pub(crate) fn look_whole(&mut self, body: &[u8], context: &Context) {
        if let Some(glimpse) = of_answer(body) {
            self.glimpse(glimpse, context);
        }
    }

    fn glimpse(&mut self, glimpse: Glimpse<'_>, context: &Context) -> bool {
        match glimpse {
            Glimpse::Sketch { index, data, drawing } if self.stream && !self.over => {
                let facts = Facts::from(&drawing).complete(context, sniff_mime(&data));
                self.tell("partial_image", &data, &facts, context, |o| {
                    o.uint("partial_image_index", index);
                });
                return true;
            }
            Glimpse::Sketch { .. } => {}
            Glimpse::Drawn(drawing) => self.facts.push(Facts::from(&drawing)),
            Glimpse::End { drawings, usage } => {
                if drawings.len() > self.facts.len() {
                    self.facts = drawings.iter().map(Facts::from).collect();
                }
                self.tool_usage = usage.map(str::to_owned);
            }
        }
        false
    }

    /// Writes an event with a picture.
    fn tell(
        &mut self,
        what: &str,
        data: &str,
        facts: &Facts,
        context: &Context,
        more: impl FnOnce(&mut Object<'_>),
    ) {
        let name = format!("{}.{what}", if self.edit { "image_edit" } else { "image_generation" });
        let created = self.created.unwrap_or(context.created);
        self.frames.event(&name, |out| {
            json::object(out, |o| {
                o.str("type", &name);
                picture(o, data, facts, context);
                o.uint("created_at", created);
                facts.clone().write_event(o);
                more(o);
            });
        });
    }

    /// The answer is complete: writes what is left of it.
    pub(crate) fn end(&mut self, context: &Context) -> Result<(), Failure> {
        if std::mem::replace(&mut self.over, true) {
            return Ok(());
        }
        self.pictures.retain(|picture| !picture.data.is_empty());
        if self.pictures.is_empty() {
            return Err(self.nothing_drawn());
        }
        let mut facts = std::mem::take(&mut self.facts).into_iter();
        let pictures: Vec<_> = std::mem::take(&mut self.pictures)
            .into_iter()
            .map(|picture| {
                let mime = sniff_mime(&picture.data).unwrap_or(&picture.mime);
                let facts = facts.next().unwrap_or_default().complete(context, Some(mime));
                (picture.data, facts)
            })
            .collect();
        let usage = self.usage_text();
        if self.stream {
            let last = pictures.len() - 1;
            for (n, (data, facts)) in pictures.iter().enumerate() {
                let usage = usage.as_deref().filter(|_| n == last);
                self.tell("completed", data, facts, context, |o| {
                    if let Some(usage) = usage {
                        o.raw("usage", usage);
                    }
                });
            }
        } else {
            let created = self.created.unwrap_or(context.created);
            json::object(&mut self.body, |o| {
                o.uint("created", created);
                o.array("data", |a| {
                    for (data, facts) in &pictures {
                        a.object(|o| {
                            picture(o, data, facts, context);
                            let prompt = Some(facts.revised_prompt.as_str());
                            o.opt_str("revised_prompt", prompt.filter(|prompt| !prompt.is_empty()));
                        });
                    }
                });
                if let Some((_, facts)) = pictures.first() {
                    facts.write(o);
                }
                if let Some(usage) = &usage {
                    o.raw("usage", usage);
                }
            });
        }
        Ok(())
    }

    /// Counts of the drawing tool; else those of the conversation, which is the prompt and the picture.
    fn usage_text(&self) -> Option<String> {
        if let Some(usage) = &self.tool_usage {
            return Some(usage.clone());
        }
        if self.usage.is_unknown() {
            return None;
        }
        let mut out = Vec::new();
        json::object(&mut out, |o| {
            o.uint("input_tokens", self.usage.prompt());
            if !self.edit {
                o.object("input_tokens_details", |o| {
                    o.uint("text_tokens", self.usage.prompt());
                    o.uint("image_tokens", 0);
                });
            }
            o.uint("output_tokens", self.usage.output.unwrap_or(0));
            o.uint("total_tokens", self.usage.total());
        });
        String::from_utf8(out).ok()
    }

    fn nothing_drawn(&self) -> Failure {
        let words = self.words.trim();
        let (finish, detail) = self.finish.clone().unwrap_or((Finish::End, String::new()));
        let said = if words.is_empty() { detail.as_str() } else { words };
        let with = |start: &str| {
            if said.is_empty() { start.to_owned() } else { format!("{start}: {said}") }
        };
        if matches!(finish, Finish::Filter | Finish::Refusal) {
            let message = with("the upstream refused to draw this");
            return Failure { code: Some("moderation_blocked".to_owned()), ..Failure::new(400, message) };
        }
        let message = with("the upstream did not return image output");
        Failure { code: Some("empty_image".to_owned()), ..Failure::new(502, message) }
    }

    /// Tells a client that got a part that the rest will not come.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        self.over = true;
        self.body.clear();
        if self.stream {
            let body = failure.render(Protocol::OpenaiChat);
            self.frames.event("error", |out| out.extend_from_slice(&body));
        }
    }

    /// Takes the bytes that wait to be sent.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        if self.stream { self.frames.take() } else { std::mem::take(&mut self.body) }
    }

    /// Number of bytes that wait to be sent.
    pub(crate) fn pending(&self) -> usize {
        if self.stream { self.frames.pending().len() } else { self.body.len() }
    }
}

/// The picture in the form that the client asked for.
fn picture(o: &mut Object<'_>, data: &str, facts: &Facts, context: &Context) {
    if asked(context, "response_format").as_deref() == Some("url") {
        let format = if facts.output_format.is_empty() { "png" } else { &facts.output_format };
        o.str("url", &format!("data:image/{format};base64,{data}"));
    } else {
        o.str("b64_json", data);
    }
}

impl Sink for Images {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start { created, .. } => self.created = created,
            Event::Open { block, kind: BlockKind::Image { mime }, .. } => {
                self.pictures.push(Picture { block, mime: mime.to_owned(), data: String::new() });
            }
            Event::Delta { block, delta: Delta::Data(data) } => {
                if let Some(picture) = self.pictures.iter_mut().rfind(|picture| picture.block == block) {
                    picture.data.push_str(data);
                }
            }
            Event::Delta { delta: Delta::Text(text), .. } => {
                let room = WORDS.saturating_sub(self.words.chars().count());
                self.words.extend(text.chars().take(room));
            }
            Event::Usage(usage) => self.usage.merge(&usage),
            Event::Finish { reason, detail, .. } => {
                self.finish = Some((reason, detail.unwrap_or_default().to_owned()));
            }
            Event::Open { .. }
            | Event::Delta { .. }
            | Event::Close { .. }
            | Event::Failure(_)
            | Event::End => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ";

    fn drawn(images: &mut Images) {
        images.event(Event::Start { id: "r", model: "m", created: Some(5) });
        images.event(Event::Open { block: 0, choice: 0, kind: BlockKind::Image { mime: "image/jpeg" } });
        images.event(Event::Delta { block: 0, delta: Delta::Data(PNG) });
        images.event(Event::Usage(Usage { input: Some(2), output: Some(3), ..Usage::default() }));
    }

    #[test]
    fn a_picture_is_one_body() {
        let mut images = Images::new(Operation::ImageGeneration, false);
        drawn(&mut images);
        let context = Context { echo: vec![("size", "\"1x1\"".into())], ..Context::default() };
        images.end(&context).unwrap();
        let expected = format!(
            r#"{{"created":5,"data":[{{"b64_json":"{PNG}"}}],"output_format":"png","size":"1x1","usage":{{"input_tokens":2,"input_tokens_details":{{"text_tokens":2,"image_tokens":0}},"output_tokens":3,"total_tokens":5}}}}"#
        );
        assert_eq!(String::from_utf8(images.take()).unwrap(), expected);
    }

    #[test]
    fn sketches_come_before_the_picture_and_urls_where_asked() {
        let mut images = Images::new(Operation::ImageEdit, true);
        let context = Context { echo: vec![("response_format", "\"url\"".into())], ..Context::default() };
        let sketch = format!(
            r#"{{"type":"response.image_generation_call.partial_image","partial_image_index":0,"partial_image_b64":"{PNG}"}}"#
        );
        assert!(images.look(sketch.as_bytes(), &context));
        drawn(&mut images);
        images.look(
            br#"{"type":"response.completed","response":{"tool_usage":{"image_gen":{"input_tokens":9}}}}"#,
            &context,
        );
        images.end(&context).unwrap();
        images.end(&context).unwrap();
        let out = String::from_utf8(images.take()).unwrap();
        let expected = format!(
            "event: image_edit.partial_image\ndata: {{\"type\":\"image_edit.partial_image\",\"url\":\"data:image/png;base64,{PNG}\",\"created_at\":0,\"background\":\"auto\",\"output_format\":\"png\",\"quality\":\"auto\",\"size\":\"auto\",\"partial_image_index\":0}}\n\nevent: image_edit.completed\ndata: {{\"type\":\"image_edit.completed\",\"url\":\"data:image/png;base64,{PNG}\",\"created_at\":5,\"background\":\"auto\",\"output_format\":\"png\",\"quality\":\"auto\",\"size\":\"auto\",\"usage\":{{\"input_tokens\":9}}}}\n\n"
        );
        assert_eq!(out, expected);
    }

    #[test]
    fn an_answer_without_a_picture_says_why() {
        for (reason, status, code) in
            [(Finish::End, 502, "empty_image"), (Finish::Filter, 400, "moderation_blocked")]
        {
            let mut images = Images::new(Operation::ImageGeneration, false);
            images.event(Event::Delta { block: 0, delta: Delta::Text("I cannot.") });
            images.event(Event::Finish { choice: 0, reason, detail: None });
            let failure = images.end(&Context::default()).unwrap_err();
            assert_eq!((failure.status, failure.code.as_deref()), (status, Some(code)));
            assert!(failure.message.ends_with(": I cannot."), "{failure:?}");
        }
    }
}
