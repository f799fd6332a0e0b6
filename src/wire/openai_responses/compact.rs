//! `POST /responses/compact`: the conversation comes back as one sealed item.
//!
//! Enters: a client's body for an upstream of this format; no other has the operation. Leaves: the body
//! without what the operation does not take. May go wrong: a client that asks for events.

use super::patch_request::Edits;
use crate::error::WireError;
use crate::head::Head;
use crate::ir::Losses;
use crate::json::Path;
use crate::target::{Profile, Target};
use std::borrow::Cow;

/// Changes a body of `POST /responses/compact`. The answer (`object: "response.compaction"`) is passed on as
/// it is.
pub fn patch_compact<'a>(
    body: &'a [u8],
    head: &Head,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<Cow<'a, [u8]>, WireError> {
    if head.stream {
        let root = Path::Root;
        return Err(WireError::invalid(&root.key("stream"), "a compaction is not streamed; leave it out"));
    }
    let mut edits = Edits::new(body, head, target, losses);
    edits.model(head, target);
    edits.effort(target);
    edits.input();
    if target.profile == Profile::Codex {
        edits.instructions();
        edits.refused();
        edits.tools();
    }
    for name in ["stream", "store", "include"] {
        edits.remove(name);
    }
    Ok(edits.apply())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use crate::head;
    use crate::target::Card;

    fn compacted(profile: Profile, body: &str) -> Result<String, WireError> {
        let head = head::parse(body.as_bytes(), Protocol::OpenaiResponses).unwrap();
        let card = Card::default();
        let target = Target { profile, model: "m", card: &card, stream: false, thinking: None, project: "" };
        let out = patch_compact(body.as_bytes(), &head, &target, &mut Losses::default())?;
        Ok(String::from_utf8(out.into_owned()).unwrap())
    }

    #[test]
    fn stream_store_and_include_are_taken_out() {
        let body = r#"{"model":"m","input":[{"role":"system","content":"s"}],"store":false,"stream":false,"include":[]}"#;
        assert_eq!(
            compacted(Profile::Responses, body).unwrap(),
            r#"{"model":"m","input":[{"role":"system","content":"s"}]}"#
        );
        assert_eq!(
            compacted(Profile::Codex, body).unwrap(),
            r#"{"instructions":"","model":"m","input":[{"role":"developer","content":"s"}]}"#
        );
        let streamed = r#"{"model":"m","input":[],"stream":true}"#;
        assert_eq!(compacted(Profile::Codex, streamed).unwrap_err().path(), Some("stream"));
    }
}
