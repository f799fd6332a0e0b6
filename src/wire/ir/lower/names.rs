//! Names and ids as the target spells them, and the map of the way back.
//!
//! Enters: paired turns and tools. Leaves: namespaces flattened, bare-string tools turned into functions
//! where the target has neither; names and ids renamed alike in declarations, history and choice.

use super::Rules;
use crate::ir::{
    Context, LossKind, Losses, Part, RawJson, Request, Restored, Str, Tool, ToolChoice, ToolKind,
};
use crate::json;
use crate::names::fingerprint;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Schema of a bare-string tool for targets that only know objects.
const INPUT_SCHEMA: &str =
    r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}"#;

/// Renames everything in `request` that the target would refuse.
pub(super) fn fit(request: &mut Request<'_>, rules: &Rules, context: &mut Context, losses: &mut Losses) {
    let mut renames =
        Renames { rules, given: HashMap::new(), taken: HashSet::new(), next: HashMap::new(), context };
    declare(&mut request.tools, &mut renames, losses);
    for turn in &mut request.turns {
        for part in &mut turn.parts {
            match part {
                Part::ToolCall(call) => {
                    call.name = renames.name(&call.name, call.namespace.as_deref(), call.kind).into();
                    if !rules.namespaces {
                        call.namespace = None;
                    }
                    if call.kind == ToolKind::Custom && !rules.custom_tools {
                        call.arguments = Cow::Owned(call.object().into_owned());
                        call.kind = ToolKind::Function;
                    }
                }
                Part::ToolResult(result) => {
                    if let Some(name) = &mut result.name {
                        *name = renames.name(name, None, result.kind).into();
                    }
                    if !rules.custom_tools {
                        result.kind = ToolKind::Function;
                    }
                }
                _ => {}
            }
        }
    }
    match &mut request.tool_choice {
        Some(ToolChoice::Named { name, namespace, kind }) => {
            *name = renames.name(name, namespace.as_deref(), *kind).into();
            if !rules.namespaces {
                *namespace = None;
            }
            if !rules.custom_tools {
                *kind = ToolKind::Function;
            }
        }
        Some(ToolChoice::Allowed { names, .. }) => {
            for name in names {
                *name = renames.name(name, None, ToolKind::Function).into();
            }
        }
        _ => {}
    }
    ids(request, rules);
}

/// Renames the declarations; of two tools with one name the first stays.
fn declare(tools: &mut Vec<Tool<'_>>, renames: &mut Renames<'_>, losses: &mut Losses) {
    let mut seen = HashSet::new();
    tools.retain_mut(|tool| {
        let (name, namespace, kind) = match tool {
            Tool::Function { name, namespace, .. } => (name, namespace, ToolKind::Function),
            Tool::Custom { name, namespace, .. } => (name, namespace, ToolKind::Custom),
            Tool::Builtin(_) => return true,
        };
        if !seen.insert((namespace.clone(), name.clone())) {
            losses.member(LossKind::Setting, "tools");
            return false;
        }
        *name = renames.name(name, namespace.as_deref(), kind).into();
        if !renames.rules.namespaces {
            *namespace = None;
        }
        if !renames.rules.custom_tools {
            as_function(tool);
        }
        true
    });
}

fn as_function(tool: &mut Tool<'_>) {
    let Tool::Custom { name, namespace, description, format } = tool else { return };
    let mut text = description.take().unwrap_or_default().into_owned();
    if let Some(format) = format {
        // The grammar cannot be enforced, but the model can be told.
        text.push_str("\n\nThe input has this format: ");
        text.push_str(format.as_str());
    }
    *tool = Tool::Function {
        name: std::mem::take(name),
        namespace: namespace.take(),
        description: (!text.is_empty()).then(|| text.into()),
        schema: Some(RawJson(Cow::Borrowed(INPUT_SCHEMA))),
        strict: None,
        cache: None,
    };
}

struct Renames<'r> {
    rules: &'r Rules,
    /// (namespace, name) → the target's name.
    given: HashMap<(String, String), String>,
    /// Names of the target that are taken: (namespace where the target has them, name).
    taken: HashSet<(String, String)>,
    /// The last number that was tried to tell names apart that are cut to the same.
    next: HashMap<(String, String), usize>,
    context: &'r mut Context,
}

impl Renames<'_> {
    /// The target's name of a tool; the same for the same tool.
    fn name(&mut self, name: &str, namespace: Option<&str>, kind: ToolKind) -> String {
        let key = (namespace.unwrap_or_default().to_owned(), name.to_owned());
        if let Some(given) = self.given.get(&key) {
            return given.clone();
        }
        let full = match namespace {
            // Names that are qualified already are not qualified twice.
            Some(ns) if !self.rules.namespaces && !name.starts_with("mcp__") => format!("{ns}__{name}"),
            _ => name.to_owned(),
        };
        let rule = &self.rules.names;
        let space = if self.rules.namespaces { key.0.clone() } else { String::new() };
        let mut given = if rule.allows(&full) { full } else { rule.shorten(&full) };
        if !self.taken.insert((space.clone(), given.clone())) {
            let base = given;
            let next = self.next.entry((space.clone(), base.clone())).or_default();
            // Each number is tried once: the whole costs as many steps as there are names.
            loop {
                *next += 1;
                let suffix = format!("_{next}");
                let keep = base.len().min(rule.name_max - suffix.len());
                given = format!("{}{suffix}", base.get(..keep).unwrap_or_default());
                if self.taken.insert((space.clone(), given.clone())) {
                    break;
                }
            }
        }
        let changed = given != name || namespace.is_some() && !self.rules.namespaces;
        if changed || (kind == ToolKind::Custom && !self.rules.custom_tools) {
            let restored = Restored {
                name: name.to_owned(),
                namespace: namespace.map(str::to_owned),
                kind,
                placeholder: None,
            };
            self.context.names.insert(given.clone(), restored);
        }
        self.given.insert(key, given.clone());
        given
    }
}

