"""Pictures for fields: reading any format, showing what was fitted, writing panels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError

Array = NDArray[np.float32]

CHANNELS = {1: "gray", 3: "RGB", 4: "RGBA"}

_EXTRA = "install it with: pip install 'treadle[fields]'"


@dataclass(frozen=True)
class Picture:
    """A picture in memory.

    Attributes:
        values: (height, width, channels) float32; channels 1 (gray), 3 (RGB) or 4 (RGB and alpha, not premultiplied).
            Of integer formats in [0, 1] as stored (sRGB); of float formats the linear values as stored, any range.
        linear: whether the values come from a float format.
        name: what to call it: the file's path, or "astronaut".
    """

    values: Array
    linear: bool
    name: str

    def __post_init__(self) -> None:
        shape = self.values.shape
        if len(shape) != 3 or shape[2] not in CHANNELS:
            raise UsageError(f"{self.name}: shape {shape} is no picture: expected (height, width, channels), 1, 3 or 4")
        if 0 in shape:
            raise UsageError(f"{self.name}: a picture of {shape[1]} x {shape[0]} pixels has nothing to fit")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def channels(self) -> int:
        """1, 3 or 4."""
        return self.values.shape[2]


def default_picture() -> Picture:
    """The 512 x 512 photograph of astronaut Eileen Collins that scikit-image ships (public domain)."""
    try:
        from skimage import data
    except ImportError:
        raise UsageError(f"the default picture needs scikit-image: {_EXTRA}, or name a picture with --data") from None
    return Picture(data.astronaut().astype(np.float32) / np.float32(255), linear=False, name="astronaut")


def read_picture(path: str | Path) -> Picture:
    """Read a picture of 1, 3 or 4 channels: 8 or 16 bit PNG, JPEG, TIFF, WebP, BMP, PNM ..., float EXR, HDR and TIFF.

    Palettes are expanded, gray with alpha becomes RGB with alpha, EXIF orientation is applied; of several frames the
    first counts.

    Raises:
        UsageError: a file that is missing, empty, damaged or no picture; other channels or bit depths; values that are
            not finite; a package that is not installed. The message names the file and the remedy.
    """
    path = Path(path)
    content = _content(path)
    if path.suffix.lower() == ".exr" or content[:4] == b"\x76\x2f\x31\x01":
        return Picture(_finite(_read_exr(path), path), linear=True, name=str(path))
    values = _decoded(path, content)
    if values.dtype == np.uint8:
        return Picture(values.astype(np.float32) / np.float32(255), linear=False, name=str(path))
    if values.dtype == np.uint16:
        return Picture(values.astype(np.float32) / np.float32(65535), linear=False, name=str(path))
    if values.dtype in (np.float32, np.float64):
        return Picture(_finite(values.astype(np.float32), path), linear=True, name=str(path))
    raise UsageError(
        f"{path}: values of type {values.dtype} are not supported: convert it to 8 or 16 bit, or float EXR"
    )


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file: check the path of the picture") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a directory: name a picture in it") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    if not content:
        raise UsageError(f"{path} is empty (0 bytes): copy or download it again")
    return content


def _decoded(path: Path, content: bytes) -> NDArray[Any]:
    """The pixels of anything but EXR, (H, W, 1 | 3 | 4), RGB(A), upright.

    Pillow reads 8 bits, and notices files that were cut off; it has no 16-bit colour. OpenCV reads that and floats, but
    multiplies the colours of an 8-bit TIFF by its alpha.
    """
    eight, orientation = _with_pillow(path)
    wide = _with_opencv(path, content)
    values = eight if eight is not None and (wide is None or wide.dtype == np.uint8) else wide
    if values is None:
        raise UsageError(f"{path} is no picture that can be read: expected PNG, JPEG, TIFF, WebP, BMP, PNM, HDR or EXR")
    return _upright(values, orientation)


def _with_pillow(path: Path) -> tuple[NDArray[np.uint8] | None, int]:
    """The picture in 8 bits (None where Pillow cannot tell), and its EXIF orientation, 1 to 8."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            orientation = int(image.getexif().get(0x0112, 1))
            mode = image.mode
            if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
                target = "RGBA"
            elif mode in ("1", "L"):
                target = "L"
            elif mode in ("P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"):
                target = "RGB"
            else:
                return None, orientation
            return np.asarray(image.convert(target)).reshape(image.height, image.width, -1), orientation
    except UnidentifiedImageError:
        return None, 1
    except Image.DecompressionBombError:
        raise UsageError(f"{path} has more than 178 million pixels: make a smaller copy") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        if "not supported" in str(error).lower():
            return None, 1
        raise UsageError(f"{path} is damaged: {_one_line(error)}: copy or download it again") from None


def _with_opencv(path: Path, content: bytes) -> NDArray[Any] | None:
    try:
        import cv2
    except ImportError:
        raise UsageError(f"reading {path} needs opencv-python-headless: {_EXTRA}") from None
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if image is None:
        return None
    values: NDArray[Any] = np.asarray(image)
    if values.ndim == 2:
        return values[:, :, None]
    if values.shape[2] == 3:
        return values[:, :, ::-1]
    if values.shape[2] == 4:
        return values[:, :, [2, 1, 0, 3]]
    raise UsageError(f"{path} has {values.shape[2]} channels: expected 1 (gray), 3 (RGB) or 4 (RGB and alpha)")


def _upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn the picture as its EXIF orientation says."""
    if orientation in (5, 6, 7, 8):
        values = values.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _read_exr(path: Path) -> Array:
    try:
        import OpenEXR
    except ImportError:
        raise UsageError(f"reading {path} needs the OpenEXR package: {_EXTRA}") from None
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: np.asarray(channel.pixels) for name, channel in file.channels().items()}
    except Exception as error:  # OpenEXR raises plain RuntimeError and others for damaged files
        raise UsageError(f"{path} cannot be read as EXR: {_one_line(error)}") from None
    names = next((list(known) for known in ("RGBA", "RGB") if set(channels) == set(known)), list(channels))
    if len(names) not in CHANNELS or (len(names) > 1 and names[0] != "R"):
        raise UsageError(f"{path} has the channels {', '.join(sorted(channels))}: expected R G B, R G B A or only one")
    planes = [channels[name].astype(np.float32) for name in names]
    if any(plane.shape != planes[0].shape for plane in planes):
        raise UsageError(f"{path} has subsampled channels: write it again with all channels at full size")
    return np.stack(planes, axis=2)


def _finite(values: Array, path: Path) -> Array:
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise UsageError(f"{path} has {bad} values that are NaN or infinite: replace them with finite ones")
    return values


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def displayed(values: NDArray[Any], *, linear: bool) -> Array:
    """A picture's values as RGB to look at: (height, width, 3) in [0, 1].

    Linear values are clipped to [0, 1] and given the sRGB curve; gray is repeated; what alpha leaves open shows a light
    checkerboard.
    """
    colours = np.asarray(values[:, :, :3], np.float32).clip(0, 1)
    if linear:
        colours = np.where(colours <= 0.0031308, 12.92 * colours, 1.055 * np.power(colours, 1 / 2.4) - 0.055)
    if colours.shape[2] == 1:
        colours = colours.repeat(3, axis=2)
    if values.shape[2] == 4:
        alpha = np.asarray(values[:, :, 3:], np.float32).clip(0, 1)
        rows, columns = np.indices(values.shape[:2]) // 8
        board = np.where((rows + columns) % 2, 0.75, 0.9)[:, :, None]
        colours = colours * alpha + board * (1 - alpha)
    return colours.astype(np.float32)
