"""Folders of pictures: which files count and in which order, how one is read, and what is done about bad ones."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from treadle.data.fingerprint import Fingerprint
from treadle.errors import UsageError, nearest

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]

OnBad = Literal["refuse", "skip"]

SUFFIXES = frozenset({
    ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff",
    ".webp",
})  # fmt: skip
"""Endings of the files that count as pictures, in lower case."""

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""The folders that each split may be called."""

_STANDARD = {name + suffix for names in SPLITS.values() for name in names for suffix in ("", "A", "B")}

CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name of pictures with so many channels."""

_AGAIN = "copy or download it again, or remove it"
_ORIENTATION = 0x0112
_NAMED = 3
"""Bad files named in a message; the others are counted."""


class BadPicture(UsageError):
    """A file that cannot be used: the message is `path`, `reason` and `remedy`."""

    def __init__(self, path: Path, reason: str, remedy: str = _AGAIN) -> None:
        super().__init__(f"{path} {reason}: {remedy}")
        self.reason = reason


# Which files -----------------------------------------------------------------------------------------------------


def list_pictures(directory: str | Path) -> list[Path]:
    """The pictures in `directory`, sorted by name with numbers by value: 2.jpg before 10.jpg, on every machine.

    Pictures are told by their ending (`SUFFIXES`, in upper or lower case). Hidden files and folders do not count.

    Raises:
        UsageError: there is no such folder, it cannot be read, or it holds no picture.
    """
    directory = Path(directory)
    if not os.path.isdir(directory):  # unlike Path.is_dir never raises
        if directory.exists():
            raise UsageError(f"{directory} is a file: name the folder that holds the pictures")
        raise UsageError(f"{directory}: no such folder{_similar(directory)}")
    try:
        entries = _visible(directory)
    except OSError as error:
        raise UsageError(f"{directory} cannot be read: {error.strerror or error}") from None
    folders = {entry for entry in entries if entry.is_dir()}
    files = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and entry not in folders]
    if not files:
        inside = sorted((folder.name for folder in folders), key=natural)
        remedy = f"name one of its folders ({_some(inside)})" if inside else "pictures are files such as 1.jpg or 1.png"
        raise UsageError(f"{directory} holds no pictures: {remedy}")
    return sorted(files, key=lambda file: natural(file.name))


def natural(name: str) -> tuple[list[str | int], str]:
    """A key to sort names by: numbers by value, capitals like small letters; names equal so far by code points."""
    parts = re.split("([0-9]+)", name.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def split_folder(root: str | Path, split: str, suffix: str = "") -> Path | None:
    """The folder of `split` ("train", "val", "test") in `root`, or None where there is none.

    "val" may also be called "valid" or "validation". `suffix` is "A" or "B" for unpaired data (trainA, trainB).

    Raises:
        UsageError: for an unknown split, for a root that is no folder, and for a missing folder of "train".
    """
    root = Path(root)
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}{nearest(split, SPLITS)}")
    if not os.path.isdir(root):
        raise UsageError(f"{root}: no such folder{_similar(root)}")
    names = [name + suffix for name in SPLITS[split]]
    found = next((root / name for name in names if (root / name).is_dir()), None)
    if found is None and split == "train":
        raise UsageError(f"{root} has no folder {names[0]!r} with pictures to train on{_similar(root / names[0])}")
    return found


def _similar(missing: Path) -> str:
    """What to say about a folder that is not there: one beside it with a similar name, or where the path ends."""
    parent = missing.absolute().parent
    if not os.path.isdir(parent):
        return f" (nor is there {parent})"
    try:
        siblings = sorted((entry.name for entry in _visible(parent) if entry.is_dir()), key=natural)
    except OSError:
        return ""
    # Who lacks trainB does not mean trainA.
    meant = [name for name in siblings if not (missing.name in _STANDARD and name in _STANDARD)]
    near = nearest(missing.name, meant)
    return near if "did you mean" in near or not siblings else f"; folders there: {_some(siblings)}"


def _visible(directory: Path) -> list[Path]:
    return [entry for entry in directory.iterdir() if not entry.name.startswith(".")]


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


# Bad files -------------------------------------------------------------------------------------------------------


def usable_pictures(
    directory: str | Path, on_bad: OnBad = "refuse", complaint: Callable[[int, int], str] | None = None
) -> tuple[list[Path], list[str]]:
    """The pictures in `directory` (see `list_pictures`) that can be used, and the names of those that cannot.

    Every file's header is read, its pixels are not: one that was cut off is noticed when it is decoded.

    Args:
        directory: the folder.
        on_bad: "refuse" raises where a file is bad; "skip" leaves bad files out, with one warning that counts them.
        complaint: what is wrong with a picture of some width and height, or "".

    Raises:
        UsageError: as `list_pictures`; for bad files, naming the first few and their number; where none is left.
    """
    if on_bad not in get_args(OnBad):
        raise UsageError(f"on_bad is {on_bad!r}{nearest(str(on_bad), get_args(OnBad))}")
    files, bad = list_pictures(directory), dict[Path, str]()
    for file in files:
        try:
            reason = complaint(*picture_size(file)) if complaint else picture_size(file) and ""
        except BadPicture as error:
            reason = error.reason
        if reason:
            bad[file] = reason
    if not bad:
        return files, []
    named = ", ".join(f"{file.name} {reason}" for file, reason in list(bad.items())[:_NAMED])
    more = f", and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    count = f"{len(bad)} of {len(files)} pictures in {directory}"
    if on_bad == "refuse" or len(bad) == len(files):
        instead = "" if len(bad) == len(files) else ", or leave them out with on_bad 'skip'"
        raise UsageError(f"{count} cannot be used: {named}{more}: mend or remove them{instead}")
    warnings.warn(f"{count} left out: {named}{more}", stacklevel=3)
    return [file for file in files if file not in bad], [file.name for file in bad]


def content_hash(files: Iterable[Path]) -> str:
    """SHA-256, in hex, over the names and the bytes of `files`, in their order; where they lie does not count.

    Raises BadPicture for a file that cannot be read.
    """
    digest = Fingerprint()
    for file in files:
        try:
            with open(file, "rb") as stream:
                digest.add(file.name).add(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise BadPicture(file, f"cannot be read ({error.strerror or error})") from None
    return digest.hexdigest()


# One picture -----------------------------------------------------------------------------------------------------


def read_picture(path: str | Path, channels: int = 3) -> Pixels:
    """Read a picture of any format Pillow knows: (H, W, channels) uint8; see `decode` and `to_array`."""
    return to_array(decode(path), channels)


def decode(path: str | Path) -> Image.Image:
    """Read a picture: upright, 8 bits, in one of Pillow's modes L, LA, RGB and RGBA.

    EXIF orientation is applied; palettes are expanded; of several frames the first counts. 16 bits are scaled to 8 and
    rounded (of 16-bit colour Pillow keeps the upper 8 bits); floats must lie in [0, 1].

    Raises:
        BadPicture: a file that is missing, empty, damaged, no picture, larger than 178 million pixels, or holds
            numbers out of range. The message names the file and the remedy.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    with _opened(path) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "F" or image.mode[0] == "I":
            return Image.fromarray(_scaled(np.asarray(image), path))
        if "transparency" in image.info or image.mode in ("PA", "RGBa"):
            return image.convert("RGBA")
        if image.mode == "La":
            return image.convert("LA")
        if image.mode == "1":
            return image.convert("L")
        return image if image.mode in ("L", "LA", "RGBA") else image.convert("RGB")


