//! What every request and every event pays: `cargo bench -p wire`, a part of a name selects some.
//!
//! | group | what runs once an iteration |
//! |---|---|
//! | `head` | the first look at a body of about 100 kB |
//! | `patch` | the same body to an upstream of its own format |
//! | `request` | the same body to an upstream of another format |
//! | `event` | one text event of an upstream to a client, for each pair |
//! | `sse` | a stream of 1,000 events in pieces of 16 KiB, decoded only |
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wire::Protocol;
use wire::frames::Framing;
use wire::replay::Replay;
use wire::target::{Card, Operation, Profile};
use wire::thinking::Support;
use wire::translate::Reply;

const CARD: &Card = &Card { thinking: Support::Unknown, max_output: None, context: None, whole_only: false };

const PROFILES: [Profile; 4] = [Profile::Chat, Profile::Responses, Profile::Claude, Profile::Gemini];

fn replay(client: Protocol, profile: Profile, stream: bool) -> Replay<'static> {
    Replay {
        client,
        operation: Operation::Generate,
        profile,
        model: "upstream-model",
        card: CARD,
        stream,
        framing: Framing::Sse,
        project: "",
        image_base: "",
        created: 1,
        seed: "0123456789abcdef0123456789abcdef",
    }
}

/// A conversation of `turns` rounds in the format of a client.
fn body(client: Protocol, turns: usize) -> String {
    let text = "A sentence with \\\"quotes\\\" and a line end.\\n".repeat(10);
    let (open, user, model, close) = match client {
        Protocol::OpenaiChat | Protocol::Claude => (
            r#"{"model":"m","max_tokens":1000,"messages":["#,
            format!(r#"{{"role":"user","content":"{text}"}}"#),
            format!(r#"{{"role":"assistant","content":"{text}"}}"#),
            "]}",
        ),
        Protocol::OpenaiResponses => (
            r#"{"model":"m","input":["#,
            format!(
                r#"{{"type":"message","role":"user","content":[{{"type":"input_text","text":"{text}"}}]}}"#
            ),
            format!(
                r#"{{"type":"message","role":"assistant","content":[{{"type":"output_text","text":"{text}","annotations":[]}}]}}"#
            ),
            "]}",
        ),
        Protocol::Gemini => (
            r#"{"contents":["#,
            format!(r#"{{"role":"user","parts":[{{"text":"{text}"}}]}}"#),
            format!(r#"{{"role":"model","parts":[{{"text":"{text}"}}]}}"#),
            "]}",
        ),
    };
    let rounds = vec![format!("{user},{model}"); turns].join(",");
    format!("{open}{rounds},{user}{close}")
}

/// The first events of an upstream's stream, and one that adds text.
fn events(profile: Profile) -> (&'static str, &'static str) {
    match profile {
        Profile::Responses => (
            concat!(
                "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r\",\"object\":\"response\",\"created_at\":1,\"model\":\"m\",\"status\":\"in_progress\",\"output\":[]}}\n\n",
                "event: response.output_item.added\ndata: {\"type\":\"response.output_item.added\",\"sequence_number\":1,\"output_index\":0,\"item\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"status\":\"in_progress\",\"content\":[]}}\n\n",
            ),
            "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"m\",\"output_index\":0,\"content_index\":0,\"delta\":\"a few words \",\"sequence_number\":4}\n\n",
        ),
        Profile::Claude => (
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a few words \"}}\n\n",
        ),
        Profile::Gemini => (
            "",
            "data: {\"candidates\":[{\"content\":{\"role\":\"model\",\"parts\":[{\"text\":\"a few words \"}]},\"index\":0}],\"modelVersion\":\"m\",\"responseId\":\"r\"}\n\n",
        ),
        _ => (
            "",
            "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a few words \"},\"finish_reason\":null}]}\n\n",
        ),
    }
}

fn requests(c: &mut Criterion) {
    for client in Protocol::ALL {
        let body = body(client, 110);
        let bytes = Throughput::Bytes(body.len() as u64);
        let mut group = c.benchmark_group("head");
        group.throughput(bytes.clone());
        group.bench_function(client.name(), |b| {
            b.iter(|| wire::head::parse(black_box(body.as_bytes()), client).unwrap());
        });
        group.finish();
        for profile in PROFILES {
            let replay = replay(client, profile, true);
            let same = client == profile.protocol();
            let mut group = c.benchmark_group(if same { "patch" } else { "request" });
            group.throughput(bytes.clone());
            let name = if same {
                client.name().to_owned()
            } else {
                format!("{}_to_{}", client.name(), profile.name())
            };
            group.bench_function(name, |b| {
                b.iter(|| replay.request(black_box(body.as_bytes())).unwrap());
            });
            group.finish();
        }
    }
}

fn answers(c: &mut Criterion) {
    let mut group = c.benchmark_group("event");
    group.throughput(Throughput::Elements(1));
    for client in Protocol::ALL {
        for profile in PROFILES {
            let plan = replay(client, profile, true).request(body(client, 1).as_bytes()).unwrap().plan;
            let (start, event) = events(profile);
            group.bench_function(format!("{}_of_{}", client.name(), profile.name()), |b| {
                let mut reply = Reply::new(&plan);
                reply.feed(start.as_bytes());
                b.iter(|| {
                    reply.feed(black_box(event.as_bytes()));
                    reply.take()
                });
            });
        }
    }
    group.finish();
    let stream = events(Profile::Claude).1.repeat(1000);
    let mut group = c.benchmark_group("sse");
    group.throughput(Throughput::Bytes(stream.len() as u64));
    group.bench_function("decode", |b| {
        b.iter(|| {
            let (mut decoder, mut bytes) = (wire::sse::Decoder::default(), 0);
            for chunk in stream.as_bytes().chunks(16 << 10) {
                decoder.feed(black_box(chunk), |event| bytes += event.data.len()).unwrap();
            }
            bytes
        });
    });
    group.finish();
}

criterion_group!(benches, requests, answers);
criterion_main!(benches);
