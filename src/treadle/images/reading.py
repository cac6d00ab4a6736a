"""Reading pictures of any common format, as they were stored; a file that cannot be used is named in one line.

Every pack reads its pictures here. A file is what its content says, whatever its name ends in, and only formats whose
readers are plain decoders are tried: PostScript named .png never reaches an interpreter.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError, one_line

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF", "TGA")
"""What Pillow may decode, by its names; TGA, which is told by nothing, comes last. Beside these are read: EXR, Radiance
HDR, PFM, and TIFFs of float colour."""

LARGEST = 150_000_000
"""Pixels of the largest picture that is read, such as 12,000 x 12,500: in 8 bits that takes 1.1 GB while it is decoded
(1.8 GB with 16 bits per colour), and 2.3 GB as a `Picture`."""

STRIP = 1 << 20
"""Pixels that are converted at a time, so that no second copy of the whole picture is made."""

_AGAIN = "copy or download it again, or remove it"
_EXTRA = "install it with: pip install 'treadle[fields]'"
ORIENTATION = 0x0112
"""The tag that says how a picture is to be turned, in EXIF and TIFF."""
_EXR = b"\x76\x2f\x31\x01"


class BadPicture(UsageError):
    """A file that cannot be used: the message is `path`, `reason` and `remedy`."""

    def __init__(self, path: Path, reason: str, remedy: str = _AGAIN) -> None:
        super().__init__(f"{path} {reason}: {remedy}")
        self.reason = reason


def read_array(path: str | Path, *, deep: bool = True, upright: bool = True) -> NDArray[Any]:
    """Read a picture: (height, width, channels); channels 1 (gray), 3 (RGB) or 4 (RGB and alpha, straight).

    EXIF orientation is applied, unless `upright` is false; palettes are expanded, gray with alpha becomes RGB with
    alpha, whole numbers of 32 bits count as 16; of several frames the first counts.

    Args:
        path: the file.
        deep: whether colour of 16 bits is read as such, for which OpenCV is needed; else its upper 8 bits are.
        upright: False leaves the pixels as they are stored, for what was measured in them (TIFFs are always turned).

    Returns:
        uint8, uint16 or, of float formats, float32 as stored: linear, of any range, NaN included.

    Raises:
        BadPicture: a file that is missing, empty, damaged, no picture or of more than `LARGEST` pixels; channels or
            numbers that no picture has.
        UsageError: a package that this format needs is not installed.
    """
    path = Path(path)
    with opened(path) as file:
        if magic(file) == _EXR:
            return _with_openexr(path)
        image = identified(file)
        if image is None:
            check_size(path, *_foreign_size(path, file))
            return _with_opencv(path, file)
        with image:
            check_size(path, *image.size)
            wide = deep and is_sixteen_bit_colour(image, file)  # told by what loading, and looking for EXIF, uses up
            by_exif = upright and image.format != "TIFF"
            orientation = int(image.getexif().get(ORIENTATION, 1)) if by_exif else 1
            image.load()  # also where OpenCV decodes: it would not mind a file that was cut off
            if not wide:
                return _with_pillow(path, image, upright)
        del image  # before there is another one in memory
        return turned(_with_opencv(path, file), orientation)


def picture_size(path: str | Path, *, upright: bool = True) -> tuple[int, int]:
    """Width and height of the picture as `read_array` gives it, from the file's header alone. Raises as that does."""
    path = Path(path)
    with opened(path) as file:
        if magic(file) == _EXR:
            return _exr_size(path, _openexr(path, header_only=True))
        image = identified(file)
        if image is None:
            size, orientation = _foreign_size(path, file), 1
        else:
            with image:
                size, orientation = image.size, orientation_of(image) if upright else 1
        check_size(path, *size)
        return size[::-1] if orientation >= 5 else size


