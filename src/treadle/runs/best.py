"""The best model of a run on disk: `best_model/`, loadable without the trainer that made it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from treadle.checkpoint.tensorfile import pieces
from treadle.config.fields import from_dict
from treadle.config.files import load
from treadle.engine.parts import Parts
from treadle.engine.weights import put_weights
from treadle.errors import RunError, UsageError, nearest, one_line
from treadle.files import cannot_write, replace_directory, settled, sync, to_json, write_whole
from treadle.runs.run import BEST, CONFIG, INFO, WEIGHTS, Run, check_info, read_json


@dataclass(frozen=True)
class Best:
    """The best model of a run.

    `weights` are by "attribute.parameter" ("model.0.weight"; a lone parameter by its attribute), on the CPU. `info` has
    the keys monitor, mode, value, step, epoch and metrics (all validation metrics of that moment). Where the run had
    nothing to validate on, these are the weights it ended with, and monitor and value are None.
    """

    weights: Mapping[str, Tensor]
    info: Mapping[str, Any]

    def of(self, attribute: str) -> dict[str, Tensor]:
        """The state dict of one of the trainer's modules. Raises UsageError for an attribute that is not there.

        Example:
            model = torch.nn.Linear(1, 1)
            model.load_state_dict(read_best("runs/line/v001").of("model"))
        """
        prefix = f"{attribute}."
        found = {name.removeprefix(prefix): value for name, value in self.weights.items() if name.startswith(prefix)}
        if not found:
            known = {name.rpartition(".")[0] or name for name in self.weights}
            raise UsageError(f"the best model has no {attribute!r}{nearest(attribute, known)}")
        return found


def write_best(run: Run, best: Best) -> Path:
    """Put `best` in the place of the run's best model, whole: at every instant the old one or the new one is there.

    Raises RunError when the disk refuses; the old one stays.
    """
    target = run.path / BEST
    new = target.with_name(f".{BEST}.new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        write_whole(new / WEIGHTS, b"".join(pieces(best.weights)), sync=True)
        write_whole(new / INFO, to_json(best.info) + "\n", sync=True)
        if run.has(CONFIG):
            shutil.copyfile(run.path / CONFIG, new / CONFIG)
        replace_directory(new, target)
        sync(run.path)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        if isinstance(error, OSError):
            raise cannot_write(target, error) from error
        raise
    return target


def has_best(run: Path) -> bool:
    """Whether the run in the directory `run` has a best model."""
    return (settled(run / BEST) / WEIGHTS).is_file()


def best_directory(run: str | Path) -> Path:
    """Where the best model of the run in the directory `run` is. Raises UsageError where it has none."""
    if not has_best(Path(run)):
        raise UsageError(
            f"{run} has no best model yet: it is written at the first validation, or without validation data at the end"
        )
    return settled(Path(run) / BEST)


def best_config(run: str | Path, kind: type[Any]) -> Any:
    """The settings, a `kind`, of a run's best model. Raises UsageError where there is none, or none of that kind."""
    source = best_directory(run) / CONFIG
    if source.exists() and not source.is_file():
        raise UsageError(f"{source} is no regular file: put back the settings of the best model")
    return from_dict(kind, load(source).get("config") or {}, source=str(source), at="config")


def read_best(run: str | Path) -> Best:
    """The best model of the run in the directory `run`. Raises UsageError where it has none, or none that is whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    directory = best_directory(run)
    try:
        info = check_info(directory / INFO, read_json(directory / INFO))
    except RunError as error:
        raise UsageError(str(error)) from None
    try:
        return Best(load_file(directory / WEIGHTS), info)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UsageError(f"{directory / WEIGHTS} cannot be read ({one_line(error)}): restore it from a copy") from None


def load_best(parts: Parts, run: str | Path) -> Mapping[str, Any]:
    """Put the best weights of the run in the directory `run` into a trainer's parts; returns what was best and when.

    See `treadle.hooks.load_best`, which does so for a trainer's own run.
    """
    best = read_best(run)
    put_weights(parts, best.weights)
    return best.info
