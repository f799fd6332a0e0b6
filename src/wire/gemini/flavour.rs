//! What one backend wants of the common format: which of the three envelopes, and whose model behind it.
//!
//! Enters: the target. Leaves: answers to the questions that the writers ask. Nothing may go wrong.

use crate::ir::Str;
use crate::schema::Dialect;
use crate::signature::{Signature, Vendor, wrap_vertex};
use crate::target::{Profile, Target};
use std::borrow::Cow;

/// Stands for a signature that is not there, so that Gemini 3 takes a call it did not make.
pub(super) const SENTINEL: &str = "skip_thought_signature_validator";
/// The other word that Google documents for the same.
const OTHER_SENTINEL: &str = "context_engineering_is_the_way_to_go";

/// A backend and its model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flavour {
    pub(super) profile: Profile,
    /// Claude behind Antigravity.
    pub(super) claude: bool,
    /// A model of Google's own, which checks thought signatures.
    pub(super) google: bool,
    /// Major version of a Gemini model, when its name says it.
    version: Option<u32>,
}

impl Flavour {
    pub(super) fn of(target: &Target<'_>) -> Self {
        let name = target.model.to_ascii_lowercase();
        // Only Antigravity serves models of others.
        let serves = |maker: &str| target.profile == Profile::Antigravity && name.contains(maker);
        Self {
            profile: target.profile,
            claude: serves("claude"),
            google: !serves("claude") && !serves("gpt"),
            version: version(&name),
        }
    }

    /// Whether requests travel as `{project, model, request}`.
    pub(super) fn wrapped(&self) -> bool {
        self.profile != Profile::Gemini
    }

    /// Whether calls and results carry ids. Claude needs them; Antigravity's Gemini models do not know them.
    pub(super) fn ids(&self) -> bool {
        self.profile != Profile::Antigravity || self.claude
    }

    /// Whether a result may hold pictures itself (`functionResponse.parts`, Gemini 3); others take them
    /// beside the results.
    pub(super) fn media_in_results(&self) -> bool {
        self.google && self.version.is_some_and(|v| v >= 3)
    }

    /// Whether the model is known not to check the signatures of calls: Gemini before 3.
    pub(super) fn lenient(&self) -> bool {
        !self.google || self.version.is_some_and(|v| v < 3)
    }

    /// Whether the model draws.
    pub(super) fn draws(model: &str) -> bool {
        model.contains("image") || model.contains("banana")
    }

    pub(super) fn dialect(&self) -> Dialect {
        match (self.wrapped(), self.claude) {
            (false, _) => Dialect::GeminiApi,
            (true, false) => Dialect::Antigravity,
            (true, true) => Dialect::AntigravityClaude,
        }
    }

    /// The signature as this model takes it back; `None` when it is another vendor's.
    pub(super) fn own_signature<'s>(&self, signature: &'s Signature<'_>) -> Option<Str<'s>> {
        match signature.vendor {
            Vendor::Gemini if self.google => Some(Cow::Borrowed(&signature.value)),
            Vendor::ClaudeVertex if self.claude => Some(Cow::Borrowed(&signature.value)),
            Vendor::Claude if self.claude => Some(Cow::Owned(wrap_vertex(&signature.value))),
            _ => None,
        }
    }
}

/// Whether `value` only stands for a signature.
pub(super) fn is_sentinel(value: &str) -> bool {
    value == SENTINEL || value == OTHER_SENTINEL
}

/// `gemini-3-pro-preview` → 3.
fn version(name: &str) -> Option<u32> {
    let (_, rest) = name.split_once("gemini-")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest.get(..digits)?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::target::Card;

    pub(in super::super) fn target(
        profile: Profile,
        model: &'static str,
        card: &'static Card,
    ) -> Target<'static> {
        Target { profile, model, card, stream: false, thinking: None, project: "proj" }
    }

    #[test]
    fn models_are_told_by_name() {
        static CARD: std::sync::LazyLock<Card> = std::sync::LazyLock::new(Card::default);
        let of = |profile, model| Flavour::of(&target(profile, model, &CARD));
        assert!(of(Profile::Antigravity, "claude-sonnet-4-6").claude);
        assert!(!of(Profile::Antigravity, "claude-sonnet-4-6").google);
        assert!(of(Profile::Antigravity, "gemini-claude-opus-4-6-thinking").claude);
        assert!(of(Profile::Antigravity, "gemini-3-flash").google);
        assert!(!of(Profile::Antigravity, "gpt-oss-120b-medium").google);
        assert!(of(Profile::Gemini, "gemini-flash-latest").google);
        assert!(!of(Profile::Gemini, "gemini-flash-latest").lenient());
        assert!(of(Profile::Gemini, "models/gemini-2.5-pro").lenient());
        assert!(of(Profile::GeminiCli, "gemini-3-pro-preview").media_in_results());
        assert!(!of(Profile::Gemini, "gemini-2.5-flash-image").media_in_results());
    }
}
