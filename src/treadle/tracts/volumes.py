"""Volumes in NIfTI files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from treadle.errors import UsageError
from treadle.files import reason, write_whole
from treadle.tracts.extras import extra, why
from treadle.tracts.space import Space

NIFTI = (".nii", ".nii.gz")


def is_nifti(path: Path) -> bool:
    """Whether a file's name ends as NIfTI's do."""
    return path.name.lower().endswith(NIFTI)


def read_volume(path: Path) -> tuple[np.ndarray, Space]:
    """Read a NIfTI file: the values (x, y, z, f) float32, scaled as its header says, and the grid.

    Axes stay as they are stored, whatever way they run; the affine (the sform where there is one, else the qform) says
    where they lead. One value per voxel gives f = 1. Raises UsageError, naming the file, for one that is damaged, is
    no NIfTI or has not three or four axes.
    """
    nibabel = extra("nibabel", "reading NIfTI")
    _is_file(path)
    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Pair | nibabel.Nifti2Pair):
            raise TypeError(f"it is {type(image).__name__}, not NIfTI")
        values = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"), np.float32)
        affine = image.affine
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file makes of its reader
        raise UsageError(f"{path} cannot be read as NIfTI: {why(error)}") from None
    if values.ndim == 5 and values.shape[3] == 1:  # vectors, as the standard has them
        values = values[:, :, :, 0]
    if values.ndim == 3:
        values = values[..., None]
    if values.ndim != 4 or 0 in values.shape:
        raise UsageError(f"{path} has the shape {values.shape}: expected three axes, or four")
    return np.ascontiguousarray(values), _space(path, affine, values.shape[:3])


def read_space(path: Path) -> Space:
    """The grid of a NIfTI file, from its header alone. Raises UsageError as `read_volume` does."""
    nibabel = extra("nibabel", "reading NIfTI")
    _is_file(path)
    try:
        image = nibabel.load(path)
        affine, shape = image.affine, (*image.shape, 1, 1)[:3]
    except Exception as error:
        raise UsageError(f"{path} cannot be read as NIfTI: {why(error)}") from None
    return _space(path, affine, shape)


def write_volume(path: Path, values: np.ndarray, space: Space) -> None:
    """Write values (x, y, z) or (x, y, z, f) as float32 NIfTI, whole or not at all; `.nii.gz` is compressed.

    The same values give the same bytes. Raises UsageError for another ending, values that do not fit the grid, or a
    file that cannot be written.
    """
    nibabel = extra("nibabel", "writing NIfTI")
    if not is_nifti(path):
        raise UsageError(f"{path}: expected a name that ends in .nii or .nii.gz")
    if values.ndim not in (3, 4) or values.shape[:3] != space.shape:
        raise UsageError(f"{path}: values of the shape {values.shape} do not fit a grid of {space.shape}")
    image = nibabel.Nifti1Image(np.asarray(values, np.float32), space.affine)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    try:
        write_whole(path, gzip.compress(content, 6, mtime=0) if path.name.lower().endswith(".gz") else content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {reason(error)}") from None


def differing(space: Space, other: Space) -> str:
    """In what two grids differ, in words."""
    if space.shape != other.shape:
        return f"{'x'.join(map(str, space.shape))} voxels, not {'x'.join(map(str, other.shape))}"
    return f"its affine differs by up to {np.abs(space.affine - other.affine).max():.3g}"


def _space(path: Path, affine: np.ndarray, shape: tuple[int, ...]) -> Space:
    try:
        return Space(affine, (shape[0], shape[1], shape[2]))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _is_file(path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
