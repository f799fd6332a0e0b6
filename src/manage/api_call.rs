//! One request on behalf of an operator: `POST api-call`.
//!
//! Enters: method, URL, headers and body, and whose token goes with it. Leaves: `{status_code, header, body}`,
//! whatever the status is. May go wrong: the request is none (400), it would carry a token to a stranger (400), it
//! would go into a private network that the operator did not open (403), nobody answers in [`WITHIN`], or with
//! more than [`MOST`] bytes (502).
//!
//! Whoever has the management key may ask the Internet through us, and the hosts that the configuration names.
//! A strange host is looked up here and reached at the address that was found to be public, also through a
//! proxy. Redirects are answers. The token does not come back: what repeats it is masked.

mod target;

use super::answer::{Json, Refusal, read};
use super::auth_list::{auth_index, text};
use super::{App, Manage, Routes};
use crate::upstream::echo;
use crate::upstream::fetch::{self, Answer, Question};
use crate::upstream::peer::Lane;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use config::{Config, ProxySetting};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use pingora::ErrorType;
use pool::{CredentialSpec, Proxy, Sent};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::time::Duration;
use target::{TOKEN, Target};

/// Longest wait for all of it.
const WITHIN: Duration = Duration::from_mins(1);
/// Most bytes of an answer.
const MOST: usize = 1 << 20;
/// Most headers of a request.
const HEADERS: usize = 64;
/// Headers that say how a message is moved, which is our business.
const OURS: [&str; 10] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "accept-encoding",
    "proxy-authorization",
];

pub(super) fn routes() -> Routes {
    vec![("api-call".to_owned(), post(call))]
}

async fn call(State(app): State<App>, body: Bytes) -> Result<Json, Refusal> {
    let asked = read(&body)?;
    let snapshot = app.state.snapshot.load_full();
    let config = &snapshot.config;
    let spec = credential(&app, &asked)?;
    let method = match text(&asked, "method").trim() {
        "" => Method::GET,
        name => Method::from_bytes(name.to_ascii_uppercase().as_bytes())
            .map_err(|_| Refusal::bad("invalid method"))?,
    };
    if [Method::CONNECT, Method::TRACE].contains(&method) {
        return Err(Refusal::bad("this method is not for here"));
    }
    let given = headers(&asked)?;
    let wants_token = given.iter().any(|(_, value)| value.contains(TOKEN));
    let listed = &config.management.api_call_hosts;
    let target = target::read(text(&asked, "url"), spec.as_ref(), listed, wants_token)?;
    let proxy = proxy(&asked, spec.as_ref(), config, &target, wants_token)?;
    let lanes = lanes(&app, &target, &proxy, config).await?;
    let token = match &spec {
        Some(spec) if wants_token => token(&app, spec).await?,
        _ => SecretString::default(),
    };
    let filled: Vec<(&str, SecretString)> = given
        .iter()
        .map(|(name, value)| (name.as_str(), SecretString::from(value.replace(TOKEN, token.expose_secret()))))
        .collect();
    let body = match asked.get("data") {
        None | Some(Value::Null) => SecretString::default(),
        Some(Value::String(data)) => data.as_str().into(),
        Some(other) => other.to_string().into(),
    };
    let url = &target.url;
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let question = Question { method: method.as_str(), target: &path, headers: &filled, body: &body };
    let answer = ask(&app, &lanes, &question).await?;
    tracing::info!(host = url.host_str(), status_code = answer.status, "api-call by management");
    Ok(Json(shown(&answer, token.expose_secret())))
}

/// Whose token and proxy are meant; `None`: nobody's.
fn credential(app: &Manage, asked: &Value) -> Result<Option<CredentialSpec>, Refusal> {
    let names = ["auth_index", "authIndex", "AuthIndex"];
    let Some(wanted) = names.iter().map(|name| text(asked, name).trim()).find(|index| !index.is_empty())
    else {
        return Ok(None);
    };
    let is_it = |spec: &CredentialSpec| spec.id.as_str() == wanted || auth_index(spec.id.as_str()) == wanted;
    let found = app.state.credentials().into_iter().find(is_it);
    found.map(Some).ok_or_else(|| Refusal::missing("credential not found").with("auth_index", wanted))
}

