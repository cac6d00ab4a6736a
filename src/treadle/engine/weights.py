"""The weights of all that is trained, by name: taken out, and put back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from treadle.checkpoint.tensors import put
from treadle.engine.parts import Parts
from treadle.errors import StateError, nearest


def weights_of(parts: Parts) -> dict[str, Tensor]:
    """The weights and buffers of all modules by "attribute.name", and the lone parameters by attribute.

    They are the tensors themselves, detached, as they are now. Attributes named in `transient` are left out. Raises
    StateError for a module whose state holds something else than tensors.
    """
    weights: dict[str, Tensor] = {}
    for name, value in slots_of(parts).items():
        if not isinstance(value, Tensor):
            raise StateError(
                f"{name} is a {type(value).__name__} in the state of a module, which the best model cannot hold: make "
                "it a buffer, or name its attribute in the trainer's `transient`"
            )
        weights[name] = value.detach()
    return weights


def averages_of(parts: Parts) -> dict[str, str]:
    """Which module each average is of that validation sees, by their dotted names; those of no attribute left out."""
    found = {}
    for name, ema in parts.emas.items():
        paths = (
            f"{attribute}.{path}" if path else attribute
            for attribute, module in parts.modules.items()
            for path, inner in ([("", module)] if module is ema.module else module.named_modules())
            if inner is ema.module
        )
        path = next(paths, None) if ema.evaluate else None
        if path is not None:
            found[name] = path
    return found


@torch.no_grad()
def put_weights(parts: Parts, weights: Mapping[str, Tensor]) -> None:
    """Put what `weights_of` gave into these parts; raises StateError, changing nothing, where the names differ."""
    slots = slots_of(parts)
    for name in weights:
        if name not in slots:
            raise StateError(f"the best model has {name!r}, the trainer has not{nearest(name, slots)}")
    for name in slots:
        if name not in weights:
            raise StateError(f"the trainer has {name!r}, the best model has not{nearest(name, weights)}")
    averages = [ema for ema in parts.emas.values() if ema.evaluate]
    for name, slot in slots.items():
        _assign(slot, weights[name])
        for ema in averages:
            shadow = ema.shadow_of(slot)
            if shadow is not None:
                _assign(shadow, weights[name])


def slots_of(parts: Parts) -> dict[str, Any]:
    """The tensors themselves, to be written into, by the names that `weights_of` gives them."""
    parts.refresh()
    slots: dict[str, Any] = {}
    for name, module in parts.modules.items():
        if name.partition(".")[0] not in parts.transient:
            slots |= {f"{name}.{key}": value for key, value in module.state_dict(keep_vars=True).items()}
    for name, parameter in parts.parameters.items():
        if name.partition(".")[0] not in parts.transient:
            slots.setdefault(name, parameter)
    return slots


def _assign(slot: Tensor, value: Tensor) -> None:
    if slot.shape == value.shape:
        slot.copy_(value)
    else:  # rows were added or removed since the modules were built
        put(slot, value)
