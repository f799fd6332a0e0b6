//! What the Codex backend insists on, beyond the public Responses API.
//!
//! For [`mod@super::write_request`], which writes bodies, and [`mod@super::patch_request`], which changes them.
//! Source: the behaviour of the backend as its own client and peers show it; there is no public document.
//!
//! | | |
//! |---|---|
//! | always | `store: false`, `stream: true`, `instructions` (may be empty) |
//! | always included | `reasoning.encrypted_content`: nothing is stored, so reasoning has to travel |
//! | refused | the members of [`REFUSED`]; `service_tier` other than `priority` |
//! | roles | `developer` and not `system` |
//! | web search | `web_search` and not `web_search_preview…` |
//! | ids | none of reasoning items; others with the prefix of their kind |

/// Has to be in `include`.
pub(super) const ENCRYPTED: &str = "reasoning.encrypted_content";

/// Members of the public API that the backend answers with a 400, and those of WebSocket frames.
pub(super) const REFUSED: [&str; 24] = [
    "max_output_tokens",
    "max_completion_tokens",
    "max_tokens",
    "temperature",
    "top_p",
    "top_logprobs",
    "truncation",
    "user",
    "safety_identifier",
    "stream_options",
    "previous_response_id",
    "conversation",
    "prompt",
    "prompt_cache_retention",
    "prompt_cache_options",
    "context_management",
    "metadata",
    "background",
    "max_tool_calls",
    "moderation",
    "stop",
    "messages",
    "generate",
    "type",
];

/// The only service tier it knows.
pub(super) const PRIORITY: &str = "priority";

/// What the id of an item of this type starts with.
pub(super) fn id_prefix(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "message" => "msg",
        "reasoning" => "rs",
        "function_call" => "fc",
        "custom_tool_call" => "ctc",
        _ => return None,
    })
}
