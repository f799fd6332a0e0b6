//! What the service has no member for, said to the model at the head of the first message: instructions,
//! thinking, the choice of tools, the shape of the answer.
//!
//! Enters: a request. Leaves: text. May go wrong: nothing; a wish that is said is no rule that the service
//! enforces, so each is recorded.

use super::WireNames;
use crate::ir::{Format, LossKind, Losses, Request, ToolChoice};
use crate::target::Target;
use crate::thinking::Mode;

/// Tokens of thinking when the model decides.
const AUTO_BUDGET: u32 = 16_000;

/// Begins the words that switch thinking in tags on.
const THINKING: &str = "<thinking_mode>enabled";

/// Models called `…-agentic` write long files in pieces: the service cuts long calls.
const CHUNKS: &str = "When you write a file of more than 350 lines, write it in several tool calls of at most \
                      350 lines each: create it with the first part, then append the others.";

/// What is said before the first message.
pub(super) struct Preamble {
    /// The text; empty when nothing is said.
    pub(super) text: String,
    /// Whether the model is asked to think in tags.
    pub(super) thinks: bool,
}

/// What is known of the rest of the body.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// It has tools.
    pub(super) callable: bool,
    /// The model writes long files in pieces.
    pub(super) agentic: bool,
    /// What its tools are called.
    pub(super) names: WireNames,
}

/// Makes it.
pub(super) fn preamble(
    request: &Request<'_>,
    target: &Target<'_>,
    asked: Asked,
    losses: &mut Losses,
) -> Preamble {
    let mut lines: Vec<&str> = request.system.iter().map(|line| line.text.as_ref()).collect();
    let own_tags = lines.iter().any(|line| line.contains(THINKING));
    let mut hints = hints(request, asked, losses);
    if asked.agentic {
        hints.push(CHUNKS.to_owned());
    }
    lines.extend(hints.iter().map(String::as_str));
    let budget = if own_tags { None } else { budget(target) };
    let mut text = String::new();
    if let Some(budget) = budget {
        text = format!("{THINKING}</thinking_mode>\n<max_thinking_length>{budget}</max_thinking_length>");
    }
    if !lines.is_empty() {
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str("<system-prompt>\n");
        text.push_str(&lines.join("\n\n"));
        text.push_str("\n</system-prompt>");
    }
    Preamble { text, thinks: own_tags || budget.is_some() }
}

/// How many tokens the model may think; `None`: it is not asked to.
fn budget(target: &Target<'_>) -> Option<u32> {
    match target.thinking? {
        Mode::Off => None,
        Mode::Auto => Some(AUTO_BUDGET),
        Mode::Level(level) => Some(level.budget()),
        Mode::Budget(tokens) => Some(tokens),
    }
}

fn hints(request: &Request<'_>, asked: Asked, losses: &mut Losses) -> Vec<String> {
    let mut hints = Vec::new();
    let choice = match &request.tool_choice {
        Some(_) if !asked.callable => None,
        Some(ToolChoice::Any | ToolChoice::Allowed { required: true, .. }) => {
            Some("You must call one of the tools in this turn.".to_owned())
        }
        Some(ToolChoice::Named { name, .. }) => {
            Some(format!("You must call the tool {} in this turn.", asked.names.get(name)))
        }
        Some(ToolChoice::None) => Some("Do not call any tool in this turn.".to_owned()),
        Some(ToolChoice::Builtin(_)) => {
            losses.member(LossKind::Setting, "tool_choice");
            None
        }
        Some(ToolChoice::Auto | ToolChoice::Allowed { required: false, .. }) | None => None,
    };
    if let Some(choice) = choice {
        losses.member(LossKind::Setting, "tool_choice");
        hints.push(choice);
    }
    if asked.callable && request.parallel_tools == Some(false) {
        losses.member(LossKind::Setting, "parallel_tool_calls");
        hints.push("Call at most one tool at a time.".to_owned());
    }
    match &request.format {
        Some(Format::JsonObject) => {
            losses.member(LossKind::Setting, "response_format");
            hints.push("Answer with one JSON object and nothing else.".to_owned());
        }
        Some(Format::JsonSchema { schema, .. }) => {
            losses.member(LossKind::Setting, "response_format");
            hints.push(format!(
                "Answer with JSON that fits this JSON Schema, and nothing else:\n{}",
                schema.as_str()
            ));
        }
        None => {}
    }
    hints
}
