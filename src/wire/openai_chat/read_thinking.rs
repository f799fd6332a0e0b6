//! How much a Chat client wants the model to think: one official member and what servers around it invented.
//!
//! Enters: `reasoning_effort`, OpenRouter's `reasoning` and `include_reasoning`, `thinking` (DeepSeek, Z.ai,
//! Kimi), `enable_thinking` (Qwen), `extra_body.google.thinking_config`. Leaves: [`Thinking`]. When several
//! speak, the official one wins, then OpenRouter's. May go wrong: a word or type nobody knows.

use crate::error::WireError;
use crate::ir::{LossKind, Losses};
use crate::json::{Json, Path, parse_any};
use crate::patch::Member;
use crate::thinking::{Level, Mode, Summary, Thinking};
use crate::typed::{boolean, int, object, string};

/// Members that say nothing but how much to think.
pub(super) const MEMBERS: [&str; 5] =
    ["reasoning_effort", "reasoning", "thinking", "enable_thinking", "include_reasoning"];

/// Members that may say so, among other things.
const EXTENSIONS: [&str; 2] = ["extra_body", "google"];

/// What a body asks, without reading the rest of it.
pub(super) fn asked<'t>(
    body: &'t [u8],
    members: impl Iterator<Item = Member<'t>>,
) -> Result<Thinking, WireError> {
    let mut asked = Asked::default();
    for member in members {
        let known = MEMBERS.iter().chain(&EXTENSIONS).find(|key| key.as_bytes() == member.key);
        let (Some(key), Some(raw)) = (known, body.get(member.value)) else { continue };
        let value = parse_any(raw)?;
        if !value.is_null() {
            asked.member(key, value, &mut Losses::default())?;
        }
    }
    Ok(asked.resolve())
}

/// What was asked, by who speaks.
#[derive(Debug, Default)]
pub(super) struct Asked {
    official: Option<Mode>,
    openrouter: Option<Mode>,
    vendor: Option<Mode>,
    visible: Option<bool>,
    summary: Option<Summary>,
}

impl Asked {
    /// Takes a top-level member; gives back the value of any other.
    pub(super) fn member<'a>(
        &mut self,
        key: &str,
        value: Json<'a>,
        losses: &mut Losses,
    ) -> Result<Option<Json<'a>>, WireError> {
        let root = Path::Root;
        let at = root.key(key);
        match key {
            "reasoning_effort" => self.official = Some(effort(value, &at)?),
            "reasoning" => self.openrouter(value, &at, losses)?,
            "include_reasoning" => self.visible = Some(boolean(&value, &at)?),
            "thinking" => self.thinking(value, &at, losses)?,
            "enable_thinking" => {
                self.vendor = Some(if boolean(&value, &at)? { Mode::Auto } else { Mode::Off });
            }
            "extra_body" => {
                for (key, value) in object(value, &at)?.0 {
                    let at = at.key(&key);
                    if key == "google" {
                        self.google(value, &at, losses)?;
                    } else {
                        losses.at(LossKind::UnknownMember, &at);
                    }
                }
            }
            "google" => self.google(value, &at, losses)?,
            _ => return Ok(Some(value)),
        }
        Ok(None)
    }

    /// What all of it means.
    pub(super) fn resolve(self) -> Thinking {
        let mode = self.official.or(self.openrouter).or(self.vendor);
        // Who asks for effort wants to see it.
        let implied = mode.filter(|mode| *mode != Mode::Off).map(|_| true);
        Thinking { mode, visible: self.visible.or(implied), summary: self.summary }
    }

    fn openrouter(&mut self, value: Json<'_>, at: &Path<'_>, losses: &mut Losses) -> Result<(), WireError> {
        let (mut level, mut budget, mut enabled) = (None, None, None);
        for (key, value) in object(value, at)?.0 {
            let at = at.key(&key);
            if value.is_null() {
                continue;
            }
            match key.as_ref() {
                "effort" => level = Some(effort(value, &at)?),
                "max_tokens" => budget = Some(Mode::of_tokens(int(&value, &at)?)),
                "enabled" => enabled = Some(if boolean(&value, &at)? { Mode::Auto } else { Mode::Off }),
                "exclude" => self.visible = Some(!boolean(&value, &at)?),
                "summary" => self.summary = Summary::parse(&string(value, &at)?),
                _ => losses.at(LossKind::UnknownMember, &at),
            }
        }
        self.openrouter = level.or(budget).or(enabled);
        Ok(())
    }

    fn thinking(&mut self, value: Json<'_>, at: &Path<'_>, losses: &mut Losses) -> Result<(), WireError> {
        let (mut kind, mut amount) = (None, None);
        for (key, value) in object(value, at)?.0 {
            let at = at.key(&key);
            match key.as_ref() {
                "type" => kind = Some(string(value, &at)?.into_owned()),
                "budget_tokens" => amount = Some(Mode::of_tokens(int(&value, &at)?)),
                "effort" => amount = Some(effort(value, &at)?),
                _ => losses.at(LossKind::UnknownMember, &at),
            }
        }
        self.vendor = match kind.as_deref() {
            Some("disabled") => Some(Mode::Off),
            _ => Some(amount.unwrap_or(Mode::Auto)),
        };
        Ok(())
    }

    fn google(&mut self, value: Json<'_>, at: &Path<'_>, losses: &mut Losses) -> Result<(), WireError> {
        for (key, value) in object(value, at)?.0 {
            let at = at.key(&key);
            if !matches!(key.as_ref(), "thinking_config" | "thinkingConfig") {
                losses.at(LossKind::UnknownMember, &at);
                continue;
            }
            let (mut level, mut budget) = (None, None);
            for (key, value) in object(value, &at)?.0 {
                let at = at.key(&key);
                match key.as_ref() {
                    "thinking_level" | "thinkingLevel" => {
                        level = Level::parse(&string(value, &at)?).map(Mode::Level);
                    }
                    "thinking_budget" | "thinkingBudget" => {
                        budget = Some(Mode::of_tokens(int(&value, &at)?));
                    }
                    "include_thoughts" | "includeThoughts" => self.visible = value.as_bool(),
                    _ => losses.at(LossKind::UnknownMember, &at),
                }
            }
            self.vendor = level.or(budget);
        }
        Ok(())
    }
}

