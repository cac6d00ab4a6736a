"""Where pictures of image translation come from: folders of files, or memory; in pairs, or two kinds apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from treadle.data.fingerprint import Fingerprint
from treadle.errors import UsageError, nearest
from treadle.images.folders import OnBad, side_folders, split_folder, usable_pictures
from treadle.images.pixels import check_channels, decode, read_pixels, with_channels
from treadle.images.reading import BadPicture, Pixels

Direction = Literal["AtoB", "BtoA"]


class Named(Protocol):
    """What all sources have: a length, names, and a fingerprint of the pictures."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """A short name: the file's, without its folder."""

    def describe(self, index: int) -> str:
        """Where it comes from: the file's path."""

    def fingerprint(self) -> str:
        """SHA-256, in hex, over names and contents; the same wherever a folder is copied to."""


class PairSource(Named, Protocol):
    """Pairs of pictures."""

    def pair(self, index: int) -> tuple[Pixels, Pixels]:
        """Input and target, (H, W, C) uint8 each."""


class PictureSource(Named, Protocol):
    """Single pictures."""

    def picture(self, index: int) -> Pixels:
        """(H, W, C) uint8."""


class UnpairedSource(Protocol):
    """Two sources of pictures that do not belong together."""

    @property
    def a(self) -> PictureSource:
        """What the first pictures of samples come from."""

    @property
    def b(self) -> PictureSource:
        """What the second ones come from."""


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


class _Files:
    files: list[Path]
    skipped: list[str]
    """Names of bad files that were left out."""

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index].name

    def describe(self, index: int) -> str:
        return str(self.files[index])

    def fingerprint(self) -> str:
        return content_hash(self.files)


class PairFolder(_Files):
    """A folder of pictures that show A on the left half and B on the right, in the order of `list_pictures`.

    Args:
        directory: the folder.
        direction: "AtoB" makes A the input and B the target; "BtoA" the other way round.
        channels: of input and target: 1 (gray), 3 (RGB) or 4 (RGBA).
        on_bad: "refuse" or "skip" files that cannot be read or have an odd width; see `usable_pictures`.

    Raises UsageError for a folder without pictures, bad files, and unknown settings.
    """

    def __init__(
        self,
        directory: str | Path,
        direction: Direction = "AtoB",
        channels: tuple[int, int] = (3, 3),
        on_bad: OnBad = "refuse",
    ) -> None:
        self._swapped = _swapped(direction)
        self.channels = _two(channels)
        self.files, self.skipped = usable_pictures(directory, on_bad, _cannot_be_halved)

    def pair(self, index: int) -> tuple[Pixels, Pixels]:
        """Input and target, (H, W, C) uint8 each. Raises BadPicture."""
        picture = decode(self.files[index])
        height, width = picture.shape[:2]
        if complaint := _cannot_be_halved(width, height):
            raise BadPicture(self.files[index], complaint, "make A and B equally wide")
        left, right = picture[:, : width // 2], picture[:, width // 2 :]
        x, y = (right, left) if self._swapped else (left, right)
        return with_channels(x, self.channels[0]), with_channels(y, self.channels[1])


def _cannot_be_halved(width: int, height: int) -> str:
    return f"is {width} x {height} pixels, an odd width, which has no two halves" if width % 2 else ""


class PictureFolder(_Files):
    """The pictures of a folder, each (H, W, channels), in the order of `list_pictures`; bad ones as in `PairFolder`."""

    def __init__(self, directory: str | Path, channels: int = 3, on_bad: OnBad = "refuse") -> None:
        check_channels(channels)
        self.channels = channels
        self.files, self.skipped = usable_pictures(directory, on_bad)

    def picture(self, index: int) -> Pixels:
        """(H, W, channels) uint8. Raises BadPicture."""
        return read_pixels(self.files[index], self.channels)


class UnpairedFolders:
    """The folders trainA and trainB of `root` (or valA ... testB), or A/train and B/train, as the sources `a` and `b`.

    Args:
        root: the folder that holds them.
        split: "train", "val" or "test".
        direction: "BtoA" exchanges the two.
        channels, on_bad: as for `PairFolder`.

    Raises UsageError where a folder is missing, and as `PictureFolder`.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        direction: Direction = "AtoB",
        channels: tuple[int, int] = (3, 3),
        on_bad: OnBad = "refuse",
    ) -> None:
        folders = side_folders(root, split) or tuple(
            split_folder(root, split, side) or Path(root) / f"{split}{side}" for side in "AB"
        )
        folders = folders[::-1] if _swapped(direction) else folders
        self.a, self.b = (PictureFolder(*each, on_bad) for each in zip(folders, _two(channels), strict=True))


class ArrayPictures:
    """Pictures in memory, all of one size: (N, H, W, C) uint8, C 1, 3 or 4. Worker processes share them."""

    def __init__(self, pictures: NDArray[Any] | Sequence[Pixels], names: Iterable[str] | None = None) -> None:
        shapes = sorted({np.shape(picture) for picture in pictures})
        if len(shapes) > 1:
            raise UsageError(f"pictures differ in size: {shapes[0]} and {shapes[1]}, say: resize them to one")
        values = np.ascontiguousarray(pictures)
        if values.dtype != np.uint8 or values.ndim != 4 or 0 in values.shape:
            raise UsageError(f"pictures are {values.dtype} of shape {values.shape}: expected uint8 (N, H, W, C)")
        check_channels(values.shape[3])
        self._values = torch.from_numpy(values)  # a tensor, since workers share those
        self._names = [str(index) for index in range(len(values))] if names is None else list(names)
        if len(self._names) != len(values):
            raise UsageError(f"{len(self._names)} names for {len(values)} pictures: give each one")

    def __len__(self) -> int:
        return len(self._names)

    def picture(self, index: int) -> Pixels:
        """(H, W, C) uint8."""
        return self._values[index].numpy()

    def name(self, index: int) -> str:
        return self._names[index]

    describe = name

    def fingerprint(self) -> str:
        return Fingerprint().add(self._names).add(self._values).hexdigest()


class ArrayPairs:
    """Pairs in memory, such as generated ones: inputs `a` and targets `b`, (N, H, W, C) uint8 each."""

    def __init__(
        self,
        a: NDArray[Any] | Sequence[Pixels],
        b: NDArray[Any] | Sequence[Pixels],
        names: Iterable[str] | None = None,
    ) -> None:
        names = None if names is None else list(names)
        self.a, self.b = ArrayPictures(a, names), ArrayPictures(b, names if len(a) == len(b) else None)
        if len(self.a) != len(self.b):
            raise UsageError(f"{len(self.a)} inputs and {len(self.b)} targets: a pair has one of each")

    def __len__(self) -> int:
        return len(self.a)

    def pair(self, index: int) -> tuple[Pixels, Pixels]:
        """Input and target, (H, W, C) uint8 each."""
        return self.a.picture(index), self.b.picture(index)

    def name(self, index: int) -> str:
        return self.a.name(index)

    describe = name

    def fingerprint(self) -> str:
        return Fingerprint().add(self.a.fingerprint()).add(self.b.fingerprint()).hexdigest()


def _swapped(direction: str) -> bool:
    if direction not in get_args(Direction):
        raise UsageError(f"direction is {direction!r}{nearest(str(direction), get_args(Direction))}")
    return direction == "BtoA"


def _two(channels: Sequence[int]) -> tuple[int, int]:
    if len(channels) != 2:
        raise UsageError(f"channels is {channels!r}: expected two numbers, of the input and of the target")
    for each in channels:
        check_channels(each)
    return channels[0], channels[1]
