//! One choice of a Chat answer: its blocks, in the order in which they come.
//!
//! Enters: deltas. Leaves: block events: one text, refusal or thinking block is open at a time, calls may be
//! open beside each other. May go wrong: nothing; what has no place in the IR becomes text.

use super::chunk::{Choice, Delta as Piece, Detail, Logprobs, Part};
use super::read_calls::{CallIds, Calls};
use crate::ir::{BlockKind, Citation, Delta, Event, Finish, Sink};
use crate::names::{sniff_mime, split_data_url};
use crate::signature::Signature;

/// Where the events of an answer go.
pub(super) struct Out<'o> {
    /// Number of the next block.
    pub(super) next: &'o mut u32,
    /// Ids of calls.
    pub(super) ids: &'o mut CallIds,
    /// The receiver.
    pub(super) sink: &'o mut dyn Sink,
}

impl Out<'_> {
    /// Opens a block and returns its number.
    pub(super) fn open(&mut self, choice: u32, kind: BlockKind<'_>) -> u32 {
        let block = *self.next;
        *self.next += 1;
        self.sink.event(Event::Open { block, choice, kind });
        block
    }

    /// Adds to a block.
    pub(super) fn delta(&mut self, block: u32, delta: Delta<'_>) {
        self.sink.event(Event::Delta { block, delta });
    }

    /// Closes a block.
    pub(super) fn close(&mut self, block: u32) {
        self.sink.event(Event::Close { block });
    }
}

/// Kinds of blocks of which one is open at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Refusal,
    Reasoning,
}

/// A choice so far.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Its number.
    pub(super) index: u32,
    open: Option<(Kind, u32)>,
    calls: Calls,
    /// Citations that came before the text they belong to.
    citations: Vec<Citation<'static>>,
    finish: Option<Finish>,
    spoke: bool,
    /// The model refused, in words.
    refused: bool,
}

impl State {
    /// A choice of which nothing has come.
    pub(super) fn new(index: u32) -> Self {
        Self { index, ..Self::default() }
    }

    /// Whether the upstream said why it ended.
    pub(super) fn has_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Whether it has more calls than can be followed.
    pub(super) fn too_many_calls(&self) -> bool {
        self.calls.too_many()
    }

    /// Takes an element of `choices`.
    pub(super) fn take(&mut self, choice: &Choice<'_>, out: &mut Out<'_>) {
        if let Some(delta) = &choice.delta {
            self.piece(delta, false, out);
        } else if let Some(message) = choice.message.as_deref().filter(|_| !self.spoke) {
            self.piece(message, true, out);
        }
        if let Some(logprobs) = &choice.logprobs {
            self.logprobs(logprobs, out);
        }
        if self.finish.is_none() {
            self.finish = finish(&choice.finish_reason.0);
        }
    }

    fn piece(&mut self, piece: &Piece<'_>, whole: bool, out: &mut Out<'_>) {
        let thought = [&piece.reasoning_content, &piece.reasoning, &piece.reasoning_text]
            .into_iter()
            .find(|text| !text.is_empty());
        if let Some(text) = thought {
            self.say(Kind::Reasoning, &text.0, out);
        }
        for detail in &piece.reasoning_details.0 {
            self.detail(detail, thought.is_none(), out);
        }
        self.say(Kind::Text, &piece.content.text, out);
        for part in &piece.content.parts {
            for thought in &part.thinking.0 {
                self.say(Kind::Reasoning, &thought.text.0, out);
            }
            self.say(Kind::Text, &part.text.0, out);
            self.image(part, out);
        }
        if let Some(audio) = &piece.audio {
            self.say(Kind::Text, &audio.transcript.0, out);
        }
        self.refused |= !piece.refusal.is_empty();
        self.say(Kind::Refusal, &piece.refusal.0, out);
        for annotation in &piece.annotations.0 {
            for from in [&annotation.url_citation, &annotation.file_citation].into_iter().flatten() {
                let citation = Citation {
                    url: from.url.0.clone(),
                    title: from.title.0.clone(),
                    quote: from.content.0.clone(),
                    start: from.start_index.0,
                    end: from.end_index.0,
                    document: from.file_id.0.clone(),
                };
                match self.open {
                    Some((Kind::Text, block)) => out.delta(block, Delta::Citation(citation)),
                    _ => self.citations.push(citation.into_owned()),
                }
            }
        }
        for part in &piece.images.0 {
            self.image(part, out);
        }
        if !piece.tool_calls.0.is_empty() || piece.function_call.is_some() {
            self.close(out);
            self.spoke = true;
        }
        for (n, fragment) in piece.tool_calls.0.iter().enumerate() {
            let place = whole.then_some(n as u64);
            self.calls.fragment(fragment, place, self.index, out);
        }
        if let Some(function) = &piece.function_call {
            self.calls.legacy(function, self.index, out);
        }
    }

