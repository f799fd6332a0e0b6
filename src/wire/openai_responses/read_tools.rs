//! Tools and the choice among them.
//!
//! Enters: `tools` (also of `additional_tools` items) and `tool_choice`. Leaves: tools of the IR, those in a
//! namespace side by side with the others. May go wrong: a tool without type or name, a choice of an unknown
//! form; the error names the path.

use super::read_members::{elements, need_string, object, opt, opt_bool, opt_object, opt_string, strings};
use crate::Protocol;
use crate::error::WireError;
use crate::ir::{Builtin, LossKind, Losses, RawJson, Str, Tool, ToolChoice, ToolKind};
use crate::json::{Json, Map, Path};

/// Members of a tool whose text is kept.
const RAW: [&str; 4] = ["parameters", "format", "user_location", "tools"];

/// Reads an array of tools.
pub(super) fn tools<'a>(
    value: &Json<'a>,
    path: &Path<'_>,
    out: &mut Vec<Tool<'a>>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    for (n, raw) in elements(value, path)?.into_iter().enumerate() {
        tool(raw, &path.index(n), out, losses)?;
    }
    Ok(())
}

fn tool<'a>(
    raw: &'a str,
    path: &Path<'_>,
    out: &mut Vec<Tool<'a>>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    let mut map = object(Json::Raw(raw), path, &RAW)?;
    let kind = need_string(&mut map, "type", path)?;
    let tool = match kind.as_ref() {
        "function" | "custom" => callable(map, &kind, None, path)?,
        "namespace" => return namespace(&mut map, path, out, losses),
        "web_search" | "web_search_2025_08_26" | "web_search_preview" | "web_search_preview_2025_03_11" => {
            Tool::Builtin(web_search(&mut map, path)?)
        }
        "code_interpreter" => Tool::Builtin(Builtin::CodeExecution),
        "image_generation" => Tool::Builtin(Builtin::ImageGeneration(RawJson(Str::Borrowed(raw)))),
        _ => Tool::Builtin(Builtin::Other {
            vendor: Protocol::OpenaiResponses,
            kind,
            raw: RawJson(Str::Borrowed(raw)),
        }),
    };
    out.push(tool);
    Ok(())
}

/// Tools of a namespace. Its own description has no place outside of this format.
fn namespace<'a>(
    map: &mut Map<'a>,
    path: &Path<'_>,
    out: &mut Vec<Tool<'a>>,
    losses: &mut Losses,
) -> Result<(), WireError> {
    let name = need_string(map, "name", path)?;
    let path = path.key("tools");
    let Some(inner) = opt(map, "tools") else { return Ok(()) };
    for (n, raw) in elements(&inner, &path)?.into_iter().enumerate() {
        let path = path.index(n);
        let mut map = object(Json::Raw(raw), &path, &RAW)?;
        let kind = need_string(&mut map, "type", &path)?;
        if matches!(kind.as_ref(), "function" | "custom") {
            out.push(callable(map, &kind, Some(name.clone()), &path)?);
        } else {
            losses.at(LossKind::Builtin, &path);
        }
    }
    Ok(())
}

/// A function or a bare-string tool.
fn callable<'a>(
    mut map: Map<'a>,
    kind: &str,
    namespace: Option<Str<'a>>,
    path: &Path<'_>,
) -> Result<Tool<'a>, WireError> {
    // Chat nests the members; clients that mix the formats up are understood.
    if !map.has("name")
        && let Some(inner) = opt_object(&mut map, kind, path, &RAW)?
    {
        map = inner;
    }
    let name = need_string(&mut map, "name", path)?;
    let description = opt_string(&mut map, "description", path)?;
    if kind == "custom" {
        let format = opt(&mut map, "format").map(RawJson::from);
        return Ok(Tool::Custom { name, namespace, description, format });
    }
    let schema = opt(&mut map, "parameters");
    if let Some(schema) = schema.as_ref().filter(|schema| !schema.is_object()) {
        return Err(WireError::expected(&path.key("parameters"), "an object", schema));
    }
    let strict = opt_bool(&mut map, "strict", path)?;
    Ok(Tool::Function {
        name,
        namespace,
        description,
        schema: schema.map(RawJson::from),
        strict,
        cache: None,
    })
}

