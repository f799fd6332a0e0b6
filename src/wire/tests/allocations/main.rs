//! How often a translated event allocates: at most [`MOST`] times in any pair of formats. Text with escapes
//! is the worst case: it has to be unescaped, and is copied by that.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use wire::Protocol;
use wire::replay::Replay;
use wire::target::{Card, Profile};
use wire::thinking::Support;
use wire::translate::{Plan, Reply};

/// Allocations per event, of which one is the bytes that leave.
const MOST: usize = 4;
/// Events that are counted, after those that grow buffers to their size.
const EVENTS: usize = 500;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CHAT: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"WORDS\"},\"finish_reason\":null}]}\n\n";
const GEMINI: &str = "data: {\"candidates\":[{\"content\":{\"role\":\"model\",\"parts\":[{\"text\":\"WORDS\"}]},\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":3,\"candidatesTokenCount\":2,\"totalTokenCount\":5},\"modelVersion\":\"m\",\"responseId\":\"r\"}\n\n";
const CLAUDE: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"WORDS\"}}\n\n";
const CLAUDE_START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
const RESPONSES: &str = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"m\",\"output_index\":0,\"content_index\":0,\"delta\":\"WORDS\",\"sequence_number\":4}\n\n";
const RESPONSES_START: &str = "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r\",\"object\":\"response\",\"created_at\":1,\"model\":\"m\",\"status\":\"in_progress\",\"output\":[]}}\n\nevent: response.output_item.added\ndata: {\"type\":\"response.output_item.added\",\"sequence_number\":1,\"output_index\":0,\"item\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"status\":\"in_progress\",\"content\":[]}}\n\nevent: response.content_part.added\ndata: {\"type\":\"response.content_part.added\",\"sequence_number\":2,\"item_id\":\"m\",\"output_index\":0,\"content_index\":0,\"part\":{\"type\":\"output_text\",\"text\":\"\",\"annotations\":[]}}\n\n";

fn plan(client: Protocol, profile: Profile) -> Plan {
    let card = Card { thinking: Support::Unknown, max_output: None, context: None, whole_only: false };
    let body: &[u8] = match client {
        Protocol::OpenaiChat => br#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#,
        Protocol::OpenaiResponses => br#"{"model":"m","stream":true,"input":"hi"}"#,
        Protocol::Claude => {
            br#"{"model":"m","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#
        }
        Protocol::Gemini => br#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#,
    };
    let replay = Replay { stream: true, ..Replay::new(client, profile, "m", &card) };
    replay.request(body).unwrap().plan
}

/// Allocations per event, in hundredths, and how much went out.
fn measured(client: Protocol, profile: Profile, start: &str, event: &str) -> usize {
    let mut reply = Reply::new(&plan(client, profile));
    reply.feed(start.as_bytes());
    let mut sent = 0;
    for _ in 0..50 {
        reply.feed(event.as_bytes());
        sent += reply.take().len();
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..EVENTS {
        reply.feed(event.as_bytes());
        sent += reply.take().len();
    }
    let change = region.change();
    assert!(sent > EVENTS * 10, "{client:?} of {profile:?} says nothing");
    (change.allocations + change.reallocations) * 100 / EVENTS
}

#[test]
fn a_translated_event_allocates_a_few_times_only() {
    let upstreams = [
        (Profile::Chat, "", CHAT),
        (Profile::Responses, RESPONSES_START, RESPONSES),
        (Profile::Claude, CLAUDE_START, CLAUDE),
        (Profile::Gemini, "", GEMINI),
    ];
    let mut over = Vec::new();
    for words in ["a few words ", r#"a \"few\" words\n"#] {
        for client in Protocol::ALL {
            for (profile, start, event) in upstreams {
                let made = measured(client, profile, start, &event.replace("WORDS", words));
                let line = format!(
                    "{} of {profile:?}: {}.{:02} per event of {words:?}",
                    client.name(),
                    made / 100,
                    made % 100
                );
                println!("{line}");
                // A writer that keeps the text doubles its buffer now and then.
                if made > MOST * 100 + 10 {
                    over.push(line);
                }
            }
        }
    }
    assert!(over.is_empty(), "too many: {over:#?}");
}
