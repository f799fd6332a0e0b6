//! The part of a translation that decides how much the model thinks.
//!
//! Enters: what the client's body and the model's name ask, and what the model takes. Leaves:
//! [`Target::thinking`] and a [`ThinkingReport`]. May go wrong: a budget that does not fit below `max_tokens`
//! where the operator wants that refused; a word for an effort that a known model cannot know.

use super::{Job, formats};
use crate::Protocol;
use crate::error::WireError;
use crate::ir::{Losses, Request};
use crate::json::Path;
use crate::patch::scanned;
use crate::target::{Operation, Profile, Target};
use crate::thinking::{Mode, Origin, Support, Thinking, ThinkingReport, plan, plan_own};

/// For a body of the target's own format: plans what has to change in it.
pub(super) fn own(
    job: &Job<'_>,
    target: &mut Target<'_>,
    losses: &mut Losses,
) -> Result<ThinkingReport, WireError> {
    let support = &job.card.thinking;
    if job.operation != Operation::Generate {
        target.thinking = plan(job.suffix, support, job.client, losses);
        return Ok(ThinkingReport::default());
    }
    let known = matches!(support, Support::Bounded(_));
    let asked = match formats::asked_thinking(job.client, job.body, scanned(job.body, &job.head.members)) {
        Ok(asked) => asked,
        // OpenAI's words are a closed list; of the others newer ones may be right.
        Err(error) if known && matches!(job.client, Protocol::OpenaiChat | Protocol::OpenaiResponses) => {
            return Err(naming_levels(error, job));
        }
        Err(_) => Thinking::default(),
    };
    check(job, asked.mode, || {
        let member = scanned(job.body, &job.head.members).find(|member| member.key == b"max_tokens")?;
        std::str::from_utf8(job.body.get(member.value)?).ok()?.parse().ok()
    })?;
    target.thinking = plan_own(asked.mode, job.suffix, support, job.client, losses);
    let kept = asked.mode.filter(|_| *support != Support::Never && job.suffix.is_none());
    Ok(report(job, asked, target.thinking.or(kept)))
}

/// For a body that is written anew.
pub(super) fn rewritten(
    job: &Job<'_>,
    request: &Request<'_>,
    target: &mut Target<'_>,
    losses: &mut Losses,
) -> Result<ThinkingReport, WireError> {
    let asked = request.thinking;
    check(job, asked.mode, || request.limits.max_tokens)?;
    let mode = job.suffix.or(asked.mode);
    target.thinking = plan(mode, &job.card.thinking, job.profile.protocol(), losses);
    Ok(match job.operation {
        Operation::Generate | Operation::Completion => report(job, asked, target.thinking),
        _ => ThinkingReport::default(),
    })
}

/// A body that cannot be read: where that is for its word for an effort, says what the model takes.
pub(super) fn unread(error: WireError, job: &Job<'_>) -> WireError {
    let effort = error.path().is_some_and(|path| path == "reasoning_effort" || path == "reasoning.effort");
    if effort { naming_levels(error, job) } else { error }
}

/// Says what the model would take.
fn naming_levels(error: WireError, job: &Job<'_>) -> WireError {
    match (error, &job.card.thinking) {
        (WireError::Invalid { path, problem }, Support::Bounded(bounds)) if !bounds.levels.is_empty() => {
            let words: Vec<_> = bounds.levels.iter().map(|level| level.name()).collect();
            WireError::Invalid {
                path,
                problem: format!("{problem}; {} takes {}", job.model, words.join(", ")),
            }
        }
        (error, _) => error,
    }
}

fn report(job: &Job<'_>, asked: Thinking, processed: Option<Mode>) -> ThinkingReport {
    let (original, origin) = match (job.suffix, asked.mode) {
        (Some(mode), _) => (Some(mode), Origin::Suffix),
        (None, Some(mode)) => (Some(mode), Origin::Body),
        (None, None) => (None, Origin::Nobody),
    };
    ThinkingReport { original, origin, visible: asked.visible, processed }
}

/// Refuses the budget that Claude would refuse, where the operator wants that.
fn check(
    job: &Job<'_>,
    asked: Option<Mode>,
    max_tokens: impl FnOnce() -> Option<u64>,
) -> Result<(), WireError> {
    let claude = job.profile.protocol() == Protocol::Claude || job.model.contains("claude");
    let Some(Mode::Budget(budget)) = asked.filter(|_| job.strict && claude && job.suffix.is_none()) else {
        return Ok(());
    };
    match max_tokens() {
        Some(most) if most <= u64::from(budget) => Err(WireError::invalid(
            &Path::Root.key("max_tokens"),
            "max_tokens must be greater than thinking.budget_tokens",
        )),
        _ => Ok(()),
    }
}

