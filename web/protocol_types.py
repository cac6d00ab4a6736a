"""Writes web/src/protocol.ts, the page's types of every message, from src/treadle/studio/protocol.

python web/protocol_types.py            write it
python web/protocol_types.py --check    exit 1 where it is not what it should be
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import msgspec

from treadle.studio import protocol

FILE = Path(__file__).parent / "src" / "protocol.ts"
HEAD = """\
// Made by web/protocol_types.py from src/treadle/studio/protocol: change it there. A test holds the two equal.

"""


def typescript() -> str:
    """The whole file."""
    unions = {name: get_args(getattr(protocol, name)) for name in ("Requests", "FromClient", "FromStudio", "Binary")}
    structs = dict.fromkeys(struct for members in unions.values() for struct in members)
    (_, definitions) = msgspec.json.schema_components(list(structs), ref_template="{name}")
    said_by_us = {struct.__name__ for struct in unions["FromClient"]} | {"Change"}
    text = HEAD + f"export const VERSION = {protocol.VERSION};\n"
    for name, schema in definitions.items():
        text += interface(name, schema, optional=name in said_by_us)
    for name, members in unions.items():
        text += f"\nexport type {name} =\n" + "\n".join(f"  | {part}" for part in parts(name, members, unions)) + ";\n"
    return text


def parts(name: str, members: tuple[type, ...], unions: dict[str, tuple[type, ...]]) -> list[str]:
    """What the union `name` is made of: another union stands for its members where it has all of them."""
    for other, within in unions.items():
        if other != name and set(within) < set(members):
            rest = [struct.__name__ for struct in members if struct not in within]
            return [*rest, other]
    return [struct.__name__ for struct in members]


def interface(name: str, schema: dict[str, Any], *, optional: bool) -> str:
    """One message. What the studio says has all of its fields; what the page says may leave out those with defaults."""
    lines = [*comment(schema.get("description", ""), ""), f"export interface {name} {{"]
    for key, value in schema["properties"].items():
        left_out = optional and key not in schema.get("required", []) and key != "type"
        lines += [*comment(value.get("description", ""), "  "), f"  {key}{'?' if left_out else ''}: {type_of(value)};"]
    return "\n" + "\n".join([*lines, "}"]) + "\n"


def comment(text: str, indent: str) -> list[str]:
    """A description as a comment of TypeScript."""
    lines = [line.strip() for line in text.replace("*/", "* /").strip().splitlines()]
    if not lines:
        return []
    lines[0], lines[1:] = f"{indent}/** {lines[0]}", [f"{indent} * {line}".rstrip() for line in lines[1:]]
    return [*lines[:-1], f"{lines[-1]} */"]


def type_of(schema: dict[str, Any]) -> str:
    """The type of one value."""
    if "$ref" in schema:
        return str(schema["$ref"])
    if "enum" in schema:
        return " | ".join(quoted(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(type_of(one) for one in schema["anyOf"]))
    match schema.get("type"):
        case "integer" | "number":
            return "number"
        case "string":
            return "string"
        case "boolean":
            return "boolean"
        case "null":
            return "null"
        case "array":
            inner = type_of(schema.get("items", {}))
            return f"({inner})[]" if " " in inner else f"{inner}[]"
        case "object":
            inner = schema.get("additionalProperties")
            return f"Record<string, {type_of(inner) if isinstance(inner, dict) else 'unknown'}>"
    return "unknown"


def quoted(value: Any) -> str:
    """A constant, written as TypeScript does."""
    return msgspec.json.encode(value).decode()


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if FILE.read_text() == typescript() else f"{FILE}: not what the protocol says; run {sys.argv[0]}")
    FILE.write_text(typescript())
