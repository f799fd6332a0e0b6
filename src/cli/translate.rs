//! `cliproxy translate`: what the proxy would send, without sending it.
//!
//! | kind | standard input | standard output |
//! |---|---|---|
//! | request | the client's body | the upstream's body |
//! | response | the upstream's body | the client's body |
//! | stream | the upstream's event stream | the client's event stream |
//! | ws | `{"input": [client frames], "upstream": [answers]}` | `{"upstream": [bodies], "frames": [[events]]}` |
//!
//! `--from` is the client for `request` and `ws`, the upstream for the others. A request that the proxy
//! would refuse gives exit code 1 and the error body on standard error.

use super::{complain, say};
use clap::{Args, ValueEnum};
use pool::catalogue;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use wire::Protocol;
use wire::error::{Failure, WireError};
use wire::json::{self, Json};
use wire::replay::{self, Replay, client_format};
use wire::target::{Card, Operation, Profile};
use wire::thinking::split_suffix;

/// Arguments of the command.
#[derive(Args, Debug)]
pub(super) struct Translate {
    /// Format of the input
    #[arg(long)]
    from: String,
    /// Format of the output
    #[arg(long)]
    to: String,
    /// What is translated
    #[arg(long, value_enum)]
    kind: Kind,
    /// The upstream's name of the model, maybe with a thinking suffix
    #[arg(long, default_value = "model")]
    model: String,
    /// The client's request that led to the answer: a file with its body
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// Operation
    #[arg(long, value_enum, default_value = "generate")]
    operation: Asked,
    /// The client wants events (kind `request`)
    #[arg(long)]
    stream: bool,
    /// Status of the upstream's answer (kind `response`)
    #[arg(long)]
    status: Option<u16>,
    /// Google project for the formats that name one
    #[arg(long, default_value = "project")]
    project: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Request,
    Response,
    Stream,
    Ws,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Asked {
    Generate,
    CountTokens,
    Compact,
    #[value(name = "images.edits")]
    ImageEdits,
}

/// Why nothing came out.
enum Refused {
    /// The request would be refused.
    Request(WireError, Protocol),
    /// The arguments or the input make no sense.
    Usage(String),
}

/// Runs the command.
pub(super) fn run(args: &Translate) -> ExitCode {
    let mut input = Vec::new();
    if let Err(error) = std::io::stdin().lock().read_to_end(&mut input) {
        complain(&format!("standard input: {error}"));
        return ExitCode::FAILURE;
    }
    match translate(args, &input) {
        Ok(output) => {
            let mut out = std::io::stdout().lock();
            let written = out.write_all(&output).and_then(|()| out.flush());
            if args.kind != Kind::Stream {
                say("\n");
            }
            if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(Refused::Request(error, protocol)) => {
            complain(&String::from_utf8_lossy(&error.failure().render(protocol)));
            ExitCode::FAILURE
        }
        Err(Refused::Usage(message)) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

fn translate(args: &Translate, input: &[u8]) -> Result<Vec<u8>, Refused> {
    let asks = matches!(args.kind, Kind::Request | Kind::Ws);
    let (client, upstream) = if asks { (&args.from, &args.to) } else { (&args.to, &args.from) };
    let unknown = |name: &str| Refused::Usage(format!("unknown format {name}; known are {}", formats()));
    let (protocol, format) = client_format(client).ok_or_else(|| unknown(client))?;
    let profile = Profile::parse(upstream).ok_or_else(|| unknown(upstream))?;
    let card = card(profile, &args.model);
    let operation = match args.operation {
        Asked::Generate => format,
        Asked::CountTokens => Operation::CountTokens,
        Asked::Compact => Operation::Compact,
        Asked::ImageEdits => Operation::ImageEdit,
    };
    let replay = Replay {
        operation,
        stream: args.stream || args.kind == Kind::Stream,
        project: &args.project,
        image_base: &config::Models::default().gpt_image_2_base_model,
        ..Replay::new(protocol, profile, &args.model, &card)
    };
    let refused = |error| Refused::Request(error, protocol);
    match args.kind {
        Kind::Request => replay.request(input).map(|sent| sent.body).map_err(refused),
        Kind::Ws => talk(&replay, input),
        Kind::Response if args.status.is_some_and(|status| status >= 400) => {
            Ok(Failure::parse(args.status.unwrap_or(500), input).render(protocol))
        }
        Kind::Response | Kind::Stream => {
            let request = client_request(args, protocol, operation)?;
            let sent = replay.request(&request).map_err(refused)?;
            Ok(if args.kind == Kind::Stream {
                replay::streamed(&sent.plan, input, &[])
            } else {
                replay::whole(&sent.plan, input)
            })
        }
    }
}

fn formats() -> String {
    "openai, openai-response, openai-completions, openai-images, claude, gemini, gemini-cli, codex, \
     antigravity, kiro, kimi, qwen, iflow, copilot"
        .to_owned()
}

/// What the catalogue knows of a model.
fn card(profile: Profile, model: &str) -> Card {
    let (model, _) = split_suffix(model);
    let channels: &[&str] = match profile {
        Profile::Chat => &[],
        Profile::Kimi => &["kimi"],
        Profile::Qwen => &["qwen"],
        Profile::Iflow => &["iflow"],
        Profile::Copilot | Profile::CopilotResponses => &["github-copilot"],
        Profile::Responses | Profile::Codex => &["codex", "codex-pro"],
        Profile::Claude => &["claude"],
        Profile::Gemini | Profile::GeminiCli => &["gemini", "vertex"],
        Profile::Antigravity => &["antigravity"],
        Profile::Kiro => &["kiro"],
    };
    channels
        .iter()
        .find_map(|channel| catalogue::lookup(channel, model))
        .map(|f| f.card.clone())
        .unwrap_or_default()
}

/// The request that led to an answer: the file, or the smallest one.
fn client_request(args: &Translate, protocol: Protocol, operation: Operation) -> Result<Vec<u8>, Refused> {
    if let Some(file) = &args.request {
        return std::fs::read(file).map_err(|error| Refused::Usage(format!("{}: {error}", file.display())));
    }
    let text = match (protocol, operation) {
        (_, Operation::Completion | Operation::ImageGeneration) => r#"{"model":"x","prompt":"hi"}"#,
        (_, Operation::ImageEdit) => r#"{"model":"x","prompt":"hi","image":"https://example.com/a.png"}"#,
        (Protocol::OpenaiChat, _) => r#"{"model":"x","messages":[{"role":"user","content":"hi"}]}"#,
        (Protocol::OpenaiResponses, _) => r#"{"model":"x","input":"hi"}"#,
        (Protocol::Claude, _) => {
            r#"{"model":"x","max_tokens":1024,"messages":[{"role":"user","content":"hi"}]}"#
        }
        (Protocol::Gemini, _) => r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#,
    };
    Ok(text.as_bytes().to_vec())
}

/// A WebSocket conversation.
fn talk(replay: &Replay<'_>, input: &[u8]) -> Result<Vec<u8>, Refused> {
    let usage = || Refused::Usage(r#"expected {"input": [frames], "upstream": [answers]}"#.to_owned());
    let document = json::parse_any(input).map_err(|error| Refused::Usage(error.to_string()))?;
    let list = |key: &str| document.get(key).and_then(Json::as_array);
    let frames: Vec<_> = list("input").ok_or_else(usage)?.iter().map(|f| f.to_text().into_bytes()).collect();
    let mut answers = list("upstream").unwrap_or_default().iter();
    let talk = replay.talk(&frames, |_| answers.next().map(as_stream).unwrap_or_default());
    let mut out = Vec::new();
    json::object(&mut out, |o| {
        o.array("upstream", |a| talk.bodies.iter().for_each(|body| a.item().extend_from_slice(body)));
        o.array("frames", |a| {
            for turn in &talk.turns {
                json::array(a.item(), |a| turn.iter().for_each(|event| a.item().extend_from_slice(event)));
            }
        });
    });
    Ok(out)
}

/// A whole Responses answer as the stream that an upstream would send: its terminal event is enough.
fn as_stream(answer: &Json<'_>) -> Vec<u8> {
    let mut event = Vec::new();
    json::object(&mut event, |o| {
        o.str("type", "response.completed");
        o.value("response", answer);
    });
    let mut out = Vec::new();
    wire::sse::write(&mut out, "response.completed", &event);
    out
}
