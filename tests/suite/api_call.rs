//! Questions to others on behalf of an operator, and accounts made of Google's key files.

use crate::management::{ON, SECRET, config_text, manage, send};
use crate::reload::until;
use crate::shared::{chat_keys, proxy, whole};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use testkit::proxy::Proxy;
use testkit::upstream::{Step, Upstream, json as answer};

fn call(proxy: &Proxy, body: &Value) -> (u16, Value) {
    let told = manage(proxy, "POST", "api-call", &body.to_string());
    (told.head.status, told.json())
}

/// The index of the only credential.
fn index(proxy: &Proxy) -> String {
    let quota = manage(proxy, "GET", "quota", "").json();
    quota["quota"][0]["auth_index"].as_str().expect("an index").to_owned()
}

#[test]
fn p59_api_call_goes_into_no_private_network_and_takes_no_odd_address() {
    let inside = Upstream::start(|_| vec![answer(200, r#"{"inside":true}"#)]);
    let proxy = proxy(&format!("{ON}{}", chat_keys("http://192.0.2.1", &["key-canary"])));
    let port = inside.url().rsplit(':').next().expect("a port").to_owned();
    let refused = [
        (403, "http://127.0.0.1:PORT/"),
        (403, "http://127.1:PORT/"),
        (403, "http://2130706433:PORT/"),
        (403, "http://0x7f000001:PORT/"),
        (403, "http://0177.0.0.1:PORT/"),
        (403, "http://0x7f.1:PORT/"),
        (403, "http://127.0.0.1.:PORT/"),
        (403, "http://127.9.9.9:PORT/"),
        (403, "http://0.0.0.0:PORT/"),
        (403, "http://0:PORT/"),
        (403, "http://localhost:PORT/"),
        (403, "http://LOCALHOST.:PORT/"),
        (403, "http://[::1]:PORT/"),
        (403, "http://[::]:PORT/"),
        (403, "http://[0:0:0:0:0:0:0:1]:PORT/"),
        (403, "http://[::ffff:127.0.0.1]:PORT/"),
        (403, "http://[::ffff:7f00:1]:PORT/"),
        (403, "http://[::127.0.0.1]:PORT/"),
        (403, "http://[64:ff9b::7f00:1]:PORT/"),
        (403, "http://[2002:7f00:1::]:PORT/"),
        (403, "http://%31%32%37.0.0.1:PORT/"),
        (403, "http://①②⑦.0.0.1:PORT/"),
        (403, "http://169.254.169.254/latest/meta-data/"),
        (403, "http://2852039166/latest/meta-data/"),
        (403, "http://[fd00:ec2::254]/latest/meta-data/"),
        (403, "http://[::ffff:169.254.169.254]/"),
        (403, "http://[fe80::1]/"),
        (403, "http://100.100.100.200/"),
        (403, "http://10.0.0.1/"),
        (403, "http://172.16.0.1/"),
        (403, "http://192.168.1.1/"),
        (403, "http://100.64.0.1/"),
        (403, "http://[fc00::1]/"),
        (403, "http://224.0.0.1/"),
        (403, "http://255.255.255.255/"),
        (400, "http://user@127.0.0.1:PORT/"),
        (400, "http://user:pass@api.test/"),
        (400, "file:///etc/passwd"),
        (400, "ftp://127.0.0.1/"),
        (400, "gopher://127.0.0.1:PORT/_x"),
        (400, "http:\\\\127.0.0.1:PORT/"),
        (400, "http://127.0.0.1 :PORT/"),
        (400, "http://a\nb/"),
        (400, "//127.0.0.1:PORT/"),
        (400, "127.0.0.1:PORT"),
        (400, ""),
    ];
    for (status, url) in refused {
        let url = url.replace("PORT", &port);
        let (found, told) = call(&proxy, &json!({ "method": "GET", "url": url }));
        assert_eq!(found, status, "{url}: {told}");
        assert!(told["error"].is_string() && !told.to_string().contains("inside"), "{url}: {told}");
    }
    assert_eq!(inside.connections(), 0, "nobody came in");
    for proxy_url in [
        inside.url(),
        "socks5://127.0.0.1:1".to_owned(),
        "http://169.254.169.254".to_owned(),
        "ftp://h".to_owned(),
    ] {
        let body = json!({ "method": "GET", "url": "https://192.0.2.9/", "proxy_url": proxy_url });
        assert_eq!(call(&proxy, &body).0, 400, "{proxy_url}");
    }
    assert_eq!(inside.connections(), 0);
}

#[test]
fn p59_a_token_goes_to_its_provider_and_comes_back_from_nowhere() {
    let upstream = Upstream::start(|seen| match seen.path.as_str() {
        "/moved" => vec![Step::send(
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        )],
        "/large" => vec![answer(200, &"x".repeat((1 << 20) + 1))],
        "/echo" => {
            let sent = seen.header("authorization").unwrap_or_default().to_owned();
            vec![answer(
                200,
                &json!({ "sent": sent, "body": String::from_utf8_lossy(&seen.body) }).to_string(),
            )]
        }
        path => whole(path),
    });
    let other = Upstream::start(|_| vec![answer(200, "{}")]);
    let proxy = proxy(&format!("{ON}{}", chat_keys(&upstream.url(), &["upstream-canary-key"])));
    let index = index(&proxy);
    let ask = |url: String, more: Value| {
        let mut body = json!({ "auth_index": index, "method": "POST", "url": url });
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        call(&proxy, &body)
    };
    let bearer =
        json!({ "header": { "Authorization": "Bearer $TOKEN$", "Host": "evil.test" }, "data": "hi" });
    let (status, told) = ask(format!("{}/echo", upstream.url()), bearer.clone());
    assert_eq!((status, &told["status_code"]), (200, &json!(200)), "{told}");
    let sent: Value = serde_json::from_str(told["body"].as_str().expect("a body")).expect("JSON");
    assert_eq!((&sent["sent"], &sent["body"]), (&json!("Bearer ********"), &json!("hi")));
    assert_eq!(told["header"]["Content-Type"][0], "application/json");
    let seen = upstream.seen();
    let echo = seen.iter().find(|seen| seen.path == "/echo").expect("it was asked");
    assert_eq!(echo.header("authorization"), Some("Bearer upstream-canary-key"));
    assert_ne!(echo.header("host"), Some("evil.test"));
    for stranger in [
        format!("{}/x", other.url()),
        "https://192.0.2.1/".to_owned(),
        upstream.url().replace("http:", "https:"),
    ] {
        let (status, told) = ask(stranger.clone(), bearer.clone());
        assert_eq!(status, 400, "{stranger}: {told}");
        assert!(told["error"].as_str().is_some_and(|why| why.contains("provider")), "{told}");
    }
    assert_eq!(other.connections(), 0);
    let nobody = json!({ "url": upstream.url(), "header": { "x": "$TOKEN$" } });
    assert_eq!(call(&proxy, &nobody).0, 400);
    assert_eq!(call(&proxy, &json!({ "auth_index": "0000000000000000", "url": upstream.url() })).0, 404);
    let (status, told) = ask(format!("{}/moved", upstream.url()), json!({ "method": "GET" }));
    assert_eq!((status, &told["status_code"]), (200, &json!(302)), "redirects are answers: {told}");
    assert_eq!(ask(format!("{}/large", upstream.url()), json!({})).0, 502);
    let listed = "remote-management: {api-call-hosts: [\"127.0.0.1\"], ";
    let list = config_text(&proxy).replace("remote-management: {", listed);
    assert_eq!(manage(&proxy, "PUT", "config.yaml", &list).head.status, 200);
    assert_eq!(ask(other.url(), json!({})).0, 200, "the operator lists it");
    assert_eq!(ask(other.url(), bearer).0, 400, "but not for tokens");
    assert!(!proxy.log().contains("canary"));
}

#[test]
fn the_newest_version_is_told_by_whom_the_operator_names() {
    let upstream = Upstream::start(|seen| match seen.path.as_str() {
        "/good" => vec![answer(200, r#"{"tag_name":"v9.9.9"}"#)],
        "/bad" => vec![answer(200, "<html>")],
        _ => vec![answer(503, "{}")],
    });
    let proxy = proxy(ON);
    let none = manage(&proxy, "GET", "latest-version", "");
    assert_eq!((none.head.status, &none.json()["error"]), (501, &json!("not_configured")));
    assert!(until(|| config_text(&proxy).contains("$2b$")));
    let original = config_text(&proxy);
    for (path, status, told) in
        [("good", 200, "v9.9.9"), ("bad", 502, "invalid_response"), ("gone", 502, "unexpected_status")]
    {
        let put = original.replace(
            "remote-management: {",
            &format!("remote-management: {{release-url: \"{}/{path}\", ", upstream.url()),
        );
        assert_eq!(manage(&proxy, "PUT", "config.yaml", &put).head.status, 200);
        let found = manage(&proxy, "GET", "latest-version", "");
        assert_eq!(found.head.status, status, "{}", found.text());
        let body = found.json();
        let word = if status == 200 { &body["latest-version"] } else { &body["error"] };
        assert_eq!(word, told);
        assert_eq!(status == 200, body["message"].is_null(), "{body}");
    }
    let resolved = manage(&proxy, "GET", "resolve?model=m", "");
    assert_eq!(resolved.json(), manage(&proxy, "GET", "routing/explain?model=m", "").json());
}

/// A form with these fields.
fn form(proxy: &Proxy, fields: &[(&str, &str)]) -> testkit::client::Answer {
    let part = |(name, value): &(&str, &str)| {
        let file = if *name == "file" { "; filename=\"key.json\"" } else { "" };
        format!("--XX\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n")
    };
    let body = fields.iter().map(part).collect::<String>() + "--XX--\r\n";
    let headers = [("x-management-key", SECRET), ("content-type", "multipart/form-data; boundary=XX")];
    send(proxy, "POST", "/v0/management/vertex/import", &headers, &body)
}

#[test]
fn a_key_file_of_google_becomes_an_account() {
    let proxy = proxy(ON);
    let made = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output();
    let Some(made) = made.ok().filter(|made| made.status.success()) else {
        eprintln!("not run: openssl makes no key here");
        return;
    };
    let pem = String::from_utf8(made.stdout).expect("PEM");
    let key = |project: &str| {
        json!({ "type": "service_account", "project_id": project, "client_email": "a@p.test", "private_key": pem, "own": 1 })
            .to_string()
    };
    let told = form(&proxy, &[("file", &key("p-1")), ("location", "europe-west4")]);
    assert_eq!(
        (told.head.status, told.json()),
        (
            200,
            json!({"status": "ok", "auth-file": "vertex-p-1.json", "project_id": "p-1", "email": "a@p.test", "location": "europe-west4"})
        )
    );
    let path = proxy.folder().join("auths/vertex-p-1.json");
    assert_eq!(std::fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
    let file: Value = serde_json::from_slice(&std::fs::read(&path).expect("the file")).expect("JSON");
    assert_eq!((&file["service_account"]["own"], &file["type"]), (&json!(1), &json!("vertex")));
    assert_eq!(manage(&proxy, "GET", "auth-files", "").json()[0]["status"], "active");
    for (fields, why) in [
        (&[("file", "{}")][..], "no key"),
        (&[("location", "x")], "no file"),
        (&[("file", &key("../p"))], "a project that leads elsewhere"),
        (&[("file", &key("p-1")), ("location", "x/../y")], "a location that does"),
    ] {
        let told = form(&proxy, fields);
        assert_eq!(told.head.status, 400, "{why}: {}", told.text());
        assert!(!told.text().contains("PRIVATE"));
    }
    assert_eq!(manage(&proxy, "POST", "vertex/import", "{}").head.status, 400);
    assert_eq!(std::fs::read_dir(proxy.folder().join("auths")).expect("the folder").count(), 1);
}
