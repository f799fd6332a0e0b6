//! The files that people deploy with, in `deploy/` and `examples/`, against the program that they start.

use crate::reload::until;
use crate::shared::proxy;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use testkit::proxy::Proxy;
use testkit::scratch::{Scratch, free_port};

const BINARY: &str = env!("CARGO_BIN_EXE_cliproxy");
/// Where everything is in the image.
const IMAGE: &str = "/CLIProxyAPI";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn file(name: &str) -> String {
    std::fs::read_to_string(path(name)).expect("the file can be read")
}

fn yaml(name: &str) -> Value {
    let mut text: serde_yaml::Value = serde_yaml::from_str(&file(name)).expect(name);
    text.apply_merge().expect(name);
    serde_json::to_value(text).expect(name)
}

/// The rest of the line that begins with `word`, which is there once.
fn after<'t>(text: &'t str, word: &str) -> &'t str {
    let mut found = text.lines().filter_map(|line| line.trim().strip_prefix(word));
    let line = found.next().expect(word);
    assert!(found.next().is_none(), "{word:?} is there twice");
    line
}

/// A command in the form that no shell reads.
fn words(json: &str) -> Vec<String> {
    serde_json::from_str(json).expect(json)
}

/// Seconds after SIGTERM until the last answer is cut, by default.
fn farewell() -> u64 {
    let shutdown = config::Config::default().server.shutdown;
    u64::from(shutdown.delay_seconds + shutdown.drain_seconds)
}

/// Runs a program with no output; `None`: it is not there.
fn run(command: &mut Command) -> Option<Output> {
    command.stdin(Stdio::null()).output().ok()
}

#[test]
fn row_16_the_image_says_what_is_in_it_and_needs_no_shell_and_no_rights() {
    let image = file("deploy/Dockerfile");
    for label in ["title", "version", "revision", "created", "licenses"] {
        assert!(image.contains(&format!("org.opencontainers.image.{label}=")), "{label}");
    }
    assert!(
        image.contains("CLIPROXY_BUILD=\"$VERSION ($COMMIT, $DATE)\""),
        "the version is that of the label"
    );
    let user = after(&image, "USER ");
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}");
    assert_eq!(words(after(&image, "ENTRYPOINT ")), ["/usr/local/bin/cliproxy"]);
    assert_eq!(words(after(&image, "CMD ")), ["--config", &format!("{IMAGE}/config.yaml")]);
    let toolchain = file("rust-toolchain.toml");
    let channel = after(&toolchain, "channel = ").trim_matches('"');
    assert_eq!(after(&image, "ARG RUST="), channel);
    let ignored = file("deploy/Dockerfile.dockerignore");
    for secret in ["/config.yaml", "/auths", "/logs", "/state"] {
        assert!(ignored.lines().any(|line| line == secret), "{secret} would get into an image");
    }
}

#[test]
fn row_132_the_configuration_of_the_image_lies_beside_its_accounts_and_logs() {
    let image = file("deploy/Dockerfile");
    assert_eq!(after(&image, "WORKDIR /C"), &IMAGE[2..]);
    for place in ["auths", "logs", "state", "config.yaml"] {
        assert!(image.contains(&format!("/image{IMAGE}/{place}")), "{place}");
    }
    let text = file("deploy/container.yaml");
    let config = config::load(text.as_bytes()).expect("it can be read").config;
    assert_eq!(config.server.host.as_str(), "", "a container is reached from outside");
    assert_eq!(config.auth.auth_dir, format!("{IMAGE}/auths"));
    // Beside the configuration file.
    assert!(config.logging.logging_to_file && config.logging.log_dir.is_empty());
    assert!(config.has_template_keys(), "nobody comes in before the key is replaced");
    assert_eq!(after(&image, "EXPOSE "), config.server.port.to_string());
    assert_eq!(config.server.port, config::Config::default().server.port);
    // As the image starts it, elsewhere.
    let (scratch, port) = (Scratch::new(), free_port());
    let folder = scratch.path().display().to_string();
    let metrics = format!("127.0.0.1:{}", free_port());
    let here = text
        .replace(IMAGE, &folder)
        .replace("port: 8317", &format!("port: {port}"))
        .replace("0.0.0.0:9317", &metrics);
    let started = scratch.file("config.yaml", &here).display().to_string();
    let proxy = Proxy::run(BINARY, &["--config", &started], port, scratch);
    assert_eq!(proxy.get("/health").head.status, 200);
    assert_eq!(proxy.get("/v1/models").head.status, 403);
    assert!(until(|| proxy.folder().join("logs").is_dir() && proxy.folder().join("state").is_dir()));
}

