//! What the pool has learnt, in a form that outlives the process: who rests and how often it failed in a row,
//! which account may not use which model, which session stays with whom.
//!
//! Enters: the time, or rows that an earlier process wrote. Leaves: one row of JSON per credential and per
//! session, or a pool that knows again. May go wrong, each for its own row only: rows of another version,
//! rows of a credential whose key or way to the upstream is another by now, rows that are garbage; they
//! teach nothing.
//!
//! Rows hold times of the wall clock, because the monotonic clock begins anew with each process. Read back,
//! no rest is longer than the longest that its class can have been given, so a wall clock that jumped
//! meanwhile makes no rest eternal. Rows hold no secret: logins are told by digests.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use secrecy::ExposeSecret;
use serde::de::IntoDeserializer;
use serde::de::value::Error as NotOne;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Pool;
use crate::cooldown::{longest_ms, remembered_until};
use crate::credential::{CredentialId, CredentialSpec, Proxy};
use crate::health::Record;
use crate::index::Credential;
use crate::outcome::Class;
use crate::settings::{Now, Settings};

/// Version of the rows. Rows of another one are passed over.
const VERSION: u32 = 1;

/// What is worth keeping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// By credential.
    pub health: Vec<HealthRow>,
    /// By session.
    pub sessions: Vec<SessionRow>,
}

/// What is known of the health of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthRow {
    /// The credential's id.
    pub credential: String,
    /// The row; `None`: there is nothing to remember any more.
    pub text: Option<String>,
}

/// Where a session stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Digest of session and model.
    pub key: u64,
    /// The credential's id.
    pub credential: String,
    /// When it was used last, on the monotonic clock of this process.
    pub used_ms: u64,
    /// The row.
    pub text: String,
}

/// How much was taken up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recalled {
    /// Credentials.
    pub credentials: usize,
    /// Sessions.
    pub sessions: usize,
}

/// A row about a credential. Times are milliseconds since 1970.
#[derive(Debug, Deserialize, Serialize)]
struct Health {
    #[serde(flatten)]
    login: Login,
    records: Vec<Trouble>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Trouble {
    /// The upstream's model; none: the whole credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    class: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    failed_ms: u64,
    /// 0: only counted.
    #[serde(default)]
    until_ms: u64,
    #[serde(default)]
    level: u32,
    #[serde(default)]
    soft: bool,
}

/// Digests of what makes a credential the one that something was learnt of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Login {
    /// The way to the upstream and the account there.
    connection: String,
    /// The key or token.
    secret: String,
}

/// A row about a session.
#[derive(Debug, Deserialize, Serialize)]
struct Binding {
    credential: String,
    #[serde(flatten)]
    login: Login,
    used_ms: u64,
}

#[derive(Serialize)]
struct Versioned<'t, T> {
    v: u32,
    #[serde(flatten)]
    row: &'t T,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

impl Pool {
    /// What is worth keeping. `since_ms` on the monotonic clock: only sessions that were used then or later,
    /// and only credentials whose health may have changed since they were last asked for in this way.
    pub fn learnt(&self, since_ms: Option<u64>, now: Now) -> Learnt {
        let index = self.index.load();
        let mut health = Vec::new();
        for credential in &index.credentials {
            if since_ms.is_some() && !credential.state.take_changed() {
                continue;
            }
            let text = health_row(credential, now);
            if text.is_some() || since_ms.is_some() {
                health.push(HealthRow { credential: credential.spec.id.to_string(), text });
            }
        }
        let mut logins: HashMap<CredentialId, Login> = HashMap::new();
        let mut sessions = Vec::new();
        for (key, id, used_ms) in self.affinity.used_since(since_ms.unwrap_or(0)) {
            let position = index.position_of(&id);
            let credential = position.and_then(|position| index.credentials.get(position as usize));
            let Some(credential) = credential else { continue };
            let login = logins.entry(id.clone()).or_insert_with(|| Login::of(&credential.spec));
            let row =
                Binding { credential: id.to_string(), login: login.clone(), used_ms: to_wall(used_ms, now) };
            let credential = id.to_string();
            sessions.extend(text(&row).map(|text| SessionRow { key, credential, used_ms, text }));
        }
        Learnt { health, sessions }
    }

