//! The files of a server under test: a configuration with every kind of provider, and an account of each kind.
//!
//! Enters: the server's folder, its ports, where the double of the providers is. Leaves: text, until
//! [`Setup::write`].

use base64::Engine;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// An end that no test reaches.
const FAR: &str = "2036-01-01T00:00:00Z";

/// Files before they are written.
pub(crate) struct Setup {
    /// `config.yaml`
    pub config: String,
    /// Names and texts of the account files.
    pub accounts: Vec<(String, String)>,
    /// `http://127.0.0.1:port` of the double.
    pub upstream: String,
}

impl Setup {
    /// The usual ones.
    pub(crate) fn new(folder: &Path, port: u16, metrics: u16, upstream: &str) -> Self {
        let config = CONFIG
            .replace("FOLDER", &folder.display().to_string())
            .replace("METRICS", &metrics.to_string())
            .replace("PROXY", upstream.trim_start_matches("http://"))
            .replace("PORT", &port.to_string())
            .replace("UPSTREAM", upstream);
        Self { config, accounts: accounts(upstream), upstream: upstream.to_owned() }
    }

    /// Puts `new` in the place of `old`, which has to be there.
    pub(crate) fn replace(&mut self, old: &str, new: &str) -> &mut Self {
        assert!(self.config.contains(old), "the configuration has no {old:?}");
        self.config = self.config.replace(old, new);
        self
    }

    /// Takes a key of the top and what belongs to it out.
    pub(crate) fn without(&mut self, key: &str) -> &mut Self {
        let begin = format!("{key}:");
        assert!(self.config.lines().any(|line| line.starts_with(&begin)), "the configuration has no {key}");
        let mut inside = false;
        let kept = self.config.lines().filter(|line| {
            if !line.starts_with(' ') {
                inside = line.starts_with(&begin);
            }
            !inside
        });
        self.config = kept.map(|line| format!("{line}\n")).collect();
        self
    }

    /// Adds text at the end; `UPSTREAM` in it is the double.
    pub(crate) fn add(&mut self, text: &str) -> &mut Self {
        self.config.push_str(&text.replace("UPSTREAM", &self.upstream));
        self
    }

    /// Keeps these accounts only.
    pub(crate) fn only(&mut self, names: &[&str]) -> &mut Self {
        self.accounts.retain(|(name, _)| names.contains(&name.as_str()));
        assert_eq!(self.accounts.len(), names.len(), "there is an account with each of these names");
        self
    }

    /// Adds an account at the double, or where its `base_url` says.
    pub(crate) fn account(&mut self, name: &str, mut account: Value) -> &mut Self {
        if account.get("base_url").is_none() {
            account["base_url"] = json!(self.upstream);
        }
        self.accounts.push((name.to_owned(), account.to_string()));
        self
    }

    /// Writes them; the path of the configuration.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let accounts = folder.join("auths");
        std::fs::create_dir_all(&accounts).expect("the folder can be made");
        for (name, text) in &self.accounts {
            std::fs::write(accounts.join(name), text).expect("the account can be written");
        }
        let file = folder.join("config.yaml");
        std::fs::write(&file, &self.config).expect("the configuration can be written");
        file
    }
}

const CONFIG: &str = r#"host: "127.0.0.1"
port: PORT
auth-dir: "FOLDER/auths"
api-keys: ["client-test", "  padded-key  "]
remote-management: {allow-remote: false, secret-key: "mgmt-test", disable-control-panel: true}
metrics: {listen: "127.0.0.1:METRICS"}
debug: true
logging-to-file: true
usage-statistics-enabled: true
request-retry: 1
oauth-model-alias:
  antigravity:
    - {name: claude-opus-4-6-thinking, alias: gemini-claude-opus-4-6-thinking, fork: true}
gemini-api-key:
  - api-key: "gk"
    prefix: "gemini"
    base-url: "UPSTREAM"
    models:
      - {name: gemini-3-pro-preview, alias: gemini-3-pro-preview}
      - {name: gemini-3-pro-preview, alias: 3-pro-preview}
      - {name: gemini-3-pro-image-preview, alias: image-preview}
      - {name: gemini-2.5-pro, alias: 2.5-pro}
      - {name: banana-empty, alias: banana-empty}
codex-api-key:
  - api-key: "spark-ok"
    base-url: "UPSTREAM"
    models: [{name: gpt-5.1-codex, alias: gpt-5.1-codex}, {name: gpt-5.3-codex, alias: gpt-5.3-codex}]
claude-api-key:
  - {api-key: "clk", base-url: "UPSTREAM"}
