"""Write docs/studio_protocol.md and docs/studio_protocol.json from src/treadle/studio/protocol.

    python docs/generate_protocol.py

The output is committed; a test compares it with the protocol, so neither can drift from the other.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import msgspec

from treadle.studio import protocol
from treadle.studio.protocol import Binary, Command, Event, FromClient, FromStudio, Request
from treadle.studio.serving import guard, server, session

DOCS = Path(__file__).parent
NOTE = "<!-- written by docs/generate_protocol.py from src/treadle/studio/protocol: edit that -->\n"
PARTS = ("base", "driving", "looking", "told")
"""The files that messages are in, in their order."""
SECTION = re.compile(r"^# (.+?) -{5,}$")

KIB, MEGABYTES = server.LONGEST_MESSAGE // 1024, session.MOST_HELD / 1e6
INTRODUCTION = f"""\
# The studio's protocol

Version {protocol.VERSION}. What a page, or any other program, and a studio tell one another. In Python all of
it is `treadle.studio.client.StudioClient`; this page is for whoever writes another client, and
`studio_protocol.json` beside it is the same as a JSON schema (`from_client`, `from_studio`, `binary`).

## Getting in

The studio prints an address such as `http://127.0.0.1:43211/#token=...`; there is a second token for those who
may only look. Every request must have a Host of the studio's list (its own address, or what `--studio-origin`
names), one value of each of Host, Origin, Authorization, and no query.

A **page** hands the token over once: `POST login` with `{{"token": "..."}}` as `application/json`. The answer
is 204 and a cookie that scripts cannot read, named by port and instance. From then on it needs that cookie and
an Origin of the list; `POST logout` ends the login, and its connections. A **program** sends `Authorization:
Bearer <token>` each time, and needs neither. After {guard.FAILURES} wrong tokens within
{guard.FAILURE_SECONDS:.0f} s nobody is let in (429) until some of them are past.

## The WebSocket

It is at `socket`, beside the page, without compression; who offers subprotocols must offer
`{guard.SUBPROTOCOL}`. A text message is JSON with a `type`. A binary one is a header of JSON, a newline, and
raw bytes. Messages of a client are at most {KIB} KiB; more than {server.MESSAGES_PER_SECOND:.0f} a second wait.
It begins with `hello`, within {server.HELLO_SECONDS:.0f} s, which is answered by `welcome`. All else that a
client sends is `drawn` or a request, with an `id` of the client's, rising. Each request has exactly one answer
of that `id`: an `answer`, a binary message, or a `refusal`. What is no message of this page is refused, with
`id` 0 where it has none that can be read, and never reaches the run.

**Once.** Requests that need control, `takecontrol` and `release` are obeyed once for each client and id. A
client that was cut off says `hello` with the same `client` and sends again what was not answered: what was
obeyed is not obeyed again, its answer is sent again. The last {session.ANSWERS_KEPT} answers are kept; older
ids are refused.

**Control.** One client holds it. The first that commands takes it; another is refused until it says
`takecontrol`, which all are told. A holder that is gone loses it to the next that commands. With the token for
looking there is no control.

**Events** are numbered (`seq`). A client that comes back says in `hello` what it has `seen`, and is told what
it missed. Where that is no longer kept, or the studio was started anew, `welcome` has `fresh` true: what
follows is how all stands. Of `state`, `states` and `inforce` only the newest is sent, with the number of the
last numbered event.

**Frames.** At most {session.FRAMES_UNDER_WAY} are under way to a client that it has not told to have `drawn`;
of each pane only the newest waits. A hidden page says nothing, and gets none.

**Slow clients.** One for which more than {MEGABYTES} MB wait is sent away, and comes back for what it missed.
One that has read nothing for {session.STUCK_SECONDS:.0f} s is cut off.

