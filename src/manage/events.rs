//! What happens, as it happens: `GET events`, a stream of server-sent events.
//!
//! Enters: which topics, and the id of the last event where a listener had one. Leaves: a `snapshot`, then what
//! changes: every request that ends, alerts and credentials that change their state, a figure each second, lines
//! of the log. All listeners share one look at the sources and one copy of the bytes, and nothing is looked at
//! while nobody listens. May go wrong: an unknown topic (400), too many listeners (429); a listener that reads
//! too slowly, or comes back too late, gets an event `resync` and should ask the lists anew.
//!
//! Requests carry ids. Who comes back with `Last-Event-ID` gets those that it missed, as far as they are still
//! known. Of a flood the newest are shown, and an event `skipped` says how many are not.

mod hub;
mod sources;

use super::answer::Refusal;
use super::lists::Parameters;
use super::{App, Manage, Routes, beside, logs, requests};
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use hub::{ALERTS, CREDENTIALS, Frames, LOGS, NOW, REQUESTS, Topics};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sources::Watched;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Time between two looks at requests and the log.
const TICK: Duration = Duration::from_millis(500);
/// Requests of one look that are shown: fifty a second, as many as anybody reads.
const TAP: usize = 25;
/// Requests of a snapshot.
const SHOWN: usize = 50;
/// Milliseconds after which a listener comes back.
const RETRY: &str = "retry: 2000\n\n";

/// What is known of the sources, and who wants to know.
pub(super) struct Events {
    /// Tells the ids of this process from those of others.
    epoch: String,
    watched: Mutex<Watched>,
}

impl Default for Events {
    fn default() -> Self {
        let epoch = format!("{:x}", jiff::Timestamp::now().as_millisecond());
        Self { epoch, watched: Mutex::default() }
    }
}

pub(super) fn routes() -> Routes {
    vec![("events".to_owned(), get(listen))]
}

async fn listen(
    State(app): State<App>,
    Query(query): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let topics = query.get("topics").map_or("", String::as_str);
    let topics = Topics::parse(topics).map_err(Refusal::bad)?;
    if topics.has(LOGS) {
        logs::folder(&app.state)?;
    }
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let last = last.or_else(|| query.get("last-event-id").cloned()).filter(|id| !id.is_empty());
    let mine = Arc::clone(&app);
    let begun = beside(move || mine.events.begin(&mine, topics, last.as_deref()));
    let (receiver, is_first) = begun.await??;
    if is_first {
        tokio::spawn(run(app));
    }
    let parts = stream::unfold(receiver, |mut receiver| async move {
        let part = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(part), receiver))
    });
    let kind = [(CONTENT_TYPE, "text/event-stream; charset=utf-8")];
    Ok((kind, [("x-accel-buffering", "no")], Body::from_stream(parts)).into_response())
}

/// Looks at the sources for as long as somebody listens.
async fn run(app: App) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let mine = Arc::clone(&app);
        match beside(move || mine.events.look(&mine)).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => {
                // It panicked, which the log says. The next listener begins anew.
                app.events.watched.lock().running = false;
                return;
            }
        }
    }
}

impl Events {
    /// One look; `false`: nobody listens any more.
    fn look(&self, app: &Manage) -> bool {
        let now = Instant::now();
        let mut watched = self.watched.lock();
        if watched.hub.count() == 0 {
            watched.running = false;
            return false;
        }
        let topics = watched.hub.topics();
        let frames = self.frames(app, &mut watched, topics, false, now);
        watched.hub.publish(&frames, now);
        true
    }

