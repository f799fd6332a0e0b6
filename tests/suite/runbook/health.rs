//! Section A of the checklist: health, inventory, metrics, logs.

use super::Site;
use serde_json::json;

#[test]
fn row_01_health_answers_without_a_key() {
    let health = Site::shared().types("curl -sS $B/health").json();
    assert_eq!(health["status"], "ok");
    assert!(health["version"].is_string() && health["uptime_seconds"].is_u64(), "{health}");
    assert!(health["models"].as_u64() > Some(0), "{health}");
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
