#!/usr/bin/env python3
"""Parses what the pair matrix made with the types of the official SDKs, strictly.

  sdk_types.py FILE     FILE: JSON lines of `CLIPROXY_MATRIX_OUT=FILE cargo test -p wire --test matrix`

Strict means: every required member is there, every value has the type that is declared (no coercion), every enum value
is one of the declared ones, and no member is unknown but those of EXTENSIONS. Run it with a Python that has openai,
anthropic and google-genai (tests/kit/install.sh). Exit code 1 when a line does not fit."""
import collections
import json
import sys
import warnings

import anthropic.types
import openai.types
import openai.types.chat
import openai.types.responses
import pydantic
from anthropic.types.shared import ErrorResponse
from google.genai import types as genai
from openai.types.shared import ErrorObject

# Members that clients know and the official types do not have: (type, member).
EXTENSIONS = {
    # What every reasoning model behind a Chat API calls its thinking.
    ("ChatCompletionMessage", "reasoning_content"),
    ("ChoiceDelta", "reasoning_content"),
    # How OpenRouter shows pictures.
    ("ChatCompletionMessage", "images"),
    ("ChoiceDelta", "images"),
    # The API repeats it like every member of the request; the type has not caught up.
    ("Response", "store"),
    # OpenAI streams citations so, its types only have them in whole answers.
    ("ChoiceDelta", "annotations"),
    # Scripts of operators read it here, also where only the response inside has it.
    ("ResponseCompletedEvent", "usage"),
    ("ResponseIncompleteEvent", "usage"),
    ("ResponseFailedEvent", "usage"),
}


class ChatError(pydantic.BaseModel):
    error: ErrorObject


class GoogleStatus(pydantic.BaseModel):
    """`error` as google.genai.errors.APIError reads it."""

    code: int
    message: str
    status: str


class GoogleError(pydantic.BaseModel):
    error: GoogleStatus


Union = pydantic.TypeAdapter
TYPES = {
    ("openai", "body"): Union(openai.types.chat.ChatCompletion),
    ("openai", "event"): Union(openai.types.chat.ChatCompletionChunk),
    ("openai", "error"): Union(ChatError),
    ("openai-completions", "body"): Union(openai.types.Completion),
    ("openai-completions", "event"): Union(openai.types.Completion),
    ("openai-completions", "error"): Union(ChatError),
    ("openai-images", "body"): Union(openai.types.ImagesResponse),
    ("openai-images", "event"): Union(openai.types.ImageGenStreamEvent),
    ("openai-images", "error"): Union(ChatError),
    ("openai-response", "body"): Union(openai.types.responses.Response),
    ("openai-response", "event"): Union(openai.types.responses.ResponseStreamEvent),
    ("openai-response", "error"): Union(ChatError),
    ("claude", "body"): Union(anthropic.types.Message),
    ("claude", "event"): Union(anthropic.types.RawMessageStreamEvent),
    ("claude", "error"): Union(ErrorResponse),
    ("gemini", "body"): Union(genai.GenerateContentResponse),
    ("gemini", "event"): Union(genai.GenerateContentResponse),
    ("gemini", "error"): Union(GoogleError),
}


def is_error(value):
    """Whether a value is an error body. (Whole responses have a null `error`; the `error` event of Responses is an event.)"""
    return isinstance(value.get("error"), dict) and value.get("object") != "response"


def unknown(value, path=""):
    """Members of a parsed value that its type does not declare."""
    if isinstance(value, pydantic.BaseModel):
        kind = type(value).__name__
        for member in value.model_extra or {}:
            if (kind, member) not in EXTENSIONS:
                yield f"{path}.{member}: {kind} does not have it"
        for member in type(value).model_fields:
            yield from unknown(getattr(value, member), f"{path}.{member}")
    elif isinstance(value, (list, tuple)):
        for at, element in enumerate(value):
            yield from unknown(element, f"{path}[{at}]")
    elif isinstance(value, dict):
        for key, element in value.items():
            yield from unknown(element, f"{path}.{key}")


def problems(line):
    value = line["value"]
    if line["format"] == "openai-completions" and line["kind"] == "event":
        # The API says null until the end; the type, which is that of whole answers, has no null.
        for choice in value["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
    if line["format"] == "gemini-cli":
        # The same in an envelope, which no SDK has types for.
        value = value.get("response", value)
    kind = "error" if is_error(value) else line["kind"]
    adapter = TYPES[line["format"].removesuffix("-cli"), kind]
    try:
        with warnings.catch_warnings():
            # google-genai makes a member of an unknown enum value, and warns.
            warnings.simplefilter("error")
            parsed = adapter.validate_json(json.dumps(value), strict=True)
    except pydantic.ValidationError as error:
        kind = value.get("type", "")
        found = [e for e in error.errors() if not kind or e["type"] != "literal_error" or e["loc"][-1] != "type"]
        return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found[:4]]
    except Warning as warning:
        return [str(warning)]
    return list(unknown(parsed))


def main():
    counts, failed = collections.Counter(), collections.defaultdict(list)
    with open(sys.argv[1], encoding="utf-8") as lines:
        for text in lines:
            line = json.loads(text)
            counts[line["format"], line["kind"]] += 1
            for problem in problems(line):
                failed[f"{line['format']} {line['kind']}: {problem}"].append((line["cell"], text))
    for problem, where in sorted(failed.items()):
        print(f"{problem}\n    {len(where)} times, first in {where[0][0]}\n    {where[0][1].strip()[:600]}")
    print(", ".join(f"{count} {kind} of {name}" for (name, kind), count in sorted(counts.items())))
    wanted = {(name, kind) for name, kind in TYPES if kind != "error"}
    if missing := wanted - set(counts):
        print("nothing to parse for", sorted(missing))
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main())
