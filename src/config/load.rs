//! Bytes → [`Config`].
//!
//! Enters: the bytes of a file. Leaves: [`Loaded`], with a warning for everything that was not understood, left
//! out or is out of date. May go wrong: [`Broken`], with all mistakes that can be found. When the YAML itself
//! is broken that is one; otherwise each value that cannot be read is noted, taken as absent, and reading goes
//! on behind it.

use crate::check::check;
use crate::notice::{Broken, Loaded, Notice};
use crate::parse::parse;
use crate::read::{REMARK, Reader, Unknown};
use crate::report::{Findings, Report};
use crate::tree::{Id, Kind, Place, Tree};
use crate::{Config, unknown};
use serde::de::DeserializeOwned;

/// Largest file that is read. Real ones have some KiB; ten thousand keys have about one MiB.
pub const MAX_BYTES: usize = 4 << 20;

/// Reads a configuration. Empty bytes are the defaults.
pub fn load(bytes: &[u8]) -> Result<Loaded, Broken> {
    let broken = |notice| Broken { notices: vec![notice] };
    let mut tree = parse(decode(bytes).map_err(broken)?).map_err(broken)?;
    if !matches!(tree.kind(0), Kind::Map(_) | Kind::Null) {
        let problem = "expected keys and values, such as `port: 8317`".to_owned();
        return Err(broken(tree.notice(0, String::new(), problem)));
    }
    let mut found = Findings::default();
    for id in tree.take_repeated() {
        if !found.errors.skip() {
            let problem = "this key stands twice; only one of them can count".to_owned();
            found.errors.push(tree.notice_key(id, problem));
        }
    }
    let mut sections = Sections { tree: &mut tree, found: &mut found, unknown: Vec::new(), top: Vec::new() };
    let mut config = Config {
        server: sections.read(None),
        auth: sections.read(None),
        providers: sections.read(None),
        models: sections.read(None),
        payload: sections.read(Some("payload")),
        routing: sections.read(None),
        streaming: sections.read(None),
        logging: sections.read(None),
        management: sections.read(Some("remote-management")),
        alerts: sections.read(Some("alerts")),
        telemetry: sections.read(Some("telemetry")),
    };
    let (strange, top) = (sections.unknown, sections.top);
    unknown::report(&tree, strange, &top, &mut found);
    check(&mut config, &mut Report { tree: &tree, found: &mut found });
    if found.errors.is_empty() {
        Ok(Loaded { config, warnings: found.warnings.into_notices() })
    } else {
        Err(Broken { notices: found.errors.into_notices() })
    }
}

/// Text without its byte order mark.
fn decode(bytes: &[u8]) -> Result<&str, Notice> {
    if bytes.len() > MAX_BYTES {
        let size = bytes.len();
        return Err(Notice::whole(format!("the file has {size} bytes; at most {MAX_BYTES} are read")));
    }
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(Notice::whole("the file is UTF-16; save it as UTF-8".to_owned()));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count() as u32;
        let problem = "the file is not text in UTF-8".to_owned();
        Notice { line: Some(line), ..Notice::whole(problem) }
    })?;
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    match text.char_indices().find(|(_, c)| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}')) {
        Some((at, c)) => {
            let problem = format!("the file holds a control character (U+{:04X})", u32::from(c));
            Err(Tree::over(text).notice_at(at, problem))
        }
        None => Ok(text),
    }
}

/// Reads one section after the other.
struct Sections<'s, 't> {
    tree: &'s mut Tree<'t>,
    found: &'s mut Findings,
    /// Keys below the top level that no section asked for.
    unknown: Vec<Unknown>,
    /// Keys of the top level that some section asked for.
    top: Vec<&'static str>,
}

