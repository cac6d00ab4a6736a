"""Folders of pictures: which files count and in which order, and what is done about bad ones."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from treadle.errors import UsageError, nearest
from treadle.images.bands import Header, read_header
from treadle.images.reading import BadPicture

OnBad = Literal["refuse", "skip"]

SUFFIXES = frozenset({
    ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff",
    ".webp",
})  # fmt: skip
"""Endings of the files that count as pictures, in lower case."""

NUMBERS = frozenset({".exr", ".hdr", ".npy", ".pfm"})
"""Endings of files of numbers, which in folders of pictures count as such."""

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""The folders that each split may be called."""

_STANDARD = {name + suffix for names in SPLITS.values() for name in names for suffix in ("", "A", "B")}

_NAMED = 3
"""Bad files named in a message; the others are counted."""


# Which files -----------------------------------------------------------------------------------------------------


def list_pictures(directory: str | Path) -> list[Path]:
    """The pictures in `directory`, sorted by name with numbers by value: 2.jpg before 10.jpg, on every machine.

    Pictures are told by their ending (`SUFFIXES` and `NUMBERS`, in upper or lower case). Hidden files and folders do
    not count.

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
    files = [entry for entry in entries if entry.suffix.lower() in SUFFIXES | NUMBERS and entry not in folders]
    if not files:
        inside = sorted((folder.name for folder in folders), key=natural)
        remedy = f"name one of its folders ({_some(inside)})" if inside else "pictures are files such as 1.jpg or 1.png"
        raise UsageError(f"{directory} holds no pictures: {remedy}")
    return sorted(files, key=lambda file: natural(file.name))


def pictures_below(directory: Path, leaving_out: Path | None = None) -> list[Path]:
    """The pictures in `directory` and in the folders below it, by folder and name as `list_pictures`.

    Folders are followed through links, each once. Hidden files and folders do not count, nor does the folder
    `leaving_out`, which may lie anywhere. Raises UsageError where no picture is found, or a folder cannot be read.
    """
    seen = {os.path.realpath(leaving_out)} if leaving_out is not None else set[str]()
    found: list[Path] = []

    def look(folder: Path) -> None:
        if (real := os.path.realpath(folder)) in seen:
            return
        seen.add(real)
        try:
            entries = sorted(_visible(folder), key=lambda entry: natural(entry.name))
        except OSError as error:
            raise UsageError(f"{folder} cannot be read: {error.strerror or error}") from None
        folders = [entry for entry in entries if entry.is_dir()]
        found.extend(entry for entry in entries if entry.suffix.lower() in SUFFIXES | NUMBERS and entry not in folders)
        for entry in folders:
            look(entry)

    look(directory)
    if not found:
        raise UsageError(f"{directory} holds no pictures: pictures are files such as 1.jpg or 1.png")
    return found


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


def side_folders(root: str | Path, split: str) -> tuple[Path, Path] | None:
    """The folders of A and of B of `split` in `root`: trainA and trainB, or A/train and B/train; None without either.

    Raises UsageError where only one of two is there, and as `split_folder` for the split and the root.
    """
    root = Path(root)
    if split not in SPLITS or not os.path.isdir(root):
        split_folder(root, split)  # which says so
    for name in SPLITS[split]:
        for sides in ((root / f"{name}A", root / f"{name}B"), (root / "A" / name, root / "B" / name)):
            there = [side.is_dir() for side in sides]
            if all(there):
                return sides
            if any(there):
                missing = sides[there.index(False)]
                if split == "train":
                    raise UsageError(
                        f"{root} has no folder {missing.relative_to(root).as_posix()!r} with pictures to train on"
                        f"{_similar(missing)}"
                    )
                raise UsageError(f"{missing}: no such folder{_similar(missing)}")
    return None


def has_split(root: Path, split: str) -> bool:
    """Whether `root` has a folder of `split`, of A or of B (see `split_folder` and `side_folders`)."""
    inside = [folder for name in SPLITS[split] for folder in (name, f"{name}A", f"{name}B", f"A/{name}", f"B/{name}")]
    return any((root / folder).is_dir() for folder in inside)


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
    directory: str | Path, on_bad: OnBad = "refuse", complaint: Callable[[Header], str] | None = None
) -> tuple[dict[Path, Header], list[str]]:
    """The pictures in `directory` (see `list_pictures`) that can be used, and the names of those that cannot.

    Every file's header is read, its pixels are not: one that was cut off is noticed when it is decoded.

    Args:
        directory: the folder.
        on_bad: "refuse" raises where a file is bad; "skip" leaves bad files out, with one warning that counts them.
        complaint: what is wrong with a picture that has this header, or "".

    Returns:
        The header of each picture, in their order, and the names left out.

    Raises:
        UsageError: as `list_pictures`; for bad files, naming the first few and their number; where none is left.
    """
    if on_bad not in get_args(OnBad):
        raise UsageError(f"on_bad is {on_bad!r}{nearest(str(on_bad), get_args(OnBad))}")
    files, good, bad = list_pictures(directory), dict[Path, Header](), dict[Path, str]()
    for file in files:
        try:
            good[file] = header = read_header(file)
            reason = complaint(header) if complaint else ""
        except BadPicture as error:
            reason = error.reason
        if reason:
            bad[file] = reason
    if not bad:
        return good, []
    named = ", ".join(f"{file.name} {reason}" for file, reason in list(bad.items())[:_NAMED])
    more = f", and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    count = f"{len(bad)} of {len(files)} pictures in {directory}"
    if on_bad == "refuse" or len(bad) == len(files):
        instead = "" if len(bad) == len(files) else ", or leave them out with on_bad 'skip'"
        raise UsageError(f"{count} cannot be used: {named}{more}: mend or remove them{instead}")
    warnings.warn(f"{count} left out: {named}{more}", stacklevel=3)
    return {file: header for file, header in good.items() if file not in bad}, [file.name for file in bad]
