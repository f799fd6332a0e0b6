//! A frame of `top`.
//!
//! Enters: a look at a process, and the looks before it. Leaves: text: a summary, providers, credentials, those
//! with the most load first. Nothing may go wrong.

use super::{Look, WINDOW_S, elements, number, text};
use crate::cli::table::{Cell, Paint, Table, colours, count, harmless, millis, painted, percent, span};
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Looks over which rates of credentials are taken.
const REMEMBERED: Duration = Duration::from_mins(1);
/// Rows of a frame besides those of the tables: summary, headings, blank lines, what is not shown.
const AROUND: usize = 9;

/// How many attempts credentials had, look by look.
#[derive(Debug, Default)]
pub(super) struct Rates {
    looks: VecDeque<(Instant, HashMap<String, u64>)>,
}

impl Rates {
    /// Takes a look down.
    pub(super) fn note(&mut self, look: &Look) {
        let attempts = |one: &Value| number(one, "success") + number(one, "failed");
        let counted = elements(&look.credentials, "credentials")
            .iter()
            .map(|one| (text(one, "auth_index").to_owned(), attempts(one)));
        self.looks.push_back((look.at, counted.collect()));
        while self.looks.front().is_some_and(|(at, _)| look.at.duration_since(*at) > REMEMBERED) {
            self.looks.pop_front();
        }
    }

    /// Attempts per second over the looks that are remembered; `None`: there is nothing to compare with.
    fn of(&self, index: &str) -> Option<f64> {
        let (first, last) = (self.looks.front()?, self.looks.back()?);
        let seconds = last.0.duration_since(first.0).as_secs_f64();
        let (before, after) = (first.1.get(index)?, last.1.get(index)?);
        // A process that was started anew counts from 0.
        (seconds > 0.0).then(|| after.saturating_sub(*before) as f64 / seconds)
    }
}

/// What a frame is made of.
#[derive(Debug)]
pub(super) struct Frame<'f> {
    pub look: &'f Look,
    pub rates: &'f Rates,
    pub base: &'f str,
}

