"""Where pictures of image translation come from: folders of files, or memory; in pairs, or two kinds apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from treadle.data.fingerprint import Fingerprint
from treadle.errors import UsageError, nearest
from treadle.gans.values import Array, conform
from treadle.images.bands import Header, Kind, read_bands
from treadle.images.folders import OnBad, side_folders, split_folder, usable_pictures
from treadle.images.pixels import MODES, decode
from treadle.images.reading import BadPicture

Direction = Literal["AtoB", "BtoA"]
Kinds = tuple[Kind | None, Kind | None]
EIGHT_BITS: Kinds = ("uint8", "uint8")


class Named(Protocol):
    """What all sources have: a length, names, and a fingerprint of the pictures."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """A short name: the file's, without its folder."""

    def describe(self, index: int) -> str:
        """Where it comes from: the file's path."""

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of its pictures, of a pair those of the input."""

    def fingerprint(self) -> str:
        """SHA-256, in hex, over names and contents; the same wherever a folder is copied to."""


class PairSource(Named, Protocol):
    """Pairs of pictures."""

    def pair(self, index: int) -> tuple[Array, Array]:
        """Input and target, (H, W, C) uint8, uint16 or float32 each."""


class PictureSource(Named, Protocol):
    """Single pictures."""

    def picture(self, index: int) -> Array:
        """(H, W, C) uint8, uint16 or float32."""


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


def _read(path: Path, header: Header, forms: Sequence[tuple[int, Kind]]) -> Array:
    as_it_is = header.dtype == "uint8" and any(channels == header.channels for channels, _ in forms)
    eight_bits = all(channels in MODES and dtype == "uint8" for channels, dtype in forms)
    return decode(path) if eight_bits and header.channels in MODES and not as_it_is else read_bands(path)


def _conform(path: Path, picture: Array, form: tuple[int, Kind]) -> Array:
    try:
        return conform(picture, *form)
    except UsageError as error:
        raise BadPicture(path, f"does not fit ({error})", "convert it, or choose other channels and types") from None


class _Files:
    headers: dict[Path, Header]
    files: list[Path]
    skipped: list[str]
    """Names of bad files that were left out."""

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index].name

    def describe(self, index: int) -> str:
        return str(self.files[index])

    def size(self, index: int) -> tuple[int, int]:
        header = self.headers[self.files[index]]
        return header.height, header.width

    def fingerprint(self) -> str:
        return content_hash(self.files)


class PairFolder(_Files):
    """A folder of pictures that show A on the left half and B on the right, in the order of `list_pictures`.

    Args:
        directory: the folder.
        direction: "AtoB" makes A the input and B the target; "BtoA" the other way round.
        channels: of input and target. Files of 1 (gray), 3 (RGB) and 4 (RGBA) are converted, others must have as many.
        on_bad: "refuse" or "skip" files that cannot be read or have an odd width; see `usable_pictures`.
        dtypes: of input and target: "uint8", "uint16", "float32", to which files are converted (see `Values.conform`);
            None is that of the files, which then must be the same in all.

    Attributes:
        channels, dtypes: of input and target.

    Raises UsageError for a folder without pictures, bad files, files of several types, and unknown settings.
    """

    def __init__(
        self,
        directory: str | Path,
        direction: Direction = "AtoB",
        channels: tuple[int, int] = (3, 3),
        on_bad: OnBad = "refuse",
        dtypes: Kinds = EIGHT_BITS,
    ) -> None:
        self._swapped = _swapped(direction)
        self.channels = _two(channels)
        self.headers, self.skipped = usable_pictures(directory, on_bad, self._complaint)
        self.files = list(self.headers)
        self.dtypes = _kind(directory, self.headers, dtypes[0]), _kind(directory, self.headers, dtypes[1])
        self._forms = list(zip(self.channels, self.dtypes, strict=True))

    def _complaint(self, header: Header) -> str:
        return _cannot_be_halved(header.width, header.height) or _other_channels(header, self.channels)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of each half."""
        height, width = super().size(index)
        return height, width // 2

    def pair(self, index: int) -> tuple[Array, Array]:
        """Input and target, (H, W, C) each. Raises BadPicture."""
        path = self.files[index]
        picture = _read(path, self.headers[path], self._forms)
        height, width = picture.shape[:2]
        if complaint := _cannot_be_halved(width, height):
            raise BadPicture(path, complaint, "make A and B equally wide")
        left, right = picture[:, : width // 2], picture[:, width // 2 :]
        x, y = (right, left) if self._swapped else (left, right)
        return _conform(path, x, self._forms[0]), _conform(path, y, self._forms[1])


def _cannot_be_halved(width: int, height: int) -> str:
    return f"is {width} x {height} pixels, an odd width, which has no two halves" if width % 2 else ""


class PictureFolder(_Files):
    """The pictures of a folder, each (H, W, channels), in the order of `list_pictures`; bad ones as in `PairFolder`."""

    def __init__(
        self, directory: str | Path, channels: int = 3, on_bad: OnBad = "refuse", dtype: Kind | None = "uint8"
    ) -> None:
        check_count(channels)
        self.channels = channels
        self.headers, self.skipped = usable_pictures(
            directory, on_bad, lambda header: _other_channels(header, (channels, channels))
        )
        self.files = list(self.headers)
        self.dtype = _kind(directory, self.headers, dtype)

    def picture(self, index: int) -> Array:
        """(H, W, channels). Raises BadPicture."""
        path, form = self.files[index], (self.channels, self.dtype)
        return _conform(path, _read(path, self.headers[path], [form]), form)


class UnpairedFolders:
    """The folders trainA and trainB of `root` (or valA ... testB), or A/train and B/train, as the sources `a` and `b`.

    Args:
        root: the folder that holds them.
        split: "train", "val" or "test".
        direction: "BtoA" exchanges the two.
        channels, on_bad, dtypes: as for `PairFolder`; with None each of the two has the type of its own files.

    Raises UsageError where a folder is missing, and as `PictureFolder`.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        direction: Direction = "AtoB",
        channels: tuple[int, int] = (3, 3),
        on_bad: OnBad = "refuse",
        dtypes: Kinds = EIGHT_BITS,
    ) -> None:
        folders = side_folders(root, split) or tuple(
            split_folder(root, split, side) or Path(root) / f"{split}{side}" for side in "AB"
        )
        folders = folders[::-1] if _swapped(direction) else folders
        self.a, self.b = (
            PictureFolder(folder, count, on_bad, dtype)
            for folder, count, dtype in zip(folders, _two(channels), dtypes, strict=True)
        )

    @property
    def dtypes(self) -> tuple[Kind, Kind]:
        """The types of the two."""
        return self.a.dtype, self.b.dtype


class ArrayPictures:
    """Pictures in memory, all of one size: (N, H, W, C) uint8, uint16 or float32. Worker processes share them."""

    def __init__(self, pictures: NDArray[Any] | Sequence[Array], names: Iterable[str] | None = None) -> None:
        shapes = sorted({np.shape(picture) for picture in pictures})
        if len(shapes) > 1:
            raise UsageError(f"pictures differ in size: {shapes[0]} and {shapes[1]}, say: resize them to one")
        values = np.ascontiguousarray(pictures)
        if values.dtype not in get_args(Kind) or values.ndim != 4 or 0 in values.shape:
            raise UsageError(
                f"pictures are {values.dtype} of shape {values.shape}: expected uint8, uint16 or float32 (N, H, W, C)"
            )
        self._values = torch.from_numpy(values)  # a tensor, since workers share those
        self._names = [str(index) for index in range(len(values))] if names is None else list(names)
        if len(self._names) != len(values):
            raise UsageError(f"{len(self._names)} names for {len(values)} pictures: give each one")

    def __len__(self) -> int:
        return len(self._names)

    @property
    def dtype(self) -> Kind:
        """Their type."""
        found: Any = str(self._values.dtype).removeprefix("torch.")
        return found

    def picture(self, index: int) -> Array:
        """(H, W, C)."""
        return self._values[index].numpy()

    def size(self, index: int) -> tuple[int, int]:
        return self._values.shape[1], self._values.shape[2]

    def name(self, index: int) -> str:
        return self._names[index]

    describe = name

    def fingerprint(self) -> str:
        return Fingerprint().add(self._names).add(self._values).hexdigest()


class ArrayPairs:
    """Pairs in memory, such as generated ones: inputs `a` and targets `b`, (N, H, W, C) each, as `ArrayPictures`."""

    def __init__(
        self,
        a: NDArray[Any] | Sequence[Array],
        b: NDArray[Any] | Sequence[Array],
        names: Iterable[str] | None = None,
    ) -> None:
        names = None if names is None else list(names)
        self.a, self.b = ArrayPictures(a, names), ArrayPictures(b, names if len(a) == len(b) else None)
        if len(self.a) != len(self.b):
            raise UsageError(f"{len(self.a)} inputs and {len(self.b)} targets: a pair has one of each")

    def __len__(self) -> int:
        return len(self.a)

    @property
    def dtypes(self) -> tuple[Kind, Kind]:
        """The types of inputs and targets."""
        return self.a.dtype, self.b.dtype

    def size(self, index: int) -> tuple[int, int]:
        return self.a.size(index)

    def pair(self, index: int) -> tuple[Array, Array]:
        """Input and target, (H, W, C) each."""
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
        check_count(each)
    return channels[0], channels[1]


def check_count(channels: int) -> None:
    """Raises UsageError unless `channels` is a whole number of at least 1."""
    if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
        raise UsageError(f"channels is {channels!r}: expected a whole number of at least 1")


def _other_channels(header: Header, wanted: tuple[int, int]) -> str:
    """What is wrong with a picture of which so many channels cannot be made."""
    has = header.channels
    for count in wanted:
        if has != count and not (has in MODES and count in MODES):
            return f"has {has} channel{'s' * (has > 1)} where {count} are asked for (in_channels, out_channels)"
    return ""


def _kind(directory: str | Path, headers: Mapping[Path, Header], asked: Kind | None) -> Kind:
    """The type that the pictures of a folder are brought to: the one asked for, or that of all."""
    if asked is not None:
        if asked not in get_args(Kind):
            raise UsageError(f"dtype is {asked!r}{nearest(str(asked), get_args(Kind))}")
        return asked
    found: dict[Kind, list[str]] = {}
    for path, header in headers.items():
        found.setdefault(header.dtype, []).append(path.name)
    if len(found) > 1:
        named = " and ".join(f"{len(names)} are {dtype}, such as {names[0]}" for dtype, names in found.items())
        raise UsageError(
            f"the pictures in {directory} differ in type, {named}: convert them, or say which all are to be read as "
            "(in_dtype, out_dtype)"
        )
    return next(iter(found))
