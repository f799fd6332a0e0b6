//! Models that accounts really have: upstreams are asked, and what they say is served.

use crate::management::{ON, manage};
use crate::reload::{replace, until};
use crate::shared::{CHAT, proxy_with_accounts, text_of, whole};
use serde_json::{Value, json as value};
use std::collections::BTreeMap;
use testkit::proxy::Proxy;
use testkit::upstream::{Step, Upstream, json};

const LISTED: &str = r#"{"models":{"claude-opus-4-6-thinking":{"displayName":"Opus"},"gemini-3-flash":{},"brand-new":{"displayName":"Brand New"},"chat_20706":{}}}"#;
const ANSWER: &str = r#"{"response":{"candidates":[{"content":{"role":"model","parts":[{"text":"Hello"}]},"finishReason":"STOP"}]}}"#;
const GONE: &str =
    r#"{"error":{"code":404,"message":"Requested entity was not found.","status":"NOT_FOUND"}}"#;

/// Who owns which model.
fn owners(proxy: &Proxy) -> BTreeMap<String, String> {
    let listed = proxy.get("/v1/models").json();
    let text = |model: &Value, key: &str| model[key].as_str().unwrap_or_default().to_owned();
    let models = listed["data"].as_array().expect("a list");
    models.iter().map(|model| (text(model, "id"), text(model, "owned_by"))).collect()
}

fn antigravity(url: &str) -> String {
    value!({
        "type": "antigravity", "access_token": "old", "refresh_token": "r", "project_id": "p",
        "expired": "2036-01-01T00:00:00Z", "email": "a@b.test", "base_url": url,
    })
    .to_string()
}

/// The proxy with an account there that can be renewed.
fn with_antigravity(config: &str, upstream: &Upstream) -> Proxy {
    let account = antigravity(&upstream.url());
    let secret = [("CLIPROXY_ANTIGRAVITY_CLIENT_SECRET", "s")];
    Proxy::start_in(env!("CARGO_BIN_EXE_cliproxy"), config, &[("antigravity-a.json", &account)], &secret)
}

