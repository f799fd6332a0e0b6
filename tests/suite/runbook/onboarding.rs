//! Section D of the checklist: new providers, several keys, ways out.

use super::Site;
use serde_json::json;

/// One request; prints the answer's text.
const CANARY: &str = r#"chat -d '{"model":"team-a/fast","messages":[{"role":"user","content":"ping"}]}' | jq -r '.choices[0].message.content'"#;
/// The ids of the inventory.
const IDS: &str = r#"curl -sS $B/v1/models -H "$A" | jq -r '.data[].id'"#;

#[test]
fn row_34_a_block_with_prefix_and_alias_is_listed() {
    Site::shared().types(&format!("{IDS} | rg '^team-a/fast$'")).is("team-a/fast");
}

#[test]
fn row_35_and_37_a_block_that_is_added_is_listed_in_seconds_and_counted() {
    let site = Site::own(|_| ());
    let block = r#"cat >> config.yaml <<END
  - name: "lab"
    prefix: "lab"
    base-url: "$(jq -rn --arg u "$UPSTREAM" '$u')/v1"
    api-key-entries: [{api-key: "kl"}]
    models: [{name: m1, alias: new}]
END"#;
    let upstream = site.double().url();
    site.types(&format!("UPSTREAM={upstream}; {block}")).ok();
    let saved = std::time::Instant::now();
    let listed = site.types_until(&format!("{IDS} | rg '^lab/new$'"), |typed| typed.rc == 0);
    listed.is("lab/new");
    assert!(saved.elapsed() < std::time::Duration::from_secs(5), "{:?}", saved.elapsed());
    site.types(&CANARY.replace("team-a/fast", "lab/new")).is("pong");
    let line = "curl -sS \"$B/v1/metrics/providers?window=900\" | jq -c '.providers.lab | [.request_count, .window.request_count, .window.status[\"200\"]]'";
    let counted = site.types_until(line, |typed| typed.out == "[1,1,1]");
    counted.is("[1,1,1]");
    site.types("curl -sS \"$B/v1/metrics/providers?window=900\" | jq .window_seconds").is("900");
}

#[test]
fn row_36_39_40_and_45_keys_take_turns_and_their_own_way_out() {
    let site = Site::own(|_| ());
    let canary = site.types(&format!("{CANARY}; tail -1 $ML | jq -r .b.model"));
    assert_eq!(canary.words(), ["pong", "m1"]);
    let line = format!(
        ": > $ML; for i in 1 2 3 4; do {CANARY} >/dev/null; done; jq -r '.h.authorization' $ML | sort -u | wc -l"
    );
    site.types(&line).is("2");
    let px = CANARY.replace("team-a/fast", "px/good-proxy");
    let through = site.types(&format!(": > $ML; {px}; jq -c '[.proxy,.pa]' $ML"));
    through.is("pong\n[true,\"Basic dTpw\"]");
    site.types("grep -cE 'u:p@|dTpw' logs/*.log; true").is("0");
}

#[test]
fn row_38_blocks_of_known_services_serve_what_their_upstream_lists() {
    let site = Site::own(|setup| {
        for name in [
            "minimax",
            "roo",
            "kilo",
            "deepseek",
            "groq",
            "mistral",
            "siliconflow",
            "openrouter",
            "together",
            "fireworks",
            "novita",
        ] {
            setup.add(&format!("{name}: [{{api-key: k, base-url: \"UPSTREAM/v1\", prefix: {name}}}]\n"));
        }
    });
    let ids = format!(
        "{IDS} | rg '^(minimax|roo|kilo|deepseek|groq|mistral|siliconflow|openrouter|together|fireworks|novita)/glm-4.7$' | wc -l"
    );
    site.types_until(&ids, |typed| typed.out == "11").is("11");
    site.types(&CANARY.replace("team-a/fast", "deepseek/glm-4.7")).is("pong");
}

