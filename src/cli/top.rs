//! `cliproxy top`: a running process, looked at again and again.
//!
//! Enters: metrics and credentials of a process, keys of the terminal. Leaves: frames. May go wrong: the process
//! does not answer: the last frame stays, with a line that says so, and it is asked again. The terminal is left
//! as it was, however this ends.

mod frame;
mod screen;

use super::remote::{self, Done, Fault, Remote, RemoteArgs, elements, number, text};
use super::table::colours;
use super::{say, say_json};
use frame::{Frame, Rates};
use screen::{Pressed, Screen};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Seconds that rates of providers are counted over: the shortest window of the metrics.
const WINDOW_S: u64 = 60;

/// Arguments of `cliproxy top`.
#[derive(clap::Args, Debug)]
pub(super) struct TopArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Seconds between two looks
    #[arg(long, short, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// Print one frame and end; needs no terminal
    #[arg(long)]
    once: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<f64>().ok().filter(|seconds| (0.2..=3600.0).contains(seconds));
    parsed.map(Duration::from_secs_f64).ok_or_else(|| "expected 0.2 to 3600 seconds".to_owned())
}

/// What a process said of itself.
#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    health: Value,
    metrics: Value,
    credentials: Value,
}

/// Shows frames until a key ends it.
pub(super) fn run(args: &TopArgs) -> ExitCode {
    remote::with(&args.remote, async |remote| {
        if args.once || args.remote.json {
            let look = look(remote).await?;
            if args.remote.json {
                say_json(&json!({
                    "health": look.health,
                    "providers": look.metrics.get("providers"),
                    "window_seconds": WINDOW_S,
                    "in_flight": number(&look.credentials, "in_flight"),
                    "credentials": elements(&look.credentials, "credentials"),
                }));
            } else {
                let rates = Rates::default();
                say(&Frame { look: &look, rates: &rates, base: remote.base() }.text(None, colours()));
            }
            return Ok(true);
        }
        if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
            return Err(Fault::Usage {
                what: "top needs a terminal".to_owned(),
                mend: "add --once for one frame, or --json",
            });
        }
        watch(remote, args.interval).await
    })
}

async fn look(remote: &Remote) -> Result<Look, Fault> {
    let credentials = remote.get("credentials").await?;
    let health = remote.open("/health").await?;
    let metrics = remote.open(&format!("/v1/metrics/providers?window={WINDOW_S}")).await?;
    Ok(Look { at: Instant::now(), health, metrics, credentials })
}

async fn watch(remote: &Remote, interval: Duration) -> Done {
    let terminal = |error: std::io::Error| Fault::Usage {
        what: format!("the terminal cannot be used: {error}"),
        mend: "add --once for one frame",
    };
    // Whoever may not look learns it on a terminal that is still as it was.
    let mut last = look(remote).await?;
    let mut rates = Rates::default();
    rates.note(&last);
    let mut trouble: Option<String> = None;
    let mut ends = (
        signal(SignalKind::terminate()).map_err(terminal)?,
        signal(SignalKind::interrupt()).map_err(terminal)?,
        signal(SignalKind::hangup()).map_err(terminal)?,
    );
    let (mut screen, mut keys) = Screen::open().map_err(terminal)?;
    loop {
        let frame = Frame { look: &last, rates: &rates, base: remote.base() };
        screen.draw(|rows| frame.with_trouble(rows, trouble.as_deref())).map_err(terminal)?;
        let next = async {
            tokio::time::sleep(interval).await;
            look(remote).await
        };
        tokio::pin!(next);
        let looked = loop {
            tokio::select! {
                looked = &mut next => break Some(looked),
                key = keys.recv() => match key {
                    Some(Pressed::Quit) | None => return Ok(true),
                    Some(Pressed::Resized) => {
                        screen.draw(|rows| frame.with_trouble(rows, trouble.as_deref())).map_err(terminal)?;
                    }
                },
                _ = ends.0.recv() => break None,
                _ = ends.1.recv() => break None,
                _ = ends.2.recv() => break None,
            }
        };
        match looked {
            None => return Ok(true),
            Some(Ok(look)) => {
                rates.note(&look);
                last = look;
                trouble = None;
            }
            Some(Err(fault)) if fault.passes() => trouble = Some(fault.to_string()),
            Some(Err(fault)) => return Err(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_short_enough_to_see_and_long_enough_to_spare_the_process() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "nan", "inf", "x", "4000", "0.1"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
