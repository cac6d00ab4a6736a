"""The best model: which weights are kept, where, and how they come back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from treadle import EMA, Trainer
from treadle.engine.weights import put_weights, weights_of
from treadle.errors import StateError, UsageError
from treadle.hooks import BestModel, load_best
from treadle.runs import best as best_files
from treadle.runs.best import read_best
from treadle.testing import Line, capture, line_data, restore

NAN = float("nan")


def weights_by_validation(trainer: Any) -> list[torch.Tensor]:
    """Train, and return the model's weight at each validation."""
    seen: list[torch.Tensor] = []

    class See(BestModel):
        def post_validation(self, trainer: Any, metrics: Any) -> None:
            super().post_validation(trainer, metrics)
            seen.append(trainer.model.weight.detach().clone())

    trainer.add_hook(See())
    trainer.train()
    return seen


@pytest.mark.parametrize(
    ("script", "mode", "expected"),
    [
        ([5, 3, 4, 3], "min", 1),
        ([5, 3, 4, 6, 6], "max", 3),
        ([NAN, 7, NAN, 8], "min", 1),
        ([NAN, NAN, NAN, 8], "min", 3),
        ([float("inf"), 5, 5, 5], "min", 1),
    ],
)
@pytest.mark.parametrize("on_disk", [True, False])
def test_keeps_the_weights_of_the_best_validation(
    scripted: Callable[..., Any], tmp_path: Path, script: list[float], mode: str, expected: int, on_disk: bool
) -> None:
    settings: dict[str, Any] = {"run_dir": tmp_path / "line"} if on_disk else {}
    trainer = scripted(script, monitor_mode=mode, **settings)
    seen = weights_by_validation(trainer)
    assert not torch.equal(trainer.model.weight, seen[expected])
    info = load_best(trainer)
    assert torch.equal(trainer.model.weight, seen[expected])
    assert (info["step"], info["epoch"], info["value"]) == (4 * (expected + 1), expected + 1, script[expected])
    assert trainer.summary().best == info == trainer.best


def test_without_a_finite_value_nothing_is_best(scripted: Callable[..., Any]) -> None:
    trainer = scripted([NAN], max_epochs=2)
    trainer.train()
    assert trainer.best is None
    with pytest.raises(UsageError, match="there is no best model yet"):
        load_best(trainer)


def test_files_are_loadable_without_the_trainer(scripted: Callable[..., Any], tmp_path: Path) -> None:
    trainer = scripted([5, 3, 4], run_dir=tmp_path / "line", max_epochs=3)
    trainer.train()
    directory = trainer.run.path / "best_model"
    assert sorted(p.name for p in directory.iterdir()) == ["config.yaml", "metrics.json", "weights.safetensors"]
    assert (directory / "config.yaml").read_bytes() == (trainer.run.path / "config.yaml").read_bytes()
    info = json.loads((directory / "metrics.json").read_text())
    assert info == {"monitor": "loss", "mode": "min", "value": 3.0, "step": 8, "epoch": 2, "metrics": {"loss": 3.0}}
    best = read_best(trainer.run.path)
    assert sorted(best.weights) == ["model.bias", "model.weight"]
    model = torch.nn.Linear(1, 1)
    model.load_state_dict(best.of("model"))
    load_best(trainer)
    assert torch.equal(model.weight, trainer.model.weight)
    with pytest.raises(UsageError, match="the model has no 'modle'; did you mean 'model'"):
        best.of("modle")
    other = scripted()
    assert best_files.load_best(other.parts, trainer.run.path)["step"] == 8
    assert torch.equal(other.model.weight, model.weight)


def test_a_run_without_one_says_so(scripted: Callable[..., Any], tmp_path: Path) -> None:
    trainer = scripted(run_dir=tmp_path / "line", validation_data=None, max_epochs=1)
    trainer.iterate()
    with pytest.raises(UsageError, match="has no best model"):
        load_best(trainer)
    trainer.close()
    (trainer.run.path / "best_model").mkdir()
    (trainer.run.path / "best_model" / "weights.safetensors").write_bytes(b"garbage" * 10)
    info = {"monitor": None, "mode": "min", "value": None, "step": 1, "epoch": 0, "metrics": {}}
    (trainer.run.path / "best_model" / "metrics.json").write_text(json.dumps(info))
    with pytest.raises(
        UsageError, match=r"best_model/weights\.safetensors cannot be read \(.*\): restore it from a copy"
    ):
        load_best(trainer)
    for damaged in ({}, info | {"value": []}, info | {"step": "1"}, info | {"monitor": 3}):
        (trainer.run.path / "best_model" / "metrics.json").write_text(json.dumps(damaged))
        with pytest.raises(UsageError, match=r"best_model/metrics\.json is damaged: expected monitor, value, step"):
            load_best(trainer)