/// An upstream of Antigravity that lists this, and knows no model `gone-1`.
fn google(list: impl Fn(&str) -> Step + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |seen| {
        if seen.path.ends_with(":fetchAvailableModels") {
            return vec![list(seen.header("authorization").unwrap_or_default())];
        }
        if seen.path == "/token" {
            return vec![json(200, r#"{"access_token":"new","expires_in":3600}"#)];
        }
        if seen.json()["model"] == "gone-1" {
            return vec![json(404, GONE)];
        }
        vec![json(200, ANSWER)]
    })
}

fn count(upstream: &Upstream, end: &str) -> usize {
    upstream.seen().iter().filter(|seen| seen.path.ends_with(end)).count()
}

/// The value of a provider in its metrics.
fn figure(proxy: &Proxy, provider: &str, key: &str) -> Value {
    proxy.get("/v1/metrics/providers").json()["providers"][provider][key].clone()
}

fn alerts(proxy: &Proxy) -> Vec<String> {
    let told = manage(proxy, "GET", "alerts", "").json();
    let alerts = told["alerts"].as_array().expect("a list").iter();
    alerts.map(|alert| alert["id"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn row_13_and_130_an_account_serves_what_it_lists_and_what_the_operator_named() {
    let upstream = google(|_| json(200, LISTED));
    let config = "request-retry: 0\noauth-model-alias:\n  antigravity: [{name: gone-1, alias: my-gone, fork: true}, {name: gemini-3-flash, alias: fast, fork: true}]\n";
    let proxy = with_antigravity(config, &upstream);
    assert!(until(|| owners(&proxy).contains_key("brand-new")), "{}", proxy.log());
    let names: Vec<String> = owners(&proxy).into_keys().collect();
    assert_eq!(
        names,
        ["brand-new", "claude-opus-4-6-thinking", "fast", "gemini-3-flash", "my-gone"],
        "nothing of the catalogue that the account has not"
    );
    let asked = upstream.seen().into_iter().find(|seen| seen.path.ends_with(":fetchAvailableModels"));
    let asked = asked.expect("the question");
    assert_eq!((asked.method.as_str(), asked.header("authorization")), ("POST", Some("Bearer old")));
    assert_eq!(asked.json(), value!({}));
    for model in ["brand-new", "fast"] {
        let answer = proxy.post(CHAT.path, &CHAT.body(model, false));
        assert_eq!((answer.head.status, text_of(&CHAT, &answer.text()).as_str()), (200, "Hello"), "{model}");
    }
    let gone = proxy.post(CHAT.path, &CHAT.body("my-gone", false));
    assert_eq!(gone.head.status, 404, "{}", gone.text());
    assert!(gone.text().contains("Requested entity was not found."), "{}", gone.text());
    let answer = proxy.post(CHAT.path, &CHAT.body("fast", false));
    assert_eq!(answer.head.status, 200, "the account is well: {}", answer.text());
}

#[test]
fn row_70_an_account_without_models_keeps_its_list_and_is_told() {
    let upstream = google(|_| json(200, r#"{"models":{}}"#));
    let proxy = with_antigravity(ON, &upstream);
    assert!(until(|| proxy.log().contains("lists no models")), "{}", proxy.log());
    assert_eq!(count(&upstream, ":fetchAvailableModels"), 2, "asked again with a new token");
    assert_eq!(count(&upstream, "/token"), 1, "renewed once");
    let asked: Vec<_> =
        upstream.seen().iter().filter_map(|s| s.header("authorization").map(str::to_owned)).collect();
    assert_eq!(asked, ["Bearer old", "Bearer new"]);
    let line = proxy.log().lines().find(|line| line.contains("lists no models")).map(str::to_owned);
    assert!(line.as_deref().is_some_and(|line| line.contains("WARN")), "{line:?}");
    assert!(until(|| figure(&proxy, "antigravity", "models") == 0), "{}", proxy.log());
    assert!(until(|| alerts(&proxy).contains(&"antigravity-zero-models".to_owned())), "{}", proxy.log());
    let files = manage(&proxy, "GET", "auth-files?format=object", "").json();
    assert_eq!(files["files"][0]["models_stale"], true, "{files}");
    assert!(files["files"][0]["models"].as_u64().expect("a number") > 5, "{files}");
    for name in ["claude-opus-4-6-thinking", "gemini-claude-opus-4-6-thinking"] {
        assert!(owners(&proxy).contains_key(name), "{name}");
    }
    let answer = proxy.post(CHAT.path, &CHAT.body("gemini-3-flash", false));
    assert_eq!(answer.head.status, 200, "{}", answer.text());
}

#[test]
fn row_70_a_new_token_may_bring_the_models_back() {
    let upstream = google(|token| json(200, if token == "Bearer new" { LISTED } else { "{}" }));
    let proxy = with_antigravity(ON, &upstream);
    assert!(until(|| owners(&proxy).contains_key("brand-new")), "{}", proxy.log());
    let files = manage(&proxy, "GET", "auth-files?format=object", "").json();
    assert_eq!(files["files"][0].get("models_stale"), None, "{files}");
    assert!(until(|| figure(&proxy, "antigravity", "models").as_u64().is_some_and(|models| models > 2)));
    assert!(alerts(&proxy).is_empty());
}

#[test]
fn an_upstream_that_cannot_list_leaves_the_catalogue_in_force() {
    let upstream = google(|_| json(500, "{}"));
    let proxy = with_antigravity(ON, &upstream);
    assert!(until(|| proxy.log().contains("those of the catalogue stay")), "{}", proxy.log());
    assert!(figure(&proxy, "antigravity", "models").as_u64().is_some_and(|models| models > 5));
    let files = manage(&proxy, "GET", "auth-files?format=object", "").json();
    assert_eq!(files["files"][0]["models_stale"], true, "{files}");
    assert_eq!(count(&upstream, "/token"), 0, "a failure says nothing about the token");
    assert!(!proxy.log().contains("Bearer old"));
}

#[test]
fn row_122_names_belong_to_who_has_the_model() {
    let google = google(|_| json(200, LISTED));
    let others = Upstream::start(|seen| {
        let path = seen.path.split('?').next().unwrap_or_default();
        match (path, seen.header("authorization")) {
            ("/copilot_internal/v2/token", _) => {
                vec![json(200, r#"{"token":"tid=1","expires_at":4102444800}"#)]
            }
            ("/listAvailableModels", Some("Bearer kiro")) => {
                vec![json(200, r#"{"models":[{"modelId":"claude-sonnet-4.5"},{"modelId":"auto"}]}"#)]
            }
            ("/models", Some("Bearer tid=1")) => {
                vec![json(
                    200,
                    r#"{"data":[{"id":"gpt-4.1"},{"id":"gpt-9","supported_endpoints":["/responses"]}]}"#,
                )]
            }
            ("/chat/completions", Some("Bearer tid=1")) => whole("/chat/v1"),
            _ => vec![json(404, "{}")],
        }
    });
    let kiro = format!(
        r#"{{"type":"kiro","access_token":"kiro","profile_arn":"arn:x/y","auth_method":"social","base_url":"{}"}}"#,
        others.url()
    );
    let copilot =
        format!(r#"{{"type":"github-copilot","access_token":"gho","base_url":"{}"}}"#, others.url());
    let accounts = [
        ("antigravity-a.json", antigravity(&google.url())),
        ("kiro-a.json", kiro),
        ("copilot-a.json", copilot),
    ];
    let accounts: Vec<(&str, &str)> = accounts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let proxy = proxy_with_accounts("", &accounts);
    let known = || {
        let owners = owners(&proxy);
        owners.contains_key("brand-new")
            && owners.contains_key("gpt-9")
            && owners.contains_key("kiro-auto")
            && !owners.contains_key("kiro-gpt-4o")
    };
    assert!(until(known), "{:?}\n{}", owners(&proxy), proxy.log());
    let owners = owners(&proxy);
    assert_eq!(owners.get("claude-sonnet-4-5").map(String::as_str), Some("aws"), "{owners:?}");
    for name in ["kiro-claude-sonnet-4-5", "kiro-claude-sonnet-4-5-agentic", "gpt-4.1"] {
        assert!(owners.contains_key(name), "{name}: {owners:?}");
    }
    for name in ["claude-opus-4-6", "kiro-claude-opus-4-6", "gpt-4o", "kiro-auto-agentic"] {
        assert!(!owners.contains_key(name), "{name}: {owners:?}");
    }
    let seen = others.seen();
    let kiro = seen.iter().find(|seen| seen.path.starts_with("/listAvailableModels")).expect("a question");
    assert!(kiro.path.ends_with("?origin=AI_EDITOR&profileArn=arn%3Ax%2Fy"), "{}", kiro.path);
    let copilot = seen.iter().find(|seen| seen.path == "/models").expect("a question");
    assert_eq!(copilot.header("copilot-integration-id"), Some("vscode-chat"));
    let answer = proxy.post(CHAT.path, &CHAT.body("gpt-4.1", false));
    assert_eq!(answer.head.status, 200, "{}", answer.text());
}

#[test]
fn a_reload_keeps_what_was_listed() {
    let upstream = google(|_| json(200, LISTED));
    let proxy = with_antigravity(ON, &upstream);
    assert!(until(|| owners(&proxy).contains_key("brand-new")), "{}", proxy.log());
    let file = proxy.folder().join("auths/antigravity-a.json");
    let text = std::fs::read_to_string(&file).expect("the account");
    replace(&file, &text.replace("a@b.test", "c@d.test"));
    assert!(until(|| proxy.log().contains("accounts reloaded")), "{}", proxy.log());
    let names = owners(&proxy);
    assert!(names.contains_key("brand-new") && !names.contains_key("claude-sonnet-4-5"), "{names:?}");
    assert_eq!(count(&upstream, ":fetchAvailableModels"), 1, "and nobody asks again");
}