impl Frame<'_> {
    /// For a terminal of so many columns and rows, with what keeps the process from being asked.
    pub(super) fn with_trouble(&self, (_, rows): (u16, u16), trouble: Option<&str>) -> String {
        let told = trouble.map(|trouble| painted(trouble, Paint::Bad, colours()) + "\n").unwrap_or_default();
        let rows = usize::from(rows).saturating_sub(usize::from(trouble.is_some()));
        told + &self.text(Some(rows), colours()) + &painted("q ends", Paint::Dim, colours())
    }

    /// As text of at most so many rows.
    pub(super) fn text(&self, rows: Option<usize>, colours: bool) -> String {
        let mut providers = self.providers();
        let mut credentials = self.credentials();
        let room = rows.map_or(usize::MAX, |rows| rows.saturating_sub(AROUND));
        // Providers are few; the credentials have the rest.
        let for_providers = providers.len().min(room.div_ceil(2).max(room.saturating_sub(credentials.len())));
        let hidden_providers = providers.len() - for_providers;
        providers.truncate(for_providers);
        let for_credentials = credentials.len().min(room.saturating_sub(for_providers));
        let hidden = credentials.len() - for_credentials;
        credentials.truncate(for_credentials);
        let more = |number: usize| {
            if number == 0 {
                String::new()
            } else {
                painted(&format!("… {number} more"), Paint::Dim, colours) + "\n"
            }
        };
        format!(
            "{}\n{}{}\n{}{}",
            self.summary(colours),
            providers.text(colours),
            more(hidden_providers),
            credentials.text(colours),
            more(hidden)
        )
    }

    fn summary(&self, colours: bool) -> String {
        let (health, metrics) = (&self.look.health, &self.look.metrics);
        let told = metrics.get("providers").and_then(Value::as_object);
        let sum = |key| told.into_iter().flatten().map(|(_, one)| of_window(one, key)).sum::<u64>();
        let (calls, failed) = (sum("request_count"), sum("failure_count"));
        let ready = text(health, "status") == "ok";
        let (word, paint) = if ready { ("ready", Paint::Good) } else { ("leaving", Paint::Bad) };
        let mut out = format!("cliproxy {} on {}, ", harmless(text(health, "version")), self.base);
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "up {}, {}, {} in flight, {}/s, errors {}",
            span(number(health, "uptime_seconds")),
            painted(word, paint, colours),
            number(&self.look.credentials, "in_flight"),
            rate(calls as f64 / WINDOW_S as f64),
            percent(failed, calls)
        );
        out
    }

    fn providers(&self) -> Table {
        let mut table = Table::new(&[
            "PROVIDER",
            ">READY",
            ">COOLING",
            ">IN FLIGHT",
            ">CALLS/S",
            ">ERRORS",
            ">P50",
            ">P95",
            ">FIRST P50",
            ">FIRST P95",
            ">TOKENS",
        ]);
        let all = elements(&self.look.credentials, "credentials");
        let under_way = |name: &str| -> u64 {
            all.iter().filter(|one| text(one, "provider") == name).map(|one| number(one, "in_flight")).sum()
        };
        let told = self.look.metrics.get("providers").and_then(Value::as_object);
        let mut rows: Vec<(u64, u64, &str, &Value)> = told
            .into_iter()
            .flatten()
            .map(|(name, one)| (under_way(name), of_window(one, "request_count"), name.as_str(), one))
            .collect();
        rows.sort_by_key(|(in_flight, calls, name, _)| (std::cmp::Reverse((*in_flight, *calls)), *name));
        for (in_flight, calls, name, one) in rows {
            let known = |key: &str| millis(Some(number(one, key)).filter(|ms| *ms > 0));
            let failed = of_window(one, "failure_count");
            let (ready, cooling) = (number(one, "auth_ready"), number(one, "auth_cooling"));
            let paint = match (ready, cooling) {
                (0, 1..) => Paint::Bad,
                (_, 1..) => Paint::Warn,
                _ => Paint::Plain,
            };
            table.row([
                name.into(),
                Cell::painted(format!("{ready}/{}", number(one, "auth_total")), paint),
                Cell::painted(cooling.to_string(), paint),
                in_flight.to_string().into(),
                rate(calls as f64 / WINDOW_S as f64).into(),
                Cell::painted(percent(failed, calls), if failed > 0 { Paint::Warn } else { Paint::Plain }),
                known("latency_p50_ms").into(),
                known("latency_p95_ms").into(),
                known("ttft_p50_ms").into(),
                known("ttft_p95_ms").into(),
                count(number(one, "total_tokens")).into(),
            ]);
        }
        table
    }

    fn credentials(&self) -> Table {
        let mut table = Table::new(&[
            "CREDENTIAL",
            "PROVIDER",
            ">IN FLIGHT",
            ">CALLS/S",
            ">GOOD",
            ">FAILED",
            ">FIRST",
            "STATE",
        ]);
        let mut all: Vec<(&Value, Option<f64>)> = elements(&self.look.credentials, "credentials")
            .iter()
            .map(|one| (one, self.rates.of(text(one, "auth_index"))))
            .collect();
        all.sort_by(|(a, a_rate), (b, b_rate)| {
            let busy = number(b, "in_flight").cmp(&number(a, "in_flight"));
            let quick = b_rate.unwrap_or(0.0).total_cmp(&a_rate.unwrap_or(0.0));
            let rests = || elements(b, "cooling").len().cmp(&elements(a, "cooling").len());
            busy.then(quick).then_with(rests).then_with(|| text(a, "label").cmp(text(b, "label")))
        });
        for (one, calls) in all {
            let limit = one.get("in_flight_limit").and_then(Value::as_u64);
            let in_flight = number(one, "in_flight");
            table.row([
                text(one, "label").into(),
                text(one, "provider").into(),
                limit.map_or(in_flight.to_string(), |limit| format!("{in_flight}/{limit}")).into(),
                calls.map_or("?".to_owned(), rate).into(),
                count(number(one, "success")).into(),
                count(number(one, "failed")).into(),
                millis(one.get("latency_ms").and_then(Value::as_u64)).into(),
                state(one),
            ]);
        }
        table
    }
}

fn of_window(provider: &Value, key: &str) -> u64 {
    provider.get("window").map_or(0, |window| number(window, key))
}

fn rate(per_second: f64) -> String {
    if per_second >= 100.0 { format!("{per_second:.0}") } else { format!("{per_second:.2}") }
}

