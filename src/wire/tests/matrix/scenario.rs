//! What is asked and answered, whatever the formats.

use crate::meaning::{Ask, Block, Choice, Counts, Finish, Part, Said, Tool, Turn};
use serde_json::{Value, json};
use wire::Protocol;

/// A column of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    Text,
    Tools,
    ParallelTools,
    Image,
    Document,
    Reasoning,
    Refusal,
    /// The answer meets the token limit.
    Limit,
    /// The upstream refuses, or says in the middle that it cannot go on.
    Error,
    /// The upstream's bytes end early.
    Cut,
}

/// Text that would end an event, a stream or a page if it were taken for more than text.
pub(crate) const NASTY: &str =
    "Grüße 🦀 \"quoted\" \\ \ttab\r\n\ndata: [DONE]\n\nevent: error\ndata: {}\n\n</script>\u{2028}\u{0}end";

const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const PDF: &str = "JVBERi0xLjQKJcOkw7zDtsOfCjIgMCBvYmoKPDwvTGVuZ3RoIDMgMCBSPj4Kc3RyZWFtCg==";

/// What the upstream says of an error.
pub(crate) const ERROR: &str = "the model is \"overloaded\": try again";

impl Scenario {
    pub(crate) const ALL: [Self; 10] = [
        Self::Text,
        Self::Tools,
        Self::ParallelTools,
        Self::Image,
        Self::Document,
        Self::Reasoning,
        Self::Refusal,
        Self::Limit,
        Self::Error,
        Self::Cut,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Tools => "tools",
            Self::ParallelTools => "parallel_tools",
            Self::Image => "image",
            Self::Document => "document",
            Self::Reasoning => "reasoning",
            Self::Refusal => "refusal",
            Self::Limit => "limit",
            Self::Error => "error",
            Self::Cut => "cut",
        }
    }

    /// What a client of `client` asks.
    pub(crate) fn ask(self, client: Protocol, upstream: Protocol) -> Ask {
        let hello = user(vec![words("Hello.")]);
        let mut ask = Ask { turns: vec![hello], ..Ask::default() };
        match self {
            Self::Text => {
                ask.system = format!("Answer briefly. {NASTY}");
                ask.turns = vec![
                    user(vec![words(NASTY)]),
                    model(vec![words("First answer.")]),
                    user(vec![words("And then?")]),
                ];
                ask.temperature = Some(0.5);
                ask.stop = vec!["STOP".to_owned(), "###".to_owned()];
            }
            Self::Tools => tools(&mut ask),
            Self::ParallelTools => parallel_tools(&mut ask),
            Self::Image => {
                let picture = Part::Image { mime: "image/png".to_owned(), data: PNG.to_owned() };
                ask.turns = vec![user(vec![words("What is this?"), picture, words("Be exact.")])];
            }
            Self::Document => {
                let document = Part::Document {
                    mime: "application/pdf".to_owned(),
                    data: PDF.to_owned(),
                    name: Some("report.pdf".to_owned()),
                };
                ask.turns = vec![user(vec![document, words("Summarise.")])];
            }
            Self::Reasoning => {
                ask.thinks = true;
                ask.max_tokens = Some(32_000);
                let thought = Part::Thought {
                    text: "The user greets me.".to_owned(),
                    // What the client got from this upstream in the turn before.
                    signature: (client != Protocol::OpenaiChat).then(|| signature(upstream)),
                };
                ask.turns = vec![
                    user(vec![words("Hello.")]),
                    model(vec![thought, words("Hi!")]),
                    user(vec![words("Think harder.")]),
                ];
            }
            Self::Refusal => {
                ask.turns = vec![
                    user(vec![words("Do something bad.")]),
                    model(vec![Part::Refusal("No.".to_owned())]),
                    user(vec![words("Please.")]),
                ];
            }
            Self::Limit => ask.max_tokens = Some(77),
            Self::Error | Self::Cut => {}
        }
        ask
    }

    /// What an upstream of `upstream` answers. A part that its format cannot say is left out.
    pub(crate) fn said(self, upstream: Protocol) -> Said {
        let usage = Counts { prompt: 100, cached: 40, output: 17, reasoning: 5 };
        let (blocks, finish) = match self {
            Self::Text => (vec![says(NASTY)], Finish::Stop),
            Self::Error => (vec![says("Sunny, and warm.")], Finish::Stop),
            Self::Cut => {
                (vec![says("I look."), calls("call_1", "get_weather", arguments("Rome"))], Finish::Tools)
            }
            Self::Tools => {
                (vec![says("I look."), calls("call_1", "get_weather", arguments("Rome"))], Finish::Tools)
            }
            Self::ParallelTools => {
                let three = vec![
                    calls("call_1", "get_weather", arguments("Rome")),
                    calls("call_2", "get_time", json!({})),
                    calls("call_3", "get_weather", arguments("Oslo")),
                ];
                (three, Finish::Tools)
            }
            Self::Image => {
                let picture = Block::Image { mime: "image/png".to_owned(), data: PNG.to_owned() };
                let draws = upstream != Protocol::Claude;
                (std::iter::once(says("A dot.")).chain(draws.then_some(picture)).collect(), Finish::Stop)
            }
            Self::Document => {
                let urls = vec!["https://example.com/a?b=c&d=\"e\"".to_owned()];
                (vec![Block::Text { text: "It says äöü.".to_owned(), urls }], Finish::Stop)
            }
            Self::Reasoning => {
                let signature = (upstream != Protocol::OpenaiChat).then(|| signature(upstream));
                let thought = Block::Thought { text: "Thinking\n\nhard.".to_owned(), signature };
                (vec![thought, says("Done.")], Finish::Stop)
            }
            Self::Refusal if matches!(upstream, Protocol::OpenaiChat | Protocol::OpenaiResponses) => {
                (vec![Block::Refusal("I will not.".to_owned())], Finish::Refused)
            }
            Self::Refusal => (vec![says("I will not.")], Finish::Refused),
            Self::Limit => (vec![says("This goes on and")], Finish::Length),
        };
        Said { blocks, finish: Some(finish), usage }
    }
}

