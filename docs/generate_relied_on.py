"""Write docs/what_users_rely_on.md from the tests in tests/conformance/reliance.

    python docs/generate_relied_on.py

Each test there is a line of the page: its docstring says what is relied on, `asserted_by` whose tests ask the same, a
name that begins with `test_refuses_` that it is refused, with the error that the test expects. The page is committed,
and a test compares it with the tests, so neither can drift from the other.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent
TESTS = DOCS.parent / "tests" / "conformance" / "reliance"
PAGE = DOCS / "what_users_rely_on.md"

ORDER = (
    *("loop_bounds", "events", "validation", "accumulation", "clipping", "amp", "ema", "optimizers", "schedulers"),
    *("modules", "attributes", "early_stopping", "logging", "data", "interrupts", "nesting", "resume"),
)
"""The groups, in the order of the page."""

HEAD = """\
<!-- written by docs/generate_relied_on.py from tests/conformance/reliance: edit those -->
# What users of trainers rely on

What people who come from other trainers take for granted, with a test for each line: {lines} lines. Of these {refused}
say what is refused instead, when, and with which words. Beside a line stand tests of other trainers that ask the same
of them. Ours are in [tests/conformance/reliance](../tests/conformance/reliance).

"""


class Line(NamedTuple):
    """A line of the page: a test."""

    test: str
    promise: str
    also: tuple[str, ...]
    """Tests of other trainers, "Keras test_early_stopping"."""
    refusal: str
    """The error that is expected, for what is refused; else empty."""


class Group(NamedTuple):
    """A file of tests."""

    name: str
    about: str
    lines: list[Line]


def groups() -> Iterator[Group]:
    """The groups with their lines, in the order of the page."""
    for name in ORDER:
        tree = ast.parse((TESTS / f"test_{name}.py").read_text(encoding="utf-8"))
        tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
        yield Group(name, ast.get_docstring(tree) or "", [_line(test) for test in tests])


def _line(test: ast.FunctionDef) -> Line:
    also = [
        argument.value
        for mark in test.decorator_list
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "asserted_by"
        for argument in mark.args
        if isinstance(argument, ast.Constant)
    ]
    refusal = _refusal(test) if test.name.startswith("test_refuses_") else ""
    return Line(test.name, ast.get_docstring(test) or "", tuple(map(str, also)), refusal)


def _refusal(test: ast.FunctionDef) -> str:
    """The first error that a test expects, with the words that it looks for."""
    for node in ast.walk(test):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.raises":
            error = node.args[0].elts[0] if isinstance(node.args[0], ast.Tuple) else node.args[0]
            for keyword in node.keywords:
                if keyword.arg == "match" and isinstance(keyword.value, ast.Constant):
                    return f"{ast.unparse(error)}: {_readable(str(keyword.value.value))}"
    return ""


def _readable(pattern: str) -> str:
    """A regular expression as the text that it stands for, roughly."""
    text = re.sub(r"\.\*|\\d\+|\(([^()|]*)\|[^()]*\)", lambda found: found[1] or "…", pattern)
    return re.sub(r"\\(.)", r"\1", text.partition("|")[0]).strip()


def page() -> str:
    """The text of the page."""
    found = list(groups())
    lines = [line for group in found for line in group.lines]
    parts = [HEAD.format(lines=len(lines), refused=sum(bool(line.refusal) for line in lines))]
    for group in found:
        title, _, about = group.about.partition(": ")
        parts.append(f"## {title}\n\n{about[:1].upper()}{about[1:]}\n\n| relied on | asked by |\n| --- | --- |\n")
        for line in group.lines:
            how = f" **Refused:** `{line.refusal}`" if line.refusal else ""
            parts.append(f"| {_cell(line.promise + how)} | {_cell(', '.join(line.also))} |\n")
        parts.append("\n")
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
