"""The best models of a run on disk, loadable without the trainer that made them.

`best_model/` is the best one. With `keep_best`, `best_models/step-00000500/` and so on are those that come after it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from treadle.checkpoint.tensorfile import pieces, read_tensors
from treadle.config.fields import from_dict
from treadle.config.files import load
from treadle.engine.parts import Parts
from treadle.engine.weights import put_weights
from treadle.errors import RunError, TreadleError, UsageError, nearest, one_line
from treadle.files import cannot_write, copy_regular, number, replace_directory, settled, sync, to_json, write_whole
from treadle.runs.run import BEST, CONFIG, INFO, OTHERS, WEIGHTS, Run, check_info, read_json


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
            raise UsageError(f"the model has no {attribute!r}{nearest(attribute, known)}")
        return found


def write_best(run: Run, best: Best, steps: Sequence[int] = ()) -> Path:
    """Write `best` among the run's best models, and drop those that are none any more; returns its directory.

    `steps` are those of all that are kept, the best first, that of `best` among them; by default it is the only one.
    Each is written whole: at every instant the old best model or the new one is in its place. Raises RunError when the
    disk refuses; the old ones stay.
    """
    first = run.path / BEST
    steps = steps or [best.info["step"]]
    if best.info["step"] == steps[0]:
        before = _info(settled(first)) if len(steps) > 1 else {}
        if before.get("step") in steps[1:]:
            _copy(settled(first), _place(run.path, before["step"]))
        written = write_model(run, best, first)
    else:
        written = write_model(run, best, _place(run.path, best.info["step"]))
        there = {entry.info["step"] for entry in ranks(run.path)}
        _promote(run.path, next(step for step in steps if step in there))
    _prune(run.path, steps)
    return written


def forget_best_after(run: Path, step: int) -> None:
    """Give up the best models after `step`, as far as there are others: the best of these takes the place."""
    left = [entry for entry in ranks(run) if entry.info["step"] <= step]
    if left and (run / OTHERS).is_dir():
        _promote(run, left[0].info["step"])
        _prune(run, [entry.info["step"] for entry in left])


def copy_best(source: Path, target: Path, known: Sequence[Mapping[str, Any]]) -> None:
    """Copy those of the best models of the run `source` that are `known`, best first, to the run `target`."""
    order = [(info["step"], number(info["value"])) for info in known]
    found = [entry for entry in ranks(source) if entry.info["value"] is not None]
    there = {(entry.info["step"], number(entry.info["value"])): entry.directory for entry in found}
    for rank, key in enumerate(key for key in order if key in there):
        _copy(there[key], target / BEST if rank == 0 else _place(target, key[0]), link=False)


@dataclass(frozen=True)
class Rank:
    """One of a run's best models: where it is, and what it is the best of, as `Best.info`."""

    directory: Path
    info: Mapping[str, Any]


def ranks(run: str | Path) -> list[Rank]:
    """The best models of the run in the directory `run`, the best first; those that cannot be read are left out.

    The first is that in `best_model`, the others follow by their values.
    """
    places = [settled(Path(run) / BEST), *sorted((Path(run) / OTHERS).glob("step-*"))]
    found: dict[int, Rank] = {}
    for place in places:
        info = _info(place)
        if "step" in info:
            found.setdefault(info["step"], Rank(place, info))
    if not found:
        return []
    first, *others = found.values()
    sign = -1 if first.info.get("mode") == "max" else 1
    others = [entry for entry in others if entry.info["value"] is not None]
    return [first, *sorted(others, key=lambda entry: (sign * number(entry.info["value"]), entry.info["step"]))]


def _info(directory: Path) -> Mapping[str, Any]:
    """What the model in `directory` is the best of; empty where nothing says, or it is damaged."""
    try:
        info = check_info(directory / INFO, read_json(directory / INFO))
    except TreadleError:
        return {}
    return info if (directory / WEIGHTS).is_file() else {}


