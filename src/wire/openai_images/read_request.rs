//! Images body → [`Request`] for an upstream that draws in a conversation.
//!
//! Enters: a client's body and who will draw. Leaves: a request with one user turn (the prompt, then the
//! pictures in order) and the drawing tool. May go wrong: no prompt; several pictures at once, or a mask for
//! Gemini, are refused because doing less would change the result. Settings that the upstream does not have
//! are recorded.

use super::is_painter;
use super::members::members;
use crate::Protocol;
use crate::error::WireError;
use crate::head::Head;
use crate::ir::{
    Builtin, Image, LossKind, Losses, Part, RawJson, Request, Role, Source, Str, Text, Tool, ToolChoice, Turn,
};
use crate::json::{self, Json, Path};
use crate::openai_responses::from_url;
use crate::typed::{name, required, string};

/// A body and who will draw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a, 'h> {
    /// The client's body.
    pub(crate) body: &'a [u8],
    /// Its head.
    pub(crate) head: &'h Head,
    /// Whether pictures are changed and not made.
    pub(crate) edit: bool,
    /// Whether the client wants events.
    pub(crate) stream: bool,
    /// Format of the upstream.
    pub(crate) upstream: Protocol,
    /// The upstream's name of the model.
    pub(crate) model: &'h str,
}

/// Members of the body that the tool has under the same name.
const WORDS: [&str; 6] = ["size", "quality", "background", "output_format", "moderation", "input_fidelity"];
const NUMBERS: [&str; 2] = ["output_compression", "partial_images"];
/// Members that the answer shows.
const SHOWN: [&str; 4] = ["size", "quality", "background", "output_format"];

/// What a body says.
#[derive(Default)]
struct Said<'a> {
    prompt: Option<Str<'a>>,
    images: Vec<Source<'a>>,
    mask: Option<Source<'a>>,
    words: Vec<(&'static str, Str<'a>)>,
    numbers: Vec<(&'static str, u64)>,
    url: bool,
    user: Option<Str<'a>>,
}

/// Client body → IR.
pub(crate) fn read_request<'a>(asked: &Asked<'a, '_>, losses: &mut Losses) -> Result<Request<'a>, WireError> {
    let root = Path::Root;
    let mut said = Said::default();
    for (key, value) in members(asked.body, asked.head)? {
        if !value.is_null() {
            said.member(&key, value, asked, losses)?;
        }
    }
    let prompt = said.prompt.take().ok_or_else(|| required(&root.key("prompt"), "say what to draw"))?;
    if asked.edit && said.images.is_empty() {
        return Err(required(&root.key("image"), "the pictures to change"));
    }
    let gemini = asked.upstream == Protocol::Gemini;
    if gemini && asked.model.starts_with("imagen") {
        let problem = "Imagen models are not served here; choose a Gemini image model";
        return Err(WireError::unsupported(&root.key("model"), problem));
    }
    if gemini && said.mask.is_some() {
        let problem = "Gemini models take no mask; say in the prompt what to change";
        return Err(WireError::unsupported(&root.key("mask"), problem));
    }
    let mut parts = vec![Part::Text(Text::plain(prompt))];
    let images = std::mem::take(&mut said.images).into_iter();
    parts.extend(images.map(|source| Part::Image(Image { source, detail: None, cache: None })));
    let mut request = Request { stream: asked.stream, user: said.user.take(), ..Request::default() };
    request.turns.push(Turn::new(Role::User, parts));
    if gemini {
        request.modalities = vec!["text".into(), "image".into()];
        let kept = |key: &&'static str| *key != "size";
        let lost = said.words.iter().map(|(key, _)| *key).chain(said.numbers.iter().map(|(key, _)| *key));
        lost.filter(kept).for_each(|key| losses.member(LossKind::Setting, key));
    } else {
        let raw = said.tool(asked);
        request.tools.push(Tool::Builtin(Builtin::ImageGeneration(raw)));
        request.tool_choice = Some(ToolChoice::Builtin("image_generation".into()));
    }
    request.echo = said.echo(gemini);
    Ok(request)
}

