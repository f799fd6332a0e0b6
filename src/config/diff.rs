//! Old and new configuration → what changed.
//!
//! Enters: two configurations. Leaves: a [`ChangeSet`] of paths, without values, so that it can be logged; and
//! which of the changes count only after a restart. Nothing may go wrong.
//!
//! Every struct is taken apart here by the names of all its fields: who adds a setting and forgets it here
//! gets an error from the compiler.

use crate::auth::OldAuth;
use crate::tree::joined;
use crate::{
    AlertRule, Alerts, AmpKey, AmpMapping, Ampcode, Auth, BaseUrl, ClaudeCode, ClientKey, Codex, CompatKey,
    Config, ErrorRule, EventStreams, Expiry, Headers, Host, ImageGeneration, KeyEntry, Limits, Listen,
    Listeners, Logging, Management, Metrics, ModelEntry, ModelOverride, ModelPrice, Models, Networks,
    NotifyTarget, OauthAlias, OpenaiCompatibility, OwnTimeouts, Params, Payload, Providers, ProxyProtocol,
    ProxySetting, QuotaExceeded, Ratio, RawParams, Routing, Rule, Secret, Selection, Server, Shutdown, Span,
    Strategy, Streaming, Telemetry, ThinkingBounds, ThinkingRules, Timeouts, Tls, TransientCooldown,
    UnknownModelStatus, Waiting, Weight, Xai,
};
use std::collections::{BTreeMap, BTreeSet};

/// A setting that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its keys: `routing.strategy`, `claude-api-key[1].weight`.
    pub path: String,
    /// It counts only after a restart.
    pub needs_restart: bool,
}

/// What changed, in the order of the sections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeSet {
    /// The settings.
    pub changes: Vec<Change>,
}

impl ChangeSet {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The settings that count only after a restart.
    pub fn needing_restart(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().filter(|change| change.needs_restart).map(|change| change.path.as_str())
    }

    fn add(&mut self, path: String) {
        let key = path.split(['.', '[']).next().unwrap_or_default();
        let needs_restart = matches!(key, "host" | "port" | "tls" | "extra-listen" | "metrics" | "telemetry");
        self.changes.push(Change { path, needs_restart });
    }
}

/// What has to be done to get from `old` to `new`.
pub fn diff(old: &Config, new: &Config) -> ChangeSet {
    let mut set = ChangeSet::default();
    let Config {
        server,
        auth,
        providers,
        models,
        payload,
        routing,
        streaming,
        logging,
        management,
        alerts,
        telemetry,
    } = new;
    old.server.compare(server, "", &mut set);
    old.auth.compare(auth, "", &mut set);
    old.providers.compare(providers, "", &mut set);
    old.models.compare(models, "", &mut set);
    old.payload.compare(payload, "payload", &mut set);
    old.routing.compare(routing, "", &mut set);
    old.streaming.compare(streaming, "", &mut set);
    old.logging.compare(logging, "", &mut set);
    old.management.compare(management, "remote-management", &mut set);
    old.alerts.compare(alerts, "alerts", &mut set);
    old.telemetry.compare(telemetry, "telemetry", &mut set);
    set
}

/// A value that knows how to tell what changed in it.
trait Compare: PartialEq {
    /// Adds the changed settings below `path`.
    fn compare(&self, new: &Self, path: &str, set: &mut ChangeSet) {
        if self != new {
            set.add(path.to_owned());
        }
    }
}

/// The key of a field: its name with dashes, or the word it is renamed to.
fn key(field: &str, renamed: &[&str]) -> String {
    renamed.first().map_or_else(|| field.replace('_', "-"), |word| (*word).to_owned())
}

/// Structs, by all their fields; `as` where serde renames one.
macro_rules! structs {
    ($($kind:ident { $($field:ident $(as $word:literal)?),* $(,)? })*) => {$(
        impl Compare for $kind {
            fn compare(&self, new: &Self, path: &str, set: &mut ChangeSet) {
                let Self { $($field),* } = self;
                $($field.compare(&new.$field, &joined(path, &key(stringify!($field), &[$($word)?])), set);)*
            }
        }
    )*};
}

/// Values that changed as a whole.
macro_rules! leaves {
    ($($kind:ty),* $(,)?) => { $(impl Compare for $kind {})* };
}

leaves!(
    bool,
    u16,
    u32,
    u64,
    i64,
    String,
    Secret,
    BaseUrl,
    ProxySetting,
    Headers,
    Weight,
    Span,
    Host,
    Listeners,
    Networks,
    Listen,
    ProxyProtocol,
    Strategy,
    TransientCooldown,
    UnknownModelStatus,
    ImageGeneration,
    ThinkingBounds,
    ErrorRule,
    Params,
    RawParams,
    OldAuth,
    AmpKey,
    AmpMapping,
    OauthAlias,
    ModelOverride,
    ModelPrice,
    Expiry,
    AlertRule,
    NotifyTarget,
    Ratio,
);