#[test]
fn row_18_the_health_of_a_container_is_asked_by_the_program_itself() {
    let image = file("deploy/Dockerfile");
    let (_, asks) = after(&image, "HEALTHCHECK ").split_once(" CMD ").expect("a command");
    let mut asks = words(asks);
    assert_eq!(asks.remove(0), "/usr/local/bin/cliproxy");
    assert_eq!(after(&image, "ENV HOME="), format!("{IMAGE} CLIPROXY_BASE_URL=http://127.0.0.1:8317"));
    let healthy = |url: &str| {
        let asked = run(Command::new(BINARY).args(&asks).env("CLIPROXY_BASE_URL", url)).expect("it runs");
        asked.status.code()
    };
    let mut proxy = proxy("");
    let url = format!("http://{}", proxy.address());
    assert_eq!(healthy(&url), Some(0));
    proxy.kill();
    assert_eq!(healthy(&url), Some(1));
}

#[test]
fn row_18_compose_mounts_publishes_asks_and_restarts() {
    let compose = yaml("deploy/compose.yaml");
    let service = &compose["services"]["cliproxy"];
    let list = |key: &str| service[key].as_array().unwrap_or_else(|| panic!("{key}")).clone();
    let targets: Vec<_> = list("volumes")
        .iter()
        .map(|volume| match volume.as_str() {
            Some(short) => short.rsplit(':').next().unwrap_or_default().to_owned(),
            None => volume["target"].as_str().unwrap_or_default().to_owned(),
        })
        .collect();
    assert_eq!(targets, ["config.yaml", "auths", "logs", "state"].map(|name| format!("{IMAGE}/{name}")));
    let ports: Vec<_> = list("ports")
        .iter()
        .filter_map(|port| port.as_str()?.rsplit(':').next()?.parse::<u16>().ok())
        .collect();
    assert_eq!(
        ports,
        [config::Config::default().server.port],
        "logins listen on localhost, where no port leads"
    );
    // Logins of a container: the program takes the words, and looks for the provider.
    let login = &compose["services"]["login"];
    assert_eq!(login["network_mode"], "host");
    assert_eq!(login["volumes"], service["volumes"]);
    let typed = words(&login["entrypoint"].to_string());
    let scratch = Scratch::new();
    let started = scratch.file("config.yaml", "api-keys: [k]\nauth-dir: auths\n").display().to_string();
    let typed = typed.iter().skip(1).map(|word| word.replace(&format!("{IMAGE}/config.yaml"), &started));
    let asked =
        run(Command::new(BINARY).args(typed).arg("nobody").current_dir(scratch.path())).expect("it runs");
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(asked.status.code() == Some(1) && said.contains("nobody"), "{:?}: {said}", asked.status);
    assert_eq!(service["restart"], "unless-stopped");
    let grace =
        service["stop_grace_period"].as_str().and_then(|text| text.strip_suffix('s')?.parse::<u64>().ok());
    assert!(grace > Some(farewell()), "answers are cut before they have had their time");
    let image = file("deploy/Dockerfile");
    let (_, asks) = after(&image, "HEALTHCHECK ").split_once(" CMD ").expect("a command");
    let mut expected = vec!["CMD".to_owned()];
    expected.extend(words(asks));
    assert_eq!(service["healthcheck"]["test"], serde_json::json!(expected));
    assert_eq!(service["build"]["dockerfile"], "deploy/Dockerfile");
    // As typed, where the machine has it.
    let there =
        run(Command::new("docker").args(["compose", "version"])).is_some_and(|asked| asked.status.success());
    if there {
        let asked = run(Command::new("docker").args(["compose", "config", "-q"]).current_dir(path("deploy")));
        let asked = asked.expect("docker runs");
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    }
}