fn web_search<'a>(map: &mut Map<'a>, path: &Path<'_>) -> Result<Builtin<'a>, WireError> {
    let (mut allowed_domains, mut blocked_domains) = (Vec::new(), Vec::new());
    if let Some(mut filters) = opt_object(map, "filters", path, &[])? {
        let path = path.key("filters");
        allowed_domains = strings(&mut filters, "allowed_domains", &path)?;
        blocked_domains = strings(&mut filters, "blocked_domains", &path)?;
    }
    Ok(Builtin::WebSearch {
        allowed_domains,
        blocked_domains,
        max_uses: None,
        user_location: opt(map, "user_location").map(RawJson::from),
        context_size: opt_string(map, "search_context_size", path)?,
    })
}

/// Reads `tool_choice`.
pub(super) fn choice<'a>(
    value: Json<'a>,
    path: &Path<'_>,
    tools: &[Tool<'a>],
    losses: &mut Losses,
) -> Result<ToolChoice<'a>, WireError> {
    if value.kind() == "a string" {
        let word = super::read_members::string(value, path)?;
        return plain(&word)
            .ok_or_else(|| WireError::invalid(path, "expected `auto`, `none`, `required` or an object"));
    }
    let mut map = object(value, path, &[])?;
    let kind = need_string(&mut map, "type", path)?;
    match kind.as_ref() {
        "function" | "custom" => {
            if !map.has("name")
                && let Some(inner) = opt_object(&mut map, &kind, path, &[])?
            {
                map = inner;
            }
            let name = need_string(&mut map, "name", path)?;
            let namespace = opt_string(&mut map, "namespace", path)?.or_else(|| home(&name, tools));
            let kind = if kind == "custom" { ToolKind::Custom } else { ToolKind::Function };
            Ok(ToolChoice::Named { name, namespace, kind })
        }
        "allowed_tools" => {
            if let Some(inner) = opt_object(&mut map, "allowed_tools", path, &[])? {
                map = inner;
            }
            allowed(&mut map, path, losses)
        }
        word => Ok(plain(word).unwrap_or(ToolChoice::Builtin(kind.clone()))),
    }
}

fn plain(word: &str) -> Option<ToolChoice<'static>> {
    match word {
        "auto" => Some(ToolChoice::Auto),
        "none" => Some(ToolChoice::None),
        "required" | "any" => Some(ToolChoice::Any),
        _ => None,
    }
}

/// The namespace of the only tool with this name, when no tool outside of namespaces has it.
fn home<'a>(name: &str, tools: &[Tool<'a>]) -> Option<Str<'a>> {
    let mut found =
        tools.iter().filter(|tool| tool.name().is_some_and(|own| own == name)).map(|tool| match tool {
            Tool::Function { namespace, .. } | Tool::Custom { namespace, .. } => namespace.clone(),
            Tool::Builtin(_) => None,
        });
    let only = found.next()?;
    found.next().is_none().then_some(only)?
}

fn allowed<'a>(map: &mut Map<'a>, path: &Path<'_>, losses: &mut Losses) -> Result<ToolChoice<'a>, WireError> {
    let required = opt_string(map, "mode", path)?.is_some_and(|mode| mode == "required");
    let path = path.key("tools");
    let Some(Json::Array(tools)) = opt(map, "tools") else {
        return Err(WireError::invalid(&path, "required: an array of tools"));
    };
    let mut names = Vec::with_capacity(tools.len());
    for (n, tool) in tools.into_iter().enumerate() {
        let path = path.index(n);
        let mut tool = object(tool, &path, &[])?;
        if let Some(inner) = opt_object(&mut tool, "function", &path, &[])? {
            tool = inner;
        }
        match opt_string(&mut tool, "name", &path)? {
            Some(name) => names.push(name),
            // A built-in has no name; whether it may be used cannot be said elsewhere.
            None => losses.at(LossKind::Builtin, &path),
        }
    }
    Ok(ToolChoice::Allowed { required, names })
}

