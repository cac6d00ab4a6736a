"""Which views are trained on and which are held out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from treadle.errors import UsageError, nearest

_KINDS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Split:
    """Indices of views: validation and test are the same where only one set is held out."""

    train: list[int]
    validation: list[int]
    test: list[int]


def split_every(count: int, every: int) -> Split:
    """Hold out the first of every `every` views, as everyone does with views sorted by name; none where it is 0.

    Raises:
        UsageError: nothing would be left to train on, or a negative number.
    """
    if every < 0 or every == 1:
        raise UsageError(
            f"every is {every}: expected 0, to hold out nothing, or 2 and more, to hold out every 2nd view"
        )
    held = [index for index in range(count) if every and index % every == 0]
    return Split([index for index in range(count) if not every or index % every], held, held)


def split_lists(names: Sequence[str], lists: Mapping[str, str | Path]) -> Split:
    """Split by text files with a picture's name per line; empty lines and those that begin with # are left out.

    A name may lack its folder or its ending where it is clear all the same. What no list names is trained on where
    there is no list of training views, held out where there is no other list, and else left out.

    Raises:
        UsageError: a list that cannot be read or is empty, a name of no view or of several, a view that is trained on
            and held out.
    """
    if not lists:
        raise UsageError("lists is empty: expected files for train, test or both")
    for kind in lists:
        if kind not in _KINDS:
            raise UsageError(f"lists has {kind!r}{nearest(kind, _KINDS)}")
    read = {_KINDS[kind]: _read_list(Path(file)) for kind, file in lists.items()}
    sources = {_KINDS[kind]: str(file) for kind, file in lists.items()}
    return split_names(names, read, sources)


def split_names(names: Sequence[str], lists: Mapping[str, Sequence[str]], sources: Mapping[str, str]) -> Split:
    """Split by lists of names under "train", "validation" and "test"; `sources` says what to call each in an error."""
    known: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        for key in dict.fromkeys((name, *_short_forms(name))):
            known.setdefault(key, []).append(index)
    chosen = {kind: [_find(name, names, known, sources[kind]) for name in lists[kind]] for kind in lists}
    chosen = {kind: sorted(set(found)) for kind, found in chosen.items()}
    held = {index for kind in ("validation", "test") for index in chosen.get(kind, ())}
    if "train" not in chosen:
        chosen["train"] = [index for index in range(len(names)) if index not in held]
    elif len(chosen) == 1:
        chosen["test"] = sorted(set(range(len(names))) - set(chosen["train"]))
    both = sorted(held & set(chosen["train"]))
    if both:
        raise UsageError(
            f"{sources['train']} and another list both name {names[both[0]]}: a view is trained on or held out"
        )
    if not chosen["train"]:
        raise UsageError(f"{', '.join(sources.values())}: no view is left to train on: shorten the lists")
    validation = chosen.get("validation", chosen.get("test", []))
    return Split(chosen["train"], validation, chosen.get("test", validation))


def _short_forms(name: str) -> tuple[str, ...]:
    """The name without folder, without ending, and without both."""
    base = name.rpartition("/")[2]
    return base, os.path.splitext(name)[0], os.path.splitext(base)[0]


def _find(name: str, names: Sequence[str], known: Mapping[str, list[int]], source: str) -> int:
    exact = [index for index in known.get(name, ()) if names[index] == name]
    found = exact or known.get(name) or known.get(name.removeprefix("./")) or []
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{source} names {name!r}, which may be {names[found[0]]} or {names[found[1]]}: write it in full"
        )
    raise UsageError(f"{source} names {name!r}, which is none of {len(names)} views{_near(name, names)}")


def _near(name: str, names: Sequence[str]) -> str:
    near = nearest(name, names)
    return near if "did you mean" in near else f", such as {names[0]}" if names else ""


def _read_list(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError:
        raise UsageError(f"{file} is no text: expected the name of a picture in each line") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror or error}): check its name and permissions") from None
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise UsageError(f"{file} is empty: expected the name of a picture in each line")
    return names