def _place(run: Path, step: int) -> Path:
    return run / OTHERS / f"step-{step:08d}"


def _promote(run: Path, step: int) -> None:
    """Have the model of `step` in the first place, where it is among the others."""
    if _info(settled(run / BEST)).get("step") != step and _info(_place(run, step)):
        _copy(_place(run, step), run / BEST)


def _prune(run: Path, steps: Sequence[int]) -> None:
    """Remove the others that are of none of these `steps`, or are in the first place."""
    if not (run / OTHERS).is_dir():
        return
    kept = {_place(run, step).name for step in steps} - {_place(run, _info(settled(run / BEST)).get("step", -1)).name}
    for path in (run / OTHERS).iterdir():
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def _copy(source: Path, target: Path, *, link: bool = True) -> None:
    """Have the files of the model in `source` in `target` too, whole or not at all; with `link` they are shared.

    No file of a model is ever written again, so two names for one are as good as two files.
    """
    new = target.with_name(f".{target.name}.new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for path in sorted(source.iterdir()):
            try:
                if not link:
                    raise OSError
                os.link(path, new / path.name, follow_symlinks=False)
            except OSError:  # no links on this disk
                copy_regular(path, new / path.name)
        replace_directory(new, target)
        sync(target.parent)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        if isinstance(error, OSError):
            raise cannot_write(target, error) from error
        raise


def write_model(run: Run, best: Best, target: Path) -> Path:
    """Put `best` in the place of the model in `target`, whole. Raises RunError when the disk refuses."""
    new = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        write_whole(new / WEIGHTS, b"".join(pieces(best.weights)), sync=True)
        write_whole(new / INFO, to_json(best.info) + "\n", sync=True)
        if run.has(CONFIG):
            shutil.copyfile(run.path / CONFIG, new / CONFIG)
        replace_directory(new, target)
        sync(target.parent)
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
    return config_at(best_directory(run), kind)


def config_at(directory: Path, kind: type[Any]) -> Any:
    """The settings, a `kind`, beside the model in `directory`. Raises UsageError where there are none of that kind."""
    source = directory / CONFIG
    if source.exists() and not source.is_file():
        raise UsageError(f"{source} is no regular file: put back the settings of the best model")
    return from_dict(kind, load(source).get("config") or {}, source=str(source), at="config")


def read_best(run: str | Path, rank: int = 1) -> Best:
    """The best model of the run in the directory `run`; with `rank` 2 the one that comes after it, and so on.

    Raises UsageError where it has none, or none that is whole.
    """
    directory = best_directory(run)
    if rank != 1:
        found = ranks(run)
        if not 1 <= rank <= len(found):
            raise UsageError(f"{run} has no best model of rank {rank}: it keeps {len(found)} (keep_best= keeps more)")
        directory = found[rank - 1].directory
    return read_at(directory)


def read_at(directory: Path) -> Best:
    """The model in `directory`. Raises UsageError where there is none that is whole."""
    from safetensors import SafetensorError

    info = info_at(directory)
    try:
        return Best(read_tensors(directory / WEIGHTS), info)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UsageError(f"{directory / WEIGHTS} cannot be read ({one_line(error)}): restore it from a copy") from None


def info_at(directory: Path) -> Mapping[str, Any]:
    """What the model in `directory` is: as `Best.info`. Raises UsageError where nothing says, or it is damaged."""
    try:
        return check_info(directory / INFO, read_json(directory / INFO))
    except RunError as error:
        raise UsageError(str(error)) from None


def load_best(parts: Parts, run: str | Path, rank: int = 1) -> Mapping[str, Any]:
    """Put the best weights of the run in the directory `run` into a trainer's parts; returns what was best and when.

    See `Trainer.load_best`, which does so for a trainer's own run.
    """
    best = read_best(run, rank)
    put_weights(parts, best.weights)
    return best.info
