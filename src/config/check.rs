//! Rules over several keys.
//!
//! Enters: a configuration whose values have the right kinds. Leaves: the same, cleaned: names trimmed,
//! patterns in lower case, what old versions called otherwise in its place, what is incomplete or repeated
//! left out, each with a warning. May go wrong: settings that contradict each other, such as TLS without a
//! certificate.

mod alerts;
mod entries;
mod models;
mod old;
mod payload;

use crate::proxy::ProxySetting;
use crate::report::Report;
use crate::tree::Place;
use crate::{Auth, Config, Listen, ModelPrice, ProxyProtocol, Server};
use std::collections::HashSet;

/// Checks and cleans `config`.
pub(crate) fn check(config: &mut Config, report: &mut Report<'_, '_>) {
    old::migrate(config, report);
    server(&config.server, report);
    auth(&mut config.auth, report);
    proxy(&config.providers.proxy_url, "global", &Place::Root.key("proxy-url"), report);
    entries::check(&mut config.providers, report);
    models::check(&mut config.models, report);
    payload::check(&mut config.payload, report);
    alerts::check(&mut config.alerts, report);
    prices(&mut config.logging.prices, report);
}

fn prices(prices: &mut Vec<ModelPrice>, report: &mut Report<'_, '_>) {
    let list = Place::Root.key("prices");
    let mut n = 0;
    prices.retain_mut(|price| {
        price.model = price.model.trim().to_lowercase();
        price.provider = price.provider.trim().to_owned();
        let whole = !price.model.is_empty() && price.input.is_some() && price.output.is_some();
        if !whole {
            report.warn(&list.item(n), "left out: it needs model, input and output");
        }
        n += 1;
        whole
    });
}

/// Warns of a proxy that cannot be used.
fn proxy(setting: &ProxySetting, source: &str, place: &Place<'_>, report: &mut Report<'_, '_>) {
    let ProxySetting::Invalid { url_redacted, problem } = setting else { return };
    report.warn(
        place,
        format!(
            "proxy config invalid: {problem} ({url_redacted}, source={source}); \
             requests that would use it are refused, none goes out directly"
        ),
    );
}

fn server(server: &Server, report: &mut Report<'_, '_>) {
    let tls = Place::Root.key("tls");
    if server.tls.enable {
        for (key, path) in [("cert", &server.tls.cert), ("key", &server.tls.key)] {
            if path.trim().is_empty() {
                report.error(&tls.key(key), "TLS is on, and needs the path of a PEM file here");
            }
        }
    }
    let limits = Place::Root.key("limits");
    for (key, limit) in [
        ("max-body-mb", server.limits.max_body_mb),
        ("header-kib", server.limits.header_kib),
        ("header-count", server.limits.header_count),
    ] {
        if limit == 0 {
            report.error(&limits.key(key), "nothing would fit in; the least is 1");
        }
    }
    if server.proxy_protocol == ProxyProtocol::Trusted && server.trusted_proxies.0.is_empty() {
        let problem =
            "trusted-proxies is empty, so that nobody may send a PROXY header; list your proxies there";
        report.error(&Place::Root.key("proxy-protocol"), problem);
    }
    let mut taken = vec![Listen { host: server.host.clone(), port: server.port }];
    let extra = Place::Root.key("extra-listen");
    for (n, listen) in server.extra_listen.0.iter().enumerate() {
        let host = if listen.host.as_str().is_empty() { &server.host } else { &listen.host };
        claim(&mut taken, Listen { host: host.clone(), port: listen.port }, &extra.item(n), report);
    }
    if let Some(listen) = &server.metrics.listen {
        let metrics = Place::Root.key("metrics");
        claim(&mut taken, listen.clone(), &metrics.key("listen"), report);
    }
}

/// Notes an address that this file wants to listen on twice.
fn claim(taken: &mut Vec<Listen>, listen: Listen, place: &Place<'_>, report: &mut Report<'_, '_>) {
    if taken.iter().any(|other| other.overlaps(&listen)) {
        report.error(place, format!("port {} is already in use by this file", listen.port));
    }
    taken.push(listen);
}