/// The headers of a request.
fn headers(asked: &Value) -> Result<Vec<(String, String)>, Refusal> {
    let given = match asked.get("header").or_else(|| asked.get("headers")) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(members)) if members.len() <= HEADERS => members,
        Some(_) => {
            return Err(Refusal::bad(format!("header: expected up to {HEADERS} names with their values")));
        }
    };
    let mut headers = Vec::new();
    for (name, value) in given {
        let value = value.as_str().filter(|value| !value.chars().any(|c| c.is_control() && c != '\t'));
        let known = HeaderName::from_bytes(name.as_bytes());
        let (Ok(known), Some(value)) = (known, value) else {
            return Err(Refusal::bad("header: a name or value is none that HTTP knows"));
        };
        if !OURS.contains(&known.as_str()) {
            headers.push((known.as_str().to_owned(), value.to_owned()));
        }
    }
    Ok(headers)
}

/// The way out: that of the request, else of the credential, else the general one.
fn proxy(
    asked: &Value,
    spec: Option<&CredentialSpec>,
    config: &Config,
    target: &Target,
    wants_token: bool,
) -> Result<ProxySetting, Refusal> {
    let own = match spec.map(|spec| &spec.proxy) {
        None | Some(Proxy::Global) => ProxySetting::Inherit,
        Some(Proxy::Direct) => ProxySetting::Direct,
        Some(Proxy::Url(url)) => ProxySetting::parse(url.expose_secret()),
        Some(Proxy::Invalid(problem)) => {
            return Err(Refusal::bad(format!("proxy config invalid: {problem}")));
        }
    };
    let named = ["proxy_url", "proxyUrl"].iter().map(|name| text(asked, name)).find(|url| !url.is_empty());
    let Some(named) = named.map(ProxySetting::parse) else { return Ok(own) };
    match &named {
        ProxySetting::Invalid { problem, .. } => Err(Refusal::bad(format!("proxy_url: {problem}"))),
        ProxySetting::Url(url) => {
            let known = named == own || named == config.providers.proxy_url;
            if !known && !target::is_listed(&url.host, url.port, &config.management.api_call_hosts) {
                return Err(Refusal::bad(
                    "proxy_url: this proxy is none of the configuration; remote-management.api-call-hosts can list it",
                ));
            }
            if wants_token && target.url.scheme() == "http" && !known {
                return Err(Refusal::bad("proxy_url: it would see the token, which goes without TLS"));
            }
            Ok(named)
        }
        _ => Ok(named),
    }
}

/// The ways to a target: by name where it is trusted, else at its public addresses, one of each family.
async fn lanes(
    app: &Manage,
    target: &Target,
    proxy: &ProxySetting,
    config: &Config,
) -> Result<Vec<Lane>, Refusal> {
    let to = |address: Option<IpAddr>| {
        let lane = app.state.lanes.to_address(&target.url, address, proxy, config);
        lane.map_err(|error| Refusal::bad(error.to_string()))
    };
    if target.is_trusted {
        return Ok(vec![to(None)?]);
    }
    let host = target.url.host_str().unwrap_or_default().trim_end_matches('.');
    let port = target.url.port_or_known_default().unwrap_or(443);
    let found = app.state.lanes.public(host, port).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => Refusal::new(
            StatusCode::FORBIDDEN,
            format!(
                "{error}, where api-call does not go; remote-management.api-call-hosts can list the host"
            ),
        ),
        _ => failed(error.to_string()),
    })?;
    let v6 = found.iter().find(|ip| ip.is_ipv6());
    let v4 = found.iter().find(|ip| ip.is_ipv4());
    let lanes: Vec<Lane> = v4.into_iter().chain(v6).map(|ip| to(Some(*ip))).collect::<Result<_, _>>()?;
    if target.url.domain().is_some() && lanes.iter().any(|lane| lane.forward().is_some()) {
        return Err(Refusal::bad("without TLS the proxy would choose the address of this host; use https"));
    }
    Ok(lanes)
}

