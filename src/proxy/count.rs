//! Token counts for upstreams that do not count.
//!
//! Enters: a parsed question for a count. Leaves: an estimate, marked as one by a header, without asking
//! anybody. May go wrong: the body does not hold what its format says (400).

use super::error::ProxyError;
use super::parse::Parsed;
use super::respond;
use bytes::Bytes;
use http::HeaderValue;
use pingora::http::ResponseHeader;
use pool::{Class, Pick, Verdict};
use wire::Protocol;
use wire::target::Operation;
use wire::translate::{estimate_tokens, write_count};

/// Says that the count was made here.
const ESTIMATED: &str = "x-cliproxy-estimated";

/// Whether the question is for a count that the picked upstream cannot make.
pub(super) fn is_local(operation: Operation, client: Protocol, pick: &Pick) -> bool {
    operation == Operation::CountTokens && !pick.profile(client).counts_tokens()
}

/// Whether an upstream's refusal means that it does not count at all: many that speak Claude's format lack
/// the path.
pub(super) fn is_missing(operation: Operation, verdict: &Verdict, error: &ProxyError) -> bool {
    operation == Operation::CountTokens
        && matches!(error.failure.status, 404 | 405 | 501)
        && verdict.class != Class::ModelMissing
}

/// The answer.
pub(super) fn estimate(
    parsed: &Parsed,
    request_id: &str,
) -> Result<(pingora::Result<ResponseHeader>, Bytes), ProxyError> {
    let client = parsed.call.client;
    let tokens = estimate_tokens(client, &parsed.body)?;
    let header = respond::json_header(200, request_id).and_then(|mut header| {
        header.insert_header(ESTIMATED, HeaderValue::from_static("true"))?;
        Ok(header)
    });
    Ok((header, write_count(client, tokens).into()))
}
