//! Streams as they happen: first events, silence, cuts, disconnects.

use crate::shared::{CHAT, CLAUDE, FORMATS, all_kinds, chat_keys, events, proxy};
use std::time::{Duration, Instant};
use testkit::proxy::KEY;
use testkit::upstream::{Step, Upstream, chunk, chunk_end, stream_head};

const KINDS: [&str; 4] = ["chat", "responses", "claude", "gemini"];

/// Events up to and with the first that has content.
fn until_content(path: &str) -> Vec<Step> {
    let all = events(path);
    let first = all.iter().position(|event| event.contains("Hel")).expect("content");
    std::iter::once(stream_head()).chain(all[..=first].iter().map(|event| chunk(event))).collect()
}

#[test]
fn p03_the_first_event_does_not_wait_for_the_second() {
    let upstream = Upstream::start(|seen| {
        let mut steps = until_content(&seen.path);
        steps.push(Step::Stall);
        steps
    });
    let proxy = proxy(&all_kinds(&upstream.url()));
    for kind in KINDS {
        for format in &FORMATS {
            let mut client = proxy.connect();
            let model = format!("{kind}/m");
            let headers = [("authorization", &*format!("Bearer {KEY}"))];
            client.post(
                &format.target(&model.replace('/', "%2F"), true),
                &headers,
                &format.body(&model, true),
            );
            let before = upstream.seen().len();
            upstream.wait(Duration::from_secs(5), |seen| seen.len() > before || !seen.is_empty());
            let at = client.until("Hel");
            let sent = upstream.seen().pop().expect("a request").at;
            let late = at - sent;
            assert!(late < Duration::from_millis(20), "{} client, {kind} upstream: {late:?}", format.name);
        }
    }
}

#[test]
fn p05_a_client_that_leaves_takes_the_upstream_request_with_it() {
    let upstream = Upstream::start(|seen| {
        let mut steps = until_content(&seen.path);
        steps.push(Step::Stall);
        steps
    });
    let proxy = proxy(&all_kinds(&upstream.url()));
    for kind in KINDS {
        let mut client = proxy.connect();
        let body = CHAT.body(&format!("{kind}/m"), true);
        client.post(CHAT.path, &[("authorization", &format!("Bearer {KEY}"))], &body);
        client.until("Hel");
        let place = upstream.seen().len() - 1;
        let left = Instant::now();
        drop(client);
        assert!(
            upstream.wait(Duration::from_secs(2), |seen| seen[place].left.is_some()),
            "{kind}: never told"
        );
        let late = upstream.seen()[place].left.expect("a time") - left;
        assert!(late < Duration::from_millis(100), "{kind}: {late:?}");
    }
}

#[test]
fn p05_also_before_the_first_byte_and_for_whole_answers() {
    let upstream = Upstream::start(|_| vec![Step::Stall]);
    let proxy = proxy(&chat_keys(&upstream.url(), &["a", "b"]));
    for stream in [false, true] {
        let mut client = proxy.connect();
        client.post(CHAT.path, &[("authorization", &format!("Bearer {KEY}"))], &CHAT.body("m", stream));
        let calls = upstream.seen().len();
        assert!(upstream.wait(Duration::from_secs(2), |seen| seen.len() > calls));
        let left = Instant::now();
        drop(client);
        assert!(upstream.wait(Duration::from_secs(2), |seen| seen[calls].left.is_some()));
        assert!(upstream.seen()[calls].left.expect("a time") - left < Duration::from_millis(100));
    }
    assert_eq!(upstream.seen().len(), 2, "a client that left is nobody's failure: no second attempt");
}

/// The stream is cut at each boundary between events and in the middle of each event.
#[test]
fn p12_a_cut_stream_ends_with_an_error_and_is_not_retried() {
    for kind in KINDS {
        let all = events(&format!("/{kind}/x")).concat();
        let content = all.find("Hel").expect("content") + 3;
        let end_of_first = content + all[content..].find("\n\n").expect("a boundary") + 2;
        let last = events(&format!("/{kind}/x")).last().expect("an event").len();
        // Chat is complete at its finish, the others at their last event.
        let complete =
            if kind == "chat" { all.rfind("\"stop\"").expect("a finish") } else { all.len() - last };
        let cuts = [end_of_first, end_of_first + 9, end_of_first + 40, complete.min(all.len() - 1)];
        for cut in cuts.into_iter().filter(|cut| *cut <= complete) {
            let part = all[..cut].to_owned();
            let upstream = Upstream::start(move |_| {
                vec![stream_head(), chunk(&part), Step::Sleep(Duration::from_millis(50)), Step::Close]
            });
            let proxy = proxy(&all_kinds(&upstream.url()));
            for format in &FORMATS {
                let model = format!("{kind}/m");
                let answer =
                    proxy.post(&format.target(&model.replace('/', "%2F"), true), &format.body(&model, true));
                let (text, case) =
                    (answer.text(), format!("{} client, {kind} upstream, cut at {cut}", format.name));
                assert_eq!(answer.head.status, 200, "{case}: {text}");
                assert!(text.contains("Hel"), "{case}: {text}");
                assert!(text.contains("\"error\""), "{case}: {text}");
                for complete in [
                    "[DONE]",
                    "message_stop",
                    "response.completed",
                    "\"finishReason\":\"STOP\"",
                    "\"finish_reason\":\"stop\"",
                    "end_turn",
                ] {
                    // What the upstream itself said of the end goes on as it is; nothing is made up.
                    let said = kind == format.name && all[..cut].contains(complete);
                    assert!(said || !text.contains(complete), "{case} looks complete: {text}");
                }
            }
            assert_eq!(upstream.seen().len(), FORMATS.len(), "{kind}: one call each");
        }
    }
}

