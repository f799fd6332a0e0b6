//! Alerts on their way to whoever is told.
//!
//! Enters: changes of alerts, and who is told of them. Leaves: posts to webhooks and runs of programs; counts
//! of what became of them. May go wrong: a target does not take it in time; it is tried [`TRIES`] times and then
//! given up, with a line in the log. What is too much for the queue is dropped and counted: nobody waits here,
//! neither requests nor the sidecar. What waits when the process ends is lost; the log has it.
//!
//! One worker takes all of it. Each target gets one after the other, so that its order stays; targets do not
//! wait for each other, and one that hangs fills its share of the queue and no more.

mod program;
mod webhook;

use super::App;
use crate::observe::alerts::{Alert, Change, Severity};
use crate::state::State;
use config::NotifyTarget;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Notifications that wait or are being delivered.
const MOST: usize = 256;
/// Of these: to one target.
const MOST_OF_ONE: usize = 64;
/// Times that an alert is tried.
const TRIES: u32 = 3;
/// Pause after the first try; it grows by [`GROWTH`] with each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// By what pauses grow.
const GROWTH: u32 = 5;

/// Why something was not delivered. It never holds an address, a header or an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// For people.
    pub(super) reason: String,
    /// It may work the next time.
    pub(super) again: bool,
}

impl Failed {
    fn now(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), again: true }
    }

    fn for_good(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), again: false }
    }
}

/// What became of one notification.
pub(super) type Told = Result<(), Failed>;

/// One notification to one target.
pub(super) struct Job {
    target: Arc<NotifyTarget>,
    alert: Arc<Alert>,
    /// The same for all tries, so that a receiver can tell a repetition.
    delivery: String,
    tries: u32,
    answer: Option<oneshot::Sender<Told>>,
    place: Place,
}

/// Who waits in the queue: targets with the number of their notifications.
type Waiting = Mutex<Vec<(Arc<NotifyTarget>, usize)>>;

/// A place in the queue; given back when the value is dropped.
struct Place {
    waiting: Arc<Waiting>,
    target: Arc<NotifyTarget>,
}

impl Place {
    /// A place for `target`, if there is one.
    fn take(waiting: &Arc<Waiting>, target: &Arc<NotifyTarget>) -> Option<Self> {
        let mut all = waiting.lock();
        if all.iter().map(|(_, count)| count).sum::<usize>() >= MOST {
            return None;
        }
        match all.iter_mut().find(|(known, _)| known == target) {
            Some((_, MOST_OF_ONE..)) => return None,
            Some((_, count)) => *count += 1,
            None => all.push((Arc::clone(target), 1)),
        }
        drop(all);
        Some(Self { waiting: Arc::clone(waiting), target: Arc::clone(target) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.waiting.lock();
        if let Some((_, count)) = all.iter_mut().find(|(known, _)| *known == self.target) {
            *count -= 1;
        }
        all.retain(|(_, count)| *count > 0);
    }
}

/// The queue.
pub(super) struct Notifier {
    sender: mpsc::Sender<Job>,
    jobs: Mutex<Option<mpsc::Receiver<Job>>>,
    waiting: Arc<Waiting>,
    counts: IntCounterVec,
}

/// What became of all notifications so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Counts {
    queued: u64,
    delivered: u64,
    failed: u64,
    dropped: u64,
}

impl Notifier {
    /// An empty queue.
    pub(super) fn new(state: &State) -> Self {
        // No more than have a place.
        let (sender, jobs) = mpsc::channel(MOST);
        let counts = state.metrics.notifications.clone();
        Self { sender, jobs: Mutex::new(Some(jobs)), waiting: Arc::default(), counts }
    }

    /// The worker; `None`: it works already.
    pub(super) fn worker(&self, app: &App) -> Option<impl Future<Output = ()> + use<>> {
        let jobs = self.jobs.lock().take()?;
        Some(work(Arc::clone(app), jobs))
    }

    /// What became of all so far.
    pub(super) fn counts(&self) -> Counts {
        let count = |outcome| self.counts.with_label_values(&[outcome]).get();
        let queued = self.waiting.lock().iter().map(|(_, count)| *count as u64).sum();
        Counts { queued, delivered: count("delivered"), failed: count("failed"), dropped: count("dropped") }
    }

