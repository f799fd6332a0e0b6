#!/usr/bin/env python3
"""Makes the corpora of the fuzz targets of the translation vectors: tests/fuzz/corpus/<target>/<vector>."""
import base64
import json
import pathlib

HERE = pathlib.Path(__file__).parent
CLIENTS = ["openai", "openai-response", "claude", "gemini"]
TARGETS = dict(zip(CLIENTS, ["chat", "responses", "claude", "gemini"]))
UPSTREAMS = ["openai", "openai-response", "codex", "claude", "gemini", "antigravity"]


def seed(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def main():
    count = 0
    for path in sorted((HERE / "../vectors/open").glob("*.json")):
        vector = json.loads(path.read_text())
        name, source, to, given = vector["id"], vector["from"], vector["to"], vector["input"]
        # Answers have the request that they answer beside them.
        if vector["kind"] == "request" and source in TARGETS:
            body = json.dumps(given, ensure_ascii=False).encode()
            seed(TARGETS[source], name, body)
            seed("head", name, bytes([CLIENTS.index(source)]) + body)
        elif vector["kind"] in ("response", "stream") and source in UPSTREAMS and to in CLIENTS:
            text = "\n".join(given) + "\n" if isinstance(given, list) else json.dumps(given, ensure_ascii=False)
            pair = UPSTREAMS.index(source) * 4 + CLIENTS.index(to)
            seed("pair", name, bytes([pair, 7]) + text.encode())
            seed("sse", name, b"\x07" + text.encode())
        elif "input_base64" in vector:
            seed("event_stream", name, b"\x07" + base64.b64decode(vector["input_base64"]))
        else:
            continue
        count += 1
    print(count, "vectors became seeds")


if __name__ == "__main__":
    main()
