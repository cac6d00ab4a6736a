"""Prepared data: subjects in one HDF5 file, in dwi_ml's schema.

Root attributes `training_subjs`, `validation_subjs` and `testing_subjs` name the subjects of each split. A subject is a
group (a session is part of its name); in it each group says by its attribute `type` what it is:

    volume       `data` (x, y, z, f); attributes affine, voxres, nb_features
    streamlines  `data` (p, 3), `offsets`, `lengths`, `euclidean_lengths` (mm), `data_per_streamline`; attributes space,
                 origin, affine, dimensions, voxel_sizes, voxel_order; `connectivity_matrix` where there is one

Offsets may leave gaps and run in any order. The attribute `treadle_kind` of a volume is ours: `VolumeInfo.kind`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from treadle.data.fingerprint import Fingerprint
from treadle.errors import UsageError
from treadle.tracts.extras import why
from treadle.tracts.hdf5 import Version, handle, rows, version
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import Connectivity, LinesInfo, Subject, TractData, VolumeInfo
from treadle.tracts.volumes import differing

KIND = "treadle_kind"
"""The attribute that says a volume's kind."""

LABELS = "connectivity_label_volume"
"""The dataset, in a group of streamlines, of the labels behind its connectivity matrix."""

_GRID_TOLERANCE = 0.5
"""Millimetres: dwi_ml lets the grids of a subject differ by a thousandth of their distance from the origin."""

SPLITS = {"training": "training_subjs", "validation": "validation_subjs", "testing": "testing_subjs"}
"""The fields of TractData, and the attributes that name their subjects."""


def open_prepared(path: Path | str) -> TractData:
    """The subjects of a prepared file. Nothing but what describes them is read, until it is asked for.

    Raises UsageError, naming the file and the group, for what is no prepared file, and what does not fit together.
    """
    path = Path(path).resolve()
    known = version(path)
    file = handle(path, known)
    if not any(name in file.attrs for name in SPLITS.values()):
        raise UsageError(f"{path} is no prepared data: it has no list of subjects (treadle tracts prepare writes one)")
    named = {field: _names(file.attrs.get(name, ())) for field, name in SPLITS.items()}
    subjects: dict[str, Subject] = {}
    for name in dict.fromkeys(name for names in named.values() for name in names):
        if name not in file:
            raise UsageError(f"{path} lists the subject {name!r}, but does not hold it")
        subjects[name] = _subject(path, known, name, file[name])
    parts = {field: tuple(subjects[name] for name in names) for field, names in named.items()}
    return TractData(**parts, path=path)


def made_how(path: Path) -> str:
    """When and how a prepared file was made, in words that go on after its name; "" where it does not say."""
    attributes = handle(path, version(path)).attrs
    found = [f", made {_text(attributes['data_and_time'])}"] if "data_and_time" in attributes else []
    units = {"step_size": "steps of {:g} mm", "nb_points": "{:g} points a line", "compress": "compressed to {:g} mm"}
    for name, words in units.items():
        value = attributes.get(name)
        if isinstance(value, int | float | np.number):
            found.append(words.format(value))
    return ", ".join(found)


