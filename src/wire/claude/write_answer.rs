//! Folded answer → message.
//!
//! Enters: a complete answer. Leaves: the body of a message, with the first choice. May go wrong: nothing.
//! It says what [`super::write_stream`] says, but for the order: thinking that came after text leads here,
//! which a stream cannot do.

use super::answer_parts::{self, Shown};
use crate::ir::{Answer, Block, Choice, Citation, Context};
use crate::json;

/// Content of the message.
enum Content<'a> {
    Text(String, &'a [Citation<'static>]),
    Thinking { text: String, signature: &'a str },
    Redacted(&'a str),
    Call { id: &'a str, name: &'a str, input: String },
    Item(&'a str),
}

/// Writes the body.
pub(super) fn write(answer: &Answer, context: &Context) -> Vec<u8> {
    let nothing = Choice::default();
    let choice = answer.choices.iter().find(|choice| choice.index == 0).unwrap_or(&nothing);
    let (blocks, shown) = content(choice);
    let mut out = Vec::new();
    json::object(&mut out, |o| {
        o.str("id", &answer_parts::message_id(&answer.id, context));
        o.str("type", "message");
        o.str("role", "assistant");
        o.str("model", answer_parts::model(&answer.model, context));
        o.array("content", |a| blocks.iter().for_each(|block| write_block(a, block)));
        answer_parts::write_stop(o, choice.finish, choice.detail.as_deref(), shown);
        answer_parts::write_usage(o, &answer.usage);
    });
    out
}

fn content(choice: &Choice) -> (Vec<Content<'_>>, Shown) {
    let is_thinking = |block: &Block| matches!(block, Block::Reasoning { .. });
    let mut blocks: Vec<&Block> = choice.blocks.iter().collect();
    if !blocks.first().is_some_and(|block| is_thinking(block)) {
        blocks.sort_by_key(|block| !is_thinking(block));
    }
    let (mut content, mut shown) = (Vec::with_capacity(blocks.len()), Shown::default());
    for block in blocks {
        match block {
            Block::Text { text, citations, .. } if !text.is_empty() => {
                content.push(Content::Text(text.clone(), citations));
            }
            Block::Refusal(text) if !text.is_empty() => {
                shown.refusal = true;
                content.push(Content::Text(text.clone(), &[]));
            }
            Block::Text { .. } | Block::Refusal(_) => {}
            Block::Reasoning { redacted: Some(data), .. } => content.push(Content::Redacted(data)),
            Block::Reasoning { parts, signature, redacted: None } => {
                let text = parts.join("\n\n");
                let signature = signature.as_ref().map_or("", |signature| signature.value.as_ref());
                if !text.is_empty() || !signature.is_empty() {
                    content.push(Content::Thinking { text, signature });
                }
            }
            Block::Tool { id, name, kind, arguments, signature, .. } => {
                if let Some(signature) = signature {
                    sign_call(&mut content, &signature.value);
                }
                shown.call = true;
                content.push(Content::Call { id, name, input: answer_parts::input(*kind, arguments) });
            }
            Block::Image { mime, .. } => content.push(Content::Text(answer_parts::picture(mime), &[])),
            Block::Server { kind, raw } if answer_parts::is_own_item(kind) => {
                content.push(Content::Item(raw));
            }
            Block::Server { .. } => {}
        }
    }
    (content, shown)
}

/// Puts the signature of a call where the stream writer puts it.
fn sign_call<'a>(content: &mut Vec<Content<'a>>, value: &'a str) {
    if let Some(Content::Thinking { signature, .. }) = content.last_mut() {
        if signature.is_empty() {
            *signature = value;
        }
        return;
    }
    let shown = content.iter().any(|c| matches!(c, Content::Thinking { .. } | Content::Redacted(_)));
    if !shown {
        content.push(Content::Thinking { text: String::new(), signature: value });
    }
}

fn write_block(a: &mut json::Array<'_>, content: &Content<'_>) {
    match content {
        Content::Item(raw) => a.raw(raw),
        Content::Text(text, citations) => a.object(|o| {
            o.str("type", "text");
            o.str("text", text);
            let mut shown = citations.iter().filter(|citation| answer_parts::is_shown(citation)).peekable();
            if shown.peek().is_some() {
                o.array("citations", |a| {
                    shown.for_each(|citation| a.object(|o| answer_parts::write_citation(o, citation)));
                });
            }
        }),
        Content::Thinking { text, signature } => a.object(|o| {
            o.str("type", "thinking");
            o.str("thinking", text);
            o.str("signature", signature);
        }),
        Content::Redacted(data) => a.object(|o| {
            o.str("type", "redacted_thinking");
            o.str("data", data);
        }),
        Content::Call { id, name, input } => a.object(|o| {
            o.str("type", "tool_use");
            o.str("id", id);
            o.str("name", name);
            o.raw("input", input);
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Finish, ToolKind, Usage};
    use crate::signature::{Signature, Vendor};

    fn text(text: &str) -> Block {
        Block::Text { text: text.into(), citations: vec![], signature: None, logprobs: vec![] }
    }

    fn thinking(text: &str, signature: Option<&str>) -> Block {
        Block::Reasoning {
            parts: text.split('|').map(str::to_owned).collect(),
            signature: signature.and_then(|value| Signature::of(Vendor::Openai, value.to_owned())),
            redacted: None,
        }
    }

    fn call(kind: ToolKind, arguments: &str, signature: Option<&str>) -> Block {
        Block::Tool {
            id: "t".into(),
            name: "f".into(),
            namespace: None,
            kind,
            arguments: arguments.into(),
            signature: signature.and_then(|value| Signature::of(Vendor::Gemini, value.to_owned())),
        }
    }

    fn run(blocks: Vec<Block>, finish: Finish, detail: Option<&str>) -> String {
        let choice = Choice { index: 0, blocks, finish: Some(finish), detail: detail.map(str::to_owned) };
        let usage = Usage {
            input: Some(3),
            tool_prompt: Some(1),
            cache_write: Some(9),
            cache_write_hour: Some(4),
            output: Some(5),
            reasoning: Some(2),
            ..Usage::default()
        };
        let answer = Answer { model: "m".into(), choices: vec![choice], usage, ..Answer::default() };
        let context = Context { model: "shown".into(), seed: "5eed".into(), ..Context::default() };
        String::from_utf8(write(&answer, &context)).unwrap()
    }

    #[test]
    fn a_message_has_all_required_members() {
        assert_eq!(
            run(vec![text("Hi")], Finish::StopSequence, Some("END")),
            r#"{"id":"msg_5eed","type":"message","role":"assistant","model":"shown","content":[{"type":"text","text":"Hi"}],"stop_reason":"stop_sequence","stop_sequence":"END","usage":{"input_tokens":4,"cache_creation_input_tokens":9,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":5,"ephemeral_1h_input_tokens":4},"output_tokens":5,"output_tokens_details":{"thinking_tokens":2}}}"#
        );
        let empty = String::from_utf8(write(&Answer::default(), &Context::default())).unwrap();
        assert!(empty.contains(r#""content":[],"stop_reason":"end_turn""#), "{empty}");
        assert!(empty.contains(r#""input_tokens":0"#) && empty.contains(r#""output_tokens":0"#));
    }

    #[test]
    fn pages_on_the_web_are_cited_and_documents_are_not() {
        let cited = Citation { url: "https://a".into(), quote: "q".into(), ..Citation::default() };
        let document = Citation { document: "0".into(), ..Citation::default() };
        let with = |citations| Block::Text { text: "x".into(), citations, signature: None, logprobs: vec![] };
        let out = run(vec![with(vec![cited, document.clone()]), with(vec![document])], Finish::End, None);
        assert!(out.contains(
            r#"[{"type":"text","text":"x","citations":[{"type":"web_search_result_location","cited_text":"q","url":"https://a","title":null,"encrypted_index":""}]},{"type":"text","text":"x"}]"#
        ), "{out}");
    }

    #[test]
    fn thinking_that_came_late_leads() {
        let out = run(vec![text("Sunny."), thinking("a|b", Some("s"))], Finish::End, None);
        assert!(out.contains(
            r#"[{"type":"thinking","thinking":"a\n\nb","signature":"s"},{"type":"text","text":"Sunny."}]"#
        ));
    }

    #[test]
    fn input_is_an_object_whatever_came() {
        for (kind, arguments, input) in [
            (ToolKind::Function, "", "{}"),
            (ToolKind::Function, r#"{"city": "Par"#, r#"{"arguments":"{\"city\": \"Par"}"#),
            (ToolKind::Custom, "select 1", r#"{"input":"select 1"}"#),
        ] {
            let out = run(vec![call(kind, arguments, None)], Finish::End, None);
            assert!(out.contains(&format!(r#""name":"f","input":{input}}}"#)), "{out}");
            assert!(out.contains(r#""stop_reason":"tool_use""#));
        }
    }

    #[test]
    fn reasons_follow_what_was_shown() {
        let refusal = vec![Block::Refusal("No.".into())];
        let out = run(refusal, Finish::End, None);
        assert!(out.contains(r#"{"type":"text","text":"No."}"#) && out.contains(r#""refusal""#));
        let out = run(vec![], Finish::Refusal, Some("why"));
        assert!(out.contains(
            r#""stop_reason":"refusal","stop_sequence":null,"stop_details":{"type":"refusal","category":null,"explanation":"why"}"#
        ));
        assert!(run(vec![], Finish::Tool, None).contains(r#""stop_reason":"end_turn""#));
        let cut = run(vec![call(ToolKind::Function, "{}", None)], Finish::Length, None);
        assert!(cut.contains(r#""stop_reason":"max_tokens""#));
    }

    #[test]
    fn a_signature_of_a_call_is_where_the_stream_has_it() {
        let signed = || call(ToolKind::Function, "{}", Some("g"));
        let content = |blocks| {
            let out = run(blocks, Finish::Tool, None);
            let from = out.find('[').unwrap();
            out[from..out.find("],").unwrap()].replace('"', "")
        };
        let end = "{type:tool_use,id:t,name:f,input:{}}";
        assert_eq!(
            content(vec![thinking("p", None), signed()]),
            format!("[{{type:thinking,thinking:p,signature:g}},{end}")
        );
        assert_eq!(
            content(vec![text("x"), signed()]),
            format!("[{{type:text,text:x}},{{type:thinking,thinking:,signature:g}},{end}")
        );
        assert_eq!(
            content(vec![thinking("p", None), text("x"), signed()]),
            format!("[{{type:thinking,thinking:p,signature:}},{{type:text,text:x}},{end}")
        );
    }
}
