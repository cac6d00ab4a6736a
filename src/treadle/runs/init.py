"""The weights that a run begins with where its settings name some: those of another run, or of a file.

A trainer whose settings are `StartSettings` heeds them. They are put into what `setup` has made, by name, before the
first step; averages (EMA) begin with them too. What they were is part of the run's state, as a fingerprint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from treadle.checkpoint.tensorfile import hash_tensors
from treadle.engine.load_weights import PICKLED, SHOWN, Words, check_fit, misfit, read_weights, renamed
from treadle.engine.parts import Parts
from treadle.engine.settings import StartSettings
from treadle.engine.weights import slots_of
from treadle.errors import UsageError, nearest
from treadle.files import near_sibling
from treadle.runs.models import At, find_model
from treadle.runs.run import find_run

SOURCE = re.compile(r"(?P<path>.+?)(@(best|final|\d+))?(:[A-Za-z_][\w.]*)?")
"""RUN, RUN@STEP, RUN@best:generator, FILE.safetensors:generator."""

WORDS = Words(
    "init_mapping={{{0!r}: {1!r}}}",
    "leave out by mapping to null",
    "take what fits with init_partial=true",
    by_shape=True,
)


@dataclass(frozen=True)
class Initial:
    """Weights that fit: `given`, by the names of the `slots` that they are to fill; `anew` are slots without any."""

    given: Mapping[str, Tensor]
    slots: Mapping[str, Tensor]
    anew: tuple[str, ...]
    fingerprint: str
    """SHA-256 over what is given."""


def put_initial_weights(config: StartSettings, parts: Parts, usual: At) -> Initial:
    """Put the weights that `config.init` names into the networks of `parts`, and into their averages.

    Networks of which it says nothing keep the weights they were drawn. Raises UsageError as `initial_weights`.
    """
    found = initial_weights(config, parts, usual)
    with torch.no_grad():
        for name, value in found.given.items():
            found.slots[name].copy_(value)
        for average in parts.emas.values():
            for slot in found.slots.values():
                shadow = average.shadow_of(slot)
                if shadow is not None:
                    shadow.copy_(slot)
    return found


def initial_weights(config: StartSettings, parts: Parts, usual: At) -> Initial:
    """The weights that `config.init` names for the networks of `parts`; nothing is changed.

    Of a run without @STEP it is the `usual` model.

    Raises UsageError in one line: no such run or file, no such network, names or shapes that do not fit.
    """
    assert config.init is not None
    networks = [name for name in parts.modules if name.partition(".")[0] not in parts.transient]
    found = _read(config.init, networks, usual)
    sources = [config.init] if isinstance(config.init, str) else list(config.init.values())
    where = sources[0] if len(sources) == 1 else "init"
    alone = [name for name in found if "." not in name and name not in slots_of(parts)]  # a checkpoint's lone tensors
    given = renamed({name: found[name] for name in found if name not in alone}, config.init_mapping, where)
    touched = {_network(name, networks) for name in given}
    slots = {
        name: slot
        for name, slot in slots_of(parts).items()
        if isinstance(slot, Tensor) and (name in given or _network(name, networks) in touched - {None})
    }
    if not slots:
        one = networks[0] if networks else "NETWORK"
        raise UsageError(
            f"init: nothing in {where} is of {', '.join(networks)}: its names begin as {next(iter(found), '')!r}; say "
            f"whose they are (init.{one}={where}), or how they begin here (init_mapping)"
        )
    anew: tuple[str, ...] = ()
    if config.init_partial:
        given = {name: value for name, value in given.items() if name in slots and not misfit(name, slots[name], value)}
        anew = tuple(name for name in slots if name not in given)
    check_fit(slots, given, where, "the trainer", strict=not config.init_partial, words=WORDS)
    given = {name: given[name] for name in slots if name in given}
    return Initial(given, slots, anew, hash_tensors({name: value.contiguous() for name, value in given.items()}))


def pinned(init: str | dict[str, str]) -> str | dict[str, str]:
    """The same sources, where a folder of runs is named by the newest of them: that is another one tomorrow."""
    if not isinstance(init, str):
        return {network: str(pinned(source)) for network, source in init.items()}
    path, rest = _split(init)
    return f"{find_run(path)}{rest}" if path.is_dir() else init


def as_recorded(given: Any, recorded: Any) -> Any:
    """What is `recorded` of `init`, where the `given` sources are the same or the folders of the recorded runs."""
    if isinstance(given, dict) and isinstance(recorded, dict) and given.keys() == recorded.keys():
        return {network: as_recorded(source, recorded[network]) for network, source in given.items()}
    if isinstance(given, str) and isinstance(recorded, str):
        (path, rest), (there, there_rest) = _split(given), _split(recorded)
        return recorded if path == there.parent and rest == there_rest else given
    return given


def left_anew(anew: tuple[str, ...]) -> str:
    """What is said of tensors that begin anew."""
    more = f" and {len(anew) - SHOWN} more" if len(anew) > SHOWN else ""
    return f"not in init, so begun anew: {', '.join(anew[:SHOWN])}{more}"


def _read(init: str | Mapping[str, str], networks: list[str], usual: At) -> dict[str, Tensor]:
    """The tensors that `init` names, by network and name there."""
    if isinstance(init, str):
        tensors, network = _source(init, "init", usual)
        if network is None:
            return tensors
        return {f"{network}.{name}": value for name, value in _of(tensors, network, init, "init").items()}
    found: dict[str, Tensor] = {}
    for network, source in init.items():
        if network not in networks:
            raise UsageError(f"init.{network}: the trainer has no network of that name{nearest(network, networks)}")
        tensors, there = _source(source, f"init.{network}", usual)
        if there is not None or any(name.startswith(f"{network}.") for name in tensors):
            tensors = _of(tensors, there or network, source, f"init.{network}")
        elif not Path(source).is_file():
            tensors = _of(tensors, network, source, f"init.{network}")
        found |= {f"{network}.{name}": value for name, value in tensors.items()}
    return found


def _of(tensors: Mapping[str, Tensor], network: str, source: str, setting: str) -> dict[str, Tensor]:
    """The tensors of one of a run's networks, by their names in it."""
    prefix = f"{network}."
    found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if not found:
        there = sorted({name.partition(".")[0] for name in tensors})
        raise UsageError(f"{setting}: {source} has no {network!r}{nearest(network, there)} (RUN:NETWORK takes that)")
    return found


