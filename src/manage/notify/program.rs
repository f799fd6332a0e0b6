//! An alert for a program: one of the operator's, or `apprise`.
//!
//! Enters: a program with its arguments, an alert. Leaves: a process that gets the alert as JSON on its
//! standard input and in short in its environment. No shell is involved. May go wrong: there is no such program,
//! it fails, it takes too long; then it is killed with all that it started. What it prints goes nowhere: it
//! could repeat an address.
//!
//! Programs do not get our environment, which may hold keys, but for [`PASSED`].

use super::{Failed, Told, kind};
use crate::observe::alerts::{Alert, Status};
use config::NotifyTarget;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Variables that programs need to run and to reach the network.
const PASSED: [&str; 16] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
/// The program that knows many services.
const APPRISE: &str = "apprise";
/// Time between two looks at whether a program has ended.
const LOOK: Duration = Duration::from_millis(20);

/// What is run.
struct Call {
    program: String,
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    input: Vec<u8>,
}

/// In short: `[CRITICAL] iflow: many calls fail`.
fn title(alert: &Alert) -> String {
    let state = match alert.status {
        Status::Firing => alert.severity.name(),
        Status::Resolved => alert.status.name(),
    };
    format!("[{}] {}", state.to_uppercase(), alert.title)
}

/// In words.
fn text(alert: &Alert) -> String {
    let Alert { metric_name, current_value, description, .. } = alert;
    format!("{metric_name} is {current_value}. {description}")
}

fn call(target: &NotifyTarget, alert: &Alert) -> Call {
    let variables = vec![
        ("CLIPROXY_ALERT_TITLE", alert.title.clone()),
        ("CLIPROXY_ALERT_SEVERITY", alert.severity.name().to_owned()),
        ("CLIPROXY_ALERT_STATUS", alert.status.name().to_owned()),
        ("CLIPROXY_ALERT_ID", alert.id.clone()),
    ];
    // Names of models may come from upstreams, and no variable holds a NUL.
    let clean = |text: String| text.replace('\0', " ");
    let variables = variables.into_iter().map(|(name, value)| (name, clean(value))).collect();
    if target.apprise.is_empty() {
        let arguments = target.command.arguments.iter().map(|word| word.expose_secret().to_owned());
        let input = serde_json::to_vec(alert).unwrap_or_default();
        let program = target.command.program.clone();
        return Call { program, arguments: arguments.collect(), variables, input };
    }
    let address = target.apprise.expose_secret().to_owned();
    let arguments = vec!["-t".to_owned(), clean(title(alert)), "-b".to_owned(), clean(text(alert)), address];
    Call { program: APPRISE.to_owned(), arguments, variables, input: Vec::new() }
}

/// Runs a target's program.
pub(super) async fn run(target: &NotifyTarget, alert: &Alert, within: Duration) -> Told {
    let call = call(target, alert);
    let name = if kind(target) == APPRISE { APPRISE } else { "the program" };
    // A thread of its own waits: the child is looked after by the one who made it, so that nobody else can
    // have its number when it is killed.
    let ended = tokio::task::spawn_blocking(move || wait(call, within)).await;
    match ended {
        Ok(Ok(Some(status))) if status.success() => Ok(()),
        Ok(Ok(Some(status))) => Err(Failed::now(format!("{name} failed: {status}"))),
        Ok(Ok(None)) => {
            Err(Failed::now(format!("{name} did not end within {} seconds; killed", within.as_secs())))
        }
        Ok(Err(error)) => Err(Failed::for_good(format!("{name} cannot be run: {error}"))),
        Err(_) => Err(Failed::for_good("running it failed; the log says more")),
    }
}

