//! Orders, and the order in which things end.
//!
//! Enters: [`Order`]s: of signals, or of the program that this one runs in. Leaves: the end of the process, in this
//! order:
//!
//! | signal | then |
//! |---|---|
//! | SIGTERM | readiness flips; after `shutdown.delay-seconds` the listeners close, WebSockets end after their turn, idle connections end; running answers have `shutdown.drain-seconds` |
//! | SIGINT | the same without the delay |
//! | SIGQUIT | a new process takes the listeners; what this one answers has `shutdown.upgrade-drain-seconds` |
//! | SIGHUP | a look at the configuration file, now |
//!
//! SIGTERM or SIGINT while it leaves ends it at once. May go wrong: nobody takes the listeners, which is told
//! and changes nothing.

use super::plan::Listener;
use super::upgrade;
use super::{Setting, StartError};
use crate::state::State;
use crate::state::leave::Phase;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How long connections may still bring a request after a new process took the listeners: those that were just
/// accepted, and idle ones whose client has just sent one.
const HANDOVER: Duration = Duration::from_secs(5);
/// How long a connection may take from the system's queue to its first byte, TLS included: until then nobody
/// counts it.
const ARRIVAL: Duration = Duration::from_millis(200);
/// How long what was cut at the deadline may take to say so.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long background work may take to end: the last write of state is one.
const BACKGROUND: Duration = Duration::from_secs(5);
/// Within this time the same signal is one order to leave.
const SAME: Duration = Duration::from_millis(50);
/// Time between two looks at the open connections.
const STEP: Duration = Duration::from_millis(10);

/// What a server can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Leave, with the time that load balancers need to see it.
    Leave,
    /// Leave without that time.
    LeaveNow,
    /// Hand the listeners to a new process.
    HandOver,
    /// Look at the configuration file.
    Look,
}

/// The signals that are orders.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens to them, on a runtime. From here on none of them ends the process by itself.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Passes them on as orders, for as long as somebody takes them. One to leave that comes again within [`SAME`] is
    /// the same: shells and `timeout` tell a process and its group.
    pub(super) async fn pass(mut self, orders: mpsc::Sender<Order>) {
        let mut last: Option<(Order, Instant)> = None;
        loop {
            let order = tokio::select! {
                _ = self.terminate.recv() => Order::Leave,
                _ = self.interrupt.recv() => Order::LeaveNow,
                _ = self.quit.recv() => Order::HandOver,
                _ = self.hangup.recv() => Order::Look,
            };
            let leave = matches!(order, Order::Leave | Order::LeaveNow);
            let again = leave && last.is_some_and(|(before, at)| before == order && at.elapsed() < SAME);
            last = Some((order, Instant::now()));
            if again {
                continue;
            }
            if orders.send(order).await.is_err() {
                return;
            }
        }
    }
}

/// Where orders come from.
#[derive(Debug)]
pub(super) struct Orders(pub mpsc::Receiver<Order>);

impl Orders {
    /// The next one. Who can give none any more wants nothing to run on.
    async fn next(&mut self) -> Order {
        self.0.recv().await.unwrap_or(Order::LeaveNow)
    }