impl<'a> Said<'a> {
    fn member(
        &mut self,
        key: &str,
        value: Json<'a>,
        asked: &Asked<'a, '_>,
        losses: &mut Losses,
    ) -> Result<(), WireError> {
        let root = Path::Root;
        let at = root.key(key);
        if let Some(known) = WORDS.into_iter().find(|known| *known == key) {
            self.words.push((known, string(value, &at)?));
            return Ok(());
        }
        if let Some(known) = NUMBERS.into_iter().find(|known| *known == key) {
            self.numbers.push((known, number(&value, &at)?));
            return Ok(());
        }
        match key {
            "model" | "stream" => {}
            "prompt" => self.prompt = Some(name(value, &at)?),
            "n" => {
                if number(&value, &at)? > 1 {
                    let problem = "this upstream draws one picture per request; ask several times";
                    return Err(WireError::unsupported(&at, problem));
                }
            }
            "response_format" => match string(value, &at)?.as_ref() {
                "url" => self.url = true,
                "b64_json" => {}
                other => {
                    let problem = format!("`{other}` is not known; send `b64_json` or `url`");
                    return Err(WireError::invalid(&at, problem));
                }
            },
            "user" => self.user = Some(string(value, &at)?),
            "image" | "images" | "mask" if !asked.edit => {
                return Err(WireError::unsupported(&at, "send pictures to /v1/images/edits"));
            }
            "mask" => self.mask = Some(source(value, &at)?),
            "image" | "images" => match value {
                Json::Array(items) => {
                    for (n, item) in items.into_iter().enumerate() {
                        self.images.push(source(item, &at.index(n))?);
                    }
                }
                one => self.images.push(source(one, &at)?),
            },
            "style" => losses.at(LossKind::Setting, &at),
            _ => losses.at(LossKind::UnknownMember, &at),
        }
        Ok(())
    }

    /// The declaration of the tool.
    fn tool(&self, asked: &Asked<'_, '_>) -> RawJson<'a> {
        let mut out = Vec::new();
        json::object(&mut out, |o| {
            o.str("type", "image_generation");
            o.str("action", if asked.edit { "edit" } else { "generate" });
            if is_painter(asked.model) {
                o.str("model", asked.model);
            }
            self.words.iter().for_each(|(key, value)| o.str(key, value));
            for (key, value) in &self.numbers {
                // Sketches can only be shown in a stream.
                if *key != "partial_images" || asked.stream {
                    o.uint(key, *value);
                }
            }
            match &self.mask {
                Some(Source::File { id, .. }) => o.object("input_image_mask", |o| o.str("file_id", id)),
                Some(mask) => o.object("input_image_mask", |o| o.str("image_url", &url(mask))),
                None => {}
            }
        });
        RawJson(String::from_utf8(out).unwrap_or_default().into())
    }

    /// What the answer shows of the request.
    fn echo(&self, gemini: bool) -> Vec<(&'static str, RawJson<'a>)> {
        let shown =
            self.words.iter().filter(|(key, value)| !gemini && SHOWN.contains(key) && value != "auto");
        let mut echo: Vec<_> =
            shown.map(|(key, value)| (*key, RawJson(json::string(value).into()))).collect();
        if self.url {
            echo.push(("response_format", RawJson("\"url\"".into())));
        }
        echo
    }
}

/// A whole number; forms write it as text.
fn number(value: &Json<'_>, at: &Path<'_>) -> Result<u64, WireError> {
    let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
    number.ok_or_else(|| WireError::expected(at, "a whole number", value))
}

/// A picture: a URL, a data URL, base64, or an object that holds one of them or a file's id.
fn source<'a>(value: Json<'a>, at: &Path<'_>) -> Result<Source<'a>, WireError> {
    let mut map = match value {
        Json::Object(map) => map,
        other => return Ok(from_url(name(other, at)?, "image/png")),
    };
    if let Some(id) = map.remove("file_id").filter(|id| !id.is_null()) {
        return Ok(Source::File { vendor: Protocol::OpenaiResponses, id: name(id, &at.key("file_id"))? });
    }
    for key in ["image_url", "url"] {
        match map.remove(key) {
            Some(Json::Object(mut inner)) => {
                let url = inner.remove("url").ok_or_else(|| required(&at.key(key), "a URL"))?;
                return Ok(from_url(name(url, &at.key(key))?, "image/png"));
            }
            Some(url) if !url.is_null() => return Ok(from_url(name(url, &at.key(key))?, "image/png")),
            _ => {}
        }
    }
    Err(required(&at.key("image_url"), "a URL, or `file_id`"))
}

