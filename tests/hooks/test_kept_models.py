"""What is used after training, kept at each validation: how many, which, through kills, rewinds and forks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import treadle
from treadle.errors import UsageError
from treadle.hooks import KeptModels
from treadle.hooks.kept_models import KeptUnvalidated
from treadle.runs import best as best_files
from treadle.runs.models import find_model, kept_at_validations
from treadle.testing import Line, kill, line_data

DATA = {"data": line_data(8), "validation_data": line_data(4)}


class Two(Line):
    """Two steps an epoch, and two models of which one is kept."""

    keep = 4

    def setup(self) -> None:
        super().setup()
        self.other = torch.nn.Linear(1, 1)
        self.add_hook(KeptModels(self.keep, ("model",)))
        self.seen: dict[int, float] = {}

    def post_validation(self, metrics: Any) -> None:
        self.seen[self.progress.step] = self.model.weight.item()


def make(run_dir: Path | None, epochs: int = 11, **settings: Any) -> Two:
    return Two(**DATA, batch_size=4, max_epochs=epochs, run_dir=run_dir, **settings)


def steps(run: Path) -> list[int]:
    found = [int(path.name[5:]) for path in kept_at_validations(run)]
    assert sorted(path.name for path in (run / "models").iterdir()) == [f"step-{step:08d}" for step in found]
    return found


@pytest.mark.parametrize(
    ("epochs", "expected"), [(4, [2, 4, 6, 8]), (5, [4, 8, 10]), (8, [4, 8, 12, 16]), (11, [8, 16, 22])]
)
def test_those_that_are_kept_are_spread_over_the_run(tmp_path: Path, epochs: int, expected: list[int]) -> None:
    trainer = make(tmp_path / "line", epochs)
    trainer.train()
    assert steps(trainer.run.path) == expected
    for step in expected:
        found = find_model(trainer.run.path, step)
        assert found.of("model")["weight"].item() == trainer.seen[step]
    lone = kept_at_validations(trainer.run.path)[0]
    assert sorted(path.name for path in lone.iterdir()) == ["config.yaml", "metrics.json", "weights.safetensors"]
    assert set(best_files.read_at(lone).weights) == {"model.weight", "model.bias"}
    assert best_files.read_at(lone).info["metrics"].keys() == {"loss"}


def test_a_model_that_was_kept_goes_into_a_trainer_beside_what_that_has(tmp_path: Path) -> None:
    trainer = make(tmp_path / "line", 4, keep_checkpoints=1, save_every=None)
    trainer.train()
    other = make(None)
    before = other.other.weight.item()
    find_model(trainer.run.path, 4).put_into(other.parts)
    assert (other.model.weight.item(), other.other.weight.item()) == (trainer.seen[4], before)


def test_a_rewind_gives_up_what_came_later(tmp_path: Path) -> None:
    trainer = make(tmp_path / "line", 4, save_every="1 epoch", keep_checkpoints=9)
    trainer.train()
    trainer.rewind(4)
    assert steps(trainer.run.path) == [2, 4]
    trainer.train()
    assert steps(trainer.run.path) == [2, 4, 6, 8]


def test_a_kill_leaves_the_same_as_no_kill(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", save_every="5 steps")
    whole.train()
    trainer = make(tmp_path / "killed", save_every="5 steps")
    for _ in range(9):
        trainer.iterate()
    run = trainer.run.path
    kill(trainer)
    (run / "models" / ".step-00000010.new").mkdir()
    again = make(run, save_every="5 steps", resume=True)
    assert again.progress.step == 5 and steps(run) == [2, 4], "what came after the checkpoint will come again"
    again.train()
    assert steps(run) == steps(whole.run.path)
    for first, second in zip(kept_at_validations(run), kept_at_validations(whole.run.path), strict=True):
        assert (first / "weights.safetensors").read_bytes() == (second / "weights.safetensors").read_bytes()
    assert again.digest() == whole.digest()


def test_it_is_no_part_of_the_digest_and_a_full_disk_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = Line(**DATA, batch_size=4, max_epochs=2)
    bare.train()

    class One(Line):
        def setup(self) -> None:
            super().setup()
            self.add_hook(KeptModels(3, ("model",)))

    from treadle.runs import models

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    trainer = One(**DATA, batch_size=4, max_epochs=2, run_dir=tmp_path / "line")
    monkeypatch.setattr(models, "write_model", full)
    assert trainer.train().status == "finished"
    assert "KeptModels.post_validation failed" in capsys.readouterr().err
    assert trainer.model.weight.item() == bare.model.weight.item()


def test_without_validation_data_it_is_every_so_often(tmp_path: Path) -> None:
    class Alone(Line):
        def setup(self) -> None:
            super().setup()
            self.average = treadle.EMA(self.model, 0.5)
            self.add_hook(KeptUnvalidated(9, ("model",), "3 steps"))

    trainer = Alone(data=DATA["data"], batch_size=4, max_epochs=4, run_dir=tmp_path / "line")
    while trainer.progress.step < 6:
        trainer.iterate()
    assert steps(trainer.run.path) == [3, 6]
    averaged = trainer.average.state_dict()["shadows"]["weight"].item()
    assert find_model(trainer.run.path, 6).of("model")["weight"].item() == averaged != trainer.model.weight.item()


def test_one_is_the_least() -> None:
    with pytest.raises(UsageError, match="keep is 0: expected at least 1"):
        KeptModels(0, ("model",))
