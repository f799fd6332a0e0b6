//! Section C of the checklist: quota and management.

use super::{Site, Typed};
use serde_json::{Value, json};
use testkit::double::Double;
use testkit::upstream::{Seen, json as json_step};

/// The index of an account file.
fn index(site: &Site, file: &str) -> String {
    let line = format!(
        r#"curl -sS "$B/v0/management/auth-files?format=object" -H "$G" | jq -r '.files[]|select(.name=="{file}").auth_index'"#
    );
    site.types(&line).ok().to_owned()
}

#[test]
fn row_20_kiros_quota_without_an_index() {
    let quota = Site::shared().types(r#"curl -sS $B/v0/management/kiro-quota -H "$G" | jq"#).json();
    assert_eq!(quota["remaining_quota"], 750, "{quota}");
    assert_eq!((&quota["usage_percentage"], &quota["quota_exhausted"]), (&json!(25), &json!(false)));
}

#[test]
fn row_21_and_22_the_index_is_understood_in_every_spelling_and_echoed() {
    let site = Site::shared();
    let index = index(&site, "kiro-aws-b.json");
    for selector in [
        format!("auth_index={index}"),
        format!("authIndex={index}"),
        format!("index={index}"),
        format!("auth_id={index}"),
        "auth_index=kiro-aws-b.json".to_owned(),
        "auth_id=kiro-aws-b.json".to_owned(),
    ] {
        let line = format!(
            r#"curl -sS "$B/v0/management/kiro-quota?{selector}" -H "$G" | jq -c '[.remaining_quota,.usage_percentage,.quota_exhausted,.auth_index]'"#
        );
        assert_eq!(site.types(&line).json(), json!([0, 100, true, index]), "{selector}");
    }
}

#[test]
fn row_23_an_index_that_nobody_has_is_named() {
    let typed = Site::shared().types(
        r#"curl -sS -w '%{http_code}' "$B/v0/management/kiro-quota?auth_index=ffffffffffffffff" -H "$G""#,
    );
    assert!(typed.ok().ends_with("404") && typed.out.contains("ffffffffffffffff"), "{typed:?}");
}

#[test]
fn row_24_an_account_that_is_used_up_is_not_used() {
    let ask =
        r#"chat -D - -d '{"model":"kiro-claude-sonnet-4-5","messages":[{"role":"user","content":"ping"}]}'"#;
    let alone = Site::own(|setup| {
        setup.only(&["kiro-aws-b.json"]);
    });
    let refused = alone.types(ask);
    assert!(
        refused.ok().starts_with("HTTP/1.1 402") && refused.out.contains("insufficient_quota"),
        "{refused:?}"
    );
    // It rests, and is not asked meanwhile.
    let rests = alone.types(&format!(": > $ML; {ask}; wc -l < $ML"));
    let (head, body) = rests.ok().split_once("\r\n\r\n").expect("head and body");
    assert!(
        head.starts_with("HTTP/1.1 429") && head.to_ascii_lowercase().contains("\r\nretry-after: "),
        "{rests:?}"
    );
    assert!(body.contains("cooling down") && body.ends_with('0'), "{rests:?}");
    let why = alone.types(
        r#"curl -sS $B/v0/management/auth-files -H "$G" | jq -r '.[] | select(.name=="kiro-aws-b.json") | .status_message'"#,
    );
    assert!(why.ok().contains("quota"), "{why:?}");

    let both = Site::own(|_| ());
    let served = both.types(&format!(
        "for n in 1 2 3 4; do {ask} -o /dev/null -D /dev/null -w '%{{http_code}} '; done; : > $ML; for n in 1 2 3 4; do {ask} -o /dev/null -D /dev/null -w '%{{http_code}} '; done"
    ));
    served.is("200 200 200 200 200 200 200 200");
    both.types(r#"jq -r 'select(.m=="POST") | .h.authorization' $ML | sort | uniq -c"#).is("4 Bearer kiro-a");
}

#[test]
fn row_25_accounts_are_readable() {
    let typed = Site::shared().types(r#"curl -sS $B/v0/management/auth-files -H "$G" | jq"#);
    assert_eq!(typed.json().as_array().map(Vec::len), Some(10));
}

#[test]
fn row_26_the_array_has_an_index_to_a_line() {
    let typed = Site::shared().types(
        r#"set -o pipefail; curl -sS $B/v0/management/auth-files -H "$G" | jq -r '.[] | .auth_index // .index'"#,
    );
    assert_eq!(typed.words().len(), 10);
    assert!(
        typed.words().iter().all(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit())),
        "{typed:?}"
    );
}

#[test]
fn row_27_no_file_is_listed_twice() {
    let typed = Site::shared().types(
        r"set -o pipefail; curl -sS $B/v0/management/auth-files -H 'X-Management-Secret: mgmt-test' | jq '.[].filename' | sort | uniq -c",
    );
    assert_eq!(typed.ok().lines().count(), 10);
    assert!(typed.out.lines().all(|line| line.trim_start().starts_with("1 \"")), "{typed:?}");
    assert!(typed.out.contains("\"gemini-auth.json\""), "{typed:?}");
}

#[test]
fn row_28_who_asks_for_json_gets_an_object() {
    let typed = Site::shared()
        .types(r#"curl -sS $B/v0/management/auth-files -H "$G" -H 'Accept: application/json' | jq -r '.files[].name'"#);
    assert!(typed.words().contains(&"gemini-auth.json") && typed.words().len() == 10, "{typed:?}");
}

#[test]
fn row_29_a_tenth_of_429s_rises_an_alert_for_the_provider() {
    let site = Site::own(|_| ());
    for model in ["team-a/fast"; 9].into_iter().chain(["team-a/err429"]) {
        site.types(&format!(
            r#"chat -o /dev/null -d '{{"model":"{model}","messages":[{{"role":"user","content":"ping"}}]}}'"#
        ))
        .ok();
    }
    let line = r#"curl $B/v0/management/alerts -H "$G" | jq -c '.alerts[] | select(.id=="rate-limit-ratio") | [.severity, .status, .subject]'"#;
    let alert = site.types_until(line, |typed| !typed.out.is_empty());
    // Both keys were asked: 2 of 11 calls.
    assert_eq!(alert.json(), json!(["critical", "firing", "mock"]));
}

#[test]
fn row_30_the_toggles_of_used_up_quota_survive_a_restart() {
    let mut site = Site::own(|_| ());
    for toggle in ["switch-project", "switch-preview-model"] {
        let put = format!(
            r#"curl -sS -X PUT $B/v0/management/quota-exceeded/{toggle} -H "$G" -d '{{"value":true}}'"#
        );
        assert_eq!(site.types(&put).json(), json!({"status": "ok"}));
    }
    site.proxy().kill_and_restart();
    for toggle in ["switch-project", "switch-preview-model"] {
        let get = format!(r#"curl -sS $B/v0/management/quota-exceeded/{toggle} -H "$G""#);
        assert_eq!(site.types(&get).json(), json!({ toggle: true }));
    }
}

#[test]
fn row_31_and_32_one_view_of_all_quota_and_nothing_is_guessed() {
    let site = Site::shared();
    let list = site.types(r#"curl -sS $B/v0/management/quota -H "$G" | jq .quota"#).json();
    let rows = list.as_array().expect("a list");
    for provider in ["kiro", "github-copilot", "antigravity", "qwen", "codex", "claude"] {
        assert!(rows.iter().any(|row| row["provider_key"] == provider), "{provider}: {list}");
    }
    for row in rows {
        for field in ["provider_key", "model_id", "quota_remaining", "quota_reset_seconds", "refresh_state"] {
            assert!(row.get(field).is_some(), "{field}: {row}");
        }
        for synonym in ["provider", "model", "remaining_quota", "remaining", "reset_seconds"] {
            assert!(row.get(synonym).is_none(), "{synonym}: {row}");
        }
    }
    let qwen = rows.iter().find(|row| row["provider_key"] == "qwen").expect("qwen");
    assert_eq!(qwen["quota_remaining"], Value::Null, "what nobody knows is not 0");
}

#[test]
fn row_33_a_used_up_free_quota_of_qwen_rests_until_its_midnight() {
    let used_up = |seen: &Seen| {
        let first = seen.method == "POST" && seen.header("authorization") == Some("Bearer qa");
        let body = r#"{"error":{"code":"insufficient_quota","message":"Free allocated quota exceeded."}}"#;
        first.then(|| vec![json_step(429, body)])
    };
    let ask = r#"chat -w '%{http_code}' -d '{"model":"coder-model","messages":[{"role":"user","content":"ping"}]}'"#;
    let alone = Site::with(
        |log| Double::start_with(log, used_up),
        |setup| {
            setup.only(&["qwen-a.json"]);
        },
    );
    let refused = alone.types(ask);
    assert!(refused.ok().ends_with("429"), "{refused:?}");
    assert!(refused.out.contains("Free allocated quota exceeded."), "{refused:?}");

    let two = Site::with(
        |log| Double::start_with(log, used_up),
        |setup| {
            let second = json!({
                "type": "qwen", "access_token": "qb", "refresh_token": "r2", "email": "b@b.test",
                "expired": "2036-01-01T00:00:00Z", "base_url": format!("{}/v1", setup.upstream),
            });
            setup.only(&["qwen-a.json"]).account("qwen-b.json", second);
        },
    );
    let served = two.types(&format!("for n in 1 2; do {ask} -o /dev/null; done"));
    served.is("200200");
    // A quota is asked for again after an hour at most: providers reset them early.
    let rests = two.types(
        r#"curl -sS $B/v0/management/auth-files -H "$G" | jq -r '.[] | select(.name=="qwen-a.json") | (.next_retry_after | fromdate) - now | floor'"#,
    );
    let midnight = two.types("echo $(( 86400 - ( $(date +%s) + 28800 ) % 86400 ))");
    let seconds = |typed: &Typed| typed.ok().parse::<i64>().expect("seconds");
    let expected = seconds(&midnight).min(3600);
    assert!(
        (expected - 60..=expected + 60).contains(&seconds(&rests)),
        "{rests:?}, midnight in {midnight:?}"
    );
}

#[test]
fn row_105_clients_that_a_provider_serves_are_listed() {
    let typed = Site::shared().types(
        r#"curl -sS $B/v0/management/config -H "$G" | jq '.providers[] | select(.name=="antigravity") | .supported_clients'"#,
    );
    assert!(typed.json().as_array().is_some_and(|list| !list.is_empty()), "{typed:?}");
}

#[test]
fn row_147_without_a_secret_there_is_no_management() {
    let site = Site::own(|setup| {
        setup.replace("secret-key: \"mgmt-test\"", "secret-key: \"\"");
    });
    let typed = site.types(r#"curl -sS -w '%{http_code}' $B/v0/management/config -H "$G""#);
    let body = typed.ok().strip_suffix("404").unwrap_or_else(|| panic!("{typed:?}"));
    assert!(serde_json::from_str::<Value>(body).is_ok_and(|body| body["error"].is_string()), "{typed:?}");
    site.types(r#"sed -i 's/secret-key: ""/secret-key: "mgmt-test"/' config.yaml"#).ok();
    site.types_until("code $B/v0/management/config", |typed| typed.out == "401").is("401");
    site.types(r#"code $B/v0/management/config -H "$G""#).is("200");
}

#[test]
fn row_150_the_log_is_json() {
    let site = Site::shared();
    let keys = r#"jq -c '[(.lines|type),has("line-count"),has("latest-timestamp")]'"#;
    for query in ["limit=200", "lines=200"] {
        let line = format!(r#"curl -sS "$B/v0/management/logs?{query}" -H "$G" | {keys}"#);
        assert_eq!(site.types(&line).json(), json!(["array", true, true]));
    }
    let off = Site::own(|setup| {
        setup.replace("logging-to-file: true", "logging-to-file: false");
    });
    let typed = off.types(r#"curl -sS -w '%{http_code}' "$B/v0/management/logs?limit=200" -H "$G""#);
    assert!(typed.ok().ends_with("400") && typed.out.contains("logging"), "{typed:?}");
}

#[test]
fn row_151_every_spelling_of_the_header() {
    let site = Site::shared();
    for header in ["X-Management-Key: $MK", "X-Management-Secret: $MK", "Authorization: Bearer $MK"] {
        site.types(&format!(r#"code $B/v0/management/config -H "{header}""#)).is("200");
    }
}

#[test]
fn row_152_the_configuration_is_readable() {
    Site::shared().types(r#"curl -sS $B/v0/management/config -H "$G" | jq '.debug'"#).is("true");
}