def orientation_of(image: Image.Image) -> int:
    """What EXIF says about how to turn a picture whose header was read; 1 where it stands as it is."""
    # Pillow gives the upright size of a TIFF by itself. A PNG's EXIF may come after its pixels, and Pillow would decode
    # them to look for it.
    known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
    return int(image.getexif().get(ORIENTATION, 1)) if known else 1


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The opened file; whatever goes wrong inside, except for memory, is said to be wrong with it."""
    from PIL import Image

    try:
        with open(path, "rb") as file:
            if not file.read(1):
                raise BadPicture(path, "is empty (0 bytes)")
            yield file
    except (UsageError, MemoryError):
        raise
    except FileNotFoundError:
        raise BadPicture(path, "does not exist", "check its name") from None
    except IsADirectoryError:
        raise BadPicture(path, "cannot be read (it is a directory)", "name a picture in it") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except Exception as error:
        # Damaged files make Pillow's readers raise nearly everything: OSError, SyntaxError, struct.error, KeyError ...
        if isinstance(error, OSError) and error.errno is not None:
            raise BadPicture(path, f"cannot be read ({error.strerror})", "check the path and its permissions") from None
        raise BadPicture(path, f"is damaged ({one_line(error)})") from None


def magic(file: IO[bytes]) -> bytes:
    """The first four bytes."""
    file.seek(0)
    return file.read(4)


def check_size(path: Path, width: int, height: int) -> None:
    """Raise BadPicture for more pixels than `LARGEST`."""
    if width * height > LARGEST:
        raise _too_large(path)


def _too_large(path: Path) -> BadPicture:
    return BadPicture(path, f"has more than {LARGEST // 10**6} million pixels", "make a smaller copy of it")


def _not_one(path: Path) -> BadPicture:
    return BadPicture(path, "is no picture that can be read", "convert it to PNG or JPEG, or remove it")


def turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn the picture as its EXIF orientation says."""
    if orientation in (5, 6, 7, 8):
        values = values.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


# Pillow: 8 bits, and one channel of 16 bits or floats ---------------------------------------------------------------


