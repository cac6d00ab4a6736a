"""What to prepare: dwi_ml's config.json, and its lists of subjects.

    {
      "input": {"type": "volume", "files": ["dwi/*fodf.nii.gz"], "standardization": "all", "std_mask": ["mask.nii.gz"]},
      "signal": {"type": "volume", "dwi": "dwi.nii.gz", "bval": "dwi.bval", "bvec": "dwi.bvec", "as": "sh", "order": 6},
      "bundles": {"type": "streamlines", "files": ["bundles/*.trk"], "dps_keys": ["weight"]}
    }

Files are below a subject's folder; `*` stands for anything. A volume made from a diffusion scan is ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.errors import UsageError, nearest

STANDARDIZATIONS = ("none", "all", "independent", "per_file")


@dataclass(frozen=True)
class DwiSource:
    """A diffusion scan, and what is made of it."""

    dwi: str
    gradients: tuple[str, ...]
    """FSL's b-values and directions, or MRtrix's table alone."""
    made: str
    """ "sh", "tensor" or "dwi"."""
    order: int = 6
    """Of the spherical harmonics."""
    shell: float | None = None
    """The b-value of the shell that harmonics are fitted to; None: the only one."""
    normalised: bool = True
    """Whether tensors have the trace 1."""
    mask: tuple[str, ...] = ()
    """Voxels in none of these are 0."""


@dataclass(frozen=True)
class VolumeGroup:
    """A volume: files, one behind the other along the last axis, or made from a diffusion scan."""

    name: str
    files: tuple[str, ...] = ()
    source: DwiSource | None = None
    standardization: str = "none"
    std_mask: tuple[str, ...] = ()
    """Where mean and deviation are measured: in any of these; empty: where no value is 0."""


@dataclass(frozen=True)
class LinesGroup:
    """Streamlines: the lines of all files together."""

    name: str
    files: tuple[str, ...]
    dps_keys: tuple[str, ...] = ()
    """What is kept of what files know of each line."""
    connectivity_matrix: str = ""
    """A .npy file."""
    blocs: tuple[int, int, int] | None = None
    """The volume was cut into so many, each a region of the matrix."""
    labels: str = ""
    """The volume whose labels are the matrix's regions."""


@dataclass(frozen=True)
class PrepareConfig:
    """The groups that each subject gets."""

    volumes: tuple[VolumeGroup, ...]
    lines: tuple[LinesGroup, ...]
    text: Mapping[str, Any]
    """As it stood in the file."""


def read_config(path: Path) -> PrepareConfig:
    """Read a config.json. Raises UsageError that names the file, the group and the key."""
    try:
        text = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from None
    if not isinstance(text, dict) or not text:
        raise UsageError(f"{path}: expected groups by name, each with its type and files")
    return parse_config(text, str(path))


def parse_config(text: Mapping[str, Any], where: str = "config") -> PrepareConfig:
    """Take the groups from what a config.json holds. Raises UsageError that begins with `where`."""
    volumes, lines = [], []
    for name, entries in text.items():
        group = _Entries(f"{where}, {name!r}", entries)
        if not name or "/" in name or name.strip(".") == "":
            raise UsageError(f"{where}: {name!r} cannot name a group")
        match group.one_of("type", ("volume", "streamlines")):
            case "volume":
                volumes.append(_volume(name, group))
            case _:
                lines.append(_lines(name, group))
        group.finish()
    return PrepareConfig(tuple(volumes), tuple(lines), text)


def read_subjects(path: Path | None) -> list[str]:
    """The subjects that a text file names, one or more in a line. Raises UsageError for one that is there twice."""
    if path is None:
        return []
    try:
        names = path.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{path} names {twice[0]} twice")
    return names


