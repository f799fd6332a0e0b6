//! What a vector says, and the request and the answer that it stands for.
//!
//! Enters: files. Leaves: [`Vector`]s, and their bodies as bytes. May go wrong: a file that is no vector.

use super::{expand, value};
use base64::Engine;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// One vector. Members that only document where it comes from are not read.
#[derive(Clone, Debug, Deserialize)]
pub struct Vector {
    /// Unique; the file's name without `.json`.
    pub id: String,
    /// What is tested, in a few words.
    pub title: String,
    /// What is tested: "given …, must …".
    pub pitfall: String,
    /// Format of what goes in.
    pub from: String,
    /// Format of what comes out.
    pub to: String,
    /// The upstream's model name, possibly with a thinking suffix `name(value)`.
    pub model: String,
    /// What goes in and what comes out.
    pub kind: Kind,
    /// Whether the expectation is an opinion.
    pub level: Level,
    /// Endpoint of the client.
    #[serde(default)]
    pub operation: Operation,
    /// Whether the client of a request wants events.
    #[serde(default)]
    pub stream: bool,
    /// What goes in; its type depends on the kind.
    pub input: Value,
    /// How the input of a stream is framed, where that is not SSE.
    #[serde(default)]
    pub input_form: Option<Form>,
    /// The same input as a binary stream.
    #[serde(default)]
    pub input_base64: Option<String>,
    /// The client's request that led to an answer.
    #[serde(default)]
    pub request: Option<Value>,
    /// WebSocket: the upstream's answers in order.
    #[serde(default)]
    pub upstream: Vec<Value>,
    /// Status of an upstream's answer that is an error.
    #[serde(default)]
    pub upstream_status: Option<u16>,
    /// Whether `SHORTENED` in the input stands for the first tool's name in the translated request.
    #[serde(default)]
    pub name_from_request: bool,
    /// What must hold of the output.
    pub expect: Expect,
    /// Which of several defensible behaviours is expected.
    #[serde(default)]
    pub choice: Option<String>,
}

/// What goes in and what comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A client's body → the upstream's body.
    Request,
    /// An upstream's body → the client's body.
    Response,
    /// An upstream's stream → the client's stream.
    Stream,
    /// A client's WebSocket frames → upstream bodies and frames back.
    Ws,
}

impl Kind {
    /// The word in the vector.
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
            Self::Stream => "stream",
            Self::Ws => "ws",
        }
    }
}

/// Weight of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Follows from the official schema, or from not losing content.
    Must,
    /// A recommendation.
    Should,
}

/// Endpoint of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Operation {
    /// The format's own.
    #[default]
    #[serde(rename = "generate")]
    Generate,
    /// Claude `count_tokens`, Gemini `countTokens`.
    #[serde(rename = "count_tokens")]
    CountTokens,
    /// Responses `compact`.
    #[serde(rename = "compact")]
    Compact,
    /// Images `edits`.
    #[serde(rename = "images.edits")]
    ImageEdits,
}

/// Framing of an upstream's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Lines of SSE.
    Sse,
    /// AWS event-stream frames.
    Frames,
}

/// What must hold of an output.
#[derive(Clone, Debug, Deserialize)]
pub struct Expect {
    /// Assertions, all of which must hold.
    #[serde(default)]
    pub assert: Vec<Value>,
    /// Prefixes of rules that do not apply.
    #[serde(default)]
    pub skip_rules: Vec<String>,
    /// A refusal that is accepted or required.
    #[serde(default)]
    pub reject: Option<Reject>,
}

/// A refusal.
#[derive(Clone, Debug, Deserialize)]
pub struct Reject {
    /// Statuses that will do.
    pub status: Vec<u16>,
    /// Whether a translated request will do as well.
    #[serde(default)]
    pub optional: bool,
}

impl Vector {
    /// Format of the client.
    pub fn client(&self) -> &str {
        match self.kind {
            Kind::Request | Kind::Ws => &self.from,
            Kind::Response | Kind::Stream => &self.to,
        }
    }

    /// Format of the upstream.
    pub fn upstream_format(&self) -> &str {
        match self.kind {
            Kind::Request | Kind::Ws => &self.to,
            Kind::Response | Kind::Stream => &self.from,
        }
    }

    /// Whether the client gets events.
    pub fn client_streams(&self) -> bool {
        match self.kind {
            Kind::Request => self.stream,
            Kind::Response => false,
            Kind::Stream | Kind::Ws => true,
        }
    }

    /// The client's request as JSON text: the input, the request of an answer, or the format's default. Model
    /// and `stream` are filled in where the body has them.
    pub fn client_request(&self) -> Vec<u8> {
        let mut body = match (self.kind, &self.request) {
            (Kind::Request, _) => self.input.clone(),
            (_, Some(request)) => request.clone(),
            (_, None) => default_request(self.client()),
        };
        let in_url = matches!(self.client(), "gemini" | "gemini-cli");
        if let (Value::Object(members), false) = (&mut body, in_url) {
            members.insert("model".to_owned(), json!(self.model));
            if self.client_streams() {
                members.insert("stream".to_owned(), json!(true));
            }
        }
        body.to_string().into_bytes()
    }