impl Sections<'_, '_> {
    /// Reads the keys of a section: those of the top level, or those below `key`.
    fn read<T: Default + DeserializeOwned>(&mut self, key: Option<&'static str>) -> T {
        self.top.extend(key);
        let id = match key.map(|key| self.tree.find(&Place::Root.key(key))) {
            None => 0,
            Some((id, true)) => id,
            Some((_, false)) => return T::default(),
        };
        loop {
            let reader = Reader::new(self.tree);
            let result = reader.read(id);
            let (unknown, top) = reader.into_strangers();
            match result {
                Ok(section) => {
                    self.unknown.extend(unknown);
                    self.top.extend(top);
                    return section;
                }
                Err(fault) => {
                    let at = fault.at.unwrap_or(id);
                    if !self.refuse(at, &fault.problem) || self.found.errors.is_full() {
                        return T::default();
                    }
                }
            }
        }
    }

    /// Notes what is wrong with a value and takes it as absent. `false`: there is nothing left to take away.
    fn refuse(&mut self, id: Id, problem: &str) -> bool {
        let mut at = id;
        // Absent is no better: the fault is in what holds it.
        while self.found.blanked.contains(&at) {
            at = self.tree.up(at);
        }
        if at == id {
            let (pile, problem) = match problem.strip_prefix(REMARK) {
                Some(remark) => (&mut self.found.warnings, remark),
                None => (&mut self.found.errors, problem),
            };
            pile.push(self.tree.notice(id, self.tree.path(id), problem.to_owned()));
        }
        // The top level is shared with other sections.
        if at != 0 {
            self.tree.blank(at);
            self.found.blanked.insert(at);
        }
        at != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Block, ImageGeneration, ProxySetting, Strategy};
    use proptest::prelude::*;
    use std::fmt::Write as _;

    /// The shape of the acceptance kit's file, with the keys of the runbooks.
    const ACCEPTANCE: &str = r#"host: "127.0.0.1"
port: 8317
auth-dir: "d/auths"
api-keys: ["client-test", "  padded-key  "]
remote-management: {allow-remote: false, secret-key: "mgmt-test", disable-control-panel: true}
debug: true
oauth-model-alias:
  antigravity:
    - {name: claude-opus-4-6-thinking, alias: gemini-claude-opus-4-6-thinking, fork: true}
gemini-api-key:
  - api-key: "gk"
    prefix: "gemini"
    base-url: "http://127.0.0.1:9"
    models:
      - {name: gemini-3-pro-preview, alias: gemini-3-pro-preview}
      - {name: gemini-3-pro-preview, alias: 3-pro-preview}
codex-api-key:
  - api-key: "spark-ok"
    base-url: "http://127.0.0.1:9"
    models: [{name: gpt-5.1-codex, alias: gpt-5.1-codex}]
claude-api-key:
  - {api-key: "clk", base-url: "http://127.0.0.1:9"}
openai-compatibility:
  - name: "proxied"
    prefix: "px"
    base-url: "http://127.0.0.1:9/v1"
    api-key-entries: [{api-key: "kp", proxy-url: "http://u:p@127.0.0.1:9"}]
    models: [{name: m1, alias: good-proxy}]
  - name: "badproxy"
    prefix: "px"
    base-url: "http://127.0.0.1:9/v1"
    api-key-entries: [{api-key: "kb", proxy-url: "ftp://127.0.0.1:9"}]
    models: [{name: m1, alias: bad-proxy}]
antigravity-no-capacity-retry: true
quota-exceeded: {switch-project: true, switch-preview-model: true}
ampcode:
  model-mappings: [{from: "amp-x", to: "team-a/fast"}]
"#;

