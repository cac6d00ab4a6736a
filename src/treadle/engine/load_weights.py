"""Weights of somebody else's training, put into a module: from a file, with other names, all or a part of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from treadle.errors import UsageError
from treadle.files import near_sibling

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
"""Endings of files that torch pickles."""
SHOWN = 4
"""Names in a message; of more it gives the number."""


@dataclass(frozen=True)
class Words:
    """What messages call the ways to make weights fit: `mapping` of two prefixes, leaving out, taking a part.

    `by_shape` says that taking a part also leaves what is of another shape.
    """

    mapping: str
    leave_out: str
    partly: str
    by_shape: bool = False


CALL = Words("mapping={{{0!r}: {1!r}}}", "leave out by mapping to None", "take what fits with strict=False")
"""In a call of `load_weights`."""


@dataclass(frozen=True)
class Loaded:
    """What came of `load_weights`, by name: what was `loaded`, what of the module was `missing`, and what was there
    besides, `unexpected` (as mapped). The last two are empty unless `strict` was off."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


@torch.no_grad()
def load_weights(
    module: nn.Module,
    source: str | Path | Mapping[str, Tensor],
    *,
    mapping: Mapping[str, str | None] | None = None,
    strict: bool = True,
) -> Loaded:
    """Put weights into `module`, in place: parameters and buffers stay the objects they are, with dtype and device.

    Call it in `setup`, before averages (EMA) are made of the module. All is checked first: where this raises, nothing
    has changed.

    Args:
        module: what takes the weights, under the names of its `state_dict()`.
        source: a safetensors file (a run's `best_model/weights.safetensors` is one), or tensors by name. Files that
            torch has pickled are not read, since they can hold code: give `torch.load(FILE, weights_only=True)`.
        mapping: how names in the source begin, and how they begin here: `{"module.": ""}` drops a prefix,
            `{"": "net."}` adds one, `{"head.": None}` leaves those tensors out. Of several that fit the longest counts.
        strict: whether source and module must have the same names. Else what both have is loaded. Shapes have to be
            equal in any case.

    Returns the names, as far as they matched and did not.

    Raises UsageError in one line, with what is missing, unexpected or of another shape.

    Example:
        treadle.load_weights(self.model, "resnet.safetensors", mapping={"backbone.": "", "fc.": None}, strict=False)
    """
    tensors, where = read_weights(source)
    slots = {name: slot for name, slot in module.state_dict(keep_vars=True).items() if isinstance(slot, Tensor)}
    given = renamed(tensors, mapping or {}, where)
    found = check_fit(slots, given, where, type(module).__name__, strict=strict)
    for name in found.loaded:
        slots[name].copy_(given[name])
    return found


def check_fit(
    slots: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    where: str,
    what: str,
    *,
    strict: bool = True,
    words: Words = CALL,
) -> Loaded:
    """Which of the tensors `given` have a place in `slots`, by name; nothing is put there.

    `where` and `what` are what messages call the two sides, `words` what they call the ways to make them fit. Returns
    and raises what `load_weights` does.
    """
    lazy = [name for name, slot in slots.items() if is_lazy(slot)]
    if lazy:
        raise UsageError(f"{_list(lazy)} of {what} has no shape yet: give the module a batch first")
    loaded = tuple(name for name in slots if name in given)
    unexpected = tuple(name for name in given if name not in slots)
    held = {id(slots[name]) for name in loaded}  # of tied weights one name is enough
    missing = tuple(name for name, slot in slots.items() if name not in given and id(slot) not in held)
    faults = [misfit(name, slots[name], given[name]) for name in loaded]
    _check(what, where, loaded, missing, unexpected, [fault for fault in faults if fault], strict, words)
    return Loaded(loaded, missing, unexpected)


