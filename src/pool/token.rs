//! The token that a credential sends, where it is not the key of the configuration.
//!
//! Enters: renewed tokens ([`Pool::renew`]). Leaves: [`Token`]s, for as long as the login behind them stays.
//! Nothing may go wrong: a credential that is gone takes none.
//!
//! A token lives beside the index: a renewal changes one credential and builds nothing. Requests under way
//! keep the one that they began with.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use crate::Pool;
use crate::credential::{CredentialId, CredentialSpec};
use crate::health::{Blow, Scope};
use crate::index::{Credential, Index};
use crate::outcome::Class;
use crate::settings::Now;
use crate::state::State;

/// How long the calls of a credential rest whose login is over, at least, in milliseconds.
pub(crate) const LOGIN_OVER_MS: u64 = 30 * 60_000;

/// A token.
#[derive(Clone, Debug)]
pub struct Token {
    /// What goes with requests.
    pub secret: SecretString,
    /// Seconds since 1970 at which it runs out, where that is known.
    pub end_s: Option<u64>,
    /// Where it has to be sent, where the provider said so.
    pub base_url: Option<Arc<str>>,
}

impl Token {
    /// Whether it has run out.
    pub fn is_over(&self, now_s: u64) -> bool {
        self.end_s.is_some_and(|end_s| end_s <= now_s)
    }
}

/// What a credential sends.
#[derive(Clone, Debug)]
pub enum Sent {
    /// The secret of its configuration.
    Own,
    /// This token.
    Token(Arc<Token>),
    /// A token has to be made first.
    Missing,
}

impl Credential {
    pub(crate) fn sent(&self) -> Sent {
        match self.state.token() {
            Some(token) => Sent::Token(token),
            None if self.spec.mints => Sent::Missing,
            None => Sent::Own,
        }
    }
}

impl Pool {
    /// Puts a new token of a credential in force. What it suffered because of the old one is forgotten, other
    /// rests stay. False: there is no such credential.
    pub fn renew(&self, id: &CredentialId, token: Token) -> bool {
        let index = self.index.load();
        let Some(credential) = credential(&index, id) else { return false };
        credential.state.set_token(Some(Arc::new(token)));
        if credential.state.troubled() {
            credential.state.change(|health| health.forget(Class::Auth));
            self.signals.thaw();
        }
        true
    }

    /// What a credential sends now; `None`: there is no such credential.
    pub fn sent(&self, id: &CredentialId) -> Option<Sent> {
        credential(&self.index.load(), id).map(|credential| credential.sent())
    }

    /// Takes down that the login of a credential is over: it rests until it is renewed or configured anew,
    /// and is tested now and then.
    pub fn login_over(&self, id: &CredentialId, now: Now) {
        let index = self.index.load();
        let Some(credential) = credential(&index, id) else { return };
        let blow = Blow {
            class: Class::Auth,
            scope: Scope::Credential,
            status: Some(401),
            upstream: &Arc::from(""),
            started_ms: now.mono_ms,
            now_ms: now.mono_ms,
            soft: false,
            cooling: true,
            terms: crate::cooldown::Terms { floor_ms: LOGIN_OVER_MS, ..Default::default() },
        };
        credential.state.change(|health| health.strike(&blow));
    }
}

fn credential<'i>(index: &'i Index, id: &CredentialId) -> Option<&'i Arc<Credential>> {
    index.position_of(id).and_then(|position| index.credentials.get(position as usize))
}

/// Whether a credential that is configured anew belongs to the login that it had. If not, its token is
/// dropped.
pub(crate) fn same_login(before: &CredentialSpec, spec: &CredentialSpec, state: &State) -> bool {
    let same = before.secret.expose_secret() == spec.secret.expose_secret();
    let token = state.token();
    // What a renewal wrote to the file comes back with the next reload.
    let caught_up =
        !spec.mints && token.is_some_and(|token| token.secret.expose_secret() == spec.secret.expose_secret());
    // One that has caught up stays: requests under way know the old secret only.
    if !same && !caught_up {
        state.set_token(None);
    }
    same || caught_up
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Kind;
    use crate::{Attempts, ModelSet, ModelSpec, Outcome, Settings};

    fn spec(secret: &str, mints: bool) -> CredentialSpec {
        let models = ModelSet::new([ModelSpec::new("m", "m")]);
        let id = CredentialId::new("a.json");
        CredentialSpec {
            secret: SecretString::from(secret),
            mints,
            refreshable: true,
            ..CredentialSpec::new(id, "p", Kind::Chat, models)
        }
    }

    fn token(text: &str) -> Token {
        Token { secret: SecretString::from(text), end_s: Some(10), base_url: None }
    }

    fn sent(pool: &Pool) -> String {
        match pool.sent(&CredentialId::new("a.json")) {
            Some(Sent::Token(token)) => token.secret.expose_secret().to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_token_outlives_reloads_of_the_same_login_and_no_other() {
        let pool = Pool::new(Settings::default(), vec![spec("old", false)]);
        let id = CredentialId::new("a.json");
        assert_eq!(sent(&pool), "Some(Own)");
        assert!(pool.renew(&id, token("new")) && !pool.renew(&CredentialId::new("b"), token("x")));
        assert_eq!(sent(&pool), "new");
        pool.update(Settings::default(), vec![spec("old", false)]);
        assert_eq!(sent(&pool), "new", "the file was read before it was written");
        pool.update(Settings::default(), vec![spec("new", false)]);
        assert_eq!(sent(&pool), "new", "the file has caught up; requests under way need the token");
        pool.renew(&id, token("newer"));
        pool.update(Settings::default(), vec![spec("another login", false)]);
        assert_eq!(sent(&pool), "Some(Own)");
        pool.update(Settings::default(), vec![spec("login", true)]);
        assert_eq!(sent(&pool), "Some(Missing)");
        pool.renew(&id, token("made"));
        pool.update(Settings::default(), vec![spec("login", true)]);
        assert_eq!(sent(&pool), "made");
        assert!(token("x").is_over(10) && !token("x").is_over(9));
    }

    #[test]
    fn a_new_token_ends_the_rest_of_a_refused_one_and_no_other_rest() {
        let pool = Pool::new(Settings::default(), vec![spec("old", false)]);
        let (id, now) = (CredentialId::new("a.json"), Now { mono_ms: 1000, wall_s: 1000 });
        pool.login_over(&id, now);
        let rests = |pool: &Pool| pool.credentials(now)[0].cooling.len();
        assert_eq!(rests(&pool), 1);
        pool.renew(&id, token("new"));
        assert_eq!(rests(&pool), 0);
        let route = pool.route("m", now).unwrap();
        let mut attempts = Attempts::default();
        let pick = pool.pick(&route, &mut attempts, None, now, 0).unwrap();
        let body = br#"{"error":{"message":"quota exceeded","code":"insufficient_quota"}}"#;
        pool.report(pick, &Outcome::Status { status: 429, body, hint: None }, &mut attempts, now);
        assert_eq!(rests(&pool), 1);
        pool.renew(&id, token("newer"));
        assert_eq!(rests(&pool), 1, "the quota is the account's");
    }
}
