"""What the pages on splats name is there, under that name; the strategy that they show is the example's."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from importlib.resources import files
from pathlib import Path

import yaml

from treadle.export.exporter import Exporter
from treadle.splats.settings import TERMS, SplatsConfig
from treadle.splats.trainer import SplatsTrainer

ROOT = Path(__file__).parents[2]
LONGEST = 40
"""Lines that a strategy of one's own is promised to take at most."""


def section(page: str, heading: str) -> str:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def first_column(text: str) -> list[str]:
    """The `names` in the first cell of each row of the tables in a text."""
    rows = re.findall(r"^\| (`.*?) \|", text, re.M)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_settings_and_loss_terms_exist() -> None:
    named = first_column(section("splats.md", "Settings"))
    assert {"degree", "cap", "pull", "needles"} <= set(named)
    assert set(named) <= {field.name for field in fields(SplatsConfig)} | set(TERMS)
    assert set(TERMS) <= set(named)


def test_the_defaults_are_those_of_the_settings() -> None:
    rows = re.findall(r"^\| `(.*?) \| ([^|]+) \|", section("splats.md", "Settings"), re.M)
    shown = {name: value for name, value in rows if re.fullmatch(r"\w+`", name) and re.fullmatch(r"[\d.]+%?", value)}
    assert {"degree`", "degree_every`", "cap`"} <= set(shown)
    config = SplatsConfig()
    for name, value in shown.items():
        assert str(getattr(config, name.rstrip("`"), None)) in (value, "None"), name


def test_recipes_and_formats_are_all_there() -> None:
    shipped = {}
    for file in files("treadle.recipes").iterdir():
        if file.name.endswith(".yaml"):
            shipped[file.name.removesuffix(".yaml")] = yaml.safe_load(file.read_text(encoding="utf-8"))["trainer"]
    assert set(first_column(section("splats.md", "The recipes"))) == {n for n, t in shipped.items() if t == "splats"}
    formats: dict[str, Exporter] = SplatsTrainer.exporters()
    exporting = section("splats.md", "Exporting")
    assert set(re.findall(r"^\| `treadle export RUN --(\w+)", exporting, re.M)) == set(formats)
    options = {option.name for exporter in formats.values() for option in exporter.options}
    assert set(re.findall(r"--([a-z][a-z-]*)", exporting)) <= options | set(formats) | {"out"}
    assert options - set(re.findall(r"--([a-z][a-z-]*)", exporting)) <= {"fps"}


def test_the_strategy_of_the_guide_is_that_of_the_example_and_short() -> None:
    page = (ROOT / "docs" / "write_your_own_densification.md").read_text(encoding="utf-8")
    example = (ROOT / "examples" / "own_densification.py").read_text(encoding="utf-8")
    shown = next(block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "class SplitTheBusiest" in block)
    classes = [
        next(node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == "SplitTheBusiest")
        for text in (shown, example)
    ]
    for node in classes:
        lines = (node.end_lineno or 0) - min(line.lineno for line in node.decorator_list) + 1
        assert lines <= LONGEST
        node.body = [part for part in node.body if not isinstance(part, ast.Expr)]  # the docstring
    assert ast.dump(classes[0]) == ast.dump(classes[1])
