//! What the operator knows better than the catalogue about models.
//!
//! Enters: credentials with their models, and `model-overrides`. Leaves: the same credentials; the models that
//! an override fits have its facts. Nothing may go wrong. Of several that fit the later one counts, setting by
//! setting.

use std::collections::HashMap;
use std::sync::Arc;

use config::ModelOverride;

use super::entry::{Pattern, kinds};
use crate::credential::CredentialSpec;
use crate::model::{ModelSet, ModelSpec};

/// Sets of models by address and prefix: credentials that shared one go on sharing it.
type Made = HashMap<(*const ModelSet, Option<Arc<str>>), Arc<ModelSet>>;

/// Applies the overrides to all credentials.
pub(super) fn apply(specs: &mut [CredentialSpec], overrides: &[ModelOverride]) {
    if overrides.is_empty() {
        return;
    }
    let overrides: Vec<_> =
        overrides.iter().map(|one| (Pattern::new(&one.pattern.trim().to_lowercase()), one)).collect();
    let mut made = Made::new();
    // The old sets live as long as their addresses are keys.
    let mut kept = Vec::new();
    for spec in specs {
        let key = (Arc::as_ptr(&spec.models), spec.prefix.clone());
        let set = made.entry(key).or_insert_with(|| {
            kept.push(Arc::clone(&spec.models));
            let models = spec.models.models().iter();
            ModelSet::new(models.map(|model| overridden(model, spec.prefix.as_deref(), &overrides)))
        });
        spec.models = Arc::clone(set);
    }
}

fn overridden(model: &ModelSpec, prefix: Option<&str>, all: &[(Pattern, &ModelOverride)]) -> ModelSpec {
    let mut model = model.clone();
    let alias = model.alias.to_lowercase();
    let prefixed = prefix.map(|prefix| format!("{}/{alias}", prefix.to_lowercase()));
    for (pattern, one) in all {
        if !pattern.matches(&alias) && !prefixed.as_ref().is_some_and(|name| pattern.matches(name)) {
            continue;
        }
        let card = &mut model.card;
        card.whole_only |= one.force_non_stream;
        if one.max_context_length > 0 {
            card.context = Some(one.max_context_length);
        }
        if one.max_output_tokens > 0 {
            card.max_output = Some(one.max_output_tokens);
        }
        if let Some(thinking) = &one.thinking {
            card.thinking = thinking.support();
        }
        model.input = kinds(&one.input_modalities, &model.input);
        model.output = kinds(&one.output_modalities, &model.output);
    }
    model
}

#[cfg(test)]
mod tests {
    use super::super::from_config;
    use super::*;
    use wire::thinking::{Bounds, Level, Support};

    fn specs(yaml: &str) -> Vec<CredentialSpec> {
        from_config(&config::load(yaml.as_bytes()).unwrap_or_else(|broken| panic!("{broken}")).config, &[]).1
    }

    #[test]
    fn facts_of_the_catalogue_and_of_entries_are_replaced_where_the_name_fits() {
        let specs = specs(
            "claude-api-key: [{api-key: a}, {api-key: b}, {api-key: c, prefix: team, models: [{name: Own, max-context-length: 5}]}]\n\
             model-overrides:\n\
             \x20 - {match: 'claude-sonnet-*', max-context-length: 1000000, max-output-tokens: 77, input-modalities: [text]}\n\
             \x20 - {match: 'TEAM/*', thinking: {levels: [low, none]}, force-non-stream: true, output-modalities: [text, image]}\n\
             \x20 - {match: 'team/own', max-output-tokens: 8}\n",
        );
        let models = specs[0].models.models();
        let find = |name: &str| models.iter().find(|model| model.alias.starts_with(name)).unwrap();
        let sonnet = find("claude-sonnet-4-6");
        assert_eq!((sonnet.card.context, sonnet.card.max_output), (Some(1_000_000), Some(77)));
        assert_eq!(sonnet.input.len(), 1);
        assert!(matches!(sonnet.card.thinking, Support::Bounded(_)), "what is not said stays");
        let opus = find("claude-opus");
        assert!(opus.card.max_output.is_some_and(|most| most > 77) && !opus.card.whole_only);
        assert!(Arc::ptr_eq(&specs[0].models, &specs[1].models), "keys that serve the same still share it");
        let own = &specs[2].models.models()[0];
        let bounds = Bounds { off: true, levels: vec![Level::Low], ..Bounds::default() };
        assert_eq!(own.card.thinking, Support::Bounded(bounds));
        assert_eq!((own.card.context, own.card.max_output, own.card.whole_only), (Some(5), Some(8), true));
        assert_eq!((&*own.upstream, own.output.len()), ("Own", 2));
    }

    #[test]
    fn thinking_without_bounds_means_that_the_model_does_not_think() {
        let specs = specs("claude-api-key: [{api-key: a}]\nmodel-overrides: [{match: '*', thinking: {}}]\n");
        assert!(specs[0].models.models().iter().all(|model| model.card.thinking == Support::Never));
    }
}
