"""Streamlines in TRK (TrackVis), TCK (MRtrix) and TRX files.

All three are read into voxel space with corner origin, and written from it: TRK keeps points in millimetres from the
volume's corner, TCK and TRX in RAS+ millimetres. TRK and TRX say which grid they belong to; TCK does not.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from treadle.errors import UsageError
from treadle.files import reason, write_whole
from treadle.tracts.extras import extra, why
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.trx import read_trx, trx_bytes
from treadle.tracts.volumes import differing, is_nifti, read_space

FORMATS = (".trk", ".tck", ".trx")


def read_streamlines(path: Path, reference: Path | Space | None = None) -> tuple[Streamlines, Space]:
    """Read a TRK, TCK or TRX file.

    Args:
        path: the file; its ending says which format it is.
        reference: the grid, or a NIfTI, TRK or TRX file that has it. TCK needs it; TRK and TRX must have the same.

    Returns:
        The lines, in voxel space with corner origin, with what the file knows of each line and each point as
        (n, k) and (p, k) float32; and their grid.

    Raises:
        UsageError: a file that is damaged, cut off or of another format; a reference that is missing or another grid.
    """
    kind = _kind(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    given = _grid(reference) if isinstance(reference, Path) else reference
    try:
        world, space, offsets, per_line, per_point = (read_trx if kind == ".trx" else _read_nibabel)(path)
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged file makes of its reader
        raise UsageError(f"{path} cannot be read as {kind[1:].upper()}: {why(error)}") from None
    if given is not None and space is not None and not given.same(space):
        named = f"{reference}" if isinstance(reference, Path) else "its volume"
        raise UsageError(f"{path} has another grid than {named}: {differing(space, given)}")
    grid = space or given
    if grid is None:
        raise UsageError(f"{path}: TCK does not say which grid it belongs to: give a NIfTI file as its reference")
    points = np.asarray(grid.from_world(world), np.float32)
    return Streamlines(points, offsets, _columns(per_line), _columns(per_point)), grid


def write_streamlines(path: Path, lines: Streamlines, space: Space) -> None:
    """Write a TRK, TCK or TRX file, whole or not at all; its ending says which.

    TCK has no room for what is known of lines and points; leaving that out gives a warning. Raises UsageError for
    another ending, a line without points, points that are no numbers, names that TRK cannot hold (18 characters, 10 of
    each kind), and a file that cannot be written.
    """
    kind = _kind(path)
    if (lines.lengths == 0).any():
        raise UsageError(f"{path}: streamline {int(np.argmin(lines.lengths))} has no points")
    if not np.isfinite(lines.points).all():
        raise UsageError(f"{path}: some points of the streamlines are NaN or infinite")
    world = space.to_world(lines.points)
    try:
        if kind == ".trx":
            content = trx_bytes(world, space, lines.offsets, lines.per_line, lines.per_point)
        else:
            content = _nibabel_bytes(path, kind, world, lines, space)
        write_whole(path, content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {reason(error)}") from None


_Read = tuple[np.ndarray, Space | None, np.ndarray, Mapping[str, Any], Mapping[str, Any]]
"""Points in RAS+ mm, the grid where the file says it, offsets, what is known of lines, of points."""


def _read_nibabel(path: Path) -> _Read:
    streamlines = extra("nibabel", "reading streamlines").streamlines
    format_class = streamlines.TrkFile if _kind(path) == ".trk" else streamlines.TckFile
    if not format_class.is_correct_format(str(path)):
        raise ValueError("it begins as no such file does")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = format_class.load(str(path))
    tractogram, header = file.tractogram, file.header
    space = None
    if format_class is streamlines.TrkFile:
        said = _promised(path)
        if said and len(tractogram) != said:
            raise ValueError(f"{len(tractogram)} of its {said} streamlines are there: is it cut off?")
        space = Space(header["voxel_to_rasmm"], tuple(header["dimensions"]))
    sequence = tractogram.streamlines
    per_point = {name: values.get_data() for name, values in tractogram.data_per_point.items()}
    offsets = np.concatenate(([0], np.cumsum([len(line) for line in sequence], dtype=np.int64)))
    return sequence.get_data().reshape(-1, 3), space, offsets, dict(tractogram.data_per_streamline), per_point


def _promised(path: Path) -> int:
    """How many streamlines a TRK's header says there are, 0 where it does not; nibabel tells what it has found."""
    with open(path, "rb") as file:
        header = file.read(1000)
    order: Literal["little", "big"] = "little" if int.from_bytes(header[996:], "little") == 1000 else "big"
    return int.from_bytes(header[988:992], order, signed=True)


def _nibabel_bytes(path: Path, kind: str, world: np.ndarray, lines: Streamlines, space: Space) -> bytes:
    nibabel = extra("nibabel", "writing streamlines")
    tracks = nibabel.streamlines

    def cut(values: np.ndarray) -> Any:
        sequence = tracks.ArraySequence()
        for first, last in zip(lines.offsets[:-1], lines.offsets[1:], strict=True):
            sequence.append(values[first:last], cache_build=True)
        sequence.finalize_append()
        return sequence

    header = None
    per_line, per_point = dict(lines.per_line), dict(lines.per_point)
    if kind == ".tck":
        if per_line or per_point:
            names = ", ".join(sorted([*per_line, *per_point]))
            warnings.warn(f"{path}: TCK holds points alone: {names} left out (TRK and TRX keep them)", stacklevel=4)
        per_line, per_point = {}, {}
    else:
        header = {
            "dimensions": space.shape,
            "voxel_to_rasmm": space.affine.astype(np.float32),
            "voxel_sizes": space.voxel_sizes.astype(np.float32),
            "voxel_order": "".join(nibabel.aff2axcodes(space.affine)),
        }
    buffer = io.BytesIO()
    try:
        tractogram = tracks.Tractogram(
            cut(world),
            data_per_streamline=per_line,
            data_per_point={name: cut(values) for name, values in per_point.items()},
            affine_to_rasmm=np.eye(4),
        )
        (tracks.TrkFile if kind == ".trk" else tracks.TckFile)(tractogram, header).save(buffer)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} cannot hold these streamlines: {why(error)}") from None
    return buffer.getvalue()


def _kind(path: Path) -> str:
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise UsageError(f"{path}: expected streamlines, a file that ends in .trk, .tck or .trx")
    return ending


def _grid(path: Path) -> Space:
    """The grid of the NIfTI, TRK or TRX file at `path`."""
    if is_nifti(path):
        return read_space(path)
    if path.suffix.lower() in (".trk", ".trx"):
        return read_streamlines(path)[1]
    raise UsageError(f"{path} has no grid: expected a NIfTI, TRK or TRX file as reference")


def _columns(tables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {name: np.asarray(values, np.float32) for name, values in tables.items()}
    return {name: values.reshape(len(values), math.prod(values.shape[1:])) for name, values in arrays.items()}
