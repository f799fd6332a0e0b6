//! The four formats behind one set of functions.

use crate::meaning::{Ask, Said};
use crate::{chat, claude, gemini, responses};
use serde_json::Value;
use wire::Protocol;
use wire::target::Profile;

/// Calls a function of the format's `request` or `answer` module.
macro_rules! of {
    ($format:expr, $module:ident :: $function:ident ( $($argument:expr),* )) => {
        match $format {
            Protocol::OpenaiChat => chat::$module::$function($($argument),*),
            Protocol::OpenaiResponses => responses::$module::$function($($argument),*),
            Protocol::Claude => claude::$module::$function($($argument),*),
            Protocol::Gemini => gemini::$module::$function($($argument),*),
        }
    };
}

/// The name of a format in the names of cells.
pub(crate) fn name(format: Protocol) -> &'static str {
    match format {
        Protocol::OpenaiChat => "chat",
        Protocol::OpenaiResponses => "responses",
        Protocol::Claude => "claude",
        Protocol::Gemini => "gemini",
    }
}

pub(crate) fn profile(format: Protocol) -> Profile {
    match format {
        Protocol::OpenaiChat => Profile::Chat,
        Protocol::OpenaiResponses => Profile::Responses,
        Protocol::Claude => Profile::Claude,
        Protocol::Gemini => Profile::Gemini,
    }
}

pub(crate) fn write_request(format: Protocol, ask: &Ask) -> Vec<u8> {
    of!(format, request::write(ask)).to_string().into_bytes()
}

pub(crate) fn read_request(format: Protocol, body: &Value) -> Ask {
    of!(format, request::read(body)).normal()
}

pub(crate) fn whole_answer(format: Protocol, said: &Said) -> Vec<u8> {
    of!(format, answer::whole(said)).to_string().into_bytes()
}

pub(crate) fn stream(format: Protocol, said: &Said) -> Vec<u8> {
    of!(format, answer::stream(said)).into_bytes()
}

pub(crate) fn read_answer(format: Protocol, body: &Value) -> Result<Said, String> {
    of!(format, answer::read(body)).normal()
}

pub(crate) fn failure(format: Protocol, message: &str) -> Vec<u8> {
    of!(format, answer::failure(message)).into_bytes()
}

pub(crate) fn limited(format: Protocol, message: &str) -> Vec<u8> {
    of!(format, answer::limited(message)).to_string().into_bytes()
}

pub(crate) fn error(format: Protocol, body: &Value) -> Option<(String, String)> {
    of!(format, answer::error(body))
}

pub(crate) fn comparable(format: Protocol, body: &Value) -> Value {
    of!(format, answer::comparable(body))
}