#[test]
fn row_77_the_unit_restarts_what_crashed_and_not_what_is_misconfigured() {
    let unit = file("deploy/cliproxy.service");
    assert_eq!(after(&unit, "Restart="), "on-failure");
    assert!(after(&unit, "RestartSec=").parse::<u64>().is_ok_and(|pause| pause <= 2));
    assert!(after(&unit, "TimeoutStopSec=").parse::<u64>().is_ok_and(|time| time > farewell()));
    assert!(after(&unit, "ExecReload=").contains("-HUP $MAINPID"));
    let (_, arguments) = after(&unit, "ExecStart=").split_once(' ').expect("arguments");
    assert_eq!(arguments, "--config /var/lib/cliproxy/config.yaml");
    assert_eq!(after(&unit, "StateDirectory="), "cliproxy");
    let scratch = Scratch::new();
    scratch.file("config.yaml", "port: many\n");
    let codes = [&["--config", "config.yaml"][..], &["--no-such-flag"]].map(|arguments| {
        let ended = run(Command::new(BINARY).args(arguments).current_dir(scratch.path())).expect("it runs");
        ended.status.code().expect("a code").to_string()
    });
    let mut prevented: Vec<_> = after(&unit, "RestartPreventExitStatus=").split(' ').collect();
    prevented.reverse();
    assert_eq!(prevented, codes);
    // Where systemd is at hand, it reads the unit.
    let checked = scratch.file("cliproxy.service", &unit.replace("/usr/local/bin/cliproxy", BINARY));
    if let Some(asked) = run(Command::new("systemd-analyze").arg("verify").arg(&checked)) {
        let said = String::from_utf8_lossy(&asked.stderr).into_owned();
        assert!(asked.status.success() && !said.contains("cliproxy.service:"), "{said}");
    }
}

#[test]
fn row_77_after_kill_9_it_serves_again_in_seconds() {
    let mut proxy = proxy("");
    proxy.kill();
    let begun = Instant::now();
    proxy.start_again();
    assert_eq!(proxy.get("/health").head.status, 200);
    // With the second that supervisors wait.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn row_153_process_compose_runs_the_program_and_asks_for_its_health() {
    let process = &yaml("examples/process-compose.dev.yaml")["processes"]["cliproxy"];
    assert_eq!(process["command"], "exec cargo run --locked --bin cliproxy");
    assert_eq!(process["availability"]["restart"], "on_failure");
    let probe = &process["readiness_probe"]["http_get"];
    assert_eq!(
        (&probe["path"], &probe["port"]),
        (&"/health".into(), &config::Config::default().server.port.into())
    );
    // As typed, where the machine has it; nothing runs, so that there is nothing to restart.
    let example = path("examples/process-compose.dev.yaml").display().to_string();
    if let Some(asked) = run(Command::new("process-compose").args(["-f", &example, "up", "--dry-run"])) {
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    }
}

#[test]
fn row_76_without_a_host_it_listens_once_on_all_interfaces() {
    let (scratch, port) = (Scratch::new(), free_port());
    let text = format!(
        "port: {port}\napi-keys: [k]\nmetrics: {{listen: \"\"}}\nauth-dir: {}\n",
        scratch.path().display()
    );
    let started = scratch.file("config.yaml", &text).display().to_string();
    let proxy = Proxy::run(BINARY, &["--config", &started], port, scratch);
    let listeners: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|table| {
            std::fs::read_to_string(table).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, state) = (fields.next()?.to_owned(), fields.nth(1)?.to_owned());
            (state == "0A" && local.ends_with(&format!(":{port:04X}"))).then_some(local)
        })
        .collect();
    assert_eq!(listeners.len(), 1, "{listeners:?}");
    let (address, _) = listeners[0].split_once(':').expect("an address");
    assert!(address.bytes().all(|digit| digit == b'0'), "{address} is not all interfaces");
    // As typed, where the machine has it.
    let asked = run(Command::new("lsof").args([&format!("-iTCP:{port}"), "-sTCP:LISTEN"]));
    if let Some(asked) = asked {
        let said = String::from_utf8_lossy(&asked.stdout).into_owned();
        // The same socket twice: it is kept to be handed over to a new process.
        let ours = said.lines().filter(|line| line.contains(&format!(" {} ", proxy.pid())));
        let sockets: BTreeSet<_> = ours.filter_map(|line| line.split_whitespace().nth(5)).collect();
        assert_eq!(sockets.len(), 1, "{said}");
    }
}
