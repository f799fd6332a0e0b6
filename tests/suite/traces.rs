//! Traces: what a collector gets of requests (feature `otlp`), and what is told where there are none.

use crate::shared::proxy;

#[cfg(not(feature = "otlp"))]
#[test]
fn a_program_without_traces_says_so() {
    let proxy = proxy("telemetry: {otlp-endpoint: 'http://127.0.0.1:9'}\n");
    let log = proxy.log();
    assert!(log.contains("telemetry has no effect") && log.contains("--features otlp"), "{log}");
}

#[cfg(feature = "otlp")]
mod sent {
    use super::proxy;
    use crate::reload::until;
    use crate::shared::{CHAT, events, whole};
    use serde_json::Value;
    use std::collections::BTreeMap;
    use std::time::Duration;
    use testkit::client::Client;
    use testkit::proxy::Proxy;
    use testkit::upstream::{Step, Upstream, chunk, chunk_end, json, stream_head};

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";
    const USAGE: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":3,\"total_tokens\":13}}\n\n";
    const LONG: Duration = Duration::from_secs(30);

    fn collector() -> Upstream {
        Upstream::start(|_| vec![json(200, "{}")])
    }

    /// All spans that have come.
    fn spans(collector: &Upstream) -> Vec<Value> {
        let mut all = Vec::new();
        for seen in collector.seen() {
            for resource in seen.json()["resourceSpans"].as_array().expect("a list") {
                for scope in resource["scopeSpans"].as_array().expect("a list") {
                    all.extend(scope["spans"].as_array().expect("a list").iter().cloned());
                }
            }
        }
        all
    }

    /// Attributes of a span as text.
    fn about(span: &Value) -> BTreeMap<String, String> {
        let attributes = span["attributes"].as_array().expect("a list").iter();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        attributes
            .map(|attribute| {
                let value = attribute["value"].as_object().and_then(|value| value.values().next());
                (text(&attribute["key"]), value.map(text).unwrap_or_default())
            })
            .collect()
    }

    /// Asks with a trace of its own.
    fn ask(proxy: &Proxy, model: &str, stream: bool, sampled: u8) -> u16 {
        let body = CHAT.body(model, stream).replace("\"hi\"", "\"CANARY-prompt\"");
        let mut client = proxy.connect();
        let text = format!(
            "POST {} HTTP/1.1\r\nhost: proxy\r\nauthorization: Bearer {}\r\ntraceparent: 00-{TRACE}-{PARENT}-0{sampled}\r\ncontent-length: {}\r\n\r\n{body}",
            CHAT.path,
            testkit::proxy::KEY,
            body.len()
        );
        client.send(text.as_bytes());
        client.answer().head.status
    }

    /// Two keys, of which the first is refused; behind a collector that wants a key.
    fn two_keys(collector: &Upstream, upstream: &Upstream, more: &str) -> Proxy {
        proxy(&format!(
            "telemetry: {{otlp-endpoint: '{}', headers: {{x-collector-key: CANARY-collector}}{more}}}\n\
             routing: {{strategy: fill-first}}\n\
             openai-compatibility:\n  - name: team\n    base-url: {}/v1\n    api-key-entries: [{{api-key: CANARY-one}}, {{api-key: two}}]\n    models: [{{name: real, alias: alias}}]\n",
            collector.url(),
            upstream.url()
        ))
    }

