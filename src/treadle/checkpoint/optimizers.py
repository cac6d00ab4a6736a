"""The state of an optimizer: its moments and groups, and where these are no longer those of setup, whose they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from treadle.errors import StateError, nearest

_NAMES = "parameters"


class Groups:
    """Which parameters are in which group of an optimizer, by name where that has changed since it was first seen.

    Args:
        parameters: gives all there are by dotted name, as they are now.
    """

    def __init__(self, parameters: Callable[[], Mapping[str, Tensor]]) -> None:
        self._parameters = parameters
        self._first: WeakKeyDictionary[torch.optim.Optimizer, list[list[Tensor]]] = WeakKeyDictionary()

    def look(self, optimizer: torch.optim.Optimizer) -> None:
        """Remember the groups of `optimizer`, where it has not been seen yet."""
        if optimizer not in self._first:
            self._first[optimizer] = [list(group["params"]) for group in optimizer.param_groups]

    def names(self, optimizer: torch.optim.Optimizer) -> list[list[str]] | None:
        """The parameters of each group, or None where they are as they were first.

        Raises StateError for one that has no name.
        """
        groups = [group["params"] for group in optimizer.param_groups]
        if optimizer in self._first and _ids(groups) == _ids(self._first[optimizer]):
            return None
        names = {id(p): name for name, p in self._parameters().items()}
        for group in groups:
            for p in group:
                if id(p) not in names:
                    raise StateError(
                        f"an optimizer updates a parameter of shape {tuple(p.shape)} that no attribute of the trainer "
                        "holds: make it one"
                    )
        return [[names[id(p)] for p in group] for group in groups]

    def arrange(self, optimizer: torch.optim.Optimizer, names: list[list[str]] | None) -> None:
        """Give `optimizer` groups of the parameters with these names; None stands for those that it had first."""
        if names is None:
            if optimizer not in self._first:
                return
            groups = self._first[optimizer]
        else:
            known = self._parameters()
            for name in (name for group in names for name in group):
                if name not in known:
                    raise StateError(f"it updated {name!r} then, which the trainer has not{nearest(name, known)}")
            groups = [[known[name] for name in group] for group in names]
        if _ids(groups) != _ids([group["params"] for group in optimizer.param_groups]):
            optimizer.param_groups[:] = [{"params": list(group)} for group in groups]


def optimizer_state(optimizer: torch.optim.Optimizer, groups: Groups | None = None) -> dict[str, Any]:
    """What `optimizer.state_dict()` gives, with the names of its parameters where `groups` says so."""
    names = groups.names(optimizer) if groups is not None else None
    return optimizer.state_dict() | ({} if names is None else {_NAMES: names})


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], groups: Groups | None = None) -> None:
    """Restore what `optimizer_state` gave.

    torch's casts are undone: it gives moments the dtype of their parameter, whatever they were kept in.
    """
    state = dict(state)
    names = state.pop(_NAMES, None)
    if groups is not None:
        groups.arrange(optimizer, names)
    optimizer.load_state_dict(state)
    order = [p for group in optimizer.param_groups for p in group["params"]]
    for index, saved in state.get("state", {}).items():
        p = order[int(index)] if isinstance(index, int) and index < len(order) else None
        loaded = optimizer.state.get(p, {}) if p is not None else {}
        for key, value in saved.items() if isinstance(saved, dict) else ():
            here = loaded.get(key)
            if isinstance(value, Tensor) and isinstance(here, Tensor) and here.dtype != value.dtype:
                loaded[key] = value.to(device=here.device, copy=True)


def _ids(groups: list[list[Tensor]]) -> list[list[int]]:
    return [[id(p) for p in group] for group in groups]