    /// The shape of the agents' kit's file.
    const KIT: &str = r#"host: "127.0.0.1"
passthrough-headers: true
disable-claude-cloak-mode: true
claude-code:
  disable-cloaking-model-list: true
streaming:
  keepalive-seconds: 1
  bootstrap-retries: 0
openai-compatibility:
  - name: "kit-oc"
    base-url: "http://127.0.0.1:9/oc/v1"
    headers:
      X-Kit-Static: "static-value"
      X-Kit-Copied: "$X-Kit-Client"
    api-key-entries:
      - api-key: "up-oc"
    models:
      - name: "sc-text"
        alias: "oc-text"
        input-modalities: [text, image]
        thinking:
          levels: ["none", "minimal", "low", "medium", "high"]
      - name: "sc-pool-a"
        alias: "po-pool"
      - name: "sc-pool-b"
        alias: "po-pool"
      - name: "sc-img"
        alias: "oc-img"
        image: true
claude-api-key:
  - api-key: "up-cl"
    base-url: "http://127.0.0.1:9/cl"
    models:
      - name: "sc-text"
        alias: "cl-forced"
        force-mapping: true
codex-api-key:
  - api-key: "up-cw"
    base-url: "http://127.0.0.1:9/cw"
    websockets: true
payload:
  override:
    - models:
        - name: "oc-payload"
          protocol: "openai"
      params:
        "temperature": 0.125
  filter:
    - models:
        - name: "oc-payload"
          protocol: "openai"
      params:
        - "presence_penalty"
"#;

    fn good(text: &str) -> Config {
        let loaded = load(text.as_bytes()).unwrap_or_else(|broken| panic!("{broken}"));
        assert_eq!(loaded.warnings, [], "{text}");
        loaded.config
    }

    fn lines(notices: &[Notice]) -> Vec<String> {
        notices.iter().map(|notice| notice.in_file("c").to_string()).collect()
    }

    fn warnings(text: &str) -> Vec<String> {
        lines(&load(text.as_bytes()).unwrap_or_else(|broken| panic!("{broken}")).warnings)
    }

    fn mistakes(text: &str) -> Vec<String> {
        lines(&load(text.as_bytes()).expect_err(text).notices)
    }

    #[test]
    fn nothing_is_the_defaults() {
        for text in
            ["", "\u{FEFF}", "# words\n", "---\n", "~", "{}", "routing:\nstreaming: ~\nclaude-api-key:\n"]
        {
            assert_eq!(good(text), Config::default(), "{text:?}");
        }
        assert_eq!(Config::default().server.port, 8317);
    }

    #[test]
    fn p41_every_mistake_has_line_column_and_path() {
        let text = "port: 70000\n\
                    debug: [1]\n\
                    claude-api-key:\n\
                    \x20 - api-key: k\n\
                    \x20   base-url: ftp://x\n\
                    \x20   weight: 2000000\n\
                    \x20 - just text\n\
                    openai-compatibility: [{name: a, base-url: 'http://u:hunter2@h/v1', headers: {X: {y: z}}}]\n\
                    tls: {enable: true, cert: ''}\n";
        assert_eq!(
            mistakes(text),
            [
                "c:1:7: port: expected a whole number from 0 to 65535, found 70000",
                "c:2:1: debug: expected true or false, found a list",
                "c:5:15: claude-api-key[0].base-url: not a base URL: it has to start with http:// or https://",
                "c:6:13: claude-api-key[0].weight: a weight is at most 1000000",
                "c:7:5: claude-api-key[1]: expected a map, found text",
                "c:8:44: openai-compatibility[0].base-url: not a base URL: it holds a user name or password; \
             put the key into api-key or headers",
                "c:8:79: openai-compatibility[0].headers.X: expected text, found a map",
                "c:9:1: tls.key: TLS is on, and needs the path of a PEM file here",
                "c:9:27: tls.cert: TLS is on, and needs the path of a PEM file here",
            ]
        );
    }

    #[test]
    fn columns_count_characters_and_lines_any_line_end() {
        assert_eq!(
            mistakes("# ü\r\n{\"ä ö\": 1, port: x}\r\n"),
            ["c:2:18: port: expected a whole number from 0 to 65535, found text"]
        );
        assert_eq!(
            warnings("a-a: 1\r\rb-b: 2\r\n"),
            ["c:1:1: a-a: unknown key, ignored", "c:3:1: b-b: unknown key, ignored"]
        );
    }