#[test]
fn row_41_both_spellings_of_a_way_out_hold_in_an_account_file() {
    let site = Site::own(|setup| {
        let base = format!("{}/v1", setup.upstream);
        let proxy = setup.upstream.replace("http://", "http://u:p@");
        setup.only(&[]);
        for (name, key) in [("a", "proxy_url"), ("b", "proxy-url")] {
            let account = json!({
                "type": "qwen", "access_token": name, "refresh_token": "r", "email": format!("{name}@b.test"),
                "expired": "2036-01-01T00:00:00Z", "base_url": base, key: proxy,
            });
            setup.account(&format!("qwen-{name}.json"), account);
        }
    });
    let ask = CANARY.replace("team-a/fast", "coder-model");
    site.types(&format!(": > $ML; {ask}; {ask}; jq -c 'select(.m==\"POST\") | .proxy' $ML"))
        .is("pong\npong\ntrue\ntrue");
}

#[test]
fn row_42_a_broken_global_way_out_stops_those_that_would_take_it() {
    let site = Site::own(|setup| {
        setup.add("proxy-url: \"ftp://127.0.0.1:9\"\n");
    });
    site.types(&CANARY.replace("team-a/fast", "px/good-proxy")).is("pong");
    let ask = r#"chat -o /dev/null -w '%{http_code}' -d '{"model":"team-a/fast","messages":[]}'"#;
    let failed = site.types(&format!(": > $ML; {ask}; echo; wc -l < $ML"));
    assert!(failed.words()[0].starts_with(['4', '5']) && failed.words()[1] == "0", "{failed:?}");
    let told = site
        .types_until("grep -h 'unsupported proxy scheme' logs/*.log | grep -c global", |typed| typed.rc == 0);
    assert!(told.ok().parse::<u32>().is_ok_and(|n| n >= 1), "{told:?}");
}

#[test]
fn row_43_a_way_out_that_nobody_knows_is_never_left_out() {
    let site = Site::own(|_| ());
    let line = r#": > $ML; chat -w '\n%{http_code}\n' -d '{"model":"px/bad-proxy","messages":[{"role":"user","content":"ping"}]}'; wc -l < $ML"#;
    let typed = site.types(line);
    let lines: Vec<_> = typed.ok().lines().collect();
    assert!(lines[0].starts_with('{') && lines[1].starts_with(['4', '5']) && lines[2] == "0", "{typed:?}");
    let told = site.types("grep -hE 'proxy config invalid|unsupported proxy scheme' logs/*.log");
    for part in ["proxy config invalid", "unsupported proxy scheme", "badproxy#1", "source=credential"] {
        assert!(told.ok().contains(part), "{part}: {told:?}");
    }
}

#[test]
fn row_44_four_schemes_are_known_and_two_words_mean_none() {
    let site = Site::own(|setup| {
        setup.replace("  - name: \"badproxy\"", "  - name: \"straight\"");
        setup.replace("ftp://127.0.0.1:9", "direct");
        setup.add("proxy-url: \"http://127.0.0.1:9\"\n");
    });
    site.types(&CANARY.replace("team-a/fast", "px/bad-proxy")).is("pong");
    let check = r#"for u in http://127.0.0.1:9 https://127.0.0.1:9 socks5://127.0.0.1:9 socks5h://127.0.0.1:9 direct none; do sed "s,proxy-url: \"direct\",proxy-url: \"$u\"," config.yaml > other.yaml; $BIN check --config other.yaml 2>&1 | grep -ciE 'proxy.*(invalid|unsupported)'; done; true"#;
    site.types(check).is("0\n0\n0\n0\n0\n0");
    let refused = r#"sed "s,proxy-url: \"direct\",proxy-url: \"ftp://x\"," config.yaml > other.yaml; $BIN check --config other.yaml 2>&1 | grep -ciE 'proxy'"#;
    assert!(site.types(refused).ok() != "0", "what is not known is told");
}
