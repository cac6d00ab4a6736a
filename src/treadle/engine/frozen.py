"""Parameters that get no update for now, by the names under which a person finds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from treadle.engine.parts import Parts
from treadle.engine.updater import Updater
from treadle.errors import UsageError, nearest


class Frozen:
    """What gets no update, and keeps its moments.

    Args:
        parts: where parameters are found.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._names: set[str] = set()
        self._updaters: Mapping[str, Updater] = {}

    def adopt(self, updaters: Mapping[str, Updater]) -> None:
        """Take the updaters that there are, by the names of their optimizers: they are told what is frozen."""
        self._updaters = updaters
        self._hold()

    @property
    def names(self) -> list[str]:
        """The names of what is frozen, sorted."""
        return sorted(self._names)

    def choices(self) -> dict[str, list[Tensor]]:
        """What can be frozen, by name, with its parameters: all that some optimizer updates.

        That is a module or lone parameter that is an attribute ("model", "xy"), what is directly inside such a module
        ("model.encoder"), an optimizer, and each of its groups where it has several ("optimizer/grid", by its "name" or
        its number).
        """
        updated = {id(p) for updater in self._updaters.values() for p in updater.parameters}
        found: dict[str, list[Tensor]] = {}
        for name, p in self._parts.all_parameters().items():
            if id(p) in updated:
                top = next((module for module in self._parts.modules if name.startswith(f"{module}.")), name)
                found.setdefault(top, []).append(p)
                inner = name.removeprefix(f"{top}.").partition(".")[0]
                if top != name:
                    found.setdefault(f"{top}.{inner}", []).append(p)
        for name, updater in self._updaters.items():
            found.setdefault(name, updater.parameters)
            groups = updater.optimizer.param_groups
            if len(groups) > 1:
                for index, group in enumerate(groups):
                    found.setdefault(f"{name}/{group.get('name', index)}", list(group["params"]))
        return found

    def check(self, name: str) -> None:
        """Raise UsageError where nothing of that name can be frozen."""
        known = self.choices()
        if name not in known:
            raise UsageError(f"nothing to freeze is called {name!r}{nearest(name, known)}")
        held = {id(p) for p in known[name]}
        for optimizer, updater in self._updaters.items():
            if updater.needs_closure and any(id(p) in held for p in updater.parameters):
                raise UsageError(
                    f"{name!r} cannot be frozen: {optimizer!r} ({type(updater.optimizer).__name__}) moves all of its "
                    "parameters together"
                )

    def freeze(self, names: Iterable[str]) -> None:
        """Let what has these names, and nothing else, get no update from now on."""
        self._names = set(names)
        self._hold()

    def _hold(self) -> None:
        known = self.choices() if self._names else {}
        frozen = {id(p) for name in self._names for p in known.get(name, ())}
        for updater in self._updaters.values():
            updater.frozen = [p for p in updater.parameters if id(p) in frozen] if frozen else []
