"""Splats as `.compressed.ply`, the format of PlayCanvas and SuperSplat: 16 bytes each, and one for each harmonic.

Splats that lie near one another form chunks of 256. A chunk has the bounds of its positions, log scales and colours as
float32; a splat has four uint32: position 11 + 10 + 11 bits within the bounds, rotation as the three smaller parts of
the quaternion in 10 bits each with the place of the largest in 2, scale 11 + 10 + 11, colour and opacity 8 each.
Harmonics, from -4 to 4, take 8 bits. Written and read after the format's own description in PlayCanvas's engine and
`splat-transform` (MIT).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from treadle.cameras.ply import Ply, Table, columns, read_ply, rows_of, write_ply
from treadle.errors import UsageError
from treadle.splats.cloud import Cloud
from treadle.splats.opacity import from_bytes, to_bytes
from treadle.splats.ply import MIP, check_cloud, check_some, is_antialiased, numbered

CHUNK = 256
SH_C0 = 0.28209479177387814
LIMIT = 20.0
"""Logarithms of scales are kept within plus and minus this."""

_BOUNDS = ("", "scale_")
_PACKED = ["packed_position", "packed_rotation", "packed_scale", "packed_color"]
_PLACES = ((21, 11), (11, 10), (0, 11))  # shift and bits of x, y and z

Floats = NDArray[np.float32]
Words = NDArray[np.uint32]


def chunk_order(cloud: Cloud) -> torch.Tensor:
    """The order in which the splats are written, indices (n,): along a Z-order curve, so that chunks are small."""
    means = cloud.means.detach().double().cpu().numpy()
    low, high = means.min(0), means.max(0)
    cells = ((means - low) / np.maximum(high - low, 1e-300) * (2**21 - 1)).astype(np.uint64)
    code = np.zeros(len(means), np.uint64)
    for axis in range(3):
        spread = cells[:, axis]
        for shift, mask in ((32, 0x1F00000000FFFF), (16, 0x1F0000FF0000FF), (8, 0x100F00F00F00F00F),
                            (4, 0x10C30C30C30C30C3), (2, 0x1249249249249249)):  # fmt: skip
            spread = (spread | spread << np.uint64(shift)) & np.uint64(mask)
        code |= spread << np.uint64(axis)
    return torch.from_numpy(np.argsort(code, kind="stable"))


def write_compressed(path: str | Path, cloud: Cloud, comments: Sequence[str] = ()) -> int:
    """Write a cloud, in the order of `chunk_order`, as a compressed PLY; returns the file's size in bytes.

    `extra` has no place in this format.

    Raises:
        UsageError: no splats, or `path` cannot be written.
    """
    check_some(path, cloud)
    order = chunk_order(cloud)
    means, scales, quaternions, logits, dc = (
        part.detach().cpu()[order].float().numpy()
        for part in (cloud.means, cloud.log_scales, cloud.quaternions, cloud.logits, cloud.dc)
    )
    values = np.concatenate([means, scales.clip(-LIMIT, LIMIT), dc * np.float32(SH_C0) + np.float32(0.5)], 1)
    chunk_of = np.arange(len(values)) // CHUNK
    starts = np.arange(0, len(values), CHUNK)
    low = np.minimum.reduceat(values, starts, 0)
    high = np.maximum.reduceat(values, starts, 0)
    extent = np.maximum(high - low, np.float32(1e-30))
    shares = ((values - low[chunk_of]) / extent[chunk_of]).clip(0, 1)

    chunks = np.concatenate([low[:, :3], high[:, :3], low[:, 3:6], high[:, 3:6], low[:, 6:], high[:, 6:]], 1)
    packed = np.stack([_pack_three(shares[:, :3]), _pack_rotations(quaternions), _pack_three(shares[:, 3:6]),
                       _pack_colors(shares[:, 6:], to_bytes(logits))], 1)  # fmt: skip
    elements = {"chunk": _table(chunks, _chunk_names(), "<f4"), "vertex": _table(packed, _PACKED, "<u4")}
    if cloud.rest.shape[1]:
        rest = cloud.rest.detach().cpu()[order].transpose(1, 2).reshape(len(values), -1).float().numpy()
        levels = np.trunc((rest / 8 + 0.5) * 256).clip(0, 255).astype(np.uint8)
        elements["sh"] = _table(levels, numbered("f_rest", rest.shape[1]), "u1")
    return write_ply(path, Ply(elements, [*([MIP] if cloud.antialiased else []), *comments]))


def read_compressed(path: str | Path) -> Cloud:
    """Read a cloud from a compressed PLY, with or without bounds of colours.

    Raises:
        UsageError: no PLY, another one, damaged or cut off, without splats, or with bounds that are not finite.
    """
    path = Path(path)
    ply = read_ply(path)
    vertex, chunk = rows_of(path, ply, "vertex"), rows_of(path, ply, "chunk")
    _expect(path, "vertex", vertex, _PACKED, np.dtype(np.uint32))
    tinted = "min_r" in (chunk.dtype.names or ())
    _expect(path, "chunk", chunk, _chunk_names()[: 18 if tinted else 12], np.dtype(np.float32))
    if len(chunk) != -(-len(vertex) // CHUNK):
        raise UsageError(f"{path} is damaged: {len(vertex)} splats come in {-(-len(vertex) // CHUNK)} chunks of "
                         f"{CHUNK}, and it has {len(chunk)}")  # fmt: skip
    bounds = columns(chunk, _chunk_names()[: 18 if tinted else 12])
    rows = np.arange(len(vertex)) // CHUNK
    color: NDArray[Any] = np.stack([(vertex["packed_color"] >> shift & 255) / 255 for shift in (24, 16, 8)], 1)
    if tinted:
        color = _between(bounds[:, 12:15], bounds[:, 15:18], rows, color)
    rest = _rest(path, ply.elements.get("sh"), len(vertex))
    cloud = Cloud(
        means=torch.from_numpy(_between(bounds[:, :3], bounds[:, 3:6], rows, _three(vertex["packed_position"]))),
        quaternions=torch.from_numpy(_rotations(vertex["packed_rotation"])),
        log_scales=torch.from_numpy(_between(bounds[:, 6:9], bounds[:, 9:12], rows, _three(vertex["packed_scale"]))),
        logits=from_bytes((vertex["packed_color"] & 255).astype(np.uint8)),
        dc=torch.from_numpy(((color - 0.5) / SH_C0).astype(np.float32)),
        rest=rest,
        antialiased=is_antialiased(ply.comments),
    )
    check_cloud(path, cloud)
    return cloud


def _chunk_names() -> list[str]:
    axes = [f"{end}_{kind}{axis}" for kind in _BOUNDS for end in ("min", "max") for axis in "xyz"]
    return axes + [f"{end}_{color}" for end in ("min", "max") for color in "rgb"]


def _table(matrix: NDArray[Any], names: Sequence[str], kind: str) -> Table:
    return np.ascontiguousarray(matrix, kind).view([(name, kind) for name in names])[:, 0]


def _expect(path: Path, element: str, table: Table, names: Sequence[str], kind: np.dtype[Any]) -> None:
    for name in names:
        if name not in (table.dtype.names or ()) or table.dtype[name] != kind:
            raise UsageError(f"{path} is no compressed PLY of splats: its element {element} has no {kind} {name!r}")


def _between(low: Floats, high: Floats, rows: NDArray[np.int64], shares: NDArray[Any]) -> Floats:
    return (low[rows] * (1 - shares) + high[rows] * shares).astype(np.float32)


def _pack_three(shares: Floats) -> Words:
    word = np.zeros(len(shares), np.uint32)
    for axis, (shift, bits) in enumerate(_PLACES):
        word |= (shares[:, axis] * np.float32(2**bits - 1) + np.float32(0.5)).astype(np.uint32) << np.uint32(shift)
    return word


def _three(word: Words) -> Floats:
    parts = [(word >> np.uint32(shift) & np.uint32(2**bits - 1)) / np.float32(2**bits - 1) for shift, bits in _PLACES]
    return np.stack(parts, 1).astype(np.float32)


def _pack_colors(shares: Floats, opacities: NDArray[np.uint8]) -> Words:
    levels = (shares * 255 + np.float32(0.5)).astype(np.uint32)
    return np.asarray(levels[:, 0] << 24 | levels[:, 1] << 16 | levels[:, 2] << 8 | opacities, np.uint32)


def _pack_rotations(quaternions: Floats) -> Words:
    """The place of the largest part (w, x, y, z count 0 to 3), which is made positive, then the others."""
    unit = quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)
    largest = np.abs(unit).argmax(1)
    unit = unit * np.where(np.take_along_axis(unit, largest[:, None], 1) < 0, -1, 1)
    others = unit[np.arange(4) != largest[:, None]].reshape(-1, 3)
    levels = ((others * np.sqrt(0.5) + 0.5) * 1023 + 0.5).clip(0, 1023).astype(np.uint32)
    return largest.astype(np.uint32) << 30 | levels[:, 0] << 20 | levels[:, 1] << 10 | levels[:, 2]


def _rotations(word: Words) -> Floats:
    others = np.stack([((word >> shift & 1023) / 1023 - 0.5) * np.sqrt(2) for shift in (20, 10, 0)], 1)
    largest = np.sqrt(np.maximum(1 - np.square(others).sum(1), 0))
    quaternions = np.empty((len(word), 4), np.float32)
    is_largest = np.arange(4) == (word >> 30)[:, None]
    quaternions[is_largest] = largest
    quaternions[~is_largest] = others.reshape(-1)
    return quaternions


def _rest(path: Path, table: Table | None, count: int) -> torch.Tensor:
    if table is None:
        return torch.zeros(count, 0, 3)
    names = table.dtype.names or ()
    if len(names) not in (9, 24, 45):
        raise UsageError(f"{path} has {len(names)} harmonics a splat: expected 9, 24 or 45 (degrees 1 to 3)")
    _expect(path, "sh", table, numbered("f_rest", len(names)), np.dtype(np.uint8))
    if len(table) != count:
        raise UsageError(f"{path} is damaged: it has harmonics of {len(table)} splats, and {count} splats")
    levels = columns(table, numbered("f_rest", len(names)))
    shares = np.where(levels == 0, 0, np.where(levels == 255, 1, (levels + 0.5) / 256))
    rest = torch.from_numpy(((shares - 0.5) * 8).astype(np.float32))
    return rest.view(count, 3, -1).transpose(1, 2).contiguous()