    /// Tells of a change whoever wants to know of it. Never waits.
    pub(super) fn tell(&self, targets: &[NotifyTarget], change: &Change) {
        let mut shared = None;
        for target in targets.iter().filter(|target| wants(target, change)) {
            let alert = shared.get_or_insert_with(|| Arc::new(change.alert.clone()));
            self.put(target, alert, TRIES, None);
        }
    }

    /// Sends one alert to a target, once, whatever it wants to know. What became of it comes later.
    pub(super) fn try_target(&self, target: &NotifyTarget, alert: &Arc<Alert>) -> oneshot::Receiver<Told> {
        let (answer, told) = oneshot::channel();
        self.put(target, alert, 1, Some(answer));
        told
    }

    fn put(
        &self,
        target: &NotifyTarget,
        alert: &Arc<Alert>,
        tries: u32,
        answer: Option<oneshot::Sender<Told>>,
    ) {
        let target = Arc::new(target.clone());
        let Some(place) = Place::take(&self.waiting, &target) else {
            self.count("dropped");
            if let Some(answer) = answer {
                let _ = answer.send(Err(Failed::now("the queue of notifications is full")));
            }
            return;
        };
        let delivery = uuid::Uuid::now_v7().to_string();
        let job = Job { target, alert: Arc::clone(alert), delivery, tries, answer, place };
        if let Err(refused) = self.sender.try_send(job) {
            self.count("dropped");
            answer_to(refused.into_inner(), Err(Failed::for_good("nobody delivers notifications now")));
        }
    }

    fn count(&self, outcome: &str) {
        self.counts.with_label_values(&[outcome]).inc();
    }
}

/// Whether a target wants to know of a change. What is less bad than it was counts as over.
fn wants(target: &NotifyTarget, change: &Change) -> bool {
    let least = Severity::from(target.min_severity);
    change.now() >= least || (target.send_resolved && change.before >= least)
}

fn answer_to(job: Job, told: Told) {
    let Job { answer, place, .. } = job;
    // The place is free before anybody hears of it.
    drop(place);
    if let Some(answer) = answer {
        let _ = answer.send(told);
    }
}

/// Delivers what comes, until nobody can send any more.
async fn work(app: App, mut jobs: mpsc::Receiver<Job>) {
    let mut waiting: VecDeque<Job> = VecDeque::new();
    let mut busy: Vec<Arc<NotifyTarget>> = Vec::new();
    let mut under_way: FuturesUnordered<BoxFuture<'static, Arc<NotifyTarget>>> = FuturesUnordered::new();
    loop {
        while let Some(next) = waiting.iter().position(|job| !busy.contains(&job.target)) {
            let Some(job) = waiting.remove(next) else { break };
            busy.push(Arc::clone(&job.target));
            under_way.push(Box::pin(deliver(Arc::clone(&app), job)));
        }
        tokio::select! {
            job = jobs.recv() => match job {
                Some(job) => waiting.push_back(job),
                None => return,
            },
            Some(done) = under_way.next() => busy.retain(|target| *target != done),
        }
    }
}

/// Tries until it is delivered or given up; the target is free then.
async fn deliver(app: App, job: Job) -> Arc<NotifyTarget> {
    let target = Arc::clone(&job.target);
    let mut pause = PAUSE;
    let mut tried = 0;
    let told = loop {
        if !is_configured(&app, &job) {
            break Err(Failed::for_good("the target is not configured any more"));
        }
        tried += 1;
        match once(&app, &job).await {
            Err(failed) if failed.again && tried < job.tries => {}
            told => break told,
        }
        tokio::time::sleep(pause).await;
        pause *= GROWTH;
    };
    app.notifier.count(if told.is_ok() { "delivered" } else { "failed" });
    if let Err(failed) = &told {
        let (alert, to) = (&job.alert.id, describe(&target));
        tracing::warn!(alert, to, tried, "alert not delivered: {}", failed.reason);
    }
    answer_to(job, told);
    target
}

/// What waits for a target that was taken out is not for it any more.
fn is_configured(app: &App, job: &Job) -> bool {
    app.state.snapshot.load().config.alerts.notify.contains(&job.target)
}

async fn once(app: &App, job: &Job) -> Told {
    let within = Duration::from_secs(job.target.timeout_seconds.into());
    match &job.target.webhook {
        Some(url) => webhook::post(app, url, &job.target, &job.alert, &job.delivery, within).await,
        None => program::run(&job.target, &job.alert, within).await,
    }
}

/// A target as people may see it.
pub(super) fn describe(target: &NotifyTarget) -> String {
    let (command, arguments) = (&target.command.program, target.command.arguments.len());
    match &target.webhook {
        Some(url) => url.masked(),
        None if !target.apprise.is_empty() => target.apprise.masked(),
        None if arguments == 1 => format!("{command} (1 argument)"),
        None => format!("{command} ({arguments} arguments)"),
    }
}

/// What a target is.
pub(super) fn kind(target: &NotifyTarget) -> &'static str {
    match &target.webhook {
        Some(_) => "webhook",
        None if target.apprise.is_empty() => "command",
        None => "apprise",
    }
}

