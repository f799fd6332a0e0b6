//! Turns → items of `input`.
//!
//! Enters: turns that [`crate::ir::lower`] has mended: results come right behind their calls. Leaves: items
//! without ids, because nothing is stored. May go wrong: nothing; what cannot be said is recorded.
//!
//! Reasoning goes back only when OpenAI signed it and something of the same turn follows it: the API refuses
//! a reasoning item on its own.

use super::write_content::content;
use crate::Protocol;
use crate::ir::{LossKind, Losses, Part, Reasoning, Role, ToolCall, ToolKind, ToolResult, Turn};
use crate::json::{Array, Object, Path};
use crate::signature::Vendor;

/// Puts turns into `input`.
#[derive(Debug)]
pub(super) struct Items<'o, 'a> {
    pub(super) out: &'o mut Array<'a>,
    /// Codex has no role `system`.
    pub(super) codex: bool,
    pub(super) losses: &'o mut Losses,
}

impl Items<'_, '_> {
    /// One turn.
    pub(super) fn turn(&mut self, turn: &Turn<'_>, path: &Path<'_>) {
        if turn.name.is_some() {
            self.losses.at(LossKind::Setting, &path.key("name"));
        }
        match turn.role {
            Role::Assistant => self.assistant(turn, path),
            Role::User => {
                self.results(turn, path);
                self.message("user", turn, path);
            }
            Role::System if !self.codex => self.message("system", turn, path),
            Role::System | Role::Developer => self.message("developer", turn, path),
        }
    }

    /// A message that is only text.
    pub(super) fn text(&mut self, role: &str, text: &str) {
        self.out.object(|o| {
            o.str("type", "message");
            o.str("role", role);
            o.array("content", |a| {
                a.object(|o| {
                    o.str("type", "input_text");
                    o.str("text", text);
                });
            });
        });
    }

    fn message(&mut self, role: &str, turn: &Turn<'_>, path: &Path<'_>) {
        let parts: Vec<&Part<'_>> = turn
            .parts
            .iter()
            .filter(|part| {
                !matches!(
                    part,
                    Part::ToolResult(_) | Part::ToolCall(_) | Part::Reasoning(_) | Part::Server(_)
                )
            })
            .collect();
        if parts.is_empty() {
            return;
        }
        let losses = &mut *self.losses;
        self.out.object(|o| {
            o.str("type", "message");
            o.str("role", role);
            o.array("content", |a| content(a, &parts, path, losses));
        });
    }

    fn results(&mut self, turn: &Turn<'_>, path: &Path<'_>) {
        for part in &turn.parts {
            match part {
                Part::ToolResult(result) => self.result(result, path),
                Part::Server(item) => self.server(item.vendor, item.raw.as_str(), path),
                Part::ToolCall(_) | Part::Reasoning(_) => self.losses.at(LossKind::ToolPairing, path),
                _ => {}
            }
        }
    }

    fn result(&mut self, result: &ToolResult<'_>, path: &Path<'_>) {
        let typed = result.parts.iter().any(|part| {
            matches!(part, Part::Image(_) | Part::Audio(_))
                || matches!(part, Part::Document(d) if !matches!(d.source, crate::ir::Source::Text(_)))
        });
        let losses = &mut *self.losses;
        self.out.object(|o| {
            let custom = result.kind == ToolKind::Custom;
            o.str("type", if custom { "custom_tool_call_output" } else { "function_call_output" });
            o.str("call_id", &result.call_id);
            if typed {
                o.array("output", |a| {
                    if result.is_error {
                        a.object(|o| {
                            o.str("type", "input_text");
                            o.str("text", FAILED.trim_end());
                        });
                    }
                    let parts: Vec<&Part<'_>> = result.parts.iter().collect();
                    content(a, &parts, path, losses);
                });
            } else {
                let text = result.text();
                // The format has no flag for failure: the model has to read it.
                let failed = if result.is_error { FAILED } else { "" };
                o.str("output", &format!("{failed}{text}"));
            }
        });
    }

    fn assistant(&mut self, turn: &Turn<'_>, path: &Path<'_>) {
        let mut said: Vec<&Part<'_>> = Vec::new();
        for (n, part) in turn.parts.iter().enumerate() {
            match part {
                Part::Text(_) | Part::Refusal(_) => said.push(part),
                Part::ToolCall(call) => {
                    self.spoken(&mut said);
                    self.call(call);
                }
                Part::Reasoning(reasoning) => {
                    self.spoken(&mut said);
                    let rest = turn.parts.get(n + 1..).unwrap_or_default();
                    let followed = rest
                        .iter()
                        .any(|part| matches!(part, Part::Text(_) | Part::Refusal(_) | Part::ToolCall(_)));
                    self.reasoning(reasoning, followed, path);
                }
                Part::Server(item) => {
                    self.spoken(&mut said);
                    self.server(item.vendor, item.raw.as_str(), path);
                }
                // A message of the model holds text only.
                Part::Image(_) | Part::Audio(_) | Part::Document(_) => {
                    self.losses.at(LossKind::AttachmentAsText, path);
                    said.push(part);
                }
                Part::SearchResult(_) | Part::ToolResult(_) => self.losses.at(LossKind::ToolPairing, path),
            }
        }
        self.spoken(&mut said);
    }

    /// What the model said, as one message.
    fn spoken(&mut self, said: &mut Vec<&Part<'_>>) {
        if said.is_empty() {
            return;
        }
        self.out.object(|o| {
            o.str("type", "message");
            o.str("role", "assistant");
            o.array("content", |a| said.iter().for_each(|part| a.object(|o| spoken_part(o, part))));
        });
        said.clear();
    }

    fn call(&mut self, call: &ToolCall<'_>) {
        self.out.object(|o| {
            let custom = call.kind == ToolKind::Custom;
            o.str("type", if custom { "custom_tool_call" } else { "function_call" });
            o.str("call_id", &call.id);
            o.str("name", &call.name);
            o.opt_str("namespace", call.namespace.as_deref());
            if custom {
                o.str("input", &call.arguments);
            } else {
                o.str("arguments", &call.object());
            }
        });
    }

    fn reasoning(&mut self, reasoning: &Reasoning<'_>, followed: bool, path: &Path<'_>) {
        let own = reasoning.signature.as_ref().filter(|signature| signature.vendor == Vendor::Openai);
        let Some(signature) = own.filter(|_| followed) else {
            return self.losses.at(LossKind::Signature, path);
        };
        self.out.object(|o| {
            o.str("type", "reasoning");
            o.array("summary", |a| {
                for text in &reasoning.text {
                    a.object(|o| {
                        o.str("type", "summary_text");
                        o.str("text", text);
                    });
                }
            });
            o.str("encrypted_content", &signature.value);
        });
    }

    fn server(&mut self, vendor: Protocol, raw: &str, path: &Path<'_>) {
        if vendor == Protocol::OpenaiResponses {
            self.out.raw(raw);
        } else {
            self.losses.at(LossKind::Builtin, path);
        }
    }
}

/// In front of what a failed tool said.
const FAILED: &str = "[The tool failed]\n";

fn spoken_part(o: &mut Object<'_>, part: &Part<'_>) {
    let text = match part {
        Part::Text(text) => text.text.as_ref(),
        Part::Refusal(text) => {
            o.str("type", "refusal");
            return o.str("refusal", text);
        }
        Part::Image(_) => "[image]",
        Part::Audio(_) => "[audio]",
        _ => "[document]",
    };
    o.str("type", "output_text");
    o.str("text", text);
}