/// Gives every call an id that the target takes and no other call has, and its result the same.
fn ids(request: &mut Request<'_>, rules: &Rules) {
    let mut used: HashSet<String> = HashSet::new();
    let mut pending: std::collections::VecDeque<String> = std::collections::VecDeque::new();
    let mut counter = 0_usize;
    for turn in &mut request.turns {
        for part in &mut turn.parts {
            match part {
                Part::ToolCall(call) => {
                    counter += 1;
                    let mut id: Str<'_> = rules.names.id(std::mem::take(&mut call.id));
                    if id.is_empty() {
                        id = format!("call_{counter}_{}", fingerprint(call.name.as_bytes())).into();
                    }
                    if used.contains(id.as_ref()) {
                        let suffix = format!("_{counter}");
                        let mut cut = id.len().min(rules.names.id_max - suffix.len());
                        while !id.is_char_boundary(cut) {
                            cut -= 1;
                        }
                        id = format!("{}{suffix}", id.get(..cut).unwrap_or_default()).into();
                    }
                    used.insert(id.clone().into_owned());
                    pending.push_back(id.clone().into_owned());
                    call.id = id;
                }
                // After pairing, results come in the order of the calls.
                Part::ToolResult(result) => {
                    if let Some(id) = pending.pop_front() {
                        result.call_id = id.into();
                    }
                }
                _ => {}
            }
        }
    }
}

/// The bare string in the arguments of a bare-string tool that was called as a function.
pub(in crate::ir) fn bare_input(arguments: &str) -> Option<String> {
    let value = json::parse_any(arguments.as_bytes()).ok()?;
    let map = value.as_object()?;
    let input = map.get("input").or_else(|| map.iter().next().map(|(_, v)| v))?;
    Some(input.as_str().map_or_else(|| input.to_text(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Role, ToolCall, Turn};
    use crate::names::NameRule;

    const PLAIN: Rules = Rules { names: NameRule::OPENAI, custom_tools: false, namespaces: false };

    fn function(name: &str, namespace: Option<&str>) -> Tool<'static> {
        Tool::Function {
            name: name.to_owned().into(),
            namespace: namespace.map(|n| n.to_owned().into()),
            description: None,
            schema: None,
            strict: None,
            cache: None,
        }
    }

    #[test]
    fn p38_long_names_are_cut_apart_and_come_back() {
        let long = |c: &str| format!("tool_{}", c.repeat(80));
        let mut request = Request {
            tools: vec![function(&long("a"), None), function(&long("a"), Some("n"))],
            ..Request::default()
        };
        let mut context = Context::default();
        fit(&mut request, &PLAIN, &mut context, &mut Losses::default());
        let names: Vec<_> = request.tools.iter().filter_map(Tool::name).cloned().collect();
        assert_ne!(names[0], names[1]);
        for name in &names {
            assert!(name.len() <= 64);
            assert!(context.names[name.as_ref()].name.starts_with("tool_"));
        }
        assert_eq!(context.names[names[1].as_ref()].namespace.as_deref(), Some("n"));
    }

    #[test]
    fn p40_names_that_are_cut_alike_cost_linear_time() {
        let base = "t".repeat(64);
        let tools = (0..20_000).map(|n| function(&format!("{base}{n}"), None)).collect();
        let mut request = Request { tools, ..Request::default() };
        fit(&mut request, &PLAIN, &mut Context::default(), &mut Losses::default());
        let names: HashSet<_> = request.tools.iter().filter_map(Tool::name).collect();
        assert_eq!(names.len(), 20_000);
    }

    #[test]
    fn duplicate_declarations_keep_the_first() {
        let mut request =
            Request { tools: vec![function("f", None), function("f", None)], ..Request::default() };
        fit(&mut request, &PLAIN, &mut Context::default(), &mut Losses::default());
        assert_eq!(request.tools.len(), 1);
    }

    #[test]
    fn custom_calls_become_objects() {
        let call = ToolCall {
            id: "".into(),
            name: "patch".into(),
            namespace: None,
            kind: ToolKind::Custom,
            arguments: "a \"b\"".into(),
            signature: None,
            cache: None,
        };
        let mut request = Request {
            turns: vec![Turn::new(Role::Assistant, vec![Part::ToolCall(call)])],
            ..Request::default()
        };
        let mut context = Context::default();
        fit(&mut request, &PLAIN, &mut context, &mut Losses::default());
        let Part::ToolCall(call) = &request.turns[0].parts[0] else { panic!() };
        assert_eq!(call.arguments, r#"{"input":"a \"b\""}"#);
        assert!(!call.id.is_empty());
        assert_eq!(context.names["patch"].kind, ToolKind::Custom);
        assert_eq!(bare_input(&call.arguments).as_deref(), Some("a \"b\""));
    }
}
