//! Logins from the first step to the file, against answers that are played back.

use super::provider::PROVIDERS;
use super::*;
use std::collections::HashMap;

const NOW: u64 = 1_795_233_600;
/// `{"email":"e@f.test","sub":"subject","https://api.openai.com/auth":{"chatgpt_plan_type":"PLAN","chatgpt_account_id":"acc"}}`
fn identity(plan: &str) -> String {
    let claims = format!(
        r#"{{"email":"e@f.test","sub":"subject","https://api.openai.com/auth":{{"chatgpt_plan_type":"{plan}","chatgpt_account_id":"acc"}}}}"#
    );
    format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims))
}

fn random() -> Random {
    // RFC 7636, appendix B.
    let verifier = [
        116, 24, 223, 180, 151, 153, 224, 37, 79, 250, 96, 125, 216, 173, 187, 186, 22, 212, 37, 77, 105,
        214, 191, 240, 91, 88, 5, 88, 83, 132, 141, 121,
    ];
    Random { state: [7; 32], verifier }
}

fn begin(wish: &Wish) -> Result<(Login, Step), Failed> {
    Login::begin(wish, &Begin { base: None, client_secret: Some("canary-client"), random: &random() })
}

fn shown(step: Step) -> (Prompt, Option<Asked>) {
    let Step::Show(prompt, asked) = step else { panic!("{step:?}") };
    (prompt, asked)
}

fn asked(step: Result<Step, Failed>) -> Asked {
    match step {
        Ok(Step::Ask(asked) | Step::Show(_, Some(asked))) => asked,
        other => panic!("{other:?}"),
    }
}

fn done(step: Result<Step, Failed>) -> (String, serde_json::Value) {
    let Ok(Step::Done(file)) = step else { panic!("{step:?}") };
    let content = file.content(None).unwrap();
    let account = config::read_account(&file.name, &content).unwrap();
    assert!(!account.secret.is_empty());
    (file.name.clone(), serde_json::from_slice(&content).unwrap())
}

fn query(url: &str) -> HashMap<String, String> {
    Url::parse(url).unwrap().query_pairs().into_owned().collect()
}

fn body(asked: &Asked) -> &str {
    asked.request.body.expose_secret()
}

/// A login at which a code has come back.
fn with_code(wish: &Wish) -> (Login, Asked) {
    let (mut login, _) = begin(wish).unwrap();
    let returned = Returned::query(&format!("code=canary-code&state={}", login.state()));
    let asked = asked(login.returned(&returned));
    (login, asked)
}