    #[test]
    fn p41_what_is_not_yaml_says_where() {
        assert_eq!(
            mistakes("a:\n\tb: 1\n"),
            ["c:2:1: found character that cannot start any token, while scanning for the next token: \
             YAML is indented with spaces, not with tabs"]
        );
        assert_eq!(
            mistakes("port: 1\nhost: a\nport: 2\n"),
            ["c:3:1: port: this key stands twice; only one of them can count"]
        );
        assert_eq!(
            mistakes("codex-api-key: [{api-key: a, api-key: b}]"),
            ["c:1:30: codex-api-key[0].api-key: this key stands twice; only one of them can count"]
        );
        assert_eq!(mistakes("port: !x 1"), ["c:1:7: port: YAML tags (`!word`) mean nothing here"]);
        assert_eq!(mistakes("? [a]\n: 1\n"), ["c:1:3: a key has to be one word"]);
        assert_eq!(mistakes("- a\n"), ["c:1:3: expected keys and values, such as `port: 8317`"]);
        assert_eq!(mistakes("port: 1\0"), ["c:1:8: the file holds a control character (U+0000)"]);
        let unclosed = mistakes("api-keys: [a, b\nport: 1\n");
        assert!(unclosed.len() == 1 && unclosed[0].starts_with("c:2:5: "), "{unclosed:?}");
        assert!(mistakes("a: 1\n---\na: 2\n")[0].contains("more than one document"));
        assert!(lines(&load(b"\x7fELF\xff\xfe\n").unwrap_err().notices)[0].contains("not text in UTF-8"));
        assert!(lines(&load(b"\xff\xfep\0o\0").unwrap_err().notices)[0].contains("UTF-16"));
    }

