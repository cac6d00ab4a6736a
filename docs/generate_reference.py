"""Write docs/reference/*.md and the table in docs/events.md from the docstrings.

    python docs/generate_reference.py

The output is committed; a test compares it with the docstrings, so neither can drift from the other.
"""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).parent
NOTE = "<!-- written by docs/generate_reference.py from the docstrings: edit those -->\n"


class Page(NamedTuple):
    """One page of the reference: public names are given alone, others as "module:name"."""

    file: str
    title: str
    names: tuple[str, ...]


PAGES = (
    Page(
        "trainer.md",
        "Trainer",
        (
            "Trainer",
            "TrainerConfig",
            "StartSettings",
            "setting",
            "Summary",
            "Overview",
            "Interrupts",
            "treadle.engine.commands:Commands",
        ),
    ),
    Page(
        "hooks.md",
        "Hooks and sinks",
        (
            "Hook",
            "Order",
            "Record",
            "treadle.hooks.periodic:Periodic",
            "treadle.hooks.early_stopping:EarlyStopping",
            "treadle.hooks.examples:Examples",
            "treadle.sinks.base:Sink",
            "treadle.sinks.console:Console",
            "treadle.sinks.csv:CSV",
            "treadle.sinks.tensorboard:TensorBoard",
            "treadle.sinks.visdom:Visdom",
        ),
    ),
    Page(
        "objective.md",
        "Objective",
        ("Objective", "Losses", "treadle.engine.terms:Term", "treadle.gans.specs:register_spec"),
    ),
    Page(
        "optimization.md",
        "Learning rates, groups, averages",
        (
            "LearningRate",
            "treadle.engine.curves:parse_curve",
            "parameter_groups",
            "EMA",
            "Every",
            "Span",
            "Progress",
            "BadStepGuard",
        ),
    ),
    Page("rows.md", "Row edits", ("RowEdit",)),
    Page("checkpoints.md", "Checkpoints of any loop", ("capture", "restore", "State", "Checkpoints")),
    Page(
        "data.md",
        "Data",
        (
            "Feed",
            "TensorFeed",
            "DatasetFeed",
            "StreamFeed",
            "seed_everything",
            "Steps",
            "treadle.data.length:LengthBuckets",
            "treadle.data.length:pad_collate",
        ),
    ),
    Page(
        "runs.md",
        "Runs and weights",
        ("resume", "fork", "verify", "test", "translate", "try_out", "treadle.recipes.try_out:TryOut", "load_weights"),
    ),
    Page("sweeps.md", "Sweeps", ("sweep", "treadle.sweeps.trials:Sweep", "treadle.sweeps.trials:Trial")),
    Page(
        "studio.md",
        "Studio",
        (
            "treadle.studio.hook:Studio",
            "treadle.studio.client:StudioClient",
            "treadle.studio.address:Place",
            "treadle.reports.views:LiveView",
            "treadle.reports.views:Window",
            "treadle.reports.views:Option",
            "treadle.reports.views:Shapes",
            "treadle.reports.views:Sample",
        ),
    ),
    Page(
        "testing.md",
        "Testing",
        (
            "treadle.testing:check_resume",
            "treadle.testing:kill",
            "treadle.testing:capture",
            "treadle.testing:restore",
            "treadle.testing:Line",
            "treadle.testing:line_data",
        ),
    ),
    Page("errors.md", "Errors", ("TreadleError", "UsageError", "RunError", "BadStep", "StateError")),
)


def thing(name: str) -> Any:
    """The object that a page's entry names."""
    module, _, attribute = name.rpartition(":")
    return getattr(importlib.import_module(module or "treadle"), attribute)


def shown(name: str) -> str:
    """How a page's entry is imported: "treadle.Trainer", "treadle.hooks.periodic.Periodic"."""
    return name.replace(":", ".") if ":" in name else f"treadle.{name}"


# Docstrings to Markdown ---------------------------------------------------------------------------------------------

SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Example")


def markdown(docstring: str) -> str:
    """A docstring's text, with its sections as lists and code blocks."""
    parts = re.split(rf"(?m)^({'|'.join(SECTIONS)}):$\n", docstring)
    text = [parts[0].strip()]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        inside, after = _indented(body)
        text.append(f"{title}:")
        if title == "Example":
            text.append(f"```py\n{inside}\n```")
        elif title == "Returns":
            text[-1] = f"Returns: {inside}"
        else:
            text.append(_items(inside))
        if after:
            text.append(after)
    return "\n\n".join(part for part in text if part)


def _indented(body: str) -> tuple[str, str]:
    """The indented lines at the beginning, dedented, and what follows them."""
    lines = body.splitlines()
    end = next((i for i, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    return textwrap.dedent("\n".join(lines[:end])).strip(), "\n".join(lines[end:]).strip()


def _items(text: str) -> str:
    """`name: what` entries as a list; a line that is indented further goes on with its entry."""
    found: list[str] = []
    for line in text.splitlines():
        entry = re.match(r"(\w[\w*, ]*): (.*)", line)
        if entry:
            found.append(f"- `{entry[1]}`: {entry[2]}")
        elif found and line.startswith(" "):
            found[-1] += f" {line.strip()}"
        else:
            found.append(line)
    return "\n".join(found)


# Signatures ---------------------------------------------------------------------------------------------------------


def signature(function: Any, name: str) -> str:
    """`name(arguments) -> result`, as it is written in the source, without self."""
    made = inspect.signature(function)
    parts: list[str] = []
    star = False
    for parameter in made.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            star = True
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        prefix = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        part = f"{prefix}{parameter.name}" + _annotation(parameter.annotation, ": ")
        if parameter.default is not parameter.empty:
            part += (" = " if ":" in part else "=") + _default(parameter.default)
        parts.append(part)
        if parameter.kind is parameter.POSITIONAL_ONLY:
            parts.append("/")
    text = f"{name}({', '.join(parts)})"
    result = "" if inspect.isclass(function) else _annotation(made.return_annotation, " -> ")
    if len(text + result) > 110:
        text = f"{name}(\n    " + ",\n    ".join(parts) + ",\n)"
    return text + result


def _annotation(annotation: Any, prefix: str) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return prefix + (annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation)))


