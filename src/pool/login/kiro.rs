//! Kiro: logins of AWS by a device code, and refresh tokens of logins that were made elsewhere.
//!
//! Enters: nothing for a Builder ID, [`Organisation`] for a company's IAM Identity Center, a refresh token for
//! an import. Leaves: registration of a client, page and code, polls, whose account it is, the file
//! `kiro-METHOD-EMAIL.json`. May go wrong: a start page or region that is none, the user takes too long. An
//! account whose address AWS does not tell is named by a digest of its refresh token.
//!
//! Logins by Google and GitHub are refused to other programs than Kiro's own: they are imported.

use super::account_file::{AccountFile, digest};
use super::answer::{Polled, Tokens, number, object, polled, text};
use super::claude::bearer;
use super::device::{GRANT, INTERVAL_S, LONGEST_S, interval, prompt};
use super::{About, Asked, Failed, Flow, Reply, Stage, Step};
use crate::renewal::TokenRequest;
use crate::renewal::kiro::{REGION, SOCIAL, is_region};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use url::Url;

/// The start page of Builder IDs.
const BUILDER: &str = "https://view.awsapps.com/start";
const USAGE: &str = "https://codewhisperer.us-east-1.amazonaws.com/getUsageLimits";
/// How the client is called in the list of those that the user allowed.
const CLIENT: &str = "cliproxy";
const SCOPES: [&str; 5] = [
    "codewhisperer:completions",
    "codewhisperer:analysis",
    "codewhisperer:conversations",
    "codewhisperer:transformations",
    "codewhisperer:taskassist",
];
/// Seconds for which a token is good that says nothing.
const USUAL_S: u64 = 3600;
/// What Kiro's refresh tokens begin with.
const REFRESH: &str = "aorAAAAAG";

/// A company's login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organisation {
    /// Its start page: `https://example.awsapps.com/start`.
    pub start_url: String,
    /// The region of AWS it lies in; empty: `us-east-1`.
    pub region: String,
}

pub(super) struct Kiro {
    method: &'static str,
    start_url: String,
    region: String,
    client_id: String,
    client_secret: SecretString,
    device_code: SecretString,
    interval_s: u64,
    at: At,
}

enum At {
    Register,
    Start,
    Poll,
    Usage(Box<Tokens>, u64),
}

impl Kiro {
    pub(super) fn new(organisation: Option<&Organisation>) -> Result<Self, Failed> {
        let (method, start_url, region) = match organisation {
            None => ("builder-id", BUILDER.to_owned(), REGION),
            Some(own) => ("idc", start_page(&own.start_url)?, own.region.trim()),
        };
        let region = if region.is_empty() { REGION } else { region };
        if !is_region(region) {
            return Err(Failed::new(Stage::Start, "`region` is not the name of a region of AWS"));
        }
        Ok(Self {
            method,
            start_url,
            region: region.to_owned(),
            client_id: String::new(),
            client_secret: SecretString::default(),
            device_code: SecretString::default(),
            interval_s: INTERVAL_S,
            at: At::Register,
        })
    }

    fn post(&self, about: &About, path: &str, body: &Value) -> TokenRequest {
        let url = about.at(&format!("https://oidc.{}.amazonaws.com{path}", self.region));
        TokenRequest {
            method: "POST",
            url,
            headers: vec![("content-type", SecretString::from("application/json"))],
            body: SecretString::from(body.to_string()),
        }
    }

    fn registered(&mut self, about: &About, reply: Reply<'_>) -> Result<Step, Failed> {
        let found = object(Stage::Start, reply)?;
        let (Some(id), Some(secret)) = (text(&found, "clientId"), text(&found, "clientSecret")) else {
            return Err(Failed::new(Stage::Start, "the registration has no client"));
        };
        let body = json!({ "clientId": id, "clientSecret": secret, "startUrl": self.start_url });
        (self.client_id, self.client_secret, self.at) = (id, secret.into(), At::Start);
        Ok(Step::Ask(Asked::must(Stage::Start, self.post(about, "/device_authorization", &body))))
    }

    fn started(&mut self, about: &About, reply: Reply<'_>) -> Result<Step, Failed> {
        let found = object(Stage::Start, reply)?;
        let prompt = prompt(about, &found, ["verificationUriComplete", "verificationUri", "userCode"]);
        let (Some(mut prompt), Some(code)) = (prompt, text(&found, "deviceCode")) else {
            return Err(Failed::new(Stage::Start, "the answer has no device code with a page to type it in"));
        };
        prompt.expires_in_s = found.get("expiresIn").and_then(number);
        self.device_code = code.into();
        self.interval_s = interval(found.get("interval").and_then(number));
        self.at = At::Poll;
        Ok(Step::Show(prompt, Some(self.poll(about))))
    }

    fn poll(&self, about: &About) -> Asked {
        let body = json!({
            "clientId": self.client_id,
            "clientSecret": self.client_secret.expose_secret(),
            "deviceCode": self.device_code.expose_secret(),
            "grantType": GRANT,
        });
        Asked::poll(Stage::Device, self.interval_s, self.post(about, "/token", &body))
    }

