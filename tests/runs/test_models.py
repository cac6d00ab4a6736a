"""The models of a run on disk: the best, the final one, and those of steps, without the trainer that made them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from treadle import EMA
from treadle.checkpoint.store import read_checkpoint
from treadle.errors import UsageError
from treadle.gans.pix2pix import Pix2PixTrainer
from treadle.runs.models import find_model, kept_models
from treadle.testing import Line, line_data

OLD = Path(__file__).parents[1] / "fixtures" / "runs_of_0.1.0"
DATA = {"data": line_data(8), "validation_data": line_data(4)}


class Scripted(Line):
    """Two steps an epoch; after the n-th it validates as the n-th value of `script`. One of its averages is seen."""

    script: tuple[float, ...] = (1, 3, 2, 2, 2)

    def setup(self) -> None:
        super().setup()
        self.twin = torch.nn.Linear(1, 1)
        self.wrapped = torch.nn.Sequential(self.twin)
        self.counter = torch.zeros(2)
        self.average = EMA(self.model, 0.5)
        self.watched = EMA(self.twin, 0.5, evaluate=False)
        self.seen: dict[int, float] = {}

    def step(self, batch: Any) -> Any:
        self.counter += 1
        return super().step(batch)

    def validation_step(self, batch: Any) -> Any:
        return {"score": self.script[self.progress.epoch - 1], "weight": self.model.weight.item()}

    def post_validation(self, metrics: Any) -> None:
        self.seen[self.progress.step] = self.model.weight.item()


def trained(path: Path, **settings: Any) -> Scripted:
    given = {"max_epochs": 4, "batch_size": 4, "monitor": "score", "monitor_mode": "max", "keep_checkpoints": 2}
    trainer = Scripted(**DATA, run_dir=path, **(given | settings))
    trainer.train()
    return trainer


def test_best_final_and_every_step_that_is_kept(tmp_path: Path) -> None:
    trainer = trained(tmp_path / "line")
    run = trainer.run.path
    assert list(kept_models(run)) == [4, 6, 8]
    best, final, middle = find_model(run), find_model(run, "final"), find_model(run, 6)
    assert (str(best), str(final), str(middle)) == (
        "best model by score, step 4",
        "final model, step 8",
        "model of step 6",
    )
    for found in (best, final, middle, find_model(run, "6")):
        assert found.of("model")["weight"].item() == trainer.seen[found.step], "the average, as it was validated"
    assert final.weights.keys() - {"counter"} == best.weights.keys()
    assert torch.equal(final.of("twin")["weight"], trainer.twin.weight), "an average that validation does not see"
    assert final.info["metrics"] == {"score": 2.0, "weight": trainer.seen[8]} and final.info["epoch"] == 4
    assert final.config(Scripted.Config).max_epochs == 4
    assert find_model(run, None, usual="final") == final


def test_a_step_that_is_not_kept_is_refused_with_those_that_are(tmp_path: Path) -> None:
    run = trained(tmp_path / "line").run.path
    with pytest.raises(UsageError, match=r"keeps no model of step 2: there are 4 \(best\), 6, 8 \(final\)$"):
        find_model(run, 2)
    short = trained(tmp_path / "short", max_epochs=2).run.path
    with pytest.raises(UsageError, match=r"keeps no model of step 1: there are 2, 4 \(best, final\)$"):
        find_model(short, 1)
    for wrong, near in (("fnal", "'best' or 'final'; did you mean 'final'"), (-1, "a step, 'best'"), (True, "a step")):
        with pytest.raises(UsageError, match=f"at is {wrong!r}: expected .*{near}"):
            find_model(run, wrong)
    with pytest.raises(UsageError, match="has no final model yet"):
        find_model(tmp_path, "final")


def test_final_is_the_newest_checkpoint_of_a_run_that_was_stopped(tmp_path: Path) -> None:
    trainer = trained(tmp_path / "line", save_every="3 steps", keep_checkpoints=3)
    run = trainer.run.path
    # As a kill leaves it: the best model is already that of a validation that will come again.
    for step in (6, 8):
        shutil.rmtree(run / "checkpoints" / f"step-{step:08d}")
    (run / "checkpoints" / "latest.json").write_text(json.dumps({"checkpoint": "step-00000003", "step": 3}))
    assert find_model(run).step == 4
    assert find_model(run, "final").step == 3


def test_where_nothing_is_best_it_is_the_final_one(tmp_path: Path) -> None:
    trainer = Line(data=line_data(8), batch_size=4, max_epochs=2, run_dir=tmp_path / "line")
    trainer.train()
    found = find_model(trainer.run.path, "best")
    assert str(found) == "final model, step 4 (nothing says which is best)"
    assert torch.equal(found.of("model")["weight"], trainer.model.weight)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run = trained(tmp_path / "line").run.path
    path = run / "checkpoints" / "step-00000008" / "state.json"
    path.write_text(path.read_text().replace("score", "scare"))
    with pytest.raises(UsageError, match=r"has no final model to be read: .*state\.json is damaged"):
        find_model(run, "final").of("model")


def test_weights_go_into_a_trainer_of_the_same_kind(tmp_path: Path) -> None:
    trainer = trained(tmp_path / "line")
    other = Scripted(**DATA, batch_size=4, max_epochs=1)
    find_model(trainer.run.path, 6).put_into(other.parts)
    with other.evaluating():
        assert other.model.weight.item() == trainer.seen[6]
    assert torch.equal(other.counter, torch.zeros(2)), "lone tensors that are no parameters are no weights"


def test_an_old_run_has_its_final_model_too() -> None:
    run = OLD / "pix2pix" / "v001"
    assert str(find_model(run)) == "best model by l1, step 5"
    final = find_model(run, "final")
    assert final.step == 7 and find_model(run, 3).step == 3
    state = read_checkpoint(run / "checkpoints" / "step-00000007")
    averaged = 0
    for name, weight in final.of("generator").items():
        seen = state.tensors.get(f"average/shadows/{name}")
        averaged += seen is not None
        assert torch.equal(weight, state.tensors[f"generator/state/{name}"] if seen is None else seen), name
    assert averaged == len(list(Pix2PixTrainer.load_model(run).parameters()))
    assert final.of("generator").keys() == find_model(run, "best").of("generator").keys()


def test_an_old_checkpoint_with_averages_of_twins_says_what_to_do(tmp_path: Path) -> None:
    state = read_checkpoint(trained(tmp_path / "line").run.path / "checkpoints" / "step-00000008")
    from treadle.checkpoint.evaluated import evaluated_weights

    del state.clock["averages"]
    with pytest.raises(Exception, match=r"whether 'average' is the average of model or of twin: resume the run"):
        evaluated_weights(state)


def test_a_trainer_says_which_model_it_shows(tmp_path: Path) -> None:
    settings = {"max_epochs": 4, "batch_size": 4, "monitor": "score", "monitor_mode": "max"}
    trainer = Scripted(**DATA, run_dir=tmp_path / "line", **settings)
    trainer.iterate()
    assert trainer.shown_model == "model of step 1"
    trainer.train()
    assert trainer.shown_model == "final model, step 8"
    trainer.load_best()
    assert trainer.shown_model == "best model by score, step 4"
    trainer.extend(max_epochs=5)
    trainer.iterate()
    assert trainer.shown_model == "model of step 9"
