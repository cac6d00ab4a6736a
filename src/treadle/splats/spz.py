"""Splats as `.spz`, Niantic's format: about a tenth of a PLY, under gzip.

A header of 16 bytes, then one attribute after the other: positions in 24 bits of fixed point, opacities in 8, colours
in 8 (0.15 of the first harmonic, about one half), log scales in 8 from -10 in steps of 1/16, rotations in 24 bits
(version 2) or 32 (version 3), harmonics in 8 bits from -1 to 1. Its axes are right, up, back: a PLY's (right, down,
front) are turned by 180 degrees about x on writing and back on reading, as Niantic's own converter does. Written after
the description and code at github.com/nianticlabs/spz (MIT). Version 4, which wants zstd, is not read.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from treadle.errors import UsageError
from treadle.files import read_regular, reason, write_whole
from treadle.splats.cloud import Cloud
from treadle.splats.opacity import from_bytes, to_bytes
from treadle.splats.ply import check_cloud, check_some

VERSIONS = (2, 3)
"""Those that are read and written."""

_HEADER = struct.Struct("<4sIIBBBx")
_MAGIC = b"NGSP"
_ANTIALIASED, _EXTENDED = 1, 2
_COLOR_SCALE = 0.15
_FINEST, _USUAL = 20, 12  # bits after the point
_BUCKETS = (8, 16)  # how coarse harmonics are, of 256 levels: those of degree 1, and the others
_MOST_DENSE = 1032  # bytes that deflate makes of one, at best
_EXTENSIONS = 2**20
_GZIP = 16 + zlib.MAX_WBITS

# What half a turn about x does to (x, y, z), to (w, x, y, z) and to the harmonics of degrees 1 to 3.
_FLIP = np.array([1, -1, -1], np.float32)
_FLIP_QUATERNION = np.array([1, 1, -1, -1], np.float32)
_FLIP_REST = np.array([-1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1], np.float32)


def write_spz(path: str | Path, cloud: Cloud, version: int = 3) -> int:
    """Write a cloud as an .spz file; returns its size in bytes. `extra` has no place in this format.

    Positions have 12 bits after the point, as Niantic's are written, fewer where the scene is too large for it, more
    where half of its splats are within 8 units of the origin.

    Raises:
        UsageError: no splats, another version than 2 or 3, positions beyond 8 million units, or `path` cannot be
            written.
    """
    if version not in VERSIONS:
        raise UsageError(f"version {version} of .spz cannot be written: expected 2 or 3")
    check_some(path, cloud)
    means, scales, quaternions, logits, dc, rest = (
        part.detach().cpu().float().numpy()
        for part in (cloud.means, cloud.log_scales, cloud.quaternions, cloud.logits, cloud.dc, cloud.rest)
    )
    bits = _fractional_bits(means)
    flags = _ANTIALIASED if cloud.antialiased else 0
    unit = quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True) * _FLIP_QUATERNION
    parts: list[bytes | NDArray[Any]] = [
        _HEADER.pack(_MAGIC, version, len(cloud), cloud.degree, bits, flags),
        _fixed(means * _FLIP, bits),
        to_bytes(logits),
        _levels(dc * (_COLOR_SCALE * 255) + 127.5),
        _levels((scales + 10) * 16),
        _first_three(unit) if version == 2 else _smallest_three(unit),
        _harmonics(rest * _FLIP_REST[: rest.shape[1], None]),
    ]
    plain = b"".join(part if isinstance(part, bytes) else part.tobytes() for part in parts)
    content = gzip.compress(plain, 6, mtime=0)  # the same cloud gives the same file
    try:
        write_whole(Path(path), content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None
    return len(content)


def read_spz(path: str | Path) -> Cloud:
    """Read a cloud from an .spz file of version 2 or 3.

    Raises:
        UsageError: a file that is missing, no .spz, of another version, damaged or cut off, or without splats.
    """
    path = Path(path)
    try:
        content = read_regular(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}") from None
    version, count, degree, bits, flags, body = _unzipped(path, content)
    harmonics = (degree + 1) ** 2 - 1
    sizes = _sizes(version, degree)
    ends = np.cumsum([0, *(size * count for size in sizes)])
    raw = np.frombuffer(body, np.uint8)
    positions, opacities, colors, scales, rotations, rest = (
        raw[start:end].reshape(count, size) for start, end, size in zip(ends[:-1], ends[1:], sizes, strict=True)
    )
    floats = rest.reshape(count, harmonics, 3).astype(np.float32) / 128 - 1
    unit = (_from_first_three if version == 2 else _from_smallest_three)(rotations)
    cloud = Cloud(
        means=torch.from_numpy(_from_fixed(positions, bits) * _FLIP),
        quaternions=torch.from_numpy(unit * _FLIP_QUATERNION),
        log_scales=torch.from_numpy(scales.astype(np.float32) / 16 - 10),
        logits=from_bytes(opacities[:, 0]),
        dc=torch.from_numpy(((colors / 255 - 0.5) / _COLOR_SCALE).astype(np.float32)),
        rest=torch.from_numpy(floats * _FLIP_REST[:harmonics, None]),
        antialiased=bool(flags & _ANTIALIASED),
    )
    check_cloud(path, cloud)
    return cloud


def _sizes(version: int, degree: int) -> list[int]:
    """Bytes of a splat's position, opacity, colour, scale, rotation and harmonics."""
    return [9, 1, 3, 3, 3 if version == 2 else 4, 3 * ((degree + 1) ** 2 - 1)]