    /// Adds text to the block of its kind.
    fn say(&mut self, kind: Kind, text: &str, out: &mut Out<'_>) {
        if !text.is_empty() {
            let block = self.switch(kind, out);
            out.delta(block, Delta::Text(text));
        }
    }

    /// The open block of this kind; another kind is closed.
    fn switch(&mut self, kind: Kind, out: &mut Out<'_>) -> u32 {
        if let Some((open, block)) = self.open
            && open == kind
        {
            return block;
        }
        self.close(out);
        let block = out.open(
            self.index,
            match kind {
                Kind::Text => BlockKind::Text,
                Kind::Refusal => BlockKind::Refusal,
                Kind::Reasoning => BlockKind::Reasoning { redacted: None },
            },
        );
        self.open = Some((kind, block));
        self.spoke = true;
        if kind == Kind::Text {
            for citation in std::mem::take(&mut self.citations) {
                out.delta(block, Delta::Citation(citation));
            }
        }
        block
    }

    fn close(&mut self, out: &mut Out<'_>) {
        if let Some((_, block)) = self.open.take() {
            out.close(block);
        }
    }

    /// OpenRouter's details repeat the text of `reasoning`; what proves it is only here.
    fn detail(&mut self, detail: &Detail<'_>, with_text: bool, out: &mut Out<'_>) {
        if with_text {
            self.say(Kind::Reasoning, &detail.text.0, out);
            self.say(Kind::Reasoning, &detail.summary.0, out);
        }
        if !detail.data.is_empty() && detail.format.0.starts_with("anthropic") {
            self.close(out);
            let kind = BlockKind::Reasoning { redacted: Some(&detail.data.0) };
            let block = out.open(self.index, kind);
            out.close(block);
            self.spoke = true;
            return;
        }
        let proof = if detail.signature.is_empty() { &detail.data } else { &detail.signature };
        if let Some(signature) = Signature::detect(proof.0.as_ref()) {
            let block = self.switch(Kind::Reasoning, out);
            out.delta(block, Delta::Signature(signature));
            self.close(out);
        }
    }

    fn image(&mut self, part: &Part<'_>, out: &mut Out<'_>) {
        let url = part.image_url.url.0.as_ref();
        if url.is_empty() {
            return;
        }
        let Some((mime, data)) = split_data_url(url) else {
            // The bytes are elsewhere; the client gets at them by the URL.
            return self.say(Kind::Text, &format!("![image]({url})"), out);
        };
        self.close(out);
        let mime = if mime.is_empty() { sniff_mime(data).unwrap_or("image/png") } else { mime };
        let block = out.open(self.index, BlockKind::Image { mime });
        out.delta(block, Delta::Data(data));
        out.close(block);
        self.spoke = true;
    }

    fn logprobs(&mut self, logprobs: &Logprobs<'_>, out: &mut Out<'_>) {
        let (Some((Kind::Text, block)), Some(content)) = (self.open, logprobs.content) else { return };
        let text = content.get();
        let empty = text.bytes().all(|b| matches!(b, b'[' | b']') || b.is_ascii_whitespace());
        if text.starts_with('[') && !empty {
            out.delta(block, Delta::Logprobs(text));
        }
    }

    /// Closes everything and says why the choice ended. Calls decide, whatever the upstream said, unless it
    /// was cut: a cut call must not be made.
    pub(super) fn conclude(mut self, out: &mut Out<'_>) {
        if !self.citations.is_empty() {
            self.switch(Kind::Text, out);
        }
        self.close(out);
        self.calls.finish(self.index, out);
        let reason = match self.finish {
            Some(cut @ (Finish::Length | Finish::Filter)) => cut,
            _ if self.calls.any() => Finish::Tool,
            _ if self.calls.any_nameless() => Finish::BadCall,
            // The format has no word for a refusal: it says `stop`.
            Some(Finish::End) if self.refused => Finish::Refusal,
            Some(Finish::Tool) | None => Finish::End,
            Some(reason) => reason,
        };
        out.sink.event(Event::Finish { choice: self.index, reason, detail: None });
    }
}

/// What a `finish_reason` means; "" is not one.
fn finish(word: &str) -> Option<Finish> {
    Some(match word {
        "" => return None,
        "length" | "max_tokens" | "model_length" => Finish::Length,
        "tool_calls" | "function_call" | "tool_use" => Finish::Tool,
        "content_filter" | "safety" => Finish::Filter,
        "stop_sequence" => Finish::StopSequence,
        _ => Finish::End,
    })
}