    /// Takes up what an earlier process learnt. What was learnt since is newer and stays.
    pub fn recall(&self, learnt: &Learnt, now: Now) -> Recalled {
        let index = self.index.load();
        let mut recalled = Recalled::default();
        for row in &learnt.health {
            let position = index.position_of(&CredentialId::new(&row.credential));
            let credential = position.and_then(|position| index.credentials.get(position as usize));
            let Some((credential, text)) = credential.zip(row.text.as_deref()) else { continue };
            let Some(health) = parse::<Health>(text) else { continue };
            let records = records(&health, &credential.spec, &index.settings, now);
            if records.is_empty() {
                continue;
            }
            recalled.credentials += 1;
            credential.state.change(|health| {
                for (model, record) in records {
                    health.recall(model, record);
                }
            });
        }
        let life_ms = index.settings.session_affinity_ms;
        let mut logins: HashMap<CredentialId, Login> = HashMap::new();
        for row in learnt.sessions.iter().filter(|_| life_ms > 0) {
            let Some(binding) = parse::<Binding>(&row.text) else { continue };
            let id = CredentialId::new(&binding.credential);
            let position = index.position_of(&id);
            let credential = position.and_then(|position| index.credentials.get(position as usize));
            let Some(spec) = credential.map(|credential| &credential.spec) else { continue };
            let login = logins.entry(id.clone()).or_insert_with(|| Login::of(spec));
            let same = binding.login.fits(login, spec, None);
            let age_ms = wall_ms(now).saturating_sub(binding.used_ms);
            if same && age_ms <= life_ms && !self.affinity.remembers(row.key) {
                self.affinity.bind(row.key, &id, now.mono_ms.saturating_sub(age_ms));
                recalled.sessions += 1;
            }
        }
        // Whoever was lined up as ready before this has to be looked at again.
        self.signals.thaw();
        recalled
    }

    /// Whether a session is remembered: the rows of others may go.
    pub fn remembers_session(&self, key: u64) -> bool {
        self.affinity.remembers(key)
    }

    /// Whether the row of a credential has nothing to say any more, be it that all of it is long over or
    /// that it cannot be read.
    pub fn is_stale(text: &str, now: Now) -> bool {
        parse::<Health>(text).is_none_or(|health| {
            health.records.iter().all(|row| remembered_until(row.failed_ms, row.until_ms) <= wall_ms(now))
        })
    }
}

fn health_row(credential: &Credential, now: Now) -> Option<String> {
    if !credential.state.troubled() {
        return None;
    }
    let health = credential.state.health();
    let remembered = health
        .records()
        .filter(|(_, _, record)| now.mono_ms < remembered_until(record.failed_ms, record.until_ms));
    let mut records: Vec<Trouble> = remembered
        .map(|(model, _, record)| Trouble {
            model: model.map(ToString::to_string),
            class: record.class.name().to_owned(),
            status: record.status,
            failed_ms: to_wall(record.failed_ms, now),
            until_ms: if record.until_ms == 0 { 0 } else { to_wall(record.until_ms, now) },
            level: record.level,
            soft: record.soft,
        })
        .collect();
    drop(health);
    records.sort_by(|a, b| a.model.cmp(&b.model));
    if records.is_empty() {
        return None;
    }
    text(&Health { login: Login::of(&credential.spec), records })
}

