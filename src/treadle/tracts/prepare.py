"""Preparing data for training: the files of many subjects into one HDF5 file.

Each subject is a folder below one root; `config.json` says which groups of files it has (see `prepare_config`), three
lists which subjects train, validate and test. As dwi_ml's `dwiml_create_hdf5_dataset` does it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from treadle.errors import RunError, UsageError, nearest
from treadle.tracts.files import FORMATS
from treadle.tracts.prepare_config import LinesGroup, PrepareConfig, VolumeGroup
from treadle.tracts.prepare_folder import Grid, SubjectFolder
from treadle.tracts.prepare_lines import LinesReport, Points, Policy, build_connectivity, build_lines
from treadle.tracts.prepare_volumes import build_volume
from treadle.tracts.prepared_writer import Origins, prepared_writer
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import Connectivity, MemorySubject
from treadle.tracts.volumes import NIFTI

Progress = Callable[[Sequence[str]], Iterable[str]]
"""Goes through the subjects' names, and shows how far it is."""


@dataclass
class Report:
    """What was prepared, and what was left out."""

    volumes: dict[tuple[str, str], int] = field(default_factory=dict)
    """By subject and group: voxels in which values were set to 0."""
    lines: dict[tuple[str, str], LinesReport] = field(default_factory=dict)
    """By subject and group: lines kept and removed."""
    missing: list[str] = field(default_factory=list)
    """Files that are not there, where that was allowed."""


def prepare(
    root: Path,
    out: Path,
    config: PrepareConfig,
    splits: Mapping[str, Sequence[str]],
    *,
    points: Points | None = None,
    invalid: Policy = "refuse",
    bad_voxels: Literal["refuse", "zero"] = "refuse",
    allow_missing: bool = False,
    overwrite: bool = False,
    progress: Progress = iter,
) -> Report:
    """Write the prepared file `out`, whole or not at all.

    Args:
        root: has a folder for each subject; "sub-01/ses-1" is a subject, too, and is called sub-01_ses-1 in the file.
        out: the HDF5 file.
        config: which groups each subject gets.
        splits: "training", "validation" and "testing": their subjects.
        points: which points streamlines get; None: their own.
        invalid: whether lines that cannot be learnt from (outside of the volume, of a single point, of no length) end
            it, are removed or are kept.
        bad_voxels: whether values that are NaN or infinite end it, or become 0.
        allow_missing: whether files may be missing; a group of which none is there is left out of that subject.
        overwrite: whether `out` may be there.
        progress: see `Progress`.

    Raises:
        UsageError: files that are missing, damaged or do not fit each other; lines and voxels that are refused.
        RunError: the disk refuses the file.
    """
    points = points or Points()
    if out.exists() and not overwrite:
        raise UsageError(f"{out} is there already: name another file, or replace it with --overwrite")
    if not out.parent.is_dir():
        raise UsageError(f"{out} cannot be written: there is no folder {out.parent}")
    folders = _folders(root, splits)
    report = Report()
    _check_presence(folders, config, report, allow_missing)
    keys = {split: [_key(name) for name in names] for split, names in splits.items()}
    origins = Origins(config.text, points.step_size, points.nb_points, points.compress)
    sizes: dict[str, tuple[int, str]] = {}
    with prepared_writer(out, keys, origins) as add:
        for name in progress(list(folders)):
            key = _key(name)
            try:
                subject = _build(
                    key, SubjectFolder(folders[name]), config, report, points, invalid, bad_voxels == "zero"
                )
            except MemoryError:
                raise RunError(f"{name} does not fit into memory") from None
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from None
            for group, info in subject.volumes.items():
                count, first = sizes.setdefault(group, (info.features, name))
                if info.features != count:
                    raise UsageError(
                        f"{name}: {group!r} has {info.features} values in each voxel, but that of {first} has {count}"
                    )
            add(subject)
    return report


