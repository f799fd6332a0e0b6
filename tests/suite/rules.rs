//! What the operator's rules change on the way: `payload`, `force-mapping`, `fallback-models`.

use crate::shared::{
    CHAT, CLAUDE, FORMATS, RESPONSES, all_kinds, chat_keys, events, good, proxy, stream, text_of,
    wants_stream, whole,
};
use testkit::proxy::{KEY, Proxy};
use testkit::upstream::{Seen, Step, Upstream, chunk, chunk_end, json, stream_head};

fn last(upstream: &Upstream) -> Seen {
    upstream.seen().pop().expect("a request")
}

#[test]
fn payload_rules_change_the_bytes_of_the_same_format_and_nothing_else() {
    let upstream = good();
    let rules = r#"payload:
  default:
    - models: [{name: "m"}]
      params: {temperature: 0.5, top_p: 0.25}
  default-raw:
    - models: [{name: "*"}]
      params: {top_p: "1.0", response_format: "{\"type\": \"json_object\"}"}
  override:
    - models: [{name: "m", protocol: openai, from-protocol: openai, match: {"messages.0.role": user}}]
      params: {user: fixed, "messages.#(role==\"user\")#.name": u}
    - models: [{name: "m", headers: {x-team: "blue*"}}]
      params: {service_tier: flex}
  override-raw:
    - models: [{name: "other"}]
      params: {never: "1"}
  filter:
    - models: [{name: "*", exist: [seed]}]
      params: [seed, "tools.0"]
"#;
    let proxy = proxy(&format!("{}{rules}", chat_keys(&upstream.url(), &["k"])));
    let body = r#"{ "temperature" : 0.70, "model":"m",  "messages" : [ {"role":"user","content":"a  b"} ,{"role":"assistant","content":"é"}],"seed":7 ,"user" :"x", "tools":[{"type":"function","function":{"name":"a"}}, {"type":"function","function":{"name":"b","parameters":{"x":1.0}}}] }"#;
    let mut client = proxy.connect();
    let headers = [("authorization", &*format!("Bearer {KEY}")), ("X-Team", "blue-1")];
    client.post(CHAT.path, &headers, body);
    assert_eq!(client.answer().head.status, 200);
    let expected = body
        .replace(r#""user" :"x""#, r#""user" :"fixed""#)
        .replace(r#"{"role":"user","#, r#"{"name":"u","role":"user","#)
        .replace(r#""seed":7 ,"#, "")
        .replace(r#"{"type":"function","function":{"name":"a"}}, "#, "")
        .replacen(
            "{ ",
            r#"{"service_tier":"flex","response_format":{"type": "json_object"},"top_p":0.25, "#,
            1,
        );
    assert_eq!(String::from_utf8_lossy(&last(&upstream).body), expected);
}

#[test]
fn payload_rules_apply_to_translated_bodies_of_every_kind_of_upstream() {
    let upstream = good();
    let rules = r#"payload:
  override:
    - models: [{name: "*", protocol: openai}]
      params: {mark: chat}
    - models: [{name: "*", protocol: codex}]
      params: {mark: codex}
    - models: [{name: "*", protocol: claude}]
      params: {mark: claude, max_tokens: 7}
    - models: [{name: "*", protocol: gemini}]
      params: {mark: gemini, generationConfig.thinkingConfig.thinkingBudget: 0}
    - models: [{name: "*/m", from-protocol: responses}]
      params: {from: responses}
"#;
    let proxy = proxy(&format!("{}{rules}", all_kinds(&upstream.url())));
    for (kind, mark) in [("chat", "chat"), ("responses", "codex"), ("claude", "claude"), ("gemini", "gemini")]
    {
        for format in &FORMATS {
            for stream in [false, true] {
                let model = format!("{kind}/m");
                let target = format.target(&model.replace('/', "%2F"), stream);
                let answer = proxy.post(&target, &format.body(&model, stream));
                assert_eq!(text_of(format, &answer.text()), "Hello", "{}", answer.text());
                let sent = last(&upstream).json();
                let case = format!("{} client, {kind} upstream: {sent}", format.name);
                assert_eq!(sent["mark"], mark, "{case}");
                assert_eq!(sent["from"] == "responses", format.name == "responses", "{case}");
                match kind {
                    "claude" => assert_eq!(sent["max_tokens"], 7, "{case}"),
                    "gemini" => {
                        assert_eq!(sent["generationConfig"]["thinkingConfig"]["thinkingBudget"], 0, "{case}");
                    }
                    _ => {}
                }
            }
        }
    }
    let count = proxy.post("/v1/messages/count_tokens", &CLAUDE.body("claude/m", false));
    let sent = last(&upstream);
    assert!(sent.path.ends_with("/count_tokens"), "{} {}", sent.path, count.text());
    assert!(sent.json().get("mark").is_none(), "a count takes no parameters of an answer");
}

#[test]
fn force_mapping_shows_the_name_that_was_asked_and_without_it_the_upstreams() {
    let upstream = good();
    let url = upstream.url();
    let models = "models: [{name: m, alias: shown, force-mapping: true}, {name: m, alias: plain}]";
    let config = format!(
        "openai-compatibility:\n  - {{name: c, prefix: chat, base-url: {url}/chat/v1, api-key-entries: [{{api-key: k}}], {models}}}\n\
         codex-api-key:\n  - {{api-key: k, prefix: responses, base-url: {url}/responses, {models}}}\n\
         claude-api-key:\n  - {{api-key: k, prefix: claude, base-url: {url}/claude, {models}}}\n\
         gemini-api-key:\n  - {{api-key: k, prefix: gemini, base-url: {url}/gemini, {models}}}\n"
    );
    let proxy = proxy(&config);
    for kind in ["chat", "responses", "claude", "gemini"] {
        for format in &FORMATS {
            for stream in [false, true] {
                for (alias, expected) in [("shown", format!("{kind}/shown")), ("plain", "m".to_owned())] {
                    let model = format!("{kind}/{alias}");
                    let answer = proxy.post(
                        &format.target(&model.replace('/', "%2F"), stream),
                        &format.body(&model, stream),
                    );
                    let names = model_names(&answer.text());
                    let case = format!("{} client, {model}, stream {stream}: {}", format.name, answer.text());
                    assert!(!names.is_empty(), "{case}");
                    assert!(names.iter().all(|name| *name == expected), "{names:?} {case}");
                }
            }
        }
    }
}

/// All names of models in an answer, whole or streamed.
fn model_names(text: &str) -> Vec<String> {
    let documents = text.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    let mut names = Vec::new();
    for document in documents.filter(|line| line.starts_with('{')) {
        let value: serde_json::Value = serde_json::from_str(document).expect("JSON");
        for pointer in ["/model", "/modelVersion", "/message/model", "/response/model"] {
            names.extend(value.pointer(pointer).and_then(|name| name.as_str()).map(str::to_owned));
        }
    }
    names
}

/// Models a, b, c of one provider; `a` falls back to `b`, then `c`.
fn falling_back(upstream: &Upstream) -> Proxy {
    let models = "models: [{name: a}, {name: b, force-mapping: true}, {name: c}]";
    proxy(&format!(
        "fallback-models: {{a: [b, c], gone: [c]}}\nopenai-compatibility:\n  - {{name: up, base-url: {}/v1, api-key-entries: [{{api-key: k1}}, {{api-key: k2}}], {models}}}\n",
        upstream.url()
    ))
}

/// An upstream that answers well, but for the models in `bad`.
fn bad_models(bad: &'static [(&'static str, u16, &'static str)]) -> Upstream {
    Upstream::start(move |seen| {
        let body = seen.json();
        let found = bad.iter().find(|(model, _, _)| body["model"] == *model);
        match found {
            Some((_, status, body)) => vec![json(*status, body)],
            None if wants_stream(seen) => stream(&seen.path),
            None => whole(&seen.path),
        }
    })
}

fn asked_models(upstream: &Upstream) -> Vec<String> {
    let name = |seen: &Seen| seen.json()["model"].as_str().unwrap_or_default().to_owned();
    upstream.seen().iter().map(name).collect()
}

const UNSUPPORTED: &str =
    r#"{"error":{"message":"no","code":"model_not_supported","type":"invalid_request_error"}}"#;
const UNKNOWN: &str = r#"{"error":{"message":"no","code":"model_not_found","type":"invalid_request_error"}}"#;

#[test]
fn row_79_a_model_that_the_account_may_not_use_is_replaced_once_all_credentials_have_said_so() {
    let upstream = bad_models(&[("a", 400, UNSUPPORTED)]);
    let proxy = falling_back(&upstream);
    for (format, stream) in [(&CHAT, false), (&CHAT, true), (&CLAUDE, true), (&RESPONSES, false)] {
        let answer = proxy.post(format.path, &format.body("a", stream));
        assert_eq!((answer.head.status, &*text_of(format, &answer.text())), (200, "Hello"));
        assert_eq!(answer.head.header("x-fallback-model"), Some("b"));
        assert!(model_names(&answer.text()).iter().all(|name| name == "a"), "{}", answer.text());
    }
    assert_eq!(asked_models(&upstream), ["a", "a", "b", "b", "b", "b"], "a rests after both refused");
    let answer = proxy.post(CHAT.path, &CHAT.body("b", false));
    assert_eq!(answer.head.header("x-fallback-model"), None);
    assert!(proxy.log().contains("fallback: a cannot serve"), "{}", proxy.log());
}

#[test]
fn row_171_other_credentials_come_before_other_models_and_models_that_fail_are_passed_on() {
    let upstream = bad_models(&[("a", 429, "{}"), ("b", 404, UNKNOWN)]);
    let proxy = falling_back(&upstream);
    let answer = proxy.post(CHAT.path, &CHAT.body("a", false));
    assert_eq!((answer.head.status, answer.head.header("x-fallback-model")), (200, Some("c")));
    assert_eq!(asked_models(&upstream), ["a", "a", "b", "b", "c"]);
    // All of them rest: the client is told about the model that it asked for.
    let upstream =
        bad_models(&[("a", 429, "{}"), ("b", 404, UNKNOWN), ("c", 400, r#"{"error":{"message":"odd"}}"#)]);
    let proxy = falling_back(&upstream);
    for _ in 0..2 {
        let answer = proxy.post(CHAT.path, &CHAT.body("a", false));
        assert_eq!(
            (answer.head.status, answer.head.header("x-fallback-model")),
            (429, None),
            "{}",
            answer.text()
        );
    }
}

#[test]
fn a_fallback_serves_for_a_name_that_nobody_lists() {
    let upstream = good();
    let proxy = falling_back(&upstream);
    let compact = proxy.post("/v1/responses/compact", &RESPONSES.body("gone", false));
    assert_eq!(compact.head.status, 501, "{}", compact.text());
    let answer = proxy.post(CHAT.path, &CHAT.body("gone", false));
    assert_eq!((answer.head.status, answer.head.header("x-fallback-model")), (200, Some("c")));
    assert_eq!(proxy.post(CHAT.path, &CHAT.body("other", false)).head.status, 404);
}

#[test]
fn the_requests_own_faults_are_not_tried_with_other_models() {
    let upstream = bad_models(&[("a", 400, r#"{"error":{"message":"bad","type":"invalid_request_error"}}"#)]);
    let proxy = falling_back(&upstream);
    assert_eq!(proxy.post(CHAT.path, &CHAT.body("a", false)).head.status, 400);
    assert_eq!(asked_models(&upstream), ["a"]);
}

#[test]
fn row_75_an_answer_without_content_is_replaced_before_the_client_has_seen_anything() {
    const THOUGHT: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"a","choices":[{"index":0,"message":{"role":"assistant","content":"","reasoning_content":"only thinking"},"finish_reason":"stop"}]}"#;
    const CALL: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"a","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":""}}]},"finish_reason":"tool_calls"}]}"#;
    const FILTERED: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"a","choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"content_filter"}]}"#;
    let upstream = bad_models(&[("a", 200, THOUGHT)]);
    let proxy = falling_back(&upstream);
    for format in [&CHAT, &CLAUDE] {
        let answer = proxy.post(format.path, &format.body("a", false));
        assert_eq!(text_of(format, &answer.text()), "Hello");
        assert_eq!(answer.head.header("x-fallback-model"), Some("b"));
    }
    assert_eq!(asked_models(&upstream), ["a", "b", "a", "b"], "the model itself is in order");
    assert!(proxy.log().contains("empty content") && proxy.log().contains("finish_reason=\"end\""));
    // Calls are content, filtered answers are answers; and without a fallback the thought is better than nothing.
    for (body, model, says) in
        [(CALL, "a", "tool_calls"), (FILTERED, "a", "content_filter"), (THOUGHT, "c", "only thinking")]
    {
        let upstream = Upstream::start(move |_| vec![json(200, body)]);
        let proxy = falling_back(&upstream);
        let answer = proxy.post(CHAT.path, &CHAT.body(model, false));
        assert_eq!((answer.head.status, answer.head.header("x-fallback-model")), (200, None), "{body}");
        assert!(answer.text().contains(says), "{}", answer.text());
        assert_eq!(upstream.seen().len(), 1);
    }
}

#[test]
fn a_stream_that_has_begun_is_never_replaced() {
    let upstream = Upstream::start(|seen| {
        if seen.json()["model"] != "a" {
            return stream(&seen.path);
        }
        let piece = r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"a","choices":[{"index":0,"delta":{"role":"assistant","reasoning_content":"hm"},"finish_reason":null}]}"#;
        let end = r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        vec![
            stream_head(),
            chunk(&format!("{piece}\n\n")),
            Step::Sleep(std::time::Duration::from_millis(300)),
            chunk(&format!("{end}\n\ndata: [DONE]\n\n")),
            chunk_end(),
        ]
    });
    let proxy = falling_back(&upstream);
    let answer = proxy.post(CHAT.path, &CHAT.body("a", true));
    assert!(answer.text().contains("\"hm\"") && answer.text().contains("[DONE]"), "{}", answer.text());
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn row_60_a_model_that_is_asked_for_whole_answers_only_still_streams_to_clients() {
    let upstream = good();
    let overrides = "model-overrides: [{match: '*/m', force-non-stream: true}]\n";
    let proxy = proxy(&format!("{}{overrides}", all_kinds(&upstream.url())));
    for kind in ["chat", "claude", "gemini"] {
        for format in &FORMATS {
            let model = format!("{kind}/m");
            let target = format.target(&model.replace('/', "%2F"), true);
            let answer = proxy.post(&target, &format.body(&model, true));
            let case = format!("{} client, {kind} upstream: {}", format.name, answer.text());
            assert_eq!(text_of(format, &answer.text()), "Hello", "{case}");
            assert!(answer.text().starts_with("data:") || answer.text().starts_with("event:"), "{case}");
            let seen = last(&upstream);
            assert!(!wants_stream(&seen) && seen.json().get("stream_options").is_none(), "{case}");
        }
    }
}

#[test]
fn what_the_operator_says_of_a_model_wins_over_the_catalogue() {
    let upstream = good();
    let config = format!(
        "claude-api-key: [{{api-key: k, base-url: '{}/claude'}}]\n\
         model-overrides:\n  - {{match: claude-sonnet-4-6, max-output-tokens: 4321}}\n  - {{match: 'claude-opus-*', thinking: {{}}}}\n",
        upstream.url()
    );
    let proxy = proxy(&config);
    // Claude wants a limit; a client that says none gets the model's.
    proxy.post(CHAT.path, &CHAT.body("claude-sonnet-4-6", false));
    assert_eq!(last(&upstream).json()["max_tokens"], 4321);
    let body = CHAT
        .body("claude-opus-4-6", false)
        .replace("\"messages\"", "\"reasoning_effort\":\"high\",\"messages\"");
    proxy.post(CHAT.path, &body);
    let sent = last(&upstream).json();
    assert!(sent.get("thinking").is_none() && sent.get("output_config").is_none(), "{sent}");
}

#[test]
fn row_101_the_usage_of_a_responses_stream_is_where_that_of_a_whole_answer_is() {
    const USAGE: &str = r#""tools":[],"usage":{"input_tokens":3,"output_tokens":2,"total_tokens":5}"#;
    let upstream = Upstream::start(|seen| match (seen.path.starts_with("/responses"), wants_stream(seen)) {
        (true, _) => {
            let ended = |event: &String| event.contains("event: response.completed");
            let with_usage = |event: &String| event.replace(r#""tools":[]"#, USAGE);
            let all = events(&seen.path);
            let all = all.iter().map(|event| if ended(event) { with_usage(event) } else { event.clone() });
            let all: String = all.collect();
            vec![stream_head(), chunk(&all), chunk_end()]
        }
        (false, true) => stream(&seen.path),
        (false, false) => whole(&seen.path),
    });
    let proxy = proxy(&all_kinds(&upstream.url()));
    for kind in ["responses", "claude"] {
        let model = format!("{kind}/m");
        let usage = |text: &str| {
            let lines = text.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
            let documents = lines.filter(|line| line.starts_with('{'));
            let mut found = documents.filter_map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
                value.get("usage").filter(|usage| !usage.is_null()).map(|usage| usage["total_tokens"].clone())
            });
            found.next_back()
        };
        let whole = proxy.post(RESPONSES.path, &RESPONSES.body(&model, false)).text();
        let streamed = proxy.post(RESPONSES.path, &RESPONSES.body(&model, true)).text();
        assert_eq!(usage(&whole), Some(5.into()), "{kind}: {whole}");
        assert_eq!(usage(&streamed), Some(5.into()), "{kind}: {streamed}");
    }
}

#[test]
fn row_126_sparse_results_of_calls_reach_the_upstream_with_content() {
    let upstream = good();
    let proxy = proxy(&all_kinds(&upstream.url()));
    for kind in ["claude", "chat", "responses"] {
        for content in ["", r#","content":null"#, r#","content":[]"#, r#","content":"ok""#] {
            let body = format!(
                r#"{{"model":"{kind}/m","max_tokens":10,"messages":[{{"role":"user","content":"x"}},{{"role":"assistant","content":[{{"type":"tool_use","id":"t1","name":"f","input":{{}}}}]}},{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t1"{content}}}]}}]}}"#
            );
            let answer = proxy.post(CLAUDE.path, &body);
            assert_eq!(answer.head.status, 200, "{kind} {content}: {}", answer.text());
            let sent = last(&upstream).json();
            let result = match kind {
                "claude" => &sent["messages"][2]["content"][0]["content"],
                "chat" => &sent["messages"][2]["content"],
                _ => &sent["input"][2]["output"],
            };
            assert!(result.is_string() || result.is_array(), "{kind} {content}: {sent}");
        }
    }
}

#[test]
fn row_116_the_log_goes_to_files_and_says_what_became_of_thinking() {
    let upstream = good();
    let config = "debug: true\nlogging-to-file: true\n";
    let proxy = proxy(&format!("{config}{}", all_kinds(&upstream.url())));
    let body =
        CHAT.body("gemini/m", false).replace("\"messages\"", "\"reasoning_effort\":\"low\",\"messages\"");
    assert_eq!(proxy.post(CHAT.path, &body).head.status, 200);
    let file = proxy.folder().join("logs/main.log");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    while !read().contains("\"status_code\":200") {
        assert!(std::time::Instant::now() < end, "{}", read());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let log = read();
    for phrase in ["thinking: original config from request", "thinking: processed config to apply"] {
        assert!(log.lines().any(|line| line.contains(phrase) && line.contains("mode=")), "{log}");
    }
    assert!(!proxy.log().contains("status_code"), "not on standard output as well");
}
