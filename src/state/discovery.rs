//! Upstreams are asked which models they have, where the configuration lists none.
//!
//! Enters: credentials with a path to ask ([`pool::CredentialSpec::lists`]). Leaves: their models, served as
//! soon as they are known and asked for again from time to time. May go wrong: an upstream cannot say; what
//! it said before stays, and it is asked again later.

use super::State;
use crate::upstream::fetch::{self, Question};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pool::{CredentialId, CredentialSpec};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two looks at who has to be asked.
const TICK: Duration = Duration::from_millis(500);
/// How long an answer is good.
const GOOD: Duration = Duration::from_hours(1);
/// Rest after a failure.
const REST: Duration = Duration::from_mins(1);
/// Upstreams that are asked at once.
const AT_ONCE: usize = 8;
/// Most models that are taken from one answer, and the longest name.
const MOST: (usize, usize) = (5_000, 256);

/// Asks for the life of the process.
#[derive(Debug)]
pub struct Discovery(pub Arc<State>);

#[async_trait]
impl BackgroundService for Discovery {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let state = &self.0;
        let mut asked: HashMap<CredentialId, Instant> = HashMap::new();
        loop {
            let now = Instant::now();
            let mut listers = state.pool.listers();
            asked.retain(|id, _| listers.iter().any(|spec| spec.id == *id));
            listers.retain(|spec| asked.get(&spec.id).is_none_or(|next| *next <= now));
            let mut answers = stream::iter(listers)
                .map(|spec| async move {
                    let models = Box::pin(state.models_of(&spec)).await;
                    (spec, models)
                })
                .buffer_unordered(AT_ONCE);
            while let Some((spec, models)) = answers.next().await {
                let rest = if models.is_ok() { GOOD } else { REST };
                asked.insert(spec.id.clone(), Instant::now() + rest);
                state.take(&spec, models);
            }
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                _ = shutdown.changed() => return,
            }
        }
    }
}

impl State {
    /// Asks an upstream for its models.
    async fn models_of(&self, spec: &CredentialSpec) -> Result<Vec<String>, String> {
        let snapshot = self.snapshot.load_full();
        let lane = self.lanes.get(spec, None, &snapshot.config).map_err(|e| e.to_string())?;
        let path = spec.lists.as_deref().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        let target = format!("{}{slash}{path}", lane.base_path());
        let mut headers = Vec::new();
        if !spec.secret.expose_secret().is_empty() {
            let bearer = format!("Bearer {}", spec.secret.expose_secret());
            headers.push(("authorization", SecretString::from(bearer)));
        }
        let own = spec.headers.iter().filter(|(_, value)| !value.expose_secret().starts_with('$'));
        headers.extend(own.map(|(name, value)| (name.as_str(), value.clone())));
        let question =
            Question { method: "GET", target: &target, headers: &headers, body: &SecretString::default() };
        let asked = fetch::ask(&self.connector, &lane, &question).await;
        let (status, body) = asked.map_err(|e| format!("{}: {}", lane.authority(), e.etype().as_str()))?;
        if status != 200 {
            return Err(format!("{}{target}: status {status}", lane.authority()));
        }
        read(&body).ok_or_else(|| format!("{}{target}: the answer is no list of models", lane.authority()))
    }

    /// Puts an answer in force.
    fn take(&self, spec: &CredentialSpec, models: Result<Vec<String>, String>) {
        match models {
            Ok(models) => {
                let count = models.len();
                self.unlisted.lock().remove(&spec.id);
                let before = self.found.lock().insert(spec.id.clone(), models.clone());
                if before.as_ref() != Some(&models) {
                    tracing::info!(credential = %spec.label, models = count, "models listed");
                    self.apply_found();
                }
            }
            Err(problem) => {
                self.unlisted.lock().insert(spec.id.clone());
                tracing::warn!(credential = %spec.label, "models not listed: {problem}");
            }
        }
    }

    /// Providers of which it is not known yet what they serve, as an upstream of theirs did not say. `patient`:
    /// one that could not say may still do so.
    pub fn unlisted(&self, patient: bool) -> HashSet<Arc<str>> {
        let listers = self.pool.listers();
        let (found, failed) = (self.found.lock(), self.unlisted.lock());
        let silent = listers
            .into_iter()
            .filter(|spec| !found.contains_key(&spec.id) && (patient || !failed.contains(&spec.id)));
        silent.map(|spec| spec.provider).collect()
    }
}

/// OpenAI's list of models, or its bare array.
#[derive(Deserialize)]
#[serde(untagged)]
enum List {
    Object { data: Vec<Model> },
    Array(Vec<Model>),
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

fn read(body: &[u8]) -> Option<Vec<String>> {
    let (List::Object { data } | List::Array(data)) = serde_json::from_slice(body).ok()?;
    let fits = |id: &String| !id.trim().is_empty() && id.len() <= MOST.1 && !id.contains(char::is_control);
    Some(data.into_iter().map(|model| model.id).filter(fits).take(MOST.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_models() {
        let object = br#"{"object":"list","data":[{"id":"a","x":1},{"id":" "},{"id":"b"}]}"#;
        assert_eq!(read(object).unwrap(), ["a", "b"]);
        assert_eq!(read(br#"[{"id":"a"}]"#).unwrap(), ["a"]);
        assert!(read(b"<html>").is_none() && read(br#"{"error":"x"}"#).is_none());
        let long = format!(r#"{{"data":[{{"id":"{}"}}]}}"#, "x".repeat(10_000));
        assert!(read(long.as_bytes()).unwrap().is_empty());
    }
}