#[test]
fn p12_an_error_event_of_the_upstream_reaches_the_client_as_one() {
    let upstream = Upstream::start(|seen| {
        let mut steps = until_content(&seen.path);
        let event = match seen.path.split('/').nth(1) {
            Some("claude") => {
                "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"broke in the middle\"}}\n\n"
            }
            Some("responses") => {
                "event: response.failed\ndata: {\"type\":\"response.failed\",\"sequence_number\":9,\"response\":{\"id\":\"resp_1\",\"status\":\"failed\",\"error\":{\"code\":\"server_error\",\"message\":\"broke in the middle\"}}}\n\n"
            }
            _ => {
                "data: {\"error\":{\"code\":503,\"message\":\"broke in the middle\",\"status\":\"UNAVAILABLE\"}}\n\n"
            }
        };
        steps.extend([chunk(event), chunk_end()]);
        steps
    });
    let proxy = proxy(&all_kinds(&upstream.url()));
    for kind in KINDS {
        for format in &FORMATS {
            let model = format!("{kind}/m");
            let answer =
                proxy.post(&format.target(&model.replace('/', "%2F"), true), &format.body(&model, true));
            let text = answer.text();
            assert!(text.contains("broke in the middle"), "{} client, {kind} upstream: {text}", format.name);
            assert!(!text.contains("[DONE]"), "{} client, {kind} upstream: {text}", format.name);
        }
    }
}

#[test]
fn p12_an_error_before_any_content_is_tried_elsewhere() {
    let upstream = Upstream::start(|seen| {
        if seen.header("x-api-key") == Some("bad") {
            let start = events(&seen.path).remove(0);
            let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";
            return vec![stream_head(), chunk(&start), chunk(error), chunk_end()];
        }
        crate::shared::stream(&seen.path)
    });
    let config = format!(
        "claude-api-key:\n  - {{api-key: bad, base-url: {0}/claude, priority: 1, models: [{{name: m, alias: m}}]}}\n  - {{api-key: good, base-url: {0}/claude, models: [{{name: m, alias: m}}]}}\n",
        upstream.url()
    );
    let proxy = proxy(&config);
    let answer = proxy.post(CLAUDE.path, &CLAUDE.body("m", true));
    assert!(
        answer.text().contains("message_stop") && !answer.text().contains("overloaded"),
        "{}",
        answer.text()
    );
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn p13_a_stalled_stream_ends_at_the_idle_limit_with_an_error() {
    let upstream = Upstream::start(|seen| {
        let mut steps = until_content(&seen.path);
        steps.push(Step::Stall);
        steps
    });
    let config = format!("timeouts: {{idle-seconds: 1}}\n{}", chat_keys(&upstream.url(), &["k"]));
    let proxy = proxy(&config);
    let begun = Instant::now();
    let answer = proxy.post(CHAT.path, &CHAT.body("m", true));
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert!(answer.text().contains("silent for 1 seconds"), "{}", answer.text());
}

#[test]
fn p13_an_upstream_that_never_answers_is_tried_elsewhere() {
    let upstream = Upstream::start(|seen| match seen.header("authorization") {
        Some("Bearer slow") => vec![Step::Stall],
        _ => crate::shared::whole(&seen.path),
    });
    let config =
        format!("timeouts: {{first-byte-seconds: 1}}\n{}", chat_keys(&upstream.url(), &["slow", "good"]));
    let proxy = proxy(&config);
    assert_eq!(proxy.post(CHAT.path, &CHAT.body("m", false)).head.status, 200);
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn silent_streams_get_comments() {
    let upstream = Upstream::start(|seen| {
        let mut steps = until_content(&seen.path);
        steps.push(Step::Sleep(Duration::from_millis(2500)));
        steps.extend(events(&seen.path).iter().skip(1).map(|event| chunk(event)));
        steps.push(chunk_end());
        steps
    });
    let config = format!("streaming: {{keepalive-seconds: 1}}\n{}", chat_keys(&upstream.url(), &["k"]));
    let text = proxy(&config).post(CHAT.path, &CHAT.body("m", true)).text();
    assert_eq!(text.matches(": keep-alive\n\n").count(), 2, "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[test]
fn p04_a_client_that_does_not_read_stops_the_upstream() {
    let event = format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}},\"finish_reason\":null}}]}}\n\n",
        "x".repeat(60_000)
    );
    let piece = chunk(&event);
    let upstream = Upstream::start(move |_| {
        let mut steps = vec![stream_head()];
        steps.extend(std::iter::repeat_n(piece.clone(), 2000));
        steps
    });
    let proxy = proxy(&chat_keys(&upstream.url(), &["k"]));
    let before = proxy.memory_kib();
    let mut client = proxy.connect();
    client.post(CHAT.path, &[("authorization", &format!("Bearer {KEY}"))], &CHAT.body("m", true));
    client.until("xxx");
    std::thread::sleep(Duration::from_secs(2));
    let grown = proxy.memory_kib().saturating_sub(before);
    assert!(grown < 20_000, "{grown} KiB for a reader that does not read 120 MB");
}
