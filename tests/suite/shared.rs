//! Configurations, requests and answers that several tests use.

use testkit::proxy::Proxy;
use testkit::upstream::{Step, Upstream, chunk, chunk_end, json, stream_head};

/// The four client formats: path, streaming path, body with `MODEL` in it.
pub(crate) struct Format {
    pub name: &'static str,
    pub path: &'static str,
    pub stream_path: &'static str,
    body: &'static str,
}

pub(crate) const CHAT: Format = Format {
    name: "chat",
    path: "/v1/chat/completions",
    stream_path: "/v1/chat/completions",
    body: r#"{"model":"MODEL","messages":[{"role":"user","content":"hi"}]STREAM}"#,
};
pub(crate) const RESPONSES: Format = Format {
    name: "responses",
    path: "/v1/responses",
    stream_path: "/v1/responses",
    body: r#"{"model":"MODEL","input":"hi"STREAM}"#,
};
pub(crate) const CLAUDE: Format = Format {
    name: "claude",
    path: "/v1/messages",
    stream_path: "/v1/messages",
    body: r#"{"model":"MODEL","max_tokens":99,"messages":[{"role":"user","content":"hi"}]STREAM}"#,
};
pub(crate) const GEMINI: Format = Format {
    name: "gemini",
    path: "/v1beta/models/MODEL:generateContent",
    stream_path: "/v1beta/models/MODEL:streamGenerateContent?alt=sse",
    body: r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#,
};
pub(crate) const FORMATS: [Format; 4] = [CHAT, RESPONSES, CLAUDE, GEMINI];

impl Format {
    pub(crate) fn target(&self, model: &str, stream: bool) -> String {
        let path = if stream { self.stream_path } else { self.path };
        path.replace("MODEL", model)
    }

