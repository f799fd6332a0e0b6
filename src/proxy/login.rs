//! Between selection and sending: the token that goes with a request.
//!
//! Enters: a pick. Leaves: the token to send, where it is not the key of the configuration; renewed first if
//! an upstream refused it, if it has run out, or if there is none yet. May go wrong: the login is over, or
//! its endpoint cannot say now ([`NotRenewed`]).

use crate::state::State;
use crate::state::renew::NotRenewed;
use pool::{CredentialId, Pick, Sent, Token};
use std::sync::Arc;

/// The token for `pick`; `None`: the secret of its credential. `refused` is what an upstream refused before: it
/// may have been renewed meanwhile for another request, and what is sent now is not renewed again then.
pub(super) async fn token(
    state: &State,
    pick: &Pick,
    refused: Option<(CredentialId, Option<Arc<Token>>)>,
) -> Result<Option<Arc<Token>>, NotRenewed> {
    let credential = pick.credential();
    let sent = pick.sent();
    if !credential.refreshable {
        return Ok(token_of(sent));
    }
    let now_s = state.now().wall_s;
    let (secret, is_over) = match &sent {
        Sent::Own => (Some(&credential.secret), credential.end_s.is_some_and(|end_s| end_s <= now_s)),
        Sent::Token(token) => (Some(&token.secret), token.is_over(now_s)),
        Sent::Missing => (None, true),
    };
    let refused = refused.filter(|(id, _)| pick.refresh_first() && *id == credential.id);
    let secret = match &refused {
        Some((_, Some(token))) => Some(&token.secret),
        Some((_, None)) => Some(&credential.secret),
        None => secret,
    };
    if !pick.refresh_first() && !is_over {
        return Ok(token_of(sent));
    }
    match Box::pin(state.renew(credential.id.as_str(), secret)).await {
        Ok(()) => Ok(token_of(pick.sent())),
        // The clock may be wrong: the upstream has the last word on a token that it did not refuse.
        Err(NotRenewed::Later(_) | NotRenewed::Unreachable(_))
            if !pick.refresh_first() && !credential.mints =>
        {
            Ok(token_of(sent))
        }
        Err(error) => Err(error),
    }
}

fn token_of(sent: Sent) -> Option<Arc<Token>> {
    match sent {
        Sent::Token(token) => Some(token),
        Sent::Own | Sent::Missing => None,
    }
}
