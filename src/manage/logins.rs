//! Logins, as a dashboard does them.
//!
//! Enters: a provider's name. Leaves: the page to open and a state; how the login of a state stands; at its
//! end the account's file, in force at once. May go wrong: the provider refuses or is not there (502), too
//! many at once (429), a state that nobody waits for (404) or that was used (409).
//!
//! What a provider's page sends back comes without the secret: as a browser that the page sent to
//! `/PROVIDER/callback`, or pasted to `oauth-callback`. The state, 256 bits and good once, is the permission.
//! The pages show nothing of what came.

use super::answer::{Json, Refusal, read};
use super::auth_list::text;
use super::lists::Parameters;
use super::{App, Manage, Routes};
use crate::state::login::Underway;
use crate::state::logins::{Refused, Status, TooMany};
use crate::state::loopback::{self, Loopback, Reply};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::{HeaderMap, StatusCode, header};
use pool::login::{Failed, Organisation, Provider, Returned, Wish};
use secrecy::SecretString;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The path that needs no secret.
pub(super) const OPEN: &str = "/v0/management/oauth-callback";
/// Longest state that is looked at.
const LONGEST: usize = 128;

/// Names of providers in paths.
const NAMES: [(&str, Provider); 8] = [
    ("anthropic", Provider::Claude),
    ("codex", Provider::Codex),
    ("antigravity", Provider::Antigravity),
    ("kimi", Provider::Kimi),
    ("xai", Provider::Xai),
    ("qwen", Provider::Qwen),
    ("kiro", Provider::Kiro),
    ("github", Provider::Copilot),
];

pub(super) fn routes() -> Routes {
    let begin = NAMES.map(|(name, provider)| {
        let handler =
            async move |State(app): State<App>, Query(query): Query<Parameters>, headers: HeaderMap| {
                begin(&app, (name, provider), &query, &headers).await
            };
        (format!("{name}-auth-url"), get(handler))
    });
    begin
        .into_iter()
        .chain([
            ("get-auth-status".to_owned(), get(status)),
            ("oauth-session".to_owned(), delete(cancel)),
            ("oauth-callback".to_owned(), get(callback).post(pasted)),
            ("kiro-import".to_owned(), post(import)),
        ])
        .collect()
}

/// The pages that browsers are sent back to.
pub(super) fn pages(router: Router<App>) -> Router<App> {
    let with_page = NAMES.into_iter().filter(|(_, provider)| provider.callback().is_some());
    with_page.fold(router, |router, (name, provider)| {
        let handler = async move |State(app): State<App>, RawQuery(query): RawQuery| {
            page(&app, provider, query.as_deref().unwrap_or_default())
        };
        router.route(&format!("/{name}/callback"), get(handler))
    })
}

impl From<TooMany> for Refusal {
    fn from(error: TooMany) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string()).after(60)
    }
}

impl From<Refused> for Refusal {
    fn from(error: Refused) -> Self {
        let status = match error {
            Refused::Unknown => StatusCode::NOT_FOUND,
            Refused::OtherProvider => StatusCode::BAD_REQUEST,
            Refused::Used => StatusCode::CONFLICT,
        };
        Self::new(status, error.to_string())
    }
}

fn failed(failed: &Failed) -> Refusal {
    Refusal::new(StatusCode::BAD_GATEWAY, failed.to_string())
}

fn flag(query: &Parameters, key: &str) -> bool {
    query.get(key).is_some_and(|value| ["true", "1", "yes"].contains(&value.as_str()))
}

fn wish(provider: Provider, query: &Parameters) -> Result<Wish, Refusal> {
    let given =
        |keys: &[&str]| keys.iter().find_map(|key| query.get(*key)).map(|text| text.trim().to_owned());
    let mut wish = Wish::of(provider);
    wish.device = flag(query, "device") || query.get("flow").is_some_and(|flow| flow == "device");
    if provider == Provider::Kiro {
        let start_url = given(&["start_url", "startUrl", "start-url"]);
        match (query.get("method").map_or("", String::as_str), start_url) {
            ("google" | "github", _) => {
                return Err(Refusal::bad(
                    "Kiro refuses these logins to other programs: import its refresh token",
                ));
            }
            ("idc", None) => return Err(Refusal::bad("missing start_url: https://NAME.awsapps.com/start")),
            (_, Some(start_url)) => {
                let region = given(&["region"]).unwrap_or_default();
                wish.organisation = Some(Organisation { start_url, region });
            }
            _ => {}
        }
    }
    Ok(wish)
}

