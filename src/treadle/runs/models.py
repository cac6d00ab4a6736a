"""The models of a run on disk, usable without its trainer: the best, the final one, and those of steps that are kept.

    find_model("runs/pix2pix/v001", "final").of("generator")      # a state dict

The best is in `best_model/`, those that come after it in `best_models/`, what a trainer keeps at each validation in
`models/`. The final one, and what is nowhere else, is read out of the checkpoints: each says which of its averages
(EMA) stand for which weights. So the final state costs no disk beside them, and is there however the run was stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from treadle.checkpoint.evaluated import evaluated_weights
from treadle.checkpoint.store import VALUES, checkpoint_name, latest_step, list_checkpoints, read_checkpoint, step_of
from treadle.engine.parts import Parts
from treadle.engine.weights import put_weights, weights_of
from treadle.errors import StateError, UsageError, nearest
from treadle.files import blamed, settled
from treadle.runs.best import Best, best_directory, config_at, has_best, info_at, ranks, read_at, write_model
from treadle.runs.run import BEST, CHECKPOINTS, MODELS, WEIGHTS, Run, read_config

At = int | str
"""Which model of a run: "best", "final", or the step that it was trained for."""


@dataclass(frozen=True)
class Model:
    """A model of a run, as validation has it: averaged weights (EMA), where the run has them."""

    run: Path
    name: str
    """"best", "final" or "step 500": as what it was asked for."""
    step: int
    """How many steps it was trained for."""
    directory: Path = field(repr=False)
    """What it is read from: a best model's, a kept model's, or a checkpoint's."""

    def __str__(self) -> str:
        """What captions call it: "final model, step 800"."""
        if self.name == "best" and self.info["monitor"] is not None:
            return f"best model by {self.info['monitor']}, step {self.step}"
        if self.name == "best":
            return f"final model, step {self.step} (nothing says which is best)"
        return f"final model, step {self.step}" if self.name == "final" else f"model of step {self.step}"

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """By "attribute.parameter", as those of `Best`. Raises UsageError where they cannot be read."""
        return self._read.weights

    @property
    def info(self) -> Mapping[str, Any]:
        """What `Best.info` says; of a checkpoint without monitor and value, with the metrics if it was validated."""
        return self._read.info if self._is_checkpoint else info_at(self.directory)

    def of(self, attribute: str) -> dict[str, Tensor]:
        """The state dict of one of the trainer's modules. Raises UsageError for an attribute that is not there."""
        return self._read.of(attribute)

    def config(self, kind: type[Any]) -> Any:
        """Its settings, a `kind`. Raises UsageError where there are none of that kind."""
        return config_at(self.run if self._is_checkpoint else self.directory, kind)

    def put_into(self, parts: Parts) -> None:
        """Put the weights into a trainer's parts. Raises StateError, changing nothing, where they do not fit."""
        weights = dict(self.weights)
        if self.directory.parent.name == MODELS:  # it has the modules alone that are used after training
            weights = {**weights_of(parts), **weights}
        elif self._is_checkpoint:  # lone tensors that are no parameters are state, too
            known = weights_of(parts)
            weights = {name: value for name, value in weights.items() if "." in name or name in known}
        put_weights(parts, weights)

    @property
    def _is_checkpoint(self) -> bool:
        return self.directory.parent.name == CHECKPOINTS

    @cached_property
    def _read(self) -> Best:
        if not self._is_checkpoint:
            return read_at(self.directory)
        try:
            state = read_checkpoint(self.directory)
            with blamed(self.directory / VALUES):
                validated = state.values["validated_step"] == state.step
                metrics = dict(state.values["validation_metrics"]) if validated else {}
                info = {"monitor": None, "mode": "min", "value": None, "step": state.step, "epoch": state.epoch}
                return Best(evaluated_weights(state), info | {"metrics": metrics})
        except StateError as error:
            raise UsageError(f"{self.run} has no {self.name} model to be read: {error}") from None


