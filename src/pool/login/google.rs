//! Antigravity: whose account it is, and the project that its requests have to name.
//!
//! Enters: Google's tokens. Leaves: the file `antigravity-EMAIL.json` with `project_id`. May go wrong: no
//! address, or no project even after the account was signed up for one; without it every request would be
//! refused, so nothing is written.

use super::account_file::AccountFile;
use super::answer::{Tokens, object, text};
use super::claude::bearer;
use super::code::After;
use super::{About, Asked, Failed, Reply, Stage, Step};
use crate::renewal::TokenRequest;
use secrecy::SecretString;
use serde_json::{Map, Value, json};

const USERINFO: &str = "https://www.googleapis.com/oauth2/v2/userinfo";
const LOAD: &str = "https://cloudcode-pa.googleapis.com/v1internal:loadCodeAssist";
const ONBOARD: &str = "https://daily-cloudcode-pa.googleapis.com/v1internal:onboardUser";
/// The tier of an account that says nothing of tiers.
const FREE: &str = "free-tier";
/// Questions whether signing up is done, and seconds between them.
const TRIES: u32 = 5;
const BETWEEN_S: u64 = 2;

#[derive(Default)]
pub(super) struct Google {
    tokens: Tokens,
    now_s: u64,
    email: String,
    at: At,
}

#[derive(Default)]
enum At {
    #[default]
    User,
    Project,
    SigningUp {
        tier: String,
        tries: u32,
    },
}

impl After for Google {
    fn tokens(&mut self, about: &About, tokens: Tokens, now_s: u64) -> Result<Step, Failed> {
        let request = bearer(format!("{}?alt=json", about.at(USERINFO)), &tokens.access_token);
        (self.tokens, self.now_s) = (tokens, now_s);
        Ok(Step::Ask(Asked::must(Stage::Profile, request)))
    }

    fn answered(&mut self, about: &About, reply: Reply<'_>) -> Result<Step, Failed> {
        match std::mem::take(&mut self.at) {
            At::User => {
                let user = object(Stage::Profile, reply)?;
                let missing = || Failed::new(Stage::Profile, "the answer names no e-mail address");
                self.email = text(&user, "email").ok_or_else(missing)?;
                self.at = At::Project;
                let body = json!({ "metadata": { "ideType": "ANTIGRAVITY" } });
                Ok(Step::Ask(Asked::must(Stage::Project, self.post(about, LOAD, &body))))
            }
            At::Project => {
                let loaded = object(Stage::Project, reply)?;
                match project(&loaded) {
                    Some(project) => Ok(self.done(&project)),
                    None => Ok(self.sign_up(about, tier(&loaded), 1)),
                }
            }
            At::SigningUp { tier, tries } => {
                let answer = object(Stage::Project, reply)?;
                let done = answer.get("done").and_then(Value::as_bool).unwrap_or(false);
                let response = answer.get("response").and_then(Value::as_object);
                match response.and_then(project).filter(|_| done) {
                    Some(project) => Ok(self.done(&project)),
                    None if !done && tries < TRIES => Ok(self.sign_up(about, tier, tries + 1)),
                    None => Err(Failed::new(Stage::Project, "missing project_id: Google named no project")),
                }
            }
        }
    }
}

impl Google {
    fn post(&self, about: &About, url: &str, body: &Value) -> TokenRequest {
        let mut request = bearer(about.at(url), &self.tokens.access_token);
        request.method = "POST";
        request.headers.push(("content-type", SecretString::from("application/json")));
        request.body = SecretString::from(body.to_string());
        request
    }

    fn sign_up(&mut self, about: &About, tier: String, tries: u32) -> Step {
        let body = json!({ "tier_id": tier, "metadata": { "ide_type": "ANTIGRAVITY" } });
        let mut asked = Asked::must(Stage::Project, self.post(about, ONBOARD, &body));
        asked.after_s = if tries > 1 { BETWEEN_S } else { 0 };
        self.at = At::SigningUp { tier, tries };
        Step::Ask(asked)
    }

    fn done(&self, project: &str) -> Step {
        let mut file = AccountFile::new("antigravity", &self.tokens, self.now_s);
        file.set("email", &self.email);
        file.set("project_id", project);
        file.set_number("timestamp", self.now_s.saturating_mul(1000));
        if let Some(life_s) = self.tokens.life_s() {
            file.set_number("expires_in", life_s);
        }
        Step::Done(file.named(&["antigravity", &self.email]))
    }
}

/// The project, in the spellings that Google uses: text or an object with an `id`.
fn project(members: &Map<String, Value>) -> Option<String> {
    ["cloudaicompanionProject", "projectId", "project"]
        .iter()
        .find_map(|key| text(members, key).or_else(|| text(members.get(*key)?.as_object()?, "id")))
}

/// The tier that an account is signed up for.
fn tier(loaded: &Map<String, Value>) -> String {
    let allowed = loaded.get("allowedTiers").and_then(Value::as_array);
    let usual = |tier: &&Value| tier.get("isDefault").and_then(Value::as_bool).unwrap_or(false);
    let usual = allowed.and_then(|tiers| tiers.iter().find(usual)).or_else(|| loaded.get("currentTier"));
    usual.and_then(|tier| text(tier.as_object()?, "id")).unwrap_or_else(|| FREE.to_owned())
}