def read_weights(source: str | Path | Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """The tensors of a source of `load_weights`, and what messages call it. Raises UsageError in one line."""
    if isinstance(source, Mapping):
        for name, value in source.items():
            if not isinstance(value, Tensor):
                remedy = f"give that alone, source[{name!r}]" if isinstance(value, Mapping) else "leave it out"
                raise UsageError(f"{name!r} in the given weights is no tensor but {type(value).__name__}: {remedy}")
        return source, "the given weights"
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(source).expanduser()
    if not path.is_file():
        raise UsageError(f"no file {source}{near_sibling(path)}: expected weights as safetensors")
    if path.suffix.lower() in PICKLED:
        raise UsageError(
            f"{source} is a pickled file, which can hold code, so it is not read: give load_weights "
            f"torch.load({str(source)!r}, weights_only=True) in its place"
        )
    try:
        return load_file(path), str(source)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{source} cannot be read as safetensors: {error}") from None


def renamed(tensors: Mapping[str, Tensor], mapping: Mapping[str, str | None], where: str) -> dict[str, Tensor]:
    """The tensors that are not left out, by the names that they are to have; see `load_weights`."""
    found: dict[str, Tensor] = {}
    first: dict[str, str] = {}
    used: set[str] = set()
    for name, tensor in tensors.items():
        prefix = max((each for each in mapping if name.startswith(each)), key=len, default=None)
        new: str | None = name
        if prefix is not None:
            used.add(prefix)
            begin = mapping[prefix]
            new = None if begin is None else begin + name[len(prefix) :]
        if new is None:
            continue
        if new in found:
            raise UsageError(f"mapping makes {new!r} of both {first[new]!r} and {name!r} in {where}")
        found[new], first[new] = tensor, name
    for prefix in mapping:
        if prefix not in used:
            raise UsageError(f"mapping has {prefix!r}, and no name in {where} begins so: it has {_list(tensors)}")
    return found


def misfit(name: str, slot: Tensor, value: Tensor) -> str:
    """Why `value` cannot be put into `slot`; empty where it can."""
    if slot.shape != value.shape:
        return f"{name!r} ({_shape(value)} there, {_shape(slot)} in the module)"
    exact = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    if slot.is_complex() != value.is_complex() or (slot.dtype in exact and value.dtype not in exact):
        return f"{name!r} ({value.dtype} there, {slot.dtype} in the module)"
    return ""


def _check(
    what: str,
    where: str,
    loaded: tuple[str, ...],
    missing: tuple[str, ...],
    unexpected: tuple[str, ...],
    faults: list[str],
    strict: bool,
    words: Words,
) -> None:
    """Raise UsageError where something is of another shape, names differ that must not, or nothing would be loaded."""
    names_matter = (strict or not loaded) and bool(missing or unexpected)
    if not faults and not names_matter:
        return
    said = [f"missing {_list(missing)}"] if names_matter and missing else []
    said += [f"unexpected {_list(unexpected)}"] if names_matter and unexpected else []
    said += [f"of another shape {_some(faults)}"] if faults else []
    remedies = [*_guess(missing, unexpected, words), words.leave_out] if unexpected or faults else []
    remedies += [words.partly] if strict and loaded and (words.by_shape or not faults) else []
    tail = f" ({', or '.join(remedies)})" if remedies else ""
    raise UsageError(f"{where} and {what} do not fit together: {'; '.join(said)}{tail}")


def _guess(missing: Iterable[str], unexpected: Iterable[str], words: Words) -> list[str]:
    """The mapping that would make two names equal, where one ends as the other."""
    for there in unexpected:
        for here in missing:
            if there.endswith(here):
                return [words.mapping.format(there.removesuffix(here), "")]
            if here.endswith(there):
                return [words.mapping.format("", here.removesuffix(there))]
    return [f"rename with {words.mapping.format('old.', 'new.')}"]


def _list(names: Iterable[str]) -> str:
    return _some([repr(name) for name in names])


def _some(words: list[str]) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more if words else "none"


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
