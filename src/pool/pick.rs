//! A credential in use: what it is, and the slot it holds.
//!
//! Enters: a choice of the pool. Leaves: [`Pick`], which goes back through [`crate::Pool::report`]. May go
//! wrong: a pick that is dropped instead frees its slot and ends its test, and is counted as dropped.

use std::sync::Arc;

use wire::Protocol;
use wire::target::Profile;
use wire::thinking::Mode;

use crate::credential::CredentialSpec;
use crate::index::{Credential, Index};
use crate::model::ModelSpec;
use crate::ratio::Window;
use crate::state::{Signals, State, count};

/// A credential and one of its upstream models, held for one attempt.
#[derive(Debug)]
pub struct Pick {
    pub(crate) index: Arc<Index>,
    pub(crate) credential: Arc<Credential>,
    pub(crate) model: Arc<ModelSpec>,
    /// Position of the model in the credential's set.
    pub(crate) position: u32,
    /// Upstream models behind the name that this request has not tried yet.
    pub(crate) more_models: bool,
    pub(crate) started_ms: u64,
    /// Which of the account's projects it goes to.
    pub(crate) project: u32,
    pub(crate) refresh: bool,
    pub(crate) committed: bool,
    /// The session that stays with the credential if it is well.
    pub(crate) session: Option<u64>,
    /// How attempts on the model end.
    pub(crate) errors: Arc<Window>,
    pub(crate) hold: Hold,
}

impl Pick {
    /// The credential.
    pub fn credential(&self) -> &CredentialSpec {
        &self.credential.spec
    }

    /// The account within the login that this attempt goes to: one project of those that the credential has.
    pub fn scope(&self) -> &str {
        self.credential.spec.projects().get(self.project as usize).copied().unwrap_or_default()
    }

    /// The model, as the credential has it.
    pub fn model(&self) -> &ModelSpec {
        &self.model
    }

    /// How much to think: what the client's suffix says, else what the configured upstream name says.
    pub fn thinking(&self, suffix: Option<Mode>) -> Option<Mode> {
        suffix.or(self.model.thinking)
    }

    /// The flavour of the bodies that its upstream takes for a client of `client`.
    pub fn profile(&self, client: Protocol) -> Profile {
        self.credential.spec.kind.profile(client, &self.model)
    }

    /// Renew the token before sending. If that fails, report [`crate::Outcome::RefreshFailed`].
    pub fn refresh_first(&self) -> bool {
        self.refresh
    }

    /// This request tests whether a rested credential works again.
    pub fn is_probe(&self) -> bool {
        self.hold.probe.is_some()
    }

    /// The client has seen the answer begin: no retry any more.
    pub fn is_committed(&self) -> bool {
        self.committed
    }
}

/// The slot, given back when dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) state: Arc<State>,
    pub(crate) signals: Arc<Signals>,
    /// The upstream model under test.
    pub(crate) probe: Option<Arc<str>>,
    pub(crate) reported: bool,
}

impl Hold {
    /// Ends the test, if this is one.
    pub(crate) fn end_probe(&mut self) {
        if let Some(upstream) = self.probe.take() {
            self.state.change(|health| health.end_probe(&upstream));
            self.signals.free();
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end_probe();
        count(if self.reported { &self.state.tally.reported } else { &self.state.tally.dropped });
        if self.state.release() {
            self.signals.free();
        }
    }
}
