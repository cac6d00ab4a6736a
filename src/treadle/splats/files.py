"""Splats from a file of any format that is known here."""

from __future__ import annotations

from pathlib import Path

from treadle.errors import UsageError
from treadle.splats.cloud import Cloud
from treadle.splats.compressed_ply import read_compressed
from treadle.splats.ply import read_cloud
from treadle.splats.spz import read_spz

READERS = {".compressed.ply": read_compressed, ".ply": read_cloud, ".spz": read_spz}
"""What reads a file, by what its name ends in."""


def read_splats(path: str | Path) -> Cloud:
    """Read a cloud from a 3DGS PLY (or Pointrix's), a compressed PLY or an .spz file, as the file's name says.

    Raises:
        UsageError: another ending, or as the reader of that format.
    """
    name = Path(path).name.lower()
    for ending, read in READERS.items():
        if name.endswith(ending):
            return read(path)
    raise UsageError(f"{path}: splats are read from files that end in {', '.join(READERS)}")
