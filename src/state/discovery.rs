//! Upstreams are asked which models they have: where the configuration lists none, and for accounts that do
//! not all have the same ones.
//!
//! Enters: credentials that can be asked ([`pool::CredentialSpec::lists`]). Leaves: their models, served as
//! soon as they are known and asked for again from time to time; how the asking went ([`Listing`]). May go
//! wrong: an upstream cannot say, or says that an account has no model at all. Then what it said before
//! stays, or the catalogue where it never said anything, and it is asked again later and later.

use super::State;
use crate::upstream::COPILOT;
use crate::upstream::fetch::{self, Question};
use async_trait::async_trait;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pool::found::{self, FoundModel, ListCall};
use pool::{CredentialId, CredentialSpec, Kind, Sent};
use secrecy::{ExposeSecret, SecretString};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two looks at who has to be asked.
const TICK: Duration = Duration::from_millis(250);
/// How long an answer is good.
const GOOD: Duration = Duration::from_hours(1);
/// Rest after a question without an answer, doubled by each further one up to the last of these. The network
/// of a machine that starts may be a moment behind.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(15));
/// The same after an upstream said that there is nothing, or lets nobody in.
const REST_OF_NONE: Duration = Duration::from_mins(1);
/// Upstreams that are asked at once.
const AT_ONCE: usize = 32;
/// Longest wait for a list, and the longest list in bytes.
const WITHIN: (Duration, usize) = (Duration::from_secs(10), 4 << 20);
/// Shortest time between two changes of what is served, while answers still come.
const APART: Duration = Duration::from_millis(200);

/// How the questions to a credential's upstream went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// How many models the upstream said that there are; `None`: it has not said.
    pub said: Option<usize>,
    /// What is served is not what the upstream said last: that was nothing, or no list.
    pub stale: bool,
    /// Questions in a row without a list.
    failures: u32,
}

/// The same of all that were asked.
pub type Listings = HashMap<CredentialId, Listing>;

/// What came of a question.
enum Answer {
    /// A list, maybe an empty one.
    Listed(Vec<FoundModel>),
    /// The upstream does not let the account in, for this reason.
    Refused(String),
    /// Nobody knows, for this reason.
    Failed(String),
}

/// Asks for the life of the process.
#[derive(Debug)]
pub struct Discovery(pub Arc<State>);

#[async_trait]
impl BackgroundService for Discovery {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let state = &*self.0;
        let mut next: HashMap<CredentialId, Instant> = HashMap::new();
        let mut line: VecDeque<CredentialSpec> = VecDeque::new();
        let mut asked: HashSet<CredentialId> = HashSet::new();
        let mut running = FuturesUnordered::new();
        let mut tick = tokio::time::interval(TICK);
        // What was said and is not yet served, and when that may be done.
        let (mut changed, mut not_before) = (false, Instant::now());
        loop {
            tokio::select! {
                Some((spec, answer)) = running.next() => {
                    let mut answers = vec![(spec, answer)];
                    while let Some(Some(more)) = running.next().now_or_never() {
                        answers.push(more);
                    }
                    for (spec, answer) in answers {
                        let (rest, other) = state.take(&spec, answer);
                        next.insert(spec.id.clone(), Instant::now() + rest);
                        asked.remove(&spec.id);
                        changed |= other;
                    }
                }
                _ = tick.tick() => {
                    let now = Instant::now();
                    if line.is_empty() {
                        let due = |id: &CredentialId| {
                            !asked.contains(id) && next.get(id).is_none_or(|next| *next <= now)
                        };
                        line.extend(state.pool.listers(due));
                        // Who is gone and comes back is asked at once.
                        next.retain(|id, _| state.pool.sent(id).is_some());
                        state.forget_gone();
                    }
                }
                _ = shutdown.changed() => return,
            }
            while asked.len() < AT_ONCE
                && let Some(spec) = line.pop_front()
            {
                asked.insert(spec.id.clone());
                running.push(Box::pin(async move {
                    let answer = state.models_of(&spec).await;
                    (spec, answer)
                }));
            }
            if changed && (running.is_empty() || Instant::now() >= not_before) {
                let begun = Instant::now();
                state.apply_found();
                (changed, not_before) = (false, Instant::now() + APART.max(begun.elapsed() * 10));
            }
        }
    }
}

impl State {
    /// How the question for the models of a credential went; `None`: it was not asked, or has not answered.
    pub fn listing(&self, id: &CredentialId) -> Option<Listing> {
        self.listings.lock().get(id).copied()
    }

    /// Forgets what was listed by credentials that are no more.
    fn forget_gone(&self) {
        let stays = |id: &CredentialId| self.pool.sent(id).is_some();
        self.listings.lock().retain(|id, _| stays(id));
        self.found.lock().retain(|id, _| stays(id));
    }