    /// The upstream's answer as it would send it. `request` is the body that it got; an upstream that
    /// `streams` gets its whole answer as events.
    pub fn answer(&self, request: &[u8], streams: bool) -> Vec<u8> {
        if let (Some(Form::Frames), Some(frames)) = (self.input_form, &self.input_base64) {
            return base64::engine::general_purpose::STANDARD.decode(frames).unwrap_or_default();
        }
        let input = self.named_input(request);
        match (self.kind, &input) {
            (Kind::Stream, Value::Array(lines)) => {
                lines.iter().flat_map(|line| [value::text(line), "\n"]).collect::<String>().into_bytes()
            }
            (_, whole) if streams && self.operation == Operation::Generate => expand::response_sse(whole),
            (_, whole) => whole.to_string().into_bytes(),
        }
    }

    fn named_input(&self, request: &[u8]) -> Value {
        if !self.name_from_request {
            return self.input.clone();
        }
        let request: Value = serde_json::from_slice(request).unwrap_or_default();
        let name = request.pointer("/tools/0/name").map(value::text).unwrap_or_default();
        serde_json::from_str(&self.input.to_string().replace("SHORTENED", name)).unwrap_or_default()
    }

    /// WebSocket: the upstream's answers in order, each as the stream it would send.
    pub fn upstream_streams(&self) -> Vec<Vec<u8>> {
        self.upstream.iter().map(expand::response_sse).collect()
    }

    /// The client's WebSocket frames as JSON text, with the model filled in where they name one.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        let frame = |frame: &Value| {
            let mut frame = frame.clone();
            if let Some(model) = frame.get_mut("model") {
                *model = json!(self.model);
            }
            frame.to_string().into_bytes()
        };
        value::elements(&self.input).iter().map(frame).collect()
    }
}

/// What a client asks when a vector does not say.
fn default_request(client: &str) -> Value {
    match client {
        "openai" => json!({"model": "x", "messages": [{"role": "user", "content": "hi"}]}),
        "claude" => {
            json!({"model": "x", "max_tokens": 1024, "messages": [{"role": "user", "content": "hi"}]})
        }
        "gemini" => json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}),
        "openai-response" => {
            let content = json!([{"type": "input_text", "text": "hi"}]);
            json!({"model": "x", "input": [{"type": "message", "role": "user", "content": content}]})
        }
        _ => json!({"model": "x", "prompt": "hi"}),
    }
}

/// Reads all vectors of a folder, in the order of their ids.
pub fn load(folder: &Path) -> Result<Vec<Vector>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut vectors = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let vector: Vector =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        if path.file_stem().is_none_or(|stem| stem != vector.id.as_str()) {
            return Err(format!("{}: its id is {}", path.display(), vector.id));
        }
        vectors.push(vector);
    }
    vectors.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(vectors)
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A vector with other members than the usual.
    pub(in super::super) fn vector(more: Value) -> Vector {
        let mut members = json!({
            "id": "v", "title": "t", "pitfall": "p", "from": "openai", "to": "claude", "model": "m", "kind": "request",
            "level": "must", "input": {"model": "x", "messages": []}, "expect": {"assert": []}, "unknown": 1,
        });
        if let (Value::Object(members), Value::Object(more)) = (&mut members, more) {
            members.extend(more);
        }
        serde_json::from_value(members).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::vector;
    use super::*;

    #[test]
    fn all_vectors_of_the_repository_are_read() {
        let vectors = load(&crate::vectors::suite::folder().join("open")).unwrap();
        assert_eq!(vectors.len(), 315);
        assert!(vectors.iter().all(|vector| !vector.expect.assert.is_empty()));
    }

    #[test]
    fn requests_carry_model_and_stream_where_the_format_has_them() {
        let text = |vector: &Vector| String::from_utf8(vector.client_request()).unwrap();
        assert_eq!(text(&vector(json!({"stream": true}))), r#"{"model":"m","messages":[],"stream":true}"#);
        let answer = json!({"kind": "stream", "from": "claude", "to": "gemini", "input": []});
        assert_eq!(text(&vector(answer)), r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#);
        let answer =
            json!({"kind": "response", "from": "claude", "to": "openai", "request": {"messages": [1]}});
        assert_eq!(text(&vector(answer)), r#"{"messages":[1],"model":"m"}"#);
    }

    #[test]
    fn answers_are_lines_bodies_or_events() {
        let text = |vector: &Vector, streams| String::from_utf8(vector.answer(b"{}", streams)).unwrap();
        let lines = vector(json!({"kind": "stream", "input": ["data: 1", ""]}));
        assert_eq!(text(&lines, true), "data: 1\n\n");
        let whole = vector(
            json!({"kind": "response", "from": "codex", "input": {"status": "completed", "output": []}}),
        );
        assert_eq!(text(&whole, false), r#"{"status":"completed","output":[]}"#);
        assert!(text(&whole, true).ends_with("\"response\":{\"status\":\"completed\",\"output\":[]}}\n\n"));
        let frames =
            vector(json!({"kind": "stream", "input_form": "frames", "input": [], "input_base64": "aGk="}));
        assert_eq!(text(&frames, true), "hi");
    }

    #[test]
    fn a_shortened_name_is_filled_in() {
        let named =
            vector(json!({"kind": "response", "name_from_request": true, "input": {"name": "SHORTENED"}}));
        assert_eq!(named.answer(br#"{"tools":[{"name":"n"}]}"#, false), br#"{"name":"n"}"#);
    }
}
