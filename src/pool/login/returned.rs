//! What a provider's page sent back.
//!
//! Enters: the query of a callback, or what somebody copied from the address line. Leaves: [`Returned`]. May
//! go wrong: nothing is in it that a login could use.

use secrecy::SecretString;
use std::fmt;

/// Longest text that is looked at.
const LONGEST: usize = 16 << 10;

/// A code, or why there is none.
#[derive(Clone, Default)]
pub struct Returned {
    /// The authorization code.
    pub code: Option<SecretString>,
    /// Which login it belongs to.
    pub state: Option<String>,
    /// Why the provider gave no code.
    pub error: Option<String>,
}

impl fmt::Debug for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Returned")
            .field("code", &self.code)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl Returned {
    /// Reads a query: `code=…&state=…`, or `error=…&error_description=…&state=…`.
    pub fn query(query: &str) -> Self {
        let mut returned = Self::default();
        let mut description = None;
        if query.len() > LONGEST {
            return returned;
        }
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.trim();
            match &*key {
                "code" => (returned.code, returned.state) = split(value, returned.state.take()),
                "state" => returned.state = Some(value.to_owned()),
                "error" => returned.error = Some(value.to_owned()),
                "error_description" => description = Some(value.to_owned()),
                _ => {}
            }
        }
        if let (Some(error), Some(description)) = (&mut returned.error, description) {
            error.push_str(": ");
            error.push_str(&description);
        }
        returned
    }

    /// Reads what somebody pasted: the whole address, its query, or `code#state` as Claude's page shows it.
    pub fn pasted(text: &str) -> Result<Self, &'static str> {
        let text = text.trim().trim_matches(['"', '\'']);
        if text.len() > LONGEST {
            return Err("it is too long");
        }
        let members = ["code=", "state=", "error="];
        let query = if let Ok(url) = url::Url::parse(text) {
            url.query().map(str::to_owned)
        } else {
            let text = text.trim_start_matches('?');
            members.iter().any(|member| text.contains(member)).then(|| text.to_owned())
        };
        let found = if let Some(query) = query {
            Self::query(&query)
        } else {
            let (code, state) = split(text, None);
            Self { code, state, error: None }
        };
        let whole = found.state.is_some() && (found.code.is_some() || found.error.is_some());
        if whole { Ok(found) } else { Err("no code with its state is in it: paste the whole address") }
    }
}

/// Claude's codes bring the state with them: `code#state`.
fn split(code: &str, state: Option<String>) -> (Option<SecretString>, Option<String>) {
    let (code, own) = code.split_once('#').map_or((code, None), |(code, state)| (code, Some(state)));
    let code = Some(code).filter(|code| !code.is_empty()).map(SecretString::from);
    (code, state.or_else(|| own.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn parts(returned: &Returned) -> (Option<&str>, Option<&str>, Option<&str>) {
        (
            returned.code.as_ref().map(ExposeSecret::expose_secret),
            returned.state.as_deref(),
            returned.error.as_deref(),
        )
    }

    #[test]
    fn every_way_to_paste() {
        for text in [
            "http://localhost:54545/callback?code=c%2F1&state=s",
            " http://localhost:1/x?state=s&code=c/1&scope=y \n",
            "?code=c/1&state=s",
            "code=c/1&state=s",
            "c/1#s",
            " c/1#s ",
            "http://localhost/?code=c/1%23s",
            "\"http://localhost:1/x?code=c/1%23other&state=s\"",
        ] {
            let found = Returned::pasted(text).unwrap();
            assert_eq!(parts(&found), (Some("c/1"), Some("s"), None), "{text}");
        }
        let denied =
            Returned::pasted("http://l/?error=access_denied&error_description=no+way&state=s").unwrap();
        assert_eq!(parts(&denied), (None, Some("s"), Some("access_denied: no way")));
    }

    #[test]
    fn what_is_no_callback_is_told() {
        let long = format!("code={}&state=s", "x".repeat(LONGEST));
        for text in ["", "c", "http://localhost/", "http://l/?code=c", "#s", "code=&state=s", "\0", &long] {
            assert!(Returned::pasted(text).is_err(), "{text:.40}");
        }
        let found = Returned::query("code=canary&state=s");
        assert!(!format!("{found:?}").contains("canary"));
    }
}
