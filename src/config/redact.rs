//! [`Config`] → what may be shown.
//!
//! Enters: a configuration. Leaves: YAML in which every key, password and header value is masked. It loads
//! again, with the masks for secrets. Nothing may go wrong.

use crate::Config;

impl Config {
    /// The configuration for people: every key with its value, secrets masked.
    pub fn redacted(&self) -> String {
        serde_yaml::to_string(self).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }
}

#[cfg(test)]
mod tests {
    use crate::{HeaderValue, ProxySetting, load};

    /// Each secret is marked, and appears in every place where one can stand.
    const TEXT: &str = "api-keys: [CANARY-client-key-0123456789]\n\
        remote-management: {secret-key: CANARY-management-0123456789}\n\
        proxy-url: 'http://CANARY-user:CANARY-password@proxy:3128'\n\
        ampcode: {upstream-api-key: CANARY-amp-key-0123456789, \
          upstream-api-keys: [{upstream-api-key: CANARY-amp2-key-0123456789, api-keys: [CANARY-short]}]}\n\
        claude-api-key:\n  - api-key: CANARY-claude-key-0123456789\n    proxy-url: 'ftp://u:CANARY-pw@h'\n\
        \x20   headers: {Authorization: Bearer CANARY-header-0123456789, X-Copy: $X-From}\n\
        groq: [{api-key: CANARY-groq-key-0123456789, proxy-url: 'h:1:u:CANARY-pw'}]\n\
        openai-compatibility: [{name: a, base-url: 'http://h', models: [{name: m}], \
          api-key-entries: [{api-key: CANARY-compat-key-0123456789}]}]\n\
        telemetry: {otlp-endpoint: 'http://h', headers: {X-Key: CANARY-collector-0123456789}}\n\
        alerts: {notify: [{webhook: 'https://h/CANARY-path?sig=CANARY-query', secret: CANARY-hmac, \
          headers: {Authorization: CANARY-header}, proxy-url: 'http://CANARY-user:CANARY-pw@h:1'}, \
          {command: [x, CANARY-argument]}, {apprise: 'mailto://CANARY:0123456789@h'}]}\n";

    #[test]
    fn p53_no_secret_is_shown_anywhere() {
        let loaded = load(TEXT.as_bytes()).unwrap();
        let debug = format!("{loaded:#?}");
        let shown = loaded.config.redacted();
        for text in [&debug, &shown] {
            for canary in ["CANARY-", "0123456789"] {
                assert!(!text.contains(canary), "{text}");
            }
        }
        // But the secrets themselves are there.
        let config = &loaded.config;
        assert_eq!(config.auth.api_keys[0].expose_secret(), "CANARY-client-key-0123456789");
        let ProxySetting::Url(url) = &config.providers.proxy_url else { panic!() };
        assert_eq!(url.login.as_ref().unwrap().password.expose_secret(), "CANARY-password");
        let entry = &config.providers.claude_api_key[0];
        let HeaderValue::Literal(token) = &entry.headers.0["Authorization"] else { panic!() };
        assert!(token.expose_secret().starts_with("Bearer "));
        assert_eq!(shown.matches("$X-From").count(), 1);
    }

    #[test]
    fn p53_all_of_them_can_be_looked_for() {
        let config = load(TEXT.as_bytes()).unwrap().config;
        let found: Vec<&str> = config.secrets().iter().map(|secret| secret.expose_secret()).collect();
        let marked = TEXT.split("CANARY-").skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
            &rest[..end]
        });
        // The two passwords of settings that are no proxy are in no configuration.
        for canary in marked.filter(|canary| *canary != "pw") {
            assert!(found.iter().any(|secret| secret.contains(canary)), "{canary}");
        }
        let account = br#"{"type":"claude","access_token":"CANARY-a","refresh_token":"CANARY-r",
            "headers":{"X":"CANARY-h"},"proxy_url":"http://u:CANARY-p@h:1","client_secret":"CANARY-c"}"#;
        let account = crate::read_account("a.json", account).unwrap();
        let found: Vec<&str> = account.secrets().iter().map(|secret| secret.expose_secret()).collect();
        for canary in ["CANARY-a", "CANARY-r", "CANARY-h", "CANARY-p", "CANARY-c"] {
            assert!(found.contains(&canary), "{canary}: {found:?}");
        }
    }

    #[test]
    fn p53_mistakes_do_not_repeat_what_may_be_a_secret() {
        let text = "port: CANARY\ndebug: CANARY\ntls: CANARY\napi-keys: {CANARY: 1}\n\
                    metrics: {listen: CANARY}\ntrusted-proxies: [CANARY]\nvideo-result-auth-cache-ttl: CANARY\n\
                    claude-api-key: [CANARY, {base-url: 'https://CANARY@h', headers: {'CANARY x': y}}]\n";
        let broken = load(text.as_bytes()).unwrap_err();
        assert!(broken.notices.len() >= 9, "{broken}");
        let problems: String = broken.notices.iter().map(|notice| notice.problem.as_str()).collect();
        assert!(!problems.contains("CANARY"), "{problems}");
    }

    #[test]
    fn what_is_shown_loads_again() {
        let shown = load(TEXT.as_bytes()).unwrap().config.redacted();
        load(shown.as_bytes()).unwrap_or_else(|broken| panic!("{broken}\n{shown}"));
    }
}