/// Begins a login. Whoever has the secret may; the answer is for whoever asked and nobody else.
async fn begin(
    app: &App,
    (name, provider): (&'static str, Provider),
    query: &Parameters,
    headers: &HeaderMap,
) -> Result<Json, Refusal> {
    let wish = wish(provider, query)?;
    let (login, step) = app.state.begin_login(&wish).map_err(|failed| Refusal::bad(failed.to_string()))?;
    let state = login.state().to_owned();
    let back = app.state.logins.begin(&state, provider, now_ms(app))?;
    let shown = Box::pin(app.state.show_login(&app.connector, login, step)).await;
    let underway = shown.map_err(|error| {
        app.state.logins.cancel(&state, now_ms(app));
        failed(&error)
    })?;
    let mut body = json!({
        "status": "ok",
        "url": underway.prompt.url,
        "state": state,
        "expires_in": underway.life_s(),
    });
    if underway.is_device() {
        body["flow"] = "device".into();
        body["user_code"] = underway.prompt.user_code.as_deref().into();
    }
    let mut listener = None;
    if flag(query, "is_webui") && !underway.is_device() {
        match listen(app, (name, provider), headers).await {
            Ok(found) => listener = found,
            Err(problem) => body["warning"] = problem.into(),
        }
        body["callback"] = listener.is_some().into();
    }
    let task = tokio::spawn(finish(Arc::clone(app), provider, underway, back, listener));
    app.state.logins.runs(&state, task.abort_handle(), now_ms(app));
    Ok(Json(body))
}

fn now_ms(app: &Manage) -> u64 {
    app.state.now().mono_ms
}

/// Where browsers come back to, while a login waits.
struct Listener {
    loopback: Loopback,
    path: &'static str,
    /// Our own page, up to its query.
    page: String,
}

/// Listens on the port that is registered with the provider, to send browsers on to our own page.
async fn listen(
    app: &Manage,
    (name, provider): (&str, Provider),
    headers: &HeaderMap,
) -> Result<Option<Listener>, String> {
    let Some(callback) = provider.callback() else { return Ok(None) };
    let loopback = Loopback::bind(callback.port).await.map_err(|error| {
        format!(
            "port {} of this machine cannot be listened on ({error}): paste the address at which the browser ends",
            callback.port
        )
    })?;
    let server = &app.state.snapshot.load().config.server;
    // The dashboard's own way to us is the browser's too.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host
        .filter(|host| host.parse::<http::uri::Authority>().is_ok_and(|host| !host.as_str().contains('@')));
    let own = format!("127.0.0.1:{}", server.port);
    let scheme = if server.tls.enable { "https" } else { "http" };
    let page = format!("{scheme}://{}/{name}/callback", host.unwrap_or(&own));
    Ok(Some(Listener { loopback, path: callback.path, page }))
}

/// Brings a login to its end, whatever that is.
async fn finish(
    app: App,
    provider: Provider,
    underway: Underway,
    back: oneshot::Receiver<Returned>,
    listener: Option<Listener>,
) {
    let state = underway.state().to_owned();
    let back = async move {
        let listening = async {
            if let Some(Listener { loopback, path, page }) = listener {
                loopback.serve(path, |query| Reply::Redirect(format!("{page}?{query}"))).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            returned = back => returned.ok(),
            () = listening => None,
        }
    };
    let ended = Box::pin(app.state.finish_login(&app.connector, underway, back)).await;
    let channel = provider.channel();
    match &ended {
        Ok(file) => tracing::info!(provider = channel, account = file, "login done"),
        Err(error) => tracing::warn!(provider = channel, "login failed: {error}"),
    }
    app.state.logins.end(&state, ended.map(drop).map_err(|error| error.to_string()), now_ms(&app));
}

/// The state of a query, if it can be one.
fn state_of(query: &Parameters) -> Result<&str, Refusal> {
    let state = query.get("state").map(|state| state.trim()).filter(|state| !state.is_empty());
    legal(state.ok_or_else(|| Refusal::bad("missing state"))?)
}

fn legal(state: &str) -> Result<&str, Refusal> {
    let fits =
        state.len() <= LONGEST && state.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if fits { Ok(state) } else { Err(Refusal::bad("invalid state")) }
}

async fn status(State(app): State<App>, Query(query): Query<Parameters>) -> Result<Json, Refusal> {
    let error = |text: &str| json!({ "status": "error", "error": text });
    Ok(Json(match app.state.logins.status(state_of(&query)?, now_ms(&app)) {
        Some(Status::Waits) => json!({ "status": "wait" }),
        Some(Status::Done) => json!({ "status": "ok" }),
        Some(Status::Failed(why)) => error(&why),
        None => error(&Refused::Unknown.to_string()),
    }))
}

async fn cancel(State(app): State<App>, Query(query): Query<Parameters>) -> Result<Json, Refusal> {
    let cancelled = app.state.logins.cancel(state_of(&query)?, now_ms(&app));
    Ok(Json(json!({ "status": "ok", "cancelled": cancelled })))
}

/// What a page sent back, as parameters of the URL.
async fn callback(State(app): State<App>, RawQuery(query): RawQuery) -> Result<Json, Refusal> {
    let query = query.unwrap_or_default();
    let named = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "provider");
    take(&app, named.as_ref().map(|(_, name)| &**name), Returned::query(&query))
}

/// The same as JSON: the whole address, or its parts.
async fn pasted(State(app): State<App>, body: Bytes) -> Result<Json, Refusal> {
    let body = read(&body)?;
    let pasted = [text(&body, "redirect_url"), text(&body, "code")].into_iter().find(|text| !text.is_empty());
    let given = |key: &str| Some(text(&body, key)).filter(|text| !text.is_empty()).map(str::to_owned);
    let mut returned = pasted.map(|text| Returned::pasted(text).unwrap_or_default()).unwrap_or_default();
    returned.code = returned.code.or_else(|| given("code").map(SecretString::from));
    returned.state = returned.state.or_else(|| given("state"));
    returned.error = returned.error.or_else(|| given("error"));
    take(&app, given("provider").as_deref(), returned)
}

fn take(app: &Manage, provider: Option<&str>, returned: Returned) -> Result<Json, Refusal> {
    let provider = match provider {
        Some(name) => Some(Provider::named(name).ok_or_else(|| Refusal::bad("unknown provider"))?),
        None => None,
    };
    let state = returned.state.as_deref().filter(|state| !state.is_empty());
    legal(state.ok_or_else(|| Refusal::bad("missing state"))?)?;
    if returned.code.is_none() && returned.error.is_none() {
        return Err(Refusal::bad("missing code or error"));
    }
    app.state.logins.returned(provider, returned, now_ms(app))?;
    Ok(Json(json!({ "status": "ok" })))
}

/// The page that a browser was sent back to: one of two texts, nothing of what came.
fn page(app: &Manage, provider: Provider, query: &str) -> Response {
    let taken = app.state.logins.returned(Some(provider), Returned::query(query), now_ms(app));
    let (status, text) = match taken {
        Ok(()) => (StatusCode::OK, loopback::TAKEN),
        Err(_) => (StatusCode::BAD_REQUEST, loopback::REFUSED),
    };
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, loopback::POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, text).into_response()
}