    /// Asks an upstream for its models, with a renewed token where the old one is refused. An account of which
    /// it says that there are none may have a token that is dead: once, it is renewed as well.
    async fn models_of(&self, spec: &CredentialSpec) -> Answer {
        if let Err(problem) = self.ready_token(spec).await {
            return Answer::Failed(problem);
        }
        let answer = self.ask_once(spec).await;
        let none = match &answer {
            Answer::Listed(models) => models.is_empty(),
            Answer::Refused(_) => true,
            Answer::Failed(_) => false,
        };
        let tried = self.listing(&spec.id).is_some_and(|listing| listing.stale);
        if !none || tried || !spec.refreshable {
            return answer;
        }
        let old = self.sent_secret(spec.id.as_str());
        match self.renew(spec.id.as_str(), old.as_ref()).await {
            Ok(()) => self.ask_once(spec).await,
            // Renewals tell why themselves.
            Err(_) => answer,
        }
    }

    /// Sees to a token where there is none yet, or an old one.
    async fn ready_token(&self, spec: &CredentialSpec) -> Result<(), String> {
        let now_s = self.now().wall_s;
        let (is_over, is_missing) = match self.pool.sent(&spec.id) {
            Some(Sent::Token(token)) => (token.is_over(now_s), false),
            Some(Sent::Own) | None => (spec.end_s.is_some_and(|end_s| end_s <= now_s), false),
            Some(Sent::Missing) => (true, true),
        };
        if !is_over || !spec.refreshable {
            return Ok(());
        }
        let old = self.sent_secret(spec.id.as_str());
        match self.renew(spec.id.as_str(), old.as_ref()).await {
            Err(error) if is_missing => Err(error.to_string()),
            // The clock may be wrong: the upstream has the last word on a token.
            _ => Ok(()),
        }
    }

    async fn ask_once(&self, spec: &CredentialSpec) -> Answer {
        let Some(call) = ListCall::of(spec) else { return Answer::Failed("nobody is asked".to_owned()) };
        let (secret, told) = match self.pool.sent(&spec.id) {
            Some(Sent::Token(token)) => (token.secret.clone(), token.base_url.clone()),
            _ => (self.sent_secret(spec.id.as_str()).unwrap_or_else(|| spec.secret.clone()), None),
        };
        let snapshot = self.snapshot.load_full();
        let lane = match self.lanes.get(spec, told.as_deref(), &snapshot.config) {
            Ok(lane) => lane,
            Err(error) => return Answer::Failed(error.to_string()),
        };
        let target = format!("{}{}", lane.base_path(), call.path);
        let headers = headers(spec, &secret, &call);
        let body = SecretString::from(call.body);
        let question = Question { method: call.method, target: &target, headers: &headers, body: &body };
        let (within, most) = WITHIN;
        let path = target.split('?').next().unwrap_or_default();
        let place = format!("{}{path}", lane.authority());
        let answer = match fetch::ask_within(&self.connector, &lane, &question, within, most).await {
            Ok(answer) => answer,
            Err(error) => return Answer::Failed(format!("{place}: {}", error.etype().as_str())),
        };
        match answer.status {
            200 => found::read(spec.kind, &answer.body).map_or_else(
                || Answer::Failed(format!("{place}: the answer is no list of models")),
                Answer::Listed,
            ),
            status @ (401 | 403) => Answer::Refused(format!("{place}: status {status}")),
            status => Answer::Failed(format!("{place}: status {status}")),
        }
    }

    /// Takes an answer down. Leaves the time until the next question, and whether something else is to be
    /// served now.
    fn take(&self, spec: &CredentialSpec, answer: Answer) -> (Duration, bool) {
        // What others serve is known from nowhere else.
        let account = found::path_of(spec.kind).is_some();
        let mut listings = self.listings.lock();
        let listing = listings.entry(spec.id.clone()).or_default();
        let (problem, first) = match answer {
            Answer::Listed(models) if !models.is_empty() || !account => {
                let count = models.len();
                *listing = Listing { said: Some(count), stale: false, failures: 0 };
                drop(listings);
                return (GOOD, self.keep_found(spec, models));
            }
            Answer::Listed(_) => {
                listing.said = Some(0);
                ("the upstream lists no models for this account".to_owned(), REST_OF_NONE)
            }
            Answer::Refused(problem) => {
                listing.said = Some(0);
                (problem, REST_OF_NONE)
            }
            Answer::Failed(problem) => (problem, REST.0),
        };
        listing.stale = account;
        listing.failures = listing.failures.saturating_add(1);
        let rest = (first * (1 << (listing.failures - 1).min(10))).min(REST.1);
        drop(listings);
        let stays = if self.found.lock().contains_key(&spec.id) {
            "those it listed before stay"
        } else if account {
            "those of the catalogue stay"
        } else {
            "there are none"
        };
        tracing::warn!(
            credential = %spec.label, provider = %spec.provider,
            "models not listed: {problem}; {stays}"
        );
        (rest, false)
    }