def _build(
    key: str, folder: SubjectFolder, config: PrepareConfig, report: Report, points: Points, invalid: Policy, zero: bool
) -> MemorySubject:
    grid = Grid()
    volumes: dict[str, tuple[np.ndarray, str]] = {}
    lines: dict[str, Streamlines] = {}
    regions: dict[str, Connectivity] = {}
    for volume in config.volumes:
        if not _absent(volume, folder):
            values, kind, bad = build_volume(volume, folder, grid, zero=zero)
            volumes[volume.name], report.volumes[key, volume.name] = (values, kind), bad
    labels: dict[str, np.ndarray] = {}
    for group in config.lines:
        if _absent(group, folder):
            continue
        lines[group.name], report.lines[key, group.name] = build_lines(group, folder, grid, points, invalid)

        def add_labels(values: np.ndarray, name: str = group.name) -> str:
            labels[name] = values
            return name

        linked = build_connectivity(group, folder, grid, add_labels)
        if linked is not None:
            regions[group.name] = linked
    if grid.space is None:
        raise UsageError(f"nothing of it is in {folder.path}")
    return _Labelled(key, grid.space, volumes, lines, regions, labels)


@dataclass(eq=False)
class _Labelled(MemorySubject):
    """A subject whose labels of regions are no volume to learn from."""

    labels: Mapping[str, np.ndarray] = field(default_factory=dict)

    def volume(self, group: str) -> np.ndarray:
        """A volume, or labels by the name of their group of lines."""
        return self.labels[group] if group in self.labels else super().volume(group)


def _folders(root: Path, splits: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """The folder of each subject, in the order of the splits. Raises UsageError for one that is not there."""
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder")
    found: dict[str, Path] = {}
    for split, names in splits.items():
        for name in names:
            if name in found:
                warnings.warn(
                    f"{name} is in {split} and in a split before it: what it measures it has seen", stacklevel=3
                )
            if not (root / name).is_dir():
                there = [path.name for path in root.iterdir() if path.is_dir()]
                raise UsageError(f"{split}: {root} has no folder {name!r}{nearest(name, there)}")
            found[name] = root / name
    if not found:
        raise UsageError("the lists name no subject")
    keys = [_key(name) for name in found]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise UsageError(f"two subjects would have the name {min(twice)!r}")
    return found


def _key(name: str) -> str:
    """What a subject is called in the file: a session's folder is below its subject's."""
    return "_".join(Path(name).parts)


def _absent(group: VolumeGroup | LinesGroup, folder: SubjectFolder) -> bool:
    if isinstance(group, LinesGroup):
        return not folder.find(group.files, FORMATS)
    return not folder.find(group.files if group.source is None else [group.source.dwi], NIFTI)


def _check_presence(folders: Mapping[str, Path], config: PrepareConfig, report: Report, allow_missing: bool) -> None:
    """Look for every file, before any is read: hours may lie between the first and the last."""
    groups: list[VolumeGroup | LinesGroup] = [*config.volumes, *config.lines]
    for name, path in folders.items():
        for group in groups:
            for pattern, endings in _patterns(group):
                if not SubjectFolder(path).find([pattern], endings):
                    report.missing.append(f"{name}: {pattern} of the group {group.name!r}")
    if report.missing and not allow_missing:
        more = f", and {len(report.missing) - 1} more" if len(report.missing) > 1 else ""
        raise UsageError(f"no such file in {report.missing[0]}{more} (--allow-missing goes on without)")


def _patterns(group: VolumeGroup | LinesGroup) -> list[tuple[str, tuple[str, ...]]]:
    """The patterns of a group, each with how its files may end."""
    if isinstance(group, LinesGroup):
        known = [(name, FORMATS) for name in group.files]
        return [*known, *((name, ("",)) for name in (group.connectivity_matrix, group.labels) if name)]
    source = group.source
    own = group.files if source is None else (source.dwi, *source.mask)
    tables = () if source is None else source.gradients
    return [*((name, NIFTI) for name in (*own, *group.std_mask)), *((name, ("",)) for name in tables)]
