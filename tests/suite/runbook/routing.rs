//! Section D of the checklist: prefixes, aliases, models that nobody has.

use super::Site;
use serde_json::Value;
use std::sync::atomic::{AtomicU32, Ordering};
use testkit::double::Double;
use testkit::upstream::Step;

/// The ids of the inventory.
const IDS: &str = r#"curl -sS $B/v1/models -H "$A" | jq -r '.data[].id'"#;

/// One request for a model; prints status and text.
fn ask(model: &str) -> String {
    format!(
        r#"chat -w '\n%{{http_code}}' -d '{{"model":"{model}","messages":[{{"role":"user","content":"ping"}}]}}'"#
    )
}

/// The status alone.
fn status(model: &str) -> String {
    format!(
        r#"chat -o /dev/null -w '%{{http_code}} ' -d '{{"model":"{model}","messages":[{{"role":"user","content":"ping"}}]}}'"#
    )
}

#[test]
fn row_46_excluded_models_leave_the_list_and_are_unknown() {
    let site = Site::own(|_| ());
    site.types(&format!("{IDS} | rg '^gemini/gemini-3-pro-preview$'")).ok();
    site.types(r#"sed -i 's/    prefix: "gemini"/    prefix: "gemini"\n    excluded-models: ["*-preview"]/' config.yaml"#).ok();
    let gone = format!("{IDS} | rg -c '^gemini/gemini-3-pro-preview$'");
    assert_eq!(site.types_until(&gone, |typed| typed.rc == 1).rc, 1, "{}", site.log());
    let refused = site.types(&ask("gemini/gemini-3-pro-preview"));
    assert!(refused.ok().ends_with("404"), "{refused:?}");
    assert!(refused.out.contains("unknown provider for model gemini/gemini-3-pro-preview"), "{refused:?}");
}

#[test]
fn row_47_only_prefixed_names_serve_when_they_must() {
    let site = Site::own(|_| ());
    site.types(&status("fast")).is("200");
    site.types("sed -i '1i force-model-prefix: true' config.yaml").ok();
    site.types_until(&format!("{IDS} | rg -cx 'fast'"), |typed| typed.rc == 1);
    site.types(&format!("{}; {}", status("fast"), status("team-a/fast"))).is("404 200");
    site.types(&format!("{IDS} | rg '^team-a/fast$'")).is("team-a/fast");
}

#[test]
fn row_48_names_that_two_blocks_share_are_told() {
    let site = Site::own(|setup| {
        setup.only(&[]).replace("{name: m1, alias: ok}", "{name: m1, alias: fast}");
    });
    let told = site.types(
        r#"curl -sS $B/v0/management/routing/collisions -H "$G" | jq -c '.collisions[] | select(.model=="fast") | .providers'"#,
    );
    told.is(r#"["cold","mock"]"#);
    site.types("grep -h 'models that several providers serve' logs/*.log | grep -c 'fast (cold, mock)'")
        .is("1");
    let turns = site.types(&format!(
        ": > $ML; for n in 1 2 3 4 5 6; do {}; done; echo; jq -r .h.authorization $ML | sort -u | wc -l",
        status("fast")
    ));
    assert_eq!(
        turns.ok().lines().last(),
        Some("3"),
        "equal priority: all keys of both take turns: {turns:?}"
    );
}

#[test]
fn row_49_an_alias_is_pointed_elsewhere_without_a_failed_request() {
    let site = Site::own(|_| ());
    let typed = site.types(&format!(
        r"(for n in $(seq 40); do {}; done) > codes & sleep .3; sed -i 's/{{name: m1, alias: fast}}/{{name: m2, alias: fast}}/' config.yaml; wait; tr ' ' '\n' < codes | grep -c 200",
        status("team-a/fast")
    ));
    typed.is("40");
    let moved = format!("{}; tail -1 $ML | jq -r .b.model", status("team-a/fast"));
    site.types_until(&moved, |typed| typed.out.ends_with("m2")).is("200 m2");
}

#[test]
fn row_50_another_block_serves_an_alias_when_the_first_one_fails() {
    let site = Site::own(|setup| {
        setup.add(
            r#"  - {name: "broken", priority: 9, base-url: "UPSTREAM/v1", api-key-entries: [{api-key: kx}], models: [{name: err500, alias: both}]}
  - {name: "whole", base-url: "UPSTREAM/v1", api-key-entries: [{api-key: ky}], models: [{name: m1, alias: both}]}
"#,
        );
    });
    let served = site.types(&ask("both"));
    assert!(served.ok().contains("pong") && served.out.ends_with("200"), "{served:?}");
    let line = "curl -sS $B/v1/metrics/providers | jq '.providers.broken.failover'";
    site.types_until(line, |typed| typed.out == "1").is("1");
}

#[test]
fn row_120_a_model_that_nobody_has_is_named() {
    let site = Site::shared();
    let typed = site.types(&ask("no-such-model"));
    assert!(typed.ok().ends_with("404"), "{typed:?}");
    let body: Value = serde_json::from_str(typed.out.trim_end_matches("404")).expect("JSON");
    assert_eq!(body["error"]["code"], "model_not_found");
    assert!(
        body["error"]["message"]
            .as_str()
            .is_some_and(|m| m.contains("unknown provider for model no-such-model"))
    );
    let other = Site::own(|setup| {
        setup.add("unknown-model-status: 502\n");
    });
    other.types(&status("no-such-model")).is("502");
}

#[test]
fn row_121_aliases_and_comments_survive_edits() {
    let site = Site::own(|setup| {
        setup.replace("oauth-model-alias:\n", "oauth-model-alias: # names that people know\n");
    });
    let put = r#"curl -sS -X PUT $B/v0/management/request-retry -H "$G" -d '{"value":2}'"#;
    assert_eq!(site.types(put).json(), serde_json::json!({"status": "ok"}));
    let kept = "touch config.yaml; grep -c '# names that people know' config.yaml; grep -c 'alias: gemini-claude-opus-4-6-thinking' config.yaml; grep -c 'request-retry: 2' config.yaml";
    site.types(kept).is("1\n1\n1");
    site.types(&format!("{IDS} | rg -x 'antigravity/gemini-claude-opus-4-6-thinking'")).ok();
}

#[test]
fn row_122_kiro_and_copilot_have_the_usual_names_of_claude() {
    let site = Site::own(|_| ());
    for provider in ["kiro", "github-copilot"] {
        let line = format!(
            r#"curl -sS $B/v1/models -H "$A" | jq -r '.data[] | select(.provider=="{provider}") | .id'"#
        );
        let ids = site.types(&line);
        assert!(ids.ok().contains("claude"), "{provider}: {ids:?}");
    }
    let line = r#"curl -sS $B/v1/models -H "$A" | jq -r '.data[] | select(.owned_by=="aws" or .owned_by=="github-copilot" or .type=="kiro") | .id' | grep -cxE 'claude-sonnet-4-5|claude-opus-4-6'"#;
    let count = site.types_until(line, |typed| typed.rc == 0);
    assert!(count.ok().parse::<u32>().is_ok_and(|n| n >= 1), "{count:?}");
}

#[test]
fn row_123_usual_names_are_switched_off_by_an_empty_list() {
    let ids = r#"curl -sS $B/v1/models -H "$A" | jq -r '.data[] | select(.provider=="kiro") | .id'"#;
    let site = Site::own(|setup| {
        setup.only(&["kiro-aws-a.json"]).without("oauth-model-alias").add("oauth-model-alias: {kiro: []}\n");
    });
    let native = site.types(ids);
    assert!(
        !native.words().is_empty() && native.words().iter().all(|id| id.starts_with("kiro-")),
        "{native:?}"
    );
}

#[test]
fn row_128_the_closest_names_are_told() {
    let typed = Site::shared().types(&ask("team-a/fasst"));
    assert!(typed.ok().contains("team-a/fast") && typed.out.ends_with("404"), "{typed:?}");
}

#[test]
fn row_135_codex_clients_have_claude_models() {
    let site = Site::shared();
    let count = site.types(r#"curl -sS $B/v1/models -H "$A" | jq '.data[].id' | rg 'claude-opus|claude-sonnet|claude-haiku' | wc -l"#);
    assert!(count.ok().parse::<u32>().is_ok_and(|n| n >= 3), "{count:?}");
    site.types(r#"code $B/v1/responses -H "$A" -H "$J" -d '{"model":"claude-sonnet-4-6","input":"ping"}'"#)
        .is("200");
}

#[test]
fn row_139_and_109_routes_of_ones_own_are_followed_and_logged() {
    let site = Site::own(|setup| {
        setup.add("ampcode:\n  model-mappings: [{from: amp-x, to: team-a/fast}, {from: amp-tab, to: iflow/tab-rt}]\n");
    });
    for (model, upstream) in [("iflow/tab-rt", "tab-rt"), ("amp-tab", "tab-rt"), ("amp-x", "m1")] {
        let line = format!("{}; tail -1 $ML | jq -r .b.model", status(model));
        site.types(&line).is(&format!("200 {upstream}"));
        let line =
            format!(r#"grep -h '"model":"{model}"' logs/*.log | grep -c '"resolved_model":"{upstream}"'"#);
        site.types_until(&line, |typed| typed.out == "1").is("1");
    }
}

#[test]
fn row_159_the_aggregator_serves_while_the_direct_provider_rests() {
    let calls = AtomicU32::new(0);
    let site = Site::with(
        |log| {
            Double::start_with(log, move |seen| {
                let direct = seen.header("authorization") == Some("Bearer kd");
                let limited = direct && calls.fetch_add(1, Ordering::Relaxed) == 1;
                limited.then(|| {
                    vec![Step::send("HTTP/1.1 429 X\r\nretry-after: 2\r\ncontent-length: 2\r\n\r\n{}")]
                })
            })
        },
        |setup| {
            setup.add(
                r#"  - {name: "direct", prefix: prod, priority: 10, base-url: "UPSTREAM/v1", api-key-entries: [{api-key: kd}], models: [{name: m1, alias: chat}]}
  - {name: "aggregator", prefix: prod, base-url: "UPSTREAM/v1", api-key-entries: [{api-key: ka}], models: [{name: m1, alias: chat}]}
"#,
            );
        },
    );
    let who = format!("{}; tail -1 $ML | jq -r .h.authorization", status("prod/chat"));
    site.types(&who).is("200 Bearer kd");
    site.types(&who).is("200 Bearer ka");
    site.types(&who).is("200 Bearer ka");
    site.types_until(&who, |typed| typed.out.ends_with("kd")).is("200 Bearer kd");
}