/// Runs a program to its end; `None`: it took too long and was killed.
fn wait(call: Call, within: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + within;
    let passed = PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut child = Command::new(&call.program)
        .args(&call.arguments)
        .env_clear()
        .envs(passed)
        .envs(call.variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A program need not read it, and its end ends this too.
        let bytes = call.input;
        std::thread::spawn(move || drop(input.write_all(&bytes)));
    }
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            kill(&mut child);
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

/// Kills a child that was not waited for yet, and all that it started.
fn kill(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// What would be run, with masks.
pub(super) fn preview(target: &NotifyTarget, alert: &Alert) -> Value {
    if target.apprise.is_empty() {
        let call = call(target, alert);
        let names: Vec<_> = call.variables.iter().map(|(name, _)| *name).collect();
        return json!({ "command": target.command, "environment": names, "stdin": alert });
    }
    json!({ "command": [APPRISE, "-t", title(alert), "-b", text(alert), target.apprise.masked()] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use testkit::scratch::Scratch;

    fn target(program: &Path, arguments: &[&str]) -> NotifyTarget {
        let words: Vec<_> = arguments.iter().map(|word| format!(", '{word}'")).collect();
        let text = format!("alerts: {{notify: [{{command: [{}{}]}}]}}", program.display(), words.concat());
        config::load(text.as_bytes()).unwrap().config.alerts.notify.remove(0)
    }

    fn script(scratch: &Scratch, name: &str, text: &str) -> std::path::PathBuf {
        let file = scratch.file(name, text);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700)).unwrap();
        file
    }

    #[tokio::test]
    async fn a_program_gets_the_alert_its_arguments_as_they_are_and_none_of_our_keys() {
        let scratch = Scratch::new();
        let out = scratch.path().join("out");
        let told = "#!/bin/sh\n{ cat; echo; echo \"$CLIPROXY_ALERT_SEVERITY $CLIPROXY_ALERT_TITLE\"; \
                    echo \"<$2>\"; env; } > \"$1\"\n";
        let program = script(&scratch, "tell", told);
        let target = target(&program, &[&out.display().to_string(), "$(id); \"x"]);
        run(&target, &Alert::canary(7), Duration::from_secs(30)).await.unwrap();
        let text = std::fs::read_to_string(out).unwrap();
        let mut lines = text.lines();
        let alert: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        assert_eq!(
            (&alert["id"], &alert["type"], &alert["started_at"]),
            (&"canary".into(), &"info".into(), &7.into())
        );
        assert_eq!(lines.next().unwrap(), "info cliproxy: a test of notifications");
        assert_eq!(lines.next().unwrap(), "<$(id); \"x>", "no shell has read it");
        assert!(!text.contains("CARGO"), "our environment is ours: {text}");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_all_that_it_started() {
        let scratch = Scratch::new();
        let pids = scratch.path().join("pids");
        let program = script(&scratch, "hang", "#!/bin/sh\nsleep 600 &\necho $$ $! > \"$1\"\nwait\n");
        let target = target(&program, &[&pids.display().to_string()]);
        let failed = run(&target, &Alert::canary(7), Duration::from_secs(2)).await.unwrap_err();
        assert!(failed.again && failed.reason.contains("did not end within 2 seconds"), "{failed:?}");
        let text = std::fs::read_to_string(pids).unwrap();
        let is_over = |pid: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ")
        };
        let end = Instant::now() + Duration::from_secs(10);
        while !text.split_whitespace().all(is_over) {
            assert!(Instant::now() < end, "{text} still run");
            tokio::time::sleep(LOOK).await;
        }
    }

    #[tokio::test]
    async fn programs_that_fail_and_those_that_are_not_there_are_told_apart() {
        let failed =
            run(&target(Path::new("/bin/false"), &[]), &Alert::canary(7), Duration::from_secs(30)).await;
        assert!(failed.unwrap_err().again);
        let missing =
            run(&target(Path::new("/nowhere/x"), &["CANARY"]), &Alert::canary(7), Duration::from_secs(30))
                .await;
        let missing = missing.unwrap_err();
        assert!(!missing.again && !missing.reason.contains("CANARY"), "{missing:?}");
    }
}
