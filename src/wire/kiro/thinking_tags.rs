//! Thinking inside of text: `<thinking>…</thinking>`, as a model writes it that was asked to think in tags.
//!
//! Enters: text in pieces, split anywhere. Leaves: text and thinking, without the tags; what may be the start
//! of a tag is held back. May go wrong: nothing; a tag that is not closed leaves the rest as thinking. A tag
//! behind a quotation mark is one that the model talks about.

const OPEN: &str = "<thinking>";
const CLOSE: &str = "</thinking>";

/// A piece of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'p> {
    /// Visible text.
    Text(&'p str),
    /// Thinking.
    Thought(&'p str),
}

/// Tells text from thinking.
#[derive(Debug)]
pub(super) struct ThinkingTags {
    inside: bool,
    /// What may be the start of a tag.
    held: String,
    /// Whether blanks are dropped: those around tags are layout, and blank text is refused when it comes back.
    trim: bool,
    /// The last character that went out was a quotation mark.
    quoted: bool,
}

impl Default for ThinkingTags {
    fn default() -> Self {
        Self { inside: false, held: String::new(), trim: true, quoted: false }
    }
}

impl ThinkingTags {
    /// Takes the next text.
    pub(super) fn push(&mut self, text: &str, out: &mut impl FnMut(Piece<'_>)) {
        let mut joined = std::mem::take(&mut self.held);
        joined.push_str(text);
        let mut rest = joined.as_str();
        loop {
            let tag = if self.inside { CLOSE } else { OPEN };
            let Some((before, after)) = rest.split_once(tag) else { break };
            self.emit(before, out);
            if self.quoted {
                self.emit(tag, out);
            } else {
                self.inside = !self.inside;
                self.trim = true;
            }
            rest = after;
        }
        let tag = if self.inside { CLOSE } else { OPEN };
        let (sure, maybe) = rest.split_at(rest.len() - start_of(tag, rest));
        self.emit(sure, out);
        maybe.clone_into(&mut self.held);
    }

    /// The text is over, or something else comes before it goes on.
    pub(super) fn finish(&mut self, out: &mut impl FnMut(Piece<'_>)) {
        let held = std::mem::take(&mut self.held);
        self.emit(&held, out);
        *self = Self::default();
    }

    fn emit(&mut self, text: &str, out: &mut impl FnMut(Piece<'_>)) {
        let text = if self.trim { text.trim_start() } else { text };
        let Some(last) = text.chars().next_back() else { return };
        self.trim = false;
        self.quoted = matches!(last, '`' | '"' | '\'');
        out(if self.inside { Piece::Thought(text) } else { Piece::Text(text) });
    }
}

/// Length of the longest start of `tag` that `text` ends with.
fn start_of(tag: &str, text: &str) -> usize {
    let starts = tag.as_bytes();
    (1..starts.len())
        .rev()
        .find(|length| starts.get(..*length).is_some_and(|start| text.as_bytes().ends_with(start)))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Text and thinking, each run in one.
    fn run(chunks: &[&str]) -> Vec<(bool, String)> {
        let mut seen: Vec<(bool, String)> = Vec::new();
        let mut take = |piece: Piece<'_>| {
            let (thought, text) = match piece {
                Piece::Text(text) => (false, text),
                Piece::Thought(text) => (true, text),
            };
            match seen.last_mut() {
                Some(last) if last.0 == thought => last.1.push_str(text),
                _ => seen.push((thought, text.to_owned())),
            }
        };
        let mut tags = ThinkingTags::default();
        for chunk in chunks {
            tags.push(chunk, &mut take);
        }
        tags.finish(&mut take);
        seen
    }

    fn text(text: &str) -> (bool, String) {
        (false, text.to_owned())
    }

    fn thought(text: &str) -> (bool, String) {
        (true, text.to_owned())
    }

    #[test]
    fn tags_that_are_split_do_not_leak() {
        let expected = [thought("plan"), text("Sunny.")];
        assert_eq!(run(&["\n<thin", "king>pl", "an</", "thinking>\n\nSunny."]), expected);
        assert_eq!(run(&["<thinking>plan</thinking>Sunny."]), expected);
    }

    #[test]
    fn what_is_no_tag_stays() {
        assert_eq!(run(&["a < b", " <", "thin", " air"]), [text("a < b <thin air")]);
        assert_eq!(run(&["a <thinkin"]), [text("a <thinkin")]);
        assert_eq!(run(&["Write `<thin", "king>` first"]), [text("Write `<thinking>` first")]);
        assert_eq!(
            run(&["<thinking>close with `</thinking>` now"]),
            [thought("close with `</thinking>` now")]
        );
    }

    #[test]
    fn thinking_may_come_back_and_may_stay_open() {
        assert_eq!(run(&["<thinking>a</thinking>b<thinking>c"]), [thought("a"), text("b"), thought("c")]);
    }

    proptest! {
        #[test]
        fn p36_any_split_gives_the_same_text(
            whole in "(<thinking>|</thinking>|[<`a \nk>/é]|</?thi){0,12}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let ends: Vec<usize> = (0..=whole.len()).filter(|at| whole.is_char_boundary(*at)).collect();
            let mut at: Vec<usize> = cuts.iter().map(|c| ends[c.index(ends.len())]).collect();
            at.extend([0, whole.len()]);
            at.sort_unstable();
            let chunks: Vec<&str> = at.windows(2).map(|w| &whole[w[0]..w[1]]).collect();
            prop_assert_eq!(run(&chunks), run(&[&whole]));
        }
    }
}
