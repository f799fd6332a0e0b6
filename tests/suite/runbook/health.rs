//! Section A of the checklist: health, inventory, metrics, logs.

use super::{Site, Typed};
use serde_json::{Value, json};

#[test]
fn row_01_health_answers_without_a_key() {
    let health = Site::shared().types("curl -sS $B/health").json();
    assert_eq!(health["status"], "ok");
    assert!(health["version"].is_string() && health["uptime_seconds"].is_u64(), "{health}");
    for count in ["models", "credentials", "providers"] {
        assert!(health[count].as_u64() > Some(0), "{count}: {health}");
    }
    Site::shared().types("code $B/health").is("200");
}

#[test]
fn row_02_head_of_health_is_200_also_while_all_upstreams_are_down() {
    let mut site = Site::own(|_| ());
    let alive = |site: &Site| {
        let head = site.types("curl -sS -I $B/health");
        assert!(head.ok().starts_with("HTTP/1.1 200"), "{head:?}");
        assert!(!head.out.contains('{'), "a head has no body: {head:?}");
    };
    alive(&site);
    site.stop_upstreams();
    let failed =
        site.types(r#"chat -d '{"model":"team-a/fast","messages":[]}' -o /dev/null -w '%{http_code}'"#);
    assert!(failed.ok().starts_with('5'), "{failed:?}");
    alive(&site);
}

#[test]
fn row_03_healthz_stays() {
    assert_eq!(Site::shared().types("curl -sS $B/healthz").json(), json!({"status": "ok"}));
}

#[test]
fn row_04_the_inventory_is_counted() {
    let count = Site::shared().types(r#"curl -sS $B/v1/models -H "$A" | jq '.data | length'"#);
    assert!(count.ok().parse::<u32>().is_ok_and(|n| n >= 1), "{count:?}");
}

#[test]
fn row_05_the_inventory_wants_a_key() {
    let site = Site::shared();
    for line in [
        r#"curl -sS -w "%{http_code}" $B/v1/models"#,
        r#"curl -sS -w "%{http_code}" $B/v1/models -H "Authorization: Bearer nope""#,
    ] {
        let typed = site.types(line);
        let body = typed.ok().strip_suffix("401").unwrap_or_else(|| panic!("{typed:?}"));
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert!(body["error"]["message"].is_string(), "{body}");
    }
}

#[test]
fn row_06_ids_are_printed_one_to_a_line() {
    let ids = Site::shared().types(r#"curl -sS $B/v1/models -H "$A" | jq '.data[].id' | head"#);
    assert_eq!(ids.ok().lines().count(), 10, "{ids:?}");
    assert!(ids.out.lines().all(|id| id.len() > 2 && id.starts_with('"') && id.ends_with('"')), "{ids:?}");
}

#[test]
fn row_07_metrics_of_providers_need_no_key() {
    let site = Site::shared();
    assert!(site.types("curl -sS $B/v1/metrics/providers | jq").json().is_object());
    site.types("code $B/v1/metrics/providers").is("200");
}

#[test]
fn row_08_iflow_is_in_the_metrics_under_either_path() {
    let site = Site::shared();
    for line in [
        "curl -sS $B/v1/metrics/providers | jq '.iflow // .providers.iflow'",
        "curl -sS $B/v1/metrics/providers | jq '.iflow'",
        "curl -sS $B/v1/metrics/providers | jq '.providers.iflow'",
    ] {
        assert!(site.types(line).json()["request_count"].is_u64(), "{line}");
    }
}

#[test]
fn row_09_classes_of_status_are_counted() {
    let site = Site::own(|_| ());
    // 401 comes last: it rests the key for all of its models.
    for (model, stream, provider, status) in [
        ("team-a/err429", false, "mock", "429"),
        ("team-a/err403", false, "mock", "403"),
        ("iflow/err406", true, "iflow", "406"),
        ("antigravity/claude-sonnet-4-6", false, "antigravity", "503"),
        ("team-a/err401", false, "mock", "401"),
    ] {
        let line = format!(
            r#"chat -o /dev/null -w '%{{http_code}}' -d '{{"model":"{model}","messages":[{{"role":"user","content":"ping"}}],"stream":{stream}}}'"#
        );
        site.types(&line).is(status);
        let line =
            format!(r#"curl -sS $B/v1/metrics/providers | jq '.providers.{provider}.status["{status}"]'"#);
        let counted = site.types_until(&line, |typed| typed.out.parse::<u64>().is_ok_and(|n| n >= 1));
        assert!(counted.ok().parse::<u64>().is_ok_and(|n| n >= 1), "{model}: {counted:?}");
    }
}

#[test]
fn row_10_models_and_metrics_name_the_same_providers() {
    let missing = Site::shared().types(
        r#"comm -23 <(curl -sS $B/v1/models -H "$A" | jq -r '.data[].provider' | sort -u) <(curl -sS $B/v1/metrics/providers | jq -r '.providers | keys[]' | sort -u); curl -sS $B/v1/models -H "$A" | jq '[.data[].provider] | unique | length'"#,
    );
    assert!(
        missing.ok().parse::<u32>().is_ok_and(|n| n > 5),
        "no name is missing, and there are some: {missing:?}"
    );
}

#[test]
fn row_11_the_log_can_be_searched_for_a_status() {
    let site = Site::own(|_| ());
    site.types(r#"chat -o /dev/null -d '{"model":"team-a/err429","messages":[]}'; code $B/v1/models"#)
        .is("401");
    // The request that failed has a file of its own, so that grep names the files.
    let twice = |typed: &Typed| typed.out.lines().any(|line| line == "logs/main.log:2");
    let found = site.types_until("grep -cE ' (401|403|429) ' logs/*.log", twice);
    assert!(twice(&found), "{found:?}");
    let line = site.types("grep -hE ' 429 ' logs/*.log");
    for part in [
        "\"status_code\":429",
        "\"provider\":\"mock\"",
        "\"model\":\"team-a/err429\"",
        "\"account\":\"mock#",
        "\"latency_ms\":",
    ] {
        assert!(line.ok().contains(part), "{part}: {line:?}");
    }
}

#[test]
fn row_12_spark_is_listed_for_those_whose_plan_has_it() {
    let spark =
        r#"curl -sS $B/v1/models -H "$A" | jq -r '.data[].id' | rg 'gpt-5.3-codex|gpt-5.3-codex-spark'"#;
    let alone = |account: &str| {
        let site = Site::own(|setup| {
            setup.without("codex-api-key").only(&[account]);
        });
        site.types(spark).words().iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(alone("codex-plus.json"), ["gpt-5.3-codex", "gpt-5.3-codex-spark"]);
    assert_eq!(alone("codex-team.json"), ["gpt-5.3-codex"]);
}

#[test]
fn row_13_antigravity_has_both_names_without_being_told() {
    let site = Site::own(|setup| {
        setup.without("oauth-model-alias").only(&["antigravity-a_b.json"]);
    });
    let ids = site.types(
        r#"curl -sS $B/v1/models -H "$A" | jq -r '.data[].id' | rg 'gemini-claude-opus-4-6-thinking|claude-opus-4-6-thinking'"#,
    );
    for id in ["gemini-claude-opus-4-6-thinking", "claude-opus-4-6-thinking"] {
        assert!(ids.words().contains(&id), "{ids:?}");
    }
}

#[test]
fn row_14_the_triage_loop_bans_nobody() {
    let site = Site::shared();
    let triage = site.types(
        r#"for e in health models v1/metrics/providers v0/management/logs; do curl -sS -w '\n%{http_code}\n' "$B/$e" -H "$A" | tail -n 1; done"#,
    );
    assert_eq!(triage.words(), ["200", "200", "200", "401"]);
    let typed = site.types(
        r#"for n in 1 2 3 4 5 6 7 8 9 10; do for e in health models v1/metrics/providers v0/management/logs; do curl -sS "$B/$e" -H "$A" | head -n 3 | head -c 9 >/dev/null; done; done; curl -sS $B/v0/management/logs -H "$A" | jq -r '.error'; code $B/v0/management/config -H "$G""#,
    );
    assert!(typed.ok().ends_with("200") && typed.out.lines().count() == 2, "{typed:?}");
}
