//! What is no conversation: pictures, vectors, sound.

use crate::shared::{CHAT, all_kinds, chat_keys, proxy};
use testkit::client::Answer;
use testkit::proxy::{KEY, Proxy};
use testkit::upstream::{Step, Upstream, chunk, chunk_end, json, stream_head, whole};

const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const GENERATIONS: &str = "/v1/images/generations";

/// A form with a text field and a file of bytes that no parser likes.
fn form() -> Vec<u8> {
    let mut form = b"--b0und\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na cube\r\n--b0und\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b0und\r\nContent-Disposition: form-data; name=\"image[]\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n".to_vec();
    form.extend((0_u8..=255).chain(*b"\r\n--b0un\r\n--b0undx\r\n"));
    form.extend(b"\r\n--b0und--\r\n");
    form
}

fn post_form(proxy: &Proxy, path: &str, form: &[u8]) -> Answer {
    let mut client = proxy.connect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: proxy\r\nauthorization: Bearer {KEY}\r\ncontent-type: multipart/form-data; boundary=b0und\r\ncontent-length: {}\r\n\r\n",
        form.len()
    );
    client.send(&[head.as_bytes(), form].concat());
    client.answer()
}

fn bytes(content_type: &str, body: &[u8]) -> Step {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n", body.len());
    Step::Send([head.as_bytes(), body].concat())
}

fn renamed(url: &str) -> String {
    format!(
        "openai-compatibility:\n  - name: up\n    base-url: {url}/v1\n    api-key-entries: [{{api-key: a}}]\n    models: [{{name: upstream-name, alias: m}}]\n"
    )
}

#[test]
fn p33_pictures_of_the_same_format_pass_but_for_the_model() {
    let answer = format!("{{\"created\" :1, \"data\":[{{\"b64_json\":\"{PNG}\"}}]}}");
    let reply = answer.clone();
    let upstream = Upstream::start(move |_| vec![json(200, &reply)]);
    let proxy = proxy(&renamed(&upstream.url()));
    let body = r#"{ "prompt":"a cube",  "model":"m", "n":2, "unknown":1.0 }"#;
    let got = proxy.post(GENERATIONS, body);
    assert_eq!((got.head.status, got.text()), (200, answer.clone()));
    let seen = upstream.seen().pop().expect("a request");
    assert_eq!(seen.path, "/v1/images/generations");
    assert_eq!(String::from_utf8_lossy(&seen.body), body.replace("\"m\"", "\"upstream-name\""));

    let got = post_form(&proxy, "/v1/images/edits", &form());
    assert_eq!((got.head.status, got.text()), (200, answer));
    let seen = upstream.seen().pop().expect("a request");
    assert_eq!(seen.path, "/v1/images/edits");
    assert_eq!(seen.header("content-type"), Some("multipart/form-data; boundary=b0und"));
    let expected = form();
    let at = expected.windows(5).position(|w| w == b"\r\nm\r\n").expect("the model") + 2;
    assert_eq!(seen.body, [&expected[..at], b"upstream-name", &expected[at + 1..]].concat());
}

