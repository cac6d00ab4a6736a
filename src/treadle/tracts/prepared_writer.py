"""Writing prepared data: subjects into one HDF5 file, in dwi_ml's schema (see `prepared`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from treadle.errors import UsageError
from treadle.tracts.extras import extra
from treadle.tracts.hdf5 import written
from treadle.tracts.prepared import KIND, LABELS, SPLITS
from treadle.tracts.subject import Subject, TractData

_UNSET = "Not defined by user"


@dataclass(frozen=True)
class Origins:
    """What a prepared file says of how it was made; none of it is needed to read it."""

    groups_config: Mapping[str, Any] = field(default_factory=dict)
    step_size: float | None = None
    """Millimetres between the points of streamlines."""
    nb_points: int | None = None
    """Points of each streamline."""
    compress: float | None = None
    """Millimetres that compressed streamlines may be off."""


def write_prepared(path: Path, data: TractData, origins: Origins | None = None) -> None:
    """Write the subjects of `data` as a prepared file, whole or not at all.

    Raises UsageError where two subjects have one name, RunError where the disk refuses the file.
    """
    splits = {field: [subject.name for subject in getattr(data, field)] for field in SPLITS}
    seen: dict[str, Subject] = {}
    with prepared_writer(path, splits, origins or Origins()) as add:
        for subject in (*data.training, *data.validation, *data.testing):
            if subject.name not in seen:
                add(subject)
            elif seen[subject.name] is not subject:
                raise UsageError(f"two subjects have the name {subject.name!r}")
            seen[subject.name] = subject


@contextmanager
def prepared_writer(
    path: Path, splits: Mapping[str, Sequence[str]], origins: Origins
) -> Iterator[Callable[[Subject], None]]:
    """A function that adds a subject to the file that is at `path` after the block; so one is in memory at a time.

    Args:
        path: replaced whole, or left as it is where anything fails.
        splits: "training", "validation" and "testing": the names of their subjects.
        origins: what the file says of how it was made.
    """
    h5py = extra("h5py", "writing prepared data")
    with written(path) as file:
        attributes = file.attrs
        names = {field: list(splits.get(field, ())) for field in SPLITS}
        text = h5py.string_dtype()
        attributes["data_and_time"] = datetime.now().strftime("%d %B %Y %X")
        attributes["chosen_subjs"] = np.array(list(dict.fromkeys(chain(*names.values()))), text)
        attributes["groups_config"] = str(dict(origins.groups_config))
        for split, attribute in SPLITS.items():
            attributes[attribute] = np.array(names[split], text)
        for name in ("step_size", "nb_points", "compress"):
            value = getattr(origins, name)
            attributes[name] = _UNSET if value is None else value
        yield lambda subject: _add(file, subject)


def _add(file: Any, subject: Subject) -> None:
    if subject.name in file or "/" in subject.name or not subject.name.strip("."):
        raise UsageError(f"a subject cannot have the name {subject.name!r}, or has it twice")
    opened = file.create_group(subject.name)
    for group, volume in subject.volumes.items():
        inside = opened.create_group(group)
        inside.create_dataset("data", data=subject.volume(group).astype(np.float32, copy=False))
        inside.attrs["type"] = "volume"
        inside.attrs["affine"] = volume.space.affine
        inside.attrs["voxres"] = volume.space.voxel_sizes
        inside.attrs["nb_features"] = volume.features
        if volume.kind:
            inside.attrs[KIND] = volume.kind
    for group in subject.lines:
        _add_lines(opened.create_group(group), subject, group)


def _add_lines(inside: Any, subject: Subject, group: str) -> None:
    nibabel = extra("nibabel", "writing prepared data")
    info, lines = subject.lines[group], subject.streamlines(group)
    attributes = inside.attrs
    attributes["type"] = "streamlines"
    attributes["space"], attributes["origin"] = "Space.VOX", "Origin.TRACKVIS"
    attributes["affine"] = info.space.affine
    attributes["dimensions"] = np.array(info.space.shape)
    attributes["voxel_sizes"] = info.space.voxel_sizes
    attributes["voxel_order"] = "".join(nibabel.aff2axcodes(info.space.affine))
    inside.create_dataset("data", data=lines.points)
    inside.create_dataset("offsets", data=lines.offsets[:-1])
    inside.create_dataset("lengths", data=lines.lengths)
    inside.create_dataset("euclidean_lengths", data=lines.millimetres(info.space.voxel_sizes))
    kept = inside.create_group("data_per_streamline")
    for name, values in lines.per_line.items():
        kept.create_dataset(name, data=values.astype(np.float32, copy=False))
    found = subject.connectivity(group)
    if found is not None:
        # 8,000 regions are usual, and few of them linked.
        inside.create_dataset("connectivity_matrix", data=found.matrix.astype(np.float32), compression=1, shuffle=True)
        attributes["connectivity_matrix_type"] = "from_labels" if found.blocs is None else "from_blocs"
        if found.blocs is not None:
            attributes["connectivity_nb_blocs"] = list(found.blocs)
        else:
            inside.create_dataset(LABELS, data=np.rint(subject.volume(found.labels)[..., 0]).astype(np.int64))