def to_array(image: Image.Image, channels: int) -> Pixels:
    """A picture of mode L, LA, RGB or RGBA as (H, W, channels) uint8: 1 gray (ITU-R 601 luma), 3 RGB or 4 RGBA.

    With 1 and 3 channels, what is transparent shows white.
    """
    from PIL import Image

    check_channels(channels)
    if channels != 4 and image.mode in ("LA", "RGBA"):
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    if image.mode != CHANNELS[channels]:
        image = image.convert(CHANNELS[channels])
    return np.asarray(image).reshape(image.height, image.width, channels)


def check_channels(channels: int) -> None:
    """Raises UsageError unless `channels` is 1, 3 or 4."""
    if channels not in CHANNELS:
        raise UsageError(f"channels is {channels!r}: expected 1 (gray), 3 (RGB) or 4 (RGBA)")


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture, from the file's header alone. Raises BadPicture."""
    with _opened(path) as image:
        # Pillow gives the upright size of a TIFF by itself. A PNG's EXIF may come after its pixels, and Pillow would
        # decode them to look for it.
        known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        turned = known and image.getexif().get(_ORIENTATION, 1) >= 5
        return image.size[::-1] if turned else image.size


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The opened file; whatever goes wrong inside, except for memory, is said to be wrong with it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            yield image
    except (BadPicture, MemoryError):
        raise
    except FileNotFoundError:
        raise BadPicture(path, "does not exist", "check its name") from None
    except UnidentifiedImageError:
        if path.stat().st_size == 0:
            raise BadPicture(path, "is empty (0 bytes)") from None
        raise BadPicture(path, "is no picture that can be read", "convert it to PNG or JPEG, or remove it") from None
    except Image.DecompressionBombError:
        raise BadPicture(path, "has more than 178 million pixels", "make a smaller copy of it") from None
    except Exception as error:
        # Damaged files make Pillow's readers raise nearly everything: OSError, SyntaxError, struct.error, KeyError ...
        if isinstance(error, OSError) and error.errno is not None:
            raise BadPicture(path, f"cannot be read ({error.strerror})", "check the path and its permissions") from None
        text = " ".join(str(error).split()) or type(error).__name__
        raise BadPicture(path, f"is damaged ({text})") from None


def _scaled(values: NDArray[Any], path: Path) -> Pixels:
    """16 bits, in whatever type, and floats in [0, 1] as 8 bits, rounded."""
    whole = values.dtype.kind != "f"
    top = 65535 if whole else 1
    if not (values.min() >= 0 and values.max() <= top):  # so that NaN is out of range, too
        what = f"holds values from {values.min():g} to {values.max():g}; expected {0 if whole else 0.0} to {top:g}"
        raise BadPicture(path, what, "save it with 8 or 16 bits")
    scaled = (values.astype(np.uint32) + 128) // 257 if whole else np.rint(values * np.float32(255))
    return scaled.astype(np.uint8)
