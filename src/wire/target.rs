//! What a request is written for: the flavour of the upstream, the model and its facts.

use crate::Protocol;
use crate::thinking::{Mode, Support};

/// A flavour of a format: the format of the bodies plus what one backend insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Chat Completions as OpenAI-compatible servers take it.
    Chat,
    /// Chat Completions as Kimi takes it.
    Kimi,
    /// Chat Completions as Qwen's portal takes it.
    Qwen,
    /// Chat Completions as iFlow takes it.
    Iflow,
    /// Chat Completions as GitHub Copilot takes it.
    Copilot,
    /// Responses as the public OpenAI API takes it.
    Responses,
    /// Responses as GitHub Copilot takes it.
    CopilotResponses,
    /// Responses as the Codex backend takes it.
    Codex,
    /// Claude Messages.
    Claude,
    /// Gemini generateContent.
    Gemini,
    /// Gemini in the envelope `{project, model, request}` of Antigravity; also serves Claude models.
    Antigravity,
    /// Gemini in the envelope `{project, model, request}` of the Gemini CLI.
    GeminiCli,
    /// Kiro's conversation state, answered in AWS event-stream frames.
    Kiro,
}

impl Profile {
    /// The format whose reader and writer it uses. Kiro has its own; its models are mostly Claude, so that
    /// thinking is asked for as there.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Chat | Self::Kimi | Self::Qwen | Self::Iflow | Self::Copilot => Protocol::OpenaiChat,
            Self::Responses | Self::CopilotResponses | Self::Codex => Protocol::OpenaiResponses,
            Self::Claude | Self::Kiro => Protocol::Claude,
            Self::Gemini | Self::Antigravity | Self::GeminiCli => Protocol::Gemini,
        }
    }

    /// The name used in configuration, vectors and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "openai",
            Self::Kimi => "kimi",
            Self::Qwen => "qwen",
            Self::Iflow => "iflow",
            Self::Copilot => "copilot",
            Self::Responses => "openai-response",
            Self::CopilotResponses => "copilot-response",
            Self::Codex => "codex",
            Self::Claude => "claude",
            Self::Gemini => "gemini",
            Self::Antigravity => "antigravity",
            Self::GeminiCli => "gemini-cli",
            Self::Kiro => "kiro",
        }
    }

    /// Reads the name.
    pub fn parse(name: &str) -> Option<Self> {
        const ALL: [Profile; 13] = [
            Profile::Chat,
            Profile::Kimi,
            Profile::Qwen,
            Profile::Iflow,
            Profile::Copilot,
            Profile::Responses,
            Profile::CopilotResponses,
            Profile::Codex,
            Profile::Claude,
            Profile::Gemini,
            Profile::Antigravity,
            Profile::GeminiCli,
            Profile::Kiro,
        ];
        ALL.into_iter().find(|p| p.name() == name)
    }

    /// Whether it counts the tokens of a prompt. Elsewhere [`crate::estimate`] does.
    pub fn counts_tokens(self) -> bool {
        matches!(self.protocol(), Protocol::Claude | Protocol::Gemini) && self != Self::Kiro
    }

    /// Whether it answers in events only, so that a whole answer has to be folded.
    pub fn streams_only(self) -> bool {
        matches!(self, Self::Codex | Self::Kiro)
    }
}

/// What is asked of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Operation {
    /// An answer.
    #[default]
    Generate,
    /// An answer in the shape of legacy completions (`/v1/completions`).
    Completion,
    /// The number of tokens of a prompt.
    CountTokens,
    /// A compacted conversation (`/v1/responses/compact`).
    Compact,
}

impl Operation {
    /// The name used in logs, metrics and vectors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Completion => "completion",
            Self::CountTokens => "count_tokens",
            Self::Compact => "compact",
        }
    }
}

/// Facts about a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// What it takes as thinking.
    pub thinking: Support,
    /// Most tokens it writes.
    pub max_output: Option<u64>,
    /// Most tokens it reads.
    pub context: Option<u64>,
}

/// What a request is written for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'t> {
    /// Flavour of the upstream.
    pub profile: Profile,
    /// The upstream's name of the model, without suffix.
    pub model: &'t str,
    /// Facts about it.
    pub card: &'t Card,
    /// Whether the upstream shall answer in events.
    pub stream: bool,
    /// How much to think, made legal by [`crate::thinking::plan`]; `None`: say nothing.
    pub thinking: Option<Mode>,
    /// Google project of the envelopes; Kiro: ARN of the profile.
    pub project: &'t str,
}