#[test]
fn events_with_pictures_of_the_same_format_pass_as_they_come() {
    let event = "event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\"AA\"}\n\n";
    let upstream = Upstream::start(move |_| vec![stream_head(), chunk(event), chunk_end()]);
    let proxy = proxy(&renamed(&upstream.url()));
    let got = proxy.post(GENERATIONS, r#"{"prompt":"x","model":"m","stream":true}"#);
    assert_eq!((got.head.header("content-type"), got.text()), (Some("text/event-stream"), event.to_owned()));
    assert_eq!(upstream.seen()[0].header("accept"), Some("text/event-stream"));
}

/// An upstream of Responses that draws.
fn painter() -> Upstream {
    Upstream::start(|_| {
        let item = format!(
            r#"{{"id":"ig_1","type":"image_generation_call","status":"completed","result":"{PNG}","revised_prompt":"a red cube","size":"1024x1024"}}"#
        );
        let response = |status: &str, output: &str| {
            format!(
                r#"{{"id":"resp_1","object":"response","created_at":7,"status":"{status}","model":"gpt-5.4-mini","output":[{output}],"usage":{{"input_tokens":4,"output_tokens":2}}}}"#
            )
        };
        let events = [
            format!(r#"{{"type":"response.created","response":{}}}"#, response("in_progress", "")),
            format!(
                r#"{{"type":"response.image_generation_call.partial_image","item_id":"ig_1","output_index":0,"partial_image_index":0,"partial_image_b64":"{PNG}"}}"#
            ),
            format!(r#"{{"type":"response.output_item.done","output_index":0,"item":{item}}}"#),
            format!(r#"{{"type":"response.completed","response":{}}}"#, response("completed", &item)),
        ];
        let mut steps = vec![stream_head()];
        steps.extend(events.iter().map(|event| chunk(&format!("data: {event}\n\n"))));
        steps.push(chunk_end());
        steps
    })
}

#[test]
fn codex_draws_by_its_tool() {
    let upstream = painter();
    let proxy = proxy(&format!(
        "codex-api-key:\n  - api-key: k\n    base-url: {}/backend-api/codex\n    models: [{{name: gpt-image-2, alias: gpt-image-2}}]\n",
        upstream.url()
    ));
    let got = proxy.post(GENERATIONS, r#"{"prompt":"a cube","size":"1024x1024"}"#);
    assert_eq!(got.head.status, 200, "{}", got.text());
    let body = got.json();
    assert_eq!((&body["created"], &body["data"][0]["b64_json"]), (&7.into(), &PNG.into()));
    assert_eq!(body["data"][0]["revised_prompt"], "a red cube");
    assert_eq!((&body["size"], &body["usage"]["total_tokens"]), (&"1024x1024".into(), &6.into()));
    let asked = upstream.seen().pop().expect("a request");
    assert!(asked.path.ends_with("/responses"), "{}", asked.path);
    assert_eq!(asked.json()["model"], "gpt-5.4-mini");
    assert_eq!(asked.json()["tool_choice"]["type"], "image_generation");

    let got = post_form(&proxy, "/v1/images/edits", &{
        let form = form();
        let at = form.windows(5).position(|w| w == b"\r\nm\r\n").expect("the model") + 2;
        [&form[..at], b"gpt-image-2", &form[at + 1..]].concat()
    });
    assert_eq!(got.head.status, 200, "{}", got.text());
    let asked = upstream.seen().pop().expect("a request").json();
    assert_eq!(asked["tools"][0]["action"], "edit");
    let picture = asked.pointer("/input/0/content/1/image_url").and_then(|url| url.as_str());
    assert!(picture.is_some_and(|url| url.starts_with("data:image/png;base64,AAECAwQF")), "{asked}");

    let got =
        proxy.post(GENERATIONS, r#"{"prompt":"x","stream":true,"partial_images":1,"response_format":"url"}"#);
    let text = got.text();
    let sketch = text.find("event: image_generation.partial_image\n").expect("a sketch");
    let done = text.find("event: image_generation.completed\n").expect("a picture");
    assert!(sketch < done && text.contains(&format!("\"url\":\"data:image/png;base64,{PNG}\"")), "{text}");
}

#[test]
fn gemini_draws_and_says_when_it_does_not() {
    let upstream = Upstream::start(|seen| {
        let parts = match &seen.json()["contents"][0]["parts"][0]["text"] {
            text if text == "talk" => r#"{"text":"I would rather talk."}"#.to_owned(),
            text if text == "bad" => {
                return vec![json(
                    200,
                    r#"{"candidates":[{"finishReason":"IMAGE_SAFETY","finishMessage":"Unsafe.","index":0}],"responseId":"r"}"#,
                )];
            }
            _ => format!(r#"{{"text":"Here"}},{{"inlineData":{{"mimeType":"image/png","data":"{PNG}"}}}}"#),
        };
        vec![json(
            200,
            &format!(
                r#"{{"candidates":[{{"content":{{"role":"model","parts":[{parts}]}},"finishReason":"STOP","index":0}}],"usageMetadata":{{"promptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":5}},"responseId":"r"}}"#
            ),
        )]
    });
    let proxy = proxy(&format!(
        "gemini-api-key:\n  - api-key: a\n    prefix: gemini\n    base-url: {0}\n    models: [{{name: gemini-3-pro-image-preview, alias: image-preview}}]\n  - api-key: b\n    prefix: gemini\n    base-url: {0}\n    models: [{{name: gemini-3-pro-image-preview, alias: image-preview}}]\n",
        upstream.url()
    ));
    let ask = |prompt: &str| {
        proxy.post(
            GENERATIONS,
            &format!(r#"{{"model":"gemini/image-preview","prompt":"{prompt}","size":"1536x1024"}}"#),
        )
    };
    let got = ask("a cube");
    assert_eq!(got.head.status, 200, "{}", got.text());
    assert_eq!(
        (&got.json()["data"][0]["b64_json"], &got.json()["output_format"]),
        (&PNG.into(), &"png".into())
    );
    let seen = upstream.seen().pop().expect("a request");
    assert_eq!(seen.path, "/v1beta/models/gemini-3-pro-image-preview:generateContent");
    let config = &seen.json()["generationConfig"];
    assert_eq!(config["responseModalities"], serde_json::json!(["TEXT", "IMAGE"]));
    assert_eq!(config["imageConfig"]["aspectRatio"], "3:2");

    for (prompt, status, code, says) in
        [("talk", 502, "empty_image", "I would rather talk."), ("bad", 400, "moderation_blocked", "Unsafe.")]
    {
        for _ in 0..4 {
            let calls = upstream.seen().len();
            let got = ask(prompt);
            let error = &got.json()["error"];
            assert_eq!((got.head.status, error["code"].as_str()), (status, Some(code)), "{error}");
            assert!(error["message"].as_str().is_some_and(|message| message.contains(says)), "{error}");
            assert_eq!(upstream.seen().len(), calls + 1, "an answer is an answer: nobody else is asked");
        }
    }
    assert_eq!(ask("a cube").head.status, 200, "and no credential cools for it");
}

#[test]
fn what_cannot_be_is_told_in_openais_shape() {
    let upstream = Upstream::start(|_| vec![json(200, "{}")]);
    let proxy = proxy(&all_kinds(&upstream.url()));
    for (path, body, status, param) in [
        (GENERATIONS, r#"{"model":"chat/m"}"#, 400, "prompt"),
        (GENERATIONS, r#"{"model":"gemini/m","prompt":" "}"#, 400, "prompt"),
        (GENERATIONS, r#"{"model":"gemini/m","prompt":"x","n":3}"#, 400, "n"),
        (GENERATIONS, r#"{"model":"claude/m","prompt":"x"}"#, 501, "model"),
        ("/v1/embeddings", r#"{"input":"x"}"#, 400, "model"),
        ("/v1/embeddings", r#"{"model":"claude/m","input":"x"}"#, 501, "model"),
        ("/v1/embeddings", r#"{"model":"gemini/m","input":"x"}"#, 501, "model"),
        ("/v1/audio/speech", r#"{"model":"nobody","input":"x"}"#, 404, "model"),
    ] {
        let got = proxy.post(path, body);
        let error = &got.json()["error"];
        assert_eq!(
            (got.head.status, error["param"].as_str()),
            (status, Some(param)),
            "{path} {body}: {error}"
        );
    }
    assert_eq!(upstream.seen().len(), 0, "nothing of this is asked upstream");
    let got = proxy.post("/v1beta/models/chat%2Fm:embedContent", r#"{"content":{}}"#);
    assert_eq!((got.head.status, &got.json()["error"]["status"]), (501, &"UNIMPLEMENTED".into()));
    let got = post_form(&proxy, "/v1/audio/transcriptions", b"--b0und\r\nx");
    assert_eq!(got.head.status, 400);
    assert!(got.text().contains("form"), "{}", got.text());
}

#[test]
fn a_name_that_several_kinds_serve_goes_to_one_that_can() {
    let upstream = Upstream::start(|_| vec![json(200, r#"{"data":[]}"#)]);
    let url = upstream.url();
    let proxy = proxy(&format!(
        "claude-api-key:\n  - api-key: c\n    priority: 9\n    base-url: {url}/claude\n    models: [{{name: m, alias: m}}]\n{}",
        chat_keys(&url, &["k"])
    ));
    let got = proxy.post("/v1/embeddings", r#"{"model":"m","input":"x"}"#);
    assert_eq!((got.head.status, got.text().as_str()), (200, r#"{"data":[]}"#));
}

#[test]
fn models_that_only_draw_are_refused_where_words_are_wanted() {
    let upstream = Upstream::start(|_| vec![json(200, "{}")]);
    let proxy = proxy(&renamed(&upstream.url()).replace("alias: m}", "alias: m, image: true}"));
    let got = proxy.post(CHAT.path, &CHAT.body("m", false));
    assert_eq!(got.head.status, 400);
    assert!(got.text().contains("/v1/images/generations"), "{}", got.text());
}

#[test]
fn drawing_can_be_switched_off() {
    let upstream = Upstream::start(|_| vec![json(200, "{}")]);
    let proxy = proxy(&format!("disable-image-generation: true\n{}", renamed(&upstream.url())));
    assert_eq!(proxy.post(GENERATIONS, r#"{"model":"m","prompt":"x"}"#).head.status, 404);
}

#[test]
fn p11_vectors_come_from_the_next_credential_when_one_fails() {
    let answer = r#"{"object":"list", "data":[{"embedding":[0.10]}],"model":"upstream-name","usage":{"prompt_tokens":8,"total_tokens":8}}"#;
    let upstream = Upstream::start(move |seen| match seen.header("authorization") {
        Some("Bearer full") => vec![json(429, r#"{"error":{"message":"full"}}"#)],
        Some("Bearer cut") => vec![
            Step::send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n"),
            Step::Reset,
        ],
        _ => vec![json(200, answer)],
    });
    let proxy = proxy(&chat_keys(&upstream.url(), &["full", "cut", "good"]));
    for _ in 0..3 {
        let got = proxy.post("/v1/embeddings", r#"{"model":"m","input":["a","b"]}"#);
        assert_eq!((got.head.status, got.text().as_str()), (200, answer));
        assert_eq!(got.head.header("content-type"), Some("application/json"));
    }
    let asked = upstream.seen();
    let full = asked.iter().filter(|seen| seen.header("authorization") == Some("Bearer full")).count();
    assert_eq!(full, 1, "a credential that cools is not asked again");
    assert!(asked.iter().all(|seen| seen.path == "/v1/embeddings"));
    let log = proxy.log();
    assert!(log.contains("\"operation\":\"embeddings\"") && log.contains("\"input_tokens\":8"), "{log}");
}

#[test]
fn errors_of_the_upstream_pass_as_they_are() {
    let body = r#"{"error":{"message":"input: too long","type":"invalid_request_error","param":"input","code":null}}"#;
    let upstream = Upstream::start(move |_| vec![json(400, body)]);
    let proxy = proxy(&chat_keys(&upstream.url(), &["a", "b"]));
    let got = proxy.post("/v1/moderations", r#"{"model":"m","input":"x"}"#);
    assert_eq!((got.head.status, got.text().as_str()), (400, body));
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn sound_passes_in_both_directions() {
    let sound: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    let spoken = sound.clone();
    let upstream = Upstream::start(move |seen| match seen.path.as_str() {
        "/v1/audio/speech" => vec![bytes("audio/mpeg", &spoken)],
        _ => vec![whole(200, "text/plain; charset=utf-8", "WEBVTT\n\nhello")],
    });
    let proxy = proxy(&renamed(&upstream.url()));
    let got = proxy.post("/v1/audio/speech", r#"{"model":"m","input":"hi","voice":"v"}"#);
    assert_eq!(got.head.header("content-type"), Some("audio/mpeg"));
    assert_eq!(got.head.header("content-length"), Some("200000"));
    assert!(got.body == sound, "every byte");
    for path in ["/v1/audio/transcriptions", "/v1/audio/translations"] {
        let got = post_form(&proxy, path, &form());
        assert_eq!(got.head.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(got.text(), "WEBVTT\n\nhello");
        let seen = upstream.seen().pop().expect("a request");
        assert_eq!((seen.path.as_str(), seen.body.len()), (path, form().len() + 12));
    }
}

#[test]
fn p12_an_answer_that_breaks_in_its_middle_does_not_look_whole() {
    let upstream = Upstream::start(|seen| {
        let head = if seen.json()["input"] == "chunked" {
            "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
        } else {
            "content-length: 10\r\n\r\nhello"
        };
        vec![
            Step::send(format!("HTTP/1.1 200 OK\r\ncontent-type: audio/wav\r\n{head}")),
            Step::Sleep(std::time::Duration::from_millis(300)),
            Step::Close,
        ]
    });
    let mut proxy = proxy(&renamed(&upstream.url()));
    for input in ["chunked", "sized"] {
        let mut client = proxy.connect();
        let body = format!(r#"{{"model":"m","input":"{input}"}}"#);
        client.post("/v1/audio/speech", &[("authorization", &format!("Bearer {KEY}"))], &body);
        let head = client.head();
        assert_eq!(head.status, 200);
        let rest = String::from_utf8_lossy(&client.rest()).into_owned();
        assert!(rest.contains("hello") && !rest.ends_with("0\r\n\r\n"), "{input}: {rest:?}");
    }
    assert!(proxy.is_alive());
}

#[test]
fn gemini_vectors_name_the_upstreams_model() {
    let upstream = Upstream::start(|_| vec![json(200, r#"{"embeddings":[]}"#)]);
    let proxy = proxy(&format!(
        "gemini-api-key:\n  - api-key: a\n    base-url: {}\n    models: [{{name: gemini-embedding-001, alias: e}}]\n",
        upstream.url()
    ));
    let got = proxy.post(
        "/v1beta/models/e:batchEmbedContents",
        r#"{"requests":[{"model":"models/e","content":{"parts":[{"text":"x"}]}}]}"#,
    );
    assert_eq!((got.head.status, got.text().as_str()), (200, r#"{"embeddings":[]}"#));
    let seen = upstream.seen().pop().expect("a request");
    assert_eq!(seen.path, "/v1beta/models/gemini-embedding-001:batchEmbedContents");
    assert_eq!(seen.json()["requests"][0]["model"], "models/gemini-embedding-001");
}

#[test]
fn what_a_model_cannot_do_here_does_not_cost_it_its_conversations() {
    let upstream = Upstream::start(|seen| match seen.path.as_str() {
        "/v1/chat/completions" => crate::shared::whole(&seen.path),
        "/v1/embeddings" => {
            vec![json(
                400,
                r#"{"error":{"message":"model m is not supported","code":"model_not_supported"}}"#,
            )]
        }
        "/v1/rerank" => {
            vec![json(404, r#"{"error":{"message":"model m not found","code":"model_not_found"}}"#)]
        }
        _ => vec![json(403, r#"{"error":{"message":"You are not allowed to use this model"}}"#)],
    });
    let proxy = proxy(&chat_keys(&upstream.url(), &["a", "b"]));
    for (path, status, calls) in
        [("/v1/embeddings", 400, 1), ("/v1/rerank", 404, 2), ("/v1/moderations", 403, 2)]
    {
        for _ in 0..3 {
            let before = upstream.seen().len();
            let got = proxy.post(path, r#"{"model":"m","input":"x"}"#);
            assert_eq!((got.head.status, upstream.seen().len() - before), (status, calls), "{path}");
        }
        assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200, "{path}");
    }
}