fn url(source: &Source<'_>) -> String {
    match source {
        Source::Inline { data, .. } => format!("data:{};base64,{data}", source.mime("image/png")),
        Source::Url { url, .. } => url.to_string(),
        Source::File { id, .. } => id.to_string(),
        Source::Text(text) => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head;

    fn read<'a>(
        body: &'a str,
        edit: bool,
        upstream: Protocol,
        losses: &mut Losses,
    ) -> Result<Request<'a>, WireError> {
        let head = head::parse_or(body.as_bytes(), Protocol::OpenaiChat, Some("gpt-image-2")).unwrap();
        let asked = Asked {
            body: body.as_bytes(),
            head: &head,
            edit,
            stream: head.stream,
            upstream,
            model: &head.model,
        };
        read_request(&asked, losses)
    }

    #[test]
    fn a_prompt_becomes_a_call_of_the_tool() {
        let mut losses = Losses::default();
        let request = read(
            r#"{"prompt":"a cube","n":1,"size":"1024x1024","partial_images":2,"response_format":"url","user":"u","style":"vivid"}"#,
            false,
            Protocol::OpenaiResponses,
            &mut losses,
        )
        .unwrap();
        assert_eq!(
            request.tools,
            [Tool::Builtin(Builtin::ImageGeneration(RawJson(
                r#"{"type":"image_generation","action":"generate","model":"gpt-image-2","size":"1024x1024"}"#
                    .into()
            )))]
        );
        assert_eq!(request.turns, [Turn::new(Role::User, vec![Part::Text(Text::plain("a cube"))])]);
        let echo: Vec<_> = request.echo.iter().map(|(key, raw)| (*key, raw.as_str())).collect();
        assert_eq!(echo, [("size", "\"1024x1024\""), ("response_format", "\"url\"")]);
        assert_eq!(losses.to_string(), "setting style");
    }

    #[test]
    fn p185_pictures_and_mask_keep_their_order() {
        let body = r#"{"prompt":"x","images":[{"image_url":"https://x/a"},"data:image\/gif;base64,R0lG",{"file_id":"file_1"}],"mask":{"image_url":{"url":"https://x/m"}}}"#;
        let request = read(body, true, Protocol::OpenaiResponses, &mut Losses::default()).unwrap();
        let sources: Vec<_> = request.turns[0].parts[1..]
            .iter()
            .map(|part| if let Part::Image(image) = part { url(&image.source) } else { String::new() })
            .collect();
        assert_eq!(sources, ["https://x/a", "data:image/gif;base64,R0lG", "file_1"]);
        let Tool::Builtin(Builtin::ImageGeneration(raw)) = &request.tools[0] else { panic!() };
        assert!(raw.as_str().contains(r#""action":"edit""#), "{raw:?}");
        assert!(raw.as_str().ends_with(r#""input_image_mask":{"image_url":"https://x/m"}}"#), "{raw:?}");
    }

    #[test]
    fn what_an_upstream_cannot_do_is_refused_by_name() {
        for (body, edit, upstream, says) in [
            (r#"{"n":1}"#, false, Protocol::Gemini, "prompt: required"),
            (r#"{"prompt":"x","n":2}"#, false, Protocol::Gemini, "n: this upstream draws one"),
            (r#"{"prompt":"x","n":2}"#, false, Protocol::OpenaiResponses, "n: this upstream draws one"),
            (r#"{"prompt":"x","image":"a"}"#, false, Protocol::Gemini, "image: send pictures to"),
            (r#"{"prompt":"x"}"#, true, Protocol::Gemini, "image: required"),
            (r#"{"prompt":"x","image":"https://x","mask":"https://y"}"#, true, Protocol::Gemini, "mask: "),
            (r#"{"prompt":"x","model":"imagen-4"}"#, false, Protocol::Gemini, "model: Imagen"),
            (r#"{"prompt":"x","response_format":"png"}"#, false, Protocol::Gemini, "response_format: "),
            (r#"{"prompt":"x","image":{}}"#, true, Protocol::Gemini, "image.image_url: required"),
        ] {
            let error = read(body, edit, upstream, &mut Losses::default()).unwrap_err().to_string();
            assert!(error.starts_with(says), "{body}: {error}");
        }
    }

    #[test]
    fn gemini_draws_without_a_tool() {
        let mut losses = Losses::default();
        let body = r#"{"prompt":"x","size":"1024x1024","quality":"high","partial_images":1}"#;
        let request = read(body, false, Protocol::Gemini, &mut losses).unwrap();
        assert_eq!(
            (request.modalities.as_slice(), request.tools.len()),
            (&["text".into(), "image".into()][..], 0)
        );
        assert_eq!(losses.to_string(), "setting quality, setting partial_images");
    }
}
