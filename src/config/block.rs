//! The lists of keys as one table, for those who treat them alike.
//!
//! Enters: a list's name. Leaves: its key in the file, its entries, the base URL of a preset. Nothing may go
//! wrong.

use crate::entry::KeyEntry;
use crate::providers::Providers;

macro_rules! blocks {
    ($($(#[$doc:meta])* $block:ident $field:ident $key:literal $base_url:expr;)*) => {
        /// A list of [`KeyEntry`]s in the file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Block {
            $($(#[$doc])* $block,)*
        }

        impl Block {
            /// All lists, in the order in which [`Providers`] has them.
            pub const ALL: &[Self] = &[$(Self::$block),*];

            /// The key in the file.
            pub fn key(self) -> &'static str {
                match self { $(Self::$block => $key,)* }
            }

            /// Where an OpenAI-compatible preset is; `None` for lists that are no presets.
            pub fn preset_url(self) -> Option<&'static str> {
                match self { $(Self::$block => $base_url,)* }
            }
        }

        impl Providers {
            /// The entries of a list.
            pub fn entries(&self, block: Block) -> &[KeyEntry] {
                match block { $(Block::$block => &self.$field,)* }
            }

            /// The entries of a list, to change.
            pub fn entries_mut(&mut self, block: Block) -> &mut Vec<KeyEntry> {
                match block { $(Block::$block => &mut self.$field,)* }
            }
        }
    };
}

blocks! {
    /// Gemini.
    Gemini gemini_api_key "gemini-api-key" None;
    /// Gemini Interactions.
    Interactions interactions_api_key "interactions-api-key" None;
    /// Claude Messages.
    Claude claude_api_key "claude-api-key" None;
    /// OpenAI Responses.
    Codex codex_api_key "codex-api-key" None;
    /// xAI's OpenAI Responses.
    Xai xai_api_key "xai-api-key" None;
    /// Gemini on Vertex AI.
    Vertex vertex_api_key "vertex-api-key" None;
    /// DeepSeek.
    Deepseek deepseek "deepseek" Some("https://api.deepseek.com");
    /// Fireworks AI.
    Fireworks fireworks "fireworks" Some("https://api.fireworks.ai/inference/v1");
    /// Groq.
    Groq groq "groq" Some("https://api.groq.com/openai/v1");
    /// Kilo.
    Kilo kilo "kilo" Some("https://api.kilo.ai/v1");
    /// MiniMax.
    Minimax minimax "minimax" Some("https://api.minimax.chat/v1");
    /// Mistral AI.
    Mistral mistral "mistral" Some("https://api.mistral.ai/v1");
    /// Novita AI.
    Novita novita "novita" Some("https://api.novita.ai/v1");
    /// OpenRouter.
    Openrouter openrouter "openrouter" Some("https://openrouter.ai/api/v1");
    /// Roo Code.
    Roo roo "roo" Some("https://api.roocode.com/v1");
    /// SiliconFlow.
    Siliconflow siliconflow "siliconflow" Some("https://api.siliconflow.cn/v1");
    /// Together AI.
    Together together "together" Some("https://api.together.xyz/v1");
}
