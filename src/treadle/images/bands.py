"""Pictures of any number of channels in their own depth: NPY files, TIFFs of many bands or pages, and all others.

What `read_array` reads is read by it. Beside that, channels are the third axis of an array in an NPY file, and the
bands of a TIFF, times its pages where there are several of one size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError, one_line
from treadle.images.reading import (
    ORIENTATION,
    BadPicture,
    check_size,
    identified,
    is_sixteen_bit_colour,
    magic,
    opened,
    orientation_of,
    read_array,
    turned,
)

if TYPE_CHECKING:
    from PIL import Image

Kind = Literal["uint8", "uint16", "float32"]

EXACT = 1 << 24
"""The largest whole number up to which float32 holds all of them."""

_NPY, _TIFF = b"\x93NUM", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SAMPLES = 277
"""The tag of a TIFF that says how many bands it has."""


@dataclass(frozen=True)
class Header:
    """What a file says about its picture: as `read_bands` gives it, without its pixels."""

    height: int
    width: int
    channels: int
    dtype: Kind


def read_header(path: str | Path) -> Header:
    """Shape and type of the picture in a file. Raises as `read_bands`, but for damaged pixels."""
    path = Path(path)
    with opened(path) as file:
        start = magic(file)
        if start == _NPY:
            values = _mapped(path)
            height, width, channels = _shape(path, values.shape)
            return Header(height, width, channels, _kind(path, values.dtype))
        if start in _TIFF and not _is_plain(file):
            with _tiff(path) as series:
                height, width, channels = _tiff_shape(path, series)
                return Header(height, width, channels, _kind(path, series.dtype))
        image = identified(file)
        if image is None:  # EXR, HDR, PFM: floats. How many channels they have their readers know.
            height, width, channels = read_array(path).shape
            return Header(height, width, channels, "float32")
        with image:
            check_size(path, *image.size)
            height, width = image.size[:: 1 if orientation_of(image) >= 5 else -1]
            return Header(height, width, *_pillow_kind(image, file))


def read_bands(path: str | Path) -> NDArray[Any]:
    """Read a picture with all its channels: (height, width, channels) uint8, uint16 or float32.

    Whole numbers of other types, and floats of others, become float32; true and false 255 and 0.

    Raises:
        BadPicture: as `read_array`; numbers that are not finite, or that float32 cannot hold.
        UsageError: a package that this format needs is not installed.
    """
    path = Path(path)
    with opened(path) as file:
        start = magic(file)
        if start == _NPY:
            values = _mapped(path)
            return _plain(path, np.array(values).reshape(_shape(path, values.shape)))
        if start in _TIFF and not _is_plain(file):
            with _tiff(path) as series:
                check_size(path, *_tiff_shape(path, series)[1::-1])
                return _plain(path, _stacked(path, series))
    return _plain(path, read_array(path))


def _plain(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    """`values` as uint8, uint16 or float32."""
    kind = _kind(path, values.dtype)
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind in "iu" and kind == "float32" and np.abs(values.astype(np.float64)).max() > EXACT:
        raise BadPicture(path, f"holds whole numbers beyond {EXACT}, which floats round", "store it as floats")
    found: NDArray[Any] = np.ascontiguousarray(values, kind)
    if found.dtype.kind == "f" and not (finite := np.isfinite(found)).all():
        bad = found.size - int(finite.sum())
        raise BadPicture(path, f"has {bad} values that are NaN or infinite", "replace them with finite ones")
    return found


def _kind(path: Path, dtype: np.dtype[Any]) -> Kind:
    if dtype == np.bool_ or dtype == np.uint8:
        return "uint8"
    if dtype == np.uint16:
        return "uint16"
    if dtype.kind in "iuf":
        return "float32"
    raise BadPicture(path, f"holds values of type {dtype}", "store numbers of 8 or 16 bits, or floats")


# NPY: arrays --------------------------------------------------------------------------------------------------------


def _mapped(path: Path) -> NDArray[Any]:
    """The array in an NPY file, not yet read."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise BadPicture(path, f"is damaged, or no array of numbers ({one_line(error)})") from None


def _shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels of an array."""
    if len(shape) not in (2, 3) or 0 in shape:
        raise BadPicture(path, f"holds an array of shape {shape}; expected (H, W) or (H, W, channels)", "store it so")
    check_size(path, shape[1], shape[0])
    return shape[0], shape[1], shape[2] if len(shape) == 3 else 1


# TIFF: bands and pages ----------------------------------------------------------------------------------------------


def _is_plain(file: IO[bytes]) -> bool:
    """Whether Pillow, which `read_array` asks first, sees all there is in a TIFF."""
    image = identified(file)
    if image is None:
        return False
    with image:
        samples = image.tag_v2.get(_SAMPLES, 1)  # type: ignore[attr-defined]
        several = getattr(image, "n_frames", 1) > 1
        palette = image.mode in ("P", "PA")
        return not several and (palette or samples <= len(image.getbands())) and image.mode != "I"


@contextmanager
def _tiff(path: Path) -> Iterator[Any]:
    """The first series of a TIFF: a picture, or pages of one size."""
    try:
        import tifffile
    except ImportError:
        raise UsageError(f"reading {path} needs tifffile: install it with: pip install 'treadle[gans]'") from None
    with tifffile.TiffFile(path) as file:
        yield file.series[0]


def _tiff_shape(path: Path, series: Any) -> tuple[int, int, int]:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    if "Y" not in sizes or "X" not in sizes or 0 in series.shape:
        raise BadPicture(path, f"has the axes {series.axes}; expected height and width", "save it as pictures")
    height, width = sizes.pop("Y"), sizes.pop("X")
    channels = int(np.prod([*sizes.values()]))
    return (width, height, channels) if _orientation(series) >= 5 else (height, width, channels)


def _stacked(path: Path, series: Any) -> NDArray[Any]:
    try:
        values = series.asarray()
    except ValueError as error:
        if "imagecodecs" in str(error):
            name = series.keyframe.compression.name
            raise BadPicture(
                path, f"is compressed with {name}", "save it with deflate, or pip install imagecodecs"
            ) from None
        raise
    axes = series.axes
    order = [axes.index("Y"), axes.index("X"), *(axis for axis, name in enumerate(axes) if name not in "YX")]
    values = values.transpose(order)
    return turned(values.reshape(*values.shape[:2], -1), _orientation(series))


def _orientation(series: Any) -> int:
    tag = series.keyframe.tags.get(ORIENTATION)
    return 1 if tag is None else int(tag.value)


# All others ---------------------------------------------------------------------------------------------------------


def _pillow_kind(image: Image.Image, file: IO[bytes]) -> tuple[int, Kind]:
    """The channels and the type of what `read_array` makes of it."""
    mode = image.mode
    if mode == "F":
        return 1, "float32"
    if mode[0] == "I":
        return 1, "uint16"
    alpha = "transparency" in image.info or mode in ("LA", "La", "PA", "RGBA", "RGBa")
    channels = 4 if alpha else 1 if mode in ("1", "L") else 3
    return channels, "uint16" if is_sixteen_bit_colour(image, file) else "uint8"