#[cfg(test)]
mod tests {
    use super::super::read_request;
    use super::*;
    use crate::ir::Request;

    fn read(tools: &str, choice: &str) -> (Request<'static>, String) {
        let body = format!(r#"{{"input":"x","tools":{tools},"tool_choice":{choice}}}"#);
        let mut losses = Losses::default();
        let request = read_request(Box::leak(body.into_boxed_str()).as_bytes(), &mut losses).unwrap();
        (request, losses.to_string())
    }

    #[test]
    fn functions_keep_their_schema_as_sent_and_namespaces_become_flat() {
        let (request, losses) = read(
            r#"[{"type":"function","name":"f","description":"d","parameters":{"b":1.0, "a":2},"strict":true},
            {"type":"namespace","name":"crm","description":"x","tools":[{"type":"function","name":"list","parameters":null},{"type":"custom","name":"sql","format":{"type":"text"}},{"type":"mcp"}]},
            {"type":"function","function":{"name":"nested","parameters":{}}}]"#,
            r#"{"type":"function","name":"list"}"#,
        );
        let Tool::Function { schema, strict, .. } = &request.tools[0] else { panic!() };
        assert_eq!((schema.as_ref().unwrap().as_str(), *strict), (r#"{"b":1.0, "a":2}"#, Some(true)));
        let Tool::Function { namespace, schema: None, .. } = &request.tools[1] else { panic!() };
        assert_eq!(namespace.as_deref(), Some("crm"));
        assert!(matches!(&request.tools[2], Tool::Custom { format: Some(_), .. }));
        assert_eq!(request.tools[3].name().unwrap(), "nested");
        assert_eq!(losses, "builtin-tool tools[1].tools[2]");
        let expected = ToolChoice::Named {
            name: "list".into(),
            namespace: Some("crm".into()),
            kind: ToolKind::Function,
        };
        assert_eq!(request.tool_choice, Some(expected));
    }

    #[test]
    fn built_ins_with_a_counterpart_are_understood() {
        let (request, _) = read(
            r#"[{"type":"web_search_preview_2025_03_11","search_context_size":"low","filters":{"allowed_domains":["a.b"]}},
            {"type":"code_interpreter","container":{"type":"auto"}},{"type":"image_generation","size":"1024x1024"},{"type":"local_shell"}]"#,
            r#"{"type":"web_search_preview"}"#,
        );
        let Tool::Builtin(Builtin::WebSearch { allowed_domains, context_size, .. }) = &request.tools[0]
        else {
            panic!()
        };
        assert_eq!((allowed_domains.len(), context_size.as_deref()), (1, Some("low")));
        assert_eq!(request.tools[1], Tool::Builtin(Builtin::CodeExecution));
        assert!(
            matches!(&request.tools[2], Tool::Builtin(Builtin::ImageGeneration(raw)) if raw.as_str().contains("1024"))
        );
        assert!(
            matches!(&request.tools[3], Tool::Builtin(Builtin::Other { kind, .. }) if kind == "local_shell")
        );
        assert_eq!(request.tool_choice, Some(ToolChoice::Builtin("web_search_preview".into())));
    }

    #[test]
    fn every_form_of_choice() {
        let named = |kind| ToolChoice::Named { name: "f".into(), namespace: None, kind };
        let allowed = ToolChoice::Allowed { required: true, names: vec!["f".into()] };
        for (choice, expected) in [
            (r#""auto""#, ToolChoice::Auto),
            (r#""none""#, ToolChoice::None),
            (r#""required""#, ToolChoice::Any),
            (r#"{"type":"function","name":"f"}"#, named(ToolKind::Function)),
            (r#"{"type":"function","function":{"name":"f"}}"#, named(ToolKind::Function)),
            (r#"{"type":"custom","name":"f"}"#, named(ToolKind::Custom)),
            (
                r#"{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"f"}]}"#,
                allowed,
            ),
            (r#"{"type":"mcp","server_label":"x"}"#, ToolChoice::Builtin("mcp".into())),
        ] {
            assert_eq!(read("[]", choice).0.tool_choice, Some(expected), "{choice}");
        }
    }
}