def _default(value: Any) -> str:
    return "..." if repr(value).startswith("<") else repr(value)


# Entries ------------------------------------------------------------------------------------------------------------


def entry(name: str) -> str:
    """The section of one name."""
    item = thing(name)
    short = name.rpartition(":")[2]
    text = [f"## {short}"]
    if ":" in name:
        text.append(f"`from {name.partition(':')[0]} import {short}`")
    if not inspect.isclass(item):
        text += [f"```py\n{signature(item, short)}\n```", markdown(inspect.getdoc(item) or "")]
        return "\n\n".join(text)
    built = any("__init__" in vars(base) for base in item.__mro__ if base.__module__.startswith("treadle"))
    if built and not is_dataclass(item):
        text.append(f"```py\n{signature(item, short)}\n```")
    text.append(markdown(inspect.getdoc(item) or ""))
    if is_dataclass(item):
        text.append(field_table(item))
    elif short == "Order":
        text.append(", ".join(f"`{member.name}` ({member.value})" for member in item) + ".")
    for method in members(item):
        text.append(method)
    return "\n\n".join(text)


def members(kind: type[Any]) -> list[str]:
    """The public methods and properties of a class in the order of the source, for a trainer those of its loop too.

    What a base class says is not said again. Events are left out of a trainer: docs/events.md has them.
    """
    from treadle.engine.events import EVENTS
    from treadle.engine.loop import Loop

    said = {name for base in kind.__mro__[1:] if base.__module__.startswith("treadle") for name in vars(base)}
    if issubclass(kind, Loop):
        said = set(EVENTS)
    found: dict[str, str] = {}
    for base in [kind, Loop] if issubclass(kind, Loop) else [kind]:
        for name, value in vars(base).items():
            if name.startswith("_") or name in found or name in said:
                continue
            function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            if isinstance(value, property):
                function = value.fget
                code = f"{name}{_annotation(inspect.signature(value.fget).return_annotation, ': ')}  # property"
            elif inspect.isfunction(function):
                code = signature(function, name)
            else:
                continue
            found[name] = f"### {name}\n\n```py\n{code}\n```\n\n{markdown(inspect.getdoc(function) or '')}"
    return list(found.values())


def field_table(kind: type[Any]) -> str:
    """The fields of a dataclass with type, default and docstring."""
    from treadle.config.groups import docstrings

    said = docstrings(kind)
    lines = (
        ["| field | type | default | |", "| --- | --- | --- | --- |"] if said else ["| field | type |", "| --- | --- |"]
    )
    for field in fields(kind):
        if field.name.startswith("_"):
            continue
        row = [f"`{field.name}`", f"`{field.type!s}`".replace("|", "\\|")]
        if said:
            row += ["" if field.default is MISSING else f"`{field.default!r}`", said.get(field.name, "")]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def event_table() -> str:
    """The events: what each gets besides the trainer, and when it fires, in the words of `Hook`."""
    from treadle.engine.events import EVENTS, Hook

    lines = ["| event | arguments | when |", "| --- | --- | --- |"]
    for event in EVENTS:
        arguments = list(inspect.signature(getattr(Hook, event)).parameters)[2:]
        said = " ".join((inspect.getdoc(getattr(Hook, event)) or "").split())
        lines.append(f"| `{event}` | {', '.join(f'`{name}`' for name in arguments)} | {said} |")
    return "\n".join(lines)


def first_line(item: Any) -> str:
    """The first sentence of a docstring."""
    return (inspect.getdoc(item) or "").split("\n")[0]


# Pages --------------------------------------------------------------------------------------------------------------


def pages() -> dict[Path, str]:
    """What the files should hold, by path."""
    index = [
        NOTE,
        "# Reference\n",
        "Everything is written from the docstrings; `help(treadle.Trainer)` says the same.\n",
    ]
    made: dict[Path, str] = {}
    for page in PAGES:
        body = "\n\n".join(entry(name) for name in page.names)
        made[DOCS / "reference" / page.file] = f"{NOTE}\n# {page.title}\n\n{body}\n"
        index.append(f"## [{page.title}]({page.file})\n")
        for name in page.names:
            anchor = name.rpartition(":")[2].lower()
            index.append(f"- [`{shown(name)}`]({page.file}#{anchor}): {first_line(thing(name))}")
        index.append("")
    made[DOCS / "reference" / "index.md"] = "\n".join(index).rstrip() + "\n"
    events = (DOCS / "events.md").read_text(encoding="utf-8")
    begin, end = "<!-- table of events: generated -->\n", "\n<!-- end of table -->"
    head, _, tail = events.partition(begin)
    made[DOCS / "events.md"] = head + begin + event_table() + end + tail.partition(end)[2]
    return made


def main() -> None:
    """Write the files that differ, and name them."""
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print("wrote", path.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