/// Looks at the body where its writer has told of thinking that did not go as planned: forced tools, a begun
/// answer, too little room.
pub(super) fn settle(
    report: &mut ThinkingReport,
    job: &Job<'_>,
    body: &[u8],
    planned: usize,
    losses: &Losses,
) {
    if report.original.is_some() && job.profile != Profile::Kiro && losses.names_since(planned, "thinking") {
        let protocol = job.profile.protocol();
        let members = crate::patch::members(body, 0);
        report.processed = formats::asked_thinking(protocol, body, members).ok().and_then(|sent| sent.mode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{Replay, Sent};
    use crate::target::Card;
    use crate::thinking::{Bounds, Level};

    fn card(budget: Option<(u32, u32)>, levels: &[Level]) -> Card {
        let bounds = Bounds { budget, levels: levels.to_vec(), ..Bounds::default() };
        Card { thinking: Support::Bounded(bounds), ..Card::default() }
    }

    fn send(
        client: Protocol,
        profile: Profile,
        model: &str,
        card: &Card,
        body: &str,
    ) -> Result<Sent, WireError> {
        let replay = Replay::new(client, profile, model, card);
        replay.request(body.as_bytes())
    }

    fn text(sent: &Sent) -> String {
        String::from_utf8(sent.body.clone()).unwrap()
    }

    const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"q"}]"#;
    const CLAUDE: &str = r#"{"model":"m","max_tokens":2000,"messages":[{"role":"user","content":"q"}]"#;

    #[test]
    fn each_format_moves_its_own_thinking_into_the_models_range() {
        use Level::{High, Low, Max, Medium};
        let three = card(None, &[Low, Medium, High]);
        let chat = |effort: &str| format!(r#"{CHAT},"reasoning_effort":{effort}}}"#);
        let sent = |body: &str| send(Protocol::OpenaiChat, Profile::Chat, "m", &three, body).unwrap();
        assert_eq!(text(&sent(&chat(r#""max""#))), chat(r#""high""#));
        assert_eq!(text(&sent(&chat(r#""low""#))), chat(r#""low""#));
        assert_eq!(text(&sent(&chat(r#""auto""#))), format!(r#"{CHAT},"reasoning_effort":"medium"}}"#));
        let body =
            |effort: &str| format!(r#"{{"model":"m","input":"q","reasoning":{{"effort":"{effort}"}}}}"#);
        let sent = send(Protocol::OpenaiResponses, Profile::Responses, "m", &three, &body("xhigh")).unwrap();
        assert!(text(&sent).contains(r#""reasoning":{"effort":"high"}"#), "{}", text(&sent));
        let body = r#"{"contents":[],"generationConfig":{"thinkingConfig":{"thinkingBudget":60000}}}"#;
        let pro = card(Some((128, 32768)), &[]);
        let sent = send(Protocol::Gemini, Profile::Gemini, "m", &pro, body).unwrap();
        assert!(text(&sent).contains(r#""thinkingBudget":32768"#), "{}", text(&sent));
        assert!(sent.thinking.mismatch());
        let adaptive = card(None, &[Low, Medium, High, Max]);
        let body = format!(r#"{CLAUDE},"thinking":{{"type":"enabled","budget_tokens":1500}}}}"#);
        let sent = send(Protocol::Claude, Profile::Claude, "m", &adaptive, &body).unwrap();
        let out = text(&sent);
        assert!(out.contains(r#""thinking":{"type":"adaptive"}"#) && !out.contains("budget"), "{out}");
        assert!(out.contains(r#""output_config":{"effort":"medium"}"#), "{out}");
        assert!(!sent.thinking.mismatch());
    }

    #[test]
    fn claude_decides_itself_and_stays_off_where_it_takes_a_budget() {
        for (thinking, card) in [
            (r#"{"type":"adaptive"}"#, card(Some((1024, 128_000)), &[Level::Low, Level::High])),
            (r#"{"type":"disabled"}"#, card(Some((1024, 128_000)), &[])),
        ] {
            let body = format!(r#"{CLAUDE},"thinking":{thinking}}}"#);
            let sent = send(Protocol::Claude, Profile::Claude, "m", &card, &body).unwrap();
            assert_eq!(text(&sent), body);
        }
    }

    #[test]
    fn a_model_of_which_nothing_is_known_takes_what_its_own_client_says() {
        let body =
            format!(r#"{CHAT},"thinking":{{"type":"enabled","budget_tokens":9}},"reasoning_effort":"odd"}}"#);
        let sent = send(Protocol::OpenaiChat, Profile::Chat, "m", &Card::default(), &body).unwrap();
        assert_eq!(text(&sent), body);
        let body = format!(r#"{CHAT},"reasoning_effort":"auto"}}"#);
        let sent = send(Protocol::OpenaiChat, Profile::Chat, "m", &Card::default(), &body).unwrap();
        assert_eq!(text(&sent), format!("{CHAT}}}"));
    }

    #[test]
    fn an_effort_nobody_knows_is_refused_with_those_the_model_takes() {
        let known = card(None, &[Level::Low, Level::High]);
        let body = format!(r#"{CHAT},"reasoning_effort":"bananas"}}"#);
        for profile in [Profile::Chat, Profile::Codex, Profile::Claude] {
            let error = send(Protocol::OpenaiChat, profile, "gpt-x", &known, &body).unwrap_err().to_string();
            assert!(
                error.starts_with("reasoning_effort: ") && error.ends_with("gpt-x takes low, high"),
                "{profile:?}: {error}"
            );
        }
    }

    #[test]
    fn a_flavour_says_it_in_its_own_words_from_any_client() {
        let kimi = card(None, &[Level::Low, Level::High]);
        let chat = format!(r#"{CHAT},"reasoning_effort":"medium"}}"#);
        let claude = format!(r#"{CLAUDE},"thinking":{{"type":"enabled","budget_tokens":1500}}}}"#);
        for (client, body) in [(Protocol::OpenaiChat, chat), (Protocol::Claude, claude)] {
            let sent = send(client, Profile::Kimi, "kimi-k2.5", &kimi, &body).unwrap();
            let out = text(&sent);
            assert!(out.contains(r#""thinking":{"type":"enabled","effort":"low"}"#), "{out}");
            assert!(out.contains(r#""model":"k2.5""#) && !out.contains("reasoning_effort"), "{out}");
        }
    }

    #[test]
    fn reports_say_what_went_out_in_the_end() {
        let budget = card(Some((1024, 128_000)), &[]);
        let chat = |more: &str| format!(r#"{CHAT},"max_tokens":2000,"reasoning_effort":"high"{more}}}"#);
        let run =
            |body: &str| send(Protocol::OpenaiChat, Profile::Claude, "m", &budget, body).unwrap().thinking;
        let cut = run(&chat(""));
        assert_eq!((cut.original, cut.origin), (Some(Mode::Level(Level::High)), Origin::Body));
        assert_eq!(
            (cut.processed, cut.visible, cut.mismatch()),
            (Some(Mode::Budget(1999)), Some(true), true)
        );
        let tool = r#"{"type":"function","function":{"name":"f"}}"#;
        let forced = run(&chat(&format!(r#","tools":[{tool}],"tool_choice":"required""#)));
        assert_eq!((forced.processed, forced.mismatch()), (None, true));
        let body = format!(r#"{CLAUDE},"thinking":{{"type":"enabled","budget_tokens":5000}}}}"#);
        let own = send(Protocol::Claude, Profile::Claude, "m(1500)", &budget, &body).unwrap().thinking;
        assert_eq!((own.original, own.origin), (Some(Mode::Budget(1500)), Origin::Suffix));
        assert_eq!((own.processed, own.mismatch()), (Some(Mode::Budget(1500)), false));
        let own = send(Protocol::Claude, Profile::Claude, "m", &budget, &body).unwrap().thinking;
        assert_eq!((own.processed, own.mismatch()), (Some(Mode::Budget(1999)), true));
        let nothing = run(&format!("{CHAT}}}"));
        assert_eq!(nothing, ThinkingReport::default());
    }

    #[test]
    fn a_budget_that_does_not_fit_is_refused_where_the_operator_wants_that() {
        for (client, body) in [
            (
                Protocol::OpenaiChat,
                format!(r#"{CHAT},"max_tokens":2000,"thinking":{{"type":"enabled","budget_tokens":5000}}}}"#),
            ),
            (Protocol::Claude, format!(r#"{CLAUDE},"thinking":{{"type":"enabled","budget_tokens":2000}}}}"#)),
        ] {
            let head = crate::head::parse(body.as_bytes(), client).unwrap();
            let card = card(Some((1024, 128_000)), &[]);
            let mut job = Job {
                client,
                operation: Operation::Generate,
                body: body.as_bytes(),
                head: &head,
                stream: false,
                framing: crate::frames::Framing::Lines,
                profile: Profile::Claude,
                model: "claude-x",
                card: &card,
                suffix: None,
                strict: true,
                shown_model: None,
                created: 0,
                seed: "0123456789abcdef0123456789abcdef",
                project: "",
                image_base: "",
            };
            let error = crate::translate::prepare(&job).unwrap_err().to_string();
            assert!(error.contains("max_tokens must be greater than thinking.budget_tokens"), "{error}");
            job.strict = false;
            assert!(crate::translate::prepare(&job).is_ok());
        }
    }
}
