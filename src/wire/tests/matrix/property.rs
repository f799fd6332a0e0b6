//! What holds for any content: the same checks as the cells', with conversations that nobody thought of.
//!
//! | property | for each |
//! |---|---|
//! | `text`: any text in any position stays text, whole and streamed | pair |
//! | `split`: any split of the upstream's bytes gives the same client's bytes | pair |
//! | `identity`: read and written again, a request or an answer says the same, and again gives the same bytes | format |
//! | `unknown`: members that nobody knows survive the same format and harm no other | pair |
//!
//! `PROPTEST_CASES` sets how many cases each has (256).

use crate::exchange::{Checked, Exchange, json, same, text};
use crate::generate;
use crate::meaning::{Ask, Said};
use crate::{format, losses};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use wire::Protocol;
use wire::ir::{Context, Fold, Losses, lower};
use wire::replay;
use wire::target::{Card, Target};
use wire::{claude, gemini, openai_chat, openai_responses};

/// Runs a property of a pair.
pub(crate) type OfPair = fn(Protocol, Protocol) -> Checked;

/// The properties that each pair has.
pub(crate) const OF_PAIRS: [(&str, OfPair); 3] =
    [("text", any_text), ("split", any_split), ("unknown", unknown_members)];

/// Tries a test on many values, and shrinks the one that fails.
fn holds<S: Strategy>(strategy: &S, test: impl Fn(S::Value) -> Checked) -> Checked {
    let config = Config { failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config).run(strategy, |value| test(value).map_err(TestCaseError::fail));
    tried.map_err(|error| error.to_string())
}

fn exchange(client: Protocol, upstream: Protocol, ask: Ask, said: Said) -> Exchange {
    Exchange { name: String::new(), client, upstream, ask, said }
}

fn any_text(client: Protocol, upstream: Protocol) -> Checked {
    let content = (generate::ask(), generate::said(upstream));
    holds(&content, |(ask, said)| {
        let exchange = exchange(client, upstream, ask, said);
        let plan = exchange.request(false)?.plan;
        let whole = format::comparable(client, &exchange.whole(&plan)?);
        let plan = exchange.request(true)?.plan;
        let folded = format::comparable(client, &exchange.stream(&plan)?);
        same("the stream, folded,", &folded, &whole)
    })
}

fn any_split(client: Protocol, upstream: Protocol) -> Checked {
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 1..12);
    let plan = exchange(client, upstream, generate::hello(), Said::default()).request(true)?.plan;
    holds(&(generate::said(upstream), cuts), |(said, cuts)| {
        let bytes = format::stream(upstream, &said);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        let (whole, pieces) = (replay::streamed(&plan, &bytes, &[]), replay::streamed(&plan, &bytes, &cuts));
        same("the stream, cut,", &text(&pieces), &text(&whole))
    })
}

fn unknown_members(client: Protocol, upstream: Protocol) -> Checked {
    let places = prop::collection::vec((any::<prop::sample::Index>(), generate::value()), 1..5);
    holds(&(generate::ask(), generate::said(upstream), places), |(ask, said, places)| {
        let exchange = exchange(client, upstream, Ask { stream: Some(false), ..ask }, said);
        let mut body = json(&format::write_request(client, &exchange.ask))?;
        let added = generate::add_members(&mut body, &places);
        // Refused or not: nothing panics, and what goes out is JSON.
        let sent = exchange.replay(false).request(body.to_string().as_bytes());
        let Ok(sent) = sent else {
            return if client == upstream { Err(format!("refused: {sent:?}")) } else { Ok(()) };
        };
        let arrived = json(&sent.body)?;
        if client == upstream {
            for (pointer, value) in &added {
                same(pointer, &arrived.pointer(pointer), &Some(value))?;
            }
        }
        let mut answer = json(&format::whole_answer(upstream, &exchange.said))?;
        let added = generate::add_members(&mut answer, &places);
        let told = replay::whole(&sent.plan, answer.to_string().as_bytes());
        let told = json(&told)?;
        if client == upstream {
            for (pointer, value) in &added {
                same(pointer, &told.pointer(pointer), &Some(value))?;
            }
        }
        let expected = losses::told(client, upstream, exchange.said.clone()).normal()?;
        same("the answer", &format::read_answer(client, &told)?.text(), &expected.text())
    })
}

/// Reading and writing in one format loses nothing that the format can say.
pub(crate) fn identity(protocol: Protocol) -> Checked {
    holds(&(generate::ask(), generate::said(protocol)), |(ask, said)| {
        let ask = Ask { stream: (protocol != Protocol::Gemini).then_some(false), ..ask };
        let body = format::write_request(protocol, &ask);
        let written = rewritten(protocol, &body)?;
        let (expected, _) = losses::rewritten(protocol, losses::spoken(protocol, ask.normal()));
        same("the request", &format::read_request(protocol, &json(&written)?), &expected)
            .map_err(|e| format!("{e}\nbody: {}", text(&written)))?;
        same("the request, read again,", &text(&rewritten(protocol, &written)?), &text(&written))?;
        let answer = format::whole_answer(protocol, &said);
        let written = retold(protocol, &answer);
        let expected = said.normal()?;
        same("the answer", &format::read_answer(protocol, &json(&written)?)?, &expected)?;
        same("the answer, read again,", &text(&retold(protocol, &written)), &text(&written))
    })
}

/// Body → IR → body.
fn rewritten(protocol: Protocol, body: &[u8]) -> Result<Vec<u8>, String> {
    let (mut losses, mut context, card) = (Losses::default(), Context::default(), Card::default());
    let refused = |error: wire::error::WireError| format!("refused: {error}");
    let mut request = wire::translate::read_request(protocol, body, &mut losses).map_err(refused)?;
    let target = Target {
        profile: format::profile(protocol),
        model: "upstream-model",
        card: &card,
        stream: request.stream,
        thinking: request.thinking.mode,
        project: "",
    };
    let rules = match protocol {
        Protocol::OpenaiChat => &openai_chat::RULES,
        Protocol::OpenaiResponses => &openai_responses::RULES,
        Protocol::Claude => &claude::RULES,
        Protocol::Gemini => &gemini::RULES,
    };
    lower::lower(&mut request, rules, &mut context, &mut losses);
    match protocol {
        Protocol::OpenaiChat => openai_chat::write_request(&request, &target, &mut context, &mut losses),
        Protocol::OpenaiResponses => {
            openai_responses::write_request(&request, &target, &mut context, &mut losses)
        }
        Protocol::Claude => claude::write_request(&request, &target, &mut context, &mut losses),
        Protocol::Gemini => gemini::write_request(&request, &target, &mut context, &mut losses),
    }
    .map_err(refused)
}

/// Answer → events → answer.
fn retold(protocol: Protocol, body: &[u8]) -> Vec<u8> {
    let (profile, mut fold) = (format::profile(protocol), Fold::default());
    let mut reader = match protocol {
        Protocol::OpenaiChat => openai_chat::reader(profile, "5eed"),
        Protocol::OpenaiResponses => openai_responses::reader(profile, "5eed"),
        Protocol::Claude => claude::reader(profile, "5eed"),
        Protocol::Gemini => gemini::reader(profile, "5eed"),
    };
    reader.whole(body, &mut fold);
    wire::translate::write_answer(
        protocol,
        wire::target::Operation::Generate,
        fold.answer(),
        &Context::default(),
    )
}
