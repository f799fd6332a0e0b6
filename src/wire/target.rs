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
    /// Pictures from a text (`/v1/images/generations`).
    ImageGeneration,
    /// Pictures from pictures and a text (`/v1/images/edits`).
    ImageEdit,
    /// Vectors (`/v1/embeddings`).
    Embeddings,
    /// The words of a sound file (`/v1/audio/transcriptions`).
    Transcription,
    /// The words of a sound file, in English (`/v1/audio/translations`).
    Translation,
    /// Sound from text (`/v1/audio/speech`).
    Speech,
    /// Whether a text may be shown (`/v1/moderations`).
    Moderation,
    /// Documents in the order of their relevance (`/v1/rerank`).
    Rerank,
    /// A vector (Gemini `:embedContent`).
    GeminiEmbed,
    /// Vectors (Gemini `:batchEmbedContents`).
    GeminiBatchEmbed,
    /// Gemini's files: uploads, and what is known of them.
    GeminiFiles,
}

impl Operation {
    /// The name used in logs, metrics and vectors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Completion => "completion",
            Self::CountTokens => "count_tokens",
            Self::Compact => "compact",
            Self::ImageGeneration => "images.generations",
            Self::ImageEdit => "images.edits",
            Self::Embeddings => "embeddings",
            Self::Transcription => "audio.transcriptions",
            Self::Translation => "audio.translations",
            Self::Speech => "audio.speech",
            Self::Moderation => "moderations",
            Self::Rerank => "rerank",
            Self::GeminiEmbed => "embed_content",
            Self::GeminiBatchEmbed => "batch_embed_contents",
            Self::GeminiFiles => "files",
        }
    }

    /// Whether pictures are asked for by the Images API.
    pub fn draws(self) -> bool {
        matches!(self, Self::ImageGeneration | Self::ImageEdit)
    }

    /// Whether body and answer are none of a conversation: between equal formats only the model's name is
    /// changed, and the answer goes on as it comes, whatever it is.
    pub fn is_media(self) -> bool {
        !matches!(self, Self::Generate | Self::Completion | Self::CountTokens | Self::Compact)
    }

    /// Whether the body may be a form (`multipart/form-data`).
    pub fn takes_forms(self) -> bool {
        matches!(self, Self::ImageEdit | Self::Transcription | Self::Translation)
    }

    /// The model that serves a body which names none.
    pub fn default_model(self) -> Option<&'static str> {
        match self {
            Self::ImageGeneration | Self::ImageEdit => Some("gpt-image-2"),
            Self::Moderation => Some("omni-moderation-latest"),
            _ => None,
        }
    }

    /// Why an upstream of this flavour cannot serve it, and what would; `None`: it can.
    pub fn refusal(self, profile: Profile) -> Option<&'static str> {
        let protocol = profile.protocol();
        match self {
            Self::Generate | Self::Completion | Self::CountTokens => None,
            Self::Compact => (protocol != Protocol::OpenaiResponses).then_some(
                "only upstreams that speak Responses compact conversations; choose one of their models",
            ),
            Self::ImageGeneration | Self::ImageEdit => (protocol == Protocol::Claude).then_some(
                "this upstream draws no pictures; choose an image model of an OpenAI-compatible, Codex or Gemini upstream",
            ),
            Self::GeminiEmbed | Self::GeminiBatchEmbed | Self::GeminiFiles => (profile != Profile::Gemini)
                .then_some("only Gemini upstreams serve this path; choose an embedding model of one"),
            _ => (!matches!(profile, Profile::Chat | Profile::Responses)).then_some(
                "only OpenAI-compatible upstreams serve this path; choose a model of one (openai-compatibility)",
            ),
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
    /// It is asked for whole answers, of which streams are made here (`force-non-stream`).
    pub whole_only: bool,
}

impl Card {
    /// A model of which nothing is known.
    pub const UNKNOWN: Self =
        Self { thinking: Support::Unknown, max_output: None, context: None, whole_only: false };
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