fn effort(value: Json<'_>, at: &Path<'_>) -> Result<Mode, WireError> {
    let word = string(value, at)?;
    Mode::parse(&word).ok_or_else(|| {
        WireError::invalid(
            at,
            format!("unknown effort {word:?}: use none, minimal, low, medium, high, xhigh or max"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse_any;

    fn read(body: &str) -> Result<Thinking, WireError> {
        let mut asked = Asked::default();
        let Ok(Json::Object(map)) = parse_any(body.as_bytes()) else { panic!("{body}") };
        for (key, value) in map.0 {
            assert_eq!(asked.member(&key, value, &mut Losses::default())?, None, "{key}");
        }
        Ok(asked.resolve())
    }

    #[test]
    fn all_spellings_are_read() {
        for (body, mode, visible) in [
            (r#"{"reasoning_effort":"high"}"#, Some(Mode::Level(Level::High)), Some(true)),
            (r#"{"reasoning_effort":"none"}"#, Some(Mode::Off), None),
            (r#"{"reasoning":{"effort":"low","exclude":true}}"#, Some(Mode::Level(Level::Low)), Some(false)),
            (r#"{"reasoning":{"max_tokens":2000}}"#, Some(Mode::Budget(2000)), Some(true)),
            (r#"{"reasoning":{"enabled":false}}"#, Some(Mode::Off), None),
            (r#"{"thinking":{"type":"enabled","budget_tokens":4096}}"#, Some(Mode::Budget(4096)), Some(true)),
            (r#"{"thinking":{"type":"disabled"}}"#, Some(Mode::Off), None),
            (r#"{"enable_thinking":true}"#, Some(Mode::Auto), Some(true)),
            (
                r#"{"extra_body":{"google":{"thinking_config":{"thinking_budget":0,"include_thoughts":false}}}}"#,
                Some(Mode::Off),
                Some(false),
            ),
            (r#"{"include_reasoning":false}"#, None, Some(false)),
            (
                r#"{"thinking":{"type":"disabled"},"reasoning_effort":"low"}"#,
                Some(Mode::Level(Level::Low)),
                Some(true),
            ),
        ] {
            let got = read(body).unwrap();
            assert_eq!((got.mode, got.visible), (mode, visible), "{body}");
        }
    }

    #[test]
    fn an_unknown_effort_is_refused_by_name() {
        let error = read(r#"{"reasoning":{"effort":"huge"}}"#).unwrap_err().to_string();
        assert!(error.starts_with("reasoning.effort: unknown effort \"huge\""), "{error}");
    }
}