/// Whether a credential can serve, and if not for how long.
fn state(credential: &Value) -> Cell {
    if credential.get("disabled") == Some(&Value::Bool(true)) {
        return Cell::painted("switched off", Paint::Dim);
    }
    let cooling = elements(credential, "cooling");
    let rest = |rest: &Value| format!("{} ({})", span(number(rest, "left_seconds")), text(rest, "reason"));
    if let Some(whole) = cooling.iter().find(|rest| rest.get("model") == Some(&Value::Null)) {
        return Cell::painted(format!("cooling {}", rest(whole)), Paint::Bad);
    }
    let longest = cooling.iter().max_by_key(|rest| number(rest, "left_seconds"));
    match (longest, cooling.len()) {
        (None, _) => Cell::painted("ready", Paint::Good),
        (Some(one), 1) => Cell::painted(format!("{} cooling {}", text(one, "model"), rest(one)), Paint::Warn),
        (Some(one), many) => {
            Cell::painted(format!("{many} models cooling, up to {}", rest(one)), Paint::Warn)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn look(at: Instant, good: u64) -> Look {
        Look {
            at,
            health: json!({"status": "ok", "version": "1", "uptime_seconds": 61}),
            metrics: json!({"providers": {
                "claude": {"auth_ready": 1, "auth_cooling": 1, "auth_total": 2, "latency_p50_ms": 850, "latency_p95_ms": 2100,
                    "ttft_p50_ms": 0, "total_tokens": 12_345, "window": {"request_count": 120, "failure_count": 3}},
                "idle": {"auth_ready": 1, "auth_total": 1, "window": {"request_count": 0}},
            }}),
            credentials: json!({"in_flight": 3, "credentials": [
                {"auth_index": "a", "label": "claude#1", "provider": "claude", "in_flight": 1, "success": good, "failed": 0, "cooling": []},
                {"auth_index": "b", "label": "claude#2", "provider": "claude", "in_flight": 2, "in_flight_limit": 4,
                    "latency_ms": 90, "success": 0, "failed": 7, "cooling": [{"model": null, "reason": "rate_limit", "left_seconds": 75}]},
                {"auth_index": "c", "label": "idle#1", "provider": "idle", "disabled": true},
                {"auth_index": "d", "label": "idle#2", "provider": "idle", "cooling": [{"model": "m", "reason": "quota", "left_seconds": 5}]},
            ]}),
        }
    }

    #[test]
    fn the_busiest_come_first_with_how_long_they_rest() {
        let look = look(Instant::now(), 10);
        let text = Frame { look: &look, rates: &Rates::default(), base: "http://h:1" }.text(None, false);
        assert_eq!(
            text,
            "cliproxy 1 on http://h:1, up 1m 1s, ready, 3 in flight, 2.00/s, errors 2.5%\n\n\
             PROVIDER  READY  COOLING  IN FLIGHT  CALLS/S  ERRORS    P50   P95  FIRST P50  FIRST P95  TOKENS\n\
             claude      1/2        1          3     2.00    2.5%  850ms  2.1s          ?          ?   12.3k\n\
             idle        1/1        0          0     0.00       -      ?     ?          ?          ?       0\n\n\
             CREDENTIAL  PROVIDER  IN FLIGHT  CALLS/S  GOOD  FAILED  FIRST  STATE\n\
             claude#2    claude          2/4        ?     0       7   90ms  cooling 1m 15s (rate_limit)\n\
             claude#1    claude            1        ?    10       0      ?  ready\n\
             idle#2      idle              0        ?     0       0      ?  m cooling 5s (quota)\n\
             idle#1      idle              0        ?     0       0      ?  switched off\n"
        );
    }

    #[test]
    fn rates_are_those_between_looks_and_a_restart_is_no_rate() {
        let begun = Instant::now();
        let mut rates = Rates::default();
        rates.note(&look(begun, 10));
        assert_eq!(rates.of("a"), None);
        rates.note(&look(begun + Duration::from_secs(2), 20));
        assert_eq!(rates.of("a"), Some(5.0));
        rates.note(&look(begun + Duration::from_secs(4), 0));
        assert_eq!((rates.of("a"), rates.of("nobody")), (Some(0.0), None));
        rates.note(&look(begun + Duration::from_secs(70), 0));
        assert_eq!(rates.looks.len(), 1, "what is older than a minute is forgotten");
    }

    #[test]
    fn a_frame_is_no_longer_than_the_terminal() {
        let mut look = look(Instant::now(), 1);
        let one = look.credentials["credentials"][0].clone();
        let many: Vec<Value> = (0..200).map(|_| one.clone()).collect();
        look.credentials["credentials"] = many.into();
        let rates = Rates::default();
        let frame = Frame { look: &look, rates: &rates, base: "b" };
        for rows in [12, 24, 60] {
            let text = frame.with_trouble((80, rows), Some("gone"));
            assert!(text.lines().count() <= usize::from(rows), "{rows}: {text}");
            assert!(text.contains("more"), "{text}");
        }
        assert!(frame.text(None, false).lines().count() > 200);
    }
}
