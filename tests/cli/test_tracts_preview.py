"""`treadle tracts preview`: a batch as a file."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from treadle.cli.tracts_preview import run
from treadle.errors import UsageError
from treadle.tracts.files import read_streamlines

pytest.importorskip("nibabel")
registered = pytest.mark.skipif(
    "tracts" not in entry_points(group="treadle.recipes").names, reason="the recipe is not installed: pip install -e ."
)


@registered
def test_a_batch_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    changed = ["--set", "split=1", "batch_size=20", "subjects_per_batch=1", "--epoch", "2", "--batch", "3"]
    assert run(["tracts", "--out", "batch.trk", *changed]) == 0
    assert capsys.readouterr().out == "batch 3 of epoch 2: batch.trk\n"
    lines, _ = read_streamlines(Path("batch.trk"))
    assert len(lines) == 40
    assert run(["tracts", "--out", "batch.trk", "--set", "split=1", "batch_size=20", "--validation"]) == 0
    assert len(read_streamlines(Path("batch.trk"))[0]) == 20


@registered
def test_an_epoch_before_the_first_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--epoch -1: expected 0 or more"):
        run(["tracts", "--out", str(tmp_path / "b.trk"), "--epoch", "-1"])


def test_another_recipe_is_refused(tmp_path):
    with pytest.raises(UsageError, match="'image' does not train on streamlines"):
        run(["image", "--out", str(tmp_path / "b.trk")])
