"""A run resumed, forked, verified and tested from Python, with a trainer and data that no file can name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import treadle
from treadle.errors import StateError, UsageError
from treadle.runs.run import read_config, read_summary
from treadle.testing import Line, line_data

DATA = {"data": line_data(32), "validation_data": line_data(8)}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of a trainer in a program, of 20 steps with a checkpoint after every 5."""
    settings: dict[str, Any] = {"batch_size": 8, "save_every": "5 steps", "keep_checkpoints": 9}
    Line(**DATA, max_steps=20, run_dir=tmp_path / "line", **settings).train()
    return tmp_path / "line" / "v001"


def test_a_run_goes_on(run: Path) -> None:
    trainer = treadle.resume(run.parent, trainer=Line, **DATA, max_steps=25)
    assert type(trainer) is Line and trainer.progress.step == 20
    assert trainer.train().step == 25 and read_config(run)["config"]["max_steps"] == 25
    assert treadle.resume(run, trainer=Line, **DATA).ended, "there is nothing left to do"


def test_a_run_is_forked(run: Path, tmp_path: Path) -> None:
    trainer = treadle.fork(run, 10, trainer=Line, **DATA)
    assert trainer.run.path == run.with_name("v002") and trainer.progress.step == 10
    assert trainer.train().digest == read_summary(run)["digest"]
    other = treadle.fork(run, at=10, trainer=Line, **DATA, run_dir=tmp_path / "other", accumulate=2)
    assert other.run.path == tmp_path / "other" / "v001" and other.config.accumulate == 2
    assert other.train().digest != read_summary(run)["digest"]


def test_a_run_is_verified(run: Path) -> None:
    verdict = treadle.verify(run, trainer=Line, start=0, **DATA)
    assert verdict.holds and verdict.compared == [5, 10, 15, 20]
    assert treadle.verify(run, trainer=Line, **DATA).compared == [20]
    other = DATA | {"data": line_data(33)}
    assert "the data of 'feed' is not what it was" in treadle.verify(run, trainer=Line, **other).differences[0]


def test_the_best_model_is_tested(run: Path) -> None:
    best = read_summary(run)["best"]
    results = treadle.test(run, trainer=Line, data=DATA["validation_data"])
    assert results["loss"] == pytest.approx(best["value"], rel=1e-6) and results["step"] == best["step"]
    assert results["report"] == run / "test"
    assert json.loads((run / "test" / "metrics.json").read_text())["loss"] == results["loss"]
    assert treadle.test(run, trainer=Line, data=line_data(3), batch_size=1)["loss"] != results["loss"]


def test_a_shipped_recipe_needs_no_more_than_its_run(tmp_path: Path) -> None:
    from treadle.recipes.registry import load_recipe

    recipe = load_recipe("image").with_settings({"max_steps": 2, "batch_size": 64, "validate_every": None})
    with recipe.build(run_dir=tmp_path / "image") as trainer:
        trainer.iterate()
        trainer.save()
    assert treadle.resume(tmp_path / "image").train().step == 2
    assert treadle.verify(tmp_path / "image").holds and treadle.verify(tmp_path / "image", trainer="image").holds
    assert treadle.test(tmp_path / "image")["psnr"] > 0
    with pytest.raises(UsageError, match="data nowhere: no such file or directory"):
        treadle.test(tmp_path / "image", data="nowhere")
    with pytest.raises(UsageError, match="written by the trainer 'image', not by 'Line'"):
        treadle.verify(tmp_path / "image", trainer=Line)


def test_what_is_missing_is_named(run: Path) -> None:
    with pytest.raises(UsageError, match=r"'treadle\.testing:Line' is not in the registry, .* \(--trainer"):
        treadle.resume(run)
    with pytest.raises(UsageError, match="'lin' is unknown; known: "):
        treadle.resume(run, trainer="lin")
    with pytest.raises(UsageError, match="nothing to train on: give the trainer data="):
        treadle.verify(run, trainer=Line)
    with pytest.raises(UsageError, match="nothing to train on"):
        treadle.resume(run, trainer=Line)
    with pytest.raises(StateError, match=r"'validation_feed', the trainer has not: give the data that the run had"):
        treadle.resume(run, trainer=Line, data=DATA["data"])
    with pytest.raises(UsageError, match="at 'best': expected the step of a checkpoint, a whole number"):
        treadle.fork(run, "best", trainer=Line, **DATA)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no run "):
        treadle.resume(run.parent / "v002", trainer=Line, **DATA)
    with pytest.raises(UsageError, match="has no checkpoint at step 7; there are: 5, 10, 15, 20"):
        treadle.fork(run, 7, trainer=Line, **DATA)
    with pytest.raises(UsageError, match="max_step is not a setting of TrainerConfig; did you mean 'max_steps'"):
        treadle.resume(run, trainer=Line, **DATA, max_step=3)
    with pytest.raises(UsageError, match=r"a resume cannot change seed \(0 -> 4\)"):
        treadle.resume(run, trainer=Line, **DATA, seed=4)
    with pytest.raises(UsageError, match="Line has neither test nor validation data to test on"):
        treadle.test(run, trainer=Line)
