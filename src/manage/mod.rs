//! The management sidecar: what operators and dashboards ask and change while traffic runs.
//!
//! Enters: requests for `/v0/management/*`, `/v1/metrics/providers` and the callbacks of logins, handed over by the data path through
//! [`crate::state::sidecar`]. Leaves: JSON, the files themselves on the download routes, changed files. May go
//! wrong: every refusal is JSON, `{"error": …}`; with more than [`IN_FLIGHT`] requests at once the rest get
//! 503. Runs on a thread of its own; what waits for files or bcrypt runs on blocking threads beside it.
//!
//! | file | holds |
//! |---|---|
//! | `gate.rs`, `lockout.rs`, `secret.rs` | who may come in |
//! | `answer.rs` | refusals, JSON, entity tags |
//! | `settings.rs` | one table of single settings |
//! | `lists.rs`, `blocks.rs`, `mask.rs` | lists of keys, maps by provider |
//! | `document.rs` | the configuration as a whole |
//! | `auth_files.rs`, `auth_list.rs`, `auth_refresh.rs`, `file_name.rs` | account files |
//! | `config_keys.rs`, `vertex.rs` | keys of the configuration, switched on and off; Google's key files |
//! | `providers.rs` | providers: metrics and abilities |
//! | `logins.rs` | logins to accounts |
//! | `routing.rs`, `quota.rs`, `credentials.rs`, `kiro.rs`, `logs.rs` | what is going on |
//! | `events.rs`, `requests.rs` | the same as it happens; requests one by one |
//! | `api_call.rs`, `latest_version.rs` | questions to others |
//! | `request_logs.rs`, `body_capture.rs` | what was written down of single requests |
//! | `alerts.rs`, `notify.rs` | what should be looked at, and who is told |

mod alerts;
mod answer;
mod api_call;
mod auth_files;
mod auth_list;
mod auth_refresh;
mod blocks;
mod body_capture;
mod config_keys;
mod credentials;
mod document;
mod events;
mod file_name;
mod gate;
mod kiro;
mod latest_version;
mod lists;
mod lockout;
mod logins;
mod logs;
mod mask;
mod notify;
mod providers;
mod quota;
mod request_logs;
mod requests;
mod routing;
mod secret;
mod settings;
#[cfg(test)]
mod tests;
mod usage;
mod vertex;

use crate::state::State;
use crate::state::sidecar::{Answer, Hop};
use answer::Refusal;
use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get};
use futures::StreamExt;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use parking_lot::Mutex;
use pingora::connectors::http::Connector;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tower::ServiceExt;

/// Requests that are answered at once, live tails included.
const IN_FLIGHT: usize = 256;
/// Parts of an answer that wait for a slow reader.
const PARTS: usize = 8;
/// Time between two looks at whether the secret still stands in the open.
const LOOK: Duration = Duration::from_secs(5);
/// Where it all is.
const ROOT: &str = "/v0/management";

/// What handlers share.
pub(crate) struct Manage {
    state: Arc<State>,
    gate: gate::Gate,
    /// Connections of our own: questions to upstreams must not hold those of the traffic.
    connector: Connector,
    document: answer::Cache,
    kiro: kiro::Cache,
    providers: providers::Cache,
    watch: alerts::Watch,
    events: events::Events,
    notifier: notify::Notifier,
    version: &'static str,
}

/// It, as handlers get it.
type App = Arc<Manage>;

/// The sidecar as a service of the process.
pub struct Sidecar {
    app: App,
    /// What it is asked; requests that come before it runs wait here.
    hops: Mutex<Option<mpsc::Receiver<Hop>>>,
}

impl std::fmt::Debug for Sidecar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sidecar")
    }
}

impl Sidecar {
    /// The sidecar over shared state; made before anybody can ask. `version` is what answers name.
    pub fn new(state: Arc<State>, version: &'static str) -> Self {
        let password = std::env::var("MANAGEMENT_PASSWORD").unwrap_or_default();
        let hops = Mutex::new(state.sidecar.take());
        Self { app: Arc::new(Manage::new(state, version, &password)), hops }
    }
}

