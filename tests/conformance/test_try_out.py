"""Every trainer that comes with Treadle passes a try-out, and leaves nothing behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from gauntlet_trainers import recipes, small_recipe

from treadle.recipes.try_out import try_recipe


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_tried_out(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe(name, tmp_path)
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(aside))
    monkeypatch.chdir(aside)
    tried = try_recipe(recipe)
    assert tried.holds, tried.differences[0]
    assert list(tried.seconds) == ["setup", "training", "resume", "validation", "examples", "end", "report", "test"]
    assert not list(aside.glob("treadle*")) and not (aside / "runs").exists(), "nothing is kept"
