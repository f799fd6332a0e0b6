//! How an attempt ended, in the words of the data path, and what follows from it.
//!
//! Enters: [`Outcome`], made by whoever spoke to the upstream. Leaves: [`Verdict`], made by the pool.

use serde::Serialize;

use crate::health::Scope;
use crate::hints::Hint;

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// A complete answer.
    Success,
    /// An error answer, or an error event in a stream under the status it stands for.
    Status {
        /// HTTP status.
        status: u16,
        /// The body or event as the upstream sent it; its start suffices.
        body: &'a [u8],
        /// What [`crate::hints::hint`] found.
        hint: Option<Hint>,
    },
    /// No connection: name not found, refused, TLS failed, reset before any header.
    Connect,
    /// Nothing came in time.
    Timeout(Phase),
    /// The upstream ended a stream without one event.
    EmptyStream,
    /// The upstream closed before the answer was complete.
    Cut,
    /// The answer is not in the upstream's format.
    Garbage,
    /// The client went away.
    ClientGone,
    /// The credential's proxy setting cannot be used; nothing was sent.
    ProxyInvalid,
    /// The renewal of the token failed ([`crate::Pick::refresh_first`]).
    RefreshFailed {
        /// Only a new login helps (`invalid_grant`); otherwise it may work later.
        needs_login: bool,
    },
}

/// What was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The connection.
    Connect,
    /// The response header.
    Header,
    /// The first event of a stream.
    FirstEvent,
    /// The next event.
    Idle,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// It worked.
    Success,
    /// The client's request is at fault: the same anywhere, so nothing rotates and nothing cools.
    RequestFault,
    /// The account has used up what it may use.
    Quota,
    /// The account has to pay first.
    Payment,
    /// Too many requests in a short time.
    RateLimit,
    /// The upstream has no room for this model.
    Capacity,
    /// The account may not use this model.
    Entitlement,
    /// The key or token is not accepted.
    Auth,
    /// The account is not allowed to do this.
    Forbidden,
    /// The upstream does not know the model.
    ModelMissing,
    /// It may work the next time.
    Transient,
    /// The configuration of the credential cannot work.
    Misconfigured,
    /// The client went away: says nothing about the credential.
    ClientGone,
}

impl Class {
    /// The name used in logs, metrics and explanations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::RequestFault => "request_fault",
            Self::Quota => "quota",
            Self::Payment => "payment",
            Self::RateLimit => "rate_limit",
            Self::Capacity => "capacity",
            Self::Entitlement => "entitlement",
            Self::Auth => "auth",
            Self::Forbidden => "forbidden",
            Self::ModelMissing => "model_missing",
            Self::Transient => "transient",
            Self::Misconfigured => "misconfigured",
            Self::ClientGone => "client_gone",
        }
    }

    /// Waiting does not mend it: the model leaves the lists when all its credentials are so.
    pub(crate) fn is_broken(self) -> bool {
        matches!(
            self,
            Self::Payment
                | Self::Entitlement
                | Self::Auth
                | Self::Forbidden
                | Self::ModelMissing
                | Self::Misconfigured
        )
    }

    /// A second model with the same trouble means that the account has it.
    pub(crate) fn spreads(self) -> bool {
        matches!(self, Self::Auth | Self::Payment | Self::Forbidden)
    }
}

/// What to do next in this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Answer the client with what there is.
    Return,
    /// Pick again: another credential serves.
    OtherCredential,
    /// Pick again: the next upstream model of the same credential serves.
    OtherModelSameCredential,
    /// Pick again: the same credential serves in another of its projects.
    OtherProjectSameCredential,
    /// Pick again: the same credential serves once its token is renewed ([`crate::Pick::refresh_first`]).
    RefreshThenSame,
}

impl Next {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Return => "return",
            Self::OtherCredential => "other_credential",
            Self::OtherModelSameCredential => "other_model",
            Self::OtherProjectSameCredential => "other_project",
            Self::RefreshThenSame => "refresh",
        }
    }
}

/// A rest that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooled {
    /// What rests.
    pub scope: Scope,
    /// Until when, on the monotonic clock.
    pub until_ms: u64,
    /// It gives way when no other credential is ready.
    pub soft: bool,
}

/// What the pool makes of an [`Outcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What happened.
    pub class: Class,
    /// What to do.
    pub next: Next,
    /// The rest that was given, or is still running.
    pub cooled: Option<Cooled>,
}