    /// A new listener, and whether it is the first one.
    fn begin(
        &self,
        app: &Manage,
        topics: Topics,
        last: Option<&str>,
    ) -> Result<(mpsc::Receiver<Bytes>, bool), Refusal> {
        let now = Instant::now();
        let mut watched = self.watched.lock();
        if watched.hub.count() >= hub::MOST {
            let many = format!("{} listeners are there already", hub::MOST);
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, many).after(5));
        }
        let is_first = !watched.running;
        if is_first {
            watched.restart(app, now);
        }
        // The others get what happened up to here, so that the new one begins where they are.
        let all = watched.hub.topics().and(topics);
        let frames = self.frames(app, &mut watched, all, true, now);
        watched.hub.publish(&frames, now);
        let first = self.first(app, &watched, topics, last);
        let receiver = watched.hub.listen(topics, first, now);
        watched.running = true;
        Ok((receiver, is_first))
    }

    fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.epoch)
    }

    /// What a listener gets first.
    fn first(&self, app: &Manage, watched: &Watched, topics: Topics, last: Option<&str>) -> Vec<u8> {
        let mut out = RETRY.as_bytes().to_vec();
        let known = last.map(|id| {
            let number = id.strip_prefix(&self.epoch)?.strip_prefix('-')?.parse::<u64>().ok()?;
            Some(number).filter(|number| *number <= watched.seen)
        });
        if known == Some(None) {
            hub::resync(&mut out, None);
        }
        let known = known.flatten().filter(|_| topics.has(REQUESTS));
        let mut page = match known {
            Some(number) => app.state.feed.since(number, usize::MAX),
            None => app.state.feed.since(0, SHOWN),
        };
        page.entries.retain(|(number, _)| *number <= watched.seen);
        let mut snapshot = json!({ "topics": hub::TOPICS.iter().enumerate().filter(|(n, _)| topics.has(*n)).map(|(_, name)| *name).collect::<Vec<_>>() });
        for (topic, value) in [
            (NOW, watched.now.clone()),
            (ALERTS, watched.alerts.values().map(|(_, alert)| alert.clone()).collect()),
            (CREDENTIALS, watched.credentials.values().map(|(_, shown)| shown.clone()).collect()),
        ] {
            if topics.has(topic) {
                snapshot[hub::TOPICS.get(topic).copied().unwrap_or_default()] = value;
            }
        }
        if topics.has(REQUESTS) && known.is_none() {
            let shown = page.entries.iter().map(|(_, entry)| serde_json::from_slice(&requests::shown(entry)));
            snapshot["requests"] = shown.filter_map(Result::ok).collect::<Vec<Value>>().into();
        }
        let id = self.id(known.unwrap_or(watched.seen));
        let id = topics.has(REQUESTS).then_some(id.as_str());
        hub::event(&mut out, "snapshot", id, snapshot.to_string().as_bytes());
        if known.is_some() {
            if page.skipped > 0 {
                hub::resync(&mut out, Some(page.skipped));
            }
            for (number, entry) in &page.entries {
                hub::event(&mut out, "requests", Some(&self.id(*number)), &requests::shown(entry));
            }
        }
        out
    }

    /// What happened since the last look; `all`: of sources too that are looked at once a second.
    fn frames(&self, app: &Manage, watched: &mut Watched, topics: Topics, all: bool, now: Instant) -> Frames {
        let mut frames = Frames::default();
        let page = app.state.feed.since(watched.seen, if topics.has(REQUESTS) { TAP } else { 0 });
        watched.seen = page.last;
        if page.skipped > 0 && topics.has(REQUESTS) {
            let data = format!("{{\"requests\":{}}}", page.skipped);
            frames.add(REQUESTS, "skipped", None, data.as_bytes());
        }
        for (number, entry) in &page.entries {
            frames.add(REQUESTS, "requests", Some(&self.id(*number)), &requests::shown(entry));
        }
        if topics.has(LOGS) {
            watched.log_lines(app, &mut frames);
        }
        let is_due = watched.figures(app, now, &mut frames);
        if (is_due || all) && topics.has(CREDENTIALS) {
            watched.standings(app, &mut frames);
        }
        if (is_due || all) && topics.has(ALERTS) {
            watched.alerts(app, &mut frames);
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::feed::Entry;
    use crate::observe::request::Facts;
    use crate::state::accounts::Accounts;

    fn app() -> Manage {
        let text = b"claude-api-key: [{api-key: canary, models: [{name: m}]}]\n";
        let config = config::load(text).unwrap().config;
        let state = crate::state::State::new(config, Accounts::default()).unwrap().0;
        Manage::new(Arc::new(state), "0", "")
    }

    fn request(app: &Manage, model: &str) {
        let facts = Facts { model: model.to_owned(), status: 200, ..Facts::default() };
        app.state.feed.push(Entry::new(facts, None, 0), None);
    }

    fn begin(app: &Manage, last: Option<&str>) -> mpsc::Receiver<Bytes> {
        app.events.begin(app, Topics::USUAL, last).unwrap().0
    }

    fn text(receiver: &mut mpsc::Receiver<Bytes>) -> String {
        let mut text = String::new();
        while let Ok(part) = receiver.try_recv() {
            text.push_str(&String::from_utf8_lossy(&part));
        }
        text
    }

    fn last_id(text: &str) -> String {
        text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap().to_owned()
    }

    #[test]
    fn a_snapshot_comes_first_and_every_request_once() {
        let app = app();
        request(&app, "one");
        let mut first = begin(&app, None);
        request(&app, "two");
        let mut second = begin(&app, None);
        request(&app, "three");
        assert!(app.events.look(&app));
        let (first, second) = (text(&mut first), text(&mut second));
        assert!(first.starts_with("retry: 2000\n\nid: "), "{first}");
        for (stream, model, in_snapshot) in [
            (&first, "one", true),
            (&first, "two", false),
            (&first, "three", false),
            (&second, "one", true),
            (&second, "two", true),
            (&second, "three", false),
        ] {
            let named = format!("\"model\":\"{model}\"");
            let lines: Vec<_> = stream.lines().filter(|line| line.contains(&named)).collect();
            assert_eq!(lines.len(), 1, "{model}: {stream}");
            assert_eq!(lines[0].contains("\"topics\""), in_snapshot, "{model}: {stream}");
        }
        assert!(first.contains("\"state\":\"ready\"") && !first.contains("canary"));
        assert!(app.events.watched.lock().running);
    }

    #[test]
    fn who_comes_back_gets_what_it_missed_and_is_told_what_is_lost() {
        let app = app();
        let mut first = begin(&app, None);
        request(&app, "one");
        app.events.look(&app);
        let seen = last_id(&text(&mut first));
        drop(first);
        assert!(!app.events.look(&app), "nobody is there");
        (0..3).for_each(|n| request(&app, &format!("missed-{n}")));
        let back = text(&mut begin(&app, Some(&seen)));
        assert!(!back.contains("resync") && !back.contains("\"one\""), "{back}");
        assert_eq!(back.matches("event: requests\n").count(), 3, "{back}");
        assert_eq!(last_id(&back), app.events.id(4));
        (0..2000).for_each(|_| request(&app, "flood"));
        let back = text(&mut begin(&app, Some(&seen)));
        let lost = 2004 - 1 - 1024;
        assert!(back.contains(&format!("event: resync\ndata: {{\"dropped\":{lost}}}")), "{lost}");
        assert_eq!(back.matches("event: requests\n").count(), 1024);
        for foreign in ["0-1", "x", "-", &app.events.id(9_999_999)] {
            let back = text(&mut begin(&app, Some(foreign)));
            assert!(back.contains("event: resync\ndata: {\"dropped\":null}"), "{foreign}: {back}");
            assert!(back.contains("event: snapshot\n"));
        }
    }

    #[test]
    fn of_a_flood_the_newest_are_shown_and_the_rest_is_counted() {
        let app = app();
        let mut listener = begin(&app, None);
        let _ = text(&mut listener);
        (0..100).for_each(|n| request(&app, &format!("m{n}")));
        app.events.look(&app);
        let told = text(&mut listener);
        assert_eq!(told.matches("event: requests\n").count(), TAP);
        assert!(told.contains("event: skipped\ndata: {\"requests\":75}") && told.contains("\"m99\""));
    }

    #[test]
    fn credentials_are_told_when_they_change() {
        let app = app();
        let mut listener = begin(&app, None);
        let _ = text(&mut listener);
        let slow = || app.events.watched.lock().slow = Instant::now().checked_sub(sources::SLOW);
        slow();
        app.events.look(&app);
        let told = text(&mut listener);
        assert!(told.contains("event: now\n") && !told.contains("event: credentials"), "{told}");
        app.state.apply(config::Config::default(), Accounts::default());
        slow();
        app.events.look(&app);
        assert!(text(&mut listener).contains("\"state\":\"gone\""));
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let app = app();
        let all: Vec<_> = (0..hub::MOST).map(|_| begin(&app, None)).collect();
        assert!(app.events.begin(&app, Topics::USUAL, None).is_err());
        drop(all);
        assert!(app.events.begin(&app, Topics::USUAL, None).is_ok());
    }
}