impl<T: Compare> Compare for Option<T> {}

impl<P: Default + PartialEq> Compare for Rule<P> {}

/// A key that became another one changed as a whole, as one that is written as a word does.
impl Compare for ClientKey {
    fn compare(&self, new: &Self, path: &str, set: &mut ChangeSet) {
        let Self { api_key, name, allowed_models, allowed_prefixes, expires, max_concurrency, rpm, tpm } =
            self;
        if *api_key != new.api_key {
            set.add(path.to_owned());
            return;
        }
        name.compare(&new.name, &joined(path, "name"), set);
        allowed_models.compare(&new.allowed_models, &joined(path, "allowed-models"), set);
        allowed_prefixes.compare(&new.allowed_prefixes, &joined(path, "allowed-prefixes"), set);
        expires.compare(&new.expires, &joined(path, "expires"), set);
        max_concurrency.compare(&new.max_concurrency, &joined(path, "max-concurrency"), set);
        rpm.compare(&new.rpm, &joined(path, "rpm"), set);
        tpm.compare(&new.tpm, &joined(path, "tpm"), set);
    }
}

/// Element by element, as long as none came or went: then the list as a whole.
impl<T: Compare> Compare for Vec<T> {
    fn compare(&self, new: &Self, path: &str, set: &mut ChangeSet) {
        if self.len() == new.len() {
            for (n, (old, new)) in self.iter().zip(new).enumerate() {
                old.compare(new, &format!("{path}[{n}]"), set);
            }
        } else {
            set.add(path.to_owned());
        }
    }
}

impl<T: Compare> Compare for BTreeMap<String, T> {
    fn compare(&self, new: &Self, path: &str, set: &mut ChangeSet) {
        let keys: BTreeSet<&String> = self.keys().chain(new.keys()).collect();
        for key in keys {
            let path = joined(path, key);
            match (self.get(key), new.get(key)) {
                (Some(old), Some(new)) => old.compare(new, &path, set),
                _ => set.add(path),
            }
        }
    }
}