    fn upstream() -> Upstream {
        Upstream::start(|seen| {
            if seen.header("authorization") == Some("Bearer CANARY-one") {
                return vec![json(429, r#"{"error":{"message":"CANARY-refusal"}}"#)];
            }
            if seen.json()["stream"] != true {
                return whole("/v1/chat");
            }
            let mut steps = vec![stream_head(), Step::Sleep(Duration::from_millis(60))];
            let mut events = events("/v1/chat");
            events.insert(events.len() - 1, USAGE.to_owned());
            steps.extend(events.iter().map(|event| chunk(event)));
            steps.push(chunk_end());
            steps
        })
    }

    #[test]
    fn a_request_comes_as_a_span_with_one_below_it_per_attempt() {
        let (collector, upstream) = (collector(), upstream());
        let proxy = two_keys(&collector, &upstream, ", service-name: mine");
        assert_eq!(ask(&proxy, "alias", true, 1), 200);
        assert!(until(|| spans(&collector).len() == 3), "{}", proxy.log());
        let seen = collector.seen().remove(0);
        assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/traces"));
        assert_eq!(seen.header("content-type"), Some("application/json"));
        assert_eq!(seen.header("x-collector-key"), Some("CANARY-collector"));
        let text = String::from_utf8(seen.body.clone()).expect("text");
        assert!(text.contains("\"mine\"") && !text.contains("CANARY"), "{text}");
        let spans = spans(&collector);
        let (request, attempts): (Vec<_>, Vec<_>) =
            spans.iter().partition(|span| span["parentSpanId"] == PARENT);
        let request = request[0];
        assert_eq!((request["traceId"].as_str(), request["kind"].as_i64()), (Some(TRACE), Some(2)));
        assert_eq!(request["name"], "chat alias");
        let told = about(request);
        for (key, value) in [
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", "team"),
            ("gen_ai.request.model", "alias"),
            ("gen_ai.response.model", "real"),
            ("gen_ai.usage.input_tokens", "10"),
            ("gen_ai.usage.output_tokens", "3"),
            ("server.address", "127.0.0.1"),
            ("http.response.status_code", "200"),
            ("http.route", "/v1/chat/completions"),
        ] {
            assert_eq!(told.get(key).map(String::as_str), Some(value), "{key}: {told:?}");
        }
        assert!(told["gen_ai.response.finish_reasons"].contains("stop"), "{told:?}");
        let first: f64 = told["gen_ai.response.time_to_first_chunk"].parse().expect("seconds");
        assert!((0.05..60.0).contains(&first), "{first}");
        assert!(!told.contains_key("error.type"), "{told:?}");
        assert_eq!(attempts.len(), 2);
        for attempt in &attempts {
            assert_eq!(attempt["parentSpanId"], request["spanId"]);
            assert_eq!((attempt["traceId"].as_str(), attempt["kind"].as_i64()), (Some(TRACE), Some(3)));
        }
        let failed = attempts.iter().map(|span| about(span)).find(|told| told.contains_key("error.type"));
        let failed = failed.expect("the refused one");
        assert_eq!(
            (failed["error.type"].as_str(), failed["http.response.status_code"].as_str()),
            ("rate_limit", "429")
        );
        let good = attempts.iter().map(|span| about(span)).find(|told| !told.contains_key("error.type"));
        assert!(good.is_some_and(|told| told.contains_key("gen_ai.response.time_to_first_chunk")));
        assert!(upstream.seen().iter().all(|seen| seen.header("traceparent").is_none()));
        assert!(!proxy.log().contains("CANARY-collector"));
    }

    #[test]
    fn requests_that_fail_and_those_that_nobody_wants_traced() {
        let (collector, upstream) = (collector(), upstream());
        let proxy = two_keys(&collector, &upstream, ", sample-ratio: 0");
        assert_eq!(ask(&proxy, "alias", false, 0), 200);
        assert_eq!(proxy.post(CHAT.path, &CHAT.body("alias", false)).head.status, 200);
        assert_eq!(ask(&proxy, "unknown", false, 1), 404);
        assert!(collector.wait(LONG, |seen| !seen.is_empty()), "{}", proxy.log());
        let spans = spans(&collector);
        assert_eq!(spans.len(), 1, "only the last one was to be traced: {spans:?}");
        let told = about(&spans[0]);
        assert_eq!((told["error.type"].as_str(), told["http.response.status_code"].as_str()), ("404", "404"));
        assert_eq!(spans[0]["status"]["code"], 2);
    }

    #[test]
    fn a_collector_that_is_not_there_is_told_once_and_counted() {
        let metrics = testkit::scratch::free_port();
        let proxy = proxy(&format!(
            "metrics: {{listen: '127.0.0.1:{metrics}'}}\ntelemetry: {{otlp-endpoint: 'http://127.0.0.1:9/v1/traces'}}\n"
        ));
        let failed = || proxy.log().matches("traces are not sent to http://127.0.0.1:9/v1/traces").count();
        proxy.post(CHAT.path, &CHAT.body("unknown", false));
        assert!(until(|| failed() == 1), "{}", proxy.log());
        proxy.post(CHAT.path, &CHAT.body("unknown", false));
        let counted = || {
            let mut client = Client::connect(([127, 0, 0, 1], metrics).into());
            client.get("/metrics", &[]);
            client.answer().text().contains("cliproxy_trace_spans_total{outcome=\"failed\"} 2")
        };
        assert!(until(counted), "{}", proxy.log());
        assert_eq!(failed(), 1, "{}", proxy.log());
    }

    #[test]
    fn what_waits_is_sent_before_the_process_ends() {
        let (collector, upstream) = (collector(), upstream());
        let mut proxy = two_keys(&collector, &upstream, "");
        assert_eq!(ask(&proxy, "alias", false, 1), 200);
        proxy.signal("TERM");
        assert_eq!(proxy.wait(LONG), Some(0), "{}", proxy.log());
        assert_eq!(spans(&collector).len(), 3, "{}", proxy.log());
    }
}
