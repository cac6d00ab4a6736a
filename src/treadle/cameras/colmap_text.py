"""COLMAP's text files: cameras.txt, images.txt and points3D.txt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from treadle.cameras.colmap import MODELS, ColmapCamera, ColmapImage, ColmapPoints
from treadle.errors import UsageError

_COUNTS = dict(MODELS.values())


def text_cameras(file: Path) -> list[ColmapCamera]:
    """Read cameras.txt: CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]. Raises UsageError, naming file and line."""
    cameras = []
    lines = _Lines(file)
    for number, line in lines.filled():
        words = line.split()
        with lines.expecting(number, "CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]"):
            name = words[1]
            if name not in _COUNTS or len(words) != 4 + _COUNTS[name]:
                raise ValueError
            width, height = int(words[2]), int(words[3])
            cameras.append(ColmapCamera(int(words[0]), name, width, height, tuple(map(float, words[4:]))))
    lines.check_number(len(cameras), "cameras")
    return cameras


def text_images(file: Path) -> list[ColmapImage]:
    """Read images.txt. Each image has two lines, IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME and POINTS2D[].

    The second one, of X Y POINT3D_ID again and again, may be empty. Raises UsageError, naming file and line.
    """
    images = []
    lines = _Lines(file)
    for number, line in lines.filled():
        with lines.expecting(number, "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"):
            words = line.split(maxsplit=9)
            if len(words) != 10:
                raise ValueError
            pose = np.array(words[1:8], np.float64)
            identity, camera = int(words[0]), int(words[8])
        second = lines.next()
        with lines.expecting(number + 1, "POINTS2D[] as X Y POINT3D_ID"):
            values = second.split()
            columns, rows = np.array(values[0::3], np.float64), np.array(values[1::3], np.float64)
            points = np.array(list(map(int, values[2::3])), np.int64)
            if len(values) % 3:
                raise ValueError
        images.append(
            ColmapImage(identity, words[9], camera, pose[:4], pose[4:], np.stack((columns, rows), axis=1), points)
        )
    lines.check_number(len(images), "images")
    return images


def text_points(file: Path) -> ColmapPoints:
    """Read points3D.txt: POINT3D_ID X Y Z R G B ERROR TRACK[] as IMAGE_ID POINT2D_IDX. Raises UsageError likewise."""
    ids, numbers, colors = [], [], []
    lines = _Lines(file)
    for number, line in lines.filled():
        words = line.split()
        with lines.expecting(number, "POINT3D_ID X Y Z R G B ERROR TRACK[] as IMAGE_ID POINT2D_IDX"):
            if len(words) < 8 or len(words) % 2:
                raise ValueError
            ids.append(int(words[0]))
            numbers.append([float(word) for word in (*words[1:4], words[7])])
            colors.append([int(word) for word in words[4:7]])
            if not all(0 <= color <= 255 for color in colors[-1]):
                raise ValueError
    lines.check_number(len(ids), "points")
    rows = np.array(numbers, np.float64).reshape(-1, 4)
    return ColmapPoints(
        np.array(ids, np.int64),
        rows[:, :3],
        np.array(colors, np.uint8).reshape(-1, 3),
        np.ascontiguousarray(rows[:, 3]),
    )


class _Lines:
    """The lines of a text file, with their numbers. A comment says how many entries there should be."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UsageError(
                f"{file} is no text: it is damaged, or no {file.name} of COLMAP's; copy it again"
            ) from None
        except OSError as error:
            raise UsageError(f"{file} cannot be read ({error.strerror or error}): check its permissions") from None
        self._lines = [line.rstrip("\r") for line in text.split("\n")]
        self._at = 0
        said = re.search(r"^# Number of \w+: (\d+)", text, re.MULTILINE)
        self._said = int(said[1]) if said else None

    def filled(self) -> Iterator[tuple[int, str]]:
        """The lines that are neither empty nor comments, from where the reading is, each with its number from 1."""
        while self._at < len(self._lines):
            line = self.next()
            if line.strip() and not line.startswith("#"):
                yield self._at, line

    def next(self) -> str:
        """The next line, whatever it holds; nothing after the last one."""
        self._at += 1
        return self._lines[self._at - 1] if self._at <= len(self._lines) else ""

    def expecting(self, number: int, what: str) -> _Expecting:
        """A context in which a ValueError or IndexError says that line `number` is not `what`."""
        return _Expecting(self._file, number, what)

    def check_number(self, found: int, what: str) -> None:
        """Raises UsageError where the comment at the top promised more or fewer entries."""
        if self._said is not None and self._said != found:
            raise UsageError(f"{self._file} says that it holds {self._said} {what} and holds {found}: it was cut off "
                             "or edited; copy it again, or mend that comment")  # fmt: skip


class _Expecting:
    def __init__(self, file: Path, number: int, what: str) -> None:
        self._file, self._number, self._what = file, number, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError | IndexError | OverflowError):
            raise UsageError(f"{self._file}, line {self._number}: expected {self._what}: it is damaged, or no "
                             f"{self._file.name} of COLMAP's; copy it again") from None  # fmt: skip
