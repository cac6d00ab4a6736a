"""PLY files: tables of numbers under names, as scanners, mesh tools and splats share them.

The container is our own: the package `plyfile` would bring its licence (GPL) with it, and reads lists row by row. Here
whatever has rows of one length is one call of NumPy, and a header's promises are held against the file's size before
memory is taken for them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError
from treadle.files import open_regular, reason, write_whole

Table = NDArray[Any]
"""The rows of an element: a structured array with a field for each property; a list is a field of shape (length,)."""

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_NAMES = {"i1": "char", "u1": "uchar", "i2": "short", "u2": "ushort", "i4": "int", "u4": "uint", "f4": "float",
          "f8": "double"}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_LONGEST_HEADER = 2**20
_AGAIN = "copy or export it again"


@dataclass(frozen=True, eq=False)
class Ply:
    """What a PLY file holds: its elements by name, in their order, and its comments."""

    elements: Mapping[str, Table]
    comments: Sequence[str] = ()


@dataclass(frozen=True)
class _Property:
    name: str
    kind: str
    count: str | None = None  # the type of a list's length


@dataclass(frozen=True)
class _Element:
    name: str
    rows: int
    properties: list[_Property]


def read_ply(path: str | Path, wanted: Collection[str] | None = None) -> Ply:
    """Read a PLY file, binary of either byte order or ASCII.

    Args:
        path: the file.
        wanted: the elements to return, all by default; what comes after the last of them is not read.

    Returns:
        Its elements; numbers in this machine's byte order.

    Raises:
        UsageError: a file that is missing, no PLY, damaged or cut off, or has lists of unequal length.
    """
    path = Path(path)
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            order, elements, comments = _header(path, file)
            last = max((place for place, e in enumerate(elements) if wanted is None or e.name in wanted), default=-1)
            tables = _ascii(path, file, elements[: last + 1]) if order == "" else {
                element.name: _binary(path, file, element, order) for element in elements[: last + 1]
            }  # fmt: skip
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}") from None
    return Ply({name: table for name, table in tables.items() if wanted is None or name in wanted}, comments)


def write_ply(path: str | Path, ply: Ply) -> int:
    """Write a PLY file, binary little-endian, whole or not at all; returns its size in bytes.

    Fields of shape (length,) become lists of uint8 length, as faces have them.

    Raises:
        UsageError: a comment of more than one line, or `path` cannot be written.
    """
    parts: list[bytes | memoryview] = [b""]
    header = ["ply", "format binary_little_endian 1.0"]
    for comment in ply.comments:
        if not comment.isascii() or not comment.isprintable():
            raise UsageError(f"a PLY file's comment is one line of ASCII, not {comment!r}")
        header.append(f"comment {comment}")
    for name, table in ply.elements.items():
        header.append(f"element {name} {len(table)}")
        fields: list[Any] = []
        for key in table.dtype.names or ():
            kind = table.dtype[key].base
            if table.dtype[key].shape:
                fields.append((f"{key}'", "u1"))
                header.append(f"property list uchar {_NAMES[kind.str[1:]]} {key}")
            else:
                header.append(f"property {_NAMES[kind.str[1:]]} {key}")
            fields.append((key, table.dtype[key].newbyteorder("<")))
        packed = np.dtype(fields)
        if packed != table.dtype:
            rows = np.empty(len(table), packed)
            for key in table.dtype.names or ():
                rows[key] = table[key]
                if table.dtype[key].shape:
                    rows[f"{key}'"] = table.dtype[key].shape[0]
            table = rows
        parts.append(np.ascontiguousarray(table).view(np.uint8).data if len(table) else b"")
    parts[0] = "\n".join([*header, "end_header\n"]).encode()
    content = b"".join(parts)
    try:
        write_whole(Path(path), content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None
    return len(content)


def columns(table: Table, names: Sequence[str]) -> NDArray[np.float32]:
    """The properties `names` of an element as a matrix of float32, (rows, names), a copy.

    Properties of one type are gathered in one pass over the rows; 62 passes would each read the whole file.
    """
    every = table.dtype.names or ()
    kinds = {table.dtype[name] for name in every}
    if len(kinds) == 1 and not next(iter(kinds)).shape:
        matrix = table.view(next(iter(kinds))).reshape(len(table), len(every))
        places = [every.index(name) for name in names]
        return np.ascontiguousarray(matrix[:, places], np.float32)
    out = np.empty((len(table), len(names)), np.float32)
    for place, name in enumerate(names):
        out[:, place] = table[name]
    return out


def read_points_ply(path: str | Path) -> tuple[NDArray[np.float64], NDArray[np.uint8] | None]:
    """Read a point cloud: points (n, 3) float64, and their colours (n, 3) uint8 or None where the file has none.

    Colours are `red`, `green`, `blue` as integers up to 255, or as floats in [0, 1]. Faces, if there are any, are left.

    Raises:
        UsageError: as `read_ply`; no points, no coordinates, or one that is not finite.
    """
    vertex = rows_of(path, read_ply(path, {"vertex"}), "vertex")
    points = np.stack([vertex[name].astype(np.float64) for name in _present(path, vertex, ("x", "y", "z"))], axis=1)
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        raise UsageError(f"{path}: point {int(bad.argmax())} of {len(points)} has a coordinate that is not finite: "
                         "remove such points")  # fmt: skip
    names = ("red", "green", "blue")
    if not set(names) <= set(vertex.dtype.names or ()):
        return points, None
    shades = np.stack([vertex[name] for name in names], axis=1)
    if np.issubdtype(shades.dtype, np.floating):
        shades = np.nan_to_num(shades).clip(0, 1) * 255 + 0.5
    return points, shades.clip(0, 255).astype(np.uint8)


def rows_of(path: str | Path, ply: Ply, name: str) -> Table:
    """The rows of an element, one at least; raises UsageError where there are none."""
    table = ply.elements.get(name)
    if table is None:
        raise UsageError(f"{path} is a PLY file without an element named {name}")
    if not len(table):
        raise UsageError(f"{path} is empty: its element {name} has 0 rows")
    return table


def _present(path: str | Path, table: Table, names: Sequence[str]) -> Sequence[str]:
    missing = [name for name in names if name not in (table.dtype.names or ())]
    if missing:
        raise UsageError(f"{path} has no property {missing[0]!r} in its vertices: expected {', '.join(names)}")
    return names


def _header(path: Path, file: IO[bytes]) -> tuple[str, list[_Element], list[str]]:
    """Byte order, elements and comments; the file then stands at its first row."""
    if file.readline(5).rstrip(b"\r\n") != b"ply":
        raise UsageError(f"{path} is no PLY file: it does not begin with the line 'ply'")
    order: str | None = None
    elements: list[_Element] = []
    comments: list[str] = []
    while True:
        raw = file.readline(_LONGEST_HEADER)
        if not raw.endswith(b"\n") or file.tell() > _LONGEST_HEADER:
            raise UsageError(f"{path} is damaged: its header has no end_header in {file.tell()} bytes; {_AGAIN}")
        line = raw.decode("latin-1").strip()
        words = line.split()
        if line == "end_header":
            break
        match words:
            case [] | ["obj_info", *_]:
                pass
            case ["comment", *_]:
                comments.append(line[7:].strip())
            case ["format", name, _] if name in _ORDERS:
                order = _ORDERS[name]
            case ["element", name, rows] if re.fullmatch(r"\d{1,18}", rows):
                elements.append(_Element(name, int(rows), []))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].properties.append(_Property(name, _TYPES[kind]))
            case ["property", "list", count, kind, name] if elements and {count, kind} <= _TYPES.keys():
                elements[-1].properties.append(_Property(name, _TYPES[kind], _TYPES[count]))
            case _:
                raise UsageError(f"{path}: its header has a line that PLY does not know, {line[:60]!r}; {_AGAIN}")
    if order is None:
        raise UsageError(f"{path}: its header does not say which format it has; {_AGAIN}")
    for what, names in [("element", [e.name for e in elements]),
                        *((f"property of {e.name}", [p.name for p in e.properties]) for e in elements)]:  # fmt: skip
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise UsageError(f"{path}: its header has two of {what} {twice!r}; {_AGAIN}")
    return order, elements, comments


def _row_type(element: _Element, lengths: Sequence[int], order: str) -> np.dtype[Any]:
    """A row whose lists have these lengths; the stored length of list `faces` is the field `faces'`."""
    fields: list[Any] = []
    rest = iter(lengths)
    for entry in element.properties:
        if entry.count is None:
            fields.append((entry.name, order + entry.kind))
        else:
            fields += [(f"{entry.name}'", order + entry.count), (entry.name, order + entry.kind, (next(rest),))]
    return np.dtype(fields)


def _binary(path: Path, file: IO[bytes], element: _Element, order: str) -> Table:
    lists = [entry for entry in element.properties if entry.count is not None]
    left = os.fstat(file.fileno()).st_size - file.tell()
    lengths = _first_lengths(file, element, order) if lists and element.rows else [0] * len(lists)
    row = _row_type(element, lengths, order)
    if row.itemsize * element.rows > left:
        raise UsageError(f"{path} is cut off: its header promises {element.rows} rows of {element.name}, which take "
                         f"{row.itemsize * element.rows} bytes, and {left} are left; {_AGAIN}")  # fmt: skip
    if not row.itemsize:
        return np.zeros(0, row)
    return _without_lengths(path, element, np.fromfile(file, row, element.rows), lengths)


def _first_lengths(file: IO[bytes], element: _Element, order: str) -> list[int]:
    """The lengths of the lists in an element's first row; the file stands where it stood."""
    start, lengths = file.tell(), []
    for entry in element.properties:
        if entry.count is None:
            file.seek(np.dtype(entry.kind).itemsize, os.SEEK_CUR)
        else:
            kind = np.dtype(order + entry.count)
            raw = file.read(kind.itemsize)
            lengths.append(int(np.frombuffer(raw, kind)[0]) if len(raw) == kind.itemsize else 0)
            lengths[-1] = min(max(lengths[-1], 0), 2**16)  # a longer one is damage, found below by its length
            file.seek(lengths[-1] * np.dtype(entry.kind).itemsize, os.SEEK_CUR)
    file.seek(start)
    return lengths


