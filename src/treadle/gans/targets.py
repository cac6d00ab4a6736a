"""Which file the result of each picture becomes: its folder, its name and its format."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from treadle.errors import UsageError, nearest
from treadle.gans.translator import Translator
from treadle.gans.values import Array, as_dtype
from treadle.images.folders import pictures_below
from treadle.images.writing import DEEP, holds, who_holds

FORMATS = {"png": ".png", "jpg": ".jpg", "tiff": ".tif", "webp": ".webp", "bmp": ".bmp", "npy": ".npy"}
"""What a format may be called, and how its files end."""

_ALIKE = {".jpeg": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}
_LOSSLESS = (".png", ".tif")
"""What is taken where a picture's own format cannot be written or cannot hold the result."""


def targets_of(source: Path, out: Path, format: str | None, translator: Translator) -> dict[Path, Path]:
    """The pictures in `source`, a file or a folder, and where the result of each goes.

    Args:
        source: where the pictures are.
        out: a folder, or for a single picture also a file; neither has to be there.
        format: one of `FORMATS`, or None for each picture's own.
        translator: what makes the results.

    Raises UsageError where there is no picture, or a result would replace an input or another result.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"format is {format!r}{nearest(format, FORMATS)}")
    if source.is_dir():
        if os.path.realpath(out) == os.path.realpath(source):
            raise UsageError(f"{out} is the folder of the pictures: choose another one for the results")
        if os.path.lexists(out) and not out.is_dir():
            raise UsageError(f"{out} is no folder: name one for the results")
        targets = {path: out / path.relative_to(source) for path in pictures_below(source, leaving_out=out)}
    elif out.suffix.lower() in DEEP and not out.is_dir():
        if format is not None and not out.name.endswith(FORMATS[format]):
            raise UsageError(f"the result is called {out}, and its format {format}: leave out one of them")
        return _checked({source: out.with_suffix(_ending(out, None, translator, chosen=True))})
    else:
        targets = {source: out / source.name}
    return _checked({path: target.with_suffix(_ending(path, format, translator)) for path, target in targets.items()})


def _ending(path: Path, format: str | None, translator: Translator, chosen: bool = False) -> str:
    """How a result's name ends: as `path`, unless there is a `format`, or that cannot hold it and was not chosen."""
    own, channels = path.suffix, translator.outputs.channels
    dtype = translator.outputs.dtype if translator.fixed else "uint8"
    wanted = own.lower() if format is None else FORMATS[format]
    if holds(wanted, dtype, channels):
        return own if wanted == _ALIKE.get(own.lower(), own.lower()) or format is None else wanted
    if chosen or format is not None:
        raise UsageError(
            f"{wanted} files cannot hold what the model makes, {translator.outputs.describe()}: "
            f"take {who_holds(dtype, channels)}"
        )
    return next(ending for ending in _LOSSLESS if holds(ending, dtype, channels))


def _checked(targets: dict[Path, Path]) -> dict[Path, Path]:
    """`targets`, if none of them is one of the pictures, or that of another."""
    pictures, first = {os.path.realpath(path) for path in targets}, dict[Path, Path]()
    for path, target in targets.items():
        if os.path.join(os.path.realpath(target.parent), target.name) in pictures:
            raise UsageError(f"the result {target} would replace a picture: choose another folder for the results")
        if target in first:
            raise UsageError(f"{first[target]} and {path} would both become {target}: rename one of them")
        first[target] = path
    return targets


def fitting(picture: Array, ending: str) -> Array:
    """A result as a file with this ending holds it: with fewer bits, or without alpha, where there is no room."""
    kinds = DEEP[ending]
    if picture.dtype.name not in kinds:
        picture = as_dtype(picture, kinds[-1])  # type: ignore[arg-type]
    if picture.shape[2] in (2, 4) and not holds(ending, picture.dtype.name, picture.shape[2]):
        picture = np.ascontiguousarray(picture[:, :, :-1])
    return picture