def identified(file: IO[bytes]) -> Image.Image | None:
    """The picture, its header read; None where Pillow does not know it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():  # how large is too large is said here (`LARGEST`)
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        return None


def is_sixteen_bit_colour(image: Image.Image, file: IO[bytes]) -> bool:
    """Whether Pillow drops bits: it has no modes for colour, or gray with alpha, of more than 8."""
    if image.mode not in ("RGB", "RGBA", "LA"):
        return False
    layout: Any = image.tile[0].args if image.tile else ""  # type: ignore[attr-defined]
    if image.format == "PPM":  # the codec's arguments are mode and largest value
        return isinstance(layout, tuple) and layout[-1] > 255
    if image.format == "JPEG2000":  # its codestream begins with markers SOC and SIZ; SIZ holds the bits, less one
        file.seek(0)
        start = file.read(4096)
        return start[start.find(b"\xff\x4f\xff\x51") + 42] & 127 > 7
    return ";16" in str(layout)


def _with_pillow(path: Path, image: Image.Image, upright: bool) -> NDArray[Any]:
    from PIL import ImageOps

    if upright:
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        return _in_strips(image, np.asarray, 1, np.float32)
    if image.mode[0] == "I":
        return _in_strips(image, lambda strip: _sixteen_bits(path, np.asarray(strip)), 1, np.uint16)
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        mode = "RGBA"
    else:
        mode = "L" if image.mode in ("1", "L") else "RGB"

    def shown(strip: Image.Image) -> NDArray[Any]:
        if strip.mode == "La":
            strip = strip.convert("LA")
        return np.asarray(strip if strip.mode == mode else strip.convert(mode))

    return _in_strips(image, shown, len(mode), np.uint8)


def _in_strips(
    image: Image.Image, convert: Callable[[Image.Image], NDArray[Any]], channels: int, kind: type[np.generic]
) -> NDArray[Any]:
    """(height, width, channels): what `convert` makes of the picture, strip by strip."""
    width, height = image.size
    values = np.empty((height, width, channels), kind)
    rows = max(1, STRIP // max(1, width))
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(height, top + rows)))
        values[top : top + rows] = convert(strip).reshape(strip.height, width, channels)
    return values


def _sixteen_bits(path: Path, values: NDArray[Any]) -> NDArray[np.uint16]:
    if values.min() < 0 or values.max() > 65535:
        what = f"holds values from {values.min()} to {values.max()}; expected 0 to 65535"
        raise BadPicture(path, what, "save it with 8 or 16 bits")
    return values.astype(np.uint16)


# OpenCV: colour of 16 bits and floats -------------------------------------------------------------------------------


def _foreign_size(path: Path, file: IO[bytes]) -> tuple[int, int]:
    """Width and height of the upright picture, of the formats that Pillow does not know and OpenCV may decode."""
    from PIL import TiffImagePlugin

    file.seek(0)
    start = file.read(4096)
    if start[:4] in (b"II*\0", b"MM\0*"):
        tags = TiffImagePlugin.ImageFileDirectory_v2(start[:8])
        file.seek(tags.next)
        tags.load(file)
        width, height = int(tags[256]), int(tags[257])
        return (height, width) if tags.get(ORIENTATION, 1) >= 5 else (width, height)
    if start.startswith(b"#?") and (found := re.search(rb"\n([-+]Y) (\d+) [-+]X (\d+)\n", start)):
        return int(found[3]), int(found[2])
    if found := re.match(rb"PF\s+(\d+)\s+(\d+)\s", start):
        return int(found[1]), int(found[2])
    raise _not_one(path)


def _with_opencv(path: Path, file: IO[bytes]) -> NDArray[Any]:
    """uint8, uint16 or float32, RGB(A), as it lies in the file; a TIFF, which OpenCV turns by itself, upright."""
    try:
        import cv2
    except ImportError:
        raise UsageError(f"reading {path} needs opencv-python-headless: {_EXTRA}") from None
    file.seek(0)
    level = cv2.utils.logging.setLogLevel(0)  # what it has to say about a damaged file is said below
    try:
        image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None:
        raise BadPicture(path, "is damaged, or of a kind that OpenCV does not decode", "copy it again, or convert it")
    values: NDArray[Any] = np.atleast_3d(image)
    channels, kind = values.shape[2], values.dtype
    if channels not in (1, 3, 4):
        raise BadPicture(
            path, f"has {channels} channels; expected 1 (gray), 3 (RGB) or 4 (RGB and alpha)", "convert it"
        )
    if kind not in (np.uint8, np.uint16, np.float32, np.float64):
        raise BadPicture(path, f"holds values of type {kind}", "convert it to 8 or 16 bit, or float EXR")
    if channels > 1:
        rows = max(1, STRIP // values.shape[1])
        for top in range(0, len(values), rows):
            values[top : top + rows] = values[top : top + rows, :, [2, 1, 0, 3][:channels]]
    return values.astype(np.float32) if kind == np.float64 else values


# OpenEXR: linear floats ---------------------------------------------------------------------------------------------


def _openexr(path: Path, *, header_only: bool) -> Any:
    try:
        import OpenEXR
    except ImportError:
        raise UsageError(f"reading {path} needs the OpenEXR package: {_EXTRA}") from None
    try:
        return OpenEXR.File(str(path), separate_channels=True, header_only=header_only)
    except Exception as error:  # OpenEXR raises plain RuntimeError and others for damaged files
        raise BadPicture(path, f"cannot be read as EXR ({one_line(error)})") from None


def _exr_size(path: Path, file: Any) -> tuple[int, int]:
    low, high = file.header()["dataWindow"]
    width, height = (int(high[axis]) - int(low[axis]) + 1 for axis in (0, 1))
    check_size(path, width, height)
    return width, height


def _with_openexr(path: Path) -> NDArray[np.float32]:
    _exr_size(path, _openexr(path, header_only=True))
    with _openexr(path, header_only=False) as file:
        channels = {name: np.asarray(channel.pixels) for name, channel in file.channels().items()}
    names = next((list(known) for known in ("RGBA", "RGB") if set(channels) == set(known)), list(channels))
    if len(names) not in (1, 3, 4) or (len(names) > 1 and names[0] != "R"):
        what = f"has the channels {', '.join(sorted(channels))}; expected R G B, R G B A or only one"
        raise BadPicture(path, what, "write it again with these")
    planes = [channels[name].astype(np.float32) for name in names]
    if any(plane.shape != planes[0].shape for plane in planes):
        raise BadPicture(path, "has subsampled channels", "write it again with all channels at full size")
    return np.stack(planes, axis=2)