    fn done(&self, tokens: &Tokens, reply: Reply<'_>, now_s: u64) -> Step {
        let mut file = file(tokens, self.method, now_s);
        file.set("provider", "AWS");
        file.set("client_id", &self.client_id);
        file.set("client_secret", self.client_secret.expose_secret());
        file.set("region", &self.region);
        file.set("start_url", &self.start_url);
        Step::Done(named(file, self.method, tokens, reply))
    }
}

impl Flow for Kiro {
    fn begin(&mut self, about: &About) -> Result<Step, Failed> {
        let body = json!({
            "clientName": CLIENT,
            "clientType": "public",
            "scopes": SCOPES,
            "grantTypes": [GRANT, "refresh_token"],
        });
        Ok(Step::Ask(Asked::must(Stage::Start, self.post(about, "/client/register", &body))))
    }

    fn answered(&mut self, about: &About, reply: Reply<'_>) -> Result<Step, Failed> {
        match std::mem::replace(&mut self.at, At::Poll) {
            At::Register => self.registered(about, reply),
            At::Start => self.started(about, reply),
            At::Poll => match polled(reply)? {
                Polled::Pending => Ok(Step::Ask(self.poll(about))),
                Polled::SlowDown => {
                    self.interval_s = (self.interval_s + INTERVAL_S).min(LONGEST_S);
                    Ok(Step::Ask(self.poll(about)))
                }
                Polled::Tokens(tokens) => {
                    let step = ask_usage(about, &tokens);
                    self.at = At::Usage(tokens, reply.now_s);
                    Ok(step)
                }
            },
            At::Usage(tokens, now_s) => Ok(self.done(&tokens, reply, now_s)),
        }
    }
}

/// Takes over a login that Kiro's own program made.
pub(super) struct Import {
    refresh: SecretString,
    tokens: Option<(Tokens, u64)>,
}

impl Import {
    pub(super) fn new(refresh: SecretString) -> Self {
        Self { refresh, tokens: None }
    }
}

impl Flow for Import {
    fn begin(&mut self, about: &About) -> Result<Step, Failed> {
        let refresh = self.refresh.expose_secret().trim();
        if !refresh.starts_with(REFRESH) {
            let cause = format!("a refresh token of Kiro begins with {REFRESH}");
            return Err(Failed::new(Stage::Import, cause));
        }
        let request = TokenRequest::json(about.at(SOCIAL), &[("refreshToken", refresh)]);
        Ok(Step::Ask(Asked::must(Stage::Import, request)))
    }

    fn answered(&mut self, about: &About, reply: Reply<'_>) -> Result<Step, Failed> {
        if let Some((tokens, now_s)) = self.tokens.take() {
            let file = file(&tokens, "social", now_s);
            return Ok(Step::Done(named(file, "social", &tokens, reply)));
        }
        let mut tokens = Tokens::read(Stage::Import, reply)?;
        // The old one stays good where no new one came.
        tokens.refresh_token.get_or_insert_with(|| self.refresh.clone());
        let step = ask_usage(about, &tokens);
        self.tokens = Some((tokens, reply.now_s));
        Ok(step)
    }
}

/// Asks for the account's limits, in which its address stands.
fn ask_usage(about: &About, tokens: &Tokens) -> Step {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs([
        ("origin", "AI_EDITOR"),
        ("resourceType", "AGENTIC_REQUEST"),
        ("isEmailRequired", "true"),
    ]);
    if let Some(arn) = &tokens.profile_arn {
        query.append_pair("profileArn", arn);
    }
    let url = format!("{}?{}", about.at(USAGE), query.finish());
    Step::Ask(Asked::may(Stage::Profile, bearer(url, &tokens.access_token)))
}

fn file(tokens: &Tokens, method: &str, now_s: u64) -> AccountFile {
    let mut file = AccountFile::new("kiro", tokens, now_s);
    if tokens.life_s().is_none() {
        file.set("expired", &crate::renewal::file::rfc3339(now_s.saturating_add(USUAL_S)));
    }
    // Kiro's own programs look for this one.
    file.rename("expired", "expires_at");
    file.set("auth_method", method);
    file.set("profile_arn", tokens.profile_arn.as_deref().unwrap_or_default());
    file
}

fn named(mut file: AccountFile, method: &str, tokens: &Tokens, usage: Reply<'_>) -> AccountFile {
    let found: Map<String, Value> = match usage.status {
        200..300 => serde_json::from_slice(usage.body).unwrap_or_default(),
        _ => Map::new(),
    };
    let user = found.get("userInfo").and_then(Value::as_object);
    let email = user.and_then(|user| text(user, "email")).or_else(|| tokens.claim("email"));
    let name = match &email {
        Some(email) => email.replace(['@', '.'], "-"),
        None => digest(tokens.refresh_token.as_ref().unwrap_or(&tokens.access_token).expose_secret()),
    };
    file.set("email", email.as_deref().unwrap_or_default());
    file.named(&["kiro", method, &name])
}

/// A start page: https, and a name.
fn start_page(text: &str) -> Result<String, Failed> {
    let url = Url::parse(text.trim()).ok();
    let fits = |url: &Url| {
        let host = url.domain().unwrap_or_default();
        url.scheme() == "https" && host.contains('.') && url.username().is_empty() && url.query().is_none()
    };
    let url = url.filter(fits).ok_or_else(|| {
        Failed::new(Stage::Start, "`start_url` is no start page: https://NAME.awsapps.com/start is meant")
    })?;
    Ok(String::from(url))
}
