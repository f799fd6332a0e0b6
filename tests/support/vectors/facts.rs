//! What the models of the vectors can do: the thinking capabilities that their expectations rest on.

/// Facts about a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// Least and most thinking tokens, where it takes a budget.
    pub budget: Option<(u32, u32)>,
    /// Thinking can be switched off.
    pub off: bool,
    /// The model can decide itself how much to think.
    pub auto: bool,
    /// The levels it takes, rising.
    pub levels: &'static [&'static str],
    /// Most tokens it writes.
    pub max_output: Option<u64>,
}

/// Facts about `model` (without suffix) at an upstream of `format`; `None` when nothing is known.
pub fn facts(format: &str, model: &str) -> Option<ModelFacts> {
    let none = ModelFacts::default();
    Some(match (format, model) {
        ("claude", "claude-sonnet-4-5-20250929") => {
            ModelFacts { budget: Some((1024, 128_000)), off: true, max_output: Some(64_000), ..none }
        }
        ("claude", "claude-sonnet-4-6") => ModelFacts {
            budget: Some((1024, 128_000)),
            off: true,
            levels: &["low", "medium", "high", "max"],
            max_output: Some(64_000),
            ..none
        },
        ("claude", "claude-opus-5") => ModelFacts {
            off: true,
            auto: true,
            levels: &["low", "medium", "high", "xhigh", "max"],
            max_output: Some(128_000),
            ..none
        },
        ("gemini" | "gemini-cli", "gemini-2.5-pro") => {
            ModelFacts { budget: Some((128, 32_768)), auto: true, max_output: Some(65_536), ..none }
        }
        ("gemini" | "gemini-cli", "gemini-2.5-flash") => {
            ModelFacts { budget: Some((0, 24_576)), off: true, auto: true, max_output: Some(65_536), ..none }
        }
        ("gemini" | "gemini-cli", "gemini-3-pro-preview") => ModelFacts {
            budget: Some((128, 32_768)),
            auto: true,
            levels: &["low", "high"],
            max_output: Some(65_536),
            ..none
        },
        ("antigravity", "gemini-3-flash") => ModelFacts {
            budget: Some((128, 32_768)),
            auto: true,
            levels: &["minimal", "low", "medium", "high"],
            max_output: Some(65_536),
            ..none
        },
        ("antigravity", "claude-sonnet-4-6") => ModelFacts {
            budget: Some((1024, 64_000)),
            off: true,
            auto: true,
            max_output: Some(64_000),
            ..none
        },
        ("codex", "gpt-5.4") => {
            ModelFacts { levels: &["low", "medium", "high", "xhigh"], max_output: Some(128_000), ..none }
        }
        ("openai", "test-model") => {
            ModelFacts { off: true, levels: &["minimal", "low", "medium", "high", "xhigh"], ..none }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_means_another_model_elsewhere() {
        assert_eq!(facts("claude", "claude-sonnet-4-6").unwrap().budget, Some((1024, 128_000)));
        assert_eq!(facts("antigravity", "claude-sonnet-4-6").unwrap().budget, Some((1024, 64_000)));
        assert_eq!(facts("gemini", "claude-sonnet-4-6"), None);
    }
}
