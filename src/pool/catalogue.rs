//! What is known about the models of each vendor channel: names, limits, thinking, modalities.
//!
//! Enters: `catalogue.json`, embedded, one model per line. Leaves: [`Facts`]. Nothing may go wrong at run
//! time: a test reads the whole file; were it broken, the catalogue would be empty.
//!
//! In the file a missing member is a fact nobody states; `endpoints` are the paths by which Copilot serves it. `thinking` missing means that the model has no
//! thinking parameter; `budget` are the least and most tokens, `levels` the words, `off` and `auto` whether
//! it can be switched off and left to itself.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use wire::target::Card;
use wire::thinking::{Bounds, Level, Support};

use crate::model::ModelSpec;

/// What is known about one model on one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The vendor's id.
    pub id: Arc<str>,
    /// Name for people.
    pub name: Arc<str>,
    /// Owner shown in lists.
    pub owned_by: Arc<str>,
    /// Seconds since 1970 at which it came out.
    pub created: Option<u64>,
    /// Limits and thinking.
    pub card: Card,
    /// The vendor's version of it.
    pub version: Option<Arc<str>>,
    /// Copilot serves it by Responses only.
    pub responses_only: bool,
    /// What it reads (`text`, `image`, `audio`, `video`); empty: not stated.
    pub input: Arc<[Arc<str>]>,
    /// What it writes; empty: not stated.
    pub output: Arc<[Arc<str>]>,
}

impl Facts {
    /// As a model that is served under its own id.
    pub fn spec(&self) -> ModelSpec {
        ModelSpec {
            upstream: Arc::clone(&self.id),
            alias: Arc::clone(&self.id),
            card: self.card.clone(),
            display_name: Some(Arc::clone(&self.name)),
            owned_by: Arc::clone(&self.owned_by),
            created: self.created,
            image: !self.output.is_empty() && !self.output.iter().any(|kind| &**kind == "text"),
            version: self.version.clone(),
            responses_only: self.responses_only,
            input: Arc::clone(&self.input),
            output: Arc::clone(&self.output),
            ..ModelSpec::default()
        }
    }
}

#[derive(Deserialize)]
struct Line {
    id: String,
    name: String,
    owned_by: String,
    created: Option<u64>,
    context: Option<u64>,
    max_output: Option<u64>,
    thinking: Option<ThinkingLine>,
    version: Option<String>,
    #[serde(default)]
    endpoints: Vec<String>,
    #[serde(default)]
    input: Vec<String>,
    #[serde(default)]
    output: Vec<String>,
}

#[derive(Deserialize)]
struct ThinkingLine {
    budget: Option<(u32, u32)>,
    #[serde(default)]
    off: bool,
    #[serde(default)]
    auto: bool,
    #[serde(default)]
    levels: Vec<String>,
}

impl From<ThinkingLine> for Bounds {
    fn from(line: ThinkingLine) -> Self {
        let levels = line.levels.iter().filter_map(|word| Level::parse(word)).collect();
        Self { budget: line.budget, off: line.off, auto: line.auto, levels }
    }
}

impl From<Line> for Facts {
    fn from(line: Line) -> Self {
        let thinking = line.thinking.map_or(Support::Never, |bounds| Support::Bounded(bounds.into()));
        Self {
            id: line.id.into(),
            name: line.name.into(),
            owned_by: line.owned_by.into(),
            created: line.created,
            card: Card { thinking, max_output: line.max_output, context: line.context, ..Card::default() },
            version: line.version.map(Arc::from),
            responses_only: line.endpoints == ["/responses"],
            input: line.input.into_iter().map(Arc::from).collect(),
            output: line.output.into_iter().map(Arc::from).collect(),
        }
    }
}

static CHANNELS: LazyLock<HashMap<String, Vec<Facts>>> = LazyLock::new(|| {
    let lines: HashMap<String, Vec<Line>> =
        serde_json::from_str(include_str!("catalogue.json")).unwrap_or_default();
    lines
        .into_iter()
        .map(|(channel, lines)| (channel, lines.into_iter().map(Facts::from).collect()))
        .collect()
});

/// The models of a channel (`claude`, `gemini`, `vertex`, `codex`, `codex-plus`, …) in the vendor's order;
/// empty where nothing is known.
pub fn channel(name: &str) -> &'static [Facts] {
    CHANNELS.get(name).map_or(&[], Vec::as_slice)
}

