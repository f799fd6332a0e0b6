//! Providers: what they did, and what they can.
//!
//! Enters: counts of the traffic, the pool, the configuration. Leaves: `GET /v1/metrics/providers`, which
//! needs no secret and holds none (no file names, no addresses of people), and `providers` of the
//! configuration. Every configured provider is there before it was asked anything. Nothing may go wrong.

use super::answer::{Json, Refusal};
use super::lists::Parameters;
use super::{App, Manage, beside};
use crate::observe::providers::report::{self, Standing};
use crate::state::SUPPORTED_CLIENTS;
use axum::extract::{Query, State};
use parking_lot::Mutex;
use pool::{CredentialSpec, Status};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Window where the request names none, in seconds.
const WINDOW: u64 = 600;

/// How long the counts of credentials and models hold.
const KEPT: Duration = Duration::from_secs(1);

/// What is known of the credentials of a provider.
#[derive(Debug, Default)]
pub(super) struct Group {
    total: u64,
    ready: u64,
    cooling: u64,
    models: BTreeSet<String>,
    /// Credentials that are not switched off, and those of them of which the upstream says that they have no
    /// model.
    able: u64,
    bare: u64,
}

impl Group {
    /// Models that it serves; none where its upstream says so, whatever older list is kept.
    pub(super) fn models(&self) -> u64 {
        if self.is_bare() { 0 } else { self.models.len() as u64 }
    }

    /// Whether its upstream says of all its accounts that they have no model.
    pub(super) fn is_bare(&self) -> bool {
        self.able > 0 && self.bare == self.able
    }
}

/// What is known of all providers, and since when.
pub(super) type Cache = Mutex<Option<(Instant, Arc<Groups>)>>;
/// Providers by name.
pub(super) type Groups = BTreeMap<String, Group>;

/// `GET /v1/metrics/providers`.
pub(super) async fn metrics(
    State(app): State<App>,
    Query(query): Query<Parameters>,
) -> Result<Json, Refusal> {
    let asked = query.get("window").and_then(|text| text.trim_end_matches('s').parse().ok());
    let seconds = asked.unwrap_or(WINDOW).clamp(60, 3600_u64);
    beside(move || shown(&app, seconds)).await
}

/// The groups, counted anew where they are old. Anybody may ask: however many do, they are counted once.
pub(super) fn counted(app: &Manage) -> Arc<Groups> {
    let mut cache = app.providers.lock();
    match &*cache {
        Some((at, groups)) if at.elapsed() < KEPT => Arc::clone(groups),
        _ => {
            let groups = Arc::new(groups(app));
            *cache = Some((Instant::now(), Arc::clone(&groups)));
            groups
        }
    }
}

fn shown(app: &Manage, seconds: u64) -> Json {
    let groups = counted(app);
    let standing = groups.iter().map(|(name, group)| (name.clone(), standing(app, name, group))).collect();
    Json(report::document(&app.state.providers, &standing, seconds, app.state.now().wall_s))
}

fn standing(app: &Manage, name: &str, group: &Group) -> Standing {
    Standing {
        key: key(app, name),
        total: group.total,
        ready: group.ready,
        cooling: group.cooling,
        models: group.models(),
    }
}

/// The credentials and models that are in force, by provider.
fn groups(app: &Manage) -> Groups {
    let now = app.state.now();
    let mut groups = Groups::new();
    for status in app.state.pool.credentials(now) {
        let group = groups.entry(status.provider.to_string()).or_default();
        group.total += 1;
        let cooling = rests(&status);
        group.cooling += u64::from(cooling);
        group.ready += u64::from(!cooling && !status.disabled);
        let none = || app.state.listing(&status.id).is_some_and(|listing| listing.said == Some(0));
        group.able += u64::from(!status.disabled);
        group.bare += u64::from(!status.disabled && none());
    }
    for listed in app.state.pool.models(now) {
        groups.entry(listed.provider.to_string()).or_default().models.insert(listed.id.to_string());
    }
    // A list names one provider of each model.
    for shared in app.state.shared_models() {
        for provider in shared.providers {
            groups.entry(provider.to_string()).or_default().models.insert(shared.model.to_string());
        }
    }
    groups
}

/// Whether a credential rests as a whole.
pub(super) fn rests(status: &Status) -> bool {
    status.cooling.iter().any(|(model, _)| model.is_none())
}

/// The list and the name of a provider: `openai-compatibility:iflow`.
pub(super) fn key(app: &Manage, provider: &str) -> String {
    let snapshot = app.state.snapshot.load();
    let blocks = &snapshot.config.providers.openai_compatibility;
    let named = blocks.iter().any(|block| block.name == provider);
    if named { format!("openai-compatibility:{provider}") } else { provider.to_owned() }
}

/// `providers` of `GET config`.
pub(super) fn abilities(app: &Manage) -> Value {
    let specs = app.state.credentials();
    let mut by_name: BTreeMap<&str, Vec<&CredentialSpec>> = BTreeMap::new();
    for spec in &specs {
        by_name.entry(&spec.provider).or_default().push(spec);
    }
    let groups = groups(app);
    let provider = |(name, specs): (&str, Vec<&CredentialSpec>)| {
        let known = groups.get(name);
        let texts = |of: fn(&CredentialSpec) -> &str| -> BTreeSet<&str> {
            specs.iter().map(|spec| of(spec)).filter(|text| !text.is_empty()).collect()
        };
        json!({
            "name": name,
            "kind": specs.first().map(|spec| format!("{:?}", spec.kind).to_ascii_lowercase()),
            "enabled": specs.iter().any(|spec| !spec.disabled),
            "auth_count": specs.len(),
            "auth_ready": known.map_or(0, |group| group.ready),
            "models": known.map_or(0, Group::models),
            "prefixes": texts(|spec| spec.prefix.as_deref().unwrap_or_default()),
            "base_urls": texts(|spec| &spec.base_url),
            "supported_clients": SUPPORTED_CLIENTS,
        })
    };
    by_name.into_iter().map(provider).collect()
}
