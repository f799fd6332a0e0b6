//! What the choice of a credential costs a request, and what many credentials cost at the start:
//! `cargo bench -p pool`, or one of them by a part of its name.
//!
//! A request is `route`, `pick`, `confirm`, `report`, and all of it again after a failure. Held to: 3 us at
//! 1,000 credentials that all serve 100 models.

use config::{Account, Config};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pool::{
    Attempts, CredentialId, CredentialSpec, Hint, Kind, ModelSet, ModelSpec, Next, Now, Outcome, Pool, Scope,
    Settings, Strategy,
};
use std::hint::black_box;
use std::sync::Arc;

const CREDENTIALS: usize = 1000;
const MODELS: usize = 100;
const ACCOUNTS: usize = 10_000;

/// All serve all; half of them under a limit, weights from 1 to 4.
fn pool(strategy: Strategy, session_affinity_ms: u64) -> Pool {
    let models = ModelSet::new((0..MODELS).map(|n| ModelSpec::new(&format!("upstream-{n}"), &name(n))));
    let spec = |n: usize| {
        let id = CredentialId::new(format!("c{n}"));
        let mut spec = CredentialSpec::new(id, "bench", Kind::Chat, Arc::clone(&models));
        spec.weight = 1 + (n % 4) as u32;
        spec.in_flight_limit = n.is_multiple_of(2).then_some(64);
        spec
    };
    let settings = Settings { strategy, session_affinity_ms, ..Settings::default() };
    Pool::new(settings, (0..CREDENTIALS).map(spec).collect())
}

fn name(n: usize) -> String {
    format!("model-{n}")
}

/// Requests one after the other, a millisecond apart.
struct Traffic {
    pool: Pool,
    names: Vec<String>,
    n: u64,
    /// One attempt in so many fails; 0: none.
    fails: u64,
    sessions: bool,
}

impl Traffic {
    fn new(strategy: Strategy, fails: u64, sessions: bool) -> Self {
        let life_ms = if sessions { 3_600_000 } else { 0 };
        let names = (0..MODELS).map(name).collect();
        let mut traffic = Self { pool: pool(strategy, life_ms), names, n: 0, fails, sessions };
        // As after a while: who fails rests, who rested is tested.
        (0..50_000).for_each(|_| traffic.request());
        traffic
    }

    fn request(&mut self) {
        self.n += 1;
        let n = self.n;
        let now = Now { mono_ms: n, wall_s: 1_800_000_000 + n / 1000 };
        let name = &self.names[(n % MODELS as u64) as usize];
        let Ok(route) = self.pool.route(name, now) else { return };
        let mut attempts = Attempts::default();
        let session = self.sessions.then_some(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 10_000);
        while let Ok(mut pick) = self.pool.pick(&route, &mut attempts, session, now, n) {
            let outcome = self.outcome(n + u64::from(attempts.total()));
            if matches!(outcome, Outcome::Success) {
                self.pool.confirm(&mut pick, now);
            }
            if self.pool.report(black_box(pick), &outcome, &mut attempts, now).next == Next::Return {
                break;
            }
        }
    }

    /// A third of the failures are rate limits of half a minute for the credential, a third for the model.
    fn outcome(&self, n: u64) -> Outcome<'static> {
        if self.fails == 0 || !n.is_multiple_of(self.fails) {
            return Outcome::Success;
        }
        let limited =
            |scope| Outcome::Status { status: 429, body: b"{}", hint: Some(Hint { wait_ms: 30_000, scope }) };
        match n / self.fails % 3 {
            0 => limited(Scope::Credential),
            1 => limited(Scope::Model),
            _ => Outcome::Status { status: 503, body: b"{}", hint: None },
        }
    }
}

fn requests(criterion: &mut Criterion) {
    let strategies = [
        ("round robin", Strategy::RoundRobin),
        ("weighted", Strategy::Weighted),
        ("fill first", Strategy::FillFirst),
        ("least loaded", Strategy::LeastLoaded),
    ];
    let mut group = criterion.benchmark_group("a request at 1,000 credentials of 100 models");
    for (name, strategy) in strategies {
        let kinds = [
            ("all well", 0, false),
            ("one attempt in 20 fails", 20, false),
            ("one in 20 fails, with sessions", 20, true),
        ];
        for (kind, fails, sessions) in kinds {
            let mut traffic = Traffic::new(strategy, fails, sessions);
            group.bench_function(format!("{name}, {kind}"), |b| b.iter(|| traffic.request()));
        }
    }
    group.finish();
}

/// Files of accounts, of four providers in turn.
fn files() -> Vec<(String, String)> {
    let file = |n: usize| {
        let channel = ["claude", "codex", "antigravity", "gemini-cli"][n % 4];
        let text = format!(
            r#"{{"type":"{channel}","access_token":"token-{n}-{}","refresh_token":"refresh-{n}","email":"user{n}@example.test","project_id":"project-{n}","expired":"2030-01-01T00:00:00Z"}}"#,
            "x".repeat(800)
        );
        (format!("{channel}-{n}.json"), text)
    };
    (0..ACCOUNTS).map(file).collect()
}

fn parse(files: &[(String, String)]) -> Vec<Account> {
    files.iter().filter_map(|(name, text)| config::read_account(name, text.as_bytes()).ok()).collect()
}

fn loading(criterion: &mut Criterion) {
    let files = files();
    let accounts = parse(&files);
    assert_eq!(accounts.len(), ACCOUNTS);
    let config = Config::default();
    let mut group = criterion.benchmark_group("10,000 accounts");
    group.sample_size(10);
    group.bench_function("read", |b| b.iter(|| parse(black_box(&files))));
    group.bench_function("from_config", |b| b.iter(|| pool::from_config(&config, black_box(&accounts))));
    group.bench_function("a new pool", |b| {
        b.iter_batched(
            || pool::from_config(&config, &accounts),
            |(settings, specs)| Pool::new(settings, specs),
            BatchSize::PerIteration,
        );
    });
    let (settings, specs) = pool::from_config(&config, &accounts);
    let running = Pool::new(settings, specs);
    group.bench_function("update of a running pool", |b| {
        b.iter_batched(
            || pool::from_config(&config, &accounts),
            |(settings, specs)| running.update(settings, specs),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, requests, loading);
criterion_main!(benches);
