//! Ids of items and of responses that this side makes.
//!
//! Enters: the request's seed and the item's number. Leaves: ids that are the same in every event of the
//! stream and in the whole answer, and that are known again when a client sends them back.

use crate::ir::Context;

/// Id of item `index`: `rs_<32 hex digits>_<index>`.
pub(super) fn item_id(prefix: &str, seed: &str, index: usize) -> String {
    format!("{prefix}_{seed}_{index}")
}

/// Whether an id was made by [`item_id`]: OpenAI has never seen it.
pub(super) fn is_own(id: &str) -> bool {
    let mut parts = id.split('_').skip(1);
    let seed =
        parts.next().is_some_and(|seed| seed.len() == 32 && seed.bytes().all(|b| b.is_ascii_hexdigit()));
    let index = parts.next().is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    seed && index && parts.next().is_none()
}

/// Id of the response: the upstream's where it looks like one of this format.
pub(super) fn response_id(upstream: &str, context: &Context) -> String {
    if upstream.starts_with("resp_") {
        upstream.to_owned()
    } else if upstream.is_empty() {
        format!("resp_{}", context.seed)
    } else {
        format!("resp_{upstream}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_ids_are_known_again() {
        let id = item_id("rs", "0123456789abcdef0123456789abcdef", 3);
        assert!(is_own(&id));
        assert!(id.len() <= 64);
        for other in ["rs_1", "rs_68af4030592c81938ec0a5fbab4a3e9f0c1e2d3b4a5f6e7d", "", "rs", "msg_a_b_c"] {
            assert!(!is_own(other), "{other}");
        }
    }

    #[test]
    fn response_ids_have_their_prefix() {
        let context = Context { seed: "5eed".into(), ..Context::default() };
        let id = |upstream| response_id(upstream, &context);
        assert_eq!([id("resp_1"), id("chatcmpl-1"), id("")], ["resp_1", "resp_chatcmpl-1", "resp_5eed"]);
    }
}
