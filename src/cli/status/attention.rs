//! Credentials that need a person, and what that person does.
//!
//! Enters: account files and credentials, as the management API lists them. Leaves: [`Attention`]s. Nothing may
//! go wrong.

use crate::cli::doctor::login_command;
use crate::cli::remote::{elements, number, text};
use crate::cli::table::span;
use serde_json::{Value, json};

/// A credential that needs somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attention {
    pub credential: String,
    pub provider: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub mend: String,
}

impl Attention {
    pub(super) fn new(credential: &str, provider: &str, problem: &str, mend: &str) -> Self {
        let text = str::to_owned;
        Self {
            credential: text(credential),
            provider: text(provider),
            problem: text(problem),
            mend: text(mend),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "credential": self.credential,
            "provider": self.provider,
            "problem": self.problem,
            "mend": self.mend,
        })
    }
}

/// Those of all files and credentials that are on.
pub(super) fn find(files: &[Value], credentials: &[Value]) -> Vec<Attention> {
    let on = |one: &&Value| one.get("disabled") != Some(&Value::Bool(true));
    let of_files: Vec<(&str, Attention)> =
        files.iter().filter(on).filter_map(|file| Some((text(file, "auth_index"), of_file(file)?))).collect();
    let known = |index: &str| of_files.iter().any(|(found, _)| *found == index);
    let rest: Vec<Attention> = credentials
        .iter()
        .filter(on)
        .filter(|one| !known(text(one, "auth_index")))
        .filter_map(|one| {
            let index = text(one, "auth_index");
            of_credential(one, files.iter().find(|file| text(file, "auth_index") == index))
        })
        .collect();
    of_files.into_iter().map(|(_, attention)| attention).chain(rest).collect()
}

/// What is wrong with a file whatever upstreams say.
fn of_file(file: &Value) -> Option<Attention> {
    let (name, provider, message) =
        (text(file, "name"), text(file, "provider"), text(file, "status_message"));
    let of = |problem: &str, mend: &str| Some(Attention::new(name, provider, problem, mend));
    if text(file, "refresh_state") == "failed" {
        return of("its token ran out and was not renewed", &login(provider));
    }
    let unusable = number(file, "models") == 0 && text(file, "status") == "error";
    if unusable {
        return of(message, "mend the file, or remove it: cliproxy accounts remove NAME");
    }
    let ended =
        file.get("expires_at").and_then(Value::as_str).and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let is_over = ended.is_some_and(|at| at < jiff::Timestamp::now());
    if is_over && text(file, "refresh_state") == "none" {
        return of("its token ran out and nothing in it renews it", &login(provider));
    }
    None
}

/// What upstreams say of a credential.
fn of_credential(credential: &Value, file: Option<&Value>) -> Option<Attention> {
    let (label, provider) = (text(credential, "label"), text(credential, "provider"));
    let whole =
        elements(credential, "cooling").iter().find(|rest| rest.get("model") == Some(&Value::Null))?;
    let left = span(number(whole, "left_seconds"));
    let name = file.map_or(label, |file| text(file, "name"));
    let key = || match file {
        Some(_) => login(provider),
        None => "put a good key in its place in the configuration".to_owned(),
    };
    let (problem, mend) = match text(whole, "reason") {
        "auth" => ("its upstream refuses the key or token", key()),
        "payment" => ("its account has to pay first", "pay at the provider, or take it out".to_owned()),
        "forbidden" => ("its account may not do this", "look at the account at the provider".to_owned()),
        "misconfigured" => (
            "it cannot work as it is configured",
            "mend its base-url or proxy-url; `cliproxy doctor` says more".to_owned(),
        ),
        "quota" => ("its quota is used up", format!("wait {left}, or add another credential")),
        _ => return None,
    };
    Some(Attention::new(name, provider, problem, &mend))
}

fn login(provider: &str) -> String {
    match login_command(provider) {
        Some(command) => format!("log in again: {command}"),
        None => "log in again and put the new file into auth-dir".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &[Attention]) -> Vec<(&str, &str)> {
        found.iter().map(|one| (one.credential.as_str(), one.problem.as_str())).collect()
    }

    #[test]
    fn expired_logins_and_used_up_quotas_need_a_person_once() {
        let files = [
            json!({"name": "a.json", "auth_index": "a", "provider": "claude", "refresh_state": "failed", "models": 3}),
            json!({"name": "b.json", "auth_index": "b", "refresh_state": "none", "models": 0, "status": "error", "status_message": "invalid JSON"}),
            json!({"name": "c.json", "auth_index": "c", "refresh_state": "none", "models": 2, "expires_at": "2001-01-01T00:00:00Z"}),
            json!({"name": "d.json", "auth_index": "d", "refresh_state": "failed", "models": 3, "disabled": true}),
            json!({"name": "e.json", "auth_index": "e", "refresh_state": "ok", "models": 3}),
        ];
        let rest =
            |model: Value, reason: &str| json!([{"model": model, "reason": reason, "left_seconds": 90}]);
        let credentials = [
            json!({"auth_index": "a", "label": "a", "cooling": rest(Value::Null, "auth")}),
            json!({"auth_index": "e", "label": "e@x", "cooling": rest(Value::Null, "auth")}),
            json!({"auth_index": "k", "label": "claude#1", "cooling": rest(Value::Null, "quota")}),
            json!({"auth_index": "m", "label": "claude#2", "cooling": rest("m".into(), "quota")}),
            json!({"auth_index": "t", "label": "claude#3", "cooling": rest(Value::Null, "transient")}),
        ];
        let found = find(&files, &credentials);
        assert_eq!(
            names(&found),
            [
                ("a.json", "its token ran out and was not renewed"),
                ("b.json", "invalid JSON"),
                ("c.json", "its token ran out and nothing in it renews it"),
                ("e.json", "its upstream refuses the key or token"),
                ("claude#1", "its quota is used up"),
            ]
        );
        assert!(found[4].mend.contains("1m 30s"), "{found:?}");
        assert!(found.iter().all(|one| !one.mend.is_empty()));
    }
}
