//! Single settings: one table, one handler per method.
//!
//! Enters: `{"value": …}`. Leaves: `{"<key>": …}`, or the changed configuration. May go wrong: a value of
//! another kind (400).

use super::answer::{Refusal, put, read, tagged};
use super::{App, Routes};
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::HeaderMap;
use serde_json::{Value, json};

/// A setting of the configuration.
#[derive(Debug)]
struct Setting {
    /// Keys that lead to it; joined by slashes the route.
    path: &'static [&'static str],
    kind: Kind,
}

/// What a setting can be.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Flag,
    /// A number; a negative one means this instead.
    Count(Option<u32>),
    Strategy,
    /// A proxy, or none.
    Proxy,
}

const fn setting(path: &'static [&'static str], kind: Kind) -> Setting {
    Setting { path, kind }
}

static SETTINGS: [Setting; 15] = [
    setting(&["debug"], Kind::Flag),
    setting(&["logging-to-file"], Kind::Flag),
    setting(&["logs-max-total-size-mb"], Kind::Count(Some(0))),
    setting(&["error-logs-max-files"], Kind::Count(Some(10))),
    setting(&["usage-statistics-enabled"], Kind::Flag),
    setting(&["proxy-url"], Kind::Proxy),
    setting(&["quota-exceeded", "switch-project"], Kind::Flag),
    setting(&["quota-exceeded", "switch-preview-model"], Kind::Flag),
    setting(&["request-log"], Kind::Flag),
    setting(&["ws-auth"], Kind::Flag),
    setting(&["request-retry"], Kind::Count(None)),
    setting(&["max-retry-credentials"], Kind::Count(None)),
    setting(&["max-retry-interval"], Kind::Count(None)),
    setting(&["force-model-prefix"], Kind::Flag),
    setting(&["routing", "strategy"], Kind::Strategy),
];

pub(super) fn routes() -> Routes {
    SETTINGS
        .iter()
        .map(|setting| {
            let change = move |State(app): State<App>, headers: HeaderMap, body: Bytes| async move {
                let value = setting.kind.read(&read(&body)?)?;
                put(&app, &headers, setting.path, Some(value)).await
            };
            let mut methods = get(move |State(app): State<App>| async move { setting.show(&app).await })
                .put(change)
                .patch(change);
            if matches!(setting.kind, Kind::Proxy) {
                methods = methods.delete(move |State(app): State<App>, headers: HeaderMap| async move {
                    put(&app, &headers, setting.path, Some("".into())).await
                });
            }
            (setting.path.join("/"), methods)
        })
        .collect()
}

impl Setting {
    /// What is in force.
    async fn show(&self, app: &App) -> Result<Response, Refusal> {
        let (_, etag) = super::answer::text(app).await?;
        let config = serde_json::to_value(&app.state.snapshot.load().config).unwrap_or_default();
        let value = self.path.iter().try_fold(&config, |value, key| value.get(key));
        let key = self.path.last().copied().unwrap_or_default();
        Ok(tagged(json!({ key: value }), &etag))
    }
}

impl Kind {
    fn read(self, body: &Value) -> Result<Value, Refusal> {
        let invalid = || Refusal::bad("invalid body");
        let value = body.get("value").ok_or_else(invalid)?;
        match self {
            Self::Flag => value.as_bool().map(Value::from).ok_or_else(invalid),
            Self::Count(below) => match (value.as_i64().ok_or_else(invalid)?, below) {
                (..0, Some(instead)) => Ok(instead.into()),
                (..0, None) => Err(invalid()),
                (count, _) => u32::try_from(count).map(Value::from).map_err(|_| invalid()),
            },
            Self::Strategy => {
                let strategy = config::Strategy::parse(value.as_str().ok_or_else(invalid)?)
                    .ok_or_else(|| Refusal::bad("invalid strategy"))?;
                serde_json::to_value(strategy).map_err(|_| invalid())
            }
            Self::Proxy => {
                let text = value.as_str().ok_or_else(invalid)?.trim();
                match config::ProxySetting::parse(text) {
                    config::ProxySetting::Invalid { problem, .. } => Err(Refusal::bad(problem)),
                    _ => Ok(text.into()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_another_kind_are_refused() {
        for (kind, value, read) in [
            (Kind::Flag, json!(true), Some(json!(true))),
            (Kind::Flag, json!("true"), None),
            (Kind::Count(Some(10)), json!(-3), Some(json!(10))),
            (Kind::Count(None), json!(-3), None),
            (Kind::Count(None), json!(7), Some(json!(7))),
            (Kind::Count(None), json!(7.5), None),
            (Kind::Count(None), json!(1_u64 << 40), None),
            (Kind::Strategy, json!("Fill-First"), Some(json!("fill-first"))),
            (Kind::Strategy, json!("random"), None),
            (Kind::Proxy, json!("socks5://h:1"), Some(json!("socks5://h:1"))),
            (Kind::Proxy, json!("ftp://h"), None),
        ] {
            let found = kind.read(&json!({ "value": value })).ok();
            assert_eq!(found, read, "{kind:?} {value}");
        }
        assert!(Kind::Flag.read(&json!({})).is_err());
    }

    #[test]
    fn every_setting_is_one_of_the_configuration() {
        let config = serde_json::to_value(config::Config::default()).unwrap();
        for setting in &SETTINGS {
            let found = setting.path.iter().try_fold(&config, |value, key| value.get(key));
            assert!(found.is_some(), "{:?}", setting.path);
        }
    }
}
