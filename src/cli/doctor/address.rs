//! Whether a proxy runs at an address, for clients that were told it.
//!
//! Enters: a base URL and maybe a client key. Leaves: findings. May go wrong: nothing; the variables that hold
//! a wrong address are named.

use super::Finding;
use super::reach::get;
use crate::state::lanes::Lanes;
use crate::upstream::peer::Lane;
use config::{Config, ProxySetting};
use pingora::connectors::http::Connector;
use url::Url;

const VARIABLES: &str =
    "check --base-url (CLIPROXY_BASE_URL; clients: OPENAI_BASE_URL, OPENAI_API_BASE, ANTHROPIC_BASE_URL)";

/// Asks the proxy for its health and, with a key, for its models.
pub(super) async fn ask(base: &str, key: Option<&str>) -> Vec<Finding> {
    let lane = match lane(base) {
        Ok(lane) => lane,
        Err(reason) => return vec![Finding::failure("base-url", format!("{base}: {reason}"), VARIABLES)],
    };
    let connector = Connector::new(None);
    let mut found = Vec::new();
    match get(&connector, &lane, "/health", None).await {
        Ok(said) if said.status == 200 && is_ours(&said.body) => {
            found.push(Finding::fine("base-url", format!("{base} serves")));
        }
        Ok(said) if said.status == 503 && is_ours(&said.body) => {
            let mend = "wait for the new process, or start one";
            found.push(Finding::failure("base-url", format!("{base} is about to leave"), mend));
        }
        Ok(said) => {
            let fact = format!("{base}/health answers {}: this is no cliproxy", said.status);
            found.push(Finding::failure("base-url", fact, VARIABLES));
        }
        Err(error) => {
            let fact = format!("{base} cannot be reached: {error}");
            found.push(Finding::failure("base-url", fact, VARIABLES));
        }
    }
    if let Some(key) = key.filter(|_| found.iter().all(|finding| finding.mend.is_empty())) {
        found.push(match get(&connector, &lane, "/v1/models", Some(key)).await {
            Ok(said) if said.status == 200 => Finding::fine("key", "the key is taken"),
            Ok(said) => {
                let mend = "check --key (CLIPROXY_API_KEY) against api-keys of the configuration";
                Finding::failure("key", format!("/v1/models answers {}", said.status), mend)
            }
            Err(error) => Finding::failure("key", format!("/v1/models: {error}"), VARIABLES),
        });
    }
    found
}

fn lane(base: &str) -> Result<Lane, String> {
    let base = Url::parse(base).map_err(|e| e.to_string())?;
    Lanes::default().to(&base, &ProxySetting::Direct, &Config::default()).map_err(|e| e.to_string())
}

fn is_ours(body: &[u8]) -> bool {
    wire::json::parse_any(body).is_ok_and(|health| health.get("status").is_some())
}
