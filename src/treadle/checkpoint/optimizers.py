"""The state of an optimizer: its moments and groups, and where these are no longer those of setup, whose they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from treadle.errors import StateError, nearest

_NAMES = "parameters"
_First = tuple[list[list[Tensor]], list[list[str | None]]]
"""The parameters of each group, and their names."""


class Groups:
    """Which parameters are in which group of an optimizer, by name where that has changed since it was first seen.

    Args:
        parameters: gives all there are by dotted name, as they are now.
    """

    def __init__(self, parameters: Callable[[], Mapping[str, Tensor]]) -> None:
        self._parameters = parameters
        self._first: WeakKeyDictionary[torch.optim.Optimizer, _First] = WeakKeyDictionary()

    def look(self, optimizer: torch.optim.Optimizer, like: torch.optim.Optimizer | None = None) -> None:
        """Remember the groups of `optimizer`, where it has not been seen yet, or take it for one that has been."""
        if optimizer not in self._first:
            first = self._first.get(like) if like is not None else None
            groups = [list(group["params"]) for group in optimizer.param_groups]
            self._first[optimizer] = first or (groups, self._named(groups))

    def names(self, optimizer: torch.optim.Optimizer) -> list[list[str]] | None:
        """The parameters of each group, or None where they are as they were first.

        Raises StateError for one that has no name.
        """
        groups = [group["params"] for group in optimizer.param_groups]
        first, first_names = self._first.get(optimizer, (None, None))
        names = self._named(groups)
        for group, named in zip(groups, names, strict=True):
            for p, name in zip(group, named, strict=True):
                if name is None and (first is None or _ids(first) != _ids(groups)):
                    raise StateError(
                        f"an optimizer updates a parameter of shape {tuple(p.shape)} that no attribute of the trainer "
                        "holds: make it one"
                    )
        return None if names == first_names else names  # type: ignore[return-value]

    def _named(self, groups: list[list[Tensor]]) -> list[list[str | None]]:
        names = {id(p): name for name, p in self._parameters().items()}
        return [[names.get(id(p)) for p in group] for group in groups]

    def arrange(self, optimizer: torch.optim.Optimizer, names: list[list[str]] | None) -> None:
        """Give `optimizer` groups of the parameters with these names; None stands for those that it had first."""
        if names is None:
            if optimizer not in self._first:
                return
            groups = self._first[optimizer][0]
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
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for p in optimizer.state:
        if isinstance(p, Tensor) and id(p) not in held:
            raise StateError(
                f"an optimizer has kept moments of a parameter of shape {tuple(p.shape)} that is in none of its groups "
                "any more: take it out of optimizer.state, too"
            )
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
