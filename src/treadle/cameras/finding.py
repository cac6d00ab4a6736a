"""Which file is the picture of which view: by name, never by order; and at which size and orientation it was taken."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from treadle.cameras.camera import Camera
from treadle.cameras.photographs import same_shape
from treadle.errors import UsageError, nearest
from treadle.images.folders import SUFFIXES, natural
from treadle.images.reading import BadPicture, picture_size

_NAMED = 3
"""Names in a message; the others are counted."""


@dataclass
class Found:
    """Pictures of the names that were looked for.

    Attributes:
        folder: where they lie.
        files: name -> file.
        missing: names without a file.
        others: pictures in that folder, by their names in it, that nobody has asked for.
    """

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def find_pictures(root: Path, names: Sequence[str], folder: str | None = None) -> Found:
    """Find the pictures `names` (paths below a folder of pictures) in the folder of `root` that has most of them.

    That folder is `images`, `images_N` (with the smallest N) or `root` itself. A picture may have another ending than
    its name, such as .png where it was cut out of a .jpg, if there is only one such.

    Args:
        root: the capture's folder.
        names: as a reconstruction has them.
        folder: the folder to look in, below `root`, instead.

    Raises:
        UsageError: `folder` is no folder.
    """
    if folder is not None:
        if not (root / folder).is_dir():
            known = [entry.name for entry in root.iterdir() if entry.is_dir()]
            raise UsageError(f"{root / folder}: no such folder of pictures{nearest(folder, known)}")
        return _find(root / folder, names, deep=True)
    reduced = [entry for entry in root.iterdir() if re.fullmatch(r"images_\d+", entry.name) and entry.is_dir()]
    folders = [root / "images", *sorted(reduced, key=lambda entry: natural(entry.name)), root]
    tries = [_find(entry, names, deep=entry != root) for entry in folders if entry.is_dir()]
    return max(tries, key=lambda found: len(found.files))  # the first of equals


def _find(folder: Path, names: Sequence[str], *, deep: bool) -> Found:
    there = list(_pictures(folder, deep))
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in there:
        by_stem[os.path.splitext(name)[0]].append(name)
    found = Found(folder)
    exact = set(there)
    plain = {name: name.replace("\\", "/") for name in names}
    taken = exact & set(plain.values())
    for name, own in plain.items():
        alike = by_stem[os.path.splitext(own)[0]]
        if own in exact or is_file(folder / own):  # in a folder that was not looked through, or of an unusual ending
            match = own
        elif len(alike) == 1 and alike[0] not in taken:
            match = alike[0]
        else:
            found.missing.append(name)
            continue
        taken.add(match)
        found.files[name] = folder / match
    found.others = sorted(exact - taken, key=natural)
    return found


def _pictures(folder: Path, deep: bool) -> Iterator[str]:
    """The names of the pictures in a folder, below it, too, if `deep`; with "/" between folders."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")] if deep else []
        below = Path(place).relative_to(folder)
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield (below / name).as_posix()


def is_file(path: Path) -> bool:
    """Whether there is such a file; no for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def find_mask(root: Path, name: str) -> Path | None:
    """The mask of the picture `name`: masks/NAME.png with or without the picture's own ending, or None.

    Where `name` begins with a folder of pictures (images/0001.jpg), that may be left out.
    """
    short = re.sub(r"^(\./)*images(_\d+)?/", "", name)
    tried = [f"{text}.png" for each in (name, short) for text in (each, os.path.splitext(each)[0])]
    return next((root / "masks" / each for each in tried if is_file(root / "masks" / each)), None)


def fitted(camera: Camera, picture: Path, source: Path) -> tuple[Camera, bool]:
    """The camera at the size of its picture, and whether the picture must be turned upright to be what it has seen.

    Raises:
        BadPicture: a file that cannot be used, or of another shape than the camera says.
    """
    stored = picture_size(picture, upright=False)
    if same_shape(stored, camera.size):
        return camera.resized(*stored), False
    upright = picture_size(picture)
    if same_shape(upright, camera.size):
        return camera.resized(*upright), True
    what = f"is {stored[0]} x {stored[1]} pixels, and its camera in {source} {camera.width} x {camera.height}"
    raise BadPicture(picture, what, "put back the picture that the camera was made for")


def listed(names: Sequence[str]) -> str:
    """The first few of `names`, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(shown, names[:_NAMED])) + more


def shown(name: str) -> str:
    """A name from a file as one line can show it."""
    return name if name.isprintable() else repr(name)
