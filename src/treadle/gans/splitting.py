"""Splitting a data set into train, val and test: what goes where, and files that are put there as they are."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from treadle.data import derive_seed
from treadle.errors import UsageError
from treadle.gans.layouts import SKIP_UNMATCHED, by_name, partners
from treadle.images.bands import read_header
from treadle.images.reading import BadPicture

PARTS = ("train", "val", "test")

Shares = tuple[float, float, float]
"""Which parts of the pairs go to train, val and test; they sum to 1."""

T = TypeVar("T", bound=Any)


def parse_shares(text: str) -> Shares:
    """Read "0.8/0.1/0.1" or "80/10/10": the shares of train, val and test. Raises UsageError."""
    try:
        numbers = [float(number) for number in text.split("/")]
    except ValueError:
        numbers = []
    total = sum(numbers)
    if len(numbers) != 3 or not math.isfinite(total) or min(numbers) < 0 or numbers[0] == 0:
        raise UsageError(f"split {text!r}: expected the shares of train, val and test, such as 0.8/0.1/0.1 or 90/10/0")
    return numbers[0] / total, numbers[1] / total, numbers[2] / total


def part_of(name: str, seed: int, shares: Shares) -> str:
    """The part that a pair belongs to: a function of its name and the seed, whatever other pairs there are.

    So a data set can grow and be prepared again: what was in test stays there. The parts' sizes are near their shares,
    not exact.
    """
    return part_at(derive_seed(seed, "split", name) / 2**63, shares)


def part_at(position: float, shares: Shares) -> str:
    """The part at a position in [0, 1) along the shares, laid end to end."""
    if position < shares[0]:
        return "train"
    return "val" if shares[1] and (position < shares[0] + shares[1] or not shares[2]) else "test"


def checked(pairs: list[T], shares: Shares) -> list[T]:
    """The pairs, if every part that has a share has a pair; raises UsageError."""
    parts = {pair.part for pair in pairs}
    for part, share in zip(PARTS, shares, strict=True):
        if share and part not in parts:
            raise UsageError(
                f"none of the {len(pairs)} pairs goes to {part}: give it a larger share, or 0 (--split), "
                "or try another --seed"
            )
    return pairs


# Files as they are -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placed:
    """The files of a pair, and the folders of the data set that they go to as they are: copied, or linked to."""

    part: str
    files: tuple[tuple[Path, str], ...]
    link: bool = False

    def write(self, root: Path) -> None:
        """Put them there. Raises BadPicture for a file that is no picture, or joins two of different widths."""
        for file, _ in self.files:
            header = read_header(file)
            if len(self.files) == 1 and header.width % 2:
                reason = f"is {header.width} x {header.height} pixels, an odd width, which has no two halves"
                raise BadPicture(file, reason, "make A and B equally wide")
        for file, folder in self.files:
            place = root / folder / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            if self.link:
                place.symlink_to(file.resolve())
            else:
                shutil.copyfile(file, place)


def placed(
    folder: Path,
    b: Path | None = None,
    *,
    shares: Shares,
    seed: int = 0,
    link: bool = False,
    skip_unmatched: bool = False,
) -> tuple[list[Placed], list[Path]]:
    """Pairs that lie on disk already, split: joined pictures into train, val and test, or two folders of partners.

    Args:
        folder: joined pictures, A left and B right; or a folder that holds the folders A and B; or with `b` that of A.
        b: the folder of B, whose pictures have the names of their partners.
        shares: of train, val and test; a pair's part is a function of its name and the seed (see `part_of`).
        seed: of the split.
        link: make symbolic links to the files instead of copies.
        skip_unmatched: leave out pictures without a partner instead of refusing.

    Returns:
        What `write_pairs` writes (into train ..., or A/train and B/train ...), and the files left out.

    Raises:
        UsageError: as `joined` for two folders; a folder without pictures; a part that has a share and gets no pair.
    """
    a = folder
    if b is None and all((folder / side).is_dir() for side in "AB"):
        a, b = folder / "A", folder / "B"
    found: list[Placed] = []
    if b is None:
        for name, file in by_name(folder).items():
            part = part_of(name, seed, shares)
            found.append(Placed(part, ((file, part),), link))
        return checked(found, shares), []
    both, alone = partners(a, b, skip_unmatched=skip_unmatched, remedy=SKIP_UNMATCHED)
    for name, (left, right) in both.items():
        part = part_of(name, seed, shares)
        found.append(Placed(part, ((left, f"A/{part}"), (right, f"B/{part}")), link))
    return checked(found, shares), alone