/// The token that a credential sends, renewed where it has run out.
async fn token(app: &Manage, spec: &CredentialSpec) -> Result<SecretString, Refusal> {
    let id = spec.id.as_str();
    let now_s = app.state.now().wall_s;
    let own = || Some(spec.secret.clone()).filter(|_| !spec.mints);
    let (sent, is_over) = match app.state.pool.sent(&spec.id) {
        Some(Sent::Token(token)) => (Some(token.secret.clone()), token.is_over(now_s)),
        Some(Sent::Missing) => (None, true),
        Some(Sent::Own) | None => (own(), spec.end_s.is_some_and(|end_s| end_s <= now_s)),
    };
    let sent = match sent {
        Some(sent) if !is_over || !spec.refreshable => Some(sent),
        stale => {
            app.state.renew(id, stale.as_ref()).await.map_err(|error| failed(error.to_string()))?;
            app.state.sent_secret(id)
        }
    };
    let sent = sent.filter(|sent| !sent.expose_secret().is_empty());
    sent.ok_or_else(|| Refusal::bad("this credential has no token").with("auth_index", auth_index(id)))
}

/// Asks at the first address that can be connected to.
async fn ask(app: &Manage, lanes: &[Lane], question: &Question<'_>) -> Result<Answer, Refusal> {
    let within = async {
        let mut last = failed("there is no way".to_owned());
        for lane in lanes {
            match fetch::ask_within(&app.connector, lane, question, WITHIN, MOST).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    last = failed(format!("{}: {}", lane.authority(), error.etype().as_str()));
                    let connecting = [
                        ErrorType::ConnectTimedout,
                        ErrorType::ConnectRefused,
                        ErrorType::ConnectNoRoute,
                        ErrorType::ConnectError,
                    ];
                    if !connecting.contains(error.etype()) {
                        break;
                    }
                }
            }
        }
        Err(last)
    };
    let late = |_| Err(failed(format!("no answer within {} seconds", WITHIN.as_secs())));
    tokio::time::timeout(WITHIN, within).await.unwrap_or_else(late)
}

fn failed(message: String) -> Refusal {
    Refusal::new(StatusCode::BAD_GATEWAY, "request failed").with("message", message)
}

fn shown(answer: &Answer, token: &str) -> Value {
    let hidden = |bytes: &[u8]| {
        let bytes = echo::hide(Bytes::copy_from_slice(bytes), [token]);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    json!({
        "status_code": answer.status,
        "header": header(&answer.headers, &hidden),
        "body": hidden(&answer.body),
    })
}

/// Headers by name, as Go writes them: `Content-Type`.
fn header(headers: &HeaderMap, hidden: &impl Fn(&[u8]) -> String) -> Map<String, Value> {
    let mut shown = Map::new();
    for (name, value) in headers {
        let words = name.as_str().split('-').map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
        });
        let name = words.collect::<Vec<_>>().join("-");
        let value = hidden(value.as_bytes());
        if let Some(list) = shown.entry(name).or_insert_with(|| json!([])).as_array_mut() {
            list.push(value.into());
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_move_messages_are_ours_and_others_are_read() {
        let read = |text: &str| headers(&serde_json::from_str(text).unwrap());
        let found = read(
            r#"{"header":{"Authorization":"Bearer $TOKEN$","HOST":"evil","Content-Length":"9","X-A":"b"}}"#,
        );
        let found: Vec<String> = found.unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, ["authorization", "x-a"]);
        assert!(read("{}").unwrap().is_empty());
        for bad in [
            r#"{"header":[]}"#,
            r#"{"header":{"a b":"c"}}"#,
            r#"{"header":{"a":"b\r\nc: d"}}"#,
            r#"{"header":{"a":1}}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn p53_an_answer_does_not_bring_the_token_back() {
        let mut headers = HeaderMap::new();
        headers.insert("x-echo-of", "Bearer canary-token".parse().unwrap());
        headers.append("set-cookie", "a=1".parse().unwrap());
        headers.append("set-cookie", "b=2".parse().unwrap());
        let answer = Answer {
            status: 302,
            date: None,
            headers,
            took: Duration::ZERO,
            body: b"you sent canary-token \xff".to_vec(),
        };
        let shown = shown(&answer, "canary-token");
        assert_eq!(shown["status_code"], 302);
        assert_eq!(shown["header"]["Set-Cookie"], json!(["a=1", "b=2"]));
        assert_eq!(shown["header"]["X-Echo-Of"], json!(["Bearer ********"]));
        assert!(
            !shown.to_string().contains("canary") && shown["body"].as_str().unwrap().starts_with("you sent")
        );
    }
}
