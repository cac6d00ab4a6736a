"""How paired data may lie in a folder: joined in one file, A left and B right, or in two folders, paired by name."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from treadle.data.fingerprint import Fingerprint
from treadle.errors import UsageError
from treadle.gans.sources import (
    EIGHT_BITS,
    Direction,
    Kinds,
    PairFolder,
    PairSource,
    PictureFolder,
    PictureSource,
    UnpairedSource,
)
from treadle.gans.values import Array
from treadle.images.bands import Kind
from treadle.images.folders import OnBad, list_pictures, side_folders, split_folder


class PairFolders:
    """Two folders of pictures as pairs: those of one name, whatever their endings, in the order of the first folder.

    Args:
        a, b: the folders.
        direction, channels, on_bad, dtypes: as for `PairFolder`; a pair with a bad picture is bad, and with no dtypes
            each folder has the type of its own files.

    Attributes:
        x, y: the inputs and the targets.

    Raises UsageError for a picture without a partner, and as `PictureFolder`.
    """

    def __init__(
        self,
        a: str | Path,
        b: str | Path,
        direction: Direction = "AtoB",
        channels: tuple[int, int] = (3, 3),
        on_bad: OnBad = "refuse",
        dtypes: Kinds = EIGHT_BITS,
    ) -> None:
        partners(a, b)
        folders = (b, a) if direction == "BtoA" else (a, b)
        self.x, self.y = (
            PictureFolder(folder, count, on_bad, dtype)
            for folder, count, dtype in zip(folders, channels, dtypes, strict=True)
        )
        targets = {stem(file): file for file in self.y.files}
        self.x.files = [file for file in self.x.files if stem(file) in targets]
        self.y.files = [targets[stem(file)] for file in self.x.files]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def dtypes(self) -> tuple[Kind, Kind]:
        """The types of inputs and targets."""
        return self.x.dtype, self.y.dtype

    def size(self, index: int) -> tuple[int, int]:
        return self.x.size(index)

    def pair(self, index: int) -> tuple[Array, Array]:
        """Input and target. Raises BadPicture."""
        return self.x.picture(index), self.y.picture(index)

    def name(self, index: int) -> str:
        return self.x.name(index)

    def describe(self, index: int) -> str:
        return f"{self.x.describe(index)} and {self.y.describe(index)}"

    def fingerprint(self) -> str:
        return Fingerprint().add(self.x.fingerprint()).add(self.y.fingerprint()).hexdigest()


def pairs_in(
    root: Path,
    split: str,
    direction: Direction,
    channels: tuple[int, int],
    on_bad: OnBad,
    dtypes: Kinds = EIGHT_BITS,
) -> PairSource | None:
    """The pairs of a split ("train", "val", "test") in `root`, however they lie there; None where there are none.

    In `root`/train are joined pictures; else in `root`/A/train and `root`/B/train, or in `root`/trainA and
    `root`/trainB, are pictures that are paired by name.

    Raises UsageError where there are none to train on, and what the sources raise.
    """
    if split != "train" or (root / "train").is_dir():
        joined = split_folder(root, split)
        if joined is not None:
            return PairFolder(joined, direction, channels, on_bad, dtypes)
    apart = side_folders(root, split)
    if apart is None:
        if split == "train":
            split_folder(root, split)  # which says what is missing
        return None
    return PairFolders(*apart, direction, channels, on_bad, dtypes)


def first_of(source: PairSource | UnpairedSource | PictureSource, most: int | None) -> None:
    """Leave a source of files the first `most` pairs or pictures alone, or as many of each side; None leaves all."""
    if most is not None:
        sides = [getattr(source, side) for side in ("a", "b", "x", "y") if hasattr(source, side)]
        for each in sides or [source]:
            each.files = each.files[:most]


# Names -----------------------------------------------------------------------------------------------------------


def stem(file: Path) -> str:
    """A file's name without ending; accents composed, since systems differ in that."""
    return unicodedata.normalize("NFC", file.stem)


def by_name(directory: str | Path) -> dict[str, Path]:
    """The pictures of a folder by their name without ending. Raises UsageError where two have the same."""
    found: dict[str, Path] = {}
    for path in list_pictures(directory):
        if stem(path) in found:
            raise UsageError(f"{found[stem(path)]} and {path.name} have the same name: rename or remove one of them")
        found[stem(path)] = path
    return found


SKIP_UNMATCHED = "rename them, or leave them out with --skip-unmatched"
"""What to do about pictures without a partner, where a command prepares pairs."""


def partners(
    a: str | Path, b: str | Path, *, skip_unmatched: bool = False, remedy: str = "rename or remove them"
) -> tuple[dict[str, tuple[Path, Path]], list[Path]]:
    """The pictures of two folders that have one name, by it, and those that have no partner.

    Raises UsageError where no picture has a partner, and unless `skip_unmatched` where one has none.
    """
    left, right = by_name(a), by_name(b)
    both = {name: (left[name], right[name]) for name in left if name in right}
    alone = [left[name] for name in left if name not in right] + [right[name] for name in right if name not in left]
    if not both:
        raise UsageError(
            f"no picture in {a} has the name of one in {b} (such as {alone[0].name} and {alone[-1].name}): give "
            "partners one name, or train cyclegan, which wants no pairs"
        )
    if alone and not skip_unmatched:
        raise UsageError(
            f"{len(alone)} of {len(left) + len(right)} pictures have no partner of their name: {some(alone)}: {remedy}"
        )
    return both, alone


def some(paths: Sequence[Path]) -> str:
    """The first few of some files, and how many more there are."""
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(map(str, paths[:3])) + more