@dataclass(eq=False)
class PreparedSubject(Subject):
    """A subject in a prepared file, which each process opens once. It can be sent to another process.

    A process that opens the file when another one is in its place says so, by a UsageError.
    """

    path: Path
    version: Version
    """Of the file, when it was opened."""
    name: str
    volumes: Mapping[str, VolumeInfo]
    lines: Mapping[str, LinesInfo]
    offsets: Mapping[str, np.ndarray]
    """Per group of lines, (n,) int64: the row at which each line begins."""

    def volume(self, group: str) -> np.ndarray:
        """Read a volume; or the labels behind a connectivity matrix, which `Connectivity.labels` names."""
        data = self._labels(group) if group not in self.volumes else self._group(group)["data"]
        values = np.empty(data.shape, np.float32)
        if values.size:
            data.read_direct(values)
        return values if values.ndim == 4 else values[..., None]

    def streamlines(self, group: str, indices: np.ndarray | None = None) -> Streamlines:
        """Read lines: those asked for, and no others."""
        if group not in self.lines:
            raise self.unknown(group, "lines")
        info, opened = self.lines[group], self._group(group)
        chosen = np.arange(len(info.lengths)) if indices is None else np.asarray(indices)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        if len(chosen) and not (chosen.min() >= 0 and chosen.max() < len(info.lengths)):
            raise IndexError(f"{self.name}, {group!r} has {len(info.lengths)} lines, not {chosen.max() + 1}")
        lengths = info.lengths[chosen]
        points = rows(opened["data"], self.offsets[group][chosen], lengths)
        per_line: dict[str, np.ndarray] = {}
        for key in info.per_line:
            values = rows(opened["data_per_streamline"][key], chosen, np.ones(len(chosen), np.int64))
            per_line[key] = values.astype(np.float32).reshape(len(chosen), math.prod(values.shape[1:]))
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        return Streamlines(_to_corner(opened, points, info.space), offsets, per_line)

    def connectivity(self, group: str) -> Connectivity | None:
        """How many lines of `group` link which regions; what is stored of one triangle counts for both."""
        if group not in self.lines:
            raise self.unknown(group, "lines")
        opened = self._group(group)
        if "connectivity_matrix" not in opened:
            return None
        matrix = opened["connectivity_matrix"][()].astype(np.float64)
        blocs = opened.attrs.get("connectivity_nb_blocs")
        where = f"{self.path}, {self.name}/{group}"
        if matrix.ndim != 2 or len(matrix) != matrix.shape[1]:
            raise UsageError(f"{where}: the connectivity matrix has the shape {matrix.shape}: expected a square")
        matrix = np.maximum(matrix, matrix.T)
        if blocs is not None:
            x, y, z = np.broadcast_to(np.asarray(blocs, np.int64), 3).tolist()
            return Connectivity(matrix, blocs=(x, y, z))
        labels = opened.attrs.get(LABELS)
        if labels is None and LABELS not in opened:
            raise UsageError(f"{where}: nothing says which regions the connectivity matrix links")
        return Connectivity(matrix, labels=_text(labels) if labels is not None else f"{group}/{LABELS}")

    def regions(self, group: str) -> int:
        """How many regions the connectivity matrix of `group` links, without reading it; 0 where it has none."""
        opened = self._group(group)
        return len(opened["connectivity_matrix"]) if "connectivity_matrix" in opened else 0

    def fingerprint(self) -> str:
        """Over everything; the same as that of a `MemorySubject` that holds the same."""
        if not hasattr(self, "_digest"):
            spaces = [info.space for infos in (self.volumes, self.lines) for info in infos.values()]
            found = Fingerprint().add(self.name).add(spaces[0].affine if spaces else None)
            for group, volume in sorted(self.volumes.items()):
                found.add(group).add(volume.kind).add(self.volume(group))
            for group in sorted(self.lines):
                lines = self.streamlines(group)
                found.add(group).add(lines.points).add(lines.offsets)
                for key, values in sorted(lines.per_line.items()):
                    found.add(key).add(values)
            self._digest = found.hexdigest()
        return self._digest

    def _group(self, group: str) -> Any:
        return handle(self.path, self.version)[self.name][group]

    def _labels(self, group: str) -> Any:
        """The dataset of labels "GROUP/connectivity_label_volume"."""
        name, _, last = group.rpartition("/")
        if last != LABELS or name not in self.lines or LABELS not in self._group(name):
            raise self.unknown(group, "volumes")
        return self._group(name)[LABELS]


def _subject(path: Path, known: Version, name: str, opened: Any) -> PreparedSubject:
    volumes: dict[str, VolumeInfo] = {}
    lines: dict[str, LinesInfo] = {}
    offsets: dict[str, np.ndarray] = {}
    for group, inside in opened.items():
        where = f"{path}, {name}/{group}"
        kind = _text(inside.attrs.get("type", ""))
        try:
            if kind == "volume":
                volumes[group] = _volume(where, inside)
            elif kind == "streamlines":
                lines[group], offsets[group] = _lines(where, inside)
            else:
                raise UsageError(f"{where} is of type {kind!r}: expected 'volume' or 'streamlines'")
        except KeyError as error:
            raise UsageError(f"{where} is not as dwi_ml's schema has it: {why(error)}") from None
    _one_grid(path, name, {group: info.space for infos in (volumes, lines) for group, info in infos.items()})
    return PreparedSubject(path, known, name, volumes, lines, offsets)


