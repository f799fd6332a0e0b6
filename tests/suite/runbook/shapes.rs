//! Section H of the checklist: what bodies look like on both sides, thinking, usage, pictures.

use super::Site;
use serde_json::{Value, json};
use std::path::Path;
use testkit::double::Double;
use testkit::upstream::json as says;

/// A conversation with Claude whose tool result has no content; `$c` is what stands in its place.
const SPARSE: &str = r#"code -X POST $B/v1/messages -H "$A" -H "$J" -H 'anthropic-version: 2023-06-01' -d '{"model":"MODEL","max_tokens":10,"messages":[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"f","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1"'"$c"'}]}]}'"#;
/// Thinking that does not fit below `max_tokens`.
const TOO_MUCH: &str = r#""max_tokens":2000,"thinking":{"type":"enabled","budget_tokens":5000},"messages":[{"role":"user","content":"ping"}]"#;

#[test]
fn row_100_a_picture_in_a_tool_result_arrives() {
    let site = Site::own(|_| ());
    let chat = r#": > $ML; chat -w '%{http_code}' -o /dev/null -d '{"model":"MODEL","stream":STREAM,"messages":[{"role":"user","content":"x"},{"role":"assistant","content":null,"tool_calls":[{"id":"t1","type":"function","function":{"name":"shot","arguments":"{}"}}]},{"role":"tool","tool_call_id":"t1","content":[{"type":"text","text":"ok"},{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}],"tools":[{"type":"function","function":{"name":"shot","parameters":{"type":"object","properties":{}}}}]}'; "#;
    let claude = r#": > $ML; code -X POST $B/v1/messages -H "$A" -H "$J" -d '{"model":"MODEL","max_tokens":10,"stream":STREAM,"messages":[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"shot","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"ok"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw0KGgo="}}]}]}],"tools":[{"name":"shot","input_schema":{"type":"object","properties":{}}}]}'; "#;
    let block = r#"jq -c '[.b.messages[]?|select(.content|type=="array")|.content[]|select(.type=="tool_result")|.content[]?.type]' $ML"#;
    let url = r#"jq -c '[.b.messages[]?|select(.content|type=="array")|.content[]?.type]' $ML"#;
    let inline = r#"jq -c '[.b|..|objects|select(has("inlineData"))|.inlineData.mimeType]' $ML"#;
    for stream in ["false", "true"] {
        for (line, model, look, expected) in [
            (chat, "claude-sonnet-4-6", block, "\"image\""),
            (claude, "team-a/fast", url, "\"image_url\""),
            (claude, "gemini/gemini-3-pro-preview", inline, "image/png"),
        ] {
            let line = line.replace("MODEL", model).replace("STREAM", stream);
            let typed = site.types(&format!("{line}{look}"));
            assert!(typed.ok().starts_with("200") && typed.out.contains(expected), "{model}: {typed:?}");
        }
    }
}