impl Manage {
    fn new(state: Arc<State>, version: &'static str, password: &str) -> Self {
        Self {
            notifier: notify::Notifier::new(&state),
            state,
            gate: gate::Gate::new(password),
            connector: Connector::new(None),
            document: answer::Cache::default(),
            kiro: kiro::Cache::default(),
            providers: providers::Cache::default(),
            watch: alerts::Watch::default(),
            events: events::Events::default(),
            version,
        }
    }
}

#[async_trait]
impl BackgroundService for Sidecar {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Some(mut hops) = self.hops.lock().take() else { return };
        let router = router(&self.app);
        let room = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut look = tokio::time::interval(LOOK);
        // Ends with this.
        let mut worker = JoinSet::new();
        if let Some(work) = self.app.notifier.worker(&self.app) {
            worker.spawn(work);
        }
        loop {
            tokio::select! {
                hop = hops.recv() => {
                    let Some(hop) = hop else { return };
                    match Arc::clone(&room).try_acquire_owned() {
                        Ok(place) => {
                            let router = router.clone();
                            tokio::spawn(async move {
                                answer(router, hop).await;
                                drop(place);
                            });
                        }
                        Err(_) => send(too_much(), hop.answer).await,
                    }
                }
                _ = look.tick() => {
                    secret::keep_hashed(&self.app).await;
                    let app = Arc::clone(&self.app);
                    // Not on the thread that answers.
                    let _ = beside(move || alerts::look(&app)).await;
                }
                _ = shutdown.changed() => return,
            }
        }
    }
}

fn too_much() -> Response<Body> {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many management requests at once").response()
}

async fn answer(router: Router, hop: Hop) {
    let Hop { request, peer, answer } = hop;
    let mut request = request.map(Body::from);
    request.extensions_mut().insert(peer);
    // The error type is `Infallible`.
    let Ok(response) = router.oneshot(request).await;
    send(response, answer).await;
}

/// Sends an answer on its way back, at the pace of whoever reads it.
async fn send(response: Response<Body>, answer: tokio::sync::oneshot::Sender<Answer>) {
    let (head, body) = response.into_parts();
    let (sender, receiver) = mpsc::channel(PARTS);
    let length = HttpBody::size_hint(&body).exact();
    if answer.send(Answer { head, length, body: receiver }).is_err() {
        return;
    }
    let mut parts = body.into_data_stream();
    while let Some(Ok(part)) = parts.next().await {
        if sender.send(part).await.is_err() {
            return;
        }
    }
}

/// All routes. Those outside [`ROOT`] need no secret, unless the configuration says so.
fn router(app: &App) -> Router {
    let mut inner = Router::new();
    for (path, methods) in all_routes() {
        inner = inner.route(&format!("{ROOT}/{path}"), methods);
    }
    let inner = inner
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        // The data path bounds bodies before they come here.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(Arc::clone(app), gate::gate))
        .route(
            "/v1/metrics/providers",
            get(providers::metrics).route_layer(from_fn_with_state(Arc::clone(app), gate::metrics_gate)),
        );
    logins::pages(inner).with_state(Arc::clone(app))
}

/// Routes of a file: paths below [`ROOT`].
type Routes = Vec<(String, MethodRouter<App>)>;

fn all_routes() -> Routes {
    settings::routes()
        .into_iter()
        .chain(lists::routes())
        .chain(blocks::routes())
        .chain(document::routes())
        .chain(auth_files::routes())
        .chain(auth_refresh::routes())
        .chain(routing::routes())
        .chain(quota::routes())
        .chain(credentials::routes())
        .chain(logins::routes())
        .chain(logs::routes())
        .chain(request_logs::routes())
        .chain(body_capture::routes())
        .chain(usage::routes())
        .chain(alerts::routes())
        .chain(events::routes())
        .chain(requests::routes())
        .chain(api_call::routes())
        .chain(latest_version::routes())
        .chain(vertex::routes())
        .collect()
}

async fn nothing() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "there is no such management path")
}

async fn wrong_method() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this path has other methods")
}

/// Says on each answer who gave it, as CLIProxyAPI does, and that it is nobody else's business.
fn mark(response: &mut Response<Body>, version: &'static str) {
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("x-cpa-version"), HeaderValue::from_static(version));
    headers.entry(http::header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Runs what waits for files or much arithmetic beside the sidecar's thread.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let failed = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the handler failed; the log says more");
    tokio::task::spawn_blocking(work).await.map_err(failed)
}
