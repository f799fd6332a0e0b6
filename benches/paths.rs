//! How long the pure parts of the data path take: `cargo bench`, or one of them by a part of its name.
//!
//! Whole requests through the process are measured elsewhere, against a plain proxy in the same run; here is
//! what a change to a reader or writer does.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wire::replay::Replay;
use wire::target::{Card, Profile};
use wire::translate::Reply;
use wire::{Protocol, head};

/// A Chat request of about a megabyte: a long conversation with tool calls.
fn conversation() -> Vec<u8> {
    let turn = r#"{"role":"user","content":"Read the \"file\" and tell\nwhat it does: 0123456789 abcdefghij"},{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"read","arguments":"{\"path\":\"src/lib.rs\"}"}}]},{"role":"tool","tool_call_id":"call_1","content":"fn main() {}\n"}"#;
    let turns = vec![turn; (1 << 20) / turn.len()].join(",");
    format!(r#"{{"model":"alias","stream":true,"messages":[{turns}]}}"#).into_bytes()
}

fn replay(client: Protocol, profile: Profile, card: &Card) -> Replay<'_> {
    Replay { stream: true, ..Replay::new(client, profile, "upstream", card) }
}

fn requests(criterion: &mut Criterion) {
    let body = conversation();
    let card = Card::default();
    let mut group = criterion.benchmark_group("request of a megabyte");
    group.throughput(Throughput::Bytes(body.len() as u64)).sample_size(20);
    group.bench_function("head", |b| b.iter(|| head::parse(black_box(&body), Protocol::OpenaiChat)));
    for profile in [Profile::Chat, Profile::Responses, Profile::Claude, Profile::Gemini] {
        let replay = replay(Protocol::OpenaiChat, profile, &card);
        group.bench_function(format!("chat to {profile:?}"), |b| b.iter(|| replay.request(black_box(&body))));
    }
    group.finish();
}

fn streams(criterion: &mut Criterion) {
    const EVENTS: usize = 100;
    let chunk = r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"a few words "},"finish_reason":null}]}"#;
    let hello = br#"{"model":"m","stream":true,"max_tokens":9,"input":"hi","messages":[{"role":"user","content":"hi"}],"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#;
    let card = Card::default();
    let mut group = criterion.benchmark_group("100 events of Chat");
    group.throughput(Throughput::Elements(EVENTS as u64));
    for client in Protocol::ALL {
        let Ok(sent) = replay(client, Profile::Chat, &card).request(hello) else { continue };
        group.bench_function(format!("to {}", client.name()), |b| {
            b.iter(|| {
                let mut reply = Reply::new(&sent.plan);
                for _ in 0..EVENTS {
                    reply.feed(black_box(chunk.as_bytes()));
                    reply.feed(b"\n\n");
                    black_box(reply.take());
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, requests, streams);
criterion_main!(benches);
