"""The volumes of a subject that is prepared: read, fitted, checked and standardized."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from treadle.errors import UsageError
from treadle.tracts.gradients import read_gradients
from treadle.tracts.prepare_config import DwiSource, VolumeGroup
from treadle.tracts.prepare_folder import Grid, SubjectFolder
from treadle.tracts.signal.harmonics import fit_harmonics
from treadle.tracts.signal.tensor import fit_tensors, normalised
from treadle.tracts.volumes import NIFTI, read_volume


def build_volume(group: VolumeGroup, folder: SubjectFolder, grid: Grid, *, zero: bool) -> tuple[np.ndarray, str, int]:
    """Make a group's volume.

    Args:
        group: what to make.
        folder: has the files.
        grid: of the subject.
        zero: whether values that are NaN or infinite become 0, which else are refused.

    Returns:
        The values (x, y, z, f) float32, their kind (see `VolumeInfo`), and in how many voxels some were set to 0.
    """
    std_mask = _mask(folder.find(group.std_mask, NIFTI), grid) if group.std_mask else None
    if group.source is not None:
        values, kind, bad = _made(group.source, folder, grid, zero)
        parts = [values]
    else:
        parts, kind, bad = [], "", 0
        for path in folder.find(group.files, NIFTI):
            values, count = _read(path, grid, zero)
            parts.append(values)
            bad += count
    where = f"the group {group.name!r}"
    if group.standardization == "per_file":
        parts = [standardized(part, std_mask, where=where) for part in parts]
    whole = np.concatenate(parts, axis=3) if len(parts) > 1 else parts[0]
    if group.standardization in ("all", "independent"):
        whole = standardized(whole, std_mask, independent=group.standardization == "independent", where=where)
    # Numbers that were shifted do not turn as tensors and harmonics do.
    return whole, kind if group.standardization == "none" else "", bad


def standardized(
    values: np.ndarray, mask: np.ndarray | None, *, independent: bool = False, where: str = "the volume"
) -> np.ndarray:
    """Values (x, y, z, f) less their mean, divided by their standard deviation, float32; outside of the mask, too.

    Args:
        values: any real dtype.
        mask: (x, y, z) bool, where mean and deviation are measured; None: where no value is 0.
        independent: each feature by its own mean and deviation.
        where: what the UsageError for a mask without any voxel names.
    """
    chosen = values[(values != 0).all(axis=3) if mask is None else mask].astype(np.float64)
    if len(chosen) == 0:
        what = "no voxel without a 0" if mask is None else "no voxel in its std_mask"
        raise UsageError(f"{where} cannot be standardized: there is {what}")
    mean, deviation = chosen.mean(axis=0 if independent else None), chosen.std(axis=0 if independent else None)
    return np.asarray((values - mean) / np.where(deviation == 0, 1, deviation), np.float32)


def _read(path: Path, grid: Grid, zero: bool) -> tuple[np.ndarray, int]:
    """The values of a file, and in how many voxels some were not finite."""
    values, space = read_volume(path)
    grid.check(path, space)
    good = np.isfinite(values)
    bad = int((~good.all(axis=3)).sum())
    if bad and not zero:
        raise UsageError(f"{path} has {bad} voxels that are NaN or infinite (--bad-voxels zero sets them to 0)")
    return (np.where(good, values, 0) if bad else values), bad


def _made(source: DwiSource, folder: SubjectFolder, grid: Grid, zero: bool) -> tuple[np.ndarray, str, int]:
    path = folder.one(source.dwi, NIFTI)
    values, bad = _read(path, grid, zero)
    assert grid.space is not None
    tables = [folder.one(name) for name in source.gradients]
    gradients = read_gradients(tables[0], tables[1] if len(tables) > 1 else None, grid.space)
    if len(gradients.bvalues) != values.shape[3]:
        raise UsageError(f"{path} has {values.shape[3]} volumes, but {tables[0]} {len(gradients.bvalues)} b-values")
    kind = source.made if source.made != "dwi" else ""
    try:
        if source.made == "sh":
            values = fit_harmonics(values, gradients.bvalues, gradients.directions, source.order, shell=source.shell)
        elif source.made == "tensor":
            values = fit_tensors(values, gradients.bvalues, gradients.directions)
            values = normalised(values) if source.normalised else values
    except UsageError as error:
        raise UsageError(f"{path} cannot be fitted: {error}") from None
    if source.mask:
        values = np.where(_mask(folder.find(source.mask, NIFTI), grid)[..., None], values, 0)
    return np.asarray(values, np.float32), kind, bad


def _mask(paths: Sequence[Path], grid: Grid) -> np.ndarray:
    """(x, y, z) bool: where any of the files is above 0."""
    found = [_read(path, grid, zero=True)[0] for path in paths]
    return np.asarray(np.logical_or.reduce([(values > 0).any(axis=3) for values in found]))