/// What a target would get, as people may see it.
pub(super) fn preview(target: &NotifyTarget, alert: &Alert) -> serde_json::Value {
    match &target.webhook {
        Some(_) => webhook::preview(target, alert),
        None => program::preview(target, alert),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::alerts::Status;
    use crate::state::accounts::Accounts;

    fn targets(text: &str) -> Vec<NotifyTarget> {
        let text = format!("alerts: {{notify: [{text}]}}\n");
        config::load(text.as_bytes()).unwrap().config.alerts.notify
    }

    fn notifier() -> Notifier {
        let state = State::new(config::Config::default(), Accounts::default()).unwrap().0;
        Notifier::new(&state)
    }

    fn change(before: Severity, now: Severity) -> Change {
        let over = now == Severity::Fine;
        let severity = if over { before } else { now };
        let status = if over { Status::Resolved } else { Status::Firing };
        Change { before, alert: Alert { severity, status, ..Alert::canary(1) } }
    }

    #[test]
    fn targets_hear_what_they_want_to_hear() {
        use Severity::{Critical, Fine, Warning};
        let all = targets(
            "{command: [x]}, {command: [x], min-severity: critical}, {command: [x], send-resolved: false}",
        );
        let heard = |before, now| all.iter().map(|t| wants(t, &change(before, now))).collect::<Vec<_>>();
        assert_eq!(heard(Fine, Warning), [true, false, true]);
        assert_eq!(heard(Warning, Critical), [true, true, true]);
        assert_eq!(heard(Critical, Warning), [true, true, true], "for one of them it is over");
        assert_eq!(heard(Warning, Fine), [true, false, false]);
        assert_eq!(heard(Critical, Fine), [true, true, false]);
    }

    #[test]
    fn row_157_a_target_that_takes_nothing_fills_its_share_and_the_rest_is_dropped() {
        let notifier = notifier();
        let all = targets("{command: [hangs]}, {command: [works]}");
        let risen = change(Severity::Fine, Severity::Warning);
        for _ in 0..MOST_OF_ONE + 10 {
            notifier.tell(&all[..1], &risen);
        }
        let counts = notifier.counts();
        assert_eq!((counts.queued, counts.dropped), (MOST_OF_ONE as u64, 10));
        notifier.tell(&all[1..], &risen);
        assert_eq!(notifier.counts().dropped, 10, "another one has its own share");
        let many: Vec<_> = (0..10).map(|n| format!("{{command: [x, '{n}']}}")).collect();
        for _ in 0..MOST_OF_ONE {
            notifier.tell(&targets(&many.join(", ")), &risen);
        }
        assert_eq!(notifier.counts().queued, MOST as u64, "all together have no more than this");
        drop(notifier.jobs.lock().take());
        assert_eq!(notifier.counts().queued, 0);
        let told = notifier.try_target(&all[0], &Arc::new(Alert::canary(1))).blocking_recv().unwrap();
        assert_eq!(told.unwrap_err().reason, "nobody delivers notifications now");
    }

    #[test]
    fn p53_nothing_secret_of_a_target_is_shown() {
        let all = targets(
            "{webhook: 'https://h:1/CANARY?k=CANARY', secret: CANARY, headers: {Authorization: CANARY}}, \
             {command: [/bin/x, CANARY, CANARY]}, {apprise: 'mailto://CANARY:CANARY@h'}",
        );
        let shown: Vec<_> = all
            .iter()
            .map(|t| format!("{} {} {t:?} {}", kind(t), describe(t), preview(t, &Alert::canary(1))))
            .collect();
        assert!(!shown.concat().contains("CANARY"), "{shown:#?}");
        assert!(shown[0].starts_with("webhook https://h:1/********") && shown[0].contains("sha256="));
        assert!(shown[1].starts_with("command /bin/x (2 arguments)"));
        assert!(shown[2].starts_with("apprise mailto://********"));
    }
}