#[test]
fn p62_the_challenge_is_that_of_the_rfc() {
    assert_eq!(URL_SAFE_NO_PAD.encode(random().verifier), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    assert_eq!(
        challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    );
}

#[test]
fn claude_from_the_page_to_the_file() {
    let (login, step) = begin(&Wish::of(Provider::Claude)).unwrap();
    let (prompt, none) = shown(step);
    assert!(none.is_none() && prompt.url.starts_with("https://claude.ai/oauth/authorize?"), "{}", prompt.url);
    let query = query(&prompt.url);
    for (key, value) in [
        ("code", "true"),
        ("client_id", "9d1c250a-e61b-44d9-88ed-5944d1962f5e"),
        ("response_type", "code"),
        ("redirect_uri", "http://localhost:54545/callback"),
        ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("code_challenge_method", "S256"),
        ("state", login.state()),
    ] {
        assert_eq!(query.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(query["scope"].contains("user:inference") && login.state().len() == 43);
    let (mut login, exchange) = with_code(&Wish::of(Provider::Claude));
    assert_eq!(exchange.request.url, "https://platform.claude.com/v1/oauth/token");
    let sent: serde_json::Value = serde_json::from_str(body(&exchange)).unwrap();
    assert_eq!(
        (sent["code"].as_str(), sent["grant_type"].as_str()),
        (Some("canary-code"), Some("authorization_code"))
    );
    assert_eq!(sent["code_verifier"], "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    assert_eq!(sent["state"].as_str(), Some(login.state()));
    let answer = r#"{"access_token":"at","refresh_token":"rt","expires_in":28800,"account":{"uuid":"u","email_address":"a@b.test"},"organization":{"uuid":"o","name":"n"}}"#;
    let (name, file) = done(login.answered(200, answer.as_bytes(), NOW));
    assert_eq!(name, "claude-a@b.test.json");
    assert_eq!(
        (&file["type"], &file["email"], &file["organization_uuid"]),
        (&"claude".into(), &"a@b.test".into(), &"o".into())
    );
    assert_eq!(file["expired"], "2026-11-21T12:00:00Z");
}

#[test]
fn claude_is_asked_whose_account_it_is_where_the_tokens_do_not_say() {
    let (mut login, _) = with_code(&Wish::of(Provider::Claude));
    let profile = asked(login.answered(200, br#"{"access_token":"at","refresh_token":"rt"}"#, NOW));
    assert_eq!(profile.request.url, "https://api.anthropic.com/api/oauth/profile");
    assert_eq!(profile.request.headers[0].1.expose_secret(), "Bearer at");
    let (name, _) = done(login.answered(200, br#"{"account":{"uuid":"u","email":"p@q"}}"#, NOW));
    assert_eq!(name, "claude-p@q.json");
    let (mut login, _) = with_code(&Wish::of(Provider::Claude));
    asked(login.answered(200, br#"{"access_token":"at"}"#, NOW));
    assert_eq!(login.answered(200, b"{}", NOW).unwrap_err().stage, Stage::Profile);
}

#[test]
fn codex_from_the_page_to_the_file() {
    let mut wish = Wish::of(Provider::Codex);
    wish.port = Some(4000);
    let (prompt, _) = shown(begin(&wish).unwrap().1);
    let query = query(&prompt.url);
    assert_eq!(query["redirect_uri"], "http://localhost:1455/auth/callback", "what is registered");
    assert!(query["codex_cli_simplified_flow"] == "true" && query["prompt"] == "login");
    for (plan, name) in [
        ("plus", "codex-e@f.test-plus.json".to_owned()),
        ("", "codex-e@f.test.json".to_owned()),
        ("team", format!("codex-{}-e@f.test-team.json", &account_file::digest("acc")[..8])),
    ] {
        let (mut login, exchange) = with_code(&wish);
        assert_eq!(exchange.request.url, "https://auth.openai.com/oauth/token");
        assert!(body(&exchange).contains("code=canary-code") && !body(&exchange).contains("state="));
        let answer =
            format!(r#"{{"access_token":"at","refresh_token":"rt","id_token":"{}"}}"#, identity(plan));
        let (found, file) = done(login.answered(200, answer.as_bytes(), NOW));
        assert_eq!(found, name);
        assert_eq!((&file["account_id"], &file["email"]), (&"acc".into(), &"e@f.test".into()));
    }
    let (mut login, _) = with_code(&wish);
    let nobody = login.answered(200, br#"{"access_token":"at"}"#, NOW).unwrap_err();
    assert_eq!(nobody.stage, Stage::Profile);
}

#[test]
fn codex_by_a_device_code() {
    let mut wish = Wish::of(Provider::Codex);
    wish.device = true;
    let (mut login, step) = begin(&wish).unwrap();
    let start = asked(Ok(step));
    assert_eq!(start.request.url, "https://auth.openai.com/api/accounts/deviceauth/usercode");
    let answer = br#"{"device_auth_id":"id","user_code":"ABCD-1234","interval":"7"}"#;
    let (prompt, poll) = shown(login.answered(200, answer, NOW).unwrap());
    assert_eq!(prompt.url, "https://auth.openai.com/codex/device");
    assert_eq!((prompt.user_code.as_deref(), prompt.expires_in_s), (Some("ABCD-1234"), Some(900)));
    assert_eq!(poll.unwrap().after_s, 7);
    for pending in [403, 404] {
        assert_eq!(asked(login.answered(pending, b"{}", NOW)).stage, Stage::Device);
    }
    let exchange = asked(login.answered(200, br#"{"authorization_code":"c","code_verifier":"v"}"#, NOW));
    assert!(body(&exchange).contains("code_verifier=v") && body(&exchange).contains("deviceauth%2Fcallback"));
    let answer = format!(r#"{{"access_token":"at","id_token":"{}"}}"#, identity("pro"));
    assert_eq!(done(login.answered(200, answer.as_bytes(), NOW)).0, "codex-e@f.test-pro.json");
}

/// Antigravity's login up to the question for the project.
fn google() -> Login {
    let (mut login, exchange) = with_code(&Wish::of(Provider::Antigravity));
    assert!(body(&exchange).contains("client_secret=canary-client"), "{}", body(&exchange));
    assert!(!body(&exchange).contains("code_verifier"));
    let user =
        asked(login.answered(200, br#"{"access_token":"at","refresh_token":"rt","expires_in":3599}"#, NOW));
    assert_eq!(user.request.url, "https://www.googleapis.com/oauth2/v2/userinfo?alt=json");
    let load = asked(login.answered(200, br#"{"email":"g@h.test"}"#, NOW));
    assert_eq!(load.request.url, "https://cloudcode-pa.googleapis.com/v1internal:loadCodeAssist");
    login
}

#[test]
fn antigravity_finds_its_project() {
    let mut wish = Wish::of(Provider::Antigravity);
    wish.port = Some(4000);
    let (prompt, _) = shown(begin(&wish).unwrap().1);
    assert_eq!(query(&prompt.url)["redirect_uri"], "http://localhost:4000/oauth-callback");
    assert_eq!(query(&prompt.url)["access_type"], "offline");
    for answer in [
        r#"{"cloudaicompanionProject":"p-1"}"#,
        r#"{"cloudaicompanionProject":{"id":"p-1"}}"#,
        r#"{"projectId":"p-1"}"#,
    ] {
        let (name, file) = done(google().answered(200, answer.as_bytes(), NOW));
        assert_eq!((name.as_str(), &file["project_id"]), ("antigravity-g@h.test.json", &"p-1".into()));
        assert_eq!((&file["expires_in"], &file["timestamp"]), (&3599.into(), &(NOW * 1000).into()));
    }
}

#[test]
fn antigravity_signs_up_for_a_project_and_gives_up_after_five_tries() {
    let mut login = google();
    let load = br#"{"allowedTiers":[{"id":"a"},{"id":"b","isDefault":true}]}"#;
    let first = asked(login.answered(200, load, NOW));
    assert_eq!(first.request.url, "https://daily-cloudcode-pa.googleapis.com/v1internal:onboardUser");
    assert!(body(&first).contains(r#""tier_id":"b""#) && first.after_s == 0);
    let second = asked(login.answered(200, br#"{"name":"op"}"#, NOW));
    assert_eq!(second.after_s, 2);
    let answer = br#"{"done":true,"response":{"cloudaicompanionProject":{"id":"p-2"}}}"#;
    assert_eq!(done(login.answered(200, answer, NOW)).1["project_id"], "p-2");
    let mut login = google();
    asked(login.answered(200, b"{}", NOW));
    for _ in 0..4 {
        asked(login.answered(200, br#"{"done":false}"#, NOW));
    }
    let failed = login.answered(200, br#"{"done":false}"#, NOW).unwrap_err();
    assert!(failed.stage == Stage::Project && failed.cause.contains("missing project_id"), "{failed}");
}

#[test]
fn row_141_errors_name_the_step() {
    let refused = br#"{"error":"invalid_grant","error_description":"Bad code canary-code"}"#;
    let (mut login, _) = with_code(&Wish::of(Provider::Antigravity));
    let failed = login.answered(400, refused, NOW).unwrap_err().to_string();
    assert_eq!(
        failed,
        "Failed to exchange authorization code for tokens: status 400: invalid_grant: Bad code …"
    );
    let mut login = google();
    let failed = login.answered(403, br#"{"error":{"message":"no"}}"#, NOW).unwrap_err().to_string();
    assert!(
        failed.starts_with("Failed to find the project of the account") && failed.ends_with("no"),
        "{failed}"
    );
    let (mut login, _) = with_code(&Wish::of(Provider::Antigravity));
    asked(login.answered(200, br#"{"access_token":"at"}"#, NOW));
    let failed = login.answered(500, b"", NOW).unwrap_err().to_string();
    assert!(failed.contains("userinfo"), "{failed}");
    let (mut login, _) = with_code(&Wish::of(Provider::Claude));
    let failed = login.lost("proxy 127.0.0.1:1: refused", NOW).unwrap_err().to_string();
    assert_eq!(failed, "Failed to exchange authorization code for tokens: proxy 127.0.0.1:1: refused");
    let none = Begin { base: None, client_secret: None, random: &random() };
    let failed = Login::begin(&Wish::of(Provider::Antigravity), &none).unwrap_err().to_string();
    assert!(failed.contains("CLIPROXY_ANTIGRAVITY_CLIENT_SECRET"), "{failed}");
}

#[test]
fn p62_a_code_of_another_login_or_none_is_refused() {
    for (text, says) in [
        ("code=c&state=other", "another login"),
        ("code=c", "another login"),
        ("state=STATE", "no code"),
        ("code=&state=STATE", "no code"),
        ("error=access_denied&error_description=<script>&state=STATE", "access_denied: <script>"),
    ] {
        let (mut login, _) = begin(&Wish::of(Provider::Claude)).unwrap();
        let text = text.replace("STATE", login.state());
        let failed = login.returned(&Returned::query(&text)).unwrap_err();
        assert!(failed.stage == Stage::Authorize && failed.cause.contains(says), "{text}: {failed}");
    }
    let (mut login, _) = begin(&Wish::of(Provider::Kimi)).unwrap();
    let returned = Returned::query(&format!("code=c&state={}", login.state()));
    assert!(login.returned(&returned).is_err(), "a device login takes no code");
}

/// The step after the start of a device login.
fn started(provider: Provider, more: &str) -> (Login, Prompt, Asked) {
    let (mut login, step) = begin(&Wish::of(provider)).unwrap();
    let mut first = asked(Ok(step));
    if provider == Provider::Xai {
        let own = r#"{"device_authorization_endpoint":"https://auth.x.ai/oauth2/device/code","token_endpoint":"https://auth.x.ai/oauth2/token"}"#;
        first = asked(login.answered(200, own.as_bytes(), NOW));
    }
    assert_eq!(first.stage, Stage::Start);
    let answer = format!(
        r#"{{"device_code":"canary-device","user_code":"AB-12","verification_uri":"https://v.test/d","expires_in":600{more}}}"#
    );
    let (prompt, poll) = shown(login.answered(200, answer.as_bytes(), NOW).unwrap());
    (login, prompt, poll.unwrap())
}

#[test]
fn device_logins_poll_until_the_user_is_done() {
    for (provider, host, name) in [
        (Provider::Kimi, "https://auth.kimi.com/api/oauth/token", "kimi-1795233600000.json"),
        (Provider::Qwen, "https://chat.qwen.ai/api/v1/oauth2/token", "qwen-1795233600000.json"),
        (Provider::Xai, "https://auth.x.ai/oauth2/token", "xai-1795233600000.json"),
    ] {
        let (mut login, prompt, poll) = started(provider, r#","interval":1"#);
        assert_eq!((prompt.url.as_str(), prompt.user_code.as_deref()), ("https://v.test/d", Some("AB-12")));
        assert_eq!((poll.request.url.as_str(), poll.after_s), (host, 5), "not below five seconds");
        assert_eq!(body(&poll).contains("code_verifier="), provider == Provider::Qwen);
        let pending = br#"{"error":"authorization_pending"}"#;
        assert_eq!(asked(login.answered(400, pending, NOW)).after_s, 5);
        assert_eq!(asked(login.answered(400, br#"{"error":"slow_down"}"#, NOW)).after_s, 10);
        assert_eq!(asked(login.answered(400, pending, NOW)).after_s, 10, "it stays slow");
        let (found, file) =
            done(login.answered(200, br#"{"access_token":"at","refresh_token":"rt","expires_in":900}"#, NOW));
        assert_eq!((found.as_str(), file["type"].as_str()), (name, Some(provider.channel())));
    }
    let (mut login, ..) = started(Provider::Xai, "");
    let answer = format!(r#"{{"access_token":"at","id_token":"{}"}}"#, identity(""));
    let (name, file) = done(login.answered(200, answer.as_bytes(), NOW));
    assert_eq!(
        (name.as_str(), &file["token_endpoint"]),
        ("xai-e@f.test.json", &"https://auth.x.ai/oauth2/token".into())
    );
    let (mut login, ..) = started(Provider::Kimi, "");
    let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(r#"{"sub":"me"}"#));
    let answer = format!(r#"{{"access_token":"{token}"}}"#);
    let digest = account_file::digest("me");
    assert_eq!(done(login.answered(200, answer.as_bytes(), NOW)).0, format!("kimi-{digest}.json"));
}

#[test]
fn github_is_asked_for_the_name() {
    let (mut login, _, poll) = started(Provider::Copilot, "");
    assert_eq!(poll.request.url, "https://github.com/login/oauth/access_token");
    let user = asked(login.answered(
        200,
        br#"{"access_token":"gho","token_type":"bearer","scope":"read:user"}"#,
        NOW,
    ));
    assert_eq!(user.request.headers[0].1.expose_secret(), "token gho");
    let (name, file) = done(login.answered(200, br#"{"login":"octo"}"#, NOW));
    assert_eq!((name.as_str(), &file["username"]), ("github-copilot-octo.json", &"octo".into()));
}

#[test]
fn device_logins_end_when_they_are_refused_and_survive_a_lost_poll() {
    let (mut login, ..) = started(Provider::Kimi, "");
    let failed = login.answered(400, br#"{"error":"access_denied"}"#, NOW).unwrap_err();
    assert_eq!(failed.stage, Stage::Authorize);
    let (mut login, ..) = started(Provider::Kimi, "");
    for lost in 0..4 {
        let step =
            if lost % 2 == 0 { login.lost("no route", NOW) } else { login.answered(502, b"<html>", NOW) };
        assert_eq!(asked(step).after_s, 5);
    }
    let failed = login.lost("no route", NOW).unwrap_err();
    assert_eq!((failed.stage, failed.cause.as_str()), (Stage::Device, "no route"));
    assert!(login.answered(200, b"{}", NOW).is_err(), "it is over");
}

#[test]
fn p62_pages_of_providers_are_pages() {
    for page in
        ["javascript:alert(1)", "http://v.test", "file:///etc/passwd", "data:text/html,x", "", "https://"]
    {
        let (mut login, _) = begin(&Wish::of(Provider::Kimi)).unwrap();
        let answer = format!(r#"{{"device_code":"d","user_code":"AB","verification_uri":"{page}"}}"#);
        assert_eq!(login.answered(200, answer.as_bytes(), NOW).unwrap_err().stage, Stage::Start, "{page}");
    }
    for endpoint in [
        "https://evil.test/token",
        "https://x.ai.evil.test/t",
        "http://auth.x.ai/t",
        "https://auth.x.ai@evil.test/",
    ] {
        let (mut login, _) = begin(&Wish::of(Provider::Xai)).unwrap();
        let found = format!(
            r#"{{"device_authorization_endpoint":"https://auth.x.ai/d","token_endpoint":"{endpoint}"}}"#
        );
        assert_eq!(login.answered(200, found.as_bytes(), NOW).unwrap_err().stage, Stage::Start, "{endpoint}");
    }
}

#[test]
fn kiro_registers_and_polls_at_aws() {
    let company =
        Organisation { start_url: "https://acme.awsapps.com/start".into(), region: "eu-west-1".into() };
    for (organisation, host, method) in [
        (None, "https://oidc.us-east-1.amazonaws.com", "builder-id"),
        (Some(company), "https://oidc.eu-west-1.amazonaws.com", "idc"),
    ] {
        let wish = Wish { organisation, ..Wish::of(Provider::Kiro) };
        let (mut login, step) = begin(&wish).unwrap();
        let register = asked(Ok(step));
        assert_eq!(register.request.url, format!("{host}/client/register"));
        assert!(body(&register).contains(r#""clientName":"cliproxy""#), "we say who we are");
        let start = asked(login.answered(200, br#"{"clientId":"id","clientSecret":"canary-cs"}"#, NOW));
        assert_eq!(start.request.url, format!("{host}/device_authorization"));
        let answer = br#"{"deviceCode":"d","userCode":"WX-YZ","verificationUri":"https://d.test/","verificationUriComplete":"https://d.test/?user_code=WX-YZ","expiresIn":600,"interval":1}"#;
        let (prompt, poll) = shown(login.answered(200, answer, NOW).unwrap());
        assert_eq!(prompt.url, "https://d.test/?user_code=WX-YZ");
        assert!(body(&poll.unwrap()).contains("urn:ietf:params:oauth:grant-type:device_code"));
        asked(login.answered(400, br#"{"error":"authorization_pending"}"#, NOW));
        let usage =
            asked(login.answered(200, br#"{"accessToken":"at","refreshToken":"rt","expiresIn":3600}"#, NOW));
        assert!(usage.request.url.contains("isEmailRequired=true"));
        let (name, file) = done(login.answered(200, br#"{"userInfo":{"email":"k@l.test"}}"#, NOW));
        assert_eq!(name, format!("kiro-{method}-k-l-test.json"));
        assert_eq!((&file["auth_method"], &file["client_secret"]), (&method.into(), &"canary-cs".into()));
        assert_eq!(file["expires_at"], "2026-11-21T05:00:00Z");
    }
    for (start_url, region) in [
        ("http://acme.awsapps.com/start", ""),
        ("https://127.0.0.1/start", ""),
        ("https://localhost/start", ""),
        ("https://acme.awsapps.com/start", "x.evil.test/"),
        ("", ""),
    ] {
        let organisation = Some(Organisation { start_url: start_url.into(), region: region.into() });
        assert!(begin(&Wish { organisation, ..Wish::of(Provider::Kiro) }).is_err(), "{start_url} {region}");
    }
}

#[test]
fn kiros_refresh_tokens_are_imported_also_when_nobody_says_whose_they_are() {
    let import = |token: &str| Wish { import: Some(token.into()), ..Wish::of(Provider::Kiro) };
    assert!(begin(&import("canary")).unwrap_err().to_string().contains("aorAAAAAG"));
    let (mut login, step) = begin(&import(" aorAAAAAGcanary\n")).unwrap();
    let exchange = asked(Ok(step));
    assert_eq!(body(&exchange), r#"{"refreshToken":"aorAAAAAGcanary"}"#);
    let answer = br#"{"accessToken":"at","refreshToken":"rt2","profileArn":"arn:aws:codewhisperer:us-east-1:1:profile/X"}"#;
    asked(login.answered(200, answer, NOW));
    let (name, file) = done(login.lost("no route", NOW));
    assert_eq!(name, format!("kiro-social-{}.json", account_file::digest("rt2")));
    assert_eq!((&file["auth_method"], &file["refresh_token"]), (&"social".into(), &"rt2".into()));
}

#[test]
fn one_address_stands_for_all_hosts_of_a_login() {
    let base = Url::parse("http://127.0.0.1:9/x").unwrap();
    let with = Begin { base: Some(&base), client_secret: None, random: &random() };
    let (_, step) = Login::begin(&Wish::of(Provider::Claude), &with).unwrap();
    assert!(shown(step).0.url.starts_with("http://127.0.0.1:9/oauth/authorize?"));
    for provider in [Provider::Kimi, Provider::Qwen, Provider::Xai, Provider::Copilot, Provider::Kiro] {
        let (_, step) = Login::begin(&Wish::of(provider), &with).unwrap();
        let url = asked(Ok(step)).request.url;
        assert!(url.starts_with("http://127.0.0.1:9/"), "{url}");
    }
}

#[test]
fn p53_nothing_of_a_login_shows_a_secret() {
    let (login, exchange) = with_code(&Wish::of(Provider::Antigravity));
    let (_, _, poll) = started(Provider::Kimi, "");
    let text = format!("{login:?} {exchange:?} {poll:?} {:?}", random());
    assert!(!text.contains("canary") && !text.contains("dBjft"), "{text}");
}

#[test]
fn p53_a_provider_that_repeats_what_it_was_sent_shows_no_secret() {
    let pad = "x".repeat(280);
    let import = Wish { import: Some("aorAAAAAGcanary-refresh".into()), ..Wish::of(Provider::Kiro) };
    let (imported, step) = begin(&import).unwrap();
    let (device, _, poll) = started(Provider::Qwen, "");
    let (coded, exchange) = with_code(&Wish::of(Provider::Antigravity));
    for (mut login, asked) in [(imported, asked(Ok(step))), (device, poll), (coded, exchange)] {
        for told in ["", &pad] {
            let said = format!("{told}{}", body(&asked));
            let answer = serde_json::json!({"error": "bad", "error_description": said}).to_string();
            let failed = login.answered(400, answer.as_bytes(), NOW).unwrap_err();
            let text = failed.to_string();
            assert!(failed.cause.chars().count() <= 300, "{text}");
            assert!(!["canary", "aorAAA", "dBjft"].iter().any(|part| text.contains(part)), "{text}");
            login.asked = Some(asked.clone());
        }
    }
}

#[test]
fn garbage_ends_a_login_and_nothing_else() {
    let junk: [&[u8]; 6] = [b"", b"{", b"[]", b"null", b"\xff\xfe", br#"{"access_token":5,"account":"x"}"#];
    for provider in PROVIDERS.map(|(provider, _, _)| provider) {
        for body in junk {
            for status in [0, 200, 302, 400, 500] {
                let (mut login, step) = begin(&Wish::of(provider)).unwrap();
                if matches!(step, Step::Show(..)) {
                    let back = Returned::query(&format!("code=c&state={}", login.state()));
                    asked(login.returned(&back));
                }
                assert!(login.answered(status, body, NOW).is_err(), "{provider:?} {status}");
            }
        }
    }
}

#[test]
fn providers_have_names() {
    for (name, provider) in [
        ("anthropic", Provider::Claude),
        (" Codex", Provider::Codex),
        ("github", Provider::Copilot),
        ("grok", Provider::Xai),
    ] {
        assert_eq!(Provider::named(name), Some(provider));
    }
    assert_eq!((Provider::named("iflow"), Provider::Kimi.callback()), (None, None));
    assert_eq!(Provider::Codex.callback(), Some(Callback { port: 1455, path: "/auth/callback" }));
}