def test_a_failed_write_keeps_the_old_one(
    scripted: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = scripted([5, 4, 3, 2], run_dir=tmp_path / "line", max_epochs=4)
    original, count = best_files.write_whole, 0

    def full(*arguments: Any, **keywords: Any) -> None:
        nonlocal count
        count += 1
        if count == 6:  # of each model first the weights, then what they are
            raise OSError(28, "No space left on device")
        original(*arguments, **keywords)

    monkeypatch.setattr(best_files, "write_whole", full)
    with pytest.raises(Exception, match=r"cannot write .*best_model: No space left on device"):
        trainer.train()
    assert read_best(trainer.run.path).info["value"] == 4.0
    assert [p.name for p in trainer.run.path.glob(".best*")] == []


class Averaged(Trainer):
    """A model with an average, a lone parameter, tied weights, a view, a frozen teacher and a transient module."""

    transient = ("scratch",)

    def setup(self) -> None:
        self.model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
        self.model[2].weight = self.model[0].weight
        self.lone = torch.nn.Parameter(torch.zeros(3))
        self.nets = [torch.nn.Linear(1, 1)]
        self.scratch = torch.nn.Linear(1, 1)
        self.average = EMA(self.model, decay=0.5)
        self.optimizer = torch.optim.SGD([*self.model.parameters(), self.lone], lr=0.5)

    def step(self, batch: Any) -> Any:
        loss = (self.model(batch) - 1).square().mean() + (self.lone - 1).square().mean()
        self.minimize(loss)
        return loss

    def validation_step(self, batch: Any) -> Any:
        self.seen = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        return {"loss": (self.model(batch) - 1).square().mean()}


@pytest.mark.parametrize("on_disk", [True, False])
def test_averages_lone_parameters_and_tied_weights(tmp_path: Path, on_disk: bool) -> None:
    data = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {"run_dir": tmp_path / "a"} if on_disk else {}

    def make(**more: Any) -> Averaged:
        return Averaged(data=data, validation_data=data, batch_size=8, max_epochs=1, monitor_mode="min", **more)

    trainer = make(**settings)
    trainer.train()
    raw = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    kept = weights_of(trainer.parts).keys()
    assert "scratch.weight" not in kept and {"lone", "nets.0.weight", "model.2.weight", "model.1.running_mean"} <= kept
    load_best(trainer)
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, trainer.seen[name]), name
    assert not torch.equal(raw["0.weight"], trainer.model[0].weight)
    # What is evaluated after loading is the best model, not some older average.
    expected = trainer.validation_metrics["loss"]
    assert trainer.test(data)["loss"] == pytest.approx(expected, rel=1e-6)
    if on_disk:
        fresh = make()
        best_files.load_best(fresh.parts, trainer.run.path)
        assert fresh.test(data)["loss"] == pytest.approx(expected, rel=1e-6)
        assert torch.equal(fresh.lone, trainer.lone)


def test_weights_take_the_saved_shape(scripted: Callable[..., Any]) -> None:
    trainer = scripted()
    identity = trainer.model.weight
    put_weights(trainer.parts, {"model.weight": torch.ones(5, 2), "model.bias": torch.zeros(1)})
    assert trainer.model.weight is identity and identity.shape == (5, 2)


def test_weights_that_do_not_fit_change_nothing(scripted: Callable[..., Any]) -> None:
    trainer = scripted()
    before = trainer.model.weight.detach().clone()
    with pytest.raises(StateError, match=r"the trainer has 'model.bias', the best model has not"):
        put_weights(trainer.parts, {"model.weight": torch.ones(1, 1)})
    with pytest.raises(StateError, match=r"the best model has 'model.wieght', the trainer has not; did you mean"):
        put_weights(trainer.parts, {"model.wieght": torch.ones(1, 1), "model.bias": torch.zeros(1)})
    assert torch.equal(trainer.model.weight, before)


def test_state_of_a_module_that_is_no_tensor_is_refused(scripted: Callable[..., Any]) -> None:
    class Odd(torch.nn.Linear):
        def get_extra_state(self) -> Any:
            return {"odd": 1}

        def set_extra_state(self, state: Any) -> None:
            pass

    trainer = scripted()
    trainer.model = Odd(1, 1)
    with pytest.raises(StateError, match=r"model\._extra_state is a dict"):
        weights_of(trainer.parts)


def test_state_goes_on_where_it_was(scripted: Callable[..., Any]) -> None:
    first = scripted([5, 2, 3, 4], max_epochs=4)
    while first.progress.epoch < 3:
        first.iterate()
    second = scripted([5, 2, 3, 4], max_epochs=4)
    restore(second, capture(first))
    assert second.best == first.best and second.best["value"] == 2.0
    second.train()
    assert second.best["value"] == 2.0
    load_best(second)
    load_best(first)
    assert torch.equal(first.model.weight, second.model.weight)


def test_keeping_the_best_changes_nothing_in_the_run(scripted: Callable[..., Any], tmp_path: Path) -> None:
    bare = scripted(validation_data=None)
    kept = scripted(run_dir=tmp_path / "line")
    bare.train()
    kept.train()
    assert torch.equal(bare.model.weight, kept.model.weight)


def test_without_validation_data_the_final_weights_are_kept(tmp_path):
    class Averaged(Line):
        def setup(self):
            super().setup()
            self.average = EMA(self.model, 0.9)

    trainer = Averaged(data=line_data(8), batch_size=4, max_epochs=2, run_dir=tmp_path / "run")
    assert trainer.train().best is None
    best = read_best(trainer.run.path)
    assert (best.info["step"], best.info["monitor"], best.info["value"]) == (4, None, None)
    assert torch.equal(best.of("model")["weight"], trainer.average.state_dict()["shadows"]["weight"])
    assert not torch.equal(best.of("model")["weight"], trainer.model.weight)