def _one_grid(path: Path, name: str, spaces: Mapping[str, Space]) -> None:
    """Refuse a subject whose groups have several grids: points would be looked up in the wrong voxels."""
    groups = list(spaces)
    for group in groups[1:]:
        first, space = spaces[groups[0]], spaces[group]
        if not first.same(space, _GRID_TOLERANCE):
            raise UsageError(f"{path}, {name}/{group} has another grid than {groups[0]}: {differing(space, first)}")


def _volume(where: str, opened: Any) -> VolumeInfo:
    shape = opened["data"].shape
    if len(shape) not in (3, 4):
        raise UsageError(f"{where} has the shape {shape}: expected (x, y, z, features)")
    kind = _text(opened.attrs.get(KIND, ""))
    return VolumeInfo(_space(where, opened.attrs["affine"], shape[:3]), shape[3] if len(shape) == 4 else 1, kind)


def _lines(where: str, opened: Any) -> tuple[LinesInfo, np.ndarray]:
    attributes = opened.attrs
    space = _space(where, attributes["affine"], attributes["dimensions"])
    data = opened["data"]
    starts, lengths = (opened[name][()].astype(np.int64).reshape(-1) for name in ("offsets", "lengths"))
    if len(data.shape) != 2 or data.shape[1] != 3 or len(starts) != len(lengths):
        raise UsageError(f"{where} has points {data.shape}, {len(starts)} offsets and {len(lengths)} lengths")
    if len(starts) and (starts.min() < 0 or lengths.min() < 0 or (starts + lengths).max() > len(data)):
        raise UsageError(f"{where} has lines that reach beyond its {len(data)} points")
    for name, known in (("space", _SPACES), ("origin", _ORIGINS)):
        if name not in attributes:
            raise UsageError(f"{where} does not say its {name}: set its attribute {name!r}, as dwi_ml does today")
        _plain(where, attributes, name, known)
    names = []
    for key, values in opened.get("data_per_streamline", {}).items():
        if values.shape[:1] != (len(lengths),):
            raise UsageError(f"{where}: {key!r} has {values.shape[:1]} rows for {len(lengths)} lines")
        names.append(key)
    millimetres = opened["euclidean_lengths"][()].astype(np.float64).reshape(-1)
    if len(millimetres) != len(lengths):  # dwi_ml once counted lines that it then left out
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        packed = Streamlines(_to_corner(opened, rows(data, starts, lengths), space), offsets)
        millimetres = packed.millimetres(space.voxel_sizes)
    return LinesInfo(space, lengths, millimetres, tuple(names)), starts


_SPACES = ("vox", "voxmm", "rasmm")
_ORIGINS = ("trackvis", "corner", "nifti", "center")


def _to_corner(opened: Any, points: np.ndarray, space: Space) -> np.ndarray:
    """Points as stored, in voxel space with corner origin."""
    where = f"{opened.file.filename}, {opened.name[1:]}"
    kind = _plain(where, opened.attrs, "space", _SPACES)
    corner = _plain(where, opened.attrs, "origin", _ORIGINS) in ("trackvis", "corner")
    if kind == "vox" and corner:
        return points.astype(np.float32, copy=False)
    # In dipy, whose words these are, an origin at the corner moves points by half a voxel in every space.
    moved = points.astype(np.float64)
    if kind == "rasmm":
        return (space.from_world(moved) - (0.5 if corner else 0)).astype(np.float32)
    return (moved / (space.voxel_sizes if kind == "voxmm" else 1) + (0 if corner else 0.5)).astype(np.float32)


def _plain(where: str, attributes: Any, name: str, known: tuple[str, ...]) -> str:
    """dipy's "Space.VOX" or "vox" as "vox"."""
    text = _text(attributes[name]).lower().rpartition(".")[2]
    if text not in known:
        raise UsageError(f"{where} has the {name} {text!r}: expected one of {', '.join(known)}")
    return text


def _space(where: str, affine: Any, shape: Any) -> Space:
    try:
        x, y, z = (int(size) for size in shape)
        return Space(np.asarray(affine, np.float64), (x, y, z))
    except (UsageError, ValueError, TypeError) as error:
        raise UsageError(f"{where}: {error}") from None


def _names(values: Any) -> list[str]:
    return [_text(value) for value in np.atleast_1d(values)]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
