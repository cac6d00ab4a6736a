"""Parts: what somebody's attributes are (modules, optimizers, schedules and the rest), found without being registered.

Works without a trainer:

    parts = Parts({"model": model, "optimizers": [first, second]})
    parts.modules          # {"model": ...}
    parts.optimizers       # {"optimizers.0": ..., "optimizers.1": ...}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from treadle.engine.ema import EMA
from treadle.engine.events import Hook
from treadle.engine.lr import LearningRate
from treadle.engine.objective import Objective
from treadle.errors import UsageError

T = TypeVar("T")


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


class Parts:
    """The parts among `attributes`, by dotted name, each object once.

    `attributes` is kept, not copied: `find` looks at it again. Whoever changes it says so by setting `stale`; a list
    or dict that has parts is watched. Whoever relies on the parts calls `refresh` first, which costs next to nothing
    while nothing has changed.

    Attributes:
        modules, optimizers, rates, emas, objectives, hooks: the objects of each kind.
        tensors: lone tensors, parameters among them.
        watched: the attributes that are lists or dicts with parts in them, and what these hold.
        transient: names of attributes that hold no state of their own.
    """

    def __init__(self, attributes: Mapping[str, Any], transient: tuple[str, ...] = ()) -> None:
        self.attributes = attributes
        self.transient = transient
        self.stale = False
        self.version = 0
        """How often there were other parts than before: whoever has taken them in sees that."""
        self._found: list[tuple[str, int]] = []
        self.find()

    def find(self) -> None:
        """Look at the attributes anew."""
        self.stale = False
        self.modules: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.rates: dict[str, LearningRate] = {}
        self.emas: dict[str, EMA] = {}
        self.objectives: dict[str, Objective] = {}
        self.hooks: dict[str, Hook] = {}
        self.tensors: dict[str, Tensor] = {}
        kinds: tuple[tuple[type[Any], dict[str, Any]], ...] = (
            (nn.Module, self.modules),
            (torch.optim.Optimizer, self.optimizers),
            (LearningRate, self.rates),
            (EMA, self.emas),
            (Objective, self.objectives),
            (Hook, self.hooks),
            (Tensor, self.tensors),
        )
        seen: set[int] = set()
        holders: set[str] = set()
        for name, item in self.walk():
            for kind, found in kinds:
                if isinstance(item, kind) and id(item) not in seen:
                    seen.add(id(item))
                    found[name] = item
                    if "." in name and kind is not Tensor:
                        holders.add(name.partition(".")[0])
        now = [(name, id(item)) for _, found in kinds for name, item in found.items()]
        if now != self._found:
            self._found = now
            self.version += 1
        self.watched = [(name, self._contents(name)) for name in sorted(holders)]

    def changed(self) -> bool:
        """Whether an attribute was set, or a list or dict with parts got other ones, since the last `find`."""
        return self.stale or any(self._contents(name) != contents for name, contents in self.watched)

    def refresh(self) -> bool:
        """Look again where something has changed since the last time; returns whether that was so."""
        if self.changed():
            self.find()
            return True
        return False

    def _contents(self, attribute: str) -> list[tuple[str, int]]:
        return [(name, id(item)) for name, item in walk(self.attributes.get(attribute), attribute)]

    def walk(self) -> Iterator[tuple[str, Any]]:
        """Yield (dotted name, object) for everything there is, as it is now."""
        for attribute, value in list(self.attributes.items()):
            yield from walk(value, attribute)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The lone parameters: those that are in no module."""
        return {name: tensor for name, tensor in self.tensors.items() if isinstance(tensor, nn.Parameter)}

    def all_parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter, inside modules or by itself, by dotted name."""
        parameters = self.parameters
        for name, module in self.modules.items():
            parameters.update({f"{name}.{inner}": p for inner, p in module.named_parameters()})
        return parameters

    def named_tensors(self) -> dict[str, Tensor]:
        """Every parameter, and the lone tensors that are none, by dotted name."""
        return {**self.tensors, **self.all_parameters()}

    def submodules(self) -> Iterator[nn.Module]:
        """The modules with all that is inside them."""
        for module in self.modules.values():
            yield from module.modules()

    def to(self, device: torch.device) -> None:
        """Move modules, tensors and averages to `device`; each stays the object it is."""
        for module in self.modules.values():
            module.to(device)
        for tensor in self.tensors.values():
            if tensor.device.type != device.type or device.index not in (None, tensor.device.index):
                tensor.data = tensor.data.to(device)
        for ema in self.emas.values():
            ema.to(device)

    def check_optimizers(self) -> None:
        """Raise UsageError for an optimizer that updates nothing that is held here."""
        held = {id(p) for p in self.all_parameters().values()}
        for name, optimizer in self.optimizers.items():
            if not any(id(p) in held for group in optimizer.param_groups for p in group["params"]):
                raise UsageError(
                    f"optimizer {name!r} updates no parameter of the trainer's modules: build it from, say, "
                    "self.model.parameters(), after self.model has its final form"
                )
