//! A key file of Google's becomes an account: `POST vertex/import`.
//!
//! Enters: a form with `file` (the key of a service account, as Google gives it out) and maybe `location`. Leaves:
//! an account file named after the project, in force at once. May go wrong: the form or the file is none, the
//! key cannot sign, project or location cannot stand in a path (400).

use super::answer::{Json, Refusal};
use super::auth_list::text;
use super::file_name::plain;
use super::{App, Routes, beside};
use crate::state::account_files::Content;
use crate::state::sign;
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::routing::post;
use serde_json::{Value, json};

/// Where the models are when nobody says.
const LOCATION: &str = "us-central1";

pub(super) fn routes() -> Routes {
    vec![("vertex/import".to_owned(), post(import))]
}

async fn import(State(app): State<App>, request: Request) -> Result<Json, Refusal> {
    let broken = || Refusal::bad("expected a form with file, and maybe location");
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| broken())?;
    let (mut file, mut location) = (None, String::new());
    while let Some(field) = form.next_field().await.map_err(|_| broken())? {
        match field.name() {
            Some("file") => file = Some(field.bytes().await.map_err(|_| broken())?),
            Some("location") => location = field.text().await.map_err(|_| broken())?,
            _ => {}
        }
    }
    let file = file.ok_or_else(|| Refusal::bad("file is missing in the form"))?;
    let account = Account::read(&file, location.trim())?;
    beside(move || {
        let Account { name, content, told } = account;
        app.state.edit_account(&name, |_| Ok::<_, Refusal>(Content::New(content)))?;
        Ok(Json(told))
    })
    .await?
}

/// An account file and what is told of it.
#[derive(Debug)]
struct Account {
    name: String,
    content: Vec<u8>,
    told: Value,
}

impl Account {
    fn read(key: &[u8], location: &str) -> Result<Self, Refusal> {
        let invalid = |problem: &str| Refusal::bad(format!("invalid service account: {problem}"));
        let key: Value = serde_json::from_slice(key).map_err(|_| invalid("it is not JSON"))?;
        let kind = text(&key, "type");
        if !key.is_object() || !(kind.is_empty() || kind == "service_account") {
            return Err(invalid("its type is not service_account"));
        }
        let member = |name: &'static str| match text(&key, name).trim() {
            "" => Err(invalid(&format!("{name} is missing"))),
            value => Ok(value.to_owned()),
        };
        let (project, email) = (member("project_id")?, member("client_email")?);
        sign::check(&member("private_key")?).map_err(|problem| invalid(&problem))?;
        let location = if location.is_empty() { LOCATION } else { location }.to_owned();
        // A project of a domain has a colon.
        let name = format!("vertex-{}.json", project.replace(':', "-"));
        plain(&name)?;
        let account = json!({
            "type": "vertex",
            "project_id": project,
            "email": email,
            "location": location,
            "service_account": key,
        });
        let content = serde_json::to_vec_pretty(&account).unwrap_or_default();
        config::read_account(&name, &content).map_err(|problem| invalid(&problem))?;
        let told = json!({
            "status": "ok",
            "auth-file": name,
            "project_id": project,
            "email": email,
            "location": location,
        });
        Ok(Self { name, content, told })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_service_account_is_refused_and_not_quoted() {
        let full = json!({"type": "service_account", "project_id": "p", "client_email": "a@p", "private_key": "canary"});
        let without = |name: &str, value: Value| {
            let mut key = full.clone();
            key[name] = value;
            key.to_string()
        };
        for (key, location, says) in [
            ("{".to_owned(), "", "not JSON"),
            ("[]".to_owned(), "", "type"),
            (without("type", json!("authorized_user")), "", "type"),
            (without("project_id", json!("")), "", "project_id is missing"),
            (without("client_email", json!(7)), "", "client_email is missing"),
            (without("private_key", json!(null)), "", "private_key is missing"),
            (full.to_string(), "", "private key is not PEM"),
        ] {
            let told = Account::read(key.as_bytes(), location).unwrap_err();
            assert!(told.reason().contains(says) && !told.reason().contains("canary"), "{}", told.reason());
        }
    }
}