def _unzipped(path: Path, content: bytes) -> tuple[int, int, int, int, int, bytes]:
    """The header's version, count, degree, fractional bits and flags, and what follows it, of the length it says."""
    again = "copy or export it again"
    if content[:4] == _MAGIC:
        raise UsageError(f"{path} is of version 4 of .spz or later: only versions 2 and 3 are read; convert it with: "
                         "splat-transform FILE --spz-version 3 OTHER.spz")  # fmt: skip
    if content[:2] != b"\x1f\x8b":
        raise UsageError(f"{path} is no .spz file: it does not begin as gzip does")
    stream = zlib.decompressobj(_GZIP)
    try:
        header = stream.decompress(content, _HEADER.size)
        if len(header) < _HEADER.size or header[:4] != _MAGIC:
            raise UsageError(f"{path} is no .spz file: it does not begin with NGSP under its gzip")
        _, version, count, degree, bits, flags = _HEADER.unpack(header)
        if version not in VERSIONS:
            raise UsageError(f"{path} is of version {version} of .spz: only versions 2 and 3 are read")
        if degree > 3:
            raise UsageError(f"{path} has harmonics of degree {degree}: at most 3 are read")
        if bits > 24:
            raise UsageError(f"{path} is damaged: its positions have {bits} bits after the point; {again}")
        if not count:
            raise UsageError(f"{path} has no splats")
        size = count * sum(_sizes(version, degree))
        if size > _MOST_DENSE * len(content):
            raise UsageError(f"{path} is cut off: its header promises {count} splats, which {len(content)} bytes "
                             f"cannot hold; {again}")  # fmt: skip
        body = stream.decompress(stream.unconsumed_tail, size) if size else b""
        rest = stream.decompress(stream.unconsumed_tail, _EXTENSIONS)
    except zlib.error:
        raise UsageError(f"{path} is damaged: its gzip cannot be unpacked; {again}") from None
    if len(body) < size or not stream.eof:
        raise UsageError(f"{path} is cut off: its header promises {count} splats; {again}")
    if rest and not flags & _EXTENDED:
        raise UsageError(f"{path} is damaged: it goes on after its {count} splats; {again}")
    return version, count, degree, bits, flags, body