#[cfg(test)]
mod tests {
    use super::super::read_answer::tests::{STOP, deltas, finish, shape, whole};
    use crate::ir::{Block, Finish};

    #[test]
    fn thinking_in_all_spellings_comes_before_the_text() {
        for delta in [
            r#"{"reasoning_content":"plan"}"#,
            r#"{"reasoning":"plan"}"#,
            r#"{"reasoning_text":"plan"}"#,
            r#"{"reasoning":"plan","reasoning_details":[{"type":"reasoning.text","text":"plan"}]}"#,
            r#"{"reasoning_details":[{"type":"reasoning.summary","summary":"plan"}]}"#,
            r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"plan"}]}]}"#,
        ] {
            let answer = deltas(&[delta, r#"{"content":"Sunny.","reasoning":null}"#], STOP);
            assert_eq!(shape(&answer), "thought plan | text Sunny.", "{delta}");
        }
        let answer = whole(
            r#"{"choices":[{"message":{"content":"b","reasoning_content":"a"},"finish_reason":"stop"}]}"#,
        );
        assert_eq!(shape(&answer), "thought a | text b");
    }

    #[test]
    fn p19_signatures_and_hidden_thinking_stay_with_thoughts() {
        let answer = deltas(
            &[
                r#"{"reasoning":"a","reasoning_details":[{"type":"reasoning.text","text":"a"}]}"#,
                r#"{"reasoning_details":[{"type":"reasoning.text","signature":"SIG"}]}"#,
                r#"{"reasoning_details":[{"type":"reasoning.encrypted","data":"RED","format":"anthropic-claude-v1"}]}"#,
                r#"{"content":"t"}"#,
            ],
            STOP,
        );
        assert_eq!(shape(&answer), "thought a sig SIG | thought  red RED | text t");
    }

    #[test]
    fn a_refusal_is_its_own_block() {
        let answer = deltas(&[r#"{"refusal":"I can "}"#, r#"{"refusal":"not."}"#], STOP);
        assert_eq!((shape(&answer).as_str(), finish(&answer)), ("refusal I can not.", Finish::Refusal));
    }

    #[test]
    fn calls_decide_how_it_ended_unless_it_was_cut() {
        let call = r#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{}"}}]}"#;
        let nameless = r#"{"tool_calls":[{"index":0,"id":"c","function":{"arguments":"{}"}}]}"#;
        let text = r#"{"content":"t"}"#;
        for (delta, reason, expected) in [
            (call, r#""stop""#, Finish::Tool),
            (call, r#""length""#, Finish::Length),
            (call, r#""content_filter""#, Finish::Filter),
            (call, r#""""#, Finish::Tool),
            (text, r#""tool_calls""#, Finish::End),
            (text, r#""length""#, Finish::Length),
            (text, r#""whatever""#, Finish::End),
            (text, "null", Finish::End),
            (nameless, r#""tool_calls""#, Finish::BadCall),
        ] {
            assert_eq!(finish(&deltas(&[delta], reason)), expected, "{delta} {reason}");
        }
        assert_eq!(shape(&deltas(&[nameless], STOP)), "");
    }

    #[test]
    fn pictures_citations_and_log_probabilities() {
        let answer = deltas(
            &[
                r#"{"annotations":[{"type":"url_citation","url_citation":{"url":"https://a","title":"A","start_index":1,"end_index":2}}]}"#,
                r#"{"content":"t","annotations":[{"type":"file_citation","file_citation":{"file_id":"f"}}]}"#,
                r#"{"images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBO"}},{"image_url":{"url":"https://x/i.png"}}]}"#,
            ],
            STOP,
        );
        assert_eq!(shape(&answer), "text t | image image/png iVBO | text ![image](https://x/i.png)");
        let Block::Text { citations, .. } = &answer.choices[0].blocks[0] else { panic!() };
        let found: Vec<_> =
            citations.iter().map(|c| (c.url.as_ref(), c.start, c.document.as_ref())).collect();
        assert_eq!(found, [("https://a", Some(1), ""), ("", None, "f")]);
        let body = r#"{"choices":[{"message":{"content":"t"},"logprobs":{"content":[{"token":"t","logprob":-1.0}]},"finish_reason":"stop"}]}"#;
        let Block::Text { logprobs, .. } = &whole(body).choices[0].blocks[0] else { panic!() };
        assert_eq!(logprobs, &[r#"[{"token":"t","logprob":-1.0}]"#]);
    }
}