def _without_lengths(path: Path, element: _Element, table: Table, lengths: Sequence[int]) -> Table:
    """The rows in this machine's byte order and without the lengths of their lists, which must all be the same."""
    lists = [entry.name for entry in element.properties if entry.count is not None]
    for name, length in zip(lists, lengths, strict=True):
        if (table[f"{name}'"] != length).any():
            raise UsageError(f"{path}: the lists {name!r} of its element {element.name} differ in length: only equal "
                             "ones, such as triangles, are read")  # fmt: skip
    native = np.dtype([(entry.name, *_native(table.dtype[entry.name])) for entry in element.properties])
    if native == table.dtype:
        return table
    out = np.empty(len(table), native)
    for entry in element.properties:
        out[entry.name] = table[entry.name]
    return out


def _native(kind: np.dtype[Any]) -> tuple[Any, ...]:
    return (kind.base.newbyteorder("="), kind.shape)


def _ascii(path: Path, file: IO[bytes], elements: Sequence[_Element]) -> dict[str, Table]:
    """The elements of a text file: every number of it, cut into rows."""
    numbers = _numbers(path, file.read())
    tables, start = {}, 0
    for element in elements:
        lengths: list[int] = []
        width = 0
        for entry in element.properties:
            if entry.count is not None and element.rows:
                here = start + width
                lengths.append(int(np.nan_to_num(numbers[here])) if here < len(numbers) else 0)
                lengths[-1] = min(max(lengths[-1], 0), 2**16)
                width += lengths[-1]
            elif entry.count is not None:
                lengths.append(0)
            width += 1
        found = numbers[start : start + width * element.rows]
        if len(found) < width * element.rows:
            raise UsageError(f"{path} is cut off: its header promises {element.rows} rows of {element.name}, "
                             f"{width * element.rows} numbers, and {len(found)} are left; {_AGAIN}")  # fmt: skip
        start += width * element.rows
        table = np.empty(element.rows, _row_type(element, lengths, ""))
        place, matrix = 0, found.reshape(element.rows, width)
        for name in table.dtype.names or ():
            shape = table.dtype[name].shape
            size = shape[0] if shape else 1
            values = matrix[:, place : place + size]
            with np.errstate(invalid="ignore"):
                table[name] = (values if shape else values[:, 0]).astype(table.dtype[name].base)
            place += size
        tables[element.name] = _without_lengths(path, element, table, lengths)
    return tables


def _numbers(path: Path, text: bytes) -> NDArray[np.float64]:
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # what NumPy says of text that is no number
            return np.fromstring(text.decode("ascii"), np.float64, sep=" ")
    except (ValueError, DeprecationWarning):
        raise UsageError(f"{path} is damaged: its rows, which should be text, hold something that is no number; "
                         f"{_AGAIN}") from None  # fmt: skip
