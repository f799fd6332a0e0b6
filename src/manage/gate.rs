//! Who may come in.
//!
//! Enters: a request, the address of its connection. Leaves: the request for the handlers, or a refusal. May
//! go wrong: management is off (404), the address tried too often (403, with the wait), it is another machine
//! and that is not allowed (403), no secret (401), a wrong one (401), a page of another origin asks (403).
//!
//! What a request says of its own origin (`X-Forwarded-For` and the like) is not read here.

use super::answer::Refusal;
use super::lockout::Lockout;
use super::secret::{Look, Secrets, matches};
use super::{App, Manage, beside, logins, mark};
use crate::state::keys::{Admission, ClientKeys};
use crate::state::sidecar::Peer;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;

/// What is known of those who asked.
#[derive(Debug)]
pub(super) struct Gate {
    secrets: Secrets,
    lockout: Mutex<Lockout>,
    /// One hash at a time: a flood of wrong secrets must not take a processor from the traffic.
    hashing: Semaphore,
    told: AtomicBool,
}

impl Gate {
    /// A gate with the password of the environment.
    pub(super) fn new(password: &str) -> Self {
        Self {
            secrets: Secrets::new(password),
            lockout: Mutex::default(),
            hashing: Semaphore::new(1),
            told: AtomicBool::new(false),
        }
    }

    /// Whether it was told already that the secret cannot be hashed.
    pub(super) fn told_of_secret(&self) -> bool {
        self.told.swap(true, Ordering::Relaxed)
    }
}

/// The layer before all handlers.
pub(super) async fn gate(State(app): State<App>, request: Request, next: Next) -> Response {
    // Without an address nobody is local.
    let unknown = Peer(Some(std::net::Ipv4Addr::UNSPECIFIED.into()));
    let peer = request.extensions().get::<Peer>().copied().unwrap_or(unknown);
    let open = request.uri().path() == logins::OPEN;
    let mut response = match check(&app, peer, request.headers(), open).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.response(),
    };
    mark(&mut response, app.version);
    response
}

/// The layer before the metrics of providers: open, unless the configuration asks for a key of either kind.
pub(super) async fn metrics_gate(State(app): State<App>, request: Request, next: Next) -> Response {
    let snapshot = app.state.snapshot.load_full();
    if !snapshot.config.auth.metrics_auth || is_client(&app, &snapshot.keys, &request) {
        return next.run(request).await;
    }
    if !app.gate.secrets.any(&snapshot.config.management) {
        return Refusal::new(StatusCode::UNAUTHORIZED, "a client key is needed here").response();
    }
    gate(State(app), request, next).await
}

/// Whether a request shows a client key that is good now.
fn is_client(app: &Manage, keys: &ClientKeys, request: &Request) -> bool {
    match keys.admit(request.headers(), request.uri().query()) {
        Admission::Key(number) if !keys.has_templates() => {
            let now_s = app.state.now().wall_s;
            keys.holder(number).is_some_and(|holder| holder.expired(now_s).is_none())
        }
        _ => false,
    }
}

