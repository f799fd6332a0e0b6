//! The members of an account's file that its provider writes.
//!
//! Enters: [`Login`], as serde reads it. Leaves: [`Account`]. May go wrong: no token and no key, or a project
//! that cannot stand in a path.

use super::{Account, AccountSettings, Grant, Moment};
use crate::Secret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer};

/// The location of Vertex's models where a file names none.
const VERTEX_LOCATION: &str = "us-central1";

/// The members that the providers write.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Login {
    #[serde(rename = "type")]
    kind: String,
    #[serde(alias = "accessToken")]
    access_token: Option<Secret>,
    #[serde(alias = "apiKey")]
    api_key: Option<Secret>,
    /// Where older files of Google's command lines keep the tokens.
    token: Option<Nested>,
    id_token: Option<Secret>,
    email: Option<String>,
    username: Option<String>,
    label: Option<String>,
    account_id: Option<String>,
    #[serde(deserialize_with = "projects")]
    project_id: Option<String>,
    #[serde(alias = "profileArn")]
    profile_arn: Option<String>,
    plan_type: Option<String>,
    #[serde(alias = "refreshToken")]
    refresh_token: Option<Secret>,
    token_endpoint: Option<String>,
    last_refresh: Option<Moment>,
    #[serde(alias = "authMethod")]
    auth_method: Option<String>,
    #[serde(alias = "clientId")]
    client_id: Option<String>,
    #[serde(alias = "clientSecret")]
    client_secret: Option<Secret>,
    region: Option<String>,
    api_region: Option<String>,
    location: Option<String>,
    service_account: Option<ServiceAccount>,
    #[serde(flatten)]
    expiry: Expiry,
}

/// `null` means: not said.
/// One project, or a list of them, which is written with commas from here on.
fn projects<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Projects {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<Projects>::deserialize(input)?.map(|projects| match projects {
        Projects::One(project) => project,
        Projects::Many(list) => list.join(","),
    }))
}

/// A key file of Google's, as `vertex` files hold it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ServiceAccount {
    client_email: Option<String>,
    private_key: Option<Secret>,
    private_key_id: Option<String>,
    project_id: Option<String>,
    token_uri: Option<String>,
}

/// The spellings of one member; a file may have several.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Expiry {
    expired: Option<Moment>,
    expire: Option<Moment>,
    expires_at: Option<Moment>,
    #[serde(rename = "expiresAt")]
    expires_at_camel: Option<Moment>,
    #[serde(rename = "expiry")]
    google: Option<Moment>,
    expires: Option<Moment>,
}

