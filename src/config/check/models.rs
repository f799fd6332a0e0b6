//! Names of models.
//!
//! Enters: [`Models`]. Leaves: channels and patterns in lower case, aliases that name something and are unique
//! in their channel. Nothing may go wrong; what is left out is a warning.

use super::entries::{lower_channels, lower_patterns};
use crate::models::IMAGE_MODEL;
use crate::report::Report;
use crate::tree::Place;
use crate::{Models, OauthAlias};
use std::collections::HashSet;

/// Checks and cleans names of models.
pub(super) fn check(models: &mut Models, report: &mut Report<'_, '_>) {
    let channels = Place::Root.key("oauth-model-alias");
    for (channel, list) in &mut models.oauth_model_alias {
        aliases(list, &channels.key(channel), report);
    }
    lower_channels(&mut models.oauth_model_alias);
    models.oauth_excluded_models.values_mut().for_each(lower_patterns);
    lower_channels(&mut models.oauth_excluded_models);
    let fallbacks = Place::Root.key("fallback-models");
    for (model, list) in &mut models.fallback_models {
        let mut n = 0;
        let place = fallbacks.key(model);
        list.retain(|other| {
            let useful = !other.trim().is_empty() && other != model;
            if !useful {
                report.warn(&place.item(n), "left out: a model is no fallback of itself");
            }
            n += 1;
            useful
        });
    }
    overrides(models, report);
    let image = models.gpt_image_2_base_model.trim().to_lowercase();
    if !image.starts_with("gpt-") {
        if !image.is_empty() {
            let place = Place::Root.key("gpt-image-2-base-model");
            report.warn(&place, format!("it has to start with gpt-; {IMAGE_MODEL} is used"));
        }
        IMAGE_MODEL.clone_into(&mut models.gpt_image_2_base_model);
    }
}

fn overrides(models: &mut Models, report: &mut Report<'_, '_>) {
    let list = Place::Root.key("model-overrides");
    let mut n = 0;
    models.model_overrides.retain(|one| {
        if one.pattern.trim().is_empty() {
            report.warn(&list.item(n), "left out: without match it fits no model");
        }
        n += 1;
        !one.pattern.trim().is_empty()
    });
}

fn aliases(list: &mut Vec<OauthAlias>, place: &Place<'_>, report: &mut Report<'_, '_>) {
    let mut seen = HashSet::new();
    let mut n = 0;
    list.retain_mut(|entry| {
        let place = place.item(n);
        n += 1;
        entry.name = entry.name.trim().to_owned();
        entry.alias = entry.alias.trim().to_owned();
        let problem = if entry.name.is_empty() || entry.alias.is_empty() {
            "left out: it needs both name and alias"
        } else if entry.name.eq_ignore_ascii_case(&entry.alias) {
            "left out: name and alias are the same"
        } else if !seen.insert(entry.alias.to_lowercase()) {
            "left out: the alias is taken by an entry before it"
        } else {
            return true;
        };
        report.warn(&place, problem);
        false
    });
}

#[cfg(test)]
mod tests {
    use crate::load;

    #[test]
    fn aliases_are_complete_and_unique_and_empty_channels_stay() {
        let text = "oauth-model-alias:\n  Codex:\n    - {name: a, alias: b}\n    - {name: c, alias: B}\n\
                    \x20   - {name: d, alias: D}\n    - {name: e}\n  kiro: []\n  claude:\n";
        let loaded = load(text.as_bytes()).unwrap();
        let lines: Vec<_> = loaded.warnings.iter().filter_map(|notice| notice.line).collect();
        assert_eq!(lines, [4, 5, 6]);
        let aliases = loaded.config.models.oauth_model_alias;
        assert_eq!(aliases["codex"].len(), 1);
        // Both turn off the aliases that the channel has by itself.
        assert!(aliases["kiro"].is_empty() && aliases["claude"].is_empty());
    }

    #[test]
    fn the_model_for_pictures_is_a_gpt() {
        let loaded = load(b"gpt-image-2-base-model: sonnet\nfallback-models: {a: [a, b, '']}\n").unwrap();
        assert_eq!(loaded.warnings.len(), 3);
        assert_eq!(loaded.config.models.gpt_image_2_base_model, "gpt-5.4-mini");
        assert_eq!(loaded.config.models.fallback_models["a"], ["b"]);
    }
}
