"""The settings of a dataclass by the class that declares them, and what is written below each: for pages of help."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Group:
    """Settings that belong together, because one class declares them."""

    title: str
    """The first line of the class's docstring, else its name."""
    owner: type
    names: tuple[str, ...]


def groups(kind: type) -> list[Group]:
    """The groups of the dataclass `kind`, those of its bases first; a field belongs where it is declared first."""
    owners: dict[str, type] = {}
    for base in reversed(kind.__mro__):
        for name in vars(base).get("__dataclass_fields__", ()):
            owners.setdefault(name, base)
    members: dict[type, list[str]] = {}
    for field in dataclasses.fields(kind):
        if field.init:
            members.setdefault(owners[field.name], []).append(field.name)
    return [Group(_title(owner), owner, tuple(names)) for owner, names in members.items()]


@cache
def docstrings(kind: Any) -> Mapping[str, str]:
    """The string below each field of a dataclass or its bases, on one line; none where there is no source."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if "__dataclass_fields__" not in vars(base):
            continue
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError, ValueError):  # typed at a prompt, or made by a function
            continue
        for field, below in zip(getattr(tree, "body", ()), getattr(tree, "body", ())[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[ast.unparse(field.target)] = " ".join(str(below.value.value).split())
    return found


def _title(owner: type) -> str:
    """Its docstring's first line; the one that `dataclass` writes, a signature, is none."""
    line = (owner.__doc__ or "").strip().partition("\n")[0].removesuffix(".")
    return owner.__name__ if not line or line.startswith(f"{owner.__name__}(") else line