def _volume(name: str, group: _Entries) -> VolumeGroup:
    standardization = group.one_of("standardization", STANDARDIZATIONS, "none")
    std_mask = group.texts("std_mask", ())
    if "dwi" not in group:
        return VolumeGroup(name, group.texts("files"), None, standardization, std_mask)
    gradients = group.texts("gradients") if "gradients" in group else (group.text("bval"), group.text("bvec"))
    if "gradients" in group and len(gradients) != 1:
        group.refuse("gradients", "one file, MRtrix's table")
    made = group.one_of("as", ("sh", "tensor", "dwi"))
    source = DwiSource(
        group.text("dwi"),
        gradients,
        made,
        order=group.number("order", 6, whole=True) if made == "sh" else 6,
        shell=group.number("shell", None) if made == "sh" else None,
        normalised=group.flag("normalised", True) if made == "tensor" else True,
        mask=group.texts("mask", ()),
    )
    if source.order % 2:
        group.refuse("order", "an even number")
    return VolumeGroup(name, (), source, standardization, std_mask)


def _lines(name: str, group: _Entries) -> LinesGroup:
    files, dps_keys = group.texts("files"), group.texts("dps_keys", ())
    if "connectivity_matrix" not in group:
        return LinesGroup(name, files, dps_keys)
    if ("connectivity_nb_blocs" in group) == ("connectivity_labels" in group):
        raise UsageError(
            f"{group.where}: a connectivity_matrix needs connectivity_nb_blocs or connectivity_labels, one of both"
        )
    matrix = group.text("connectivity_matrix")
    if "connectivity_labels" in group:
        return LinesGroup(name, files, dps_keys, matrix, labels=group.text("connectivity_labels"))
    return LinesGroup(name, files, dps_keys, matrix, blocs=group.blocs("connectivity_nb_blocs"))


class _Entries:
    """The entries of a group: each is taken once, and what nobody takes is refused by name."""

    def __init__(self, where: str, entries: Any) -> None:
        if not isinstance(entries, dict):
            raise UsageError(f"{where}: expected its type and files")
        self.where, self._entries, self._known = where, entries, {"type"}

    def __contains__(self, key: str) -> bool:
        self._known.add(key)
        return key in self._entries

    def refuse(self, key: str, expected: str) -> None:
        """Raise the UsageError for the value of `key`."""
        raise UsageError(f"{self.where}: {key} is {json.dumps(self._entries.get(key))}: expected {expected}")

    def finish(self) -> None:
        """Refuse what nobody asked for."""
        for key in self._entries:
            if key not in self._known:
                raise UsageError(f"{self.where}: unknown key {key!r}{nearest(key, self._known)}")

    def text(self, key: str) -> str:
        """One text."""
        found = self.texts(key)
        if len(found) != 1:
            self.refuse(key, "one text")
        return found[0]

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """One text or several."""
        value = self._value(key, default)
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list | tuple) or not all(isinstance(item, str) and item for item in found):
            self.refuse(key, "one text or a list of texts")
        if not found and default is None:
            self.refuse(key, "one text or more")
        return tuple(found)

    def one_of(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        """One of some words."""
        value = self._value(key, default)
        if value not in choices:
            hint = nearest(value, choices) if isinstance(value, str) else ""
            self.refuse(key, f"one of {', '.join(choices)}{hint if 'mean' in hint else ''}")
        return str(value)

    def number(self, key: str, default: float | None, whole: bool = False) -> Any:
        """A number above 0."""
        value = self._value(key, default) if default is not None or key in self else None
        if value is not None and (
            not isinstance(value, int if whole else int | float) or isinstance(value, bool) or value <= 0
        ):
            self.refuse(key, "a whole number above 0" if whole else "a number above 0")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            self.refuse(key, "true or false")
        return bool(value)

    def blocs(self, key: str) -> tuple[int, int, int]:
        """A whole number, or three."""
        value = self._value(key, None)
        found = value if isinstance(value, list) else [value]
        found = found * 3 if len(found) == 1 else found
        if len(found) != 3 or not all(type(count) is int and count > 0 for count in found):
            self.refuse(key, "a whole number above 0, or three")
        return found[0], found[1], found[2]

    def _value(self, key: str, default: Any) -> Any:
        if key not in self:
            if default is None:
                raise UsageError(f"{self.where} has no {key!r}{self._near(key)}")
            return default
        return self._entries[key]

    def _near(self, key: str) -> str:
        hint = nearest(key, [name for name in self._entries if name not in self._known])
        return f" (it has {hint.split(chr(39))[1]!r})" if "mean" in hint else ""