/// Takes over a login of Kiro's own program by its refresh token.
async fn import(State(app): State<App>, body: Bytes) -> Result<Json, Refusal> {
    let body = read(&body)?;
    let refresh = [text(&body, "refresh_token"), text(&body, "refreshToken")];
    let refresh = refresh.into_iter().find(|token| !token.is_empty());
    let refresh = refresh.ok_or_else(|| Refusal::bad("missing refresh_token"))?;
    let wish = Wish { import: Some(refresh.into()), ..Wish::of(Provider::Kiro) };
    let (login, step) = app.state.begin_login(&wish).map_err(|failed| Refusal::bad(failed.to_string()))?;
    let name = Box::pin(app.state.end_login(&app.connector, login, step)).await.map_err(|e| failed(&e))?;
    Ok(Json(json!({ "status": "ok", "name": name })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p62_states_are_letters_and_not_too_many() {
        assert!(legal("aB3-_.").is_ok() && legal(&"x".repeat(128)).is_ok());
        for bad in ["a/b", "a b", "<x>", "%2e", "\u{430}", "a\n", &"x".repeat(129)] {
            assert!(legal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_kiro_is_asked_for() {
        let of = |pairs: &[(&str, &str)]| {
            let query = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            wish(Provider::Kiro, &query)
        };
        assert!(of(&[]).unwrap().organisation.is_none() && of(&[("method", "aws")]).is_ok());
        let idc =
            of(&[("method", "idc"), ("startUrl", "https://a.awsapps.com/start"), ("region", "eu-west-1")]);
        assert_eq!(idc.unwrap().organisation.unwrap().region, "eu-west-1");
        for bad in [&[("method", "google")][..], &[("method", "idc")]] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}