fn tools(ask: &mut Ask) {
    ask.tools = vec![weather()];
    ask.choice = Some(Choice::Named("get_weather".to_owned()));
    ask.turns = vec![
        user(vec![words("Weather in Paris?")]),
        model(vec![words("One moment."), call("call_one", "get_weather", arguments("Paris"))]),
        user(vec![result("call_one", "18 °C, \"sunny\"\nwind: 3")]),
        model(vec![words("Sunny.")]),
        user(vec![words("And in Rome?")]),
    ];
}

fn parallel_tools(ask: &mut Ask) {
    ask.tools = vec![weather(), clock()];
    ask.choice = Some(Choice::Auto);
    ask.turns = vec![
        user(vec![words("Weather and time in Paris, weather in Rome?")]),
        model(vec![
            call("call_a", "get_weather", arguments("Paris")),
            call("call_b", "get_time", json!({})),
            call("call_c", "get_weather", arguments("Rome")),
        ]),
        user(vec![
            result("call_a", "18 °C"),
            result("call_b", "12:00"),
            result("call_c", "25 °C"),
            words("Compare them."),
        ]),
    ];
}

/// A signature in the form of a vendor. Chat has none; a client keeps one of another vendor.
pub(crate) fn signature(vendor: Protocol) -> String {
    match vendor {
        Protocol::OpenaiChat | Protocol::OpenaiResponses => format!("g{}==", "A".repeat(97)),
        Protocol::Claude => "EgYKBAJhYmM=".to_owned(),
        Protocol::Gemini => "EgYKBAFhYmM=".to_owned(),
    }
}

/// A small PNG in base64.
pub(crate) fn picture() -> String {
    PNG.to_owned()
}

fn user(parts: Vec<Part>) -> Turn {
    Turn { user: true, parts }
}

fn model(parts: Vec<Part>) -> Turn {
    Turn { user: false, parts }
}

fn words(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn call(id: &str, name: &str, args: Value) -> Part {
    Part::Call { id: id.to_owned(), name: name.to_owned(), args }
}

fn result(id: &str, text: &str) -> Part {
    Part::Result { id: id.to_owned(), text: text.to_owned() }
}

fn says(text: &str) -> Block {
    Block::Text { text: text.to_owned(), urls: Vec::new() }
}

fn calls(id: &str, name: &str, args: Value) -> Block {
    Block::Call { id: id.to_owned(), name: name.to_owned(), args }
}

/// Every kind of value, nested.
fn arguments(city: &str) -> Value {
    json!({"city": city, "days": 3, "ratio": 0.25, "deep": {"list": [true, null, "a\"b\\c\n"]}, "ü": NASTY})
}

fn weather() -> Tool {
    let properties = json!({
        "city": {"type": "string", "description": "Name of the city"}, "days": {"type": "integer"},
        "ratio": {"type": "number"}, "deep": {"type": "object", "properties": {"list": {"type": "array", "items": {}}}},
        "ü": {"type": "string"},
    });
    let schema = json!({"type": "object", "properties": properties, "required": ["city"]});
    Tool { name: "get_weather".to_owned(), description: "Weather of a city".to_owned(), schema }
}

fn clock() -> Tool {
    let schema = json!({"type": "object", "properties": {"zone": {"type": "string"}}});
    Tool { name: "get_time".to_owned(), description: "The time".to_owned(), schema }
}