    pub(crate) fn body(&self, model: &str, stream: bool) -> String {
        self.body.replace("MODEL", model).replace("STREAM", if stream { r#","stream":true"# } else { "" })
    }
}

/// The four kinds of upstreams at `url`, each with one key; model `m` under the kind's prefix.
pub(crate) fn all_kinds(url: &str) -> String {
    format!(
        "openai-compatibility:\n  - name: chat\n    prefix: chat\n    base-url: {url}/chat/v1\n    api-key-entries: [{{api-key: up-chat}}]\n    models: [{{name: m, alias: m}}]\n\
         codex-api-key:\n  - api-key: up-responses\n    prefix: responses\n    base-url: {url}/responses\n    models: [{{name: m, alias: m}}]\n\
         claude-api-key:\n  - api-key: up-claude\n    prefix: claude\n    base-url: {url}/claude\n    models: [{{name: m, alias: m}}]\n\
         gemini-api-key:\n  - api-key: up-gemini\n    prefix: gemini\n    base-url: {url}/gemini\n    models: [{{name: m, alias: m}}]\n"
    )
}

/// Chat credentials with these keys at `url`; model `m`.
pub(crate) fn chat_keys(url: &str, keys: &[&str]) -> String {
    let entries: Vec<_> = keys.iter().map(|key| format!("{{api-key: {key}}}")).collect();
    format!(
        "openai-compatibility:\n  - name: up\n    base-url: {url}/v1\n    api-key-entries: [{}]\n    models: [{{name: m, alias: m}}]\n",
        entries.join(", ")
    )
}

/// The events of a short answer in the format of the upstream that `path` names.
pub(crate) fn events(path: &str) -> Vec<String> {
    let sse = |name: &str, data: &str| {
        if name.is_empty() { format!("data: {data}\n\n") } else { format!("event: {name}\ndata: {data}\n\n") }
    };
    if path.starts_with("/chat") || path.starts_with("/v1/chat") {
        let piece = |delta: &str, finish: &str| {
            sse(
                "",
                &format!(
                    r#"{{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#
                ),
            )
        };
        vec![
            piece(r#"{"role":"assistant","content":"Hel"}"#, "null"),
            piece(r#"{"content":"lo"}"#, "null"),
            piece("{}", r#""stop""#),
            "data: [DONE]\n\n".to_owned(),
        ]
    } else if path.starts_with("/responses") {
        let response = |status: &str, output: &str| {
            format!(
                r#"{{"id":"resp_1","object":"response","created_at":1,"status":"{status}","model":"m","output":{output},"parallel_tool_calls":true,"tool_choice":"auto","tools":[]}}"#
            )
        };
        let item = |status: &str, content: &str| {
            format!(
                r#"{{"id":"msg_1","type":"message","role":"assistant","status":"{status}","content":{content}}}"#
            )
        };
        let text = r#"[{"type":"output_text","text":"Hello","annotations":[]}]"#;
        let event = |name: &str, rest: String| {
            sse(name, &format!(r#"{{"type":"{name}","sequence_number":0,{rest}}}"#))
        };
        let at = r#""item_id":"msg_1","output_index":0,"content_index":0"#;
        vec![
            event("response.created", format!(r#""response":{}"#, response("in_progress", "[]"))),
            event(
                "response.output_item.added",
                format!(r#""output_index":0,"item":{}"#, item("in_progress", "[]")),
            ),
            event(
                "response.content_part.added",
                format!(r#"{at},"part":{{"type":"output_text","text":"","annotations":[]}}"#),
            ),
            event("response.output_text.delta", format!(r#"{at},"delta":"Hel","logprobs":[]"#)),
            event("response.output_text.delta", format!(r#"{at},"delta":"lo","logprobs":[]"#)),
            event("response.output_text.done", format!(r#"{at},"text":"Hello","logprobs":[]"#)),
            event(
                "response.output_item.done",
                format!(r#""output_index":0,"item":{}"#, item("completed", text)),
            ),
            event(
                "response.completed",
                format!(r#""response":{}"#, response("completed", &format!("[{}]", item("completed", text)))),
            ),
        ]
    } else if path.starts_with("/claude") {
        vec![
            sse(
                "message_start",
                r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":1}}}"#,
            ),
            sse(
                "content_block_start",
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            ),
            sse(
                "content_block_delta",
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}"#,
            ),
            sse(
                "content_block_delta",
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo"}}"#,
            ),
            sse("content_block_stop", r#"{"type":"content_block_stop","index":0}"#),
            sse(
                "message_delta",
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":2}}"#,
            ),
            sse("message_stop", r#"{"type":"message_stop"}"#),
        ]
    } else {
        let piece = |text: &str, finish: &str| {
            sse(
                "",
                &format!(
                    r#"{{"candidates":[{{"content":{{"role":"model","parts":[{{"text":"{text}"}}]}},"index":0{finish}}}],"usageMetadata":{{"promptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":5}},"modelVersion":"m","responseId":"r"}}"#
                ),
            )
        };
        vec![piece("Hel", ""), piece("lo", r#","finishReason":"STOP""#)]
    }
}

/// A whole answer in the format of the upstream that `path` names; the Responses upstream always streams.
pub(crate) fn whole(path: &str) -> Vec<Step> {
    if path.starts_with("/chat") || path.starts_with("/v1/chat") {
        vec![json(
            200,
            r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
        )]
    } else if path.starts_with("/responses") {
        stream(path)
    } else if path.starts_with("/claude") {
        vec![json(
            200,
            r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"Hello"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":2}}"#,
        )]
    } else {
        vec![json(
            200,
            r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"Hello"}]},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":5},"modelVersion":"m","responseId":"r"}"#,
        )]
    }
}

/// The answer as a stream.
pub(crate) fn stream(path: &str) -> Vec<Step> {
    let mut steps = vec![stream_head()];
    steps.extend(events(path).iter().map(|event| chunk(event)));
    steps.push(chunk_end());
    steps
}

/// An upstream that answers well in any format.
pub(crate) fn good() -> Upstream {
    Upstream::start(|seen| if wants_stream(seen) { stream(&seen.path) } else { whole(&seen.path) })
}

/// Whether a request wants events.
pub(crate) fn wants_stream(seen: &testkit::upstream::Seen) -> bool {
    seen.path.contains("streamGenerateContent") || seen.json()["stream"] == true
}

/// The proxy with this configuration.
pub(crate) fn proxy(config: &str) -> Proxy {
    Proxy::start(env!("CARGO_BIN_EXE_cliproxy"), config)
}

/// The proxy with this configuration and these variables of the environment.
pub(crate) fn proxy_in(config: &str, variables: &[(&str, &str)]) -> Proxy {
    Proxy::start_in(env!("CARGO_BIN_EXE_cliproxy"), config, &[], variables)
}

/// A proxy with files in its folder of accounts.
pub(crate) fn proxy_with_accounts(config: &str, accounts: &[(&str, &str)]) -> Proxy {
    Proxy::start_with(env!("CARGO_BIN_EXE_cliproxy"), config, accounts)
}

/// All visible text of an answer in `format`, whole or streamed.
pub(crate) fn text_of(format: &Format, body: &str) -> String {
    let documents: Vec<serde_json::Value> = if body.trim_start().starts_with('{') {
        vec![serde_json::from_str(body).expect("JSON")]
    } else {
        body.lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).expect("JSON"))
            .collect()
    };
    let text = |value: &serde_json::Value, pointer: &str| {
        value.pointer(pointer).and_then(|v| v.as_str()).unwrap_or_default().to_owned()
    };
    documents
        .iter()
        .map(|document| match format.name {
            "chat" => {
                text(document, "/choices/0/message/content") + &text(document, "/choices/0/delta/content")
            }
            "responses" if document["type"] == "response.output_text.delta" => text(document, "/delta"),
            "responses" if document["object"] == "response" => text(document, "/output/0/content/0/text"),
            "claude" => text(document, "/content/0/text") + &text(document, "/delta/text"),
            "gemini" => text(document, "/candidates/0/content/parts/0/text"),
            _ => String::new(),
        })
        .collect()
}