#[test]
fn row_126_and_127_a_sparse_tool_result_is_one() {
    let site = Site::own(|_| ());
    let contents = r#"for c in '' ',"content":null' ',"content":[]' ',"content":"ok"'; do LINE; done"#;
    let line = contents.replace("LINE", SPARSE);
    let all = |model: &str, look: &str| {
        let typed = site.types(&format!(": > $ML; {}; echo; {look}", line.replace("MODEL", model)));
        let (codes, seen) = typed.ok().split_once('\n').unwrap_or_else(|| panic!("{typed:?}"));
        assert_eq!(codes, "200200200200", "{typed:?}");
        seen.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let content = all(
        "claude-sonnet-4-6",
        r#"jq -c '[.b.messages[].content[]?|objects|select(.type=="tool_result")|has("content")]' $ML"#,
    );
    assert_eq!(content, ["[true]"; 4]);
    let results = all(
        "antigravity/claude-opus-4-6-thinking",
        r#"jq -c '[.b|..|objects|select(has("functionResponse"))|.functionResponse.response.output]' $ML"#,
    );
    assert_eq!(results, [r#"[""]"#, r#"[""]"#, r#"[""]"#, r#"["ok"]"#]);
    let tools = all("team-a/fast", r#"jq -c '[.b.messages[]|select(.role=="tool")|.content]' $ML"#);
    assert_eq!(tools, [r#"[""]"#, r#"[""]"#, r#"[""]"#, r#"["ok"]"#]);
}

#[test]
fn row_81_thinking_that_does_not_fit_is_cut_and_logged() {
    let site = Site::own(|_| ());
    let chat =
        format!(r#"chat -w '%{{http_code}}' -d '{{"model":"claude-sonnet-4-6",{TOO_MUCH}}}' | tail -c 3"#);
    let claude = format!(
        r#"curl -sS -o /dev/null -w '%{{http_code}}' $B/v1/messages -H "$A" -H "$J" -d '{{"model":"claude-sonnet-4-6",{TOO_MUCH}}}'"#
    );
    site.types(&format!("{chat}; {claude}")).is("200200");
    let sent = site.types(r"jq -c '.b|select(.thinking)|[.thinking.budget_tokens,.max_tokens]' $ML");
    assert_eq!(sent.ok().lines().collect::<Vec<_>>(), ["[1999,2000]"; 2]);
    let logged = site.types_until("grep -c 'clamped' logs/*.log", |typed| typed.out == "2");
    assert_eq!(logged.ok(), "2", "{}", site.log());
    // Row 117: what was changed is counted.
    let counted = "curl -sS $B/v1/metrics/providers | jq '.providers.claude.thinking_mismatch'";
    let counted = site.types_until(counted, |typed| typed.out.parse::<u32>().is_ok_and(|n| n >= 2));
    assert!(counted.ok().parse::<u32>().is_ok_and(|n| n >= 2), "{counted:?}");
}

#[test]
fn row_82_thinking_that_does_not_fit_is_refused_where_that_is_wanted() {
    let site = Site::own(|setup| {
        setup.add("thinking: {strict: true}\n");
    });
    for path in ["v1/messages", "v1/chat/completions"] {
        let typed = site.types(&format!(
            r#": > $ML; curl -sS -w '\n%{{http_code}}' $B/{path} -H "$A" -H "$J" -d '{{"model":"claude-sonnet-4-6",{TOO_MUCH}}}'; wc -l < $ML"#
        ));
        let lines: Vec<_> = typed.ok().lines().collect();
        assert_eq!(lines[1..], ["4000"], "{typed:?}");
        let body: Value = serde_json::from_str(lines[0]).expect("JSON");
        assert_eq!(body["error"]["type"], "invalid_request_error", "{body}");
        let message = body["error"]["message"].as_str().expect("a message");
        assert!(message.contains("max_tokens must be greater than thinking.budget_tokens"), "{body}");
    }
}

#[test]
fn row_83_and_119_gemini_gets_one_word_or_number_for_thinking_and_the_suffix_wins() {
    let site = Site::own(|_| ());
    let ask = |model: &str, effort: &str| {
        site.types(&format!(
            r#": > $ML; chat -o /dev/null -d '{{"model":"{model}","reasoning_effort":"{effort}","messages":[{{"role":"user","content":"ping"}}]}}'; jq -c '.b.generationConfig.thinkingConfig|with_entries(select(.key!="includeThoughts"))' $ML"#
        ))
        .json()
    };
    let three = "gemini/gemini-3-pro-preview";
    assert_eq!(ask(three, "low"), json!({"thinkingLevel": "LOW"}));
    assert_eq!(ask("gemini/2.5-pro", "low"), json!({"thinkingBudget": 1024}));
    assert_eq!(ask(&format!("{three}(low)"), "high"), json!({"thinkingLevel": "LOW"}));
    assert_eq!(ask("gemini/2.5-pro(8192)", "low"), json!({"thinkingBudget": 8192}));
    for suffix in ["8192", "none"] {
        let thinking = ask(&format!("{three}({suffix})"), "high");
        assert_eq!(thinking.as_object().map(serde_json::Map::len), Some(1), "{suffix}: {thinking}");
        assert_ne!(thinking["thinkingLevel"], "HIGH", "the suffix wins over the body");
    }
}

#[test]
fn row_129_efforts_are_taken_or_refused_with_those_that_are_there() {
    let site = Site::shared();
    site.types(r#"for f in '"low"' '"auto"' '"bananas"'; do code -X POST $B/v1/chat/completions -H "$A" -H "$J" -d '{"model":"gpt-5.1-codex","reasoning_effort":'$f',"messages":[{"role":"user","content":"x"}]}'; echo -n ' '; done"#).is("200 200 400");
    let told = site.types(r#"chat -d '{"model":"gpt-5.1-codex","reasoning_effort":"bananas","messages":[{"role":"user","content":"x"}]}' | jq -r .error.message"#);
    assert!(
        ["gpt-5.1-codex", "low", "medium", "high"].iter().all(|word| told.ok().contains(word)),
        "{told:?}"
    );
}

#[test]
fn row_116_thinking_is_followed_in_two_lines() {
    let line = r#"chat -o /dev/null -d '{"model":"gemini/gemini-3-pro-preview","reasoning_effort":"low","messages":[{"role":"user","content":"ping"}]}'; cat $D/logs/*.log | grep -oE 'thinking: original config from request|thinking: processed config to apply' | sort -u | wc -l"#;
    Site::shared().types_until(line, |typed| typed.out == "2").is("2");
}

#[test]
fn row_74_an_answer_of_thoughts_alone_is_logged_counted_and_alerted() {
    let site = Site::own(|_| ());
    let answered = site.types(r#"chat -w '%{http_code}' -d '{"model":"gemini/banana-empty","messages":[{"role":"user","content":"ping"}]}'"#);
    assert!(answered.ok().ends_with("200"), "{answered:?}");
    let logged = r"cat $D/logs/*.log 2>/dev/null | grep -ciE 'empty.?content|no content|thinking.only'";
    let logged = site.types_until(logged, |typed| typed.rc == 0);
    assert!(logged.ok().parse::<u32>().is_ok_and(|n| n > 0), "{logged:?}");
    assert!(site.types("grep -hi 'empty content' logs/*.log").ok().contains("finish_reason="));
    let counted = "curl -sS $B/v1/metrics/providers | jq '.providers.gemini.empty_content'";
    site.types_until(counted, |typed| typed.out == "1").is("1");
    let alerted = r#"curl -sS $B/v0/management/alerts -H "$G" | jq -r '.alerts[] | select(.id=="empty-content") | .subject'"#;
    site.types_until(alerted, |typed| typed.out == "gemini").is("gemini");
}

#[test]
fn row_140_and_90_gemini_by_chat_is_what_openais_parsers_expect() {
    let site = Site::shared();
    let line = r#"chat -d '{"model":"gemini/gemini-3-pro-preview","messages":[{"role":"user","content":"ping"}],"stream":STREAM,"stream_options":{"include_usage":true}}'"#;
    let streaming = line.replace("STREAM", "true");
    let line = line.replace("STREAM", "false").replace(r#","stream_options":{"include_usage":true}"#, "");
    let whole = vec![site.types(&line).json()];
    let streamed = site.types(&format!("{streaming} | sed -n 's/^data: //p'"));
    assert!(streamed.ok().ends_with("[DONE]"), "{streamed:?}");
    let streamed = streamed.out.lines().filter(|line| *line != "[DONE]");
    let streamed: Vec<Value> = streamed.map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for (documents, object) in [(&whole, "chat.completion"), (&streamed, "chat.completion.chunk")] {
        for document in documents {
            let known = [
                "id",
                "object",
                "created",
                "model",
                "choices",
                "usage",
                "system_fingerprint",
                "service_tier",
            ];
            let members = document.as_object().expect("an object");
            assert!(members.keys().all(|key| known.contains(&key.as_str())), "{document}");
            assert_eq!(document["object"], object);
            for choice in document["choices"].as_array().expect("choices") {
                for message in [&choice["message"], &choice["delta"]] {
                    assert!(message.get("tool_calls").is_none_or(|calls| !calls.is_null()), "{document}");
                }
                let known = ["index", "message", "delta", "finish_reason", "logprobs"];
                assert!(
                    choice.as_object().is_some_and(|c| c.keys().all(|key| known.contains(&key.as_str()))),
                    "{choice}"
                );
            }
        }
        let used = documents.iter().find_map(|document| document["usage"]["total_tokens"].as_u64());
        assert_eq!(used, Some(10), "{documents:?}");
    }
    let modes = r#"for mode in false true; do chat -d "{\"model\":\"gemini/gemini-3-pro-preview\",\"messages\":[{\"role\":\"user\",\"content\":\"ping\"}],\"stream\":$mode}" | grep -c pong; done"#;
    site.types(modes).is("1\n1");
}

#[test]
fn row_67_usage_is_the_same_by_chat_and_by_responses() {
    let typed = Site::shared().types(
        r#"chat -d '{"model":"claude-sonnet-4-6","messages":[{"role":"user","content":"ping"}]}' | jq -c '[.usage.total_tokens,.usage.prompt_tokens_details.cached_tokens]'; curl -sS $B/v1/responses -H "$A" -H "$J" -d '{"model":"claude-sonnet-4-6","input":"ping"}' | jq -c '[.usage.total_tokens,.usage.input_tokens_details.cached_tokens]'"#,
    );
    typed.is("[10,2]\n[10,2]");
}

/// Provider `mock` says nothing of tokens for model `mute`, and nothing of caches for `uncached`.
fn reticent(log: &Path) -> Double {
    Double::start_with(log, |seen| {
        let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        let usage = match body["model"].as_str() {
            Some("mute") => "",
            Some("uncached") => r#","usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}"#,
            _ => return None,
        };
        let whole = r#"{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"pong"},"finish_reason":"stop"}]USAGE}"#;
        if body["stream"] != true {
            return Some(vec![says(200, &whole.replace("USAGE", usage))]);
        }
        let piece = r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"pong"},"finish_reason":"stop"}]USAGE}"#;
        let events = format!("data: {}\n\ndata: [DONE]\n\n", piece.replace("USAGE", usage));
        Some(vec![testkit::upstream::whole(200, "text/event-stream", &events)])
    })
}

#[test]
fn row_68_and_156_what_an_upstream_does_not_count_is_missing_and_nothing_else() {
    let site = Site::with(reticent, |setup| {
        setup.replace(
            "{name: m1, alias: fast},",
            "{name: m1, alias: fast}, {name: mute, alias: mute}, {name: uncached, alias: uncached},",
        );
    });
    let usage = site.types(r#"chat -d '{"model":"team-a/uncached","messages":[{"role":"user","content":"ping"}]}' | jq -c .usage; curl -sS $B/v1/responses -H "$A" -H "$J" -d '{"model":"team-a/uncached","input":"ping"}' | jq -c '[.usage.total_tokens, .usage.input_tokens_details.cached_tokens // 0]'"#);
    let (chat, responses) = usage.ok().split_once('\n').expect("two lines");
    let chat: Value = serde_json::from_str(chat).expect("JSON");
    assert_eq!((chat["total_tokens"].as_u64(), responses), (Some(10), "[10,0]"), "{usage:?}");
    assert_eq!(chat["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0), 0, "{chat}");
    let count = "curl -sS $B/v1/metrics/providers | jq -c '.providers.mock | [.request_count, .total_tokens, .usage_missing]'";
    site.types_until(count, |typed| typed.out == "[2,20,0]").is("[2,20,0]");
    let load = r#"for n in $(seq 5); do for model in fast mute; do for mode in false true; do chat -o /dev/null -d "{\"model\":\"team-a/$model\",\"messages\":[{\"role\":\"user\",\"content\":\"ping\"}],\"stream\":$mode}"; done; done; done"#;
    site.types(load).ok();
    site.types_until(count, |typed| typed.out == "[22,120,10]").is("[22,120,10]");
}

#[test]
fn row_101_usage_is_the_same_streamed_and_whole() {
    let typed = Site::shared().types(
        r#"T=$(mktemp -d); curl -sS $B/v1/responses -H "$A" -H "$J" -d '{"model":"gpt-5.1-codex","input":[{"role":"user","content":"ping"}],"stream":false}' > $T/nonstream.json
curl -sN $B/v1/responses -H "$A" -H "$J" -d '{"model":"gpt-5.1-codex","input":[{"role":"user","content":"ping"}],"stream":true}' | rg '^data:' | sed 's/^data: //' | jq -c 'select(.usage? != null) | {input_tokens: (.usage.input_tokens // .usage.prompt_tokens), output_tokens: (.usage.output_tokens // .usage.completion_tokens), total_tokens: .usage.total_tokens}' | tail -n 1 > $T/stream-usage.json
diff -u <(jq -S . $T/nonstream.json | jq '{input_tokens: .usage.input_tokens, output_tokens: .usage.output_tokens, total_tokens: .usage.total_tokens}') <(jq -S . $T/stream-usage.json) && echo SAME; rm -r $T"#,
    );
    typed.is("SAME");
}

#[test]
fn row_146_iflow_answers_whole_and_in_events() {
    let site = Site::shared();
    let modes = r#"for mode in false true; do chat -d "{\"model\":\"iflow/minimax-m2.5\",\"messages\":[{\"role\":\"user\",\"content\":\"ping\"}],\"stream\":$mode}" | head -n 5 | grep -c 'po'; done"#;
    site.types(modes).is("1\n1");
    let whole = site.types(r#"chat -d '{"model":"iflow/minimax-m2.5","messages":[{"role":"user","content":"ping"}],"stream":false}' | head -n 5 | jq -r '.choices[0].message.content'"#);
    whole.is("pong");
}

#[test]
fn row_92_events_are_no_json_until_their_prefix_is_gone() {
    let site = Site::shared();
    let ask = |stream: &str| {
        format!(
            r#"chat -d '{{"model":"gemini/gemini-3-pro-preview","messages":[{{"role":"user","content":"ping"}}],"stream":{stream}}}'"#
        )
    };
    let whole = site.types(&format!("{} | jq 'del(.choices)'", ask("false"))).json();
    assert!(whole["id"].is_string() && whole["model"].is_string() && whole["usage"].is_object(), "{whole}");
    // So on every server that streams events.
    let events = site.types(&format!("set -o pipefail; {} | jq 'del(.choices)'", ask("true")));
    assert_ne!(events.rc, 0, "{events:?}");
    let stripped = site.types(&format!(
        "set -o pipefail; {} | sed -n 's/^data: //p' | grep -v '^\\[DONE\\]$' | jq -c 'del(.choices)'",
        ask("true")
    ));
    assert!(
        stripped.ok().lines().all(|line| line.contains("\"id\"") && line.contains("\"model\"")),
        "{stripped:?}"
    );
}

#[test]
fn row_91_the_ids_that_runbooks_name_are_there() {
    let line = r#"curl -sS $B/v1/models -H "$A" | jq -r '.data[].id' | grep -cxE 'gemini/3-pro-preview|gemini/gemini-3-pro-preview|gemini/2.5-pro|iflow/gemini-2.5-flash|gemini/image-preview|iflow/glm-4.7|iflow/minimax-m2.5'"#;
    Site::shared().types_until(line, |typed| typed.out == "7").is("7");
}

#[test]
fn row_95_96_and_97_pictures_by_chat_by_their_own_route_and_in_the_inventory() {
    let site = Site::shared();
    let chat = site.types(r#"chat -d '{"model":"gemini/image-preview","messages":[{"role":"user","content":"upload-path sanity"}],"stream":false}' | jq -c '{id,error,model}'"#);
    let chat = chat.json();
    assert!(chat["error"].is_null() && chat["model"].is_string() && chat["id"].is_string(), "{chat}");
    let drawn = site.types(r#"curl -sS -m 20 $B/v1/images/generations -H "$A" -H "$J" -d '{"model":"gemini/image-preview","prompt":"a cat","response_format":"b64_json"}' | jq -r '.data[0].b64_json // .error.code // .error.message' | head -c 12"#);
    drawn.is("iVBORw0KGgow");
    let listed = site.types(r#"curl -sS "$B/v1/models?details=1" -H "$A" | jq -c '.data[] | select(.id=="gemini/image-preview") | .output_modalities | index("image") != null'"#);
    listed.is("true");
    let plain = site.types(r#"curl -sS "$B/v1/models?details=1" -H "$A" | jq -c '.data[] | select(.id=="gemini/gemini-3-pro-preview") | .output_modalities // [] | index("image") != null'"#);
    plain.is("false");
}

#[test]
fn row_99_uploads_go_through_this_host() {
    let site = Site::shared();
    let started = site.types(
        r#"CK=client-test; curl -sS -o /dev/null -D - -X POST "$B/upload/v1beta/files" -H "x-goog-api-key: $CK" -H 'X-Goog-Upload-Protocol: resumable' -H 'X-Goog-Upload-Command: start' -H "$J" -d '{"file":{"display_name":"x"}}' | tr -d '\r' | grep -i '^HTTP\|x-goog-upload-url'"#,
    );
    assert!(started.ok().contains(" 200"), "{started:?}");
    let url = started.ok().lines().find_map(|line| {
        line.to_ascii_lowercase().starts_with("x-goog-upload-url: ").then(|| line[19..].to_owned())
    });
    let url = url.unwrap_or_else(|| panic!("{started:?}"));
    assert!(url.starts_with(&site.url()), "{url}");
    let ended = site.types(&format!(
        "curl -sS -X POST '{url}' -H 'X-Goog-Upload-Command: upload, finalize' -H 'X-Goog-Upload-Offset: 0' --data-binary abc | jq -r .file.name"
    ));
    ended.is("files/f1");
}

#[test]
fn row_137_and_138_compaction_answers_at_once_or_says_that_it_cannot() {
    let site = Site::shared();
    let typed = site.types(r#"curl -sS -m 20 $B/v1/responses/compact -H "$A" -H "$J" -d '{"model":"gpt-5.1-codex","input":"ping"}' | jq -r .object; code $B/v1/responses/compact -H "$A" -H "$J" -d '{"model":"gpt-5.1-codex","input":"ping","stream":true}'"#);
    assert_eq!(typed.words(), ["response.compaction", "400"]);
    let typed = site.types(r#"curl -sS -m 20 -w '\n%{http_code} %{time_total}' $B/v1/responses/compact -H "$A" -H "$J" -d '{"model":"team-a/fast","input":"ping"}'"#);
    let (body, facts) = typed.ok().rsplit_once('\n').expect("two lines");
    let (status, seconds) = facts.split_once(' ').expect("two facts");
    assert_eq!(status, "501", "{typed:?}");
    assert!(seconds.parse::<f32>().is_ok_and(|seconds| seconds < 5.0), "it does not hang: {typed:?}");
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert!(body["error"]["message"].is_string(), "{body}");
}

#[test]
fn row_98_failures_of_a_picture_model_alert_within_minutes() {
    let broken = |log: &Path| {
        Double::start_with(log, |seen| {
            let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
            let broken = body["model"].as_str().is_some_and(|model| model.contains("image"));
            broken.then(|| vec![says(500, r#"{"error":{"message":"no canvas"}}"#)])
        })
    };
    let site = Site::with(broken, |setup| {
        setup.replace(
            "{name: m1, alias: fast},",
            "{name: m1, alias: fast}, {name: broken-image, alias: broken-image},",
        );
        setup.add("disable-cooling: true\n");
    });
    let line = r#"for n in $(seq 12); do code -X POST $B/v1/images/generations -H "$A" -H "$J" -d '{"model":"team-a/broken-image","prompt":"a cat"}'; echo; done | sort | uniq -c"#;
    let failed = site.types(line);
    assert_eq!(failed.words(), ["12", "500"], "{failed:?}");
    let alerted = r#"curl -sS $B/v0/management/alerts -H "$G" | jq -r '.alerts[] | select(.id=="image-error-ratio") | .severity'"#;
    site.types_until(alerted, |typed| typed.out == "critical").is("critical");
}