fn auth(auth: &mut Auth, report: &mut Report<'_, '_>) {
    let list = Place::Root.key("api-keys");
    let mut seen = HashSet::new();
    let mut n = 0;
    let listed = !auth.api_keys.is_empty();
    auth.api_keys.retain(|key| {
        let place = list.item(n);
        n += 1;
        if key.api_key.is_empty() {
            report.warn(&place, "empty key, left out");
            return false;
        }
        let fresh = seen.insert(key.expose_secret().to_owned());
        if !fresh {
            report.warn(&place, "this key is listed before, left out");
        }
        fresh
    });
    auth.api_keys.iter_mut().for_each(entries::client_key);
    if listed && auth.api_keys.is_empty() {
        let problem = "all keys are empty, which would let everybody in; remove the list if that is meant";
        report.error(&list, problem);
    }
    if auth.auth_dir.trim().is_empty() {
        auth.auth_dir = Auth::default().auth_dir;
    }
}

#[cfg(test)]
mod tests {
    use crate::load;

    fn lines(text: &str) -> Vec<String> {
        let notices = match load(text.as_bytes()) {
            Ok(loaded) => loaded.warnings,
            Err(broken) => broken.notices,
        };
        notices.iter().map(|notice| notice.in_file("c").to_string()).collect()
    }

    #[test]
    fn client_keys_are_trimmed_and_each_counts_once() {
        let text = "api-keys:\n  - ' a '\n  - a\n  - ''\n  - b\n";
        assert_eq!(
            lines(text),
            [
                "c:3:5: api-keys[1]: this key is listed before, left out",
                "c:4:5: api-keys[2]: empty key, left out"
            ]
        );
        let config = load(text.as_bytes()).unwrap().config;
        assert_eq!(config.auth.api_keys.len(), 2);
        assert!(!config.has_template_keys());
        assert!(load(b"api-keys: ['your-api-key-2 ']").unwrap().config.has_template_keys());
    }

    #[test]
    fn a_list_of_empty_keys_does_not_open_the_door() {
        assert_eq!(
            lines("debug: true\napi-keys: ['', ' ']\n"),
            [
                "c:2:1: api-keys: all keys are empty, which would let everybody in; remove the list if that is meant"
            ]
        );
        assert_eq!(lines("api-keys: []\n"), [""; 0]);
    }

    #[test]
    fn addresses_do_not_collide_and_bounds_let_something_in() {
        assert_eq!(
            lines("extra-listen: [8672, 'localhost:8672', 8317]\nlimits: {header-kib: 0}\n"),
            [
                "c:1:22: extra-listen[1]: port 8672 is already in use by this file",
                "c:1:40: extra-listen[2]: port 8317 is already in use by this file",
                "c:2:22: limits.header-kib: nothing would fit in; the least is 1",
            ]
        );
        assert_eq!(
            lines("port: 9317\n"),
            ["c:1:1: metrics.listen: port 9317 is already in use by this file"]
        );
        assert_eq!(lines("port: 9317\nmetrics: {listen: ''}\n"), [""; 0]);
        assert_eq!(lines("host: 10.0.0.1\nextra-listen: ['10.0.0.2:8317', 0, 0]\n"), [""; 0]);
        assert_eq!(lines("host: 10.0.0.1\nextra-listen: '0.0.0.0:8317'\n").len(), 1);
        assert_eq!(lines("host: '0.0.0.0:8317'\n").len(), 1);
        assert_eq!(
            lines("host: '[::1]'\nextra-listen: '[::]:9'\ntrusted-proxies: [10.0.0.0/8, '::1']\n"),
            [""; 0]
        );
    }

    #[test]
    fn proxies_that_cannot_be_used_are_named_with_their_source() {
        let lines = lines("proxy-url: ftp://x\nclaude-api-key: [{api-key: k, proxy-url: 'nonsense'}]\n");
        assert!(lines[0].contains("unsupported proxy scheme `ftp`") && lines[0].contains("source=global"));
        assert!(lines[1].contains("proxy config invalid") && lines[1].contains("source=credential"));
    }
}