structs! {
    Server {
        host, port, tls, extra_listen, trusted_proxies, proxy_protocol, limits, timeouts, shutdown, metrics,
    }
    Tls { enable, cert, key }
    Limits {
        max_body_mb, max_in_flight, header_kib, header_count, max_connections, max_connections_per_address,
    }
    Timeouts { connect_seconds, first_byte_seconds, idle_seconds, client_body_seconds }
    Shutdown { delay_seconds, drain_seconds, upgrade_drain_seconds }
    Metrics { listen }
    Auth { api_keys, ws_auth, metrics_auth, auth_dir, auth_auto_refresh_workers, auth }
    Providers {
        proxy_url, gemini_api_key, interactions_api_key, claude_api_key, codex_api_key, xai_api_key,
        vertex_api_key, openai_compatibility, deepseek, fireworks, groq, kilo, minimax, mistral, novita,
        openrouter, roo, siliconflow, together, oauth_upstream, oauth_request_scoped_errors,
        allow_link_local_hosts, antigravity_no_capacity_retry, kiro_preferred_endpoint, responses_compact_enabled,
        responses_websocket_enabled, codex, xai, ampcode, generative_language_api_key,
    }
    Codex { stream_bootstrap_buffering, model_level_cooling }
    Xai { inject_x_search }
    KeyEntry {
        api_key, token_file, priority, weight, prefix, base_url, proxy_url, headers, models, excluded_models,
        disable_cooling, request_retry, max_concurrency, rpm, tpm, request_scoped_errors, websockets,
        alpha_search, rebuild_mid_system_message, timeouts,
    }
    OwnTimeouts { connect_seconds, first_byte_seconds, idle_seconds }
    OpenaiCompatibility {
        name, disabled, base_url, models_endpoint, api_key_entries, api_keys, priority, prefix, proxy_url,
        headers, models, excluded_models, disable_cooling, request_retry, request_scoped_errors,
        support_prompt_cache_key, timeouts,
    }
    CompatKey { api_key, weight, proxy_url, max_concurrency, rpm, tpm }
    ModelEntry {
        name, alias, display_name, max_context_length, force_mapping, is_compat, image, input_modalities,
        output_modalities, thinking,
    }
    Ampcode {
        upstream_url, upstream_api_key, upstream_api_keys, restrict_management_to_localhost, model_mappings,
        force_model_mappings,
    }
    Models {
        force_model_prefix, unknown_model_status, oauth_model_alias, oauth_excluded_models, fallback_models,
        model_overrides, thinking, disable_image_generation, gpt_image_2_base_model,
        video_result_auth_cache_ttl, claude_code, antigravity_signature_cache_enabled,
        antigravity_signature_bypass_strict,
    }
    ThinkingRules { strict }
    ClaudeCode { disable_cloaking_model_list }
    Payload { default, default_raw, overrides as "override", override_raw, filter }
    Routing {
        selection as "routing", request_retry, max_retry_credentials, max_retry_interval, disable_cooling,
        save_cooldown_status, transient_error_cooldown_seconds, quota_exceeded, waiting as "waiting-room",
    }
    Waiting { max_wait_before_error_ms, infinite_retry_mode, max_requests }
    Selection { strategy, session_affinity, session_affinity_ttl, session_affinity_subagents }
    QuotaExceeded { switch_project, switch_preview_model, antigravity_credits }
    Streaming { events as "streaming", nonstream_keepalive_interval, passthrough_headers }
    EventStreams { keepalive_seconds, bootstrap_retries, bootstrap_hold_ms }
    Logging {
        debug, logging_to_file, log_dir, logs_max_total_size_mb, error_logs_max_files, request_log,
        commercial_mode, usage_statistics_enabled, redis_usage_queue_retention_seconds, prices,
    }
    Management { allow_remote, secret_key, disable_control_panel, release_url, api_call_hosts }
    Alerts { enabled, rules, notify }
    Telemetry { otlp_endpoint, headers, sample_ratio, service_name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;

    fn config(text: &str) -> Config {
        load(text.as_bytes()).unwrap_or_else(|broken| panic!("{broken}")).config
    }

    fn paths(old: &str, new: &str) -> Vec<String> {
        diff(&config(old), &config(new)).changes.into_iter().map(|change| change.path).collect()
    }

    #[test]
    fn changes_are_named_by_path() {
        let old = "claude-api-key: [{api-key: a}, {api-key: b, weight: 2, models: [{name: m}]}]\n\
                   routing: {strategy: rr}\npayload: {filter: [{models: [{name: x}], params: [a]}]}\n\
                   oauth-model-alias: {codex: [{name: a, alias: b}]}\nfallback-models: {a.b: [c]}\n\
                   remote-management: {secret-key: one}\n";
        assert_eq!(paths(old, old), Vec::<String>::new());
        let new = "claude-api-key: [{api-key: a2}, {api-key: b, weight: 3, models: [{name: m2}]}]\n\
                   routing: {strategy: ff}\npayload: {filter: [{models: [{name: x}], params: [b]}]}\n\
                   oauth-model-alias: {codex: [{name: a, alias: c}], kiro: []}\n\
                   remote-management: {secret-key: two}\ngroq: [{api-key: g}]\n";
        assert_eq!(
            paths(old, new),
            [
                "claude-api-key[0].api-key",
                "claude-api-key[1].weight",
                "claude-api-key[1].models[0].name",
                "claude-api-key[1].models[0].alias",
                "groq",
                "oauth-model-alias.codex[0]",
                "oauth-model-alias.kiro",
                "fallback-models[\"a.b\"]",
                "payload.filter[0]",
                "routing.strategy",
                "remote-management.secret-key",
            ]
        );
    }

    #[test]
    fn p53_a_change_of_a_secret_is_seen_and_not_shown() {
        let set = diff(
            &config("api-keys: [CANARY-0123456789-0123456789-a]"),
            &config("api-keys: [CANARY-0123456789-9876543210-a]"),
        );
        assert_eq!(set.changes.len(), 1);
        assert!(!format!("{set:?}").contains("CANARY"));
    }

    #[test]
    fn listeners_and_traces_need_a_restart_and_nothing_else_does() {
        let new = "host: '::1'\nport: 1\ntls: {enable: true, cert: a, key: b}\nextra-listen: 2\n\
                   metrics: {listen: ''}\ndebug: true\nlimits: {max-in-flight: 5}\nstreaming: {keepalive-seconds: 1}\n\
                   telemetry: {sample-ratio: 0.5}\n";
        let set = diff(&Config::default(), &config(new));
        let restart: Vec<_> = set.needing_restart().collect();
        assert_eq!(
            restart,
            [
                "host",
                "port",
                "tls.enable",
                "tls.cert",
                "tls.key",
                "extra-listen",
                "metrics.listen",
                "telemetry.sample-ratio"
            ]
        );
        assert_eq!(set.changes.len(), restart.len() + 3);
        assert!(diff(&Config::default(), &Config::default()).is_empty());
    }
}
