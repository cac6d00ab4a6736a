"""The weights in a state as validation sees them: those of its modules, averaged (EMA) where there is an average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from treadle.checkpoint.packing import unpack
from treadle.checkpoint.state import State
from treadle.errors import StateError

AVERAGES = "averages"
"""In a state's clock: of which module each average is that stands for its weights in validation, by dotted names."""


def evaluated_weights(state: State) -> dict[str, Tensor]:
    """The weights and buffers of all modules by "attribute.name", and lone tensors by attribute, as validated.

    A state that an earlier version wrote does not say which module an average is of: it is the only one that has
    these parameters. Raises StateError where there are several.
    """
    entries = {name: _unpacked(entry, state) for name, entry in state.values.get("attributes", {}).items()}
    weights: dict[str, Tensor] = {}
    for name, entry in entries.items():
        if _is_module(entry):
            weights |= {f"{name}.{key}": value for key, value in entry["state"].items() if isinstance(value, Tensor)}
        elif isinstance(entry, Tensor):
            weights[name] = entry
        elif isinstance(entry, dict) and isinstance(entry.get("value"), Tensor):  # a frozen parameter
            weights[name] = entry["value"]
    averages = state.clock.get(AVERAGES)
    known = averages if isinstance(averages, dict) else _averages_in(entries)
    for name, module in known.items():
        for shadows in ("shadows", "buffers"):
            found = entries[name].get(shadows, {}) if name in entries else {}
            weights |= {f"{module}.{key}": value for key, value in found.items() if f"{module}.{key}" in weights}
    return weights


def _unpacked(entry: Any, state: State) -> Any:
    """One attribute's state, where it may have weights; None for others, which may be of the program's own kinds."""
    if isinstance(entry, dict) and ("~tensor" in entry or _is_module(entry) or _is_average(entry)):
        wanted = {key: entry[key] for key in ("state", "shadows", "buffers") if key in entry}
        rest = {key: None for key in entry if key not in wanted}
        return unpack(entry, state.tensors) if "~tensor" in entry else unpack(wanted, state.tensors) | rest
    if isinstance(entry, dict) and entry.keys() == {"value", "requires_grad"}:
        return unpack(entry, state.tensors)
    return None


def _is_module(entry: Any) -> bool:
    return isinstance(entry, dict) and {"state", "frozen", "eval"} <= entry.keys()


def _is_average(entry: Any) -> bool:
    return isinstance(entry, dict) and {"updates", "shadows"} <= entry.keys() <= {"updates", "shadows", "buffers"}


def _averages_in(entries: Mapping[str, Any]) -> dict[str, str]:
    """Which module each average is of, told by the names and shapes of the parameters."""
    found = {}
    for name, entry in entries.items():
        if not _is_average(entry) or not entry["shadows"]:
            continue
        shapes = {key: value.shape for key, value in entry["shadows"].items()}
        fitting = [
            module
            for module, there in entries.items()
            if _is_module(there)
            and all(key in there["state"] and there["state"][key].shape == shape for key, shape in shapes.items())
        ]
        if len(fitting) > 1:
            raise StateError(
                f"an earlier version wrote it, which did not say whether {name!r} is the average of "
                f"{' or of '.join(fitting)}: resume the run, whose next checkpoint does"
            )
        if fitting:
            found[name] = fitting[0]
    return found
