"""What a trainer's attributes are: modules, optimizers, schedules and the rest, found without being registered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from treadle.engine.ema import EMA
from treadle.errors import UsageError

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

T = TypeVar("T")


def user_attributes(trainer: Trainer) -> dict[str, Any]:
    """The attributes that a trainer's author or user gave it, by name; the engine's own are left out."""
    return {name: value for name, value in vars(trainer).items() if name not in trainer._engine_names}


def walk(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, object) for `value`, looking into lists, tuples and dicts."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from walk(item, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from walk(item, f"{name}.{index}")
    else:
        yield name, value


def find(trainer: Trainer, kind: type[T]) -> dict[str, T]:
    """All objects of `kind` among the trainer's attributes, by dotted name, each object once."""
    found: dict[str, T] = {}
    seen: set[int] = set()
    for attribute, value in user_attributes(trainer).items():
        for name, item in walk(value, attribute):
            if isinstance(item, kind) and id(item) not in seen:
                seen.add(id(item))
                found[name] = item
    return found


def trainable_parameters(trainer: Trainer) -> dict[str, nn.Parameter]:
    """Every parameter the trainer holds, inside its modules or by itself, by dotted name."""
    parameters = dict(find(trainer, nn.Parameter))
    for name, module in find(trainer, nn.Module).items():
        parameters.update({f"{name}.{inner}": p for inner, p in module.named_parameters()})
    return parameters


def check_optimizers(trainer: Trainer, optimizers: dict[str, torch.optim.Optimizer]) -> None:
    """Raise UsageError for an optimizer that updates nothing the trainer holds."""
    held = {id(p) for p in trainable_parameters(trainer).values()}
    for name, optimizer in optimizers.items():
        if not any(id(p) in held for group in optimizer.param_groups for p in group["params"]):
            raise UsageError(
                f"optimizer {name!r} updates no parameter of the trainer's modules: build it from, say, "
                "self.model.parameters(), after self.model has its final form"
            )


def move_to(trainer: Trainer, device: torch.device) -> None:
    """Move modules, tensors and averages to `device`; each stays the object it is."""
    for module in find(trainer, nn.Module).values():
        module.to(device)
    for tensor in find(trainer, Tensor).values():
        if tensor.device.type != device.type:
            tensor.data = tensor.data.to(device)
    for ema in find(trainer, EMA).values():
        ema.to(device)
