//! Completions body → [`Request`].
//!
//! Enters: a client's body. Leaves: a request with one user turn; the settings are those of Chat. May go
//! wrong: what Chat models cannot do is refused, because doing less would change the text.

use crate::error::WireError;
use crate::ir::{LossKind, Losses, Part, RawJson, Request, Role, Str, Text, Turn};
use crate::json::{Json, Path, parse};
use crate::openai_chat::{RAW_KEYS, Settings, top_level};
use crate::typed::{boolean, required, string, uint};

/// Client body → IR.
pub(super) fn read<'a>(body: &'a [u8], losses: &mut Losses) -> Result<Request<'a>, WireError> {
    let Json::Object(map) = parse(body, &RAW_KEYS)? else {
        return Err(WireError::Json("expected an object".to_owned()));
    };
    let root = Path::Root;
    let prompt_at = root.key("prompt");
    let mut settings = Settings::default();
    let mut text = None;
    for (key, value, raw) in top_level(map, body) {
        let at = root.key(&key);
        match key.as_ref() {
            _ if value.is_null() => {}
            "prompt" => text = Some(prompt(value, &prompt_at)?),
            "suffix" if value.as_str() == Some("") => {}
            "suffix" => {
                return Err(WireError::unsupported(&at, "chat models cannot fill in before a suffix"));
            }
            "echo" if !boolean(&value, &at)? => {}
            "echo" => return Err(WireError::unsupported(&at, "the prompt cannot be repeated; leave it out")),
            "best_of" => {
                if uint(&value, &at)? > 1 {
                    losses.at(LossKind::Setting, &at);
                }
            }
            "logprobs" => settings.request.logprobs = Some(uint(&value, &at)?),
            _ => {
                if let Some(value) = settings.member(&key, value, losses)? {
                    settings.unknown(key, raw.unwrap_or_else(|| RawJson::from(value)), losses);
                }
            }
        }
    }
    let text = text.ok_or_else(|| required(&prompt_at, "a string"))?;
    let mut request = settings.finish(losses);
    request.turns.push(Turn::new(Role::User, vec![Part::Text(Text::plain(text))]));
    Ok(request)
}

/// A string, or an array of one.
fn prompt<'a>(value: Json<'a>, at: &Path<'_>) -> Result<Str<'a>, WireError> {
    let tokens = "token ids are not supported: send the prompt as a string";
    let text = match value {
        Json::Array(items) => {
            let count = items.len();
            let mut items = items.into_iter();
            match (items.next(), count) {
                (Some(Json::Str(text)), 1) => text,
                (Some(Json::Str(_)), _) => {
                    return Err(WireError::unsupported(at, "send one prompt per request"));
                }
                (Some(Json::Uint(_) | Json::Int(_) | Json::Array(_)), _) => {
                    return Err(WireError::unsupported(at, tokens));
                }
                (Some(other), _) => return Err(WireError::expected(&at.index(0), "a string", &other)),
                (None, _) => return Err(required(at, "a string")),
            }
        }
        other => string(other, at)?,
    };
    if text.trim().is_empty() { Err(WireError::invalid(at, "must not be empty")) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(body: &str) -> Result<Request<'_>, WireError> {
        read(body.as_bytes(), &mut Losses::default())
    }

    #[test]
    fn a_prompt_is_one_user_turn() {
        for body in [r#"{"model":"m","prompt":"Once upon"}"#, r#"{"model":"m","prompt":["Once upon"]}"#] {
            let request = read_text(body).unwrap();
            let expected = Turn::new(Role::User, vec![Part::Text(Text::plain("Once upon"))]);
            assert_eq!(request.turns, [expected], "{body}");
        }
    }

    #[test]
    fn settings_are_those_of_chat_and_logprobs_is_a_number() {
        let request = read_text(
            r#"{"model":"m","prompt":"a","logprobs":3,"max_tokens":5,"stop":"X","n":2,"suffix":null,"echo":false,"stream":true,"stream_options":{"include_usage":true}}"#,
        )
        .unwrap();
        assert_eq!(
            (request.logprobs, request.limits.max_tokens, request.limits.choices),
            (Some(3), Some(5), Some(2))
        );
        assert_eq!(request.limits.stop, ["X"]);
        assert!(request.stream && request.include_usage);
        assert_eq!(read_text(r#"{"prompt":"a","logprobs":0}"#).unwrap().logprobs, Some(0));
    }

    #[test]
    fn what_chat_models_cannot_do_is_refused_by_name() {
        for (body, says) in [
            (r#"{"prompt":[1,2]}"#, "prompt: token ids"),
            (r#"{"prompt":[[1]]}"#, "prompt: token ids"),
            (r#"{"prompt":["a","b"]}"#, "prompt: send one"),
            (r#"{"prompt":[]}"#, "prompt: required"),
            (r#"{"prompt":"  "}"#, "prompt: must not be empty"),
            (r#"{"prompt":7}"#, "prompt: expected a string, got a number"),
            (r#"{"prompt":["a"],"suffix":"x"}"#, "suffix: "),
            (r#"{"prompt":"a","echo":true}"#, "echo: "),
            ("{}", "prompt: required"),
        ] {
            let error = read_text(body).unwrap_err().to_string();
            assert!(error.starts_with(says), "{body}: {error}");
        }
    }

    #[test]
    fn best_of_and_unknown_members_are_recorded() {
        let mut losses = Losses::default();
        read(br#"{"prompt":"a","best_of":3,"min_p":0.1}"#, &mut losses).unwrap();
        let kinds: Vec<_> = losses.iter().map(|loss| (loss.kind, loss.path.as_str())).collect();
        assert_eq!(kinds, [(LossKind::Setting, "best_of"), (LossKind::UnknownMember, "min_p")]);
    }
}