    /// Keeps a list. Whether it is another than before.
    fn keep_found(&self, spec: &CredentialSpec, models: Vec<FoundModel>) -> bool {
        let models: Arc<[FoundModel]> = models.into();
        let count = models.len();
        let mut all = self.found.lock();
        if all.get(&spec.id).is_some_and(|before| *before == models) {
            return false;
        }
        all.insert(spec.id.clone(), models);
        drop(all);
        tracing::info!(credential = %spec.label, provider = %spec.provider, models = count, "models listed");
        true
    }
}

/// What goes with a question.
fn headers<'s>(
    spec: &'s CredentialSpec,
    secret: &SecretString,
    call: &ListCall,
) -> Vec<(&'s str, SecretString)> {
    let mut headers = Vec::new();
    if !secret.expose_secret().is_empty() {
        let bearer = format!("Bearer {}", secret.expose_secret());
        headers.push(("authorization", SecretString::from(bearer)));
    }
    if !call.body.is_empty() {
        headers.push(("content-type", SecretString::from("application/json")));
    }
    if spec.kind == Kind::Copilot {
        headers.extend(COPILOT.map(|(name, value)| (name, SecretString::from(value))));
    }
    let own = spec.headers.iter().filter(|(_, value)| !value.expose_secret().starts_with('$'));
    headers.extend(own.map(|(name, value)| (name.as_str(), value.clone())));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::accounts::Accounts;

    fn state() -> (State, CredentialSpec) {
        let text = br#"{"type":"antigravity","access_token":"t"}"#;
        let good = vec![config::read_account("a.json", text).unwrap()];
        let accounts = Accounts { good, ..Accounts::default() };
        let state = State::new(config::Config::default(), accounts).unwrap().0;
        let spec = state.pool.listers(|_| true).remove(0);
        (state, spec)
    }

    fn names(state: &State) -> Vec<String> {
        state.apply_found();
        state.pool.models(state.now()).iter().map(|model| model.id.to_string()).collect()
    }

    fn list(ids: &[&str]) -> Answer {
        let one = |id: &&str| FoundModel { id: Arc::from(*id), ..FoundModel::default() };
        Answer::Listed(ids.iter().map(one).collect())
    }

    #[test]
    fn row_70_what_was_listed_last_stays_when_there_is_nothing_or_no_answer() {
        let (state, spec) = state();
        let catalogue = names(&state);
        assert!(catalogue.len() > 5 && state.listing(&spec.id).is_none());
        assert_eq!(state.take(&spec, Answer::Failed("no route".to_owned())), (REST.0, false));
        let listing = state.listing(&spec.id).unwrap();
        assert_eq!((listing.said, listing.stale, names(&state)), (None, true, catalogue));
        assert_eq!(state.take(&spec, list(&["x", "y"])), (GOOD, true));
        assert_eq!(
            (state.listing(&spec.id).unwrap().said, names(&state)),
            (Some(2), vec!["x".into(), "y".into()])
        );
        assert_eq!(state.take(&spec, list(&["x", "y"])), (GOOD, false), "nothing new");
        for (answer, rest, said) in [
            (Answer::Failed("no route".to_owned()), 1, Some(2)),
            (list(&[]), 120, Some(0)),
            (Answer::Refused("status 403".to_owned()), 240, Some(0)),
        ] {
            assert_eq!(state.take(&spec, answer), (Duration::from_secs(rest), false));
            let listing = state.listing(&spec.id).unwrap();
            assert_eq!((listing.said, listing.stale, names(&state).len()), (said, true, 2));
        }
        state.take(&spec, list(&["z"]));
        assert_eq!((state.listing(&spec.id).unwrap().stale, names(&state)), (false, vec!["z".to_owned()]));
    }

    #[test]
    fn rests_grow_up_to_a_quarter_of_an_hour_and_who_is_gone_is_forgotten() {
        let (state, spec) = state();
        let rests: Vec<u64> =
            (0..12).map(|_| state.take(&spec, Answer::Failed(String::new())).0.as_secs()).collect();
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
        state.take(&spec, list(&["x"]));
        state.apply_accounts(Accounts::default());
        state.forget_gone();
        assert!(state.listing(&spec.id).is_none() && state.found.lock().is_empty());
    }
}
