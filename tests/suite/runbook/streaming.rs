//! Section I of the checklist: streams, WebSockets, what runs beside the program.

use super::{BINARY, Site};
use std::path::Path;
use std::time::{Duration, Instant};
use testkit::client::Client;
use testkit::double::Double;
use testkit::proxy::Proxy;
use testkit::scratch::{Scratch, free_port};
use testkit::upstream::{Step, chunk, stream_head};

/// Asks for a WebSocket at a path.
const UPGRADE: &str = r#"curl -sS -m 3 -i -N $B/PATH -H "$A" -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' 2>/dev/null | head -1"#;

#[test]
fn row_86_and_142_responses_by_websocket_under_both_names() {
    let site = Site::shared();
    for path in ["v1/responses", "v1/responses/ws"] {
        let line = UPGRADE.replace("PATH", path);
        let upgraded = site.types(&line);
        assert!(upgraded.out.contains(" 101"), "{upgraded:?}");
        let keyless = site.types(&line.replace(r#"-H "$A""#, ""));
        assert!(keyless.out.contains(" 401"), "{keyless:?}");
        let plain = site.types(&format!(r#"code $B/{path} -H "$A""#));
        assert!(["400", "404", "405", "426"].contains(&plain.ok()), "{plain:?}");
    }
}

/// The text frames of a socket that is read to the event `last`.
fn frames(socket: &mut Client, last: &str) -> Vec<serde_json::Value> {
    let mut bytes = Vec::new();
    let mut found = Vec::new();
    loop {
        while let Some((text, used)) = frame(&bytes) {
            bytes.drain(..used);
            let event: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
            let ended = event["type"] == last;
            found.push(event);
            if ended {
                return found;
            }
        }
        bytes.extend(socket.some());
    }
}

/// One unmasked text frame, and how long it is on the wire.
fn frame(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (begin, length) = match usize::from(*bytes.get(1)?) {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => {
            let eight: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
            (10, usize::try_from(u64::from_be_bytes(eight)).ok()?)
        }
        short => (2, short),
    };
    Some((bytes.get(begin..begin + length)?.to_vec(), begin + length))
}

#[test]
fn row_87_a_turn_has_the_same_events_by_sse_and_by_websocket() {
    let site = Site::shared();
    for model in ["gpt-5.1-codex", "team-a/fast"] {
        let sse = site.types(&format!(
            r#"curl -sN $B/v1/responses -H "$A" -H "$J" -d '{{"model":"{model}","input":"ping","stream":true}}' | sed -n 's/^data: //p' | grep -v '^\[DONE\]'"#
        ));
        let sse: Vec<serde_json::Value> =
            sse.ok().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let address = site.url().trim_start_matches("http://").parse().expect("an address");
        let mut socket = Client::connect(address);
        socket.get(
            "/v1/responses",
            &[
                ("authorization", "Bearer client-test"),
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ],
        );
        assert_eq!(socket.head().status, 101);
        let turn = format!(r#"{{"type":"response.create","model":"{model}","input":"ping"}}"#);
        // A mask of zeros.
        let mut sent = vec![0x81, 0x80 | u8::try_from(turn.len()).expect("it is short"), 0, 0, 0, 0];
        sent.extend(turn.as_bytes());
        socket.send(&sent);
        let frames = frames(&mut socket, "response.completed");
        let types = |events: &[serde_json::Value]| {
            events
                .iter()
                .map(|event| event["type"].as_str().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(types(&sse), types(&frames), "{model}");
        for events in [&sse, &frames] {
            let numbers: Vec<_> =
                events.iter().filter_map(|event| event["sequence_number"].as_u64()).collect();
            let expected: Vec<_> = (0..events.len() as u64).collect();
            assert_eq!(numbers, expected, "{model}: {events:?}");
        }
    }
}

#[test]
fn row_134_proxies_on_the_way_are_told_not_to_collect_a_stream() {
    let site = Site::shared();
    let head = site.types(
        r#"chat -N -o /dev/null -D - -d '{"model":"team-a/fast","messages":[{"role":"user","content":"ping"}],"stream":true}'"#,
    );
    let head = head.ok().to_ascii_lowercase();
    for line in ["x-accel-buffering: no", "cache-control: no-cache", "content-type: text/event-stream"] {
        assert!(head.contains(line), "{line}: {head}");
    }
    assert!(!head.contains("content-length"), "{head}");
}

#[test]
fn row_134_a_silent_stream_gets_comments() {
    let silent = |log: &Path| {
        Double::start_with(log, |seen| {
            let silent = seen.path.ends_with("/chat/completions");
            silent.then(|| {
                let event = r#"data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m1","choices":[{"index":0,"delta":{"role":"assistant","content":"po"},"finish_reason":null}]}"#;
                vec![stream_head(), chunk(&format!("{event}\n\n")), Step::Stall]
            })
        })
    };
    let site = Site::with(silent, |setup| {
        setup.add("streaming: {keepalive-seconds: 1}\n");
    });
    let typed = site.types(
        r#"timeout 5 curl -sN $B/v1/chat/completions -H "$A" -H "$J" -d '{"model":"team-a/fast","messages":[{"role":"user","content":"ping"}],"stream":true}' | grep -c '^:'"#,
    );
    assert!(typed.out.parse::<u32>().is_ok_and(|n| n >= 2), "{typed:?}");
}

#[test]
fn row_149_a_slow_first_token_is_waited_for_until_the_client_leaves() {
    // Two minutes are not too long by default.
    let waits = config::Config::default().server.timeouts.first_byte_seconds;
    assert!(waits == 0 || waits > 120, "{waits} s");
    let stuck = |log: &Path| {
        Double::start_with(log, |seen| {
            let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap_or_default();
            (body["model"] == "stuck").then(|| vec![Step::Stall])
        })
    };
    let site = Site::with(stuck, |setup| {
        setup.replace(
            "{name: m1, alias: fast},",
            "{name: slow-3000, alias: slow}, {name: stuck, alias: stuck},",
        );
    });
    let ask = |model: &str, most: u32| {
        format!(
            r#"curl -sS -m {most} -o /dev/null -w '%{{http_code}}' $B/v1/chat/completions -H "$A" -H "$J" -d '{{"model":"team-a/{model}","messages":[{{"role":"user","content":"ping"}}],"stream":true}}'"#
        )
    };
    site.types(&ask("slow", 30)).is("200");
    let typed = site.types(&ask("stuck", 1));
    assert_eq!(typed.rc, 28, "curl gave up: {typed:?}");
    let gone = Instant::now();
    let left = site
        .double()
        .upstream()
        .wait(Duration::from_secs(10), |seen| seen.iter().any(|seen| seen.left.is_some()));
    assert!(left, "the upstream works on after {:?}", gone.elapsed());
}

#[test]
fn row_93_the_port_of_a_platform_wins_over_that_of_the_file() {
    let site = Site::shared();
    let (scratch, port) = (Scratch::new(), free_port());
    let text = site.config().replace("metrics:", "x-metrics:").replace("logging-to-file: true", "");
    let text = text
        .replace("debug: true", "metrics: {listen: \"\"}")
        .replace(&format!("{}", site.folder().display()), "gone");
    let file = scratch.file("config.yaml", &text).display().to_string();
    let script = scratch.file("start.sh", &format!("PORT={port} exec \"$1\" --config \"$2\"\n"));
    let mut proxy = Proxy::run("sh", &[&script.display().to_string(), BINARY, &file], port, scratch);
    let matrix = format!(
        r#"B=http://127.0.0.1:{port}; F="X-Forwarded-Proto: https"; code $B/v1/chat/completions -H "$A" -H "$J" -H "$F" -d '{{"model":"gemini/gemini-3-pro-preview","messages":[{{"role":"user","content":"ping"}}]}}'; code $B/v1/models -H "$A" -H "$F"; code $B/v1/responses -H "$A" -H "$J" -H "$F" -d '{{"model":"gemini/gemini-3-pro-preview","input":"ping"}}'"#
    );
    site.types(&matrix).is("200200200");
    assert!(proxy.is_alive(), "{}", proxy.log());
}

#[test]
fn row_154_health_stays_200_while_the_configuration_is_saved() {
    let site = Site::own(|_| ());
    let typed = site.types(
        r#"for n in $(seq 20); do sed "s/alias: renamed-[0-9]*/alias: renamed-$n/" $D/config.yaml > $D/c.tmp; mv $D/c.tmp $D/config.yaml; code $B/health; echo; sleep .05; done | sort | uniq -c"#,
    );
    assert_eq!(typed.words(), ["20", "200"], "{typed:?}");
    let saved = Instant::now();
    let seen =
        site.types_until(r#"curl -sS $B/v1/models -H "$A" | grep -c renamed-20"#, |typed| typed.out == "1");
    assert_eq!(seen.out, "1", "{seen:?}");
    // 2 s on an idle machine.
    assert!(saved.elapsed() < Duration::from_secs(6), "{:?}", saved.elapsed());
    let told =
        site.types_until("grep -hE 'config reloaded' logs/*.log | tail -n 1", |typed| !typed.out.is_empty());
    assert!(told.ok().contains("openai-compatibility"), "the keys that changed are named: {told:?}");
}

#[test]
fn row_182_a_file_that_is_moved_over_the_configuration_is_seen() {
    let site = Site::own(|_| ());
    let typed = site.types(
        r#"sed 's/alias: renamed-0/alias: renamed-1/' $D/config.yaml > $D/c.tmp; mv $D/c.tmp $D/config.yaml; for i in $(seq 50); do curl -sS $B/v1/models -H "$A" | grep -q renamed-1 && echo seen && break; sleep .1; done"#,
    );
    typed.is("seen");
}

#[test]
fn row_103_and_106_logs_beside_the_configuration_show_who_served_what() {
    let site = Site::own(|_| ());
    let ask = |model: &str| {
        site.types(&format!(
            r#"chat -o /dev/null -d '{{"model":"{model}","messages":[{{"role":"user","content":"ping"}}]}}'"#
        ))
        .ok()
        .to_owned()
    };
    ask("iflow/glm-4.7");
    ask("antigravity/claude-opus-4-6-thinking");
    let lines = r#"cat $D/logs/*.log 2>/dev/null | rg -n "iflow|account|retry|cooldown|429|403" | wc -l"#;
    let lines = site.types_until(lines, |typed| typed.out.parse::<u32>().is_ok_and(|n| n > 0));
    assert!(lines.ok().parse::<u32>().is_ok_and(|n| n > 0), "{lines:?}");
    let typed = r#"rg -n "iflow|account|retry|cooldown|429|403" logs/*.log"#;
    let typed = site.types_until(typed, |typed| typed.out.contains("iflow/glm-4.7"));
    assert!(typed.ok().contains("iflow/glm-4.7"), "{typed:?}");
    let trace = r#"rg -n "antigravity|claude|tool_use|custom_model|request.*model" logs/*.log | rg '"model":"antigravity/claude-opus-4-6-thinking"' | rg -c '"resolved_model":"claude-opus-4-6-thinking"'"#;
    site.types_until(trace, |typed| typed.out == "1").is("1");
}

#[test]
fn row_109_models_that_amp_knows_are_served_by_others() {
    let site = Site::own(|setup| {
        setup.add("ampcode: {model-mappings: [{from: amp-x, to: team-a/fast}, {from: 'opus-.*', to: 'gemini/2.5-pro(low)', regex: true}, {from: amp-tab, to: iflow/tab-rt, params: {custom_model: iflow/tab-rt, temperature: 0.5}}]}\n");
    });
    let ask = |model: &str, more: &str| {
        site.types(&format!(
            r#": > $ML; chat -d '{{"model":"{model}",{more}"messages":[{{"role":"user","content":"ping"}}]}}' | jq -r '.choices[0].message.content'; jq -c '[.b.model, .b.custom_model, .b.temperature, .b.generationConfig.thinkingConfig.thinkingBudget]' $ML"#
        ))
        .ok()
        .to_owned()
    };
    assert_eq!(ask("amp-x", ""), "pong\n[\"m1\",null,null,null]");
    assert_eq!(ask("AMP-X", ""), "pong\n[\"m1\",null,null,null]");
    assert_eq!(ask("claude-opus-9", ""), "pong\n[null,null,null,1024]");
    assert_eq!(ask("amp-tab", ""), "pong\n[\"tab-rt\",\"iflow/tab-rt\",0.5,null]");
    assert_eq!(ask("amp-tab", r#""temperature":0.1,"#), "pong\n[\"tab-rt\",\"iflow/tab-rt\",0.1,null]");
    let line = r#"rg -N '"model":"amp-tab"' logs/*.log | rg -c '"resolved_model":"tab-rt"'"#;
    site.types_until(line, |typed| typed.out == "2").is("2");
    // What somebody serves keeps its name, and what nobody serves is no target.
    site.types(r#"chat -o /dev/null -w '%{http_code}' -d '{"model":"amp-y","messages":[]}'"#).is("404");
}

#[test]
fn row_110_trends_are_counted_by_model_over_a_window() {
    let site = Site::own(|_| ());
    site.types(
        r#"chat -o /dev/null -d '{"model":"iflow/glm-4.7","messages":[{"role":"user","content":"ping"}]}'"#,
    )
    .ok();
    let line = r#"curl -sS "$B/v1/metrics/providers?window=600" | jq -c '[.window_seconds, .providers.iflow.window.request_count, (.providers.iflow.model_stats["glm-4.7"] | .window.request_count // .request_count)]'"#;
    site.types_until(line, |typed| typed.out == "[600,1,1]").is("[600,1,1]");
}

#[test]
fn row_112_what_is_listed_can_be_called_and_nothing_else() {
    let site = Site::own(|setup| {
        setup.replace(
            r#"api-keys: ["client-test", "#,
            r#"api-keys: ["client-test", {api-key: few, allowed-models: ["team-a/fast", "iflow/glm-4.7"]}, "#,
        );
    });
    let ready = site.types("curl -sS $B/health | jq -r .status");
    ready.is("ok");
    let listed = site.types(r"curl -sS $B/v1/models -H 'Authorization: Bearer few' | jq -r '.data[].id'");
    assert_eq!(listed.words(), ["iflow/glm-4.7", "team-a/fast"]);
    let call = r#"for m in iflow/glm-4.7 team-a/fast iflow/minimax-m2.5 gpt-5.3-codex; do code $B/v1/chat/completions -H 'Authorization: Bearer few' -H "$J" -d "{\"model\":\"$m\",\"messages\":[{\"role\":\"user\",\"content\":\"ping\"}]}"; echo; done"#;
    let codes = site.types(call);
    let codes = codes.words();
    assert_eq!(codes[..2], ["200", "200"]);
    assert!(codes[2..].iter().all(|code| ["403", "404"].contains(code)), "{codes:?}");
}

#[test]
fn row_113_a_request_of_amp_is_seen_with_its_client() {
    let site = Site::own(|_| ());
    let typed = site.types(
        r#"OPENAI_API_BASE=$B/v1; curl -sS -o /dev/null -w '%{http_code}' "$OPENAI_API_BASE/chat/completions" -A 'amp/1.2.3' -H "$A" -H "$J" -d '{"model":"team-a/fast","messages":[{"role":"user","content":"ping"}]}'"#,
    );
    typed.is("200");
    let line = r#"rg -N '"user_agent":"amp/1.2.3"' logs/*.log | rg -c '"model":"team-a/fast"'"#;
    site.types_until(line, |typed| typed.out == "1").is("1");
}

#[test]
fn row_114_a_wrong_address_fails_early_and_names_the_variable() {
    let typed = Site::shared().types("cliproxy doctor --base-url http://wrong.invalid");
    assert_eq!(typed.rc, 1, "{typed:?}");
    assert!(typed.out.contains("CLIPROXY_BASE_URL") && typed.out.contains("OPENAI_BASE_URL"), "{typed:?}");
}

#[test]
fn row_160_and_161_kiro_and_copilot_answer_from_end_to_end() {
    let site = Site::own(|_| ());
    site.types(r#"chat -d '{"model":"kiro-claude-sonnet-4-5","messages":[{"role":"user","content":"ping"}]}' | jq -r '.choices[0].message.content'"#).is("pong");
    site.types(r#"chat -d '{"model":"kiro-claude-sonnet-4-5","messages":[{"role":"user","content":"ping"}]}' | jq -c '[.usage.prompt_tokens,.usage.completion_tokens,.usage.total_tokens]'"#).is("[7,3,10]");
    let copilot = site.types(r#": > $ML; chat -d '{"model":"gpt-4.1","messages":[{"role":"user","content":"ping"}]}' | jq -r '.choices[0].message.content'; jq -r 'select(.m=="POST")|.h["copilot-integration-id"]' $ML"#);
    assert_eq!(copilot.words(), ["pong", "vscode-chat"]);
}