def _split(source: str) -> tuple[Path, str]:
    """The path of a source, and what follows it: "@best", ":generator", both or neither."""
    parts = None if Path(source).exists() else SOURCE.fullmatch(source)
    path = Path(source if parts is None else parts["path"])
    return path, source.removeprefix(str(path))


def _source(text: str, setting: str, usual: At) -> tuple[dict[str, Tensor], str | None]:
    """The tensors at `text`, and the network that it names there."""
    path, rest = _split(text)
    at, _, network = rest.removeprefix("@").partition(":")
    if path.is_dir():
        try:
            return dict(find_model(find_run(path), at or None, usual).weights), network or None
        except UsageError as error:
            raise UsageError(f"{setting}: {error}") from None
    if path.name.endswith((*PICKLED, ".pth.tar")) and path.exists():
        raise UsageError(f"{setting}: {path} is pickled, which can hold code: treadle import {path} makes a run of it")
    if not path.exists():
        raise UsageError(f"{setting}: no run or file {path}{near_sibling(path)}")
    if at:
        raise UsageError(f"{setting}: {path} is a file, which has one model: leave out @{at}")
    try:
        return dict(read_weights(path)[0]), network or None
    except UsageError as error:
        raise UsageError(f"{setting}: {error}") from None


def _network(name: str, networks: list[str]) -> str | None:
    return next((network for network in networks if name.startswith(f"{network}.")), None)