def _fractional_bits(means: NDArray[np.float32]) -> int:
    furthest, usual = float(np.abs(means).max()), float(np.median(np.abs(means).max(1)))
    finest = np.floor(np.log2((2**23 - 1) / max(furthest, 1e-30)))
    if finest < 0:
        raise UsageError(f"positions reach {furthest:.3g}: .spz has room for 8388607; scale the scene down")
    wanted = max(_USUAL, np.floor(np.log2(2**15 / max(usual, 1e-30))))
    return int(min(finest, wanted, _FINEST))


def _fixed(values: NDArray[np.float32], bits: int) -> NDArray[np.uint8]:
    """24 bits, little-endian, of each value's sign and magnitude in steps of 2**-bits."""
    steps = np.round(values.astype(np.float64) * 2**bits).astype("<i4")
    return steps.view(np.uint8).reshape(*steps.shape, 4)[..., :3]


def _from_fixed(raw: NDArray[np.uint8], bits: int) -> NDArray[np.float32]:
    wide = np.zeros((len(raw), 3, 4), np.uint8)
    wide[..., 1:] = raw.reshape(-1, 3, 3)  # in the upper three bytes, so that the shift brings the sign along
    return ((wide.view("<i4")[..., 0] >> 8) / 2**bits).astype(np.float32)


def _levels(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.round(values).clip(0, 255).astype(np.uint8)


def _harmonics(rest: NDArray[np.float32]) -> NDArray[np.uint8]:
    """8 bits, of which the lower ones stay clear: that is what lets gzip pack them."""
    bucket = np.full((rest.shape[1], 1), _BUCKETS[1])
    bucket[:3] = _BUCKETS[0]
    level = np.round(rest * 128).astype(np.int32) + 128
    return ((level + bucket // 2) // bucket * bucket).clip(0, 255).astype(np.uint8)


def _first_three(unit: NDArray[np.float32]) -> NDArray[np.uint8]:
    """x, y and z, with w made positive."""
    return _levels(np.where(unit[:, :1] < 0, -unit[:, 1:], unit[:, 1:]) * 127.5 + 127.5)


def _from_first_three(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    xyz = raw / 127.5 - 1
    w = np.sqrt(np.maximum(1 - np.square(xyz).sum(1, keepdims=True), 0))
    return np.concatenate([w, xyz], 1).astype(np.float32)


def _smallest_three(unit: NDArray[np.float32]) -> NDArray[Any]:
    """The place of the largest part (of x, y, z, w), then sign and 9 bits of each of the others."""
    xyzw = unit[:, [1, 2, 3, 0]]
    largest = np.abs(xyzw).argmax(1)
    xyzw = xyzw * np.where(np.take_along_axis(xyzw, largest[:, None], 1) < 0, -1, 1)
    others = xyzw[np.arange(4) != largest[:, None]].reshape(-1, 3)
    sizes = (np.abs(others) * (511 * np.sqrt(2)) + 0.5).clip(0, 511).astype(np.uint32)
    fields = (others < 0).astype(np.uint32) << 9 | sizes
    return (largest.astype(np.uint32) << 30 | fields[:, 0] << 20 | fields[:, 1] << 10 | fields[:, 2]).astype("<u4")


def _from_smallest_three(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    word = np.ascontiguousarray(raw).view("<u4")[:, 0]
    fields = np.stack([word >> shift & 1023 for shift in (20, 10, 0)], 1)
    others = np.where(fields >> 9, -1, 1) * (fields & 511) / (511 * np.sqrt(2))
    xyzw = np.empty((len(word), 4))
    is_largest = np.arange(4) == (word >> 30)[:, None]
    xyzw[is_largest] = np.sqrt(np.maximum(1 - np.square(others).sum(1), 0))
    xyzw[~is_largest] = others.reshape(-1)
    return xyzw[:, [3, 0, 1, 2]].astype(np.float32)