impl Expiry {
    fn first(self) -> Option<Moment> {
        let all =
            [self.expired, self.expire, self.expires_at, self.expires_at_camel, self.google, self.expires];
        all.into_iter()
            .flatten()
            .find(|moment| !matches!(moment, Moment::Text(text) if text.trim().is_empty()))
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Nested {
    access_token: Option<Secret>,
    refresh_token: Option<Secret>,
    #[serde(flatten)]
    expiry: Expiry,
}

/// What tokens say: when they run out, and in OpenAI's identity token whose they are.
#[derive(Default, Deserialize)]
struct Identity {
    #[serde(default)]
    exp: Option<i64>,
    #[serde(default)]
    email: String,
    #[serde(default, rename = "https://api.openai.com/auth")]
    auth: IdentityAuth,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct IdentityAuth {
    chatgpt_account_id: String,
    chatgpt_plan_type: String,
}

impl Login {
    /// Whether the file does not name its provider.
    pub(super) fn has_no_type(&self) -> bool {
        self.kind.trim().is_empty()
    }

    /// The account that the file describes.
    pub(super) fn account(self, file: &str, settings: AccountSettings) -> Result<Account, String> {
        let channel = self.kind.trim().to_lowercase();
        let nested = self.token.unwrap_or_default();
        let service = self.service_account.unwrap_or_default();
        let key = filled(self.api_key);
        let is_token = key.is_none();
        let token = filled(self.access_token).or(filled(nested.access_token));
        // A service account signs for its tokens; one that lies in the file is somebody's leftover.
        let signs = filled(service.private_key).filter(|_| channel == "vertex");
        let Some(secret) = key.or(signs).or(token) else {
            return Err("it has neither `access_token` nor `api_key`".to_owned());
        };
        let identity = self.id_token.map(|token| claims(token.expose_secret())).unwrap_or_default();
        let IdentityAuth { chatgpt_account_id, chatgpt_plan_type } = identity.auth;
        let arn = self.profile_arn.clone().unwrap_or_default();
        let method = self.auth_method.unwrap_or_default().trim().to_lowercase();
        let scope = match (channel.as_str(), method.as_str()) {
            ("vertex", _) => vertex_scope(&[self.project_id, service.project_id], self.location.as_deref())?,
            // Kiro refuses these logins when they name a profile.
            ("kiro", "builder-id" | "idc") => String::new(),
            _ => first([self.project_id, self.account_id, self.profile_arn, Some(chatgpt_account_id)]),
        };
        if channel == "vertex" && is_token && scope.is_empty() {
            return Err("`project_id` is missing".to_owned());
        }
        let own = self.region.unwrap_or_default();
        let expires = self.expiry.first().or(nested.expiry.first());
        let told = || claims(secret.expose_secret()).exp.map(Moment::Number);
        Ok(Account {
            file: file.to_owned(),
            region: match channel.as_str() {
                "vertex" => self.location.unwrap_or_default(),
                // `arn:aws:codewhisperer:REGION:…`
                _ => first([self.api_region, arn.split(':').nth(3).map(str::to_owned), None, None]),
            },
            owner: first([self.email, self.username, self.label, Some(identity.email)]),
            plan: first([self.plan_type, Some(chatgpt_plan_type), None, None]).to_lowercase(),
            refresh_token: filled(self.refresh_token).or(filled(nested.refresh_token)).unwrap_or_default(),
            expires: expires.or_else(|| told().filter(|_| is_token)),
            last_refresh: self.last_refresh,
            token_endpoint: first([self.token_endpoint, service.token_uri, None, None]),
            grant: Grant {
                method,
                client_id: self.client_id.unwrap_or_default(),
                client_secret: filled(self.client_secret).unwrap_or_default(),
                region: own,
                issuer: service.client_email.unwrap_or_default(),
                key_id: service.private_key_id.unwrap_or_default(),
            },
            channel,
            secret,
            is_token,
            scope,
            settings,
        })
    }
}

/// The key or token of a JSON object.
pub(super) fn key_of(bytes: &[u8]) -> Result<Secret, String> {
    let login: Login = serde_json::from_slice(bytes).map_err(|_| "it is not JSON of a login".to_owned())?;
    let key = filled(login.access_token).or(filled(login.api_key));
    key.ok_or_else(|| "it has neither `access_token` nor `api_key`".to_owned())
}

fn filled(secret: Option<Secret>) -> Option<Secret> {
    secret.filter(|secret| !secret.expose_secret().trim().is_empty())
}

fn first(texts: [Option<String>; 4]) -> String {
    texts.into_iter().flatten().find(|text| !text.trim().is_empty()).unwrap_or_default()
}

/// Where the models of a Vertex project are.
fn vertex_scope(projects: &[Option<String>; 2], location: Option<&str>) -> Result<String, String> {
    let project = projects.iter().flatten().find(|p| !p.is_empty()).map_or("", String::as_str);
    let location = location.filter(|l| !l.is_empty()).unwrap_or(VERTEX_LOCATION);
    // `:` and `.` stand in projects of a domain.
    let fits = |text: &str| {
        !text.is_empty()
            && !text.contains("..")
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_:.".contains(&b))
    };
    if project.is_empty() {
        return Ok(String::new());
    }
    if !fits(project) || !fits(location) {
        return Err("`project_id` or `location` holds what cannot stand there".to_owned());
    }
    Ok(format!("projects/{project}/locations/{location}"))
}

/// The claims of a JSON Web Token, unproven: the file is the operator's own (RFC 7519, section 7.2).
fn claims(token: &str) -> Identity {
    let claims = token.split('.').nth(1).unwrap_or_default();
    let decoded = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).unwrap_or_default();
    serde_json::from_slice(&decoded).unwrap_or_default()
}
