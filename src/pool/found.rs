//! What upstreams list of themselves.
//!
//! Enters: a credential whose upstream can be asked ([`ListCall::of`]), the body of the answer ([`read`]).
//! Leaves: [`FoundModel`]s; with what the catalogue knows of them, the models to serve. May go wrong: the body
//! is no list ([`read`] says `None`). What cannot be a name is left out.
//!
//! Who is asked: credentials for which the configuration lists no models, and the accounts of Antigravity,
//! Kiro and Copilot, who do not all have the same models. Source: `reference/cliproxyapi-plusplus.md` 1.1, 1.2
//! and 4, Models.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use wire::target::Card;
use wire::thinking::{Bounds, Support};

use crate::catalogue::Facts;
use crate::credential::{CredentialId, CredentialSpec, Kind};
use crate::model::ModelSpec;

/// Most models that are taken from one answer.
const MOST: usize = 5_000;
/// Longest name of a model, in bytes.
const LONGEST: usize = 256;

/// What Antigravity lists besides models that answer.
const SKIPPED: [&str; 5] =
    ["chat_20706", "chat_23310", "gemini-2.5-flash-thinking", "gemini-3-pro-low", "gemini-2.5-pro"];

/// Limits of Kiro's models of which the catalogue knows nothing: context, answer, and tokens of thinking.
const KIRO: (u64, u64, (u32, u32)) = (200_000, 64_000, (1_024, 32_000));
/// A name that asks Kiro for the model with another instruction.
const AGENTIC: &str = "-agentic";

/// A model as its upstream lists it, under the name by which it is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundModel {
    /// The upstream's name; of Kiro's the name in the catalogue.
    pub id: Arc<str>,
    /// Name for people.
    pub name: Option<Arc<str>>,
    /// Tokens that it reads.
    pub context: Option<u64>,
    /// Copilot serves it by Responses only.
    pub responses_only: bool,
}

/// Models that upstreams listed when they were asked, by credential ([`CredentialSpec::lists`]).
pub type Found = HashMap<CredentialId, Arc<[FoundModel]>>;

/// How an upstream is asked for its models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListCall {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path and query below the base URL, with a slash in front.
    pub path: String,
    /// Body; empty: none.
    pub body: &'static str,
}

impl ListCall {
    /// The call for a credential; `None`: it is not asked.
    pub fn of(spec: &CredentialSpec) -> Option<Self> {
        let lists = spec.lists.as_deref()?;
        let slash = if lists.starts_with('/') { "" } else { "/" };
        let path = format!("{slash}{lists}");
        Some(match spec.kind {
            Kind::Antigravity => Self { method: "POST", path, body: "{}" },
            Kind::Kiro => {
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                query.append_pair("origin", "AI_EDITOR");
                if !spec.scope.is_empty() {
                    query.append_pair("profileArn", &spec.scope);
                }
                Self { method: "GET", path: format!("{path}?{}", query.finish()), body: "" }
            }
            _ => Self { method: "GET", path, body: "" },
        })
    }
}

/// Where the accounts of a kind list their models; `None`: what they serve is known by their plan.
pub fn path_of(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Antigravity => Some("/v1internal:fetchAvailableModels"),
        Kind::Kiro => Some("/listAvailableModels"),
        Kind::Copilot => Some("/models"),
        _ => None,
    }
}

/// Reads the answer of an upstream of a kind; `None`: it is no list.
pub fn read(kind: Kind, body: &[u8]) -> Option<Vec<FoundModel>> {
    let mut models = match kind {
        Kind::Antigravity => antigravity(body)?,
        Kind::Kiro => kiro(body)?,
        _ => openai(body)?,
    };
    let mut seen = HashSet::new();
    models.retain(|model| {
        let id = &model.id;
        let fits = !id.trim().is_empty() && id.len() <= LONGEST && !id.contains(char::is_control);
        fits && seen.insert(Arc::clone(id))
    });
    models.truncate(MOST);
    Some(models)
}

