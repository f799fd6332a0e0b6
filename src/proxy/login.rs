//! Between selection and sending: a token that an upstream refused is renewed.
//!
//! Enters: a pick. Leaves: the token to send in place of the one that the pick knows, if it has to be another.
//! May go wrong: the login is over, or its endpoint cannot say now ([`NotRenewed`]).

use crate::state::State;
use crate::state::renew::NotRenewed;
use pool::Pick;
use secrecy::SecretString;

/// The token for `pick`; `None`: its own.
pub(super) async fn token(state: &State, pick: &Pick) -> Result<Option<SecretString>, NotRenewed> {
    if !pick.refresh_first() {
        return Ok(None);
    }
    let credential = pick.credential();
    Box::pin(state.renew(credential.id.as_str(), &credential.secret)).await.map(Some)
}