/// What is known about a model of a channel.
pub fn lookup(channel_name: &str, id: &str) -> Option<&'static Facts> {
    channel(channel_name).iter().find(|facts| &*facts.id == id)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_file_reads_and_no_id_repeats_in_a_channel() {
        assert!(CHANNELS.len() > 20, "{}", CHANNELS.len());
        for (name, models) in CHANNELS.iter() {
            let ids: HashSet<_> = models.iter().map(|facts| &facts.id).collect();
            assert_eq!(ids.len(), models.len(), "{name}");
            for facts in models {
                assert!(!facts.id.is_empty() && !facts.name.is_empty(), "{name}: {facts:?}");
                let Support::Bounded(bounds) = &facts.card.thinking else { continue };
                assert!(bounds.levels.is_sorted(), "{name}: {facts:?}");
                assert!(bounds.budget.is_none_or(|(min, max)| min < max), "{name}: {facts:?}");
            }
        }
    }

    #[test]
    fn every_line_holds_the_facts_that_a_translation_asks_for() {
        const KINDS: [&str; 5] = ["text", "image", "audio", "video", "pdf"];
        /// Channels that do not state the limits of all their models.
        const UNLIMITED: [&str; 5] = ["antigravity", "iflow", "gitlab", "zen", "nim"];
        for (name, models) in CHANNELS.iter() {
            for facts in models {
                let at = format!("{name}/{}", facts.id);
                let kinds = facts.input.iter().chain(facts.output.iter());
                assert!(kinds.clone().all(|kind| KINDS.contains(&&**kind)), "{at}: {facts:?}");
                let text = facts.output.is_empty() || facts.output.iter().any(|kind| &**kind == "text");
                let card = &facts.card;
                let limits = card.context.is_some() && card.max_output.is_some();
                assert!(limits || !text || UNLIMITED.contains(&name.as_str()), "{at}: no limits");
                assert!(card.max_output.is_none_or(|most| most > 0), "{at}");
                let Support::Bounded(bounds) = &card.thinking else { continue };
                let claude = facts.id.starts_with("claude-") && name == "claude";
                let least = bounds.budget.map(|(least, _)| least);
                assert!(
                    !claude || least.is_none_or(|least| least >= wire::thinking::CLAUDE_MIN_BUDGET),
                    "{at}"
                );
            }
        }
    }

    #[test]
    fn models_of_responses_only_are_told_from_those_of_both() {
        let only = |id| lookup("github-copilot", id).unwrap().spec().responses_only;
        assert!(only("gpt-5.4") && !only("gpt-5.1") && !only("claude-sonnet-4"));
    }

    #[test]
    fn facts_become_support() {
        let budget = &lookup("gemini", "gemini-2.5-pro").unwrap().card;
        assert_eq!(budget.context, Some(1_048_576));
        let Support::Bounded(bounds) = &budget.thinking else { panic!("{budget:?}") };
        assert_eq!((bounds.budget, bounds.off, bounds.auto), (Some((128, 32768)), false, true));
        let none_is_off = &lookup("codex-pro", "gpt-5.1").unwrap().card.thinking;
        let Support::Bounded(bounds) = none_is_off else { panic!("{none_is_off:?}") };
        assert!(bounds.off && !bounds.levels.is_empty());
        assert_eq!(lookup("kimi", "kimi-k2").unwrap().card.thinking, Support::Never);
        assert!(lookup("gemini", "gpt-5").is_none() && channel("no-such").is_empty());
    }

    #[test]
    fn models_that_write_no_text_are_for_media_routes_only() {
        let image = |channel, id| lookup(channel, id).unwrap().spec().image;
        assert!(image("codex", "gpt-image-2") && image("xai", "grok-imagine-video"));
        assert!(!image("codex", "gpt-5.4") && !image("gemini", "gemini-2.5-pro"));
    }

    #[test]
    fn spark_is_listed_for_paying_codex_plans_only_and_its_fallback_for_all() {
        for (plan, spark) in
            [("codex-free", false), ("codex-team", false), ("codex-plus", true), ("codex-pro", true)]
        {
            assert_eq!(lookup(plan, "gpt-5.3-codex-spark").is_some(), spark, "{plan}");
            assert!(lookup(plan, "gpt-5.3-codex").is_some(), "{plan}");
        }
    }
}
