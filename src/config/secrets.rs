//! Every secret of a configuration or an account.
//!
//! Enters: what was loaded. Leaves: its keys, tokens, passwords and header values, for who has to take them out
//! of a text. Nothing may go wrong.

use crate::block::Block;
use crate::header::{HeaderValue, Headers};
use crate::proxy::ProxySetting;
use crate::{Account, Config, NotifyTarget, Secret, WebhookUrl};

impl Config {
    /// All secrets of the file, those of clients included; empty ones are left out.
    pub fn secrets(&self) -> Vec<&Secret> {
        let Self { auth, providers, management, alerts, .. } = self;
        let mut found: Vec<&Secret> = auth.api_keys.iter().map(|key| &key.api_key).collect();
        found.push(&management.secret_key);
        found.extend(of_proxy(&providers.proxy_url));
        for entry in Block::ALL.iter().flat_map(|block| providers.entries(*block)) {
            found.push(&entry.api_key);
            found.extend(of_proxy(&entry.proxy_url).chain(of_headers(&entry.headers)));
        }
        for provider in &providers.openai_compatibility {
            found.extend(of_proxy(&provider.proxy_url).chain(of_headers(&provider.headers)));
            for key in &provider.api_key_entries {
                found.push(&key.api_key);
                found.extend(of_proxy(&key.proxy_url));
            }
        }
        found.push(&providers.ampcode.upstream_api_key);
        for key in &providers.ampcode.upstream_api_keys {
            found.push(&key.upstream_api_key);
            found.extend(&key.api_keys);
        }
        found.extend(alerts.notify.iter().flat_map(NotifyTarget::secrets));
        found.extend(of_headers(&self.telemetry.headers));
        found.retain(|secret| !secret.is_empty());
        found
    }
}

impl NotifyTarget {
    /// All secrets of the target, some of them empty.
    fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let own = [&self.secret, self.apprise.secret()].into_iter();
        let webhook = self.webhook.iter().map(WebhookUrl::secret);
        let sent = of_proxy(&self.proxy_url).chain(of_headers(&self.headers));
        own.chain(webhook).chain(&self.command.arguments).chain(sent)
    }
}

impl Account {
    /// All secrets of the account; empty ones are left out.
    pub fn secrets(&self) -> Vec<&Secret> {
        let mut found = vec![&self.secret, &self.refresh_token, &self.grant.client_secret];
        found.extend(of_proxy(&self.settings.proxy_url).chain(of_headers(&self.settings.headers)));
        found.retain(|secret| !secret.is_empty());
        found
    }
}

fn of_proxy(setting: &ProxySetting) -> impl Iterator<Item = &Secret> {
    let login = match setting {
        ProxySetting::Url(url) => url.login.as_ref(),
        _ => None,
    };
    login.into_iter().flat_map(|login| [&login.user, &login.password])
}

fn of_headers(headers: &Headers) -> impl Iterator<Item = &Secret> {
    headers.0.values().filter_map(|value| match value {
        HeaderValue::Literal(secret) => Some(secret),
        HeaderValue::CopyFrom(_) => None,
    })
}