| closed with | because | come again |
|---|---|---|
| {session.LOGGED_OUT} | not logged in, or no longer | no: log in first |
| 1009 | a message was too long | yes |
| {session.BEGUN_ANEW} | the studio shows something else now | yes |
| {session.OTHER_VERSION} | it speaks another version | no |
| {session.REPLACED} | the same client has connected again | no |
| {session.TOO_SLOW} | too much waited for it | yes |
| {session.UNINTELLIGIBLE} | no hello, or not understood {server.NONSENSE} times | yes |
"""


def page() -> str:
    """The text of docs/studio_protocol.md."""
    files = [Path(protocol.__file__).with_name(f"{name}.py") for name in PARTS]
    source = "\n\n".join(path.read_text(encoding="utf-8") for path in files)
    titles = [(n, found[1]) for n, line in enumerate(source.splitlines(), 1) if (found := SECTION.match(line))]
    parts = [NOTE, INTRODUCTION]
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        while titles and titles[0][0] < node.lineno:
            parts.append(f"## {titles.pop(0)[1]}\n")
        kind: Any = getattr(protocol, node.name)
        if kind in (protocol.Message, Request, Command, Event):
            continue
        parts.append(_message(kind, node))
    return "\n".join(parts)


def _message(kind: Any, node: ast.ClassDef) -> str:
    """What is said of one message, or of one struct within a message."""
    tag = kind.__struct_config__.tag
    title = f"### `{tag}`" if tag else f"### {node.name}, within a message"
    needs = " *Needs control.*" if issubclass(kind, Command) else ""
    lines = [title, ""]
    text = " ".join((ast.get_docstring(node) or "").split())
    if text or needs:
        lines += [*textwrap.wrap((_code(text) + needs).strip(), 120), ""]
    said = _meanings(node)
    fields = [field for field in msgspec.structs.fields(kind) if field.encode_name not in ("id", "seq")]
    if fields:
        lines += ["| field | type | default | |", "|---|---|---|---|"]
    for field in fields:
        default = "" if field.required else f"`{_default(field)}`"
        lines.append(f"| `{field.encode_name}` | {_type(field.type)} | {default} | {said.get(field.name, '')} |")
    return "\n".join([*lines, ""] if fields else lines)


def _meanings(node: ast.ClassDef) -> dict[str, str]:
    """The text behind each field."""
    found, last = {}, None
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            last = statement.target.id
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and last is not None:
            found[last] = _code(" ".join(str(statement.value.value).split())).replace("|", "\\|")
    return found


def _code(text: str) -> str:
    """Names of classes as the types that are sent."""
    kinds = {each.__name__: each.__struct_config__.tag for each in vars(protocol).values()
             if isinstance(each, type) and issubclass(each, msgspec.Struct) and each.__struct_config__.tag}  # fmt: skip
    return re.sub(r"`(\w+)`", lambda found: f"`{kinds.get(found[1], found[1])}`", text)


def _default(field: Any) -> str:
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return json.dumps(value)


def _type(kind: Any) -> str:
    """A field's type in words: "integer, 1 to 1000000000"."""
    schema = msgspec.json.schema(kind)
    return _words(schema, schema.get("$defs", {}))


def _words(schema: dict[str, Any], known: dict[str, Any]) -> str:
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_words(each, known) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    low, high = schema.get("minimum"), schema.get("maximum")
    length = schema.get("minLength", schema.get("minItems")), schema.get("maxLength", schema.get("maxItems"))
    match schema.get("type"):
        case "array":
            return f"list of {_words(schema.get('items', {}), known)}{_bounds(*length)}"
        case "object":
            return "object"
        case None:
            return "any"
        case "string" if "pattern" in schema:
            return f"string `{schema['pattern']}`"
        case "string":
            return f"string{_bounds(*length)}"
        case other:
            return f"{other}{_bounds(low, high)}"


def _bounds(low: Any, high: Any) -> str:
    high = "2^53 - 1" if high == 2**53 - 1 else high
    if low is None and high is None:
        return ""
    if low is None:
        return f", at most {high}"
    return f", {low} or more" if high is None else f", {low}" if low == high else f", {low} to {high}"


def schema() -> str:
    """The text of docs/studio_protocol.json."""
    (client, studio, binary), parts = msgspec.json.schema_components(
        (FromClient, FromStudio, Binary), ref_template="#/$defs/{name}"
    )
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Treadle's studio, version {protocol.VERSION}",
        "$defs": {"from_client": client, "from_studio": studio, "binary": binary, **parts},
    }
    return json.dumps(whole, indent=1, sort_keys=True) + "\n"


FILES = {"studio_protocol.md": page, "studio_protocol.json": schema}

if __name__ == "__main__":
    for name, text in FILES.items():
        (DOCS / name).write_text(text(), encoding="utf-8")
        print(DOCS / name)
