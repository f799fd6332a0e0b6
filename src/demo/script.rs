//! What the demo's models do.
//!
//! | model | answer |
//! |---|---|
//! | `demo` | says back what it was told |
//! | `demo-think` | thinks, then answers |
//! | `demo-tool` | calls the first declared tool, then says what the tool said |
//! | `demo-image` | counts the pictures it got |
//! | `demo-slow` | a word every quarter of a second |
//! | `demo-401`, `demo-429`, `demo-503` | that error, in the format's own shape |
//! | `demo-cut` | drops the connection in the middle of an answer |
//!
//! Enters: a request in the IR. Leaves: [`Script`]: events and pauses. Nothing may go wrong.

use std::time::Duration;
use wire::ir::{Part, RawJson, Request, Role, Tool, ToolResult, Usage};
use wire::json::Json;

/// The models, as the configuration lists them.
pub const MODELS: [&str; 9] = [
    "demo",
    "demo-think",
    "demo-tool",
    "demo-image",
    "demo-slow",
    "demo-401",
    "demo-429",
    "demo-503",
    "demo-cut",
];

/// Longest text that is said back.
const ECHO: usize = 2000;

/// A step of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Thinking text.
    Think(String),
    /// Visible text.
    Say(String),
    /// A call: name and arguments.
    Call(String, String),
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    /// Its steps.
    pub steps: Vec<Step>,
    /// Pause before each event of text.
    pub pause: Duration,
    /// The connection breaks after so many pieces of text.
    pub cut_after: Option<usize>,
    /// Token counts.
    pub usage: Usage,
    /// An error instead of an answer.
    pub error: Option<(u16, &'static str)>,
}

/// What `model` does about `request`.
pub fn script(model: &str, request: &Request<'_>) -> Script {
    let said = last_text(request);
    let input = said.len() as u64 / 4 + 8;
    let mut script = Script { usage: Usage { input: Some(input), ..Usage::default() }, ..Script::default() };
    match model {
        "demo-401" => script.error = Some((401, "the demo refuses this key")),
        "demo-429" => script.error = Some((429, "the demo is out of quota for a second")),
        "demo-503" => script.error = Some((503, "the demo is overloaded")),
        "demo-think" => {
            script.steps.push(Step::Think("The user said something. I will say it back.".to_owned()));
            script.steps.push(Step::Say(echo(&said)));
            script.usage.reasoning = Some(11);
        }
        "demo-tool" => script.steps.push(tool_step(request, &said)),
        "demo-image" => {
            let count = images(request);
            script.steps.push(Step::Say(format!("I see {count} image(s).")));
        }
        "demo-slow" => {
            script.pause = Duration::from_millis(250);
            script.steps.push(Step::Say("one two three four five six seven eight".to_owned()));
        }
        "demo-cut" => {
            script.cut_after = Some(3);
            script.steps.push(Step::Say(echo(&said)));
        }
        _ => script.steps.push(Step::Say(echo(&said))),
    }
    let written: usize = script
        .steps
        .iter()
        .map(|step| match step {
            Step::Think(text) | Step::Say(text) | Step::Call(_, text) => text.len(),
        })
        .sum();
    script.usage.output = Some(written as u64 / 4 + 1 + script.usage.reasoning.unwrap_or(0));
    script
}

fn echo(said: &str) -> String {
    let cut: String = said.chars().take(ECHO).collect();
    format!("The demo provider heard: {cut}")
}

fn last_text(request: &Request<'_>) -> String {
    let user = request.turns.iter().rev().filter(|turn| turn.role == Role::User);
    user.flat_map(|turn| turn.parts.iter().rev())
        .find_map(
            |part| if let Part::Text(text) = part { Some(text.text.clone().into_owned()) } else { None },
        )
        .unwrap_or_default()
}

fn last_result<'r, 'a>(request: &'r Request<'a>) -> Option<&'r ToolResult<'a>> {
    request.turns.last()?.parts.iter().rev().find_map(|part| match part {
        Part::ToolResult(result) => Some(result),
        _ => None,
    })
}

fn tool_step(request: &Request<'_>, said: &str) -> Step {
    if let Some(result) = last_result(request) {
        return Step::Say(format!("The tool said: {}", result.text()));
    }
    let Some(Tool::Function { name, schema, .. }) =
        request.tools.iter().find(|tool| matches!(tool, Tool::Function { .. }))
    else {
        return Step::Say(format!("No tool is declared. {}", echo(said)));
    };
    Step::Call(name.clone().into_owned(), arguments(schema.as_ref()))
}

/// Arguments that satisfy the required members of a schema, as far as their types say.
fn arguments(schema: Option<&RawJson<'_>>) -> String {
    let Some(schema) = schema else { return "{}".to_owned() };
    let schema = schema.parse();
    let mut out = Vec::new();
    wire::json::object(&mut out, |o| {
        for name in schema.get("required").and_then(Json::as_array).unwrap_or_default() {
            let Some(name) = name.as_str() else { continue };
            let property = schema.at(&["properties", name]);
            match property.and_then(|p| p.get("type")).and_then(Json::as_str) {
                Some("integer" | "number") => o.uint(name, 1),
                Some("boolean") => o.bool(name, true),
                Some("array") => o.raw(name, "[]"),
                Some("object") => o.raw(name, "{}"),
                _ => o.str(name, "demo"),
            }
        }
    });
    String::from_utf8(out).unwrap_or_default()
}

fn images(request: &Request<'_>) -> usize {
    let parts = request.turns.iter().flat_map(|turn| &turn.parts);
    parts
        .map(|part| match part {
            Part::Image(_) => 1,
            Part::ToolResult(result) => result.parts.iter().filter(|p| matches!(p, Part::Image(_))).count(),
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::ir::{Text, Turn};

    fn request(text: &'static str) -> Request<'static> {
        Request {
            turns: vec![Turn::new(Role::User, vec![Part::Text(Text::plain(text))])],
            ..Request::default()
        }
    }

    #[test]
    fn the_answer_depends_on_model_and_request_only() {
        let one = script("demo", &request("hello"));
        assert_eq!(one, script("demo", &request("hello")));
        assert_eq!(one.steps, [Step::Say("The demo provider heard: hello".to_owned())]);
        assert_eq!(script("demo-429", &request("x")).error.unwrap().0, 429);
        assert_eq!(script("demo-cut", &request("x")).cut_after, Some(3));
    }

    #[test]
    fn tools_are_called_with_what_their_schema_requires() {
        let schema = r#"{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"},"x":{}},"required":["city","days"]}"#;
        let mut asked = request("weather");
        asked.tools.push(Tool::Function {
            name: "get_weather".into(),
            namespace: None,
            description: None,
            schema: Some(RawJson(schema.into())),
            strict: None,
            cache: None,
        });
        let step = script("demo-tool", &asked).steps.remove(0);
        assert_eq!(step, Step::Call("get_weather".to_owned(), r#"{"city":"demo","days":1}"#.to_owned()));
    }
}
