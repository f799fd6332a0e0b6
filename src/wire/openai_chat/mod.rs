//! Not written yet.

use crate::error::WireError;
use crate::frames::Framing;
use crate::head::Head;
use crate::ir::lower::Rules;
use crate::ir::{Answer, Context, Losses, ReadAnswer, Request, WriteStream};
use crate::names::NameRule;
use crate::target::{Profile, Target};
use std::borrow::Cow;
use std::sync::Arc;

/// What [`crate::ir::lower`] has to make true for this format.
pub const RULES: Rules = Rules { names: NameRule::OPENAI, custom_tools: false, namespaces: false };

fn missing() -> WireError {
    WireError::Json("not written yet".to_owned())
}

/// Client body → IR.
pub fn read_request<'a>(_body: &'a [u8], _losses: &mut Losses) -> Result<Request<'a>, WireError> {
    Err(missing())
}

/// IR → upstream body.
pub fn write_request(
    _request: &Request<'_>,
    _target: &Target<'_>,
    _context: &mut Context,
    _losses: &mut Losses,
) -> Result<Vec<u8>, WireError> {
    Err(missing())
}

/// Client body → upstream body of the same format, changed on its bytes.
pub fn patch_request<'a>(
    body: &'a [u8],
    _head: &Head,
    _target: &Target<'_>,
    _losses: &mut Losses,
) -> Result<Cow<'a, [u8]>, WireError> {
    Ok(Cow::Borrowed(body))
}

/// Reads an answer of this format. `seed` is 32 hex digits for ids that the upstream does not give.
pub fn reader(_profile: Profile, _seed: &str) -> Box<dyn ReadAnswer> {
    struct None;
    impl ReadAnswer for None {
        fn event(&mut self, _: &str, _: &[u8], _: &mut dyn crate::ir::Sink) {}
        fn whole(&mut self, _: &[u8], _: &mut dyn crate::ir::Sink) {}
        fn eof(&mut self, _: &mut dyn crate::ir::Sink) {}
    }
    Box::new(None)
}

/// Writes a stream of this format.
pub fn stream_writer(_context: Arc<Context>, framing: Framing) -> Box<dyn WriteStream> {
    struct None(crate::frames::Frames);
    impl crate::ir::Sink for None {
        fn event(&mut self, _: crate::ir::Event<'_>) {}
    }
    impl WriteStream for None {
        fn frames(&mut self) -> &mut crate::frames::Frames {
            &mut self.0
        }
    }
    Box::new(None(crate::frames::Frames::new(framing)))
}

/// Writes a whole answer of this format.
pub fn write_answer(_answer: &Answer, _context: &Context) -> Vec<u8> {
    Vec::new()
}