def find_model(run: str | Path, at: At | None = None, usual: At = "best") -> Model:
    """The model `at` a step of the run in the directory `run`, the "best" or the "final" one; None takes the `usual`.

    The final model is that of the newest checkpoint: of the run's end, or of where it was stopped. Where nothing says
    what is best (`monitor: null`, or no validation data) the final model is the best.

    Raises UsageError where the run keeps no such model, naming those that it keeps.
    """
    run, wanted = Path(run), _checked(usual if at is None else at)
    if wanted == "best":
        return _best(run)
    places = kept_models(run)
    if wanted == "final":
        step = _last(run, places)
        if step is None:
            raise UsageError(f"{run} has no final model yet: it is that of the newest checkpoint, and there is none")
    else:
        assert isinstance(wanted, int)
        step = wanted
        if step not in places:
            raise UsageError(f"{run} keeps no model of step {step}: {_listed(run, places)}")
    return Model(run, "final" if wanted == "final" else f"step {step}", step, places[step])


def kept_models(run: str | Path) -> dict[int, Path]:
    """Where the models of the run in the directory `run` are, by their steps in ascending order.

    Of several of one step the first counts: the best models', a checkpoint, one kept at a validation.
    """
    run = Path(run)
    found: dict[int, Path] = {}
    for rank in ranks(run):
        found.setdefault(rank.info["step"], rank.directory)
    for path in list_checkpoints(run / CHECKPOINTS):
        found.setdefault(step_of(path), path)
    for path in kept_at_validations(run):
        found.setdefault(step_of(path), path)
    return dict(sorted(found.items()))


def kept_at_validations(run: str | Path) -> list[Path]:
    """The directories of what a trainer has kept at each validation, the earliest first."""
    return [path for path in list_checkpoints(Path(run) / MODELS) if (path / WEIGHTS).is_file()]


def keep_model(run: Run, model: Best) -> Path:
    """Keep what is used after training as it was at a validation; returns where. Raises RunError on a full disk."""
    return write_model(run, model, run.path / MODELS / checkpoint_name(model.info["step"]))


def prune_models(run: Path, steps: Collection[int]) -> None:
    """Give up what `keep_model` has kept, but for these steps, and what a write that was killed has left."""
    kept = {checkpoint_name(step) for step in steps}
    for path in (run / MODELS).iterdir() if (run / MODELS).is_dir() else ():
        if path.name not in kept and path.name.lstrip(".").startswith("step-"):
            shutil.rmtree(path, ignore_errors=True)


def _checked(at: At) -> At:
    """Which model is wanted: "best", "final" or a step. Raises UsageError for anything else."""
    if isinstance(at, str) and at.isdecimal():
        return int(at)
    if at in ("best", "final") or (type(at) is int and at >= 0):
        return at
    near = nearest(at, ("best", "final")) if isinstance(at, str) else ""
    raise UsageError(f"at is {at!r}: expected a step, 'best' or 'final'{near}")


def _best(run: Path) -> Model:
    """The best model; the final one, where nothing is best."""
    if not has_best(run) and _chooses(run):
        best_directory(run)  # which says that there is none yet, and why
    directory = settled(run / BEST)
    if has_best(run):
        info = info_at(directory)
        if info["monitor"] is not None:
            return Model(run, "best", info["step"], directory)
    places = kept_models(run)
    step = _last(run, places)
    assert step is not None
    return Model(run, "best", step, places[step])


def _chooses(run: Path) -> bool:
    """Whether the run has a metric by which a model is the best, or no checkpoint that could stand for it."""
    monitors = (read_config(run).get("config") or {}).get("monitor", "") is not None
    return monitors or not list_checkpoints(run / CHECKPOINTS)


def _last(run: Path, places: Mapping[int, Path]) -> int | None:
    """The step of the final model, None where there is none: none after the newest checkpoint, which a resume takes."""
    newest = [step_of(path) for path in list_checkpoints(run / CHECKPOINTS)]
    latest = latest_step(run / CHECKPOINTS)
    limit = max((step for step in newest if latest is None or step <= latest), default=None)
    return max((step for step in places if limit is None or step <= limit), default=None)


def _listed(run: Path, places: Mapping[int, Path]) -> str:
    """What there is, in words."""
    if not places:
        return "it keeps none yet"
    best = {entry.info["step"] for entry in ranks(run)[:1] if entry.info["monitor"] is not None}
    last = _last(run, places)
    said = []
    for step in places:
        names = ", ".join(["best"] * (step in best) + ["final"] * (step == last))
        said.append(f"{step} ({names})" if names else f"{step}")
    return f"there are {', '.join(said)}"