fn antigravity(body: &[u8]) -> Option<Vec<FoundModel>> {
    let mut answer: BTreeMap<String, Value> = serde_json::from_slice(body).ok()?;
    let models = match answer.remove("models") {
        Some(Value::Object(models)) => models,
        // Google's services leave out what is empty.
        None if answer.is_empty() => return Some(Vec::new()),
        _ => return None,
    };
    let one = |(id, about): (String, Value)| FoundModel {
        id: Arc::from(id),
        name: about.get("displayName").and_then(Value::as_str).map(Arc::from),
        ..FoundModel::default()
    };
    Some(models.into_iter().filter(|(id, _)| !SKIPPED.contains(&id.as_str())).map(one).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KiroModel {
    model_id: String,
    model_name: Option<String>,
    #[serde(default)]
    token_limits: Option<KiroLimits>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KiroLimits {
    max_input_tokens: Option<u64>,
}

fn kiro(body: &[u8]) -> Option<Vec<FoundModel>> {
    #[derive(Deserialize)]
    struct Answer {
        models: Vec<KiroModel>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let mut found = Vec::new();
    for model in answer.models.into_iter().filter(|model| !model.model_id.trim().is_empty()) {
        let id = format!("kiro-{}", model.model_id.trim().replace('.', "-"));
        let name = model.model_name.unwrap_or(model.model_id);
        let context = model.token_limits.and_then(|limits| limits.max_input_tokens);
        let agentic = (id != "kiro-auto").then(|| FoundModel {
            id: Arc::from(format!("{id}{AGENTIC}")),
            name: Some(Arc::from(format!("Kiro {name} (Agentic)"))),
            context,
            ..FoundModel::default()
        });
        found.push(FoundModel {
            id: Arc::from(id),
            name: Some(Arc::from(format!("Kiro {name}"))),
            context,
            ..FoundModel::default()
        });
        found.extend(agentic);
    }
    Some(found)
}

/// OpenAI's list of models, or its bare array. Copilot's says more.
#[derive(Deserialize)]
#[serde(untagged)]
enum List {
    Object { data: Vec<OpenaiModel> },
    Array(Vec<OpenaiModel>),
}

#[derive(Deserialize)]
struct OpenaiModel {
    id: String,
    #[serde(default)]
    name: Value,
    #[serde(default)]
    supported_endpoints: Value,
}

fn openai(body: &[u8]) -> Option<Vec<FoundModel>> {
    let (List::Object { data } | List::Array(data)) = serde_json::from_slice(body).ok()?;
    let one = |model: OpenaiModel| FoundModel {
        name: model.name.as_str().filter(|name| !name.is_empty()).map(Arc::from),
        responses_only: matches!(&model.supported_endpoints, Value::Array(list)
            if matches!(list.as_slice(), [Value::String(only)] if only == "/responses")),
        id: Arc::from(model.id),
        ..FoundModel::default()
    };
    Some(data.into_iter().map(one).collect())
}

/// What an account serves that lists `found`: first what the catalogue knows, in its order, then the rest.
pub(crate) fn served(kind: Kind, known: &[Facts], found: &[FoundModel]) -> Vec<ModelSpec> {
    let listed: HashSet<&str> = found.iter().map(|model| &*model.id).collect();
    let mut models: Vec<ModelSpec> =
        known.iter().filter(|facts| listed.contains(&*facts.id)).map(Facts::spec).collect();
    let names: HashSet<Arc<str>> = known.iter().map(|facts| Arc::clone(&facts.id)).collect();
    let owner = known.first().map(|facts| Arc::clone(&facts.owned_by)).unwrap_or_default();
    let strange = found.iter().filter(|model| !names.contains(&model.id));
    models.extend(strange.map(|model| ModelSpec {
        // Its name is taken as it is: what looks like a suffix is part of it.
        upstream: Arc::clone(&model.id),
        alias: Arc::clone(&model.id),
        card: card(kind, model),
        display_name: model.name.clone(),
        owned_by: Arc::clone(&owner),
        responses_only: model.responses_only,
        ..ModelSpec::default()
    }));
    models
}

/// What is known of a model that the catalogue does not have.
fn card(kind: Kind, model: &FoundModel) -> Card {
    if kind != Kind::Kiro {
        return Card { context: model.context, ..Card::default() };
    }
    let (context, max_output, budget) = KIRO;
    let bounds = Bounds { budget: Some(budget), off: true, auto: true, ..Bounds::default() };
    Card {
        context: model.context.or(Some(context)),
        max_output: Some(max_output),
        thinking: Support::Bounded(bounds),
        ..Card::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;
    use crate::model::ModelSet;

    fn ids(models: &[FoundModel]) -> Vec<&str> {
        models.iter().map(|model| &*model.id).collect()
    }

    fn names(kind: Kind, channel: &str, body: &str) -> Vec<String> {
        let found = read(kind, body.as_bytes()).unwrap();
        served(kind, catalogue::channel(channel), &found).iter().map(|m| m.alias.to_string()).collect()
    }

    #[test]
    fn lists_in_openais_form() {
        let object =
            br#"{"object":"list","data":[{"id":"a","x":1},{"id":" "},{"id":"b","name":7},{"id":"a"}]}"#;
        assert_eq!(ids(&read(Kind::Chat, object).unwrap()), ["a", "b"]);
        assert_eq!(ids(&read(Kind::Chat, br#"[{"id":"a"}]"#).unwrap()), ["a"]);
        assert!(read(Kind::Chat, b"<html>").is_none() && read(Kind::Chat, br#"{"error":"x"}"#).is_none());
        let long = format!(r#"{{"data":[{{"id":"{}"}},{{"id":"a\u0007"}}]}}"#, "x".repeat(10_000));
        assert!(read(Kind::Chat, long.as_bytes()).unwrap().is_empty());
    }

    #[test]
    fn row_70_antigravity_lists_what_the_account_has() {
        let body = r#"{"models":{"gemini-3-flash":{"displayName":"F"},"claude-opus-4-6-thinking":{},
            "brand-new":{"displayName":"Brand New"},"chat_20706":{},"gemini-2.5-pro":{}}}"#;
        assert_eq!(
            names(Kind::Antigravity, "antigravity", body),
            ["claude-opus-4-6-thinking", "gemini-3-flash", "brand-new"]
        );
        let found = read(Kind::Antigravity, body.as_bytes()).unwrap();
        let models = served(Kind::Antigravity, catalogue::channel("antigravity"), &found);
        let (known, strange) = (&models[1], &models[2]);
        assert!(known.card.context.is_some() && strange.card.context.is_none());
        assert_eq!((strange.display_name.as_deref(), &*strange.owned_by), (Some("Brand New"), "antigravity"));
        for nothing in [r#"{"models":{}}"#, "{}"] {
            assert_eq!(read(Kind::Antigravity, nothing.as_bytes()), Some(Vec::new()), "{nothing}");
        }
        for no_list in [r#"{"response":{}}"#, r#"{"models":[]}"#, "[]", "nonsense"] {
            assert_eq!(read(Kind::Antigravity, no_list.as_bytes()), None, "{no_list}");
        }
    }

    #[test]
    fn row_122_kiros_names_become_those_of_the_catalogue() {
        let body = r#"{"models":[{"modelId":"claude-sonnet-4.5","modelName":"Claude Sonnet 4.5"},{"modelId":"auto"},
            {"modelId":"new-1.5","tokenLimits":{"maxInputTokens":9}}]}"#;
        assert_eq!(
            names(Kind::Kiro, "kiro", body),
            [
                "kiro-auto",
                "kiro-claude-sonnet-4-5",
                "kiro-claude-sonnet-4-5-agentic",
                "kiro-new-1-5",
                "kiro-new-1-5-agentic"
            ]
        );
        let found = read(Kind::Kiro, body.as_bytes()).unwrap();
        let models = served(Kind::Kiro, catalogue::channel("kiro"), &found);
        let new = models.last().unwrap();
        assert_eq!((new.card.context, new.card.max_output, &*new.owned_by), (Some(9), Some(64_000), "aws"));
    }

    #[test]
    fn copilot_says_which_of_its_new_models_take_responses_only() {
        let body = r#"{"data":[{"id":"gpt-4.1","name":"GPT-4.1"},
            {"id":"gpt-9","name":"GPT-9","supported_endpoints":["/responses"]}]}"#;
        let found = read(Kind::Copilot, body.as_bytes()).unwrap();
        let models = served(Kind::Copilot, catalogue::channel("github-copilot"), &found);
        let told: Vec<_> = models.iter().map(|m| (&*m.alias, m.responses_only)).collect();
        assert_eq!(told, [("gpt-4.1", false), ("gpt-9", true)]);
    }

    #[test]
    fn each_kind_is_asked_in_its_own_way() {
        let call = |kind: Kind, lists: &str, scope: &str| {
            let spec = CredentialSpec::new(CredentialId::new("a"), "p", kind, ModelSet::new([]));
            let call = ListCall::of(&CredentialSpec {
                lists: Some(Arc::from(lists)),
                scope: Arc::from(scope),
                ..spec
            })
            .unwrap();
            format!("{} {} {}", call.method, call.path, call.body)
        };
        let of = |kind| path_of(kind).unwrap();
        assert_eq!(
            call(Kind::Antigravity, of(Kind::Antigravity), "p"),
            "POST /v1internal:fetchAvailableModels {}"
        );
        assert_eq!(
            call(Kind::Kiro, of(Kind::Kiro), "arn:x/y"),
            "GET /listAvailableModels?origin=AI_EDITOR&profileArn=arn%3Ax%2Fy "
        );
        assert_eq!(call(Kind::Kiro, of(Kind::Kiro), ""), "GET /listAvailableModels?origin=AI_EDITOR ");
        assert_eq!(call(Kind::Copilot, of(Kind::Copilot), ""), "GET /models ");
        assert_eq!(call(Kind::Chat, "v2/models", ""), "GET /v2/models ");
        assert_eq!(path_of(Kind::Claude), None);
    }
}