/// What a row says about a credential, on the clock of this process.
fn records(
    health: &Health,
    spec: &CredentialSpec,
    settings: &Settings,
    now: Now,
) -> Vec<(Option<Arc<str>>, Record)> {
    if spec.disable_cooling.unwrap_or(settings.disable_cooling) {
        return Vec::new();
    }
    let (models, login) = (spec.models.models(), Login::of(spec));
    let record = |row: &Trouble| {
        let model = match &row.model {
            // One that is not served any more has nothing to remember.
            Some(name) => Some(Arc::clone(&models.iter().find(|model| *model.upstream == **name)?.upstream)),
            None => None,
        };
        let class: Result<Class, NotOne> = Class::deserialize(row.class.as_str().into_deserializer());
        let class = class.ok()?;
        if matches!(class, Class::Success | Class::ClientGone | Class::RequestFault) {
            return None;
        }
        if !health.login.fits(&login, spec, Some(class)) {
            return None;
        }
        let longest = longest_ms(class, settings.hint_cap_ms);
        let record = Record {
            class,
            status: row.status,
            failed_ms: from_wall(row.failed_ms, 0, now),
            until_ms: if row.until_ms == 0 { 0 } else { from_wall(row.until_ms, longest, now) },
            level: row.level,
            soft: row.soft,
            probe_until_ms: 0,
        };
        (now.mono_ms < remembered_until(record.failed_ms, record.until_ms)).then_some((model, record))
    };
    health.records.iter().filter_map(record).collect()
}

impl Login {
    /// That of a credential.
    pub(crate) fn of(spec: &CredentialSpec) -> Self {
        let kind = format!("{:?}", spec.kind);
        let proxy = match &spec.proxy {
            Proxy::Global => "global",
            Proxy::Direct => "direct",
            Proxy::Url(url) => url.expose_secret(),
            Proxy::Invalid(reason) => reason,
        };
        // The names of keys are numbers, those of logins are people.
        let owner = if spec.is_token { &*spec.label } else { "" };
        let mut parts = vec![kind.as_str(), &spec.base_url, &spec.scope, proxy, owner];
        parts.extend(spec.headers.iter().flat_map(|(name, value)| [name.as_str(), value.expose_secret()]));
        let connection = digest(&parts);
        let secret = digest(&[&connection, spec.secret.expose_secret()]);
        Self { connection, secret }
    }

    /// Whether what was learnt of this login holds for a credential whose login is `now`. Tokens are renewed all the time and stay
    /// the same login, but what came from a refused one is no news of the next.
    fn fits(&self, now: &Self, spec: &CredentialSpec, class: Option<Class>) -> bool {
        let renewed = spec.is_token && spec.refreshable;
        let of_the_token = matches!(class, Some(Class::Auth | Class::Forbidden));
        now.connection == self.connection && (now.secret == self.secret || (renewed && !of_the_token))
    }
}

/// Thirty-two hex digits.
fn digest(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest.finalize().iter().take(16).fold(String::new(), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn text(row: &impl Serialize) -> Option<String> {
    // Rows are structs of numbers and strings: they always have a text.
    serde_json::to_string(&Versioned { v: VERSION, row }).ok()
}

fn parse<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    let version: Version = serde_json::from_str(text).ok()?;
    if version.v == VERSION { serde_json::from_str(text).ok() } else { None }
}

fn wall_ms(now: Now) -> u64 {
    now.wall_s.saturating_mul(1000)
}

/// A time of the monotonic clock on the wall clock.
fn to_wall(mono_ms: u64, now: Now) -> u64 {
    wall_ms(now).saturating_add(mono_ms).saturating_sub(now.mono_ms)
}

/// A time of the wall clock on the monotonic clock, at most `most_ms` ahead. What was before the monotonic
/// clock began is at its first millisecond: 0 means never.
fn from_wall(at_ms: u64, most_ms: u64, now: Now) -> u64 {
    let wall = wall_ms(now);
    let ahead = at_ms.saturating_sub(wall).min(most_ms);
    let behind = wall.saturating_sub(at_ms);
    now.mono_ms.saturating_add(ahead).saturating_sub(behind).max(1)
}
