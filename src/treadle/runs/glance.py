"""A metric log at a glance: what a table or a picture on a terminal needs of it, however long it is.

Of a log of up to `SHORT` bytes that is every line. Of a longer one it is the end, a stretch of lines every so often,
and whatever is unlike these: validations, and training lines with other metrics.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from treadle.errors import RunError
from treadle.files import open_regular, reason
from treadle.runs.metrics import METRICS, TRAINING, Points, collect, parse_line

SHORT = 1 << 20
"""Bytes that are read in full, and about as many as are taken from a longer log."""
BLOCK = 1 << 20
"""Bytes read at a time."""
PIECE = 16 << 10
"""Bytes of a block that are looked at together, for lines unlike the others."""
UNLIKE = 4
"""Of these, how many are taken from a piece: in most logs all."""


def glance(run: str | Path) -> Iterator[dict[str, Any]]:
    """The lines that tell what the run in a directory has logged, in their order; values as in the file.

    Raises RunError naming the file, and a damaged line that comes into view.
    """
    path = Path(run) / METRICS
    count, kinds = 0, set[int]()
    for block, share, last in _blocks(path):
        cut = len(block) if share >= 1 else block.find(b"\n", int(share * len(block))) + 1
        lines = block[:cut].split(b"\n")[:-1]
        for number, line in enumerate(lines, count + 1):
            yield parse_line(path, number, line)
        kinds.update(line.count(b'"') for line in lines if line.startswith(TRAINING))
        count += len(lines)
        while cut < len(block):
            end = block.find(b"\n", min(cut + PIECE, len(block) - 1)) + 1
            piece, cut = block[cut:end], end
            number = piece.count(b"\n")
            at_end = last and end == len(block)
            if at_end or piece.count(TRAINING) < number or {piece.count(b'"')} != {kind * number for kind in kinds}:
                for offset, line in _unlike(piece.split(b"\n")[:-1], kinds, at_end):
                    yield parse_line(path, count + offset + 1, line)
            count += number


def _unlike(lines: list[bytes], kinds: Collection[int], at_end: bool) -> list[tuple[int, bytes]]:
    """Those of `lines`, with their places, that are no training lines like others, some of them where there are many.

    `kinds` has how many quotation marks the others have, which tells names and NaN apart. The end of a log counts, too:
    it is what the run has come to.
    """
    found = [
        offset for offset, line in enumerate(lines) if not (line.startswith(TRAINING) and line.count(b'"') in kinds)
    ]
    taken = set(found[:: -(-len(found) // UNLIKE) or 1])
    if at_end:
        taken.update(range(max(0, len(lines) - 100), len(lines)))
    return [(offset, lines[offset]) for offset in sorted(taken)]


def glance_series(run: str | Path) -> dict[str, Points]:
    """What `all_series` gives, of the lines that `glance` does: enough for a picture."""
    return collect(glance(run))


def last_line(run: str | Path) -> dict[str, Any]:
    """The last whole line of a run's metric log; empty where there is none. Raises RunError where it is damaged."""
    path = Path(run) / METRICS
    for tail, whole in _ends(path):
        lines = tail[: tail.rfind(b"\n") + 1].split(b"\n")[:-1]
        if lines and (whole or len(lines) > 1):
            return parse_line(path, "the last", lines[-1])
    return {}


def _blocks(path: Path) -> Iterator[tuple[bytes, float, bool]]:
    """Whole lines of a file in blocks; which share of each is to be read in full; and whether it is the last."""
    file = _open(path)
    if file is None:
        return
    with file:
        size = os.fstat(file.fileno()).st_size
        share = SHORT / size if size > SHORT else 1.0
        held, left = b"", size
        while left > 0 and (read := file.read(min(BLOCK, left))):
            left -= len(read)
            end = read.rfind(b"\n") + 1
            if end:
                yield held + read[:end], share, left == 0
                held = read[end:]
            else:
                held += read


def _ends(path: Path) -> Iterator[tuple[bytes, bool]]:
    """The end of a file, each time a longer one, and whether that is all of it."""
    file = _open(path)
    if file is None:
        return
    with file:
        size = os.fstat(file.fileno()).st_size
        take = 1 << 14
        while True:
            file.seek(max(0, size - take))
            yield file.read(take), take >= size
            if take >= size:
                return
            take *= 8


def _open(path: Path) -> Any:
    try:
        return os.fdopen(open_regular(path), "rb", buffering=0)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {reason(error)}") from None