openai-compatibility:
  - name: "mock"
    prefix: "team-a"
    base-url: "UPSTREAM/v1"
    api-key-entries: [{api-key: "k1"}, {api-key: "k2"}]
    models: [{name: m1, alias: fast}, {name: err401, alias: err401}, {name: err403, alias: err403}, {name: err429, alias: err429}]
  - name: "proxied"
    prefix: "px"
    base-url: "UPSTREAM/v1"
    api-key-entries: [{api-key: "kp", proxy-url: "http://u:p@PROXY"}]
    models: [{name: m1, alias: good-proxy}]
  - name: "badproxy"
    prefix: "px"
    base-url: "UPSTREAM/v1"
    api-key-entries: [{api-key: "kb", proxy-url: "ftp://127.0.0.1:9"}]
    models: [{name: m1, alias: bad-proxy}]
  - name: "cold"
    prefix: "cold"
    base-url: "UPSTREAM/v1"
    api-key-entries: [{api-key: "kc"}]
    models: [{name: m1, alias: ok}, {name: err403, alias: err403}, {name: m1, alias: renamed-0}]
  - name: "iflow"
    prefix: "iflow"
    base-url: "UPSTREAM/v1"
    api-key-entries: [{api-key: "ik"}]
    models:
      - {name: glm-4.7, alias: glm-4.7}
      - {name: minimax-m2.5, alias: minimax-m2.5}
      - {name: err406, alias: err406}
      - {name: tab-rt, alias: tab-rt}
      - {name: gemini-2.5-flash, alias: gemini-2.5-flash}
"#;

/// One account of each kind, two of Kiro and of Codex, and a file that is no account.
fn accounts(upstream: &str) -> Vec<(String, String)> {
    let chat = format!("{upstream}/v1");
    let kiro = |letter: &str, token: &str| {
        json!({
            "type": "kiro", "access_token": token, "refresh_token": "r", "auth_method": "social",
            "profile_arn": format!("arn:aws:codewhisperer:us-east-1:000000000000:profile/{letter}"),
            "provider": "Google", "email": format!("{letter}@b.test"), "expires_at": FAR,
            "base_url": upstream,
        })
    };
    let codex = |plan: &str| {
        let email = format!("{plan}@b.test");
        let auth = json!({"chatgpt_plan_type": plan, "chatgpt_account_id": format!("acc-{plan}")});
        json!({
            "type": "codex", "access_token": format!("codex-{plan}"), "refresh_token": "r",
            "account_id": format!("acc-{plan}"), "email": email, "expired": FAR,
            "last_refresh": "2030-01-01T00:00:00Z", "base_url": upstream,
            "id_token": unsigned(&json!({"email": email, "https://api.openai.com/auth": auth})),
        })
    };
    let antigravity = json!({
        "type": "antigravity", "access_token": "ag", "refresh_token": "r", "expires_in": 3599,
        "timestamp": 2_082_758_400_000_u64, "expired": FAR, "email": "a@b.test", "project_id": "p1",
        "base_url": upstream, "prefix": "antigravity",
    });
    let copilot = json!({
        "type": "github-copilot", "access_token": "gho-double", "token_type": "bearer",
        "scope": "read:user user:email", "username": "u", "base_url": upstream,
    });
    let iflow = json!({
        "type": "iflow", "access_token": "ia", "refresh_token": "r", "api_key": "ik", "email": "a@b.test",
        "expired": "2036-01-01 00:00", "base_url": chat, "prefix": "iflow",
    });
    let qwen = json!({
        "type": "qwen", "access_token": "qa", "refresh_token": "r", "expired": FAR, "email": "a@b.test",
        "base_url": chat,
    });
    let all = [
        ("antigravity-a_b.json", antigravity),
        ("kiro-aws-a.json", kiro("a", "kiro-a")),
        ("kiro-aws-b.json", kiro("b", "kiro-exhausted")),
        ("github-copilot-u.json", copilot),
        ("gemini-auth.json", json!({"type": "gemini", "api_key": "gk-file", "base_url": upstream})),
        ("iflow-a.json", iflow),
        ("qwen-a.json", qwen),
        ("codex-plus.json", codex("plus")),
        ("codex-team.json", codex("team")),
    ];
    let mut all: Vec<_> = all.into_iter().map(|(name, v)| (name.to_owned(), v.to_string())).collect();
    all.push(("broken.json".to_owned(), "{not json".to_owned()));
    all
}

/// A token that nobody has signed.
fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({"alg": "none"})), part(claims))
}
