//! Models that the Amp client asks for and others serve.
//!
//! Enters: `ampcode`. Leaves: a list of fallbacks for each name that nobody else has one for, so that a mapped
//! model serves where the asked one is unknown or fails; [`unserved`]: what of `ampcode` has no effect. Nothing
//! may go wrong.

use std::sync::Arc;

use config::Ampcode;

use crate::fallback::Fallbacks;

/// Adds the mappings of whole names. `fallback-models` comes before them.
pub(super) fn mappings(amp: &Ampcode, lists: &mut Fallbacks) {
    for mapping in amp.model_mappings.iter().filter(|mapping| !mapping.regex) {
        let (from, to) = (mapping.from.trim(), mapping.to.trim());
        if !from.is_empty() && !to.is_empty() {
            lists.entry(from.to_ascii_lowercase()).or_insert_with(|| Arc::from([Arc::from(to)]));
        }
    }
}

/// What is set and has no effect yet, one sentence each.
pub(super) fn unserved(amp: &Ampcode) -> Vec<String> {
    let mut told = Vec::new();
    for (n, mapping) in amp.model_mappings.iter().enumerate() {
        if mapping.regex {
            told.push(format!(
                "ampcode.model-mappings[{n}] has no effect: this version maps whole names, no regular expressions"
            ));
        } else if !mapping.params.0.is_empty() {
            told.push(format!(
                "ampcode.model-mappings[{n}].params have no effect; payload.default sets members of requests"
            ));
        }
    }
    if amp.force_model_mappings {
        told.push(
            "ampcode.force-model-mappings has no effect: a model that is served keeps its name".to_owned(),
        );
    }
    if amp.upstream_url.is_some() {
        told.push(
            "ampcode.upstream-url has no effect: this version serves no account routes of Amp".to_owned(),
        );
    }
    told
}

#[cfg(test)]
mod tests {
    use super::super::{from_config, unserved};
    use crate::Pool;
    use crate::settings::Now;

    fn load(yaml: &str) -> config::Config {
        config::load(yaml.as_bytes()).unwrap_or_else(|broken| panic!("{broken}")).config
    }

    const SERVED: &str =
        "claude-api-key: [{api-key: k, models: [{name: m1, alias: fast}, {name: m2, alias: other}]}]\n";

    #[test]
    fn row_109_a_name_that_nobody_has_is_served_by_the_mapped_one_and_a_list_of_the_operator_comes_first() {
        let route = |more: &str, name: &str| {
            let (settings, specs) = from_config(&load(&format!("{SERVED}{more}")), &[]);
            let route = Pool::new(settings, specs).route(name, Now::default());
            route.map(|route| route.model().to_owned()).ok()
        };
        let amp = "ampcode: {model-mappings: [{from: Amp-X, to: fast}]}\n";
        assert_eq!(route(amp, "amp-x").as_deref(), Some("fast"));
        assert_eq!(route(amp, "amp-y"), None);
        assert_eq!(
            route(&format!("{amp}fallback-models: {{amp-x: [other]}}\n"), "amp-x").as_deref(),
            Some("other")
        );
    }

    #[test]
    fn what_of_amp_has_no_effect_is_told() {
        let amp = "ampcode: {upstream-url: 'https://amp.test', force-model-mappings: true, model-mappings: \
                   [{from: a, to: fast}, {from: 'a.*', to: fast, regex: true}, {from: b, to: fast, params: {x: 1}}]}\n";
        let told = unserved(&load(&format!("{SERVED}{amp}")), &[]);
        let begins = [
            "ampcode.model-mappings[1] has no effect",
            "ampcode.model-mappings[2].params",
            "ampcode.force-model-mappings",
            "ampcode.upstream-url",
        ];
        assert!(told.iter().zip(begins).all(|(line, begin)| line.starts_with(begin)), "{told:?}");
        assert_eq!(told.len(), begins.len(), "{told:?}");
    }
}