    /// Waits for one that means the end.
    async fn end(&mut self) {
        while let Some(order) = self.0.recv().await {
            if matches!(order, Order::Leave | Order::LeaveNow) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

/// Tells services to end.
#[derive(Debug)]
pub(super) struct Ends {
    /// The listeners of the proxy.
    pub edge: watch::Receiver<bool>,
    /// The listener of the metrics.
    pub metrics: watch::Receiver<bool>,
    /// Everything else.
    pub rest: watch::Receiver<bool>,
}

/// What runs, and how to end it.
#[derive(Debug)]
pub(super) struct Services {
    state: Arc<State>,
    /// The listeners once more, to hand them over. As long as they are here, the system takes connections.
    listeners: Arc<Vec<Listener>>,
    setting: Setting,
    edge: watch::Sender<bool>,
    metrics: watch::Sender<bool>,
    rest: watch::Sender<bool>,
}

/// Why the process leaves.
enum Reason {
    /// It was told to; readiness flips so long before the listeners close.
    Told(Duration),
    /// A new process has the listeners.
    Handed,
}

impl Services {
    pub(super) fn new(state: Arc<State>, listeners: Vec<Listener>, setting: Setting) -> (Self, Ends) {
        let [edge, metrics, rest] = [(); 3].map(|()| watch::Sender::new(false));
        let ends = Ends { edge: edge.subscribe(), metrics: metrics.subscribe(), rest: rest.subscribe() };
        (Self { state, listeners: Arc::new(listeners), setting, edge, metrics, rest }, ends)
    }

    /// Serves until the end.
    pub(super) async fn run(
        mut self,
        mut orders: Orders,
        mut edge: JoinHandle<()>,
        background: Vec<JoinHandle<()>>,
    ) -> Result<(), StartError> {
        let reason = tokio::select! {
            reason = self.serve(&mut orders) => reason,
            ended = &mut edge => {
                return Err(StartError::Ended(ended.err().map_or_else(String::new, |e| e.to_string())));
            }
        };
        self.leave(reason, &mut orders).await;
        self.metrics.send_replace(true);
        self.rest.send_replace(true);
        let _ = timeout(BACKGROUND, futures::future::join_all(background)).await;
        Ok(())
    }

    /// Until there is a reason to leave.
    async fn serve(&self, orders: &mut Orders) -> Reason {
        let mut handing: Option<JoinHandle<bool>> = None;
        // Told to hand over while it tries to.
        let mut again = false;
        loop {
            tokio::select! {
                order = orders.next() => match order {
                    Order::Leave => {
                        let delay = self.state.snapshot.load().config.server.shutdown.delay_seconds;
                        return Reason::Told(Duration::from_secs(u64::from(delay)));
                    }
                    Order::LeaveNow => return Reason::Told(Duration::ZERO),
                    Order::HandOver if handing.is_some() => again = true,
                    Order::HandOver => handing = self.hand_over(),
                    Order::Look => self.look(),
                },
                handed = async { handing.as_mut()?.await.ok() }, if handing.is_some() => {
                    if handed == Some(true) {
                        return Reason::Handed;
                    }
                    handing = if std::mem::take(&mut again) { self.hand_over() } else { None };
                }
            }
        }
    }

    /// SIGHUP.
    fn look(&self) {
        tracing::info!("told to look at the configuration file");
        if let Some(reload) = &self.setting.reload {
            // Its thread ends with the process.
            let _ = reload.send(());
        }
    }

    /// SIGQUIT: looks for the new process, while this one serves.
    fn hand_over(&self) -> Option<JoinHandle<bool>> {
        let Some(file) = &self.setting.file else {
            tracing::error!("no upgrade: without a configuration file there is no state folder to meet in");
            return None;
        };
        let (place, listeners) = (upgrade::meeting_place(file), Arc::clone(&self.listeners));
        Some(tokio::task::spawn_blocking(move || match upgrade::give(&place, &listeners) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!("no upgrade, this process goes on: {error}");
                false
            }
        }))
    }

    async fn leave(&mut self, reason: Reason, orders: &mut Orders) {
        let state = Arc::clone(&self.state);
        let leave = &state.leave;
        let shutdown = self.state.snapshot.load().config.server.shutdown.clone();
        let drain = Duration::from_secs(u64::from(shutdown.drain_seconds));
        match reason {
            Reason::Told(delay) => {
                leave.unready();
                leave.reach(Phase::Leaving);
                tracing::info!(
                    "leaving: new connections for {delay:?} more, then running answers have {drain:?}"
                );
                tokio::select! {
                    () = self.close_after(delay, drain) => {}
                    () = orders.end() => tracing::info!("told twice: leaving now"),
                }
            }
            Reason::Handed => {
                let long = Duration::from_secs(u64::from(shutdown.upgrade_drain_seconds));
                leave.reach(Phase::Leaving);
                self.metrics.send_replace(true);
                // Two processes must not renew the same tokens or hold the same files.
                self.rest.send_replace(true);
                tracing::info!(
                    "a new process serves: {} connections go on here, for {long:?} at most",
                    self.state.metrics.connections.get()
                );
                tokio::select! {
                    () = self.close_handed(long) => return,
                    () = orders.end() => tracing::info!("leaving: running answers have {drain:?}"),
                }
                leave.reach(Phase::IdleOver);
                tokio::select! {
                    () = self.drain(drain) => {}
                    () = orders.end() => tracing::info!("told twice: leaving now"),
                }
            }
        }
    }

    async fn close_after(&mut self, delay: Duration, drain: Duration) {
        sleep(delay).await;
        self.close();
        self.state.leave.reach(Phase::Closing);
        sleep(ARRIVAL).await;
        self.state.leave.reach(Phase::IdleOver);
        self.drain(drain).await;
    }

    async fn close_handed(&mut self, drain: Duration) {
        self.close();
        self.state.leave.reach(Phase::Closing);
        sleep(HANDOVER).await;
        self.state.leave.reach(Phase::IdleOver);
        self.drain(drain).await;
    }

    /// The listeners are no longer this process's.
    fn close(&mut self) {
        self.edge.send_replace(true);
        self.listeners = Arc::default();
    }

    /// Waits for running answers; cuts them at the deadline.
    async fn drain(&self, limit: Duration) {
        if self.empty(limit).await {
            tracing::info!("all answers have ended");
            return;
        }
        tracing::warn!(
            "{} connections were cut after {limit:?}; a longer shutdown.drain-seconds gives them time",
            self.state.metrics.connections.get()
        );
        self.state.leave.reach(Phase::Deadline);
        self.empty(FAREWELL).await;
    }

    /// Waits until no connection is open, for `limit` at most.
    async fn empty(&self, limit: Duration) -> bool {
        let ended = async {
            while self.state.metrics.connections.get() > 0 {
                sleep(STEP).await;
            }
        };
        timeout(limit, ended).await.is_ok()
    }
}