    #[test]
    fn p41_bombs_are_refused_in_good_time() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for n in 1..20 {
            let nine = vec![format!("*a{}", n - 1); 9].join(",");
            writeln!(bomb, "a{n}: &a{n} [{nine}]").unwrap();
        }
        let wide = format!("a: &a [{}]\nb: [{}]", "x,".repeat(100_000), "*a,".repeat(1000));
        let cases = [
            (vec![b'#'; 50_000_000], "at most 4194304"),
            (bomb.into_bytes(), "aliases"),
            (wide.into_bytes(), "aliases"),
            (b"a: &a [*a]".to_vec(), "128 levels"),
            ("[".repeat(MAX_BYTES).into_bytes(), "128 levels"),
            ("{a: ".repeat(MAX_BYTES / 4).into_bytes(), "128 levels"),
            ("- ".repeat(MAX_BYTES / 8).into_bytes(), "128 levels"),
        ];
        for (text, words) in cases {
            let broken = load(&text).unwrap_err();
            assert!(broken.to_string().contains(words), "{broken}");
        }
        let many = (0..20_000).fold(String::new(), |text, n| text + &format!("key-number-{n}: 1\n"));
        assert_eq!(warnings(&many).len(), 201);
        assert_eq!(mistakes(&format!("api-keys: [{}]", "[1],".repeat(1000))).len(), 200);
    }

    #[test]
    fn kinds_are_as_lenient_as_people_expect() {
        let config = good(
            "port: '8080'\napi-keys: [123, 0123, true, 1e5, ' padded ', 12345678901234567890123]\ndebug: yes\n\
             ws-auth: 'off'\nextra-listen: 8672\nrequest-retry: 1_0\nlogs-max-total-size-mb: -3\n\
             error-logs-max-files: -1\nunknown-model-status: 502\n",
        );
        assert_eq!(config.server.port, 8080);
        let keys: Vec<_> = config.auth.api_keys.iter().map(crate::ClientKey::expose_secret).collect();
        assert_eq!(keys, ["123", "0123", "true", "1e5", "padded", "12345678901234567890123"]);
        assert!(config.logging.debug && !config.auth.ws_auth);
        assert_eq!(config.server.extra_listen.0[0].port, 8672);
        assert_eq!(config.routing.request_retry, 10);
        assert_eq!((config.logging.logs_max_total_size_mb, config.logging.error_logs_max_files), (0, 10));
        assert_eq!(config.models.unknown_model_status.code(), 502);
        for (word, meaning) in [
            ("chat", ImageGeneration::RoutesOnly),
            ("passthrough", ImageGeneration::Passthrough),
            ("true", ImageGeneration::Disabled),
            ("'on'", ImageGeneration::Disabled),
            ("0", ImageGeneration::Enabled),
        ] {
            let config = good(&format!("disable-image-generation: {word}"));
            assert_eq!(config.models.disable_image_generation, meaning, "{word}");
        }
        for (word, strategy) in [
            ("RR", Strategy::RoundRobin),
            ("wrr", Strategy::WeightedRoundRobin),
            ("fillfirst", Strategy::FillFirst),
            ("least-loaded", Strategy::LeastLoaded),
        ] {
            assert_eq!(good(&format!("routing: {{strategy: {word}}}")).routing.selection.strategy, strategy);
        }
        assert_eq!(
            warnings("routing:\n  strategy: fastest\n"),
            ["c:2:13: routing.strategy: unknown strategy `fastest`, round-robin is used; \
             known are round-robin, weighted-round-robin, fill-first, least-loaded"]
        );
    }

    #[test]
    fn anchors_and_merge_keys_work() {
        let config = good(
            "x-defaults: &d {weight: 5, priority: 3}\nclaude-api-key:\n  - api-key: a\n    <<: *d\n    priority: 1\n\
             \x20 - <<: [*d, {prefix: p}]\n    api-key: b\n",
        );
        let [a, b] = config.providers.entries(Block::Claude) else { panic!() };
        assert_eq!((a.weight.0, a.priority, b.weight.0, b.priority), (5, 1, 5, 3));
        assert_eq!(b.prefix, "p");
    }

    #[test]
    fn unknown_keys_are_listed_with_the_nearest_known_one() {
        assert_eq!(
            warnings(
                "requst-retry: 3\napi_keys: [a]\nstreaming: {keepalive-second: 1, zzz: 2}\n\
                 claude-api-key: [{api-key: a, models: [{name: m, alais: n}]}]\n"
            ),
            [
                "c:1:1: requst-retry: unknown key, ignored; did you mean `request-retry`?",
                "c:2:1: api_keys: unknown key, ignored; did you mean `api-keys`?",
                "c:3:13: streaming.keepalive-second: unknown key, ignored; did you mean `keepalive-seconds`?",
                "c:3:34: streaming.zzz: unknown key, ignored",
                "c:4:50: claude-api-key[0].models[0].alais: unknown key, ignored; did you mean `alias`?",
            ]
        );
    }

    #[test]
    fn keys_of_other_proxies_say_what_becomes_of_them() {
        assert_eq!(
            warnings(
                "disable-claude-cloak-mode: true\nclaude-header-defaults: {os: x}\npprof: {enable: true}\n\
                 antigravity: {sensitive-words: [a], connection-pool: {enabled: true}, zzz: 1}\n\
                 codex: {identity-confuse: true}\nremote-management: {disable-auto-update-panel: true}\n\
                 claude-api-key:\n  - api-key: k\n    cloak: {mode: never}\n"
            ),
            [
                "c:1:1: disable-claude-cloak-mode: accepted and ignored: cliproxy does not disguise clients \
                 (also 4 further keys of this kind)",
                "c:3:1: pprof: accepted and ignored: that is a profiler for Go programs",
                "c:4:37: antigravity.connection-pool: accepted and ignored: connections are always pooled",
                "c:4:71: antigravity.zzz: unknown key, ignored",
                "c:6:21: remote-management.disable-auto-update-panel: accepted and ignored: \
                 the dashboard is part of the program",
            ]
        );
    }

    #[test]
    fn file_of_the_acceptance_kit_loads() {
        let text = ACCEPTANCE;
        let Loaded { config, warnings } = load(text.as_bytes()).unwrap();
        assert_eq!(
            lines(&warnings),
            [
                "c:32:50: openai-compatibility[1].api-key-entries[0].proxy-url: proxy config invalid: unsupported \
             proxy scheme `ftp` (ftp://127.0.0.1:9, source=credential); requests that would use it are \
             refused, none goes out directly"
            ]
        );
        assert_eq!(config.auth.api_keys[1].expose_secret(), "padded-key");
        let [proxied, bad] = config.providers.openai_compatibility.as_slice() else { panic!() };
        assert!(matches!(proxied.api_key_entries[0].proxy_url, ProxySetting::Url(_)));
        assert!(matches!(bad.api_key_entries[0].proxy_url, ProxySetting::Invalid { .. }));
        assert_eq!(config.providers.ampcode.model_mappings[0].to, "team-a/fast");
        assert_eq!(
            good("amp-code: {model-mappings: [{from: a, to: b}]}").providers.ampcode.model_mappings.len(),
            1
        );
    }

    #[test]
    fn file_of_the_kit_loads() {
        let text = KIT;
        let Loaded { config, warnings } = load(text.as_bytes()).unwrap();
        assert_eq!(
            lines(&warnings),
            ["c:3:1: disable-claude-cloak-mode: accepted and ignored: cliproxy does not disguise clients"]
        );
        let provider = &config.providers.openai_compatibility[0];
        assert_eq!(
            provider.headers.0["X-Kit-Copied"],
            crate::HeaderValue::CopyFrom("X-Kit-Client".to_owned())
        );
        let wire::thinking::Support::Bounded(bounds) =
            provider.models[0].thinking.as_ref().unwrap().support()
        else {
            panic!()
        };
        assert!(bounds.off && bounds.levels.len() == 4 && bounds.budget.is_none());
        assert_eq!(config.payload.overrides[0].params.0[0].1.as_str(), "0.125");
        assert_eq!(config.payload.filter[0].params, ["presence_penalty"]);
    }

    /// The shape of the benchmark's file.
    #[test]
    fn file_of_the_benchmark_loads() {
        let text = "host: 127.0.0.1\nport: 8317\nauth-dir: out/cpa-auths\napi-keys: [bench-key]\n\
                    commercial-mode: true\nremote-management:\n  secret-key: ''\n  disable-auto-update-panel: true\n\
                    openai-compatibility:\n  - name: up-mock\n    base-url: http://127.0.0.1:9/x/n=90,d=1000/v1\n\
                    \x20   api-key-entries:\n      - api-key: bad-key-1\n      - api-key: good-key-2\n    models:\n\
                    \x20     - {name: gpt-mock, alias: gpt-mock}\nclaude-api-key:\n  - api-key: k-mock\n\
                    \x20   base-url: http://127.0.0.1:9\n    cloak: {mode: never}\n";
        let Loaded { config, warnings } = load(text.as_bytes()).unwrap();
        assert_eq!(warnings.len(), 2, "{:?}", lines(&warnings));
        assert!(config.logging.commercial_mode && config.management.secret_key.is_empty());
        let url = config.providers.openai_compatibility[0].base_url.as_ref().unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:9/x/n=90,d=1000/v1");
    }

    proptest! {
        #[test]
        fn p41_no_text_makes_it_panic(text in "(?s).{0,200}") {
            let _ = load(text.as_bytes());
        }

        #[test]
        fn p41_no_yaml_like_text_makes_it_panic(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("port"), Just("claude-api-key"), Just("payload"), Just("headers"), Just("models"),
                    Just(": "), Just(":\n"), Just("- "), Just("\n"), Just("  "), Just("["), Just("]"), Just("{"),
                    Just("}"), Just(","), Just("&a "), Just("*a "), Just("<<"), Just("'"), Just("\""), Just("|\n"),
                    Just("~"), Just("1"), Just("-5"), Just("x"), Just("params"), Just("# c\n"), Just("!!str "),
                    Just("extra-listen"), Just("override"), Just("api-keys"), Just("? "), Just("\\x41"),
                ],
                0..40,
            )
        ) {
            let _ = load(parts.concat().as_bytes());
        }
    }
}
