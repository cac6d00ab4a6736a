"""The list of recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_recipes_have_a_line_each(treadle: Any, line: None) -> None:
    assert treadle("recipes") == 0
    rows = {row.split()[0]: row for row in treadle.out.splitlines() if row.strip()}
    assert "Fits a line." in rows["line"] and "line-pack" in rows["line"]
    assert "treadle" in rows["image"]


def test_a_broken_recipe_is_listed_with_its_reason(treadle: Any, site: Path, line: None, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    entry_points = site / "line_pack-1.0.dist-info" / "entry_points.txt"
    entry_points.write_text(entry_points.read_text() + "broken = line_pack:Nothing\n")
    assert treadle("recipes") == 1
    assert "Fits a line." in treadle.out and "trainer 'broken' (line_pack:Nothing) cannot be imported" in treadle.out


def test_stray_arguments_are_refused(treadle: Any) -> None:
    assert treadle("recipes", "--hlep") == 2
    assert treadle.err == "treadle: treadle recipes: unknown argument '--hlep'; did you mean '--help'?\n"