/// `open`: the request brings a permission of its own in place of the secret.
async fn check(app: &Manage, peer: Peer, headers: &HeaderMap, open: bool) -> Result<(), Refusal> {
    let snapshot = app.state.snapshot.load_full();
    let (gate, management) = (&app.gate, &snapshot.config.management);
    let forbidden = |reason: &str| Refusal::new(StatusCode::FORBIDDEN, reason);
    if !gate.secrets.any(management) {
        return Err(Refusal::missing("management is off: set remote-management.secret-key"));
    }
    locked(gate, peer, app.state.uptime().as_secs())?;
    if !peer.is_local() && !management.allow_remote && !gate.secrets.has_password() {
        return Err(forbidden("remote management disabled"));
    }
    if is_foreign(headers) {
        return Err(forbidden("a page of another origin must not manage"));
    }
    if open {
        return Ok(());
    }
    let unauthorized = |reason: &str| Refusal::new(StatusCode::UNAUTHORIZED, reason);
    let Some(shown) = shown(headers) else { return Err(unauthorized("missing management key")) };
    let right = match gate.secrets.look(shown, management) {
        Look::Right => true,
        Look::Wrong => false,
        // Operators mix them up. That is no attack, and needs no hash.
        Look::Ask(_) if is_client_key(&snapshot.keys, shown) => false,
        Look::Ask(hash) => {
            let Ok(_one) = gate.hashing.acquire().await else {
                return Err(unauthorized("invalid management key"));
            };
            // Those before may have locked it out.
            locked(gate, peer, app.state.uptime().as_secs())?;
            // Dashboards come back all at once: one hash is enough for all of them.
            if matches!(gate.secrets.look(shown, management), Look::Right) {
                true
            } else {
                let (key, asked) = (shown.to_owned(), hash.clone());
                let right = beside(move || matches(&key, &asked)).await?;
                if right {
                    gate.secrets.remember(shown, hash);
                }
                right
            }
        }
    };
    if right {
        gate.lockout.lock().succeeded(peer.0);
        return Ok(());
    }
    if !is_client_key(&snapshot.keys, shown) {
        gate.lockout.lock().failed(peer.0, app.state.uptime().as_secs());
        tracing::warn!(client_ip = ?peer.0, "wrong management key");
    }
    Err(unauthorized("invalid management key"))
}

fn locked(gate: &Gate, peer: Peer, now_s: u64) -> Result<(), Refusal> {
    let Some(wait) = gate.lockout.lock().waits(peer.0, now_s) else { return Ok(()) };
    let (minutes, seconds) = (wait / 60, wait % 60);
    let text = format!("IP banned due to too many failed attempts. Try again in {minutes}m{seconds}s");
    Err(Refusal::new(StatusCode::FORBIDDEN, text).after(wait))
}

/// The secret that a request shows.
fn shown(headers: &HeaderMap) -> Option<&str> {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let bearer = value("authorization").map(|value| match value.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
        None if value.eq_ignore_ascii_case("bearer") => "",
        _ => value,
    });
    [bearer, value("x-management-key"), value("x-management-secret")]
        .into_iter()
        .flatten()
        .find(|key| !key.is_empty())
}

/// Whether a client key was shown in place of the secret, in whatever header.
fn is_client_key(keys: &ClientKeys, shown: &str) -> bool {
    let Ok(value) = HeaderValue::from_str(shown) else { return false };
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x-api-key"), value)]);
    matches!(keys.admit(&headers, None), Admission::Key(_))
}

/// Whether a browser says that a page of another place asks: then a name of somebody else leads here.
fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    !matches!((origin, host), (Some((_, origin)), Some(host)) if origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn row_151_every_spelling_of_the_header_counts() {
        for pair in [
            ("authorization", "Bearer k"),
            ("authorization", "bearer  k "),
            ("authorization", "k"),
            ("x-management-key", "k"),
            ("x-management-secret", " k"),
        ] {
            assert_eq!(shown(&headers(&[pair])), Some("k"), "{pair:?}");
        }
        for none in [("authorization", "Bearer "), ("x-api-key", "k"), ("cookie", "key=k")] {
            assert_eq!(shown(&headers(&[none])), None, "{none:?}");
        }
    }

    #[test]
    fn p63_pages_of_other_origins_are_told_by_their_origin() {
        for (origin, foreign) in [
            ("http://localhost:8317", false),
            ("https://LOCALHOST:8317", false),
            ("http://evil.test", true),
            ("http://localhost:8317.evil.test", true),
            ("null", true),
        ] {
            let headers = headers(&[("origin", origin), ("host", "localhost:8317")]);
            assert_eq!(is_foreign(&headers), foreign, "{origin}");
        }
        assert!(is_foreign(&headers(&[("origin", "http://a")])));
        assert!(!is_foreign(&headers(&[("host", "a")])));
    }
}
